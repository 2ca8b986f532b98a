// Archives come from clients and caches, so nothing here trusts a length, nothing recurses, and only the one
// form that a writer makes is taken: what parses is byte for byte what NarWriter would write for it.

#include <algorithm>
#include <cstring>
#include <memory>

#include "libutil/error.hh"
#include "libutil/interrupt.hh"
#include "libutil/nar.hh"

namespace firn {

namespace {

constexpr size_t alignment = 8;
constexpr size_t blockSize = 256 * 1024;
constexpr size_t longestTag = 13;                   // "nix-archive-1"
constexpr uint64_t largestFile = uint64_t(1) << 62; // well below what an off_t holds

size_t paddingOf(uint64_t size) {
    return (alignment - size % alignment) % alignment;
}

/// Reads the archive's strings and knows where it is, for messages.
class NarReader {
  public:
    explicit NarReader(Source &source) : source_(source) {}

    [[noreturn]] void fail(const std::string &problem) const {
        throw Error(ErrorKind::badInput, "this is not a valid NAR archive: at byte {}, {}", stringStart_,
                    problem);
    }

    uint64_t readNumber() {
        stringStart_ = position_;
        unsigned char bytes[8];
        readBytes(reinterpret_cast<char *>(bytes), sizeof bytes);
        uint64_t number = 0;
        for (unsigned i = 0; i < sizeof bytes; i++) {
            number |= static_cast<uint64_t>(bytes[i]) << (8 * i);
        }
        return number;
    }

    /// A string of at most `limit` bytes (not many: it is read at once). `what` is for messages.
    std::string readString(size_t limit, std::string_view what) {
        uint64_t size = readNumber();
        if (size > limit) {
            fail(fmt::format("{} of {} bytes is longer than {}", what, size, limit));
        }
        std::string text(size + paddingOf(size), '\0');
        readBytes(text.data(), text.size());
        checkPadding(std::string_view(text).substr(size));
        text.resize(size);
        return text;
    }

    /// One of the format's own words, in memory of this reader: good until the next is read.
    std::string_view readTag() {
        uint64_t size = readNumber();
        if (size > longestTag) {
            fail(fmt::format("a word of {} bytes is longer than {}", size, longestTag));
        }
        size_t padding = paddingOf(size);
        readBytes(tag_, size + padding);
        checkPadding({tag_ + size, padding});
        return {tag_, size};
    }

    void expect(std::string_view tag) {
        std::string_view found = readTag();
        if (found != tag) {
            fail(fmt::format("'{}' is missing; there is {}", tag, quoteForDisplay(found)));
        }
    }

    void readBytes(char *buffer, size_t size) {
        source_.readExactly(buffer, size);
        position_ += size;
    }

    void readPadding(uint64_t size) {
        char bytes[alignment];
        size_t count = paddingOf(size);
        readBytes(bytes, count);
        checkPadding({bytes, count});
    }

  private:
    void checkPadding(std::string_view bytes) const {
        if (bytes.find_first_not_of('\0') != std::string_view::npos) {
            fail("the padding is not zero");
        }
    }

    Source &source_;
    uint64_t position_ = 0;
    uint64_t stringStart_ = 0;
    char tag_[longestTag + alignment];
};

class NarParser {
  public:
    NarParser(Source &source, NarVisitor &visitor, const NarLimits &limits)
        : reader_(source), visitor_(visitor), limits_(limits) {}

    void parse() {
        reader_.expect("nix-archive-1");
        parseNode("");
        while (!previousNames_.empty()) {
            parseEntryOrEnd();
        }
    }

  private:
    /// A file or symlink as a whole, a directory up to its first entry.
    void parseNode(const std::string &name) {
        reader_.expect("(");
        reader_.expect("type");
        std::string_view type = reader_.readTag();
        if (type == "directory") {
            beginDirectory(name);
        } else if (type == "regular") {
            parseFile(name);
        } else if (type == "symlink") {
            parseSymlink(name);
        } else {
            reader_.fail(fmt::format("there is no file type {}", quoteForDisplay(type)));
        }
    }

