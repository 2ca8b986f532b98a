#include "unit/store-fixture.hh"

#include "libstore/store/path-locks.hh"

namespace firn {

namespace {

class PathLocksTest : public StoreTest {
  protected:
    void SetUp() override {
        StoreTest::SetUp();
        dir = openDirectory(root);
    }
    UniqueFd dir;
};

} // namespace

TEST_F(PathLocksTest, SecondHolderIsRefusedUntilTheFirstReleases) {
    auto first = PathLocks::tryLock(dir.get(), {"a.lock", "b.lock"});
    ASSERT_TRUE(first);
    EXPECT_FALSE(PathLocks::tryLock(dir.get(), {"b.lock"}));
    // All or nothing: c is not left locked.
    EXPECT_FALSE(PathLocks::tryLock(dir.get(), {"b.lock", "c.lock"}));
    EXPECT_TRUE(PathLocks::tryLock(dir.get(), {"c.lock"}));
    first->release();
    EXPECT_TRUE(PathLocks::tryLock(dir.get(), {"b.lock"}));
}

TEST_F(PathLocksTest, LockFileIsDeletedOnlyWhenAsked) {
    PathLocks::lock(dir.get(), {"a.lock"});
    EXPECT_TRUE(existsAt(dir.get(), "a.lock"));
    auto lock = PathLocks::lock(dir.get(), {"a.lock"});
    lock.setDeletion(true);
    auto moved = std::move(lock);
    lock.release();
    EXPECT_TRUE(existsAt(dir.get(), "a.lock"));
    moved.release();
    EXPECT_FALSE(existsAt(dir.get(), "a.lock"));
}

TEST_F(PathLocksTest, StaleLockFileIsMadeAnew) {
    write("a.lock", "d");
    auto lock = PathLocks::tryLock(dir.get(), {"a.lock"});
    ASSERT_TRUE(lock);
    struct stat st;
    ASSERT_TRUE(statAt(dir.get(), "a.lock", st));
    EXPECT_EQ(st.st_size, 0);
}

TEST_F(PathLocksTest, WaiterOfADeletedLockTakesTheNewOne) {
    auto first = PathLocks::lock(dir.get(), {"a.lock"});
    first.setDeletion(true);
    Pipe locked = makePipe(), done = makePipe();
    auto child = inChild([&] {
        auto second = PathLocks::lock(dir.get(), {"a.lock"});
        writeFull(locked.writeEnd.get(), "x");
        char c;
        [[maybe_unused]] auto size = read(done.readEnd.get(), &c, 1);
    });
    usleep(100'000);
    first.release();
    char c;
    ASSERT_EQ(read(locked.readEnd.get(), &c, 1), 1);
    // The child's lock is on the file that has the name now.
    EXPECT_FALSE(PathLocks::tryLock(dir.get(), {"a.lock"}));
    writeFull(done.writeEnd.get(), "x");
    EXPECT_EQ(waitFor(child), 0);
    EXPECT_TRUE(PathLocks::tryLock(dir.get(), {"a.lock"}));
}

TEST_F(PathLocksTest, SymlinkInPlaceOfALockFileIsNotFollowed) {
    std::filesystem::create_symlink(root / "target", root / "a.lock");
    EXPECT_THROW(PathLocks::lock(dir.get(), {"a.lock"}), Error);
    EXPECT_FALSE(std::filesystem::exists(root / "target"));
}

TEST_F(PathLocksTest, CountersStayExactBetweenProcesses) {
    write("counter", "0");
    std::vector<pid_t> children;
    for (int i = 0; i < 4; i++) {
        children.push_back(inChild([&] {
            for (int round = 0; round < 100; round++) {
                auto lock = PathLocks::lock(dir.get(), {"c.lock"});
                lock.setDeletion(round % 2 == 0);
                auto value = std::stoi(readFile(root / "counter"));
                writeFile(root / "counter", std::to_string(value + 1));
            }
        }));
    }
    for (auto pid : children) {
        EXPECT_EQ(waitFor(pid), 0);
    }
    EXPECT_EQ(readFile(root / "counter"), "400");
}

} // namespace firn
