#include <algorithm>
#include <fstream>
#include <functional>
#include <sstream>

#include <csignal>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libstore/build/clone-file.hh"
#include "libstore/build/fixup-macho-page-hashes.hh"
#include "libstore/build/output-check.hh"
#include "libstore/build/output-copy.hh"
#include "libstore/build/output-placement.hh"
#include "libstore/build/register-outputs.hh"
#include "libutil/background-close.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"
#include "libutil/positioned-io.hh"
#include "unit/expect-error.hh"
#include "unit/macho-builder.hh"
#include "unit/recording-logger.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

bool pretendToClone = false;

} // namespace

/// Takes the place of the library's, whose file systems are rarely there. A copy is as good for who cannot
/// tell which blocks are shared.
bool cloneFile(int from, int to) {
    std::vector<char> block(1 << 16);
    ssize_t count = 0;
    for (off_t at = 0; pretendToClone && (count = pread(from, block.data(), block.size(), at)) > 0;
         at += count) {
        writeFullAt(to, static_cast<uint64_t>(at), {block.data(), static_cast<size_t>(count)});
    }
    return pretendToClone && count == 0;
}

namespace {

namespace fs = std::filesystem;

std::string read(const fs::path &path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

void write(const fs::path &path, std::string_view text) {
    std::ofstream(path, std::ios::binary) << text;
}

struct stat look(const fs::path &path) {
    struct stat st {};
    EXPECT_EQ(lstat(path.c_str(), &st), 0) << path;
    return st;
}

std::string replaceAll(std::string text, const std::string &from, const std::string &to) {
    for (size_t place = 0; (place = text.find(from, place)) != std::string::npos; place += to.size()) {
        text.replace(place, from.size(), to);
    }
    return text;
}

std::set<std::string> namesIn(const fs::path &directory) {
    std::set<std::string> names;
    for (const auto &entry : fs::directory_iterator(directory)) {
        names.insert(entry.path().filename());
    }
    return names;
}

using RepairFunction = std::function<std::vector<FilePatches>(int dir, const std::string &name,
                                                              const std::vector<FilePatches> &touched)>;

std::string readFileFrom(int file) {
    std::string text(static_cast<size_t>(lseek(file, 0, SEEK_END)), '\0');
    readFullAt(file, 0, text.data(), text.size());
    return text;
}

/// Tells a function of the touched files, and counts the second looks.
class FakeRepair : public OutputRepair {
  public:
    explicit FakeRepair(RepairFunction function) : function_(std::move(function)) {}
    std::vector<FilePatches> repair(const OutputRewrite &output) override {
        std::vector<FilePatches> touched;
        for (const NodePatches &change : output.changes) {
            if (change.everywhere || !change.contents.empty()) {
                touched.push_back({output.tree.pathOf(change.node), change.contents, change.everywhere});
            }
        }
        return function_ ? function_(output.dir, output.tree.root().name, touched)
                         : std::vector<FilePatches>();
    }
    AddressForms formsForAddress(const OutputRewrite &, const StorePath &) override { return forms; }
    void verify(const OutputRewrite &output) override { verified.push_back(output.outputName); }

    uint64_t foresee(const FileHead &head, uint64_t size) override {
        foreseen.emplace_back(head.data(), head.size());
        return wanted.empty() || foreseen.back() == wanted ? std::min(size, changing) : 0;
    }

    std::vector<Patch> repairFile(const OutputRewrite &output, int file) override {
        std::string path = output.tree.pathOf(output.changes.front().node);
        if (onFile) {
            onFile(path, readFileFrom(file));
        }
        for (FilePatches &patches : repair(output)) {
            if (patches.path == path) {
                return patches.patches;
            }
        }
        return {};
    }

    AddressForms forms;
    std::vector<std::string> verified, foreseen;
    std::string wanted;             ///< what files begin with that are repaired; empty: all
    uint64_t changing = UINT64_MAX; ///< so many of their last bytes are foreseen to
    std::function<void(const std::string &path, const std::string &contents)> onFile;

  private:
    RepairFunction function_;
};

/// A store, and a directory like a sandbox's store beside it.
class RegisterOutputs : public testing::Test {
  protected:
    RegisterOutputs() {
        fs::create_directory(tmp_ / "scratch");
        scratch_ = openDirectory(tmp_ / "scratch");
        request_.scratchDir = scratch_.get();
        request_.drvPath = StorePath("1111111111111111111111111111111a-thing.drv");
        derivation_.name = "thing";
        derivation_.platform = "x86_64-linux";
        derivation_.builder = "/bin/sh";
        request_.derivation = &derivation_;
    }

    static Locations locations(const fs::path &base) {
        Locations locations;
        locations.storeDir = StoreDir((base / "store").string());
        locations.stateDir = base / "var";
        locations.logDir = base / "log";
        locations.confDir = base / "etc";
        return locations;
    }

    /// An input-addressed output whose builder was told the final path.
    StorePath addOutput(const std::string &name, char digit) {
        StorePath path(std::string(32, digit) + "-" + outputPathName("thing", name));
        derivation_.outputs.insert_or_assign(name, InputAddressedOutput{path});
        request_.outputs.insert_or_assign(name, ScratchOutput{path, path});
        return path;
    }

    /// One whose builder was told another path, as in a build without sandbox; it lies in the store.
    StorePath addRedirected(const std::string &name, char digit, char scratchDigit) {
        StorePath scratch(std::string(32, scratchDigit) + "-" + outputPathName("thing", name));
        addRedirected(name, addOutput(name, digit), scratch);
        return scratch;
    }
    void addRedirected(const std::string &name, const StorePath &path, const StorePath &scratch) {
        derivation_.outputs.insert_or_assign(name, InputAddressedOutput{path});
        request_.outputs.insert_or_assign(name, ScratchOutput{scratch, path});
        request_.scratchDir = store_.storeFd();
    }

    void addFixed(const std::string &method, const Hash &hash) {
        ContentAddressMethod parsed = ContentAddressMethod::parse(method);
        ContentAddress address{parsed.method, hash};
        StorePath path = makeContentAddressedPath(store_.dir(), "thing", address, {});
        derivation_.outputs.insert_or_assign("out", FixedOutput{address});
        request_.outputs.insert_or_assign("out", ScratchOutput{path, path});
    }

    StorePath addFloating(const std::string &name, const std::string &method, char digit) {
        StorePath scratch(std::string(32, digit) + "-" + outputPathName("thing", name));
        derivation_.outputs.insert_or_assign(name, FloatingOutput{ContentAddressMethod::parse(method)});
        request_.outputs.insert_or_assign(name, ScratchOutput{scratch, std::nullopt});
        return scratch;
    }

    /// Another store takes it for what its path says.
    void expectVerified(const PathInfo &info) {
        expectHashed(info);
        EXPECT_TRUE(info.isContentAddressed(store_.dir()));
        StringSink nar;
        store_.narFromPath(info.path, nar);
        StringSource source(nar.text);
        store_.addNar(info, source, Repair::yes, CheckSignatures::yes);
    }

    fs::path scratchOf(const std::string &name = "out") {
        fs::path dir = request_.scratchDir == store_.storeFd() ? tmp_ / "store" : tmp_ / "scratch";
        return dir / request_.outputs.at(name).scratchPath.baseName();
    }
    fs::path finalOf(const std::string &name = "out") {
        return tmp_ / "store" / request_.outputs.at(name).finalPath->baseName();
    }

    std::map<std::string, PathInfo> run(const RepairFunction &function = nullptr) {
        FakeRepair repair(function);
        return run(repair);
    }
    std::map<std::string, PathInfo> run(OutputRepair &repair) {
        return registerOutputs(store_, *logger_, request_, repair);
    }

    /// From here on runs compare with what the ones before registered.
    void checkOutputs(const OutputCheckOptions &options) {
        request_.mode = BuildMode::check;
        check_.emplace(store_, *logger_, request_.drvPath, jail_, options, report_);
        request_.judge = &*check_;
    }

    std::string failure(BuildResult::Status status = BuildResult::Status::outputRejected) {
        try {
            run();
        } catch (const BuildFailure &e) {
            EXPECT_EQ(e.status(), status) << e.message();
            return e.message();
        }
        ADD_FAILURE() << "it did not fail";
        return "";
    }

    void expectHashed(const PathInfo &info) {
        HashAndSize expected = hashNar(store_.storeFd(), info.path.baseName());
        EXPECT_EQ(info.narHash.prefixed(Encoding::nix32), expected.hash.prefixed(Encoding::nix32));
        EXPECT_EQ(info.narSize, expected.size);
        EXPECT_EQ(store_.queryPathInfo(info.path).narHash, info.narHash);
    }

    TemporaryDirectory tmp_;
    Settings settings_;
    std::unique_ptr<Logger> logger_ = makeStderrLogger(Verbosity::warning);
    LocalStore store_{locations(tmp_.path()), settings_, *logger_};
    UniqueFd scratch_;
    Derivation derivation_;
    MachoJail jail_{"/nonexistent/firn-macho-jail"}; // no test here has programs to compare
    CheckReport report_;
    std::optional<OutputCheck> check_;
    RegistrationRequest request_{.derivation = nullptr,
                                 .drvPath = StorePath("1111111111111111111111111111111a-thing.drv"),
                                 .outputs = {},
                                 .scratchDir = -1,
                                 .possibleReferences = {},
                                 .builderUid = static_cast<uid_t>(-1),
                                 .copyFixedOutputs = false,
                                 .copyAllOutputs = false,
                                 .mode = BuildMode::normal,
                                 .judge = nullptr,
                                 .url = {}};
};

TEST_F(RegisterOutputs, MovesAnOutputIntoTheStoreWithHashAndReferences) {
    StorePath out = addOutput("out", 'a');
    StorePath used = store_.addText("used", "text", {}).path;
    StorePath unused = store_.addText("unused", "other text", {}).path;
    request_.possibleReferences = {used, unused};
    write(scratchOf(), store_.dir().print(out) + " and " + store_.dir().print(used));

    PathInfo info = run().at("out");
    EXPECT_EQ(info.references, (StorePathSet{out, used}));
    EXPECT_EQ(info.deriver, request_.drvPath);
    EXPECT_TRUE(info.ultimate);
    expectHashed(info);
    EXPECT_FALSE(fs::exists(scratchOf()));
    EXPECT_EQ(store_.queryPathInfo(out).references, info.references);
}

TEST_F(RegisterOutputs, LeavesAStoreThatStockNixFindsInOrder) {
    StorePath out = addOutput("out", 'a');
    StorePath doc = addOutput("doc", 'b');
    fs::create_directories(scratchOf() / "bin");
    write(scratchOf() / "bin" / "tool", store_.dir().print(doc));
    fs::create_symlink("../bin/tool", scratchOf() / "link");
    write(scratchOf("doc"), "text");
    run();
    std::string command = fmt::format("NIX_STORE_DIR={0}/store NIX_STATE_DIR={0}/var NIX_LOG_DIR={0}/log "
                                      "NIX_CONF_DIR={0}/etc NIX_REMOTE= nix-store",
                                      tmp_.path().string());
    EXPECT_EQ(std::system((command + " --verify --check-contents 2>/dev/null").c_str()), 0);
    EXPECT_EQ(std::system((command + " -q --references " + store_.dir().print(out) + " | grep -qx " +
                           store_.dir().print(doc))
                              .c_str()),
              0);
}

TEST_F(RegisterOutputs, MakesEverythingCanonical) {
    addOutput("out", 'a');
    fs::create_directories(scratchOf() / "shut");
    write(scratchOf() / "setuid", "x");
    write(scratchOf() / "shut" / "plain", "y");
    chmod((scratchOf() / "setuid").c_str(), 06711);
    chmod((scratchOf() / "shut" / "plain").c_str(), 0000);
    chmod((scratchOf() / "shut").c_str(), 0000);
    fs::create_symlink("nowhere", scratchOf() / "link");
    expectHashed(run().at("out"));
    EXPECT_EQ(look(finalOf() / "setuid").st_mode & 07777, 0555u);
    EXPECT_EQ(look(finalOf() / "shut" / "plain").st_mode & 07777, 0444u);
    EXPECT_EQ(look(finalOf() / "shut").st_mode & 07777, 0555u);
    for (const char *name : {"", "setuid", "shut", "link"}) {
        EXPECT_EQ(look(finalOf() / name).st_mtime, 1) << name;
    }
}

TEST_F(RegisterOutputs, RewritesScratchPathsInContentsTargetsAndNames) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    std::string text = "at " + store_.dir().print(scratch) + "/bin";
    fs::create_directories(scratchOf() / ("dir-" + scratch.baseName()) / "deep");
    fs::path inner = fs::path("dir-" + scratch.baseName()) / "deep";
    write(scratchOf() / inner / "script", text);
    write(scratchOf() / inner / "untouched", "nothing");
    fs::create_symlink(store_.dir().print(scratch) + "/bin", scratchOf() / inner / "link");
    ino_t untouched = look(scratchOf() / inner / "untouched").st_ino;

    PathInfo info = run().at("out");
    std::string from = std::string(32, 'c'), to = std::string(32, 'a');
    fs::path place = finalOf() / replaceAll(inner, from, to);
    EXPECT_EQ(read(place / "script"), replaceAll(text, from, to));
    EXPECT_EQ(fs::read_symlink(place / "link"), store_.dir().print(info.path) + "/bin");
    EXPECT_EQ(namesIn(place), (std::set<std::string>{"script", "untouched", "link"}));
    EXPECT_EQ(look(place / "untouched").st_ino, untouched);
    EXPECT_EQ(look(place / "script").st_mode & 07777, 0444u);
    for (const fs::path &path : {place / "script", place / "link", place, finalOf()}) {
        EXPECT_EQ(look(path).st_mtime, 1) << path;
    }
    EXPECT_EQ(info.references, StorePathSet{info.path});
    expectHashed(info);
    EXPECT_FALSE(fs::exists(scratchOf()));
}

TEST_F(RegisterOutputs, SortsTheArchiveByTheNewNames) {
    addRedirected("out", 'z', '0');
    fs::create_directory(scratchOf());
    write(scratchOf() / std::string(32, '0'), "was first");
    write(scratchOf() / "m", "was second");
    expectHashed(run().at("out"));
}

TEST_F(RegisterOutputs, RewritesANameThatTakesTheOldNameOfAnother) {
    StorePath a = addRedirected("out", 'b', 'a'); // a becomes b
    StorePath b = addRedirected("dev", 'c', 'b'); // b becomes c
    fs::create_directory(scratchOf());
    write(scratchOf() / std::string(32, 'a'), "one");
    write(scratchOf() / std::string(32, 'b'), "two");
    write(scratchOf("dev"), "");
    // In this scratch directory nothing of that name is valid yet.
    run();
    EXPECT_EQ(read(finalOf() / std::string(32, 'b')), "one");
    EXPECT_EQ(read(finalOf() / std::string(32, 'c')), "two");
}

TEST_F(RegisterOutputs, RefusesNamesThatBecomeTheSame) {
    addRedirected("out", 'a', 'c');
    fs::create_directory(scratchOf());
    write(scratchOf() / std::string(32, 'a'), "one");
    write(scratchOf() / std::string(32, 'c'), "two");
    EXPECT_NE(expectError(ErrorKind::refused, [&] { run(); }).find("two entries"), std::string::npos);
    EXPECT_FALSE(fs::exists(finalOf()));
}

TEST_F(RegisterOutputs, RewritesAcrossTheBordersOfBlocks) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    std::string from(scratch.hashPart()), to(32, 'a');
    fs::create_directory(scratchOf());
    constexpr size_t block = 256 * 1024;
    std::map<std::string, std::string> expected;
    for (size_t shift = 0; shift <= 33; ++shift) {
        std::string text(2 * block + 100, '.');
        text.replace(block - shift, 32, from);
        text.replace(2 * block - 33 + shift, 32, from);
        std::string name = fmt::format("file-{}", shift);
        write(scratchOf() / name, text);
        expected[name] = replaceAll(text, from, to);
    }
    expectHashed(run().at("out"));
    for (const auto &[name, text] : expected) {
        EXPECT_TRUE(read(finalOf() / name) == text) << name;
    }
}

