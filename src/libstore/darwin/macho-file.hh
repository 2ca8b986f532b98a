#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libstore/darwin/macho-page-hashes.hh"

// The container around a program for macOS: a Mach-O image ("thin"), or several, one for each architecture,
// in one file behind a table ("fat", or "universal"; fat64 is the same with larger numbers). A table is
// always big-endian, an image is in the byte order of its architecture. The magic number of a table is also
// that of a Java class, whose version numbers (45 and up) stand where a table has its number of slices.
// Facts: Apple's fat.h and loader.h.
//
// Only what code signatures need is read; all other load commands are skipped by their size.

namespace firn {

/// Bounds on what a file may claim; real files stay far below. xnu has no architectures for more slices, and
/// the largest programs have some hundred load commands.
constexpr uint32_t maxMachoSlices = 42;
constexpr uint32_t maxLoadCommands = 16384;
constexpr uint32_t maxLoadCommandBytes = 1 << 20;

/// One Mach-O image. All ranges are in the file and lie in it, whatever the file claims.
struct MachoSlice {
    ByteRange range;
    std::string architecture;           ///< "arm64", "x86_64", …, "cpu 0x…"
    uint32_t fileType = 0;              ///< MH_EXECUTE and so on; 0 where `problem` hides it
    std::optional<ByteRange> signature; ///< what LC_CODE_SIGNATURE points to
    std::optional<ByteRange> uuid;      ///< the 16 bytes of LC_UUID
    std::optional<ByteRange> infoPlist; ///< section __TEXT,__info_plist, if it lies before the signature
    std::string problem; ///< why macOS would not load it, or no linker writes it; empty if it is well-formed
};

struct MachoFile {
    bool isMacho = false;           ///< else the rest is empty
    std::vector<MachoSlice> slices; ///< those that are Mach-O (not archives or bitcode), in the table's order
    std::string problem;            ///< of the table itself
};

/// Reads the table, the headers and the load commands: at most maxLoadCommandBytes at once.
MachoFile readMachoFile(const MachoBytes &file);

} // namespace firn
