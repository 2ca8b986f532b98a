#include "libstore/build/output-address.hh"

#include "libstore/build/patched-nar.hh"
#include "libutil/error.hh"

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

} // namespace

void askForContentHash(ScanOptions &options, const ContentAddressMethod &method) {
    if (isPlainFile(method.method)) {
        options.contentsHash = method.algorithm;
    } else if (method.algorithm != HashAlgorithm::sha256) {
        options.archiveHash = method.algorithm;
    }
}

ModuloHashes hashFloatingContent(const FloatingContent &content, const ContentAddressMethod &method,
                                 std::string_view mark) {
    if (method.method == ContentMethod::git) {
        throw Error(ErrorKind::unsupported, "outputs with git hashes are not supported yet");
    }
    if (content.changes.empty()) {
        Hash hash = hashAsScanned(content.scan, method);
        return {hash, hash};
    }
    HashModuloSink sink(method.algorithm, content.selfPart);
    if (isPlainFile(method.method)) {
        writePatchedFile(content.dir, content.tree, content.changes, content.rewrites, sink);
    } else {
        writePatchedNar(content.dir, content.tree, content.changes, content.rewrites, sink);
    }
    return sink.finish(mark);
}

} // namespace firn
