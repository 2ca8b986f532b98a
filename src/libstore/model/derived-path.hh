#pragma once

#include <compare>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libstore/model/store-path.hh"

namespace firn {

/// A store path to be made valid as it is.
struct OpaquePath {
    StorePath path;
    auto operator<=>(const OpaquePath &) const = default;
};

/// How many outputs that are themselves derivations may stand between a derivation in the store and the one
/// that is meant.
constexpr size_t maxDynamicDepth = 32;

/// Outputs of a derivation to be built; an empty set stands for all ("*").
struct BuiltPath {
    StorePath drvPath;
    std::set<std::string> outputs;
    /// Dynamic derivations: the derivation is not `drvPath` but is made by building it. It is the output of
    /// that name, or, of several names, the last one's of what the one before it made. At most
    /// maxDynamicDepth.
    std::vector<std::string> through{};
    bool operator==(const BuiltPath &) const = default;
    std::strong_ordering operator<=>(const BuiltPath &other) const {
        auto order = drvPath <=> other.drvPath;
        if (order != 0 || *this == other) {
            return order;
        }
        bool less = through != other.through ? through < other.through : outputs < other.outputs;
        return less ? std::strong_ordering::less : std::strong_ordering::greater;
    }
};

using DerivedPath = std::variant<OpaquePath, BuiltPath>;

/// The wire's forms: "/nix/store/x", "/nix/store/x.drv!out,dev", "/nix/store/x.drv!*", and with the names of
/// BuiltPath::through in between "/nix/store/x.drv.drv!out!out,dev"; with '^' as separator too. Before
/// protocol 1.30 a plain .drv path in BuildPaths means "all its outputs": the caller's business.
DerivedPath parseDerivedPath(const StoreDir &store, std::string_view text);
std::string printDerivedPath(const StoreDir &store, const DerivedPath &path, char separator = '!');
/// Of a derivation alone: "/nix/store/x.drv", or "/nix/store/x.drv.drv^out" for one that is made.
std::string printDerivationChain(const StoreDir &store, const StorePath &drvPath,
                                 const std::vector<std::string> &through, char separator = '^');

} // namespace firn
