#include "builtin/attributes.hh"

#include <charconv>

#include "libutil/error.hh"

namespace firn::builtin {

namespace {

std::pair<std::string, std::string> splitAtEquals(std::string_view text) {
    size_t equals = text.find('=');
    if (equals == text.npos || equals == 0) {
        throw Error(ErrorKind::badInput, "{} is no 'name=value'", quoteForDisplay(text));
    }
    return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

} // namespace

const std::string &Request::attribute(const std::string &name) const {
    auto found = attributes.find(name);
    if (found == attributes.end()) {
        throw Error(ErrorKind::badInput, "the derivation has no attribute '{}'", name);
    }
    return found->second;
}

bool Request::flag(const std::string &name) const {
    auto found = attributes.find(name);
    return found != attributes.end() && found->second == "1";
}

std::string Request::setting(const std::string &name) const {
    auto found = settings.find(name);
    return found == settings.end() ? "" : found->second;
}

uint64_t Request::number(const std::string &name, uint64_t otherwise) const {
    std::string text = setting(name);
    uint64_t result = 0;
    auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), result);
    return status == std::errc() && end == text.data() + text.size() && !text.empty() ? result : otherwise;
}

std::map<std::string, std::string> parseAttributes(std::string_view bytes) {
    std::map<std::string, std::string> result;
    while (!bytes.empty()) {
        size_t end = bytes.find('\0');
        if (end == bytes.npos) {
            throw Error(ErrorKind::badInput, "the list of attributes ends within one");
        }
        result.insert(splitAtEquals(bytes.substr(0, end)));
        bytes.remove_prefix(end + 1);
    }
    return result;
}

std::multimap<std::string, std::string> parseSettings(const std::vector<std::string> &words) {
    std::multimap<std::string, std::string> result;
    for (const std::string &word : words) {
        result.insert(splitAtEquals(word));
    }
    return result;
}

} // namespace firn::builtin
