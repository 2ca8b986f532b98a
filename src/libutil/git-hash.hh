#pragma once

#include <string>

#include "libutil/hash.hh"

// Git's hash of a file-system object. A file is a blob, a symlink the blob of its target, a directory a tree:
// a list of mode, name and hash. Each is hashed behind "<kind> <size>" and a zero byte. Of modes only whether
// a file is executable counts; the root has none, so that its hash does not tell a file from an executable
// one or from a symlink. Unlike in git itself, empty directories count, as trees without entries. The format
// is described in git's own documentation (gitformat-pack, git-hash-object, git-mktree).

namespace firn {

/// Of entry `name` in directory `dir`, by sha1 or sha256 (else badInput). Reads every file once; iterative;
/// no symlink followed. Throws badInput for what is neither file, directory nor symlink.
Hash hashGitObject(int dir, const std::string &name, HashAlgorithm algorithm);

/// Whether git hashes can be made by it.
bool isGitAlgorithm(HashAlgorithm algorithm);

} // namespace firn
