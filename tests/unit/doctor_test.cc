#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include <fcntl.h>
#include <nlohmann/json.hpp>

#include "firn/doctor/build-findings.hh"
#include "firn/doctor/facts.hh"
#include "firn/doctor/report.hh"
#include "firn/doctor/settings-findings.hh"
#include "firn/doctor/store-findings.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn::doctor {

namespace {

/// "level id" of each.
std::vector<std::string> summary(const Findings &findings) {
    static const char *const words[] = {"ok", "note", "limit", "error"};
    std::vector<std::string> lines;
    for (const Finding &finding : findings) {
        lines.push_back(std::string(words[static_cast<int>(finding.level)]) + " " + finding.id);
    }
    return lines;
}

using Lines = std::vector<std::string>;

DirectoryFacts goodDirectory() {
    DirectoryFacts facts;
    facts.path = facts.nearest = "/nix/store";
    facts.exists = true;
    facts.mount = {"/nix", "rw,relatime", "ext4", false};
    facts.freeBytes = uint64_t{50} << 30;
    return facts;
}

Report reportOf(Findings findings) {
    return {"1.2", "tester (uid 7)", {{"part", "Part", std::move(findings)}}};
}

// ---- report

TEST(DoctorReport, ExitStatusIsThatOfTheWorstFinding) {
    EXPECT_EQ(exitStatus(reportOf({})), 0);
    EXPECT_EQ(exitStatus(reportOf({{Level::note, "a", "x", "", {}}})), 0);
    EXPECT_EQ(exitStatus(reportOf({{Level::limit, "a", "x", "", {}}, {Level::ok, "b", "y", "", {}}})), 1);
    EXPECT_EQ(exitStatus(reportOf({{Level::error, "a", "x", "", {}}, {Level::limit, "b", "y", "", {}}})), 2);
}

TEST(DoctorReport, TextHasFindingsRemediesAndAVerdict) {
    std::string text = printAsText(reportOf({{Level::limit, "a", "too little", "take more", {}}}), 0, false);
    EXPECT_EQ(text, "Firn 1.2 for tester (uid 7)\n\nPart\n  limit  too little\n         → take more\n\n"
                    "Firn works here, with 1 limit.\n");
}

TEST(DoctorReport, LinesFitTheTerminalAndWordsStayWhole) {
    std::string path = "/a/very/long/path/that/is/wider/than/the/terminal/by/itself";
    std::string words = "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf";
    std::string text = printAsText(reportOf({{Level::ok, "a", words + " " + path, words, {}}}), 40, false);
    EXPECT_NE(text.find(path), std::string::npos);
    for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
        std::string line = text.substr(begin, text.find('\n', begin) - begin);
        auto columns = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
        EXPECT_TRUE(columns <= 40 || line.find(path) != std::string::npos) << line;
    }
}

TEST(DoctorReport, NothingFromOutsideReachesTheTerminalRaw) {
    std::string text = printAsText(reportOf({{Level::ok, "a", "x\x1b[2Jy", "z\x1b]0;w\x07", {}}}), 0, false);
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find('\x07'), std::string::npos);
}

TEST(DoctorReport, JsonHasTheDocumentedShapeForBytesThatAreNoText) {
    Findings findings{{Level::error, "bad", "path \xff", "fix", {{"path", "\xff"}}}};
    auto json = nlohmann::json::parse(printAsJson(reportOf(findings)));
    EXPECT_EQ(json["version"], 1);
    EXPECT_EQ(json["firn"], "1.2");
    EXPECT_EQ(json["user"], "tester (uid 7)");
    EXPECT_EQ(json["verdict"], "broken");
    EXPECT_EQ(json["exitStatus"], 2);
    auto &finding = json["sections"][0]["findings"][0];
    EXPECT_EQ(json["sections"][0]["id"], "part");
    EXPECT_EQ(finding["id"], "bad");
    EXPECT_EQ(finding["level"], "error");
    EXPECT_EQ(finding["remedy"], "fix");
    EXPECT_TRUE(finding["details"]["path"].is_string());
}

