#include "libstore/build/build-directory-exec.hh"

// What is the same on every system; the rest is in linux/ and darwin/.

#include "libutil/error.hh"

namespace firn {

std::string print(const MountDescription &mount) {
    if (mount.mountPoint.empty()) {
        return fmt::format("{}, mounted {} where no mount table shows it",
                           mount.fileSystem.empty() ? "a file system" : mount.fileSystem,
                           mount.noexec ? "noexec" : "without noexec");
    }
    return fmt::format("'{}', {} mounted {}", mount.mountPoint, mount.fileSystem, mount.options);
}

ExecChoice chooseExecMechanism(const Locations &locations, const Settings &settings,
                               const std::string &initProgram) {
    BuildDirectoryBase base = BuildDirectories::findBase(locations, settings);
    BuildDirectories directories(base.path, BuildDirectories::Sweep::no, &locations);
    return chooseExecMechanism(directories, base.origin, locations, settings, initProgram);
}

} // namespace firn
