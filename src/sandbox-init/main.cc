// firn-sandbox-init: becomes the sandbox, and then the builder.
//
//   firn-sandbox-init SOCKET STATUS  descriptors: a Description comes over the one, Reports go to the other;
//                                    see description.hh
//   firn-sandbox-init --kill-uid N   kills every process of user N; the daemon is root
//   firn-sandbox-init --nothing      the builder of a trial sandbox
//
// Three processes make one build:
//
//   outer    the daemon's child, in the daemon's namespaces; keeps the daemon's rights until it has nothing
//            more to do but wait
//   inner    pid 1 of the new namespaces; makes the sandbox, gives everything up, reaps
//   builder  inner's child
//
// When the daemon dies the kernel kills outer (PR_SET_PDEATHSIG), then inner likewise, then, since inner is
// the first process of its pid namespace, everything in there; the mounts go with the last of them. No step
// of that needs any process to do something.

#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox-init/description.hh"
#include "sandbox-init/descriptors.hh"
#include "sandbox-init/fail.hh"
#include "sandbox-init/outer.hh"

namespace {

using namespace firn::sandbox;

[[noreturn]] void usage(const char *problem) {
    fprintf(stderr, "firn-sandbox-init: %s. This program is started by the Firn daemon.\n", problem);
    _exit(2);
}

long parseNumber(std::string_view text) {
    long number = -1;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    bool whole = error == std::errc{} && end == text.data() + text.size();
    if (!whole || number < 0 || number > INT_MAX) {
        usage("not a number");
    }
    return number;
}

std::string readAll(int fd) {
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size < 0 || static_cast<size_t>(st.st_size) > maxDescriptionSize) {
        usage("no description");
    }
    std::string bytes(static_cast<size_t>(st.st_size), '\0');
    size_t done = 0;
    while (done < bytes.size()) {
        ssize_t got = pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
        if (got <= 0) {
            usage("cannot read the description");
        }
        done += static_cast<size_t>(got);
    }
    return bytes;
}

/// kill(-1) as that user reaches all its processes and, on Linux, not the caller. The kernel walks the
/// process list in one go, and a fork that has a SIGKILL coming fails, so nothing escapes by multiplying.
[[noreturn]] void killUser(uid_t uid) {
    if (uid == 0) {
        usage("refusing to kill the processes of root");
    }
    if (setgroups(0, nullptr) < 0 || setgid(65534) < 0 || setuid(uid) < 0) {
        fprintf(stderr, "firn-sandbox-init: becoming user %u: %s\n", uid, strerror(errno));
        _exit(1);
    }
    if (kill(-1, SIGKILL) < 0 && errno != ESRCH) {
        fprintf(stderr, "firn-sandbox-init: killing the processes of user %u: %s\n", uid, strerror(errno));
        _exit(1);
    }
    _exit(0);
}

/// The daemon may think better of it, or die: then there is nothing to be done.
Description awaitDescription(int socket) {
    std::vector<int> descriptors = receiveDescriptors(socket, Step::readDescription);
    close(socket);
    if (descriptors.empty()) {
        _exit(0);
    }
    auto description = decodeDescription(readAll(descriptors.front()));
    close(descriptors.front());
    if (!description || !resolveDescriptors(*description, descriptors)) {
        usage("the description is not of this version or damaged");
    }
    return std::move(*description);
}

} // namespace

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--kill-uid") == 0) {
        killUser(static_cast<uid_t>(parseNumber(argv[2])));
    }
    if (argc == 2 && strcmp(argv[1], "--nothing") == 0) {
        return 0; // as the builder of a trial sandbox
    }
    if (argc != 3) {
        usage("wrong arguments");
    }
    setStatusFd(static_cast<int>(parseNumber(argv[2])));
    // Once more when it is known which process that is.
    check(prctl(PR_SET_PDEATHSIG, SIGKILL), Step::watchParent);
    runOuter(awaitDescription(static_cast<int>(parseNumber(argv[1]))));
}
