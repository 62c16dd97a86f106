#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cowfiles that are not what they should be: each is refused by a text that names field, value and file, and nothing is
written."""

import gzip
import os
import struct
import unittest

import cowfile_golden as golden
from cowloop_file import BLOCK, Cowfile, PACKED, big_endian
from oxbow_test import CommandTest

WIDTHS = (8, 4)
FIELDS = ("mapunit", "mapsize", "doffset", "rdoblocks", "rdofingerprint", "cowused")
# What each command says first, and what it is called with; of a file that can't be used by any of them.
COMMANDS = {
    "cannot show cowfile": ("info", "cow"),
    "cannot check cowfile": ("check", "cow"),
    "cannot repair cowfile": ("repair", "--force", "cow"),
    "cannot merge cowfile": ("merge", "--base", "rdo", "--yes", "cow"),
    "cannot pack cowfile": ("pack", "cow", "out"),
    "cannot unpack cowfile": ("unpack", "cow", "out"),
    "cannot convert cowfile": ("convert", "--base", "rdo", "cow", "out"),
}


def at_field(name, width):
    return 8 + FIELDS.index(name) * width


def with_field(data, name, width, value):
    at = at_field(name, width)
    return data[:at] + struct.pack("<Q", value)[:width] + data[at + width:]


class CowfileBadInputTest(CommandTest):
    def setUp(self):
        super().setUp()
        self.base = golden.base()
        self.make("rdo", self.base)

    def refuse_everywhere(self, data, why, commands=tuple(COMMANDS)):
        self.make("cow", data)
        with self.nothing_written():
            for what in commands:
                self.refuse(1, f"{what}: cow: {why}", *COMMANDS[what])

    def test_every_field(self):
        for width in WIDTHS:
            clean = golden.read(width, "clean")
            top = 1 << 8 * width
            most = 1 << 50 if width == 8 else top - 1
            other_unit = f"its mapunit is {{}} as 8 bytes and {{}} as 4, and has to be {BLOCK}"
            after = 2048 << 32 if width == 4 else 0  # the mapsize, read as the upper half
            cases = {
                ("mapunit", 0): other_unit.format(after, 0),
                ("mapunit", 512): other_unit.format(after + 512, 512),
                ("mapunit", 1 << 30): other_unit.format(after + (1 << 30), 1 << 30),
                ("mapsize", 1024): "its mapsize is 1024, and rdoblocks 8200 wants 2048",
                ("mapsize", 3072): "its mapsize is 3072, and rdoblocks 8200 wants 2048",
                ("mapsize", top - 1024): f"its mapsize is {top - 1024}, and rdoblocks 8200 wants 2048",
                ("doffset", 0): "its doffset is 0, and mapsize 2048 wants 4096",
                ("doffset", 1024): "its doffset is 1024, and mapsize 2048 wants 4096",
                ("doffset", 2048): "its doffset is 2048, and mapsize 2048 wants 4096",
                ("doffset", top - 4096): f"its doffset is {top - 4096}, and mapsize 2048 wants 4096",
                ("rdoblocks", 0): "its rdoblocks is 0: there is no device without blocks",
                ("rdoblocks", 8192): "its mapsize is 2048, and rdoblocks 8192 wants 1024",
                ("rdoblocks", 16385): "its mapsize is 2048, and rdoblocks 16385 wants 3072",
                ("cowused", 8201): "its cowused is 8201, more than its rdoblocks 8200",
                ("cowused", top - 1): f"its cowused is {top - 1}, more than its rdoblocks 8200",
            }
            if width == 8:
                cases["rdoblocks", top - 1] = f"its rdoblocks is {top - 1}, and can be {most} at the most"
            else:
                cases["rdoblocks", top - 1] = f"its mapsize is 2048, and rdoblocks {top - 1} wants {1 << 29}"
            for (name, value), why in cases.items():
                self.refuse_everywhere(with_field(clean, name, width, value), why)

    def test_magic_version_flags(self):
        for width in WIDTHS:
            clean = golden.read(width, "clean")
            self.refuse_everywhere(clean[:4] + b"\x02\0" + clean[6:],
                                   "its version is 2, and oxbow knows version 1 alone")
            self.refuse_everywhere(clean[:6] + b"\x08\x01" + clean[8:],
                                   "its flags are 0x0108, of which 0x0108 mean nothing in version 1")
        self.refuse_everywhere(big_endian(Cowfile(self.base, golden.content())),
                               "it is a cowfile of a big-endian machine, which oxbow doesn't read: merge it with "
                               "cowmerge on such a machine")

    def test_another_magic_is_a_file_of_another_kind(self):
        for width in WIDTHS:
            clean = golden.read(width, "clean")
            self.make("cow", b"\x7e" + clean[1:])
            with self.nothing_written():
                for args in COMMANDS.values():
                    done = self.run_oxbow(*args)
                    self.assertEqual((done.returncode, done.stdout), (1, ""), args)
                    self.assertRegex(done.stderr, r"\Aoxbow: cannot [^\n]*: cow: [^\n]*\n\Z", args)

    def test_truncated(self):
        ends = {
            1023: "it has 1023 bytes, and the head of a cowfile has 1024",
            4: "it has 4 bytes, and the head of a cowfile has 1024",
        }
        for width in WIDTHS:
            clean = golden.read(width, "clean")
            for length, why in ends.items():
                self.refuse_everywhere(clean[:length], why,
                                       [what for what in COMMANDS if what != "cannot unpack cowfile"])
            taken = ("cannot merge cowfile", "cannot pack cowfile", "cannot convert cowfile")
            for length in (1024, 2000, 3071):
                self.refuse_everywhere(
                    clean[:length], f"it ends at byte {length}, and its bitmap of mapsize 2048 reaches to byte 3072",
                    taken)
            self.refuse_everywhere(
                clean[:4096 + 5000], "it ends at byte 9096, and its bitmap says that it has block 7, which reaches to "
                "byte 12288", taken)
            self.refuse_everywhere(
                clean[:-1], f"it ends at byte {len(clean) - 1}, and its bitmap says that it has block 8193, which "
                f"reaches to byte {len(clean)}", taken)

    def test_bitmap_against_head(self):
        for width in WIDTHS:
            clean = golden.read(width, "clean")
            taken = ("cannot merge cowfile", "cannot pack cowfile", "cannot convert cowfile")
            self.refuse_everywhere(with_field(clean, "cowused", width, 7),
                                   "its cowused is 7, and 8 bits of its bitmap are set", taken)
            beyond = bytearray(clean)
            beyond[1024 + 8200 // 8] |= 1
            self.refuse_everywhere(bytes(beyond), "bit 8200 of its bitmap is set, and its rdoblocks is 8200", taken)

    def test_another_read_only_file(self):
        for width in WIDTHS:
            self.make("cow", golden.read(width, "clean"))
            right = Cowfile(self.base).fingerprint
            taken = ("cannot merge cowfile", "cannot convert cowfile")
            # The order of two bytes of a block is no part of the fingerprint; a sum is.
            other = bytes([self.base[0] ^ 1]) + self.base[1:]
            self.make("rdo", other)
            wrong = Cowfile(other).fingerprint
            with self.nothing_written():
                for what in taken:
                    self.refuse(1, f"{what}: cow: its rdofingerprint is {right:#010x}, and that of the read-only file "
                                f"rdo is {wrong:#010x}: it is not the file that the cowfile belongs to, or it was "
                                "changed", *COMMANDS[what])
            for length, blocks in ((8199 * BLOCK + 1023, 8199), (8201 * BLOCK, 8201)):
                self.make("rdo", self.base[:length].ljust(length, b"\1"))
                with self.nothing_written():
                    for what in taken:
                        self.refuse(1, f"{what}: cow: its rdoblocks is 8200, and the read-only file rdo has {blocks} "
                                    "blocks of 1024 bytes", *COMMANDS[what])
            for data, why in ((b"", "the read-only file is empty"),
                              (b"x" * 1023, "the read-only file has 1023 bytes, less than a block of 1024")):
                self.make("rdo", data)
                with self.nothing_written():
                    for what in taken:
                        self.refuse(1, f"{what}: rdo: {why}", *COMMANDS[what])
                    self.refuse(1, f"cannot create cowfile: rdo: {why}", "create", "--base", "rdo", "--format",
                                "cowloop", "new")
            self.make("rdo", self.base)

    def test_read_only_file_that_is_none(self):
        os.mkfifo(self.path("pipe"))
        self.make("cow", golden.read(8, "clean"))
        for name, why in (("pipe", "it is neither a regular file nor a block device"),
                          (".", "it is a directory, not a file or block device"),
                          ("nothing", "No such file or directory")):
            with self.nothing_written():
                self.refuse(1, f"cannot merge cowfile: {name}: {why}", "merge", "--base", name, "--yes", "cow")
                self.refuse(1, f"cannot create cowfile: {name}: {why}", "create", "--base", name, "--format",
                            "cowloop", "new")

    def test_packed_streams(self):
        for width in WIDTHS:
            packed = golden.read(width, "packed")
            fields = 8 + 6 * width
            gapless, padded = fields + 2048 + 8192, 4096 + 8192
            wants = f"and with mapsize 2048 and cowused 8 it has to hold {gapless}, or {padded} with padding"
            ends = {1024: "inside its bitmap", 3071: "inside its bitmap", 3072: "before its blocks",
                    4096: "inside its blocks", padded - 1: "inside its blocks"}
            for length, where in ends.items():
                self.refuse_everywhere(packed[:length], f"it ends at byte {length} of the packed stream, {where}",
                                       ("cannot unpack cowfile",))
                self.refuse_everywhere(gzip.compress(packed[:length]), f"its gzip data holds {length} bytes, {wants}",
                                       ("cannot unpack cowfile",))
            for flags, why in ((0, "it is not packed: its flags lack 0x0002"),
                               (3, "it is dirty, which a packed file never is: its flags have 0x0001")):
                data = packed[:6] + bytes([flags]) + packed[7:]
                self.refuse_everywhere(data, why, ("cannot unpack cowfile",))
                self.refuse_everywhere(gzip.compress(data), why, ("cannot unpack cowfile",))
            self.refuse_everywhere(with_field(packed, "cowused", width, 7),
                                   "its cowused is 7, and 8 bits of its bitmap are set", ("cannot unpack cowfile",))

    def test_gzip_garbage(self):
        for width in WIDTHS:
            sound = golden.read(width, "packed-gzip")
            unpack = ("cannot unpack cowfile",)
            self.refuse_everywhere(sound[:-8], f"its gzip data ends at byte {len(sound) - 8}, in the middle of a "
                                   "stream", unpack)
            self.refuse_everywhere(sound[:60], "its gzip data ends at byte 60, in the middle of a stream", unpack)
            flipped = bytearray(sound)
            flipped[-6] ^= 1
            self.refuse_everywhere(bytes(flipped), "its gzip data is damaged: incorrect data check", unpack)
            flipped = bytearray(sound)
            flipped[-1] ^= 1
            self.refuse_everywhere(bytes(flipped), "its gzip data is damaged: incorrect length check", unpack)
        other = gzip.compress(b"neither a layer nor a cowfile" * 100)
        self.make("cow", other)
        with self.nothing_written():
            done = self.run_oxbow("unpack", "cow", "out")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, r"\Aoxbow: cannot [^\n]*: cow: [^\n]*\n\Z")

    def test_gzip_bombs(self):
        """What decompresses to a gigabyte is let go of at the byte where it has to end; and no memory is taken for
        what it says it has."""
        packed = golden.read(8, "packed")
        self.refuse_everywhere(
            gzip.compress(packed + bytes(1 << 28)),
            "its gzip data holds more than 12288 bytes, and with mapsize 2048 and cowused 8 it has to hold 10296, or "
            "12288 with padding", ("cannot unpack cowfile",))
        absurd = Cowfile(self.base, rdoblocks=1 << 50, flags=PACKED, used=1 << 50)
        absurd.mapsize, absurd.doffset = 0, 0
        head = absurd.head(mapsize=1 << 47, doffset=(1 << 47) + 4096)
        self.refuse_everywhere(head, "it ends at byte 1024 of the packed stream, inside its bitmap",
                               ("cannot unpack cowfile",))
        self.refuse_everywhere(
            gzip.compress(head + bytes(1 << 24)),
            f"its gzip data holds {1024 + (1 << 24)} bytes, and with mapsize {1 << 47} and cowused {1 << 50} it has to "
            f"hold {56 + (1 << 47) + (1 << 60)}, or {4096 + (1 << 47) + (1 << 60)} with padding",
            ("cannot unpack cowfile",))

    def test_options_of_the_other_kind(self):
        self.make("cow", golden.read(8, "clean"))
        self.succeed("create", "--base", "rdo", "work.oxb")
        with self.nothing_written():
            self.refuse(1, "cannot merge cowfile: cow: a cowfile doesn't know its read-only file: --base names it",
                        "merge", "--yes", "cow")
            self.refuse(1, "cannot merge cowfile: cow: --accept-base is for layers", "merge", "--accept-base", "--base",
                        "rdo", "--yes", "cow")
            self.refuse(1, "cannot merge layer: work.oxb: --base is for cowfiles", "merge", "--base", "rdo", "work.oxb")
            self.refuse(1, "cannot merge cowfile: cow: nobody can be asked whether it may be: --yes", "merge", "--base",
                        "rdo", "cow")
            self.refuse(1, "cannot pack layer: work.oxb: --gzip is for cowfiles", "pack", "--gzip", "work.oxb", "out")
            self.refuse(1, "cannot pack cowfile: cow: --level is for layers", "pack", "--level", "3", "cow", "out")
            self.refuse(1, "cannot repair layer: work.oxb: --force is for cowfiles", "repair", "--force", "work.oxb")
            self.refuse(1, "cannot repair cowfile: cow: --drop is for layers", "repair", "--drop", "0", "cow")
            self.refuse(1, "cannot check layer: work.oxb: --base is for cowfiles", "check", "--base", "rdo", "work.oxb")
            self.refuse(1, "cannot convert layer: work.oxb: --base is for cowfiles, and this is none", "convert",
                        "--base", "rdo", "work.oxb", "out")
            self.refuse(2, "wrong usage: --format: --cluster is for layers, not for cowfiles; see oxbow create --help",
                        "create", "--base", "rdo", "--format", "cowloop", "--cluster", "8K", "out")
            self.refuse(1, "cannot create cowfile: cow: it exists already, and is not an empty file", "create",
                        "--base", "rdo", "--format", "cowloop", "cow")

    def test_a_part_of_a_block_is_warned_of(self):
        self.make("rdo", self.base + b"x" * 700)
        done = self.run_oxbow("create", "--base", "rdo", "--format", "cowloop", "new")
        self.assertEqual((done.returncode, done.stderr),
                         (0, "oxbow: warning: rdo: its last 700 bytes are less than a block of 1024 and no part of the "
                          "device\n"))

    def test_4_tib_and_more(self):
        self.make("rdo", self.base)
        os.truncate(self.path("rdo"), 4 << 40)
        self.refuse(1, f"cannot create cowfile: rdo: the read-only file has {4 << 40} bytes, and a cowfile of the "
                    "32-bit layout can only be of less than 4 TiB", "create", "--base", "rdo", "--format", "cowloop-32",
                    "cow")
        self.succeed("create", "--base", "rdo", "--format", "cowloop", "cow")
        self.assertIn(f"size         {1 << 32} blocks, 4.0T ({4 << 40} bytes)\n", self.succeed("info", "cow"))
        self.succeed("check", "--data", "--base", "rdo", "cow")
        self.succeed("pack", "cow", "packed")
        self.succeed("unpack", "packed", "again")
        os.truncate(self.path("rdo"), (4 << 40) - BLOCK)
        self.succeed("create", "--base", "rdo", "--format", "cowloop-32", "narrow")
        self.assertIn("32-bit layout", self.succeed("info", "narrow"))


if __name__ == "__main__":
    unittest.main()
