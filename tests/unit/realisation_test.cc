#include "libstore/model/realisation.hh"

#include <gtest/gtest.h>

#include "libstore/model/path-info.hh"
#include "model-vectors-store.hh"

using namespace firn;

TEST(Realisation, jsonOfStockNixRoundTrips) {
    for (const vectors::RealisationVector &vector : vectors::realisationVectors) {
        EXPECT_EQ(Realisation::parseJson(vector.json).toJson(), vector.json);
    }
}

TEST(Realisation, fingerprintIsWhatStockNixSigned) {
    PublicKey key = PublicKey::parse(vectors::publicKey);
    for (const vectors::RealisationVector &vector : vectors::realisationVectors) {
        Realisation realisation = Realisation::parseJson(vector.json);
        ASSERT_EQ(realisation.signatures.size(), 1u);
        EXPECT_TRUE(key.verify(realisation.fingerprint(), *realisation.signatures.begin())) << vector.name;
    }
}

TEST(Realisation, signaturesAndDependenciesMayBeMissing) {
    std::string id = "sha256:" + Hash(HashAlgorithm::sha256).digits(Encoding::base16) + "!out";
    Realisation realisation = Realisation::parseJson(
        R"({"id":")" + id + R"(","outPath":"22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf","new":[1]})");
    EXPECT_EQ(realisation.id.print(), id);
    EXPECT_EQ(realisation.outPath.name(), "leaf");
    EXPECT_TRUE(realisation.signatures.empty() && realisation.dependentRealisations.empty());
}

TEST(Realisation, truncatedJsonIsRefusedAtEveryByte) {
    std::string_view good = vectors::realisationVectors[3].json;
    for (size_t size = 0; size < good.size(); ++size) {
        EXPECT_THROW(Realisation::parseJson(good.substr(0, size)), Error) << size;
    }
}

TEST(Realisation, wrongTypesAreRefused) {
    for (const std::string &text : std::vector<std::string>{"[]", "null", "{}", R"({"id":1,"outPath":2})",
                                                            R"({"id":"x!out","outPath":"y"})"}) {
        EXPECT_THROW(Realisation::parseJson(text), Error) << text;
    }
    std::string good(vectors::realisationVectors[0].json);
    std::string bad = good;
    bad.replace(bad.find("[\""), 1, "[1,");
    EXPECT_THROW(Realisation::parseJson(bad), Error);
    EXPECT_THROW(Realisation::parseJson(std::string(100000, '[')), Error);
}

TEST(DrvOutput, refusesMalformedText) {
    std::string hash = Hash(HashAlgorithm::sha256).prefixed(Encoding::base16);
    EXPECT_EQ(DrvOutput::parse(hash + "!dev").outputName, "dev");
    for (const std::string &text : std::vector<std::string>{std::string(), hash, hash + "!", hash + "!a!b",
                                                            "sha256:00!out", hash + "!a/b"}) {
        EXPECT_THROW(DrvOutput::parse(text), Error) << text;
    }
}
