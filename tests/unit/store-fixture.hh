#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libstore/store/local-store.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"

namespace firn {

/// Keeps messages.
class MessageLogger : public Logger {
  public:
    void log(Verbosity, std::string_view message) override {
        std::unique_lock lock(mutex_);
        text_ += std::string(message) + "\n";
    }
    void startActivity(ActivityId, Verbosity, ActivityType, std::string_view, const LogFields &,
                       ActivityId) override {}
    void stopActivity(ActivityId) override {}
    void result(ActivityId, ResultType, const LogFields &) override {}
    std::string text() {
        std::unique_lock lock(mutex_);
        return text_;
    }

  private:
    std::mutex mutex_;
    std::string text_;
};

struct CommandResult {
    int status;
    std::string output; ///< standard output and error
};

/// A throw-away store, and the stock `nix-store` working on it directly as the oracle.
class StoreTest : public testing::Test {
  protected:
    void SetUp() override {
        char name[] = "/tmp/firn-unit-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        root = std::filesystem::canonical(name);
        std::filesystem::create_directory(root / "etc");
        std::ofstream(root / "etc/nix.conf") << "build-users-group =\nsandbox = false\nsubstituters =\n";
        locations.storeDir = StoreDir((root / "store").string());
        locations.stateDir = root / "var";
        locations.logDir = root / "log";
        locations.confDir = root / "etc";
        locations.socketPath = root / "socket";
        settings.gcReservedSpace = 1 << 20;
    }

    void TearDown() override {
        store.reset();
        auto dir = openDirectory(root.parent_path());
        removeTree(dir.get(), root.filename().string());
    }

    LocalStore &open() {
        if (!store) {
            store = std::make_unique<LocalStore>(locations, settings, logger);
        }
        return *store;
    }

    /// Environment of a stock command, as shell words.
    std::string environment() const {
        auto dir = root.string();
        return "cd " + dir + " && env -u NIX_REMOTE -u NIX_CONFIG -u NIX_STORE HOME=" + dir +
               " NIX_STORE_DIR=" + dir + "/store NIX_STATE_DIR=" + dir + "/var NIX_LOG_DIR=" + dir +
               "/log NIX_CONF_DIR=" + dir + "/etc ";
    }

    CommandResult run(const std::string &command) const {
        FILE *pipe = popen(("exec 2>&1; " + environment() + "sh -c '" + command + "'").c_str(), "r");
        std::string output;
        char buffer[4096];
        for (size_t size; (size = fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
            output.append(buffer, size);
        }
        int status = pclose(pipe);
        while (!output.empty() && output.back() == '\n') {
            output.pop_back();
        }
        return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
    }

    /// Output of a command that must succeed.
    std::string stock(const std::string &command) const {
        auto result = run(command);
        EXPECT_EQ(result.status, 0) << command << ":\n" << result.output;
        return result.output;
    }

    void expectStockIsContent() const {
        auto result = run("nix-store --verify --check-contents");
        EXPECT_EQ(result.status, 0) << result.output;
        EXPECT_EQ(result.output.find("error"), std::string::npos) << result.output;
        EXPECT_EQ(result.output.find("modified"), std::string::npos) << result.output;
        EXPECT_EQ(result.output.find("disappeared"), std::string::npos) << result.output;
    }

    void write(const std::string &name, const std::string &content, mode_t mode = 0644) const {
        std::filesystem::create_directories((root / name).parent_path());
        std::ofstream(root / name) << content;
        chmod((root / name).c_str(), mode);
    }

    std::string narOf(const std::string &name) const {
        StringSink nar;
        dumpNar(AT_FDCWD, (root / name).string(), nar);
        return nar.text;
    }

    std::string print(const StorePath &path) const { return locations.storeDir.print(path); }
    bool onDisk(const StorePath &path) const {
        return std::filesystem::exists(std::filesystem::symlink_status(print(path)));
    }

    PathInfo addText(const std::string &name, const std::string &text, const StorePathSet &references = {}) {
        return open().addText(name, text, references);
    }

    std::filesystem::path root;
    Locations locations;
    Settings settings;
    MessageLogger logger;
    std::unique_ptr<LocalStore> store;
};

/// Runs in a child process; its exit status (0 unless `action` throws).
template<typename Action>
pid_t inChild(Action action) {
    pid_t pid = fork();
    if (pid == 0) {
        try {
            action();
            _exit(0);
        } catch (const std::exception &error) {
            fprintf(stderr, "child: %s\n", error.what());
            _exit(1);
        }
    }
    return pid;
}

inline int waitFor(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

} // namespace firn
