#include "libstore/db/sqlite.hh"

#include <chrono>
#include <random>
#include <thread>

#include <sqlite3.h>

namespace firn {

namespace {

constexpr int busyTimeoutMilliseconds = 60 * 60 * 1000;

ErrorKind kindOf(int status) {
    switch (status & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ErrorKind::corrupt;
    case SQLITE_CONSTRAINT:
        return ErrorKind::bug;
    case SQLITE_PERM:
    case SQLITE_READONLY:
        return ErrorKind::refused;
    default:
        return ErrorKind::system;
    }
}

bool isBusy(int status) {
    int primary = status & 0xff;
    return primary == SQLITE_BUSY || primary == SQLITE_PROTOCOL || primary == SQLITE_LOCKED;
}

std::string_view advice(int status) {
    switch (status & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return "; the file is damaged: restore it from a backup";
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        return "; check that this user may write the file and its directory";
    case SQLITE_FULL:
        return "; free some disk space";
    default:
        return "";
    }
}

/// Short and random, so that two processes in step do not stay in step.
void pauseBriefly() {
    static thread_local std::minstd_rand random(std::random_device{}());
    std::this_thread::sleep_for(std::chrono::milliseconds(20 + random() % 100));
}

} // namespace

Database::Database(const std::filesystem::path &path, bool create) : path_(path) {
    int flags = SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0) | SQLITE_OPEN_NOMUTEX;
    int status = sqlite3_open_v2(path.c_str(), &handle_, flags, nullptr);
    if (status != SQLITE_OK) {
        std::string reason = sqlite3_errstr(status);
        sqlite3_close(handle_);
        throw Error(kindOf(status), "cannot open Nix database '{}': {}{}", path.string(), reason,
                    advice(status));
    }
    sqlite3_extended_result_codes(handle_, 1);
    sqlite3_busy_timeout(handle_, busyTimeoutMilliseconds);
}

Database::~Database() {
    sqlite3_close(handle_);
}

void Database::execute(const std::string &sql) {
    if (sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
        fail(sql);
    }
}

int64_t Database::lastInsertId() const {
    return sqlite3_last_insert_rowid(handle_);
}

uint64_t Database::changes() const {
    return static_cast<uint64_t>(sqlite3_changes(handle_));
}

bool Database::inTransaction() const {
    return sqlite3_get_autocommit(handle_) == 0;
}

void Database::fail(std::string_view statement) const {
    int status = sqlite3_extended_errcode(handle_);
    auto message = fmt::format("running '{}' in database '{}': {} ({}){}", statement, path_.string(),
                               sqlite3_errmsg(handle_), sqlite3_errstr(status), advice(status));
    if (isBusy(status)) {
        throw DatabaseBusy(message);
    }
    throw Error(kindOf(status), message);
}

Statement::Statement(Database &database, std::string sql) : database_(database), sql_(std::move(sql)) {
    if (sqlite3_prepare_v3(database_.handle(), sql_.c_str(), static_cast<int>(sql_.size()) + 1,
                           SQLITE_PREPARE_PERSISTENT, &statement_, nullptr) != SQLITE_OK) {
        database_.fail(sql_);
    }
}

Statement::~Statement() {
    sqlite3_finalize(statement_);
}

void Statement::check(int status) const {
    if (status != SQLITE_OK) {
        database_.fail(sql_);
    }
}

void Statement::bind(int index, std::string_view text) {
    check(sqlite3_bind_text64(statement_, index, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
}

void Statement::bind(int index, int64_t number) {
    check(sqlite3_bind_int64(statement_, index, number));
}

void Statement::bind(int index, const std::optional<std::string> &text) {
    text ? bind(index, std::string_view(*text)) : bind(index, std::nullopt);
}

void Statement::bind(int index, std::nullopt_t) {
    check(sqlite3_bind_null(statement_, index));
}

Rows::~Rows() {
    sqlite3_reset(statement_.statement_);
    sqlite3_clear_bindings(statement_.statement_);
}

bool Rows::next() {
    int status = sqlite3_step(statement_.statement_);
    if (status != SQLITE_ROW && status != SQLITE_DONE) {
        statement_.database_.fail(statement_.sql_);
    }
    return status == SQLITE_ROW;
}

std::string Rows::text(int column) const {
    auto *bytes = reinterpret_cast<const char *>(sqlite3_column_text(statement_.statement_, column));
    auto size = static_cast<size_t>(sqlite3_column_bytes(statement_.statement_, column));
    return bytes ? std::string(bytes, size) : std::string();
}

int64_t Rows::integer(int column) const {
    return sqlite3_column_int64(statement_.statement_, column);
}

Transaction::Transaction(Database &database, Kind kind) : database_(database) {
    database_.execute(kind == Kind::writing ? "begin immediate" : "begin");
}

Transaction::~Transaction() {
    if (open_) {
        // A failed statement may have ended the transaction already; there is nothing more to do then.
        sqlite3_exec(database_.handle(), "rollback", nullptr, nullptr, nullptr);
    }
}

void Transaction::commit() {
    database_.execute("commit");
    open_ = false;
}

void retryWhileBusy(Logger &logger, const std::function<void()> &action) {
    using Clock = std::chrono::steady_clock;
    auto nextWarning = Clock::now();
    while (true) {
        try {
            action();
            return;
        } catch (const DatabaseBusy &busy) {
            if (Clock::now() >= nextWarning) {
                logger.warn(busy.message());
                nextWarning = Clock::now() + std::chrono::seconds(10);
            }
        }
        pauseBriefly();
    }
}

} // namespace firn
