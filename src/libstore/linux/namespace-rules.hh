#pragma once

#include <string>

namespace firn {

/// Where hosts are known to forbid namespaces: settings of the kernel, "" where there is none.
struct NamespaceRules {
    std::string unprivilegedClone;   ///< kernel.unprivileged_userns_clone (Debian's): "0" forbids
    std::string maxUserNamespaces;   ///< user.max_user_namespaces: "0" forbids
    std::string apparmorRestriction; ///< kernel.apparmor_restrict_unprivileged_userns: "1" forbids
    bool root = false;               ///< we are; two of these do not concern root
};

/// This host's, for this process.
NamespaceRules readNamespaceRules();

/// Why namespaces could not be made, where that failed with `error` (errno), and what to do about it; "" when
/// nothing is known.
std::string explainForbiddenNamespaces(const NamespaceRules &rules, int error);

} // namespace firn
