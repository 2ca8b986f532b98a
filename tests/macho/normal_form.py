#!/usr/bin/env python3
"""The normal and the final form of content-addressed Mach-O files: a second implementation, for the tests.

usage: normal_form.py FILE HASH-PART     whether FILE is the final form of its normal form, 0: yes, 1: no, 2: outside
       normal_form.py --json             [{"file": …, "selfReferences": […], "hashPart": …}, …] from stdin, where file is
                                         base-64; to stdout, for each, {"outside": …} or {"normal": …, "final": …,
                                         "places": [[offset, size], …]} with the SHA-256 of both forms

Written from doc/content-addressed-macho.md alone, in its order and with its words, with nothing but the standard library, and
without a look at Firn's own code.
"""

import base64
import hashlib
import json
import struct
import sys

HASH_PART = 32
DOMAIN = b"firn:content-addressed-macho:1:uuid\0"
IMAGES = {b"\xfe\xed\xfa\xce": (">", False), b"\xfe\xed\xfa\xcf": (">", True),
          b"\xce\xfa\xed\xfe": ("<", False), b"\xcf\xfa\xed\xfe": ("<", True)}
SEGMENT, SEGMENT_64, UUID, CODE_SIGNATURE = 0x1, 0x19, 0x1B, 0x1D
HEADERS = [(0x20600, 108), (0x20500, 96), (0x20400, 88), (0x20300, 64), (0x20200, 52), (0x20100, 48), (0x20000, 44)]
DIGESTS = {1: (hashlib.sha1, 20), 2: (hashlib.sha256, 32), 3: (hashlib.sha256, 20), 4: (hashlib.sha384, 48)}
CODE_DIRECTORIES = (0, 0x1000, 0x1001, 0x1002, 0x1003, 0x1004)


class Outside(Exception):
    pass


def demand(condition, text):
    if not condition:
        raise Outside(text)


def within(inner, outer):
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def meet(a, b):
    return max(a[0], b[0]) < min(a[1], b[1])


class Layout:
    """What all forms of a file share. Ranges are (begin, end) in the file."""

    def __init__(self, file, references):
        self.references = [(at, at + HASH_PART) for at in references]
        demand(references, "no self-reference")
        demand(all(0 <= a and b <= len(file) for a, b in self.references), "a self-reference outside of the file")
        demand(all(a[1] <= b[0] for a, b in zip(self.references, self.references[1:])), "self-references overlap")
        self.file = replace(file, [(at, b"0" * HASH_PART) for at in references])
        self.structural = []
        self.uuids = {}  # slice: range
        self.directories = []
        self.slices = self.read_container()
        for slice_ in self.slices:
            Image(self, slice_)
        for reference in self.references:
            demand(not any(meet(reference, other) for other in self.structural), "a self-reference in the structure")
            demand(all(within(reference, s) or not meet(reference, s) for s in self.slices), "a self-reference across a border")

    def unpack(self, form, at, limit=None):
        size = struct.calcsize(form)
        demand(0 <= at and at + size <= (len(self.file) if limit is None else limit), "cut off")
        return struct.unpack_from(form, self.file, at)

    def read_container(self):
        if self.file[:4] in IMAGES:
            return [(0, len(self.file))]
        magic, count = self.unpack(">II", 0)
        demand(magic in (0xCAFEBABE, 0xCAFEBABF), "not Mach-O")
        demand(1 <= count <= 42, "the number of entries")
        form, first = (">IIIII", 2) if magic == 0xCAFEBABE else (">IIQQII", 2)
        end = 8 + count * struct.calcsize(form)
        slices = []
        for i in range(count):
            entry = self.unpack(form, 8 + i * struct.calcsize(form))
            slice_ = (entry[first], entry[first] + entry[first + 1])
            demand(within(slice_, (end, len(self.file))) and slice_[0] < slice_[1], "an entry's range")
            demand(not any(meet(slice_, other) for other in slices), "slices overlap")
            magic_of_slice = self.file[slice_[0]:slice_[0] + 4]
            demand(magic_of_slice in IMAGES and slice_[1] - slice_[0] >= 28, "an entry is no image")
            (cpu,) = self.unpack(IMAGES[magic_of_slice][0] + "I", slice_[0] + 4)
            demand(cpu == entry[0], "an entry's cputype")
            slices.append(slice_)
        self.structural.append((0, end))
        return slices


