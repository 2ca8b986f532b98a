#include "macho-jail/rewritten-bytes.hh"

#include <algorithm>
#include <fstream>
#include <random>

#include <gtest/gtest.h>

#include "libutil/files.hh"
#include "unit/expect-error.hh"
#include "unit/macho-builder.hh"
#include "unit/temporary-directory.hh"

namespace firn::jail {
namespace {

using test::MemoryBytes;

/// Leftmost first, none inside another.
std::string rewriteAll(const std::string &text, const std::vector<RewriteRule> &rules) {
    std::string result = text;
    for (size_t at = 0; at + 32 <= text.size();) {
        size_t step = 1;
        for (const RewriteRule &rule : rules) {
            if (text.compare(at, 32, rule.from) == 0) {
                result.replace(at, 32, rule.to);
                step = 32;
                break;
            }
        }
        at += step;
    }
    return result;
}

std::string readAll(const MachoBytes &bytes, size_t piece) {
    std::string all(bytes.size(), '\0');
    for (size_t at = 0; at < all.size(); at += piece) {
        bytes.read(at, all.data() + at, std::min(piece, all.size() - at));
    }
    return all;
}

void expectRewritten(const std::string &text, const std::vector<RewriteRule> &rules) {
    MemoryBytes base(text);
    RewrittenBytes rewritten(base, rules);
    std::string expected = rewriteAll(text, rules);
    for (size_t piece : {size_t{1} << 20, size_t{65536}, size_t{4096}, size_t{1000}}) {
        EXPECT_TRUE(readAll(rewritten, piece) == expected) << "in pieces of " << piece;
    }
    // Not in order, and across the borders of blocks.
    for (size_t border = RewrittenBytes::blockSize; border < text.size();
         border += RewrittenBytes::blockSize) {
        size_t from = text.size() - border - std::min<size_t>(40, text.size() - border);
        size_t size = std::min<size_t>(80, text.size() - from);
        std::string got(size, '\0');
        rewritten.read(from, got.data(), size);
        EXPECT_EQ(got, expected.substr(from, size)) << from;
    }
}

const std::string a(32, 'a'), b(32, 'b'), c(32, 'c');

TEST(RewrittenBytes, ReplacesEveryOccurrenceWhereverItLies) {
    std::string text(300000, '.');
    for (size_t place : {size_t{0}, size_t{65536 - 31}, size_t{2 * 65536 - 16}, size_t{3 * 65536 - 1},
                         size_t{4 * 65536}, text.size() - 32}) {
        text.replace(place, 32, place % 2 == 0 ? a : c);
    }
    expectRewritten(text, {{a, b}, {c, std::string(32, 'd')}});
}

TEST(RewrittenBytes, OfOccurrencesThatOverlapTheFirstCounts) {
    // A run of one digit, in which each place is an occurrence, over several blocks.
    for (size_t begin : {0, 1, 17, 31, 32}) {
        std::string text(begin, '.');
        text += std::string(200000, 'a');
        expectRewritten(text, {{a, b}});
        // A replacement is never looked at again.
        expectRewritten(text, {{a, b}, {b, c}});
    }
}

TEST(RewrittenBytes, DifferentPartsMayOverlapAcrossABorder) {
    std::string first = "0123456789abcdfghijklmnpqrsvwxyz", second = first.substr(20) + std::string(20, 'z');
    for (size_t shift = 0; shift < 70; ++shift) {
        std::string text(RewrittenBytes::blockSize - shift, '.');
        text += first + std::string(20, 'z') + second + std::string(100, '.');
        expectRewritten(text, {{first, a}, {second, b}});
        expectRewritten(text, {{second, b}, {first, a}});
    }
}

TEST(RewrittenBytes, FilesOfAnySizeAreRead) {
    for (size_t size : {0, 1, 31, 32, 33, 65535, 65536, 65537, 65536 + 31, 2 * 65536}) {
        expectRewritten(std::string(size, 'a'), {{a, b}});
    }
}

TEST(FileBytes, ReadsAnyPieceInAnyOrder) {
    TemporaryDirectory tmp;
    std::string text(40 * FileBytes::blockSize + 123, '\0');
    std::minstd_rand random(1);
    std::generate(text.begin(), text.end(), [&] { return static_cast<char>(random()); });
    std::ofstream(tmp / "file", std::ios::binary) << text;
    UniqueFd file = openFileAt(tmp.fd(), "file");
    FileBytes bytes(file.get(), text.size());
    for (int i = 0; i < 20000; ++i) {
        size_t size = random() % (i % 2 == 0 ? 100 : 2 * FileBytes::blockSize);
        size_t offset = i % 3 == 0 ? text.size() - size : random() % (text.size() - size);
        std::string got(size, '\0');
        bytes.read(offset, got.data(), size);
        ASSERT_TRUE(got == text.substr(offset, size)) << offset << " " << size;
    }
}

TEST(FileBytes, AFileThatIsShorterThanSaidIsAnErrorEachTime) {
    TemporaryDirectory tmp;
    std::ofstream(tmp / "file") << std::string(5000, '.');
    UniqueFd file = openFileAt(tmp.fd(), "file");
    FileBytes bytes(file.get(), 6000);
    char byte;
    for (uint64_t offset : {5500, 5500, 6000, 4096}) {
        expectError(ErrorKind::failure, [&] { bytes.read(offset, &byte, 1); });
    }
    bytes.read(4095, &byte, 1);
    EXPECT_EQ(byte, '.');
}

TEST(PatchedBytes, LaysPatchesOverWhatIsRead) {
    MemoryBytes base(std::string(100, '.'));
    std::vector<Patch> patches = {{Patch::Place::contents, 10, "12345"},
                                  {Patch::Place::contents, 15, "6"},
                                  {Patch::Place::contents, 90, "0123456789"}};
    PatchedBytes patched(base, patches);
    std::string expected(100, '.');
    expected.replace(10, 6, "123456").replace(90, 10, "0123456789");
    for (size_t from = 0; from < 100; ++from) {
        for (size_t size = 0; size <= 100 - from; ++size) {
            std::string got(size, '?');
            patched.read(from, got.data(), size);
            ASSERT_EQ(got, expected.substr(from, size)) << from;
        }
    }
}

} // namespace
} // namespace firn::jail
