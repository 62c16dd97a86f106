#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The golden cowfiles: what oxbow says of them, what it makes of them, and that they are as the specification says."""

import gzip
import json
import unittest

import cowfile_golden as golden
from cowloop_file import BLOCK, Cowfile, DIRTY, device, read_back
from oxbow_test import CommandTest

USED = len(golden.WRITTEN)
WIDTHS = (8, 4)


class CowfileGoldenTest(CommandTest):
    def setUp(self):
        super().setUp()
        self.base = golden.base()
        self.make("rdo", self.base)
        self.merged = device(self.base, golden.content())

    def put(self, width, kind):
        self.make("cow", golden.read(width, kind))

    def get(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def merge(self):
        """Merges into a copy of the read-only file, and compares."""
        self.make("copy", self.base)
        self.succeed("merge", "--base", "copy", "--yes", "cow")
        self.assertEqual(self.get("copy"), self.merged)

    def test_they_are_as_they_were_made(self):
        for width in WIDTHS:
            for kind, data in golden.files(width).items():
                kept = golden.read(width, kind)
                if "gzip" in kind:  # the bytes of compression are its library's
                    kept, data = gzip.decompress(kept), gzip.decompress(data)
                self.assertEqual(kept, data, kind)

    def test_info(self):
        states = {
            "clean": (False, False, False, USED, USED),
            "fresh": (False, False, False, 0, 0),
            "dirty": (True, False, False, 3, USED - 3),
            "marked": (True, True, False, None, USED),
            "over-long": (False, False, False, USED, USED),
            "packed": (False, False, True, USED, USED),
            "packed-gzip": (False, False, True, USED, USED),
            "packed-gzip-padded": (False, False, True, USED, USED),
        }
        for width in WIDTHS:
            for kind, (dirty, in_order, packed, used, in_use) in states.items():
                self.put(width, kind)
                with self.nothing_written():
                    told = json.loads(self.succeed("info", "--json", "cow"))
                for name, value in {
                        "format": "cowloop", "version": 1, "layout": 8 * width, "dirty": dirty,
                        "kept_in_order": in_order, "packed": packed, "compressed": "gzip" in kind, "merging": False,
                        "size": len(self.base), "mapunit": 1024, "mapsize": 2048, "doffset": 4096, "rdoblocks": 8200,
                        "blocks_in_use": in_use, "damaged": False}.items():
                    self.assertEqual(told[name], value, (kind, name))
                if used is not None:
                    self.assertEqual(told["cowused"], used, kind)
                self.assertEqual(told["rdofingerprint"], Cowfile(self.base).fingerprint)

    def test_check(self):
        for width in WIDTHS:
            for kind in ("clean", "fresh", "over-long", "packed", "marked"):
                self.put(width, kind)
                with self.nothing_written():
                    told = json.loads(self.succeed("check", "--data", "--base", "rdo", "--json", "cow"))
                self.assertFalse(told["damaged"], kind)
                self.assertEqual(len(told["findings"]), kind == "marked")
            self.put(width, "dirty")
            done = self.run_oxbow("check", "--data", "cow")
            self.assertEqual((done.returncode, done.stderr),
                             (1, "oxbow: checked cowfile: cow: it is damaged in 1 place\n"))
            self.assertEqual(done.stdout,
                             "damage: head: it is dirty: its bitmap may lack blocks that were written [bytes 0 to "
                             "1023 of the file]\nchecked: head, bitmap of 8200 blocks; 5 blocks in use\n3 blocks "
                             "hold something and are not marked in the bitmap\n")

    def test_merge(self):
        for width in WIDTHS:
            for kind in ("clean", "over-long"):
                self.put(width, kind)
                self.merge()

    def test_repair(self):
        for width in WIDTHS:
            self.put(width, "dirty")
            would = ("would mark: block 7\nwould mark: block 8191\nwould mark: block 8193\n"
                     f"would be 3 corrections in the bitmap; {USED} blocks in use\n")
            with self.nothing_written():
                self.assertEqual(self.succeed("repair", "--dry-run", "cow"), would)
            self.assertEqual(self.succeed("repair", "cow"), would.replace("would mark", "marked").replace(
                "would be ", ""))
            self.assertEqual(self.get("cow"), golden.read(width, "clean"))
            with self.nothing_written():
                self.assertEqual(self.succeed("repair", "cow"), "nothing to mend: it is not dirty\n")

    def test_repair_of_one_kept_in_order(self):
        for width in WIDTHS:
            self.put(width, "marked")
            self.assertEqual(self.succeed("repair", "cow"), f"0 corrections in the bitmap; {USED} blocks in use\n")
            self.assertEqual(self.get("cow"), golden.read(width, "clean"))

    def test_pack_and_unpack(self):
        for width in WIDTHS:
            self.put(width, "clean")
            self.succeed("pack", "--force", "cow", "plain")
            self.assertEqual(self.get("plain"), golden.read(width, "packed"))
            self.succeed("pack", "--gzip", "--force", "cow", "compressed")
            self.assertEqual(gzip.decompress(self.get("compressed")),
                             gzip.decompress(golden.read(width, "packed-gzip")))
            for kind in ("packed", "packed-gzip", "packed-gzip-padded"):
                self.make("in", golden.read(width, kind))
                self.assertEqual(self.succeed("unpack", "--force", "in", "out"), "unpacked in into out: 8.0K of data\n")
                self.assertEqual(self.get("out"), golden.read(width, "clean"), kind)

    def test_create_makes_the_fresh_one(self):
        for width in WIDTHS:
            self.make("cow", b"")
            self.succeed("create", "--base", "rdo", "--format", "cowloop" if width == 8 else "cowloop-32", "cow")
            self.assertEqual(self.get("cow"), golden.read(width, "fresh"))

    def test_convert_there_and_back(self):
        for width in WIDTHS:
            self.put(width, "clean")
            self.succeed("convert", "--base", "rdo", "cow", f"{width}.oxb")
            self.assertEqual(
                self.succeed("convert", "--format", "cowloop" if width == 8 else "cowloop-32", f"{width}.oxb",
                             f"{width}.cow"), f"converted {width}.oxb into {width}.cow: 8.0K of data\n")
            again = self.get(f"{width}.cow")
            self.assertEqual(read_back(again, self.base, width), (self.merged, USED))
            self.assertEqual(again, golden.read(width, "clean"))

    def test_dirty_and_packed_ones_are_not_taken(self):
        for width in WIDTHS:
            self.put(width, "dirty")
            dirty = ("it is dirty: it was not closed, and its bitmap may lack blocks that were written; oxbow repair "
                     "completes it")
            packed = "it is packed: oxbow unpack makes a cowfile of it that can be used"
            for kind, why in (("dirty", dirty), ("packed", packed)):
                self.put(width, kind)
                with self.nothing_written():
                    self.refuse(1, f"cannot merge cowfile: cow: {why}", "merge", "--base", "rdo", "--yes", "cow")
                    self.refuse(1, f"cannot pack cowfile: cow: {why}", "pack", "cow", "out")
                    self.refuse(1, f"cannot convert cowfile: cow: {why}", "convert", "--base", "rdo", "cow", "out")
            with self.nothing_written():
                self.refuse(1, "cannot repair cowfile: cow: it is packed, and can't be repaired so: oxbow unpack comes "
                            "first", "repair", "--force", "cow")

    def test_dirty_flag_alone_is_repaired(self):
        for width in WIDTHS:
            whole = Cowfile(self.base, golden.content(), width=width, flags=DIRTY, bits=set())
            self.make("cow", whole.whole() + b"\xee" * 5 * BLOCK)
            self.succeed("repair", "cow")
            used = USED - 2  # blocks of zeros were known by their bits alone
            self.assertEqual(read_back(self.get("cow"), self.base, width),
                             (device(self.base, {n: b for n, b in golden.content().items() if any(b)}), used))


if __name__ == "__main__":
    unittest.main()
