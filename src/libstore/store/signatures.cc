#include <algorithm>

#include "libstore/store/impl.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

// Whom the store believes: signatures of path infos and of realisations, by the keys in
// `trusted-public-keys`, and our own, by the keys in the files of `secret-key-files`.

namespace firn {

namespace {

constexpr uint64_t keyFileLimit = 64 * 1024;

std::vector<SecretKey> readSecretKeys(const Settings &settings) {
    std::vector<SecretKey> keys;
    for (auto &file : settings.secretKeyFiles) {
        auto text = readFile(file, keyFileLimit);
        auto words = splitWords(text);
        if (words.size() != 1) {
            throw Error(ErrorKind::badInput, "secret key file '{}' does not hold one key", file);
        }
        keys.push_back(SecretKey::parse(words.front()));
    }
    return keys;
}

} // namespace

bool LocalStore::Impl::signedByTrustedKey(const std::function<bool(const PublicKey &)> &matches) const {
    return std::any_of(settings.trustedPublicKeys.begin(), settings.trustedPublicKeys.end(),
                       [&](const std::string &key) { return matches(PublicKey::parse(key)); });
}

void LocalStore::Impl::throwUntrusted(const StorePath &path) const {
    throw Error(ErrorKind::refused, "cannot add path '{}' because it lacks a signature by a trusted key",
                print(path));
}

bool LocalStore::Impl::mayFollowFromContents(const PathInfo &info) const {
    return addressCheck && !info.contentAddress && info.references.contains(info.path);
}

void LocalStore::setAddressCheck(AddressCheck check) {
    impl_->addressCheck = std::move(check);
}

bool LocalStore::isTrusted(const PathInfo &info) {
    if (!settings().requireSigs || info.ultimate || info.isContentAddressed(dir())) {
        return true;
    }
    if (info.narSize == 0) {
        return false; // no signature can be about it
    }
    auto fingerprint = info.fingerprint(dir());
    return impl_->signedByTrustedKey([&](const PublicKey &key) {
        return std::any_of(info.signatures.begin(), info.signatures.end(),
                           [&](auto &signature) { return key.verify(fingerprint, signature); });
    });
}

void LocalStore::sign(PathInfo &info) {
    if (settings().secretKeyFiles.empty()) {
        return;
    }
    auto fingerprint = info.fingerprint(dir());
    for (auto &key : readSecretKeys(settings())) {
        info.signatures.insert(key.sign(fingerprint));
    }
}

void LocalStore::sign(Realisation &realisation) {
    if (settings().secretKeyFiles.empty()) {
        return;
    }
    auto fingerprint = realisation.fingerprint();
    for (auto &key : readSecretKeys(settings())) {
        realisation.signatures.insert(key.sign(fingerprint));
    }
}

void LocalStore::addSignatures(const StorePath &path, const std::set<std::string> &signatures) {
    impl_->database.transaction([&] {
        auto info = queryPathInfo(path);
        info.signatures.insert(signatures.begin(), signatures.end());
        impl_->database.updateInfo(info);
    });
}

void LocalStore::registerRealisation(const Realisation &realisation, CheckSignatures check) {
    auto fingerprint = realisation.fingerprint();
    bool trusted =
        check == CheckSignatures::no || !settings().requireSigs ||
        impl_->signedByTrustedKey([&](const PublicKey &key) {
            return std::any_of(realisation.signatures.begin(), realisation.signatures.end(),
                               [&](auto &signature) { return key.verify(fingerprint, signature); });
        });
    if (!trusted) {
        throw Error(ErrorKind::refused,
                    "cannot register realisation '{}' because it lacks a signature by a trusted key",
                    realisation.outPath.baseName());
    }
    impl_->database.transaction([&] {
        auto known = impl_->database.findRealisation(realisation.id);
        if (!known) {
            impl_->database.putRealisation(realisation);
        } else if (known->outPath != realisation.outPath) {
            throw Error(ErrorKind::refused,
                        "cannot register '{}' as realisation of '{}': it is known to be '{}' already",
                        impl_->print(realisation.outPath), realisation.id.print(),
                        impl_->print(known->outPath));
        } else {
            known->signatures.insert(realisation.signatures.begin(), realisation.signatures.end());
            impl_->database.updateRealisationSignatures(*known);
        }
    });
}

Realisation LocalStore::recordRealisation(const Realisation &realisation) {
    std::optional<Realisation> known;
    impl_->database.transaction([&] {
        known = impl_->database.findRealisation(realisation.id);
        if (!known) {
            impl_->database.putRealisation(realisation);
        }
    });
    return known ? std::move(*known) : realisation;
}

std::optional<Realisation> LocalStore::queryRealisation(const DrvOutput &id) {
    return impl_->database.findRealisation(id);
}

} // namespace firn
