#include "libstore/build/fixup-macho-page-hashes.hh"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include "libstore/build/bundle-seals.hh"
#include "libstore/build/byte-patches.hh"
#include "libstore/build/new-output.hh"
#include "libstore/build/output-copy.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

using Kind = MachoFinding::Kind;
constexpr size_t mostNamed = 5; ///< files in one line of the log
constexpr size_t atOnce = 16;   ///< files that are open for the jail to look at

std::string readHead(int fd) {
    std::string head(4, '\0');
    ssize_t got;
    do {
        got = pread(fd, head.data(), head.size(), 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        throwErrno("reading a rewritten file");
    }
    head.resize(static_cast<size_t>(got));
    return head;
}

uint64_t sizeOf(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        throwErrno("looking at a rewritten file");
    }
    return static_cast<uint64_t>(st.st_size);
}

std::vector<jail::RewriteRule> rulesOf(const Rewrites &rewrites) {
    std::vector<jail::RewriteRule> rules;
    for (uint32_t part = 0; part < rewrites.parts->size(); ++part) {
        if (rewrites.rewritable[part]) {
            rules.push_back({rewrites.parts->text(part), rewrites.replacements[part]});
        }
    }
    return rules;
}

/// `ranges` is ascending and not overlapping.
bool overlapsAny(const ByteRange &range, const std::vector<ByteRange> &ranges) {
    auto endsBehind = [](uint64_t place, const ByteRange &other) { return place < other.end(); };
    auto found = std::upper_bound(ranges.begin(), ranges.end(), range.offset, endsBehind);
    return found != ranges.end() && found->offset < range.end();
}

/// The first few, and how many there are besides.
template<typename Item, typename Print>
std::string listSome(const std::vector<Item> &items, const char *separator, Print print) {
    std::string text;
    for (size_t i = 0; i < items.size() && i < mostNamed; ++i) {
        text += (i == 0 ? "" : separator) + print(items[i]);
    }
    if (items.size() > mostNamed) {
        text += fmt::format("{}and {} more", separator, items.size() - mostNamed);
    }
    return text;
}

std::string plural(uint64_t count, const std::string &noun) {
    return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

/// "arm64, code slot 3 and 2 more of directory 0x1000: reason", as far as known.
std::string describeFinding(const MachoFinding &finding) {
    std::string text = escapeForDisplay(finding.architecture, jail::maxArchitecture);
    if (finding.count > 0) {
        text += text.empty() ? "" : ", ";
        text += finding.firstSlot < 0 ? fmt::format("special slot {}", finding.firstSlot)
                                      : fmt::format("code slot {}", finding.firstSlot);
        text += finding.count > 1 ? fmt::format(" and {} more", finding.count - 1) : "";
    }
    std::string reason = escapeForDisplay(finding.reason, jail::maxReason);
    text += text.empty() || reason.empty() ? "" : ": ";
    return text + reason;
}

using Changes = std::map<uint32_t, const NodePatches *>; ///< by number of the node
using OnFile = std::function<void(const NodePatches &change, UniqueFd file)>;

Changes touchedContents(const OutputRewrite &output) {
    Changes touched;
    for (const NodePatches &change : output.changes) {
        if (change.changesContents()) {
            touched.emplace(change.node, &change);
        }
    }
    return touched;
}

/// Opens the files of these changes, in the order of the archive.
void visit(const OutputRewrite &output, const Changes &wanted, const OnFile &onFile) {
    if (!wanted.empty()) {
        visitFiles(output.dir, output.tree, [&](int dir, uint32_t node) {
            if (auto found = wanted.find(node); found != wanted.end()) {
                throwIfInterrupted();
                onFile(*found->second, openFileAt(dir, output.tree.nodes[node].name));
            }
        });
    }
}

} // namespace

MachoPageHashFixup::MachoPageHashFixup(const LocalStore &store, Logger &logger,
                                       const RegistrationRequest &request, MachoSignatures policy,
                                       MachoJail &jail)
    : store_(store), logger_(logger), request_(request), policy_(policy), jail_(jail) {}

