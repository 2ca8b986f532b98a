#include "libstore/build/build-directory-exec.hh"

#include <cerrno>

#include <sys/mount.h>
#include <sys/stat.h>

#include "libutil/error.hh"

// macOS has noexec mounts, and nothing that lifts the flag for one process. What the mount says is all that
// forbids execution by place, so there is nothing to try out either.

namespace firn {

namespace {

struct statfs fileSystemOf(int directory) {
    struct statfs info;
    if (fstatfs(directory, &info) != 0) {
        throwErrno("asking for the mount of the build directory");
    }
    return info;
}

std::string describeOptions(uint32_t flags) {
    std::string options = flags & MNT_RDONLY ? "read-only" : "read-write";
    options += flags & MNT_NOEXEC ? ",noexec" : "";
    options += flags & MNT_NOSUID ? ",nosuid" : "";
    options += flags & MNT_NODEV ? ",nodev" : "";
    return options;
}

std::string describeOrigin(const std::string &origin) {
    if (origin == "build-dir") {
        return "from the setting 'build-dir'";
    }
    return origin == "TMPDIR" ? "from the daemon's TMPDIR" : "the default";
}

std::string explainRefusal(const std::filesystem::path &base, const std::string &origin,
                           const MountDescription &mount, const std::string &why) {
    return fmt::format(
        "programs cannot be executed where builds would run: the build directory '{}' ({}) is on '{}', {} "
        "mounted {}{}. Either mount '{}' without noexec, or set 'build-dir' to a directory where programs "
        "can be executed, or make a volume for it (hdiutil create) and name that in 'build-dir'.",
        base.string(), describeOrigin(origin), mount.mountPoint, mount.fileSystem, mount.options, why,
        mount.mountPoint);
}

void requireExecutableStore(const Locations &locations) {
    struct statfs info;
    const std::string &store = locations.storeDir.str();
    if (statfs(store.c_str(), &info) == 0 && (info.f_flags & MNT_NOEXEC) != 0) {
        throw Error(ErrorKind::unsupported,
                    "nothing in the store '{}' can be executed: it is on '{}', {} mounted {}. Mount that "
                    "without noexec: builders and all that they use are programs in the store.",
                    store, info.f_mntonname, info.f_fstypename, describeOptions(info.f_flags));
    }
}

} // namespace

FileSystemView viewOf(int directory) {
    struct stat st;
    if (fstat(directory, &st) != 0) {
        throwErrno("asking for the file system of the build directory");
    }
    return {st.st_dev, (fileSystemOf(directory).f_flags & MNT_NOEXEC) != 0};
}

MountDescription describeMount(int directory) {
    struct statfs info = fileSystemOf(directory);
    return {info.f_mntonname, describeOptions(info.f_flags), info.f_fstypename,
            (info.f_flags & MNT_NOEXEC) != 0};
}

int probeExecution(int directory, const std::string &) {
    return viewOf(directory).noexec ? EACCES : 0;
}

std::string explainNoExecution(const ExecChoice &choice, int directory, const std::string &why) {
    return explainRefusal(choice.base, choice.origin, describeMount(directory), "; " + why);
}

UniqueFd executableMount(int directory, const ExecChoice &choice) {
    throw Error(ErrorKind::unsupported, "{}",
                explainNoExecution(choice, directory, "macOS has no executable mount of a directory"));
}

ExecChoice chooseExecMechanism(BuildDirectories &directories, const std::string &origin,
                               const Locations &locations, const Settings &, const std::string &) {
    requireExecutableStore(locations);
    MountDescription mount = describeMount(directories.fd());
    if (mount.noexec) {
        throw Error(ErrorKind::unsupported, "{}", explainRefusal(directories.base(), origin, mount, ""));
    }
    return {.mechanism = ExecMechanism::direct,
            .view = viewOf(directories.fd()),
            .base = directories.base(),
            .origin = origin,
            .mount = {},
            .probeError = 0,
            .untried = "macOS forbids execution by the mount's flags alone",
            .warning = ""};
}

} // namespace firn
