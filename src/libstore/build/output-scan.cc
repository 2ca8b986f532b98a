#include "libstore/build/output-scan.hh"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-nar.hh"
#include "libstore/build/pipelined-sink.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

bool takeHit(const PartHit &hit, const std::vector<bool> &rewritable, uint64_t &end) {
    if (!rewritable[hit.part] || hit.offset < end) {
        return false;
    }
    end = hit.offset + HashPartSet::length;
    return true;
}

namespace {

/// The archive's hashes; given up once it is known that the archive will be another.
class ArchiveHashes : public Sink {
  public:
    explicit ArchiveHashes(const std::optional<HashAlgorithm> &further) {
        if (further) {
            further_.emplace(*further);
        }
    }

    void write(std::string_view bytes) override {
        if (further_) {
            further_->write(bytes);
        }
        if (!givenUp_) {
            pipeline_.write(bytes);
        }
    }

    void giveUp() { givenUp_ = true; }

    void finish(ScanResult &result) {
        if (!givenUp_) {
            pipeline_.finish();
            result.nar = HashAndSize{sha256_.current(), sha256_.byteCount()};
        }
        if (further_) {
            result.archiveHash = further_->current();
        }
    }

  private:
    HashSink sha256_{HashAlgorithm::sha256};
    PipelinedSink pipeline_{sha256_};
    std::optional<HashSink> further_;
    bool givenUp_ = false;
};

class OutputScanner : public OutputNarWriter {
  public:
    OutputScanner(const OutputTree &tree, const ScanOptions &options, ArchiveHashes &hashes)
        : OutputNarWriter(tree, hashes),
          options_(options),
          hashes_(hashes),
          scanner_(*options.parts, [this](const PartHit &hit) { noteContents(hit); }) {
        result_.found.resize(options.parts->size());
        result_.heads.resize(tree.nodes.size());
        if (options.contentsHash) {
            contentsHash_.emplace(*options.contentsHash);
        }
    }

    ScanResult scan(int dir);

    void leaveDirectory(int self, uint32_t node) override;

  protected:
    void seeName(uint32_t node) override;
    void seeTarget(uint32_t node) override;
    UniqueFd openContents(int dir, uint32_t node) override;
    void seeContents(uint32_t node, std::string_view bytes) override;
    void passBlock(int fd, uint32_t node, std::span<char> block, bool isLast) override;
    void closeContents(int dir, uint32_t node, UniqueFd file) override;
    void abandonContents() noexcept override { replacement_.reset(); }

  private:
    TouchedNode &touch(uint32_t node);
    void noteContents(const PartHit &hit);
    void noteFirst(TouchedNode &touched);
    void noteHead(uint32_t node, std::string_view bytes);
    void giveUp();
    std::vector<PartHit> findIn(const std::string &text);
    void startReplacement(int dir, uint32_t node);
    void rewriteIn(int fd, uint32_t node, std::span<char> bytes);

    const ScanOptions &options_;
    ArchiveHashes &hashes_;
    ScanResult result_;
    std::optional<HashSink> contentsHash_;

    ReferenceScanner scanner_;
    uint32_t file_ = 0; ///< being scanned
    FileHead head_;     ///< its first bytes, as far as they came
    size_t headSize_ = 0;
    bool untouched_ = false;  ///< no occurrence in it may be rewritten, so far
    uint64_t takenUntil_ = 0; ///< end of the last occurrence in it that may be rewritten
    size_t kept_ = 0;         ///< occurrences in all contents

    UnlockedDirectories renewing_; ///< where files were put on new inodes
    std::optional<ReplacementFile> replacement_;
    bool copying_ = false; ///< what is read has to be written to the replacement

