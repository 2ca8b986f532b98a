#pragma once

#include <map>
#include <string>
#include <vector>

// What `firn doctor` has to say about a host: plain values, made by small functions from plain facts, and
// printed elsewhere (report.hh).

namespace firn::doctor {

enum class Level {
    ok,    ///< as it should be
    note,  ///< worth knowing; nothing is worse for it
    limit, ///< works, but not everything, or not as well as it could
    error, ///< a daemon, or every build, fails
};

struct Finding {
    Level level = Level::ok;
    std::string id;                             ///< for programs, never changed: see doc/doctor.md
    std::string text;                           ///< one line
    std::string remedy;                         ///< what to do about it; "" where nothing is to be done
    std::map<std::string, std::string> details; ///< for programs, under names that doc/doctor.md explains
};

using Findings = std::vector<Finding>;

struct Section {
    std::string id, title;
    Findings findings;
};

struct Report {
    std::string version, user;
    std::vector<Section> sections;
};

/// The worst of all; `ok` where there is nothing.
Level worstLevel(const Report &report);

} // namespace firn::doctor
