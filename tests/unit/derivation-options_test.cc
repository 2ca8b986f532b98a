#include "libstore/model/derivation-options.hh"

#include <gtest/gtest.h>

#include "libutil/error.hh"

using namespace firn;

namespace {

DerivationOptions fromEnv(StringMap env) {
    BasicDerivation drv;
    drv.name = "x";
    drv.env = std::move(env);
    return readDerivationOptions(drv);
}

DerivationOptions fromJson(const std::string &json) {
    return fromEnv({{"__json", json}});
}

template<typename Read>
std::string messageOf(Read read) {
    try {
        read();
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::badInput);
        return error.message();
    }
    return "";
}

} // namespace

TEST(DerivationOptions, haveDefaults) {
    for (const DerivationOptions &options : {fromEnv({}), fromJson("{}")}) {
        EXPECT_TRUE(options.allowSubstitutes);
        EXPECT_FALSE(options.preferLocalBuild || options.noChroot || options.allowLocalNetworking);
        EXPECT_TRUE(options.requiredSystemFeatures.empty() && options.impureEnvVars.empty());
        EXPECT_TRUE(options.exportReferencesGraph.empty() && options.passAsFile.empty());
        EXPECT_EQ(options.checksFor("out").allowedReferences, std::nullopt);
    }
}

TEST(DerivationOptions, areReadFromTheEnvironment) {
    DerivationOptions options = fromEnv({{"__noChroot", "1"},
                                         {"__impureHostDeps", "/a /b"},
                                         {"impureEnvVars", " http_proxy\n\thttps_proxy "},
                                         {"requiredSystemFeatures", "kvm big-parallel"},
                                         {"preferLocalBuild", "1"},
                                         {"allowSubstitutes", ""},
                                         {"passAsFile", "text"},
                                         {"__darwinAllowLocalNetworking", "1"},
                                         {"__sandboxProfile", "(allow x)"},
                                         {"allowedReferences", ""},
                                         {"disallowedRequisites", "/nix/store/x out"},
                                         {"exportReferencesGraph", "graph /nix/store/x g2 /nix/store/y"}});
    EXPECT_FALSE(options.structured || options.allowSubstitutes);
    EXPECT_TRUE(options.noChroot && options.preferLocalBuild && options.allowLocalNetworking);
    EXPECT_EQ(options.impureHostDeps, (StringSet{"/a", "/b"}));
    EXPECT_EQ(options.impureEnvVars, (StringSet{"http_proxy", "https_proxy"}));
    EXPECT_EQ(options.requiredSystemFeatures, (StringSet{"big-parallel", "kvm"}));
    EXPECT_EQ(options.passAsFile, StringSet{"text"});
    EXPECT_EQ(options.sandboxProfile, "(allow x)");
    EXPECT_EQ(options.checksFor("out").allowedReferences,
              StringSet{}); // none allowed, which is not the same as unset
    EXPECT_EQ(options.checksFor("dev").disallowedRequisites, (StringSet{"/nix/store/x", "out"}));
    EXPECT_EQ(options.checksFor("dev").allowedRequisites, std::nullopt);
    EXPECT_TRUE(options.checksFor("out").ignoreSelfReferences);
    EXPECT_EQ(options.exportReferencesGraph.at("g2"), std::vector<std::string>{"/nix/store/y"});
}

TEST(DerivationOptions, areReadFromStructuredAttributes) {
    DerivationOptions options = fromJson(R"({
        "__noChroot": true, "impureEnvVars": ["a b"], "preferLocalBuild": true, "allowSubstitutes": false,
        "requiredSystemFeatures": ["kvm"], "passAsFile": ["text"], "allowedReferences": ["ignored"],
        "outputChecks": {"out": {"maxSize": 10, "maxClosureSize": 18446744073709551615, "allowedReferences": ["out"]},
                         "dev": {"disallowedReferences": []}},
        "unsafeDiscardReferences": {"out": true, "dev": false},
        "exportReferencesGraph": {"graph": ["/nix/store/x", "/nix/store/y"], "one": "/nix/store/z"}})");
    EXPECT_TRUE(options.structured && options.noChroot && options.preferLocalBuild);
    EXPECT_FALSE(options.allowSubstitutes);
    EXPECT_EQ(options.impureEnvVars, StringSet{"a b"});
    EXPECT_EQ(options.requiredSystemFeatures, StringSet{"kvm"});
    EXPECT_TRUE(options.passAsFile.empty());
    EXPECT_EQ(options.checksFor("out").maxSize, 10u);
    EXPECT_EQ(options.checksFor("out").maxClosureSize, UINT64_MAX);
    EXPECT_EQ(options.checksFor("out").allowedReferences, StringSet{"out"});
    EXPECT_FALSE(options.checksFor("out").ignoreSelfReferences);
    EXPECT_EQ(options.checksFor("dev").disallowedReferences, StringSet{});
    EXPECT_EQ(options.checksFor("doc"), OutputChecks{});
    EXPECT_EQ(options.unsafeDiscardReferences, (std::map<std::string, bool>{{"dev", false}, {"out", true}}));
    EXPECT_EQ(options.exportReferencesGraph.at("graph").size(), 2u);
    EXPECT_EQ(options.exportReferencesGraph.at("one"), std::vector<std::string>{"/nix/store/z"});
}

TEST(DerivationOptions, wrongTypesAreRefusedByName) {
    struct {
        std::string json, attribute;
    } bad[] = {
        {R"({"__noChroot":"1"})", "__noChroot"},
        {R"({"preferLocalBuild":1})", "preferLocalBuild"},
        {R"({"requiredSystemFeatures":"kvm"})", "requiredSystemFeatures"},
        {R"({"impureEnvVars":[1]})", "impureEnvVars"},
        {R"({"__sandboxProfile":[]})", "__sandboxProfile"},
        {R"({"outputChecks":[]})", "outputChecks"},
        {R"({"outputChecks":{"out":1}})", "outputChecks.out"},
        {R"({"outputChecks":{"out":{"maxSize":-1}}})", "outputChecks.out.maxSize"},
        {R"({"outputChecks":{"out":{"maxSize":1.5}}})", "outputChecks.out.maxSize"},
        {R"({"outputChecks":{"out":{"allowedReferences":null}}})", "outputChecks.out.allowedReferences"},
        {R"({"unsafeDiscardReferences":{"out":"yes"}})", "unsafeDiscardReferences.out"},
        {R"({"exportReferencesGraph":{"g":1}})", "exportReferencesGraph.g"},
        {R"([])", "__json"},
        {R"({)", "__json"}};
    for (const auto &[json, attribute] : bad) {
        std::string message = messageOf([&, &json = json] { fromJson(json); });
        EXPECT_NE(message.find("'" + attribute + "'"), std::string::npos) << json << " gave: " << message;
    }
}

TEST(DerivationOptions, graphFileNamesCannotLeaveTheDirectory) {
    for (const std::string &value :
         std::vector<std::string>{"graph", "a /x b", "../x /y", "/etc/x /y", ".x /y", "a/b /y", "9 /y"}) {
        EXPECT_NE(messageOf([&] { fromEnv({{"exportReferencesGraph", value}}); }), "") << value;
    }
}