/// A signature stands at a program's end and takes up 32 to 100 bytes for each page of 4096, and what
/// certificates and entitlements need; a universal file has one at the end of each of its programs.
uint64_t MachoPageHashFixup::foresee(const FileHead &head, uint64_t size) {
    if (!canBeMacho({head.data(), head.size()})) {
        return 0;
    }
    jail_.prepare();
    return canBeUniversal({head.data(), head.size()}) ? size : std::min(size, size / 32 + 64 * 1024);
}

std::vector<Patch> MachoPageHashFixup::repairFile(const OutputRewrite &output, int file) {
    const NodePatches &change = output.changes.front();
    EarlyAnswer early{change.node, askForFixup(output, change, file)};
    MachoSignatures policy = policyFor(output);
    judge(output, change, early.answer.fixup.findings, policy);
    std::vector<Patch> patches;
    if (policy != MachoSignatures::warn) {
        patches = asPatches(early.answer.fixup.patches);
    }
    early_[output.outputName].push_back(std::move(early));
    return patches;
}

// ---- words

std::string MachoPageHashFixup::describe(const OutputRewrite &output, uint32_t node) const {
    std::string path = output.tree.pathOf(node);
    return path.empty() ? fmt::format("output '{}'", output.outputName)
                        : fmt::format("{} of output '{}'", quoteForDisplay(path), output.outputName);
}

/// Final paths whose hash parts are written into a file.
StorePathSet MachoPageHashFixup::rewrittenPaths(const OutputRewrite &output,
                                                const NodePatches &change) const {
    std::set<std::string_view> parts;
    for (const Patch &patch : change.contents) {
        parts.insert(patch.bytes);
    }
    StorePathSet paths;
    for (const auto &[scratch, final] : output.finalByScratch) {
        if (scratch != final && (change.everywhere || parts.contains(final.hashPart()))) {
            paths.insert(final);
        }
    }
    return paths;
}

/// Outputs are made elsewhere, and rewritten, where their own path is taken.
std::string MachoPageHashFixup::remedy() const {
    if (!request_.derivation->hasKnownOutputPaths()) {
        return "An output whose path is computed from its content cannot do without rewriting";
    }
    if (request_.mode == BuildMode::check) {
        return "With 'sandbox = true' (on Linux) nothing has to be rewritten for a check";
    }
    std::string taken;
    for (const auto &[name, output] : request_.outputs) {
        if (output.finalPath && *output.finalPath != output.scratchPath) {
            taken += (taken.empty() ? "" : " ") + store_.dir().print(*output.finalPath);
        }
    }
    return fmt::format("Nothing has to be rewritten if what was there before the build is deleted first: "
                       "run 'nix-store --delete {}' and build again",
                       taken);
}

void MachoPageHashFixup::fail(const OutputRewrite &output, const NodePatches &change, const std::string &why,
                              const std::string &choice) {
    auto print = [&](const StorePath &path) { return store_.dir().print(path); };
    StorePathSet paths = rewrittenPaths(output, change);
    std::vector<StorePath> list(paths.begin(), paths.end());
    throw BuildFailure(
        BuildResult::Status::outputRejected,
        fmt::format("the code signature of the Mach-O file {} of '{}' cannot stay valid: {}. The "
                    "file is touched by rewriting {}. {}{}",
                    describe(output, change.node), print(request_.drvPath), why, listSome(list, ", ", print),
                    remedy(), choice));
}

// ---- repair

