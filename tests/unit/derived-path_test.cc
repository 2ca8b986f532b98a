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
             drv + "!*,out", drv + "!a/b", drv + "!out!out", drv + "^out^out",
             "/nix/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf!out"}) {
        EXPECT_THROW(parseDerivedPath(store, text), Error) << text;
    }
}
