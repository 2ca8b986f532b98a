#pragma once

// Small Mach-O files with self-references, inside and outside of doc/content-addressed-macho.md: for the
// tests of the normal form, its test vectors and the fuzzer's first inputs.

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/unit/macho-builder.hh"
#include "tests/unit/macho-seeds.hh"

namespace firn::test {

const std::string builtHashPart = "zyxwvsrqpnmlkjihgfdcba9876543210"; ///< of the path it was built under
const std::string finalHashPart = "0123456789abcdfghijklmnpqrsvwxyz";

struct NormalFormCase {
    std::string bytes;
    std::vector<uint64_t> selfReferences;
    std::string outside = {}; ///< a part of why it is; empty for one inside
};

inline std::vector<uint64_t> occurrences(const std::string &bytes, const std::string &text) {
    std::vector<uint64_t> found;
    for (size_t at = bytes.find(text); at != std::string::npos; at = bytes.find(text, at + 1)) {
        found.push_back(at);
    }
    return found;
}

inline void plant(std::string &bytes, const std::vector<size_t> &places,
                  const std::string &hashPart = builtHashPart) {
    for (size_t place : places) {
        bytes.replace(place, hashPart.size(), hashPart);
    }
}

/// As a linker leaves it: with a hash part at these places, and signed.
inline std::string planted(const Image &image, const std::vector<size_t> &places) {
    std::string bytes = image.bytes;
    plant(bytes, places);
    return image.spec.isSigned ? image.sign(bytes) : bytes;
}

inline NormalFormCase caseOf(std::string bytes, std::string outside = {}) {
    std::vector<uint64_t> places = occurrences(bytes, builtHashPart);
    return {std::move(bytes), std::move(places), std::move(outside)};
}

/// Pages of 512 bytes, four of them.
inline ImageSpec normalFormSpec() {
    ImageSpec spec = smallSpec();
    spec.codeSize = 1700;
    return spec;
}

/// Across the end of the second page, and in the third.
const std::vector<size_t> twoPlaces = {1010, 1400};

inline std::map<std::string, NormalFormCase> specialSlotCases() {
    std::map<std::string, NormalFormCase> cases;
    const std::string text = "names " + builtHashPart + " once";
    ImageSpec spec = normalFormSpec();
    spec.blobs = {{2, text}, {5, "<plist/>"}, {7, "der"}, {0x10000, ""}};
    cases["requirement"] = caseOf(Image(spec).bytes);
    {
        Image image(spec);
        image.bytes.replace(image.directories[0].slot(-2), 32, std::string(32, '\0'));
        cases["unused-slot"] = caseOf(image.bytes);
    }
    spec.blobs = {{2, "requirement"}, {5, text}, {7, text}, {0x10002, text}};
    cases["entitlements"] = caseOf(Image(spec).bytes);
    spec = normalFormSpec();
    spec.directories[0].identifier = "at-" + builtHashPart + "-hello";
    cases["identifier"] = caseOf(Image(spec).bytes);
    spec = normalFormSpec();
    spec.infoPlist = text;
    cases["embedded-plist"] = caseOf(Image(spec).bytes);
    spec.is64 = false, spec.cpu = 7;
    cases["embedded-plist-32-bit"] = caseOf(Image(spec).bytes);
    spec = normalFormSpec();
    spec.infoPlist = text;
    spec.directories[0].externalSlots = {{3, std::string(32, 'r')}};
    Image bundle(spec);
    bundle.bytes.replace(bundle.directories[0].slot(-1), 32, std::string(32, 'i'));
    cases["plist-of-a-bundle"] = caseOf(bundle.bytes);
    return cases;
}

inline std::map<std::string, NormalFormCase> insideCases() {
    std::map<std::string, NormalFormCase> cases = specialSlotCases();
    for (auto [name, spec] : machoSpecs()) {
        if (name != "cms") {
            spec.codeSize = 1700;
            cases[name] = caseOf(
                planted(Image(spec), name == "short-limit" ? std::vector<size_t>{590, 1010} : twoPlaces));
        }
    }
    ImageSpec spec = normalFormSpec();
    spec.rpath = "/nix/store/" + builtHashPart + "-hello/lib";
    cases["rpath"] = caseOf(Image(spec).bytes);
    spec = normalFormSpec();
    spec.hasUuid = false;
    cases["no-uuid"] = caseOf(planted(Image(spec), twoPlaces));
    spec.isSigned = false;
    cases["unsigned-no-uuid"] = caseOf(planted(Image(spec), twoPlaces));
    spec = normalFormSpec();
    spec.padding = 50;
    Image padded(spec);
    cases["padding"] = caseOf(planted(padded, {padded.bytes.size() - 40}));
    cases["two-in-a-row"] = caseOf(planted(Image(normalFormSpec()), {1010, 1042}));
    std::string stale = planted(Image(normalFormSpec()), {1400});
    stale[600] = char(~stale[600]);
    cases["stale-elsewhere"] = caseOf(stale);
    spec = normalFormSpec();
    spec.directories.push_back(spec.directories[0]);
    spec.directories[1].slotType = 0x1000, spec.directories[1].pageExponent = 10;
    cases["two-page-sizes"] = caseOf(planted(Image(spec), twoPlaces));
    // The last of its four slots is about nothing, and the one before is stale.
    const Image limited(normalFormSpec());
    std::string surplus = planted(limited, twoPlaces);
    put32(surplus, limited.directories[0].at + 32, 1420);
    cases["surplus-slot"] = caseOf(surplus);
    for (bool is64 : {false, true}) {
        ImageSpec other = normalFormSpec();
        other.cpu = 0x01000007;
        Fat fat({{0x01000007, planted(Image(other), twoPlaces)},
                 {0x0100000c, Image(machoSpecs()["alternates"]).bytes},
                 {18, Image(machoSpecs()["big-endian"]).bytes}},
                is64);
        cases[is64 ? "fat64" : "fat"] = caseOf(fat.bytes);
    }
    std::string gap = cases["fat"].bytes;
    plant(gap, {120});
    cases["fat-gap"] = caseOf(gap);
    return cases;
}

/// What is changed in a file that was inside, with the place of its signature.
template<typename Change>
NormalFormCase spoiled(const std::string &outside, ImageSpec spec, Change &&change) {
    Image image(std::move(spec));
    std::string bytes = planted(image, twoPlaces);
    change(bytes, image);
    return caseOf(bytes, outside);
}

inline std::map<std::string, NormalFormCase> outsideReferences() {
    std::map<std::string, NormalFormCase> cases;
    const Image image(normalFormSpec());
    const std::string bytes = planted(image, twoPlaces);
    cases["no-reference"] = {bytes, {}, "no self-reference"};
    cases["beyond-the-end"] = {bytes, {1010, bytes.size() - 31}, "outside of it"};
    cases["far-beyond-the-end"] = {bytes, {1010, UINT64_MAX - 5}, "outside of it"};
    cases["overlapping"] = {bytes, {1010, 1041}, "overlap"};
    cases["descending"] = {bytes, {1400, 1010}, "overlap"};
    auto at = [&](const std::string &name, size_t place, const std::string &why) {
        std::string changed = bytes;
        plant(changed, {place});
        cases[name] = caseOf(changed, why);
    };
    at("in-the-magic", 0, "not Mach-O");
    at("in-the-header", 24, "");
    at("in-the-uuid", image.uuidCommand + 8 - 20, "");
    at("in-a-command-header", image.signatureCommand - 31, "");
    at("in-the-index", image.superBlob + 16, "");
    const Image::Directory &directory = image.directories[0];
    at("in-a-directory", directory.at + 50, "");
    at("in-a-slot", directory.slot(1) + 3, "slots");
    at("in-the-last-slot", directory.slot(4) - 1, "slots");
    // Nothing in these places keeps the file from being read.
    ImageSpec spec = normalFormSpec();
    spec.isSigned = false;
    cases["in-the-uuid-alone"] = caseOf(planted(Image(spec), {image.uuidCommand + 8}), "structure");
    spec = normalFormSpec();
    spec.infoPlist = "<plist/>";
    cases["in-a-segment"] = caseOf(planted(Image(spec), {image.headerSize + 24}), "structure");
    for (auto &[name, one] : cases) {
        one.outside = one.outside.empty() ? " " : one.outside;
    }
    return cases;
}

inline std::map<std::string, NormalFormCase> outsideSignatures() {
    std::map<std::string, NormalFormCase> cases;
    auto add = [&](const std::string &name, const std::string &why, auto &&change) {
        cases[name] = spoiled(why, normalFormSpec(), [&](std::string &bytes, const Image &image) {
            change(bytes, image, image.directories[0].at);
        });
    };
    add("hash-type", "hash type", [](auto &b, auto &, size_t at) { b[at + 37] = 5; });
    add("scattered", "scattered", [](auto &b, auto &, size_t at) { put32(b, at + 44, 88); });
    add("limit-in-signature", "covers",
        [](auto &b, auto &i, size_t at) { put32(b, at + 32, i.superBlob + 20); });
    add("no-limit", "covers", [](auto &b, auto &, size_t at) { put32(b, at + 32, 0); });
    add("page-size", "page size", [](auto &b, auto &, size_t at) { b[at + 39] = 8; });
    add("large-page-size", "page size", [](auto &b, auto &, size_t at) { b[at + 39] = 25; });
    add("version", "version", [](auto &b, auto &, size_t at) { put32(b, at + 8, 0x2f000); });
    add("old-version", "version", [](auto &b, auto &, size_t at) { put32(b, at + 8, 0x1ffff); });
    add("few-slots", "slots", [](auto &b, auto &, size_t at) { put32(b, at + 28, 3); });
    add("many-special-slots", "slots", [](auto &b, auto &, size_t at) { put32(b, at + 24, 257); });
    add("identifier-outside", "identifier", [](auto &b, auto &, size_t at) { put32(b, at + 20, 1 << 20); });
    add("two-blobs", "signature", [](auto &b, auto &i, size_t) { put32(b, i.superBlob + 8, 2); });
    add("no-directory", "CodeDirectory", [](auto &b, auto &i, size_t) { put32(b, i.superBlob + 12, 9); });
    add("no-super-blob", "SuperBlob", [](auto &b, auto &i, size_t) { put32(b, i.superBlob, 0xfade0cc1); });
    add("bare-directory", "no SuperBlob", [](auto &b, auto &i, size_t at) {
        std::string directory = b.substr(at);
        b.replace(i.superBlob, directory.size(), directory);
    });
    for (auto [name, version, at] : std::vector<std::tuple<std::string, int, int>>{
             {"pre-encrypt", 0x20500, 92}, {"linkage", 0x20600, 100}}) {
        ImageSpec spec = normalFormSpec();
        spec.directories[0].version = uint32_t(version);
        cases[name] = spoiled("more digests", spec, [&](std::string &bytes, const Image &image) {
            put32(bytes, image.directories[0].at + size_t(at), 60);
        });
    }
    ImageSpec spec = machoSpecs()["cms"];
    spec.codeSize = 1700;
    cases["cms"] = spoiled("CMS", spec, [](auto &, auto &) {});
    spec = normalFormSpec();
    spec.directories[0].identifier = std::string(4097, 'i');
    cases["long-identifier"] = spoiled("no end", spec, [](auto &, auto &) {});
    // Zeros in place of the self-reference would end it; in no other form does it end.
    spec.directories[0].identifier = builtHashPart;
    cases["endless-identifier"] = spoiled("identifier", spec, [](auto &bytes, const Image &image) {
        bytes.replace(image.directories[0].slot(0) - 2, 2, "xx");
    });
    return cases;
}

inline std::map<std::string, NormalFormCase> outsideContainers() {
    std::map<std::string, NormalFormCase> cases = {
        {"empty", {"", {}, "no self-reference"}},
        {"text", caseOf("a text of " + builtHashPart, "not Mach-O")},
        {"java", caseOf("\xca\xfe\xba\xbe" + std::string("\0\0\0\x3d", 4) + builtHashPart, "not Mach-O")},
    };
    const std::string good = planted(Image(normalFormSpec()), twoPlaces);
    ImageSpec cms = machoSpecs()["cms"];
    cms.cpu = 0x01000007;
    auto fat = [&](const std::string &name, const std::string &why, const Fat::Part &other, auto &&change) {
        Fat file({{0x0100000c, good}, other});
        change(file.bytes, file.at);
        cases[name] = caseOf(file.bytes, why);
    };
    auto nothing = [](auto &, auto &) {};
    fat("fat-archive", "not Mach-O", {12, "!<arch>\n an archive"}, nothing);
    fat("fat-text", "no Mach-O", {12, "a text"}, nothing);
    fat("fat-cms", "CMS", {0x01000007, Image(cms).bytes}, nothing);
    Fat::Part unsignedPart{0x0100000c, Image(machoSpecs()["unsigned"]).bytes};
    fat("fat-other-cpu", "architecture", {7, unsignedPart.bytes}, nothing);
    fat("fat-overlap", "overlaps", unsignedPart, [](auto &b, auto &at) { put32(b, 36, at[0] + 100); });
    fat("fat-cut-off", "beyond the end", unsignedPart, [](auto &b, auto &) { put32(b, 40, 1 << 20); });
    fat("fat-across-border", " ", unsignedPart, [](auto &b, auto &at) { plant(b, {at[1] - 10}); });
    fat("fat-across-end", "border", unsignedPart,
        [](auto &b, auto &at) { plant(b, {at[0] + get32(b, 8 + 12) - 10}); });
    fat("fat-in-the-table", " ", unsignedPart, [](auto &b, auto &) { plant(b, {47}); });
    return cases;
}

inline std::map<std::string, NormalFormCase> outsideImages() {
    std::map<std::string, NormalFormCase> cases;
    ImageSpec spec = normalFormSpec();
    spec.rpath = "as long as LC_UUID"; // 12 + 20 bytes
    cases["two-uuids"] = spoiled("two LC_UUID", spec, [](std::string &bytes, const Image &image) {
        put(bytes, image.rpathAt - 12, 0x1b, 4, false);
        put(bytes, image.rpathAt - 8, 24, 4, false);
        put(bytes, image.rpathAt + 12, 0x26, 4, false), put(bytes, image.rpathAt + 16, 8, 4, false);
        put(bytes, 16, 4, 4, false);
    });
    cases["long-uuid"] = spoiled("impossible size", normalFormSpec(), [](auto &bytes, const Image &image) {
        put(bytes, image.uuidCommand + 4, 40, 4, false), put(bytes, 16, 1, 4, false);
    });
    cases["commands-beyond-the-end"] = spoiled(
        "load commands", normalFormSpec(), [](auto &bytes, auto &) { put(bytes, 20, 1 << 20, 4, false); });
    cases["small-command"] =
        spoiled("impossible size", normalFormSpec(),
                [](auto &bytes, const Image &image) { put(bytes, image.uuidCommand + 4, 4, 4, false); });
    cases["signature-in-commands"] =
        spoiled("load commands", normalFormSpec(), [](auto &bytes, const Image &image) {
            put(bytes, image.signatureCommand + 8, 40, 4, false);
        });
    spec = normalFormSpec();
    spec.infoPlist = "<plist/>";
    cases["plist-in-signature"] = spoiled("Info.plist", spec, [](auto &bytes, const Image &image) {
        put(bytes, image.headerSize + 72 + 48, image.superBlob - 2, 4, false);
    });
    cases["plist-in-commands"] = spoiled("Info.plist", spec, [](auto &bytes, const Image &image) {
        put(bytes, image.headerSize + 72 + 48, image.commandsEnd - 2, 4, false);
    });
    return cases;
}

inline std::map<std::string, NormalFormCase> outsideCases() {
    std::map<std::string, NormalFormCase> cases = outsideReferences();
    cases.merge(outsideSignatures());
    cases.merge(outsideContainers());
    cases.merge(outsideImages());
    return cases;
}

} // namespace firn::test
