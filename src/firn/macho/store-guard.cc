#include "firn/macho/store-guard.hh"

#include <algorithm>
#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include "libstore/store/settings.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

/// Seen from a store: its database, as every layout has it that is not given by NIX_STATE_DIR.
constexpr const char *database = "../var/nix/db/db.sqlite";

bool isCalledStore(const std::filesystem::path &path) {
    return path.filename() == "store";
}

} // namespace

StoreGuard::StoreGuard() {
    for (const std::string &store :
         {Locations::fromEnvironment().storeDir.str(), std::string("/nix/store")}) {
        struct stat st;
        if (stat(store.c_str(), &st) == 0) {
            stores_.emplace_back(st.st_dev, st.st_ino);
        }
    }
}

bool StoreGuard::isKnown(const struct stat &st) const {
    return std::find(stores_.begin(), stores_.end(), std::pair(st.st_dev, st.st_ino)) != stores_.end();
}

bool StoreGuard::isStore(int directory, const std::string &path) const {
    struct stat st;
    if (fstat(directory, &st) != 0) {
        throwErrno("looking at a directory");
    }
    return isKnown(st) || (isCalledStore(path) && faccessat(directory, database, F_OK, 0) == 0);
}

void StoreGuard::requireOutside(const std::string &path) const {
    std::error_code error;
    std::filesystem::path place = std::filesystem::absolute(path, error);
    if (!error) {
        place = std::filesystem::canonical(place.has_filename() ? place.parent_path() : place, error) /
                place.filename();
    }
    if (error) {
        throw SysError(error.value(), "finding " + quoteForDisplay(path));
    }
    for (;; place = place.parent_path()) {
        struct stat st;
        bool there = stat(place.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
        if (there &&
            (isKnown(st) || (isCalledStore(place) && access((place / database).c_str(), F_OK) == 0))) {
            throw Error(ErrorKind::refused,
                        "{} is inside the store {}, whose paths nothing but a daemon may change: work on a "
                        "copy outside of it",
                        quoteForDisplay(path), quoteForDisplay(place.native()));
        }
        if (place == place.parent_path()) {
            return;
        }
    }
}

} // namespace firn
