#include "libstore/build/resolution.hh"

#include "libstore/build/builder-environment.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

const StorePath &findInput(const StoreDir &store, const Derivation &drv, const InputPaths &inputs,
                           const BuiltPath &output) {
    auto found = inputs.find(output);
    if (found == inputs.end()) {
        throw Error(ErrorKind::notFound,
                    "cannot resolve the derivation '{}': where '{}' came to lie is not known",
                    escapeForDisplay(drv.name), escapeForDisplay(printDerivedPath(store, output, '^')));
    }
    return found->second;
}

void rewriteWords(Derivation &drv, const StringMap &rewrites) {
    drv.builder = rewriteText(std::move(drv.builder), rewrites);
    for (std::string &argument : drv.args) {
        argument = rewriteText(std::move(argument), rewrites);
    }
    StringMap env;
    for (const auto &[name, value] : drv.env) {
        env[rewriteText(name, rewrites)] = rewriteText(value, rewrites);
    }
    drv.env = std::move(env);
}

void settleDeferredOutputs(const StoreDir &store, DerivationHasher &hasher, Derivation &drv) {
    std::map<std::string, Hash> hashes = hasher.outputHashes(drv, /*maskOutputs=*/true);
    for (auto &[name, output] : drv.outputs) {
        if (std::holds_alternative<DeferredOutput>(output)) {
            StorePath path = store.makeOutputPath(name, hashes.at(name), drv.name);
            drv.env[name] = store.print(path);
            output = InputAddressedOutput{path};
        }
    }
}

} // namespace

Derivation resolveDerivation(const StoreDir &store, DerivationHasher &hasher, const Derivation &drv,
                             const InputPaths &inputs) {
    Derivation resolved = drv;
    resolved.inputDerivations.clear();
    StringMap rewrites;
    for (const BuiltPath &needed : neededOutputs(drv)) {
        for (const std::string &name : needed.outputs) {
            const StorePath &path = findInput(store, drv, inputs, {needed.drvPath, {name}, needed.through});
            resolved.inputSources.insert(path);
            rewrites.emplace(upstreamPlaceholder(needed.drvPath, needed.through, name), store.print(path));
        }
    }
    rewriteWords(resolved, rewrites);
    if (derivationKind(resolved) == DerivationKind::deferred) {
        settleDeferredOutputs(store, hasher, resolved);
    }
    return resolved;
}

} // namespace firn
