// The tree of symlinks that a profile is: `nix-env` builds one for every generation. A directory that only
// one package has is one symlink; where several packages have it, it becomes a directory of the tree with the
// symlinks of each.

#include "builtin/builders.hh"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>
#include <set>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builtin/packages.hh"
#include "builtin/progress.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn::builtin {

namespace {

constexpr uint64_t maxPropagatedList = 16 * 1024 * 1024;
/// Packages that nobody asked for by name yield to all others.
constexpr int64_t firstPropagatedPriority = 1000;

// ---- the tree

enum class Kind { absent, directory, symlink, other };

Kind kindOf(const std::string &path) {
    struct stat st;
    if (lstat(path.c_str(), &st) != 0) {
        if (errno != ENOENT) {
            throwErrno("looking at '{}'", path);
        }
        return Kind::absent;
    }
    return S_ISDIR(st.st_mode) ? Kind::directory : S_ISLNK(st.st_mode) ? Kind::symlink : Kind::other;
}

/// Files that describe a package, or of which every package has one of its own.
bool isLeftOut(const std::string &path) {
    return std::ranges::any_of(
        std::initializer_list<std::string_view>{"/propagated-build-inputs", "/nix-support", "/perllocal.pod",
                                                "/info/dir", "/log", "/manifest.nix", "/manifest.json"},
        [&](std::string_view end) { return path.ends_with(end); });
}

std::string resolve(const std::string &path) {
    std::error_code error;
    std::filesystem::path real = std::filesystem::canonical(path, error);
    if (error) {
        throw SysError(error.value(), fmt::format("following the symlink '{}'", path));
    }
    return real;
}

class LinkTree {
  public:
    explicit LinkTree(std::string root) : root_(std::move(root)) { makeDirectory(root_); }

    void addPackage(const Package &package);

  private:
    /// A directory of a package whose entries are to be found in a directory of the tree.
    struct Merge {
        std::string from, to;
        int64_t priority;
    };

    void merge(const Merge &work);
    void addEntry(const std::string &from, const std::string &to, int64_t priority);
    void addDirectory(const std::string &from, const std::string &to, int64_t priority);
    void addFile(const std::string &from, const std::string &to, int64_t priority);
    void link(const std::string &from, const std::string &to, int64_t priority);
    static void makeDirectory(const std::string &path);
    static void removeLink(const std::string &path);

    std::string root_;
    std::map<std::string, int64_t> priorities_; ///< of the symlinks' packages
    std::deque<Merge> todo_;                    ///< instead of recursion
};

void LinkTree::makeDirectory(const std::string &path) {
    if (mkdir(path.c_str(), 0755) != 0) {
        throwErrno("making the directory '{}'", path);
    }
}

void LinkTree::removeLink(const std::string &path) {
    if (unlink(path.c_str()) != 0) {
        throwErrno("removing '{}'", path);
    }
}

void LinkTree::link(const std::string &from, const std::string &to, int64_t priority) {
    if (symlink(from.c_str(), to.c_str()) != 0) {
        throwErrno("making the symlink '{}'", to);
    }
    priorities_[to] = priority;
}

/// Returns when all of it is in the tree, so that what comes later meets it whole.
void LinkTree::addPackage(const Package &package) {
    struct stat st;
    if (stat(package.path.c_str(), &st) != 0) {
        throwErrno("looking at package '{}'", package.path);
    }
    if (!S_ISDIR(st.st_mode)) {
        say(fmt::format("warning: not including {} in the user environment because it is not a directory",
                        quoteForDisplay(package.path)));
        return;
    }
    todo_.push_back({package.path, root_, package.priority});
    while (!todo_.empty()) {
        Merge work = std::move(todo_.front());
        todo_.pop_front();
        merge(work);
    }
}

void LinkTree::merge(const Merge &work) {
    UniqueFd directory = openDirectory(work.from);
    for (const std::string &name : listDirectory(directory.get())) {
        std::string from = work.from + "/" + name;
        if (!name.starts_with('.') && !isLeftOut(from)) {
            addEntry(from, work.to + "/" + name, work.priority);
        }
    }
}

void LinkTree::addEntry(const std::string &from, const std::string &to, int64_t priority) {
    struct stat st;
    if (stat(from.c_str(), &st) != 0) {
        if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP) {
            throwErrno("looking at '{}'", from);
        }
        say(fmt::format("warning: skipping dangling symlink {}", quoteForDisplay(from)));
    } else if (S_ISDIR(st.st_mode)) {
        addDirectory(from, to, priority);
    } else {
        addFile(from, to, priority);
    }
}

