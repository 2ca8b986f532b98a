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
};

/// All patches of one file-system object, ascending by place and offset, not overlapping.
struct FilePatches {
    std::string path; ///< relative to the output's root, '/' between components, "" for the root itself;
                      ///< names as before any patch
    std::vector<Patch> patches;
};

} // namespace firn
