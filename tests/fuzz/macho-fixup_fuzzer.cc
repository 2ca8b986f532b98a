// A file, and changes to it: the last byte says how many changes there are, and each is eight bytes before
// that: place (3), kind (1), bytes (4). What comes back may change only slots, makes them right, and nothing
// more is to be done afterwards.

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "libstore/darwin/macho-comparison.hh"
#include "libstore/darwin/macho-page-hashes.hh"
#include "tests/unit/macho-builder.hh"

namespace {

using namespace firn;
using test::MemoryBytes;

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

struct Input {
    std::string before;
    std::string after;
    std::vector<ByteRange> touched;
};

constexpr size_t changeSize = 8;

/// Kind 0 touches bytes without a change, others change up to four and touch a few more.
void addChange(Input &input, std::string_view change) {
    size_t place = uint8_t(change[0]) << 16 | uint8_t(change[1]) << 8 | uint8_t(change[2]);
    if (input.before.empty()) {
        return;
    }
    place %= input.before.size();
    size_t kind = uint8_t(change[3]);
    size_t size = std::min<size_t>(kind % 5, input.before.size() - place);
    input.after.replace(place, size, change.substr(4, size));
    size_t begin = place - std::min<size_t>(place, kind % 7);
    input.touched.push_back(
        {begin, size + (place - begin) + std::min<size_t>(kind % 3, input.before.size() - place - size)});
}

Input split(std::string_view data) {
    Input input;
    if (data.empty()) {
        return input;
    }
    size_t count = std::min<size_t>(uint8_t(data.back()) % 17, (data.size() - 1) / changeSize);
    size_t end = data.size() - 1 - count * changeSize;
    input.before = input.after = data.substr(0, end);
    for (size_t i = 0; i < count; ++i) {
        addChange(input, data.substr(end + i * changeSize, changeSize));
    }
    return input;
}

/// The ranges of the contract: ascending and not overlapping.
std::vector<ByteRange> joined(std::vector<ByteRange> ranges) {
    std::sort(ranges.begin(), ranges.end(), [](auto &a, auto &b) { return a.offset < b.offset; });
    std::vector<ByteRange> result;
    for (const ByteRange &range : ranges) {
        if (!result.empty() && range.offset <= result.back().end()) {
            result.back().size = std::max(result.back().end(), range.end()) - result.back().offset;
        } else if (range.size > 0) {
            result.push_back(range);
        }
    }
    return result;
}

void checkFindings(const PageHashFixup &fixup) {
    uint64_t slots = 0;
    for (const MachoFinding &finding : fixup.findings) {
        bool repair =
            finding.kind == MachoFinding::Kind::repaired || finding.kind == MachoFinding::Kind::repairedStale;
        slots += repair ? finding.count : 0;
        require(!repair || finding.count > 0);
        require(!finding.reason.empty() && finding.reason.size() < 200);
    }
    require(slots == fixup.patches.size());
}

/// Whether a byte belongs to a slot of a CodeDirectory that the report calls judged and not malformed.
void checkPatch(const BytePatch &patch, const MachoReport &report) {
    bool found = false;
    for (const SliceReport &slice : report.slices) {
        for (const CodeDirectoryReport &directory : slice.directories) {
            found = found || (directory.problem.empty() && slice.kind != SignatureKind::cms &&
                              patch.offset >= directory.range.offset + 44 &&
                              patch.offset + patch.bytes.size() <= directory.range.end());
        }
    }
    require(found);
}

/// No slot that was patched is stale, nor one over what was changed in a signature without findings that say
/// so.
void checkRepaired(const std::string &fixed, const PageHashFixup &fixup,
                   const std::vector<ByteRange> &touched) {
    if (fixup.patches.empty()) {
        return;
    }
    PageHashFixup rest = repairAllPageHashes(MemoryBytes(fixed));
    for (const BytePatch &again : rest.patches) {
        for (const BytePatch &patch : fixup.patches) {
            require(again.offset + again.bytes.size() <= patch.offset ||
                    patch.offset + patch.bytes.size() <= again.offset);
        }
    }
    verifyPageHashes(MemoryBytes(fixed), touched);
}

/// What sets the two apart is the same from both sides, and something only where they differ.
void checkComparison(const std::string &before, const std::string &after) {
    MemoryBytes first(before), second(after);
    MachoComparison comparison = compareMacho(first, second), reverse = compareMacho(second, first);
    require(comparison.isMacho == reverse.isMacho && comparison.difference == reverse.difference);
    require(comparison.firstStale == reverse.secondStale && comparison.secondStale == reverse.firstStale);
    require(comparison.difference != MachoDifference::none || !comparison.isMacho || before == after);
    bool explained = comparison.difference == MachoDifference::uuid ||
                     comparison.difference == MachoDifference::signature ||
                     comparison.difference == MachoDifference::uuidAndSignature;
    require(!explained || before != after);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input input = split({reinterpret_cast<const char *>(data), size});
    std::vector<ByteRange> touched = joined(input.touched);
    MemoryBytes before(input.before), after(input.after);
    PageHashFixup fixup = fixupPageHashes(before, after, touched);
    checkFindings(fixup);
    MachoReport report = verifyPageHashes(after, touched);
    uint64_t end = 0;
    for (const BytePatch &patch : fixup.patches) {
        require(patch.offset >= end && !patch.bytes.empty());
        end = patch.offset + patch.bytes.size();
        require(end <= input.after.size());
        checkPatch(patch, report);
    }
    std::string fixed = test::applied(input.after, fixup.patches);
    checkRepaired(fixed, fixup, touched);
    require(fixupPageHashes(before, MemoryBytes(fixed), touched).patches.empty());
    checkComparison(input.before, fixed);
    // The whole file as touched says the same.
    require(fixupPageHashes(before, after, {{0, input.after.size()}}).patches == fixup.patches);
    return 0;
}
