#include "libstore/store/runtime-roots.hh"

#include <cstdio>

#include "libutil/error.hh"

// macOS has no /proc; `lsof -n -w -F n` lists what processes have open and mapped, one "n<path>" a line.

namespace firn {

RuntimeRoots findRuntimeRoots(const std::string &storeDir) {
    RuntimeRoots roots;
    FILE *pipe = popen("/usr/sbin/lsof -n -w -F n 2>/dev/null", "r");
    if (!pipe) {
        throwErrno("starting /usr/sbin/lsof to find what is in use");
    }
    char *line = nullptr;
    size_t capacity = 0;
    for (ssize_t size; (size = getline(&line, &capacity, pipe)) > 0;) {
        std::string text(line, static_cast<size_t>(size));
        if (text.starts_with("n" + storeDir + "/")) {
            roots[text.substr(1, text.find('\n') - 1)].insert("{lsof}");
        }
    }
    free(line);
    pclose(pipe);
    return roots;
}

} // namespace firn
