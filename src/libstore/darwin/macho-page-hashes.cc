#include "libstore/darwin/macho-page-hashes.hh"

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <utility>

#include "libstore/darwin/macho-bytes.hh"
#include "libstore/darwin/macho-changes.hh"
#include "libstore/darwin/macho-slots.hh"

namespace firn {

namespace {

using Kind = MachoFinding::Kind;
using State = CodeDirectory::State;

struct SignedFile {
    MachoFile macho;
    std::vector<SignedSlice> slices;
};

SignedFile readSignedFile(const MachoBytes &file) {
    SignedFile result{readMachoFile(file), {}};
    for (const MachoSlice &slice : result.macho.slices) {
        result.slices.push_back({slice, readCodeSignature(file, slice)});
    }
    return result;
}

/// Collects patches and findings; one finding for each slice, directory and kind.
class FixupResult {
  public:
    void patch(const ByteRange &place, std::string_view bytes) {
        fixup_.patches.push_back({place.offset, std::string(bytes)});
    }

    void find(Kind kind, const SignedSlice *slice, uint32_t directory, const std::string &reason) {
        finding(kind, slice, directory, reason);
    }

    void findSlot(Kind kind, const SignedSlice &slice, uint32_t directory, int64_t slot,
                  const std::string &reason) {
        MachoFinding &found = finding(kind, &slice, directory, reason);
        if (found.count++ == 0) {
            found.firstSlot = slot;
        }
    }

    PageHashFixup take() {
        std::sort(fixup_.patches.begin(), fixup_.patches.end(),
                  [](const BytePatch &a, const BytePatch &b) { return a.offset < b.offset; });
        return std::move(fixup_);
    }

  private:
    MachoFinding &finding(Kind kind, const SignedSlice *slice, uint32_t directory,
                          const std::string &reason) {
        uint64_t offset = slice ? slice->macho.range.offset : 0;
        std::string architecture = slice ? slice->macho.architecture : "";
        for (MachoFinding &known : fixup_.findings) {
            if (known.kind == kind && known.slice == offset && known.architecture == architecture &&
                known.directory == directory) {
                return known;
            }
        }
        fixup_.findings.push_back({kind, offset, architecture, directory, 0, 0, reason});
        return fixup_.findings.back();
    }

    PageHashFixup fixup_;
};

const char cmsReason[] = "it has a CMS signature, which nobody but its signer can renew";

/// The slots of one CodeDirectory after a change. Both files have it in the same place.
class DirectoryFixup {
  public:
    DirectoryFixup(const MachoBytes &before, const MachoBytes &after, const MachoChanges &changes,
                   const SignedSlice &slice, const CodeDirectory &directory, FixupResult &result)
        : before_(before, slice, directory),
          after_(after, slice, directory),
          changes_(changes),
          slice_(slice),
          directory_(directory),
          result_(result) {}

    void run() {
        fixCodeSlots();
        fixSpecialSlots();
        if (!isCms()) {
            fixChangedSlots();
        } else if (changes_.any(directory_.range)) {
            result_.find(Kind::unrepairable, &slice_, directory_.slotType, cmsReason);
        }
    }

  private:
    bool isCms() const { return slice_.signature.kind == SignatureKind::cms; }

    void fixCodeSlots() {
        for (const SlotRun &run : after_.codeSlotsOver(changes_.ranges())) {
            before_.willCompute(run);
            after_.willCompute(run);
            for (int64_t slot = run.first; slot < run.end; ++slot) {
                if (changes_.any(*after_.subject(slot))) {
                    fix(slot);
                }
            }
        }
    }

    void fixSpecialSlots() {
        for (int64_t slot = -1; slot > after_.specialEnd(); --slot) {
            std::optional<ByteRange> subject = after_.subject(slot);
            if (subject && changes_.any(*subject) && before_.inUse(slot) && isMeant(slot)) {
                fix(slot);
            }
        }
    }

    /// A change may hit a slot itself, by whatever accident: it gets back what it had, unless that was wrong.
    void fixChangedSlots() {
        for (const SlotRun &run : after_.slotsIn(changes_.ranges())) {
            for (int64_t slot = run.first; slot < run.end; ++slot) {
                std::optional<ByteRange> subject = after_.subject(slot);
                bool onlyItself = changes_.any(after_.place(slot)) && !(subject && changes_.any(*subject));
                if (onlyItself && !wasWrong(slot, subject)) {
                    result_.patch(after_.place(slot), before_.stored(slot));
                    result_.findSlot(Kind::repaired, slice_, directory_.slotType, slot, "recomputed");
                }
            }
        }
    }

