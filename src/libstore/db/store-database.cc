#include "libstore/db/store-database.hh"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <functional>
#include <unordered_set>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "libstore/db/sqlite.hh"
#include "libutil/files.hh"
#include "libutil/platform.hh"

namespace firn {

namespace {

// Names, types and constraints are Nix's; a null `ultimate` means false, a null or empty `ca` none.
constexpr const char *storeSchema = R"(
create table if not exists ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer,
    sigs             text,
    ca               text
);
create table if not exists Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index if not exists IndexReferrer on Refs(referrer);
create index if not exists IndexReference on Refs(reference);
create trigger if not exists DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
create table if not exists DerivationOutputs (
    drv  integer not null,
    id   text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index if not exists IndexDerivationOutputs on DerivationOutputs(path);
)";

constexpr const char *realisationsSchema = R"(
create table if not exists SchemaMigrations (migration text primary key not null);
create table if not exists Realisations (
    id integer primary key autoincrement not null,
    drvPath text not null,
    outputName text not null,
    outputPath integer not null,
    signatures text,
    foreign key (outputPath) references ValidPaths(id) on delete cascade
);
create index if not exists IndexRealisations on Realisations(drvPath, outputName);
create trigger if not exists DeleteSelfRefsViaRealisations before delete on ValidPaths
  begin
    delete from RealisationsRefs where realisationReference in (
      select id from Realisations where outputPath = old.id
    );
  end;
create table if not exists RealisationsRefs (
    referrer integer not null,
    realisationReference integer,
    foreign key (referrer) references Realisations(id) on delete cascade,
    foreign key (realisationReference) references Realisations(id) on delete restrict
);
create index if not exists IndexRealisationsRefsRealisationReference on RealisationsRefs(realisationReference);
create index if not exists IndexRealisationsRefs on RealisationsRefs(referrer);
create index if not exists IndexRealisationsRefsOnOutputPath on Realisations(outputPath);
insert or ignore into SchemaMigrations values ('20220326-ca-derivations');
)";

constexpr int realisationsVersionMade = 3;
constexpr int realisationsVersionKnown = 4;

std::string joinWords(const std::set<std::string> &words) {
    return fmt::format("{}", fmt::join(words, " "));
}

std::set<std::string> splitSet(std::string_view text) {
    std::set<std::string> words;
    while (!text.empty()) {
        auto end = std::min(text.find(' '), text.size());
        if (end > 0) {
            words.emplace(text.substr(0, end));
        }
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return words;
}

/// 0 when the file is not there.
int readVersion(const std::filesystem::path &path) {
    std::string text;
    try {
        text = readFile(path, 64);
    } catch (const SysError &error) {
        if (error.number() == ENOENT) {
            return 0;
        }
        throw;
    }
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
        text.pop_back();
    }
    int version = 0;
    auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), version);
    if (status != std::errc() || end != text.data() + text.size() || version <= 0) {
        throw Error(ErrorKind::corrupt, "'{}' is corrupt: it should hold a schema's number, it holds '{}'",
                    path.string(), escapeForDisplay(text, 64));
    }
    return version;
}

/// In one step: others may be reading, and we may be killed. Stock Nix writes no newline.
void writeVersion(const std::filesystem::path &path, int version) {
    std::filesystem::path temporary = path;
    temporary += fmt::format(".tmp-{}", getpid());
    ScopeExit cleanUp([&] { unlink(temporary.c_str()); });
    writeFile(temporary, std::to_string(version));
    if (rename(temporary.c_str(), path.c_str()) != 0) {
        throwErrno("renaming '{}' to '{}'", temporary.string(), path.string());
    }
    cleanUp.cancel();
}

UniqueFd takeBigLock(const std::filesystem::path &directory, Logger &logger) {
    auto path = directory / "big-lock";
    UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock) {
        throwErrno("opening lock file '{}'", path.string());
    }
    if (flock(lock.get(), LOCK_SH | LOCK_NB) == 0) {
        return lock;
    }
    logger.log(Verbosity::error, "waiting for the big Nix store lock...");
    while (flock(lock.get(), LOCK_SH) != 0) {
        if (errno != EINTR) {
            throwErrno("locking '{}'", path.string());
        }
    }
    return lock;
}

