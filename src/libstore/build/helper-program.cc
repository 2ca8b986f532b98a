#include "libstore/build/helper-program.hh"

#include <cstdlib>
#include <filesystem>

#include "firn-config.hh"

namespace firn {

namespace {

/// `folder` is the one that it is built in, beside that of `firn`.
std::string helperProgram(const char *variable, const std::string &folder) {
    if (const char *chosen = getenv(variable); chosen && *chosen) {
        return chosen;
    }
    std::error_code unknown;
    std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe", unknown).parent_path();
    std::filesystem::path beside = own.parent_path() / folder / ("firn-" + folder);
    if (own.parent_path().filename() == "src" && std::filesystem::exists(beside, unknown)) {
        return beside.string();
    }
    return FIRN_LIBEXEC_DIR "/firn-" + folder;
}

} // namespace

std::string sandboxInitProgram() {
    return helperProgram("FIRN_SANDBOX_INIT", "sandbox-init");
}

std::string machoJailProgram() {
    return helperProgram("FIRN_MACHO_JAIL", "macho-jail");
}

std::string builtinBuilderProgram() {
    return helperProgram("FIRN_BUILTIN", "builtin");
}

} // namespace firn