    void beginDirectory(const std::string &name) {
        if (previousNames_.size() >= limits_.maxDepth) {
            reader_.fail(
                fmt::format("there are more than {} directories inside each other", limits_.maxDepth));
        }
        visitor_.beginDirectory(name);
        previousNames_.emplace_back();
    }

    void parseEntryOrEnd() {
        std::string_view tag = reader_.readTag();
        if (tag == ")") {
            endDirectory();
        } else if (tag == "entry") {
            parseEntry();
        } else {
            reader_.fail(fmt::format("'entry' or ')' is missing; there is {}", quoteForDisplay(tag)));
        }
    }

    void parseEntry() {
        reader_.expect("(");
        reader_.expect("name");
        std::string name = reader_.readString(limits_.maxNameLength, "a name");
        checkName(name);
        previousNames_.back() = name;
        reader_.expect("node");
        size_t depth = previousNames_.size();
        parseNode(name);
        if (previousNames_.size() == depth) { // else endDirectory() closes the entry
            reader_.expect(")");
        }
    }

    void endDirectory() {
        visitor_.endDirectory();
        previousNames_.pop_back();
        if (!previousNames_.empty()) {
            reader_.expect(")");
        }
    }

    void checkName(const std::string &name) const {
        if (name.empty() || name == "." || name == ".." ||
            name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
            reader_.fail(fmt::format("{} is not allowed as a name", quoteForDisplay(name)));
        }
        const std::string &previous = previousNames_.back();
        if (name <= previous) {
            reader_.fail(fmt::format("the name {} comes after {}: names must ascend", quoteForDisplay(name),
                                     quoteForDisplay(previous)));
        }
    }

    void parseFile(const std::string &name) {
        std::string_view tag = reader_.readTag();
        bool executable = tag == "executable";
        if (executable) {
            reader_.expect("");
            tag = reader_.readTag();
        }
        if (tag != "contents") {
            reader_.fail(fmt::format("'contents' is missing; there is {}", quoteForDisplay(tag)));
        }
        parseContents(name, executable);
        reader_.expect(")");
    }

    void parseContents(const std::string &name, bool executable) {
        uint64_t size = reader_.readNumber();
        if (size > largestFile) {
            reader_.fail(fmt::format("a file of {} bytes is larger than any can be", size));
        }
        visitor_.beginFile(name, executable, size);
        passContents(size);
        reader_.readPadding(size);
        visitor_.endFile();
    }

    void passContents(uint64_t size) {
        if (size > 0 && !block_) {
            block_ = std::make_unique_for_overwrite<char[]>(blockSize);
        }
        while (size > 0) {
            throwIfInterrupted();
            size_t count = std::min<uint64_t>(size, blockSize);
            reader_.readBytes(block_.get(), count);
            visitor_.fileContents({block_.get(), count});
            size -= count;
        }
    }

    void parseSymlink(const std::string &name) {
        reader_.expect("target");
        std::string target = reader_.readString(limits_.maxTargetLength, "a symlink's target");
        if (target.empty() || target.find('\0') != std::string::npos) {
            reader_.fail(fmt::format("{} is not allowed as a symlink's target", quoteForDisplay(target)));
        }
        reader_.expect(")");
        visitor_.symlink(name, target);
    }

    NarReader reader_;
    NarVisitor &visitor_;
    const NarLimits limits_;
    std::vector<std::string> previousNames_; ///< for each open directory the last entry's name, empty before
    std::unique_ptr<char[]> block_;
};

} // namespace

void parseNar(Source &source, NarVisitor &visitor, const NarLimits &limits) {
    NarParser(source, visitor, limits).parse();
}

namespace {

class DiscardingVisitor : public NarVisitor {
  public:
    void beginDirectory(const std::string &) override {}
    void endDirectory() override {}
    void beginFile(const std::string &, bool, uint64_t) override {}
    void fileContents(std::string_view) override {}
    void endFile() override {}
    void symlink(const std::string &, const std::string &) override {}
};

} // namespace

void discardNar(Source &source) {
    DiscardingVisitor visitor;
    parseNar(source, visitor);
}

} // namespace firn
