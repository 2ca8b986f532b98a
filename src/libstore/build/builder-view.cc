#include "libstore/build/builder-view.hh"

#include <algorithm>

#include "libstore/build/builtin-builder.hh"
#include "libstore/build/helper-program.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

/// The inputs, and the sandbox paths with what those need from the store.
void addInputs(const BuilderView &view, SandboxSpec &spec) {
    StorePathSet visible = view.plan.inputClosure, extra;
    for (const std::string &word : view.settings.sandboxPaths) {
        SandboxPath path = parseSandboxPath(word);
        if (path.source.starts_with(view.store.dir().str() + "/")) {
            StorePath inStore = view.store.dir().parsePrefix(path.source).first;
            if (view.store.isValidPath(inStore)) {
                extra.insert(inStore);
            }
        }
        bool isInput = path.target == path.source && view.store.dir().tryParse(path.target).has_value();
        if (!isInput) {
            spec.sandboxPaths.push_back(std::move(path));
        }
    }
    visible.merge(view.store.computeClosure(extra));
    // A check of what sandbox paths show makes it anew, in its place.
    for (const auto &[name, output] : view.plan.outputs) {
        if (output.path) {
            visible.erase(*output.path);
        }
    }
    for (const StorePath &path : visible) {
        std::string text = view.store.dir().print(path);
        spec.inputs.push_back({text, text});
    }
}

/// Files of the host that the derivation asks for, as far as the settings allow those or what lies above
/// them.
void addHostDependencies(const BuilderView &view, SandboxSpec &spec) {
    for (const std::string &path : view.plan.options.impureHostDeps) {
        SandboxPath wanted = parseSandboxPath(path);
        bool allowed = wanted.source == path &&
                       std::ranges::any_of(view.settings.impureHostDeps, [&](const auto &prefix) {
                           return path == prefix || path.starts_with(prefix + "/");
                       });
        if (!allowed) {
            throw Error(
                ErrorKind::refused,
                "derivation '{}' requested impure path '{}', but it was not in allowed-impure-host-deps",
                view.store.dir().print(view.plan.drvPath), escapeForDisplay(path));
        }
        spec.sandboxPaths.push_back(std::move(wanted));
    }
}

void addBuiltinProgram(const BuilderView &view, SandboxSpec &spec) {
    if (view.plan.derivation.isBuiltin()) {
        std::vector<SandboxPath> files = findBuiltinProgram(builtinBuilderProgram()).sandboxPaths();
        spec.sandboxPaths.insert(spec.sandboxPaths.end(), files.begin(), files.end());
    }
}

} // namespace

void showToBuilder(const BuilderView &view, SandboxSpec &spec) {
    addInputs(view, spec);
    addHostDependencies(view, spec);
    addBuiltinProgram(view, spec);
}

} // namespace firn
