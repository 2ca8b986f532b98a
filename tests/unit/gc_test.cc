#include "unit/store-fixture.hh"

#include <atomic>
#include <sstream>
#include <thread>

#include "libstore/store/path-locks.hh"
#include "libstore/store/temp-roots.hh"

namespace firn {

namespace {

class GcTest : public StoreTest {
  protected:
    GcResults collect(GcOptions::Action action = GcOptions::Action::deleteDead) {
        return open().collectGarbage(
            {.action = action, .ignoreLiveness = false, .pathsToDelete = {}, .maxFreed = UINT64_MAX});
    }

    /// Adds a text in a process of its own, so that no temporary root stays.
    StorePath addUnrooted(const std::string &name, const std::string &text,
                          const StorePathSet &references = {}) {
        auto path = makeContentAddressedPath(locations.storeDir, name,
                                             {ContentMethod::text, hashString(HashAlgorithm::sha256, text)},
                                             {references, false});
        EXPECT_EQ(waitFor(inChild(
                      [&] { LocalStore(locations, settings, logger).addText(name, text, references); })),
                  0);
        return path;
    }

    std::string stockGc() { return stock("nix-store --gc"); }
};

} // namespace

TEST_F(GcTest, DeadPathsGoAndLiveOnesStay) {
    auto a = addUnrooted("a", "a");
    auto b = addUnrooted("b", print(a), {a});
    auto dead = addUnrooted("dead", "dead");
    std::filesystem::create_symlink(print(b), root / "var/gcroots/mine");
    auto live = collect(GcOptions::Action::returnLive).paths;
    EXPECT_EQ(live, (std::set<std::string>{print(a), print(b)}));
    EXPECT_EQ(collect(GcOptions::Action::returnDead).paths, std::set<std::string>{print(dead)});
    auto results = collect();
    EXPECT_EQ(results.paths, std::set<std::string>{print(dead)});
    EXPECT_GT(results.bytesFreed, 0);
    EXPECT_TRUE(onDisk(a) && onDisk(b) && !onDisk(dead));
    expectStockIsContent();
}

TEST_F(GcTest, LiveAndDeadAreWhatStockSays) {
    write("d.nix",
          "let mk = n: args: derivation ({ name = n; system = builtins.currentSystem; builder = \"/bin/sh\"; "
          "args = [ \"-c\" \"echo $dep $name > $out\" ]; } // args); in { a = mk \"a\" {}; b = mk \"b\" { "
          "dep = mk \"c\" {}; }; }");
    stock("nix-build -A b d.nix -o result 2>/dev/null && nix-build --no-out-link -A a d.nix 2>/dev/null");
    addUnrooted("x", "x");
    auto lines = [](const std::string &text) {
        std::set<std::string> set;
        std::istringstream stream(text);
        for (std::string line; std::getline(stream, line);) {
            set.insert(line);
        }
        return set;
    };
    for (bool keepOutputs : {false, true}) {
        for (bool keepDerivations : {true, false}) {
            settings.keepOutputs = keepOutputs;
            settings.keepDerivations = keepDerivations;
            auto options = std::string(" --option keep-outputs ") + (keepOutputs ? "true" : "false") +
                           " --option keep-derivations " + (keepDerivations ? "true" : "false") +
                           " 2>/dev/null";
            EXPECT_EQ(collect(GcOptions::Action::returnLive).paths,
                      lines(stock("nix-store --gc --print-live" + options)));
            EXPECT_EQ(collect(GcOptions::Action::returnDead).paths,
                      lines(stock("nix-store --gc --print-dead" + options)));
        }
    }
}

TEST_F(GcTest, IndirectRootsLiveAsLongAsTheirLink) {
    auto path = addUnrooted("a", "a");
    auto link = (root / "result").string();
    EXPECT_EQ(waitFor(inChild([&] { LocalStore(locations, settings, logger).addPermanentRoot(path, link); })),
              0);
    EXPECT_EQ(std::filesystem::read_symlink(link), print(path));
    stockGc();
    EXPECT_TRUE(onDisk(path));
    EXPECT_EQ(open().findRoots(false).at(link), StorePathSet{path});
    collect();
    EXPECT_TRUE(onDisk(path));
    // By stock: the same name in gcroots/auto.
    auto before = std::distance(std::filesystem::directory_iterator(root / "var/gcroots/auto"), {});
    stock("nix-store -r " + print(path) + " --add-root result 2>/dev/null");
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(root / "var/gcroots/auto"), {}), before);
    std::filesystem::remove(link);
    collect();
    EXPECT_FALSE(onDisk(path));
    EXPECT_TRUE(std::filesystem::is_empty(root / "var/gcroots/auto"));
}

