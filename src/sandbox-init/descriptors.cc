#include "sandbox-init/descriptors.hh"

#include <cstring>

#include <fcntl.h>
#include <sys/socket.h>
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

/// Our own three may be closed, and then their numbers are given away first.
int aboveStandard(int fd, Step step) {
    if (fd > STDERR_FILENO) {
        return fd;
    }
    int copy = check(fcntl(fd, F_DUPFD_CLOEXEC, 3), step, "descriptors");
    close(fd);
    return copy;
}

} // namespace

std::vector<int> receiveDescriptors(int socket, Step step) {
    char byte;
    struct iovec piece = {&byte, 1};
    alignas(struct cmsghdr) char control[CMSG_SPACE(maxSentDescriptors * sizeof(int))];
    struct msghdr message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got;
    do {
        got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (check(static_cast<int>(got), step) == 0) {
        return {};
    }
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if ((message.msg_flags & MSG_CTRUNC) || !head || head->cmsg_type != SCM_RIGHTS) {
        fail(step, "descriptors", EMFILE); // too few are allowed for all to be taken
    }
    std::vector<int> descriptors((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(descriptors.data(), CMSG_DATA(head), descriptors.size() * sizeof(int));
    for (int &fd : descriptors) {
        fd = aboveStandard(fd, step);
    }
    return descriptors;
}

void sendDescriptor(int socket, int fd, Step step) {
    char byte = 0;
    struct iovec piece = {&byte, 1};
    alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
    struct msghdr message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0 && errno != EPIPE) {
        fail(step, "descriptors");
    }
}

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
