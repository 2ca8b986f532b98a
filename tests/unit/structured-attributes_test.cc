#include "libstore/model/structured-attributes.hh"

#include <gtest/gtest.h>

#include "model-vectors-store.hh"

using namespace firn;

namespace {

StructuredAttributeFiles make(std::string_view json) {
    return makeStructuredAttributeFiles(json, {}, {});
}

/// The shell text without the declaration of outputs.
std::string shellOf(std::string_view json) {
    std::string text = make(json).shell;
    const std::string outputs = "declare -A outputs=()\n";
    size_t position = text.find(outputs);
    EXPECT_NE(position, std::string::npos);
    return text.erase(position, outputs.size());
}

} // namespace

TEST(StructuredAttributes, areTheFilesThatStockNixWrites) {
    Derivation drv = vectors::parseVector(vectors::derivationVector("structured"));
    StringMap outputs;
    for (const auto &[name, path] : outputPaths(vectors::store(), drv)) {
        outputs[name] = vectors::store().print(path);
    }
    StructuredAttributeFiles files = makeStructuredAttributeFiles(
        drv.env.at("__json"), outputs, {{"graph", std::string(vectors::structuredGraph)}});
    EXPECT_EQ(files.json, vectors::structuredJson);
    EXPECT_EQ(files.shell, vectors::structuredShell);
}

TEST(StructuredAttributes, areKnownByTheirVariable) {
    EXPECT_TRUE(hasStructuredAttributes(vectors::parseVector(vectors::derivationVector("structured"))));
    EXPECT_FALSE(hasStructuredAttributes(vectors::parseVector(vectors::derivationVector("leaf"))));
}

TEST(StructuredAttributes, onlyShellNamesAreDeclared) {
    EXPECT_EQ(shellOf(R"~({"a b":1,"":1,"a=$(id)":1,"9":1,"ok_9":1,"é":1,"x\n":1})~"), "declare ok_9=1\n");
}

TEST(StructuredAttributes, valuesCannotLeaveTheirQuotes) {
    EXPECT_EQ(shellOf(R"~({"a":"';id;'$(id)\\"})~"), "declare a=''\\'';id;'\\''$(id)\\'\n");
    EXPECT_EQ(shellOf(R"~({"a":{"']=$(id)":"x"}})~"), "declare -A a=([''\\'']=$(id)']='x' )\n");
}

TEST(StructuredAttributes, numbersKeepTheirSize) {
    EXPECT_EQ(
        shellOf(
            R"({"a":4294967296,"b":-9223372036854775808,"c":18446744073709551615,"d":2.0,"e":2.5,"f":1e300})"),
        "declare a=4294967296\ndeclare b=-9223372036854775808\ndeclare c=18446744073709551615\ndeclare "
        "d=2\n");
}

TEST(StructuredAttributes, nestedValuesAreInTheJsonOnly) {
    StructuredAttributeFiles files = make(R"({"a":[[1]],"b":{"c":{}},"d":[1.5]})");
    EXPECT_EQ(files.shell, "declare -A outputs=()\n");
    EXPECT_EQ(files.json, R"({"a":[[1]],"b":{"c":{}},"d":[1.5],"outputs":{}})");
}

TEST(StructuredAttributes, RefusesDeepNesting) {
    auto nested = [](size_t depth) {
        return "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
    };
    EXPECT_NO_THROW(makeStructuredAttributeFiles(nested(100), {}, {}));
    EXPECT_THROW(makeStructuredAttributeFiles(nested(1000000), {}, {}), Error);
}

TEST(StructuredAttributes, malformedJsonIsRefused) {
    for (std::string_view text : {"", "{", "[]", "1", "null", "{\"a\":1}x", "\"\xff\""}) {
        EXPECT_THROW(make(text), Error) << text;
    }
    EXPECT_THROW(make(std::string(1000000, '[')), Error);
    EXPECT_THROW(makeStructuredAttributeFiles("{}", {}, {{"graph", "["}}), Error);
}
