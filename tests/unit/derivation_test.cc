#include "libstore/model/derivation.hh"

#include <gtest/gtest.h>

#include "libstore/model/realisation.hh"
#include "model-vectors-store.hh"

using namespace firn;
using vectors::derivationVector;
using vectors::parseVector;
using vectors::store;

namespace {

const std::string leafPath = std::string(derivationVector("leaf").path);

void expectMalformed(std::string_view text, std::string_view name = "x") {
    try {
        parseDerivation(store(), text, name);
        ADD_FAILURE() << "accepted: " << text.substr(0, 300);
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::badInput) << error.message();
        EXPECT_LT(error.message().size(), 4000u);
    }
}

/// A derivation with these parts.
std::string aterm(const std::string &outputs, const std::string &inputs = "[]",
                  const std::string &sources = "[]", const std::string &env = "[]") {
    return "Derive(" + outputs + "," + inputs + "," + sources + ",\"s\",\"b\",[]," + env + ")";
}

const std::string deferredOut = R"([("out","","","")])";

std::string outputsText(const Derivation &drv) {
    std::string text;
    for (const auto &[name, output] : drv.outputs) {
        if (auto path = outputPath(store(), drv, name)) {
            text += (text.empty() ? "" : " ") + name + "=" + store().print(*path);
        }
    }
    return text;
}

/// A chain of derivations, each depending on the next, made on demand.
class ChainReader : public DerivationReader {
  public:
    explicit ChainReader(int length) : length_(length) {}
    static StorePath path(int index) {
        return StorePath(hashString(HashAlgorithm::sha1, std::to_string(index)).digest(),
                         fmt::format("{}.drv", index));
    }
    Derivation readDerivation(const StorePath &drvPath) override {
        ++reads;
        int index = std::stoi(std::string(drvPath.name()));
        Derivation drv;
        drv.name = std::to_string(index);
        drv.outputs.emplace("out", DeferredOutput{});
        for (int input : {index + 1, index + 2}) {
            if (input < length_) {
                drv.inputDerivations[path(input)].outputs = {"out"};
            }
        }
        return drv;
    }
    int reads = 0;

  private:
    int length_;
};

/// Derivations by path, put there by a test.
class MapReader : public DerivationReader {
  public:
    Derivation readDerivation(const StorePath &drvPath) override { return derivations.at(drvPath); }
    std::map<StorePath, Derivation> derivations;
};

} // namespace

TEST(Derivation, textsOfStockNixRoundTripByteForByte) {
    for (const vectors::DerivationVector &vector : vectors::derivationVectors) {
        EXPECT_EQ(unparseDerivation(store(), parseVector(vector)), vector.text) << vector.name;
    }
}

TEST(Derivation, hasThePathThatStockNixGaveItsFile) {
    for (const vectors::DerivationVector &vector : vectors::derivationVectors) {
        EXPECT_EQ(store().print(derivationPath(store(), parseVector(vector))), vector.path) << vector.name;
    }
}

TEST(Derivation, hasTheOutputPathsThatStockNixShows) {
    for (const vectors::DerivationVector &vector : vectors::derivationVectors) {
        EXPECT_EQ(outputsText(parseVector(vector)), vector.outputs) << vector.name;
    }
}

TEST(Derivation, readsItsParts) {
    Derivation drv = parseVector(derivationVector("awkward"));
    EXPECT_EQ(drv.name, "awkward+name?=_.x");
    EXPECT_EQ(drv.platform, "vector-system");
    EXPECT_EQ(drv.builder, "/bin/sh");
    ASSERT_EQ(drv.args.size(), 3u);
    EXPECT_EQ(drv.args[0], "");
    EXPECT_EQ(drv.args[1], "quote\" backslash\\ newline\n tab\t return\r dollar$ é ☃");
    EXPECT_EQ(drv.args[2], "\\n");
    EXPECT_EQ(drv.env.at("1 strange=name"), "x");
    EXPECT_EQ(drv.env.at("true"), "1");

    Derivation dependant = parseVector(derivationVector("dependant"));
    StorePath threeOutputs = store().parse(derivationVector("threeOutputs").path);
    EXPECT_EQ(dependant.inputDerivations.at(threeOutputs).outputs, (StringSet{"dev", "doc", "out"}));
    EXPECT_EQ(parseVector(derivationVector("threeOutputs")).inputSources.size(), 2u);
}