TEST_F(RegisterOutputs, RewritesAFileThatIsNothingButTheScratchPath) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    std::string line = store_.dir().print(scratch), text;
    while (text.size() < 12 * 1024 * 1024) {
        text += line;
    }
    write(scratchOf(), text);
    expectHashed(run().at("out"));
    EXPECT_TRUE(read(finalOf()) == replaceAll(text, std::string(32, 'c'), std::string(32, 'a')));
}

TEST_F(RegisterOutputs, TakesTheFirstOfOverlappingScratchPaths) {
    // "…aabb…": the second begins inside the first.
    std::string first = std::string(16, '1') + std::string(16, '2');
    std::string second = std::string(16, '2') + std::string(16, '3');
    addRedirected("out", 'a', 'c');
    addRedirected("dev", 'b', 'd');
    request_.outputs.at("out").scratchPath = StorePath(first + "-thing");
    request_.outputs.at("dev").scratchPath = StorePath(second + "-thing-dev");
    write(scratchOf("dev"), "");
    write(scratchOf(), "-" + first + std::string(16, '3') + "-" + second + "-");
    run();
    EXPECT_EQ(read(finalOf()),
              "-" + std::string(32, 'a') + std::string(16, '3') + "-" + std::string(32, 'b') + "-");
}

TEST_F(RegisterOutputs, LeavesAnOutputAloneThatIsValid) {
    addOutput("doc", 'd');
    write(scratchOf("doc"), "first");
    run();
    ino_t inode = look(finalOf("doc")).st_ino;

    StorePath doc = addRedirected("doc", 'd', 'f');
    StorePath scratch = addRedirected("out", 'a', 'c');
    write(scratchOf("doc"), "second");
    write(scratchOf(), store_.dir().print(doc));
    std::map<std::string, PathInfo> infos = run();
    EXPECT_EQ(look(finalOf("doc")).st_ino, inode);
    EXPECT_EQ(read(finalOf("doc")), "first");
    EXPECT_EQ(read(scratchOf("doc")), "second"); // for the caller to remove
    EXPECT_EQ(read(finalOf()), store_.dir().print(infos.at("doc").path));
    EXPECT_EQ(infos.at("out").references, StorePathSet{infos.at("doc").path});
}

TEST_F(RegisterOutputs, SaysWhichOutputIsMissing) {
    StorePath out = addOutput("out", 'a');
    EXPECT_EQ(failure(),
              fmt::format("builder for '{}' failed to produce output path for output 'out' at '{}'",
                          store_.dir().print(request_.drvPath), store_.dir().print(out)));
}

TEST_F(RegisterOutputs, IgnoresWhatElseLiesThere) {
    addOutput("out", 'a');
    write(scratchOf(), "x");
    write(tmp_ / "scratch" / "junk", "y");
    EXPECT_EQ(run().size(), 1u);
    EXPECT_TRUE(fs::exists(tmp_ / "scratch" / "junk"));
}

TEST_F(RegisterOutputs, NamesAFileOfAForbiddenType) {
    addOutput("out", 'a');
    fs::create_directory(scratchOf());
    mkfifo((scratchOf() / "pipe").c_str(), 0644);
    std::string message = failure();
    EXPECT_NE(message.find("-thing/pipe' has an unsupported type: it is a FIFO"), std::string::npos)
        << message;

    chmod(scratchOf().c_str(), 0755);
    fs::remove(scratchOf() / "pipe");
    UniqueFd socketFd(socket(AF_UNIX, SOCK_STREAM, 0));
    UniqueFd directory = openDirectory(scratchOf());
    sockaddr_un address{AF_UNIX, {}};
    std::string path = fmt::format("/proc/self/fd/{}/socket", directory.get());
    std::copy(path.begin(), path.end(), address.sun_path);
    ASSERT_EQ(bind(socketFd.get(), reinterpret_cast<sockaddr *>(&address), sizeof address), 0);
    EXPECT_NE(failure().find("a socket"), std::string::npos);
    EXPECT_TRUE(store_.queryAllValidPaths().empty());
}

TEST_F(RegisterOutputs, RefusesARootThatOthersCouldWrite) {
    addOutput("out", 'a');
    fs::create_directory(scratchOf());
    for (mode_t mode : {0775, 0757}) {
        chmod(scratchOf().c_str(), mode);
        EXPECT_NE(failure().find("suspicious ownership or permission on '"), std::string::npos);
    }
}

TEST_F(RegisterOutputs, RefusesFilesOfSomebodyElse) {
    if (geteuid() != 0) {
        request_.builderUid = geteuid() + 1; // all is somebody else's
    } else {
        request_.builderUid = 4711;
    }
    addOutput("out", 'a');
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", "x");
    EXPECT_NE(failure().find("suspicious ownership or permission"), std::string::npos);
    if (geteuid() == 0) {
        ASSERT_EQ(chown(scratchOf().c_str(), 4711, 4711), 0);
        EXPECT_NE(failure().find("invalid ownership on file"), std::string::npos);
    }
}

