#include "libutil/error.hh"

#include <string_view>
#include <system_error>

namespace firn {

SysError::SysError(int number, const std::string &attempt)
    : Error(ErrorKind::system, attempt + ": " + std::generic_category().message(number)), number_(number) {}

namespace {

/// One character of UTF-8; `length` is 0 where the bytes are not well-formed.
struct CodePoint {
    char32_t value = 0;
    size_t length = 0;
};

size_t sequenceLength(unsigned char lead) {
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xc2 && lead <= 0xdf) {
        return 2;
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        return 3;
    }
    return lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
}

bool isWellFormed(char32_t value, size_t length) {
    static constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    bool surrogate = value >= 0xd800 && value <= 0xdfff;
    return value >= least[length] && value <= 0x10ffff && !surrogate;
}

CodePoint decodeFirst(std::string_view text) {
    unsigned char lead = text[0];
    size_t length = sequenceLength(lead);
    if (length <= 1 || text.size() < length) {
        return length == 1 ? CodePoint{lead, 1} : CodePoint{};
    }
    char32_t value = lead & (0x7f >> length);
    for (size_t i = 1; i < length; i++) {
        unsigned char byte = text[i];
        if ((byte & 0xc0) != 0x80) {
            return {};
        }
        value = value << 6 | (byte & 0x3f);
    }
    return isWellFormed(value, length) ? CodePoint{value, length} : CodePoint{};
}

/// Controls act on a terminal; the direction marks make text look like other text.
bool isShowable(char32_t c) {
    if (c < 0x20) {
        return c == '\n' || c == '\t';
    }
    bool control = c >= 0x7f && c <= 0x9f;
    bool separator = c == 0x2028 || c == 0x2029;
    bool direction =
        c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
    return !control && !separator && !direction;
}

std::string escapeBytes(std::string_view bytes) {
    std::string result;
    for (unsigned char byte : bytes) {
        result += fmt::format("\\x{:02x}", byte);
    }
    return result;
}

} // namespace

std::string escapeForDisplay(std::string_view text, size_t limit) {
    static constexpr std::string_view cutMark = "…";
    std::string result;
    size_t cutAt = 0; // last length at which the mark still fits
    while (!text.empty()) {
        CodePoint c = decodeFirst(text);
        std::string_view unit = text.substr(0, std::max<size_t>(c.length, 1));
        std::string shown = c.length > 0 && isShowable(c.value) ? std::string(unit) : escapeBytes(unit);
        if (result.size() + shown.size() > limit) {
            result.resize(cutAt);
            return limit < cutMark.size() ? result : result.append(cutMark);
        }
        result += shown;
        text.remove_prefix(unit.size());
        if (result.size() + cutMark.size() <= limit) {
            cutAt = result.size();
        }
    }
    return result;
}

std::string quoteForDisplay(std::string_view text) {
    return "'" + escapeForDisplay(text, 1024) + "'";
}

} // namespace firn