TEST(Derivation, knowsItsKind) {
    struct {
        std::string_view name;
        DerivationKind kind;
        bool known;
    } expected[] = {{"threeOutputs", DerivationKind::inputAddressed, true},
                    {"fixedFlat", DerivationKind::fixed, true},
                    {"floating", DerivationKind::floating, false},
                    {"deferred", DerivationKind::deferred, false},
                    {"impure", DerivationKind::impure, false}};
    for (const auto &[name, kind, known] : expected) {
        Derivation drv = parseVector(derivationVector(name));
        EXPECT_EQ(derivationKind(drv), kind) << name;
        EXPECT_EQ(drv.hasKnownOutputPaths(), known) << name;
        EXPECT_EQ(drv.isFixedOutput(), kind == DerivationKind::fixed) << name;
    }
}

TEST(Derivation, mixedKindsAreRefused) {
    Derivation drv = parseVector(derivationVector("leaf"));
    drv.outputs.emplace("dev", DeferredOutput{});
    EXPECT_THROW(derivationKind(drv), Error);
    drv.outputs.clear();
    EXPECT_THROW(derivationKind(drv), Error);
    Derivation fixed = parseVector(derivationVector("fixedFlat"));
    fixed.outputs.emplace("dev", fixed.outputs.at("out"));
    EXPECT_THROW(derivationKind(fixed), Error);
    fixed.outputs.erase("out");
    EXPECT_THROW(derivationKind(fixed), Error);
    Derivation floating = parseVector(derivationVector("floating"));
    floating.outputs.insert_or_assign("lib", FloatingOutput{{ContentMethod::nar, HashAlgorithm::sha512}});
    EXPECT_THROW(derivationKind(floating), Error);
}

TEST(Derivation, pathsOfAllOutputsMustBeKnown) {
    EXPECT_EQ(outputPaths(store(), parseVector(derivationVector("threeOutputs"))).size(), 3u);
    try {
        outputPaths(store(), parseVector(derivationVector("floating")));
        ADD_FAILURE() << "no error";
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    }
    EXPECT_THROW(outputPath(store(), parseVector(derivationVector("leaf")), "dev"), Error);
}

TEST(Derivation, isRefusedWhenCutAtAnyByte) {
    for (std::string_view name : {"dependant", "awkward", "fixedFlat", "deferred", "impure"}) {
        std::string_view text = derivationVector(name).text;
        for (size_t size = 0; size < text.size(); ++size) {
            expectMalformed(text.substr(0, size));
        }
    }
}

TEST(Derivation, isRefusedWithBytesAfterItsEnd) {
    std::string text(derivationVector("leaf").text);
    expectMalformed(text + "\n", "leaf");
    expectMalformed(text + ")", "leaf");
    expectMalformed(text + text, "leaf");
}

TEST(Derivation, isRefusedWithBlanksBetween) {
    expectMalformed(aterm(deferredOut) + " ");
    expectMalformed(" " + aterm(deferredOut));
    expectMalformed(aterm(deferredOut, " []"));
}

TEST(Derivation, isRefusedWithUnknownEscapes) {
    EXPECT_NO_THROW(parseDerivation(store(), aterm(deferredOut, "[]", "[]", R"([("a","\\\"\n\r\t")])"), "x"));
    expectMalformed(aterm(deferredOut, "[]", "[]", R"([("a","\x")])"));
    expectMalformed(aterm(deferredOut, "[]", "[]", R"([("a","\")])"));
}

