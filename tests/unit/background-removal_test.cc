#include "libstore/build/background-removal.hh"

#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"
#include "unit/recording-logger.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

namespace fs = std::filesystem;

class BackgroundRemovalTest : public testing::Test {
  protected:
    BackgroundRemovalTest() {
        fs::create_directories(tmp_ / "store");
        fs::create_directories(tmp_ / "var" / "temproots");
        locations_.storeDir = StoreDir((tmp_ / "store").string());
        locations_.stateDir = tmp_ / "var";
        store_ = openDirectory(tmp_ / "store");
    }

    std::unique_ptr<ScratchStore> make() {
        auto made = std::make_unique<ScratchStore>(store_.get(), drv_, std::nullopt);
        fs::path inner = tmp_ / "store" / (drv_.baseName() + ".chroot") / "store";
        for (int i = 0; i < 20; ++i) {
            fs::create_directories(inner / "out" / std::to_string(i));
            std::ofstream(inner / "out" / std::to_string(i) / "file") << "text";
        }
        return made;
    }

    std::set<std::string> names() const {
        std::vector<std::string> list = listDirectory(store_.get());
        return {list.begin(), list.end()};
    }

    TemporaryDirectory tmp_;
    Locations locations_;
    UniqueFd store_;
    RecordingLogger logger_;
    const StorePath drv_{"1111111111111111111111111111111a-thing.drv"};
};

TEST_F(BackgroundRemovalTest, RemovesEverythingBeforeItEnds) {
    {
        BackgroundRemoval removal(locations_, logger_);
        for (int i = 0; i < 20; ++i) {
            removal.remove(make());
            // The next build of the derivation finds the name free.
            EXPECT_FALSE(names().contains(drv_.baseName() + ".chroot"));
        }
    }
    EXPECT_EQ(names().size(), 0u);
    EXPECT_TRUE(fs::is_empty(tmp_ / "var" / "temproots"));
    EXPECT_EQ(logger_.lines().size(), 0u);
}

TEST_F(BackgroundRemovalTest, NeedsNobodyElsesDescriptor) {
    {
        BackgroundRemoval removal(locations_, logger_);
        removal.remove(make());
        store_.reset();
    }
    EXPECT_TRUE(fs::is_empty(tmp_ / "store"));
    EXPECT_EQ(logger_.lines().size(), 0u);
}

TEST_F(BackgroundRemovalTest, CollectionsKeepOffUntilItIsDone) {
    std::set<std::string> roots;
    auto note = [&](const std::string &, const std::string &path) { roots.insert(path); };
    {
        BackgroundRemoval removal(locations_, logger_);
        removal.remove(make());
        readTempRoots(locations_.stateDir, false, note);
        ASSERT_EQ(roots.size(), 1u);
        EXPECT_TRUE(roots.begin()->ends_with("-firn-removed.drv.chroot")) << *roots.begin();
        EXPECT_TRUE(locations_.storeDir.tryParse(*roots.begin()));
    }
    roots.clear();
    readTempRoots(locations_.stateDir, false, note);
    EXPECT_EQ(roots.size(), 0u);
}

TEST_F(BackgroundRemovalTest, TellsWhatCannotBeRemoved) {
    if (geteuid() == 0) {
        GTEST_SKIP() << "root can remove it";
    }
    {
        BackgroundRemoval removal(locations_, logger_);
        removal.remove(make());
        // Nobody may change the store any more, so the last step fails.
        ASSERT_EQ(fchmod(store_.get(), 0555), 0);
    }
    ASSERT_EQ(fchmod(store_.get(), 0755), 0);
    // It may have been through before.
    EXPECT_EQ(logger_.lines().size(), names().size());
}

TEST_F(BackgroundRemovalTest, WhatAKilledProcessHasSetAsideIsSwept) {
    std::unique_ptr<ScratchStore> scratch = make();
    StorePath name = ScratchStore::nameAside();
    scratch->setAside(name);
    sweepScratchStores(store_.get(), logger_);
    EXPECT_EQ(names(), std::set<std::string>{name.baseName()}); // it is in use
    if (pid_t child = fork(); child == 0) {
        // One that ends without a word, with the lock on a store of its own.
        std::unique_ptr<ScratchStore> own = make();
        own->setAside(ScratchStore::nameAside());
        _exit(0);
    } else {
        waitpid(child, nullptr, 0);
    }
    EXPECT_EQ(names().size(), 2u);
    sweepScratchStores(store_.get(), logger_);
    EXPECT_EQ(names(), std::set<std::string>{name.baseName()});
    scratch.reset();
    EXPECT_EQ(names().size(), 0u);
}

TEST_F(BackgroundRemovalTest, AnEmptyScratchStoreIsRemovedAtOnce) {
    auto empty = std::make_unique<ScratchStore>(store_.get(), drv_, std::nullopt);
    EXPECT_TRUE(empty->removeIfEmpty());
    EXPECT_EQ(names().size(), 0u);
    std::unique_ptr<ScratchStore> full = make();
    EXPECT_FALSE(full->removeIfEmpty());
    EXPECT_EQ(names().size(), 1u);
}

} // namespace
} // namespace firn
