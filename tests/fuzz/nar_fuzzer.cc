// What parses must be, byte for byte, what the writer makes of the same parts.

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "libutil/error.hh"
#include "libutil/nar.hh"

namespace {

using namespace firn;

class Rewriter : public NarVisitor {
  public:
    explicit Rewriter(Sink &sink) : writer_(sink) { writer_.begin(); }

    void beginDirectory(const std::string &name) override {
        beginNode(name);
        writer_.beginDirectory();
        depth_++;
    }
    void endDirectory() override {
        writer_.endDirectory();
        depth_--;
        endNode();
    }
    void beginFile(const std::string &name, bool executable, uint64_t size) override {
        beginNode(name);
        writer_.beginFile(executable, size);
    }
    void fileContents(std::string_view bytes) override { writer_.contents(bytes); }
    void endFile() override {
        writer_.endFile();
        endNode();
    }
    void symlink(const std::string &name, const std::string &target) override {
        beginNode(name);
        writer_.symlink(target);
        endNode();
    }

  private:
    void beginNode(const std::string &name) {
        if (depth_ > 0) {
            writer_.beginEntry(name);
        }
    }
    void endNode() {
        if (depth_ > 0) {
            writer_.endEntry();
        }
    }

    NarWriter writer_;
    size_t depth_ = 0;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    std::string_view bytes(reinterpret_cast<const char *>(data), size);
    StringSource source(bytes);
    StringSink sink;
    Rewriter rewriter(sink);
    try {
        parseNar(source, rewriter);
    } catch (const Error &e) {
        if (e.kind() != ErrorKind::badInput) {
            std::abort();
        }
        return 0;
    }
    if (sink.text + std::string(source.rest()) != bytes) {
        std::abort();
    }
    return 0;
}
