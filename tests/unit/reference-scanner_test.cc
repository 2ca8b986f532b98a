#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "libstore/build/reference-scanner.hh"
#include "unit/expect-error.hh"

namespace firn {
namespace {

const std::string digits = "0123456789abcdfghijklmnpqrsvwxyz";
const std::string first = "ay6k7h7cs7g9wrjrl5pwkiqz6p1d2n3v";
const std::string second = "0z1y2x3w4v5s6r7q8p9n0m1l2k3j4i5h";

/// Every place of every part, by comparing at each byte.
std::vector<PartHit> scanNaively(const std::vector<std::string> &parts, const std::string &bytes) {
    std::vector<PartHit> hits;
    for (size_t place = 0; place + HashPartSet::length <= bytes.size(); ++place) {
        for (uint32_t part = 0; part < parts.size(); ++part) {
            if (bytes.compare(place, HashPartSet::length, parts[part]) == 0) {
                hits.push_back({place, part});
            }
        }
    }
    return hits;
}

HashPartSet setOf(const std::vector<std::string> &parts) {
    HashPartSet set;
    for (const std::string &part : parts) {
        set.add(part);
    }
    return set;
}

/// In blocks of the sizes that `nextSize` gives.
template<typename NextSize>
std::vector<PartHit> scanInBlocks(const HashPartSet &parts, const std::string &bytes, NextSize nextSize) {
    std::vector<PartHit> hits;
    ReferenceScanner scanner(parts, [&](const PartHit &hit) { hits.push_back(hit); });
    scanner.begin();
    for (size_t place = 0; place < bytes.size();) {
        size_t size = std::min<size_t>(nextSize(), bytes.size() - place);
        scanner.write({bytes.data() + place, size});
        place += size;
    }
    return hits;
}

std::vector<PartHit> scanAtOnce(const HashPartSet &parts, const std::string &bytes) {
    return scanInBlocks(parts, bytes, [&] { return bytes.size(); });
}

TEST(ReferenceScanner, FindsAPartWhereverItBegins) {
    HashPartSet parts = setOf({first, second});
    for (size_t before = 0; before < 100; ++before) {
        std::string bytes = std::string(before, '/') + second + "-name";
        EXPECT_EQ(scanAtOnce(parts, bytes), (std::vector<PartHit>{{before, 1}})) << before;
    }
}

TEST(ReferenceScanner, FindsAPartAtTheVeryEnd) {
    EXPECT_EQ(scanAtOnce(setOf({first}), "x" + first), (std::vector<PartHit>{{1, 0}}));
}

TEST(ReferenceScanner, FindsAPartInsideALongRunOfDigits) {
    std::string bytes = std::string(77, '0') + first + std::string(50, 'z');
    EXPECT_EQ(scanAtOnce(setOf({first}), bytes), (std::vector<PartHit>{{77, 0}}));
}

TEST(ReferenceScanner, IgnoresAPartThatIsCutShort) {
    EXPECT_TRUE(scanAtOnce(setOf({first}), "/nix/store/" + first.substr(0, 31)).empty());
    EXPECT_TRUE(
        scanAtOnce(setOf({first}), "/nix/store/" + first.substr(0, 31) + "-" + first.substr(1)).empty());
}

TEST(ReferenceScanner, FindsOverlappingParts) {
    std::string both = first + second.substr(0, 16);
    std::string middle = both.substr(16);
    HashPartSet parts = setOf({first, middle});
    EXPECT_EQ(scanAtOnce(parts, "-" + both + "-"), (std::vector<PartHit>{{1, 0}, {17, 1}}));
}

TEST(ReferenceScanner, FindsAPartAcrossEveryBlockBorder) {
    HashPartSet parts = setOf({first});
    std::string bytes = std::string(70, '.') + first + std::string(70, '.');
    for (size_t size = 1; size <= bytes.size(); ++size) {
        EXPECT_EQ(scanInBlocks(parts, bytes, [&] { return size; }), (std::vector<PartHit>{{70, 0}})) << size;
    }
}

TEST(ReferenceScanner, CarriesNothingIntoTheNextObject) {
    HashPartSet parts = setOf({first});
    std::vector<PartHit> hits;
    ReferenceScanner scanner(parts, [&](const PartHit &hit) { hits.push_back(hit); });
    scanner.begin();
    scanner.write(first.substr(0, 20));
    scanner.begin();
    scanner.write(first.substr(20));
    EXPECT_TRUE(hits.empty());
}

TEST(ReferenceScanner, AgreesWithANaiveSearchOnRandomBytesInRandomBlocks) {
    std::mt19937_64 random(20);
    auto below = [&](size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random); };
    size_t found = 0;
    for (int round = 0; round < 400; ++round) {
        std::vector<std::string> parts;
        for (size_t i = 0, count = 1 + below(40); i < count; ++i) {
            std::string part(HashPartSet::length, '0');
            std::generate(part.begin(), part.end(), [&] { return digits[below(digits.size())]; });
            parts.push_back(part);
        }
        std::string bytes;
        while (bytes.size() < 3000) {
            const std::string &part = parts[below(parts.size())];
            switch (below(5)) {
            case 0:
                bytes += part;
                break;
            case 1: // also overlapping its own beginning
                bytes += part.substr(0, below(33)) + part;
                break;
            case 2:
                bytes += static_cast<char>(below(256));
                break;
            case 3:
                bytes += part.substr(below(32));
                break;
            default:
                bytes += std::string(below(70), below(2) != 0 ? '0' : '\0');
            }
        }
        std::vector<PartHit> expected = scanNaively(parts, bytes);
        size_t largest = 1 + below(200);
        EXPECT_EQ(scanInBlocks(setOf(parts), bytes, [&] { return 1 + below(largest); }), expected);
        found += expected.size();
    }
    EXPECT_GT(found, 10000u);
}

TEST(HashPartSet, NumbersPartsInOrderAndTheSameOneOnce) {
    HashPartSet parts;
    EXPECT_EQ(parts.add(first), 0u);
    EXPECT_EQ(parts.add(second), 1u);
    EXPECT_EQ(parts.add(first), 0u);
    EXPECT_EQ(parts.size(), 2u);
}

TEST(HashPartSet, RefusesWhatIsNoHashPart) {
    HashPartSet parts;
    EXPECT_THROW(parts.add("short"), Error);
    EXPECT_THROW(parts.add("e" + first.substr(1)), Error);
}

TEST(HashPartSet, FindsEachOfTenThousandParts) {
    HashPartSet parts;
    std::mt19937_64 random(1);
    std::string bytes;
    for (int i = 0; i < 10000; ++i) {
        std::string part(HashPartSet::length, '0');
        std::generate(part.begin(), part.end(), [&] { return digits[random() % digits.size()]; });
        EXPECT_EQ(parts.add(part), static_cast<uint32_t>(i));
        bytes += part + "-";
    }
    std::vector<PartHit> hits = scanAtOnce(parts, bytes);
    ASSERT_EQ(hits.size(), 10000u);
    for (uint32_t i = 0; i < hits.size(); ++i) {
        EXPECT_EQ(hits[i], (PartHit{i * 33, i}));
    }
}

} // namespace
} // namespace firn