TEST_F(RegisterOutputs, KeepsHardLinksInsideAndAcrossOutputs) {
    if (geteuid() == 0) {
        request_.builderUid = 4711;
    }
    addOutput("out", 'a');
    addOutput("dev", 'b');
    fs::create_directory(scratchOf());
    write(scratchOf() / "one", "x");
    fs::create_hard_link(scratchOf() / "one", scratchOf() / "two");
    fs::create_hard_link(scratchOf() / "one", scratchOf("dev"));
    if (geteuid() == 0) {
        ASSERT_EQ(chown(scratchOf().c_str(), 4711, 4711), 0);
        ASSERT_EQ(chown((scratchOf() / "one").c_str(), 4711, 4711), 0);
    }
    run();
    EXPECT_EQ(look(finalOf() / "one").st_ino, look(finalOf() / "two").st_ino);
    EXPECT_EQ(look(finalOf() / "one").st_ino, look(finalOf("dev")).st_ino);
    EXPECT_EQ(look(finalOf() / "one").st_uid, geteuid());
}

TEST_F(RegisterOutputs, TakesACopyOfAFileThatHasNamesOutside) {
    addOutput("out", 'a');
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", "x");
    fs::create_hard_link(scratchOf() / "file", tmp_ / "outside");
    PathInfo info = run().at("out");
    EXPECT_NE(look(finalOf() / "file").st_ino, look(tmp_ / "outside").st_ino);
    EXPECT_EQ(look(finalOf() / "file").st_nlink, 1u);
    EXPECT_EQ(look(finalOf()).st_mtime, 1);
    EXPECT_EQ(look(finalOf()).st_mode & 07777, 0555u);
    expectHashed(info);
}

TEST_F(RegisterOutputs, ReportsACycleBetweenOutputs) {
    StorePath out = addOutput("out", 'a');
    StorePath dev = addOutput("dev", 'b');
    write(scratchOf(), dev.baseName());
    write(scratchOf("dev"), out.baseName());
    EXPECT_EQ(failure(), fmt::format("cycle detected in build of '{}' in the references of output 'dev' from "
                                     "output 'out'",
                                     store_.dir().print(request_.drvPath)));
    EXPECT_TRUE(fs::exists(scratchOf()));
    EXPECT_FALSE(store_.isValidPath(out));
}

TEST_F(RegisterOutputs, TakesAFixedOutputWithTheRightHash) {
    for (HashAlgorithm algorithm :
         {HashAlgorithm::md5, HashAlgorithm::sha1, HashAlgorithm::sha256, HashAlgorithm::sha512}) {
        std::string name(hashAlgorithmName(algorithm));
        addFixed(name, hashString(algorithm, "flat"));
        write(scratchOf(), "flat");
        PathInfo flat = run().at("out");
        EXPECT_TRUE(flat.isContentAddressed(store_.dir())) << name;

        StringSink nar;
        dumpNarOfString("recursive", nar);
        addFixed("r:" + name, hashString(algorithm, nar.text));
        write(scratchOf(), "recursive");
        PathInfo recursive = run().at("out");
        EXPECT_TRUE(recursive.isContentAddressed(store_.dir())) << name;
        expectHashed(recursive);
    }
}

TEST_F(RegisterOutputs, ReportsTheHashesOfAWrongFixedOutput) {
    Hash wanted = hashString(HashAlgorithm::sha256, "wanted"), got = hashString(HashAlgorithm::sha256, "got");
    addFixed("sha256", wanted);
    request_.url = "https://example.org/thing";
    write(scratchOf(), "got");
    EXPECT_EQ(failure(), fmt::format("hash mismatch in fixed-output derivation '{}':\n  likely URL: "
                                     "https://example.org/thing\n  specified: {}\n     got:    {}",
                                     store_.dir().print(request_.drvPath), wanted.sri(), got.sri()));
    EXPECT_TRUE(store_.queryAllValidPaths().empty());
}

TEST_F(RegisterOutputs, RefusesAFlatOutputThatIsNoPlainFile) {
    addFixed("sha256", hashString(HashAlgorithm::sha256, "x"));
    write(scratchOf(), "x");
    chmod(scratchOf().c_str(), 0755);
    EXPECT_NE(failure().find("should be a non-executable regular file"), std::string::npos);
    fs::remove(scratchOf());
    fs::create_directory(scratchOf());
    EXPECT_NE(failure().find("should be a non-executable regular file"), std::string::npos);
}

// ---- floating outputs

TEST_F(RegisterOutputs, PutsAFloatingOutputWhereItsContentsSay) {
    StorePath used = store_.addText("used", "text", {}).path;
    request_.possibleReferences = {used};
    addFloating("out", "r:sha256", 'c');
    write(scratchOf(), used.baseName());
    PathInfo info = run().at("out");
    StringSink nar;
    dumpNarOfString(used.baseName(), nar);
    ContentAddress address{ContentMethod::nar, hashString(HashAlgorithm::sha256, nar.text)};
    EXPECT_EQ(info.contentAddress, address);
    EXPECT_EQ(info.path, makeContentAddressedPath(store_.dir(), "thing", address, {{used}, false}));
    expectHashed(info);
}

TEST_F(RegisterOutputs, GivesTheSamePathWhateverTheScratchPathWas) {
    std::set<StorePath> paths;
    for (char digit : {'c', 'd', 'z'}) {
        StorePath scratch = addFloating("out", "r:sha256", digit);
        fs::create_directory(scratchOf());
        write(scratchOf() / "self", "at " + scratch.baseName());
        write(scratchOf() / ("name-" + std::string(scratch.hashPart())), "x");
        fs::create_symlink(store_.dir().print(scratch), scratchOf() / "link");
        PathInfo info = run().at("out");
        paths.insert(info.path);
        EXPECT_EQ(info.references, StorePathSet{info.path});
        expectVerified(info);
        EXPECT_FALSE(fs::exists(scratchOf()));
    }
    EXPECT_EQ(paths.size(), 1u);
}

TEST_F(RegisterOutputs, RefusesAValidPathThatHoldsOtherBytesUnderTheSameAddress) {
    auto build = [&] {
        StorePath scratch = addFloating("out", "r:sha256", 'c');
        write(scratchOf(), std::string(96, '\0') + store_.dir().print(scratch));
    };
    build();
    PathInfo info = run().at("out");
    StringSink nar;
    store_.narFromPath(info.path, nar);
    std::string altered = nar.text;
    altered.replace(altered.find(std::string(96, '\0')) + 32, 32, info.path.hashPart());
    ASSERT_NE(altered, nar.text);
    PathInfo other = info;
    other.ultimate = false;
    other.narHash = hashString(HashAlgorithm::sha256, altered);
    StringSource source(altered);
    store_.addNar(other, source, Repair::yes, CheckSignatures::yes);
    build();
    std::string message = failure();
    EXPECT_NE(message.find("valid with other contents"), std::string::npos) << message;
    EXPECT_NE(message.find("nix-store --delete " + store_.dir().print(info.path)), std::string::npos)
        << message;
    EXPECT_EQ(store_.queryPathInfo(info.path).narHash, other.narHash);
    request_.mode = BuildMode::repair;
    EXPECT_EQ(run().at("out").narHash, info.narHash);
    expectHashed(info);
}

TEST_F(RegisterOutputs, AnOutputThatHidesThatItNamesItselfIsTakenOnATrustedWordAlone) {
    derivation_.env["__json"] = R"({"unsafeDiscardReferences": {"out": true}})";
    for (const char *method : {"r:sha256", "r:sha512"}) {
        StorePath scratch = addFloating("out", method, 'c');
        write(scratchOf(), store_.dir().print(scratch));
        PathInfo info = run().at("out");
        info.ultimate = false;
        EXPECT_EQ(info.references, StorePathSet{});
        StringSink nar;
        store_.narFromPath(info.path, nar);
        StringSource trusted(nar.text), unsignedNar(nar.text);
        store_.addNar(info, trusted, Repair::yes, CheckSignatures::no);
        expectError(ErrorKind::refused,
                    [&] { store_.addNar(info, unsignedNar, Repair::yes, CheckSignatures::yes); });
    }
}

TEST_F(RegisterOutputs, UsesAValidPathWithTheSameBytesWhateverTheScratchPathWas) {
    for (char digit : {'c', 'd'}) {
        StorePath scratch = addFloating("out", "r:sha256", digit);
        fs::create_directory(scratchOf());
        write(scratchOf() / "zeros", std::string(96, '\0') + scratch.baseName());
        write(scratchOf() / ("name-" + std::string(scratch.hashPart())), "x");
        expectHashed(run().at("out"));
    }
}

TEST_F(RegisterOutputs, AgreesWithItsFilesWhenThereAreMoreOccurrencesThanAreKept) {
    StorePath scratch = addFloating("out", "r:sha256", 'c');
    StorePath dev = addFloating("dev", "r:sha256", 'd');
    std::string text;
    while (text.size() < 4 * 1024 * 1024) {
        text += scratch.baseName() + dev.baseName();
    }
    write(scratchOf(), text);
    write(scratchOf("dev"), "dev");
    std::map<std::string, PathInfo> infos = run();
    expectVerified(infos.at("out"));
    EXPECT_EQ(infos.at("out").references, (StorePathSet{infos.at("out").path, infos.at("dev").path}));
}

TEST_F(RegisterOutputs, RefusesAnOutputWhoseEntriesChangeTheirOrderWithItsPath) {
    StorePath scratch = addFloating("out", "r:sha256", '0');
    fs::create_directory(scratchOf());
    write(scratchOf() / std::string(scratch.hashPart()), "x");
    // Before it comes no hash part but the one of zeros alone.
    write(scratchOf() / (std::string(31, '0') + "1"), "x");
    EXPECT_NE(failure().find("whose order changes"), std::string::npos);
}

TEST_F(RegisterOutputs, RefusesAFlatFloatingOutputThatNamesAPath) {
    StorePath scratch = addFloating("out", "sha256", 'c');
    write(scratchOf(), scratch.baseName());
    EXPECT_NE(failure().find("cannot have a content address"), std::string::npos);
}

TEST_F(RegisterOutputs, RefusesReferencesInAFixedOutput) {
    StorePath used = store_.addText("used", "text", {}).path;
    request_.possibleReferences = {used};
    addFixed("sha256", hashString(HashAlgorithm::sha256, used.baseName()));
    write(scratchOf(), used.baseName());
    EXPECT_NE(failure().find("not allowed to refer to other store paths"), std::string::npos);
}

