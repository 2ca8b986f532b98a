#include "libstore/build/check-report.hh"

#include <algorithm>
#include <ctime>

#include <stdio.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "libstore/store/local-store.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

using Kind = TreeDifference::Kind;
using Verdict = OutputReport::Verdict;
using Json = nlohmann::json;

constexpr size_t mostShown = 10; ///< lines about one output

const char *typeName(ObjectType type) {
    switch (type) {
    case ObjectType::regular:
        return "regular file";
    case ObjectType::directory:
        return "directory";
    case ObjectType::symlink:
        return "symlink";
    }
    return "unknown";
}

const char *kindName(Kind kind) {
    switch (kind) {
    case Kind::contents:
        return "contents";
    case Kind::executable:
        return "executable";
    case Kind::target:
        return "target";
    case Kind::type:
        return "type";
    case Kind::missing:
        return "missing";
    case Kind::extra:
        return "extra";
    }
    return "unknown";
}

const char *machoName(MachoDifference difference) {
    switch (difference) {
    case MachoDifference::none:
        return "none";
    case MachoDifference::uuid:
        return "uuid";
    case MachoDifference::signature:
        return "signature";
    case MachoDifference::uuidAndSignature:
        return "uuid-and-signature";
    case MachoDifference::other:
        break;
    }
    return "other";
}

const char *verdictName(Verdict verdict) {
    switch (verdict) {
    case Verdict::same:
        return "same";
    case Verdict::equal:
        return "equal";
    case Verdict::differs:
        break;
    }
    return "differs";
}

// ---- words

std::string what(const TreeDifference &difference) {
    if (!difference.macho.isMacho) {
        return "contents differ";
    }
    switch (difference.macho.difference) {
    case MachoDifference::uuid:
        return difference.explained ? "counts as equal: only the LC_UUID of the Mach-O, which linkers derive "
                                      "from the path it was built at, and the page hashes over it differ"
                                    : "Mach-O that differs only in its LC_UUID and the page hashes over it";
    case MachoDifference::signature:
        return "Mach-O that differs only in its code signature";
    case MachoDifference::uuidAndSignature:
        return "Mach-O that differs only in its LC_UUID and its code signature";
    case MachoDifference::none:
    case MachoDifference::other:
        break;
    }
    return "contents of a Mach-O differ";
}

std::string describeContents(const TreeDifference &difference) {
    std::string text =
        fmt::format("{} ({} byte{}, the first at offset {}", what(difference), difference.differingBytes,
                    difference.differingBytes == 1 ? "" : "s", difference.firstOffset);
    if (difference.oldSize != difference.newSize) {
        text += fmt::format("; {} bytes long, now {}", difference.oldSize, difference.newSize);
    }
    text += ")";
    if (difference.macho.firstStale) {
        text += "; the code signature of the registered file is stale";
    }
    if (difference.macho.firstStale && difference.madeRight) {
        text += ", as its builder makes it, and the new one was made right when store paths in it were "
                "rewritten";
    }
    if (difference.macho.secondStale) {
        text += "; the code signature of the new file is stale";
    }
    return text;
}

std::string describeDifference(const TreeDifference &difference) {
    switch (difference.kind) {
    case Kind::contents:
        return describeContents(difference);
    case Kind::executable:
        return difference.executable ? "executable, now not" : "not executable, now it is";
    case Kind::target:
        return fmt::format("symlink to {}, now to {}", quoteForDisplay(difference.oldTarget),
                           quoteForDisplay(difference.newTarget));
    case Kind::type:
        return fmt::format("{}, now a {}", typeName(difference.type), typeName(difference.newType));
    case Kind::missing:
        return fmt::format("missing now ({})", typeName(difference.type));
    case Kind::extra:
        return fmt::format("new ({})", typeName(difference.type));
    }
    return "";
}

std::string summary(const TreeComparison &found) {
    std::string text;
    auto add = [&](uint64_t count, const char *words) {
        if (count > 0) {
            text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, words);
        }
    };
    add(found.contents, "with other contents");
    add(found.executable, "with another mode");
    add(found.target, "with another link target");
    add(found.type, "of another type");
    add(found.missing, "missing");
    add(found.extra, "new");
    add(found.explained, "counting as equal");
    return text;
}

// ---- JSON

/// Names are bytes; what is no UTF-8 or no character to show is escaped as in messages.
std::string text(const std::string &bytes) {
    return escapeForDisplay(bytes);
}

