#pragma once

#include "builtin/attributes.hh"

// The builtin builders. Each makes the output "out" and throws Error with what went wrong; what it made till
// then stays. They run with a builder's rights, in the build directory. The attributes that each reads are
// named in libstore/build/builtin-builder.cc too, which refuses those that cannot be written as text.

namespace firn::builtin {

/// Attributes: url (http, https or file); executable ("1"): the file's mode; unpack ("1"): the file is a NAR,
/// compressed where the URL ends in ".xz". Flat outputs are looked for on the hashed mirrors first.
void fetchUrl(const Request &request);

/// The symlink tree of a profile. Attributes: manifest, a file to be linked as manifest.nix; derivations,
/// words: for each package whether it is active ("false" or else), its priority (the smaller wins), the
/// number of its outputs and these.
void buildEnvironment(const Request &request);

/// Attributes: src, an archive with one entry at its top; channelName, what that becomes.
void unpackChannel(const Request &request);

} // namespace firn::builtin
