# SPDX-License-Identifier: Apache-2.0
"""The cowfiles in tests/format/golden: which there are, how they were made, and reading them.

`cowfile_golden.py --write` makes those again that are missing; what is there is never changed."""

import gzip
import os
import sys

from cowloop_file import BLOCK, Cowfile, DIRTY, IN_ORDER, readonly, with_session

FOLDER = os.path.join(os.environ.get("OXBOW_SOURCE_DIR", os.path.join(os.path.dirname(__file__), "..", "..")),
                      "tests", "format", "golden")
BLOCKS = 8200  # of the read-only file: its bitmap has a second KiB, and the data begin behind 1 KiB of padding
WRITTEN = {0: b"\x11", 1: b"\x22", 7: b"\x33", 8: b"\x00", 4095: b"\x44", 8191: b"\x55", 8192: b"\x00", 8193: b"\x66"}


def base():
    return readonly(BLOCKS)


def content():
    return {number: value * BLOCK for number, value in WRITTEN.items()}


def padded(cowfile):
    """Compressed as a file: the gaps are zeros."""
    return gzip.compress(cowfile.packed(), mtime=0)


def files(width):
    """What each of them is, for machines with `unsigned long` of that many bytes."""
    clean = Cowfile(base(), content(), width=width)
    lost = {7, 8191, 8193}  # not marked, although they are there
    dirty = Cowfile(base(), content(), width=width, flags=DIRTY, used=3, bits=set(content()) - lost)
    marked = Cowfile(base(), content(), width=width, flags=DIRTY, used=IN_ORDER)
    return {
        "clean": clean.file(),
        "fresh": Cowfile(base(), width=width).file(),
        "dirty": dirty.file(),
        "marked": with_session(marked.file(), b"\xb0" * 16, b"\x5e" * 16),
        "over-long": clean.whole() + b"\xee" * (3 * BLOCK + 7),
        "packed": clean.packed(),
        "packed-gzip": clean.zipped(),
        "packed-gzip-padded": padded(clean),
    }


def dump(data):
    """As `hexdump -C` prints it."""
    lines, last, starred = [], None, False
    for at in range(0, len(data), 16):
        piece = data[at:at + 16]
        if piece == last and len(piece) == 16:
            if not starred:
                lines.append("*")
            starred = True
            continue
        last, starred = piece, False
        numbers = " ".join(f"{byte:02x}" for byte in piece[:8]).ljust(23) + "  " + \
            " ".join(f"{byte:02x}" for byte in piece[8:]).ljust(23)
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
        lines.append(f"{at:08x}  {numbers}  |{text}|")
    return "\n".join([*lines, f"{len(data):08x}", ""])


def restore(text):
    data, starred = bytearray(), False
    for line in text.splitlines():
        if line == "*":
            starred = True
            continue
        at = int(line[:8], 16)
        if starred:
            data += data[-16:] * ((at - len(data)) // 16)
            starred = False
        assert at == len(data), line
        data += bytes.fromhex(line[10:58])
    return bytes(data)


def path_of(width, kind):
    return os.path.join(FOLDER, f"cowloop-{8 * width}-{kind}.hexdump")


def read(width, kind):
    with open(path_of(width, kind), encoding="ascii") as file:
        return restore(file.read())


def main():
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    for width in (8, 4):
        for kind, data in files(width).items():
            if not os.path.exists(path_of(width, kind)):
                with open(path_of(width, kind), "w", encoding="ascii") as file:
                    file.write(dump(data))


if __name__ == "__main__":
    main()
