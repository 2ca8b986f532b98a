#include "libstore/protocol/client-options.hh"

#include <algorithm>
#include <limits>

namespace firn {

namespace {

unsigned clampToUnsigned(uint64_t value) {
    return static_cast<unsigned>(std::min<uint64_t>(value, std::numeric_limits<unsigned>::max()));
}

bool namesSubstituters(const std::string &name) {
    static const std::set<std::string> names{"substituters", "binary-caches", "extra-substituters",
                                             "extra-binary-caches"};
    return names.contains(name);
}

/// Out of `value` those substituters that the daemon uses anyway; a warning for each other one.
std::string knownSubstituters(const Settings &settings, const std::string &value, Logger &logger) {
    std::string known;
    for (const std::string &word : splitWords(value)) {
        bool found = std::ranges::any_of(settings.substituters, [&](const std::string &substituter) {
            return substituter == word || substituter == word + "/";
        });
        if (found) {
            known += (known.empty() ? "" : " ") + word;
        } else {
            logger.warn(fmt::format("ignoring untrusted substituter '{}', you are not a trusted user",
                                    escapeForDisplay(word, 256)));
        }
    }
    return known;
}

void applyByName(Settings &settings, const std::string &name, const std::string &value, Logger &logger) {
    if (applySetting(settings, name, value) == ApplyResult::unknown) {
        logger.log(Verbosity::debug,
                   fmt::format("the client's setting '{}' is not known here", escapeForDisplay(name, 256)));
    }
}

void applyUntrusted(Settings &settings, const std::string &name, const std::string &value, Logger &logger) {
    if (isSafeForUntrusted(name)) {
        applyByName(settings, name, value, logger);
        return;
    }
    if (namesSubstituters(name)) {
        applyByName(settings, name, knownSubstituters(settings, value, logger), logger);
        return;
    }
    Settings changed = settings;
    applyByName(changed, name, value, logger);
    if (changed != settings) {
        logger.warn(fmt::format("ignoring the client-specified setting '{}', because it is a restricted "
                                "setting and you are not a trusted user",
                                escapeForDisplay(name, 256)));
    }
}

} // namespace

ClientOptions readClientOptions(WireReader &in) {
    ClientOptions options;
    options.keepFailed = in.boolean();
    options.keepGoing = in.boolean();
    options.tryFallback = in.boolean();
    options.verbosity =
        static_cast<Verbosity>(std::min(in.number(), static_cast<uint64_t>(Verbosity::vomit)));
    options.maxJobs = in.number();
    options.maxSilentTime = in.number();
    in.number(); // use of build hooks: obsolete
    in.number(); // verbosity of build logs: clients filter
    in.number(); // type of log: obsolete
    in.number(); // build traces: obsolete
    options.cores = in.number();
    options.useSubstitutes = in.boolean();
    for (uint64_t left = in.count(); left > 0; --left) {
        std::string name = in.name();
        options.overrides[name] = in.string();
    }
    return options;
}

void applyClientOptions(Settings &settings, const ClientOptions &options, bool trusted, Logger &logger) {
    settings.keepFailed = options.keepFailed;
    settings.keepGoing = options.keepGoing;
    settings.tryFallback = options.tryFallback;
    settings.verbosity = options.verbosity;
    settings.maxJobs = clampToUnsigned(options.maxJobs);
    settings.maxSilentTime = options.maxSilentTime;
    settings.cores = clampToUnsigned(options.cores);
    settings.substitute = options.useSubstitutes;
    for (const auto &[name, value] : options.overrides) {
        if (isFixedPerConnection(name)) {
            continue;
        }
        try {
            (trusted ? applyByName : applyUntrusted)(settings, name, value, logger);
        } catch (const Error &error) {
            logger.warn(error.message());
        }
    }
}

} // namespace firn
