#include "builtin/packages.hh"

#include <algorithm>
#include <charconv>

#include "libutil/error.hh"

namespace firn::builtin {

namespace {

class Words {
  public:
    explicit Words(std::string_view text) : words_(splitAtBlanks(text)) {}
    bool atEnd() const { return next_ == words_.size(); }
    const std::string &next() {
        if (atEnd()) {
            throw Error(ErrorKind::badInput, "attribute 'derivations' ends within a package");
        }
        return words_[next_++];
    }
    int64_t number() {
        const std::string &word = next();
        int64_t result = 0;
        auto [end, status] = std::from_chars(word.data(), word.data() + word.size(), result);
        if (status != std::errc() || end != word.data() + word.size()) {
            throw Error(ErrorKind::badInput, "attribute 'derivations' has {} where a number belongs",
                        quoteForDisplay(word));
        }
        return result;
    }

  private:
    std::vector<std::string> words_;
    size_t next_ = 0;
};

} // namespace

std::vector<Package> parsePackages(std::string_view text) {
    std::vector<Package> packages;
    Words rest(text);
    while (!rest.atEnd()) {
        bool active = rest.next() != "false";
        int64_t priority = rest.number();
        for (int64_t outputs = rest.number(); outputs > 0; outputs--) {
            const std::string &path = rest.next();
            if (active) {
                packages.push_back({priority, path});
            }
        }
    }
    std::ranges::sort(packages);
    return packages;
}

std::vector<std::string> splitAtBlanks(std::string_view text) {
    constexpr std::string_view blanks = " \t\n";
    std::vector<std::string> result;
    for (;;) {
        size_t begin = text.find_first_not_of(blanks);
        if (begin == text.npos) {
            return result;
        }
        text.remove_prefix(begin);
        size_t end = std::min(text.find_first_of(blanks), text.size());
        result.emplace_back(text.substr(0, end));
        text.remove_prefix(end);
    }
}

} // namespace firn::builtin
