#include "sandbox-init/description.hh"

#include <gtest/gtest.h>

namespace firn::sandbox {
namespace {

Description sample() {
    Description d;
    d.parentPid = 77;
    d.outputFd = 6;
    d.insideUid = 1000;
    d.insideGid = 100;
    d.outsideUid = 30001;
    d.outsideGid = 30000;
    d.groups = {108, 109};
    d.hostName = "localhost";
    d.ops.resize(2);
    d.ops[0].target = "/etc";
    d.ops[1].kind = OpKind::bind;
    d.ops[1].target = "/nix/store/x";
    d.ops[1].source = SourceKind::path;
    d.ops[1].sourcePath = "/real/x";
    d.ops[1].flags = opReadOnly;
    d.filter = std::string(16, '\0');
    d.workingDirectory = "/build";
    d.builder = "/bin/sh";
    d.args = {"sh", "-c", "exit 3"};
    d.env = {"A=1", "EMPTY="};
    return d;
}

TEST(SandboxDescriptionTest, comesBackAsItWasWritten) {
    std::optional<Description> d = decodeDescription(encodeDescription(sample()));
    ASSERT_TRUE(d);
    EXPECT_EQ(d->outsideUid, 30001u);
    EXPECT_EQ(d->groups, (std::vector<uint32_t>{108, 109}));
    EXPECT_EQ(d->ops[1].sourcePath, "/real/x");
    EXPECT_EQ(d->ops[1].sourceFd, -1);
    EXPECT_EQ(d->args, (std::vector<std::string>{"sh", "-c", "exit 3"}));
    EXPECT_EQ(encodeDescription(*d), encodeDescription(sample()));
}

TEST(SandboxDescriptionTest, everyTruncationIsRefused) {
    std::string bytes = encodeDescription(sample());
    for (size_t length = 0; length < bytes.size(); length++) {
        EXPECT_FALSE(decodeDescription(std::string_view(bytes).substr(0, length))) << length;
    }
    EXPECT_FALSE(decodeDescription(bytes + '\0'));
}

TEST(SandboxDescriptionTest, countBeyondTheInputIsRefusedWithoutAllocating) {
    Description d = sample();
    d.env.clear();
    std::string bytes = encodeDescription(d);
    bytes.replace(bytes.size() - 4, 4, "\xff\xff\xff\xff");
    EXPECT_FALSE(decodeDescription(bytes));
}

TEST(SandboxDescriptionTest, anotherVersionIsRefused) {
    std::string bytes = encodeDescription(sample());
    bytes[4]++;
    EXPECT_FALSE(decodeDescription(bytes));
}

TEST(SandboxDescriptionTest, targetsThatLeadElsewhereAreRefused) {
    for (const char *target : {"", "/", "etc", "/a/../b", "/a/.", "/a//b", "/a/"}) {
        Description d = sample();
        d.ops[0].target = target;
        EXPECT_FALSE(decodeDescription(encodeDescription(d))) << target;
    }
}

TEST(SandboxDescriptionTest, zeroByteInAStringIsRefused) {
    Description d = sample();
    d.env[0] = std::string("A=1\0B=2", 7);
    EXPECT_FALSE(decodeDescription(encodeDescription(d)));
}

TEST(SandboxDescriptionTest, senselessOnesAreRefused) {
    auto refused = [](auto change) {
        Description d = sample();
        change(d);
        return !decodeDescription(encodeDescription(d));
    };
    EXPECT_TRUE(refused([](auto &d) { d.insideUid = 0; }));
    EXPECT_TRUE(refused([](auto &d) { d.outsideUid = UINT32_MAX; }));
    EXPECT_TRUE(refused([](auto &d) { d.outputFd = 0; }));
    EXPECT_TRUE(refused([](auto &d) { d.filter.pop_back(); }));
    EXPECT_TRUE(refused([](auto &d) { d.builder.clear(); }));
    EXPECT_TRUE(refused([](auto &d) { d.userNamespace = false; }));
    EXPECT_TRUE(refused([](auto &d) { d.ops[1].sourceFd = 9; }));
    EXPECT_TRUE(refused([](auto &d) { d.ops[0].mode = 04755; }));
    EXPECT_TRUE(refused([](auto &d) { d.ops[0].flags = 1u << 31; }));
}

TEST(SandboxDescriptionTest, descriptorsTakeTheirPlaces) {
    Description d = sample();
    d.outputFd = 2;
    d.ops[0].sourceFd = 1;
    EXPECT_TRUE(resolveDescriptors(d, {30, 31, 32}));
    EXPECT_EQ(d.outputFd, 32);
    EXPECT_EQ(d.buildDirFd, -1);
    EXPECT_EQ(d.ops[0].sourceFd, 31);
    EXPECT_EQ(d.ops[1].sourceFd, -1);
    d.outputFd = 3;
    EXPECT_FALSE(resolveDescriptors(d, {30, 31, 32}));
}

} // namespace
} // namespace firn::sandbox
