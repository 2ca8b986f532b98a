#include "libstore/build/exported-references.hh"

#include <nlohmann/json.hpp>

#include "libutil/error.hh"

namespace firn {

namespace {

/// With a derivation come its outputs' closures too: whoever asks for it wants what is needed to build.
StorePathSet exportedClosure(LocalStore &store, const std::vector<std::string> &roots,
                             const StorePathSet &inputClosure) {
    StorePathSet start;
    for (const std::string &root : roots) {
        StorePath path = store.dir().parsePrefix(root).first;
        if (!inputClosure.contains(path)) {
            throw Error(ErrorKind::badInput,
                        "cannot export references of path '{}' because it is not in the input closure of the "
                        "derivation",
                        store.dir().print(path));
        }
        start.insert(path);
    }
    StorePathSet closure = store.computeClosure(start);
    StorePathSet withOutputs = closure;
    for (const StorePath &path : closure) {
        if (path.isDerivation()) {
            for (const auto &[name, output] : outputPaths(store.dir(), store.readDerivation(path))) {
                if (store.isValidPath(output)) {
                    withOutputs.insert(output);
                }
            }
        }
    }
    return withOutputs == closure ? closure : store.computeClosure(withOutputs);
}

std::string registrationText(LocalStore &store, const StorePathSet &paths) {
    std::string text;
    for (const StorePath &path : paths) {
        PathInfo info = store.queryPathInfo(path);
        text += fmt::format("{}\n\n{}\n", store.dir().print(path), info.references.size());
        for (const StorePath &reference : info.references) {
            text += store.dir().print(reference) + "\n";
        }
    }
    return text;
}

uint64_t closureSize(LocalStore &store, const StorePath &path) {
    uint64_t size = 0;
    for (const StorePath &member : store.computeClosure({path})) {
        size += store.queryPathInfo(member).narSize;
    }
    return size;
}

nlohmann::json describePaths(LocalStore &store, const StorePathSet &paths) {
    nlohmann::json list = nlohmann::json::array();
    for (const StorePath &path : paths) {
        PathInfo info = store.queryPathInfo(path);
        nlohmann::json references = nlohmann::json::array();
        for (const StorePath &reference : info.references) {
            references.push_back(store.dir().print(reference));
        }
        nlohmann::json object = {{"path", store.dir().print(path)},
                                 {"narHash", info.narHash.prefixed(Encoding::nix32)},
                                 {"narSize", info.narSize},
                                 {"references", references},
                                 {"closureSize", closureSize(store, path)}};
        if (info.contentAddress) {
            object["ca"] = info.contentAddress->print();
        }
        list.push_back(std::move(object));
    }
    return list;
}

} // namespace

StringMap exportedReferenceFiles(LocalStore &store, const DerivationOptions &options,
                                 const StorePathSet &inputClosure) {
    StringMap files;
    for (const auto &[file, roots] : options.exportReferencesGraph) {
        files[file] = registrationText(store, exportedClosure(store, roots, inputClosure));
    }
    return files;
}

StringMap exportedReferenceJson(LocalStore &store, const DerivationOptions &options,
                                const StorePathSet &inputClosure) {
    StringMap texts;
    for (const auto &[attribute, roots] : options.exportReferencesGraph) {
        texts[attribute] = describePaths(store, exportedClosure(store, roots, inputClosure)).dump();
    }
    return texts;
}

} // namespace firn
