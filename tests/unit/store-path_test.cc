#include "libstore/model/store-path.hh"

#include <gtest/gtest.h>

#include "libutil/error.hh"

using namespace firn;

namespace {

const std::string hashPart = "22xlgi5snxdkf1i1x2ql6j29vv48w3hz";

void expectBadInput(const std::string &baseName) {
    SCOPED_TRACE(baseName);
    try {
        StorePath path(baseName);
        ADD_FAILURE() << "accepted";
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::badInput);
    }
}

} // namespace

TEST(StorePath, splitsIntoHashPartAndName) {
    StorePath path(hashPart + "-leaf-1.0.drv");
    EXPECT_EQ(path.hashPart(), hashPart);
    EXPECT_EQ(path.name(), "leaf-1.0.drv");
    EXPECT_EQ(path.baseName(), hashPart + "-leaf-1.0.drv");
    EXPECT_TRUE(path.isDerivation());
    EXPECT_FALSE(StorePath(hashPart + "-drv").isDerivation());
}

TEST(StorePath, acceptsEveryAllowedCharacterAndLength) {
    for (const std::string &name :
         std::vector<std::string>{"a", "Zz09+-._?=", ".hidden", "...", "a.", "-", ".a-b"}) {
        EXPECT_EQ(StorePath(hashPart + "-" + name).name(), name);
    }
    EXPECT_EQ(StorePath(hashPart + "-" + std::string(211, 'x')).name().size(), 211u);
}

TEST(StorePath, refusesBadNames) {
    for (const std::string &name : std::vector<std::string>{"", ".", "..", ".-x", "..-x", "a b", "a/b", "a\n",
                                                            "é", "a!b", "a^b", "a,b", "~"}) {
        expectBadInput(hashPart + "-" + name);
    }
    expectBadInput(hashPart + "-" + std::string(212, 'x'));
    expectBadInput(hashPart + "-" + std::string("a\0b", 3));
}

TEST(StorePath, refusesBadHashParts) {
    expectBadInput("");
    expectBadInput(hashPart);
    expectBadInput(hashPart + "_leaf");
    expectBadInput(hashPart.substr(1) + "-leaf");
    expectBadInput("e" + hashPart.substr(1) + "-leaf"); // not a digit of base-32
    expectBadInput("A" + hashPart.substr(1) + "-leaf");
    expectBadInput("/" + hashPart.substr(1) + "-leaf");
}

TEST(StorePath, refusesDigestsOfOtherSizes) {
    EXPECT_THROW(StorePath(std::string_view("short"), std::string_view("name")), Error);
    EXPECT_EQ(StorePath(std::string(20, '\0'), "name").baseName(), std::string(32, '0') + "-name");
}

TEST(StoreDir, printsWhatItParses) {
    StoreDir store("/nix/store");
    std::string text = "/nix/store/" + hashPart + "-leaf";
    EXPECT_EQ(store.print(store.parse(text)), text);
}

TEST(StoreDir, parsesExactPathsOnly) {
    StoreDir store("/nix/store");
    std::string base = hashPart + "-leaf";
    for (const std::string &text : std::vector<std::string>{
             "/nix/store", "/nix/store/", "/nix/stores/" + base, "/nix/store" + base, "/nix/store//" + base,
             "/nix/store/" + base + "/", base, "/nix/store/" + base + "/bin", "/nix/store/../store/" + base,
             std::string("")}) {
        EXPECT_EQ(store.tryParse(text), std::nullopt) << text;
        EXPECT_THROW(store.parse(text), Error) << text;
    }
}

TEST(StoreDir, findsTheStorePathThatAPathLiesIn) {
    StoreDir store("/nix/store");
    std::string base = hashPart + "-leaf";
    auto [path, rest] = store.parsePrefix("/nix/store/" + base + "/bin/x");
    EXPECT_EQ(path.baseName(), base);
    EXPECT_EQ(rest, "/bin/x");
    EXPECT_EQ(store.parsePrefix("/nix/store/" + base).second, "");
}

TEST(StoreDir, normalisesTrailingSlashesAndRefusesTheRest) {
    EXPECT_EQ(StoreDir("/nix/store//").str(), "/nix/store");
    for (const std::string &dir :
         std::vector<std::string>{"", "/", "nix/store", "/nix/../store", "/nix/./store", "/nix//store"}) {
        EXPECT_THROW(StoreDir{dir}, Error) << dir;
    }
}

TEST(OutputPathName, leavesOutAway) {
    EXPECT_EQ(outputPathName("x-1", "out"), "x-1");
    EXPECT_EQ(outputPathName("x-1", "dev"), "x-1-dev");
}