TEST_F(RegisterOutputs, PutsFixedOutputsOnNewInodes) {
    request_.copyFixedOutputs = true;
    std::string text(1000000, 'x');
    addFixed("sha256", hashString(HashAlgorithm::sha256, text));
    write(scratchOf(), text);
    UniqueFd held(open(scratchOf().c_str(), O_RDWR));
    expectHashed(run().at("out"));
    ASSERT_EQ(pwrite(held.get(), "evil", 4, 0), 4);
    EXPECT_TRUE(read(finalOf()) == text);

    StringSink nar;
    fs::create_directory(tmp_ / "same");
    write(tmp_ / "same" / "file", "inner");
    dumpNar(tmp_.fd(), "same", nar);
    addFixed("r:sha256", hashString(HashAlgorithm::sha256, nar.text));
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", "inner");
    held.reset(open((scratchOf() / "file").c_str(), O_RDWR));
    expectHashed(run().at("out"));
    ASSERT_EQ(pwrite(held.get(), "evil", 4, 0), 4);
    EXPECT_EQ(read(finalOf() / "file"), "inner");
    EXPECT_EQ(look(finalOf()).st_mode & 07777, 0555u);
}

TEST_F(RegisterOutputs, ChecksWhatItMayReferTo) {
    StorePath used = store_.addText("used", "text", {}).path;
    StorePath user = store_.addText("user", used.baseName(), {used}).path;
    request_.possibleReferences = {used, user};
    StorePath out = addOutput("out", 'a');
    write(scratchOf(), user.baseName());
    std::string message = fmt::format("output '{}' is not allowed to refer to the following paths:\n  {}",
                                      store_.dir().print(out), store_.dir().print(used));

    derivation_.env = {{"disallowedRequisites", store_.dir().print(used)}};
    EXPECT_EQ(failure(), message);
    derivation_.env = {{"allowedRequisites", store_.dir().print(user)}};
    EXPECT_EQ(failure(), message);
    derivation_.env = {{"allowedReferences", ""}};
    EXPECT_EQ(failure(), replaceAll(message, used.baseName(), user.baseName()));
    derivation_.env = {{"allowedReferences", "nonsense"}};
    EXPECT_EQ(failure(), "derivation contains an illegal reference specifier 'nonsense'");
    EXPECT_FALSE(store_.isValidPath(out));

    derivation_.env = {{"allowedReferences", store_.dir().print(user)},
                       {"allowedRequisites", store_.dir().print(user) + " " + store_.dir().print(used)},
                       {"disallowedReferences", store_.dir().print(used)}};
    EXPECT_EQ(run().at("out").references, StorePathSet{user});
}

TEST_F(RegisterOutputs, ChecksSizes) {
    StorePath out = addOutput("out", 'a');
    write(scratchOf(), std::string(1000, 'x'));
    derivation_.env = {{"__json", R"({"outputChecks":{"out":{"maxSize":1000}}})"}};
    EXPECT_EQ(failure(), fmt::format("path '{}' is too large at 1112 bytes; limit is 1000 bytes",
                                     store_.dir().print(out)));
    derivation_.env = {{"__json", R"({"outputChecks":{"out":{"maxClosureSize":1111}}})"}};
    EXPECT_EQ(failure(), fmt::format("closure of path '{}' is too large at 1112 bytes; limit is 1111 bytes",
                                     store_.dir().print(out)));
    derivation_.env = {{"__json", R"({"outputChecks":{"out":{"maxSize":1112}}})"}};
    run();
}

TEST_F(RegisterOutputs, SaysNothingWhenACheckComesOutTheSame) {
    StorePath out = addOutput("out", 'a');
    write(scratchOf(), "same " + out.baseName());
    PathInfo before = run().at("out");
    StorePath scratch = addRedirected("out", 'a', 'c');
    checkOutputs({});
    write(scratchOf(), "same " + scratch.baseName());
    EXPECT_EQ(run().at("out").narHash, before.narHash);
    EXPECT_FALSE(fs::exists(scratchOf()));
    EXPECT_EQ(report_.outputs.at(0).verdict, OutputReport::Verdict::same);
}

TEST_F(RegisterOutputs, ACheckTellsDamageFromABuildThatDoesNotRepeat) {
    StorePath out = addOutput("out", 'a');
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", "registered");
    run();
    chmod((finalOf() / "file").c_str(), 0644);
    write(finalOf() / "file", "damaged");
    StorePath scratch = addRedirected("out", 'a', 'c');
    checkOutputs({.keepForUser = true, .keepForHook = true, .reportFile = {}});
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", "registered");
    std::string message = failure(BuildResult::Status::miscFailure);
    EXPECT_NE(message.find("is damaged: what is in the store is not what was registered. The build itself "
                           "repeats"),
              std::string::npos)
        << message;
    EXPECT_NE(
        message.find("\n  file: contents differ (10 bytes, the first at offset 0; 10 bytes long, now 7)"),
        std::string::npos)
        << message;
    EXPECT_TRUE(report_.deterministic() && report_.damaged());
    EXPECT_EQ(report_.outputs.at(0).kept, "");
    ASSERT_EQ(chmod((scratchOf() / "file").c_str(), 0644), 0);
    write(scratchOf() / "file", "different");
    message = failure(BuildResult::Status::notDeterministic);
    EXPECT_NE(message.find("cannot be told what was damaged"), std::string::npos) << message;
    EXPECT_TRUE(!report_.deterministic() && report_.damaged());
    EXPECT_EQ(read(finalOf() / "file"), "damaged");
}

TEST_F(RegisterOutputs, ACheckOfAnOutputThatVanishedSaysSo) {
    StorePath out = addOutput("out", 'a');
    write(scratchOf(), "registered");
    run();
    fs::remove(finalOf());
    addRedirected("out", 'a', 'c');
    checkOutputs({});
    write(scratchOf(), "registered");
    EXPECT_NE(failure(BuildResult::Status::miscFailure).find("\n  missing now (regular file)"),
              std::string::npos);
}

TEST_F(RegisterOutputs, ReportsACheckThatDiffersAndKeepsItOnRequest) {
    StorePath out = addOutput("out", 'a');
    write(scratchOf(), "first");
    run();
    checkOutputs({});
    write(scratchOf(), "second");
    std::string message = fmt::format("derivation '{}' may not be deterministic: output '{}' differs",
                                      store_.dir().print(request_.drvPath), store_.dir().print(out));
    std::string lines = fmt::format("\noutput 'out' ('{}'): 1 with other contents\n"
                                    "  contents differ (6 bytes, the first at offset 0; 5 bytes long, now 6)",
                                    store_.dir().print(out));
    EXPECT_EQ(failure(BuildResult::Status::notDeterministic), message + lines);
    EXPECT_FALSE(fs::exists(finalOf().string() + ".check"));
    checkOutputs({.keepForUser = true, .keepForHook = false, .reportFile = tmp_ / "log" / "a" / "report"});
    EXPECT_EQ(failure(BuildResult::Status::notDeterministic),
              message + " from '" + store_.dir().print(out) + ".check'" + lines + "\nall of it is in '" +
                  (tmp_ / "log" / "a" / "report").string() + "'");
    EXPECT_NE(read(tmp_ / "log" / "a" / "report").find("\"verdict\": \"differs\""), std::string::npos);
    EXPECT_EQ(namesIn(tmp_ / "log" / "a"), std::set<std::string>{"report"});
    EXPECT_EQ(read(finalOf().string() + ".check"), "second");
    EXPECT_EQ(read(finalOf()), "first");
}

TEST_F(RegisterOutputs, WhatACheckKeepsIsCanonical) {
    addOutput("out", 'a');
    for (const char *content : {"first", "second"}) {
        fs::create_directories(scratchOf() / "dir");
        write(scratchOf() / "dir" / "file", content);
        write(scratchOf() / "tool", "tool");
        chmod((scratchOf() / "tool").c_str(), 04711);
        chmod((scratchOf() / "dir" / "file").c_str(), 0640);
        fs::create_symlink("tool", scratchOf() / "link");
        if (content == std::string("first")) {
            run();
        }
    }
    checkOutputs({.keepForUser = true, .keepForHook = false, .reportFile = {}});
    failure(BuildResult::Status::notDeterministic);
    fs::path kept = finalOf().string() + ".check";
    EXPECT_EQ(read(kept / "dir" / "file"), "second");
    for (auto [name, mode] :
         {std::pair("", 0555), {"dir", 0555}, {"dir/file", 0444}, {"tool", 0555}, {"link", 0777}}) {
        struct stat st;
        ASSERT_EQ(lstat((kept / name).c_str(), &st), 0) << name;
        EXPECT_EQ(st.st_mode & 07777, static_cast<mode_t>(mode)) << name;
        EXPECT_EQ(st.st_mtime, 1) << name;
    }
}

TEST_F(RegisterOutputs, ACheckReadsWhatItsOwnerMayNot) {
    addOutput("out", 'a');
    for (int i = 0; i < 2; ++i) {
        fs::create_directories(scratchOf() / "dir" / "shut");
        write(scratchOf() / "dir" / "shut" / "file", "text");
        chmod((scratchOf() / "dir" / "shut" / "file").c_str(), 0);
        chmod((scratchOf() / "dir" / "shut").c_str(), 0);
        chmod((scratchOf() / "dir").c_str(), 0200);
        run();
        checkOutputs({});
    }
    EXPECT_TRUE(report_.deterministic());
    EXPECT_EQ(report_.outputs.size(), 1u);
}

TEST_F(RegisterOutputs, WhatTakesLongToRemoveIsLeftToTheCaller) {
    addOutput("small", 'a');
    addOutput("large", 'b');
    addOutput("many", 'c');
    auto make = [&] {
        write(scratchOf("small"), "text");
        write(scratchOf("large"), std::string(slowToFree, 'x'));
        fs::create_directory(scratchOf("many"));
        for (int i = 0; i < 1000; ++i) {
            write(scratchOf("many") / std::to_string(i), "text");
        }
    };
    make();
    run();
    EXPECT_EQ(namesIn(tmp_ / "scratch").size(), 0u);
    checkOutputs({});
    make();
    run();
    EXPECT_TRUE(report_.deterministic() && !report_.damaged());
    EXPECT_EQ(namesIn(tmp_ / "scratch"),
              (std::set<std::string>{scratchOf("large").filename(), scratchOf("many").filename()}));
}

