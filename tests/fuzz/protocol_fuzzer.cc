// A client's bytes, from the greeting on, against a throw-away store. Nothing is ever built, and the client
// is not trusted: a trusted one may write to places outside the store. The recorded sessions of the corpus
// name a store directory as long as the one made here.

#include <cstdlib>
#include <string>

#include <fcntl.h>

#include "libstore/protocol/session.hh"
#include "libutil/files.hh"

namespace {

using namespace firn;

class DiscardingSink : public FlushingSink {
  public:
    void write(std::string_view) override {}
    void flush() override {}
};

class NoBuilder : public BuildService {
  public:
    std::vector<BuildResult> build(BuildContext &, const std::vector<DerivedPath> &paths,
                                   BuildMode) override {
        return std::vector<BuildResult>(paths.size());
    }
    BuildResult buildOne(BuildContext &, const StorePath &, const BasicDerivation &, BuildMode) override {
        return {};
    }
};

struct ThrowAwayStore {
    std::string root = "/tmp/firn-fuzz-XXXXXX";
    Locations locations;
    ThrowAwayStore() {
        if (!mkdtemp(root.data())) {
            std::abort();
        }
        locations.storeDir = StoreDir(root + "/store");
        locations.stateDir = root + "/var";
        locations.logDir = root + "/log";
        locations.confDir = root + "/etc";
    }
    ~ThrowAwayStore() { removeTree(AT_FDCWD, root); }
};

void relocate(std::string &bytes, const std::string &root) {
    static const std::string recordedRoot = "/tmp/firn-fuzz-000000";
    for (size_t at = 0; (at = bytes.find(recordedRoot, at)) != std::string::npos; at += root.size()) {
        bytes.replace(at, recordedRoot.size(), root);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ThrowAwayStore store;
    std::string bytes(reinterpret_cast<const char *>(data), size);
    relocate(bytes, store.root);
    StringSource source(bytes);
    DiscardingSink sink;
    NoBuilder builder;
    Settings settings;
    settings.requireSigs = false;
    settings.gcReservedSpace = 0;
    settings.fsyncMetadata = false;
    try {
        serveSession(source, sink, -1, Peer{}, store.locations, settings, builder);
    } catch (const Error &error) {
        if (error.kind() == ErrorKind::bug) {
            std::abort();
        }
    }
    return 0;
}
