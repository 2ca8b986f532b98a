// Makes two programs that differ in two hash parts and are both signed right.
// usage: program OLD NEW FOLDER: writes FOLDER/old and FOLDER/new

#include <fstream>

#include "tests/unit/macho-builder.hh"

int main(int, char **args) {
    using namespace firn::test;
    const std::string from = args[1], to = args[2], folder = args[3];
    ImageSpec spec;
    spec.directories[0].hashType = 1;
    spec.directories.push_back({.slotType = 0x1000});
    spec.infoPlist = "<plist>" + from + "</plist>";
    Image image(spec);
    std::string code = image.bytes;
    const size_t acrossPages = 8192 - from.size() / 2;
    code.replace(acrossPages, from.size(), from);
    std::ofstream(folder + "/old", std::ios::binary) << image.sign(code);
    code.replace(acrossPages, to.size(), to);
    code.replace(code.find(from), to.size(), to);
    std::ofstream(folder + "/new", std::ios::binary) << image.sign(code);
}
