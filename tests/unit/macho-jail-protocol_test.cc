#include "libstore/build/macho-jail-protocol.hh"

#include <functional>

#include <gtest/gtest.h>

#include "unit/expect-error.hh"

namespace firn::jail {
namespace {

constexpr uint64_t fileSize = 100000;

std::string bodyOf(const std::string &message) {
    std::optional<Header> header = decodeHeader(message.substr(0, headerSize));
    EXPECT_TRUE(header);
    EXPECT_EQ(header->bodySize, message.size() - headerSize);
    return message.substr(headerSize);
}

Answer fullAnswer() {
    MachoFinding finding{MachoFinding::Kind::repaired, 4096, "arm64", 0x1000, 3, -2, "recomputed"};
    return {{{{5000, std::string(32, 'd')}, {5032, std::string(20, '\xff')}}, {finding, {}}},
            {{4096, {5000, 32}}, {0, {99936, 64}}},
            {true, MachoDifference::uuid, true, false},
            {true, "", 3, {{64, std::string(16, 'u')}, {6000, std::string(48, 's')}}}};
}

Request formRequest(Kind kind) {
    Request request;
    request.kind = kind;
    request.fileSize = fileSize;
    request.selfPart = std::string(32, 'p');
    request.selfReferences = {0, 32, fileSize - 32};
    return request;
}

bool arrives(const Request &request) {
    return decodeRequest(request.kind, bodyOf(encodeRequest(request))).has_value();
}

std::optional<Answer> sent(const std::function<void(Answer &)> &change) {
    Answer answer = fullAnswer();
    change(answer);
    return decodeAnswer(bodyOf(encodeAnswer(answer)), fileSize);
}

TEST(MachoJailProtocol, AnswersArriveAsTheyWereSent) {
    auto answer = sent([](Answer &) {});
    ASSERT_TRUE(answer);
    Answer expected = fullAnswer();
    EXPECT_EQ(answer->fixup.patches, expected.fixup.patches);
    EXPECT_EQ(answer->stale, expected.stale);
    EXPECT_TRUE(answer->comparison.isMacho);
    EXPECT_EQ(answer->comparison.difference, MachoDifference::uuid);
    EXPECT_TRUE(answer->comparison.firstStale);
    EXPECT_FALSE(answer->comparison.secondStale);
    EXPECT_TRUE(answer->form.inside);
    EXPECT_EQ(answer->form.selfReferences, 3u);
    EXPECT_EQ(answer->form.patches, expected.form.patches);
    ASSERT_EQ(answer->fixup.findings.size(), 2u);
    const MachoFinding &finding = answer->fixup.findings[0];
    EXPECT_EQ(finding.kind, MachoFinding::Kind::repaired);
    EXPECT_EQ(finding.slice, 4096u);
    EXPECT_EQ(finding.architecture, "arm64");
    EXPECT_EQ(finding.directory, 0x1000u);
    EXPECT_EQ(finding.count, 3u);
    EXPECT_EQ(finding.firstSlot, -2);
    EXPECT_EQ(finding.reason, "recomputed");
    EXPECT_TRUE(decodeAnswer(bodyOf(encodeAnswer({})), 0));
}

TEST(MachoJailProtocol, RequestsArriveAsTheyWereSent) {
    Request request;
    request.kind = Kind::verify;
    request.fileSize = fileSize;
    request.secondSize = 77;
    request.patches = {{Patch::Place::contents, 7, std::string(32, 'a')}};
    request.rules = {{std::string(32, 'a'), std::string(32, 'b')}};
    request.ranges = {{1, 2}, {10, 20}};
    std::string message = encodeRequest(request);
    EXPECT_EQ(decodeHeader(message.substr(0, headerSize))->word, 2u);
    auto got = decodeRequest(Kind::verify, bodyOf(message));
    ASSERT_TRUE(got);
    EXPECT_EQ(got->fileSize, fileSize);
    EXPECT_EQ(got->secondSize, 77u);
    ASSERT_EQ(got->patches.size(), 1u);
    EXPECT_EQ(got->patches[0].offset, 7u);
    EXPECT_EQ(got->patches[0].bytes, std::string(32, 'a'));
    EXPECT_EQ(got->rules, request.rules);
    EXPECT_EQ(got->ranges, request.ranges);
}

TEST(MachoJailProtocol, RequestsForFormsCarryTheSelfReferences) {
    for (Kind kind : {Kind::normalForm, Kind::finalForm}) {
        Request request = formRequest(kind);
        auto got = decodeRequest(kind, bodyOf(encodeRequest(request)));
        ASSERT_TRUE(got);
        EXPECT_EQ(got->selfPart, request.selfPart);
        EXPECT_EQ(got->selfReferences, request.selfReferences);
        request.selfReferences.clear();
        EXPECT_TRUE(arrives(request));
    }
}

TEST(MachoJailProtocol, SelfReferencesThatCannotBeAreRefused) {
    for (const std::vector<uint64_t> &wrong :
         {std::vector<uint64_t>{fileSize - 31}, {0, 31}, {64, 0}, {UINT64_MAX - 31}}) {
        Request request = formRequest(Kind::normalForm);
        request.selfReferences = wrong;
        EXPECT_FALSE(arrives(request));
    }
    Request request = formRequest(Kind::finalForm);
    for (size_t size : {0, 31, 33}) {
        request.selfPart.assign(size, 'p');
        EXPECT_FALSE(arrives(request)) << size;
    }
    for (Kind kind : {Kind::fixup, Kind::verify, Kind::compare}) {
        EXPECT_FALSE(arrives(formRequest(kind)));
    }
}

TEST(MachoJailProtocol, FormsThatCannotBeAreRefused) {
    EXPECT_TRUE(sent([](Answer &answer) { answer.form = {false, "why", 3, {}}; }));
    EXPECT_TRUE(sent([](Answer &answer) { answer.form.patches.clear(); }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.form.inside = false; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.form.reason = "why"; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.form.selfReferences = 0; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.form.selfReferences = fileSize / 32 + 1; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.form.patches[1].offset = fileSize - 47; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.form.patches[1].offset = 79; }));
    for (size_t size : {0, 1, 15, 17, 24, 31, 33, 64}) {
        EXPECT_FALSE(sent([&](Answer &answer) { answer.form.patches[1].bytes.assign(size, 's'); })) << size;
    }
    for (size_t size : {16, 20, 32, 48}) {
        EXPECT_TRUE(sent([&](Answer &answer) { answer.form.patches[1].bytes.assign(size, 's'); })) << size;
    }
}

TEST(MachoJailProtocol, PatchesOutsideTheFileAreRefused) {
    EXPECT_FALSE(sent([](Answer &answer) { answer.fixup.patches[1].offset = fileSize - 19; }));
    EXPECT_TRUE(sent([](Answer &answer) { answer.fixup.patches[1].offset = fileSize - 20; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.fixup.patches[1].offset = UINT64_MAX - 3; }));
    EXPECT_FALSE(decodeAnswer(bodyOf(encodeAnswer(fullAnswer())), 5051));
}

TEST(MachoJailProtocol, PatchesThatOverlapOrDescendAreRefused) {
    EXPECT_FALSE(sent([](Answer &answer) { answer.fixup.patches[1].offset = 5031; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.fixup.patches[1].offset = 0; }));
}

TEST(MachoJailProtocol, PatchesThatAreNoDigestsAreRefused) {
    EXPECT_FALSE(sent([](Answer &answer) { answer.fixup.patches[1].bytes = std::string(65, 'x'); }));
    EXPECT_TRUE(sent([](Answer &answer) { answer.fixup.patches[1].bytes = std::string(64, 'x'); }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.fixup.patches[1].bytes.clear(); }));
}

