#include "builtin/loaded-files.hh"

namespace firn::builtin {

// Builders see the host's files there.
LoadedFiles loadedFiles() {
    return {};
}

} // namespace firn::builtin
