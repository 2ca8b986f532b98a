#include "sandbox-init/descriptors.hh"

#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox-init/fail.hh"

namespace firn::sandbox {

namespace {

void closeRange(unsigned first, unsigned last) {
    if (first <= last) {
        long result = syscall(SYS_close_range, first, last, 0u);
        check(static_cast<int>(result), Step::connectOutput, "closing descriptors");
    }
}

} // namespace

void closeAllBut(unsigned first, std::initializer_list<int> kept) {
    for (int fd : kept) {
        auto keep = static_cast<unsigned>(fd);
        if (keep > first) {
            closeRange(first, keep - 1);
        }
        first = keep + 1;
    }
    closeRange(first, ~0u);
}

rlim_t allowManyDescriptors() {
    struct rlimit limit;
    check(getrlimit(RLIMIT_NOFILE, &limit), Step::setLimits, "descriptors");
    limit.rlim_cur = limit.rlim_max;
    check(setrlimit(RLIMIT_NOFILE, &limit), Step::setLimits, "descriptors");
    return limit.rlim_cur;
}

} // namespace firn::sandbox