/// For a handler of what a question came to.
void MachoPageHashFixup::rethrowWithReason(const OutputRewrite &output, const NodePatches &change) const {
    std::string problem;
    try {
        throw;
    } catch (const DeadlinePassed &) {
        throw;
    } catch (const Error &error) {
        if (error.kind() == ErrorKind::interrupted) {
            throw;
        }
        problem = error.message();
    }
    throw BuildFailure(
        BuildResult::Status::miscFailure,
        fmt::format(
            "the Mach-O file {} of '{}' is touched by rewriting store paths, and its code signature could "
            "not be "
            "looked at: {}. See to it that Firn's own programs are installed and may run ('firn doctor' "
            "looks for them). {}",
            describe(output, change.node), store_.dir().print(request_.drvPath), problem, remedy()));
}

jail::Answer MachoPageHashFixup::ask(const OutputRewrite &output, const NodePatches &change,
                                     const jail::Request &request, int file) {
    try {
        return jail_.ask(request, file);
    } catch (const Error &) {
        rethrowWithReason(output, change);
    }
}

/// Questions about several files, asked together; `take` gets the answers, in their order.
class MachoPageHashFixup::Batch {
  public:
    using Take = std::function<void(const NodePatches &change, const jail::Answer &answer)>;

    Batch(MachoPageHashFixup &fixup, const OutputRewrite &output, Take take)
        : fixup_(fixup), output_(output), take_(std::move(take)) {}

    void add(const NodePatches &change, jail::Request request, UniqueFd file) {
        changes_.push_back(&change);
        questions_.push_back({std::move(request), std::move(file)});
        if (questions_.size() == atOnce) {
            ask();
        }
    }

    void ask() {
        std::vector<jail::Answer> answers;
        try {
            fixup_.jail_.askAll(questions_, answers);
        } catch (const Error &) {
            take(answers);
            fixup_.rethrowWithReason(output_, *changes_[answers.size()]);
        }
        take(answers);
        changes_.clear();
        questions_.clear();
    }

  private:
    void take(const std::vector<jail::Answer> &answers) const {
        for (size_t i = 0; i < answers.size(); ++i) {
            take_(*changes_[i], answers[i]);
        }
    }

    MachoPageHashFixup &fixup_;
    const OutputRewrite &output_;
    Take take_;
    std::vector<const NodePatches *> changes_;
    std::vector<MachoJail::Question> questions_;
};

void MachoPageHashFixup::warn(const OutputRewrite &output, uint32_t node, const MachoFinding &finding,
                              MachoSignatures policy) {
    const char *what = "";
    switch (finding.kind) {
    case Kind::repaired:
    case Kind::unrepairable:
        what = "is registered with a wrong code signature, as 'macho-signatures = warn' wants it";
        break;
    case Kind::repairedStale:
        what =
            policy == MachoSignatures::repair
                ? "had wrong page hashes before it was rewritten; those over rewritten bytes are made right"
                : "had wrong page hashes before it was rewritten; they stay wrong";
        break;
    case Kind::staleBefore:
        what = "had a wrong code signature before it was rewritten, and it cannot be made right";
        break;
    case Kind::malformed:
        what = "has a part that is malformed; nothing of that is repaired";
        break;
    }
    logger_.warn(
        fmt::format("the Mach-O file {} {} ({})", describe(output, node), what, describeFinding(finding)));
}

/// Whether the build may go on, and what has to be said.
void MachoPageHashFixup::judge(const OutputRewrite &output, const NodePatches &change,
                               const std::vector<MachoFinding> &findings, MachoSignatures policy) {
    for (const MachoFinding &finding : findings) {
        bool needsRepair = finding.kind == Kind::repaired || finding.kind == Kind::repairedStale ||
                           finding.kind == Kind::unrepairable;
        if (needsRepair && policy == MachoSignatures::refuse) {
            fail(output, change,
                 "'macho-signatures = refuse' forbids what it would need (" + describeFinding(finding) + ")");
        }
        if (finding.kind == Kind::unrepairable && policy == MachoSignatures::repair) {
            fail(output, change, describeFinding(finding),
                 "; or set 'macho-signatures = warn' to have it registered with a wrong signature");
        }
        if (finding.kind != Kind::repaired || policy == MachoSignatures::warn) {
            warn(output, change.node, finding, policy);
        }
    }
}

