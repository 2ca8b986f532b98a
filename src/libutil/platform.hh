#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <sys/stat.h>
#include <sys/types.h>

#include "libutil/file-descriptor.hh"

// The few calls of libutil that differ between systems and have no portable spelling. linux/platform.cc and
// darwin/platform.cc hold one implementation each, as well as those of makePipe() (file-descriptor.hh) and
// syncFd() (files.hh).

namespace firn {

/// Tells the kernel that all `size` bytes of an open file will be read once, in order. Only a hint.
void adviseSequential(int fd, uint64_t size);

/// Makes an open file `size` bytes long with all of its space taken. False where it cannot be had.
bool allocateFile(int fd, uint64_t size);

/// A Unix stream socket, close-on-exec. Throws SysError.
UniqueFd makeUnixSocket();

/// The working directory, for fchdir(). None where we may not even search it, and so no relative path leads
/// anywhere; on macOS also where we may not read it.
UniqueFd openWorkingDirectory();

/// Whether an open directory is the root of a mount (also of a bind mount on the same file system). False
/// where the kernel cannot say.
bool isMountRoot(int fd);

/// The parent of a process; nullopt if there is no such process, or it has no parent that we can see.
std::optional<pid_t> parentProcess(pid_t pid);

/// Looks at entry `name` (no symlink followed) and gives it to `uid` and `gid` if it belongs to `from`: the
/// very object that was looked at. `st` is how it was before. False if there is no such entry. Throws
/// SysError.
bool changeOwnerAt(int dir, const std::string &name, uid_t from, uid_t uid, gid_t gid, struct stat &st);

/// When a file's contents were last changed, with all the precision there is.
struct timespec modificationTime(const struct stat &st);

/// Exchanges two entries of one file system in one step. False, with nothing done, where the system or the
/// file system has no such call. Throws SysError.
bool exchangeEntries(int dirA, const std::string &nameA, int dirB, const std::string &nameB);

/// Renames an entry to a name that nobody has, in one step. 0, or the errno: EEXIST if somebody has the name;
/// EINVAL where the system or the file system has no such call (or the new name lies below the entry).
int renameToFreeName(int fromDir, const std::string &from, int toDir, const std::string &to);

} // namespace firn