void LinkTree::addDirectory(const std::string &from, const std::string &to, int64_t priority) {
    switch (kindOf(to)) {
    case Kind::absent:
        link(from, to, priority);
        return;
    case Kind::directory:
        todo_.push_back({from, to, priority});
        return;
    case Kind::symlink: {
        // Another package's directory till now: from here on it is shared. That package's entries come first.
        std::string target = resolve(to);
        if (kindOf(target) != Kind::directory) {
            throw Error(ErrorKind::failure, "collision between directory {} and file {} of another package",
                        quoteForDisplay(from), quoteForDisplay(target));
        }
        int64_t earlier = priorities_.at(to);
        removeLink(to);
        makeDirectory(to);
        todo_.push_back({target, to, earlier});
        todo_.push_back({from, to, priority});
        return;
    }
    case Kind::other:
        break;
    }
    throw Error(ErrorKind::bug, "{} is neither directory nor symlink", quoteForDisplay(to));
}

void LinkTree::addFile(const std::string &from, const std::string &to, int64_t priority) {
    switch (kindOf(to)) {
    case Kind::absent:
        link(from, to, priority);
        return;
    case Kind::directory:
        throw Error(ErrorKind::failure, "collision between file {} and directory {} of other packages",
                    quoteForDisplay(from), quoteForDisplay(to));
    case Kind::symlink: {
        int64_t earlier = priorities_.at(to);
        if (earlier == priority) {
            throw Error(ErrorKind::failure,
                        "files '{}' and '{}' have the same priority {}; 'nix-env --set-flag priority NUMBER "
                        "PACKAGE' gives one of the two packages another (0 is the highest)",
                        escapeForDisplay(readLinkAt(AT_FDCWD, to)), escapeForDisplay(from), priority);
        }
        if (priority < earlier) {
            removeLink(to);
            link(from, to, priority);
        }
        return;
    }
    case Kind::other:
        break;
    }
    throw Error(ErrorKind::bug, "{} is neither directory nor symlink", quoteForDisplay(to));
}

// ---- packages that others bring along

std::vector<std::string> propagatedBy(const std::string &package) {
    try {
        std::string list = readFile(package + "/nix-support/propagated-user-env-packages", maxPropagatedList);
        return splitAtBlanks(list);
    } catch (const SysError &error) {
        if (error.number() != ENOENT && error.number() != ENOTDIR) {
            throw;
        }
        return {};
    }
}

void addAll(LinkTree &tree, const std::vector<Package> &packages) {
    std::set<std::string> done, next;
    auto add = [&](const Package &package) {
        if (done.insert(package.path).second) {
            tree.addPackage(package);
            for (std::string &path : propagatedBy(package.path)) {
                next.insert(std::move(path));
            }
        }
    };
    std::ranges::for_each(packages, add);
    int64_t priority = firstPropagatedPriority;
    while (!next.empty()) {
        for (const std::string &path : std::exchange(next, {})) {
            if (!done.contains(path)) {
                add({priority++, path});
            }
        }
    }
}

} // namespace

void buildEnvironment(const Request &request) {
    const std::string &out = request.attribute("out");
    LinkTree tree(out);
    addAll(tree, parsePackages(request.attribute("derivations")));
    std::string manifest = out + "/manifest.nix";
    if (symlink(request.attribute("manifest").c_str(), manifest.c_str()) != 0) {
        throwErrno("making the symlink '{}'", manifest);
    }
}

} // namespace firn::builtin
