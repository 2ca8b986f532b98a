#include "macho-jail/serve.hh"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include "libstore/darwin/macho-normal-form.hh"
#include "libutil/error.hh"
#include "libutil/file-descriptor.hh"
#include "macho-jail/rewritten-bytes.hh"

namespace firn::jail {

namespace {

// ---- what is asked

PageHashFixup fixup(const Request &request, const FileBytes &before) {
    std::optional<RewrittenBytes> rewritten;
    if (!request.rules.empty()) {
        rewritten.emplace(before, request.rules);
    }
    const MachoBytes &base = rewritten ? static_cast<const MachoBytes &>(*rewritten) : before;
    PatchedBytes after(base, request.patches);
    std::vector<ByteRange> touched;
    if (rewritten) {
        touched.push_back({0, request.fileSize});
    } else {
        for (const Patch &patch : request.patches) {
            touched.push_back({patch.offset, patch.bytes.size()});
        }
    }
    return fixupPageHashes(before, after, touched);
}

uint32_t bigEndian(const unsigned char *bytes) {
    return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

// ---- forms

/// Where the text occurs; of two occurrences that overlap the first counts.
std::vector<uint64_t> findAll(const MachoBytes &file, const std::string &text) {
    constexpr uint64_t blockSize = 256 * 1024;
    std::vector<uint64_t> places;
    std::string window(blockSize + text.size() - 1, '\0');
    uint64_t from = 0; // nothing before it counts any more
    for (uint64_t begin = 0; begin + text.size() <= file.size(); begin += blockSize) {
        size_t size = std::min<uint64_t>(window.size(), file.size() - begin);
        file.read(begin, window.data(), size);
        std::string_view view(window.data(), size);
        size_t at = from > begin ? from - begin : 0;
        while ((at = view.find(text, at)) != std::string_view::npos) {
            places.push_back(begin + at);
            at += text.size();
            from = begin + at;
        }
    }
    return places;
}

/// Without those of self-references, which the daemon writes.
std::vector<BytePatch> otherPatches(std::vector<BytePatch> patches, const std::vector<uint64_t> &references) {
    std::erase_if(patches, [&](const BytePatch &patch) {
        return std::binary_search(references.begin(), references.end(), patch.offset);
    });
    return patches;
}

Form form(const Request &request, const FileBytes &file) {
    std::optional<RewrittenBytes> rewritten;
    if (!request.rules.empty()) {
        rewritten.emplace(file, request.rules);
    }
    PatchedBytes after(rewritten ? static_cast<const MachoBytes &>(*rewritten) : file, request.patches);
    std::vector<uint64_t> references =
        request.selfReferences.empty() ? findAll(after, request.selfPart) : request.selfReferences;
    Form form;
    form.selfReferences = references.size();
    MachoNormalForm normal = machoNormalForm(after, references);
    form.inside = normal.inside;
    form.reason = normal.reason;
    if (form.inside) {
        bool isFinal = request.kind == Kind::finalForm;
        form.patches = otherPatches(isFinal ? machoFinalForm(after, references, request.selfPart)
                                            : std::move(normal.patches),
                                    references);
    }
    return form;
}

// ---- stale slots

/// Where a CodeDirectory's digests lie, by its own header (cs_blobs.h).
class SlotPlaces {
  public:
    SlotPlaces(const FileBytes &file, const CodeDirectoryReport &directory) : begin_(directory.range.offset) {
        constexpr size_t hashOffset = 16, hashSize = 36, headerSize = 44;
        unsigned char header[headerSize] = {};
        if (directory.range.size >= headerSize && directory.range.end() <= file.size()) {
            file.read(begin_, reinterpret_cast<char *>(header), headerSize);
        }
        hashes_ = bigEndian(header + hashOffset);
        size_ = header[hashSize];
    }
    /// Special slots lie before the others, −1 last.
    ByteRange code(uint32_t slot) const { return {begin_ + hashes_ + uint64_t{size_} * slot, size_}; }
    ByteRange special(uint32_t slot) const { return {begin_ + hashes_ - uint64_t{size_} * slot, size_}; }

  private:
    uint64_t begin_;
    uint32_t hashes_ = 0;
    uint8_t size_ = 0;
};

void addStale(const FileBytes &file, const SliceReport &slice, std::vector<StaleSlot> &stale) {
    for (const CodeDirectoryReport &directory : slice.directories) {
        SlotPlaces places(file, directory);
        for (uint32_t slot : directory.staleCodeSlots) {
            stale.push_back({slice.range.offset, places.code(slot)});
        }
        for (uint32_t slot : directory.staleSpecialSlots) {
            stale.push_back({slice.range.offset, places.special(slot)});
        }
    }
}

/// Directories that share bytes are none that a loader takes; what is stale in both is told once.
void dropOverlaps(std::vector<StaleSlot> &stale) {
    std::sort(stale.begin(), stale.end(),
              [](const StaleSlot &a, const StaleSlot &b) { return a.range.offset < b.range.offset; });
    uint64_t end = 0;
    std::erase_if(stale, [&](const StaleSlot &slot) {
        bool overlaps = slot.range.offset < end;
        end = overlaps ? end : slot.range.end();
        return overlaps;
    });
}

std::vector<StaleSlot> verify(const Request &request, const FileBytes &file) {
    std::vector<StaleSlot> stale;
    for (const SliceReport &slice : verifyPageHashes(file, request.ranges).slices) {
        addStale(file, slice, stale);
    }
    dropOverlaps(stale);
    return stale;
}

// ---- how it is asked

bool readAll(int socket, char *buffer, size_t size) {
    while (size > 0) {
        ssize_t got = read(socket, buffer, size);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return false;
        }
        size_t done = got > 0 ? static_cast<size_t>(got) : 0;
        buffer += done;
        size -= done;
    }
    return true;
}

bool writeAll(int socket, std::string_view bytes) {
    while (!bytes.empty()) {
        ssize_t sent = write(socket, bytes.data(), bytes.size());
        if (sent < 0 && errno != EINTR) {
            return false;
        }
        bytes.remove_prefix(sent > 0 ? static_cast<size_t>(sent) : 0);
    }
    return true;
}

/// The header comes with the files.
std::vector<UniqueFd> receiveFiles(int socket, char *buffer, size_t &received) {
    constexpr size_t mostFiles = 2;
    struct iovec piece = {buffer, headerSize};
    alignas(struct cmsghdr) char control[CMSG_SPACE(mostFiles * sizeof(int))];
    struct msghdr message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t got;
    do {
        got = recvmsg(socket, &message, 0);
    } while (got < 0 && errno == EINTR);
    received = got > 0 ? static_cast<size_t>(got) : 0;
    struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) {
        return {};
    }
    std::vector<UniqueFd> files;
    for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= head->cmsg_len; at += sizeof(int)) {
        int file;
        memcpy(&file, CMSG_DATA(head) + at, sizeof file);
        files.emplace_back(file);
    }
    return files;
}

