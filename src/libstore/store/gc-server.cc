#include "libstore/store/gc-server.hh"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libstore/model/store-path.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

constexpr size_t lineLimit = 8192;
/// More than that wait in the backlog until one leaves: everybody may connect, descriptors are few.
constexpr size_t clientLimit = 512;

UniqueFd listenAt(const std::filesystem::path &path) {
    makeDirectories(path.parent_path());
    struct sockaddr_un address {};
    address.sun_family = AF_UNIX;
    if (path.native().size() >= sizeof address.sun_path) {
        throw Error(ErrorKind::unsupported, "the path of the collector's socket '{}' is too long",
                    path.string());
    }
    std::memcpy(address.sun_path, path.c_str(), path.native().size() + 1);
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    if (!fd || fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
        throwErrno("creating a socket");
    }
    unlink(path.c_str()); // left by a collection that was killed; we hold the lock
    if (bind(fd.get(), reinterpret_cast<struct sockaddr *>(&address), sizeof address) != 0) {
        throwErrno("binding the collector's socket '{}'", path.string());
    }
    // Everybody may announce roots.
    if (chmod(path.c_str(), 0666) != 0 || listen(fd.get(), 64) != 0 ||
        fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0) {
        throwErrno("listening at the collector's socket '{}'", path.string());
    }
    return fd;
}

} // namespace

void CollectionRoots::add(const std::string &hashPart) {
    std::unique_lock lock(mutex_);
    released_.wait(lock, [&] { return !claimed_.contains(hashPart); });
    roots_.insert(hashPart);
}

bool CollectionRoots::contains(const std::string &hashPart) {
    std::unique_lock lock(mutex_);
    return roots_.contains(hashPart);
}

std::optional<std::string> CollectionRoots::claim(const std::set<std::string> &hashParts) {
    std::unique_lock lock(mutex_);
    for (auto &hashPart : hashParts) {
        if (roots_.contains(hashPart)) {
            return hashPart;
        }
    }
    claimed_ = hashParts;
    return std::nullopt;
}

void CollectionRoots::release() {
    std::unique_lock lock(mutex_);
    claimed_.clear();
    released_.notify_all();
}

CollectionServer::CollectionServer(const std::filesystem::path &stateDir, std::string storePrefix,
                                   CollectionRoots &roots, Logger &logger)
    : socketPath_(stateDir / "gc-socket" / "socket"),
      storePrefix_(std::move(storePrefix)),
      roots_(roots),
      logger_(logger),
      listener_(listenAt(socketPath_)),
      stop_(makePipe()),
      thread_([this] { serve(); }) {}

CollectionServer::~CollectionServer() {
    stop_.writeEnd.reset();
    thread_.join();
    unlink(socketPath_.c_str());
}

void CollectionServer::serve() {
    while (true) {
        std::vector<struct pollfd> fds{{stop_.readEnd.get(), POLLIN, 0},
                                       {clients_.size() < clientLimit ? listener_.get() : -1, POLLIN, 0}};
        for (auto &client : clients_) {
            fds.push_back({client.fd.get(), POLLIN, 0});
        }
        if (poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) {
            // Clients see the socket close when the collection ends; roots they announce until then wait.
            logger_.warn(fmt::format("the collector's socket '{}' failed: {}", socketPath_.string(),
                                     std::strerror(errno)));
            return;
        }
        if (fds[0].revents) {
            return;
        }
        for (size_t i = clients_.size(); i-- > 0;) {
            if (fds[i + 2].revents && !receive(clients_[i])) {
                clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(i));
            }
        }
        if (fds[1].revents) {
            accept();
        }
    }
}

void CollectionServer::accept() {
    UniqueFd fd(::accept(listener_.get(), nullptr, nullptr));
    if (!fd) {
        if (errno == EMFILE || errno == ENFILE) {
            poll(nullptr, 0, 10); // the next round tries again
        }
        return;
    }
    fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
    fcntl(fd.get(), F_SETFL, O_NONBLOCK);
    clients_.push_back({std::move(fd), {}});
}

bool CollectionServer::receive(Client &client) {
    char buffer[4096];
    auto size = read(client.fd.get(), buffer, sizeof buffer);
    if (size < 0 && (errno == EINTR || errno == EAGAIN)) {
        return true;
    }
    if (size <= 0) {
        return false;
    }
    client.input.append(buffer, static_cast<size_t>(size));
    for (size_t end; (end = client.input.find('\n')) != std::string::npos;) {
        auto line = client.input.substr(0, end);
        client.input.erase(0, end + 1);
        if (!answer(client, line)) {
            return false;
        }
    }
    return client.input.size() <= lineLimit;
}

bool CollectionServer::answer(Client &client, const std::string &path) {
    // Anything but a path in this store protects nothing, and is answered all the same: the sender only wants
    // to go on.
    if (path.starts_with(storePrefix_) && path.size() >= storePrefix_.size() + StorePath::hashPartLength) {
        roots_.add(path.substr(storePrefix_.size(), StorePath::hashPartLength));
    }
    return send(client.fd.get(), "1", 1, MSG_NOSIGNAL) == 1;
}

} // namespace firn