class Image:
    def __init__(self, layout, slice_):
        self.layout, self.slice = layout, slice_
        self.begin, self.end = slice_
        demand(self.end - self.begin >= 28, "no header")
        self.order, self.wide = IMAGES[layout.file[self.begin:self.begin + 4]]
        self.signature, self.plists = None, []
        self.read_commands()
        self.plist = None
        if self.signature:
            self.check_plist()
            self.read_signature()

    def read_commands(self):
        header = 32 if self.wide else 28
        demand(self.begin + header <= self.end, "no header")
        count, size = self.layout.unpack(self.order + "II", self.begin + 16, self.end)
        at = self.begin + header
        self.commands_end = at + size
        demand(self.commands_end <= self.end and count <= 16384 and size <= 1048576, "the load commands' size")
        self.layout.structural.append((self.begin, at))
        for _ in range(count):
            command, length = self.layout.unpack(self.order + "II", at, self.commands_end)
            demand(length >= 8 and at + length <= self.commands_end, "a load command's size")
            known = {SEGMENT: self.segment, SEGMENT_64: self.segment, UUID: self.uuid, CODE_SIGNATURE: self.code_signature}
            self.layout.structural.append((at, at + length if command in known else at + 8))
            if command in known:
                known[command](command, at, length)
            at += length

    def uuid(self, _, at, length):
        demand(self.slice not in self.layout.uuids and length == 24, "LC_UUID")
        self.layout.uuids[self.slice] = (at + 8, at + 24)

    def code_signature(self, _, at, length):
        demand(self.signature is None and length >= 16, "LC_CODE_SIGNATURE")
        offset, size = self.layout.unpack(self.order + "II", at + 8)
        self.signature = (self.begin + offset, self.begin + offset + size)
        demand(within(self.signature, (self.commands_end, self.end)), "the signature's range")

    def segment(self, command, at, length):
        if (command == SEGMENT_64) != self.wide:
            return
        head, each = (72, 80) if self.wide else (56, 68)
        demand(length >= head, "a segment")
        (count,) = self.layout.unpack(self.order + "I", at + head - 8)
        demand(head + count * each <= length, "sections")
        for section in range(at + head, at + head + count * each, each):
            name, owner = (self.layout.file[section + i:section + i + 16].split(b"\0")[0] for i in (0, 16))
            if (name, owner) == (b"__info_plist", b"__TEXT"):
                self.plists.append(self.layout.unpack(self.order + ("QI" if self.wide else "II"), section + (40 if self.wide else 36)))

    def check_plist(self):
        demand(len(self.plists) <= 1, "two embedded Info.plist")
        for size, offset in self.plists:
            if size:
                self.plist = (self.begin + offset, self.begin + offset + size)
                demand(within(self.plist, (self.commands_end, self.signature[0])), "the embedded Info.plist's range")

    def read_signature(self):
        begin, end = self.signature
        magic, length, count = self.layout.unpack(">III", begin, end)
        demand(magic == 0xFADE0CC0 and length >= 12 and begin + length <= end, "no SuperBlob")
        end = begin + length
        index = (begin, begin + 12 + 8 * count)
        demand(count <= 64 and index[1] <= end, "the index")
        self.layout.structural.append(index)
        blobs, magics = {}, {}
        for at in range(begin + 12, index[1], 8):
            slot, offset = self.layout.unpack(">II", at)
            demand(begin + offset >= index[1], "a blob in the index")
            magics[slot], size = self.layout.unpack(">II", begin + offset, end)
            blob = (begin + offset, begin + offset + size)
            demand(size >= 8 and blob[1] <= end and slot not in blobs, "a blob")
            demand(not any(meet(blob, other) for other in blobs.values()), "blobs overlap")
            blobs[slot] = blob
            self.layout.structural.append((blob[0], blob[0] + 8))
        demand(0x10000 not in blobs or blobs[0x10000][1] - blobs[0x10000][0] == 8, "CMS")
        directories = [slot for slot in CODE_DIRECTORIES if slot in blobs]
        demand(directories, "no CodeDirectory")
        for slot in directories:
            demand(magics[slot] == 0xFADE0C02, "a CodeDirectory's magic")
            self.layout.directories.append(Directory(self, blobs[slot], blobs))


