#include "libutil/config-file.hh"

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

constexpr std::string_view blanks = " \t\r\n";
constexpr size_t deepestNesting = 32;
constexpr size_t mostIncludes = 1024; // files that include each other twice would double at every level

std::string joinWords(const std::vector<std::string> &words, size_t first) {
    std::string text;
    for (size_t i = first; i < words.size(); i++) {
        text += (i > first ? " " : "") + words[i];
    }
    return text;
}

/// A text that is being read, and how far.
struct OpenText {
    std::string text;
    std::filesystem::path path;
    size_t position = 0;
    size_t line = 0;

    bool atEnd() const { return position >= text.size(); }
    std::string origin() const { return fmt::format("{}:{}", path.native(), line); }

    std::string_view nextLine() {
        size_t end = std::min(text.find('\n', position), text.size());
        std::string_view found = std::string_view(text).substr(position, end - position);
        position = end + 1;
        line++;
        return found;
    }
};

class ConfigParser {
  public:
    explicit ConfigParser(const ConfigReader &read) : read_(read) {}

    std::vector<ConfigEntry> parse(std::string_view text, const std::filesystem::path &path) {
        open_.push_back({std::string(text), path});
        while (!open_.empty()) {
            if (open_.back().atEnd()) {
                open_.pop_back();
            } else {
                parseLine(open_.back().nextLine());
            }
        }
        return std::move(entries_);
    }

  private:
    [[noreturn]] void fail(const std::string &problem) const {
        throw Error(ErrorKind::badInput, "{}: {}", escapeForDisplay(open_.back().origin(), 1024), problem);
    }

    void parseLine(std::string_view line) {
        std::vector<std::string> words = splitWords(line.substr(0, line.find('#')));
        if (words.empty()) {
            return;
        }
        if (words[0] == "include" || words[0] == "!include") {
            parseInclude(words);
        } else if (words.size() >= 2 && words[1] == "=") {
            entries_.push_back({words[0], joinWords(words, 2), open_.back().origin()});
        } else {
            fail(fmt::format("{} is not a setting; write 'name = value' with blanks around '='",
                             quoteForDisplay(line)));
        }
    }

    void parseInclude(const std::vector<std::string> &words) {
        if (words.size() != 2) {
            fail("an include names exactly one file");
        }
        if (open_.size() > deepestNesting) {
            fail(fmt::format("includes are nested deeper than {}; does a file include itself?",
                             deepestNesting));
        }
        if (++includes_ > mostIncludes) {
            fail(fmt::format("there are more than {} includes", mostIncludes));
        }
        include(open_.back().path.parent_path() / words[1], words[0] == "!include");
    }

    void include(const std::filesystem::path &path, bool optional) {
        try {
            open_.push_back({read_(path), path});
        } catch (Error &e) {
            bool absent = e.kind() == ErrorKind::notFound || e.kind() == ErrorKind::refused;
            if (!optional || !absent) {
                e.addContext(escapeForDisplay(open_.back().origin(), 1024));
                throw;
            }
        }
    }

    const ConfigReader &read_;
    std::vector<OpenText> open_; ///< the innermost include last
    std::vector<ConfigEntry> entries_;
    size_t includes_ = 0;
};

ErrorKind kindOfReadFailure(int number) {
    if (number == ENOENT || number == ENOTDIR) {
        return ErrorKind::notFound;
    }
    return number == EACCES || number == EPERM ? ErrorKind::refused : ErrorKind::failure;
}

} // namespace

std::string readConfigFile(const std::filesystem::path &path) {
    static constexpr uint64_t largestFile = 1024 * 1024;
    try {
        return readFile(path, largestFile);
    } catch (const SysError &e) {
        throw Error(kindOfReadFailure(e.number()), e.message());
    }
}

std::vector<ConfigEntry> parseConfig(std::string_view text, const std::filesystem::path &path,
                                     const ConfigReader &read) {
    return ConfigParser(read).parse(text, path);
}

std::vector<std::string> splitWords(std::string_view text) {
    std::vector<std::string> words;
    while (true) {
        size_t begin = text.find_first_not_of(blanks);
        if (begin == std::string_view::npos) {
            return words;
        }
        text.remove_prefix(begin);
        size_t length = std::min(text.find_first_of(blanks), text.size());
        words.emplace_back(text.substr(0, length));
        text.remove_prefix(length);
    }
}

} // namespace firn