    // Rewriting while reading. An occurrence may begin in the last bytes that came, and is not known before
    // the next ones, so some are held back: a page of them, as the new file is best written in whole pages.
    static_assert(headroom >= HashPartSet::length - 1);
    bool givenUp_ = false;   ///< what is read from here on is not the archive that will be
    bool rewriting_ = false; ///< in the file that is read, should anything be found
    std::array<char, headroom> held_;
    size_t heldSize_ = 0;
    uint64_t passed_ = 0;          ///< bytes of the file that were passed on; what is held follows
    std::vector<PartHit> pending_; ///< behind those
    int fileDir_ = -1;             ///< of the file that is read
};

/// The archive will be another than the one that is read.
void OutputScanner::giveUp() {
    hashes_.giveUp();
    givenUp_ = true;
}

TouchedNode &OutputScanner::touch(uint32_t node) {
    if (result_.touched.empty() || result_.touched.back().node != node) {
        result_.touched.push_back({node, {}, {}, {}});
    }
    return result_.touched.back();
}

/// Notes every part that is found, returns those that may be rewritten.
std::vector<PartHit> OutputScanner::findIn(const std::string &text) {
    std::vector<PartHit> taken;
    uint64_t end = 0;
    options_.parts->scan(text, 0, [&](const PartHit &hit) {
        result_.found[hit.part] = true;
        if (takeHit(hit, options_.rewritable, end)) {
            taken.push_back(hit);
        }
    });
    return taken;
}

void OutputScanner::seeName(uint32_t node) {
    if (std::vector<PartHit> hits = findIn(tree_.nodes[node].name); !hits.empty()) {
        touch(node).name = std::move(hits);
        giveUp();
    }
}

void OutputScanner::seeTarget(uint32_t node) {
    if (std::vector<PartHit> hits = findIn(tree_.nodes[node].target); !hits.empty()) {
        touch(node).target = std::move(hits);
        giveUp();
    }
}

void OutputScanner::noteContents(const PartHit &hit) {
    result_.found[hit.part] = true;
    if (!takeHit(hit, options_.rewritable, takenUntil_)) {
        return;
    }
    TouchedNode &touched = touch(file_);
    if (std::exchange(untouched_, false)) {
        noteFirst(touched);
    }
    if (touched.isRewritten) {
        pending_.push_back(hit);
    }
    if (touched.everywhere) {
        return;
    }
    touched.contents.push_back(hit);
    if (++kept_ > options_.maxHits) {
        kept_ -= touched.contents.size();
        touched.contents = {};
        touched.everywhere = true;
    }
}

/// The first occurrence in a file's contents that may be rewritten.
void OutputScanner::noteFirst(TouchedNode &touched) {
    bool stays = options_.mustStay && options_.mustStay(result_.heads[file_]);
    touched.isRewritten = rewriting_ && !stays;
    if (!touched.isRewritten) {
        giveUp();
    }
}

void OutputScanner::startReplacement(int dir, uint32_t node) {
    if (node != 0) {
        renewing_.unlock(dir, tree_.nodes[node].parent);
    }
    replacement_.emplace(dir, tree_, node);
}

UniqueFd OutputScanner::openContents(int dir, uint32_t node) {
    scanner_.begin();
    file_ = node;
    fileDir_ = dir;
    rewriting_ = options_.replacements != nullptr && !givenUp_;
    heldSize_ = 0;
    passed_ = 0;
    headSize_ = 0;
    untouched_ = true;
    takenUntil_ = 0;
    UniqueFd fd = OutputNarWriter::openContents(dir, node);
    const OutputNode &file = tree_.nodes[node];
    if (!options_.renewFiles && !file.linkedOutside) {
        return fd;
    }
    startReplacement(dir, node);
    copying_ = !replacement_->cloneFrom(fd.get());
    return copying_ ? std::move(fd) : replacement_->reopen();
}

void OutputScanner::noteHead(uint32_t node, std::string_view bytes) {
    size_t count = std::min(bytes.size(), head_.size() - headSize_);
    std::copy_n(bytes.begin(), count, head_.begin() + headSize_);
    headSize_ += count;
    if (headSize_ == head_.size()) {
        result_.heads[node] = head_;
    }
}

void OutputScanner::seeContents(uint32_t node, std::string_view bytes) {
    if (headSize_ < head_.size()) {
        noteHead(node, bytes);
    }
    scanner_.write(bytes);
    if (contentsHash_) {
        contentsHash_->write(bytes);
    }
    if (replacement_ && copying_ && !rewriting_) {
        replacement_->write(bytes);
    }
}

void OutputScanner::passBlock(int fd, uint32_t node, std::span<char> block, bool isLast) {
    if (!rewriting_) {
        OutputNarWriter::passBlock(fd, node, block, isLast);
        return;
    }
    seeContents(node, {block.data(), block.size()});
    std::span<char> bytes{block.data() - heldSize_, heldSize_ + block.size()};
    std::copy_n(held_.begin(), heldSize_, bytes.begin());
    if (!pending_.empty()) {
        rewriteIn(fd, node, bytes);
    }
    heldSize_ = isLast ? 0 : std::min(bytes.size(), held_.size());
    size_t toPass = bytes.size() - heldSize_;
    if (replacement_ && copying_) {
        replacement_->write({bytes.data(), toPass});
    }
    putContents({bytes.data(), toPass});
    passed_ += toPass;
    std::copy(bytes.begin() + static_cast<ptrdiff_t>(toPass), bytes.end(), held_.begin());
}

/// In bytes that follow what was passed on. The new file is made when the first occurrence is known; a clone
/// has everything already.
void OutputScanner::rewriteIn(int fd, uint32_t node, std::span<char> bytes) {
    if (!replacement_) {
        startReplacement(fileDir_, node);
        copying_ = !replacement_->cloneFrom(fd);
        if (copying_) {
            replacement_->copyFrom(fd, passed_);
        }
    }
    for (const PartHit &hit : pending_) {
        std::string_view replacement = (*options_.replacements)[hit.part];
        std::copy(replacement.begin(), replacement.end(),
                  bytes.begin() + static_cast<ptrdiff_t>(hit.offset - passed_));
        if (!copying_) {
            replacement_->writeAt(replacement, hit.offset);
        }
    }
    pending_.clear();
}

void OutputScanner::closeContents(int, uint32_t, UniqueFd file) {
    if (replacement_) {
        replacement_->commit(copying_ ? std::move(file) : UniqueFd());
        replacement_.reset();
    }
}

void OutputScanner::leaveDirectory(int self, uint32_t node) {
    renewing_.lock(self, node);
    OutputNarWriter::leaveDirectory(self, node);
}

ScanResult OutputScanner::scan(int dir) {
    writeFrom(dir);
    hashes_.finish(result_);
    if (contentsHash_) {
        result_.contentsHash = contentsHash_->current();
    }
    return std::move(result_);
}

} // namespace

ScanResult scanOutput(int dir, const OutputTree &tree, const ScanOptions &options) {
    ArchiveHashes hashes(options.archiveHash);
    return OutputScanner(tree, options, hashes).scan(dir);
}

} // namespace firn
