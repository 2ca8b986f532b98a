#include "libstore/build/output-check.hh"

#include <algorithm>
#include <set>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-placement.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

using Verdict = OutputReport::Verdict;

constexpr unsigned mostJailFailures = 3; ///< then it is not asked again

/// Files into which the daemon has written store paths.
std::set<std::string> rewrittenFiles(const CheckedOutput &output) {
    std::set<std::string> paths;
    for (const NodePatches &change : output.changes) {
        if (change.everywhere || !change.contents.empty()) {
            paths.insert(output.tree.pathOf(change.node));
        }
    }
    return paths;
}

} // namespace

StorePath keptCheckPath(const StorePath &path) {
    return StorePath(path.baseName() + ".check");
}

/// It only tells more about a difference: where the jail has no answer the check goes on without.
MachoComparison OutputCheck::compareMacho(int oldFile, uint64_t oldSize, int newFile, uint64_t newSize) {
    if (jailFailures_ >= mostJailFailures) {
        return {};
    }
    jail::Request request;
    request.kind = jail::Kind::compare;
    request.fileSize = oldSize;
    request.secondSize = newSize;
    try {
        return jail_.ask(request, oldFile, newFile).comparison;
    } catch (const DeadlinePassed &) {
        throw;
    } catch (const Error &error) {
        if (error.kind() == ErrorKind::interrupted) {
            throw;
        }
        ++jailFailures_;
        logger_.warn("how two versions of a Mach-O file differ could not be looked at: " + error.message());
        return {};
    }
}

OutputReport OutputCheck::compare(const CheckedOutput &output) {
    OutputReport report{output.outputName,
                        output.valid.path,
                        Verdict::same,
                        output.valid.narHash,
                        output.made.narHash,
                        output.valid.narSize,
                        output.made.narSize,
                        {},
                        {}};
    if (output.valid.narHash == output.made.narHash) {
        return report;
    }
    // Only now are the contents read once more.
    std::set<std::string> rewritten = rewrittenFiles(output);
    CompareOptions options;
    options.compareMacho = [&](int oldFile, uint64_t oldSize, int newFile, uint64_t newSize) {
        return compareMacho(oldFile, oldSize, newFile, newSize);
    };
    options.explains = [&](const TreeDifference &difference) {
        return difference.macho.isMacho && difference.macho.difference == MachoDifference::uuid &&
               rewritten.contains(difference.path);
    };
    report.comparison = compareTrees({store_.storeFd(), output.valid.path.baseName()},
                                     {output.dir, output.tree.root().name}, options);
    for (TreeDifference &difference : report.comparison.differences) {
        difference.madeRight = difference.macho.isMacho && options_.madeRight &&
                               options_.madeRight(output.outputName, difference.path);
    }
    bool equal = report.comparison.total() == 0 && report.comparison.explained > 0;
    report.verdict = equal ? Verdict::equal : Verdict::differs;
    return report;
}

/// The failure is what must be told, whatever goes wrong here.
void OutputCheck::keep(const CheckedOutput &output, OutputReport &report) {
    try {
        StorePath kept = keptCheckPath(report.path);
        store_.addTempRoot(kept);
        removeTree(store_.storeFd(), kept.baseName());
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

void OutputCheck::judge(const std::vector<CheckedOutput> &outputs) {
    report_ = {};
    for (const CheckedOutput &output : outputs) {
        report_.outputs.push_back(compare(output));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
        OutputReport &report = report_.outputs[i];
        if (report.verdict == Verdict::differs && (options_.keepForUser || options_.keepForHook)) {
            keep(outputs[i], report);
        }
    }
    writeReport();
    if (!report_.deterministic()) {
        std::string message = describeCheck(store_.dir(), drvPath_, report_, options_.keepForUser);
        if (!options_.reportFile.empty()) {
            message += fmt::format("\nall of it is in '{}'", options_.reportFile.string());
        }
        throw BuildFailure(BuildResult::Status::notDeterministic, message);
    }
    for (const OutputReport &report : report_.outputs) {
        if (report.verdict == Verdict::equal) {
            logger_.log(Verbosity::notice, describeOutput(store_.dir(), report));
        }
    }
}

} // namespace firn
