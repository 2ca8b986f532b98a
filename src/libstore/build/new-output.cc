#include "libstore/build/new-output.hh"

namespace firn {

void rejectOutput(const std::string &message) {
    throw BuildFailure(BuildResult::Status::outputRejected, message);
}

uint32_t ScanTargets::add(const StorePath &path, bool mayBeRewritten) {
    uint32_t part = parts.add(path.hashPart());
    if (part == paths.size()) {
        paths.push_back(path);
        rewritable.push_back(mayBeRewritten);
    }
    return part;
}

ScanTargets scanTargets(const RegistrationContext &context) {
    ScanTargets targets;
    for (const auto &[name, output] : context.request.outputs) {
        targets.add(output.scratchPath, output.finalPath != output.scratchPath);
    }
    for (const auto &[name, output] : context.request.outputs) {
        if (output.finalPath) {
            targets.add(*output.finalPath, false);
        }
    }
    for (const StorePath &path : context.request.possibleReferences) {
        targets.add(path, false);
    }
    return targets;
}

void mergeRepairs(const NewOutput &output, std::vector<NodePatches> &changes,
                  std::vector<FilePatches> repairs) {
    std::map<std::string, NodePatches *> byPath;
    for (NodePatches &change : changes) {
        if (change.changesContents()) {
            byPath.emplace(output.tree.pathOf(change.node), &change);
        }
    }
    for (FilePatches &file : repairs) {
        auto found = byPath.find(file.path);
        if (found == byPath.end()) {
            throw Error(ErrorKind::refused,
                        "the repair of output '{}' wants to patch '{}', which no rewrite touches",
                        output.name, escapeForDisplay(file.path));
        }
        NodePatches &change = *found->second;
        mergePatches(change.contents, std::move(file.patches), output.tree.nodes[change.node].size,
                     file.path);
    }
}

std::optional<ContentAddressMethod> floatingMethod(const NewOutput &output) {
    if (const auto *floating = std::get_if<FloatingOutput>(output.specification)) {
        return floating->method;
    }
    if (const auto *impure = std::get_if<ImpureOutput>(output.specification)) {
        return impure->method;
    }
    return std::nullopt;
}

void requirePlainFile(const RegistrationContext &context, const NewOutput &output, ContentMethod method) {
    const OutputNode &root = output.tree.root();
    if (root.type != OutputNode::Type::regular || root.executable) {
        rejectOutput(fmt::format(
            "output path '{}' should be a non-executable regular file since recursive hashing "
            "is not enabled (outputHashMode={})",
            context.print(output.scratch->scratchPath), method == ContentMethod::text ? "text" : "flat"));
    }
}

void requireGitObject(const RegistrationContext &context, const NewOutput &output) {
    std::string path = context.print(output.scratch->scratchPath);
    const OutputNode &root = output.tree.root();
    if (root.type == OutputNode::Type::symlink || root.executable) {
        rejectOutput(fmt::format("output path '{}' should be a directory or a non-executable regular file: a "
                                 "git hash does not tell the latter from {} (outputHashMode=git)",
                                 path, root.executable ? "an executable one" : "a symlink"));
    }
    if (!output.scan.touched.empty()) {
        rejectOutput(fmt::format("output path '{}' holds its own path or that of another output, so that it "
                                 "cannot have a git hash (outputHashMode=git)",
                                 path));
    }
}

bool pathFollowsFromContent(const DerivationOutput &output) {
    return !std::holds_alternative<InputAddressedOutput>(output) &&
           !std::holds_alternative<DeferredOutput>(output);
}

bool discardsReferences(const RegistrationContext &context, const std::string &outputName) {
    auto discard = context.options.unsafeDiscardReferences.find(outputName);
    return discard != context.options.unsafeDiscardReferences.end() && discard->second;
}

} // namespace firn
