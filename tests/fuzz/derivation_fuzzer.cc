#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "libstore/model/derivation-options.hh"
#include "libstore/model/derivation.hh"
#include "libutil/error.hh"

// What is read is written in one form only, and that form reads back to itself.

using namespace firn;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const StoreDir store("/tmp/firn-vectors/store"); // as in the corpus
    Derivation drv;
    try {
        drv = parseDerivation(store, {reinterpret_cast<const char *>(data), size}, "fuzz");
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::badInput) {
            abort();
        }
        return 0;
    }
    std::string canonical = unparseDerivation(store, drv);
    if (unparseDerivation(store, parseDerivation(store, canonical, "fuzz")) != canonical) {
        abort();
    }
    try {
        readDerivationOptions(drv);
        derivationPath(store, drv);
    } catch (const Error &error) {
        if (error.kind() != ErrorKind::badInput) {
            abort();
        }
    }
    return 0;
}