TEST(Derivation, rawControlCharactersAreReadAndWrittenEscaped) {
    Derivation drv = parseDerivation(store(), aterm(deferredOut, "[]", "[]", "[(\"a\",\"1\n2\t3\r\")]"), "x");
    EXPECT_EQ(drv.env.at("a"), "1\n2\t3\r");
    EXPECT_EQ(unparseDerivation(store(), drv), aterm(deferredOut, "[]", "[]", R"([("a","1\n2\t3\r")])"));
}

TEST(Derivation, nothingMayBeThereTwice) {
    std::string leaf = "\"" + leafPath + "\"";
    expectMalformed(aterm(R"([("out","","",""),("out","","","")])"));
    expectMalformed(aterm(deferredOut, "[(" + leaf + ",[\"out\"]),(" + leaf + ",[\"out\"])]"));
    expectMalformed(aterm(deferredOut, "[(" + leaf + ",[\"out\",\"out\"])]"));
    expectMalformed(aterm(deferredOut, "[]", "[" + leaf + "," + leaf + "]"));
    expectMalformed(aterm(deferredOut, "[]", "[]", R"([("a","1"),("a","2")])"));
    EXPECT_NO_THROW(
        parseDerivation(store(), aterm(deferredOut, "[(" + leaf + ",[\"out\"])]", "[" + leaf + "]"), "x"));
}

TEST(Derivation, badPathsAreRefused) {
    std::string notDerivation = std::string(vectors::storeDir) + "/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf";
    for (const std::string &path : std::vector<std::string>{
             std::string("/etc/passwd"), std::string("relative"), leafPath + "/x", leafPath + "/..",
             std::string("/nix/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf.drv"), notDerivation}) {
        expectMalformed(aterm(deferredOut, "[(\"" + path + "\",[\"out\"])]"));
        if (path != notDerivation) {
            expectMalformed(aterm("[(\"out\",\"" + path + "\",\"\",\"\")]"));
            expectMalformed(aterm(deferredOut, "[]", "[\"" + path + "\"]"));
        }
    }
}

TEST(Derivation, badOutputsAreRefused) {
    std::string fixed(derivationVector("fixedFlat").text);
    std::string path(derivationVector("fixedFlat").outputs.substr(4));
    std::string digits = "a50a5ab6d992f5598edd92105059fae9acfc192981e08bd88534c2167e92526a";
    auto tuple = [](const std::string &name, const std::string &p, const std::string &algorithm,
                    const std::string &hash) {
        return aterm("[(\"" + name + "\",\"" + p + "\",\"" + algorithm + "\",\"" + hash + "\")]");
    };
    EXPECT_NO_THROW(parseDerivation(store(), tuple("out", path, "sha256", digits), "fixed-flat"));
    expectMalformed(tuple("out", path, "r:sha256", digits), "fixed-flat"); // gives another path
    expectMalformed(tuple("out", path, "sha256", "b" + digits.substr(1)), "fixed-flat");
    expectMalformed(tuple("out", path, "sha256", digits), "other-name");
    expectMalformed(tuple("dev", path, "sha256", digits), "fixed-flat");
    expectMalformed(tuple("out", "", "sha256", digits), "fixed-flat");
    expectMalformed(tuple("out", path, "sha1", digits), "fixed-flat");
    expectMalformed(tuple("out", path, "sha256", "sha256:" + digits), "fixed-flat");
    expectMalformed(tuple("out", path, "", digits), "fixed-flat");
    expectMalformed(tuple("out", path, "sha256", ""), "fixed-flat");
    expectMalformed(tuple("out", path, "sha256", "impure"), "fixed-flat");
    expectMalformed(tuple("out", "", "sha3", ""), "fixed-flat");
    expectMalformed(tuple("", "", "", ""));
    expectMalformed(tuple("a/b", "", "", ""));
    expectMalformed(tuple("..", "", "", ""));
    expectMalformed(tuple("out", "", "", ""), "a/b");
    expectMalformed(tuple("out", "", "", ""), "");
}

