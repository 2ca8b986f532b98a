// firn-builtin NAME [setting=value…]: the builder of a derivation whose builder is "builtin:NAME". Its
// attributes lie in a file in the working directory.
//
// firn-builtin --files: which files have to be shown to it where the host's are not, see loaded-files.hh.

#include <clocale>
#include <cstdio>
#include <cstring>

#include "builtin/builders.hh"
#include "builtin/loaded-files.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn::builtin {

namespace {

int listFiles() {
    LoadedFiles files = loadedFiles();
    printf("%s\n", files.loader.c_str());
    for (const std::string &library : files.libraries) {
        printf("%s\n", library.c_str());
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

void build(const std::string &name, const std::vector<std::string> &settings) {
    Request request{parseAttributes(readFile(".builtin-attributes")), parseSettings(settings)};
    if (name == "fetchurl") {
        fetchUrl(request);
    } else if (name == "buildenv") {
        buildEnvironment(request);
    } else if (name == "unpack-channel") {
        unpackChannel(request);
    } else {
        throw Error(ErrorKind::unsupported, "unsupported builtin builder {}", quoteForDisplay(name));
    }
}

} // namespace

} // namespace firn::builtin

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--files") == 0) {
        return firn::builtin::listFiles();
    }
    if (argc < 2) {
        fputs("firn-builtin does the work of builtin builders for the Firn daemon, which starts it\n",
              stderr);
        return 2;
    }
    // Names in archives are UTF-8; in the C locale libarchive would refuse them.
    setlocale(LC_CTYPE, "C.UTF-8");
    try {
        firn::builtin::build(argv[1], std::vector<std::string>(argv + 2, argv + argc));
        return 0;
    } catch (const std::exception &error) {
        fprintf(stderr, "builtin:%s: %s\n", argv[1], error.what());
        return 1;
    }
}
