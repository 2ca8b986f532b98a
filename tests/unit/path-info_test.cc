#include "libstore/model/path-info.hh"

#include <gtest/gtest.h>

#include "model-vectors-store.hh"

using namespace firn;

namespace {

PathInfo infoOf(const vectors::SignedVector &vector) {
    PathInfo info{vectors::store().parse(vector.path)};
    info.narHash = Hash::parse(vector.narHash);
    info.narSize = vector.narSize;
    info.references = vectors::parsePaths(vector.references);
    return info;
}

/// cacheSecretKey's comes first: stock Nix sorts them.
std::pair<std::string, std::string> signaturesOf(const vectors::SignedVector &vector) {
    size_t blank = vector.signatures.find(' ');
    return {std::string(vector.signatures.substr(0, blank)),
            std::string(vector.signatures.substr(blank + 1))};
}

} // namespace

TEST(PathInfo, signaturesByStockNixVerify) {
    PublicKey own = PublicKey::parse(vectors::publicKey), cache = PublicKey::parse(vectors::cachePublicKey);
    for (const vectors::SignedVector &vector : vectors::signedVectors) {
        std::string fingerprint = infoOf(vector).fingerprint(vectors::store());
        auto [byCache, byOwn] = signaturesOf(vector);
        EXPECT_TRUE(own.verify(fingerprint, byOwn));
        EXPECT_TRUE(cache.verify(fingerprint, byCache));
        EXPECT_FALSE(own.verify(fingerprint, byCache));
        EXPECT_FALSE(own.verify(fingerprint + "x", byOwn));
    }
}

TEST(PathInfo, signsAsStockNixDoes) { // Ed25519 is deterministic
    SecretKey own = SecretKey::parse(vectors::secretKey), cache = SecretKey::parse(vectors::cacheSecretKey);
    for (const vectors::SignedVector &vector : vectors::signedVectors) {
        std::string fingerprint = infoOf(vector).fingerprint(vectors::store());
        auto [byCache, byOwn] = signaturesOf(vector);
        EXPECT_EQ(own.sign(fingerprint), byOwn);
        EXPECT_EQ(cache.sign(fingerprint), byCache);
    }
}

TEST(PathInfo, fingerprintNeedsTheSize) {
    PathInfo info = infoOf(vectors::signedVectors[0]);
    info.narSize = 0;
    EXPECT_THROW(info.fingerprint(vectors::store()), Error);
}

TEST(PathInfo, knowsWhetherItsPathFollowsFromItsContent) {
    for (const vectors::AddedVector &vector : vectors::addedVectors) {
        SCOPED_TRACE(vector.path);
        PathInfo info{vectors::store().parse(vector.path)};
        EXPECT_FALSE(info.isContentAddressed(vectors::store()));
        info.contentAddress = ContentAddress::parse(vector.contentAddress);
        info.references = vectors::parsePaths(vector.references);
        EXPECT_TRUE(info.isContentAddressed(vectors::store()));
        info.references.emplace("22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf");
        EXPECT_FALSE(info.isContentAddressed(vectors::store()));
    }
}

TEST(SecretKey, knowsItsPublicHalf) {
    EXPECT_EQ(SecretKey::parse(vectors::secretKey).publicKey().print(), vectors::publicKey);
    EXPECT_EQ(SecretKey::parse(vectors::cacheSecretKey).publicKey().print(), vectors::cachePublicKey);
}

TEST(SecretKey, mayEndWithANewline) {
    EXPECT_EQ(SecretKey::parse(std::string(vectors::secretKey) + "\n").name(), "vectors-1");
    EXPECT_EQ(PublicKey::parse(std::string(vectors::publicKey) + "\n").name(), "vectors-1");
}

TEST(SecretKey, malformedKeysAreRefusedAndNotShown) {
    std::string good(vectors::secretKey);
    std::string mixed = good;
    mixed[12] = mixed[12] == 'A' ? 'B' : 'A';
    for (const std::string &text : std::vector<std::string>{
             std::string(), std::string("name"), std::string("name:"), good.substr(9), good.substr(0, 60),
             good + "AAAA", std::string(vectors::publicKey), "name:!" + good.substr(11), mixed}) {
        try {
            SecretKey::parse(text);
            ADD_FAILURE() << text;
        } catch (const Error &error) {
            EXPECT_EQ(error.kind(), ErrorKind::badInput);
            EXPECT_EQ(error.message().find(good.substr(20, 20)), std::string::npos);
        }
    }
}

TEST(PublicKey, malformedSignaturesDoNotVerify) {
    PublicKey key = PublicKey::parse(vectors::publicKey);
    std::string good = SecretKey::parse(vectors::secretKey).sign("message");
    EXPECT_TRUE(key.verify("message", good));
    for (const std::string &text : std::vector<std::string>{
             std::string(), std::string("vectors-1"), std::string("vectors-1:"), good.substr(0, 40),
             good + "A", "vectors-2" + good.substr(9), "vectors-1:!" + good.substr(11), " " + good}) {
        EXPECT_FALSE(key.verify("message", text)) << text;
    }
}