/// Room that a collection can free when the disk is full and even SQLite cannot write any more. Where it
/// cannot be had now, the store still works.
void reserveSpace(const std::filesystem::path &directory, uint64_t size) {
    auto path = directory / "reserved";
    if (size == 0) {
        unlink(path.c_str());
        return;
    }
    struct stat st;
    if (stat(path.c_str(), &st) == 0 && static_cast<uint64_t>(st.st_size) == size) {
        return;
    }
    UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (!file || !allocateFile(file.get(), size)) {
        file.reset();
        unlink(path.c_str());
    }
}

} // namespace

struct StoreDatabase::Impl {
    Impl(const std::filesystem::path &directory, const StoreDir &store, const DatabaseOptions &options,
         Logger &logger);

    static int checkedVersion(const std::filesystem::path &directory);
    void configure(const DatabaseOptions &options);
    void createTables(const std::filesystem::path &directory);
    bool hasTable(const std::string &name);
    bool isMigrated();
    void openRealisations(const std::filesystem::path &directory, bool create);
    void prepare();
    PathInfo readInfo(const StorePath &path, Rows &rows);
    int64_t idOf(const StorePath &path);
    StorePathSet readPaths(Rows &rows);
    StorePathSet pathsReachableFrom(std::vector<int64_t> pending);
    StorePath parsePath(const std::string &text);
    Statement &realisationStatement(std::optional<Statement> &statement, std::string_view what);
    int64_t realisationId(const DrvOutput &id);

    StoreDir store;
    Logger &logger;
    UniqueFd bigLock;
    bool isNew;
    Database database;
    bool realisations = false;

    std::optional<Statement> insertPath, updatePath, selectPath, selectId, deletePath;
    std::optional<Statement> insertReference, selectReferences, selectReferrers;
    std::optional<Statement> selectReferenceIds, selectPathText;
    std::optional<Statement> insertOutput, selectOutputs, selectDerivers;
    std::optional<Statement> selectByHashPart, selectAll, otherReferrer;
    std::optional<Statement> insertRealisation, updateRealisation, selectRealisation;
    std::optional<Statement> insertRealisationReference, selectRealisationReferences;
    std::optional<Statement> deleteRealisationReferences;
};

int StoreDatabase::Impl::checkedVersion(const std::filesystem::path &directory) {
    int version = readVersion(directory / "schema");
    if (version > schemaVersion) {
        throw Error(ErrorKind::unsupported,
                    "the Nix store's database in '{}' has schema {}, but only schema {} is supported: it was "
                    "made by a newer Nix",
                    directory.string(), version, schemaVersion);
    }
    if (version != 0 && version < schemaVersion) {
        throw Error(ErrorKind::unsupported,
                    "the Nix store's database in '{}' has the old schema {}: let stock Nix (2.8 or later) "
                    "upgrade it to {} first, for instance with 'nix-store --verify'",
                    directory.string(), version, schemaVersion);
    }
    return version;
}

StoreDatabase::Impl::Impl(const std::filesystem::path &directory, const StoreDir &storeDir,
                          const DatabaseOptions &options, Logger &log)
    : store(storeDir),
      logger(log),
      bigLock(takeBigLock(directory, log)),
      isNew(checkedVersion(directory) == 0),
      database(directory / "db.sqlite", isNew) {
    reserveSpace(directory, options.reservedSpace);
    retryWhileBusy(logger, [&] { configure(options); });
    if (isNew) {
        createTables(directory);
    }
    openRealisations(directory, options.realisations);
    prepare();
}

void StoreDatabase::Impl::configure(const DatabaseOptions &options) {
    database.execute("pragma foreign_keys = 1");
    database.execute(options.synchronous ? "pragma synchronous = normal" : "pragma synchronous = off");
    std::string wanted = options.useWal ? "wal" : "truncate";
    std::string current;
    {
        Statement query(database, "pragma main.journal_mode");
        auto rows = query.query();
        current = rows.next() ? rows.text(0) : "";
    }
    if (current != wanted) {
        // Fails silently, in SQLite's fashion, while others have the database open: then it stays as it is.
        database.execute("pragma main.journal_mode = " + wanted);
    }
    if (options.useWal) {
        // Few checkpoints: each costs a flush of the main file.
        database.execute("pragma main.wal_autocheckpoint = 40000");
    }
}

