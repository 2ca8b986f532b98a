#pragma once

#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "libutil/file-descriptor.hh"
#include "libutil/logging.hh"

namespace firn {

/// The hash parts that are temporary roots during a collection, shared between the collecting thread and the
/// one that serves the socket. A hash part is never a root and claimed at once: who announces a root waits
/// while its path is being deleted, who wants to delete is refused what is a root.
class CollectionRoots {
  public:
    /// Returns when nobody is deleting anything with this hash part.
    void add(const std::string &hashPart);
    bool contains(const std::string &hashPart);
    /// Claims all, or none if one of them is a root (which is returned).
    std::optional<std::string> claim(const std::set<std::string> &hashParts);
    void release();

  private:
    std::mutex mutex_;
    std::condition_variable released_;
    std::set<std::string> roots_, claimed_;
};

/// Serves `gc-socket/socket` while it lives: each line is a full store path, answered by '1' when it is safe.
/// Only for the holder of gc.lock.
class CollectionServer {
  public:
    CollectionServer(const std::filesystem::path &stateDir, std::string storePrefix, CollectionRoots &roots,
                     Logger &logger);
    ~CollectionServer();
    CollectionServer(const CollectionServer &) = delete;
    CollectionServer &operator=(const CollectionServer &) = delete;

  private:
    struct Client {
        UniqueFd fd;
        std::string input;
    };

    void serve();
    void accept();
    bool receive(Client &client);
    bool answer(Client &client, const std::string &path);

    std::filesystem::path socketPath_;
    std::string storePrefix_;
    CollectionRoots &roots_;
    Logger &logger_;
    UniqueFd listener_;
    Pipe stop_;
    std::vector<Client> clients_;
    std::thread thread_;
};

} // namespace firn
