// What firn-builtin parses of its own: its request, and the list of a profile's packages.

#include "builtin/attributes.hh"
#include "builtin/packages.hh"
#include "libutil/error.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    using namespace firn::builtin;
    std::string_view bytes(reinterpret_cast<const char *>(data), size);
    try {
        auto attributes = parseAttributes(bytes);
        auto derivations = attributes.find("derivations");
        if (derivations != attributes.end()) {
            auto packages = parsePackages(derivations->second);
            if (packages.size() > bytes.size()) {
                __builtin_trap();
            }
        }
    } catch (const firn::Error &) {
    }
    return 0;
}
