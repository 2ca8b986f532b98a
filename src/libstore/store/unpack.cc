#include "libstore/store/unpack.hh"

#include <algorithm>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/local-store.hh"
#include "libstore/store/xattrs.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"

namespace firn {

namespace {

constexpr struct timespec canonicalTimes[2] = {{0, UTIME_OMIT}, {1, 0}};

void finishFd(int fd, const std::string &name, mode_t mode, bool sync) {
    if (fchmod(fd, mode) != 0) {
        throwErrno("changing the mode of '{}'", escapeForDisplay(name));
    }
    if (futimens(fd, canonicalTimes) != 0) {
        throwErrno("changing the modification time of '{}'", escapeForDisplay(name));
    }
    if (sync) {
        syncFd(fd);
    }
}

class CanonicalUnpacker : public NarVisitor {
  public:
    CanonicalUnpacker(int dir, const std::string &rootName, const std::set<std::string> &ignored, bool sync)
        : root_(dir), rootName_(rootName), ignored_(ignored), sync_(sync) {}

    void beginDirectory(const std::string &name) override {
        auto &entry = nameOf(name);
        if (mkdirat(parent(), entry.c_str(), 0700) != 0) {
            throwErrno("creating directory '{}'", escapeForDisplay(entry));
        }
        auto fd = openDirectoryAt(parent(), entry);
        inspectRoot(fd.get());
        stack_.push_back({std::move(fd), entry});
    }

    void endDirectory() override {
        finishFd(stack_.back().fd.get(), stack_.back().name, 0555, sync_);
        stack_.pop_back();
    }

    void beginFile(const std::string &name, bool executable, uint64_t) override {
        file_.emplace(parent(), nameOf(name), executable);
        inspectRoot(file_->fd());
    }
    void fileContents(std::string_view bytes) override { file_->write(bytes); }
    void endFile() override {
        file_->finish(sync_);
        file_.reset();
    }

    void symlink(const std::string &name, const std::string &target) override {
        auto &entry = nameOf(name);
        if (symlinkat(target.c_str(), parent(), entry.c_str()) != 0) {
            throwErrno("creating symlink '{}'", escapeForDisplay(entry));
        }
        if (utimensat(parent(), entry.c_str(), canonicalTimes, AT_SYMLINK_NOFOLLOW) != 0) {
            throwErrno("changing the modification time of '{}'", escapeForDisplay(entry));
        }
    }

    bool hasAttributes() const { return hasAttributes_; }

  private:
    struct Open {
        UniqueFd fd;
        std::string name;
    };

    int parent() const { return stack_.empty() ? root_ : stack_.back().fd.get(); }
    const std::string &nameOf(const std::string &name) const { return stack_.empty() ? rootName_ : name; }

    /// Attributes are inherited from directory to directory; if the root got none, nothing below does.
    void inspectRoot(int fd) {
        if (inspected_) {
            return;
        }
        inspected_ = true;
        auto names = listXattrs(fd);
        hasAttributes_ =
            std::any_of(names.begin(), names.end(), [&](auto &name) { return !ignored_.contains(name); });
    }

    int root_;
    const std::string &rootName_;
    const std::set<std::string> &ignored_;
    bool sync_;
    bool inspected_ = false, hasAttributes_ = false;
    std::vector<Open> stack_;
    std::optional<CanonicalFile> file_;
};

} // namespace

CanonicalFile::CanonicalFile(int dir, std::string name, bool executable)
    : fd_(openat(dir, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)),
      name_(std::move(name)),
      mode_(executable ? 0555 : 0444) {
    if (!fd_) {
        throwErrno("creating file '{}'", escapeForDisplay(name_));
    }
}

void CanonicalFile::write(std::string_view bytes) {
    writeFull(fd_.get(), bytes);
}

void CanonicalFile::finish(bool sync) {
    finishFd(fd_.get(), name_, mode_, sync);
    fd_.reset();
}

void unpackCanonical(Source &nar, int dir, const std::string &name, const std::set<std::string> &ignoredAcls,
                     bool sync) {
    CanonicalUnpacker unpacker(dir, name, ignoredAcls, sync);
    parseNar(nar, unpacker);
    if (unpacker.hasAttributes()) {
        canonicaliseTree(dir, name, static_cast<uid_t>(-1), ignoredAcls);
    }
}

} // namespace firn