Json machoJson(const TreeDifference &difference) {
    return {{"difference", machoName(difference.macho.difference)},
            {"registeredStale", difference.macho.firstStale},
            {"builtStale", difference.macho.secondStale},
            {"madeRight", difference.madeRight}};
}

Json differenceJson(const TreeDifference &difference) {
    Json json{{"path", text(difference.path)}, {"kind", kindName(difference.kind)}};
    switch (difference.kind) {
    case Kind::contents:
        json["registeredSize"] = difference.oldSize;
        json["builtSize"] = difference.newSize;
        json["firstOffset"] = difference.firstOffset;
        json["differingBytes"] = difference.differingBytes;
        json["countsAsEqual"] = difference.explained;
        if (difference.macho.isMacho) {
            json["macho"] = machoJson(difference);
        }
        break;
    case Kind::executable:
        json["registered"] = difference.executable;
        json["built"] = !difference.executable;
        break;
    case Kind::target:
        json["registered"] = text(difference.oldTarget);
        json["built"] = text(difference.newTarget);
        break;
    case Kind::type:
        json["registered"] = typeName(difference.type);
        json["built"] = typeName(difference.newType);
        break;
    case Kind::missing:
    case Kind::extra:
        json["type"] = typeName(difference.type);
        break;
    }
    return json;
}

Json outputJson(const StoreDir &store, const OutputReport &output, bool keptForUser) {
    const TreeComparison &found = output.comparison;
    Json json{
        {"path", store.print(output.path)},
        {"verdict", verdictName(output.verdict)},
        {"narHash", {{"registered", output.oldHash.sri()}, {"built", output.newHash.sri()}}},
        {"narSize", {{"registered", output.oldSize}, {"built", output.newSize}}},
        {"counts",
         {{"contents", found.contents},
          {"executable", found.executable},
          {"target", found.target},
          {"type", found.type},
          {"missing", found.missing},
          {"extra", found.extra},
          {"countsAsEqual", found.explained}}},
        {"differences", Json::array()},
        {"truncated", found.truncated},
        {"damaged", output.damaged},
        {"stale", Json::array()},
    };
    if (!output.unreadable.empty()) {
        json["unreadable"] = output.unreadable;
    }
    if (output.diskHash) {
        json["narHash"]["onDisk"] = output.diskHash->sri();
    }
    for (const std::string &path : found.stale) {
        json["stale"].push_back(text(path));
    }
    if (keptForUser && !output.kept.empty()) {
        json["kept"] = output.kept;
    }
    for (const TreeDifference &difference : found.differences) {
        json["differences"].push_back(differenceJson(difference));
    }
    return json;
}

} // namespace

bool CheckReport::deterministic() const {
    return std::ranges::none_of(outputs,
                                [](const auto &output) { return output.verdict == Verdict::differs; });
}

bool CheckReport::damaged() const {
    return std::ranges::any_of(outputs, &OutputReport::damaged);
}

namespace {

/// What was registered and is damaged now: the other way round than what is there and what was built.
TreeDifference asDamage(TreeDifference difference) {
    std::swap(difference.type, difference.newType);
    std::swap(difference.oldSize, difference.newSize);
    std::swap(difference.oldTarget, difference.newTarget);
    difference.executable = !difference.executable;
    if (difference.kind == Kind::missing || difference.kind == Kind::extra) {
        difference.kind = difference.kind == Kind::missing ? Kind::extra : Kind::missing;
    }
    return difference;
}

TreeComparison asDamage(TreeComparison found) {
    std::swap(found.missing, found.extra);
    std::ranges::transform(found.differences, found.differences.begin(),
                           [](TreeDifference &one) { return asDamage(std::move(one)); });
    return found;
}

std::string lineAbout(const std::string &path, const std::string &words) {
    return fmt::format("\n  {}{}{}", escapeForDisplay(path), path.empty() ? "" : ": ", words);
}

std::string describeDifferences(const TreeComparison &found) {
    std::string text;
    size_t shown = std::min(found.differences.size(), mostShown);
    for (size_t i = 0; i < shown; ++i) {
        text += lineAbout(found.differences[i].path, describeDifference(found.differences[i]));
    }
    uint64_t all = found.total() + found.explained;
    return all > shown ? text + fmt::format("\n  … and {} more", all - shown) : text;
}

/// Of files that are the same.
std::string describeStale(const TreeComparison &found) {
    std::string text;
    size_t shown = std::min(found.stale.size(), mostShown);
    for (size_t i = 0; i < shown; ++i) {
        text += lineAbout(found.stale[i], "the code signature of the registered file is stale, and that of "
                                          "the new one, which is the same");
    }
    return found.stale.size() > shown ? text + fmt::format("\n  … and {} more with a stale code signature",
                                                           found.stale.size() - shown)
                                      : text;
}

std::string describeDamage(const OutputReport &output) {
    std::string hashes = fmt::format("registered: {}, in the store now: {}", output.oldHash.sri(),
                                     output.diskHash ? output.diskHash->sri() : "nothing");
    return fmt::format("\n  what is in the store is not what was registered ({}): of what differs, it "
                       "cannot be told what was damaged and what the build does not repeat",
                       hashes);
}

std::string describeWhatDiffers(const OutputReport &output) {
    const TreeComparison &found = output.comparison;
    bool differs = found.total() + found.explained > 0;
    if (!output.unreadable.empty()) {
        return fmt::format("what is in the store is damaged and cannot be compared: {}{}", output.unreadable,
                           output.verdict == Verdict::same ? ""
                                                           : "\n  nor is what was built what was registered");
    }
    if (output.verdict == Verdict::same) {
        return differs ? "damaged since it was registered, " + summary(asDamage(found)) +
                             describeDifferences(asDamage(found))
                       : "the same";
    }
    if (!differs) {
        return "what is in the store is what was built now, but not what was registered; "
               "'nix-store --verify --check-contents' says more";
    }
    return summary(found) + describeDifferences(found) + (output.damaged ? describeDamage(output) : "");
}

} // namespace

