#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libstore/model/content-address.hh"
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
};

struct Derivation : BasicDerivation {
    std::map<StorePath, InputDerivation> inputDerivations;
};

/// Path of an output where it can be known without building; for fixed outputs computed from the address.
std::optional<StorePath> outputPath(const StoreDir &store, const BasicDerivation &drv,
                                    const std::string &outputName);
/// Of all outputs; throws ErrorKind::unsupported naming the first that is not known.
std::map<std::string, StorePath> outputPaths(const StoreDir &store, const BasicDerivation &drv);

/// ATerm: `Derive([outputs],[inputDrvs],[inputSrcs],"platform","builder",[args],[env])`, or
/// `DrvWithVersion("xp-dyn-drv",…)`. Byte-exact in both directions for what Nix writes. `name` is the name
/// without ".drv". Bounded, iterative. Throws badInput.
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

/// Hashes of derivations modulo fixed outputs, remembered per derivation path. Iterative over the graph. Not
/// thread-safe.
class DerivationHasher {
  public:
    DerivationHasher(const StoreDir &store, DerivationReader &reader) : store_(store), reader_(reader) {}
    /// Hash per output name; for regular ones the same for all. `deferred` outputs give hashes that must not
    /// be used as final.
    std::map<std::string, Hash> outputHashes(const StorePath &drvPath);
    /// The same for a derivation at hand. `maskOutputs` blanks the output paths (as when they are being
    /// computed).
    std::map<std::string, Hash> outputHashes(const Derivation &drv, bool maskOutputs);

  private:
    const StoreDir &store_;
    DerivationReader &reader_;
    std::map<StorePath, std::map<std::string, Hash>> known_;
};

/// Throws badInput unless every input-addressed and fixed output path is what the derivation's hash says, and
/// env agrees (a .drv that lies about its outputs must not be built for an untrusted client).
void checkDerivationOutputs(const StoreDir &store, DerivationHasher &hasher, const Derivation &drv);

/// "/" + base-32 of sha256 of "nix-output:<name>": stands for an output whose path is not known yet.
std::string outputPlaceholder(std::string_view outputName);

} // namespace firn