TEST(MachoJailProtocol, StaleSlotsThatCannotBeAreRefused) {
    EXPECT_FALSE(sent([](Answer &answer) { answer.stale[1].range.offset = fileSize; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.stale[0].range.size = 65; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.stale[0].range.size = 0; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.stale[0].slice = 5001; }));
    EXPECT_FALSE(sent([](Answer &answer) { std::swap(answer.stale[0], answer.stale[1]); }));
}

TEST(MachoJailProtocol, FindingsOfUnknownKindOrPlaceAreRefused) {
    using FindingKind = MachoFinding::Kind;
    EXPECT_FALSE(sent([](Answer &answer) { answer.fixup.findings[0].kind = static_cast<FindingKind>(5); }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.fixup.findings[0].slice = fileSize + 1; }));
}

TEST(MachoJailProtocol, ComparisonsThatCannotBeAreRefused) {
    EXPECT_TRUE(sent([](Answer &answer) { answer.comparison = {}; }));
    EXPECT_FALSE(sent([](Answer &answer) { answer.comparison.isMacho = false; }));
    EXPECT_FALSE(sent([](Answer &answer) {
        answer.comparison = {false, MachoDifference::none, false, true};
    }));
    EXPECT_FALSE(
        sent([](Answer &answer) { answer.comparison.difference = static_cast<MachoDifference>(5); }));
    for (size_t place : {0, 2, 3}) {
        std::string body = bodyOf(encodeAnswer({}));
        EXPECT_TRUE(decodeAnswer(body, fileSize));
        body[3 * sizeof(uint32_t) + place] = 2;
        EXPECT_FALSE(decodeAnswer(body, fileSize)) << place;
    }
}

