#include "libstore/protocol/session.hh"

#include <algorithm>
#include <filesystem>

#include <fcntl.h>

#include <gtest/gtest.h>

#include "libstore/protocol/messages.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"
#include "test-data.hh"

namespace firn {
namespace {

constexpr uint64_t last = 0x616c7473, failed = 0x63787470;

class MemorySink : public FlushingSink {
  public:
    void write(std::string_view bytes) override { text.append(bytes); }
    void flush() override {}
    std::string text;
};

/// Builds nothing.
class NoBuilder : public BuildService {
  public:
    std::vector<BuildResult> build(BuildContext &, const std::vector<DerivedPath> &paths,
                                   BuildMode) override {
        ++builds;
        return std::vector<BuildResult>(paths.size());
    }
    BuildResult buildOne(BuildContext &, const StorePath &, const BasicDerivation &, BuildMode) override {
        ++builds;
        return {};
    }
    int builds = 0;
};

/// A client's bytes, put together.
class Request : public WireWriter {
  public:
    explicit Request(uint64_t version = 0x126) : WireWriter(sink_) {
        numbers({0x6e697863, version});
        if (version >= 0x126) {
            number(0); // features
        }
        numbers({0, 0});
    }
    void numbers(const std::vector<uint64_t> &values) {
        for (uint64_t value : values) {
            number(value);
        }
    }
    void frame(std::string_view bytes) {
        number(bytes.size());
        sink_.write(bytes);
    }
    void options(const std::map<std::string, std::string> &overrides) {
        numbers({19, 0, 0, 0, 3, 1, 0, 1, 0, 0, 0, 0, 1, overrides.size()});
        for (const auto &[name, value] : overrides) {
            string(name);
            string(value);
        }
    }
    const std::string &bytes() const { return sink_.text; }

  private:
    StringSink sink_;
};

class Server : public testing::Test {
  protected:
    // The directory's name is as long as the recordings', so that it can be put in its place.
    void SetUp() override {
        std::string name = "/tmp/firn-fuzz-XXXXXX";
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        root = name;
        locations.storeDir = StoreDir(name + "/store");
        locations.stateDir = name + "/var";
        locations.logDir = name + "/log";
        locations.confDir = name + "/etc";
        settings.buildUsersGroup = "";
        settings.gcReservedSpace = 0;
    }
    void TearDown() override { removeTree(AT_FDCWD, root); }

    /// What the server answers; `ended` tells whether it ended the connection before the client did.
    std::string serve(std::string_view request, bool trusted = false) {
        StringSource source(request);
        MemorySink sink;
        Peer peer;
        peer.trusted = trusted;
        ended = false;
        Settings own = settings;
        try {
            serveSession(source, sink, -1, peer, locations, own, builder);
        } catch (const Error &error) {
            ended = true;
            reason = error.message();
        }
        unread = source.rest().size();
        return sink.text;
    }
    std::string serve(const Request &request, bool trusted = false) {
        return serve(request.bytes(), trusted);
    }

    /// The answer without the greeting, as a reader.
    struct Answer {
        explicit Answer(std::string bytes) : text(std::move(bytes)), source(text), in(source) {
            in.number(), in.number(), in.number(), in.string(), in.number(); // greeting of 1.38
            EXPECT_EQ(in.number(), last);
        }
        std::string error() {
            EXPECT_EQ(in.number(), failed);
            in.string(), in.number(), in.string();
            std::string message = in.string();
            in.number(), in.number();
            return message;
        }
        std::string text;
        StringSource source;
        WireReader in;
    };

    std::string path(const std::string &name) { return root + "/store/" + name; }
    void askValid(Request &request) {
        request.number(1);
        request.string(path("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-some"));
    }
    void expectNotValid(Answer &answer) {
        EXPECT_EQ(answer.in.number(), last);
        EXPECT_FALSE(answer.in.boolean());
        EXPECT_EQ(answer.source.rest(), "");
        EXPECT_FALSE(ended) << reason;
    }