TEST_F(GcTest, PermanentRootNeverReplacesSomethingElse) {
    auto path = addText("a", "a").path;
    write("precious", "data");
    EXPECT_THROW(open().addPermanentRoot(path, (root / "precious").string()), Error);
    EXPECT_THROW(open().addPermanentRoot(path, "relative"), Error);
    EXPECT_THROW(open().addPermanentRoot(path, print(path) + "-link"), Error);
    EXPECT_EQ(readFile(root / "precious"), "data");
}

TEST_F(GcTest, TemporaryRootProtectsFromStock) {
    auto path = addText("a", "a").path;
    stockGc();
    EXPECT_TRUE(onDisk(path));
    EXPECT_TRUE(open().isValidPath(path));
    store.reset();
    stockGc();
    EXPECT_FALSE(onDisk(path));
}

TEST_F(GcTest, StocksTemporaryRootProtectsFromUs) {
    // As stock writes it, by a process that holds the lock.
    auto path = addUnrooted("a", "a");
    auto lockName = print(path) + ".lock", chroot = print(path) + ".chroot";
    Pipe ready = makePipe(), done = makePipe();
    auto child = inChild([&] {
        UniqueFd fd(
            ::open((root / "var/temproots" / std::to_string(getpid())).c_str(), O_RDWR | O_CREAT, 0600));
        lockFile(fd.get(), LockMode::exclusive, true);
        auto text = print(path);
        writeFull(fd.get(), std::string_view(text.c_str(), text.size() + 1));
        writeFull(ready.writeEnd.get(), "x");
        char c;
        [[maybe_unused]] auto size = read(done.readEnd.get(), &c, 1);
    });
    char c;
    ASSERT_EQ(read(ready.readEnd.get(), &c, 1), 1);
    write(std::filesystem::relative(lockName, root).string(), "");
    std::filesystem::create_directory(chroot);
    EXPECT_TRUE(collect().paths.empty());
    EXPECT_TRUE(onDisk(path));
    EXPECT_TRUE(std::filesystem::exists(lockName));
    EXPECT_TRUE(std::filesystem::exists(chroot));
    EXPECT_EQ(open().findRoots(false).at("{temp:" + std::to_string(child) + "}"), StorePathSet{path});
    EXPECT_TRUE(open().findRoots(true).contains("{censored}"));
    writeFull(done.writeEnd.get(), "x");
    EXPECT_EQ(waitFor(child), 0);
    // Dead now: the file it left is stale.
    EXPECT_EQ(collect().paths, (std::set<std::string>{print(path), lockName, chroot}));
    EXPECT_FALSE(std::filesystem::exists(root / "var/temproots" / std::to_string(child)));
}

TEST_F(GcTest, LeftoversAreRemovedButNotWhatIsLocked) {
    open();
    write("store/junk/deep/file", "x");
    write("store/tmp-1-2/file", "x");
    write("store/tmp-3-4/file", "x");
    std::filesystem::create_symlink("/etc", root / "store/link");
    auto building = StorePath(std::string(20, 'b'), "being-built");
    write("store/" + building.baseName(), "half");
    auto lock = PathLocks::lock(open().storeFd(), {building.baseName() + ".lock"});
    auto locked = openDirectory(root / "store/tmp-3-4");
    ASSERT_TRUE(lockFile(locked.get(), LockMode::exclusive, false));
    collect();
    EXPECT_FALSE(std::filesystem::exists(root / "store/junk"));
    EXPECT_FALSE(std::filesystem::exists(root / "store/tmp-1-2"));
    EXPECT_FALSE(std::filesystem::is_symlink(root / "store/link"));
    EXPECT_TRUE(std::filesystem::exists("/etc/passwd"));
    EXPECT_TRUE(std::filesystem::exists(root / "store/tmp-3-4/file"));
    EXPECT_TRUE(onDisk(building));
    EXPECT_TRUE(std::filesystem::exists(print(building) + ".lock"));
    lock.release();
    collect();
    EXPECT_FALSE(onDisk(building));
}