std::string describeOutput(const StoreDir &store, const OutputReport &output) {
    if (output.verdict == Verdict::same && !output.damaged && output.comparison.stale.empty()) {
        return "";
    }
    return fmt::format("output '{}' ('{}'): {}{}", output.name, store.print(output.path),
                       describeWhatDiffers(output), describeStale(output.comparison));
}

namespace {

std::string firstLine(const StoreDir &store, const StorePath &drvPath, const CheckReport &report,
                      const OutputReport &output, bool isNamed) {
    if (report.deterministic()) {
        return fmt::format(
            "output '{}' of derivation '{}' is damaged: what is in the store is not what was "
            "registered. The build itself repeats; as a trusted user, build with '--repair' to "
            "put the output right",
            store.print(output.path), store.print(drvPath));
    }
    return fmt::format("derivation '{}' may not be deterministic: output '{}' differs{}",
                       store.print(drvPath), store.print(output.path),
                       isNamed ? fmt::format(" from '{}'", output.kept) : "");
}

} // namespace

std::string describeCheck(const StoreDir &store, const StorePath &drvPath, const CheckReport &report,
                          bool keptForUser) {
    bool repeats = report.deterministic();
    std::string lines, first;
    for (const OutputReport &output : report.outputs) {
        std::string text = describeOutput(store, output);
        lines += text.empty() ? "" : "\n" + text;
        bool isNamed = keptForUser && !output.kept.empty();
        bool fails = repeats ? output.damaged : output.verdict == Verdict::differs;
        if (fails && first.empty()) {
            first = firstLine(store, drvPath, report, output, isNamed);
        } else if (isNamed) {
            lines += fmt::format("\n  it is kept as '{}'", output.kept);
        }
    }
    return first + lines;
}

std::string checkReportJson(const StoreDir &store, const StorePath &drvPath, const CheckReport &report,
                            bool keptForUser) {
    Json json{{"version", 1},
              {"derivation", store.print(drvPath)},
              {"time", time(nullptr)},
              {"deterministic", report.deterministic()},
              {"outputs", Json::object()}};
    if (!report.refused.empty()) {
        json["refused"] = report.refused;
    }
    for (const OutputReport &output : report.outputs) {
        json["outputs"][output.name] = outputJson(store, output, keptForUser);
    }
    return json.dump(2) + "\n";
}

std::filesystem::path checkReportPath(const LocalStore &store, const StorePath &drvPath) {
    std::filesystem::path path = store.buildLogPath(drvPath);
    if (path.extension() == ".bz2") {
        path.replace_extension();
    }
    path += ".check.json";
    return path;
}

void writeCheckReport(const std::filesystem::path &path, const std::string &json) {
    makeDirectories(path.parent_path());
    std::filesystem::path temporary = path;
    temporary += fmt::format(".tmp-{}", getpid());
    ScopeExit cleanUp([&] { unlink(temporary.c_str()); });
    writeFile(temporary, json);
    if (rename(temporary.c_str(), path.c_str()) != 0) {
        throwErrno("renaming '{}' to '{}'", temporary.string(), path.string());
    }
    cleanUp.cancel();
}

} // namespace firn