// ---- store

TEST(DoctorStore, AStoreOnNoexecIsAnError) {
    DirectoryFacts facts = goodDirectory();
    EXPECT_EQ(summary(judgeStore(facts)), (Lines{"ok store-directory"}));
    facts.mount.noexec = true;
    Findings findings = judgeStore(facts);
    EXPECT_EQ(summary(findings), (Lines{"ok store-directory", "error store-noexec"}));
    EXPECT_NE(findings[1].remedy.find("mount -o remount,exec '/nix'"), std::string::npos);
}

TEST(DoctorStore, ASymlinkOnItsPathIsAnError) {
    DirectoryFacts facts = goodDirectory();
    facts.symlink = "/nix";
    EXPECT_EQ(summary(judgeStore(facts)), (Lines{"error store-directory"}));
}

TEST(DoctorStore, DirectoriesThatCannotBeUsedSayWhoseTheyAre) {
    DirectoryFacts facts = goodDirectory();
    facts.accessError = EACCES;
    Finding denied = judgeDirectory("id", "the thing", facts, "go elsewhere");
    EXPECT_EQ(denied.level, Level::error);
    EXPECT_NE(denied.text.find("Permission denied"), std::string::npos);
    EXPECT_NE(denied.remedy.find("go elsewhere"), std::string::npos);
    facts.accessError = EROFS;
    EXPECT_NE(judgeDirectory("id", "the thing", facts, "x").remedy.find("mount '/nix' writable"),
              std::string::npos);
    facts.accessError = 0;
    facts.isDirectory = false;
    EXPECT_EQ(judgeDirectory("id", "the thing", facts, "x").level, Level::error);
}

TEST(DoctorStore, LittleSpaceAndFewFilesAreLimits) {
    DirectoryFacts facts = goodDirectory();
    facts.freeBytes = 1 << 20;
    EXPECT_EQ(judgeDirectory("id", "x", facts, "").level, Level::limit);
    facts = goodDirectory();
    EXPECT_EQ(judgeDirectory("id", "x", facts, "").level, Level::ok);
    facts.countsFiles = true;
    facts.freeFiles = 3;
    EXPECT_NE(judgeDirectory("id", "x", facts, "").text.find("3 more files"), std::string::npos);
}

TEST(DoctorStore, CollectingGarbageIsAdviceForTheStoreAlone) {
    BuildDirectoryFacts build{.directory = goodDirectory(), .origin = "", .choice = {}, .refusal = ""};
    build.directory.freeBytes = 1 << 20;
    EXPECT_NE(judgeStore(build.directory)[0].remedy.find("nix-collect-garbage"), std::string::npos);
    std::string remedy = judgeBuildDirectory(build)[0].remedy;
    EXPECT_EQ(remedy.find("garbage"), std::string::npos) << remedy;
    EXPECT_NE(remedy.find("'build-dir'"), std::string::npos) << remedy;
}

TEST(DoctorStore, AnotherSchemaAndARemoteDatabaseAreTold) {
    DirectoryFacts facts = goodDirectory();
    EXPECT_EQ(summary(judgeState(facts, "10", true)), (Lines{"ok state-directory"}));
    EXPECT_EQ(summary(judgeState(facts, "", true)), (Lines{"ok state-directory"}));
    EXPECT_EQ(summary(judgeState(facts, "11\n", true)),
              (Lines{"ok state-directory", "error database-schema"}));
    facts.mount.fileSystem = "nfs4";
    EXPECT_EQ(summary(judgeState(facts, "10", true)), (Lines{"ok state-directory", "limit state-remote"}));
    EXPECT_EQ(summary(judgeState(facts, "10", false)), (Lines{"ok state-directory"}));
}

