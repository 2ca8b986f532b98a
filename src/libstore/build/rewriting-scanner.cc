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
    std::span<char> bytes(block.data() - backSize_, backSize_ + block.size());
    std::copy_n(back_.begin(), backSize_, bytes.begin());
    if (keepsOld()) {
        writeOld(bytes);
    }
    seen_ += block.size();
    if (!waiting_) {
        advance(fd, node, bytes, isLast);
    }
    pending_.clear();
    if (isLast && waiting_) {
        passRest(fd, node);
    }
}

/// What was kept back is old as long as nothing is rewritten, and written then.
void RewritingScanner::writeOld(std::span<char> bytes) {
    size_t written = begun_ ? backSize_ : 0;
    replacement_->writeAt({bytes.data() + written, bytes.size() - written}, seen_ - backSize_ + written);
}

/// `bytes` follow what was passed on. Passes on what is known not to change any more.
void RewritingScanner::advance(int fd, uint32_t node, std::span<char> bytes, bool isLast) {
    rewriteIn(fd, node, bytes);
    size_t ready = bytes.size() - (isLast ? 0 : std::min(bytes.size(), back_.size()));
    if (waitFrom_ <= passed_ + ready) {
        ready = waitFrom_ - passed_;
        waiting_ = true;
    }
    std::string_view passing(bytes.data(), ready);
    if (replacement_ && copying_ && !keepsOld()) {
        replacement_->writeAt(passing, passed_);
    }
    putContents(passing);
    passed_ += ready;
    backSize_ = waiting_ ? 0 : bytes.size() - ready;
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(ready), backSize_, back_.begin());
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
        : path_(std::move(path)), begin_(begin), at_(begin), end_(end), put_(std::move(put)) {}

    void write(std::string_view bytes) override {
        require(bytes.size() <= end_ - at_);
        put_(bytes, at_);
        at_ += bytes.size();
    }

    uint64_t begin() const { return begin_; }
    void finish() const { require(at_ == end_); }

  private:
    void require(bool sameSize) const {
        if (!sameSize) {
            throw Error(ErrorKind::failure, "'{}' changed its size while it was read",
                        escapeForDisplay(path_));
        }
    }

    std::string path_;
    uint64_t begin_, at_, end_;
    Put put_;
};

} // namespace

/// Everything is known about the file now: what waits is read once more, and goes on its way.
void RewritingScanner::passRest(int fd, uint32_t node) {
    TouchedNode &touched = result_.touched.back();
    NodePatches change = changeOf(touched, *options_.rewrites);
    UniqueFd renewed = keepsOld() ? replacement_->reopen() : UniqueFd();
    int old = renewed ? renewed.get() : fd;
    std::vector<Patch> repairs = options_.repairFile(change, old);
    mergePatches(change.contents, repairs, seen_, tree_.pathOf(node));
    bool isForeseen = std::ranges::all_of(repairs, [&](auto &patch) { return patch.offset >= waitFrom_; });
    bool writesAll = isForeseen && (change.everywhere || (copying_ && !keepsOld()));
    if (isForeseen) {
        touched.repairs = std::move(repairs);
    } else {
        takeBack(fd, touched);
    }
    Rest rest(tree_.pathOf(node), keepsOld() && writesAll ? 0 : waitFrom_, seen_,
              [&](std::string_view bytes, uint64_t offset) {
                  if (writesAll) {
                      replacement_->writeAt(bytes, offset);
                  }
                  bytes.remove_prefix(
                      std::min<uint64_t>(bytes.size(), waitFrom_ - std::min(offset, waitFrom_)));
                  putContents(bytes);
              });
    readPatched(old, change, *options_.rewrites, rest, rest.begin());
    rest.finish();
    for (const Patch &patch : change.contents) {
        if (isForeseen && !writesAll) {
            replacement_->writeAt(patch.bytes, patch.offset);
        }
    }
}

/// What was passed on has to be another: the file is left as it was, for who rewrites it later.
void RewritingScanner::takeBack(int fd, TouchedNode &touched) {
    touched.isRewritten = false;
    hashes_.giveUp();
    if (keepsOld()) {
        return;
    }
    replacement_.reset();
    if (isToBeRenewed(touched.node)) {
        startReplacement(fileDir_, touched.node);
        copying_ = !replacement_->cloneFrom(fd);
        if (copying_) {
            replacement_->copyFrom(fd, seen_);
        }
    }
}

} // namespace firn