TEST(Derivation, hugeOnesAreRefusedOrRead) {
    expectMalformed(std::string((size_t(64) << 20) + 1, 'x'));
    expectMalformed("Derive(" + std::string(1 << 20, '['));
    expectMalformed("Derive(" + std::string(1 << 20, '('));
    std::string value(1 << 20, 'v');
    Derivation drv =
        parseDerivation(store(), aterm(deferredOut, "[]", "[]", "[(\"a\",\"" + value + "\")]"), "x");
    EXPECT_EQ(drv.env.at("a"), value);
}

TEST(Derivation, unsortedListsAreWrittenSorted) {
    Derivation drv =
        parseDerivation(store(), aterm(deferredOut, "[]", "[]", R"([("b","2"),("a","1")])"), "x");
    EXPECT_EQ(unparseDerivation(store(), drv), aterm(deferredOut, "[]", "[]", R"([("a","1"),("b","2")])"));
}

TEST(DynamicDerivation, roundTrips) {
    for (const std::string &node : std::vector<std::string>{
             R"((["out"],[("a",["b"])]))", R"(([],[("a",["b","c"]),("d",(["e"],[("f",[])]))]))",
             R"(([],[("a",([],[("b",([],[("c",["d"])]))])),("e",["f"])]))"}) {
        std::string text =
            "DrvWithVersion(\"xp-dyn-drv\"," +
            aterm(deferredOut, "[(\"" + leafPath + "\"," + node + ")]").substr(sizeof "Derive(" - 1);
        EXPECT_EQ(unparseDerivation(store(), parseDerivation(store(), text, "x")), text);
        for (size_t size = 0; size < text.size(); ++size) {
            expectMalformed(text.substr(0, size));
        }
        expectMalformed("Derive(" + text.substr(text.find(",[(") + 1)); // the classic form has no such nodes
    }
}

TEST(DynamicDerivation, nestingIsBounded) {
    auto nested = [](int depth) {
        std::string node = "[\"x\"]";
        for (int i = 0; i < depth; ++i) {
            node = "([],[(\"a\"," + node + ")])";
        }
        return "DrvWithVersion(\"xp-dyn-drv\"," +
               aterm(deferredOut, "[(\"" + leafPath + "\"," + node + ")]").substr(sizeof "Derive(" - 1);
    };
    EXPECT_EQ(unparseDerivation(store(), parseDerivation(store(), nested(32), "x")), nested(32));
    expectMalformed(nested(33));
    expectMalformed(nested(10000));
}

/// Made by stock Nix 2.34.8 of: leaf, making.outPath, outputOf of it (out and lib), and of an output of
/// another.
constexpr std::string_view dynamicText =
    R"~~(DrvWithVersion("xp-dyn-drv",[("out","","","")],[("/tmp/firn-vectors/store/22xlgi5snxdkf1i1x2ql6j29vv48w3hz-leaf.drv",["out"]),("/tmp/firn-vectors/store/6fv2wf45sbrimxmym1i2wzn1bgra4rcj-making.drv.drv.drv",([],[("out",([],[("out",["out"])]))])),("/tmp/firn-vectors/store/yf3s0vyhswxkbz7r9mdla4dxl0yfp1fa-inner.drv.drv",(["out"],[("out",["lib","out"])]))],[],"vector-system","/bin/sh",["-c","cat /tmp/firn-vectors/store/sq1xc969xicx4ai348lszkazz8x44qlj-leaf /051gq8xpf8bd907xyl0w38d88xgigy0w8a71g8dgjaw6p8zdc2wy /0b1lypfk0dx9h7z3dm6y6g9w62a9wysc1a1akwi81kcvv2hvkahc /18zqbgkxvrwwxr63bp2jdkvxaixpxsh7hhjjgvsi02g9iwk086dw /1npjb86k4cn06bywy95bxrfhcsz5irgjvd5almah1phca20d48mv > $out"],[("builder","/bin/sh"),("name","user"),("out",""),("system","vector-system")]))~~";