TEST(DoctorStore, WhoAnswersOnTheSocketIsNamed) {
    SocketFacts facts;
    facts.path = "/run/s";
    facts.directory = goodDirectory();
    EXPECT_EQ(judgeSocket(facts).level, Level::ok);
    facts.state = SocketFacts::State::answered;
    facts.pid = 77;
    facts.program = "nix-daemon";
    Finding finding = judgeSocket(facts);
    EXPECT_EQ(finding.level, Level::note);
    EXPECT_NE(finding.text.find("'nix-daemon' (process 77)"), std::string::npos);
    facts.state = SocketFacts::State::notSocket;
    EXPECT_EQ(judgeSocket(facts).level, Level::error);
    facts.state = SocketFacts::State::unreachable;
    facts.error = EACCES;
    EXPECT_EQ(judgeSocket(facts).level, Level::note);
}

// ---- build directory

BuildDirectoryFacts noexecDirectory() {
    BuildDirectoryFacts facts{.directory = goodDirectory(), .origin = "TMPDIR", .choice = {}, .refusal = ""};
    facts.directory.mount = {"/tmp", "rw,nosuid,nodev,noexec", "tmpfs", true};
    return facts;
}

TEST(DoctorBuildDirectory, ALiftedNoexecIsFineAndSaysHow) {
    BuildDirectoryFacts facts = noexecDirectory();
    facts.choice = ExecChoice{};
    facts.choice->mechanism = ExecMechanism::bindMount;
    facts.choice->probeError = EACCES;
    Findings findings = judgeBuildDirectory(facts);
    EXPECT_EQ(summary(findings), (Lines{"ok build-directory", "ok build-directory-execution"}));
    EXPECT_NE(findings[0].text.find("TMPDIR"), std::string::npos);
    EXPECT_NE(findings[1].text.find("'/tmp', tmpfs mounted rw,nosuid,nodev,noexec"), std::string::npos);
    EXPECT_EQ(findings[1].details.at("mechanism"), "bind-mount");
    EXPECT_EQ(findings[1].details.at("origin"), "TMPDIR");
}

TEST(DoctorBuildDirectory, AMountThatIsInNoTableHasWords) {
    BuildDirectoryFacts facts = noexecDirectory();
    facts.directory.mount = {"", "", "", true};
    facts.choice = ExecChoice{};
    facts.choice->mechanism = ExecMechanism::overlay;
    facts.choice->probeError = EACCES;
    for (const Finding &finding : judgeBuildDirectory(facts)) {
        EXPECT_EQ(finding.text.find("''"), std::string::npos) << finding.text;
        EXPECT_EQ(finding.text.find("on :"), std::string::npos) << finding.text;
    }
}

TEST(DoctorBuildDirectory, WhatWasNotTriedIsNotSaidToBe) {
    BuildDirectoryFacts facts = noexecDirectory();
    facts.choice = ExecChoice{};
    facts.choice->mechanism = ExecMechanism::bindMount;
    facts.choice->probeError = EACCES;
    Finding tried = judgeBuildDirectory(facts)[1];
    EXPECT_NE(tried.text.find("(tried)"), std::string::npos) << tried.text;
    EXPECT_EQ(tried.details.at("tried"), "true");
    facts.choice->untried = "no room";
    Finding untried = judgeBuildDirectory(facts)[1];
    EXPECT_EQ(untried.text.find("(tried)"), std::string::npos) << untried.text;
    EXPECT_EQ(untried.text.find("fails"), std::string::npos) << untried.text;
    EXPECT_NE(untried.text.find("(not tried: no room)"), std::string::npos) << untried.text;
    EXPECT_EQ(untried.details.at("tried"), "false");
}

TEST(DoctorBuildDirectory, AnotherDirectoryIsALimit) {
    BuildDirectoryFacts facts = noexecDirectory();
    facts.choice = ExecChoice{};
    facts.choice->mechanism = ExecMechanism::stateDirectory;
    facts.choice->base = "/nix/var/nix/builds";
    EXPECT_EQ(summary(judgeBuildDirectory(facts)),
              (Lines{"ok build-directory", "limit build-directory-execution"}));
}

