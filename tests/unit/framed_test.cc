#include "libstore/protocol/framed.hh"

#include <gtest/gtest.h>

#include "libutil/nar.hh"

namespace firn {
namespace {

std::string number(uint64_t value) {
    StringSink sink;
    WireWriter(sink).number(value);
    return sink.text;
}

std::string frame(std::string_view bytes) {
    return number(bytes.size()) + std::string(bytes);
}

std::string readAll(Source &source) {
    StringSink sink;
    copyAll(source, sink);
    return sink.text;
}

class MemorySink : public FlushingSink {
  public:
    void write(std::string_view bytes) override { text.append(bytes); }
    void flush() override {}
    std::string text;
};

TEST(Framed, FramesAreJoinedAndWhatFollowsIsLeft) {
    std::string bytes = frame("some ") + frame("bytes") + number(0) + "next";
    StringSource source(bytes);
    WireReader in(source);
    FramedSource framed(in);
    EXPECT_EQ(readAll(framed), "some bytes");
    EXPECT_EQ(source.rest(), "next");
    char c;
    EXPECT_EQ(framed.read(&c, 1), 0u) << "the end stays the end";
    EXPECT_FALSE(framed.broken());
}

TEST(Framed, WhatNobodyReadIsDrained) {
    std::string bytes = frame("some ") + frame("bytes") + number(0) + "next";
    StringSource source(bytes);
    WireReader in(source);
    FramedSource framed(in);
    char two[2];
    framed.readExactly(two, 2);
    framed.drain();
    EXPECT_EQ(source.rest(), "next");
}

TEST(Framed, ATruncatedFrameIsAnErrorAndLeavesTheConnectionBroken) {
    std::string bytes = frame("some ") + number(100) + "bytes";
    StringSource source(bytes);
    WireReader in(source);
    FramedSource framed(in);
    EXPECT_THROW(framed.drain(), Error);
    EXPECT_TRUE(framed.broken());
}

TEST(Framed, AFrameMayClaimAnySizeWithoutCostingAnything) {
    std::string bytes = number(UINT64_MAX) + "bytes";
    StringSource source(bytes);
    WireReader in(source);
    FramedSource framed(in);
    char five[5];
    framed.readExactly(five, 5);
    EXPECT_EQ(std::string_view(five, 5), "bytes");
    EXPECT_THROW(framed.drain(), Error);
}

TEST(Requested, DataAreAskedForBlockByBlock) {
    StringSink blocks;
    WireWriter(blocks).string("first");
    WireWriter(blocks).string("second");
    StringSource source(blocks.text);
    WireReader in(source);
    MemorySink sink;
    TunnelLogger logger(sink, 22);
    logger.startWork();
    RequestedSource requested(in, logger);
    char bytes[11];
    requested.readExactly(bytes, 11);
    EXPECT_EQ(std::string_view(bytes, 11), "firstsecond");
    EXPECT_EQ(sink.text, number(0x64617461) + number(65536) + number(0x64617461) + number(65536));
}

TEST(Requested, AnEmptyBlockIsTheEnd) {
    std::string bytes = number(0);
    StringSource source(bytes);
    WireReader in(source);
    MemorySink sink;
    TunnelLogger logger(sink, 22);
    RequestedSource requested(in, logger);
    EXPECT_EQ(readAll(requested), "");
}

TEST(Spool, ExactlyOneArchiveIsTaken) {
    StringSink archive;
    dumpNarOfString("content", archive);
    std::string bytes = archive.text + "next";
    StringSource source(bytes);
    UniqueFd spool = spoolArchive(source);
    EXPECT_EQ(source.rest(), "next");
    FdSource copy(spool.get());
    EXPECT_EQ(readAll(copy), archive.text);
}

TEST(Spool, AFilesContentsAreTakenOutOfItsArchive) {
    StringSink archive;
    dumpNarOfString("content", archive);
    StringSource source(archive.text);
    UniqueFd spool = spoolFileOfArchive(source);
    FdSource copy(spool.get());
    EXPECT_EQ(readAll(copy), "content");
}

TEST(Spool, AnArchiveOfADirectoryIsNoFile) {
    StringSink archive;
    NarWriter writer(archive);
    writer.begin();
    writer.beginDirectory();
    writer.endDirectory();
    StringSource source(archive.text);
    EXPECT_THROW(spoolFileOfArchive(source), Error);
    EXPECT_EQ(source.rest(), "") << "it was read to its end all the same";
}

} // namespace
} // namespace firn
