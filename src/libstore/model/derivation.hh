#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libstore/model/content-address.hh"
#include "libstore/model/derived-path.hh"
#include "libstore/model/store-path.hh"

namespace firn {

using StringMap = std::map<std::string, std::string>;
using StringSet = std::set<std::string>;

/// How the path of a derivation's output is known.
struct InputAddressedOutput {
    StorePath path;
    auto operator<=>(const InputAddressedOutput &) const = default;
};
struct FixedOutput {
    ContentAddress address;
    auto operator<=>(const FixedOutput &) const = default;
};
struct FloatingOutput {
    ContentAddressMethod method;
    auto operator<=>(const FloatingOutput &) const = default;
};
/// Input-addressed, but its inputs' paths are not known yet.
struct DeferredOutput {
    auto operator<=>(const DeferredOutput &) const = default;
};
struct ImpureOutput {
    ContentAddressMethod method;
    auto operator<=>(const ImpureOutput &) const = default;
};
using DerivationOutput =
    std::variant<InputAddressedOutput, FixedOutput, FloatingOutput, DeferredOutput, ImpureOutput>;

/// Output names wanted of an input derivation, and (dynamic derivations) of derivations that those outputs
/// are.
struct InputDerivation {
    StringSet outputs;
    std::map<std::string, InputDerivation> dynamic;
    bool operator==(const InputDerivation &) const = default;
};

/// Everything of a derivation but its inputs' derivations: what a builder needs, and what BuildDerivation
/// carries.
struct BasicDerivation {
    std::string name; ///< without ".drv"
    std::map<std::string, DerivationOutput> outputs;
    StorePathSet inputSources;
    std::string platform;
    std::string builder;
    std::vector<std::string> args;
    StringMap env;

    bool isBuiltin() const { return builder.starts_with("builtin:"); }
    bool isFixedOutput() const;       ///< one output "out", fixed
    bool hasKnownOutputPaths() const; ///< all input-addressed or fixed
    bool isImpure() const;            ///< all outputs are
    /// Whether the builder may use the network: its result is checked, or anything goes.
    bool mayUseNetwork() const { return isFixedOutput() || isImpure(); }
};

struct Derivation : BasicDerivation {
    std::map<StorePath, InputDerivation> inputDerivations;

