#include "libstore/build/build-bases.hh"

#include <climits>
#include <functional>
#include <set>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/build/build-directory.hh"
#include "libstore/store/path-locks.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/hash.hh"

namespace firn {

namespace {

namespace fs = std::filesystem;

/// Only a client that takes a new directory for each request ever comes near.
constexpr size_t mostNotes = 256;

fs::path notesDirectory(const Locations &locations) {
    return locations.stateDir / "firn" / "build-bases";
}

std::string noteName(const fs::path &base) {
    return hashString(HashAlgorithm::sha256, base.native()).digits(Encoding::nix32);
}

/// The lock on an open note; false if that is removed by now, or, for an exclusive one, if somebody has it.
bool lockNote(int fd, LockMode mode) {
    struct stat st;
    return lockFile(fd, mode, /*wait=*/mode == LockMode::shared) && fstat(fd, &st) == 0 && st.st_nlink > 0;
}

/// The base that is noted; "" if that was not written to its end.
fs::path readNote(int notes, const std::string &name) {
    fs::path base = readFileAt(notes, name, PATH_MAX);
    return noteName(base) == name ? base : fs::path();
}

/// Unless it is not there, or somebody builds in its base, or what somebody left there stays.
void dropNote(int notes, const std::string &name) {
    UniqueFd note(openat(notes, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!note || !lockNote(note.get(), LockMode::exclusive)) {
        return;
    }
    fs::path base = readNote(notes, name);
    bool needed = !base.empty() && BuildDirectories::hasBuilds(base);
    if (!needed && unlinkat(notes, name.c_str(), 0) != 0) {
        throwErrno("removing '{}', the note of '{}'", name, base.string());
    }
}

/// When there are too many, those go that are not needed.
void makeRoom(int notes) {
    std::vector<std::string> names = listDirectory(notes);
    if (names.size() < mostNotes) {
        return;
    }
    for (const std::string &name : names) {
        try {
            dropNote(notes, name);
        } catch (const Error &) {
            // Nobody knows whether it is needed: it stays.
        }
    }
    if (listDirectory(notes).size() >= mostNotes) {
        throw Error(ErrorKind::refused,
                    "builds, or leftovers of killed ones, are in {} other directories already. Choose one of "
                    "them as 'build-dir', or restart the daemon, which removes leftovers.",
                    mostNotes);
    }
}

void writeNote(int notes, int fd, const std::string &name, const fs::path &base) {
    const std::string &text = base.native();
    if (!readNote(notes, name).empty()) {
        return;
    }
    if (pwrite(fd, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()) ||
        ftruncate(fd, static_cast<off_t>(text.size())) != 0) {
        throwErrno("writing '{}', the note of '{}'", name, text);
    }
    syncFd(fd);
    syncFd(notes);
}

/// Where builds may be now. As far as a path leads nowhere it is as it was written.
std::set<fs::path> basesOf(const Locations &locations, const Settings &settings) {
    std::set<fs::path> bases;
    for (const fs::path &base : BuildDirectories::possibleBases(locations, settings)) {
        std::error_code error;
        fs::path canonical = fs::canonical(base, error);
        bases.insert(error ? base : canonical);
    }
    return bases;
}

void sweepBase(const fs::path &base) {
    std::error_code error;
    fs::path now = fs::canonical(base, error);
    try {
        if (!error && now != base) {
            throw Error(ErrorKind::refused, "builds had their directories there, and it leads to '{}' by now",
                        now.string());
        }
        BuildDirectories::sweepLeftovers(base);
    } catch (Error &problem) {
        if (problem.kind() == ErrorKind::refused) {
            problem.addContext(fmt::format("'{}' is not swept", base.string()));
        }
        throw;
    }
}

UniqueFd openNotes(const fs::path &path) {
    std::error_code absent;
    return fs::is_directory(path, absent) ? openDirectory(path) : UniqueFd();
}

} // namespace

UniqueFd noteBuildBase(const Locations &locations, const fs::path &base) {
    std::error_code absent;
    if (fs::equivalent(base, BuildDirectories::defaultBase(locations), absent)) {
        return {};
    }
    fs::path directory = notesDirectory(locations);
    makeDirectories(directory.parent_path());
    makeDirectories(directory, 0700);
    UniqueFd notes = openDirectory(directory);
    std::string name = noteName(base);
    if (!existsAt(notes.get(), name)) {
        makeRoom(notes.get());
    }
    for (;;) { // a sweep may remove it before it is locked
        UniqueFd note(openat(notes.get(), name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
        if (!note) {
            throwErrno("opening '{}', the note of '{}'", (directory / name).string(), base.string());
        }
        if (lockNote(note.get(), LockMode::shared)) {
            writeNote(notes.get(), note.get(), name, base);
            return note;
        }
    }
}

void sweepBuildBases(const Locations &locations, const Settings &settings, Logger &logger) {
    auto attempt = [&](const std::function<void()> &step) {
        try {
            step();
        } catch (const Error &error) {
            logger.warn(error.message());
        }
    };
    std::set<fs::path> bases = basesOf(locations, settings);
    UniqueFd notes = openNotes(notesDirectory(locations));
    for (const std::string &name : notes ? listDirectory(notes.get()) : std::vector<std::string>()) {
        attempt([&] {
            fs::path base = readNote(notes.get(), name);
            base.empty() ? dropNote(notes.get(), name) : void(bases.insert(base));
        });
    }
    for (const fs::path &base : bases) {
        attempt([&] {
            sweepBase(base);
            if (notes) {
                dropNote(notes.get(), noteName(base));
            }
        });
    }
}

} // namespace firn
