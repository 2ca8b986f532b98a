#include "libstore/linux/namespace-rules.hh"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "libutil/file-descriptor.hh"

namespace firn {

namespace {

/// "" when there is no such setting, as on most hosts.
std::string readSetting(const char *path) {
    UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
    char text[64];
    ssize_t length = fd ? read(fd.get(), text, sizeof text) : 0;
    std::string value(text, length > 0 ? static_cast<size_t>(length) : 0);
    return value.substr(0, value.find('\n'));
}

} // namespace

NamespaceRules readNamespaceRules() {
    return {.unprivilegedClone = readSetting("/proc/sys/kernel/unprivileged_userns_clone"),
            .maxUserNamespaces = readSetting("/proc/sys/user/max_user_namespaces"),
            .apparmorRestriction = readSetting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            .root = geteuid() == 0};
}

std::string explainForbiddenNamespaces(const NamespaceRules &rules, int error) {
    if (rules.unprivilegedClone == "0" && !rules.root) {
        return "This host lets only root make user namespaces: set kernel.unprivileged_userns_clone=1 with "
               "sysctl, or "
               "run the daemon as root";
    }
    if (rules.maxUserNamespaces == "0") {
        return "This host allows no user namespaces: set user.max_user_namespaces to some thousands with "
               "sysctl";
    }
    if (rules.apparmorRestriction == "1" && !rules.root) {
        return "AppArmor restricts user namespaces on this host: give sandbox-init a profile with 'userns,', "
               "set "
               "kernel.apparmor_restrict_unprivileged_userns=0 with sysctl, or run the daemon as root";
    }
    if (error == ENOSPC) {
        return "A limit of namespaces is reached: see the settings below /proc/sys/user and how deeply this "
               "process "
               "is nested in user namespaces";
    }
    if (error == ENOSYS || error == EINVAL) {
        return "The kernel lacks a kind of namespace: Linux 5.9 or later with CONFIG_USER_NS, PID_NS, "
               "NET_NS, IPC_NS, "
               "UTS_NS and CGROUPS is needed; a container's system call filter may hide clone3";
    }
    return error == EPERM || error == EACCES
               ? "The host forbids new namespaces, as containers and chroot environments do: allow them there"
               : "";
}

} // namespace firn
