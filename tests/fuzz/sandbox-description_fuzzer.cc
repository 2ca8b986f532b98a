// Whatever decodes is written again and must come out the same: there is one encoding for each description.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "sandbox-init/description.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    std::string_view bytes(reinterpret_cast<const char *>(data), size);
    auto description = firn::sandbox::decodeDescription(bytes);
    if (description && firn::sandbox::encodeDescription(*description) != bytes) {
        abort();
    }
    return 0;
}
