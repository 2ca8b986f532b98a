#include <algorithm>
#include <ctime>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/features.hh"
#include "libstore/store/hash-modulo.hh"
#include "libstore/store/incoming.hh"
#include "libstore/store/unpack.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/git-hash.hh"
#include "libutil/nar.hh"

// How things get into the store: staged under a name of their own while they are hashed, moved into place
// under the output lock, registered. Two processes that add the same path both stage it; the second to get
// the lock finds the path valid and throws its own away.

namespace firn {

namespace {

/// Plain content up to this size is kept in memory, where it takes one pass; a NAR says a file's size first,
/// so what is larger must be complete before its NAR hash can begin.
constexpr size_t smallContent = 1024 * 1024;

HashAndSize hashNarOfString(std::string_view content) {
    HashSink hash(HashAlgorithm::sha256);
    dumpNarOfString(content, hash);
    return {hash.current(), hash.byteCount()};
}

std::string lockName(const StorePath &path) {
    return path.baseName() + ".lock";
}

std::string readUpTo(Source &source, size_t limit) {
    std::string content(64 * 1024, '\0');
    size_t filled = 0;
    while (filled < limit) {
        if (filled == content.size()) {
            content.resize(std::min(limit, content.size() * 2));
        }
        size_t size = source.read(content.data() + filled, content.size() - filled);
        if (size == 0) {
            break;
        }
        filled += size;
    }
    content.resize(filled);
    return content;
}

} // namespace

void IncomingPath::receiveNar(Source &nar, HashAlgorithm algorithm) {
    HashSink narHash(HashAlgorithm::sha256);
    HashSink otherHash(algorithm);
    TeeSink both(narHash, otherHash);
    bool one = algorithm == HashAlgorithm::sha256;
    TeeSource tee(nar, one ? static_cast<Sink &>(narHash) : both);
    unpackCanonical(tee, store_.storeFd.get(), staged_.name(), store_.settings.ignoredAcls,
                    store_.settings.syncBeforeRegistering);
    nar_ = {narHash.current(), narHash.byteCount()};
    content_ = one ? nar_.hash : otherHash.current();
}

void IncomingPath::receiveGitObject(Source &nar, std::string_view name, HashAlgorithm algorithm) {
    receiveNar(nar, HashAlgorithm::sha256);
    if (!isFullyHashedByGit()) {
        throw Error(
            ErrorKind::badInput,
            "cannot add '{}' by its git hash: that does not tell a symlink or an executable file from a "
            "plain file; put it into a directory, or add it by the hash of its archive",
            name);
    }
    content_ = hashGitObject(store_.storeFd.get(), staged_.name(), algorithm);
}

void IncomingPath::receiveContent(Source &content, HashAlgorithm algorithm) {
    auto head = readUpTo(content, smallContent);
    HashSink hash(algorithm);
    hash.write(head);
    CanonicalFile file(store_.storeFd.get(), staged_.name(), false);
    file.write(head);
    bool complete = head.size() < smallContent;
    if (!complete) {
        TeeSource rest(content, hash);
        std::string buffer(64 * 1024, '\0');
        for (size_t size; (size = rest.read(buffer.data(), buffer.size())) > 0;) {
            file.write(std::string_view(buffer).substr(0, size));
        }
    }
    file.finish(store_.settings.syncBeforeRegistering);
    content_ = hash.current();
    nar_ = complete ? hashNarOfString(head) : hashNar(store_.storeFd.get(), staged_.name());
}

void IncomingPath::receiveText(std::string_view text) {
    CanonicalFile file(store_.storeFd.get(), staged_.name(), false);
    file.write(text);
    file.finish(store_.settings.syncBeforeRegistering);
    content_ = hashString(HashAlgorithm::sha256, text);
    nar_ = hashNarOfString(text);
}

Hash IncomingPath::contentHash(const ContentAddress &address, const PathInfo &info, bool blanks) const {
    int dir = store_.storeFd.get();
    auto algorithm = address.hash.algorithm();
    switch (address.method) {
    case ContentMethod::nar: {
        if (!blanks) {
            return algorithm == HashAlgorithm::sha256 ? nar_.hash
                                                      : hashNar(dir, staged_.name(), algorithm).hash;
        }
        HashModulo hash(algorithm, std::string(info.path.hashPart()),
                        [&](Sink &sink) { dumpNar(dir, staged_.name(), sink); });
        bool isOlder = hash.zeros() != address.hash && hash.zerosThenOffsets() == address.hash;
        return isOlder ? hash.zerosThenOffsets() : hash.zeros();
    }
    case ContentMethod::flat:
    case ContentMethod::text: {
        auto file = openFileAt(dir, staged_.name());
        FdSource source(file.get());
        HashSink hash(algorithm);
        copyAll(source, hash);
        return hash.current();
    }
    case ContentMethod::git:
        break;
    }
    return hashGitObject(dir, staged_.name(), algorithm);
}

bool IncomingPath::isFullyHashedByGit() const {
    struct stat st;
    return statAt(store_.storeFd.get(), staged_.name(), st) &&
           (S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && (st.st_mode & S_IXUSR) == 0));
}

