#pragma once

// Small files of every kind that a Mach-O file with a signature can be, for tests of all of them and as seeds
// of the fuzzers.

#include <map>
#include <string>

#include "tests/unit/macho-builder.hh"

namespace firn::test {

/// Pages of 512 bytes keep them small.
inline ImageSpec smallSpec() {
    ImageSpec spec;
    spec.codeSize = 512 + 100;
    spec.directories[0].pageExponent = 9;
    return spec;
}

inline std::map<std::string, ImageSpec> machoSpecs() {
    std::map<std::string, ImageSpec> specs;
    auto add = [&](const std::string &name, auto &&change) {
        ImageSpec spec = smallSpec();
        change(spec, spec.directories[0]);
        specs[name] = spec;
    };
    add("plain", [](auto &, auto &) {});
    add("unsigned", [](auto &s, auto &) { s.isSigned = false; });
    add("32-bit", [](auto &s, auto &) { s.is64 = false, s.cpu = 7; });
    add("big-endian", [](auto &s, auto &) { s.is64 = false, s.big = true, s.cpu = 18; });
    add("big-endian-64", [](auto &s, auto &) { s.big = true, s.cpu = 0x01000012; });
    add("sha1", [](auto &, auto &d) { d.hashType = 1; });
    add("sha256-cut", [](auto &, auto &d) { d.hashType = 3; });
    add("sha384", [](auto &, auto &d) { d.hashType = 4; });
    add("infinite-page", [](auto &, auto &d) { d.pageExponent = 0; });
    add("limit64", [](auto &, auto &d) { d.codeLimit64 = true; });
    add("short-limit", [](auto &, auto &d) { d.codeLimit = 600; });
    add("team", [](auto &, auto &d) { d.version = 0x20200, d.team = "TEAM"; });
    for (uint32_t version : {0x20000, 0x20001, 0x20100, 0x20300, 0x20500, 0x20600}) {
        add("version-" + std::to_string(version >> 8 & 0xf) + "-" + std::to_string(version & 0xff),
            [&](auto &, auto &d) { d.version = version; });
    }
    add("alternates", [](auto &s, auto &d) {
        d.hashType = 1;
        s.directories.push_back(d);
        s.directories[1].slotType = 0x1000, s.directories[1].hashType = 2;
    });
    add("blobs", [](auto &s, auto &d) {
        d.flags = 0x2;
        s.blobs = {{2, "requirement"}, {5, "<plist/>"}, {7, "der"}, {8, "launch"}, {0x10000, ""}};
        d.externalSlots = {{3, std::string(32, 'r')}};
    });
    add("plist", [](auto &s, auto &) { s.infoPlist = "<plist>embedded</plist>"; });
    add("cms", [](auto &s, auto &d) {
        d.flags = 0;
        s.blobs = {{2, "requirement"}, {0x10000, "signed by somebody"}};
    });
    add("gap-and-padding", [](auto &s, auto &) { s.gapAfterIndex = 4, s.padding = 20; });
    return specs;
}

/// All of them as they are, and some behind tables.
inline std::map<std::string, std::string> machoSeeds() {
    std::map<std::string, std::string> seeds;
    for (const auto &[name, spec] : machoSpecs()) {
        seeds[name] = Image(spec).bytes;
    }
    for (bool is64 : {false, true}) {
        ImageSpec other = smallSpec();
        other.cpu = 0x01000007;
        seeds[is64 ? "fat64" : "fat"] = Fat({{0x01000007, Image(other).bytes},
                                             {12, "!<arch>\n an archive"},
                                             {0x0100000c, seeds["alternates"]},
                                             {18, Image(machoSpecs()["big-endian"]).bytes}},
                                            is64)
                                            .bytes;
    }
    return seeds;
}

} // namespace firn::test
