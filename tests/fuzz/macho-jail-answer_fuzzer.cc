// What the Mach-O jail says, as the daemon reads it: a header, then a body about a file whose size comes
// first. Whatever decodes is written again and must come out the same, and patches only what lies in the
// file.

#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "libstore/build/macho-jail-protocol.hh"

namespace {

void requirePlaces(const std::vector<firn::BytePatch> &patches, uint64_t fileSize) {
    uint64_t end = 0;
    for (const firn::BytePatch &patch : patches) {
        if (patch.offset < end || patch.bytes.empty() || patch.bytes.size() > firn::jail::maxSlotSize ||
            patch.offset + patch.bytes.size() > fileSize) {
            abort();
        }
        end = patch.offset + patch.bytes.size();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    using namespace firn;
    std::string_view bytes(reinterpret_cast<const char *>(data), size);
    uint64_t fileSize = 0;
    if (size < sizeof fileSize + jail::headerSize) {
        return 0;
    }
    for (size_t i = 0; i < sizeof fileSize; ++i) {
        fileSize |= uint64_t{data[i]} << 8 * i;
    }
    bytes.remove_prefix(sizeof fileSize);
    auto header = jail::decodeHeader(bytes.substr(0, jail::headerSize));
    if (header && jail::encodeHeader(*header) != bytes.substr(0, jail::headerSize)) {
        abort();
    }
    bytes.remove_prefix(jail::headerSize);
    auto answer = jail::decodeAnswer(bytes, fileSize);
    if (!answer) {
        return 0;
    }
    if (jail::encodeAnswer(*answer).substr(jail::headerSize) != bytes) {
        abort();
    }
    requirePlaces(answer->fixup.patches, fileSize);
    requirePlaces(answer->form.patches, fileSize);
    return 0;
}
