"""Small thin Mach-O programs with a code signature, made byte by byte: for derivations that make one
(`python3 synthetic_macho.py FILE [option=value…] TEXT…`) and for looking at what became of it. 4 KiB pages, SHA-256.

Options: signature=adhoc|cms|unknown (a hash type that nobody knows)|malformed|scattered|limit-in-signature (what is hashed reaches into it), stale=N (a page whose hash is wrong from the
start), times=N (each text that often), uuid=content (an LC_UUID that is computed from the rest, as linkers do), uuid=TEXT.
"""

import hashlib
import re
import struct
import sys

PAGE = 4096
CPUS = {"arm64": 0x0100000C, "x86_64": 0x01000007}
HASH_TYPES = {"unknown": 77}  # the others' is SHA-256


def program(texts, signature="adhoc", stale=None, times=1, architecture="arm64", uuid=None):
    """The hash part of each path stands across the border of two pages, and then `times` - 1 further times in a row."""
    body = bytearray()
    commands = 16 + (24 if uuid else 0)
    for text in texts:
        body += b"." * (-(32 + commands + len(body) + re.search(r"[0-9a-z]{32}-", text).start() + 16) % PAGE) + (text.encode() + b"\n") * int(times)
    body += b"end" * 2000
    limit = 32 + commands + len(body)
    limit += -limit % 16
    pages = (limit + PAGE - 1) // PAGE
    identifier = b"synthetic\0"
    slots_at = 88 + len(identifier)
    directory_size = slots_at + 32 * pages
    payload = b"\x30\x80 not really a CMS signature" if signature == "cms" else b""
    wrapper = struct.pack(">II", 0xFADE0B01, 8 + len(payload)) + payload
    index = 12 + 2 * 8
    size = index + directory_size + len(wrapper)
    header = struct.pack("<8I", 0xFEEDFACF, CPUS[architecture], 0, 2, 2 if uuid else 1, commands, 0, 0)
    header += struct.pack("<4I", 0x1D, 16, limit, size)
    if uuid:
        header += struct.pack("<2I", 0x1B, 24) + hashlib.sha256(body if uuid == "content" else uuid.encode()).digest()[:16]
    code = (header + body).ljust(limit, b"\0")
    end = limit + 16 if signature == "limit-in-signature" else limit
    slots = [hashlib.sha256(code[i * PAGE:(i + 1) * PAGE]).digest() for i in range(pages)]
    if stale is not None:
        slots[int(stale)] = b"wrong".ljust(32, b"!")
    count = pages + 1 if signature == "malformed" else pages
    directory = struct.pack(">9I4B4I4Q", 0xFADE0C02, directory_size, 0x20400, 0 if signature == "cms" else 2, slots_at, 88, 0,
                            count, end, 32, HASH_TYPES.get(signature, 2), 0, 12, 0, 88 if signature == "scattered" else 0, *[0] * 6)
    directory += identifier + b"".join(slots)
    blobs = struct.pack(">III4I", 0xFADE0CC0, size, 2, 0, index, 0x10000, index + directory_size)
    return code + blobs + directory + wrapper


def stale_slots(data):
    """Of the one CodeDirectory of a thin program with SHA-256."""
    limit, = struct.unpack_from("<I", data, 32 + 8)
    directory = limit + struct.unpack_from(">I", data, limit + 16)[0]
    hash_offset, = struct.unpack_from(">I", data, directory + 16)
    count, = struct.unpack_from(">I", data, directory + 28)
    slot = lambda i: data[directory + hash_offset + 32 * i:][:32]  # noqa: E731
    return [i for i in range(count) if slot(i) != hashlib.sha256(data[i * PAGE:min((i + 1) * PAGE, limit)]).digest()]


if __name__ == "__main__":
    options = dict(word.split("=", 1) for word in sys.argv[2:] if word[0] != "/")
    with open(sys.argv[1], "wb") as file:
        file.write(program([word for word in sys.argv[2:] if word[0] == "/"], **options))
