#include "libstore/build/output-nar.hh"

#include <algorithm>
#include <utility>

#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/platform.hh"

namespace firn {

void OutputNarWriter::writeFrom(int dir) {
    buffer_ = std::make_unique_for_overwrite<char[]>(headroom + blockSize);
    writer_.begin();
    walkOutput(dir, tree_, *this);
}

void OutputNarWriter::beginObject(uint32_t node) {
    if (node != 0) {
        seeName(node);
        writer_.beginEntry(archivedName(node));
    }
}

void OutputNarWriter::endObject(uint32_t node) {
    if (node != 0) {
        writer_.endEntry();
    }
}

void OutputNarWriter::enterDirectory(int, uint32_t node) {
    beginObject(node);
    writer_.beginDirectory();
}

void OutputNarWriter::leaveDirectory(int, uint32_t node) {
    writer_.endDirectory();
    endObject(node);
}

void OutputNarWriter::symlink(int, uint32_t node) {
    beginObject(node);
    seeTarget(node);
    writer_.symlink(archivedTarget(node));
    endObject(node);
}

void OutputNarWriter::file(int dir, uint32_t node) {
    const OutputNode &file = tree_.nodes[node];
    beginObject(node);
    writer_.beginFile(file.executable, file.size);
    try {
        UniqueFd fd = openContents(dir, node);
        passContents(fd.get(), node);
        closeContents(dir, node, std::move(fd));
    } catch (...) {
        abandonContents();
        throw;
    }
    writer_.endFile();
    endObject(node);
}

UniqueFd OutputNarWriter::openContents(int dir, uint32_t node) {
    return openFileAt(dir, tree_.nodes[node].name);
}

/// One byte more than is left is asked for, so that one read tells a small file's end.
void OutputNarWriter::passContents(int fd, uint32_t node) {
    uint64_t left = tree_.nodes[node].size;
    if (left > blockSize) {
        adviseSequential(fd, left);
    }
    for (bool ended = false; !ended;) {
        throwIfInterrupted();
        size_t wanted = std::min<uint64_t>(blockSize, left + 1);
        size_t count = readBlock(fd, node, wanted);
        if (count > left || (count == 0 && left > 0)) {
            throw Error(ErrorKind::failure, "'{}' changed its size while it was read",
                        escapeForDisplay(tree_.pathOf(node)));
        }
        left -= count;
        ended = left == 0 && count < wanted;
        passBlock(fd, node, {buffer_.get() + headroom, count}, ended);
    }
}

void OutputNarWriter::passBlock(int, uint32_t, std::span<char> block, bool) {
    putContents({block.data(), block.size()});
}

size_t OutputNarWriter::readBlock(int fd, uint32_t node, size_t size) {
    for (;;) {
        ssize_t count = read(fd, buffer_.get() + headroom, size);
        if (count >= 0) {
            return static_cast<size_t>(count);
        }
        if (errno != EINTR) {
            throwErrno("reading '{}'", escapeForDisplay(tree_.pathOf(node)));
        }
    }
}

} // namespace firn
