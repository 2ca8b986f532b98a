#pragma once

#include <compare>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>

#include "libstore/model/store-path.hh"

namespace firn {

/// A store path to be made valid as it is.
struct OpaquePath {
    StorePath path;
    auto operator<=>(const OpaquePath &) const = default;
};

/// Outputs of a derivation to be built; an empty set stands for all ("*").
struct BuiltPath {
    StorePath drvPath;
    std::set<std::string> outputs;
    bool operator==(const BuiltPath &) const = default;
    std::strong_ordering operator<=>(const BuiltPath &other) const {
        auto order = drvPath <=> other.drvPath;
        if (order != 0 || outputs == other.outputs) {
            return order;
        }
        return outputs < other.outputs ? std::strong_ordering::less : std::strong_ordering::greater;
    }
};

using DerivedPath = std::variant<OpaquePath, BuiltPath>;

/// The wire's forms: "/nix/store/x", "/nix/store/x.drv!out,dev", "/nix/store/x.drv!*"; with '^' as separator
/// too. Before protocol 1.30 a plain .drv path in BuildPaths means "all its outputs": the caller's business.
DerivedPath parseDerivedPath(const StoreDir &store, std::string_view text);
std::string printDerivedPath(const StoreDir &store, const DerivedPath &path, char separator = '!');

} // namespace firn
