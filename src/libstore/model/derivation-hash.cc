#include "libstore/model/derivation-aterm.hh"

#include <set>
#include <vector>

#include "libutil/error.hh"

// The hash of a derivation modulo fixed outputs says what it would build, not how its fixed-output inputs are
// fetched: a fixed-output derivation is represented by its promised result alone, and every other one by its
// text with the paths of its input derivations replaced by their hashes, recursively. Output paths are made
// of it.

namespace firn {

namespace {

Hash hashFixedOutput(const StoreDir &store, const Derivation &drv) {
    DerivationOutputFields fields = printDerivationOutput(store, drv.name, "out", drv.outputs.at("out"));
    return hashString(HashAlgorithm::sha256,
                      fmt::format("fixed:out:{}:{}:{}", fields.hashAlgorithm, fields.hash, fields.path));
}

/// Whether the hash depends on the inputs at all.
bool dependsOnInputs(const Derivation &drv) {
    DerivationKind kind = derivationKind(drv);
    return kind != DerivationKind::fixed && kind != DerivationKind::impure;
}

DerivationHashes sameForAll(const Derivation &drv, const Hash &hash, bool deferred, bool ambiguous = false) {
    DerivationHashes result{{}, deferred, ambiguous};
    for (const auto &[name, output] : drv.outputs) {
        result.outputs.emplace(name, hash);
    }
    return result;
}

/// A derivation whose inputs are being hashed.
struct Frame {
    StorePath path;
    Derivation drv;
    std::vector<StorePath> pending; ///< inputs not looked at yet
};

Frame openFrame(DerivationReader &reader, const StorePath &path) {
    Frame frame{path, reader.readDerivation(path), {}};
    if (dependsOnInputs(frame.drv)) {
        for (const auto &[input, wanted] : frame.drv.inputDerivations) {
            frame.pending.push_back(input);
        }
    }
    return frame;
}

void checkEnvironment(const StoreDir &store, const Derivation &drv, const std::string &outputName,
                      const StorePath &path) {
    auto variable = drv.env.find(outputName);
    if (variable == drv.env.end() || variable->second != store.print(path)) {
        throw Error(ErrorKind::badInput,
                    "derivation '{}' has incorrect environment variable '{}', should be '{}'",
                    escapeForDisplay(drv.name, 300), outputName, store.print(path));
    }
}

void checkInputAddressedOutput(const StoreDir &store, const Derivation &drv, const std::string &name,
                               const StorePath &path, const DerivationHashes &hashes) {
    if (hashes.deferred) {
        throw Error(ErrorKind::badInput,
                    "derivation '{}' says that the path of its output '{}' is '{}', but that cannot be known "
                    "before its inputs are built",
                    escapeForDisplay(drv.name, 300), name, store.print(path));
    }
    StorePath computed = store.makeOutputPath(name, hashes.outputs.at(name), drv.name);
    if (path != computed) {
        throw Error(ErrorKind::badInput, "derivation '{}' has incorrect output '{}', should be '{}'",
                    escapeForDisplay(drv.name, 300), store.print(path), store.print(computed));
    }
}

} // namespace

std::map<std::string, Hash> DerivationHasher::outputHashes(const StorePath &drvPath) {
    return hashes(drvPath).outputs;
}

std::map<std::string, Hash> DerivationHasher::outputHashes(const Derivation &drv, bool maskOutputs) {
    return hashes(drv, maskOutputs).outputs;
}

DerivationHashes DerivationHasher::hashes(const StorePath &drvPath) {
    learn(drvPath);
    return known_.at(drvPath);
}

DerivationHashes DerivationHasher::hashes(const Derivation &drv, bool maskOutputs) {
    if (dependsOnInputs(drv)) {
        for (const auto &[input, wanted] : drv.inputDerivations) {
            learn(input);
        }
    }
    return hashWithKnownInputs(drv, maskOutputs);
}

/// Depth first with a stack of our own: real graphs are thousands of derivations deep.
void DerivationHasher::learn(const StorePath &drvPath) {
    std::vector<Frame> open;
    StorePathSet openPaths;
    auto visit = [&](const StorePath &path) {
        if (known_.contains(path)) {
            return;
        }
        if (!openPaths.insert(path).second) {
            throw Error(ErrorKind::corrupt, "the derivation '{}' depends on itself", store_.print(path));
        }
        open.push_back(openFrame(reader_, path));
    };
    visit(drvPath);
    while (!open.empty()) {
        Frame &frame = open.back();
        if (!frame.pending.empty()) {
            StorePath next = std::move(frame.pending.back());
            frame.pending.pop_back();
            visit(next); // may move what `frame` refers to
            continue;
        }
        known_.emplace(frame.path, hashWithKnownInputs(frame.drv, false));
        openPaths.erase(frame.path);
        open.pop_back();
    }
}

DerivationHashes DerivationHasher::hashWithKnownInputs(const Derivation &drv, bool maskOutputs) const {
    DerivationKind kind = derivationKind(drv);
    if (kind == DerivationKind::fixed) {
        return sameForAll(drv, hashFixedOutput(store_, drv), false);
    }
    if (kind == DerivationKind::impure) {
        return sameForAll(drv, hashString(HashAlgorithm::sha256, "impure"), true);
    }
    bool deferred = kind != DerivationKind::inputAddressed && kind != DerivationKind::deferred;
    bool ambiguous = false;
    std::map<std::string, StringSet> inputs;
    for (const auto &[path, wanted] : drv.inputDerivations) {
        const DerivationHashes &known = known_.at(path);
        deferred = deferred || known.deferred || !wanted.dynamic.empty();
        ambiguous = ambiguous || known.ambiguous || !wanted.dynamic.empty();
        for (const std::string &name : wanted.outputs) {
            auto hash = known.outputs.find(name);
            if (hash == known.outputs.end()) {
                throw Error(ErrorKind::badInput,
                            "derivation '{}' needs the output '{}' of '{}', which has none such",
                            escapeForDisplay(drv.name, 300), name, store_.print(path));
            }
            inputs[hash->second.digits(Encoding::base16)].insert(name);
        }
    }
    std::string text = writeAterm(store_, drv, {maskOutputs, &inputs});
    return sameForAll(drv, hashString(HashAlgorithm::sha256, text), deferred, ambiguous);
}

void checkDerivationOutputs(const StoreDir &store, DerivationHasher &hasher, const Derivation &drv) {
    DerivationKind kind = derivationKind(drv);
    if (kind == DerivationKind::inputAddressed) {
        DerivationHashes hashes = hasher.hashes(drv, true);
        for (const auto &[name, output] : drv.outputs) {
            const StorePath &path = std::get<InputAddressedOutput>(output).path;
            checkInputAddressedOutput(store, drv, name, path, hashes);
            checkEnvironment(store, drv, name, path);
        }
    } else if (kind == DerivationKind::fixed) { // the path was computed from the hash, so it cannot be wrong
        checkEnvironment(store, drv, "out", *outputPath(store, drv, "out"));
    }
}

} // namespace firn
