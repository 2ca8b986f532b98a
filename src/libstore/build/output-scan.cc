#include "libstore/build/output-scan.hh"

#include <algorithm>
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
    void closeContents(int dir, uint32_t node, UniqueFd file) override;
    void abandonContents() noexcept override { replacement_.reset(); }

  private:
    TouchedNode &touch(uint32_t node);
    void noteContents(const PartHit &hit);
    void noteHead(uint32_t node, std::string_view bytes);
    std::vector<PartHit> findIn(const std::string &text);

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
};

TouchedNode &OutputScanner::touch(uint32_t node) {
    hashes_.giveUp();
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
    }
}

void OutputScanner::seeTarget(uint32_t node) {
    if (std::vector<PartHit> hits = findIn(tree_.nodes[node].target); !hits.empty()) {
        touch(node).target = std::move(hits);
    }
}

void OutputScanner::noteContents(const PartHit &hit) {
    result_.found[hit.part] = true;
    if (!takeHit(hit, options_.rewritable, takenUntil_)) {
        return;
    }
    TouchedNode &touched = touch(file_);
    if (std::exchange(untouched_, false) && options_.onTouchedFile) {
        options_.onTouchedFile(result_.heads[file_]);
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

UniqueFd OutputScanner::openContents(int dir, uint32_t node) {
    scanner_.begin();
    file_ = node;
    headSize_ = 0;
    untouched_ = true;
    takenUntil_ = 0;
    UniqueFd fd = OutputNarWriter::openContents(dir, node);
    const OutputNode &file = tree_.nodes[node];
    if (!options_.renewFiles && !file.linkedOutside) {
        return fd;
    }
    if (node != 0) {
        renewing_.unlock(dir, file.parent);
    }
    replacement_.emplace(dir, tree_, node);
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
    if (replacement_ && copying_) {
        replacement_->write(bytes);
    }
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
