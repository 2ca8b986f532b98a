#!/usr/bin/env python3
"""Whether the digests in a Mach-O file's code signatures are right: a second opinion for the tests.

usage: check.py [--json] FILE…      exit 0: all right, 1: something is stale, 2: something could not be judged

Written from the format alone (Apple's loader.h and fat.h, and cs_blobs.h in xnu), with nothing but the standard library,
and without a look at Firn's own code, so that both are unlikely to be wrong in the same way. The tests import it: check()
looks at bytes, slots_over() says which digests cover given bytes.

A code signature is a SuperBlob at the end of each slice. Its CodeDirectories hold, before hashOffset, the digests of
blobs (special slots, −1 the nearest), and from hashOffset on those of the code's pages (code slots).
"""

import argparse
import hashlib
import json
import mmap
import os
import struct
import sys

FAT_MAGIC, FAT_MAGIC_64 = 0xCAFEBABE, 0xCAFEBABF
THIN = {b"\xce\xfa\xed\xfe": ("<", 28), b"\xcf\xfa\xed\xfe": ("<", 32),
        b"\xfe\xed\xfa\xce": (">", 28), b"\xfe\xed\xfa\xcf": (">", 32)}
ARCHIVE = b"!<arch>\n"
LC_SEGMENT, LC_SEGMENT_64, LC_CODE_SIGNATURE, LC_UUID = 0x1, 0x19, 0x1D, 0x1B
SUPER_BLOB, CODE_DIRECTORY, CMS_WRAPPER = 0xFADE0CC0, 0xFADE0C02, 0xFADE0B01
CMS_SLOT = 0x10000
DIRECTORY_SLOTS = (0, 0x1000, 0x1001, 0x1002, 0x1003, 0x1004)
ADHOC, LINKER_SIGNED = 0x2, 0x20000
# hash type → (the digest, how many bytes of it are kept)
DIGESTS = {1: ("sha1", 20), 2: ("sha256", 32), 3: ("sha256", 20), 4: ("sha384", 48)}
ARCHITECTURES = {7: "i386", 0x01000007: "x86_64", 12: "arm", 0x0100000C: "arm64", 0x0200000C: "arm64_32", 18: "ppc",
                 0x01000012: "ppc64"}
SUBTYPES = {("arm64", 2): "arm64e", ("arm", 6): "armv6", ("arm", 9): "armv7", ("arm", 11): "armv7s", ("arm", 12): "armv7k"}


class Malformed(Exception):
    pass


def demand(condition, text):
    if not condition:
        raise Malformed(text)


class View:
    """A part of the file; offsets are the part's own, reads outside of it are Malformed."""

    def __init__(self, data, offset, size):
        self.data, self.offset, self.size = data, offset, size

    def bytes(self, offset, size):
        demand(0 <= offset and 0 <= size and offset + size <= self.size, f"bytes {offset}+{size} are outside of {self.size}")
        return self.data[self.offset + offset:self.offset + offset + size]

    def unpack(self, form, offset):
        return struct.unpack(form, self.bytes(offset, struct.calcsize(form)))

    def part(self, offset, size):
        demand(0 <= offset and 0 <= size and offset + size <= self.size, f"a part {offset}+{size} is outside of {self.size}")
        return View(self.data, self.offset + offset, size)


# --- the container

def slices_of(data):
    """[(offset, size)] of a fat or thin file; None where it is neither."""
    whole = View(data, 0, len(data))
    if len(data) < 8:
        return None
    if bytes(data[:4]) in THIN:
        return [(0, len(data))]
    magic, count = whole.unpack(">II", 0)
    # A Java class file begins alike; its "count" is a version number, from 45 on.
    if magic not in (FAT_MAGIC, FAT_MAGIC_64) or (magic == FAT_MAGIC and not 0 < count < 45):
        return None
    demand(0 < count < 45, f"{count} slices")
    if magic == FAT_MAGIC:
        entries = [whole.unpack(">IIIII", 8 + 20 * i)[2:4] for i in range(count)]
    else:
        entries = [whole.unpack(">IIQQII", 8 + 32 * i)[2:4] for i in range(count)]
    for offset, size in entries:
        demand(offset + size <= len(data), f"a slice {offset}+{size} is outside of the file")
    return entries