/// What the remedy is for each mechanism that is worse than it could be.
std::string remedyOf(ExecMechanism mechanism, bool mayMount, bool noexec = true) {
    BuildDirectoryFacts facts = noexecDirectory();
    facts.directory.mount.noexec = noexec;
    facts.mayMount = mayMount;
    facts.choice = ExecChoice{};
    facts.choice->mechanism = mechanism;
    return judgeBuildDirectory(facts).at(1).remedy;
}

TEST(DoctorBuildDirectory, MemoryIsLeftByTheSettingWhoeverAsks) {
    for (bool mayMount : {false, true}) {
        std::string remedy = remedyOf(ExecMechanism::tmpfs, mayMount);
        EXPECT_NE(remedy.find("'noexec-build-dir = mount'"), std::string::npos) << remedy;
        EXPECT_NE(remedy.find("mount '/tmp' without noexec"), std::string::npos) << remedy;
        EXPECT_NE(remedy.find("'build-dir'"), std::string::npos) << remedy;
        EXPECT_EQ(remedy.find("as root"), std::string::npos) << remedy;
    }
}

TEST(DoctorBuildDirectory, RootIsARemedyOnlyForWhoLacksItsRightsAndOnlyForAFlag) {
    EXPECT_NE(remedyOf(ExecMechanism::stateDirectory, false).find("as root of the host"), std::string::npos);
    EXPECT_EQ(remedyOf(ExecMechanism::stateDirectory, true).find("as root"), std::string::npos);
    std::string remedy = remedyOf(ExecMechanism::stateDirectory, false, /*noexec=*/false);
    EXPECT_EQ(remedy.find("as root"), std::string::npos) << remedy;
    EXPECT_EQ(remedy.find("without noexec"), std::string::npos) << remedy;
    EXPECT_NE(remedy.find("security policy"), std::string::npos) << remedy;
}

TEST(DoctorBuildDirectory, NothingIsToBeRemediedWhereAMechanismWorks) {
    for (ExecMechanism mechanism : {ExecMechanism::direct, ExecMechanism::bindMount,
                                    ExecMechanism::classicBindMount, ExecMechanism::overlay}) {
        EXPECT_EQ(remedyOf(mechanism, false), "");
        EXPECT_EQ(remedyOf(mechanism, true), "");
    }
}

TEST(DoctorBuildDirectory, ARefusalIsAnErrorWithItsRemedies) {
    BuildDirectoryFacts facts = noexecDirectory();
    facts.refusal = "programs cannot be executed there: x; y. Either mount it, or move.";
    Findings findings = judgeBuildDirectory(facts);
    EXPECT_EQ(summary(findings), (Lines{"ok build-directory", "error build-directory-execution"}));
    EXPECT_EQ(findings[1].text, "programs cannot be executed there: x; y");
    EXPECT_EQ(findings[1].remedy, "mount it, or move.");
}

TEST(DoctorBuildDirectory, AWayThatIsClosedToBuildUsersIsToldWhereTheyNeedIt) {
    BuildDirectoryFacts facts = noexecDirectory();
    facts.closed = "/root";
    EXPECT_EQ(summary(judgeBuildDirectory(facts)), (Lines{"ok build-directory"}));
    facts.sandbox = SandboxMode::relaxed;
    EXPECT_EQ(summary(judgeBuildDirectory(facts)),
              (Lines{"ok build-directory", "limit build-directory-reach"}));
    facts.sandbox = SandboxMode::disabled;
    Findings findings = judgeBuildDirectory(facts);
    EXPECT_EQ(summary(findings), (Lines{"ok build-directory", "error build-directory-reach"}));
    EXPECT_NE(findings[1].remedy.find("chmod o+x '/root'"), std::string::npos);
}

