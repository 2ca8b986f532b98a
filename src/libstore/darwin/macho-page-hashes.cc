#include "libstore/darwin/macho-page-hashes.hh"

namespace firn {

bool canBeMacho(std::string_view) {
    return false;
}

PageHashFixup fixupPageHashes(const MachoBytes &, const MachoBytes &, const std::vector<ByteRange> &) {
    return {};
}

MachoReport verifyPageHashes(const MachoBytes &, const std::optional<std::vector<ByteRange>> &) {
    return {};
}

PageHashFixup repairAllPageHashes(const MachoBytes &) {
    return {};
}

bool MachoReport::anyStale() const {
    return false;
}

bool MachoReport::anyProblem() const {
    return false;
}

} // namespace firn
