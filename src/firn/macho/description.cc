#include "firn/macho/description.hh"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "libutil/base-n.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

using nlohmann::json;

struct FlagName {
    uint32_t bit;
    std::string_view name;
};

/// Bits: CS_* of Apple's cs_blobs.h. Names: those codesign prints, where it has one.
constexpr auto flagNames = std::to_array<FlagName>({
    {0x1, "host"}, // CS_VALID in a running process
    {0x2, "adhoc"},
    {0x4, "get-task-allow"},
    {0x8, "installer"},
    {0x10, "forced-library-validation"},
    {0x20, "invalid-allowed"},
    {0x100, "hard"},
    {0x200, "kill"},
    {0x400, "expires"},
    {0x800, "restrict"},
    {0x1000, "enforcement"},
    {0x2000, "library-validation"},
    {0x4000, "entitlements-validated"},
    {0x8000, "nvram-unrestricted"},
    {0x10000, "runtime"},
    {0x20000, "linker-signed"},
});

std::string directoryName(uint32_t slot) {
    return slot == 0 ? "code directory" : fmt::format("alternate code directory {:#x}", slot);
}

std::string joined(const std::vector<std::string> &words) {
    return fmt::format("{}", fmt::join(words, ", "));
}

std::string describeFlags(uint32_t flags) {
    std::string names = joined(signatureFlagNames(flags));
    return fmt::format("flags {:#x}{}", flags, names.empty() ? "" : " (" + names + ")");
}

std::string describePages(uint64_t pageSize) {
    return pageSize == 0 ? "one page for everything" : fmt::format("pages of {} bytes", pageSize);
}

std::string describeSpecialSlots(const std::vector<uint32_t> &slots) {
    std::vector<std::string> words;
    for (uint32_t slot : slots) {
        std::string_view name = specialSlotName(slot);
        words.push_back(name.empty() ? fmt::format("-{}", slot) : fmt::format("-{} ({})", slot, name));
        if (words.size() == 16 && slots.size() > 16) {
            words.push_back(fmt::format("… and {} more", slots.size() - 16));
            break;
        }
    }
    return joined(words);
}

std::string_view kindInWords(SignatureKind kind) {
    switch (kind) {
    case SignatureKind::none:
        return "not signed";
    case SignatureKind::linkerSigned:
        return "signed ad hoc by a linker";
    case SignatureKind::adHoc:
        return "signed ad hoc";
    case SignatureKind::cms:
        return "signed with a CMS signature (which is not looked at)";
    }
    return "";
}

std::string describeDirectory(const CodeDirectoryReport &directory) {
    std::string text = fmt::format(
        "    {}: {}, {}, {} code slots up to byte {}, {} special slots, {}, identifier {}\n",
        directoryName(directory.slotType), hashTypeName(directory.hashType),
        describePages(directory.pageSize), directory.codeSlots, directory.codeLimit, directory.specialSlots,
        describeFlags(directory.flags), quoteForDisplay(directory.identifier));
    if (!directory.problem.empty()) {
        text += fmt::format("      not judged: {}\n", escapeForDisplay(directory.problem));
    }
    if (!directory.staleCodeSlots.empty()) {
        text +=
            fmt::format("      stale code slots: {} ({} of {})\n", describeNumbers(directory.staleCodeSlots),
                        directory.staleCodeSlots.size(), directory.codeSlots);
    }
    if (!directory.staleSpecialSlots.empty()) {
        text +=
            fmt::format("      stale special slots: {}\n", describeSpecialSlots(directory.staleSpecialSlots));
    }
    if (!directory.externalSpecialSlots.empty()) {
        text += fmt::format("      about other files, not judged: special slots {}\n",
                            describeSpecialSlots(directory.externalSpecialSlots));
    }
    return text;
}

json negated(const std::vector<uint32_t> &slots) {
    json list = json::array();
    for (uint32_t slot : slots) {
        list.push_back(-static_cast<int64_t>(slot));
    }
    return list;
}

void setProblem(json &object, const std::string &problem) {
    if (!problem.empty()) {
        object["problem"] = problem;
    }
}

json directoryToJson(const CodeDirectoryReport &directory) {
    json object = {{"slotType", directory.slotType},
                   {"offset", directory.range.offset},
                   {"size", directory.range.size},
                   {"version", directory.version},
                   {"flags", directory.flags},
                   {"flagNames", signatureFlagNames(directory.flags)},
                   {"identifier", directory.identifier},
                   {"hashType", hashTypeName(directory.hashType)},
                   {"pageSize", directory.pageSize},
                   {"codeLimit", directory.codeLimit},
                   {"codeSlots", directory.codeSlots},
                   {"specialSlots", directory.specialSlots},
                   {"staleCodeSlots", directory.staleCodeSlots},
                   {"staleSpecialSlots", negated(directory.staleSpecialSlots)},
                   {"externalSpecialSlots", negated(directory.externalSpecialSlots)}};
    setProblem(object, directory.problem);
    return object;
}

json sliceToJson(const SliceReport &slice) {
    json directories = json::array();
    for (const CodeDirectoryReport &directory : slice.directories) {
        directories.push_back(directoryToJson(directory));
    }
    json object = {{"offset", slice.range.offset},
                   {"size", slice.range.size},
                   {"architecture", slice.architecture},
                   {"signature", signatureKindName(slice.kind)},
                   {"directories", std::move(directories)}};
    setProblem(object, slice.problem);
    return object;
}

bool isSigned(const SliceReport &slice) {
    return slice.kind != SignatureKind::none;
}

} // namespace

