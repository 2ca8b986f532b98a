#pragma once

#include "libstore/build/macho-jail-protocol.hh"

namespace firn::jail {

/// What a request about an open file, or two, is to be answered. Throws what reading and the lack of memory
/// throw, and badInput for a comparison with nothing (`second` −1).
Answer answerRequest(const Request &request, int file, int second = -1);

/// Answers requests that come over a socket, until it ends or something comes that is no request.
void serve(int socket);

} // namespace firn::jail
