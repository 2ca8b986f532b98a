#include "libstore/model/structured-attributes.hh"

#include <algorithm>
#include <cmath>
#include <optional>

#include <nlohmann/json.hpp>

#include "libutil/error.hh"

namespace firn {

namespace {

using Json = nlohmann::json;

/// What is parsed here is printed again, and the library's printing recurses.
constexpr int maxJsonDepth = 512;

Json parseJson(std::string_view text, std::string_view what) {
    auto checkDepth = [what](int depth, Json::parse_event_t, Json &) {
        if (depth > maxJsonDepth) {
            throw Error(ErrorKind::badInput, "the JSON of {} is nested deeper than {} levels", what,
                        maxJsonDepth);
        }
        return true;
    };
    try {
        return Json::parse(text, checkDepth);
    } catch (const Json::exception &error) {
        throw Error(ErrorKind::badInput, "reading the JSON of {}: {}", what,
                    escapeForDisplay(error.what(), 400));
    }
}

bool isLetter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool isShellName(std::string_view name) {
    return !name.empty() && isLetter(name[0]) && std::all_of(name.begin(), name.end(), [](char c) {
        return isLetter(c) || (c >= '0' && c <= '9');
    });
}

/// A number without a fraction, in digits.
std::optional<std::string> wholeNumber(const Json &value) {
    if (!value.is_number_float()) {
        return value.dump();
    }
    constexpr double limit =
        9007199254740992.0; // 2^53: from here on a double does not hold every whole number
    double number = value.get<double>();
    if (std::trunc(number) != number || std::abs(number) > limit) {
        return std::nullopt;
    }
    return std::to_string(static_cast<int64_t>(number));
}

std::optional<std::string> simpleValue(const Json &value) {
    switch (value.type()) {
    case Json::value_t::string:
        return quoteForShell(value.get_ref<const std::string &>());
    case Json::value_t::null:
        return "''";
    case Json::value_t::boolean:
        return value.get<bool>() ? "1" : "";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
    case Json::value_t::number_float:
        return wholeNumber(value);
    default:
        return std::nullopt;
    }
}

/// The words between the parentheses of an array's declaration; nothing if an element is not simple.
std::optional<std::string> elements(const Json &container) {
    std::string words;
    for (const auto &[key, value] : container.items()) {
        std::optional<std::string> simple = simpleValue(value);
        if (!simple) {
            return std::nullopt;
        }
        if (container.is_object()) {
            words += fmt::format("[{}]=", quoteForShell(key));
        }
        words += *simple + " ";
    }
    return words;
}

std::string declaration(const std::string &name, const Json &value) {
    if (value.is_structured()) {
        std::optional<std::string> words = elements(value);
        return words ? fmt::format("declare -{} {}=({})\n", value.is_array() ? 'a' : 'A', name, *words) : "";
    }
    std::optional<std::string> simple = simpleValue(value);
    return simple ? fmt::format("declare {}={}\n", name, *simple) : "";
}

std::string makeShell(const Json &attributes) {
    std::string text;
    for (const auto &[name, value] : attributes.items()) {
        if (isShellName(name)) {
            text += declaration(name, value);
        }
    }
    return text;
}

} // namespace

bool hasStructuredAttributes(const BasicDerivation &drv) {
    return drv.env.contains("__json");
}

StructuredAttributeFiles makeStructuredAttributeFiles(std::string_view json, const StringMap &outputs,
                                                      const StringMap &closures) {
    Json attributes = parseJson(json, "the derivation's attributes");
    if (!attributes.is_object()) {
        throw Error(ErrorKind::badInput,
                    "the structured attributes of a derivation must be a JSON object, not {}",
                    attributes.type_name());
    }
    attributes["outputs"] = outputs;
    for (const auto &[name, closure] : closures) {
        attributes[name] = parseJson(closure, fmt::format("the closure '{}'", escapeForDisplay(name, 300)));
    }
    return {attributes.dump(), makeShell(attributes)};
}

std::string quoteForShell(std::string_view text) {
    std::string quoted = "'";
    for (char c : text) {
        if (c == '\'') {
            quoted += "'\\''";
        } else {
            quoted += c;
        }
    }
    return quoted + "'";
}

} // namespace firn
