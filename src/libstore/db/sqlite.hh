#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "libutil/error.hh"
#include "libutil/logging.hh"

struct sqlite3;
struct sqlite3_stmt;

// As much of SQLite as the store needs, with owners. Every error names the database file and the statement.
// SQLITE_BUSY that outlasts the busy timeout, and those kinds of it that no timeout covers (a stale WAL
// snapshot, a recovery by another process), are DatabaseBusy: the whole transaction is to be tried again.

namespace firn {

class DatabaseBusy : public Error {
  public:
    explicit DatabaseBusy(std::string message) : Error(ErrorKind::system, std::move(message)) {}
};

/// One connection. Not thread-safe.
class Database {
  public:
    /// Opens for reading and writing; `create` makes the file where it is missing. Waits up to an hour for
    /// other processes' locks, as stock Nix does.
    Database(const std::filesystem::path &path, bool create);
    ~Database();
    Database(const Database &) = delete;
    Database &operator=(const Database &) = delete;

    /// Runs one or several statements without results.
    void execute(const std::string &sql);
    int64_t lastInsertId() const;
    uint64_t changes() const;
    bool inTransaction() const;
    const std::filesystem::path &path() const { return path_; }
    sqlite3 *handle() const { return handle_; }
    /// Throws what the connection's last error means; `statement` goes into the message.
    [[noreturn]] void fail(std::string_view statement) const;

  private:
    std::filesystem::path path_;
    sqlite3 *handle_ = nullptr;
};

class Statement;

/// The results of a statement that runs. Must not outlive the statement, of which one runs at a time.
class Rows {
  public:
    explicit Rows(Statement &statement) : statement_(statement) {}
    ~Rows();
    Rows(const Rows &) = delete;
    Rows &operator=(const Rows &) = delete;

    /// Goes to the next (at first the first) row; false when there is none.
    bool next();
    std::string text(int column) const; ///< "" for null
    int64_t integer(int column) const;  ///< 0 for null

  private:
    Statement &statement_;
};

/// A prepared statement with positional parameters.
class Statement {
  public:
    Statement(Database &database, std::string sql);
    ~Statement();
    Statement(const Statement &) = delete;
    Statement &operator=(const Statement &) = delete;

    template<typename... Args>
    Rows query(const Args &...args) {
        int index = 0;
        (bind(++index, args), ...);
        return Rows(*this);
    }
    template<typename... Args>
    void run(const Args &...args) {
        query(args...).next();
    }

  private:
    friend class Rows;
    void bind(int index, std::string_view text);
    void bind(int index, const std::string &text) { bind(index, std::string_view(text)); }
    void bind(int index, int64_t number);
    void bind(int index, const std::optional<std::string> &text);
    void bind(int index, std::nullopt_t);
    void check(int status) const;

    Database &database_;
    std::string sql_;
    sqlite3_stmt *statement_ = nullptr;
};

/// "begin …" … commit(); rolled back by the destructor. One that will write begins `immediate`, since a
/// transaction that reads first and writes later can be refused in WAL mode when another process wrote in
/// between. One that only reads sees everything as at its first query, and takes SQLite's locks once instead
/// of once for each query.
class Transaction {
  public:
    enum class Kind { writing, reading };
    explicit Transaction(Database &database, Kind kind = Kind::writing);
    ~Transaction();
    Transaction(const Transaction &) = delete;
    Transaction &operator=(const Transaction &) = delete;
    void commit();

  private:
    Database &database_;
    bool open_ = true;
};

/// Runs `action` again for as long as it ends in DatabaseBusy; says so every ten seconds.
void retryWhileBusy(Logger &logger, const std::function<void()> &action);

} // namespace firn