TEST(DoctorBuildDirectory, LookingLeavesNothingBehind) {
    char name[] = "/tmp/firn-doctor-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    std::filesystem::path top = std::filesystem::canonical(name);
    Locations places;
    places.storeDir = StoreDir((top / "store").string());
    places.stateDir = top / "a" / "state";
    Settings settings;
    settings.buildDir = top / "b" / "builds";
    const char *program = getenv("FIRN_SANDBOX_INIT");
    BuildDirectoryFacts facts =
        lookAtBuildDirectory(places, settings, program ? program : FIRN_SANDBOX_INIT_PATH);
    ASSERT_TRUE(facts.choice) << facts.refusal;
    EXPECT_EQ(facts.choice->mechanism, ExecMechanism::direct);
    EXPECT_FALSE(facts.directory.exists);
    EXPECT_TRUE(std::filesystem::is_empty(top));
    removeTree(AT_FDCWD, top);
}

// ---- build users

BuildUsersFacts pool(unsigned count) {
    BuildUsersFacts facts{.daemonUid = 0, .group = "nixbld", .groupExists = true, .members = {}};
    for (unsigned i = 1; i <= count; i++) {
        facts.members.push_back({"nixbld" + std::to_string(i), true, 30000 + i, "/usr/sbin/nologin", false});
    }
    return facts;
}

TEST(DoctorBuildUsers, AWholePoolIsOneLine) {
    EXPECT_EQ(summary(judgeBuildUsers(pool(4), 4)), (Lines{"ok build-users"}));
    EXPECT_EQ(summary(judgeBuildUsers(pool(3), 4)), (Lines{"limit build-users"}));
}

TEST(DoctorBuildUsers, AMissingGroupAndAnEmptyOneAreErrorsThatSayHowToMakeIt) {
    BuildUsersFacts facts = pool(0);
    Findings findings = judgeBuildUsers(facts, 1);
    EXPECT_EQ(summary(findings), (Lines{"error build-users"}));
    EXPECT_NE(findings[0].remedy.find("useradd"), std::string::npos);
    facts.groupExists = false;
    EXPECT_NE(judgeBuildUsers(facts, 1)[0].remedy.find("groupadd -r nixbld"), std::string::npos);
    facts.group = "";
    EXPECT_EQ(summary(judgeBuildUsers(facts, 1)), (Lines{"limit build-users"}));
    facts.daemonUid = 1000;
    EXPECT_EQ(summary(judgeBuildUsers(facts, 1)), (Lines{"ok build-users"}));
}

TEST(DoctorBuildUsers, MembersThatAreNoBuildUsersAreTold) {
    BuildUsersFacts facts = pool(6);
    facts.members[0].exists = false;
    facts.members[1].uid = 0;
    facts.members[2].loggedIn = true;
    facts.members[3].shell = "/bin/bash";
    facts.members[5].uid = facts.members[4].uid;
    EXPECT_EQ(summary(judgeBuildUsers(facts, 2)),
              (Lines{"limit build-users-shared", "ok build-users", "error build-user", "error build-user",
                     "limit build-user", "note build-user"}));
}

// ---- kernel and sandbox

TEST(DoctorKernel, MissingFeaturesComeWithWhatIsWorse) {
    KernelFacts facts{
        "Linux 5.4",
        {{"clone3", true, "", "", Level::limit}, {"mount_setattr", false, "slow", "upgrade", Level::limit}}};
    Findings findings = judgeKernel(facts);
    EXPECT_EQ(summary(findings), (Lines{"ok kernel", "limit kernel-feature"}));
    EXPECT_EQ(findings[0].text, "Linux 5.4 with clone3");
    EXPECT_EQ(findings[1].text, "no mount_setattr: slow");
    EXPECT_EQ(findings[0].details.at("mount_setattr"), "false");
}

