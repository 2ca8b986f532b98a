// What another program needs to use the page hashes of Firn: this, and what it includes.
// usage: driver FILE OLD NEW: replaces every OLD by the equally long NEW in the file, makes its signatures
// right again, and looks whether they are.

#include <fstream>
#include <iterator>

#include "libstore/darwin/macho-page-hashes.hh"

class Text : public firn::MachoBytes {
  public:
    explicit Text(const std::string &text) : text_(text) {}
    uint64_t size() const override { return text_.size(); }
    void read(uint64_t offset, char *buffer, size_t size) const override { text_.copy(buffer, size, offset); }

  private:
    const std::string &text_;
};

int main(int, char **args) {
    std::ifstream input(args[1], std::ios::binary);
    const std::string before{std::istreambuf_iterator<char>(input), {}}, from = args[2], to = args[3];
    std::string after = before;
    std::vector<firn::ByteRange> touched;
    for (size_t at = 0; (at = after.find(from, at)) != std::string::npos; at += to.size()) {
        after.replace(at, to.size(), to);
        touched.push_back({at, to.size()});
    }
    for (const auto &patch : firn::fixupPageHashes(Text(before), Text(after), touched).patches) {
        after.replace(patch.offset, patch.bytes.size(), patch.bytes);
    }
    std::ofstream(args[1], std::ios::binary) << after;
    auto report = firn::verifyPageHashes(Text(after), touched);
    return !report.isMacho || report.anyStale() || report.anyProblem();
}