/// Places of all slots of a file that are wrong.
std::set<uint64_t> MachoPageHashFixup::staleSlots(const OutputRewrite &output, const NodePatches &change,
                                                  int file) {
    jail::Request request;
    request.kind = jail::Kind::verify;
    request.fileSize = sizeOf(file);
    request.ranges = {{0, request.fileSize}};
    std::set<uint64_t> places;
    for (const jail::StaleSlot &slot : ask(output, change, request, file).stale) {
        places.insert(slot.range.offset);
    }
    return places;
}

jail::Request MachoPageHashFixup::fixupRequest(const OutputRewrite &output, const NodePatches &change,
                                               int file) const {
    jail::Request request;
    request.kind = jail::Kind::fixup;
    request.fileSize = sizeOf(file);
    request.patches = change.contents;
    if (change.everywhere) {
        request.rules = rulesOf(output.rewrites);
    }
    return request;
}

/// What has an address of our own is made whole, also where 'warn' would make none anew.
MachoSignatures MachoPageHashFixup::policyFor(const OutputRewrite &output) const {
    return policy_ == MachoSignatures::warn && output.finalForms ? MachoSignatures::repair : policy_;
}

/// After judge().
std::vector<Patch> MachoPageHashFixup::takeFixup(const OutputRewrite &output, const NodePatches &change,
                                                 FixupAnswer answer) {
    if (policyFor(output) == MachoSignatures::warn) {
        return {};
    }
    remember(output, change, answer.fixup, std::move(answer.staleBefore));
    return asPatches(std::move(answer.fixup.patches));
}

/// For the log, and for the second look.
void MachoPageHashFixup::remember(const OutputRewrite &output, const NodePatches &change,
                                  const PageHashFixup &fixup, std::set<uint64_t> staleBefore) {
    Expectation expected;
    Repaired repaired{output.tree.pathOf(change.node), {}};
    expected.everywhere = change.everywhere;
    expected.staleBefore = std::move(staleBefore);
    for (const Patch &patch : change.contents) {
        expected.touched.push_back({patch.offset, patch.bytes.size()});
    }
    for (const BytePatch &patch : fixup.patches) {
        expected.repaired.push_back({patch.offset, patch.bytes.size()});
    }
    for (const MachoFinding &finding : fixup.findings) {
        if (finding.kind == Kind::repairedStale) {
            madeRight_.emplace(output.outputName, change.node);
        }
        if (finding.kind == Kind::repaired || finding.kind == Kind::repairedStale) {
            repaired.slots[finding.architecture] += finding.count;
        } else {
            expected.leftWrong.insert(finding.slice);
        }
    }
    expectations_[output.outputName].insert_or_assign(change.node, std::move(expected));
    if (!fixup.patches.empty()) {
        repaired_.push_back(std::move(repaired));
        repairedFor_.merge(rewrittenPaths(output, change));
    }
}

bool MachoPageHashFixup::madeRight(const std::string &outputName, uint32_t node) const {
    return madeRight_.contains({outputName, node});
}

