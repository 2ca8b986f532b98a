#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include <fcntl.h>
#include <unistd.h>

#include "firn/macho/change-report.hh"
#include "firn/macho/file-bytes.hh"
#include "firn/macho/macho.hh"
#include "firn/macho/replacement.hh"
#include "firn/macho/store-guard.hh"
#include "firn/macho/tree-walk.hh"
#include "libstore/build/output-scan.hh"
#include "libstore/build/reference-scanner.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"

// The daemon's rewriting of an output, for trees that are not canonical and stay as they are: scanning is the
// same, but modes, owners and times are kept, and every file is judged by itself.

namespace firn {

namespace {

using Kind = MachoFinding::Kind;

constexpr size_t blockSize = 1024 * 1024;
/// Beyond so many places in one file, its whole range counts as touched.
constexpr size_t maxRanges = 64 * 1024;

struct Rewriting {
    HashPartSet parts;
    std::vector<std::string> replacements; ///< by number of the part
    std::vector<bool> rewritable;          ///< all

    explicit Rewriting(const std::vector<std::pair<std::string, std::string>> &pairs) {
        for (const auto &[from, to] : pairs) {
            parts.add(from);
            replacements.push_back(to);
            rewritable.push_back(true);
        }
    }

    /// Returns how many places there were.
    uint64_t rewrite(std::string &text) const {
        uint64_t end = 0, count = 0;
        const std::string before = text;
        parts.scan(before, 0, [&](const PartHit &hit) {
            if (takeHit(hit, rewritable, end)) {
                text.replace(hit.offset, HashPartSet::length, replacements[hit.part]);
                ++count;
            }
        });
        return count;
    }
};

/// One regular file: copied when the first place is found, then patched.
class FileRewriter {
  public:
    FileRewriter(int dir, const std::string &name, ChangingDirectory::Keep keep, const Rewriting &rewriting)
        : dir_(dir),
          name_(name),
          keep_(keep),
          rewriting_(rewriting),
          old_(openRegular(dir, name, LinkInPath::refuse)) {}

    /// Throws Error where the file cannot be rewritten; it is as it was then.
    void rewrite(Change &change);

  private:
    void replacePlaces();
    void take(const PartHit &hit);
    void repair(Change &change);
    std::vector<ByteRange> touched() const;

    int dir_;
    const std::string &name_;
    ChangingDirectory::Keep keep_;
    const Rewriting &rewriting_;
    OpenFile old_;
    std::optional<ChangingDirectory> directory_;
    std::optional<Replacement> replacement_;
    std::vector<ByteRange> ranges_;
    uint64_t places_ = 0, takenUntil_ = 0;
};

void FileRewriter::take(const PartHit &hit) {
    if (!takeHit(hit, rewriting_.rewritable, takenUntil_)) {
        return;
    }
    if (!replacement_) {
        directory_.emplace(dir_, keep_);
        replacement_.emplace(dir_, name_, old_);
    }
    replacement_->writeAt(rewriting_.replacements[hit.part], hit.offset);
    ++places_;
    if (ranges_.size() < maxRanges) {
        ranges_.push_back({hit.offset, HashPartSet::length});
    }
}

void FileRewriter::replacePlaces() {
    ReferenceScanner scanner(rewriting_.parts, [this](const PartHit &hit) { take(hit); });
    FileBytes bytes(old_.fd.get(), old_.size());
    auto block = std::make_unique_for_overwrite<char[]>(std::min<uint64_t>(blockSize, old_.size()));
    for (uint64_t offset = 0; offset < bytes.size(); offset += blockSize) {
        size_t size = std::min<uint64_t>(blockSize, bytes.size() - offset);
        bytes.read(offset, block.get(), size);
        scanner.write({block.get(), size});
    }
}

std::vector<ByteRange> FileRewriter::touched() const {
    return places_ > ranges_.size() ? std::vector<ByteRange>{{0, old_.size()}} : ranges_;
}

/// An error that comes with what the user can do.
class Unrepairable : public Error {
  public:
    explicit Unrepairable(const std::string &reason) : Error(ErrorKind::refused, reason) {}
};

void FileRewriter::repair(Change &change) {
    FileBytes before(old_.fd.get(), old_.size()), after = replacement_->bytes();
    PageHashFixup fixup = fixupPageHashes(before, after, touched());
    change.findings = std::move(fixup.findings);
    for (const MachoFinding &finding : change.findings) {
        if (finding.kind == Kind::unrepairable) {
            throw Unrepairable("its signature would break: " + describeFinding(finding));
        }
    }
    for (const BytePatch &patch : fixup.patches) {
        replacement_->writeAt(patch.bytes, patch.offset);
    }
    // A second look, at what was written.
    bool known = change.any(Kind::staleBefore) || change.any(Kind::malformed);
    if (!known && verifyPageHashes(after, touched()).anyStale()) {
        throw Error(ErrorKind::bug, "its signature is still wrong after the repair");
    }
}

void FileRewriter::rewrite(Change &change) {
    replacePlaces();
    if (!replacement_) {
        return;
    }
    change.replacements = places_;
    repair(change);
    replacement_->commit();
    change.status = Change::Status::changed;
    change.brokenLinks = old_.st.st_nlink - 1;
}

class TreeRewriter : public TreeVisitor {
  public:
    TreeRewriter(const Rewriting &rewriting, const StoreGuard &guard, ChangeReport &report)
        : rewriting_(rewriting), guard_(guard), report_(report) {}

