#include "libstore/build/output-scan.hh"

#include <algorithm>
#include <utility>

#include "libstore/build/output-scanner.hh"

namespace firn {

bool takeHit(const PartHit &hit, const std::vector<bool> &rewritable, uint64_t &end) {
    if (!rewritable[hit.part] || hit.offset < end) {
        return false;
    }
    end = hit.offset + HashPartSet::length;
    return true;
}

// ---- ArchiveHashes

ArchiveHashes::ArchiveHashes(const std::optional<HashAlgorithm> &further) {
    if (further) {
        further_.emplace(*further);
    }
}

void ArchiveHashes::write(std::string_view bytes) {
    if (further_) {
        further_->write(bytes);
    }
    if (!givenUp_) {
        pipeline_.write(bytes);
    }
}

void ArchiveHashes::finish(ScanResult &result) {
    if (!givenUp_) {
        pipeline_.finish();
        result.nar = HashAndSize{sha256_.current(), sha256_.byteCount()};
    }
    if (further_) {
        result.archiveHash = further_->current();
    }
}

// ---- OutputScanner

OutputScanner::OutputScanner(const OutputTree &tree, const ScanOptions &options, ArchiveHashes &hashes)
    : OutputNarWriter(tree, hashes),
      options_(options),
      hashes_(hashes),
      scanner_(*options.parts, [this](const PartHit &hit) { noteOccurrence(hit); }) {
    result_.found.resize(options.parts->size());
    result_.heads.resize(tree.nodes.size());
    if (options.contentsHash) {
        contentsHash_.emplace(*options.contentsHash);
    }
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
        hashes_.giveUp();
    }
}

void OutputScanner::seeTarget(uint32_t node) {
    if (std::vector<PartHit> hits = findIn(tree_.nodes[node].target); !hits.empty()) {
        touch(node).target = std::move(hits);
        hashes_.giveUp();
    }
}

void OutputScanner::noteOccurrence(const PartHit &hit) {
    result_.found[hit.part] = true;
    if (!takeHit(hit, options_.rewritable, takenUntil_)) {
        return;
    }
    TouchedNode &touched = touch(file_);
    if (std::exchange(untouched_, false)) {
        uint64_t size = tree_.nodes[file_].size;
        onTouched(touched, options_.onTouchedFile ? options_.onTouchedFile(result_.heads[file_], size) : 0);
    }
    onOccurrence(hit);
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

void OutputScanner::onTouched(TouchedNode &, uint64_t) {
    hashes_.giveUp();
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
    headSize_ = 0;
    untouched_ = true;
    takenUntil_ = 0;
    UniqueFd fd = OutputNarWriter::openContents(dir, node);
    if (!isToBeRenewed(node)) {
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

void OutputScanner::see(uint32_t node, std::string_view block) {
    if (headSize_ < head_.size()) {
        noteHead(node, block);
    }
    scanner_.write(block);
    if (contentsHash_) {
        contentsHash_->write(block);
    }
}

void OutputScanner::passBlock(int, uint32_t node, std::span<char> block, bool) {
    std::string_view bytes(block.data(), block.size());
    see(node, bytes);
    if (replacement_ && copying_) {
        replacement_->write(bytes);
    }
    putContents(bytes);
}

void OutputScanner::closeContents(int, uint32_t, UniqueFd file) {
    if (replacement_) {
        replacement_->commit(std::move(file));
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

ScanResult scanOutput(int dir, const OutputTree &tree, const ScanOptions &options) {
    ArchiveHashes hashes(options.archiveHash);
    return options.rewrites ? RewritingScanner(tree, options, hashes).scan(dir)
                            : OutputScanner(tree, options, hashes).scan(dir);
}

} // namespace firn
