#include "libstore/build/macho-jail.hh"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

using namespace std::chrono_literals;
using jail::ExitCode;

constexpr auto lookAgain = 100ms; ///< for interrupts, which wake nobody
constexpr auto mostPatience = std::chrono::hours(24);
constexpr size_t mostBytesAhead = 4096; ///< in questions before the first that has no answer yet

std::pair<UniqueFd, UniqueFd> makeSocketPair() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
        throwErrno("making a socket for the Mach-O jail");
    }
    std::pair<UniqueFd, UniqueFd> pair{UniqueFd(ends[0]), UniqueFd(ends[1])};
    for (int end : ends) {
        if (fcntl(end, F_SETFD, FD_CLOEXEC) != 0) {
            throwErrno("making a socket for the Mach-O jail");
        }
    }
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) {
        throwErrno("making a socket for the Mach-O jail");
    }
    return pair;
}

/// posix_spawn has no code of ours run in a copy of this threaded process.
pid_t spawn(const std::string &program, int socket) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_adddup2(&actions, socket, 0);
    std::string name = "firn-macho-jail";
    char *args[] = {name.data(), nullptr};
    char *noEnvironment[] = {nullptr};
    pid_t pid = -1;
    int error = posix_spawn(&pid, program.c_str(), &actions, &attributes, args, noEnvironment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) {
        throw SysError(error, fmt::format("starting '{}'", program));
    }
    return pid;
}

const char *stepOf(int code) {
    switch (static_cast<ExitCode>(code)) {
    case ExitCode::descriptors:
        return "it could not close its descriptors";
    case ExitCode::user:
        return "it could not become a user without rights";
    case ExitCode::privileges:
        return "it could not give up its privileges";
    case ExitCode::limits:
        return "it could not set its limits";
    case ExitCode::filter:
        return "it could not load its system call filter";
    }
    return nullptr;
}

std::string describeEnd(int status) {
    if (WIFSIGNALED(status)) {
        return fmt::format("was killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
    const char *step = stepOf(WEXITSTATUS(status));
    return step ? fmt::format("ended: {}", step)
                : fmt::format("ended with exit code {}", WEXITSTATUS(status));
}

/// Self-references are not the jail's to write.
bool keepsOff(const std::vector<BytePatch> &patches, const std::vector<uint64_t> &selfReferences) {
    auto reference = selfReferences.begin();
    for (const BytePatch &patch : patches) {
        while (reference != selfReferences.end() && *reference + jail::selfReferenceSize <= patch.offset) {
            ++reference;
        }
        if (reference != selfReferences.end() && *reference < patch.offset + patch.bytes.size()) {
            return false;
        }
    }
    return true;
}

/// An answer to another question is none to this one.
bool fits(const jail::Answer &answer, const jail::Request &request) {
    bool noFixup = answer.fixup.patches.empty() && answer.fixup.findings.empty();
    bool noStale = answer.stale.empty();
    bool noComparison = !answer.comparison.isMacho;
    bool noForm = !answer.form.inside && answer.form.reason.empty() && answer.form.selfReferences == 0;
    switch (request.kind) {
    case jail::Kind::fixup:
        return noStale && noComparison && noForm;
    case jail::Kind::verify:
        return noFixup && noComparison && noForm;
    case jail::Kind::compare:
        return noFixup && noStale && noForm;
    case jail::Kind::normalForm:
    case jail::Kind::finalForm:
        return noFixup && noStale && noComparison && keepsOff(answer.form.patches, request.selfReferences);
    }
    return false;
}

/// Whether it has ended within a moment, with `status` then.
bool hasEnded(pid_t pid, int &status) {
    for (int i = 0; i < 20; ++i) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return true;
        }
        std::this_thread::sleep_for(10ms);
    }
    return false;
}

} // namespace

/// The other side of the socket is closed.
class MachoJail::Died : public std::exception {};

struct MachoJail::Message {
    const jail::Request *request;
    std::string bytes;
    std::vector<int> files;
};

MachoJail::MachoJail(std::string program, JailPatience patience)
    : program_(std::move(program)), patience_(patience) {}

MachoJail::~MachoJail() {
    if (pid_ > 0) {
        end();
    }
}

void MachoJail::start() {
    auto [ours, theirs] = makeSocketPair();
    pid_ = spawn(program_, theirs.get());
    socket_ = std::move(ours);
}

void MachoJail::prepare() noexcept {
    try {
        if (pid_ < 0) {
            start();
        }
    } catch (const std::exception &) {
        // Told by whoever asks: there is nothing to tell if nobody does.
    }
}

int MachoJail::end() {
    socket_.reset();
    kill(pid_, SIGKILL);
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
}

std::string MachoJail::awaitEnd() {
    socket_.reset();
    int status = 0;
    if (hasEnded(pid_, status)) {
        pid_ = -1;
    } else {
        status = end();
    }
    return describeEnd(status);
}

void MachoJail::awaitReady(short events) {
    for (;;) {
        throwIfInterrupted();
        auto now = std::chrono::steady_clock::now();
        if (now >= deadline_) {
            throw Error(ErrorKind::failure, "the process that looks at it gave no answer in time");
        }
        auto pause = std::min<std::chrono::nanoseconds>(lookAgain, deadline_ - now);
        struct pollfd state = {socket_.get(), events, 0};
        auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(pause).count();
        int ready = poll(&state, 1, static_cast<int>(milliseconds));
        if (ready > 0) {
            return;
        }
        if (ready < 0 && errno != EINTR) {
            throwErrno("waiting for the Mach-O jail");
        }
    }
}

