#pragma once

#include <gtest/gtest.h>

#include "libutil/error.hh"

namespace firn {

/// Runs `action`, which must throw an Error of this kind, and returns its message.
template<typename Action>
std::string expectError(ErrorKind kind, Action &&action) {
    try {
        action();
    } catch (const Error &e) {
        EXPECT_EQ(e.kind(), kind) << e.message();
        return e.message();
    }
    ADD_FAILURE() << "no error was thrown";
    return "";
}

} // namespace firn
