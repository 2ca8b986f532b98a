"""Files with hash parts in known places, and what a right rewriting of them gives: for tests and measurements.

A hash part is what the daemon replaces: the 32 characters before a store path's name. They are planted where nothing is
stored that a loader or a parser of signatures looks at, so that a planted file has the shape of the original.
"""

import random
import sys
from pathlib import Path

import check

OLD = b"0ldhashpar7" + b"1" * 21
NEW = b"n3whashpar7" + b"2" * 21
assert len(OLD) == len(NEW) == 32 and not set(OLD + NEW) - set(b"0123456789abcdfghijklmnpqrsvwxyz")


def pages(parts):
    """Places (in the file) in the pages of one signed slice: {name: offset}."""
    first = parts["directories"][0]
    base, size, count = parts["view"].offset, first.page_size, first.code_slots
    middle = max(count // 2, 1)
    return {
        "in the middle of a page": base + middle * size + size // 3,
        "across the border of two pages": base + max(count // 4, 1) * size + size - 16,
        "in the last page, up to codeLimit": base + first.limit - 32,
    }


def blobs(parts):
    """Places in blobs that a special slot covers, where one is large enough; and in identifiers, which none covers."""
    found = {}
    for directory in parts["directories"]:
        for k, subject in check.subjects_of(directory, parts["blobs"], parts).items():
            if subject and subject[1] >= 48:
                found[f"under special slot -{k}"] = subject[0] + subject[1] - 40
        if len(directory.identifier) >= 34:
            blob = directory.blob
            text = bytes(blob.bytes(0, blob.size)).index(directory.identifier.encode())
            found[f"in the identifier of 0x{directory.slot:x}"] = blob.offset + text + 1
    return found


def outside(data):
    """Places that no digest covers: the padding behind a signature, an unsigned slice."""
    found = {}
    for offset, size in check.slices_of(data) or []:
        parts = check.open_slice(data, offset, size)
        if not parts["directories"]:
            found[f"in the unsigned slice at {offset}"] = offset + size // 2
            continue
        start, room = parts["header"].signature
        (length,) = parts["view"].unpack(">I", start + 4)
        if room - length >= 32:
            found[f"behind the signature at {offset}"] = offset + start + room - 32
    return found


def places(data):
    """{name: offset} of everything that can be planted in a file; they do not overlap."""
    found = {}
    for offset, size in check.slices_of(data) or []:
        parts = check.open_slice(data, offset, size)
        if parts["directories"]:
            for name, place in (pages(parts) | blobs(parts)).items():
                found[f"slice {offset}, {name}"] = place
    return found | outside(data)


def in_sections(data):
    """Places in each signed slice's largest section, which other tools copy as it is: in its middle, and across a page's border
    where it has one."""
    found = []
    for offset, size in check.slices_of(data) or []:
        parts = check.open_slice(data, offset, size)
        if not parts["directories"]:
            continue
        *_, start, room = max(parts["header"].sections, key=lambda section: section[3])
        page = parts["directories"][0].page_size
        border = -(-(start + 16) // page) * page - 16
        found += [offset + place for place in {start + room // 2 - 16, border} if start <= place and place + 32 <= start + room]
    found.sort()
    return found[:1] + [place for before, place in zip(found, found[1:]) if place - before >= 32]


def put(data, offsets, text=OLD):
    planted = bytearray(data)
    for offset in offsets:
        planted[offset:offset + len(text)] = text
    return planted


def renew(data, slots):
    """Computes digests anew, in place: `slots` as slots_over() and stale() name them."""
    wanted = set(slots)
    for offset, size in check.slices_of(data) or []:
        parts = check.open_slice(data, offset, size)
        for directory in parts["directories"]:
            subjects = check.subjects_of(directory, parts["blobs"], parts)
            for slice_, slot, index in wanted:
                if (slice_, slot) != (offset, directory.slot):
                    continue
                covered = subjects[-index] if index < 0 else (offset + directory.page(index)[0], directory.page(index)[1])
                place, length = directory.slot_range(index)
                data[place:place + length] = directory.digest(data[covered[0]:covered[0] + covered[1]])
    return data


def signed(data, offsets, text=OLD):
    """The file with the text in these places and right digests over them; digests elsewhere stay as they are."""
    planted = put(data, offsets, text)
    return renew(planted, check.slots_over(planted, [(offset, len(text)) for offset in offsets]))


def damaged(data, seed):
    """The file with a few other bytes where headers and signatures lie."""
    dice = random.Random(seed)
    areas = [(0, 64)]
    for offset, size in check.slices_of(data) or []:
        parts = check.open_slice(data, offset, size)
        areas += [(offset, 40), (offset, min(size, 4096))]
        for directory in parts["directories"]:
            start, length = parts["header"].signature
            areas += [(offset + start, length), (offset + start, 100), (directory.blob.offset, 100)]
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        start, length = dice.choice(areas)
        place = start + dice.randrange(length)
        changed[place] = dice.choice([0, 1, 255, changed[place] ^ 1 << dice.randrange(8)])
    return changed


def main():
    """usage: plant.py HASH FOLDER FILE…: copies of the files with the hash part in all places, with right digests over it."""
    text, folder, *files = sys.argv[1:]
    for number, path in enumerate(map(Path, files)):
        data = path.read_bytes()
        place = Path(folder) / str(number) / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(signed(data, places(data).values(), text.encode()))


if __name__ == "__main__":
    main()
