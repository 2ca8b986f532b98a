#include "libstore/build/bundle-seals.hh"

#include <algorithm>
#include <optional>
#include <string_view>

namespace firn {

namespace {

using Type = OutputNode::Type;

/// A directory with a seal in it, and the bundle that it is the inside of.
struct Sealed {
    uint32_t directory, bundle;
};

class Seals {
  public:
    explicit Seals(const OutputTree &tree) : tree_(tree) {}

    std::optional<BrokenSeal> brokenBy(uint32_t changed) const {
        uint32_t carrier = changed;
        for (uint32_t at = changed; at != 0;) {
            at = tree_.nodes[at].parent;
            std::optional<Sealed> sealed = sealAt(at);
            if (!sealed) {
                continue;
            }
            if (carrier != changed || !isMainProgram(carrier, *sealed)) {
                return BrokenSeal{sealed->bundle, changed};
            }
            carrier = at = sealed->bundle; // its code directory has changed
        }
        return std::nullopt;
    }

  private:
    const OutputNode &node(uint32_t index) const { return tree_.nodes[index]; }

    std::optional<uint32_t> child(uint32_t directory, std::string_view name) const {
        const std::vector<uint32_t> &children = node(directory).children;
        auto before = [&](uint32_t index, std::string_view wanted) { return node(index).name < wanted; };
        auto found = std::lower_bound(children.begin(), children.end(), name, before);
        bool there = found != children.end() && node(*found).name == name;
        return there ? std::optional(*found) : std::nullopt;
    }

    bool holdsSeal(uint32_t directory) const {
        std::optional<uint32_t> signature = child(directory, "_CodeSignature");
        return signature && child(*signature, "CodeResources");
    }

    std::optional<Sealed> sealAt(uint32_t directory) const {
        if (!holdsSeal(directory)) {
            return std::nullopt;
        }
        uint32_t parent = node(directory).parent;
        if (directory != 0 && node(directory).name == "Contents") {
            return Sealed{directory, parent};
        }
        if (directory != 0 && parent != 0 && node(parent).name == "Versions") {
            return Sealed{directory, node(parent).parent};
        }
        return Sealed{directory, directory};
    }

    /// The bundle's name without extension; an output's without the hash part.
    std::string_view stem(uint32_t bundle) const {
        std::string_view name = node(bundle).name;
        constexpr size_t hashPart = 33;
        if (bundle == 0) {
            name.remove_prefix(std::min(name.size(), hashPart));
        }
        return name.substr(0, name.rfind('.'));
    }

    bool isMainProgram(uint32_t file, const Sealed &sealed) const {
        if (node(file).type != Type::regular) {
            return false;
        }
        uint32_t folder = sealed.directory;
        if (node(folder).name == "Contents" && folder != sealed.bundle) {
            folder = child(folder, "MacOS").value_or(folder);
        }
        bool named = node(file).name == stem(sealed.bundle);
        bool only = folder != sealed.directory && node(folder).children.size() == 1;
        return node(file).parent == folder && (named || only);
    }

    const OutputTree &tree_;
};

} // namespace

std::vector<BrokenSeal> brokenSeals(const OutputTree &tree, const std::vector<uint32_t> &changed) {
    Seals seals(tree);
    std::vector<BrokenSeal> broken;
    for (uint32_t object : changed) {
        std::optional<BrokenSeal> seal = seals.brokenBy(object);
        auto same = [&](const BrokenSeal &other) { return other.bundle == seal->bundle; };
        if (seal && std::none_of(broken.begin(), broken.end(), same)) {
            broken.push_back(*seal);
        }
    }
    return broken;
}

std::vector<uint32_t> debugSymbolsOf(const OutputTree &tree, const std::set<std::string> &programs) {
    auto holdsSymbols = [&](const OutputNode &file) {
        const OutputNode &folder = tree.nodes[file.parent], &above = tree.nodes[folder.parent];
        const OutputNode &contents = tree.nodes[above.parent], &bundle = tree.nodes[contents.parent];
        return folder.name == "DWARF" && above.name == "Resources" && contents.name == "Contents" &&
               bundle.name.ends_with(".dSYM");
    };
    std::vector<uint32_t> symbols;
    for (uint32_t index = 0; index < tree.nodes.size(); ++index) {
        const OutputNode &node = tree.nodes[index];
        if (node.type == OutputNode::Type::regular && programs.contains(node.name) && holdsSymbols(node)) {
            symbols.push_back(index);
        }
    }
    return symbols;
}

} // namespace firn
