#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace firn::builtin {

/// What a profile is made of.
struct Package {
    int64_t priority; ///< the smaller wins
    std::string path;
    auto operator<=>(const Package &) const = default;
};

/// The attribute `derivations` of builtin:buildenv, words: for each package whether it is active ("false" or
/// else), its priority, the number of its outputs and these. The active ones' outputs, in the order in which
/// they are linked. Throws badInput.
std::vector<Package> parsePackages(std::string_view text);

/// At spaces, tabs and ends of line.
std::vector<std::string> splitAtBlanks(std::string_view text);

} // namespace firn::builtin
