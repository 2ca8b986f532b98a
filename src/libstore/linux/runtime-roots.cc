#include "libstore/store/runtime-roots.hh"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/base-n.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

// Running processes as roots, from /proc: the program, the working directory, open files, mapped files and
// the environment. Processes come and go meanwhile, and of other users' processes an ordinary user can read
// little: both are no errors.

namespace firn {

namespace {

constexpr uint64_t procFileLimit = 64 * 1024 * 1024;

bool isPathCharacter(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' ||
           c == '-' || c == '.' || c == '_' || c == '?' || c == '=';
}

class Scan {
  public:
    Scan(const std::string &storeDir, RuntimeRoots &roots) : prefix_(storeDir + "/"), roots_(roots) {}

    /// A path as the kernel gives it.
    void path(const std::string &target, const std::string &where) {
        if (target.starts_with(prefix_)) {
            roots_[target].insert(where);
        }
    }

    /// Any store path inside a text.
    void text(std::string_view text, const std::string &where) {
        for (size_t at = 0; (at = text.find(prefix_, at)) != std::string_view::npos;) {
            size_t begin = at;
            at += prefix_.size();
            while (at < text.size() && isPathCharacter(text[at])) {
                at++;
            }
            roots_[std::string(text.substr(begin, at - begin))].insert(where);
        }
    }

    void link(const std::string &where) {
        std::string buffer(4096, '\0');
        auto size = readlink(where.c_str(), buffer.data(), buffer.size());
        if (size > 0) {
            buffer.resize(static_cast<size_t>(size));
            path(buffer, where);
        }
    }

    /// Lines "range mode offset device inode path".
    void maps(std::string_view text, const std::string &where) {
        while (!text.empty()) {
            auto line = text.substr(0, text.find('\n'));
            if (auto start = line.find('/'); start != std::string_view::npos) {
                path(std::string(line.substr(start)), where);
            }
            text.remove_prefix(std::min(line.size() + 1, text.size()));
        }
    }

    std::string fileText(const std::string &where) {
        try {
            return readFile(where, procFileLimit);
        } catch (const Error &) {
            return {}; // gone, or somebody else's
        }
    }

    void descriptors(const std::string &dir) {
        try {
            auto fd = openDirectory(dir);
            for (auto &name : listDirectory(fd.get())) {
                link(dir + "/" + name);
            }
        } catch (const SysError &error) {
            if (error.number() != ENOENT && error.number() != EACCES && error.number() != ESRCH &&
                error.number() != EPERM) {
                throw;
            }
        }
    }

    void process(const std::string &dir) {
        link(dir + "/exe");
        link(dir + "/cwd");
        descriptors(dir + "/fd");
        maps(fileText(dir + "/maps"), dir + "/maps");
        text(fileText(dir + "/environ"), dir + "/environ");
    }

  private:
    std::string prefix_;
    RuntimeRoots &roots_;
};

} // namespace

RuntimeRoots findRuntimeRoots(const std::string &storeDir) {
    RuntimeRoots roots;
    Scan scan(storeDir, roots);
    auto proc = openDirectory("/proc");
    for (auto &name : listDirectory(proc.get())) {
        if (std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) {
            scan.process("/proc/" + name);
        }
    }
    for (std::string file : {"modprobe", "fbsplash", "poweroff_cmd"}) {
        auto where = "/proc/sys/kernel/" + file;
        scan.text(scan.fileText(where), where);
    }
    return roots;
}

} // namespace firn
