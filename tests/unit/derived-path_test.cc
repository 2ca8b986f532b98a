#include "libstore/model/derived-path.hh"

#include <gtest/gtest.h>

#include "libutil/error.hh"

using namespace firn;

namespace {

const StoreDir store("/nix/store");
const std::string drv = "/nix/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf.drv";

} // namespace

TEST(DerivedPath, plainPathsStayOpaque) {
    EXPECT_EQ(parseDerivedPath(store, drv), DerivedPath(OpaquePath{store.parse(drv)}));
    EXPECT_EQ(printDerivedPath(store, OpaquePath{store.parse(drv)}), drv);
}

TEST(DerivedPath, readsBothSeparators) {
    DerivedPath expected = BuiltPath{store.parse(drv), {"dev", "out"}};
    EXPECT_EQ(parseDerivedPath(store, drv + "!out,dev"), expected);
    EXPECT_EQ(parseDerivedPath(store, drv + "^out,dev"), expected);
    EXPECT_EQ(printDerivedPath(store, expected), drv + "!dev,out");
    EXPECT_EQ(printDerivedPath(store, expected, '^'), drv + "^dev,out");
}

TEST(DerivedPath, starMeansAllOutputs) {
    DerivedPath expected = BuiltPath{store.parse(drv), {}};
    EXPECT_EQ(parseDerivedPath(store, drv + "!*"), expected);
    EXPECT_EQ(printDerivedPath(store, expected), drv + "!*");
}

TEST(DerivedPath, refusesMalformedText) {
    for (const std::string &text : std::vector<std::string>{
             std::string(), std::string("!"), std::string("!out"), drv + "!", drv + "!out,", drv + "!,out",
             drv + "!*,out", drv + "!a/b", drv + "!*!out", drv + "!a,b!out", drv + "!!out", drv + "!out!",
             drv + "^out^a/b", "/nix/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf!out"}) {
        EXPECT_THROW(parseDerivedPath(store, text), Error) << text;
    }
}

TEST(DerivedPath, outputsOfDerivationsThatAreMadeAreAChainOfNames) {
    DerivedPath one = BuiltPath{store.parse(drv), {"dev", "out"}, {"out"}};
    EXPECT_EQ(parseDerivedPath(store, drv + "!out!dev,out"), one);
    EXPECT_EQ(parseDerivedPath(store, drv + "^out^dev,out"), one);
    EXPECT_EQ(printDerivedPath(store, one), drv + "!out!dev,out");
    DerivedPath two = BuiltPath{store.parse(drv), {}, {"out", "lib"}};
    EXPECT_EQ(parseDerivedPath(store, drv + "!out!lib!*"), two);
    EXPECT_EQ(printDerivedPath(store, two, '^'), drv + "^out^lib^*");
}

TEST(DerivedPath, chainsAreBounded) {
    std::string text = drv;
    for (size_t i = 0; i < maxDynamicDepth; ++i) {
        text += "!out";
    }
    EXPECT_EQ(printDerivedPath(store, parseDerivedPath(store, text + "!dev")), text + "!dev");
    EXPECT_THROW(parseDerivedPath(store, text + "!out!dev"), Error);
}

TEST(DerivedPath, chainsAreOrderedAndToldApart) {
    StorePath path = store.parse(drv);
    std::set<DerivedPath> all{BuiltPath{path, {"a"}, {}}, BuiltPath{path, {"a"}, {"b"}},
                              BuiltPath{path, {"b"}, {"a"}}, BuiltPath{path, {"a"}, {"b", "b"}},
                              BuiltPath{path, {}, {}}};
    EXPECT_EQ(all.size(), 5u);
    for (const DerivedPath &a : all) {
        for (const DerivedPath &b : all) {
            EXPECT_EQ(a<b, b> a);
            EXPECT_EQ(a == b, !(a < b) && !(b < a));
        }
    }
}