void StoreDatabase::Impl::createTables(const std::filesystem::path &directory) {
    retryWhileBusy(logger, [&] {
        Transaction transaction(database);
        database.execute(storeSchema);
        transaction.commit();
    });
    // Last, since it says that the tables are there.
    writeVersion(directory / "schema", schemaVersion);
}

void StoreDatabase::Impl::openRealisations(const std::filesystem::path &directory, bool create) {
    int version = readVersion(directory / "ca-schema");
    if (version > realisationsVersionKnown) {
        logger.warn(fmt::format("'{}' has version {}, which is newer than {}: realisations are not available",
                                (directory / "ca-schema").string(), version, realisationsVersionKnown));
        return;
    }
    realisations = hasTable("Realisations");
    if (create && !isMigrated()) {
        retryWhileBusy(logger, [&] {
            Transaction transaction(database);
            database.execute(realisationsSchema);
            transaction.commit();
        });
        realisations = true;
    }
    if (create && version == 0) {
        // Else Nix 2.8 would make the tables itself, and wait for everybody to leave the database.
        writeVersion(directory / "ca-schema", realisationsVersionMade);
    }
}

bool StoreDatabase::Impl::isMigrated() {
    if (!hasTable("SchemaMigrations")) {
        return false;
    }
    Statement query(database, "select 1 from SchemaMigrations where migration = '20220326-ca-derivations'");
    auto rows = query.query();
    return rows.next();
}

bool StoreDatabase::Impl::hasTable(const std::string &name) {
    Statement query(database, "select 1 from sqlite_master where type = 'table' and name = ?");
    auto rows = query.query(name);
    return rows.next();
}

void StoreDatabase::Impl::prepare() {
    insertPath.emplace(database, "insert into ValidPaths (path, hash, registrationTime, deriver, narSize, "
                                 "ultimate, sigs, ca) values (?, ?, ?, ?, ?, ?, ?, ?)");
    updatePath.emplace(database, "update ValidPaths set narSize = ?, hash = ?, ultimate = ?, sigs = ?, "
                                 "ca = ? where path = ?");
    selectPath.emplace(database, "select id, hash, registrationTime, deriver, narSize, ultimate, sigs, ca "
                                 "from ValidPaths where path = ?");
    selectId.emplace(database, "select id from ValidPaths where path = ?");
    deletePath.emplace(database, "delete from ValidPaths where path = ?");
    insertReference.emplace(database, "insert or replace into Refs (referrer, reference) values (?, ?)");
    selectReferences.emplace(database, "select path from Refs join ValidPaths on reference = id "
                                       "where referrer = ?");
    selectReferenceIds.emplace(database, "select reference from Refs where referrer = ?");
    selectPathText.emplace(database, "select path from ValidPaths where id = ?");
    selectReferrers.emplace(database, "select path from Refs join ValidPaths on referrer = id where "
                                      "reference = (select id from ValidPaths where path = ?)");
    otherReferrer.emplace(database,
                          "select path from Refs join ValidPaths on referrer = id where reference = "
                          "(select id from ValidPaths where path = ?1) and path != ?1 limit 1");
    insertOutput.emplace(database,
                         "insert or replace into DerivationOutputs (drv, id, path) values (?, ?, ?)");
    selectOutputs.emplace(database, "select id, path from DerivationOutputs where drv = "
                                    "(select id from ValidPaths where path = ?)");
    selectDerivers.emplace(database, "select v.path from DerivationOutputs d join ValidPaths v on "
                                     "d.drv = v.id where d.path = ?");
    selectByHashPart.emplace(database, "select path from ValidPaths where path >= ? order by path limit 1");
    selectAll.emplace(database, "select path from ValidPaths");
    if (realisations) {
        insertRealisation.emplace(
            database, "insert into Realisations (drvPath, outputName, outputPath, signatures) values "
                      "(?, ?, (select id from ValidPaths where path = ?), ?)");
        updateRealisation.emplace(
            database, "update Realisations set signatures = ? where drvPath = ? and outputName = ?");
        selectRealisation.emplace(
            database, "select r.id, v.path, r.signatures from Realisations r join ValidPaths v on "
                      "r.outputPath = v.id where drvPath = ? and outputName = ?");
        insertRealisationReference.emplace(
            database, "insert or replace into RealisationsRefs (referrer, realisationReference) "
                      "values (?, ?)");
        deleteRealisationReferences.emplace(
            database, "delete from RealisationsRefs where realisationReference in (select r.id from "
                      "Realisations r join ValidPaths v on r.outputPath = v.id where v.path = ?)");
        selectRealisationReferences.emplace(
            database, "select r.drvPath, r.outputName, v.path from RealisationsRefs f join Realisations r on "
                      "f.realisationReference = r.id join ValidPaths v on r.outputPath = v.id "
                      "where f.referrer = ?");
    }
}

