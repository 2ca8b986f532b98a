#include "libstore/protocol/messages.hh"

#include <gtest/gtest.h>

#include "libutil/files.hh"
#include "test-data.hh"

// The expected bytes were sent by stock nix-daemon 2.8.0 (protocol 1.34) and 2.34.8 (1.38);
// tests/fuzz/record-protocol.py records them.

namespace firn {
namespace {

const StoreDir storeDir("/tmp/firn-fuzz-000000/store");
const std::string failedDrv = "/tmp/firn-fuzz-000000/store/hrlym99sfq0v0vif5cpn8s0sx2xcn24f-bad.drv";

std::string recorded(const std::string &name) {
    return readFile(testData("unit/data/protocol/" + name));
}

/// The first string of some bytes after `prefix` numbers or strings that a reader skips.
std::string messageOf(const std::string &bytes) {
    size_t begin = bytes.find("uilder");
    begin = bytes.rfind(std::string(5, '\0'), begin) + 5;
    size_t end = bytes.find('\0', begin);
    return bytes.substr(begin, end - begin);
}

PathInfo samplePathInfo() {
    return PathInfo{.path = storeDir.parse("/tmp/firn-fuzz-000000/store/shd69rmrnfr3bfmln37rmykfhswy3w0p-b"),
                    .narHash = Hash::parse("e5209d0a7367738003290ca0f29bc0493f1dbbf027a7f13dc0fdb51adf7b7604",
                                           HashAlgorithm::sha256),
                    .narSize = 0xb0,
                    .references = {StorePath("0spzgd891m6fngbp643vm2j500swwzhi-a")},
                    .deriver = StorePath("3m438dqppchgqk83nl7pnsr1v5d38d1z-b.drv"),
                    .registrationTime = 0,
                    .ultimate = true,
                    .signatures = {},
                    .contentAddress = {}};
}

TEST(Messages, APathInfoIsReadAsStockSendsIt) {
    std::string bytes = recorded("path-info-1.34.bin");
    StringSource source(bytes);
    WireReader in(source);
    ASSERT_TRUE(in.boolean());
    PathInfo expected = samplePathInfo();
    PathInfo info = readUnkeyedPathInfo(in, storeDir, expected.path);
    in.throwDeferred();
    EXPECT_EQ(source.rest(), "");
    EXPECT_EQ(info.narHash, expected.narHash);
    EXPECT_EQ(info.narSize, expected.narSize);
    EXPECT_EQ(info.references, expected.references);
    EXPECT_EQ(info.deriver, expected.deriver);
    EXPECT_TRUE(info.ultimate);
    EXPECT_GT(info.registrationTime, 1600000000);
    EXPECT_TRUE(info.signatures.empty());
    EXPECT_FALSE(info.contentAddress);
}

TEST(Messages, APathInfoIsWrittenAsStockSendsIt) {
    std::string bytes = recorded("path-info-1.34.bin");
    StringSource source(bytes);
    WireReader in(source);
    in.boolean();
    PathInfo info = samplePathInfo();
    info.registrationTime = readUnkeyedPathInfo(in, storeDir, info.path).registrationTime;
    StringSink sink;
    WireWriter out(sink);
    out.boolean(true);
    writeUnkeyedPathInfo(out, storeDir, info);
    EXPECT_EQ(sink.text, bytes);
}

TEST(Messages, AContentAddressAndSignaturesSurviveTheWire) {
    PathInfo info = samplePathInfo();
    info.signatures = {"k-1:AAAA", "k-2:BBBB"};
    info.contentAddress =
        ContentAddress::parse("text:sha256:1k51ybd8gs5l3ba6j8n606xx0dr4j6g8sg90xb4anaxnj078iwzx");
    StringSink sink;
    WireWriter out(sink);
    writePathInfo(out, storeDir, info);
    StringSource source(sink.text);
    WireReader in(source);
    PathInfo read = readPathInfo(in, storeDir);
    EXPECT_EQ(read.path, info.path);
    EXPECT_EQ(read.signatures, info.signatures);
    EXPECT_EQ(read.contentAddress, info.contentAddress);
}

std::string writtenFailure(const BuildResult &result, unsigned minor) {
    StringSink sink;
    WireWriter out(sink);
    std::vector<DerivedPath> paths{BuiltPath{storeDir.parse(failedDrv), {"out"}}};
    writeKeyedBuildResults(out, storeDir, paths, {result}, minor);
    return sink.text;
}

TEST(Messages, AFailureIsWrittenAsVersion134HasIt) {
    std::string bytes = recorded("build-results-1.34.bin");
    BuildResult result;
    result.status = BuildResult::Status::permanentFailure;
    result.errorMessage = messageOf(bytes);
    result.timesBuilt = 1;
    result.startTime = 0x6b0239da;
    result.stopTime = 0x6b0239db;
    EXPECT_EQ(writtenFailure(result, 34), bytes);
}

TEST(Messages, AFailureIsWrittenAsVersion138HasIt) {
    std::string bytes = recorded("build-results-1.38.bin");
    StringSource source(bytes);
    WireReader in(source);
    in.number();
    EXPECT_EQ(in.string(), failedDrv + "!out");
    EXPECT_EQ(in.number(), 3u);
    BuildResult result;
    result.status = BuildResult::Status::permanentFailure;
    result.errorMessage = in.string();
    EXPECT_EQ(writtenFailure(result, 38), bytes);
}

TEST(Messages, ProcessorTimesAreSentSince137) {
    BuildResult result;
    result.cpuUser = 5;
    std::string before = writtenFailure(result, 36), after = writtenFailure(result, 37);
    EXPECT_EQ(after.size(), before.size() + 3 * 8) << "a tag for each, and the time of the one that is known";
}

TEST(Messages, BuiltOutputsAreWrittenAsStockSendsThem) {
    std::string bytes = recorded("build-results-good-1.34.bin");
    BuildResult result;
    result.status = BuildResult::Status::alreadyValid;
    DrvOutput id =
        DrvOutput::parse("sha256:8359d62a13c75a6b2bb49588bf472b10247b3389bf37423a676a79337954c8cd!out");
    result.builtOutputs.emplace("out",
                                Realisation{id, StorePath("0spzgd891m6fngbp643vm2j500swwzhi-a"), {}, {}});
    StringSink sink;
    WireWriter out(sink);
    StorePath drv("9ljwsilld8k9bbam15a98yicckmaxhx1-a.drv");
    writeKeyedBuildResults(out, storeDir, {BuiltPath{drv, {"out"}}}, {result}, 34);
    EXPECT_EQ(sink.text, bytes);
}

TEST(Messages, BeforeVersion128AResultIsStatusAndMessage) {
    StringSink sink;
    WireWriter out(sink);
    writeBuildResult(out, BuildResult{}, 27);
    EXPECT_EQ(sink.text.size(), 16u);
}

TEST(Messages, AnErrorIsWrittenAsStockSendsIt) {
    std::string bytes = recorded("error-1.34.bin");
    StringSource source(bytes);
    WireReader in(source);
    in.number(); // "an error follows"
    in.string(), in.number(), in.string();
    StringSink sink;
    WireWriter out(sink);
    writeError(out, in.string(), 34);
    EXPECT_EQ(sink.text, bytes.substr(8));
}

TEST(Messages, AnOldClientGetsMessageAndStatus) {
    StringSink sink;
    WireWriter out(sink);
    writeError(out, "oops", 25);
    StringSource source(sink.text);
    WireReader in(source);
    EXPECT_EQ(in.string(), "oops");
    EXPECT_EQ(in.number(), 1u);
    EXPECT_EQ(source.rest(), "");
}

std::vector<DerivedPath> readPaths(const std::vector<std::string> &texts, unsigned minor) {
    StringSink sink;
    WireWriter(sink).strings(texts);
    StringSource source(sink.text);
    WireReader in(source);
    std::vector<DerivedPath> paths = readDerivedPaths(in, storeDir, minor);
    in.throwDeferred();
    return paths;
}

TEST(Messages, APlainDerivationMeansItsOutputsBefore130AndItselfSince) {
    StorePath drv = storeDir.parse(failedDrv);
    EXPECT_EQ(readPaths({failedDrv}, 29), (std::vector<DerivedPath>{BuiltPath{drv, {}}}));
    EXPECT_EQ(readPaths({failedDrv}, 30), (std::vector<DerivedPath>{OpaquePath{drv}}));
    EXPECT_EQ(readPaths({failedDrv + "!doc,out"}, 29), readPaths({failedDrv + "!doc,out"}, 30));
}

TEST(Messages, ABuildModeThatDoesNotExistIsRefused) {
    StringSink sink;
    WireWriter(sink).number(3);
    StringSource source(sink.text);
    WireReader in(source);
    readBuildMode(in);
    EXPECT_THROW(in.throwDeferred(), Error);
}

/// A derivation on the wire with one output of the given words.
BasicDerivation readWithOutput(const std::vector<std::string> &words) {
    StringSink sink;
    WireWriter out(sink);
    out.number(1);
    for (const std::string &word : words) {
        out.string(word);
    }
    out.number(0);
    out.string("x86_64-linux");
    out.string("/bin/sh");
    out.strings(std::vector<std::string>{"-c", "true"});
    out.number(1);
    out.string("key"), out.string("value");
    StringSource source(sink.text);
    WireReader in(source);
    BasicDerivation drv = readBasicDerivation(in, storeDir, "x");
    in.throwDeferred();
    EXPECT_EQ(source.rest(), "");
    return drv;
}

TEST(Messages, EveryKindOfOutputOfADerivationIsTold) {
    std::string path = failedDrv, hex(64, 'a');
    auto kind = [&](const std::vector<std::string> &words) {
        return readWithOutput(words).outputs.at("out");
    };
    EXPECT_TRUE(std::holds_alternative<InputAddressedOutput>(kind({"out", path, "", ""})));
    EXPECT_TRUE(std::holds_alternative<DeferredOutput>(kind({"out", "", "", ""})));
    EXPECT_TRUE(std::holds_alternative<FixedOutput>(kind({"out", path, "r:sha256", hex})));
    EXPECT_TRUE(std::holds_alternative<FloatingOutput>(kind({"out", "", "r:sha256", ""})));
    EXPECT_TRUE(std::holds_alternative<ImpureOutput>(kind({"out", "", "r:sha256", "impure"})));
}

TEST(Messages, ADerivationsOutputThatMakesNoSenseIsRefused) {
    EXPECT_THROW(readWithOutput({"out", "", "", "aa"}), Error) << "a hash without algorithm";
    EXPECT_THROW(readWithOutput({"out", "", "r:rot13", ""}), Error);
    EXPECT_THROW(readWithOutput({"../x", "", "", ""}), Error);
    EXPECT_THROW(readWithOutput({"out", "/etc/passwd", "", ""}), Error);
}

TEST(Messages, ADerivationsFieldsComeInOrder) {
    BasicDerivation drv = readWithOutput({"out", "", "", ""});
    EXPECT_EQ(drv.name, "x");
    EXPECT_EQ(drv.platform, "x86_64-linux");
    EXPECT_EQ(drv.builder, "/bin/sh");
    EXPECT_EQ(drv.args, (std::vector<std::string>{"-c", "true"}));
    EXPECT_EQ(drv.env, (StringMap{{"key", "value"}}));
}

} // namespace
} // namespace firn
