#include "libutil/descriptor-limit.hh"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>

#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"

namespace firn {

namespace {

/// Enough for thousands of builds. Children close that many one by one where the system has no better call.
constexpr rlim_t most = 65536;
/// What macOS grants at most, whatever the hard limit says (OPEN_MAX).
constexpr rlim_t mostOnMacos = 10240;

std::optional<rlim_t> beforeRaising;

struct rlimit descriptorLimit() {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        throwErrno("reading the limit of open descriptors");
    }
    return limit;
}

/// How many are open, those above a limit that was lowered and those opened with O_PATH among them: Linux
/// from 6.2 on gives the number as the size of the directory that lists them. Elsewhere more than there can
/// be.
uint64_t openDescriptors() {
    constexpr uint64_t unknown = std::numeric_limits<uint64_t>::max() / 2;
    struct stat st;
    bool known = stat("/proc/self/fd", &st) == 0 && S_ISDIR(st.st_mode) && st.st_size > 0;
    return known ? static_cast<uint64_t>(st.st_size) : unknown;
}

} // namespace

void raiseDescriptorLimit() {
    struct rlimit limit = descriptorLimit();
    beforeRaising = beforeRaising.value_or(limit.rlim_cur);
    for (rlim_t wanted : {most, mostOnMacos}) {
        struct rlimit raised {
            std::min(wanted, limit.rlim_max), limit.rlim_max
        };
        if (raised.rlim_cur <= limit.rlim_cur || setrlimit(RLIMIT_NOFILE, &raised) == 0) {
            return;
        }
    }
}

rlim_t usualDescriptorLimit() {
    return beforeRaising ? *beforeRaising : descriptorLimit().rlim_cur;
}

void requireDescriptors(size_t count) {
    UniqueFd first(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (first && openDescriptors() + count <= descriptorLimit().rlim_cur + 1) {
        return; // `first` is one of both
    }
    std::vector<UniqueFd> taken;
    while (first && taken.size() + 1 < count) {
        taken.emplace_back(fcntl(first.get(), F_DUPFD_CLOEXEC, 0));
        if (!taken.back()) {
            break;
        }
    }
    if (!first || (!taken.empty() && !taken.back())) {
        throwErrno("looking for {} descriptors that are free", count);
    }
}

bool isLackOfDescriptors(int error) {
    return error == EMFILE || error == ENFILE;
}

std::string descriptorRemedy() {
    return fmt::format("The daemon may have {} descriptors open for one client, and each build takes some "
                       "ten of them. Raise "
                       "the hard limit that it is started with (LimitNOFILE in its systemd unit, "
                       "NumberOfFiles in its launchd "
                       "plist, 'ulimit -Hn' in a shell), or let fewer builds run at once (max-jobs)",
                       static_cast<uint64_t>(descriptorLimit().rlim_cur));
}

} // namespace firn