    void rewrite(const std::string &path);

    bool enter(int self, const std::string &path) override;
    void file(int dir, const std::string &name, const std::string &path) override;
    void symlink(int dir, const std::string &name, const std::string &path) override;
    void leave(int self, const std::vector<DirectoryEntry> &entries, const std::string &path) override;
    void problem(const std::string &path, const std::string &message) override;

  private:
    /// New names, by old ones.
    using Renames = std::map<std::string, std::string>;
    using Keep = ChangingDirectory::Keep;

    template<typename Work>
    void attempt(const std::string &path, bool always, Work work);
    void rewriteFile(int dir, const std::string &name, Keep keep, Change &change);
    void rewriteSymlink(int dir, const std::string &name, Keep keep, Change &change);
    void rewriteGiven(const std::string &path);
    void rename(int self, const Renames &renames);

    const Rewriting &rewriting_;
    const StoreGuard &guard_;
    ChangeReport &report_;
    std::set<std::string> refused_; ///< paths of files that keep their names too
};

/// Does something with one entry, and reports it.
template<typename Work>
void TreeRewriter::attempt(const std::string &path, bool always, Work work) {
    Change change;
    change.path = path;
    try {
        work(change);
    } catch (const std::exception &error) {
        rethrowIfInterrupted(error);
        change.status = Change::Status::refused;
        change.problem = error.what();
        if (dynamic_cast<const Unrepairable *>(&error) != nullptr) {
            change.remedy = "Nothing of this file was changed. Take its signature away, rewrite it, and have "
                            "it signed again; or leave it out";
        }
        refused_.insert(path);
    }
    report_.add(change, always);
}

void TreeRewriter::rewriteFile(int dir, const std::string &name, Keep keep, Change &change) {
    report_.countFile();
    FileRewriter(dir, name, keep, rewriting_).rewrite(change);
}

void TreeRewriter::rewriteSymlink(int dir, const std::string &name, Keep keep, Change &change) {
    std::string target = readLinkAt(dir, name);
    change.replacements = rewriting_.rewrite(target);
    if (change.replacements == 0) {
        return;
    }
    ChangingDirectory directory(dir, keep);
    replaceSymlink(dir, name, target);
    change.target = target;
    change.status = Change::Status::changed;
}

/// What was named on the command line, if it is no directory. Its own name stays.
void TreeRewriter::rewriteGiven(const std::string &path) {
    size_t slash = path.find_last_of('/');
    std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    attempt(path, true, [&](Change &change) {
        UniqueFd dir = openDirectory(parent);
        struct stat st;
        if (!statAt(dir.get(), name, st)) {
            throw Error(ErrorKind::notFound, "it is not there");
        }
        if (S_ISLNK(st.st_mode)) {
            rewriteSymlink(dir.get(), name, Keep::nothing, change);
        } else {
            rewriteFile(dir.get(), name, Keep::nothing, change);
        }
    });
}

void TreeRewriter::rewrite(const std::string &path) {
    try {
        guard_.requireOutside(path);
        struct stat st;
        bool there = fstatat(AT_FDCWD, path.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
        if (there && S_ISDIR(st.st_mode)) {
            walkTree(openDirectory(path).get(), path, *this);
        } else if (path.ends_with('/')) {
            throw Error(ErrorKind::badInput, "it is no directory");
        } else {
            rewriteGiven(path);
        }
    } catch (const std::exception &error) {
        rethrowIfInterrupted(error);
        problem(path, error.what());
    }
}

bool TreeRewriter::enter(int self, const std::string &path) {
    if (guard_.isStore(self, path)) {
        problem(path, "it is a store, whose paths nothing but a daemon may change");
        return false;
    }
    return true;
}

void TreeRewriter::file(int dir, const std::string &name, const std::string &path) {
    attempt(path, false, [&](Change &change) { rewriteFile(dir, name, Keep::everything, change); });
}

void TreeRewriter::symlink(int dir, const std::string &name, const std::string &path) {
    attempt(path, false, [&](Change &change) { rewriteSymlink(dir, name, Keep::everything, change); });
}

/// Names last, so that everything is found below the names it was listed with.
void TreeRewriter::leave(int self, const std::vector<DirectoryEntry> &entries, const std::string &path) {
    Renames renames;
    std::map<std::string, uint64_t> places;
    for (const DirectoryEntry &entry : entries) {
        std::string name = entry.name;
        bool kept = refused_.erase(path + (path.ends_with('/') ? "" : "/") + entry.name) > 0;
        if (uint64_t count = kept ? 0 : rewriting_.rewrite(name)) {
            renames.emplace(entry.name, name);
            places.emplace(entry.name, count);
        }
    }
    if (renames.empty()) {
        return;
    }
    try {
        rename(self, renames);
    } catch (const Error &error) {
        return problem(path, error.what());
    }
    for (const auto &[from, to] : renames) {
        Change change;
        change.path = path + (path.ends_with('/') ? "" : "/") + from;
        change.status = Change::Status::changed;
        change.newName = to;
        change.replacements = places.at(from);
        report_.add(change, false);
    }
}

/// Either all or, where two entries would get one name, none.
void TreeRewriter::rename(int self, const Renames &renames) {
    std::set<std::string> names;
    for (const std::string &name : listDirectory(self)) {
        auto found = renames.find(name);
        const std::string &now = found == renames.end() ? name : found->second;
        if (!names.insert(now).second) {
            throw Error(ErrorKind::refused, "two of its entries would be called {}: none of them is renamed",
                        quoteForDisplay(now));
        }
    }
    ChangingDirectory directory(self, Keep::everything);
    auto move = [self](const std::string &from, const std::string &to) {
        if (renameat(self, from.c_str(), self, to.c_str()) != 0) {
            throwErrno("renaming {} to {}", quoteForDisplay(from), quoteForDisplay(to));
        }
    };
    // One's new name may be another's old one: those by way of names that nothing has.
    std::map<std::string, std::string> temporaries;
    for (const auto &[from, to] : renames) {
        if (renames.contains(to)) {
            move(from, temporaries[from] = unusedName(self));
        }
    }
    for (const auto &[from, to] : renames) {
        if (!temporaries.contains(from)) {
            move(from, to);
        }
    }
    for (const auto &[from, temporary] : temporaries) {
        move(temporary, renames.at(from));
    }
}

void TreeRewriter::problem(const std::string &path, const std::string &message) {
    Change change;
    change.path = path;
    change.status = Change::Status::refused;
    change.problem = message;
    report_.add(change, true);
}

} // namespace

int machoRewrite(const MachoOptions &options) {
    Rewriting rewriting(options.replacements);
    StoreGuard guard;
    ChangeReport report(options.json, "rewritten", ChangeReport::OnMalformed::warn);
    TreeRewriter rewriter(rewriting, guard, report);
    for (const std::string &path : options.paths) {
        rewriter.rewrite(path);
    }
    return report.finish(machoAllRight);
}

} // namespace firn