    /// Whether outputs are wanted of derivations that have to be made first.
    bool hasDynamicInputs() const;
};

/// The outputs that a derivation needs of others, one entry for each derivation of which any is needed.
std::vector<BuiltPath> neededOutputs(const Derivation &drv);

/// What all outputs of a derivation have in common.
enum class DerivationKind { inputAddressed, fixed, floating, deferred, impure };

/// Throws badInput where there is no output, where kinds are mixed, where there are several fixed outputs or
/// one that is not called "out", or where floating outputs use different hash algorithms.
DerivationKind derivationKind(const BasicDerivation &drv);

/// An output as three strings, as in ATerm and in BuildDerivation: input-addressed (path, "", ""), fixed
/// (path, "r:sha256", base-16), floating ("", "r:sha256", ""), deferred ("", "", ""), impure ("", "r:sha256",
/// "impure").
struct DerivationOutputFields {
    std::string path, hashAlgorithm, hash;
};
/// Throws badInput for any other combination, and for a fixed output whose path is not the one its hash
/// gives.
DerivationOutput parseDerivationOutput(const StoreDir &store, std::string_view drvName,
                                       std::string_view outputName, const DerivationOutputFields &fields);
DerivationOutputFields printDerivationOutput(const StoreDir &store, std::string_view drvName,
                                             std::string_view outputName, const DerivationOutput &output);

/// Path of an output where it can be known without building; for fixed outputs computed from the address.
/// Throws notFound where the derivation has no such output.
std::optional<StorePath> outputPath(const StoreDir &store, const BasicDerivation &drv,
                                    const std::string &outputName);
/// Of all outputs; throws ErrorKind::unsupported naming the first that is not known.
std::map<std::string, StorePath> outputPaths(const StoreDir &store, const BasicDerivation &drv);

/// ATerm: `Derive([outputs],[inputDrvs],[inputSrcs],"platform","builder",[args],[env])`, or
/// `DrvWithVersion("xp-dyn-drv",…)`. Byte-exact in both directions for what Nix writes. `name` is the name
/// without ".drv". Bounded (64 MiB, maxDynamicDepth, 65536 nodes below it), iterative. Lists that are sets
/// need not be sorted, but nothing may be there twice. Throws badInput.
Derivation parseDerivation(const StoreDir &store, std::string_view text, std::string_view name);
std::string unparseDerivation(const StoreDir &store, const Derivation &drv);

/// Path of the .drv file that holds this derivation (text method, references: sources and input derivations).
StorePath derivationPath(const StoreDir &store, const Derivation &drv);

/// Gives the derivation at a path, for hashing its dependants.
class DerivationReader {
  public:
    virtual ~DerivationReader() = default;
    virtual Derivation readDerivation(const StorePath &drvPath) = 0;
};

/// Hash modulo fixed outputs per output name; for regular derivations the same for all.
struct DerivationHashes {
    std::map<std::string, Hash> outputs;
    /// Something below is content-addressed, impure or dynamic, so that these hashes change when it is built:
    /// no output path may be made of them (identifiers of realisations may).
    bool deferred = false;
    /// Something below, or the derivation itself, has dynamic inputs. These do not go into the hash (as in
    /// Nix 2.34), so that derivations with different ones may share it.
    bool ambiguous = false;
};

/// Hashes of derivations modulo fixed outputs, remembered per derivation path. Iterative over the graph. Not
/// thread-safe. Inputs of fixed-output and impure derivations are not read. Throws badInput for an input
/// whose derivation has no such output, corrupt for a cycle, and what the reader throws.
///
/// Dependants use the hash of the unmasked derivation (outputHashes(drvPath)); output paths and the
/// identifiers of realisations use the masked one (outputHashes(drv, true)).
class DerivationHasher {
  public:
    DerivationHasher(const StoreDir &store, DerivationReader &reader) : store_(store), reader_(reader) {}
    /// Hash per output name; for regular ones the same for all. `deferred` outputs give hashes that must not
    /// be used as final.
    std::map<std::string, Hash> outputHashes(const StorePath &drvPath);
    DerivationHashes hashes(const StorePath &drvPath);
    /// The same for a derivation at hand. `maskOutputs` blanks the output paths (as when they are being
    /// computed).
    std::map<std::string, Hash> outputHashes(const Derivation &drv, bool maskOutputs);
    DerivationHashes hashes(const Derivation &drv, bool maskOutputs);

  private:
    void learn(const StorePath &drvPath);
    DerivationHashes hashWithKnownInputs(const Derivation &drv, bool maskOutputs) const;

    const StoreDir &store_;
    DerivationReader &reader_;
    std::map<StorePath, DerivationHashes> known_;
};

/// Throws badInput unless every input-addressed and fixed output path is what the derivation's hash says, and
/// env agrees (a .drv that lies about its outputs must not be built for an untrusted client).
void checkDerivationOutputs(const StoreDir &store, DerivationHasher &hasher, const Derivation &drv);

/// "/" + base-32 of sha256 of "nix-output:<name>": stands for an output whose path is not known yet.
std::string outputPlaceholder(std::string_view outputName);
/// "/" + base-32 of sha256 of "nix-upstream-output:<hash part>:<output path name>": stands, in a dependant,
/// for an output of `drvPath` whose path is not known yet.
std::string upstreamPlaceholder(const StorePath &drvPath, std::string_view outputName);
/// The same for an output of a derivation that is made (see BuiltPath::through): each step is "/" + base-32
/// of sha256 of "nix-computed-output:<hash of the placeholder before it, folded to 20 bytes>:<output>".
std::string upstreamPlaceholder(const StorePath &drvPath, const std::vector<std::string> &through,
                                std::string_view outputName);

} // namespace firn
