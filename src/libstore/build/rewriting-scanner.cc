#include <algorithm>
#include <utility>

#include <unistd.h>

#include "libstore/build/output-scanner.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

UniqueFd RewritingScanner::openContents(int dir, uint32_t node) {
    fileDir_ = dir;
    rewriting_ = !hashes_.isGivenUp();
    begun_ = false;
    backSize_ = 0;
    seen_ = passed_ = 0;
    pending_.clear();
    waitFrom_ = never;
    waiting_ = false;
    UniqueFd fd = OutputScanner::openContents(dir, node);
    renews_ = replacement_.has_value() && copying_;
    return fd;
}

void RewritingScanner::onTouched(TouchedNode &touched, uint64_t changing) {
    if (!rewriting_) {
        OutputScanner::onTouched(touched, changing);
        return;
    }
    touched.isRewritten = true;
    if (changing > 0) {
        uint64_t size = tree_.nodes[touched.node].size;
        waitFrom_ = std::max(passed_, size - std::min(size, changing));
    }
}

void RewritingScanner::passBlock(int fd, uint32_t node, std::span<char> block, bool isLast) {
    if (!rewriting_) {
        OutputScanner::passBlock(fd, node, block, isLast);
        return;
    }
    see(node, {block.data(), block.size()});
    if (!waiting_) {
        advance(fd, node, {block.data() - backSize_, backSize_ + block.size()}, isLast);
    } else if (renews_) {
        replacement_->writeAt({block.data(), block.size()}, seen_);
    }
    seen_ += block.size();
    pending_.clear();
    if (isLast && waiting_) {
        passRest(fd, node);
    }
}

/// `bytes` follow what was passed on. Passes on what is known not to change any more.
void RewritingScanner::advance(int fd, uint32_t node, std::span<char> bytes, bool isLast) {
    std::copy_n(back_.begin(), backSize_, bytes.begin());
    rewriteIn(fd, node, bytes);
    size_t ready = bytes.size() - (isLast ? 0 : std::min(bytes.size(), back_.size()));
    if (waitFrom_ <= passed_ + ready) {
        ready = waitFrom_ - passed_;
        waiting_ = true;
    }
    std::string_view passing(bytes.data(), ready), rest(bytes.data() + ready, bytes.size() - ready);
    if (replacement_ && copying_) {
        replacement_->writeAt(passing, passed_);
    }
    putContents(passing);
    passed_ += ready;
    if (waiting_ && renews_) {
        replacement_->writeAt(rest, passed_); // from where it is read again
    }
    backSize_ = waiting_ ? 0 : rest.size();
    std::copy_n(rest.begin(), backSize_, back_.begin());
}

/// All that was found in `bytes`, up to what waits: that begins where no occurrence is cut.
void RewritingScanner::rewriteIn(int fd, uint32_t node, std::span<char> bytes) {
    if (!pending_.empty() && !begun_) {
        beginRewriting(fd, node);
    }
    for (const PartHit &hit : pending_) {
        if (hit.offset >= waitFrom_) {
            break;
        }
        const std::string &replacement = options_.rewrites->replacements[hit.part];
        waitFrom_ = std::max(waitFrom_, hit.offset + replacement.size());
        std::copy(replacement.begin(), replacement.end(),
                  bytes.begin() + static_cast<ptrdiff_t>(hit.offset - passed_));
        if (!copying_) {
            replacement_->writeAt(replacement, hit.offset);
        }
    }
}

/// The new file is made when the first occurrence is known. A clone has everything already; where it is one
/// of a clone, which was made because others hold the file, that one is read on, and needs no name.
void RewritingScanner::beginRewriting(int fd, uint32_t node) {
    begun_ = true;
    if (renews_) {
        return;
    }
    replacement_.reset();
    startReplacement(fileDir_, node);
    copying_ = !replacement_->cloneFrom(fd);
    if (copying_) {
        replacement_->copyFrom(fd, passed_);
    }
}

namespace {

/// What is left of a file from `begin` to `end`, neither more nor less.
class Rest : public Sink {
  public:
    using Put = std::function<void(std::string_view bytes, uint64_t offset)>;
    Rest(std::string path, uint64_t begin, uint64_t end, Put put)
        : path_(std::move(path)), at_(begin), end_(end), put_(std::move(put)) {}

    void write(std::string_view bytes) override {
        require(bytes.size() <= end_ - at_);
        put_(bytes, at_);
        at_ += bytes.size();
    }

    void finish() const { require(at_ == end_); }

  private:
    void require(bool sameSize) const {
        if (!sameSize) {
            throw Error(ErrorKind::failure, "'{}' changed its size while it was read",
                        escapeForDisplay(path_));
        }
    }

    std::string path_;
    uint64_t at_, end_;
    Put put_;
};

} // namespace

/// Everything is known about the file now: what waits is read once more, and goes on its way.
void RewritingScanner::passRest(int fd, uint32_t node) {
    TouchedNode &touched = result_.touched.back();
    NodePatches change = changeOf(touched, *options_.rewrites);
    touched.repairs = options_.repairFile(change, fd);
    auto wasPassed = [this](const Patch &patch) { return patch.offset < waitFrom_; };
    if (std::ranges::any_of(touched.repairs, wasPassed)) {
        touched.isRewritten = false;
        hashes_.giveUp();
    }
    std::string path = tree_.pathOf(node);
    mergePatches(change.contents, touched.repairs, seen_, path);
    bool writesAll = change.everywhere || (copying_ && !renews_);
    for (const Patch &patch : change.contents) {
        if (!writesAll && !wasPassed(patch)) {
            replacement_->writeAt(patch.bytes, patch.offset);
        }
    }
    Rest rest(path, waitFrom_, seen_, [&](std::string_view bytes, uint64_t offset) {
        putContents(bytes);
        if (writesAll) {
            replacement_->writeAt(bytes, offset);
        }
    });
    UniqueFd renewed = renews_ ? replacement_->reopen() : UniqueFd();
    readPatched(renewed ? renewed.get() : fd, change, *options_.rewrites, rest, waitFrom_);
    rest.finish();
}

} // namespace firn