/// Beside a scan that takes longer than nothing, in a thread of its own.
TEST_F(RegisterOutputs, ACheckFindsDamageInATreeOfManyFiles) {
    addOutput("out", 'a');
    auto make = [&] {
        for (int i = 0; i < 1000; ++i) {
            fs::path dir = scratchOf() / std::to_string(i % 10);
            fs::create_directories(dir);
            write(dir / ("file" + std::to_string(i)), "text");
        }
    };
    make();
    run();
    checkOutputs({});
    make();
    run();
    EXPECT_TRUE(report_.deterministic() && !report_.damaged());
    removeTree(request_.scratchDir, scratchOf().filename());
    ASSERT_EQ(chmod((finalOf() / "9" / "file999").c_str(), 0644), 0);
    write(finalOf() / "9" / "file999", "tex");
    make();
    EXPECT_NE(failure(BuildResult::Status::miscFailure).find("\n  9/file999: contents differ"),
              std::string::npos);
    EXPECT_TRUE(report_.deterministic() && report_.damaged());
}

/// The tree that is scanned is not the one that is compared.
TEST_F(RegisterOutputs, ACheckThatRenamesManyFilesComparesThemByTheirNewNames) {
    StorePath out = addOutput("out", 'a');
    auto make = [&](const StorePath &self) {
        fs::create_directory(scratchOf());
        for (int i = 0; i < 300; ++i) {
            write(scratchOf() / (std::string(self.hashPart()) + std::to_string(i)), "text");
        }
    };
    make(out);
    run();
    StorePath scratch = addRedirected("out", 'a', 'c');
    checkOutputs({});
    make(scratch);
    run();
    EXPECT_TRUE(report_.deterministic() && !report_.damaged());
    EXPECT_EQ(report_.outputs.at(0).comparison.total(), 0u);
    removeTree(request_.scratchDir, scratchOf().filename());
    // What the scan sees is what was damaged: only its result tells.
    fs::permissions(finalOf(), fs::perms::owner_all);
    fs::rename(finalOf() / (std::string(out.hashPart()) + "7"),
               finalOf() / (std::string(scratch.hashPart()) + "7"));
    make(scratch);
    failure(BuildResult::Status::miscFailure);
    EXPECT_TRUE(report_.deterministic() && report_.damaged());
}

TEST_F(RegisterOutputs, ACheckRemovesWhatAnEarlierOneHasKeptButNothingThatIsValid) {
    StorePath out = addOutput("out", 'a');
    write(scratchOf(), "first");
    PathInfo info = run().at("out");
    fs::path kept = finalOf().string() + ".check";
    checkOutputs({});
    write(scratchOf(), "first");
    write(kept, "of an earlier check");
    run();
    EXPECT_FALSE(fs::exists(kept));
    write(kept, "valid");
    info.path = keptCheckPath(out);
    HashAndSize nar = hashNar(store_.storeFd(), info.path.baseName());
    info.narHash = nar.hash;
    info.narSize = nar.size;
    store_.registerValidPaths({info});
    write(scratchOf(), "first");
    run();
    EXPECT_EQ(read(kept), "valid");
    checkOutputs({.keepForUser = true, .keepForHook = false, .reportFile = {}});
    write(scratchOf(), "second");
    failure(BuildResult::Status::notDeterministic);
    EXPECT_EQ(report_.outputs.at(0).kept, "");
    EXPECT_EQ(read(kept), "valid");
}

TEST_F(RegisterOutputs, ComparesEveryOutputAndKeepsThoseThatDifferForAHook) {
    for (const char *content : {"first", "second"}) {
        for (const char *name : {"out", "dev", "doc"}) {
            addOutput(name, name[0] == 'o' ? 'a' : name[1] == 'e' ? 'b' : 'c');
            write(scratchOf(name), name == std::string("dev") ? "same" : content);
        }
        if (content == std::string("first")) {
            run();
        }
    }
    checkOutputs({.keepForUser = false, .keepForHook = true, .reportFile = {}});
    std::string message = failure(BuildResult::Status::notDeterministic);
    EXPECT_EQ(message.find(".check"), std::string::npos) << message;
    std::map<std::string, std::string> kept;
    for (const OutputReport &output : report_.outputs) {
        kept.emplace(output.name, output.kept);
    }
    EXPECT_EQ(kept, (std::map<std::string, std::string>{{"out", finalOf("out").string() + ".check"},
                                                        {"dev", ""},
                                                        {"doc", finalOf("doc").string() + ".check"}}));
    EXPECT_EQ(read(kept.at("doc")), "second");
    EXPECT_FALSE(report_.deterministic());
}

TEST_F(RegisterOutputs, WhatCameOutTheSameInACheckIsVouchedFor) {
    StorePath out = addOutput("out", 'a');
    write(scratchOf(), "first");
    PathInfo info = run().at("out");
    info.ultimate = false;
    store_.registerValidPaths({info});
    checkOutputs({});
    write(scratchOf(), "first");
    EXPECT_TRUE(run().at("out").ultimate);
    EXPECT_TRUE(store_.queryPathInfo(out).ultimate);
}

TEST_F(RegisterOutputs, RepairReplacesWhatIsThere) {
    StorePath out = addOutput("out", 'a');
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", "good");
    run();
    chmod((finalOf() / "file").c_str(), 0644);
    write(finalOf() / "file", "damaged");
    request_.mode = BuildMode::repair;
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", "good");
    expectHashed(run().at("out"));
    EXPECT_EQ(read(finalOf() / "file"), "good");
    std::set<std::string> names = namesIn(tmp_ / "store");
    names.erase(".links");
    EXPECT_EQ(names, std::set<std::string>{out.baseName()});
}

TEST_F(RegisterOutputs, RepairIsUndoneWhenRegistrationFails) {
    StorePath out = addOutput("out", 'a');
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", "good");
    run();
    UniqueFd scratch = openDirectory(tmp_.path());
    fs::create_directory(tmp_ / "new");
    write(tmp_ / "new" / "file", "better");
    chmod((tmp_ / "new").c_str(), 0555);
    struct stat before, placed, after;
    ASSERT_EQ(lstat(finalOf().c_str(), &before), 0);
    {
        OutputPlacement placement(store_);
        placement.place(scratch.get(), "new", out);
        EXPECT_EQ(read(finalOf() / "file"), "better");
        ASSERT_EQ(lstat(finalOf().c_str(), &placed), 0);
        EXPECT_NE(placed.st_ino, before.st_ino);
    }
    ASSERT_EQ(lstat(finalOf().c_str(), &after), 0);
    EXPECT_EQ(after.st_ino, before.st_ino);
    EXPECT_EQ(after.st_mode, before.st_mode);
    EXPECT_EQ(read(tmp_ / "new" / "file"), "better");
}

TEST_F(RegisterOutputs, RemovesWhatLiesAtTheFinalPathWithoutBeingValid) {
    addOutput("out", 'a');
    fs::create_directories(finalOf() / "left" / "behind");
    write(finalOf() / "left" / "file", "evil");
    chmod((finalOf() / "left").c_str(), 0000);
    write(scratchOf(), "good");
    expectHashed(run().at("out"));
    EXPECT_EQ(read(finalOf()), "good");
}

TEST_F(RegisterOutputs, LeavesTheStoreAsItWasWhenRegistrationFails) {
    StorePath missing(std::string(32, 'm') + "-missing");
    request_.possibleReferences = {missing}; // claimed to be valid, but is not
    StorePath out = addOutput("out", 'a');
    StorePath dev = addOutput("dev", 'b');
    fs::create_directory(scratchOf());
    write(scratchOf() / "file", missing.baseName());
    write(scratchOf("dev"), out.baseName());
    std::set<std::string> before = namesIn(tmp_ / "store");
    EXPECT_THROW(run(), Error);
    EXPECT_EQ(namesIn(tmp_ / "store"), before);
    EXPECT_FALSE(store_.isValidPath(out));
    EXPECT_FALSE(store_.isValidPath(dev));
    EXPECT_TRUE(fs::exists(scratchOf() / "file"));
}

TEST_F(RegisterOutputs, AppliesTheRepairsOfTouchedFilesAlone) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    fs::create_directory(scratchOf());
    write(scratchOf() / "program", "sum=0000 " + scratch.baseName());
    write(scratchOf() / "other", "sum=0000");
    std::vector<FilePatches> seen;
    PathInfo info =
        run([&](int dir, const std::string &name, const std::vector<FilePatches> &touched) {
            EXPECT_TRUE(existsAt(dir, name));
            seen = touched;
            return std::vector<FilePatches>{{"program", {{Patch::Place::contents, 4, "1234"}}, false}};
        }).at("out");
    ASSERT_EQ(seen.size(), 1u);
    EXPECT_EQ(seen[0].path, "program");
    ASSERT_EQ(seen[0].patches.size(), 1u);
    EXPECT_EQ(seen[0].patches[0].offset, 9u);
    EXPECT_EQ(seen[0].patches[0].bytes, std::string(32, 'a'));
    EXPECT_EQ(read(finalOf() / "program"), "sum=1234 " + info.path.baseName());
    expectHashed(info);
}

TEST_F(RegisterOutputs, TouchedFilesAreForeseenOnceEachByWhatTheyBeginWith) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    fs::create_directory(scratchOf());
    write(scratchOf() / "1", "head and " + scratch.baseName() + scratch.baseName());
    write(scratchOf() / "2", "untouched");
    write(scratchOf() / "3", scratch.baseName());
    write(scratchOf() / scratch.baseName(), "name");
    fs::create_symlink(scratch.baseName(), scratchOf() / "link");
    size_t repaired = 0;
    FakeRepair repair([&](int, const std::string &, const std::vector<FilePatches> &touched) {
        repaired = touched.size();
        return std::vector<FilePatches>();
    });
    run(repair);
    EXPECT_EQ(repaired, 2u);
    EXPECT_EQ(repair.foreseen, (std::vector<std::string>{"head", std::string(4, 'c')}));
}

TEST_F(RegisterOutputs, RepairsAFileThatIsRewrittenEverywhere) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    std::string text = "head";
    while (text.size() < 4 * 1024 * 1024) {
        text += scratch.baseName();
    }
    write(scratchOf(), text);
    uint64_t middle = text.find("-thing", 2 * 1024 * 1024);
    auto repairAt = [](uint64_t offset) {
        return [offset](int, const std::string &, const std::vector<FilePatches> &touched) {
            EXPECT_EQ(touched.size(), 1u);
            EXPECT_TRUE(touched[0].everywhere);
            EXPECT_TRUE(touched[0].patches.empty());
            return std::vector<FilePatches>{{"", {{Patch::Place::contents, offset, "+"}}, false}};
        };
    };
    expectHashed(run(repairAt(middle)).at("out"));
    std::string expected = replaceAll(text, std::string(32, 'c'), std::string(32, 'a'));
    expected[middle] = '+';
    EXPECT_TRUE(read(finalOf()) == expected);
}

constexpr size_t blockOfScan = 256 * 1024;
constexpr uint64_t changingBytes = 5000;

