#include "libstore/build/bundle-seals.hh"

#include <algorithm>
#include <optional>

#include <gtest/gtest.h>

namespace firn {
namespace {

/// Makes an output's tree of paths; "X/" is a directory.
class Tree {
  public:
    explicit Tree(const std::vector<std::string> &paths,
                  const std::string &rootName = std::string(32, 'a') + "-x") {
        tree.nodes.emplace_back().type = OutputNode::Type::directory;
        tree.nodes[0].name = rootName;
        for (const std::string &path : paths) {
            add(path);
        }
        for (OutputNode &directory : tree.nodes) {
            std::sort(directory.children.begin(), directory.children.end(),
                      [this](uint32_t a, uint32_t b) { return tree.nodes[a].name < tree.nodes[b].name; });
        }
    }

    uint32_t node(const std::string &path) const {
        for (uint32_t i = 0; i < tree.nodes.size(); ++i) {
            if (tree.pathOf(i) == path) {
                return i;
            }
        }
        ADD_FAILURE() << path;
        return 0;
    }

    /// "bundle: changed" for each broken seal.
    std::vector<std::string> broken(const std::vector<std::string> &changed) const {
        std::vector<uint32_t> nodes;
        for (const std::string &path : changed) {
            nodes.push_back(node(path));
        }
        std::vector<std::string> result;
        for (const BrokenSeal &seal : brokenSeals(tree, nodes)) {
            result.push_back(tree.pathOf(seal.bundle) + ": " + tree.pathOf(seal.changed));
        }
        return result;
    }

    OutputTree tree;

  private:
    void add(const std::string &path) {
        uint32_t at = 0;
        for (size_t begin = 0; begin < path.size();) {
            size_t end = std::min(path.find('/', begin), path.size());
            at = child(at, path.substr(begin, end - begin), end < path.size());
            begin = end + 1;
        }
    }

    uint32_t child(uint32_t parent, const std::string &name, bool isDirectory) {
        for (uint32_t index : tree.nodes[parent].children) {
            if (tree.nodes[index].name == name) {
                return index;
            }
        }
        auto index = static_cast<uint32_t>(tree.nodes.size());
        OutputNode node;
        node.type = isDirectory ? OutputNode::Type::directory : OutputNode::Type::regular;
        node.parent = parent;
        node.name = name;
        tree.nodes.push_back(node);
        tree.nodes[parent].children.push_back(index);
        return index;
    }
};

using Lines = std::vector<std::string>;

const std::vector<std::string> app = {
    "bin/tool",
    "Applications/A.app/Contents/Info.plist",
    "Applications/A.app/Contents/MacOS/A",
    "Applications/A.app/Contents/MacOS/helper",
    "Applications/A.app/Contents/Resources/deep/text",
    "Applications/A.app/Contents/_CodeSignature/CodeResources",
    "Applications/A.app/Contents/Frameworks/F.framework/Versions/1/F",
    "Applications/A.app/Contents/Frameworks/F.framework/Versions/1/Resources/Info.plist",
    "Applications/A.app/Contents/Frameworks/F.framework/Versions/1/_CodeSignature/CodeResources",
    "Applications/A.app/Contents/Frameworks/libplain.dylib",
};
const std::string inside = "Applications/A.app/Contents/";

TEST(BundleSeals, ResourcesNestedCodeAndTheSealItselfAreSealed) {
    Tree tree(app);
    for (const char *file : {"Info.plist", "Resources/deep/text", "MacOS/helper", "Frameworks/libplain.dylib",
                             "_CodeSignature/CodeResources"}) {
        EXPECT_EQ(tree.broken({inside + file}), Lines{"Applications/A.app: " + inside + file});
    }
}

TEST(BundleSeals, FilesOutsideAndTheMainProgramBreakNothing) {
    Tree tree(app);
    EXPECT_EQ(tree.broken({"bin/tool", inside + "MacOS/A"}), Lines{});
}

TEST(BundleSeals, ANestedBundleBreaksItsOwnSealByAResourceAndTheOuterByItsProgram) {
    Tree tree(app);
    std::string framework = inside + "Frameworks/F.framework";
    EXPECT_EQ(tree.broken({framework + "/Versions/1/Resources/Info.plist"}),
              Lines{framework + ": " + framework + "/Versions/1/Resources/Info.plist"});
    EXPECT_EQ(tree.broken({framework + "/Versions/1/F"}),
              Lines{"Applications/A.app: " + framework + "/Versions/1/F"});
}

TEST(BundleSeals, EachBundleIsNamedOnceWithTheFirstChange) {
    Tree tree(app);
    EXPECT_EQ(tree.broken({inside + "Info.plist", inside + "Resources/deep/text"}),
              Lines{"Applications/A.app: " + inside + "Info.plist"});
}

TEST(BundleSeals, AProgramAloneInMacOSIsTheMainProgramWhateverItsName) {
    Tree tree({"B.app/Contents/MacOS/other", "B.app/Contents/_CodeSignature/CodeResources"});
    EXPECT_EQ(tree.broken({"B.app/Contents/MacOS/other"}), Lines{});
}

TEST(BundleSeals, FlatBundlesHaveTheirSealInside) {
    Tree tree({"P.app/P", "P.app/Info.plist", "P.app/_CodeSignature/CodeResources"});
    EXPECT_EQ(tree.broken({"P.app/P"}), Lines{});
    EXPECT_EQ(tree.broken({"P.app/Info.plist"}), Lines{"P.app: P.app/Info.plist"});
}

TEST(BundleSeals, AnOutputMayBeABundleItself) {
    Tree tree({"Contents/MacOS/A", "Contents/MacOS/b", "Contents/Info.plist",
               "Contents/_CodeSignature/CodeResources"},
              std::string(32, 'a') + "-A.app");
    EXPECT_EQ(tree.broken({"Contents/MacOS/A"}), Lines{});
    EXPECT_EQ(tree.broken({"Contents/MacOS/b"}), Lines{": Contents/MacOS/b"});
    EXPECT_EQ(tree.broken({""}), Lines{});
}

TEST(BundleSeals, UnsignedBundlesHaveNone) {
    Tree tree({"A.app/Contents/Info.plist", "A.app/Contents/_CodeSignature/other"});
    EXPECT_EQ(tree.broken({"A.app/Contents/Info.plist"}), Lines{});
}

TEST(DebugSymbols, AreFoundByTheirProgramsName) {
    Tree tree({"bin/", "bin/prog", "lib/", "lib/prog.dSYM/", "lib/prog.dSYM/Contents/",
               "lib/prog.dSYM/Contents/Info.plist", "lib/prog.dSYM/Contents/Resources/",
               "lib/prog.dSYM/Contents/Resources/DWARF/", "lib/prog.dSYM/Contents/Resources/DWARF/prog",
               "lib/prog.dSYM/Contents/Resources/DWARF/other", "DWARF/", "DWARF/prog"});
    EXPECT_EQ(debugSymbolsOf(tree.tree, {"prog", "Info.plist"}),
              std::vector<uint32_t>{tree.node("lib/prog.dSYM/Contents/Resources/DWARF/prog")});
    EXPECT_TRUE(debugSymbolsOf(tree.tree, {}).empty());
    EXPECT_TRUE(debugSymbolsOf(Tree({}).tree, {"prog"}).empty());
}

} // namespace
} // namespace firn
