#include "libstore/model/derived-path.hh"

#include <algorithm>

#include "libutil/error.hh"

namespace firn {

namespace {

std::set<std::string> parseOutputNames(std::string_view names, std::string_view whole) {
    std::set<std::string> result;
    if (names == "*") {
        return result;
    }
    for (;;) {
        size_t comma = std::min(names.find(','), names.size());
        try {
            checkStorePathName(names.substr(0, comma));
        } catch (Error &error) {
            error.addContext(fmt::format("reading the output names in '{}'", escapeForDisplay(whole)));
            throw;
        }
        result.emplace(names.substr(0, comma));
        if (comma == names.size()) {
            return result;
        }
        names.remove_prefix(comma + 1);
    }
}

std::string printOutputNames(const std::set<std::string> &names) {
    return names.empty() ? "*" : fmt::format("{}", fmt::join(names, ","));
}

} // namespace

DerivedPath parseDerivedPath(const StoreDir &store, std::string_view text) {
    size_t separator = text.find_first_of("!^", store.str().size() < text.size() ? store.str().size() : 0);
    if (separator == std::string_view::npos) {
        return OpaquePath{store.parse(text)};
    }
    StorePath drvPath = store.parse(text.substr(0, separator));
    std::string_view names = text.substr(separator + 1);
    if (names.find_first_of("!^") != std::string_view::npos) {
        throw Error(ErrorKind::unsupported,
                    "'{}' names outputs of a derivation that is itself an output; dynamic derivations are "
                    "not supported here",
                    escapeForDisplay(text));
    }
    if (!drvPath.isDerivation()) {
        throw Error(ErrorKind::badInput, "'{}' names outputs of a store path that is not a derivation",
                    escapeForDisplay(text));
    }
    return BuiltPath{std::move(drvPath), parseOutputNames(names, text)};
}

std::string printDerivedPath(const StoreDir &store, const DerivedPath &path, char separator) {
    if (const auto *opaque = std::get_if<OpaquePath>(&path)) {
        return store.print(opaque->path);
    }
    const BuiltPath &built = std::get<BuiltPath>(path);
    return store.print(built.drvPath) + separator + printOutputNames(built.outputs);
}

} // namespace firn