    bool wasWrong(int64_t slot, const std::optional<ByteRange> &subject) {
        bool judged = subject && before_.inUse(slot) && !before_.subjectIsGuessed(slot);
        return judged && !before_.isRight(slot, *subject);
    }

    /// The slot of an Info.plist may be about a file outside, though the program holds one too.
    bool isMeant(int64_t slot) {
        return !after_.subjectIsGuessed(slot) || before_.isRight(slot, *before_.subject(slot));
    }

    void fix(int64_t slot) {
        ByteRange subject = *after_.subject(slot);
        std::string_view digest = after_.computed(subject);
        if (digest == after_.stored(slot)) {
            return;
        }
        bool wasRight = before_.isRight(slot, subject);
        if (isCms()) {
            result_.findSlot(wasRight ? Kind::unrepairable : Kind::staleBefore, slice_, directory_.slotType,
                             slot, cmsReason);
            return;
        }
        result_.patch(after_.place(slot), digest);
        result_.findSlot(wasRight ? Kind::repaired : Kind::repairedStale, slice_, directory_.slotType, slot,
                         wasRight ? "recomputed" : "was wrong before the change already; recomputed");
    }

    MachoSlots before_;
    MachoSlots after_;
    const MachoChanges &changes_;
    const SignedSlice &slice_;
    const CodeDirectory &directory_;
    FixupResult &result_;
};

bool sameStructure(const SignedSlice &a, const SignedSlice &b) {
    return a.macho.signature == b.macho.signature && a.macho.infoPlist == b.macho.infoPlist &&
           a.signature.blobs == b.signature.blobs &&
           std::equal(a.signature.directories.begin(), a.signature.directories.end(),
                      b.signature.directories.begin(), b.signature.directories.end(),
                      [](const CodeDirectory &x, const CodeDirectory &y) { return x.sameLayout(y); });
}

class FileFixup {
  public:
    FileFixup(const MachoBytes &before, const MachoBytes &after, const std::vector<ByteRange> &touched)
        : before_(before), after_(after), changes_(before, after, touched) {}

    PageHashFixup run() {
        if (changes_.ranges().empty()) {
            return {};
        }
        old_ = readSignedFile(before_);
        new_ = readSignedFile(after_);
        findLostSlices();
        if (!new_.macho.problem.empty()) {
            result_.find(Kind::malformed, nullptr, 0, new_.macho.problem);
        }
        for (const SignedSlice &slice : new_.slices) {
            if (changes_.any(slice.macho.range)) {
                fixSlice(sameSlice(old_, slice), slice);
            }
        }
        return result_.take();
    }

  private:
    static const SignedSlice *sameSlice(const SignedFile &file, const SignedSlice &slice) {
        for (const SignedSlice &other : file.slices) {
            if (other.macho.range == slice.macho.range &&
                other.macho.architecture == slice.macho.architecture) {
                return &other;
            }
        }
        return nullptr;
    }

    static bool wasGood(const SignedSlice &slice) { return slice.isSigned() && slice.problem().empty(); }

    /// A change of the table of slices may hide a slice that was signed.
    void findLostSlices() {
        for (const SignedSlice &slice : old_.slices) {
            if (wasGood(slice) && !sameSlice(new_, slice)) {
                result_.find(Kind::unrepairable, &slice, 0, "the change hides this slice");
            }
        }
    }

    void fixSlice(const SignedSlice *old, const SignedSlice &slice) {
        bool same = old && old->isSigned() == slice.isSigned() && old->problem() == slice.problem() &&
                    sameStructure(*old, slice);
        if (!same && old && wasGood(*old)) {
            result_.find(Kind::unrepairable, &slice, 0, "the change destroys its code signature");
        } else if (!slice.problem().empty()) {
            result_.find(Kind::malformed, &slice, 0, slice.problem());
        } else if (!same && slice.isSigned()) {
            result_.find(Kind::malformed, &slice, 0, "it had no such code signature before the change");
        } else if (slice.isSigned()) {
            fixDirectories(slice);
        }
    }

