#include "libstore/build/macho-jail-protocol.hh"

#include <algorithm>
#include <type_traits>

#include "libutil/error.hh"

namespace firn::jail {

namespace {

constexpr uint32_t magic = 0x336a6d66; // "fmj3"
constexpr size_t hashPartLength = 32;

class Encoder {
  public:
    template<typename Number>
    void number(Number value) {
        auto bits = static_cast<std::make_unsigned_t<Number>>(value);
        for (size_t i = 0; i < sizeof bits; ++i) {
            bytes_ += static_cast<char>(bits >> 8 * i & 0xff);
        }
    }
    void raw(std::string_view bytes) { bytes_ += bytes; }
    void text(std::string_view text, size_t limit) {
        text = text.substr(0, limit);
        number(static_cast<uint32_t>(text.size()));
        for (char c : text) {
            bytes_ += c >= ' ' && c <= '~' ? c : '?';
        }
    }
    std::string take() { return std::move(bytes_); }

  private:
    std::string bytes_;
};

/// After a failure everything reads as 0 and empty.
class Decoder {
  public:
    explicit Decoder(std::string_view bytes) : left_(bytes) {}

    template<typename Number>
    Number number() {
        using Bits = std::make_unsigned_t<Number>;
        std::string_view bytes = raw(sizeof(Number));
        Bits bits = 0;
        for (size_t i = 0; i < bytes.size(); ++i) {
            bits = static_cast<Bits>(bits |
                                     static_cast<Bits>(Bits{static_cast<unsigned char>(bytes[i])} << 8 * i));
        }
        return static_cast<Number>(bits);
    }

    std::string_view raw(size_t size) {
        if (size > left_.size()) {
            fail();
            return {};
        }
        std::string_view bytes = left_.substr(0, size);
        left_.remove_prefix(size);
        return bytes;
    }

    std::string text(size_t limit) {
        auto size = number<uint32_t>();
        require(size <= limit);
        std::string_view bytes = raw(failed_ ? 0 : size);
        require(std::all_of(bytes.begin(), bytes.end(), [](char c) { return c >= ' ' && c <= '~'; }));
        return std::string(bytes);
    }

    /// A count of things that take at least `each` bytes.
    size_t count(size_t each, size_t limit = SIZE_MAX) {
        auto count = number<uint32_t>();
        require(count <= limit && count <= left_.size() / each);
        return failed_ ? 0 : count;
    }

    void require(bool condition) {
        if (!condition) {
            fail();
        }
    }
    bool failed() const { return failed_; }
    bool complete() const { return !failed_ && left_.empty(); }

  private:
    void fail() {
        failed_ = true;
        left_ = {};
    }

    std::string_view left_;
    bool failed_ = false;
};

/// Ranges that come ascending, do not overlap and lie in a file.
class Place {
  public:
    explicit Place(uint64_t fileSize) : fileSize_(fileSize) {}
    bool take(uint64_t offset, uint64_t size) {
        if (offset < end_ || size == 0 || size > fileSize_ || offset > fileSize_ - size) {
            return false;
        }
        end_ = offset + size;
        return true;
    }