class Directory:
    def __init__(self, image, blob, blobs):
        layout = image.layout
        self.image, self.blobs = image, blobs
        begin, end = blob
        demand(end - begin >= 44, "a CodeDirectory is too short")
        (version, _, hashes, ident, self.special, code, limit, self.size, self.type, _, exponent, _) = layout.unpack(">7I4BI", begin + 8)
        demand(0x20000 <= version < 0x2F000, "a CodeDirectory's version")
        header = next(size for known, size in HEADERS if version >= known)
        demand(begin + header <= end, "a CodeDirectory is too short")
        demand(self.type in DIGESTS and DIGESTS[self.type][1] == self.size, "a CodeDirectory's hash")
        demand(exponent == 0 or 9 <= exponent <= 24, "a page size")
        if version >= 0x20300:
            limit = layout.unpack(">Q", begin + 56)[0] or limit
        self.limit = limit
        demand(0 < limit <= image.signature[0] - image.begin, "a code limit")
        self.page = 1 << exponent if exponent else limit
        self.pages = (limit + self.page - 1) // self.page
        demand(self.special <= 256 and hashes >= header + self.special * self.size, "special slots")
        demand(hashes + code * self.size <= end - begin and code >= self.pages, "code slots")
        self.hashes = begin + hashes
        slots = (self.hashes - self.special * self.size, self.hashes + self.pages * self.size)
        for text in [ident] + ([layout.unpack(">I", begin + 48)[0]] if version >= 0x20200 else []):
            if text:
                demand(header <= text < end - begin, "a text's offset")
                stop = layout.file.find(b"\0", begin + text, min(begin + text + 4097, end))
                demand(stop >= 0 and not meet((begin + text, stop + 1), slots), "a text")
        for since, at in ((0x20100, 44), (0x20500, 92), (0x20600, 100)):
            demand(version < since or layout.unpack(">I", begin + at) == (0,), "scattered, or further digests")
        layout.structural += [(begin, begin + header), slots]

    def slot(self, i):
        return self.hashes + i * self.size, self.hashes + (i + 1) * self.size

    def in_use(self, file, k):
        return k <= self.special and any(file[slice(*self.slot(-k))])

    def subject(self, file, k):
        if k in self.blobs:
            return self.blobs[k]
        return self.image.plist if k == 1 and not self.in_use(file, 3) else None

    def page_range(self, i):
        return self.image.begin + i * self.page, self.image.begin + min((i + 1) * self.page, self.limit)

    def places(self, layout):
        """{the slot's range: that of what it is the digest of}"""
        changed = layout.references + list(layout.uuids.values())
        found = {}
        for begin, end in changed:
            begin, end = max(begin, self.image.begin) - self.image.begin, min(end, self.image.begin + self.limit) - self.image.begin
            if begin < end:
                for i in range(begin // self.page, (end - 1) // self.page + 1):
                    found[self.slot(i)] = self.page_range(i)
        for k in range(1, self.special + 1):
            subject = self.subject(layout.file, k)
            if self.in_use(layout.file, k) and subject and any(meet(subject, r) for r in layout.references):
                found[self.slot(-k)] = subject
        return found

    def digest(self, data):
        digest, kept = DIGESTS[self.type]
        return digest(data).digest()[:kept]


def replace(file, patches):
    result = bytearray(file)
    for at, new in patches:
        result[at:at + len(new)] = new
    return bytes(result)


def form(layout, file, hash_part, uuids):
    file = replace(file, [(begin, hash_part) for begin, _ in layout.references] + [(layout.uuids[s][0], u) for s, u in uuids.items()])
    return replace(file, [(slot[0], directory.digest(file[slice(*subject)])) for directory in layout.directories
                          for slot, subject in directory.places(layout).items()])


def uuid_of(data):
    made = bytearray(hashlib.sha256(DOMAIN + hashlib.sha256(data).digest()).digest()[:16])
    made[6] = 0x80 | made[6] & 0x0F
    made[8] = 0x80 | made[8] & 0x3F
    return bytes(made)


def normal_form(file, references):
    layout = Layout(file, references)
    return form(layout, file, bytes(HASH_PART), {s: bytes(16) for s in layout.uuids})


def final_form(file, references, hash_part):
    normal = normal_form(file, references)
    layout = Layout(normal, references)
    return form(layout, normal, hash_part, {s: uuid_of(normal[slice(*s)]) for s in layout.uuids})


def places(file, references):
    layout = Layout(file, references)
    slots = [slot for directory in layout.directories for slot in directory.places(layout)]
    return sorted([a, b - a] for a, b in layout.references + list(layout.uuids.values()) + slots)


def occurrences(file, text):
    found, at = [], file.find(text)
    while at >= 0:
        found.append(at)
        at = file.find(text, at + 1)
    return found


def answer(question):
    file = base64.b64decode(question["file"])
    references = question["selfReferences"]
    try:
        forms = {"normal": normal_form(file, references), "final": final_form(file, references, question["hashPart"].encode())}
    except Outside as error:
        return {"outside": str(error)}
    return {name: hashlib.sha256(data).hexdigest() for name, data in forms.items()} | {"places": places(file, references)}


def main():
    if sys.argv[1:] == ["--json"]:
        json.dump([answer(question) for question in json.load(sys.stdin)], sys.stdout)
        return 0
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    path, hash_part = sys.argv[1], sys.argv[2].encode()
    with open(path, "rb") as opened:
        file = opened.read()
    try:
        right = final_form(file, occurrences(file, hash_part), hash_part) == file
    except Outside as error:
        print(f"{path}: outside of the specification: {error}")
        return 2
    print(f"{path}: {'is' if right else 'is not'} the final form of its normal form")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
