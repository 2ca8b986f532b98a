// Times what the repair of one rewritten Mach-O file takes: the question to the jail and its answer, and the
// second look after the patches were applied, as registering an output asks them. bench/macho runs it and
// says what it means.
//
// usage: macho-repair FILE OLD NEW ROUNDS: OLD and NEW are hash parts; prints JSON, in microseconds.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <fcntl.h>

#include "libstore/build/helper-program.hh"
#include "libstore/build/macho-jail.hh"

namespace {

using namespace firn;

std::string contentsOf(const char *path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<Patch> patchesFor(const std::string &contents, const std::string &from, const std::string &to) {
    std::vector<Patch> patches;
    for (size_t at = contents.find(from); at != std::string::npos; at = contents.find(from, at + 1)) {
        patches.push_back({Patch::Place::contents, at, to});
    }
    return patches;
}

/// Microseconds of one question.
double timed(MachoJail &jail, const jail::Request &request, int file, jail::Answer &answer) {
    auto begin = std::chrono::steady_clock::now();
    answer = jail.ask(request, file);
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 5) {
        std::fputs("usage: macho-repair FILE OLD NEW ROUNDS\n", stderr);
        return 2;
    }
    std::string contents = contentsOf(argv[1]);
    UniqueFd file(open(argv[1], O_RDONLY | O_CLOEXEC));
    jail::Request fixup;
    fixup.fileSize = contents.size();
    fixup.patches = patchesFor(contents, argv[2], argv[3]);
    jail::Request verify;
    verify.kind = jail::Kind::verify;
    verify.fileSize = contents.size();
    for (const Patch &patch : fixup.patches) {
        verify.ranges.push_back({patch.offset, patch.bytes.size()});
    }
    MachoJail jail(machoJailProgram());
    jail::Answer answer, look;
    double first = timed(jail, fixup, file.get(), answer);
    std::vector<double> repairs, looks;
    for (int round = 0; round < std::stoi(argv[4]); round++) {
        repairs.push_back(timed(jail, fixup, file.get(), answer));
        looks.push_back(timed(jail, verify, file.get(), look));
    }
    std::printf("{\"touched\": %zu, \"patches\": %zu, \"stale\": %zu, \"first\": %.1f, \"repair\": %.1f, "
                "\"verify\": %.1f}\n",
                fixup.patches.size(), answer.fixup.patches.size(), look.stale.size(), first, median(repairs),
                median(looks));
    return 0;
}