constexpr std::string_view dynamicPath = "/tmp/firn-vectors/store/9ya4qm53f4kc518i5qlzjbih6a4hwrjf-user.drv";
constexpr std::string_view innerMaker =
    "/tmp/firn-vectors/store/yf3s0vyhswxkbz7r9mdla4dxl0yfp1fa-inner.drv.drv";
constexpr std::string_view outerMaker =
    "/tmp/firn-vectors/store/6fv2wf45sbrimxmym1i2wzn1bgra4rcj-making.drv.drv.drv";

TEST(DynamicDerivation, isWrittenAsStockNixDoes) {
    Derivation drv = parseDerivation(store(), dynamicText, "user");
    EXPECT_EQ(unparseDerivation(store(), drv), dynamicText);
    EXPECT_EQ(store().print(derivationPath(store(), drv)), dynamicPath);
    EXPECT_TRUE(drv.hasDynamicInputs());
    EXPECT_FALSE(parseVector(derivationVector("dependant")).hasDynamicInputs());
}

TEST(DynamicDerivation, needsOutputsOfWhatIsMade) {
    StorePath inner = store().parse(innerMaker), outer = store().parse(outerMaker);
    std::vector<BuiltPath> needed = neededOutputs(parseDerivation(store(), dynamicText, "user"));
    std::set<BuiltPath> expected{{store().parse(leafPath), {"out"}, {}},
                                 {inner, {"out"}, {}},
                                 {inner, {"lib", "out"}, {"out"}},
                                 {outer, {"out"}, {"out", "out"}}};
    EXPECT_EQ(needed.size(), 4u);
    EXPECT_EQ(std::set<BuiltPath>(needed.begin(), needed.end()), expected);
}

TEST(DynamicDerivation, placeholdersAreThoseOfStockNix) {
    std::string script = parseDerivation(store(), dynamicText, "user").args.at(1);
    StorePath inner = store().parse(innerMaker), outer = store().parse(outerMaker);
    std::string expected = fmt::format(
        "cat /tmp/firn-vectors/store/sq1xc969xicx4ai348lszkazz8x44qlj-leaf {} {} {} {} > $out",
        upstreamPlaceholder(inner, "out"), upstreamPlaceholder(inner, {"out"}, "out"),
        upstreamPlaceholder(inner, {"out"}, "lib"), upstreamPlaceholder(outer, {"out", "out"}, "out"));
    EXPECT_EQ(script, expected);
}

TEST(DynamicDerivation, thereMayBeManyNodesButNotAnyNumber) {
    auto wide = [](int count) {
        std::string nodes;
        for (int i = 0; i < count; ++i) {
            nodes += fmt::format("{}(\"n{}\",[\"x\"])", i == 0 ? "" : ",", i);
        }
        return "DrvWithVersion(\"xp-dyn-drv\"," +
               aterm(deferredOut, "[(\"" + leafPath + "\",([],[" + nodes + "]))]")
                   .substr(sizeof "Derive(" - 1);
    };
    EXPECT_EQ(neededOutputs(parseDerivation(store(), wide(65536), "x")).size(), 65536u);
    expectMalformed(wide(65537));
}

TEST(DynamicDerivation, theWaysToItsNodesAreBoundedTogether) {
    auto bush = [](int depth, int leaves) {
        std::string node = "([],[";
        for (int i = 0; i < leaves; ++i) {
            node += fmt::format("{}(\"n{}\",[\"x\"])", i == 0 ? "" : ",", i);
        }
        node += "])";
        for (int i = 0; i < depth; ++i) {
            node = "([],[(\"" + std::string(200, 'a') + "\"," + node + ")])";
        }
        return "DrvWithVersion(\"xp-dyn-drv\"," +
               aterm(deferredOut, "[(\"" + leafPath + "\"," + node + ")]").substr(sizeof "Derive(" - 1);
    };
    EXPECT_EQ(neededOutputs(parseDerivation(store(), bush(30, 100), "x")).size(), 100u);
    expectMalformed(bush(30, 10000)); // each written out they are 60 MB
}

