#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/stat.h>

#include "libutil/file-descriptor.hh"

// Work on files relative to an open directory. `dir` is a directory descriptor (or AT_FDCWD), `name` one path
// component unless said otherwise. No function follows a symlink in the last component unless its name says
// so. All throw SysError with what was attempted, badInput for a file of the wrong type; descriptors are
// close-on-exec.

namespace firn {

/// Opens a directory by path from outside any build's reach (configuration, the store directory); follows
/// symlinks.
UniqueFd openDirectory(const std::filesystem::path &path);
/// Opens directory `name` in `dir`; a symlink or anything else is an error.
UniqueFd openDirectoryAt(int dir, const std::string &name);
/// Opens a regular file for reading without following a symlink and without blocking on a FIFO.
UniqueFd openFileAt(int dir, const std::string &name);

/// lstat relative to dir; nullopt-like: returns false if there is no such entry.
bool statAt(int dir, const std::string &name, struct stat &st);
bool existsAt(int dir, const std::string &name);

/// Names in a directory without "." and "..", sorted bytewise. Reads through a descriptor of its own; dir's
/// offset stays.
std::vector<std::string> listDirectory(int dir);

enum class FileType { unknown, regular, directory, symlink, other };
FileType fileType(mode_t mode);

struct DirectoryEntry {
    std::string name;
    FileType type; ///< as it was when listed; unknown only if it has gone meanwhile
};
/// listDirectory() with types, which costs no further system calls on most file systems.
std::vector<DirectoryEntry> listEntries(int dir);

/// Target of a symlink.
std::string readLinkAt(int dir, const std::string &name);

/// The readers throw badInput for more than `limit` bytes.
std::string readFileAt(int dir, const std::string &name, uint64_t limit = UINT64_MAX);
/// Follows symlinks; for configuration and /proc. Never waits: a FIFO is badInput.
std::string readFile(const std::filesystem::path &path, uint64_t limit = UINT64_MAX);
/// Creates or truncates. Follows symlinks; for our own state files.
void writeFile(const std::filesystem::path &path, std::string_view content, mode_t mode = 0666);

/// Whether somebody waits for the end of it.
enum class Awaited { no, yes };
/// Removes a file or a whole tree relative to its parent: iterative, no symlink followed, directories made
/// accessible (chmod through their descriptor) where needed. A name that is not there is fine. It stays on
/// the file system of `name`: where something is mounted inside it throws Error(refused), with part of the
/// tree gone. Trees may be deeper than the descriptors a process may open. Where nobody waits for it, it
/// leaves the other processors to others, and takes fewer descriptors.
void removeTree(int dir, const std::string &name, Awaited awaited = Awaited::yes);
/// The same, and returns the number of bytes (st_blocks * 512) freed for files (not directories) whose link
/// count was 1: that costs looking at each.
uint64_t removeTreeCounting(int dir, const std::string &name);

/// mkdir -p; existing directories (also behind symlinks) are fine.
void makeDirectories(const std::filesystem::path &path, mode_t mode = 0755);

/// Creates a new directory `<prefix>-<random>` in dir with exactly this mode; returns its name.
std::string makeTemporaryDirectoryAt(int dir, const std::string &prefix, mode_t mode = 0700);

/// Writes everything, retrying on EINTR and short writes and waiting where the descriptor does not block. For
/// sockets and pipes SIGPIPE must be ignored, so that a reader that went away is a SysError.
void writeFull(int fd, std::string_view bytes);

/// Flushes a file's or directory's data and metadata.
void syncFd(int fd);

/// Runs an action when the scope ends, unless cancelled.
class ScopeExit {
  public:
    explicit ScopeExit(std::function<void()> action) : action_(std::move(action)) {}
    ScopeExit(const ScopeExit &) = delete;
    ScopeExit &operator=(const ScopeExit &) = delete;
    ~ScopeExit() {
        if (action_) {
            action_();
        }
    }
    void cancel() { action_ = nullptr; }

  private:
    std::function<void()> action_;
};

} // namespace firn
