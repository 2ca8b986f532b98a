#include "libstore/store/hash-modulo.hh"

#include <gtest/gtest.h>

#include "libutil/nar.hh"

namespace firn {
namespace {

/// The output of `mkdir $out; echo $out > $out/self; ln -s $out/self $out/l`, as it lies in a store.
std::string narOf(const std::string &path) {
    StringSink nar;
    NarWriter writer(nar);
    writer.begin();
    writer.beginDirectory();
    writer.beginEntry("l");
    writer.symlink(path + "/self");
    writer.endEntry();
    writer.beginEntry("self");
    writer.beginFile(false, path.size() + 1);
    writer.contents(path + "\n");
    writer.endFile();
    writer.endEntry();
    writer.endDirectory();
    return nar.text;
}

struct ModuloHashes {
    Hash zeros, zerosThenOffsets;
};

ModuloHashes hashInPieces(const std::string &text, const std::string &part, size_t size) {
    HashModulo hash(HashAlgorithm::sha256, part, [&](Sink &sink) {
        for (size_t at = 0; at < text.size(); at += size) {
            sink.write(std::string_view(text).substr(at, size));
        }
    });
    Hash zeros = hash.zeros();
    return {zeros, hash.zerosThenOffsets()};
}

const std::string store = "/tmp/firn-ca-probe/s/store/";

// Both generations of stock Nix were let build the same derivation.

TEST(HashModulo, GivesTheAddressOfNix2_8) {
    std::string part = "s31b9m0vcm49z288zjajin294vqa26kk";
    std::string nar = narOf(store + part + "-a");
    EXPECT_EQ(hashInPieces(nar, part, nar.size()).zerosThenOffsets.digits(Encoding::nix32),
              "18gifpvz4z8pqrfdqh76imvwjh49zbmdbzlj49jiff27v047fgf9");
}

TEST(HashModulo, GivesTheAddressOfNix2_34) {
    std::string part = "425fivpbv67rj6yfv9g0zw659igfpyq2";
    std::string nar = narOf(store + part + "-a");
    EXPECT_EQ(hashInPieces(nar, part, nar.size()).zeros.digits(Encoding::nix32),
              "17w9qfhr2q5d1sp19vqhkib0nz079v20f6zh18635cvx6whsgma4");
}

TEST(HashModulo, DoesNotDependOnThePathNorOnThePieces) {
    std::string one(32, 'a'), other = "s31b9m0vcm49z288zjajin294vqa26kk";
    ModuloHashes expected = hashInPieces(narOf(store + one + "-a"), one, 4096);
    for (size_t size : {1, 7, 31, 32, 33, 100}) {
        ModuloHashes hashes = hashInPieces(narOf(store + other + "-a"), other, size);
        EXPECT_EQ(hashes.zeros, expected.zeros) << size;
        EXPECT_EQ(hashes.zerosThenOffsets, expected.zerosThenOffsets) << size;
    }
}

TEST(HashModulo, TellsZerosFromAnOccurrenceOnlyByOffsets) {
    std::string part(32, 'a');
    ModuloHashes named = hashInPieces("x" + part, part, 64);
    ModuloHashes zeros = hashInPieces("x" + std::string(32, '\0'), part, 64);
    EXPECT_EQ(named.zeros, zeros.zeros);
    EXPECT_NE(named.zerosThenOffsets, zeros.zerosThenOffsets);
}

TEST(HashModulo, ReadsTheStreamOnceMoreForOffsetsAlone) {
    int reads = 0;
    HashModulo hash(HashAlgorithm::sha256, std::string(32, 'a'), [&](Sink &sink) {
        ++reads;
        sink.write(std::string(64, 'a'));
    });
    EXPECT_EQ(hash.zeros(), hashString(HashAlgorithm::sha256, std::string(64, '\0')));
    EXPECT_EQ(reads, 1);
    Hash expected = hashString(HashAlgorithm::sha256, std::string(64, '\0') + "|0|32");
    EXPECT_EQ(hash.zerosThenOffsets(), expected);
    EXPECT_EQ(hash.zerosThenOffsets(), expected);
    EXPECT_EQ(reads, 2);
}

} // namespace
} // namespace firn