Verdict verdictOf(const MachoReport &report) {
    if (report.anyStale()) {
        return Verdict::stale;
    }
    if (report.anyProblem()) {
        return Verdict::notJudged;
    }
    if (!report.isMacho) {
        return Verdict::notMacho;
    }
    bool anySigned = std::any_of(report.slices.begin(), report.slices.end(), isSigned);
    return anySigned ? Verdict::right : Verdict::unsigned_;
}

std::string_view verdictName(Verdict verdict) {
    switch (verdict) {
    case Verdict::right:
        return "right";
    case Verdict::stale:
        return "stale";
    case Verdict::notJudged:
        return "not-judged";
    case Verdict::unsigned_:
        return "unsigned";
    case Verdict::notMacho:
        return "not-macho";
    }
    return "";
}

std::vector<std::string> signatureFlagNames(uint32_t flags) {
    std::vector<std::string> names;
    for (const FlagName &flag : flagNames) {
        if ((flags & flag.bit) != 0) {
            names.emplace_back(flag.name);
            flags &= ~flag.bit;
        }
    }
    if (flags != 0) {
        names.push_back(fmt::format("{:#x}", flags));
    }
    return names;
}

std::string hashTypeName(uint8_t hashType) {
    switch (hashType) {
    case 1:
        return "sha1";
    case 2:
        return "sha256";
    case 3:
        return "sha256-truncated";
    case 4:
        return "sha384";
    default:
        return fmt::format("unknown-{}", hashType);
    }
}

std::string_view signatureKindName(SignatureKind kind) {
    switch (kind) {
    case SignatureKind::none:
        return "none";
    case SignatureKind::linkerSigned:
        return "linker-signed";
    case SignatureKind::adHoc:
        return "ad-hoc";
    case SignatureKind::cms:
        return "cms";
    }
    return "";
}

std::string_view specialSlotName(uint32_t slot) {
    static constexpr auto names = std::to_array<std::string_view>(
        {"", "Info.plist", "requirements", "resources", "application", "entitlements", "", "DER entitlements",
         "launch constraints on itself", "launch constraints on its parent",
         "launch constraints on the responsible process", "library constraints"});
    return slot < names.size() ? names[slot] : "";
}

std::string_view findingKindName(MachoFinding::Kind kind) {
    switch (kind) {
    case MachoFinding::Kind::repaired:
        return "repaired";
    case MachoFinding::Kind::repairedStale:
        return "repaired-stale";
    case MachoFinding::Kind::unrepairable:
        return "unrepairable";
    case MachoFinding::Kind::staleBefore:
        return "stale-before";
    case MachoFinding::Kind::malformed:
        return "malformed";
    }
    return "";
}

std::string describeNumbers(const std::vector<uint32_t> &numbers, size_t maxRanges) {
    std::string text;
    size_t ranges = 0;
    for (size_t first = 0; first < numbers.size();) {
        if (ranges++ == maxRanges) {
            return text + fmt::format(" … and {} more", numbers.size() - first);
        }
        size_t last = first;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) {
            ++last;
        }
        text += fmt::format("{}{}", text.empty() ? "" : ", ", numbers[first]);
        if (last > first) {
            text += fmt::format("-{}", numbers[last]);
        }
        first = last + 1;
    }
    return text;
}

std::string describeReport(const MachoReport &report) {
    std::string text;
    if (!report.problem.empty()) {
        text += fmt::format("  not judged: {}\n", escapeForDisplay(report.problem));
    }
    for (const SliceReport &slice : report.slices) {
        text += fmt::format("  {} at {}, {} bytes: {}\n", escapeForDisplay(slice.architecture),
                            slice.range.offset, slice.range.size, kindInWords(slice.kind));
        if (!slice.problem.empty()) {
            text += fmt::format("    not judged: {}\n", escapeForDisplay(slice.problem));
        }
        for (const CodeDirectoryReport &directory : slice.directories) {
            text += describeDirectory(directory);
        }
    }
    return text;
}

std::string describeFinding(const MachoFinding &finding) {
    std::string text;
    if (!finding.architecture.empty()) {
        text = fmt::format("{} at {}: ", escapeForDisplay(finding.architecture), finding.slice);
    }
    if (finding.count > 0) {
        text +=
            fmt::format("{} slot{} of the {}, the first {}: ", finding.count, finding.count == 1 ? "" : "s",
                        directoryName(finding.directory), finding.firstSlot);
    }
    std::string reason = escapeForDisplay(finding.reason);
    return text + (reason.empty() ? std::string(findingKindName(finding.kind)) : reason);
}

json reportToJson(const MachoReport &report) {
    json slices = json::array();
    for (const SliceReport &slice : report.slices) {
        slices.push_back(sliceToJson(slice));
    }
    json object = {{"verdict", verdictName(verdictOf(report))}, {"slices", std::move(slices)}};
    setProblem(object, report.problem);
    return object;
}

json findingToJson(const MachoFinding &finding) {
    return {{"kind", findingKindName(finding.kind)},
            {"slice", finding.slice},
            {"architecture", finding.architecture},
            {"directory", finding.directory},
            {"count", finding.count},
            {"firstSlot", finding.firstSlot},
            {"reason", finding.reason}};
}

void setJsonPath(json &object, const std::string &path) {
    object["path"] = path;
    try {
        (void)object["path"].dump();
    } catch (const json::exception &) {
        object["pathBytes"] = encode(Encoding::base64, path);
    }
}

std::string jsonLine(const json &value) {
    return value.dump(-1, ' ', true, json::error_handler_t::replace);
}

} // namespace firn
