#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "libstore/build/output-tree.hh"
#include "libutil/nar.hh"

namespace firn {

/// Writes the archive of an output as it is on disk. Whoever wants to see the bytes on their way derives from
/// it: every file is read once.
class OutputNarWriter : public OutputVisitor {
  public:
    /// All must outlive the writer.
    OutputNarWriter(const OutputTree &tree, Sink &sink) : tree_(tree), writer_(sink) {}

    /// The whole archive, of the tree's root in `dir`. Throws ErrorKind::failure if a file has changed its
    /// size.
    void writeFrom(int dir);

    void enterDirectory(int self, uint32_t node) override;
    void leaveDirectory(int self, uint32_t node) override;
    void file(int dir, uint32_t node) override;
    void symlink(int dir, uint32_t node) override;

  protected:
    /// For an entry's name, before what it stands for. Not called for the root.
    virtual void seeName(uint32_t) {}
    virtual void seeTarget(uint32_t) {}
    /// The file to be read.
    virtual UniqueFd openContents(int dir, uint32_t node);
    /// Passes what was read from `fd` on, changed or not; not more than came so far, and all of it at the
    /// end. There is room for `headroom` bytes before the block.
    virtual void passBlock(int fd, uint32_t node, std::span<char> block, bool isLast);
    static constexpr size_t headroom = 4096;
    /// All contents were seen. Closes the file that openContents() gave.
    virtual void closeContents(int, uint32_t, UniqueFd) {}
    /// They will not be seen to their end. The file's directory is still open.
    virtual void abandonContents() noexcept {}

    /// What the archive says where it is not what is on disk.
    virtual std::string archivedName(uint32_t node) { return tree_.nodes[node].name; }
    virtual std::string archivedTarget(uint32_t node) { return tree_.nodes[node].target; }
    virtual void passContents(int fd, uint32_t node);
    void putContents(std::string_view bytes) { writer_.contents(bytes); }

    const OutputTree &tree_;

  private:
    void beginObject(uint32_t node);
    void endObject(uint32_t node);
    size_t readBlock(int fd, uint32_t node, size_t size);

    static constexpr size_t blockSize = 256 * 1024;
    NarWriter writer_;
    std::unique_ptr<char[]> buffer_; ///< headroom and a block
};

} // namespace firn