    void fixDirectories(const SignedSlice &slice) {
        if (slice.signature.kind == SignatureKind::cms && cmsChanged(slice.signature)) {
            result_.find(Kind::unrepairable, &slice, 0, cmsReason);
        }
        for (const CodeDirectory &directory : slice.signature.directories) {
            if (directory.state == State::judgeable) {
                DirectoryFixup(before_, after_, changes_, slice, directory, result_).run();
            } else if (directory.state == State::malformed) {
                result_.find(Kind::malformed, &slice, directory.slotType, directory.problem);
            } else if (unknownChanged(slice, directory)) {
                result_.find(Kind::unrepairable, &slice, directory.slotType, directory.problem);
            }
        }
    }

    bool cmsChanged(const CodeSignature &signature) const {
        return changes_.any(signature.index) || changes_.any(signature.blob(slotTypeCms)->range);
    }

    /// Whether anything changed that the digests of such a directory may be about, or they themselves.
    bool unknownChanged(const SignedSlice &slice, const CodeDirectory &directory) const {
        uint64_t begin = slice.macho.range.offset;
        uint64_t special = uint64_t(directory.specialSlots) * directory.hashSize;
        uint64_t code = uint64_t(directory.codeSlots) * directory.hashSize;
        if (changes_.any({begin, slice.macho.signature->offset - begin}) ||
            changes_.any({directory.hashOffset - special, special + code})) {
            return true;
        }
        return std::any_of(slice.signature.blobs.begin(), slice.signature.blobs.end(),
                           [&](const SignatureBlob &blob) {
                               return blob.slotType >= 1 && blob.slotType <= directory.specialSlots &&
                                      changes_.any(blob.range);
                           });
    }

    const MachoBytes &before_;
    const MachoBytes &after_;
    MachoChanges changes_;
    SignedFile old_;
    SignedFile new_;
    FixupResult result_;
};

/// Looks at the slots over `within` of one CodeDirectory.
class DirectoryCheck {
  public:
    /// A slot that is wrong, and what it should hold.
    using OnStale = std::function<void(int64_t slot, const ByteRange &place, std::string_view digest)>;

    DirectoryCheck(const MachoBytes &file, const SignedSlice &slice, const CodeDirectory &directory)
        : slots_(file, slice, directory) {}

    void run(const std::vector<ByteRange> &within, const OnStale &onStale,
             const std::function<void(int64_t slot)> &onExternal) {
        for (const SlotRun &run : slots_.codeSlotsOver(within)) {
            slots_.willCompute(run);
            for (int64_t slot = run.first; slot < run.end; ++slot) {
                check(slot, *slots_.subject(slot), onStale);
            }
        }
        for (int64_t slot = -1; slot > slots_.specialEnd(); --slot) {
            if (slots_.inUse(slot)) {
                checkSpecial(slot, within, onStale, onExternal);
            }
        }
    }

  private:
    void checkSpecial(int64_t slot, const std::vector<ByteRange> &within, const OnStale &onStale,
                      const std::function<void(int64_t slot)> &onExternal) {
        std::optional<ByteRange> subject = slots_.subject(slot);
        bool wanted = subject && std::any_of(within.begin(), within.end(), [&](const ByteRange &range) {
                          return overlap(range, *subject);
                      });
        if (!subject || (slots_.subjectIsGuessed(slot) && wanted && !slots_.isRight(slot, *subject))) {
            onExternal(slot);
        } else if (wanted) {
            check(slot, *subject, onStale);
        }
    }

    void check(int64_t slot, const ByteRange &subject, const OnStale &onStale) {
        std::string_view digest = slots_.computed(subject);
        if (digest != slots_.stored(slot)) {
            onStale(slot, slots_.place(slot), digest);
        }
    }