  private:
    uint64_t fileSize_, end_ = 0;
};

void encodeFinding(Encoder &out, const MachoFinding &finding) {
    out.number(static_cast<uint8_t>(finding.kind));
    out.number(finding.slice);
    out.number(finding.directory);
    out.number(finding.count);
    out.number(finding.firstSlot);
    out.text(finding.architecture, maxArchitecture);
    out.text(finding.reason, maxReason);
}

MachoFinding decodeFinding(Decoder &in, uint64_t fileSize) {
    MachoFinding finding;
    auto kind = in.number<uint8_t>();
    in.require(kind <= static_cast<uint8_t>(MachoFinding::Kind::malformed));
    finding.kind = static_cast<MachoFinding::Kind>(kind);
    finding.slice = in.number<uint64_t>();
    // A malformed slice may lie anywhere, by its own words.
    in.require(finding.slice <= fileSize || finding.kind == MachoFinding::Kind::malformed);
    finding.directory = in.number<uint32_t>();
    finding.count = in.number<uint32_t>();
    finding.firstSlot = in.number<int64_t>();
    finding.architecture = in.text(maxArchitecture);
    finding.reason = in.text(maxReason);
    return finding;
}

bool isSlotSize(size_t size) {
    return size >= minSlotSize && size <= maxSlotSize;
}

void decodePatches(Decoder &in, uint64_t fileSize, std::vector<BytePatch> &patches, bool (*isSize)(size_t)) {
    constexpr size_t smallest = 16;
    size_t count = in.count(sizeof(uint64_t) + sizeof(uint32_t) + smallest);
    Place place(fileSize);
    patches.reserve(count);
    for (size_t i = 0; i < count && !in.failed(); ++i) {
        auto offset = in.number<uint64_t>();
        auto size = in.number<uint32_t>();
        in.require(isSize(size) && place.take(offset, size));
        patches.push_back({offset, std::string(in.raw(in.failed() ? 0 : size))});
    }
}

void decodeStale(Decoder &in, uint64_t fileSize, std::vector<StaleSlot> &stale) {
    size_t count = in.count(2 * sizeof(uint64_t) + sizeof(uint32_t));
    Place place(fileSize);
    stale.reserve(count);
    for (size_t i = 0; i < count && !in.failed(); ++i) {
        auto slice = in.number<uint64_t>();
        auto offset = in.number<uint64_t>();
        auto size = in.number<uint32_t>();
        in.require(size <= maxSlotSize && slice <= offset && place.take(offset, size));
        stale.push_back({slice, {offset, size}});
    }
}

void encodeComparison(Encoder &out, const MachoComparison &comparison) {
    out.number(static_cast<uint8_t>(comparison.isMacho));
    out.number(static_cast<uint8_t>(comparison.difference));
    out.number(static_cast<uint8_t>(comparison.firstStale));
    out.number(static_cast<uint8_t>(comparison.secondStale));
}

/// Without Mach-O files there is nothing to say.
MachoComparison decodeComparison(Decoder &in) {
    MachoComparison comparison;
    auto truth = [&] {
        auto value = in.number<uint8_t>();
        in.require(value <= 1);
        return value == 1;
    };
    comparison.isMacho = truth();
    auto difference = in.number<uint8_t>();
    in.require(difference <= static_cast<uint8_t>(MachoDifference::other));
    comparison.difference = static_cast<MachoDifference>(difference);
    comparison.firstStale = truth();
    comparison.secondStale = truth();
    in.require(comparison.isMacho || (difference == 0 && !comparison.firstStale && !comparison.secondStale));
    return comparison;
}

void encodePatches(Encoder &out, const std::vector<BytePatch> &patches) {
    out.number(static_cast<uint32_t>(patches.size()));
    for (const BytePatch &patch : patches) {
        out.number(patch.offset);
        out.number(static_cast<uint32_t>(patch.bytes.size()));
        out.raw(patch.bytes);
    }
}

void encodeForm(Encoder &out, const Form &form) {
    out.number(static_cast<uint8_t>(form.inside));
    out.text(form.reason, maxReason);
    out.number(form.selfReferences);
    encodePatches(out, form.patches);
}

/// A UUID, or a digest of one of the kinds that may be inside.
bool isSizeInForm(size_t size) {
    return size == 16 || size == 20 || size == 32 || size == 48;
}

Form decodeForm(Decoder &in, uint64_t fileSize) {
    Form form;
    auto inside = in.number<uint8_t>();
    form.inside = inside == 1;
    form.reason = in.text(maxReason);
    form.selfReferences = in.number<uint64_t>();
    decodePatches(in, fileSize, form.patches, isSizeInForm);
    in.require(inside <= 1 && form.selfReferences <= fileSize / selfReferenceSize);
    in.require(form.inside ? form.reason.empty() && form.selfReferences > 0 : form.patches.empty());
    return form;
}

bool isForm(Kind kind) {
    return kind == Kind::normalForm || kind == Kind::finalForm;
}

/// What only the forms have.
void decodeSelf(Decoder &in, Request &request) {
    auto partSize = in.number<uint8_t>();
    in.require(partSize == (isForm(request.kind) ? selfReferenceSize : 0));
    request.selfPart = in.raw(in.failed() ? 0 : partSize);
    Place place(request.fileSize);
    size_t count = in.count(sizeof(uint64_t));
    in.require(count == 0 || isForm(request.kind));
    for (size_t left = count; left > 0 && !in.failed(); --left) {
        auto offset = in.number<uint64_t>();
        in.require(place.take(offset, selfReferenceSize));
        request.selfReferences.push_back(offset);
    }
}

std::string withHeader(uint32_t word, const std::string &body) {
    return encodeHeader({word, body.size()}) + body;
}

} // namespace

uint64_t maxAnswerBody(uint64_t fileSize) {
    constexpr uint64_t findings = 16 << 20, most = 256 << 20;
    return std::min(most, findings + fileSize / 8);
}

std::string encodeHeader(const Header &header) {
    Encoder out;
    out.number(magic);
    out.number(header.word);
    out.number(header.bodySize);
    return out.take();
}

std::optional<Header> decodeHeader(std::string_view bytes) {
    Decoder in(bytes);
    in.require(in.number<uint32_t>() == magic);
    Header header;
    header.word = in.number<uint32_t>();
    header.bodySize = in.number<uint64_t>();
    return in.complete() ? std::optional(header) : std::nullopt;
}

std::string encodeRequest(const Request &request) {
    Encoder out;
    out.number(request.fileSize);
    out.number(request.secondSize);
    out.number(static_cast<uint32_t>(request.patches.size()));
    for (const Patch &patch : request.patches) {
        out.number(patch.offset);
        out.number(static_cast<uint32_t>(patch.bytes.size()));
        out.raw(patch.bytes);
    }
    out.number(static_cast<uint32_t>(request.rules.size()));
    for (const RewriteRule &rule : request.rules) {
        out.raw(rule.from);
        out.raw(rule.to);
    }
    out.number(static_cast<uint32_t>(request.ranges.size()));
    for (const ByteRange &range : request.ranges) {
        out.number(range.offset);
        out.number(range.size);
    }
    out.number(static_cast<uint8_t>(request.selfPart.size()));
    out.raw(request.selfPart);
    out.number(static_cast<uint32_t>(request.selfReferences.size()));
    for (uint64_t offset : request.selfReferences) {
        out.number(offset);
    }
    return withHeader(static_cast<uint32_t>(request.kind), out.take());
}

std::optional<Request> decodeRequest(Kind kind, std::string_view body) {
    Decoder in(body);
    Request request;
    request.kind = kind;
    request.fileSize = in.number<uint64_t>();
    request.secondSize = in.number<uint64_t>();
    Place patched(request.fileSize), looked(request.fileSize);
    for (size_t left = in.count(sizeof(uint64_t) + sizeof(uint32_t) + 1); left > 0 && !in.failed(); --left) {
        auto offset = in.number<uint64_t>();
        auto size = in.number<uint32_t>();
        in.require(patched.take(offset, size));
        request.patches.push_back(
            {Patch::Place::contents, offset, std::string(in.raw(in.failed() ? 0 : size))});
    }
    for (size_t left = in.count(2 * hashPartLength); left > 0; --left) {
        std::string_view from = in.raw(hashPartLength), to = in.raw(hashPartLength);
        request.rules.push_back({std::string(from), std::string(to)});
    }
    for (size_t left = in.count(2 * sizeof(uint64_t)); left > 0 && !in.failed(); --left) {
        auto offset = in.number<uint64_t>(), size = in.number<uint64_t>();
        in.require(looked.take(offset, size));
        request.ranges.push_back({offset, size});
    }
    decodeSelf(in, request);
    return in.complete() ? std::optional(std::move(request)) : std::nullopt;
}

std::string encodeAnswer(const Answer &answer) {
    if (answer.fixup.findings.size() > maxFindings) {
        throw Error(ErrorKind::badInput, "there are more findings than {}", maxFindings);
    }
    Encoder out;
    encodePatches(out, answer.fixup.patches);
    out.number(static_cast<uint32_t>(answer.fixup.findings.size()));
    for (const MachoFinding &finding : answer.fixup.findings) {
        encodeFinding(out, finding);
    }
    out.number(static_cast<uint32_t>(answer.stale.size()));
    for (const StaleSlot &slot : answer.stale) {
        out.number(slot.slice);
        out.number(slot.range.offset);
        out.number(static_cast<uint32_t>(slot.range.size));
    }
    encodeComparison(out, answer.comparison);
    encodeForm(out, answer.form);
    return withHeader(static_cast<uint32_t>(Outcome::done), out.take());
}

std::optional<Answer> decodeAnswer(std::string_view body, uint64_t fileSize) {
    constexpr size_t smallestFinding = 33;
    Decoder in(body);
    Answer answer;
    decodePatches(in, fileSize, answer.fixup.patches, isSlotSize);
    size_t findings = in.count(smallestFinding, maxFindings);
    for (size_t i = 0; i < findings && !in.failed(); ++i) {
        answer.fixup.findings.push_back(decodeFinding(in, fileSize));
    }
    decodeStale(in, fileSize, answer.stale);
    answer.comparison = decodeComparison(in);
    answer.form = decodeForm(in, fileSize);
    return in.complete() ? std::optional(std::move(answer)) : std::nullopt;
}

} // namespace firn::jail
