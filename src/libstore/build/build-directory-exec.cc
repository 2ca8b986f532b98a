#include "libstore/build/build-directory-exec.hh"

// What is the same on every system; the rest is in linux/ and darwin/.

namespace firn {

ExecChoice chooseExecMechanism(const Locations &locations, const Settings &settings,
                               const std::string &initProgram) {
    BuildDirectoryBase base = BuildDirectories::findBase(locations, settings);
    BuildDirectories directories(base.path, BuildDirectories::Sweep::no);
    return chooseExecMechanism(directories, base.origin, locations, settings, initProgram);
}

} // namespace firn