std::string failure(std::string_view why) {
    std::string text(why.substr(0, maxReason));
    return encodeHeader({static_cast<uint32_t>(Outcome::failed), text.size()}) + text;
}

std::string replyTo(const Request &request, int file, int second) {
    try {
        std::string reply = encodeAnswer(answerRequest(request, file, second));
        if (reply.size() - headerSize > maxAnswerBody(request.fileSize)) {
            return failure("it needs more repairs than can be handed over");
        }
        return reply;
    } catch (const std::bad_alloc &) {
        return failure("there is not enough memory to look at it");
    } catch (const std::exception &error) {
        return failure(error.what());
    }
}

bool serveOne(int socket) {
    char bytes[headerSize];
    size_t received = 0;
    std::vector<UniqueFd> files = receiveFiles(socket, bytes, received);
    if (files.empty() || !readAll(socket, bytes + received, headerSize - received)) {
        return false;
    }
    std::optional<Header> header = decodeHeader({bytes, headerSize});
    if (!header || header->bodySize > maxRequestBody) {
        return false;
    }
    std::string body(header->bodySize, '\0');
    if (!readAll(socket, body.data(), body.size())) {
        return false;
    }
    auto request = decodeRequest(static_cast<Kind>(header->word), body);
    int second = files.size() > 1 ? files[1].get() : -1;
    return request && writeAll(socket, replyTo(*request, files[0].get(), second));
}

} // namespace

Answer answerRequest(const Request &request, int file, int second) {
    FileBytes bytes(file, request.fileSize);
    Answer answer;
    switch (request.kind) {
    case Kind::fixup:
        answer.fixup = fixup(request, bytes);
        break;
    case Kind::verify:
        answer.stale = verify(request, bytes);
        break;
    case Kind::compare:
        if (second < 0) {
            throw Error(ErrorKind::badInput, "there is nothing to compare it with");
        }
        answer.comparison = compareMacho(bytes, FileBytes(second, request.secondSize));
        break;
    case Kind::normalForm:
    case Kind::finalForm:
        answer.form = form(request, bytes);
        break;
    default:
        throw Error(ErrorKind::badInput, "there is no such request");
    }
    return answer;
}

void serve(int socket) {
    while (serveOne(socket)) {
    }
}

} // namespace firn::jail
