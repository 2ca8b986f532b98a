#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/file-descriptor.hh"

namespace firn {

/// A directory for one test, removed at its end by the system's own tools (not by the code under test). In
/// memory where the host has that (some tests make thousands of directories), else or if TMPDIR is set where
/// that says.
class TemporaryDirectory {
  public:
    TemporaryDirectory() {
        std::string name = (base() / "firn-test-XXXXXX").string();
        if (!mkdtemp(name.data())) {
            std::abort();
        }
        path_ = name;
        fd_.reset(open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    }
    TemporaryDirectory(const TemporaryDirectory &) = delete;
    TemporaryDirectory &operator=(const TemporaryDirectory &) = delete;
    ~TemporaryDirectory() {
        std::string quoted = "'" + path_.string() + "'";
        std::string command = "chmod -R u+rwx " + quoted + " 2>/dev/null; rm -rf " + quoted;
        if (std::system(command.c_str()) != 0) {
            std::abort();
        }
    }

    const std::filesystem::path &path() const { return path_; }
    int fd() const { return fd_.get(); }
    std::filesystem::path operator/(const std::string &name) const { return path_ / name; }

  private:
    static std::filesystem::path base() {
        bool memory = !getenv("TMPDIR") && access("/dev/shm", W_OK | X_OK) == 0;
        return memory ? "/dev/shm" : std::filesystem::temp_directory_path();
    }

    std::filesystem::path path_;
    UniqueFd fd_;
};

} // namespace firn