class Slice:
    """The load commands of one slice, as far as they matter here."""

    def __init__(self, view):
        magic = bytes(view.bytes(0, 4))
        demand(magic in THIN, "no Mach-O header")
        order, header = THIN[magic]
        cpu, subtype, self.filetype, count, size = view.unpack(order + "5I", 4)
        self.architecture = ARCHITECTURES.get(cpu, f"cpu 0x{cpu:x}")
        self.architecture = SUBTYPES.get((self.architecture, subtype & 0xFFFFFF), self.architecture)
        self.signature = self.uuid = None
        self.sections = []  # (segment, name, offset, size), of those that lie in the file
        commands = view.part(header, size)
        at = 0
        for _ in range(count):
            command, length = commands.unpack(order + "II", at)
            demand(length >= 8, "a load command under 8 bytes")
            body = commands.part(at, length)
            if command == LC_CODE_SIGNATURE:
                demand(self.signature is None, "two LC_CODE_SIGNATURE")
                self.signature = body.unpack(order + "II", 8)
            elif command == LC_UUID:
                self.uuid = (header + at + 8, 16)
            elif command in (LC_SEGMENT, LC_SEGMENT_64):
                self.collect_sections(body, order, command == LC_SEGMENT_64)
            at += length

    def collect_sections(self, body, order, wide):
        segment, section = (72, 80) if wide else (56, 68)
        (count,) = body.unpack(order + "I", segment - 8)
        for i in range(count):
            at = segment + i * section
            name, owner = (bytes(body.bytes(at + part, 16)).rstrip(b"\0").decode(errors="replace") for part in (0, 16))
            size, offset = body.unpack(order + ("QI" if wide else "II"), at + 40 if wide else at + 36)
            if offset:
                self.sections.append((owner, name, offset, size))

    @property
    def info_plist(self):
        return next(((offset, size) for *names, offset, size in self.sections if names == ["__TEXT", "__info_plist"]), None)


# --- the signature

def blob_at(area, offset):
    _, length = area.unpack(">II", offset)
    demand(length >= 8, "a blob under 8 bytes")
    return area.part(offset, length)


def blobs_of(area):
    """{slot type: blob} of a SuperBlob."""
    magic, length, count = area.unpack(">III", 0)
    demand(magic == SUPER_BLOB, f"the signature's magic is 0x{magic:x}")
    area = area.part(0, length)
    found = {}
    for i in range(count):
        slot, offset = area.unpack(">II", 12 + 8 * i)
        demand(slot not in found, f"two blobs for slot 0x{slot:x}")
        demand(offset >= 12 + 8 * count, "a blob inside the index")
        found[slot] = blob_at(area, offset)
    return found


