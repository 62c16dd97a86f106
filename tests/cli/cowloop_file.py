# SPDX-License-Identifier: Apache-2.0
"""Cowfiles made byte by byte from the description of the format in docs/cowloop.md, without oxbow."""

import gzip
import struct

BLOCK = 1024
MAGIC = 0x574F437F
DIRTY, PACKED = 1, 2
HEAD_AT_8 = {8: "<6Q", 4: "<6I"}  # what follows magic, version and flags


def fingerprint(base):
    """Of a read-only file's bytes: the sums of its first four blocks that have one, lowest byte first."""
    sums = [total for at in range(0, len(base) - BLOCK + 1, BLOCK) if (total := sum(base[at:at + BLOCK]) % 256)]
    return int.from_bytes(bytes(sums[:4]), "little")


def readonly(blocks):
    """Bytes of a read-only file: its second block is zeros, and the top bit of its fingerprint is set."""
    content = bytearray(bytes(range(256)) * 4 * blocks)
    for number in range(blocks):
        content[number * BLOCK] = (number * 83 + 60) % 256
    content[BLOCK:2 * BLOCK] = bytes(BLOCK)
    return bytes(content)


def up(value, unit):
    return -(-value // unit) * unit


class Cowfile:
    """The parts of a cowfile; what is given overrides what follows from the read-only file's bytes."""

    def __init__(self, base, blocks=None, width=8, flags=0, used=None, rdoblocks=None, bits=None):
        self.blocks = dict(blocks or {})  # by number; zero blocks too
        self.width = width
        self.flags = flags
        self.bits = sorted(self.blocks if bits is None else bits)  # those set in the bitmap
        self.used = len(self.bits) if used is None else used
        self.rdoblocks = len(base) // BLOCK if rdoblocks is None else rdoblocks
        self.mapsize = up(-(-self.rdoblocks // 8), BLOCK)
        self.doffset = up(BLOCK + self.mapsize, 4096)
        self.fingerprint = fingerprint(base)

    def head(self, **other):
        """The first block; fields that are given replace those of the file."""
        fields = dict(magic=MAGIC, version=1, flags=self.flags, mapunit=BLOCK, mapsize=self.mapsize,
                      doffset=self.doffset, rdoblocks=self.rdoblocks, fingerprint=self.fingerprint, used=self.used)
        fields.update(other)
        if self.width == 8 and fields["fingerprint"] >> 31:
            fields["fingerprint"] |= 0xFFFFFFFF00000000
        mask = (1 << 8 * self.width) - 1
        words = [fields[name] & mask for name in ("mapunit", "mapsize", "doffset", "rdoblocks", "fingerprint", "used")]
        head = struct.pack("<IHH", fields["magic"], fields["version"], fields["flags"])
        return (head + struct.pack(HEAD_AT_8[self.width], *words)).ljust(BLOCK, b"\0")

    def bitmap(self):
        bitmap = bytearray(self.mapsize)
        for block in self.bits:
            bitmap[block // 8] |= 1 << block % 8
        return bytes(bitmap)

    def file(self, **other):
        """The whole file: up to its last block, or fresh, which ends with its bitmap."""
        start = self.head(**other) + self.bitmap()
        if not self.blocks:
            return start
        data = bytearray((max(self.blocks) + 1) * BLOCK)
        for number, content in self.blocks.items():
            data[number * BLOCK:(number + 1) * BLOCK] = content
        return start.ljust(self.doffset, b"\0") + bytes(data)

    def whole(self, **other):
        """The file with room for all blocks, as whoever writes to it may leave it."""
        return self.file(**other).ljust(self.doffset + self.rdoblocks * BLOCK, b"\0")

    def packed(self, **other):
        """As `cowpack -p` writes it."""
        start = self.head(**{"flags": self.flags | PACKED, **other}) + self.bitmap()
        if not self.blocks:
            return start
        return start.ljust(self.doffset, b"\0") + b"".join(self.blocks[number] for number in sorted(self.blocks))

    def zipped(self, **other):
        """As `cowpack -p -z` writes it: no gaps, neither behind the fields of the head nor before the data."""
        head = self.head(**{"flags": self.flags | PACKED, **other})[:8 + 6 * self.width]
        return gzip.compress(head + self.bitmap() + b"".join(self.blocks[number] for number in sorted(self.blocks)))


IN_ORDER = (1 << 64) - 1  # cowused of oxbow's mark; a head takes as many bits as it has


def with_session(content, boot, session):
    """A file whose head names the one who keeps it in order; 16 bytes each."""
    return content[:512] + boot + session + content[544:]


def with_merge(content, rest):
    """A file whose merge was begun; `rest` is the fingerprint of the blocks that are not in it."""
    record = b"OXBWMRGE" + struct.pack("<II", rest, rest ^ 0xFFFFFFFF)
    return content[:576] + record + content[576 + len(record):]


def device(base, blocks):
    """What the pair reads as."""
    content = bytearray(base[:len(base) // BLOCK * BLOCK])
    for number, block in blocks.items():
        content[number * BLOCK:(number + 1) * BLOCK] = block
    return bytes(content)


def read_back(content, base, width):
    """What a clean cowfile and its read-only file read as, as cowloop's driver has it, and how many blocks it has."""
    magic, version, flags = struct.unpack("<IHH", content[:8])
    mapunit, mapsize, doffset, rdoblocks, print_of_base, used = struct.unpack(
        HEAD_AT_8[width], content[8:8 + 6 * width])
    assert (magic, version, flags, mapunit, rdoblocks) == (MAGIC, 1, 0, BLOCK, len(base) // BLOCK)
    assert print_of_base & 0xFFFFFFFF == fingerprint(base)
    bitmap = int.from_bytes(content[BLOCK:BLOCK + mapsize], "little")
    assert bitmap >> rdoblocks == 0 and bitmap.bit_count() == used
    read = bytearray(base[:rdoblocks * BLOCK])
    for number in range(rdoblocks):
        if bitmap >> number & 1:
            at = doffset + number * BLOCK
            read[number * BLOCK:(number + 1) * BLOCK] = content[at:at + BLOCK].ljust(BLOCK, b"\0")
    return bytes(read), used


def big_endian(cowfile):
    """The head as a big-endian machine of the same width writes it."""
    words = struct.unpack(HEAD_AT_8[cowfile.width], cowfile.head()[8:8 + 6 * cowfile.width])
    head = struct.pack(">IHH", MAGIC, 1, cowfile.flags) + struct.pack(HEAD_AT_8[cowfile.width].replace("<", ">"), *words)
    return head.ljust(BLOCK, b"\0") + cowfile.file()[BLOCK:]
