#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/macho-builder.hh"

namespace firn::test {

/// A file that no loader would take, and a part of what is to be said about it.
struct Malformed {
    std::string name;
    std::string bytes;
    std::string problem;
};

inline std::string malformedName(const testing::TestParamInfo<Malformed> &info) {
    return info.param.name;
}

inline void PrintTo(const Malformed &malformed, std::ostream *out) {
    *out << malformed.name;
}

inline std::string problemsOf(const MachoReport &report) {
    std::string all = report.problem;
    for (const SliceReport &slice : report.slices) {
        all += "|" + slice.problem;
        for (const CodeDirectoryReport &directory : slice.directories) {
            all += "|" + directory.problem;
        }
    }
    return all;
}

/// Wherever it is changed, nothing of it is patched and nobody throws; and the problem is named.
inline void expectRefused(const Malformed &malformed) {
    const std::string &bytes = malformed.bytes;
    MachoReport report = verifyPageHashes(MemoryBytes(bytes));
    EXPECT_TRUE(report.anyProblem());
    EXPECT_NE(problemsOf(report).find(malformed.problem), std::string::npos) << problemsOf(report);
    EXPECT_FALSE(report.anyStale());
    EXPECT_TRUE(repairAllPageHashes(MemoryBytes(bytes)).patches.empty());
    bool found = false;
    for (size_t i = 0; i < 64; ++i) {
        std::string after = bytes;
        size_t at = i * (bytes.size() - 1) / 63;
        after[at] = char(~after[at]);
        auto here = fixupPageHashes(MemoryBytes(bytes), MemoryBytes(after), {{at, 1}});
        auto anywhere = fixupPageHashes(MemoryBytes(bytes), MemoryBytes(after), {{0, bytes.size()}});
        EXPECT_TRUE(here.patches.empty()) << at;
        EXPECT_TRUE(anywhere.patches.empty()) << at;
        for (const MachoFinding &finding : here.findings) {
            found = found || finding.reason.find(malformed.problem) != std::string::npos;
        }
    }
    EXPECT_TRUE(found) << "a change inside is to be reported";
}

} // namespace firn::test