    MachoSlots slots_;
};

CodeDirectoryReport describe(const CodeDirectory &directory) {
    CodeDirectoryReport report;
    report.slotType = directory.slotType;
    report.range = directory.range;
    report.version = directory.version;
    report.flags = directory.flags;
    report.identifier = directory.identifier;
    report.hashType = directory.hashType;
    report.pageSize = directory.pageSize;
    report.codeLimit = directory.codeLimit;
    report.codeSlots = directory.codeSlots;
    report.specialSlots = directory.specialSlots;
    report.problem = directory.problem;
    return report;
}

CodeDirectoryReport verifyDirectory(const MachoBytes &file, const SignedSlice &slice,
                                    const CodeDirectory &directory, const std::vector<ByteRange> &within) {
    CodeDirectoryReport report = describe(directory);
    if (directory.state != State::judgeable) {
        return report;
    }
    DirectoryCheck(file, slice, directory)
        .run(
            within,
            [&](int64_t slot, const ByteRange &, std::string_view) {
                auto &stale = slot < 0 ? report.staleSpecialSlots : report.staleCodeSlots;
                stale.push_back(uint32_t(slot < 0 ? -slot : slot));
            },
            [&](int64_t slot) { report.externalSpecialSlots.push_back(uint32_t(-slot)); });
    return report;
}

void repairDirectory(const MachoBytes &file, const SignedSlice &slice, const CodeDirectory &directory,
                     FixupResult &result) {
    if (directory.state != State::judgeable) {
        bool malformed = directory.state == State::malformed;
        result.find(malformed ? Kind::malformed : Kind::unrepairable, &slice, directory.slotType,
                    directory.problem);
        return;
    }
    bool cms = slice.signature.kind == SignatureKind::cms;
    DirectoryCheck(file, slice, directory)
        .run(
            {{0, file.size()}},
            [&](int64_t slot, const ByteRange &place, std::string_view digest) {
                if (!cms) {
                    result.patch(place, digest);
                }
                result.findSlot(cms ? Kind::staleBefore : Kind::repairedStale, slice, directory.slotType,
                                slot, cms ? cmsReason : "recomputed");
            },
            [](int64_t) {});
}

} // namespace

PageHashFixup fixupPageHashes(const MachoBytes &before, const MachoBytes &after,
                              const std::vector<ByteRange> &touched) {
    if (before.size() != after.size()) {
        throw std::invalid_argument("page hashes: the two versions of a file differ in size");
    }
    return FileFixup(before, after, touched).run();
}

MachoReport verifyPageHashes(const MachoBytes &bytes, const std::optional<std::vector<ByteRange>> &within) {
    std::vector<ByteRange> ranges =
        normalRanges(within.value_or(std::vector<ByteRange>{{0, bytes.size()}}), bytes.size());
    SignedFile file = readSignedFile(bytes);
    MachoReport report{file.macho.isMacho, {}, file.macho.problem};
    for (const SignedSlice &slice : file.slices) {
        SliceReport &entry = report.slices.emplace_back();
        entry.range = slice.macho.range;
        entry.architecture = slice.macho.architecture;
        entry.kind = slice.signature.kind;
        entry.problem = slice.problem();
        if (!entry.problem.empty()) {
            continue;
        }
        for (const CodeDirectory &directory : slice.signature.directories) {
            entry.directories.push_back(verifyDirectory(bytes, slice, directory, ranges));
        }
    }
    return report;
}

PageHashFixup repairAllPageHashes(const MachoBytes &bytes) {
    SignedFile file = readSignedFile(bytes);
    FixupResult result;
    if (!file.macho.problem.empty()) {
        result.find(Kind::malformed, nullptr, 0, file.macho.problem);
    }
    for (const SignedSlice &slice : file.slices) {
        if (!slice.problem().empty()) {
            result.find(Kind::malformed, &slice, 0, slice.problem());
            continue;
        }
        for (const CodeDirectory &directory : slice.signature.directories) {
            repairDirectory(bytes, slice, directory, result);
        }
    }
    return result.take();
}

bool MachoReport::anyStale() const {
    for (const SliceReport &slice : slices) {
        for (const CodeDirectoryReport &directory : slice.directories) {
            if (!directory.staleCodeSlots.empty() || !directory.staleSpecialSlots.empty()) {
                return true;
            }
        }
    }
    return false;
}

bool MachoReport::anyProblem() const {
    for (const SliceReport &slice : slices) {
        bool inDirectory = std::any_of(slice.directories.begin(), slice.directories.end(),
                                       [](const CodeDirectoryReport &d) { return !d.problem.empty(); });
        if (!slice.problem.empty() || inDirectory) {
            return true;
        }
    }
    return !problem.empty();
}

} // namespace firn
