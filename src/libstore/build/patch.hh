#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace firn {

/// The one small value in which rewriting (which knows no format) and formats (which know no rewriting) meet.
struct Patch {
    enum class Place { contents, linkTarget, entryName };
    Place place = Place::contents;
    uint64_t offset = 0; ///< bytes, in the file's contents, the link's target or the entry's name
    std::string bytes;   ///< replace as many bytes from there

    uint64_t end() const { return offset + bytes.size(); }
    bool operator==(const Patch &) const = default;
};

/// All patches of one file-system object, ascending by place and offset, not overlapping.
struct FilePatches {
    std::string path; ///< relative to the output's root, '/' between components, "" for the root itself;
                      ///< names as before any patch
    std::vector<Patch> patches;
    /// More occurrences than are kept in memory: they are found again while the file is written, and any byte
    /// of the contents may change. `patches` is what is known besides.
    bool everywhere = false;
};

/// Lays `further` over `patches`, contents of a file of `size` bytes: where both want a byte, it is
/// `further`'s, which was made with the others in mind. Throws ErrorKind::refused where one of `further` is
/// empty, of another place, reaches beyond the file or overlaps another of `further`. `path` is for the
/// message.
void mergePatches(std::vector<Patch> &patches, std::vector<Patch> further, uint64_t size,
                  const std::string &path);

/// Lays the parts of ascending, not overlapping patches that fall into it over a piece of the contents that
/// starts at `offset`. `patches` may begin anywhere before; returns the index of the first patch that
/// a later piece needs, given the one this piece began with.
size_t overlayPatches(const std::vector<Patch> &patches, size_t first, char *piece, size_t size,
                      uint64_t offset);

} // namespace firn