StorePath StoreDatabase::Impl::parsePath(const std::string &text) {
    auto path = store.tryParse(text);
    if (!path) {
        throw Error(ErrorKind::corrupt,
                    "the database '{}' has '{}' among the valid paths, which is no path "
                    "of the store '{}'",
                    database.path().string(), escapeForDisplay(text, 512), store.str());
    }
    return *path;
}

StorePathSet StoreDatabase::Impl::readPaths(Rows &rows) {
    StorePathSet paths;
    while (rows.next()) {
        paths.insert(parsePath(rows.text(0)));
    }
    return paths;
}

/// By their numbers: names are read once for each path, whoever refers to it.
StorePathSet StoreDatabase::Impl::pathsReachableFrom(std::vector<int64_t> pending) {
    StorePathSet paths;
    std::unordered_set<int64_t> known(pending.begin(), pending.end());
    while (!pending.empty()) {
        int64_t id = pending.back();
        pending.pop_back();
        auto text = selectPathText->query(id);
        StorePathSet found = readPaths(text);
        if (found.empty()) {
            continue; // a reference to what is not valid
        }
        paths.merge(found);
        auto references = selectReferenceIds->query(id);
        while (references.next()) {
            int64_t reference = references.integer(0);
            if (known.insert(reference).second) {
                pending.push_back(reference);
            }
        }
    }
    return paths;
}

PathInfo StoreDatabase::Impl::readInfo(const StorePath &path, Rows &rows) {
    PathInfo info{.path = path,
                  .narHash = Hash(HashAlgorithm::sha256),
                  .references = {},
                  .deriver = {},
                  .signatures = splitSet(rows.text(6)),
                  .contentAddress = {}};
    try {
        info.narHash = Hash::parse(rows.text(1));
        if (auto ca = rows.text(7); !ca.empty()) {
            info.contentAddress = ContentAddress::parse(ca);
        }
    } catch (Error &error) {
        throw Error(ErrorKind::corrupt, "the entry of '{}' in database '{}' is damaged: {}",
                    store.print(path), database.path().string(), error.message());
    }
    info.registrationTime = rows.integer(2);
    // Old and foreign entries may name something odd as deriver; that is no reason to refuse the path.
    info.deriver = store.tryParse(rows.text(3));
    info.narSize = static_cast<uint64_t>(rows.integer(4));
    info.ultimate = rows.integer(5) == 1;
    return info;
}

int64_t StoreDatabase::Impl::idOf(const StorePath &path) {
    auto rows = selectId->query(store.print(path));
    if (!rows.next()) {
        throw Error(ErrorKind::notFound, "path '{}' is not valid", store.print(path));
    }
    return rows.integer(0);
}

Statement &StoreDatabase::Impl::realisationStatement(std::optional<Statement> &statement,
                                                     std::string_view what) {
    if (!statement) {
        throw Error(ErrorKind::unsupported,
                    "cannot {} a realisation: this store has no table of them (enable the experimental "
                    "feature 'ca-derivations')",
                    what);
    }
    return *statement;
}

