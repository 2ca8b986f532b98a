#include "libutil/base-n.hh"

#include "unit/expect-error.hh"

namespace firn {
namespace {

constexpr Encoding encodings[] = {Encoding::base16, Encoding::nix32, Encoding::base64};

std::string someBytes(size_t size) {
    std::string bytes;
    uint32_t state = 12345;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525 + 1013904223;
        bytes += static_cast<char>(state >> 24);
    }
    return bytes;
}

TEST(BaseN, EveryLengthComesBackAndIsAsLongAsPromised) {
    for (Encoding encoding : encodings) {
        for (size_t size = 0; size <= 70; size++) {
            std::string bytes = someBytes(size);
            std::string text = encode(encoding, bytes);
            EXPECT_EQ(text.size(), encodedLength(encoding, size));
            EXPECT_EQ(decode(encoding, text), bytes);
        }
    }
}

// Whatever single digit is replaced by any other character: either another value, or refused, but never two
// texts for one value.
TEST(BaseN, NoTwoTextsMeanTheSameBytes) {
    for (Encoding encoding : encodings) {
        for (size_t size : {1, 2, 3, 4, 5, 16, 20, 32}) {
            std::string bytes = someBytes(size);
            std::string text = encode(encoding, bytes);
            for (size_t i = 0; i < text.size(); i++) {
                for (int c = 0; c < 256; c++) {
                    std::string changed = text;
                    changed[i] = static_cast<char>(c);
                    if (changed == text || (encoding == Encoding::base16 && tolower(c) == text[i])) {
                        continue;
                    }
                    try {
                        EXPECT_NE(decode(encoding, changed), bytes) << changed;
                    } catch (const Error &e) {
                        EXPECT_EQ(e.kind(), ErrorKind::badInput);
                    }
                }
            }
        }
    }
}

TEST(BaseN, StrayLastBitsAreRefused) {
    EXPECT_EQ(decode(Encoding::nix32, "7z"), std::string(1, '\xff'));
    expectError(ErrorKind::badInput, [] { decode(Encoding::nix32, "8z"); });
    expectError(ErrorKind::badInput, [] { decode(Encoding::nix32, "zz"); });
    EXPECT_EQ(decode(Encoding::base64, "/w=="), std::string(1, '\xff'));
    expectError(ErrorKind::badInput, [] { decode(Encoding::base64, "/x=="); });
    expectError(ErrorKind::badInput, [] { decode(Encoding::base64, "//9="); });
}

TEST(BaseN, BadPaddingAndBlanksAreRefused) {
    for (const char *text :
         {"/w", "/w=", "/w===", "=", "====", "/w==\n", " /w==", "/w==/w==", "a===", "_-=="}) {
        expectError(ErrorKind::badInput, [&] { decode(Encoding::base64, text); });
    }
}

TEST(BaseN, LengthsThatNoBytesMakeAreRefused) {
    expectError(ErrorKind::badInput, [] { decode(Encoding::base16, "abc"); });
    expectError(ErrorKind::badInput, [] { decode(Encoding::nix32, "0"); });
    expectError(ErrorKind::badInput, [] { decode(Encoding::nix32, "000"); });
    expectError(ErrorKind::badInput, [] { decode(Encoding::base64, "aaa"); });
}

TEST(BaseN, UpperCaseIsTakenInBase16Only) {
    EXPECT_EQ(decode(Encoding::base16, "AbFf"), "\xab\xff");
    expectError(ErrorKind::badInput, [] { decode(Encoding::nix32, "0A"); });
}

TEST(BaseN, LettersThatBase32LeavesOutAreNoDigits) {
    for (char c : {'e', 'o', 'u', 't', 'A', '-', '\0', '\xff'}) {
        EXPECT_FALSE(isNix32Digit(c));
    }
    for (char c : std::string_view("0123456789abcdfghijklmnpqrsvwxyz")) {
        EXPECT_TRUE(isNix32Digit(c));
    }
}

} // namespace
} // namespace firn
