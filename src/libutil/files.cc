#include "libutil/files.hh"

#include <algorithm>
#include <cerrno>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <poll.h>
#include <unistd.h>

#include "libutil/base-n.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

UniqueFd openAt(int dir, const char *name, int flags, mode_t mode = 0) {
    while (true) {
        int fd = openat(dir, name, flags | O_CLOEXEC | O_NOCTTY, mode);
        if (fd >= 0 || errno != EINTR) {
            return UniqueFd(fd);
        }
    }
}

struct DirCloser {
    void operator()(DIR *dir) const { closedir(dir); }
};
using DirPtr = std::unique_ptr<DIR, DirCloser>;

DirPtr openForListing(int dir) {
    UniqueFd own = openAt(dir, ".", O_RDONLY | O_DIRECTORY);
    DirPtr stream(own ? fdopendir(own.get()) : nullptr);
    if (!stream) {
        throwErrno("opening a directory for listing");
    }
    own.release(); // now the stream's
    return stream;
}

FileType typeOf(const struct dirent &entry) {
    switch (entry.d_type) {
    case DT_REG:
        return FileType::regular;
    case DT_DIR:
        return FileType::directory;
    case DT_LNK:
        return FileType::symlink;
    case DT_UNKNOWN:
        return FileType::unknown;
    default:
        return FileType::other;
    }
}

bool isDots(std::string_view name) {
    return name == "." || name == "..";
}

FileType typeAt(int dir, const std::string &name) {
    struct stat st;
    return statAt(dir, name, st) ? fileType(st.st_mode) : FileType::unknown;
}

std::vector<DirectoryEntry> readEntries(int dir) {
    DirPtr stream = openForListing(dir);
    std::vector<DirectoryEntry> entries;
    while (true) {
        errno = 0;
        const struct dirent *entry = readdir(stream.get());
        if (!entry && errno != 0) {
            throwErrno("listing a directory");
        }
        if (!entry) {
            return entries;
        }
        if (!isDots(entry->d_name)) {
            entries.push_back({entry->d_name, typeOf(*entry)});
        }
    }
}

/// Reads to the end of a file of about `expected` bytes. `what` is for messages.
std::string readAll(int fd, uint64_t expected, uint64_t limit, const std::string &what) {
    std::string text;
    size_t done = 0;
    while (true) {
        if (done == text.size()) {
            size_t more =
                done == 0 ? std::min<uint64_t>(expected, 1024 * 1024) + 1 : std::max<size_t>(done, 4096);
            text.resize(done + more);
        }
        ssize_t count = read(fd, text.data() + done, text.size() - done);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            throwErrno("reading {}", what);
        }
        done += count;
        if (done > limit) {
            throw Error(ErrorKind::badInput, "{} is larger than {} bytes", what, limit);
        }
        if (count == 0) {
            text.resize(done);
            return text;
        }
    }
}

struct stat statFd(int fd, const std::string &what) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        throwErrno("looking at {}", what);
    }
    return st;
}

} // namespace

FileType fileType(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG:
        return FileType::regular;
    case S_IFDIR:
        return FileType::directory;
    case S_IFLNK:
        return FileType::symlink;
    default:
        return FileType::other;
    }
}

UniqueFd openDirectory(const std::filesystem::path &path) {
    UniqueFd fd = openAt(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY);
    if (!fd) {
        throwErrno("opening directory {}", quoteForDisplay(path.native()));
    }
    return fd;
}

UniqueFd openDirectoryAt(int dir, const std::string &name) {
    UniqueFd fd = openAt(dir, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!fd) {
        throwErrno("opening directory {}", quoteForDisplay(name));
    }
    return fd;
}

UniqueFd openFileAt(int dir, const std::string &name) {
    UniqueFd fd = openAt(dir, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (!fd) {
        throwErrno("opening file {}", quoteForDisplay(name));
    }
    if (!S_ISREG(statFd(fd.get(), quoteForDisplay(name)).st_mode)) {
        throw Error(ErrorKind::badInput, "{} is not a regular file", quoteForDisplay(name));
    }
    return fd;
}

bool statAt(int dir, const std::string &name, struct stat &st) {
    if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
        return true;
    }
    if (errno != ENOENT) {
        throwErrno("looking at {}", quoteForDisplay(name));
    }
    return false;
}

bool existsAt(int dir, const std::string &name) {
    struct stat st;
    return statAt(dir, name, st);
}