/// Files of which rewriting makes others, with occurrences wherever reading in blocks may go wrong.
std::map<std::string, std::string> textsToRewrite(const std::string &part) {
    constexpr size_t block = blockOfScan;
    std::map<std::string, std::string> texts = {
        {"all", part},
        {"begin", part + "-thing"},
        {"end", "text " + part},
        {"none", std::string(3 * block, '.')},
        {"twice", part + part + "." + part},
        {"run", part.substr(0, 1) + part + std::string(2 * block, part[1])},
        {"new-behind", part + part.substr(1)},
        {"new-before", part.substr(0, 31) + part},
        {"short", part.substr(1)},
        {"far", std::string(9 * block + 11, '.') + part + "..." + part},
    };
    for (size_t shift : {0, 1, 2, 15, 30, 31, 32, 33}) {
        std::string text(3 * block + 7, '.');
        text.replace(block - shift, part.size(), part);
        text.replace(2 * block + 31 - shift, part.size(), part);
        texts.emplace("border-" + std::to_string(shift), text);
        texts.emplace("cut-" + std::to_string(shift), std::string(block - shift, '.') + part);
    }
    return texts;
}

/// The same with files that are repaired: their last byte, of which `changingBytes` are foreseen, is.
std::map<std::string, std::string> textsToRepair(const std::string &part) {
    std::map<std::string, std::string> texts = textsToRewrite(part);
    for (size_t shift : {0, 1, 15, 31, 32, 33}) {
        for (size_t size :
             {2 * blockOfScan + 100, 2 * blockOfScan, 2 * blockOfScan + changingBytes, size_t(7000)}) {
            std::string text = "stay" + std::string(size - 4, '.');
            text.replace(100, part.size(), part);
            text.replace(size - changingBytes - shift, part.size(), part);
            text.replace(size - 40, part.size(), part);
            texts.emplace("stay-" + std::to_string(size) + "-" + std::to_string(shift), text);
        }
    }
    texts.emplace("stay-late", "stay" + std::string(blockOfScan, '.') + part + ".");
    texts.emplace("stay-short", "stay" + part + ".");
    std::string filled = "stay";
    while (filled.size() < 4 * 1024 * 1024) {
        filled += part + part + "-";
    }
    texts.emplace("stay-filled", filled + ".");
    texts.emplace("stay-filled-anew", "stay" + part + part.substr(1) + "." + filled + ".");
    texts.emplace("a-dir/stay", "stay" + part + "."); // number of its node: behind all in the root
    texts.emplace("a-dir/text", part);
    return texts;
}

struct RewriteCase {
    std::string title;
    uint64_t changing = 0;  ///< bytes in which files that are repaired are foreseen to change; 0: none is
    bool byAll = false;     ///< foreseen of all files
    bool early = false;     ///< a byte before those is repaired too
    bool straddles = false; ///< and some that begin before them
    bool copyAll = false, clones = false, hasLink = false, hasName = false, isLinkedOutside = false;
    bool isLate = false; ///< the link comes behind everything
};

class RewritingOutputs : public RegisterOutputs, public testing::WithParamInterface<RewriteCase> {
  protected:
    RewritingOutputs() { pretendToClone = GetParam().clones; }
    ~RewritingOutputs() override { pretendToClone = false; }

    void build() {
        fs::create_directories(scratchOf() / "a-dir");
        for (const auto &[name, text] : texts_) {
            write(scratchOf() / name, text);
        }
        fs::permissions(scratchOf() / executable_, fs::perms(0755));
        if (GetParam().hasLink) {
            fs::create_symlink(from_ + "-thing", scratchOf() / (GetParam().isLate ? "zz" : "link"));
        }
        if (GetParam().hasName) {
            write(scratchOf() / ("by-" + from_), "text");
        }
        if (GetParam().isLinkedOutside) {
            fs::create_directories(tmp_ / "outside" / "a-dir");
            for (const auto &[name, text] : texts_) {
                fs::create_hard_link(scratchOf() / name, tmp_ / "outside" / name);
            }
        }
        untouched_ = look(scratchOf() / "none").st_ino;
    }

    std::vector<Patch> repairsOf(const std::string &name) const {
        std::vector<Patch> repairs;
        if (fs::path(name).filename().string().starts_with("stay") && GetParam().changing > 0) {
            uint64_t size = texts_.at(name).size();
            if (GetParam().early) {
                repairs.push_back({Patch::Place::contents, 2, "E"});
            }
            if (GetParam().straddles && size > changingBytes + 200) {
                repairs.push_back({Patch::Place::contents, size - changingBytes - 50, std::string(60, 'S')});
            }
            repairs.push_back({Patch::Place::contents, size - 1, "R"});
        }
        return repairs;
    }

    std::string expected(const std::string &name) const {
        std::string text = replaceAll(texts_.at(name), from_, to_);
        for (const Patch &patch : repairsOf(name)) {
            text.replace(patch.offset, patch.bytes.size(), patch.bytes);
        }
        return text;
    }

    void expectRewritten(const std::string &name) {
        EXPECT_TRUE(read(finalOf() / name) == expected(name)) << name;
        struct stat st = look(finalOf() / name);
        EXPECT_EQ(st.st_mode & 07777, name == executable_ ? 0555u : 0444u) << name;
        EXPECT_EQ(st.st_mtime, 1) << name;
        EXPECT_EQ(st.st_nlink, 1u) << name;
        if (GetParam().isLinkedOutside) {
            EXPECT_TRUE(read(tmp_ / "outside" / name) == texts_.at(name)) << name;
        }
    }

    // Where one meets what follows or goes before, another `from_` can come about.
    std::string from_ = "c" + std::string(31, 'd'), to_ = "d" + std::string(30, 'a') + "c";
    std::map<std::string, std::string> texts_ = textsToRepair(from_);
    const std::string executable_ = "stay-late";
    ino_t untouched_ = 0;
};

TEST_P(RewritingOutputs, ComeOutTheSameWhetherWhileReadingOrAfterwards) {
    addRedirected("out", StorePath(to_ + "-thing"), StorePath(from_ + "-thing"));
    request_.copyAllOutputs = GetParam().copyAll;
    build();
    size_t touchedAtOnce = 0;
    FakeRepair repair([&](int, const std::string &, const std::vector<FilePatches> &touched) {
        std::vector<FilePatches> repairs;
        for (const FilePatches &file : touched) {
            if (std::vector<Patch> patches = repairsOf(file.path); !patches.empty()) {
                repairs.push_back({file.path, std::move(patches), false});
            }
        }
        touchedAtOnce = touched.size();
        return repairs;
    });
    size_t asked = 0;
    repair.onFile = [&](const std::string &path, const std::string &contents) {
        EXPECT_TRUE(contents == texts_.at(path)) << path;
        ++asked;
    };
    repair.wanted = GetParam().byAll ? "" : "stay";
    repair.changing = GetParam().changing;
    PathInfo info = run(repair).at("out");
    EXPECT_EQ(touchedAtOnce, texts_.size() - 2);   // but "none" and "short"
    EXPECT_EQ(asked > 0, GetParam().changing > 0); // at least of what is in "a-dir", which comes first
    expectHashed(info);
    for (const auto &[name, text] : texts_) {
        expectRewritten(name);
    }
    EXPECT_EQ(look(finalOf() / "none").st_ino == untouched_,
              !GetParam().copyAll && !GetParam().isLinkedOutside);
    if (GetParam().hasLink) {
        EXPECT_EQ(fs::read_symlink(finalOf() / (GetParam().isLate ? "zz" : "link")), to_ + "-thing");
    }
    std::set<std::string> names, expectedNames{"a-dir"};
    for (const auto &entry : fs::recursive_directory_iterator(finalOf())) {
        names.insert(fs::relative(entry.path(), finalOf()));
        EXPECT_EQ(look(entry.path()).st_mtime, 1) << entry.path();
        EXPECT_EQ(look(entry.path()).st_mode & 0222, entry.is_symlink() ? 0222u : 0u) << entry.path();
    }
    for (const auto &[name, text] : texts_) {
        expectedNames.insert(name);
    }
    if (GetParam().hasLink) {
        expectedNames.insert(GetParam().isLate ? "zz" : "link");
    }
    if (GetParam().hasName) {
        expectedNames.insert("by-" + to_);
    }
    EXPECT_EQ(names, expectedNames);
}

INSTANTIATE_TEST_SUITE_P(
    , RewritingOutputs,
    testing::Values(
        RewriteCase{.title = "Plain"}, RewriteCase{.title = "Copied", .copyAll = true},
        RewriteCase{.title = "Cloned", .clones = true},
        RewriteCase{.title = "CopiedByCloning", .copyAll = true, .clones = true},
        RewriteCase{.title = "LinkedOutside", .isLinkedOutside = true},
        RewriteCase{.title = "WithASymlink", .hasLink = true},
        RewriteCase{.title = "WithAName", .hasName = true},
        RewriteCase{.title = "Repaired", .changing = changingBytes},
        RewriteCase{.title = "RepairedAndCopied", .changing = changingBytes, .copyAll = true},
        RewriteCase{.title = "RepairedAndCloned", .changing = changingBytes, .clones = true},
        RewriteCase{.title = "RepairedAndCopiedByCloning",
                    .changing = changingBytes,
                    .copyAll = true,
                    .clones = true},
        RewriteCase{.title = "RepairedAnywhere", .changing = UINT64_MAX},
        RewriteCase{.title = "RepairedAnywhereAndCopied", .changing = UINT64_MAX, .copyAll = true},
        RewriteCase{.title = "RepairedAnywhereAndCloned", .changing = UINT64_MAX, .clones = true},
        RewriteCase{.title = "AllHeldBack", .changing = UINT64_MAX, .byAll = true},
        RewriteCase{.title = "RepairedBeforeWhatWasForeseen", .changing = changingBytes, .early = true},
        RewriteCase{.title = "RepairedBeforeWhatWasForeseenAndCopied",
                    .changing = changingBytes,
                    .early = true,
                    .copyAll = true},
        RewriteCase{.title = "RepairedBeforeWhatWasForeseenAndCloned",
                    .changing = changingBytes,
                    .early = true,
                    .clones = true},
        RewriteCase{.title = "RepairedAcrossTheBorder", .changing = changingBytes, .straddles = true},
        RewriteCase{.title = "RepairedAcrossTheBorderAndCopied",
                    .changing = changingBytes,
                    .straddles = true,
                    .copyAll = true},
        RewriteCase{.title = "RepairedAcrossTheBorderAndCopiedByCloning",
                    .changing = changingBytes,
                    .straddles = true,
                    .copyAll = true,
                    .clones = true},
        RewriteCase{
            .title = "RepairedBeforeASymlink", .changing = changingBytes, .hasLink = true, .isLate = true},
        RewriteCase{.title = "RepairedAndLinkedOutsideByCloning",
                    .changing = changingBytes,
                    .clones = true,
                    .isLinkedOutside = true},
        RewriteCase{.title = "Everything",
                    .changing = changingBytes,
                    .copyAll = true,
                    .hasLink = true,
                    .hasName = true,
                    .isLinkedOutside = true}),
    [](const auto &info) { return info.param.title; });

