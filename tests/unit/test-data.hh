#pragma once

#include <cstdlib>
#include <string>

namespace firn {

/// A file below tests/, in the source tree or (environment FIRN_TESTS, for an account that cannot read that)
/// a copy.
inline std::string testData(const std::string &name) {
    const char *elsewhere = getenv("FIRN_TESTS");
    return std::string(elsewhere ? elsewhere : FIRN_TESTS_DIR) + "/" + name;
}

} // namespace firn
