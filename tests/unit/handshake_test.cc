#include "libstore/protocol/handshake.hh"

#include <gtest/gtest.h>

#include "libstore/protocol/server.hh"

namespace firn {
namespace {

class MemorySink : public FlushingSink {
  public:
    void write(std::string_view bytes) override { text.append(bytes); }
    void flush() override {}
    std::string text;
};

std::string numbers(const std::vector<uint64_t> &values) {
    StringSink sink;
    for (uint64_t value : values) {
        WireWriter(sink).number(value);
    }
    return sink.text;
}

std::string string(std::string_view text) {
    StringSink sink;
    WireWriter(sink).string(text);
    return sink.text;
}

constexpr uint64_t clientMagic = 0x6e697863, serverMagic = 0x6478696f;

struct Greeting {
    Handshake handshake;
    std::string answer;
    size_t unread;
};

Greeting greet(const std::vector<uint64_t> &request, bool trusted = false) {
    std::string bytes = numbers(request);
    StringSource source(bytes);
    WireReader in(source);
    MemorySink sink;
    Handshake handshake = shakeHands(in, sink, trusted);
    return {handshake, sink.text, source.rest().size()};
}

TEST(Handshake, AClientOf28IsToldTheVersionButNotTheTrust) {
    Greeting greeting = greet({clientMagic, 0x122, 0, 0});
    EXPECT_EQ(greeting.handshake.minor(), 34u);
    EXPECT_EQ(greeting.answer, numbers({serverMagic, 0x126}) + string(daemonVersion));
    EXPECT_EQ(greeting.unread, 0u);
}

TEST(Handshake, AClientOf234ExchangesFeaturesAndIsToldWhetherItIsTrusted) {
    for (bool trusted : {false, true}) {
        Greeting greeting = greet({clientMagic, 0x126, 0, 0, 0}, trusted);
        EXPECT_EQ(greeting.handshake.minor(), 38u);
        EXPECT_EQ(greeting.answer, numbers({serverMagic, 0x126, 0}) + string(daemonVersion) +
                                       numbers({trusted ? uint64_t(1) : uint64_t(2)}));
        EXPECT_EQ(greeting.unread, 0u);
    }
}

TEST(Handshake, ANewerClientIsGiven138) {
    for (uint64_t version : {0x127, 0x1ff, 0x200}) {
        EXPECT_EQ(greet({clientMagic, version, 0, 0, 0}).handshake.version, 0x126u);
    }
}

TEST(Handshake, AnObsoleteProcessorAffinityIsSkipped) {
    Greeting greeting = greet({clientMagic, 0x112, 1, 7, 0});
    EXPECT_EQ(greeting.unread, 0u);
    EXPECT_FALSE(greeting.handshake.tooOld());
    EXPECT_EQ(greeting.answer, numbers({serverMagic, 0x126}));
}

TEST(Handshake, AClientBefore118IsTooOld) {
    EXPECT_TRUE(greet({clientMagic, 0x111, 0, 0}).handshake.tooOld());
}

TEST(Handshake, WhoeverSaysSomethingElseIsRefused) {
    EXPECT_THROW(greet({0x2054454720202020, 0x126, 0, 0, 0}), Error);
    EXPECT_THROW(greet({clientMagic}), Error) << "hanging up";
}

} // namespace
} // namespace firn