TEST_F(RegisterOutputs, OutputsThatAreAFileAreRewrittenWhileTheyAreReadToo) {
    for (bool clones : {false, true}) {
        for (bool copyAll : {false, true}) {
            for (uint64_t changing : {uint64_t(0), changingBytes, UINT64_MAX}) {
                SCOPED_TRACE(fmt::format("clones {}, copyAll {}, changing {}", clones, copyAll, changing));
                StorePath scratch = addRedirected("out", 'a', 'c');
                pretendToClone = clones;
                request_.copyAllOutputs = copyAll;
                request_.mode = BuildMode::repair;
                std::string text = "stay" + std::string(2 * blockOfScan, '.') + scratch.baseName();
                text += std::string(2 * blockOfScan, '.') + scratch.baseName() + ".";
                write(scratchOf(), text);
                FakeRepair repair([&](auto &&...) {
                    Patch last{Patch::Place::contents, text.size() - 1, "R"};
                    return changing == 0 ? std::vector<FilePatches>()
                                         : std::vector<FilePatches>{{"", {last}, false}};
                });
                repair.changing = changing;
                expectHashed(run(repair).at("out"));
                std::string expected = replaceAll(text, std::string(32, 'c'), std::string(32, 'a'));
                expected.back() = changing == 0 ? '.' : 'R';
                EXPECT_TRUE(read(finalOf()) == expected);
                EXPECT_EQ(namesIn(tmp_ / "store"), (std::set<std::string>{".links", finalOf().filename()}));
            }
        }
    }
    pretendToClone = false;
}

TEST_F(RegisterOutputs, RefusesARepairOfAFileThatNobodyHadForeseen) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    write(scratchOf(), "text " + scratch.baseName());
    FakeRepair repair([](int, const std::string &, const std::vector<FilePatches> &) {
        return std::vector<FilePatches>{{"", {{Patch::Place::contents, 0, "T"}}, false}};
    });
    repair.wanted = "none";
    expectError(ErrorKind::bug, [&] { run(repair); });
}

TEST_F(RegisterOutputs, RefusesARepairThatIsAnotherThanWhenTheFileWasRead) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    write(scratchOf(), "text " + scratch.baseName());
    std::string bytes = "T";
    FakeRepair repair([&](int, const std::string &, const std::vector<FilePatches> &) {
        std::vector<FilePatches> repairs{{"", {{Patch::Place::contents, 0, bytes}}, false}};
        bytes = "U";
        return repairs;
    });
    expectError(ErrorKind::bug, [&] { run(repair); });
}

TEST_F(RegisterOutputs, RefusesRepairsThatAreNoneOfTheirBusiness) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    auto expectRefused = [&](const FilePatches &patches) {
        removeTree(request_.scratchDir, scratchOf().filename());
        fs::create_directory(scratchOf());
        write(scratchOf() / "program", scratch.baseName());
        write(scratchOf() / "other", "x");
        auto answer = [&](auto &&...) { return std::vector<FilePatches>{patches}; };
        expectError(ErrorKind::refused, [&] { run(answer); });
    };
    Patch x{Patch::Place::contents, 0, "x"};
    expectRefused({"other", {x}, false});
    expectRefused({"../other", {x}, false});
    expectRefused({"program", {x, x}, false});
    expectRefused({"program", {{Patch::Place::contents, scratch.baseName().size(), "x"}}, false});
    EXPECT_FALSE(fs::exists(finalOf()));
}

TEST_F(RegisterOutputs, RefusesRepairsThatTheAddressOfAFloatingOutputDoesNotKnowOf) {
    StorePath scratch = addFloating("out", "r:sha256", 'c');
    fs::create_directory(scratchOf());
    write(scratchOf() / "program", scratch.baseName());
    std::set<std::string> before = namesIn(tmp_ / "store");
    auto answer = [](int, const std::string &, const std::vector<FilePatches> &) {
        return std::vector<FilePatches>{{"program", {{Patch::Place::contents, 33, "x"}}, false}};
    };
    try {
        run(answer);
        ADD_FAILURE() << "it did not fail";
    } catch (const BuildFailure &failure) {
        EXPECT_EQ(failure.status(), BuildResult::Status::outputRejected);
        EXPECT_NE(failure.message().find("Mach-O file 'program' of output 'out'"), std::string::npos);
    }
    EXPECT_EQ(namesIn(tmp_ / "store"), before);
}

FilePatches patchOf(const std::string &path, uint64_t offset, const std::string &bytes) {
    return {path, {{Patch::Place::contents, offset, bytes}}, false};
}

/// With three bytes behind the path of which each repair of a test writes one.
std::string threeBytesAfter(const StorePath &scratch) {
    return std::string(scratch.hashPart()) + "abc";
}

TEST_F(RegisterOutputs, HashesNormalFormsAndWritesFinalForms) {
    StorePath scratch = addFloating("out", "r:sha256", 'c');
    write(scratchOf(), threeBytesAfter(scratch));
    FakeRepair repair([](auto &&...) { return std::vector<FilePatches>{patchOf("", 33, "F")}; });
    repair.forms.settled = {patchOf("", 32, "S")};
    repair.forms.normal = {patchOf("", 33, "N")};
    PathInfo info = run(repair).at("out");
    StringSink nar;
    dumpNarOfString(std::string(32, '\0') + "SNc", nar);
    size_t self = nar.text.find("SNc") - 32;
    Hash hash = hashString(HashAlgorithm::sha256,
                           nar.text + "|" + std::to_string(self) + "|firn:content-addressed-macho:1");
    EXPECT_EQ(info.path,
              makeContentAddressedPath(store_.dir(), "thing", {ContentMethod::nar, hash}, {{}, true}));
    EXPECT_EQ(info.contentAddress, std::nullopt);
    EXPECT_EQ(read(store_.dir().print(info.path)), std::string(info.path.hashPart()) + "aFc");
    EXPECT_EQ(store_.queryPathInfo(info.path).contentAddress, std::nullopt);
}

TEST_F(RegisterOutputs, HashesWhatIsSettledByNixsRuleWhereNothingHasANormalForm) {
    StorePath scratch = addFloating("out", "r:sha256", 'c');
    write(scratchOf(), threeBytesAfter(scratch));
    FakeRepair repair([](auto &&...) { return std::vector<FilePatches>{patchOf("", 32, "S")}; });
    repair.forms.settled = {patchOf("", 32, "S")};
    PathInfo info = run(repair).at("out");
    EXPECT_TRUE(info.contentAddress);
    expectVerified(info);
    EXPECT_EQ(read(store_.dir().print(info.path)), std::string(info.path.hashPart()) + "Sbc");
}

TEST_F(RegisterOutputs, RefusesARepairThatIsNotWhatWasSettled) {
    StorePath scratch = addFloating("out", "r:sha256", 'c');
    write(scratchOf(), threeBytesAfter(scratch));
    FakeRepair repair([](auto &&...) { return std::vector<FilePatches>{patchOf("", 32, "X")}; });
    repair.forms.settled = {patchOf("", 32, "S")};
    try {
        run(repair);
        ADD_FAILURE() << "it did not fail";
    } catch (const BuildFailure &failure) {
        EXPECT_NE(failure.message().find("cannot stay valid"), std::string::npos);
    }
}

TEST_F(RegisterOutputs, LooksAgainAtOutputsThatWereRewrittenAndAtNoOthers) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    addRedirected("doc", 'b', 'd');
    write(scratchOf(), scratch.baseName());
    write(scratchOf("doc"), "nothing");
    FakeRepair repair(nullptr);
    run(repair);
    EXPECT_EQ(repair.verified, (std::vector<std::string>{"out"}));
}

/// Outputs with Mach-O programs in them; the jail is the real one unless said otherwise.
class RegisterMachO : public RegisterOutputs {
  protected:
    RegisterMachO() { signal(SIGPIPE, SIG_IGN); }

    /// A program with a store path's hash part in its first page, rightly signed.
    static std::string program(const StorePath &path, test::ImageSpec spec = {}) {
        test::Image image(std::move(spec));
        return image.sign(image.bytes.replace(1000, 32, path.hashPart()));
    }

    /// More occurrences than are kept.
    static test::ImageSpec filledSpec() {
        test::ImageSpec spec;
        spec.codeSize = 4 << 20;
        return spec;
    }
    static std::string filledProgram(const StorePath &path) {
        test::Image image(filledSpec());
        std::string bytes = image.bytes;
        for (size_t at = 1000; at + 1000 < filledSpec().codeSize; at += 33) {
            bytes.replace(at, 33, std::string(path.hashPart()) + '.');
        }
        return image.sign(bytes);
    }

    /// A jail that answers the first question, which is as long as `first`, with `answer`, a second one (if
    /// there is one) with nothing, and becomes the real one.
    std::string jailThatLiesFirst(const jail::Request &first, const jail::Answer &answer,
                                  const std::optional<jail::Request> &second = std::nullopt) {
        write(tmp_ / "lie", jail::encodeAnswer(answer));
        write(tmp_ / "nothing", jail::encodeAnswer({}));
        std::string script = fmt::format("#!/bin/sh\nhead -c {} >/dev/null; cat {} >&0\n",
                                         jail::encodeRequest(first).size(), (tmp_ / "lie").string());
        if (second) {
            script += fmt::format("head -c {} >/dev/null; cat {} >&0\n", jail::encodeRequest(*second).size(),
                                  (tmp_ / "nothing").string());
        }
        write(tmp_ / "jail", script + "exec " + realJail() + "\n");
        chmod((tmp_ / "jail").c_str(), 0755);
        return tmp_ / "jail";
    }

    static std::string realJail() {
        const char *chosen = getenv("FIRN_MACHO_JAIL");
        return chosen && *chosen ? chosen : FIRN_MACHO_JAIL_PATH;
    }

    std::map<std::string, PathInfo> runFixup(MachoSignatures policy = MachoSignatures::repair) {
        MachoJail jail(jail_);
        MachoPageHashFixup fixup(store_, recorder_, request_, policy, jail);
        return registerOutputs(store_, recorder_, request_, fixup);
    }

