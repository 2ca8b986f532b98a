// Reads any file as Mach-O: what is found must lie in it, and a look at a part must agree with a look at the
// whole.

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "libstore/darwin/code-signature.hh"
#include "libstore/darwin/macho-file.hh"
#include "libstore/darwin/macho-page-hashes.hh"
#include "tests/unit/macho-builder.hh"

namespace {

using namespace firn;
using test::MemoryBytes;

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

void requireInside(const ByteRange &inner, const ByteRange &outer) {
    require(inner.offset >= outer.offset && inner.size <= outer.size &&
            inner.offset - outer.offset <= outer.size - inner.size);
}

void checkDirectory(const CodeDirectory &directory, const MachoSlice &slice) {
    requireInside(directory.range, *slice.signature);
    require(directory.problem.empty() == (directory.state == CodeDirectory::State::judgeable));
    if (directory.state == CodeDirectory::State::malformed) {
        return;
    }
    uint64_t special = uint64_t(directory.specialSlots) * directory.hashSize;
    uint64_t code = uint64_t(directory.codeSlots) * directory.hashSize;
    requireInside({directory.hashOffset - special, special + code}, directory.range);
    requireInside({slice.range.offset, directory.codeLimit},
                  {slice.range.offset, slice.signature->offset - slice.range.offset});
}

void checkSlice(const MachoBytes &file, const MachoSlice &slice) {
    requireInside(slice.range, {0, file.size()});
    for (const auto &part : {slice.signature, slice.uuid, slice.infoPlist}) {
        if (part) {
            requireInside(*part, slice.range);
        }
    }
    CodeSignature signature = readCodeSignature(file, slice);
    if (!signature.problem.empty()) {
        return;
    }
    for (const CodeDirectory &directory : signature.directories) {
        checkDirectory(directory, slice);
    }
}

bool includes(const std::vector<uint32_t> &all, const std::vector<uint32_t> &some) {
    return std::includes(all.begin(), all.end(), some.begin(), some.end());
}

/// The same file, looked at in its middle only.
void checkPart(const MachoBytes &file, const MachoReport &whole) {
    MachoReport part = verifyPageHashes(file, std::vector<ByteRange>{{file.size() / 3, file.size() / 3}});
    require(part.slices.size() == whole.slices.size() && part.problem == whole.problem);
    for (size_t i = 0; i < whole.slices.size(); ++i) {
        const auto &some = part.slices[i].directories, &all = whole.slices[i].directories;
        require(some.size() == all.size());
        for (size_t j = 0; j < all.size(); ++j) {
            require(includes(all[j].staleCodeSlots, some[j].staleCodeSlots));
            require(includes(all[j].staleSpecialSlots, some[j].staleSpecialSlots));
        }
    }
}

void checkRepair(const std::string &bytes, const MachoReport &report) {
    PageHashFixup fixup = repairAllPageHashes(MemoryBytes(bytes));
    MachoReport repaired = verifyPageHashes(MemoryBytes(test::applied(bytes, fixup.patches)));
    require(repaired.slices.size() == report.slices.size());
    for (const SliceReport &slice : repaired.slices) {
        for (const CodeDirectoryReport &directory : slice.directories) {
            require(slice.kind == SignatureKind::cms ||
                    (directory.staleCodeSlots.empty() && directory.staleSpecialSlots.empty()));
        }
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    std::string bytes(reinterpret_cast<const char *>(data), size);
    MemoryBytes file(bytes);
    MachoFile macho = readMachoFile(file);
    require(!macho.isMacho || canBeMacho(bytes.substr(0, 4)));
    for (const MachoSlice &slice : macho.slices) {
        checkSlice(file, slice);
    }
    if (!macho.isMacho) {
        return 0;
    }
    MachoReport report = verifyPageHashes(file);
    checkPart(file, report);
    checkRepair(bytes, report);
    return 0;
}
