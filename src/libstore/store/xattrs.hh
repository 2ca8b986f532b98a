#pragma once

#include <set>
#include <string>
#include <vector>

// Extended attributes and ACLs, and the one way to change the mode of a file that cannot be opened: the calls
// differ between systems.

namespace firn {

/// Names of a file's extended attributes (on Linux ACLs are among them). Empty where the file system has
/// none. `fd` may be one that was opened without access (see openWithoutAccess).
std::vector<std::string> listXattrs(int fd);
/// False when it was not there.
bool removeXattr(int fd, const std::string &name);
/// The same for an entry that is a symlink or a special file. On Linux links have no attributes that an
/// ordinary process could set; only root can give them some.
std::vector<std::string> listLinkXattrs(int dir, const std::string &name);
void removeLinkXattr(int dir, const std::string &name, const std::string &xattr);

/// Whether an ACL lets others than those whom its mode speaks of replace what is in an open directory. On
/// Linux a POSIX ACL that names somebody, with a mask (the mode's group bits) that lets them write, unless
/// the directory is sticky; on macOS an entry that allows somebody to change the directory, or delete in it.
bool aclLetsOthersReplace(int dir);
/// The command that takes a directory's ACL from it.
extern const char *const aclRemoval;

/// chmod of what is entry `name` in `dir`, if it is the regular file or directory with this inode number and
/// device; follows no symlink. For files whose mode lets even their owner not open them.
void changeModeAt(int dir, const std::string &name, unsigned mode);

} // namespace firn
