#include "unit/store-fixture.hh"

#include <grp.h>
#include <sys/xattr.h>

#include "libstore/build/store-leftovers.hh"
#include "libstore/db/store-database.hh"

namespace firn {

namespace {

class LocalStoreTest : public StoreTest {
  protected:
    void writeTree() {
        write("tree/file", "contents\n");
        write("tree/bin/program", "#!/bin/sh\n", 0755);
        write("tree/empty/.keep", "");
        std::filesystem::create_symlink("../file", root / "tree/bin/link");
    }

    PathInfo addTree(LocalStore &target, const std::string &name = "tree") {
        StringSource nar(nar_ = narOf("tree"));
        return target.addContent(name, {ContentMethod::nar, HashAlgorithm::sha256}, nar, {});
    }

    std::string nar_;
};

} // namespace

TEST_F(LocalStoreTest, NewStoreIsTakenByStockNixAsItIs) {
    open();
    EXPECT_EQ(readFile(root / "var/db/schema"), "10");
    write("a", "hello\n");
    auto path = locations.storeDir.parse(stock("nix-store --add a"));
    EXPECT_TRUE(open().isValidPath(path));
    expectStockIsContent();
}

TEST_F(LocalStoreTest, SchemaIsStockNixs) {
    open().addText("a", "a", {});
    store.reset();
    auto query = [&](const std::string &state) {
        return stock(
            "sqlite3 " + state +
            "/db/db.sqlite \"select type, name, tbl_name from sqlite_master order by 1, 2; "
            "pragma table_info(ValidPaths); pragma table_info(Refs); pragma table_info(DerivationOutputs); "
            "pragma foreign_key_list(Refs); pragma foreign_key_list(DerivationOutputs); pragma "
            "journal_mode\"");
    };
    auto ours = query("var");
    write("a", "a");
    stock("env NIX_STORE_DIR=" + (root / "s2").string() + " NIX_STATE_DIR=" + (root / "v2").string() +
          " nix-store --add a");
    EXPECT_EQ(ours, query("v2"));
}

TEST_F(LocalStoreTest, StockStoreIsTakenOver) {
    writeTree();
    auto path = locations.storeDir.parse(stock("nix-store --add tree"));
    auto info = open().queryPathInfo(path);
    EXPECT_EQ(info.narHash.prefixed(Encoding::nix32), stock("nix-store -q --hash " + print(path)));
    EXPECT_EQ(std::to_string(info.narSize), stock("nix-store -q --size " + print(path)));
    EXPECT_TRUE(info.isContentAddressed(locations.storeDir));
    EXPECT_FALSE(open().verify(true, Repair::no)) << logger.text();
    EXPECT_EQ(open().queryAllValidPaths(), StorePathSet{path});
    EXPECT_EQ(open().queryPathFromHashPart(std::string(path.hashPart())), path);
    EXPECT_EQ(open().queryPathFromHashPart("00000000000000000000000000000000"), std::nullopt);
}

TEST_F(LocalStoreTest, AddingMakesStocksPathsAndBytes) {
    writeTree();
    auto info = addTree(open());
    EXPECT_EQ(print(info.path), stock("nix-store --add tree"));
    expectStockIsContent();
    struct stat st;
    for (auto &[name, mode] : std::map<std::string, mode_t>{
             {"", 0555}, {"/file", 0444}, {"/bin", 0555}, {"/bin/program", 0555}, {"/empty/.keep", 0444}}) {
        ASSERT_EQ(lstat((print(info.path) + name).c_str(), &st), 0) << name;
        EXPECT_EQ(st.st_mode & 07777, mode) << name;
        EXPECT_EQ(st.st_mtime, 1) << name;
        EXPECT_EQ(st.st_uid, geteuid()) << name;
    }
    ASSERT_EQ(lstat((print(info.path) + "/bin/link").c_str(), &st), 0);
    EXPECT_EQ(st.st_mtime, 1);
    EXPECT_EQ(std::filesystem::read_symlink(print(info.path) + "/bin/link"), "../file");
}

TEST_F(LocalStoreTest, FixedContentOfEveryMethodHasStocksPath) {
    write("f", std::string(3'000'000, 'x') + "end"); // more than what is kept in memory
    write("g", "small");
    for (std::string name : {"f", "g"}) {
        for (auto algorithm :
             {HashAlgorithm::md5, HashAlgorithm::sha1, HashAlgorithm::sha256, HashAlgorithm::sha512}) {
            auto text = readFile(root / name);
            StringSource content(text);
            auto info = open().addContent(name, {ContentMethod::flat, algorithm}, content, {});
            auto algo = std::string(hashAlgorithmName(algorithm));
            EXPECT_EQ(print(info.path), stock("nix-store --add-fixed " + algo + " " + name));
            auto nar = narOf(name);
            StringSource narSource(nar);
            auto narInfo = open().addContent(name, {ContentMethod::nar, algorithm}, narSource, {});
            EXPECT_EQ(print(narInfo.path), stock("nix-store --add-fixed --recursive " + algo + " " + name));
        }
    }
    expectStockIsContent();
}

TEST_F(LocalStoreTest, DerivationsAreRegisteredWithTheirOutputs) {
    write("d.nix", "derivation { name = \"d\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; outputs = [ "
                   "\"out\" \"dev\" ]; "
                   "src = builtins.toFile \"src\" \"source\"; }");
    auto drv = locations.storeDir.parse(stock("nix-instantiate d.nix 2>/dev/null"));
    auto outputs = open().queryDerivationOutputMap(drv);
    ASSERT_EQ(outputs.size(), 2);
    auto parsed = open().readDerivation(drv);
    auto before = open().queryPathInfo(drv);
    stock("nix-store --delete " + print(drv));
    EXPECT_FALSE(open().isValidPath(drv));
    EXPECT_EQ(open().addDerivation(parsed), drv);
    EXPECT_EQ(open().queryPathInfo(drv).references, before.references);
    // Stock prints them sorted by path.
    std::set<std::string> paths{print(*outputs.at("dev")), print(*outputs.at("out"))};
    EXPECT_EQ(stock("nix-store -q --outputs " + print(drv)), *paths.begin() + "\n" + *paths.rbegin());
    EXPECT_EQ(open().queryValidDerivers(*outputs.at("out")), StorePathSet{drv});
    expectStockIsContent();
}

TEST_F(LocalStoreTest, DerivationThatLiesAboutItsOutputsIsRefused) {
    write("d.nix", "derivation { name = \"d\"; system = \"s\"; builder = \"/bin/sh\"; }");
    auto drv = open().readDerivation(locations.storeDir.parse(stock("nix-instantiate d.nix 2>/dev/null")));
    auto wrong = addText("d", "not it").path;
    drv.outputs.at("out") = InputAddressedOutput{wrong};
    drv.env["out"] = print(wrong);
    EXPECT_THROW(open().addDerivation(drv), Error);
    EXPECT_EQ(open().queryValidDerivers(wrong), StorePathSet());
}

TEST_F(LocalStoreTest, ReferencesAreQueriedBothWays) {
    auto a = addText("a", "a").path;
    auto b = addText("b", print(a), {a}).path;
    auto c = addText("c", print(b), {b}).path;
    EXPECT_EQ(open().queryReferrers(a), StorePathSet{b});
    EXPECT_EQ(open().computeClosure({c}), (StorePathSet{a, b, c}));
    EXPECT_EQ(open().topologicallySorted({a, b, c}), (std::vector<StorePath>{a, b, c}));
    EXPECT_EQ(stock("nix-store -qR " + print(c)), print(a) + "\n" + print(b) + "\n" + print(c));
    EXPECT_EQ(stock("nix-store -q --referrers " + print(a)), print(b));
    EXPECT_THROW(open().invalidatePath(a), Error);
    open().invalidatePath(c);
    EXPECT_FALSE(onDisk(c));
    EXPECT_FALSE(open().isValidPath(c));
    expectStockIsContent();
}

TEST_F(LocalStoreTest, ClosuresMeetAndHoldEachPathOnce) {
    auto shared = addText("shared", "shared").path;
    auto left = addText("left", print(shared), {shared}).path;
    auto right = addText("right", print(shared), {shared}).path;
    auto top = addText("top", print(left) + print(right) + print(shared), {left, right, shared}).path;
    auto alone = addText("alone", "alone").path;
    EXPECT_EQ(open().computeClosure({top}), (StorePathSet{top, left, right, shared}));
    EXPECT_EQ(open().computeClosure({right, left, alone}), (StorePathSet{left, right, shared, alone}));
    EXPECT_EQ(open().computeClosure({shared, top}), (StorePathSet{top, left, right, shared}));
    EXPECT_EQ(open().computeClosure({}), StorePathSet());
}

TEST_F(LocalStoreTest, ClosureOfWhatIsNotValidIsRefusedAndTheStoreStaysUsable) {
    auto a = addText("a", "a").path;
    auto gone = addText("gone", "gone").path;
    open().invalidatePath(gone);
    EXPECT_THROW(open().computeClosure({a, gone}), Error);
    auto b = addText("b", print(a), {a}).path;
    EXPECT_EQ(open().computeClosure({b}), (StorePathSet{a, b}));
    EXPECT_EQ(open().queryValidPaths({a, b, gone}), (StorePathSet{a, b}));
    expectStockIsContent();
}

TEST_F(LocalStoreTest, SnapshotOfTheDatabaseStaysAsItBegan) {
    auto a = addText("a", "a").path;
    StoreDatabase database(locations.stateDir / "db", locations.storeDir, {}, logger);
    StorePath later(std::string(20, 'x'), "later");
    database.snapshot([&] {
        EXPECT_TRUE(database.isValid(a));
        later = addText("later", "later").path; // over the store's own connection
        EXPECT_FALSE(database.isValid(later));
        database.snapshot([&] { EXPECT_FALSE(database.isValid(later)); });
        EXPECT_FALSE(database.isValid(later));
    });
    EXPECT_TRUE(database.isValid(later));
    EXPECT_THROW(database.snapshot([] { throw Error(ErrorKind::failure, "on the way"); }), Error);
    database.transaction([&] { database.snapshot([&] { database.remove(later); }); });
    EXPECT_FALSE(database.isValid(later));
}

TEST_F(LocalStoreTest, RegisteringACycleIsRefusedAndLeavesNothing) {
    auto a = addText("a", "a");
    auto b = addText("b", "b");
    PathInfo x = a, y = b;
    x.path = StorePath(std::string(20, 'x'), "x");
    y.path = StorePath(std::string(20, 'y'), "y");
    x.references = {y.path};
    y.references = {x.path, y.path};
    try {
        open().registerValidPaths({x, y});
        FAIL();
    } catch (const Error &error) {
        EXPECT_NE(error.message().find("cycle detected in the references of"), std::string::npos)
            << error.message();
    }
    EXPECT_FALSE(open().isValidPath(x.path));
    x.references = {StorePath(std::string(20, 'z'), "z")};
    EXPECT_THROW(open().registerValidPaths({x}), Error);
    EXPECT_FALSE(open().isValidPath(x.path));
}

TEST_F(LocalStoreTest, TwoProcessesMayAddTheSamePathAtOnce) {
    writeTree();
    open();
    store.reset();
    std::vector<pid_t> children;
    for (int i = 0; i < 6; i++) {
        children.push_back(inChild([&] {
            LocalStore mine(locations, settings, logger);
            for (int round = 0; round < 10; round++) {
                addTree(mine, "tree" + std::to_string(round));
                mine.addText("text" + std::to_string(round), "same", {});
            }
        }));
    }
    for (auto pid : children) {
        EXPECT_EQ(waitFor(pid), 0);
    }
    EXPECT_EQ(open().queryAllValidPaths().size(), 20);
    for (auto &name : listDirectory(open().storeFd())) {
        EXPECT_EQ(name.find(".lock"), std::string::npos) << name;
        EXPECT_EQ(name.find("firn-staged"), std::string::npos) << name;
    }
    expectStockIsContent();
}

TEST_F(LocalStoreTest, NarWithoutTrustedSignatureIsRefused) {
    writeTree();
    auto known = addTree(open());
    PathInfo info = known;
    info.path = StorePath(std::string(20, 'x'), "unsigned");
    info.contentAddress.reset();
    StringSource nar(nar_);
    try {
        open().addNar(info, nar, Repair::no, CheckSignatures::yes);
        FAIL();
    } catch (const Error &error) {
        EXPECT_EQ(error.message(),
                  "cannot add path '" + print(info.path) + "' because it lacks a signature by a trusted key");
    }
    open().addNar(info, nar, Repair::no, CheckSignatures::no);
    EXPECT_TRUE(nar.rest().empty());
    expectStockIsContent();
    // Valid now: consumed all the same.
    StringSource again(nar_);
    open().addNar(info, again, Repair::no, CheckSignatures::no);
    EXPECT_TRUE(again.rest().empty());
}

TEST_F(LocalStoreTest, NarWithWrongHashSizeOrAddressLeavesNothing) {
    writeTree();
    auto good = addTree(open());
    PathInfo info = good;
    info.path = StorePath(std::string(20, 'x'), "wrong");
    info.contentAddress.reset();
    auto expectRefusal = [&](const PathInfo &bad, const std::string &words) {
        StringSource nar(nar_);
        try {
            open().addNar(bad, nar, Repair::no, CheckSignatures::no);
            ADD_FAILURE() << words;
        } catch (const Error &error) {
            EXPECT_TRUE(error.message().starts_with(words)) << error.message();
        }
        EXPECT_FALSE(onDisk(bad.path));
        EXPECT_FALSE(open().isValidPath(bad.path));
    };
    auto bad = info;
    bad.narHash = hashString(HashAlgorithm::sha256, "other");
    expectRefusal(bad, "hash mismatch importing path");
    bad = info;
    bad.narSize++;
    expectRefusal(bad, "size mismatch importing path");
    bad = info;
    bad.contentAddress = ContentAddress{ContentMethod::nar, hashString(HashAlgorithm::sha1, "other")};
    expectRefusal(bad, "ca hash mismatch importing path");
    bad.contentAddress = ContentAddress{ContentMethod::flat, hashString(HashAlgorithm::sha256, "other")};
    EXPECT_THROW(({
                     StringSource nar(nar_);
                     open().addNar(bad, nar, Repair::no, CheckSignatures::no);
                 }),
                 Error);
    StringSource cut(std::string_view(nar_).substr(0, nar_.size() - 20));
    EXPECT_THROW(open().addNar(info, cut, Repair::no, CheckSignatures::no), Error);
    EXPECT_FALSE(onDisk(info.path));
    EXPECT_EQ(listDirectory(open().storeFd()).size(), 2); // .links and the good one
}

/// Not even on a trusted word: the address is wrong.
TEST_F(LocalStoreTest, AnAddressOfAPlainFileIsNotTakenForAnythingElse) {
    struct Case {
        std::string made, says;
    };
    std::string made = (root / "made").string();
    for (const Case &one : {Case{"cp contents made && chmod +x made", "executable"},
                            Case{"mkdir made && cp contents made/file", "a directory"},
                            Case{"ln -s contents made", "a symlink"}, Case{"cp contents made", ""}}) {
        for (ContentMethod method : {ContentMethod::flat, ContentMethod::text}) {
            ASSERT_EQ(system(fmt::format("cd {} && rm -rf made contents && echo text > contents && {}",
                                         root.string(), one.made)
                                 .c_str()),
                      0);
            StringSink nar;
            dumpNar(AT_FDCWD, made, nar);
            ContentAddress address{method, hashString(HashAlgorithm::sha256, "text\n")};
            PathInfo info{.path = makeContentAddressedPath(open().dir(), "plain", address, {}),
                          .narHash = hashString(HashAlgorithm::sha256, nar.text)};
            info.contentAddress = address;
            StringSource source(nar.text);
            auto add = [&] { open().addNar(info, source, Repair::no, CheckSignatures::no); };
            if (one.says.empty()) {
                add();
                continue;
            }
            try {
                add();
                ADD_FAILURE() << one.says;
            } catch (const Error &error) {
                EXPECT_TRUE(
                    error.message().ends_with("is that of a plain file, and what came is " + one.says))
                    << error.message();
            }
            EXPECT_FALSE(open().isValidPath(info.path));
            EXPECT_FALSE(onDisk(info.path));
        }
    }
}

TEST_F(LocalStoreTest, SelfReferringContentAddressIsThatOfStock) {
    // Made by stock Nix: make-content-addressable of a path that contains its own path.
    write("self/me", "x");
    write("make.nix", "derivation { name = \"self\"; system = builtins.currentSystem; builder = \"/bin/sh\"; "
                      "args = [ \"-c\" \"echo $out/bin > $out\" ]; }");
    auto plain = stock("nix-build --no-out-link make.nix 2>/dev/null");
    auto made = stock("nix --extra-experimental-features \"nix-command ca-derivations\" store "
                      "make-content-addressed --json " +
                      plain +
                      " 2>/dev/null || nix --extra-experimental-features \"nix-command ca-derivations\" "
                      "store make-content-addressable --json " +
                      plain + " 2>/dev/null");
    auto begin = made.rfind(root.string() + "/store/");
    auto path = locations.storeDir.parse(made.substr(begin, made.find('"', begin) - begin));
    auto info = open().queryPathInfo(path);
    ASSERT_TRUE(info.contentAddress) << made;
    ASSERT_TRUE(info.references.contains(path));
    StringSink nar;
    open().narFromPath(path, nar);
    open().invalidatePath(path);
    StringSource source(nar.text);
    open().addNar(info, source, Repair::no, CheckSignatures::yes);
    EXPECT_TRUE(open().isValidPath(path));
    expectStockIsContent();
}

TEST_F(LocalStoreTest, RepairReplacesDamagedContent) {
    auto info = addText("a", "good");
    chmod(print(info.path).c_str(), 0644);
    std::ofstream(print(info.path)) << "evil";
    chmod(print(info.path).c_str(), 0444);
    EXPECT_TRUE(open().verify(true, Repair::no));
    EXPECT_NE(logger.text().find("path '" + print(info.path) + "' was modified! expected hash '"),
              std::string::npos);
    open().addText("a", "good", {}, Repair::yes);
    EXPECT_EQ(readFile(print(info.path)), "good");
    expectStockIsContent();
}

TEST_F(LocalStoreTest, VerifyRemovesWhatVanishedUnlessItIsNeeded) {
    auto a = addText("a", "a").path;
    auto b = addText("b", print(a), {a}).path;
    auto lone = addText("lone", "lone").path;
    std::filesystem::remove(print(lone));
    EXPECT_FALSE(open().verify(false, Repair::no));
    EXPECT_NE(logger.text().find("path '" + print(lone) + "' disappeared, removing from database..."),
              std::string::npos);
    EXPECT_FALSE(open().isValidPath(lone));
    std::filesystem::remove(print(a));
    EXPECT_TRUE(open().verify(false, Repair::no));
    EXPECT_NE(logger.text().find("path '" + print(a) + "' disappeared, but it still has valid referrers!"),
              std::string::npos);
    EXPECT_TRUE(open().isValidPath(a));
    std::filesystem::remove(print(b));
    EXPECT_FALSE(open().verify(false, Repair::no));
    EXPECT_TRUE(open().queryAllValidPaths().empty());
}

TEST_F(LocalStoreTest, ExportAndImportWorkBothWaysWithStock) {
    auto a = addText("a", "a").path;
    auto b = addText("b", print(a), {a}).path;
    StringSink stream;
    for (auto &path : {a, b}) {
        stream.write({"\1\0\0\0\0\0\0\0", 8});
        open().exportPath(path, stream);
    }
    stream.write({"\0\0\0\0\0\0\0\0", 8});
    stock("nix-store --export " + print(a) + " " + print(b) + " > stock-export");
    EXPECT_EQ(stream.text, readFile(root / "stock-export"));
    write("firn-export", stream.text);
    store.reset(); // with its temporary roots
    stock("nix-store --delete " + print(b) + " " + print(a));
    EXPECT_EQ(stock("nix-store --import < firn-export"), print(a) + "\n" + print(b));
    store.reset(); // with its temporary roots
    stock("nix-store --delete " + print(b) + " " + print(a));
    auto bytes = readFile(root / "stock-export");
    StringSource source(bytes);
    EXPECT_EQ(open().importPaths(source, CheckSignatures::no), (std::vector<StorePath>{a, b}));
    EXPECT_EQ(open().queryReferrers(a), StorePathSet{b});
    expectStockIsContent();
    StringSource garbage("\2\0\0\0\0\0\0\0garbage!");
    EXPECT_THROW(open().importPaths(garbage, CheckSignatures::no), Error);
}

TEST_F(LocalStoreTest, OptimisingLinksAsStockDoes) {
    writeTree();
    write("tree/copy", "contents\n");
    auto one = addTree(open(), "one").path;
    auto two = addTree(open(), "two").path;
    open().optimiseAll();
    struct stat a, b;
    ASSERT_EQ(stat((print(one) + "/file").c_str(), &a), 0);
    ASSERT_EQ(stat((print(two) + "/copy").c_str(), &b), 0);
    EXPECT_EQ(a.st_ino, b.st_ino);
    EXPECT_EQ(a.st_nlink, 5);
    ASSERT_EQ(stat(print(one).c_str(), &a), 0);
    EXPECT_EQ(a.st_mode & 07777, 0555);
    EXPECT_EQ(a.st_mtime, 1);
    auto nar = stock("nix-hash --type sha256 --base32 " + print(one) + "/file");
    EXPECT_TRUE(std::filesystem::exists(root / "store/.links" / nar));
    expectStockIsContent();
    EXPECT_EQ(stock("nix-store --optimise -vv").find("linking '"), std::string::npos);
    store.reset();
    stock("nix-store --gc");
    EXPECT_TRUE(std::filesystem::is_empty(root / "store/.links"));
}

TEST_F(LocalStoreTest, StockLinksAreKnown) {
    writeTree();
    auto path = stock("nix-store --add tree");
    stock("nix-store --optimise");
    addTree(open(), "two");
    open().optimiseAll();
    EXPECT_NE(logger.text().find("by hard-linking 4 files"), std::string::npos) << logger.text();
}

TEST_F(LocalStoreTest, BuildLogsAreWhereNixLogLooks) {
    write("d.nix", "derivation { name = \"d\"; system = \"s\"; builder = \"/bin/sh\"; }");
    auto drv = locations.storeDir.parse(stock("nix-instantiate d.nix 2>/dev/null"));
    for (bool packed : {true, false}) {
        settings.compressLog = packed;
        std::string text = std::string(200'000, 'l') + "\nend\n";
        StringSource log(text);
        open().addBuildLog(drv, log);
        EXPECT_TRUE(std::filesystem::exists(open().buildLogPath(drv)));
        EXPECT_EQ(open().buildLog(drv), text);
        EXPECT_EQ(stock("nix-store --read-log " + print(drv)) + "\n", text);
    }
    EXPECT_EQ(open().buildLog(addText("none.drv.txt", "x").path), std::nullopt);
}

TEST_F(LocalStoreTest, TruncatedBuildLogIsAnError) {
    auto path = addText("x", "x").path;
    StringSource log("some text that is long enough");
    open().addBuildLog(path, log);
    std::filesystem::resize_file(open().buildLogPath(path), 20);
    EXPECT_THROW(open().buildLog(path), Error);
}

TEST_F(LocalStoreTest, RealisationsAreRefusedByNameWithoutTheirTable) {
    auto path = addText("x", "x").path;
    Realisation realisation{{hashString(HashAlgorithm::sha256, "drv"), "out"}, path, {}, {}};
    EXPECT_EQ(open().queryRealisation(realisation.id), std::nullopt);
    try {
        open().registerRealisation(realisation, CheckSignatures::no);
        FAIL();
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    }
}

TEST_F(LocalStoreTest, RealisationsAreSharedWithStock) {
    settings.experimentalFeatures = {"ca-derivations"};
    auto a = addText("a", "a").path;
    auto b = addText("b", "b").path;
    Realisation dependency{{hashString(HashAlgorithm::sha256, "a"), "out"}, a, {"k:s"}, {}};
    Realisation realisation{{hashString(HashAlgorithm::sha256, "b"), "dev"}, b, {}, {{dependency.id, a}}};
    open().registerRealisation(dependency, CheckSignatures::no);
    open().registerRealisation(realisation, CheckSignatures::no);
    auto found = open().queryRealisation(realisation.id);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->outPath, b);
    EXPECT_EQ(found->dependentRealisations, realisation.dependentRealisations);
    EXPECT_THROW(open().registerRealisation({realisation.id, a, {}, {}}, CheckSignatures::no), Error);
    EXPECT_THROW(open().registerRealisation({dependency.id, a, {}, {}}, CheckSignatures::yes), Error);
    EXPECT_EQ(readFile(root / "var/db/ca-schema"), "3");
    stock("nix-store --extra-experimental-features ca-derivations --verify");
    store.reset();
    open().collectGarbage({});
    EXPECT_EQ(open().queryRealisation(realisation.id), std::nullopt);
}

TEST_F(LocalStoreTest, OfProcessesThatRecordARealisationAtOnceAllHearOfTheFirst) {
    settings.experimentalFeatures = {"ca-derivations"};
    constexpr int processes = 4, rounds = 20;
    std::vector<StorePath> paths;
    for (int i = 0; i < processes; i++) {
        paths.push_back(addText("built-by-" + std::to_string(i), std::to_string(i)).path);
    }
    auto idOf = [](int round) {
        return DrvOutput{hashString(HashAlgorithm::sha256, std::to_string(round)), "out"};
    };
    store.reset();
    std::vector<pid_t> children;
    for (int i = 0; i < processes; i++) {
        children.push_back(inChild([&] {
            LocalStore mine(locations, settings, logger);
            std::string heard;
            for (int round = 0; round < rounds; round++) {
                heard += mine.recordRealisation({idOf(round), paths[i], {}, {}}).outPath.baseName() + "\n";
            }
            writeFile(root / ("heard" + std::to_string(i)), heard);
        }));
    }
    for (auto pid : children) {
        EXPECT_EQ(waitFor(pid), 0);
    }
    std::string known;
    for (int round = 0; round < rounds; round++) {
        known += open().queryRealisation(idOf(round)).value().outPath.baseName() + "\n";
    }
    for (int i = 0; i < processes; i++) {
        EXPECT_EQ(readFile(root / ("heard" + std::to_string(i))), known);
    }
}

TEST_F(LocalStoreTest, LeftoversOfABuildGoUnlessTheyAreValidOrForgotten) {
    StorePath valid = addText("valid", "x").path;
    auto leave = [&](const char *name) {
        StorePath path(std::string(20, 'x'), name);
        writeFile(root / "store" / path.baseName(), "x");
        return path;
    };
    StorePath left = leave("left"), kept = leave("kept"), other = leave("other");
    {
        StoreLeftovers leftovers(open());
        leftovers.add(StorePath(std::string(20, 'x'), "not-there"));
        for (const StorePath &path : {valid, left, kept}) {
            leftovers.add(path);
        }
        leftovers.forget(kept);
    }
    EXPECT_TRUE(onDisk(valid) && onDisk(kept) && onDisk(other));
    EXPECT_FALSE(onDisk(left));
}

TEST_F(LocalStoreTest, SignaturesAccumulate) {
    auto path = addText("a", "a").path;
    open().addSignatures(path, {"one:AAAA", "two:BBBB"});
    open().addSignatures(path, {"three:CCCC"});
    EXPECT_EQ(open().queryPathInfo(path).signatures.size(), 3);
    EXPECT_THROW(open().addSignatures(StorePath(std::string(20, 'x'), "x"), {"a:b"}), Error);
}

TEST_F(LocalStoreTest, NewerAndOlderSchemasAreRefused) {
    open();
    store.reset();
    for (auto &[version, words] :
         std::map<std::string, std::string>{{"11", "newer"}, {"9", "upgrade"}, {"x", "corrupt"}}) {
        write("var/db/schema", version);
        try {
            open();
            ADD_FAILURE() << version;
        } catch (const Error &error) {
            EXPECT_NE(error.message().find(words), std::string::npos) << error.message();
        }
    }
}

TEST_F(LocalStoreTest, CorruptDatabaseIsAClearError) {
    open();
    store.reset();
    write("var/db/db.sqlite", std::string(8192, 'x'));
    try {
        open();
        FAIL();
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::corrupt);
        EXPECT_NE(error.message().find("var/db/db.sqlite"), std::string::npos) << error.message();
    }
}

