#include "libstore/protocol/wire.hh"

#include <gtest/gtest.h>

namespace firn {
namespace {

const StoreDir storeDir("/nix/store");
const std::string somePath = "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-some";

std::string encodeNumber(uint64_t value) {
    StringSink sink;
    WireWriter(sink).number(value);
    return sink.text;
}

std::string encodeString(std::string_view text) {
    StringSink sink;
    WireWriter(sink).string(text);
    return sink.text;
}

ErrorKind kindOf(const std::function<void()> &action) {
    try {
        action();
    } catch (const Error &error) {
        return error.kind();
    }
    ADD_FAILURE() << "nothing was thrown";
    return ErrorKind::bug;
}

TEST(Wire, NumbersAreEightBytesLeastSignificantFirst) {
    EXPECT_EQ(encodeNumber(0x0102030405060708), "\x08\x07\x06\x05\x04\x03\x02\x01");
}

TEST(Wire, StringsArePaddedWithZerosToEightBytes) {
    EXPECT_EQ(encodeString("abc"), std::string("\3\0\0\0\0\0\0\0abc\0\0\0\0\0", 16));
    EXPECT_EQ(encodeString("12345678"), std::string("\10\0\0\0\0\0\0\00012345678", 16));
    EXPECT_EQ(encodeString(""), std::string(8, '\0'));
}

TEST(Wire, WhatIsWrittenIsReadBack) {
    StringSink sink;
    WireWriter out(sink);
    out.number(7);
    out.strings(std::vector<std::string>{"b", "a", ""});
    out.strings(std::set<std::string>{"x", "y"});
    out.optionalStorePath(storeDir, std::nullopt);
    out.storePathSet(storeDir, {storeDir.parse(somePath)});
    StringSource source(sink.text);
    WireReader in(source);
    EXPECT_EQ(in.number(), 7u);
    EXPECT_EQ(in.strings(), (std::vector<std::string>{"b", "a", ""}));
    EXPECT_EQ(in.stringSet(), (std::set<std::string>{"x", "y"}));
    EXPECT_EQ(in.optionalStorePath(storeDir), std::nullopt);
    EXPECT_EQ(in.storePathSet(storeDir), StorePathSet{storeDir.parse(somePath)});
    EXPECT_EQ(source.rest(), "");
    in.throwDeferred();
}

TEST(Wire, AStringBeyondItsLimitIsRefused) {
    std::string bytes = encodeString("too long");
    StringSource source(bytes);
    WireReader in(source);
    EXPECT_EQ(kindOf([&] { in.string(7); }), ErrorKind::badInput);
    EXPECT_EQ(source.rest(), "too long") << "nothing of it is read";
}

TEST(Wire, AStringLengthNearTheEndOfTheNumbersIsRefused) {
    for (uint64_t length : {UINT64_MAX, UINT64_MAX - 7, uint64_t(1) << 63}) {
        std::string bytes = encodeNumber(length);
        StringSource source(bytes);
        EXPECT_EQ(kindOf([&] { WireReader(source).string(); }), ErrorKind::badInput);
    }
}

/// Counts what is asked of it, and ends after a few bytes.
class MeteredSource : public Source {
  public:
    explicit MeteredSource(std::string bytes) : bytes_(std::move(bytes)), inner_(bytes_) {}
    size_t read(char *buffer, size_t size) override {
        largest = std::max(largest, size);
        return inner_.read(buffer, size);
    }
    size_t largest = 0;

  private:
    std::string bytes_;
    StringSource inner_;
};

TEST(Wire, MemoryFollowsWhatArrivedNotWhatWasClaimed) {
    MeteredSource source(encodeNumber(200 << 20) + "abc");
    EXPECT_EQ(kindOf([&] { WireReader(source).string(); }), ErrorKind::badInput);
    EXPECT_LE(source.largest, 64u << 10);
}

TEST(Wire, PaddingThatIsNotZeroIsRefused) {
    std::string bytes("\1\0\0\0\0\0\0\0a\0\0\0\0\0\0x", 16);
    StringSource source(bytes);
    EXPECT_EQ(kindOf([&] { WireReader(source).string(); }), ErrorKind::badInput);
}

TEST(Wire, AListOfTooManyElementsIsRefused) {
    for (uint64_t count : {WireReader::maxCount + 1, UINT64_MAX}) {
        std::string bytes = encodeNumber(count);
        StringSource source(bytes);
        EXPECT_EQ(kindOf([&] { WireReader(source).stringSet(); }), ErrorKind::badInput);
    }
}

TEST(Wire, OneMessageCannotHoldMoreThanItsAllowance) {
    std::string bytes;
    for (uint64_t i = 0; i <= WireReader::maxMessage / (WireReader::maxCount * 64); ++i) {
        bytes += encodeNumber(WireReader::maxCount);
    }
    StringSource source(bytes);
    WireReader in(source);
    auto readAll = [&] {
        while (!source.rest().empty()) {
            in.count();
        }
    };
    EXPECT_EQ(kindOf(readAll), ErrorKind::badInput);
    in.beginMessage();
    StringSource next(bytes);
    EXPECT_EQ(WireReader(next).count(), WireReader::maxCount);
}

TEST(Wire, ATruncatedStringIsAnError) {
    std::string bytes = encodeString("some longer text");
    for (size_t size = 0; size < bytes.size(); ++size) {
        StringSource source(std::string_view(bytes).substr(0, size));
        EXPECT_EQ(kindOf([&] { WireReader(source).string(); }), ErrorKind::badInput) << size;
    }
}

TEST(Wire, ABadStorePathIsReportedAfterTheMessageWasRead) {
    std::string bytes = encodeString("/somewhere/else") + encodeString("not a path") + encodeNumber(5);
    StringSource source(bytes);
    WireReader in(source);
    in.storePath(storeDir);
    in.optionalStorePath(storeDir);
    EXPECT_EQ(in.number(), 5u);
    try {
        in.throwDeferred();
        ADD_FAILURE();
    } catch (const Error &error) {
        EXPECT_NE(error.message().find("/somewhere/else"), std::string::npos) << error.message();
    }
    in.throwDeferred(); // once is enough
}

TEST(Wire, HangingUpBetweenMessagesIsNoError) {
    StringSource source("");
    EXPECT_EQ(WireReader(source).firstNumber(), std::nullopt);
}

TEST(Wire, HangingUpInTheFirstNumberIsAnError) {
    StringSource source("abc");
    EXPECT_EQ(kindOf([&] { WireReader(source).firstNumber(); }), ErrorKind::badInput);
}

} // namespace
} // namespace firn