std::vector<FilePatches> MachoPageHashFixup::repair(const OutputRewrite &output) {
    std::vector<FilePatches> repairs;
    repaired_.clear();
    repairedFor_.clear();
    auto add = [&](const NodePatches &change, std::vector<Patch> patches) {
        if (!patches.empty()) {
            repairs.push_back({output.tree.pathOf(change.node), std::move(patches), false});
        }
    };
    auto addAnswer = [&](const NodePatches &change, FixupAnswer answer) {
        judge(output, change, answer.fixup.findings, policyFor(output));
        add(change, takeFixup(output, change, std::move(answer)));
    };
    Batch batch(*this, output, [&](const NodePatches &change, const jail::Answer &answer) {
        addAnswer(change, {answer.fixup, {}});
    });
    Changes wanted = touchedContents(output);
    for (EarlyAnswer &early : std::exchange(early_[output.outputName], {})) {
        const NodePatches &change = *wanted.at(early.node);
        add(change, takeFixup(output, change, std::move(early.answer)));
        wanted.erase(early.node);
    }
    // What is as it will be already, without a question, is none of ours.
    std::erase_if(wanted, [](const auto &entry) { return entry.second->isOnDisk; });
    visit(output, wanted, [&](const NodePatches &change, UniqueFd file) {
        if (!canBeMacho(readHead(file.get()))) {
            return;
        }
        const std::vector<Patch> *settled = settledOf(output, change.node);
        if (!settled && !change.everywhere) {
            jail::Request request = fixupRequest(output, change, file.get());
            batch.add(change, std::move(request), std::move(file));
            return;
        }
        batch.ask(); // so that what is said is said in the files' order
        if (settled) {
            add(change, finalForm(output, change, *settled, file.get()));
        } else {
            addAnswer(change, askForFixup(output, change, file.get()));
        }
    });
    batch.ask();
    logRepairs(output);
    logForms(output);
    warnOfSeals(output);
    return repairs;
}

/// Where a file's rewrites are so many that they are not listed, it has to be known which slots were wrong.
MachoPageHashFixup::FixupAnswer MachoPageHashFixup::askForFixup(const OutputRewrite &output,
                                                                const NodePatches &change, int file) {
    FixupAnswer answer;
    if (change.everywhere) {
        answer.staleBefore = staleSlots(output, change, file);
    }
    answer.fixup = std::move(ask(output, change, fixupRequest(output, change, file), file).fixup);
    return answer;
}

/// At a level that every client shows unless it is told to be quiet.
void MachoPageHashFixup::logRepairs(const OutputRewrite &output) {
    if (repaired_.empty()) {
        return;
    }
    uint64_t total = 0;
    for (const Repaired &file : repaired_) {
        for (const auto &[architecture, count] : file.slots) {
            total += count;
        }
    }
    auto describeFile = [](const Repaired &file) {
        std::string slots;
        for (const auto &[architecture, count] : file.slots) {
            slots += fmt::format("{}{} {}", slots.empty() ? "" : ", ",
                                 escapeForDisplay(architecture, jail::maxArchitecture), count);
        }
        return (file.path.empty() ? "" : escapeForDisplay(file.path) + ": ") + slots;
    };
    std::vector<StorePath> paths(repairedFor_.begin(), repairedFor_.end());
    logger_.log(
        Verbosity::notice,
        fmt::format("repaired the page hashes of {} in {} of output '{}' ({}), touched by rewriting {}",
                    plural(total, "slot"), plural(repaired_.size(), "Mach-O file"), output.outputName,
                    listSome(repaired_, "; ", describeFile),
                    listSome(paths, ", ", [&](const StorePath &p) { return store_.dir().print(p); })));
}

void MachoPageHashFixup::warnOfSeals(const OutputRewrite &output) {
    std::vector<uint32_t> changed;
    for (const NodePatches &change : output.changes) {
        changed.push_back(change.node);
    }
    for (const BrokenSeal &seal : brokenSeals(output.tree, changed)) {
        logger_.warn(
            fmt::format("the seal of the bundle {} is broken: rewriting store paths has changed {}, and "
                        "only the bundle's signer can seal it anew",
                        describe(output, seal.bundle), quoteForDisplay(output.tree.pathOf(seal.changed))));
    }
}

// ---- forms

const std::vector<Patch> *MachoPageHashFixup::settledOf(const OutputRewrite &output, uint32_t node) const {
    auto files = formed_.find(output.outputName);
    if (!output.finalForms || files == formed_.end()) {
        return nullptr;
    }
    auto found = files->second.find(node);
    return found == files->second.end() ? nullptr : &found->second.settled;
}

std::string_view MachoPageHashFixup::finalPart(const OutputRewrite &output) const {
    return output.finalByScratch.at(request_.outputs.at(output.outputName).scratchPath).hashPart();
}

