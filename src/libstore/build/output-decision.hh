#pragma once

#include "libstore/build/new-output.hh"
#include "libstore/model/content-address.hh"

namespace firn {

/// Final paths of all outputs of the request, by scratch path; and what that means for the bytes.
struct Decision {
    std::map<std::string, StorePath> finalPaths;     ///< by output name
    std::map<std::string, ContentAddress> addresses; ///< of floating outputs, by output name
    std::map<StorePath, StorePath> finalByScratch;
    Rewrites rewrites;
    std::map<std::string, AddressForms> forms; ///< of floating outputs, as far as they were asked for

    /// Whether an output's address is by the rule of doc/content-addressed-macho.md.
    bool hasOwnAddress(const std::string &outputName) const {
        auto found = forms.find(outputName);
        return found != forms.end() && !found->second.normal.empty();
    }
};

/// From here on it is known which bytes will be in the store: fills in the outputs' changes. Each output
/// comes after those it refers to. Final paths that are computed become temporary roots.
Decision decideOutputs(const RegistrationContext &context, const ScanTargets &targets, OutputRepair &repair,
                       NewOutputs &outputs);

/// What will be decided, where it is known before anything is read: final paths do not depend on contents.
/// None where nothing has to be rewritten, either.
std::optional<Decision> decideBeforeScan(const RegistrationContext &context, const ScanTargets &targets);

/// What an output that was scanned like this will refer to.
StorePathSet finalReferences(const ScanTargets &targets, const Decision &decision, const ScanResult &scan);

} // namespace firn
