#include "libstore/build/builder-environment.hh"

#include <algorithm>

#include <gtest/gtest.h>

#include "libutil/error.hh"

// The expected values were recorded from Nix 2.8.0 building these derivations unsandboxed, with cores = 3.

namespace firn {
namespace {

const StoreDir store("/tmp/firn-build-stock/store");
const std::string top = "/tmp/firn-build-stock/tmp/nix-build-plain.drv-0";
const StorePath plainOut("vmdnl63vfysf3zdi92hkkfy426r7pvmy-plain");
const StorePath plainDev("vixz0czy5m9aaj4csd7gcnimn504fr5z-plain-dev");

BasicDerivation plainDerivation() {
    BasicDerivation drv;
    drv.name = "plain";
    drv.platform = "x86_64-linux";
    drv.builder = "/bin/sh";
    drv.args = {"-c", "true", "@out@", "/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz"};
    drv.outputs = {{"out", InputAddressedOutput{plainOut}}, {"dev", InputAddressedOutput{plainDev}}};
    drv.env = {{"HOME", "/somewhere"},
               {"TERM", "dumb"},
               {"TMPDIR", "/elsewhere"},
               {"big", "large text for /02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz"},
               {"builder", "/bin/sh"},
               {"dev", store.print(plainDev)},
               {"name", "plain"},
               {"out", store.print(plainOut)},
               {"outputs", "out dev"},
               {"passAsFile", "big"},
               {"system", "x86_64-linux"},
               {"text", "hello /1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9"}};
    return drv;
}

BuilderEnvironmentInput inputFor(const BasicDerivation &drv) {
    return {.store = store,
            .derivation = drv,
            .scratchPaths = {{"out", plainOut}, {"dev", plainDev}},
            .buildTop = top,
            .cores = 3,
            .passAsFile = {"big"},
            .impureEnvVars = {},
            .structured = {},
            .files = {},
            .hostVariable = {}};
}

std::vector<std::string> withDirectories(std::vector<std::string> variables) {
    for (const char *name : {"NIX_BUILD_TOP", "PWD", "TEMP", "TEMPDIR", "TMP", "TMPDIR"}) {
        variables.push_back(std::string(name) + "=" + top);
    }
    std::ranges::sort(variables);
    return variables;
}

std::vector<std::string> sorted(std::vector<std::string> list) {
    std::ranges::sort(list);
    return list;
}

TEST(BuilderEnvironment, isTheOneThatStockNixMakes) {
    BasicDerivation drv = plainDerivation();
    BuilderEnvironment made = makeBuilderEnvironment(inputFor(drv));
    std::string file = ".attr-1lak0mvllw8rv9i9ygkglvhqsq19qi9ynl4bi7gbf69ab5nzw89a";
    EXPECT_EQ(
        sorted(made.list()),
        withDirectories({"HOME=/somewhere", "outputs=out dev", "NIX_BUILD_CORES=3",
                         "dev=" + store.print(plainDev), "text=hello " + store.print(plainOut),
                         "bigPath=" + top + "/" + file, "builder=/bin/sh", "NIX_LOG_FD=2",
                         "out=" + store.print(plainOut), "TERM=xterm-256color", "PATH=/path-not-set",
                         "system=x86_64-linux", "passAsFile=big", "NIX_STORE=" + store.str(), "name=plain"}));
    StringMap files{{file, "large text for " + store.print(plainDev)}};
    EXPECT_EQ(made.files, files);
    EXPECT_EQ(made.builder, "/bin/sh");
    std::vector<std::string> args{"sh", "-c", "true", "@out@", store.print(plainDev)};
    EXPECT_EQ(made.args, args);
}

TEST(BuilderEnvironment, passesNamedHostVariablesToFixedOutputBuildsOnly) {
    BasicDerivation drv = plainDerivation();
    drv.env.clear();
    drv.name = "fixed";
    ContentAddress address{ContentMethod::flat, hashString(HashAlgorithm::sha256, "x")};
    drv.outputs = {{"out", FixedOutput{address}}};
    StorePath out = *outputPath(store, drv, "out");
    EXPECT_EQ(out.baseName(), "iwl0bgapqfkainqkm3yni5dmy3chk0yx-fixed");

    BuilderEnvironmentInput input = inputFor(drv);
    input.scratchPaths = {{"out", out}};
    input.impureEnvVars = {"http_proxy", "no_such_thing"};
    input.hostVariable = [](const std::string &name) {
        return name == "http_proxy" ? std::optional<std::string>("http://p:1") : std::nullopt;
    };
    BuilderEnvironment made = makeBuilderEnvironment(input);
    EXPECT_EQ(sorted(made.list()),
              withDirectories({"HOME=/homeless-shelter", "NIX_BUILD_CORES=3", "NIX_OUTPUT_CHECKED=1",
                               "NIX_LOG_FD=2", "http_proxy=http://p:1", "no_such_thing=",
                               "TERM=xterm-256color", "PATH=/path-not-set", "NIX_STORE=" + store.str()}));

    BasicDerivation plain = plainDerivation();
    BuilderEnvironmentInput other = inputFor(plain);
    other.impureEnvVars = input.impureEnvVars;
    other.hostVariable = input.hostVariable;
    EXPECT_FALSE(makeBuilderEnvironment(other).variables.contains("http_proxy"));
}

TEST(BuilderEnvironment, givesStructuredAttributesAsTwoFilesAndNoVariables) {
    BasicDerivation drv = plainDerivation();
    BuilderEnvironmentInput input = inputFor(drv);
    input.structured = {"{\"p\":\"/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz\"}", "declare p"};
    BuilderEnvironment made = makeBuilderEnvironment(input);
    EXPECT_EQ(sorted(made.list()),
              withDirectories({"HOME=/homeless-shelter", "NIX_BUILD_CORES=3", "NIX_LOG_FD=2",
                               "TERM=xterm-256color", "PATH=/path-not-set", "NIX_STORE=" + store.str(),
                               "NIX_ATTRS_SH_FILE=" + top + "/.attrs.sh",
                               "NIX_ATTRS_JSON_FILE=" + top + "/.attrs.json"}));
    StringMap files{{".attrs.json", "{\"p\":\"" + store.print(plainDev) + "\"}"}, {".attrs.sh", "declare p"}};
    EXPECT_EQ(made.files, files);
}

TEST(BuilderEnvironment, namesScratchPathsWhereverFinalOnesWere) {
    BasicDerivation drv = plainDerivation();
    drv.args = {"--into", store.print(plainOut) + "/bin"};
    drv.builder = store.print(plainDev) + "/builder";
    BuilderEnvironmentInput input = inputFor(drv);
    StorePath scratchOut("00000000000000000000000000000000-plain"),
        scratchDev("11111111111111111111111111111111-plain-dev");
    input.scratchPaths = {{"out", scratchOut}, {"dev", scratchDev}};
    BuilderEnvironment made = makeBuilderEnvironment(input);
    EXPECT_EQ(made.variables.at("out"), store.print(scratchOut));
    EXPECT_EQ(made.variables.at("text"), "hello " + store.print(scratchOut));
    EXPECT_EQ(made.args.at(2), store.print(scratchOut) + "/bin");
    EXPECT_EQ(made.builder, store.print(scratchDev) + "/builder");
    for (const std::string &line : made.list()) {
        EXPECT_EQ(line.find(plainOut.hashPart()), line.npos) << line;
    }
}

TEST(BuilderEnvironment, refusesNamesThatNoVariableCanHave) {
    BasicDerivation drv = plainDerivation();
    drv.env["a=b"] = "c";
    EXPECT_THROW(makeBuilderEnvironment(inputFor(drv)), Error);
    drv = plainDerivation();
    drv.env["zero"] = std::string("a\0b", 3);
    EXPECT_THROW(makeBuilderEnvironment(inputFor(drv)), Error);
}

TEST(RewriteText, replacesEveryOccurrenceOnceThrough) {
    EXPECT_EQ(rewriteText("abcabcab", {{"ab", "abab"}}), "ababcababcabab");
    EXPECT_EQ(rewriteText("xx", {{"x", ""}}), "");
    EXPECT_EQ(rewriteText("nothing here", {{"z", "y"}}), "nothing here");
}

} // namespace
} // namespace firn