class Directory:
    """One CodeDirectory's fields; positions are the file's."""

    def __init__(self, slot, blob):
        magic, _, version, flags, hashes, ident, specials, codes, limit, size, kind, _, page, _ = blob.unpack(">9I4BI", 0)
        demand(magic == CODE_DIRECTORY, f"a CodeDirectory's magic is 0x{magic:x}")
        demand(version >= 0x20000, f"version 0x{version:x}")
        self.slot, self.blob, self.version, self.flags = slot, blob, version, flags
        self.limit = limit
        if version >= 0x20300:
            (wide,) = blob.unpack(">Q", 56)
            self.limit = wide or limit
        self.scattered = version >= 0x20100 and blob.unpack(">I", 44)[0] != 0
        self.hash_type, self.hash_size = kind, size
        self.page_size = 1 << page if page else 0
        self.code_slots, self.special_slots = codes, specials
        self.hashes = hashes
        demand(codes * size + hashes <= blob.size and specials * size <= hashes, "slots outside of the CodeDirectory")
        text = bytes(blob.bytes(ident, blob.size - ident))
        demand(b"\0" in text, "the identifier has no end")
        self.identifier = text[:text.index(b"\0")].decode(errors="replace")

    def digest(self, data):
        name, kept = DIGESTS[self.hash_type]
        return hashlib.new(name, data).digest()[:kept]

    def slot_range(self, index):
        """Where the digest of code slot `index`, or of special slot −1, −2, …, lies in the file."""
        return self.blob.offset + self.hashes + index * self.hash_size, self.hash_size

    def stored(self, index):
        return bytes(self.blob.bytes(self.hashes + index * self.hash_size, self.hash_size))

    def page(self, index):
        """What code slot `index` covers, in the slice: (offset, size)."""
        if not self.page_size:
            return 0, self.limit
        return index * self.page_size, min((index + 1) * self.page_size, self.limit) - index * self.page_size

    def check_shape(self, size):
        demand(not self.scattered, "scattered")
        demand(self.hash_type in DIGESTS, f"hash type {self.hash_type}")
        demand(self.hash_size == DIGESTS[self.hash_type][1], f"{self.hash_size} bytes for hash type {self.hash_type}")
        demand(self.limit <= size, "codeLimit is outside of the slice")
        pages = 1 if not self.page_size else -(-self.limit // self.page_size)
        demand(pages == self.code_slots, f"{self.code_slots} slots for {pages} pages")


def subjects_of(directory, blobs, slice_):
    """{k: (offset, size) in the file, or None where it is outside} for the special slots −k in use."""
    found = {}
    for k in range(1, directory.special_slots + 1):
        if not any(directory.stored(-k)):
            continue
        if k in blobs:
            found[k] = (blobs[k].offset, blobs[k].size)
        elif k == 1 and slice_["header"].info_plist:
            offset, size = slice_["header"].info_plist
            found[k] = (slice_["view"].offset + offset, size)
        else:
            found[k] = None
    return found


def open_slice(data, offset, size):
    """The parsed parts of one slice: header, blobs and directories ([] where there is no signature)."""
    view = View(data, offset, size)
    parts = {"view": view, "header": None, "blobs": {}, "directories": []}
    if data[offset:offset + min(size, 8)] == ARCHIVE:
        return parts
    parts["header"] = Slice(view)
    if parts["header"].signature is None:
        return parts
    parts["blobs"] = blobs_of(view.part(*parts["header"].signature))
    parts["directories"] = [Directory(slot, parts["blobs"][slot]) for slot in DIRECTORY_SLOTS if slot in parts["blobs"]]
    demand(parts["directories"], "a signature without a CodeDirectory")
    return parts


def kind_of(parts):
    if not parts["directories"]:
        return "none"
    wrapper = parts["blobs"].get(CMS_SLOT)
    if wrapper and wrapper.size > 8:
        return "cms"
    return "linker-signed" if parts["directories"][0].flags & LINKER_SIGNED else "ad-hoc"


def check_directory(directory, parts, data):
    report = {
        "slotType": directory.slot, "offset": directory.blob.offset, "size": directory.blob.size,
        "version": directory.version, "flags": directory.flags, "identifier": directory.identifier,
        "hashType": directory.hash_type, "pageSize": directory.page_size, "codeLimit": directory.limit,
        "codeSlots": directory.code_slots, "specialSlots": directory.special_slots,
        "staleCodeSlots": [], "staleSpecialSlots": [], "externalSpecialSlots": [], "problem": "",
    }
    view = parts["view"]
    try:
        directory.check_shape(view.size)
        for i in range(directory.code_slots):
            if directory.digest(view.bytes(*directory.page(i))) != directory.stored(i):
                report["staleCodeSlots"].append(i)
        for k, subject in subjects_of(directory, parts["blobs"], parts).items():
            if subject is None:
                report["externalSpecialSlots"].append(k)
            elif directory.digest(data[subject[0]:subject[0] + subject[1]]) != directory.stored(-k):
                report["staleSpecialSlots"].append(k)
    except Malformed as error:
        report["problem"] = str(error)
    return report


def check_slice(data, offset, size):
    report = {"offset": offset, "size": size, "architecture": "", "kind": "none", "cmsSize": None, "directories": [],
              "problem": ""}
    try:
        if data[offset:offset + min(size, 8)] == ARCHIVE:
            return report  # a static library: nothing in it is run as it is, and nothing is signed
        header = Slice(View(data, offset, size))
        report["architecture"] = header.architecture
        parts = open_slice(data, offset, size)
        report["kind"] = kind_of(parts)
        if CMS_SLOT in parts["blobs"]:
            report["cmsSize"] = parts["blobs"][CMS_SLOT].size - 8
        report["directories"] = [check_directory(directory, parts, data) for directory in parts["directories"]]
    except Malformed as error:
        report["problem"] = str(error)
    return report


def check(data):
    """A report on the bytes of a file, plain values only (its JSON form is what --json prints)."""
    report = {"isMacho": False, "problem": "", "slices": []}
    try:
        slices = slices_of(data)
        report["isMacho"] = slices is not None
        report["slices"] = [check_slice(data, offset, size) for offset, size in slices or []]
    except Malformed as error:
        report["isMacho"], report["problem"] = True, str(error)
    return report


def check_file(path):
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return check(b"")
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            return check(data)


def directories(report):
    return [directory for slice_ in report["slices"] for directory in slice_["directories"]]


def stale(report):
    """[(slice's offset, slot type, slot)]: code slots from 0, special slots from −1 down."""
    return [(slice_["offset"], directory["slotType"], slot) for slice_ in report["slices"] for directory in slice_["directories"]
            for slot in [-k for k in directory["staleSpecialSlots"]] + directory["staleCodeSlots"]]


def problems(report):
    return [text for text in [report["problem"]] + [slice_["problem"] for slice_ in report["slices"]] +
            [directory["problem"] for directory in directories(report)] if text]


def slots_over(data, ranges):
    """The digests that cover any byte of the ranges ((offset, size) in the file):
    {(slice's offset, slot type, slot): (offset, size) of the digest in the file}."""
    found = {}

    def overlaps(offset, size):
        return any(offset < other + length and other < offset + size for other, length in ranges)

    for offset, size in slices_of(data) or []:
        parts = open_slice(data, offset, size)
        for directory in parts["directories"]:
            for i in range(directory.code_slots):
                page, length = directory.page(i)
                if overlaps(offset + page, length):
                    found[offset, directory.slot, i] = directory.slot_range(i)
            for k, subject in subjects_of(directory, parts["blobs"], parts).items():
                if subject and overlaps(*subject):
                    found[offset, directory.slot, -k] = directory.slot_range(-k)
    return found


def uuids(data):
    """Where the LC_UUIDs lie in the file."""
    found = []
    for offset, size in slices_of(data) or []:
        header = open_slice(data, offset, size)["header"]
        if header and header.uuid:
            found.append((offset + header.uuid[0], header.uuid[1]))
    return found


# --- the program

def describe(path, report):
    lines = [f"{path}: not Mach-O"] if not report["isMacho"] else []
    if report["problem"]:
        lines.append(f"{path}: {report['problem']}")
    for slice_ in report["slices"]:
        lines.append(f"{path}: {slice_['architecture'] or '?'} at {slice_['offset']}: {slice_['problem'] or slice_['kind']}")
        for directory in slice_["directories"]:
            wrong = [-k for k in directory["staleSpecialSlots"]] + directory["staleCodeSlots"]
            verdict = directory["problem"] or (f"STALE: {', '.join(map(str, wrong))}" if wrong else "right")
            lines.append(f"    directory 0x{directory['slotType']:x} '{directory['identifier']}': hash type {directory['hashType']}, "
                         f"pages of {directory['pageSize']}, {directory['codeSlots']} + {directory['specialSlots']} slots, "
                         f"version 0x{directory['version']:x}, flags 0x{directory['flags']:x}: {verdict}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("files", nargs="+", metavar="FILE")
    args = parser.parse_args()
    reports = {path: check_file(path) for path in args.files}
    if args.json:
        print(json.dumps(reports, indent=1))
    else:
        print("\n".join(describe(path, report) for path, report in reports.items()))
    if any(problems(report) for report in reports.values()):
        return 2
    return 1 if any(stale(report) for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
