#include "firn/macho/report-merge.hh"

#include <algorithm>
#include <iterator>

#include "libutil/error.hh"

namespace firn {

namespace {

constexpr uint64_t mebi = 1024 * 1024;
constexpr uint64_t minPiece = 16 * mebi;
constexpr uint64_t piecesPerThread = 8;

uint64_t largestPage(const MachoReport &report) {
    uint64_t largest = 0;
    for (const SliceReport &slice : report.slices) {
        for (const CodeDirectoryReport &directory : slice.directories) {
            largest = std::max(largest, directory.pageSize == 0 ? UINT64_MAX : directory.pageSize);
        }
    }
    return largest;
}

void mergeSlots(std::vector<uint32_t> &slots, const std::vector<uint32_t> &further) {
    if (further.empty()) {
        return;
    }
    std::vector<uint32_t> all;
    std::set_union(slots.begin(), slots.end(), further.begin(), further.end(), std::back_inserter(all));
    slots = std::move(all);
}

void mergeProblem(std::string &problem, const std::string &further) {
    if (problem.empty()) {
        problem = further;
    }
}

void require(bool same) {
    if (!same) {
        throw Error(ErrorKind::failure, "it was changed while it was verified");
    }
}

void mergeDirectory(CodeDirectoryReport &directory, const CodeDirectoryReport &piece) {
    require(directory.slotType == piece.slotType && directory.range == piece.range &&
            directory.codeSlots == piece.codeSlots && directory.hashType == piece.hashType);
    mergeSlots(directory.staleCodeSlots, piece.staleCodeSlots);
    mergeSlots(directory.staleSpecialSlots, piece.staleSpecialSlots);
    mergeSlots(directory.externalSpecialSlots, piece.externalSpecialSlots);
    mergeProblem(directory.problem, piece.problem);
}

void mergeSlice(SliceReport &slice, const SliceReport &piece) {
    require(slice.range == piece.range && slice.directories.size() == piece.directories.size());
    for (size_t i = 0; i < slice.directories.size(); ++i) {
        mergeDirectory(slice.directories[i], piece.directories[i]);
    }
    mergeProblem(slice.problem, piece.problem);
}

} // namespace

std::vector<ByteRange> planPieces(const MachoReport &structure, uint64_t size, unsigned threads) {
    uint64_t piece = std::max(minPiece, size / (piecesPerThread * std::max(threads, 1u)) / mebi * mebi);
    if (threads < 2 || size < 2 * piece || largestPage(structure) > mebi) {
        return {{0, size}};
    }
    std::vector<ByteRange> pieces;
    for (uint64_t offset = 0; offset < size; offset += piece) {
        pieces.push_back({offset, std::min(piece, size - offset)});
    }
    return pieces;
}

void mergeReports(MachoReport &report, const MachoReport &piece) {
    require(report.isMacho == piece.isMacho && report.slices.size() == piece.slices.size());
    for (size_t i = 0; i < report.slices.size(); ++i) {
        mergeSlice(report.slices[i], piece.slices[i]);
    }
    mergeProblem(report.problem, piece.problem);
}

} // namespace firn