TEST(MachoJailProtocol, TextsAreCutAndMadePlainOnTheirWay) {
    auto answer = sent([](Answer &answer) {
        answer.fixup.findings[0].reason = "\x1b[31m" + std::string(2 * maxReason, 'r');
        answer.fixup.findings[0].architecture = std::string(2 * maxArchitecture, 'a');
    });
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->fixup.findings[0].reason.substr(0, 6), "?[31mr");
    EXPECT_EQ(answer->fixup.findings[0].reason.size(), maxReason);
    EXPECT_EQ(answer->fixup.findings[0].architecture.size(), maxArchitecture);
}

TEST(MachoJailProtocol, TextsThatAreNotPlainAreRefused) {
    std::string body = bodyOf(encodeAnswer(fullAnswer()));
    size_t place = body.find("recomputed");
    ASSERT_NE(place, std::string::npos);
    body[place] = '\n';
    EXPECT_FALSE(decodeAnswer(body, fileSize));
    body[place] = '\x80';
    EXPECT_FALSE(decodeAnswer(body, fileSize));
}

TEST(MachoJailProtocol, EveryCutAndEveryFurtherByteIsNoticed) {
    std::string body = bodyOf(encodeAnswer(fullAnswer()));
    for (size_t size = 0; size < body.size(); ++size) {
        EXPECT_FALSE(decodeAnswer(body.substr(0, size), fileSize)) << size;
    }
    EXPECT_FALSE(decodeAnswer(body + '\0', fileSize));
    Request request;
    request.ranges = {};
    std::string bytes = bodyOf(encodeRequest(request));
    for (size_t size = 0; size < bytes.size(); ++size) {
        EXPECT_FALSE(decodeRequest(Kind::fixup, bytes.substr(0, size))) << size;
    }
    EXPECT_FALSE(decodeRequest(Kind::fixup, bytes + '\0'));
}

TEST(MachoJailProtocol, HugeCountsTakeNoMemory) {
    // Three counts, a comparison, a form: whether inside, its reason, its self-references and its count.
    constexpr size_t form = 3 * sizeof(uint32_t) + 4;
    std::string body(form + 1 + 4 + 8 + 4, '\0');
    for (size_t count : {size_t{0}, size_t{4}, size_t{8}, form + 1, form + 13}) {
        std::string huge = body;
        huge.replace(count, 4, "\xff\xff\xff\xff");
        EXPECT_FALSE(decodeAnswer(huge, UINT64_MAX)) << count;
    }
    EXPECT_TRUE(decodeAnswer(body, fileSize));
}

TEST(MachoJailProtocol, MoreFindingsThanAreTakenAreNotSent) {
    Answer answer;
    answer.fixup.findings.resize(maxFindings + 1);
    expectError(ErrorKind::badInput, [&] { encodeAnswer(answer); });
}

TEST(MachoJailProtocol, HeadersOfAnotherProtocolAreRefused) {
    std::string header = encodeHeader({7, 12345678901});
    EXPECT_EQ(decodeHeader(header)->word, 7u);
    EXPECT_EQ(decodeHeader(header)->bodySize, 12345678901u);
    header[0] = 'x';
    EXPECT_FALSE(decodeHeader(header));
    EXPECT_FALSE(decodeHeader(""));
}

TEST(MachoJailProtocol, TheRoomForAnAnswerIsBoundByTheFileAndAltogether) {
    EXPECT_LT(maxAnswerBody(0), 32u << 20);
    EXPECT_GT(maxAnswerBody(1 << 30), maxAnswerBody(1 << 20));
    EXPECT_EQ(maxAnswerBody(UINT64_MAX), 256u << 20);
}

} // namespace
} // namespace firn::jail