TEST_F(GcTest, DeletingSpecificPathsRefusesLiveOnesInStocksWords) {
    auto a = addUnrooted("a", "a");
    auto b = addUnrooted("b", print(a), {a});
    auto del = [&](StorePathSet paths) {
        return open().collectGarbage(
            {GcOptions::Action::deleteSpecific, false, std::move(paths), UINT64_MAX});
    };
    try {
        del({a});
        FAIL();
    } catch (const Error &error) {
        EXPECT_EQ(error.message(),
                  "Cannot delete path '" + print(a) +
                      "' since it is still alive. To find out why, use: nix-store --query --roots");
    }
    EXPECT_EQ(del({a, b}).paths, (std::set<std::string>{print(a), print(b)}));
    auto rooted = addText("c", "c").path;
    EXPECT_THROW(del({rooted}), Error);
}

TEST_F(GcTest, MaxFreedStopsEarly) {
    for (int i = 0; i < 10; i++) {
        addUnrooted("big" + std::to_string(i), std::string(100'000, 'x') + std::to_string(i));
    }
    auto results = open().collectGarbage({GcOptions::Action::deleteDead, false, {}, 250'000});
    EXPECT_GE(results.bytesFreed, 250'000);
    EXPECT_EQ(results.paths.size(), 3);
    EXPECT_EQ(open().queryAllValidPaths().size(), 7);
}

TEST_F(GcTest, RunningProcessesAreRoots) {
    std::vector<StorePath> paths;
    for (std::string name : {"environ", "cwd-not", "open", "dead"}) {
        paths.push_back(addUnrooted(name, name));
    }
    Pipe done = makePipe();
    auto child = inChild([&] {
        UniqueFd fd(::open(print(paths[2]).c_str(), O_RDONLY));
        dup2(done.readEnd.get(), 0);
        auto variable = "X=/bin:" + print(paths[0]) + "/bin";
        char *const variables[] = {variable.data(), nullptr};
        execle("/bin/cat", "cat", nullptr, variables);
    });
    for (int i = 0; i < 500 && readFile("/proc/" + std::to_string(child) + "/comm") != "cat\n"; i++) {
        usleep(10'000);
    }
    auto roots = open().findRoots(false);
    EXPECT_TRUE(roots.contains("/proc/" + std::to_string(child) + "/environ"));
    EXPECT_TRUE(open().findRoots(true).contains("{censored}"));
    collect();
    EXPECT_TRUE(onDisk(paths[0]));
    EXPECT_TRUE(onDisk(paths[2]));
    EXPECT_FALSE(onDisk(paths[3]));
    done.writeEnd.reset();
    waitFor(child);
}

TEST_F(GcTest, GarbageAmongTheRootsIsHarmless) {
    auto path = addUnrooted("a", "a");
    write("var/gcroots/junk/file", "x");
    write("var/gcroots/" + path.baseName(), "");
    std::filesystem::create_symlink("loop", root / "var/gcroots/loop");
    std::filesystem::create_symlink("../../..", root / "var/gcroots/up");
    std::filesystem::create_symlink("/nonexistent", root / "var/gcroots/gone");
    std::filesystem::create_symlink((root / "store").string() + "/nothing", root / "var/gcroots/no-path");
    std::filesystem::create_symlink((root / "store").string() + "/.links", root / "var/gcroots/links");
    mkfifo((root / "var/gcroots/fifo").c_str(), 0600);
    write("var/temproots/garbage", "no path at all");
    write("var/temproots/.hidden", "x");
    write("var/temproots/999999999", std::string("/nowhere\0", 9));
    collect();
    EXPECT_TRUE(onDisk(path));
    EXPECT_TRUE(std::filesystem::is_symlink(root / "var/gcroots/gone"));
    EXPECT_FALSE(std::filesystem::exists(root / "var/temproots/999999999"));
}

TEST_F(GcTest, RootsAreAnnouncedToARunningCollectionOfStock) {
    // A stock collection that cannot finish: it blocks on a FIFO among the process files? No: a pipe as its
    // standard error that nobody reads blocks it after 64 KiB of messages.
    for (int i = 0; i < 1000; i++) {
        write("store/junk" + std::to_string(i) + std::string(100, 'j'), "");
    }
    open();
    Pipe messages = makePipe();
    auto child = inChild([&] {
        dup2(messages.writeEnd.get(), 2);
        auto command = environment() + "nix-store --gc >/dev/null";
        execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    });
    messages.writeEnd.reset();
    while (!std::filesystem::exists(root / "var/gc-socket/socket")) {
        usleep(1000);
    }
    usleep(300'000);
    auto path = addText("during", "collection").path;
    EXPECT_TRUE(onDisk(path));
    char buffer[65536];
    while (read(messages.readEnd.get(), buffer, sizeof buffer) > 0) {
    }
    EXPECT_EQ(waitFor(child), 0);
    EXPECT_TRUE(onDisk(path));
    EXPECT_TRUE(open().isValidPath(path));
    expectStockIsContent();
}

TEST_F(GcTest, StockAddsWhileACollectionOfOursRuns) {
    /// Blocks the collection at its first deletion.
    class Blocking : public MessageLogger {
      public:
        void log(Verbosity level, std::string_view message) override {
            MessageLogger::log(level, message);
            if (message.starts_with("deleting '")) {
                running = true;
                while (!go) {
                    usleep(1000);
                }
            }
        }
        std::atomic<bool> running = false, go = false;
    } blocking;
    addUnrooted("dead", "dead");
    LocalStore collecting(locations, settings, blocking);
    std::thread thread([&] { collecting.collectGarbage({}); });
    while (!blocking.running) {
        usleep(1000);
    }
    write("a", "added meanwhile");
    write("hold.sh", "p=$(nix-store --add a) && echo $p");
    std::string added = stock("timeout 20 sh hold.sh");
    auto mine = addText("mine", "mine").path;
    blocking.go = true;
    thread.join();
    EXPECT_TRUE(onDisk(mine));
    EXPECT_TRUE(open().isValidPath(locations.storeDir.parse(added)));
    expectStockIsContent();
    EXPECT_FALSE(std::filesystem::exists(root / "var/gc-socket/socket"));
}

TEST_F(GcTest, AddingGoesOnUnderALoopOfBothCollections) {
    open();
    store.reset();
    std::atomic<bool> stop = false;
    std::thread stockLoop([&] {
        while (!stop) {
            stockGc();
        }
    });
    auto ours = inChild([&] {
        LocalStore collecting(locations, settings, logger);
        for (int i = 0; i < 40; i++) {
            collecting.collectGarbage({});
        }
    });
    std::vector<pid_t> adders;
    for (int worker = 0; worker < 2; worker++) {
        adders.push_back(inChild([&, worker] {
            LocalStore mine(locations, settings, logger);
            std::set<StorePath> added;
            for (int i = 0; i < 150; i++) {
                auto text = std::to_string(i % 50) + (i % 2 ? "" : std::to_string(worker));
                auto a = mine.addText("a", text, {}).path;
                auto b = mine.addText("b", mine.dir().print(a), {a}).path;
                StringSource content(text);
                auto c = mine.addContent("c", {ContentMethod::flat, HashAlgorithm::sha256}, content, {}).path;
                added.insert({a, b, c});
                for (auto &path : {a, b, c}) {
                    if (!mine.isValidPath(path) || access(mine.dir().print(path).c_str(), F_OK) != 0) {
                        throw Error(ErrorKind::failure, "'{}' vanished in round {}", mine.dir().print(path),
                                    i);
                    }
                }
            }
            for (auto &path : added) {
                if (!mine.isValidPath(path) || access(mine.dir().print(path).c_str(), F_OK) != 0) {
                    throw Error(ErrorKind::failure, "'{}' vanished", mine.dir().print(path));
                }
            }
        }));
    }
    for (auto pid : adders) {
        EXPECT_EQ(waitFor(pid), 0);
    }
    EXPECT_EQ(waitFor(ours), 0);
    stop = true;
    stockLoop.join();
    expectStockIsContent();
}

TEST_F(GcTest, TemporaryRootsFileIsRemovedInTheEnd) {
    addText("a", "a");
    EXPECT_FALSE(std::filesystem::is_empty(root / "var/temproots"));
    store.reset();
    EXPECT_TRUE(std::filesystem::is_empty(root / "var/temproots"));
}

} // namespace firn
