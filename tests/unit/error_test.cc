#include "libutil/error.hh"

#include <gtest/gtest.h>

namespace firn {
namespace {

TEST(EscapeForDisplay, KeepsTextLineEndsAndTabs) {
    EXPECT_EQ(escapeForDisplay("plain\n\tünï 雪 🏔"), "plain\n\tünï 雪 🏔");
}

TEST(EscapeForDisplay, DisarmsEscapeSequencesAndControls) {
    EXPECT_EQ(escapeForDisplay("\x1b[31mred\x1b]0;t\x07"), "\\x1b[31mred\\x1b]0;t\\x07");
    EXPECT_EQ(escapeForDisplay(std::string_view("a\0\r\b\x7f", 5)), "a\\x00\\x0d\\x08\\x7f");
    EXPECT_EQ(escapeForDisplay("\xc2\x9b"), "\\xc2\\x9b");          // one-character CSI
    EXPECT_EQ(escapeForDisplay("\xe2\x80\xae"), "\\xe2\\x80\\xae"); // right-to-left override
}

TEST(EscapeForDisplay, EscapesWhatIsNotUtf8) {
    EXPECT_EQ(escapeForDisplay("\xff\xfe"), "\\xff\\xfe");
    EXPECT_EQ(escapeForDisplay("\xc0\xaf"), "\\xc0\\xaf");                   // overlong
    EXPECT_EQ(escapeForDisplay("\xe0\x80\xaf"), "\\xe0\\x80\\xaf");          // overlong
    EXPECT_EQ(escapeForDisplay("\xed\xa0\x80"), "\\xed\\xa0\\x80");          // surrogate
    EXPECT_EQ(escapeForDisplay("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80"); // too large
    EXPECT_EQ(escapeForDisplay("a\xe2\x82"), "a\\xe2\\x82");                 // cut off
    EXPECT_EQ(escapeForDisplay("\xe2\x82z"), "\\xe2\\x82z");
}

TEST(EscapeForDisplay, NeverExceedsItsLimitAndShowsTheCut) {
    EXPECT_EQ(escapeForDisplay("abcdef", 6), "abcdef");
    EXPECT_EQ(escapeForDisplay("abcdefg", 6), "abc…");
    std::string mixed = "a\x01ü\xff雪\n";
    std::string full = escapeForDisplay(mixed);
    for (size_t limit = 0; limit <= full.size(); limit++) {
        std::string cut = escapeForDisplay(mixed, limit);
        EXPECT_LE(cut.size(), limit);
        EXPECT_EQ(escapeForDisplay(cut), cut) << "a character was cut in two";
    }
}

TEST(SysError, CarriesAttemptNumberAndText) {
    errno = ENOENT;
    try {
        throwErrno("opening '{}'", "x");
    } catch (const SysError &e) {
        EXPECT_EQ(e.message(), "opening 'x': No such file or directory");
        EXPECT_EQ(e.number(), ENOENT);
        EXPECT_EQ(e.kind(), ErrorKind::system);
    }
}

TEST(Error, ContextGoesInFront) {
    Error e(ErrorKind::failure, "it failed");
    e.addContext("trying");
    EXPECT_STREQ(e.what(), "trying: it failed");
}

} // namespace
} // namespace firn
