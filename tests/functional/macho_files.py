"""Small Mach-O files with code signatures, made byte by byte.

Written from Apple's loader.h, fat.h and cs_blobs.h and independent of Firn's code: hashes come from hashlib. A file made here has the
layout of a linker's output as far as signatures are concerned (header, load commands, text, signature), and runs nowhere.
"""

import hashlib
import struct

ARM64, X86_64 = (0x0100000C, 0), (0x01000007, 3)
ADHOC, RUNTIME, LINKER_SIGNED = 0x2, 0x10000, 0x20000

PRIMARY, REQUIREMENTS, ENTITLEMENTS, ALTERNATE, CMS = 0, 2, 5, 0x1000, 0x10000
SHA1, SHA256, SHA256_CUT, SHA384 = 1, 2, 3, 4

EMPTY_REQUIREMENTS = struct.pack(">III", 0xFADE0C01, 12, 0)
HEADER_SIZE = 4096


def digest(hash_type, data):
    name = {SHA1: "sha1", SHA256: "sha256", SHA256_CUT: "sha256", SHA384: "sha384"}[hash_type]
    value = hashlib.new(name, data).digest()
    return value[:20] if hash_type == SHA256_CUT else value


def entitlements(text=b"<plist/>"):
    return struct.pack(">II", 0xFADE7171, 8 + len(text)) + text


def pages(code, page_size):
    return [code[start:start + page_size] for start in range(0, len(code), page_size or len(code))] if page_size \
        else [code]


def code_directory(code_hashes, code_limit, *, hash_type=SHA256, page_size=4096, flags=ADHOC, identifier=b"prog",
                   special=None, version=0x20400):
    """A CodeDirectory blob. `special`: digests by number, 1 for slot -1."""
    special = special or {}
    hash_size = len(digest(hash_type, b""))
    special_count = max(special, default=0)
    fixed = 88
    ident_offset = fixed
    hash_offset = ident_offset + len(identifier) + 1 + special_count * hash_size
    length = hash_offset + hash_size * len(code_hashes)
    blob = struct.pack(">9I4BI", 0xFADE0C02, length, version, flags, hash_offset, ident_offset, special_count, len(code_hashes),
                       code_limit, hash_size, hash_type, 0, page_size.bit_length() - 1 if page_size else 0, 0)
    blob += struct.pack(">IIIQQQQ", 0, 0, 0, 0, 0, code_limit, 1)
    assert len(blob) == fixed
    blob += identifier + b"\0"
    for number in range(special_count, 0, -1):
        blob += special.get(number, bytes(hash_size))
    return blob + b"".join(code_hashes)


def super_blob(blobs):
    """`blobs`: (slot type, bytes)."""
    offset = 12 + 8 * len(blobs)
    index = b""
    for slot, blob in blobs:
        index += struct.pack(">II", slot, offset)
        offset += len(blob)
    return struct.pack(">III", 0xFADE0CC0, offset, len(blobs)) + index + b"".join(blob for _, blob in blobs)


def header(cpu, code_limit, signature_size):
    """Mach-O header and load commands, padded to one page of 4096: a __TEXT segment, __LINKEDIT and the signature."""
    text = struct.pack("<II16s4Q4I", 0x19, 72, b"__TEXT", 1 << 32, code_limit, 0, code_limit, 5, 5, 0, 0)
    link = struct.pack("<II16s4Q4I", 0x19, 72, b"__LINKEDIT", (1 << 32) + code_limit, max(signature_size, 1), code_limit,
                       signature_size, 1, 1, 0, 0)
    commands = [text, link]
    if signature_size:
        commands.append(struct.pack("<4I", 0x1D, 16, code_limit, signature_size))
    data = b"".join(commands)
    head = struct.pack("<8I", 0xFEEDFACF, cpu[0], cpu[1], 2, len(commands), len(data), 0x85, 0)
    return (head + data).ljust(HEADER_SIZE, b"\0")


class Style:
    """How a file is signed."""

    def __init__(self, *, hash_types=(SHA256,), page_size=4096, flags=ADHOC | LINKER_SIGNED, identifier=b"prog", cms=None,
                 entitlements=None, padding=0):
        self.hash_types, self.page_size, self.flags, self.identifier = hash_types, page_size, flags, identifier
        self.cms, self.entitlements, self.padding = cms, entitlements, padding

    def sign(self, code):
        blobs, special = [], {}
        if self.entitlements is not None:
            blobs = [(REQUIREMENTS, EMPTY_REQUIREMENTS), (ENTITLEMENTS, self.entitlements)]
        for number, hash_type in enumerate(self.hash_types):
            for slot, blob in blobs:
                if slot in (REQUIREMENTS, ENTITLEMENTS):
                    special[slot] = digest(hash_type, blob)
            hashes = [digest(hash_type, page) for page in pages(code, self.page_size)]
            directory = code_directory(hashes, len(code), hash_type=hash_type, page_size=self.page_size, flags=self.flags,
                                       identifier=self.identifier, special=dict(special))
            blobs.append((PRIMARY if number == 0 else ALTERNATE + number - 1, directory))
        if self.cms is not None:
            blobs.append((CMS, struct.pack(">II", 0xFADE0B01, 8 + len(self.cms)) + self.cms))
        return super_blob(sorted(blobs)) + bytes(self.padding)


LINKED = Style()
ADHOC_SIGNED = Style(flags=ADHOC, cms=b"", hash_types=(SHA1, SHA256), entitlements=entitlements())
DEVELOPER = Style(flags=RUNTIME, cms=b"\x30\x80" + bytes(500))


def thin(body, cpu=ARM64, style=LINKED):
    """A file whose text, from byte 4096 on, is `body`; `style` None: unsigned."""
    code_limit = HEADER_SIZE + len(body)
    if style is None:
        return header(cpu, code_limit, 0) + body
    size = len(style.sign(bytes(code_limit)))
    code = header(cpu, code_limit, size) + body
    signature = style.sign(code)
    assert len(signature) == size
    return code + signature


def fat(*slices):
    """A universal file of (cpu, bytes)."""
    offset, table, data = 0x4000, b"", b""
    for cpu, content in slices:
        table += struct.pack(">5I", cpu[0], cpu[1], offset + len(data), len(content), 14)
        data += content.ljust(-(-len(content) // 0x4000) * 0x4000, b"\0")
    return (struct.pack(">II", 0xCAFEBABE, len(slices)) + table).ljust(offset, b"\0") + data


def zeros(path, code_limit, page_size=16384, stale=()):
    """Writes a sparse file of any size, right but for the pages in `stale`."""
    zero_page, count = digest(SHA256, bytes(page_size)), -(-code_limit // page_size)
    assert code_limit % page_size == 0 and count > 1
    size = len(super_blob([(PRIMARY, code_directory([zero_page] * count, code_limit, page_size=page_size))]))
    first = header(ARM64, code_limit, size).ljust(page_size, b"\0")
    hashes = [digest(SHA256, first)] + [zero_page] * (count - 1)
    for page in stale:
        hashes[page] = bytes(32)
    with open(path, "wb") as file:
        file.write(first)
        file.seek(code_limit)
        file.write(super_blob([(PRIMARY, code_directory(hashes, code_limit, page_size=page_size))]))
    return path