void IncomingPath::check(const PathInfo &info, Voucher voucher) const {
    auto path = store_.print(info.path);
    if (info.narHash != nar_.hash) {
        throw Error(ErrorKind::badInput,
                    "hash mismatch importing path '{}';\n  specified: {}\n  got:       {}", path,
                    info.narHash.prefixed(Encoding::nix32), nar_.hash.prefixed(Encoding::nix32));
    }
    if (info.narSize != 0 && info.narSize != nar_.size) {
        throw Error(ErrorKind::badInput,
                    "size mismatch importing path '{}';\n  specified: {}\n  got:       {}", path,
                    info.narSize, nar_.size);
    }
    if (!info.contentAddress) {
        return;
    }
    if (info.contentAddress->method == ContentMethod::git) {
        requireFeature(store_.settings, "git-hashing");
    }
    checkAddress(*info.contentAddress, info, voucher);
}

/// The hash of a file's contents says nothing of what else it is: who relies on the address would get
/// whatever somebody chose. No Nix makes such an address for anything but a plain file.
void IncomingPath::requirePlainFile(const ContentAddress &address, const PathInfo &info) const {
    struct stat st;
    bool isFile = statAt(store_.storeFd.get(), staged_.name(), st) && S_ISREG(st.st_mode);
    if (!isFile || (st.st_mode & S_IXUSR)) {
        throw Error(
            ErrorKind::badInput,
            "cannot add path '{}': its content address '{}' is that of a plain file, and what came is {}",
            store_.print(info.path), address.print(),
            isFile                ? "executable"
            : S_ISDIR(st.st_mode) ? "a directory"
                                  : "a symlink");
    }
}

/// Where references are discarded, a path may name itself without saying so. Its address looks like that of a
/// fixed output then, in which nothing may stand for zeros: its contents need somebody's word.
void IncomingPath::checkAddress(const ContentAddress &address, const PathInfo &info, Voucher voucher) const {
    auto path = store_.print(info.path);
    if (address.method == ContentMethod::flat || address.method == ContentMethod::text) {
        requirePlainFile(address, info);
    }
    bool namesItself = info.references.contains(info.path);
    Hash actual = contentHash(address, info, namesItself);
    if (actual == address.hash) {
        requireFullAddress(address, path, voucher);
        return;
    }
    bool hides = address.method == ContentMethod::nar && !namesItself &&
                 contentHash(address, info, true) == address.hash;
    if (hides && voucher == Voucher::nobody) {
        throw Error(ErrorKind::refused,
                    "cannot add path '{}': it holds its own path without a reference to itself, so that its "
                    "content address does not say everything that is in it; have a trusted user import it, "
                    "or import it with a signature by a trusted key",
                    path);
    }
    if (!hides) {
        throw Error(ErrorKind::badInput,
                    "ca hash mismatch importing path '{}';\n  specified: {}\n  got:       {}", path,
                    address.hash.prefixed(Encoding::nix32), actual.prefixed(Encoding::nix32));
    }
}

/// Which a git hash of a symlink or of an executable file is not.
void IncomingPath::requireFullAddress(const ContentAddress &address, const std::string &path,
                                      Voucher voucher) const {
    if (address.method == ContentMethod::git && voucher == Voucher::nobody && !isFullyHashedByGit()) {
        throw Error(ErrorKind::refused,
                    "cannot add path '{}': it is a symlink or an executable file, which a git hash does not "
                    "tell from a plain file; put it into a directory, add it by the hash of its archive, or "
                    "import it with a signature by a trusted key",
                    path);
    }
}

void IncomingPath::requireAddress(const PathInfo &info) const {
    if (!store_.mayFollowFromContents(info) || !store_.addressCheck(staged_.name(), info)) {
        store_.throwUntrusted(info.path);
    }
}

void IncomingPath::commit(PathInfo info, Repair repair) {
    auto &self = store_.self;
    store_.addTempRoot(info.path);
    if (repair == Repair::no && self.isValidPath(info.path)) {
        return;
    }
    auto lock = PathLocks::lock(store_.storeFd.get(), {lockName(info.path)});
    lock.setDeletion(true);
    if (repair == Repair::no && self.isValidPath(info.path)) {
        return;
    }
    info.narHash = nar_.hash;
    info.narSize = nar_.size;
    staged_.moveTo(info.path);
    if (store_.settings.autoOptimiseStore) {
        self.optimisePath(info.path);
    }
    if (store_.settings.syncBeforeRegistering) {
        syncFd(store_.storeFd.get());
    }
    try {
        self.registerValidPaths({info});
    } catch (...) {
        discardUnregistered(info.path);
        throw;
    }
}

