#include "libstore/build/reachability.hh"

#include <fmt/core.h>
#include <sys/stat.h>

namespace firn {

std::filesystem::path firstClosedDirectory(const std::filesystem::path &path, std::optional<gid_t> group) {
    std::filesystem::path part;
    for (const std::filesystem::path &component : path) {
        part /= component;
        struct stat st;
        if (stat(part.c_str(), &st) != 0) {
            return {};
        }
        mode_t needed = group == st.st_gid ? S_IXGRP : S_IXOTH;
        if (S_ISDIR(st.st_mode) && (st.st_mode & needed) == 0) {
            return part;
        }
    }
    return {};
}

std::string explainUnreachable(const std::filesystem::path &directory) {
    // The last two parts are the build user's own, closed to all others.
    std::filesystem::path closed = firstClosedDirectory(directory.parent_path().parent_path());
    std::string elsewhere = "set 'build-dir' to a directory that everybody can reach";
    return closed.empty() ? "The build's user may not enter it, or a directory above it: " + elsewhere
                          : fmt::format("Without a sandbox the build's user must find its way by path, and "
                                        "'{0}' is closed to it: let others through (chmod o+x '{0}'), or {1}",
                                        closed.string(), elsewhere);
}

} // namespace firn
