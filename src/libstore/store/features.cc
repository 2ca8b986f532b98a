#include "libstore/store/features.hh"

#include "libutil/error.hh"

namespace firn {

namespace {

void requireFor(const Settings &settings, const ContentAddressMethod &method) {
    if (method.method == ContentMethod::git) {
        requireFeature(settings, "git-hashing");
    }
    if (method.method == ContentMethod::text) {
        requireFeature(settings, "dynamic-derivations");
    }
}

struct OutputFeatures {
    const Settings &settings;

    void operator()(const InputAddressedOutput &) const {}
    void operator()(const FixedOutput &fixed) const {
        requireFor(settings, {fixed.address.method, fixed.address.hash.algorithm()});
    }
    void operator()(const FloatingOutput &floating) const {
        requireFeature(settings, "ca-derivations");
        requireFor(settings, floating.method);
    }
    void operator()(const DeferredOutput &) const { requireFeature(settings, "ca-derivations"); }
    void operator()(const ImpureOutput &impure) const {
        requireFeature(settings, "impure-derivations");
        requireFor(settings, impure.method);
    }
};

} // namespace

void requireFeature(const Settings &settings, const std::string &feature) {
    if (!settings.experimentalFeatures.contains(feature)) {
        throw Error(ErrorKind::refused,
                    "experimental Nix feature '{0}' is disabled; add '--extra-experimental-features {0}' to "
                    "enable it",
                    feature);
    }
}

void requireFeaturesFor(const Settings &settings, const Derivation &drv) {
    for (const auto &[name, output] : drv.outputs) {
        std::visit(OutputFeatures{settings}, output);
    }
    if (drv.hasDynamicInputs()) {
        requireFeature(settings, "dynamic-derivations");
    }
}

} // namespace firn
