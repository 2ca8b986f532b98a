#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace firn::builtin {

/// What a builtin builder is asked to do: the derivation's attributes (with an output's path under the
/// output's name) and the daemon's settings.
struct Request {
    std::map<std::string, std::string> attributes;
    std::multimap<std::string, std::string> settings;

    /// Throws badInput where the derivation lacks it.
    const std::string &attribute(const std::string &name) const;
    /// Whether an attribute is Nix's true, "1".
    bool flag(const std::string &name) const;
    /// Empty where there is none.
    std::string setting(const std::string &name) const;
    uint64_t number(const std::string &name, uint64_t otherwise) const;
};

/// "NAME=value" each, ended by a NUL. Throws badInput for anything else.
std::map<std::string, std::string> parseAttributes(std::string_view bytes);

/// Words of the command line, "name=value".
std::multimap<std::string, std::string> parseSettings(const std::vector<std::string> &words);

} // namespace firn::builtin