std::vector<std::string> listDirectory(int dir) {
    std::vector<std::string> names;
    for (DirectoryEntry &entry : readEntries(dir)) {
        names.push_back(std::move(entry.name));
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::vector<DirectoryEntry> listEntries(int dir) {
    std::vector<DirectoryEntry> entries = readEntries(dir);
    std::sort(entries.begin(), entries.end(),
              [](const DirectoryEntry &a, const DirectoryEntry &b) { return a.name < b.name; });
    for (DirectoryEntry &entry : entries) {
        if (entry.type == FileType::unknown) {
            entry.type = typeAt(dir, entry.name);
        }
    }
    return entries;
}

std::string readLinkAt(int dir, const std::string &name) {
    std::string target(256, '\0');
    while (true) {
        ssize_t length = readlinkat(dir, name.c_str(), target.data(), target.size());
        if (length < 0) {
            throwErrno("reading symlink {}", quoteForDisplay(name));
        }
        if (static_cast<size_t>(length) < target.size()) {
            target.resize(length);
            return target;
        }
        target.resize(target.size() * 2); // it may have been cut
    }
}

std::string readFileAt(int dir, const std::string &name, uint64_t limit) {
    UniqueFd fd = openFileAt(dir, name);
    std::string what = "file " + quoteForDisplay(name);
    return readAll(fd.get(), statFd(fd.get(), what).st_size, limit, what);
}

std::string readFile(const std::filesystem::path &path, uint64_t limit) {
    std::string what = "file " + quoteForDisplay(path.native());
    UniqueFd fd = openAt(AT_FDCWD, path.c_str(), O_RDONLY | O_NONBLOCK);
    if (!fd) {
        throwErrno("opening {}", what);
    }
    struct stat st = statFd(fd.get(), what);
    if (S_ISFIFO(st.st_mode)) {
        throw Error(ErrorKind::badInput, "{} is a pipe: nothing is read from it", what);
    }
    return readAll(fd.get(), st.st_size, limit, what);
}

void writeFile(const std::filesystem::path &path, std::string_view content, mode_t mode) {
    UniqueFd fd = openAt(AT_FDCWD, path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, mode);
    try {
        if (!fd) {
            throwErrno("opening it");
        }
        writeFull(fd.get(), content);
        fd.close();
    } catch (Error &e) {
        e.addContext("writing file " + quoteForDisplay(path.native()));
        throw;
    }
}

namespace {

bool isDirectory(const std::filesystem::path &path) {
    struct stat st;
    return stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

} // namespace

void makeDirectories(const std::filesystem::path &path, mode_t mode) {
    std::filesystem::path sofar;
    for (const std::filesystem::path &component : path) {
        sofar /= component;
        if (sofar.empty() || isDirectory(sofar)) {
            continue;
        }
        if (mkdir(sofar.c_str(), mode) != 0) {
            int number = errno;
            if (number != EEXIST || !isDirectory(sofar)) {
                throw SysError(number, fmt::format("making directory {}", quoteForDisplay(sofar.native())));
            }
        }
    }
}

namespace {

/// 80 bits, enough that two never meet.
std::string randomName(const std::string &prefix) {
    unsigned char bytes[10];
    if (RAND_bytes(bytes, sizeof bytes) != 1) {
        throw Error(ErrorKind::failure, "OpenSSL has no random numbers for a temporary name");
    }
    return prefix + "-" + encode(Encoding::nix32, {reinterpret_cast<const char *>(bytes), sizeof bytes});
}

} // namespace

std::string makeTemporaryDirectoryAt(int dir, const std::string &prefix, mode_t mode) {
    while (true) {
        std::string name = randomName(prefix);
        if (mkdirat(dir, name.c_str(), mode & 0700) == 0) {
            // Only now for others, and whatever the umask says.
            if ((mode & 07077) != 0 && fchmod(openDirectoryAt(dir, name).get(), mode) != 0) {
                throwErrno("setting the mode of temporary directory {}", quoteForDisplay(name));
            }
            return name;
        }
        if (errno != EEXIST) {
            throwErrno("making temporary directory {}", quoteForDisplay(name));
        }
    }
}

void writeFull(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        ssize_t count = write(fd, bytes.data(), bytes.size());
        if (count >= 0) {
            bytes.remove_prefix(count);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd ready {
                fd, POLLOUT, 0
            };
            poll(&ready, 1, -1);
        } else if (errno != EINTR) {
            throwErrno("writing {} bytes", bytes.size());
        }
    }
}

} // namespace firn