TEST_F(LocalStoreTest, DamagedRowIsAClearError) {
    auto path = addText("a", "a").path;
    stock("sqlite3 var/db/db.sqlite \"update ValidPaths set hash = \\\"sha256:zz\\\"\"");
    try {
        open().queryPathInfo(path);
        FAIL();
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::corrupt) << error.message();
        EXPECT_NE(error.message().find(print(path)), std::string::npos) << error.message();
    }
}

TEST_F(LocalStoreTest, VanishedStoreDirectoryIsAnErrorAndReopeningMakesItAnew) {
    auto path = addText("a", "a").path;
    std::filesystem::permissions(root / "store", std::filesystem::perms::owner_all);
    std::filesystem::remove_all(root / "store");
    std::filesystem::remove_all(root / "var");
    EXPECT_THROW(addText("b", "b"), Error);
    store.reset();
    EXPECT_FALSE(open().isValidPath(path));
    EXPECT_EQ(addText("a", "a").path, path);
    expectStockIsContent();
}

TEST_F(LocalStoreTest, ReadOnlyDatabaseIsAClearError) {
    if (geteuid() != 0) {
        open();
        store.reset();
        std::filesystem::permissions(root / "var/db/db.sqlite", std::filesystem::perms::owner_read);
        std::filesystem::permissions(root / "var/db",
                                     std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
        EXPECT_THROW(
            {
                open();
                addText("a", "a");
            },
            Error);
        std::filesystem::permissions(root / "var/db", std::filesystem::perms::owner_all);
        return;
    }
    chmod(root.c_str(), 0755);
    open();
    store.reset();
    auto child = inChild([&] {
        if (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0) {
            throw Error(ErrorKind::failure, "cannot become another user");
        }
        try {
            LocalStore other(locations, settings, logger);
        } catch (const Error &error) {
            if (error.message().find("Permission denied") != std::string::npos) {
                return;
            }
            throw;
        }
        throw Error(ErrorKind::failure, "opened");
    });
    EXPECT_EQ(waitFor(child), 0);
}

TEST_F(LocalStoreTest, ProcessesMayOpenANewStoreAtOnce) {
    settings.experimentalFeatures = {"ca-derivations"};
    for (int round = 0; round < 30; round++) {
        locations.stateDir = root / ("var" + std::to_string(round));
        std::vector<pid_t> children;
        for (int i = 0; i < 4; i++) {
            children.push_back(inChild([&] {
                LocalStore mine(locations, settings, logger);
                mine.queryAllValidPaths();
            }));
        }
        for (auto pid : children) {
            EXPECT_EQ(waitFor(pid), 0);
        }
        EXPECT_EQ(readFile(locations.stateDir / "db/ca-schema"), "3");
    }
}

TEST_F(LocalStoreTest, SymlinkedStoreIsRefused) {
    std::filesystem::create_directory(root / "real");
    std::filesystem::create_symlink("real", root / "store");
    EXPECT_THROW(open(), Error);
}

TEST_F(LocalStoreTest, CanonicalisingNormalisesEverything) {
    write("store/t/file", "x", 0666);
    write("store/t/program", "x", 04755);
    write("store/t/hidden", "x", 0000);
    write("store/t/dir/file", "x", 0600);
    std::filesystem::create_symlink("/nonexistent", root / "store/t/link");
    chmod((root / "store/t/dir").c_str(), 0);
    setxattr((root / "store/t/file").c_str(), "user.evil", "x", 1, 0);
    LocalStore &opened = open();
    canonicaliseTree(opened.storeFd(), "t", geteuid(), settings.ignoredAcls);
    struct stat st;
    for (auto &[name, mode] : std::map<std::string, mode_t>{{"", 0555},
                                                            {"/file", 0444},
                                                            {"/program", 0555},
                                                            {"/hidden", 0444},
                                                            {"/dir", 0555},
                                                            {"/dir/file", 0444}}) {
        ASSERT_EQ(lstat((root / "store/t").string().append(name).c_str(), &st), 0);
        EXPECT_EQ(st.st_mode & 07777, mode) << name;
        EXPECT_EQ(st.st_mtime, 1) << name;
    }
    EXPECT_LE(listxattr((root / "store/t/file").c_str(), nullptr, 0), 0);
}

TEST_F(LocalStoreTest, CanonicalisingRefusesOutsideLinksOwnersAndSpecialFiles) {
    open();
    write("store/t/file", "x");
    ASSERT_EQ(link((root / "store/t/file").c_str(), (root / "outside").c_str()), 0);
    auto canonicalise = [&](uid_t uid) { canonicaliseTree(open().storeFd(), "t", uid, {}); };
    EXPECT_THROW(canonicalise(geteuid()), Error);
    EXPECT_NO_THROW(canonicalise(static_cast<uid_t>(-1)));
    chmod((root / "store/t").c_str(), 0755); // canonical is read-only, also for an ordinary owner
    ASSERT_EQ(rename((root / "outside").c_str(), (root / "store/t/second").c_str()), 0);
    EXPECT_NO_THROW(canonicalise(geteuid()));
    EXPECT_THROW(canonicalise(geteuid() + 1), Error);
    chmod((root / "store/t").c_str(), 0755);
    ASSERT_EQ(mkfifo((root / "store/t/fifo").c_str(), 0600), 0);
    EXPECT_THROW(canonicalise(geteuid()), Error);
}

} // namespace firn
