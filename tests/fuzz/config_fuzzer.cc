// The parts of the input between NUL bytes are the main text and the files "1", "2" … that it may include.

#include <cstdint>
#include <cstdlib>
#include <map>

#include "libutil/config-file.hh"
#include "libutil/error.hh"

namespace {

using namespace firn;

std::map<std::string, std::string> splitFiles(std::string_view input) {
    std::map<std::string, std::string> files;
    for (size_t i = 0;; i++) {
        size_t end = input.find('\0');
        files[std::to_string(i)] = input.substr(0, end);
        if (end == std::string_view::npos) {
            return files;
        }
        input.remove_prefix(end + 1);
    }
}

void check(const ConfigEntry &entry) {
    bool clean = !entry.name.empty() && splitWords(entry.name).size() == 1 &&
                 entry.value.find_first_of("#\n\t\r") == std::string::npos && !entry.value.starts_with(" ") &&
                 !entry.value.ends_with(" ") && entry.origin.find(':') != std::string::npos;
    if (!clean) {
        std::abort();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4096) {
        return 0; // a thousand includes of one large file would only take time
    }
    auto files = splitFiles({reinterpret_cast<const char *>(data), size});
    auto read = [&](const std::filesystem::path &path) {
        auto found = files.find(path.string());
        if (found == files.end()) {
            throw Error(ErrorKind::notFound, "there is no such file");
        }
        return found->second;
    };
    try {
        for (const ConfigEntry &entry : parseConfig(files["0"], "nix.conf", read)) {
            check(entry);
        }
    } catch (const Error &e) {
        if (e.kind() != ErrorKind::badInput && e.kind() != ErrorKind::notFound) {
            std::abort();
        }
    }
    return 0;
}