/// Nix's hashes leave dynamic inputs out: whoever uses them has to know.
TEST(DynamicDerivation, hashesSayThatTheyAreAmbiguous) {
    class Reader : public DerivationReader {
      public:
        Derivation readDerivation(const StorePath &drvPath) override {
            bool isDynamic = drvPath == store().parse(dynamicPath);
            return isDynamic ? parseDerivation(store(), dynamicText, "user")
                             : parseVector(derivationVector("leaf"));
        }
    } reader;
    DerivationHasher hasher(store(), reader);
    Derivation one = parseDerivation(store(), dynamicText, "user"), other = one;
    other.inputDerivations.at(store().parse(outerMaker)).dynamic.at("out").dynamic.at("out").outputs = {
        "lib"};
    EXPECT_EQ(hasher.outputHashes(one, true), hasher.outputHashes(other, true));
    EXPECT_TRUE(hasher.hashes(one, true).ambiguous);
    EXPECT_TRUE(hasher.hashes(one, true).deferred);
    Derivation user = parseVector(derivationVector("deferred"));
    user.inputDerivations = {{store().parse(leafPath), {{"out"}, {}}}};
    EXPECT_FALSE(hasher.hashes(user, true).ambiguous);
    user.inputDerivations[store().parse(dynamicPath)].outputs = {"out"};
    EXPECT_TRUE(hasher.hashes(user, true).ambiguous);
}

TEST(DynamicDerivation, otherVersionsAreRefused) {
    expectMalformed("DrvWithVersion(\"xp-other\"," + aterm(deferredOut).substr(7));
}

TEST(DerivationHasher, givesTheOutputPathsOfStockNix) {
    vectors::VectorReader reader;
    DerivationHasher hasher(store(), reader);
    for (std::string_view name :
         {"leaf", "threeOutputs", "dependant", "awkward", "structured", "selfReference"}) {
        Derivation drv = parseVector(derivationVector(name));
        DerivationHashes hashes = hasher.hashes(drv, true);
        EXPECT_FALSE(hashes.deferred);
        for (const auto &[output, path] : outputPaths(store(), drv)) {
            EXPECT_EQ(store().makeOutputPath(output, hashes.outputs.at(output), drv.name), path) << name;
        }
    }
}

TEST(DerivationHasher, givesTheRealisationIdsOfStockNix) {
    vectors::VectorReader reader;
    DerivationHasher hasher(store(), reader);
    for (const vectors::RealisationVector &vector : vectors::realisationVectors) {
        DerivationHashes hashes = hasher.hashes(parseVector(derivationVector(vector.name)), true);
        std::string output(vector.output);
        EXPECT_EQ((DrvOutput{hashes.outputs.at(output), output}), Realisation::parseJson(vector.json).id)
            << vector.name;
        EXPECT_TRUE(hashes.deferred);
    }
}

TEST(DerivationHasher, readsEachDerivationOnceAndNoInputsOfFixedOnes) {
    vectors::VectorReader reader;
    DerivationHasher hasher(store(), reader);
    hasher.outputHashes(store().parse(derivationVector("fixedFlat").path));
    EXPECT_EQ(reader.reads.size(), 1u); // and not the leaf that it needs
    hasher.outputHashes(store().parse(derivationVector("dependant").path));
    hasher.outputHashes(store().parse(derivationVector("dependant").path));
    for (const auto &[path, reads] : reader.reads) {
        EXPECT_EQ(reads, 1) << path.baseName();
    }
}

