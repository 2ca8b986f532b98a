#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libstore/darwin/macho-page-hashes.hh"

// A content-addressed output's path is a digest of its contents, and its contents name the path. Nix cuts
// that knot by hashing them with zeros in the path's place. In a signed Mach-O program a second knot hangs on
// the first: the digest of each page that holds the path, and the linker's LC_UUID, which is a digest of the
// path under which the program happened to be linked. The normal form of such a file has zeros for all of
// them, but digests of the zeroed bytes for the digests of pages; the final form has the real path, an
// LC_UUID made from the normal form, and the digests that fit. doc/content-addressed-macho.md is the
// specification, and this is version 1 of it: what is inside of it never depends on what other readers of
// Mach-O learn to take.
//
// Same rules as in macho-page-hashes.hh: the standard library and OpenSSL only, plain values in and out,
// every byte untrusted, a bounded number of passes over the file. Memory grows with the number of
// self-references and of the pages that hold them.

namespace firn {

constexpr uint64_t machoHashPartSize = 32; ///< bytes of a self-reference: a store path's hash part

struct MachoNormalForm {
    bool inside = false; ///< of the specification; else it is for Nix's own rule, and there are no patches
    std::string reason;  ///< why it is not inside; for people, plain ASCII, bounded length
    /// Make the normal form of the file. Ascending, not overlapping, in the same places for every form of
    /// one file. One for each self-reference; where there are no others, Nix's own rule gives the same.
    std::vector<BytePatch> patches;
};

/// `selfReferences`: offsets of hash parts in the file. Those that do not ascend, overlap or do not lie in
/// the file are outside of the specification, as is a file without any.
/// Throws std::runtime_error if OpenSSL lacks a digest, and what reading throws.
MachoNormalForm machoNormalForm(const MachoBytes &file, const std::vector<uint64_t> &selfReferences);

/// Makes the final form from the normal form, or from any other form of the same file. Reads all of a slice
/// that has an LC_UUID. Throws std::invalid_argument if the file is outside of the specification or the hash
/// part has another size; else as above.
std::vector<BytePatch> machoFinalForm(const MachoBytes &file, const std::vector<uint64_t> &selfReferences,
                                      std::string_view hashPart);

/// Why a file is not the final form of its own normal form; nothing if it is. The reason is like those above.
/// Whether hash parts occur elsewhere too is for the caller to see. Throws as machoNormalForm does.
std::optional<std::string> machoFinalFormProblem(const MachoBytes &file,
                                                 const std::vector<uint64_t> &selfReferences,
                                                 std::string_view hashPart);

} // namespace firn
