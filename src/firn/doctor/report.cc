#include "firn/doctor/report.hh"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "libutil/config-file.hh"
#include "libutil/error.hh"

namespace firn::doctor {

namespace {

constexpr size_t indent = 9;         // columns before a finding's text
constexpr size_t narrowest = 30;     // columns; a terminal that is narrower breaks lines itself
constexpr size_t longestText = 8192; // bytes of one text

struct LevelStyle {
    const char *word, *colour;
};

LevelStyle styleOf(Level level) {
    switch (level) {
    case Level::ok:
        return {"ok", "\x1b[32m"};
    case Level::note:
        return {"note", "\x1b[36m"};
    case Level::limit:
        return {"limit", "\x1b[33m"};
    case Level::error:
        break;
    }
    return {"error", "\x1b[1;31m"};
}

/// UTF-8's continuation bytes take no column of their own.
size_t columns(const std::string &text) {
    return static_cast<size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// Breaks between words only: a path stays whole.
std::string wrap(const std::string &text, size_t width, size_t margin) {
    std::string result;
    size_t column = margin;
    for (const std::string &word : splitWords(escapeForDisplay(text, longestText))) {
        size_t length = columns(word);
        bool first = column == margin;
        if (!first && width > 0 && column + 1 + length > std::max(width, narrowest)) {
            result += "\n" + std::string(margin, ' ');
            column = margin;
            first = true;
        }
        result += (first ? "" : " ") + word;
        column += length + (first ? 0 : 1);
    }
    return result;
}

std::string printFinding(const Finding &finding, size_t width, bool colours) {
    LevelStyle style = styleOf(finding.level);
    std::string word = fmt::format("{:<5}", style.word);
    std::string shown = colours ? style.colour + word + "\x1b[0m" : word;
    std::string text = fmt::format("  {}  {}\n", shown, wrap(finding.text, width, indent));
    if (!finding.remedy.empty()) {
        text += fmt::format("{:>{}}{}\n", "→ ", indent + 2, wrap(finding.remedy, width, indent + 2));
    }
    return text;
}

size_t countOf(const Report &report, Level level) {
    size_t count = 0;
    for (const Section &section : report.sections) {
        count += static_cast<size_t>(
            std::count_if(section.findings.begin(), section.findings.end(),
                          [&](const Finding &finding) { return finding.level == level; }));
    }
    return count;
}

std::string plural(size_t count, const std::string &word) {
    return fmt::format("{} {}{}", count, word, count == 1 ? "" : "s");
}

std::string verdictLine(const Report &report) {
    size_t limits = countOf(report, Level::limit), errors = countOf(report, Level::error);
    switch (worstLevel(report)) {
    case Level::error:
        return fmt::format("Firn does not work here: {}, {}.", plural(errors, "error"),
                           plural(limits, "limit"));
    case Level::limit:
        return fmt::format("Firn works here, with {}.", plural(limits, "limit"));
    default:
        return "Firn works here.";
    }
}

const char *verdictWord(const Report &report) {
    static const char *const words[] = {"ok", "limits", "broken"};
    return words[exitStatus(report)];
}

nlohmann::ordered_json findingAsJson(const Finding &finding) {
    nlohmann::ordered_json json;
    json["id"] = finding.id;
    json["level"] = styleOf(finding.level).word;
    json["text"] = finding.text;
    json["remedy"] = finding.remedy;
    json["details"] = nlohmann::ordered_json::object();
    for (const auto &[name, value] : finding.details) {
        json["details"][name] = value;
    }
    return json;
}

} // namespace

Level worstLevel(const Report &report) {
    Level worst = Level::ok;
    for (const Section &section : report.sections) {
        for (const Finding &finding : section.findings) {
            worst = std::max(worst, finding.level);
        }
    }
    return worst;
}

int exitStatus(const Report &report) {
    switch (worstLevel(report)) {
    case Level::error:
        return 2;
    case Level::limit:
        return 1;
    default:
        return 0;
    }
}

std::string printAsText(const Report &report, size_t width, bool colours) {
    std::string text = fmt::format("Firn {} for {}\n", report.version, escapeForDisplay(report.user));
    for (const Section &section : report.sections) {
        text += "\n" + section.title + "\n";
        for (const Finding &finding : section.findings) {
            text += printFinding(finding, width, colours);
        }
    }
    return text + "\n" + verdictLine(report) + "\n";
}

std::string printAsJson(const Report &report) {
    nlohmann::ordered_json json;
    json["version"] = 1;
    json["firn"] = report.version;
    json["user"] = report.user;
    json["verdict"] = verdictWord(report);
    json["exitStatus"] = exitStatus(report);
    json["sections"] = nlohmann::ordered_json::array();
    for (const Section &section : report.sections) {
        nlohmann::ordered_json one{{"id", section.id}, {"title", section.title}};
        one["findings"] = nlohmann::ordered_json::array();
        for (const Finding &finding : section.findings) {
            one["findings"].push_back(findingAsJson(finding));
        }
        json["sections"].push_back(std::move(one));
    }
    // Paths need not be UTF-8.
    return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

} // namespace firn::doctor
