#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "libstore/build/output-copy.hh"
#include "libstore/build/output-nar.hh"
#include "libstore/build/output-scan.hh"
#include "libstore/build/pipelined-sink.hh"
#include "libutil/hash.hh"

// What scanOutput() is made of: the scan itself, and what is done to an output in which it is known
// beforehand what occurrences become.

namespace firn {

/// The archive's hashes; given up once it is known that the archive will be another.
class ArchiveHashes : public Sink {
  public:
    explicit ArchiveHashes(const std::optional<HashAlgorithm> &further);
    void write(std::string_view bytes) override;
    void giveUp() { givenUp_ = true; }
    bool isGivenUp() const { return givenUp_; }
    void finish(ScanResult &result);

  private:
    HashSink sha256_{HashAlgorithm::sha256};
    PipelinedSink pipeline_{sha256_};
    std::optional<HashSink> further_;
    bool givenUp_ = false;
};

/// Reads an output, notes what occurs in it, and changes nothing but inodes.
class OutputScanner : public OutputNarWriter {
  public:
    /// All must outlive it.
    OutputScanner(const OutputTree &tree, const ScanOptions &options, ArchiveHashes &hashes);

    ScanResult scan(int dir);

    void leaveDirectory(int self, uint32_t node) override;

  protected:
    void seeName(uint32_t node) override;
    void seeTarget(uint32_t node) override;
    UniqueFd openContents(int dir, uint32_t node) override;
    void passBlock(int fd, uint32_t node, std::span<char> block, bool isLast) override;
    void closeContents(int dir, uint32_t node, UniqueFd file) override;
    void abandonContents() noexcept override { replacement_.reset(); }

    /// The first occurrence in the contents of a file that may be rewritten; others may yet change some of
    /// its last `changing` bytes.
    virtual void onTouched(TouchedNode &touched, uint64_t changing);
    /// Every one.
    virtual void onOccurrence(const PartHit &) {}

    bool isToBeRenewed(uint32_t node) const { return options_.renewFiles || tree_.nodes[node].linkedOutside; }
    void see(uint32_t node, std::string_view block);
    void startReplacement(int dir, uint32_t node);

    const ScanOptions &options_;
    ArchiveHashes &hashes_;
    ScanResult result_;
    std::optional<ReplacementFile> replacement_;
    bool copying_ = false; ///< what is read has to be written to the replacement

  private:
    TouchedNode &touch(uint32_t node);
    void noteOccurrence(const PartHit &hit);
    void noteHead(uint32_t node, std::string_view bytes);
    std::vector<PartHit> findIn(const std::string &text);

    std::optional<HashSink> contentsHash_;

    ReferenceScanner scanner_;
    uint32_t file_ = 0; ///< being scanned
    FileHead head_;     ///< its first bytes, as far as they came
    size_t headSize_ = 0;
    bool untouched_ = false;  ///< no occurrence in it may be rewritten, so far
    uint64_t takenUntil_ = 0; ///< end of the last occurrence in it that may be rewritten
    size_t kept_ = 0;         ///< occurrences in all contents

    UnlockedDirectories renewing_; ///< where files were put on new inodes
};

/// Rewrites files while it reads them, as long as all of the archive can be known.
class RewritingScanner : public OutputScanner {
  public:
    using OutputScanner::OutputScanner;

  protected:
    UniqueFd openContents(int dir, uint32_t node) override;
    void passBlock(int fd, uint32_t node, std::span<char> block, bool isLast) override;
    void onTouched(TouchedNode &touched, uint64_t changing) override;
    void onOccurrence(const PartHit &hit) override { pending_.push_back(hit); }

  private:
    /// Whether the new inode gets the old bytes first, for repairFile() to see just what will be patched.
    bool keepsOld() const { return renews_ && waitFrom_ != never; }
    void writeOld(std::span<char> bytes);
    void advance(int fd, uint32_t node, std::span<char> bytes, bool isLast);
    void rewriteIn(int fd, uint32_t node, std::span<char> bytes);
    void beginRewriting(int fd, uint32_t node);
    void passRest(int fd, uint32_t node);
    void takeBack(int fd, TouchedNode &touched);

    // An occurrence may begin in the last bytes that came, and is not known before the next ones, so some are
    // kept back: a page of them, as the new file is best written in whole pages.
    static_assert(headroom >= HashPartSet::length - 1);
    static constexpr uint64_t never = UINT64_MAX;

    int fileDir_ = -1;       ///< of the file that is read
    bool rewriting_ = false; ///< in it, should anything be found
    bool renews_ = false;    ///< it is written to a new inode anyway
    bool begun_ = false;     ///< something was
    std::array<char, headroom> back_;
    size_t backSize_ = 0;
    uint64_t seen_ = 0, passed_ = 0; ///< bytes of the file; what was passed is on its way as it will be
    std::vector<PartHit> pending_;   ///< in the block that was seen last, or reaching into it
    /// Where the part begins that is not passed on before everything is known about the file.
    uint64_t waitFrom_ = never;
    bool waiting_ = false; ///< that part is reached
};

} // namespace firn
