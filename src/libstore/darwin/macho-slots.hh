#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libstore/darwin/code-signature.hh"
#include "libstore/darwin/macho-digest.hh"
#include "libstore/darwin/macho-file.hh"

namespace firn {

/// A slice with its signature.
struct SignedSlice {
    MachoSlice macho;
    CodeSignature signature;

    bool isSigned() const { return macho.signature.has_value(); }
    /// Why no loader would take it, or empty.
    const std::string &problem() const { return macho.problem.empty() ? signature.problem : macho.problem; }
};

/// From slot `first` up to before `end`.
struct SlotRun {
    int64_t first = 0;
    int64_t end = 0;
};

/// The slots of one judgeable CodeDirectory: code slots from 0 up, special slots from −1 down.
class MachoSlots {
  public:
    /// What is passed must live as long as this.
    MachoSlots(const MachoBytes &file, const SignedSlice &slice, const CodeDirectory &directory);

    int64_t codeEnd() const { return directory_.codeSlots; }
    int64_t specialEnd() const { return -1 - int64_t(directory_.specialSlots); }

    /// The code slots over bytes of these ranges (ascending, not overlapping), as ascending runs.
    std::vector<SlotRun> codeSlotsOver(const std::vector<ByteRange> &ranges) const;
    /// The slots of both kinds whose own bytes lie in these ranges.
    std::vector<SlotRun> slotsIn(const std::vector<ByteRange> &ranges) const;

    /// What the slot is the digest of; nothing where that is not in the file.
    std::optional<ByteRange> subject(int64_t slot) const;
    /// A section of the program may be what slot −1 is about, or else a file outside.
    bool subjectIsGuessed(int64_t slot) const;

    ByteRange place(int64_t slot) const;   ///< of the slot itself, in the file
    std::string_view stored(int64_t slot); ///< what it holds; good until the next call
    bool inUse(int64_t slot);              ///< an unused special slot is zero

    std::string_view computed(const ByteRange &subject) { return digest_.of(subject); }
    bool isRight(int64_t slot, const ByteRange &subject) { return stored(slot) == computed(subject); }
    void willCompute(const SlotRun &run); ///< the code slots of this run, one after the other

  private:
    std::vector<SlotRun> runsOver(const std::vector<ByteRange> &ranges, const ByteRange &region,
                                  uint64_t each) const;

    const MachoBytes &file_;
    const SignedSlice &slice_;
    const CodeDirectory &directory_;
    MachoDigest digest_;
    std::string buffer_;
    uint64_t bufferOffset_ = 0;
};

} // namespace firn
