#pragma once

#include <map>
#include <stdexcept>

#include "libstore/model/derivation.hh"
#include "libutil/error.hh"
#include "model-vectors.hh"

// What the tests of the model have in common: stock Nix's derivations as a store to read from.

namespace firn::vectors {

inline const StoreDir &store() {
    static const StoreDir dir{std::string(storeDir)};
    return dir;
}

inline StorePathSet parsePaths(std::string_view words) {
    StorePathSet paths;
    while (!words.empty()) {
        size_t end = std::min(words.find(' '), words.size());
        paths.insert(store().parse(words.substr(0, end)));
        words.remove_prefix(std::min(end + 1, words.size()));
    }
    return paths;
}

inline const DerivationVector &derivationVector(std::string_view name) {
    for (const DerivationVector &vector : derivationVectors) {
        if (vector.name == name) {
            return vector;
        }
    }
    throw std::out_of_range(std::string(name));
}

inline Derivation parseVector(const DerivationVector &vector) {
    StorePath path = store().parse(vector.path);
    return parseDerivation(store(), vector.text, path.name().substr(0, path.name().size() - 4));
}

class VectorReader : public DerivationReader {
  public:
    Derivation readDerivation(const StorePath &drvPath) override {
        ++reads[drvPath];
        for (const DerivationVector &vector : derivationVectors) {
            if (vector.path == store().print(drvPath)) {
                return parseVector(vector);
            }
        }
        throw Error(ErrorKind::notFound, "there is no '{}'", drvPath.baseName());
    }
    std::map<StorePath, int> reads;
};

} // namespace firn::vectors
