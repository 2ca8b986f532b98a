#pragma once

#include <string>
#include <vector>

namespace firn::builtin {

/// The files by which this very process runs, besides its program: as the dynamic linker has found them.
struct LoadedFiles {
    std::string loader;                 ///< empty: linked statically, or the platform's loader is everywhere
    std::vector<std::string> libraries; ///< absolute paths, the loader among them
};
LoadedFiles loadedFiles();

} // namespace firn::builtin
