#include "libutil/base-n.hh"

#include <array>
#include <climits>

#include <openssl/evp.h>

#include "libutil/error.hh"

namespace firn {

namespace {

constexpr std::string_view base16Digits = "0123456789abcdef";
/// Without e, o, u and t, so that no words come out.
constexpr std::string_view nix32Digits = "0123456789abcdfghijklmnpqrsvwxyz";
constexpr uint8_t noDigit = 0xff;

using DigitTable = std::array<uint8_t, 256>;

constexpr DigitTable makeTable(std::string_view digits) {
    DigitTable table{};
    table.fill(noDigit);
    for (size_t i = 0; i < digits.size(); i++) {
        table[static_cast<unsigned char>(digits[i])] = i;
    }
    return table;
}

constexpr DigitTable makeBase16Table() {
    DigitTable table = makeTable(base16Digits);
    for (unsigned i = 10; i < 16; i++) {
        table['A' + i - 10] = i;
    }
    return table;
}

constexpr DigitTable base16Table = makeBase16Table();
constexpr DigitTable nix32Table = makeTable(nix32Digits);

[[noreturn]] void refuse(std::string_view what, std::string_view text) {
    throw Error(ErrorKind::badInput, "{} is not valid {}", quoteForDisplay(text), what);
}

std::string encodeBase16(std::string_view bytes) {
    std::string text;
    text.reserve(bytes.size() * 2);
    for (unsigned char byte : bytes) {
        text += base16Digits[byte >> 4];
        text += base16Digits[byte & 15];
    }
    return text;
}

std::string decodeBase16(std::string_view text) {
    if (text.size() % 2 != 0) {
        refuse("base-16", text);
    }
    std::string bytes(text.size() / 2, '\0');
    for (size_t i = 0; i < bytes.size(); i++) {
        uint8_t high = base16Table[static_cast<unsigned char>(text[2 * i])];
        uint8_t low = base16Table[static_cast<unsigned char>(text[2 * i + 1])];
        if (high == noDigit || low == noDigit) {
            refuse("base-16", text);
        }
        bytes[i] = static_cast<char>(high << 4 | low);
    }
    return bytes;
}

// In base-32 the bytes are one little-endian number whose last five bits are the last digit: bits are taken
// from the first byte on, and the text is filled from its end.

std::string encodeNix32(std::string_view bytes) {
    std::string text(encodedLength(Encoding::nix32, bytes.size()), '0');
    unsigned pending = 0, pendingBits = 0;
    size_t next = 0;
    for (size_t i = text.size(); i-- > 0;) {
        if (pendingBits < 5 && next < bytes.size()) {
            pending |= static_cast<unsigned char>(bytes[next++]) << pendingBits;
            pendingBits += 8;
        }
        text[i] = nix32Digits[pending & 31];
        pending >>= 5;
        pendingBits -= std::min(pendingBits, 5u);
    }
    return text;
}

std::string decodeNix32(std::string_view text) {
    std::string bytes;
    bytes.reserve(text.size() * 5 / 8);
    unsigned pending = 0, pendingBits = 0;
    for (size_t i = text.size(); i-- > 0;) {
        uint8_t digit = nix32Table[static_cast<unsigned char>(text[i])];
        if (digit == noDigit) {
            refuse("base-32", text);
        }
        pending |= digit << pendingBits;
        pendingBits += 5;
        if (pendingBits >= 8) {
            bytes += static_cast<char>(pending & 255);
            pending >>= 8;
            pendingBits -= 8;
        }
    }
    if (pending != 0 || text.size() != encodedLength(Encoding::nix32, bytes.size())) {
        refuse("base-32", text);
    }
    return bytes;
}

void checkBlockSize(size_t size) {
    if (size > INT_MAX / 2) { // OpenSSL counts in int
        throw Error(ErrorKind::badInput, "{} bytes are too many for base-64", size);
    }
}

std::string encodeBase64(std::string_view bytes) {
    checkBlockSize(bytes.size());
    std::string text(encodedLength(Encoding::base64, bytes.size()), '\0');
    EVP_EncodeBlock(reinterpret_cast<unsigned char *>(text.data()),
                    reinterpret_cast<const unsigned char *>(bytes.data()), static_cast<int>(bytes.size()));
    return text;
}

size_t paddingLength(std::string_view text) {
    return text.size() - std::min(text.size(), text.find_last_not_of('=') + 1);
}

std::string decodeBase64(std::string_view text) {
    checkBlockSize(text.size());
    size_t padding = paddingLength(text);
    if (text.size() % 4 != 0 || padding > 2) {
        refuse("base-64", text);
    }
    std::string bytes(text.size() / 4 * 3, '\0');
    int count =
        EVP_DecodeBlock(reinterpret_cast<unsigned char *>(bytes.data()),
                        reinterpret_cast<const unsigned char *>(text.data()), static_cast<int>(text.size()));
    if (count < static_cast<int>(padding)) {
        refuse("base-64", text);
    }
    bytes.resize(count - padding);
    // OpenSSL lets blanks and stray last bits pass; only one text stands for these bytes.
    if (encodeBase64(bytes) != text) {
        refuse("base-64", text);
    }
    return bytes;
}

} // namespace

std::string encode(Encoding encoding, std::string_view bytes) {
    switch (encoding) {
    case Encoding::base16:
        return encodeBase16(bytes);
    case Encoding::nix32:
        return encodeNix32(bytes);
    case Encoding::base64:
        return encodeBase64(bytes);
    }
    throw Error(ErrorKind::bug, "there is no such encoding");
}

std::string decode(Encoding encoding, std::string_view text) {
    switch (encoding) {
    case Encoding::base16:
        return decodeBase16(text);
    case Encoding::nix32:
        return decodeNix32(text);
    case Encoding::base64:
        return decodeBase64(text);
    }
    throw Error(ErrorKind::bug, "there is no such encoding");
}

size_t encodedLength(Encoding encoding, size_t size) {
    switch (encoding) {
    case Encoding::base16:
        return size * 2;
    case Encoding::nix32:
        return (size * 8 + 4) / 5;
    case Encoding::base64:
        return (size + 2) / 3 * 4;
    }
    throw Error(ErrorKind::bug, "there is no such encoding");
}

bool isNix32Digit(char c) {
    return nix32Table[static_cast<unsigned char>(c)] != noDigit;
}

} // namespace firn