/// A path that turned out not to be worth a row leaves nothing; the error that says why is on its way.
void IncomingPath::discardUnregistered(const StorePath &path) noexcept {
    try {
        if (!store_.self.isValidPath(path)) {
            removeStoreEntry(store_, path.baseName());
        }
    } catch (const Error &error) {
        store_.logger.warn(error.message());
    }
}

namespace {

PathInfo makeInfo(const StoreDir &dir, std::string_view name, const ContentAddress &address,
                  const StorePathSet &references) {
    return {.path = makeContentAddressedPath(dir, name, address, {.others = references, .self = false}),
            .narHash = Hash(HashAlgorithm::sha256),
            .references = references,
            .deriver = {},
            .signatures = {},
            .contentAddress = address};
}

} // namespace

PathInfo LocalStore::addContent(std::string_view name, ContentAddressMethod method, Source &dump,
                                const StorePathSet &references, Repair repair) {
    checkStorePathName(name);
    if (method.method == ContentMethod::git) {
        requireFeature(settings(), "git-hashing");
    }
    IncomingPath incoming(*impl_);
    if (method.method == ContentMethod::nar) {
        incoming.receiveNar(dump, method.algorithm);
    } else if (method.method == ContentMethod::git) {
        incoming.receiveGitObject(dump, name, method.algorithm);
    } else {
        incoming.receiveContent(dump, method.algorithm);
    }
    auto info = makeInfo(dir(), name, {method.method, incoming.content()}, references);
    incoming.commit(info, repair);
    return queryPathInfo(info.path);
}

PathInfo LocalStore::addText(std::string_view name, std::string_view text, const StorePathSet &references,
                             Repair repair) {
    auto hash = hashString(HashAlgorithm::sha256, text);
    auto info = makeInfo(dir(), name, {ContentMethod::text, hash}, references);
    // Evaluations add the same derivations over and over; the path is known before anything is written.
    addTempRoot(info.path);
    if (auto known = repair == Repair::no ? tryQueryPathInfo(info.path) : std::nullopt) {
        return std::move(*known);
    }
    IncomingPath incoming(*impl_, info.path);
    incoming.receiveText(text);
    incoming.commit(info, repair);
    return queryPathInfo(info.path);
}

StorePath LocalStore::addDerivation(const Derivation &drv, Repair repair) {
    auto references = drv.inputSources;
    for (auto &[path, outputs] : drv.inputDerivations) {
        references.insert(path);
    }
    return addText(drv.name + ".drv", unparseDerivation(dir(), drv), references, repair).path;
}

void LocalStore::addNar(const PathInfo &info, Source &nar, Repair repair, CheckSignatures check) {
    bool trusted = check == CheckSignatures::no || isTrusted(info);
    if (!trusted && !impl_->mayFollowFromContents(info)) {
        impl_->throwUntrusted(info.path);
    }
    addTempRoot(info.path);
    if (repair == Repair::no && isValidPath(info.path)) {
        discardNar(nar);
        return;
    }
    IncomingPath incoming(*impl_, info.path);
    incoming.receiveNar(nar, HashAlgorithm::sha256);
    PathInfo plain = info;
    plain.contentAddress.reset();
    bool vouched = check == CheckSignatures::no || isTrusted(plain);
    incoming.check(info, vouched ? IncomingPath::Voucher::trusted : IncomingPath::Voucher::nobody);
    if (!trusted) {
        incoming.requireAddress(info);
    }
    incoming.commit(info, repair);
}

void LocalStore::registerValidPaths(const std::vector<PathInfo> &infos) {
    std::map<StorePath, const PathInfo *> byPath;
    StorePathSet paths;
    for (auto &info : infos) {
        byPath.emplace(info.path, &info);
        paths.insert(info.path);
    }
    // Throws for cycles, before anything is written.
    sortByReferences(paths, [&](const StorePath &path) { return byPath.at(path)->references; });
    impl_->database.transaction([&] {
        for (auto &info : infos) {
            auto stamped = info;
            stamped.registrationTime = info.registrationTime ? info.registrationTime : time(nullptr);
            impl_->database.putPath(stamped);
        }
        for (auto &info : infos) {
            impl_->database.putReferences(info);
        }
        for (auto &info : infos) {
            if (info.path.isDerivation()) {
                registerDerivationOutputs(info.path);
            }
        }
    });
}

void LocalStore::registerDerivationOutputs(const StorePath &drvPath) {
    auto drv = readDerivationFile(drvPath);
    requireFeaturesFor(settings(), drv);
    checkDerivationOutputs(dir(), impl_->hasher, drv);
    std::map<std::string, StorePath> outputs;
    for (auto &[name, output] : drv.outputs) {
        if (auto path = outputPath(dir(), drv, name)) {
            outputs.emplace(name, *path);
        }
    }
    impl_->database.putDerivationOutputs(drvPath, outputs);
}

} // namespace firn
