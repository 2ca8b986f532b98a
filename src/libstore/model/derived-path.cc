#include "libstore/model/derived-path.hh"

#include <algorithm>

#include "libutil/error.hh"

namespace firn {

namespace {

constexpr std::string_view separators = "!^";

std::string parseOutputName(std::string_view name, std::string_view whole) {
    try {
        checkStorePathName(name);
    } catch (Error &error) {
        error.addContext(fmt::format("reading the output names in '{}'", escapeForDisplay(whole)));
        throw;
    }
    return std::string(name);
}

/// Takes all names but those behind the last separator.
std::vector<std::string> takeChain(std::string_view &names, std::string_view whole) {
    std::vector<std::string> through;
    for (;;) {
        size_t separator = names.find_first_of(separators);
        if (separator == std::string_view::npos) {
            return through;
        }
        if (through.size() == maxDynamicDepth) {
            throw Error(ErrorKind::badInput, "'{}' names outputs of outputs nested more than {} deep",
                        escapeForDisplay(whole, 300), maxDynamicDepth);
        }
        through.push_back(parseOutputName(names.substr(0, separator), whole));
        names.remove_prefix(separator + 1);
    }
}

std::set<std::string> parseOutputNames(std::string_view names, std::string_view whole) {
    std::set<std::string> result;
    if (names == "*") {
        return result;
    }
    for (;;) {
        size_t comma = std::min(names.find(','), names.size());
        result.insert(parseOutputName(names.substr(0, comma), whole));
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
    size_t separator =
        text.find_first_of(separators, store.str().size() < text.size() ? store.str().size() : 0);
    if (separator == std::string_view::npos) {
        return OpaquePath{store.parse(text)};
    }
    StorePath drvPath = store.parse(text.substr(0, separator));
    std::string_view names = text.substr(separator + 1);
    std::vector<std::string> through = takeChain(names, text);
    if (!drvPath.isDerivation()) {
        throw Error(ErrorKind::badInput, "'{}' names outputs of a store path that is not a derivation",
                    escapeForDisplay(text));
    }
    return BuiltPath{std::move(drvPath), parseOutputNames(names, text), std::move(through)};
}

std::string printDerivedPath(const StoreDir &store, const DerivedPath &path, char separator) {
    if (const auto *opaque = std::get_if<OpaquePath>(&path)) {
        return store.print(opaque->path);
    }
    const BuiltPath &built = std::get<BuiltPath>(path);
    return printDerivationChain(store, built.drvPath, built.through, separator) + separator +
           printOutputNames(built.outputs);
}

std::string printDerivationChain(const StoreDir &store, const StorePath &drvPath,
                                 const std::vector<std::string> &through, char separator) {
    std::string text = store.print(drvPath);
    for (const std::string &output : through) {
        text += separator;
        text += output;
    }
    return text;
}

} // namespace firn
