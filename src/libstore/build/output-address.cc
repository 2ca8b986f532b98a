#include "libstore/build/output-address.hh"

#include "libstore/build/patched-nar.hh"
#include "libstore/store/hash-modulo.hh"
#include "libutil/git-hash.hh"

namespace firn {

namespace {

bool isPlainFile(ContentMethod method) {
    return method == ContentMethod::flat || method == ContentMethod::text;
}

Hash hashAsScanned(const ScanResult &scan, const ContentAddressMethod &method) {
    if (isPlainFile(method.method)) {
        return scan.contentsHash.value();
    }
    return scan.archiveHash ? *scan.archiveHash : scan.nar.value().hash;
}

/// Nothing is rewritten in such an output (see requireGitObject()).
Hash hashAsGit(const FloatingContent &content, const ContentAddressMethod &method) {
    return hashGitObject(content.dir, content.tree.root().name, method.algorithm);
}

/// `content` must outlive it.
HashModulo hashModuloSelf(const FloatingContent &content, const ContentAddressMethod &method,
                          std::string_view mark = {}) {
    return {method.algorithm, content.selfPart,
            [&content, plain = isPlainFile(method.method)](Sink &sink) {
                auto write = plain ? writePatchedFile : writePatchedNar;
                write(content.dir, content.tree, content.changes, content.rewrites, sink);
            },
            mark};
}

} // namespace

void askForContentHash(ScanOptions &options, const ContentAddressMethod &method) {
    if (isPlainFile(method.method)) {
        options.contentsHash = method.algorithm;
    } else if (method.method == ContentMethod::nar && method.algorithm != HashAlgorithm::sha256) {
        options.archiveHash = method.algorithm;
    }
}

Hash hashFloatingContent(const FloatingContent &content, const ContentAddressMethod &method) {
    if (method.method == ContentMethod::git) {
        return hashAsGit(content, method);
    }
    return content.changes.empty() ? hashAsScanned(content.scan, method)
                                   : hashModuloSelf(content, method).zeros();
}

Hash hashFloatingContentByOlderRule(const FloatingContent &content, const ContentAddressMethod &method) {
    if (method.method == ContentMethod::git) {
        return hashAsGit(content, method);
    }
    return content.changes.empty() ? hashAsScanned(content.scan, method)
                                   : hashModuloSelf(content, method).zerosThenOffsets();
}

Hash hashNormalForm(const FloatingContent &content, const ContentAddressMethod &method) {
    return hashModuloSelf(content, method, normalFormMark).zerosThenOffsets();
}

} // namespace firn
