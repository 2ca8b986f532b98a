#include <array>

#include "libutil/error.hh"
#include "libutil/nar.hh"

namespace firn {

namespace {

constexpr size_t alignment = 8;

void appendNumber(std::string &bytes, uint64_t number) {
    for (unsigned shift = 0; shift < 64; shift += 8) {
        bytes += static_cast<char>(number >> shift & 255);
    }
}

std::string_view padding(uint64_t size) {
    static constexpr std::string_view zeros("\0\0\0\0\0\0\0", alignment - 1);
    return zeros.substr(0, (alignment - size % alignment) % alignment);
}

void appendString(std::string &bytes, std::string_view text) {
    appendNumber(bytes, text.size());
    bytes += text;
    bytes += padding(text.size());
}

/// Strings one after the other, so that what belongs together goes out in one write.
template<typename... Texts>
std::string strings(Texts... texts) {
    std::string bytes;
    (appendString(bytes, texts), ...);
    return bytes;
}

} // namespace

NarWriter::NarWriter(Sink &sink) : sink_(sink) {}

void NarWriter::begin() {
    string("nix-archive-1");
}

void NarWriter::beginDirectory() {
    static const std::string bytes = strings("(", "type", "directory");
    sink_.write(bytes);
}

void NarWriter::beginEntry(std::string_view name) {
    sink_.write(strings("entry", "(", "name", name, "node"));
}

void NarWriter::endEntry() {
    string(")");
}

void NarWriter::endDirectory() {
    string(")");
}

void NarWriter::beginFile(bool executable, uint64_t size) {
    static const std::string plain = strings("(", "type", "regular", "contents");
    static const std::string runnable = strings("(", "type", "regular", "executable", "", "contents");
    std::string bytes = executable ? runnable : plain;
    appendNumber(bytes, size);
    sink_.write(bytes);
    fileSize_ = fileLeft_ = size;
}

void NarWriter::contents(std::string_view bytes) {
    if (bytes.size() > fileLeft_) {
        throw Error(ErrorKind::bug, "a file announced with {} bytes has more", fileSize_);
    }
    sink_.write(bytes);
    fileLeft_ -= bytes.size();
}

void NarWriter::endFile() {
    if (fileLeft_ != 0) {
        throw Error(ErrorKind::bug, "a file announced with {} bytes has {} fewer", fileSize_, fileLeft_);
    }
    std::string bytes(padding(fileSize_));
    appendString(bytes, ")");
    sink_.write(bytes);
}

void NarWriter::symlink(std::string_view target) {
    sink_.write(strings("(", "type", "symlink", "target", target, ")"));
}

void NarWriter::string(std::string_view text) {
    sink_.write(strings(text));
}

void dumpNarOfString(std::string_view content, Sink &sink, bool executable) {
    NarWriter writer(sink);
    writer.begin();
    writer.beginFile(executable, content.size());
    writer.contents(content);
    writer.endFile();
}

} // namespace firn
