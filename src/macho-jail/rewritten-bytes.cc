#include "macho-jail/rewritten-bytes.hh"

#include <algorithm>
#include <cstring>

#include "libutil/positioned-io.hh"

namespace firn::jail {

void FileBytes::read(uint64_t offset, char *buffer, size_t size) const {
    if (size > blockSize || offset > size_ || size > size_ - offset) {
        readFullAt(fd_, offset, buffer, size);
        return;
    }
    while (size > 0) {
        size_t inside = offset % blockSize, count = std::min(size, blockSize - inside);
        memcpy(buffer, block(offset / blockSize) + inside, count);
        buffer += count;
        size -= count;
        offset += count;
    }
}

/// Good until the next call.
const char *FileBytes::block(uint64_t index) const {
    if (!kept_) {
        kept_.reset(new char[blocks * blockSize]);
    }
    char *place = kept_.get() + index % blocks * blockSize;
    uint64_t &number = numbers_[index % blocks];
    if (number != index + 1) {
        number = 0; // should reading fail
        readFullAt(fd_, index * blockSize, place, std::min<uint64_t>(blockSize, size_ - index * blockSize));
        number = index + 1;
    }
    return place;
}

void PatchedBytes::read(uint64_t offset, char *buffer, size_t size) const {
    base_.read(offset, buffer, size);
    auto endsBehind = [](uint64_t place, const Patch &patch) { return place < patch.end(); };
    auto first = std::upper_bound(patches_.begin(), patches_.end(), offset, endsBehind);
    overlayPatches(patches_, static_cast<size_t>(first - patches_.begin()), buffer, size, offset);
}

namespace {
constexpr uint64_t margin = HashPartSet::length - 1;
}

RewrittenBytes::RewrittenBytes(const MachoBytes &base, const std::vector<RewriteRule> &rules) : base_(base) {
    for (const RewriteRule &rule : rules) {
        if (parts_.add(rule.from) == replacements_.size()) {
            replacements_.push_back(rule.to);
        }
    }
    uint64_t blocks = base.size() / blockSize + 1;
    reach_.assign(blocks + 1, 0);
    for (uint64_t i = 0; i < blocks; ++i) {
        reach_[i + 1] = load(i);
    }
}

void RewrittenBytes::read(uint64_t offset, char *buffer, size_t size) const {
    while (size > 0) {
        uint64_t index = offset / blockSize;
        if (index != loaded_) {
            load(index);
        }
        size_t from = offset % blockSize, count = std::min(size, blockSize - from);
        memcpy(buffer, block_.data() + from, count);
        buffer += count;
        size -= count;
        offset += count;
    }
}

uint8_t RewrittenBytes::load(uint64_t index) const {
    uint64_t begin = index * blockSize, end = std::min(begin + blockSize, base_.size());
    uint64_t windowBegin = begin - std::min(begin, margin);
    uint64_t windowEnd = std::min(end + margin, base_.size());
    loaded_ = UINT64_MAX; // should reading fail
    window_.resize(windowEnd - windowBegin);
    base_.read(windowBegin, window_.data(), window_.size());
    auto blockBegin = window_.begin() + static_cast<ptrdiff_t>(begin - windowBegin);
    block_.assign(blockBegin, blockBegin + static_cast<ptrdiff_t>(end - begin));

    uint64_t takenUntil = begin + reach_[index];
    parts_.scan({window_.data(), window_.size()}, windowBegin, [&](const PartHit &hit) {
        bool reachesIn = hit.offset < begin && hit.offset + HashPartSet::length == takenUntil;
        if (reachesIn) {
            replace(hit, begin, block_.size());
        } else if (hit.offset >= takenUntil && hit.offset < end) {
            takenUntil = hit.offset + HashPartSet::length;
            replace(hit, begin, block_.size());
        }
    });
    loaded_ = index;
    return static_cast<uint8_t>(takenUntil > end ? takenUntil - end : 0);
}

/// The part of it that lies in the block.
void RewrittenBytes::replace(const PartHit &hit, uint64_t begin, size_t size) const {
    uint64_t from = std::max(hit.offset, begin);
    uint64_t to = std::min(hit.offset + HashPartSet::length, begin + size);
    memcpy(block_.data() + (from - begin), replacements_[hit.part].data() + (from - hit.offset), to - from);
}

} // namespace firn::jail
