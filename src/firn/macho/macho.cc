#include "firn/macho/macho.hh"

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "libstore/build/reference-scanner.hh"
#include "libutil/base-n.hh"
#include "libutil/error.hh"
#include "libutil/interrupt.hh"

namespace firn {

namespace {

bool isHashPart(std::string_view text) {
    return text.size() == HashPartSet::length && std::all_of(text.begin(), text.end(), isNix32Digit);
}

/// A changed file is put in place at once or not at all, and new files that were not are removed: the loops
/// stop by an exception.
void stopOnSignals() {
    struct sigaction action {};
    action.sa_handler = [](int) { requestInterrupt(); };
    for (int number : {SIGINT, SIGTERM, SIGHUP}) {
        sigaction(number, &action, nullptr);
    }
}

int run(const MachoOptions &options) {
    switch (options.action) {
    case MachoOptions::Action::verify:
        return machoVerify(options);
    case MachoOptions::Action::rewrite:
        stopOnSignals();
        return machoRewrite(options);
    case MachoOptions::Action::repair:
        stopOnSignals();
        return machoRepair(options);
    }
    throw Error(ErrorKind::bug, "there is no such command");
}

int report(const std::exception &error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return machoTrouble;
}

} // namespace

std::pair<std::string, std::string> parseReplacement(const std::string &text) {
    size_t sign = text.find('=');
    std::string from = text.substr(0, sign), to = sign == std::string::npos ? "" : text.substr(sign + 1);
    if (!isHashPart(from) || !isHashPart(to)) {
        throw Error(ErrorKind::badInput,
                    "{} is not OLD=NEW, two hash parts of store paths: the 32 characters between the store "
                    "directory and the first dash, digits and lower-case letters without e, o, t and u",
                    quoteForDisplay(text));
    }
    if (from == to) {
        throw Error(ErrorKind::badInput, "{} would change nothing", quoteForDisplay(text));
    }
    return {from, to};
}

int runMacho(const MachoOptions &options) {
    int status;
    try {
        status = run(options);
    } catch (const Error &error) {
        status = report(error);
        status = error.kind() == ErrorKind::interrupted ? machoStopped : status;
    } catch (const std::exception &error) {
        status = report(error);
    }
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        fmt::print(stderr, "error: the report could not be written\n");
        return machoTrouble;
    }
    return status;
}

} // namespace firn