TEST(DerivationHasher, deepGraphsDoNotOverflowTheStack) {
    ChainReader reader(10000);
    DerivationHasher hasher(store(), reader);
    EXPECT_EQ(hasher.outputHashes(ChainReader::path(0)).size(), 1u);
    EXPECT_EQ(reader.reads, 10000);
}

TEST(DerivationHasher, cyclesAreReported) {
    MapReader reader;
    StorePath first = ChainReader::path(1), second = ChainReader::path(2);
    Derivation drv;
    drv.name = "1";
    drv.outputs.emplace("out", DeferredOutput{});
    drv.inputDerivations[second].outputs = {"out"};
    reader.derivations[first] = drv;
    drv.inputDerivations = {{first, {{"out"}, {}}}};
    reader.derivations[second] = drv;
    DerivationHasher hasher(store(), reader);
    try {
        hasher.outputHashes(first);
        ADD_FAILURE() << "no error";
    } catch (const Error &error) {
        EXPECT_EQ(error.kind(), ErrorKind::corrupt);
    }
}

TEST(DerivationHasher, unknownOutputsOfInputsAreRefused) {
    vectors::VectorReader reader;
    DerivationHasher hasher(store(), reader);
    Derivation drv = parseVector(derivationVector("dependant"));
    drv.inputDerivations.at(store().parse(leafPath)).outputs.insert("none");
    EXPECT_THROW(hasher.outputHashes(drv, false), Error);
}

TEST(CheckDerivationOutputs, acceptsWhatStockNixMade) {
    vectors::VectorReader reader;
    DerivationHasher hasher(store(), reader);
    for (const vectors::DerivationVector &vector : vectors::derivationVectors) {
        EXPECT_NO_THROW(checkDerivationOutputs(store(), hasher, parseVector(vector))) << vector.name;
    }
}

TEST(CheckDerivationOutputs, refusesLies) {
    vectors::VectorReader reader;
    DerivationHasher hasher(store(), reader);
    auto expectLie = [&](const Derivation &drv) {
        try {
            checkDerivationOutputs(store(), hasher, drv);
            ADD_FAILURE() << "accepted";
        } catch (const Error &error) {
            EXPECT_EQ(error.kind(), ErrorKind::badInput);
        }
    };
    const Derivation good = parseVector(derivationVector("threeOutputs"));
    StorePath stranger = *outputPath(store(), parseVector(derivationVector("leaf")), "out");

    Derivation drv = good; // somebody else's path, also in env
    drv.outputs.insert_or_assign("dev", InputAddressedOutput{stranger});
    drv.env["dev"] = store().print(stranger);
    expectLie(drv);

    drv = good; // path right, env wrong: the builder would write elsewhere
    drv.env["dev"] = store().print(stranger);
    expectLie(drv);

    drv = good;
    drv.env.erase("dev");
    expectLie(drv);

    drv = good; // something else would be built
    drv.args.push_back("x");
    expectLie(drv);

    drv = parseVector(derivationVector("fixedFlat"));
    drv.env["out"] = store().print(stranger);
    expectLie(drv);

    drv = parseVector(derivationVector("deferred")); // cannot know its path
    drv.outputs.insert_or_assign("out", InputAddressedOutput{stranger});
    drv.env["out"] = store().print(stranger);
    expectLie(drv);
}

TEST(Placeholders, areThoseInStockNixDerivations) {
    Derivation floating = parseVector(derivationVector("floating"));
    EXPECT_EQ(floating.env.at("out"), outputPlaceholder("out"));
    EXPECT_EQ(floating.env.at("lib"), outputPlaceholder("lib"));
    StorePath path = store().parse(derivationVector("floating").path);
    EXPECT_NE(parseVector(derivationVector("onFloating")).args[1].find(upstreamPlaceholder(path, "lib")),
              std::string::npos);
    EXPECT_NE(parseVector(derivationVector("deferred")).args[1].find(upstreamPlaceholder(path, "out")),
              std::string::npos);
}