/// The slots over paths of other outputs, as they have to be before a form is made.
std::vector<Patch> MachoPageHashFixup::settle(const OutputRewrite &output, const NodePatches &change,
                                              std::string_view selfPart, int file) {
    bool isOwn = std::all_of(change.contents.begin(), change.contents.end(),
                             [&](const Patch &patch) { return patch.bytes == selfPart; });
    if (isOwn && !change.everywhere) {
        return {};
    }
    return asPatches(std::move(ask(output, change, fixupRequest(output, change, file), file).fixup.patches));
}

/// Of the file with all of `change`, and then `further`.
jail::Form MachoPageHashFixup::askForForm(jail::Kind kind, const OutputRewrite &output,
                                          const NodePatches &change, std::vector<Patch> further,
                                          std::string_view selfPart, int file) {
    jail::Request request = fixupRequest(output, change, file);
    request.kind = kind;
    request.selfPart = selfPart;
    if (!change.everywhere) {
        for (const Patch &patch : change.contents) {
            if (patch.bytes == selfPart) {
                request.selfReferences.push_back(patch.offset);
            }
        }
    }
    mergePatches(request.patches, std::move(further), request.fileSize, output.tree.pathOf(change.node));
    return std::move(ask(output, change, request, file).form);
}

void MachoPageHashFixup::formOne(const OutputRewrite &output, const NodePatches &change,
                                 std::string_view selfPart, int file, AddressForms &forms) {
    std::string path = output.tree.pathOf(change.node);
    std::vector<Patch> settled = settle(output, change, selfPart, file);
    jail::Form form = askForForm(jail::Kind::normalForm, output, change, settled, selfPart, file);
    if (!settled.empty()) {
        forms.settled.push_back({path, settled, false});
    }
    if (!form.patches.empty()) {
        constexpr size_t uuidSize = 16; // no digest is as short
        bool hasUuid = std::any_of(form.patches.begin(), form.patches.end(),
                                   [](const BytePatch &patch) { return patch.bytes.size() == uuidSize; });
        formed_[output.outputName].insert_or_assign(change.node, FormedFile{std::move(settled), hasUuid});
        forms.normal.push_back({path, asPatches(std::move(form.patches)), false});
    } else if (!form.inside && form.selfReferences > 0) {
        logger_.log(Verbosity::notice,
                    fmt::format("{} holds its output's path, and is hashed for it as Nix does it: as a "
                                "Mach-O file it has no normal form, because {}",
                                describe(output, change.node),
                                escapeForDisplay(form.reason, jail::maxReason)));
    }
}

AddressForms MachoPageHashFixup::formsForAddress(const OutputRewrite &output, const StorePath &scratchPath) {
    AddressForms forms;
    // An address that is there already was made when the setting was another.
    if (policy_ == MachoSignatures::warn && !output.finalForms) {
        return forms;
    }
    forms.onlyNormal = policy_ == MachoSignatures::warn;
    formed_[output.outputName].clear();
    visit(output, touchedContents(output), [&](const NodePatches &change, UniqueFd file) {
        if (canBeMacho(readHead(file.get()))) {
            formOne(output, change, scratchPath.hashPart(), file.get(), forms);
        }
    });
    return forms;
}

/// All that makes a file with a normal form final but its paths.
std::vector<Patch> MachoPageHashFixup::finalForm(const OutputRewrite &output, const NodePatches &change,
                                                 const std::vector<Patch> &settled, int file) {
    // Whether that may be, and what there is to be said.
    jail::Answer answer = ask(output, change, fixupRequest(output, change, file), file);
    judge(output, change, answer.fixup.findings, policyFor(output));
    remember(output, change, answer.fixup, {});
    jail::Form form = askForForm(jail::Kind::finalForm, output, change, settled, finalPart(output), file);
    if (form.patches.empty()) {
        fail(output, change, "its final form is not that of its normal form");
    }
    std::vector<Patch> patches = settled;
    mergePatches(patches, asPatches(std::move(form.patches)), sizeOf(file), output.tree.pathOf(change.node));
    return patches;
}

