#include <fcntl.h>
#include <unistd.h>

#include "libutil/directory-stack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"

namespace firn {

namespace {

/// Makes what the parser reports. Everything must be new: whatever is met under a name already (a symlink, or
/// a name that this file system takes for the same) is an error, never followed and never reused.
class Restorer : public NarVisitor {
  public:
    Restorer(int dir, const std::string &rootName) : way_(dir), rootName_(rootName) {}

    void beginDirectory(const std::string &name) override {
        const std::string &entry = entryName(name);
        if (mkdirat(way_.current(), entry.c_str(), 0755) != 0) {
            throwErrno("unpacking directory {}", way_.describe(entry));
        }
        way_.enter(entry);
    }

    void endDirectory() override { way_.leave(); }

    void beginFile(const std::string &name, bool executable, uint64_t) override {
        fileName_ = entryName(name);
        file_.reset(openat(way_.current(), fileName_.c_str(),
                           O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, executable ? 0555 : 0444));
        if (!file_) {
            throwErrno("unpacking file {}", way_.describe(fileName_));
        }
    }

    void fileContents(std::string_view bytes) override {
        try {
            writeFull(file_.get(), bytes);
        } catch (Error &e) {
            e.addContext("unpacking file " + way_.describe(fileName_));
            throw;
        }
    }

    void endFile() override { file_.close(); }

    void symlink(const std::string &name, const std::string &target) override {
        const std::string &entry = entryName(name);
        if (symlinkat(target.c_str(), way_.current(), entry.c_str()) != 0) {
            throwErrno("unpacking symlink {}", way_.describe(entry));
        }
    }

  private:
    const std::string &entryName(const std::string &name) const {
        return way_.depth() == 0 ? rootName_ : name;
    }

    DirectoryStack way_;
    const std::string rootName_;
    std::string fileName_;
    UniqueFd file_;
};

} // namespace

void restoreNar(Source &source, int dir, const std::string &name, const NarLimits &limits) {
    Restorer restorer(dir, name);
    parseNar(source, restorer, limits);
}

} // namespace firn
