#include "libstore/build/output-check.hh"

#include <algorithm>
#include <map>
#include <set>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-placement.hh"
#include "libstore/build/untouched-output.hh"
#include "libstore/darwin/macho-page-hashes.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/nar.hh"

namespace firn {

namespace {

using Verdict = OutputReport::Verdict;
using Status = BuildResult::Status;

constexpr unsigned mostJailFailures = 3; ///< then it is not asked again

/// Files into which the daemon has written store paths, by the names that they have now.
std::map<std::string, uint32_t> rewrittenFiles(const CheckedOutput &output) {
    std::map<std::string, uint32_t> nodes;
    for (const NodePatches &change : output.changes) {
        if (change.changesContents()) {
            nodes.emplace(output.tree.pathOf(change.node), change.node);
        }
    }
    return nodes;
}

/// By node of the new tree.
bool isMachoCandidate(const CheckedOutput &output, uint32_t node) {
    const FileHead &head = output.heads[node];
    return canBeMacho({head.data(), head.size()});
}

} // namespace

StorePath keptCheckPath(const StorePath &path) {
    return StorePath(path.baseName() + ".check");
}

/// It only tells more about files: where the jail has no answer the check goes on without.
std::optional<jail::Answer> OutputCheck::askJail(const jail::Request &request, int file, int second) {
    if (jailFailures_ >= mostJailFailures) {
        return std::nullopt;
    }
    try {
        return jail_.ask(request, file, second);
    } catch (const DeadlinePassed &) {
        throw;
    } catch (const Error &error) {
        if (error.kind() == ErrorKind::interrupted) {
            throw;
        }
        ++jailFailures_;
        logger_.warn("a Mach-O file could not be looked at: " + error.message());
        return std::nullopt;
    }
}

MachoComparison OutputCheck::compareMacho(int oldFile, uint64_t oldSize, int newFile, uint64_t newSize) {
    jail::Request request;
    request.kind = jail::Kind::compare;
    request.fileSize = oldSize;
    request.secondSize = newSize;
    std::optional<jail::Answer> answer = askJail(request, oldFile, newFile);
    return answer ? answer->comparison : MachoComparison();
}

bool OutputCheck::isStale(int file, uint64_t size) {
    jail::Request request;
    request.kind = jail::Kind::verify;
    request.fileSize = size;
    request.ranges = {{0, size}};
    std::optional<jail::Answer> answer = askJail(request, file);
    return answer && !answer->stale.empty();
}

/// Where the hashes are the same nothing can be explained: a difference is damage.
CompareOptions OutputCheck::compareOptions(const CheckedOutput &output,
                                           const std::map<std::string, uint32_t> &rewritten) {
    CompareOptions options;
    options.compareMacho = [this](int oldFile, uint64_t oldSize, int newFile, uint64_t newSize) {
        return compareMacho(oldFile, oldSize, newFile, newSize);
    };
    options.isStale = [this](int file, uint64_t size) { return isStale(file, size); };
    if (output.valid.narHash != output.made.narHash) {
        options.explains = [&rewritten](const TreeDifference &difference) {
            return difference.macho.isMacho && difference.macho.difference == MachoDifference::uuid &&
                   rewritten.contains(difference.path);
        };
    }
    return options;
}

/// Of an output where something differs: whether what lies in the store is what was registered.
void OutputCheck::lookForDamage(OutputReport &report) {
    const std::string &entry = report.path.baseName();
    if (existsAt(store_.storeFd(), entry)) {
        report.diskHash = hashNar(store_.storeFd(), entry, report.oldHash.algorithm()).hash;
    }
    report.damaged = report.diskHash != report.oldHash;
}

/// Of an output that is the same, the files of which the signature is stale. What was built is what was
/// registered: that is looked at, whatever lies in the store.
void OutputCheck::lookForStale(const CheckedOutput &output, OutputReport &report) {
    std::vector<std::string> &stale = report.comparison.stale;
    bool any = false;
    for (uint32_t node = 0; node < output.heads.size() && !any; ++node) {
        any = isMachoCandidate(output, node);
    }
    if (!any) {
        return;
    }
    visitFiles(output.dir, output.tree, [&](int dir, uint32_t node) {
        throwIfInterrupted();
        const OutputNode &file = output.tree.nodes[node];
        if (stale.size() < CompareOptions().mostListed && isMachoCandidate(output, node) &&
            isStale(openFileAt(dir, file.name).get(), file.size)) {
            stale.push_back(output.tree.pathOf(node));
        }
    });
}

void OutputCheck::compareTreesOf(const CheckedOutput &output, OutputReport &report) {
    std::map<std::string, uint32_t> rewritten = rewrittenFiles(output);
    CompareOptions options = compareOptions(output, rewritten);
    report.comparison = compareTrees({store_.storeFd(), output.valid.path.baseName()},
                                     {output.dir, output.tree.root().name}, options);
    for (TreeDifference &difference : report.comparison.differences) {
        auto node = rewritten.find(difference.path);
        difference.madeRight = difference.macho.isMacho && options_.madeRight && node != rewritten.end() &&
                               options_.madeRight(output.outputName, node->second);
    }
}

/// For an output that is the same. What has failed beside a scan may have lacked what the scan has given
/// back.
bool OutputCheck::looksAsRegistered(const CheckedOutput &output) {
    if (output.untouched.valid()) {
        try {
            return output.untouched.get();
        } catch (const SysError &) {
        } catch (const std::bad_alloc &) {
        }
    }
    return looksUntouched(store_.storeFd(), output.valid.path.baseName(), output.tree);
}

/// What was built is compared with what lies there, whatever the database says of that. Where it is what was
/// registered, what lies there is looked at by its sizes and times first, and by contents if anything
/// differs: so a check that succeeds does not read from disk what was registered long ago.
OutputReport OutputCheck::compare(const CheckedOutput &output) {
    OutputReport report{.name = output.outputName,
                        .path = output.valid.path,
                        .oldHash = output.valid.narHash,
                        .newHash = output.made.narHash,
                        .oldSize = output.valid.narSize,
                        .newSize = output.made.narSize};
    bool sameHash = report.oldHash == report.newHash, equal = false;
    try {
        if (sameHash && looksAsRegistered(output)) {
            lookForStale(output, report);
        } else {
            compareTreesOf(output, report);
            bool found = report.comparison.total() > 0;
            equal = !found && report.comparison.explained > 0;
            if (!sameHash || found) {
                lookForDamage(report);
            }
        }
    } catch (const DeadlinePassed &) {
        throw;
    } catch (const Error &error) {
        if (error.kind() == ErrorKind::interrupted || error.kind() == ErrorKind::bug) {
            throw;
        }
        // What was built is ours and canonical: it is the other that cannot be read.
        report.comparison = {};
        report.damaged = true;
        report.unreadable = error.message();
    }
    report.verdict = sameHash ? Verdict::same : equal ? Verdict::equal : Verdict::differs;
    return report;
}

/// Of an earlier check: whoever finds it after this one would take it for this one's.
void OutputCheck::removeKept(const StorePath &path) {
    try {
        StorePath kept = keptCheckPath(path);
        if (!store_.isValidPath(kept)) {
            removeTree(store_.storeFd(), kept.baseName());
        }
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::badInput) { // with a name as long as that nothing was kept
            logger_.warn(fmt::format("what an earlier check of '{}' has kept stays: {}",
                                     store_.dir().print(path), error.message()));
        }
    }
}

