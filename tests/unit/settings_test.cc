#include "unit/store-fixture.hh"

#include <thread>

#include "libstore/store/settings.hh"

namespace firn {

namespace {

class SettingsTest : public StoreTest {
  protected:
    Settings load(const std::string &text) {
        write("etc/nix.conf", text);
        unsetenv("NIX_CONFIG");
        return loadSettings(locations, logger);
    }
    void expectBad(const std::string &name, const std::string &value) {
        Settings settings;
        EXPECT_THROW(applySetting(settings, name, value), Error) << name << " = " << value;
    }
};

} // namespace

TEST_F(SettingsTest, DefaultsAreStocks) {
    auto settings = load("");
    EXPECT_EQ(settings.maxJobs, 1);
    EXPECT_EQ(settings.sandbox, SandboxMode::enabled);
    EXPECT_EQ(settings.buildUsersGroup, geteuid() == 0 ? "nixbld" : "");
    auto shown =
        stock("env NIX_CONF_DIR=/nonexistent nix --extra-experimental-features nix-command show-config");
    EXPECT_NE(shown.find("\nsystem = " + settings.system + "\n"), std::string::npos);
    std::string features, platforms;
    for (auto &feature : settings.systemFeatures) {
        features += " " + feature;
    }
    for (auto &platform : settings.extraPlatforms) {
        // Stock 2.8's libcpuid does not know every processor's AVX-512.
        if (platform != "x86_64-v4-linux" || shown.find(platform) != std::string::npos) {
            platforms += " " + platform;
        }
    }
    EXPECT_NE(shown.find("\nsystem-features =" + features + "\n"), std::string::npos) << features;
    EXPECT_NE(shown.find("\nextra-platforms =" + platforms + "\n"), std::string::npos) << platforms;
    ASSERT_EQ(settings.trustedPublicKeys.size(), 1);
    EXPECT_NE(shown.find("\ntrusted-public-keys = " + *settings.trustedPublicKeys.begin() + "\n"),
              std::string::npos);
}

TEST_F(SettingsTest, FileAliasesExtrasAndEnvironmentAreRead) {
    write("etc/more.conf", "build-max-jobs = 7\n");
    write("etc/nix.conf", "include more.conf\n!include missing.conf\nbuild-use-sandbox = relaxed\n"
                          "trusted-users = root @wheel # comment\nextra-trusted-users = alice\n"
                          "gc-keep-outputs = yes\nunknown-name = whatever\nbinary-cache-public-keys = k:v\n"
                          "extra-sandbox-paths = /etc/x\ngc-reserved-space = 2M\nbuild-dir = /var/tmp/b\n");
    setenv("NIX_CONFIG", "cores = 3\nextra-experimental-features = ca-derivations", 1);
    auto settings = loadSettings(locations, logger);
    unsetenv("NIX_CONFIG");
    EXPECT_EQ(settings.maxJobs, 7);
    EXPECT_EQ(settings.sandbox, SandboxMode::relaxed);
    EXPECT_EQ(settings.trustedUsers, (std::set<std::string>{"root", "@wheel", "alice"}));
    EXPECT_TRUE(settings.keepOutputs);
    EXPECT_EQ(settings.trustedPublicKeys, std::set<std::string>{"k:v"});
    EXPECT_EQ(settings.sandboxPaths.back(), "/etc/x");
    EXPECT_EQ(settings.gcReservedSpace, 2 << 20);
    EXPECT_EQ(settings.buildDir, "/var/tmp/b");
    EXPECT_EQ(settings.cores, 3);
    EXPECT_TRUE(settings.experimentalFeatures.contains("ca-derivations"));
    EXPECT_NE(logger.text().find("unknown-name"), std::string::npos);
}

TEST_F(SettingsTest, MalformedValuesAreErrorsWithTheirPlace) {
    try {
        load("cores = 1\nmax-jobs = many\n");
        FAIL();
    } catch (const Error &error) {
        EXPECT_NE(error.message().find("nix.conf:2"), std::string::npos) << error.message();
        EXPECT_NE(error.message().find("max-jobs"), std::string::npos) << error.message();
    }
    expectBad("sandbox", "maybe");
    expectBad("keep-going", "");
    expectBad("cores", "-1");
    expectBad("cores", "4294967296");
    expectBad("timeout", "99999999999999999999");
    expectBad("max-build-log-size", "9999999999T");
    expectBad("timeout", "K");
    expectBad("build-dir", "relative");
    expectBad("noexec-build-dir", "maybe");
    expectBad("noexec-build-dir", "");
    for (const char *size : {"", "0", "0%", "G", "2X", "2G,uid=0", "-1", "50%%"}) {
        expectBad("noexec-tmpfs-size", size);
    }
    expectBad("macho-signatures", "maybe");
    expectBad("macho-signatures", "");
    expectBad("diff-hook", "relative");
    expectBad("run-diff-hook", "perhaps");
    expectBad("diff-hook-timeout", "soon");
    expectBad("check-repeat", "-1");
}

TEST_F(SettingsTest, NoexecBuildDirectoriesAreMountedUnlessSomethingElseIsSaid) {
    Settings settings;
    EXPECT_EQ(settings.noexecBuildDir, NoexecBuildDir::mount);
    applySetting(settings, "noexec-build-dir", "tmpfs");
    EXPECT_EQ(settings.noexecBuildDir, NoexecBuildDir::tmpfs);
    applySetting(settings, "noexec-build-dir", "refuse");
    EXPECT_EQ(settings.noexecBuildDir, NoexecBuildDir::refuse);
    for (const char *size : {"1", "4096k", "2G", "25%"}) {
        applySetting(settings, "noexec-tmpfs-size", size);
        EXPECT_EQ(settings.noexecTmpfsSize, size);
    }
}

TEST_F(SettingsTest, MachOSignaturesAreRepairedUnlessSomethingElseIsSaid) {
    Settings settings;
    EXPECT_EQ(settings.machoSignatures, MachoSignatures::repair);
    applySetting(settings, "macho-signatures", "warn");
    EXPECT_EQ(settings.machoSignatures, MachoSignatures::warn);
    applySetting(settings, "macho-signatures", "refuse");
    EXPECT_EQ(settings.machoSignatures, MachoSignatures::refuse);
    applySetting(settings, "macho-signatures", "repair");
    EXPECT_EQ(settings.machoSignatures, MachoSignatures::repair);
}

TEST_F(SettingsTest, ChecksRunNoHookAndBuildOnceUnlessSomethingElseIsSaid) {
    Settings settings;
    EXPECT_EQ(settings.diffHook, "");
    EXPECT_FALSE(settings.runDiffHook);
    EXPECT_EQ(settings.checkRepeat, 0u);
    applySetting(settings, "diff-hook", "/bin/diff");
    applySetting(settings, "run-diff-hook", "true");
    applySetting(settings, "diff-hook-timeout", "7");
    applySetting(settings, "check-repeat", "3");
    EXPECT_EQ(settings.diffHook, "/bin/diff");
    EXPECT_TRUE(settings.runDiffHook);
    EXPECT_EQ(settings.diffHookTimeout, 7u);
    EXPECT_EQ(settings.checkRepeat, 3u);
}

TEST_F(SettingsTest, AutoMeansProcessors) {
    Settings settings;
    EXPECT_EQ(applySetting(settings, "max-jobs", "auto"), ApplyResult::applied);
    EXPECT_EQ(settings.maxJobs, std::thread::hardware_concurrency());
    EXPECT_EQ(applySetting(settings, "max-jobs", "0"), ApplyResult::applied);
    EXPECT_EQ(settings.maxJobs, 0);
    EXPECT_EQ(applySetting(settings, "extra-max-jobs", "2"), ApplyResult::unknown);
    EXPECT_EQ(applySetting(settings, "no-such-name", "x"), ApplyResult::unknown);
}

TEST_F(SettingsTest, UntrustedClientsMaySetLittle) {
    for (auto *name : {"timeout", "build-timeout", "max-silent-time", "connect-timeout"}) {
        EXPECT_TRUE(isSafeForUntrusted(name)) << name;
    }
    for (auto *name : {"sandbox", "sandbox-paths", "trusted-users", "post-build-hook", "build-dir",
                       "substituters", "require-sigs", "extra-sandbox-paths", "builders", "build-users-group",
                       "secret-key-files", "macho-signatures", "diff-hook", "run-diff-hook",
                       "diff-hook-timeout", "check-repeat", "noexec-build-dir", "noexec-tmpfs-size"}) {
        EXPECT_FALSE(isSafeForUntrusted(name)) << name;
    }
    EXPECT_TRUE(isFixedPerConnection("experimental-features"));
    EXPECT_TRUE(isFixedPerConnection("extra-experimental-features"));
    EXPECT_TRUE(isFixedPerConnection("trusted-users"));
    EXPECT_FALSE(isFixedPerConnection("sandbox"));
}

TEST_F(SettingsTest, UserListsKnowUsersGroupsAndEverybody) {
    EXPECT_TRUE(matchesUserList({"alice"}, "alice", {}));
    EXPECT_TRUE(matchesUserList({"@wheel"}, "alice", {"wheel"}));
    EXPECT_TRUE(matchesUserList({"*"}, "anybody", {}));
    EXPECT_FALSE(matchesUserList({"wheel", "@users"}, "alice", {"wheel"}));
    EXPECT_FALSE(matchesUserList({}, "root", {"root"}));
}

TEST_F(SettingsTest, LocationsComeFromTheEnvironment) {
    auto child = inChild([&] {
        for (auto *name : {"NIX_STORE_DIR", "NIX_STORE", "NIX_STATE_DIR", "NIX_LOCALSTATE_DIR", "NIX_LOG_DIR",
                           "NIX_CONF_DIR", "NIX_DAEMON_SOCKET_PATH"}) {
            unsetenv(name);
        }
        auto expect = [](bool fine) {
            if (!fine) {
                throw Error(ErrorKind::failure, "wrong location");
            }
        };
        auto plain = Locations::fromEnvironment();
        expect(plain.storeDir.str() == "/nix/store" && plain.stateDir == "/nix/var/nix" &&
               plain.socketPath == "/nix/var/nix/daemon-socket/socket" && plain.logDir == "/nix/var/log/nix");
        setenv("NIX_STORE_DIR", "/tmp//s/", 1);
        setenv("NIX_STORE", "", 1);
        setenv("NIX_STATE_DIR", "/tmp/v", 1);
        setenv("NIX_CONF_DIR", "", 1);
        auto set = Locations::fromEnvironment();
        expect(set.storeDir.str() == "/tmp/s" && set.stateDir == "/tmp/v" && set.confDir == "/etc/nix" &&
               set.socketPath == "/tmp/v/daemon-socket/socket");
    });
    EXPECT_EQ(waitFor(child), 0);
}

} // namespace firn
