#include "libstore/model/derivation.hh"

#include <algorithm>

#include "libutil/error.hh"

namespace firn {

namespace {

constexpr std::string_view impureMark = "impure";

const DerivationOutput &findOutput(const BasicDerivation &drv, const std::string &outputName) {
    auto output = drv.outputs.find(outputName);
    if (output == drv.outputs.end()) {
        throw Error(ErrorKind::notFound, "the derivation '{}' has no output '{}'", escapeForDisplay(drv.name),
                    escapeForDisplay(outputName));
    }
    return output->second;
}

StorePath fixedPath(const StoreDir &store, std::string_view drvName, std::string_view outputName,
                    const FixedOutput &output) {
    return makeContentAddressedPath(store, outputPathName(drvName, outputName), output.address, {});
}

DerivationKind kindOf(const DerivationOutput &output) {
    struct Visitor {
        DerivationKind operator()(const InputAddressedOutput &) { return DerivationKind::inputAddressed; }
        DerivationKind operator()(const FixedOutput &) { return DerivationKind::fixed; }
        DerivationKind operator()(const FloatingOutput &) { return DerivationKind::floating; }
        DerivationKind operator()(const DeferredOutput &) { return DerivationKind::deferred; }
        DerivationKind operator()(const ImpureOutput &) { return DerivationKind::impure; }
    };
    return std::visit(Visitor(), output);
}

[[noreturn]] void throwBadOutput(std::string_view drvName, std::string_view outputName,
                                 std::string_view reason) {
    throw Error(ErrorKind::badInput, "the output '{}' of the derivation '{}' {}",
                escapeForDisplay(outputName, 300), escapeForDisplay(drvName, 300), reason);
}

Hash parseOutputHash(const std::string &digits, HashAlgorithm algorithm) {
    if (digits.find_first_of(":-") != std::string::npos) {
        throw Error(ErrorKind::badInput, "the hash '{}' of a derivation's output must be plain digits",
                    escapeForDisplay(digits, 300));
    }
    return Hash::parse(digits, algorithm);
}

FixedOutput parseFixedOutput(const StoreDir &store, std::string_view drvName, std::string_view outputName,
                             ContentAddressMethod method, const DerivationOutputFields &fields) {
    FixedOutput output{{method.method, parseOutputHash(fields.hash, method.algorithm)}};
    std::string expected = store.print(fixedPath(store, drvName, outputName, output));
    if (fields.path != expected) {
        throwBadOutput(drvName, outputName,
                       fmt::format("says its path is '{}', but its hash makes it '{}'",
                                   escapeForDisplay(fields.path, 300), expected));
    }
    return output;
}

Hash upstreamHash(const StorePath &drvPath, std::string_view outputName) {
    if (!drvPath.isDerivation()) {
        throw Error(ErrorKind::bug, "'{}' is not a derivation", drvPath.baseName());
    }
    std::string_view drvName = drvPath.name().substr(0, drvPath.name().size() - 4);
    return hashString(HashAlgorithm::sha256, fmt::format("nix-upstream-output:{}:{}", drvPath.hashPart(),
                                                         outputPathName(drvName, outputName)));
}

bool sameAlgorithm(const BasicDerivation &drv) {
    auto algorithm = [](const auto &named) {
        return std::get<FloatingOutput>(named.second).method.algorithm;
    };
    HashAlgorithm first = algorithm(*drv.outputs.begin());
    return std::all_of(drv.outputs.begin(), drv.outputs.end(),
                       [&](const auto &named) { return algorithm(named) == first; });
}

} // namespace

bool BasicDerivation::isFixedOutput() const {
    return outputs.size() == 1 && outputs.begin()->first == "out" &&
           std::holds_alternative<FixedOutput>(outputs.begin()->second);
}

bool BasicDerivation::hasKnownOutputPaths() const {
    return std::all_of(outputs.begin(), outputs.end(), [](const auto &named) {
        DerivationKind kind = kindOf(named.second);
        return kind == DerivationKind::inputAddressed || kind == DerivationKind::fixed;
    });
}

bool BasicDerivation::isImpure() const {
    return !outputs.empty() && std::all_of(outputs.begin(), outputs.end(), [](const auto &named) {
        return std::holds_alternative<ImpureOutput>(named.second);
    });
}

bool Derivation::hasDynamicInputs() const {
    return std::ranges::any_of(inputDerivations,
                               [](const auto &input) { return !input.second.dynamic.empty(); });
}

std::vector<BuiltPath> neededOutputs(const Derivation &drv) {
    struct Pending {
        BuiltPath where;
        const InputDerivation *node;
    };
    std::vector<Pending> pending;
    for (const auto &[path, input] : drv.inputDerivations) {
        pending.push_back({{path, {}, {}}, &input});
    }
    std::vector<BuiltPath> needed;
    for (size_t i = 0; i < pending.size(); ++i) {
        BuiltPath where = pending[i].where;
        const InputDerivation &node = *pending[i].node;
        for (const auto &[name, child] : node.dynamic) {
            BuiltPath inner = where;
            inner.through.push_back(name);
            pending.push_back({std::move(inner), &child});
        }
        if (!node.outputs.empty()) {
            where.outputs = node.outputs;
            needed.push_back(std::move(where));
        }
    }
    return needed;
}

DerivationKind derivationKind(const BasicDerivation &drv) {
    if (drv.outputs.empty()) {
        throw Error(ErrorKind::badInput, "the derivation '{}' has no outputs", escapeForDisplay(drv.name));
    }
    DerivationKind kind = kindOf(drv.outputs.begin()->second);
    for (const auto &[name, output] : drv.outputs) {
        if (kindOf(output) != kind) {
            throwBadOutput(drv.name, name, "is of another kind than the first");
        }
    }
    if (kind == DerivationKind::fixed && !drv.isFixedOutput()) {
        throwBadOutput(drv.name, drv.outputs.rbegin()->first,
                       "has a fixed hash, so that it must be the only one and be called 'out'");
    }
    if (kind == DerivationKind::floating && !sameAlgorithm(drv)) {
        throwBadOutput(drv.name, drv.outputs.rbegin()->first,
                       "is content-addressed with another hash algorithm than the first");
    }
    return kind;
}

DerivationOutput parseDerivationOutput(const StoreDir &store, std::string_view drvName,
                                       std::string_view outputName, const DerivationOutputFields &fields) {
    checkStorePathName(outputName);
    checkStorePathName(outputPathName(drvName, outputName));
    if (fields.hashAlgorithm.empty()) {
        if (!fields.hash.empty()) {
            throwBadOutput(drvName, outputName, "has a hash but no hash algorithm");
        }
        if (fields.path.empty()) {
            return DeferredOutput{};
        }
        return InputAddressedOutput{store.parse(fields.path)};
    }
    ContentAddressMethod method = ContentAddressMethod::parse(fields.hashAlgorithm);
    if (!fields.hash.empty() && fields.hash != impureMark) {
        return parseFixedOutput(store, drvName, outputName, method, fields);
    }
    if (!fields.path.empty()) {
        throwBadOutput(drvName, outputName, "is content-addressed without a hash, but has a path");
    }
    if (fields.hash == impureMark) {
        return ImpureOutput{method};
    }
    return FloatingOutput{method};
}

DerivationOutputFields printDerivationOutput(const StoreDir &store, std::string_view drvName,
                                             std::string_view outputName, const DerivationOutput &output) {
    struct Visitor {
        const StoreDir &store;
        std::string_view drvName, outputName;
        DerivationOutputFields operator()(const InputAddressedOutput &known) {
            return {store.print(known.path), "", ""};
        }
        DerivationOutputFields operator()(const FixedOutput &fixed) {
            ContentAddressMethod method{fixed.address.method, fixed.address.hash.algorithm()};
            return {store.print(fixedPath(store, drvName, outputName, fixed)), method.print(),
                    fixed.address.hash.digits(Encoding::base16)};
        }
        DerivationOutputFields operator()(const FloatingOutput &floating) {
            return {"", floating.method.print(), ""};
        }
        DerivationOutputFields operator()(const DeferredOutput &) { return {}; }
        DerivationOutputFields operator()(const ImpureOutput &impure) {
            return {"", impure.method.print(), std::string(impureMark)};
        }
    };
    return std::visit(Visitor{store, drvName, outputName}, output);
}

std::optional<StorePath> outputPath(const StoreDir &store, const BasicDerivation &drv,
                                    const std::string &outputName) {
    const DerivationOutput &output = findOutput(drv, outputName);
    if (const auto *known = std::get_if<InputAddressedOutput>(&output)) {
        return known->path;
    }
    if (const auto *fixed = std::get_if<FixedOutput>(&output)) {
        return fixedPath(store, drv.name, outputName, *fixed);
    }
    return std::nullopt;
}

std::map<std::string, StorePath> outputPaths(const StoreDir &store, const BasicDerivation &drv) {
    std::map<std::string, StorePath> result;
    for (const auto &[name, output] : drv.outputs) {
        std::optional<StorePath> path = outputPath(store, drv, name);
        if (!path) {
            throw Error(ErrorKind::unsupported,
                        "the path of the output '{}' of the derivation '{}' is not known before it is built",
                        name, escapeForDisplay(drv.name));
        }
        result.emplace(name, *path);
    }
    return result;
}

StorePath derivationPath(const StoreDir &store, const Derivation &drv) {
    References references{drv.inputSources, false};
    for (const auto &[path, wanted] : drv.inputDerivations) {
        references.others.insert(path);
    }
    Hash hash = hashString(HashAlgorithm::sha256, unparseDerivation(store, drv));
    return makeContentAddressedPath(store, drv.name + ".drv", {ContentMethod::text, hash}, references);
}

std::string outputPlaceholder(std::string_view outputName) {
    std::string text = "nix-output:" + std::string(outputName);
    return "/" + hashString(HashAlgorithm::sha256, text).digits(Encoding::nix32);
}

std::string upstreamPlaceholder(const StorePath &drvPath, std::string_view outputName) {
    return upstreamPlaceholder(drvPath, {}, outputName);
}

std::string upstreamPlaceholder(const StorePath &drvPath, const std::vector<std::string> &through,
                                std::string_view outputName) {
    Hash hash = upstreamHash(drvPath, through.empty() ? outputName : through.front());
    for (size_t i = 0; i < through.size(); ++i) {
        std::string folded = encode(Encoding::nix32, compressDigest(hash.digest(), 20));
        std::string_view name = i + 1 < through.size() ? through[i + 1] : outputName;
        hash = hashString(HashAlgorithm::sha256, fmt::format("nix-computed-output:{}:{}", folded, name));
    }
    return "/" + hash.digits(Encoding::nix32);
}

} // namespace firn