int64_t StoreDatabase::Impl::realisationId(const DrvOutput &id) {
    auto rows = realisationStatement(selectRealisation, "query")
                    .query(id.drvHash.prefixed(Encoding::base16), id.outputName);
    if (!rows.next()) {
        throw Error(ErrorKind::notFound, "there is no realisation of '{}' in the store", id.print());
    }
    return rows.integer(0);
}

StoreDatabase::StoreDatabase(const std::filesystem::path &directory, const StoreDir &store,
                             const DatabaseOptions &options, Logger &logger)
    : impl_(std::make_unique<Impl>(directory, store, options, logger)) {}

StoreDatabase::~StoreDatabase() = default;

bool StoreDatabase::isValid(const StorePath &path) {
    return impl_->selectId->query(impl_->store.print(path)).next();
}

std::optional<PathInfo> StoreDatabase::find(const StorePath &path) {
    std::optional<PathInfo> info;
    int64_t id;
    {
        auto rows = impl_->selectPath->query(impl_->store.print(path));
        if (!rows.next()) {
            return std::nullopt;
        }
        id = rows.integer(0);
        info = impl_->readInfo(path, rows);
    }
    auto references = impl_->selectReferences->query(id);
    info->references = impl_->readPaths(references);
    return info;
}

StorePathSet StoreDatabase::closure(const StorePathSet &paths) {
    StorePathSet result;
    snapshot([&] {
        std::vector<int64_t> ids;
        for (const StorePath &path : paths) {
            ids.push_back(impl_->idOf(path));
        }
        result = impl_->pathsReachableFrom(std::move(ids));
    });
    return result;
}

std::optional<StorePath> StoreDatabase::findByHashPart(const std::string &hashPart) {
    auto prefix = impl_->store.str() + "/" + hashPart;
    auto rows = impl_->selectByHashPart->query(prefix);
    if (!rows.next() || !rows.text(0).starts_with(prefix + "-")) {
        return std::nullopt;
    }
    return impl_->parsePath(rows.text(0));
}

StorePathSet StoreDatabase::allPaths() {
    auto rows = impl_->selectAll->query();
    return impl_->readPaths(rows);
}

std::set<std::string> StoreDatabase::allPathTexts() {
    std::set<std::string> texts;
    auto rows = impl_->selectAll->query();
    while (rows.next()) {
        texts.insert(rows.text(0));
    }
    return texts;
}

StorePathSet StoreDatabase::referrers(const StorePath &path) {
    auto rows = impl_->selectReferrers->query(impl_->store.print(path));
    return impl_->readPaths(rows);
}

StorePathSet StoreDatabase::validDerivers(const StorePath &output) {
    auto rows = impl_->selectDerivers->query(impl_->store.print(output));
    return impl_->readPaths(rows);
}

std::map<std::string, StorePath> StoreDatabase::derivationOutputs(const StorePath &drvPath) {
    std::map<std::string, StorePath> outputs;
    auto rows = impl_->selectOutputs->query(impl_->store.print(drvPath));
    while (rows.next()) {
        outputs.emplace(rows.text(0), impl_->parsePath(rows.text(1)));
    }
    return outputs;
}

void StoreDatabase::transaction(const std::function<void()> &action) {
    retryWhileBusy(impl_->logger, [&] {
        Transaction transaction(impl_->database);
        action();
        transaction.commit();
    });
}

void StoreDatabase::snapshot(const std::function<void()> &action) {
    if (impl_->database.inTransaction()) {
        action();
        return;
    }
    Transaction transaction(impl_->database, Transaction::Kind::reading);
    action();
    transaction.commit();
}

namespace {

std::optional<std::string> nullIfEmpty(std::string text) {
    return text.empty() ? std::nullopt : std::optional(std::move(text));
}

std::optional<std::string> printAddress(const PathInfo &info) {
    return info.contentAddress ? std::optional(info.contentAddress->print()) : std::nullopt;
}

} // namespace

void StoreDatabase::updateInfo(const PathInfo &info) {
    impl_->updatePath->run(static_cast<int64_t>(info.narSize), info.narHash.prefixed(Encoding::base16),
                           info.ultimate ? std::optional<std::string>("1") : std::nullopt,
                           nullIfEmpty(joinWords(info.signatures)), printAddress(info),
                           impl_->store.print(info.path));
}