    std::string root, reason;
    Locations locations;
    Settings settings;
    NoBuilder builder;
    bool ended = false;
    size_t unread = 0;
};

std::vector<std::filesystem::path> recordings() {
    std::vector<std::filesystem::path> files;
    for (const auto &entry : std::filesystem::directory_iterator(testData("fuzz/corpus/protocol"))) {
        files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
}

std::string relocated(std::string bytes, const std::string &root) {
    static const std::string recordedRoot = "/tmp/firn-fuzz-000000";
    for (size_t at; (at = bytes.find(recordedRoot)) != std::string::npos;) {
        bytes.replace(at, recordedRoot.size(), root);
    }
    return bytes;
}

TEST_F(Server, ReadsEverySessionOfStockClientsToItsEnd) {
    size_t sessions = 0;
    for (const auto &file : recordings()) {
        if (file.filename().string().find("import") != std::string::npos) {
            continue; // its signatures are not by a known key, see below
        }
        serve(relocated(readFile(file), root), true);
        EXPECT_FALSE(ended) << file << ": " << reason;
        EXPECT_EQ(unread, 0u) << file;
        ++sessions;
    }
    EXPECT_GT(sessions, 40u);
}

TEST_F(Server, SurvivesSessionsThatEndAnywhere) {
    std::string whole = relocated(readFile(testData("fuzz/corpus/protocol/138-add-0.bin")), root);
    for (size_t size = 0; size < whole.size(); size += 5) {
        serve(std::string_view(whole).substr(0, size));
        EXPECT_EQ(unread, 0u) << size;
    }
}

TEST_F(Server, RefusesAnOperationThatDoesNotExistByNumber) {
    Request request;
    request.number(4711);
    Answer answer(serve(request));
    EXPECT_NE(answer.error().find("4711"), std::string::npos);
    EXPECT_TRUE(ended);
}

TEST_F(Server, StaysUsableAfterABadStorePath) {
    Request request;
    request.number(1);
    request.string("/etc/passwd");
    askValid(request);
    Answer answer(serve(request));
    EXPECT_NE(answer.error().find("/etc/passwd"), std::string::npos);
    expectNotValid(answer);
}

TEST_F(Server, EndsTheConnectionAfterAnOversizedString) {
    Request request;
    request.numbers({1, UINT64_MAX});
    Answer answer(serve(request));
    EXPECT_NE(answer.error().find("18446744073709551615"), std::string::npos);
    EXPECT_TRUE(ended);
}

void addContent(Request &request, const std::string &method, bool repair, const std::string &dump) {
    request.number(7);
    request.string("x");
    request.string(method);
    request.number(0);
    request.boolean(repair);
    request.frame(dump);
    request.number(0);
}

TEST_F(Server, AddsContentThatComesInFrames) {
    StringSink nar;
    dumpNarOfString("content", nar);
    Request request;
    addContent(request, "fixed:r:sha256", false, nar.text);
    Answer answer(serve(request));
    ASSERT_EQ(answer.in.number(), last);
    PathInfo info = readPathInfo(answer.in, locations.storeDir);
    EXPECT_EQ(info.narHash, hashString(HashAlgorithm::sha256, nar.text));
    EXPECT_EQ(readFile(locations.storeDir.print(info.path)), "content");
}

TEST_F(Server, StaysUsableAfterAnArchiveThatIsNone) {
    Request request;
    addContent(request, "fixed:r:sha256", false, std::string(100000, 'x'));
    askValid(request);
    Answer answer(serve(request));
    EXPECT_NE(answer.error(), "");
    expectNotValid(answer);
}

TEST_F(Server, StaysUsableAfterAMethodThatDoesNotExist) {
    Request request;
    addContent(request, "fixed:rot13", false, "bytes");
    askValid(request);
    Answer answer(serve(request));
    EXPECT_NE(answer.error(), "");
    expectNotValid(answer);
}

TEST_F(Server, AddsAnArchiveThatAnOldClientSends) {
    StringSink nar;
    dumpNarOfString("content", nar);
    for (bool recursive : {false, true}) {
        Request request(0x112);
        request.number(7);
        request.string("x");
        request.numbers({1, recursive});
        request.string("sha256");
        std::string answer = serve(request.bytes() + nar.text);
        EXPECT_FALSE(ended) << reason;
        std::string added = answer.substr(answer.rfind(root + "/store/"));
        added.resize(added.find('\0') == std::string::npos ? added.size() : added.find('\0'));
        EXPECT_EQ(readFile(added), "content");
    }
}

TEST_F(Server, LetsOnlyTrustedClientsRepair) {
    Request request;
    addContent(request, "text:sha256", true, "bytes");
    request.number(9);
    request.numbers({0, 1});
    request.number(35);
    request.numbers({0, 1});
    askValid(request);
    Answer answer(serve(request));
    for (int i = 0; i < 3; ++i) {
        EXPECT_NE(answer.error().find("trusted-users"), std::string::npos);
    }
    expectNotValid(answer);
    EXPECT_EQ(builder.builds, 0);
}

TEST_F(Server, LetsOnlyTrustedClientsAddLogs) {
    Request request;
    request.number(45);
    request.string(path("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-some.drv"));
    request.frame("log");
    request.number(0);
    askValid(request);
    Answer answer(serve(request));
    EXPECT_NE(answer.error().find("not privileged"), std::string::npos);
    expectNotValid(answer);
    EXPECT_EQ(Answer(serve(request, true)).in.number(), last);
}

TEST_F(Server, LetsOnlyTrustedClientsBuildDerivationsThatAreNotInTheStore) {
    Request request;
    request.number(36);
    request.string(path("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-some.drv"));
    request.number(1);
    request.string("out"), request.string(path("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-some"));
    request.string(""), request.string("");
    request.number(0);
    request.string("x86_64-linux"), request.string("/bin/sh");
    request.numbers({0, 0, 0});
    askValid(request);
    Answer answer(serve(request));
    EXPECT_NE(answer.error().find("input-addressed"), std::string::npos);
    expectNotValid(answer);
    EXPECT_EQ(builder.builds, 0);
    serve(request, true);
    EXPECT_EQ(builder.builds, 1);
}

TEST_F(Server, LetsNobodyIgnoreLiveness) {
    Request request;
    request.numbers({20, 3, 0, 1, 0, 0, 0, 0});
    askValid(request);
    Answer answer(serve(request, true));
    EXPECT_NE(answer.error().find("liveness"), std::string::npos);
    expectNotValid(answer);
}

TEST_F(Server, DoesNotLetUntrustedClientsImportWithoutSignature) {
    StringSink nar;
    dumpNarOfString("content", nar);
    PathInfo info{.path = StorePath("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-some"),
                  .narHash = hashString(HashAlgorithm::sha256, nar.text),
                  .narSize = nar.text.size(),
                  .references = {},
                  .deriver = {},
                  .registrationTime = 0,
                  .ultimate = true,
                  .signatures = {},
                  .contentAddress = {}};
    Request request;
    request.number(39);
    writePathInfo(request, locations.storeDir, info);
    request.numbers({0, 1}); // no repair, do not check signatures
    request.frame(nar.text);
    request.number(0);
    askValid(request);
    Answer answer(serve(request));
    EXPECT_NE(answer.error().find("lacks a signature by a trusted key"), std::string::npos);
    expectNotValid(answer);
    EXPECT_EQ(Answer(serve(request, true)).in.number(), last);
    EXPECT_EQ(readFile(locations.storeDir.print(info.path)), "content");
}

TEST_F(Server, WarnsAboutRestrictedOptionsThatWouldChangeSomething) {
    Request request;
    request.options({{"sandbox", "false"}, {"max-jobs", "1"}, {"no-such-setting", "x"}, {"timeout", "5"}});
    std::string answer = serve(request);
    EXPECT_NE(answer.find("ignoring the client-specified setting 'sandbox'"), std::string::npos);
    EXPECT_EQ(answer.find("max-jobs"), std::string::npos);
    EXPECT_EQ(answer.find("no-such-setting"), std::string::npos);
    EXPECT_EQ(answer.find("'timeout'"), std::string::npos);
    EXPECT_FALSE(ended) << reason;
    EXPECT_EQ(serve(request, true).find("ignoring"), std::string::npos);
}

TEST_F(Server, AnswersAMalformedOptionWithAWarning) {
    Request request;
    request.options({{"timeout", "soon"}});
    askValid(request);
    serve(request, true);
    EXPECT_FALSE(ended) << reason;
    EXPECT_EQ(unread, 0u);
}

TEST_F(Server, GivesNullForAPathThatIsNotValid) {
    Request request;
    request.number(26);
    request.string(path("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-some"));
    Answer answer(serve(request));
    expectNotValid(answer);
}

TEST_F(Server, TellsAClientThatIsTooOld) {
    Request request(0x111);
    EXPECT_NE(serve(request).find("too old"), std::string::npos);
}

} // namespace
} // namespace firn
