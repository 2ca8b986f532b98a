#pragma once

#include <cstdio>

#include <fmt/format.h>

#include "firn/macho/description.hh"

namespace firn {

/// Prints one JSON object with a list, an element at a time and on a line of its own, so that the list need
/// not be in memory: {"version":1,"files":[…],"summary":{…}}.
class JsonList {
  public:
    JsonList() { fmt::print("{{\"version\":1,\"files\":["); }
    void add(const nlohmann::json &file) {
        fmt::print("{}\n{}", first_ ? "" : ",", jsonLine(file));
        first_ = false;
    }
    void finish(const nlohmann::json &summary) { fmt::print("\n],\"summary\":{}}}\n", jsonLine(summary)); }

  private:
    bool first_ = true;
};

} // namespace firn
