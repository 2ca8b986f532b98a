#include "libstore/build/builtin-builder.hh"

#include <algorithm>

#include <gtest/gtest.h>

#include "builtin/attributes.hh"
#include "builtin/packages.hh"
#include "expect-error.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "recording-logger.hh"
#include "temporary-directory.hh"

namespace firn {
namespace {

const StoreDir store("/nix/store");

BasicDerivation derivationFor(const std::string &builder, bool fixed = true) {
    BasicDerivation drv;
    drv.name = "x";
    drv.platform = "builtin";
    drv.builder = builder;
    drv.env = {{"url", "https://example.org/x"}, {"LD_PRELOAD", "/evil.so"}, {"out", "/nix/store/whatever"}};
    StorePath out("vmdnl63vfysf3zdi92hkkfy426r7pvmy-x");
    if (fixed) {
        ContentAddress address{ContentMethod::flat, hashString(HashAlgorithm::sha256, "x")};
        drv.outputs = {{"out", FixedOutput{address}}};
    } else {
        drv.outputs = {{"out", InputAddressedOutput{out}}};
    }
    return drv;
}

BuilderEnvironmentInput inputFor(const BasicDerivation &drv) {
    return {.store = store,
            .derivation = drv,
            .scratchPaths = {{"out", outputPath(store, drv, "out").value()}},
            .buildTop = "/build",
            .cores = 1,
            .passAsFile = {"url"},
            .impureEnvVars = {"url"},
            .structured = {},
            .files = {},
            .hostVariable = [](const std::string &name) -> std::optional<std::string> {
                return name == "https_proxy" ? std::optional<std::string>("http://proxy") : std::nullopt;
            }};
}

std::string certificatesIn(const TemporaryDirectory &directory) {
    std::string path = directory.path() / "ca.crt";
    writeFile(path, "certificates");
    return path;
}

TEST(BuiltinBuilder, refusesUnknownNames) {
    EXPECT_EQ(refuseBuiltin(derivationFor("builtin:frobnicate")), "unsupported builtin builder 'frobnicate'");
    EXPECT_FALSE(refuseBuiltin(derivationFor("builtin:fetchurl")));
    EXPECT_FALSE(refuseBuiltin(derivationFor("builtin:buildenv", false)));
    EXPECT_FALSE(refuseBuiltin(derivationFor("builtin:unpack-channel", false)));
}

TEST(BuiltinBuilder, downloadsOnlyForFixedAndImpureOutputs) {
    BasicDerivation drv = derivationFor("builtin:fetchurl", false);
    EXPECT_TRUE(refuseBuiltin(drv));
    drv.outputs = {{"out", FloatingOutput{{ContentMethod::nar, HashAlgorithm::sha256}}}};
    EXPECT_TRUE(refuseBuiltin(drv));
    drv.outputs = {{"out", ImpureOutput{{ContentMethod::nar, HashAlgorithm::sha256}}}};
    EXPECT_FALSE(refuseBuiltin(drv));
}

TEST(BuiltinBuilder, needsAnOutputOfTheUsualName) {
    BasicDerivation drv = derivationFor("builtin:buildenv", false);
    drv.outputs = {{"bin", drv.outputs.at("out")}};
    EXPECT_TRUE(refuseBuiltin(drv));
}

TEST(BuiltinBuilder, passesAttributesInAFileAndNotAsVariables) {
    BasicDerivation drv = derivationFor("builtin:fetchurl");
    RecordingLogger logger;
    BuilderEnvironment result = makeBuiltinEnvironment(inputFor(drv), Settings(), {"/firn-builtin"}, logger);
    auto attributes = builtin::parseAttributes(result.files.at(builtinAttributesFile));
    EXPECT_EQ(attributes.at("url"), "https://example.org/x");
    EXPECT_EQ(attributes.at("LD_PRELOAD"), "/evil.so");
    EXPECT_FALSE(result.variables.contains("LD_PRELOAD"));
    EXPECT_EQ(result.variables.at("https_proxy"), "http://proxy");
    EXPECT_EQ(result.args.at(1), "fetchurl");
}

TEST(BuiltinBuilder, takesStructuredAttributes) {
    BasicDerivation drv = derivationFor("builtin:buildenv", false);
    BuilderEnvironmentInput input = inputFor(drv);
    input.structured = {R"({"derivations":["true",5,1,"/p"],"manifest":"/m","outputs":{"out":"/o"}})", ""};
    RecordingLogger logger;
    BuilderEnvironment result = makeBuiltinEnvironment(input, Settings(), {"/firn-builtin"}, logger);
    auto attributes = builtin::parseAttributes(result.files.at(builtinAttributesFile));
    EXPECT_EQ(attributes.at("derivations"), "true 5 1 /p");
    EXPECT_EQ(attributes.at("out"), "/o");
}

std::map<std::string, std::string> structuredAttributes(const std::string &builder,
                                                        const std::string &value) {
    BasicDerivation drv = derivationFor(builder);
    BuilderEnvironmentInput input = inputFor(drv);
    std::string json = R"({"derivations":)" + value + R"(,"outputs":{"out":"/o"}})";
    input.structured = {json, ""};
    RecordingLogger logger;
    BuilderEnvironment result = makeBuiltinEnvironment(input, Settings(), {"/firn-builtin"}, logger);
    return builtin::parseAttributes(result.files.at(builtinAttributesFile));
}

TEST(BuiltinBuilder, takesStructuredValuesAsTheTextThatTheyWouldBeWithoutStructure) {
    // The texts are what nix-instantiate 2.8 writes into a derivation for these values.
    for (const auto &[value, text] : std::map<std::string, std::string>{
             {R"("a b")", "a b"},
             {"true", "1"},
             {"false", ""},
             {"null", ""},
             {"12", "12"},
             {"[]", ""},
             {R"([[],"a",[],"b",null,true,false])", "a b  1 "},
             {R"([["true",5,[1],"/p"],["false",5,1,"/q"]])", "true 5 1 /p false 5 1 /q"},
             {R"(["a","","b"])", "a  b"},
             {R"([[[[["deep"]]]],"x"])", "deep x"}}) {
        EXPECT_EQ(structuredAttributes("builtin:buildenv", value).at("derivations"), text) << value;
    }
}

TEST(BuiltinBuilder, refusesAStructuredValueWithoutATextWhereItIsRead) {
    for (const char *value : {"{}", R"({"a":1})", R"(["true",5,1,{"a":1}])", R"([[["x"],[{}]]])"}) {
        std::string message =
            expectError(ErrorKind::badInput, [&] { structuredAttributes("builtin:buildenv", value); });
        EXPECT_NE(message.find("'derivations'"), message.npos) << message;
        // This one asks for no such attribute.
        EXPECT_FALSE(structuredAttributes("builtin:unpack-channel", value).contains("derivations")) << value;
    }
}

TEST(BuiltinBuilder, givesPasswordsAndCertificatesToDownloadsAlone) {
    TemporaryDirectory directory;
    Settings settings;
    settings.sslCertFile = settings.netrcFile = certificatesIn(directory);
    RecordingLogger logger;
    BasicDerivation fetch = derivationFor("builtin:fetchurl"), other = derivationFor("builtin:buildenv");
    BuilderEnvironment result = makeBuiltinEnvironment(inputFor(fetch), settings, {"/firn-builtin"}, logger);
    EXPECT_EQ(result.files.at(builtinCertificatesFile), "certificates");
    EXPECT_EQ(result.files.at(builtinNetrcFile), "certificates");
    result = makeBuiltinEnvironment(inputFor(other), settings, {"/firn-builtin"}, logger);
    EXPECT_EQ(result.files.size(), 1u);
}

TEST(BuiltinBuilder, namesWhatAFlatFileIsCalledOnAHashedMirror) {
    Settings settings;
    settings.hashedMirrors = {"http://mirror"};
    RecordingLogger logger;
    BasicDerivation drv = derivationFor("builtin:fetchurl");
    BuilderEnvironment result = makeBuiltinEnvironment(inputFor(drv), settings, {"/firn-builtin"}, logger);
    // sha256 of "x", from sha256sum.
    std::string wanted =
        "hashed-mirror=http://mirror/sha256/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    EXPECT_EQ(std::ranges::count(result.args, wanted), 1);
}

TEST(BuiltinBuilder, showsItsLibrariesInASandboxAndStartsItByTheLoader) {
    BuiltinProgram program{
        "/usr/libexec/firn-builtin", "/lib64/ld.so", {"/usr/lib/libx.so.1", "/lib64/ld.so"}};
    EXPECT_EQ(program.command(false), std::vector<std::string>{"/usr/libexec/firn-builtin"});
    EXPECT_EQ(program.command(true),
              (std::vector<std::string>{"/firn-builtin/ld.so", "--library-path", "/firn-builtin",
                                        "/firn-builtin/firn-builtin"}));
    for (const SandboxPath &path : program.sandboxPaths()) {
        EXPECT_TRUE(path.readOnly);
        EXPECT_TRUE(path.target.starts_with("/firn-builtin/"));
    }
    EXPECT_EQ(program.sandboxPaths().size(), 3u);
}

TEST(BuiltinAttributes, refusesWhatIsNoListOfThem) {
    EXPECT_THROW(builtin::parseAttributes(std::string_view("a=b", 3)), Error);
    EXPECT_THROW(builtin::parseAttributes(std::string_view("ab\0", 3)), Error);
    EXPECT_THROW(builtin::parseAttributes(std::string_view("=b\0", 3)), Error);
    EXPECT_EQ(builtin::parseAttributes(std::string_view("a==b\0", 5)).at("a"), "=b");
}

TEST(BuiltinPackages, areSortedByPriorityAndPath) {
    using builtin::Package;
    EXPECT_EQ(builtin::parsePackages("true 5 2 /b /a\nfalse 1 1 /c 1 -1 1 /d"),
              (std::vector<Package>{{-1, "/d"}, {5, "/a"}, {5, "/b"}}));
    EXPECT_TRUE(builtin::parsePackages(" ").empty());
}

TEST(BuiltinPackages, refusesWordsThatAreMissingOrNoNumbers) {
    for (const char *text : {"true", "true 5", "true 5 1", "true x 1 /a", "true 5 1x /a", "true 5 2 /a",
                             "true 99999999999999999999 1 /a", "true 5 9223372036854775807 /a"}) {
        EXPECT_THROW(builtin::parsePackages(text), Error) << text;
    }
}

} // namespace
} // namespace firn