/// False where nobody receives it any more; what was said before that may still be there to be read.
bool MachoJail::send(const Message &message) {
    constexpr size_t mostFiles = 2;
    size_t size = std::min(message.files.size(), mostFiles) * sizeof(int);
    alignas(struct cmsghdr) char control[CMSG_SPACE(mostFiles * sizeof(int))] = {};
    struct msghdr packet = {};
    packet.msg_control = control;
    packet.msg_controllen = CMSG_SPACE(size);
    struct cmsghdr *head = CMSG_FIRSTHDR(&packet);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(head), message.files.data(), size);
    for (std::string_view left = message.bytes; !left.empty();) {
        awaitReady(POLLOUT);
        struct iovec piece = {const_cast<char *>(left.data()), left.size()};
        packet.msg_iov = &piece;
        packet.msg_iovlen = 1;
        ssize_t sent = sendmsg(socket_.get(), &packet, 0);
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            return false;
        }
        if (sent < 0 && errno != EINTR && errno != EAGAIN) {
            throwErrno("asking the Mach-O jail");
        }
        if (sent > 0) {
            left.remove_prefix(static_cast<size_t>(sent));
            packet.msg_control = nullptr; // it went with the first bytes
            packet.msg_controllen = 0;
        }
    }
    return true;
}

std::string MachoJail::receive(size_t size) {
    constexpr size_t atOnce = 1 << 20; // so that only what comes takes memory
    std::string bytes;
    while (bytes.size() < size) {
        awaitReady(POLLIN);
        size_t done = bytes.size();
        bytes.resize(std::min(size, done + atOnce));
        ssize_t got = recv(socket_.get(), bytes.data() + done, bytes.size() - done, 0);
        if (got == 0 || (got < 0 && errno == ECONNRESET)) {
            throw Died();
        }
        if (got < 0 && errno != EINTR && errno != EAGAIN) {
            throwErrno("reading the answer of the Mach-O jail");
        }
        bytes.resize(done + (got > 0 ? static_cast<size_t>(got) : 0));
    }
    return bytes;
}

jail::Answer MachoJail::receiveAnswer(const jail::Request &request) {
    auto refuse = [] {
        throw Error(ErrorKind::failure, "what the process that looks at it says is no answer");
    };
    std::optional<jail::Header> header = jail::decodeHeader(receive(jail::headerSize));
    if (!header || header->bodySize > jail::maxAnswerBody(request.fileSize)) {
        refuse();
    }
    auto outcome = static_cast<jail::Outcome>(header->word);
    if (outcome == jail::Outcome::failed && header->bodySize <= jail::maxReason) {
        throw Error(ErrorKind::failure, "{}", escapeForDisplay(receive(header->bodySize)));
    }
    if (outcome != jail::Outcome::done) {
        refuse();
    }
    std::optional<jail::Answer> answer = jail::decodeAnswer(receive(header->bodySize), request.fileSize);
    if (!answer || !fits(*answer, request)) {
        refuse();
    }
    return std::move(*answer);
}

std::chrono::milliseconds MachoJail::patienceFor(const jail::Request &request) const {
    uint64_t seconds =
        request.fileSize / patience_.bytesPerSecond + request.secondSize / patience_.bytesPerSecond;
    return patience_.constant +
           std::min<std::chrono::milliseconds>(mostPatience,
                                               std::chrono::seconds(std::min<uint64_t>(seconds, 1u << 30)));
}

/// From the question at `next` on. Sends ahead, but no more than a socket takes at once: else each side could
/// wait for the other to read.
void MachoJail::exchange(const std::vector<Message> &messages, size_t next,
                         std::vector<jail::Answer> &answers) {
    if (pid_ < 0) {
        start();
    }
    size_t bytesAhead = 0;
    bool listens = true;
    for (size_t sent = next; next < messages.size(); ++next) {
        deadline_ = std::chrono::steady_clock::now() + patienceFor(*messages[next].request);
        while (listens && sent < messages.size() &&
               (sent == next || bytesAhead + messages[sent].bytes.size() <= mostBytesAhead)) {
            bytesAhead += messages[sent].bytes.size();
            listens = send(messages[sent++]);
        }
        answers.push_back(receiveAnswer(*messages[next].request));
        bytesAhead -= messages[next].bytes.size();
    }
}

void MachoJail::converse(const std::vector<Message> &messages, std::vector<jail::Answer> &answers) {
    size_t next = 0, before = answers.size(), diedAt = SIZE_MAX;
    while (next < messages.size()) {
        try {
            exchange(messages, next, answers);
            next = messages.size();
        } catch (const Died &) {
            std::string how = awaitEnd();
            next = answers.size() - before;
            if (std::exchange(diedAt, next) == next) {
                throw Error(ErrorKind::failure, "the process that looks at it {}, twice", how);
            }
        } catch (const Error &) {
            // Whatever it still says would be taken for the next answer.
            if (pid_ > 0) {
                end();
            }
            throw;
        }
    }
}

jail::Answer MachoJail::ask(const jail::Request &request, int file, int second) {
    std::vector<int> files{file};
    if (second >= 0) {
        files.push_back(second);
    }
    std::vector<jail::Answer> answers;
    converse({{&request, jail::encodeRequest(request), files}}, answers);
    return std::move(answers.front());
}

void MachoJail::askAll(const std::vector<Question> &questions, std::vector<jail::Answer> &answers) {
    std::vector<Message> messages;
    for (const Question &question : questions) {
        messages.push_back({&question.request, jail::encodeRequest(question.request), {question.file.get()}});
    }
    converse(messages, answers);
}

} // namespace firn