void StoreDatabase::putPath(const PathInfo &info) {
    if (isValid(info.path)) {
        updateInfo(info);
        return;
    }
    auto deriver = info.deriver ? std::optional(impl_->store.print(*info.deriver)) : std::nullopt;
    impl_->insertPath->run(impl_->store.print(info.path), info.narHash.prefixed(Encoding::base16),
                           static_cast<int64_t>(info.registrationTime), deriver,
                           static_cast<int64_t>(info.narSize),
                           info.ultimate ? std::optional<std::string>("1") : std::nullopt,
                           nullIfEmpty(joinWords(info.signatures)), printAddress(info));
}

void StoreDatabase::putReferences(const PathInfo &info) {
    int64_t referrer = impl_->idOf(info.path);
    for (auto &reference : info.references) {
        impl_->insertReference->run(referrer, impl_->idOf(reference));
    }
}

void StoreDatabase::putDerivationOutputs(const StorePath &drvPath,
                                         const std::map<std::string, StorePath> &outputs) {
    int64_t drv = impl_->idOf(drvPath);
    for (auto &[name, path] : outputs) {
        impl_->insertOutput->run(drv, name, impl_->store.print(path));
    }
}

void StoreDatabase::remove(const StorePath &path) {
    auto text = impl_->store.print(path);
    {
        auto rows = impl_->otherReferrer->query(text);
        if (rows.next()) {
            throw Error(ErrorKind::refused, "cannot delete path '{}' because it is in use by '{}'", text,
                        rows.text(0));
        }
    }
    if (impl_->deleteRealisationReferences) {
        // Version 3 of these tables has no trigger for it, and refuses to delete what is referred to.
        impl_->deleteRealisationReferences->run(text);
    }
    impl_->deletePath->run(text);
}

void StoreDatabase::removeText(const std::string &path) {
    impl_->deletePath->run(path);
}

bool StoreDatabase::hasRealisations() const {
    return impl_->realisations;
}

std::optional<Realisation> StoreDatabase::findRealisation(const DrvOutput &id) {
    if (!impl_->realisations) {
        return std::nullopt;
    }
    int64_t row;
    std::optional<Realisation> found;
    {
        auto rows = impl_->selectRealisation->query(id.drvHash.prefixed(Encoding::base16), id.outputName);
        if (!rows.next()) {
            return std::nullopt;
        }
        row = rows.integer(0);
        found = Realisation{id, impl_->parsePath(rows.text(1)), splitSet(rows.text(2)), {}};
    }
    auto rows = impl_->selectRealisationReferences->query(row);
    while (rows.next()) {
        DrvOutput dependency{Hash::parse(rows.text(0)), rows.text(1)};
        found->dependentRealisations.emplace(dependency, impl_->parsePath(rows.text(2)));
    }
    return found;
}

void StoreDatabase::putRealisation(const Realisation &realisation) {
    auto &insert = impl_->realisationStatement(impl_->insertRealisation, "register");
    impl_->idOf(realisation.outPath); // throws for a path that is not valid
    insert.run(realisation.id.drvHash.prefixed(Encoding::base16), realisation.id.outputName,
               impl_->store.print(realisation.outPath), joinWords(realisation.signatures));
    int64_t referrer = impl_->database.lastInsertId();
    for (auto &[dependency, path] : realisation.dependentRealisations) {
        auto known = findRealisation(dependency);
        if (!known || known->outPath != path) {
            throw Error(ErrorKind::badInput,
                        "realisation '{}' depends on '{}' with path '{}', which is not in the store",
                        realisation.id.print(), dependency.print(), impl_->store.print(path));
        }
        impl_->insertRealisationReference->run(referrer, impl_->realisationId(dependency));
    }
}

void StoreDatabase::updateRealisationSignatures(const Realisation &realisation) {
    impl_->realisationStatement(impl_->updateRealisation, "change")
        .run(joinWords(realisation.signatures), realisation.id.drvHash.prefixed(Encoding::base16),
             realisation.id.outputName);
}

} // namespace firn
