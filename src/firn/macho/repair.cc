#include <algorithm>
#include <filesystem>

#include <fcntl.h>

#include "firn/macho/change-report.hh"
#include "firn/macho/file-bytes.hh"
#include "firn/macho/macho.hh"
#include "firn/macho/replacement.hh"
#include "firn/macho/store-guard.hh"
#include "firn/macho/tree-walk.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

using Kind = MachoFinding::Kind;
using Keep = ChangingDirectory::Keep;

/// Throws Error(refused) for what stays wrong whatever is done; half a repair would help nobody.
void requireRepairable(const std::vector<MachoFinding> &findings) {
    for (const MachoFinding &finding : findings) {
        if (finding.kind == Kind::unrepairable || finding.kind == Kind::staleBefore) {
            throw Error(ErrorKind::refused, "it cannot be repaired: {}", describeFinding(finding));
        }
    }
}

class Repairer : public TreeVisitor {
  public:
    Repairer(bool dryRun, const StoreGuard &guard, ChangeReport &report)
        : dryRun_(dryRun), guard_(guard), report_(report) {}

    void repair(const std::string &path);

    bool enter(int self, const std::string &path) override;
    void file(int dir, const std::string &name, const std::string &path) override;
    void problem(const std::string &path, const std::string &message) override;

  private:
    void repairFile(int dir, const std::string &name, Keep keep, Change &change);
    template<typename Work>
    void attempt(const std::string &path, bool always, Work work);

    bool dryRun_;
    const StoreGuard &guard_;
    ChangeReport &report_;
};

template<typename Work>
void Repairer::attempt(const std::string &path, bool always, Work work) {
    Change change;
    change.path = path;
    try {
        work(change);
    } catch (const std::exception &error) {
        rethrowIfInterrupted(error);
        change.status = Change::Status::refused;
        change.problem = error.what();
        change.remedy = change.findings.empty()
                            ? ""
                            : "Nothing of this file was changed. Have it signed again by its owner";
    }
    report_.add(change, always);
}

void Repairer::repairFile(int dir, const std::string &name, Keep keep, Change &change) {
    report_.countFile();
    OpenFile old = openRegular(dir, name, LinkInPath::refuse);
    if (!old.canBeMacho()) {
        return;
    }
    PageHashFixup fixup = repairAllPageHashes(FileBytes(old.fd.get(), old.size()));
    change.findings = std::move(fixup.findings);
    requireRepairable(change.findings);
    if (fixup.patches.empty()) {
        return;
    }
    change.status = Change::Status::changed;
    change.brokenLinks = old.st.st_nlink - 1;
    if (dryRun_) {
        return;
    }
    ChangingDirectory directory(dir, keep);
    Replacement replacement(dir, name, old);
    for (const BytePatch &patch : fixup.patches) {
        replacement.writeAt(patch.bytes, patch.offset);
    }
    if (!change.any(Kind::malformed) && verifyPageHashes(replacement.bytes()).anyStale()) {
        throw Error(ErrorKind::bug, "its signature is still wrong after the repair");
    }
    replacement.commit();
}

void Repairer::repair(const std::string &path) {
    std::error_code error;
    std::filesystem::path place = std::filesystem::canonical(path, error);
    try {
        if (error) {
            throw SysError(error.value(), "finding it");
        }
        guard_.requireOutside(place.native());
        if (std::filesystem::is_directory(place)) {
            return walkTree(openDirectory(place).get(), path, *this);
        }
    } catch (const std::exception &e) {
        rethrowIfInterrupted(e);
        return problem(path, e.what());
    }
    // A file, perhaps by a symlink.
    attempt(path, true, [&](Change &change) {
        UniqueFd dir = openDirectory(place.parent_path());
        repairFile(dir.get(), place.filename(), Keep::nothing, change);
    });
}

bool Repairer::enter(int self, const std::string &path) {
    if (guard_.isStore(self, path)) {
        problem(path, "it is a store, whose paths nothing but a daemon may change");
        return false;
    }
    return true;
}

void Repairer::file(int dir, const std::string &name, const std::string &path) {
    attempt(path, false, [&](Change &change) { repairFile(dir, name, Keep::everything, change); });
}

void Repairer::problem(const std::string &path, const std::string &message) {
    Change change;
    change.path = path;
    change.status = Change::Status::refused;
    change.problem = message;
    report_.add(change, true);
}

} // namespace

int machoRepair(const MachoOptions &options) {
    StoreGuard guard;
    ChangeReport report(options.json, options.dryRun ? "would be repaired" : "repaired",
                        ChangeReport::OnMalformed::fail);
    Repairer repairer(options.dryRun, guard, report);
    for (const std::string &path : options.paths) {
        repairer.repair(path);
    }
    return report.finish(options.dryRun ? machoStale : machoAllRight);
}

} // namespace firn