    std::string refusal(MachoSignatures policy = MachoSignatures::repair) {
        try {
            runFixup(policy);
        } catch (const BuildFailure &e) {
            EXPECT_EQ(e.status(), BuildResult::Status::outputRejected);
            EXPECT_FALSE(fs::exists(finalOf()));
            return e.message();
        }
        ADD_FAILURE() << "it did not fail";
        return "";
    }

    std::string log() {
        std::string text;
        for (const std::string &line : recorder_.lines()) {
            text += line + "\n";
        }
        return text;
    }

    static CodeDirectoryReport look(const std::string &bytes) {
        return verifyPageHashes(test::MemoryBytes(bytes)).slices.at(0).directories.at(0);
    }

    RecordingLogger recorder_;
    std::string jail_ = realJail();
};

TEST_F(RegisterMachO, MakesTheSignaturesOfRewrittenProgramsRightAndSaysSo) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    fs::create_directory(scratchOf());
    write(scratchOf() / "one", program(scratch));
    write(scratchOf() / "script", "#! " + scratch.baseName());
    test::ImageSpec intel;
    intel.cpu = 0x01000007;
    test::Fat fat({{0x01000007, program(scratch, intel)}, {0x0100000c, program(scratch)}});
    write(scratchOf() / "two", fat.bytes);
    PathInfo info = runFixup().at("out");
    expectHashed(info);
    EXPECT_EQ(read(finalOf() / "one"), program(info.path));
    test::Fat expected({{0x01000007, program(info.path, intel)}, {0x0100000c, program(info.path)}});
    EXPECT_EQ(read(finalOf() / "two"), expected.bytes);
    EXPECT_EQ(log(),
              "log 2 repaired the page hashes of 3 slots in 2 Mach-O files of output 'out' (one: arm64 1; "
              "two: arm64 1, x86_64 1), touched by rewriting " +
                  store_.dir().print(info.path) + "\n");
}

TEST_F(RegisterMachO, AnOutputMayBeAProgramItself) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    write(scratchOf(), program(scratch));
    PathInfo info = runFixup().at("out");
    EXPECT_EQ(read(finalOf()), program(info.path));
    EXPECT_NE(log().find("output 'out' (arm64 1)"), std::string::npos) << log();
}

TEST_F(RegisterMachO, RepairsProgramsThatAreRewrittenEverywhere) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    write(scratchOf(), filledProgram(scratch));
    PathInfo info = runFixup().at("out");
    EXPECT_TRUE(read(finalOf()) == filledProgram(info.path));
    expectHashed(info);
}

TEST_F(RegisterMachO, NamesAFewOfManyPrograms) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    fs::create_directory(scratchOf());
    for (char c = 'a'; c < 'i'; ++c) {
        write(scratchOf() / std::string(1, c), program(scratch));
    }
    runFixup();
    EXPECT_NE(
        log().find(
            "8 slots in 8 Mach-O files of output 'out' (a: arm64 1; b: arm64 1; c: arm64 1; d: arm64 1; e: "
            "arm64 1; and 3 more)"),
        std::string::npos)
        << log();
}

TEST_F(RegisterMachO, ProgramsThatAreLongerThanWhatWaitsAreRightAndNamedInTheArchivesOrder) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    test::ImageSpec spec;
    spec.codeSize = 2 << 20;
    test::Image image(spec);
    std::string bytes = image.bytes;
    for (size_t at : {size_t(1000), size_t(256 * 1024 - 7), size_t(1 << 20), spec.codeSize - 300000,
                      spec.codeSize - 500}) {
        bytes.replace(at, 32, scratch.hashPart());
    }
    std::string signedBytes = image.sign(bytes);
    std::string expected = image.sign(replaceAll(bytes, std::string(32, 'c'), std::string(32, 'a')));
    for (bool copyAll : {false, true}) {
        request_.copyAllOutputs = copyAll;
        request_.mode = copyAll ? BuildMode::repair : BuildMode::normal;
        fs::create_directories(scratchOf() / "bin");
        write(scratchOf() / "bin" / "program", signedBytes);
        write(scratchOf() / "bin" / "script", "#!" + scratch.baseName());
        write(scratchOf() / "lib.dylib", signedBytes);
        expectHashed(runFixup().at("out"));
        EXPECT_TRUE(read(finalOf() / "bin" / "program") == expected) << copyAll;
        EXPECT_TRUE(read(finalOf() / "lib.dylib") == expected) << copyAll;
    }
    EXPECT_NE(log().find("in 2 Mach-O files of output 'out' (bin/program: arm64 6; lib.dylib: arm64 6)"),
              std::string::npos)
        << log();
}

TEST_F(RegisterMachO, StartsNoJailWhereNothingCanBeMachO) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    jail_ = "/nonexistent";
    write(scratchOf(), "#!" + scratch.baseName());
    expectHashed(runFixup().at("out"));
    EXPECT_EQ(log(), "");
}

TEST_F(RegisterMachO, FailsWhereOnlyTheSignerCouldRepair) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    fs::create_directory(scratchOf());
    test::ImageSpec spec;
    spec.blobs[0x10000] = "CMS";
    spec.directories[0].flags = 0;
    write(scratchOf() / "bad\x1b[31m", program(scratch, spec));
    std::string message = refusal();
    std::string final = store_.dir().print(*request_.outputs.at("out").finalPath);
    EXPECT_NE(message.find("'bad\\x1b[31m' of output 'out'"), std::string::npos) << message;
    EXPECT_NE(message.find("CMS signature"), std::string::npos) << message;
    EXPECT_NE(message.find("'nix-store --delete " + final + "'"), std::string::npos) << message;
    EXPECT_NE(message.find("macho-signatures = warn"), std::string::npos) << message;

    PathInfo info = runFixup(MachoSignatures::warn).at("out");
    EXPECT_EQ(look(read(finalOf() / "bad\x1b[31m")).staleCodeSlots, (std::vector<uint32_t>{0}));
    EXPECT_NE(
        log().find("warning: the Mach-O file 'bad\\x1b[31m' of output 'out' is registered with a wrong"),
        std::string::npos)
        << log();
}

TEST_F(RegisterMachO, RefusesOrOnlyWarnsIfToldTo) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    write(scratchOf(), program(scratch));
    std::string message = refusal(MachoSignatures::refuse);
    EXPECT_NE(message.find("macho-signatures = refuse"), std::string::npos) << message;
    runFixup(MachoSignatures::warn);
    EXPECT_EQ(look(read(finalOf())).staleCodeSlots, (std::vector<uint32_t>{0}));
    EXPECT_EQ(log().find("repaired"), std::string::npos) << log();
}

TEST_F(RegisterMachO, LeavesAloneWhatWasWrongBeforeAndCannotBeRepaired) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    test::ImageSpec spec;
    spec.blobs[0x10000] = "CMS";
    spec.directories[0].flags = 0;
    test::Image image(spec);
    std::string stale = image.bytes.replace(1000, 32, scratch.hashPart()); // and not signed again
    write(scratchOf(), stale);
    PathInfo info = runFixup().at("out");
    EXPECT_EQ(read(finalOf()), replaceAll(stale, std::string(32, 'c'), std::string(32, 'a')));
    EXPECT_NE(log().find("warning: the Mach-O file output 'out' had a wrong code signature before"),
              std::string::npos)
        << log();
}

TEST_F(RegisterMachO, AJailThatLiesIsFoundOutByTheSecondLook) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    std::string bytes = program(scratch);
    write(scratchOf(), bytes);
    jail::Request request;
    request.patches = {{Patch::Place::contents, 1000, std::string(32, 'a')}};
    jail::Answer lie;
    lie.fixup.patches = {{test::Image().directories[0].slot(0), std::string(32, 'x')}};
    lie.fixup.findings = {{MachoFinding::Kind::repaired, 0, "arm64", 0, 1, 0, "recomputed"}};
    jail_ = jailThatLiesFirst(request, lie);
    std::string message = refusal();
    EXPECT_NE(message.find("after the repair, the slot at byte"), std::string::npos) << message;
}

TEST_F(RegisterMachO, AJailThatPatchesARewrittenPathIsFoundOutByTheSecondLook) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    write(scratchOf(), program(scratch));
    jail::Request request;
    request.patches = {{Patch::Place::contents, 1000, std::string(32, 'a')}};
    jail::Answer lie;
    lie.fixup.patches = {{1010, std::string(20, 'x')}};
    jail_ = jailThatLiesFirst(request, lie);
    std::string message = refusal();
    EXPECT_NE(message.find("after the repair, the slot at byte"), std::string::npos) << message;
    EXPECT_FALSE(fs::exists(finalOf()));
}

TEST_F(RegisterMachO, AJailThatKeepsQuietIsFoundOutWhereEverythingIsRewrittenToo) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    write(scratchOf(), filledProgram(scratch));
    jail::Request look, request;
    look.kind = jail::Kind::verify;
    look.ranges = {{0, 1}};
    request.rules = {{std::string(32, 'c'), std::string(32, 'a')}};
    // The first question is what was wrong before, which it answers truly: nothing was.
    jail_ = jailThatLiesFirst(look, {}, request);
    std::string message = refusal();
    EXPECT_NE(message.find("after the repair, the slot at byte"), std::string::npos) << message;
}

TEST_F(RegisterMachO, RepairsASlotThatHoldsARewrittenPathItself) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    size_t slot = test::Image().directories[0].slot(0);
    write(scratchOf(), program(scratch).replace(slot, 32, scratch.hashPart()));
    PathInfo info = runFixup().at("out");
    EXPECT_EQ(read(finalOf()), program(info.path));
}

TEST_F(RegisterMachO, RepairsASlotThatHoldsARewrittenPathWhereEverythingIsRewritten) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    size_t slot = test::Image(filledSpec()).directories[0].slot(0);
    write(scratchOf(), filledProgram(scratch).replace(slot, 32, scratch.hashPart()));
    PathInfo info = runFixup().at("out");
    EXPECT_TRUE(read(finalOf()) == filledProgram(info.path));
}

TEST_F(RegisterMachO, NamesTheBundleWhoseSealARewriteBreaks) {
    StorePath scratch = addRedirected("out", 'a', 'c');
    fs::path contents = scratchOf() / "A.app" / "Contents";
    fs::create_directories(contents / "MacOS");
    fs::create_directories(contents / "_CodeSignature");
    write(contents / "_CodeSignature" / "CodeResources", "seal");
    write(contents / "MacOS" / "A", program(scratch));
    write(contents / "Info.plist", scratch.baseName());
    runFixup();
    EXPECT_NE(
        log().find(
            "warning: the seal of the bundle 'A.app' of output 'out' is broken: rewriting store paths has "
            "changed 'A.app/Contents/Info.plist'"),
        std::string::npos)
        << log();
}

} // namespace
} // namespace firn