TEST(DoctorSandbox, PathsThatDoNotExistAreErrorsUnlessOptional) {
    SandboxPathFacts shell{"/bin/sh=/b", "", "/bin/sh", "/b", false, 0};
    SandboxPathFacts missing{"/x", "", "/x", "/x", false, ENOENT};
    EXPECT_EQ(summary(judgeSandboxPaths({shell})), (Lines{"ok sandbox-path"}));
    EXPECT_EQ(summary(judgeSandboxPaths({shell, missing})), (Lines{"error sandbox-path"}));
    missing.optional = true;
    EXPECT_EQ(summary(judgeSandboxPaths({shell, missing})), (Lines{"ok sandbox-path"}));
    EXPECT_EQ(summary(judgeSandboxPaths({})), (Lines{"limit sandbox-shell"}));
}

// ---- settings

AppliedSettings applied(const std::vector<ConfigEntry> &entries) {
    return applyAll(Settings(), entries);
}

TEST(DoctorSettings, UnknownUnsupportedAndMalformedOnesAreToldWithTheirOrigin) {
    AppliedSettings result = applied({{"sandbx", "true", "nix.conf:3"},
                                      {"builders", "ssh://x", "nix.conf:4"},
                                      {"max-jobs", "many", "nix.conf:5"},
                                      {"cores", "3", "nix.conf:6"}});
    EXPECT_EQ(summary(result.findings),
              (Lines{"limit unknown-setting", "limit unsupported-setting", "error bad-setting"}));
    EXPECT_EQ(result.findings[0].details.at("origin"), "nix.conf:3");
    EXPECT_NE(result.findings[2].text.find("nix.conf:5"), std::string::npos);
    EXPECT_EQ(result.settings.cores, 3u);
}

TEST(DoctorSettings, ThoseOfNixThatADaemonNeedNotFollowAreFine) {
    EXPECT_EQ(summary(applied({{"builders", "", "a"},
                               {"warn-dirty", "false", "b"},
                               {"use-cgroups", "false", "c"},
                               {"extra-experimental-features", "flakes", "d"},
                               {"sandbox-fallback", "false", "e"}})
                          .findings),
              Lines{});
}

TEST(DoctorSettings, WhatFirnHasByNowIsFine) {
    EXPECT_EQ(summary(applied({{"run-diff-hook", "true", "a"},
                               {"diff-hook", "/bin/diff", "b"},
                               {"hashed-mirrors", "http://mirror", "c"},
                               {"netrc-file", "/etc/netrc", "d"}})
                          .findings),
              Lines{});
}

TEST(DoctorSettings, ExperimentalFeaturesThatAreMissingAreLimits) {
    Settings settings =
        applied({{"experimental-features",
                  "nix-command ca-derivations dynamic-derivations git-hashing recursive-nix", "a"}})
            .settings;
    settings.maxJobs = settings.machineMaxJobs = 2;
    Findings findings = judgeSettings(settings, 2);
    EXPECT_EQ(summary(findings), (Lines{"ok jobs", "limit unsupported-feature"}));
    EXPECT_EQ(findings[1].details.at("feature"), "recursive-nix");
}

TEST(DoctorSettings, WhatMakesADaemonUnsafeOrIdleIsALimit) {
    Settings settings;
    settings.maxJobs = settings.machineMaxJobs = 2;
    EXPECT_EQ(summary(judgeSettings(settings, 2)), (Lines{"ok jobs"}));
    settings.trustedUsers = {"*"};
    settings.requireSigs = false;
    settings.maxJobs = 0;
    EXPECT_EQ(summary(judgeSettings(settings, 2)),
              (Lines{"limit jobs", "limit trusted-everybody", "limit unsigned"}));
    settings = Settings();
    EXPECT_EQ(summary(judgeSettings(settings, 16)), (Lines{"note jobs"}));
    settings.sandbox = SandboxMode::disabled;
    settings.filterSyscalls = false;
    EXPECT_EQ(summary(judgeSandboxSettings(settings)),
              (Lines{"limit sandbox-setting", "limit syscall-filter"}));
}

} // namespace

} // namespace firn::doctor
