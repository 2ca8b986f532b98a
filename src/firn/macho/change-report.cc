#include "firn/macho/change-report.hh"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "firn/macho/macho.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

using Kind = MachoFinding::Kind;

std::string_view statusName(Change::Status status) {
    switch (status) {
    case Change::Status::unchanged:
        return "unchanged";
    case Change::Status::changed:
        return "changed";
    case Change::Status::refused:
        return "refused";
    }
    return "";
}

nlohmann::json toJson(const Change &change) {
    nlohmann::json findings = nlohmann::json::array();
    for (const MachoFinding &finding : change.findings) {
        findings.push_back(findingToJson(finding));
    }
    nlohmann::json object = {{"status", statusName(change.status)},
                             {"replacements", change.replacements},
                             {"brokenLinks", change.brokenLinks},
                             {"slots", change.slots(Kind::repaired) + change.slots(Kind::repairedStale)},
                             {"findings", std::move(findings)}};
    setJsonPath(object, change.path);
    auto set = [&](const char *key, const std::string &text) {
        if (!text.empty()) {
            object[key] = text;
        }
    };
    set("newName", change.newName);
    set("target", change.target);
    set("problem", change.problem);
    set("remedy", change.remedy);
    return object;
}

std::string plural(uint64_t count, std::string_view noun) {
    return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

bool isWarning(const MachoFinding &finding) {
    return finding.kind != Kind::repaired && finding.kind != Kind::repairedStale;
}

} // namespace

void rethrowIfInterrupted(const std::exception &error) {
    auto *ours = dynamic_cast<const Error *>(&error);
    if (ours != nullptr && ours->kind() == ErrorKind::interrupted) {
        throw;
    }
}

bool Change::any(Kind kind) const {
    return std::any_of(findings.begin(), findings.end(),
                       [kind](const MachoFinding &finding) { return finding.kind == kind; });
}

uint64_t Change::slots(Kind kind) const {
    uint64_t count = 0;
    for (const MachoFinding &finding : findings) {
        count += finding.kind == kind ? finding.count : 0;
    }
    return count;
}

ChangeReport::ChangeReport(bool json, std::string verb, OnMalformed onMalformed)
    : verb_(std::move(verb)), onMalformed_(onMalformed) {
    if (json) {
        list_.emplace();
    }
}

void ChangeReport::add(const Change &change, bool always) {
    changed_ += change.status == Change::Status::changed;
    refused_ += change.status == Change::Status::refused;
    if (change.status == Change::Status::changed) {
        replacements_ += change.replacements;
        renamed_ += !change.newName.empty();
        slots_ += change.slots(Kind::repaired) + change.slots(Kind::repairedStale);
    }
    trouble_ = trouble_ || change.status == Change::Status::refused ||
               (onMalformed_ == OnMalformed::fail && change.any(Kind::malformed));
    bool something = change.status != Change::Status::unchanged ||
                     std::any_of(change.findings.begin(), change.findings.end(), isWarning);
    if (!something && !always) {
        return;
    }
    if (list_) {
        list_->add(toJson(change));
    }
    print(change);
}

/// With JSON only what goes to standard error.
void ChangeReport::print(const Change &change) const {
    std::string path = escapeForDisplay(change.path);
    if (change.status == Change::Status::refused) {
        fmt::print(stderr, "error: {}: {}{}{}\n", path, escapeForDisplay(change.problem),
                   change.remedy.empty() ? "" : ". ", change.remedy);
        return;
    }
    for (const MachoFinding &finding : change.findings) {
        if (isWarning(finding)) {
            fmt::print(stderr, "warning: {}: {}\n", path, describeFinding(finding));
        }
    }
    if (list_) {
        return;
    }
    if (change.status == Change::Status::unchanged) {
        fmt::print("{}: nothing to do\n", path);
        return;
    }
    std::vector<std::string> what;
    if (change.replacements > 0) {
        what.push_back(plural(change.replacements, "place"));
    }
    if (uint64_t repaired = change.slots(Kind::repaired)) {
        what.push_back(plural(repaired, "slot") + " repaired");
    }
    if (uint64_t stale = change.slots(Kind::repairedStale)) {
        what.push_back(plural(stale, "stale slot") + " repaired");
    }
    if (!change.newName.empty()) {
        what.push_back("now called " + quoteForDisplay(change.newName));
    }
    if (change.brokenLinks > 0) {
        what.push_back(fmt::format("hard link broken: {} keeps the old contents",
                                   plural(change.brokenLinks, "other name")));
    }
    fmt::print("{}: {}{}{}\n", path, verb_, what.empty() ? "" : ": ", fmt::join(what, ", "));
}

int ChangeReport::finish(int ifChanged) {
    int status = trouble_ ? machoTrouble : changed_ > 0 ? ifChanged : machoAllRight;
    if (list_) {
        list_->finish({{"files", files_},
                       {"changed", changed_},
                       {"refused", refused_},
                       {"replacements", replacements_},
                       {"renamed", renamed_},
                       {"slots", slots_},
                       {"exitStatus", status}});
    } else {
        fmt::print("{}, {} {}, {} refused\n", plural(files_, "file"), changed_, verb_, refused_);
    }
    return status;
}

} // namespace firn