void MachoPageHashFixup::warnOfSymbols(const OutputRewrite &output, const Formed &formed) {
    std::set<std::string> names;
    for (const auto &[node, file] : formed) {
        if (file.hasUuid) {
            names.insert(output.tree.nodes[node].name);
        }
    }
    for (uint32_t symbols : debugSymbolsOf(output.tree, names)) {
        logger_.warn(
            fmt::format("the debug symbols {} no longer belong to their program: the LC_UUID by which "
                        "they are found is made from the contents where a file names its own output",
                        describe(output, symbols)));
    }
}

/// At a level that every client shows: what came out cannot be given to everybody.
void MachoPageHashFixup::logForms(const OutputRewrite &output) {
    auto found = formed_.find(output.outputName);
    if (!output.finalForms || found == formed_.end()) {
        return;
    }
    std::vector<uint32_t> files;
    for (const auto &[node, file] : found->second) {
        files.push_back(node);
    }
    warnOfSymbols(output, found->second);
    logger_.log(Verbosity::notice,
                fmt::format("the path of output '{}' is made from normal forms of {} that hold it ({}), by a "
                            "rule of Firn's own: other stores take it only with a signature",
                            output.outputName, plural(files.size(), "Mach-O file"),
                            listSome(files, ", ", [&](uint32_t node) {
                                return node == 0 ? "itself" : quoteForDisplay(output.tree.pathOf(node));
                            })));
}

// ---- verify

/// The final form of what is on disk is what is on disk.
void MachoPageHashFixup::verifyFinalForm(const OutputRewrite &output, const NodePatches &change, int file) {
    NodePatches asItIs{change.node, {}, {}, {}, false};
    jail::Form form = askForForm(jail::Kind::finalForm, output, asItIs, {}, finalPart(output), file);
    if (form.patches.empty() || !holds(file, form.patches)) {
        fail(output, change, "after it was written, it is not in its final form");
    }
}

jail::Request MachoPageHashFixup::verifyRequest(const OutputRewrite &output, const NodePatches &change,
                                                int file) const {
    const Expectation &expected = expectations_.at(output.outputName).at(change.node);
    jail::Request request;
    request.kind = jail::Kind::verify;
    request.fileSize = sizeOf(file);
    request.ranges = expected.everywhere ? std::vector<ByteRange>{{0, request.fileSize}} : expected.touched;
    return request;
}

void MachoPageHashFixup::requireRight(const OutputRewrite &output, const NodePatches &change,
                                      const std::vector<jail::StaleSlot> &stale) {
    const Expectation &expected = expectations_.at(output.outputName).at(change.node);
    for (const jail::StaleSlot &slot : stale) {
        bool claimed = overlapsAny(slot.range, expected.repaired);
        bool known =
            expected.leftWrong.contains(slot.slice) || expected.staleBefore.contains(slot.range.offset);
        if (claimed || !known) {
            fail(output, change,
                 fmt::format("after the repair, the slot at byte {} is still wrong", slot.range.offset));
        }
    }
}

void MachoPageHashFixup::verify(const OutputRewrite &output) {
    const Expectations &expectations = expectations_[output.outputName];
    std::map<uint32_t, const NodePatches *> wanted;
    for (const NodePatches &change : output.changes) {
        if (expectations.contains(change.node)) {
            wanted.emplace(change.node, &change);
        }
    }
    Batch batch(*this, output, [&](const NodePatches &change, const jail::Answer &answer) {
        requireRight(output, change, answer.stale);
    });
    visit(output, wanted, [&](const NodePatches &change, UniqueFd file) {
        if (settledOf(output, change.node)) {
            verifyFinalForm(output, change, file.get());
        } else {
            jail::Request request = verifyRequest(output, change, file.get());
            batch.add(change, std::move(request), std::move(file));
        }
    });
    batch.ask();
}

} // namespace firn