/// The failure is what must be told, whatever goes wrong here.
void OutputCheck::keep(const CheckedOutput &output, OutputReport &report) {
    try {
        StorePath kept = keptCheckPath(report.path);
        store_.addTempRoot(kept);
        if (existsAt(store_.storeFd(), kept.baseName())) {
            throw Error(ErrorKind::refused, "'{}' is there already", store_.dir().print(kept));
        }
        moveOutput(output.dir, output.tree.root().name, store_.storeFd(), kept.baseName());
        report.kept = store_.dir().print(kept);
    } catch (const Error &error) {
        logger_.warn(fmt::format("cannot keep what differs from '{}': {}", store_.dir().print(report.path),
                                 error.message()));
    }
}

void OutputCheck::writeReport() {
    if (options_.reportFile.empty()) {
        return;
    }
    try {
        writeCheckReport(options_.reportFile,
                         checkReportJson(store_.dir(), drvPath_, report_, options_.keepForUser));
    } catch (const Error &error) {
        logger_.warn("the report of the check is not kept: " + error.message());
    }
}

/// Where outputs differ. Stock daemons look at the hash of a fixed output before they compare, and at nothing
/// else that may be refused.
void OutputCheck::fail(const BuildFailure *refusal) {
    bool differs = !report_.deterministic();
    Status status = differs ? Status::notDeterministic : Status::miscFailure;
    std::string message = describeCheck(store_.dir(), drvPath_, report_, options_.keepForUser);
    if (refusal) {
        status = differs && !options_.hashIsPromised ? status : refusal->status();
        message = refusal->message() + "\n" + message;
    }
    if (!options_.reportFile.empty()) {
        message += fmt::format("\nall of it is in '{}'", options_.reportFile.string());
    }
    throw BuildFailure(status, message);
}

void OutputCheck::judge(const std::vector<CheckedOutput> &outputs, const BuildFailure *refusal) {
    report_ = {};
    report_.refused = refusal ? refusal->message() : "";
    for (const CheckedOutput &output : outputs) {
        removeKept(output.valid.path);
        report_.outputs.push_back(compare(output));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
        OutputReport &report = report_.outputs[i];
        if (report.verdict == Verdict::differs && (options_.keepForUser || options_.keepForHook)) {
            keep(outputs[i], report);
        }
    }
    writeReport();
    if (!report_.deterministic() || report_.damaged()) {
        fail(refusal);
    }
    for (const OutputReport &report : report_.outputs) {
        if (std::string text = describeOutput(store_.dir(), report); !text.empty()) {
            logger_.log(Verbosity::notice, text);
        }
    }
    if (refusal) {
        throw *refusal;
    }
}

} // namespace firn
