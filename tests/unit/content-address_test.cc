#include "libstore/model/content-address.hh"

#include <gtest/gtest.h>

#include "model-vectors-store.hh"

using namespace firn;

namespace {

const std::string sha256Digits = "0dhnjzs53rbysmbcq4p64mc5m9awlxmnkscff7gijv9l7izn5lym";

ContentAddress addressOf(ContentMethod method, HashAlgorithm algorithm) {
    return {method, hashString(algorithm, "x")};
}

const StorePath other("22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf");

} // namespace

TEST(ContentAddress, givesThePathsThatStockNixGave) {
    for (const vectors::AddedVector &vector : vectors::addedVectors) {
        SCOPED_TRACE(vector.path);
        StorePath path = vectors::store().parse(vector.path);
        References references{vectors::parsePaths(vector.references), false};
        references.self = references.others.erase(path) > 0;
        ContentAddress address = ContentAddress::parse(vector.contentAddress);
        EXPECT_EQ(makeContentAddressedPath(vectors::store(), path.name(), address, references), path);
    }
}

TEST(ContentAddress, printsWhatItParses) {
    for (const vectors::AddedVector &vector : vectors::addedVectors) {
        EXPECT_EQ(ContentAddress::parse(vector.contentAddress).print(), vector.contentAddress);
    }
    std::string git =
        "fixed:git:" + addressOf(ContentMethod::git, HashAlgorithm::sha1).hash.prefixed(Encoding::nix32);
    EXPECT_EQ(ContentAddress::parse(git).method, ContentMethod::git);
    EXPECT_EQ(ContentAddress::parse(git).print(), git);
}

TEST(ContentAddress, refusesMalformedText) {
    for (const std::string &text : std::vector<std::string>{
             std::string(), "sha256:" + sha256Digits, "text:" + sha256Digits,
             "text:sha1:" + Hash(HashAlgorithm::sha1).digits(Encoding::nix32), "fixed:r:sha3:" + sha256Digits,
             "fixed:sha256:" + sha256Digits + "0", "fixed:sha256:", "fixed:", "text:r:sha256:" + sha256Digits,
             "fixed:text:sha256:" + sha256Digits, "fixed:fixed:sha256:" + sha256Digits,
             "fixed:r:git:sha256:" + sha256Digits,
             "fixed:git:md5:" + Hash(HashAlgorithm::md5).digits(Encoding::nix32),
             "fixed:git:sha512:" + Hash(HashAlgorithm::sha512).digits(Encoding::nix32),
             "fixed:sha256:sha256-mVa1jEyPhVUmTzB9phEAxTVaIfIsx/OxzU2jEkvX9xU="}) {
        EXPECT_THROW(ContentAddress::parse(text), Error) << text;
    }
}

TEST(ContentAddressMethod, hasADerivationFormAndAPrefixedForm) {
    struct {
        std::string plain, prefixed;
    } forms[] = {{"sha256", "fixed:sha256"},
                 {"r:sha512", "fixed:r:sha512"},
                 {"git:sha1", "fixed:git:sha1"},
                 {"text:sha256", "text:sha256"}};
    for (const auto &[plain, prefixed] : forms) {
        EXPECT_EQ(ContentAddressMethod::parse(plain), ContentAddressMethod::parse(prefixed));
        EXPECT_EQ(ContentAddressMethod::parse(plain).print(), plain);
        EXPECT_EQ(ContentAddressMethod::parse(plain).printPrefixed(), prefixed);
    }
    EXPECT_THROW(ContentAddressMethod::parse("r:"), Error);
    EXPECT_THROW(ContentAddressMethod::parse("text:md5"), Error);
}

TEST(ContentAddress, flatContentHasNoReferences) {
    const StoreDir &store = vectors::store();
    for (auto address : {addressOf(ContentMethod::flat, HashAlgorithm::sha256),
                         addressOf(ContentMethod::nar, HashAlgorithm::sha512),
                         addressOf(ContentMethod::git, HashAlgorithm::sha1)}) {
        EXPECT_NO_THROW(makeContentAddressedPath(store, "x", address, {}));
        EXPECT_THROW(makeContentAddressedPath(store, "x", address, {{other}, false}), Error);
        EXPECT_THROW(makeContentAddressedPath(store, "x", address, {{}, true}), Error);
    }
}

TEST(ContentAddress, textCannotReferToItselfNorUseAnotherHash) {
    const StoreDir &store = vectors::store();
    ContentAddress text = addressOf(ContentMethod::text, HashAlgorithm::sha256);
    EXPECT_NO_THROW(makeContentAddressedPath(store, "x", text, {{other}, false}));
    EXPECT_THROW(makeContentAddressedPath(store, "x", text, {{}, true}), Error);
    ContentAddress sha1 = addressOf(ContentMethod::text, HashAlgorithm::sha1);
    EXPECT_THROW(makeContentAddressedPath(store, "x", sha1, {}), Error);
}
