#pragma once

#include <cstdint>
#include <string>

namespace firn::builtin {

struct DownloadOptions {
    std::string certificates;      ///< PEM file with the authorities to trust; missing: none are
    std::string certificatesName;  ///< what the user knows that file by
    std::string netrc;             ///< file with passwords by host; empty or missing: none
    uint64_t connectTimeout = 0;   ///< seconds, 0: libcurl's own
    uint64_t stalledTimeout = 300; ///< seconds in which not one byte comes
    uint64_t attempts = 5;
    bool http2 = true;
    std::string userAgentSuffix;
};

/// Writes what an http, https or file URL names into a regular file that is open for writing, whose contents
/// are replaced. Redirects lead to http and https alone. What may work another time (no connection, a
/// server's errors, a body that ends early) is tried again, with growing pauses, from where it broke off if
/// the server can do that. Throws Error that names the URL, and what the server said; badInput for a URL that
/// begins with another scheme, or with none.
void download(const std::string &url, int file, const DownloadOptions &options);

} // namespace firn::builtin
