#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cowpack reads and writes byte for byte what cowloop's own one did; all files are made without oxbow."""

import gzip
import os
import random
import unittest

from cowloop_file import BLOCK, DIRTY, IN_ORDER, Cowfile, readonly
from cowloop_test import CowloopTest

BASE = readonly(10000)
USAGE = ("Usage: {} [-z] <-p | -u> <source> <dest>\n"
         " where: -z indicates GZipped input (with -u) or output (with -p)\n"
         "        -p indicates packing source (a cow file) to dest\n"
         "        -u indicates unpacking source to dest (a cow file)\n"
         "NOTE: -p and -u are mutually exclusive\n")


class CowpackTest(CowloopTest):
    def setUp(self):
        super().setUp()
        self.blocks = {0: b"first".ljust(BLOCK, b"."), 3: b"three".ljust(BLOCK, b"."), 4: bytes(BLOCK),
                       8191: random.Random(5).randbytes(BLOCK), 8192: b"\xff" * BLOCK, 9999: b"last".ljust(BLOCK, b".")}

    def files(self):
        for width in (8, 4):
            yield Cowfile(BASE, self.blocks, width)
            yield Cowfile(BASE, width=width)
            yield Cowfile(BASE, {5: bytes(BLOCK)}, width)

    def content(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def test_packing(self):
        for cowfile in self.files():
            self.make("work.cow", cowfile.file())
            self.tool("cowpack", "-p", "work.cow", "work.pck")
            self.assertEqual(self.content("work.pck"), cowfile.packed())
            self.assertEqual(self.content("work.cow"), cowfile.file())

    def test_packing_with_gzip(self):
        for cowfile in self.files():
            for args in (["-z", "-p"], ["-p", "-z"], ["-pz"], ["-zp"]):
                self.make("work.cow", cowfile.file())
                self.tool("cowpack", *args, "work.cow", "work.pgz")
                self.assertEqual(gzip.decompress(self.content("work.pgz")), gzip.decompress(cowfile.zipped()))

    def test_unpacking(self):
        for cowfile in self.files():
            self.make("work.pck", cowfile.packed())
            self.tool("cowpack", "-u", "work.pck", "again.cow")
            self.assertEqual(self.content("again.cow"), cowfile.file())
            self.make("work.pgz", cowfile.zipped())
            self.tool("cowpack", "-uz", "work.pgz", "again.cow")
            self.assertEqual(self.content("again.cow"), cowfile.file())

    def test_the_result_is_for_its_owner_alone(self):
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        self.tool("cowpack", "-p", "work.cow", "work.pck")
        self.tool("cowpack", "-u", "work.pck", "again.cow")
        for name in ("work.pck", "again.cow"):
            self.assertEqual(os.stat(self.path(name)).st_mode & 0o777, 0o600)

    def test_nothing_of_an_older_result_is_left(self):
        # Cowloop's own cowpack wrote over the beginning of a file that was there, and left its end.
        cowfile = Cowfile(BASE, self.blocks)
        self.make("work.cow", cowfile.file())
        self.make("work.pck", b"x" * (64 << 10))
        self.tool("cowpack", "-p", "work.cow", "work.pck")
        self.assertEqual(self.content("work.pck"), cowfile.packed())
        self.make("again.cow", b"x" * (16 << 20))
        self.tool("cowpack", "-u", "work.pck", "again.cow")
        self.assertEqual(self.content("again.cow"), cowfile.file())

    def test_sources_that_are_refused(self):
        sound = Cowfile(BASE, self.blocks)
        both = [(sound.file(version=2), "Version of cowfile not supported"),
                (bytes(4096), "Not a valid cowfile (wrong magic)"),
                (b"", "Reading cowheader: the file ends at byte 0")]
        for flag, cases in [("-p", [*both, (sound.file(flags=DIRTY), "Cowfile is dirty"),
                                    (sound.file(flags=DIRTY, used=IN_ORDER), "Cowfile is dirty"),
                                    (sound.packed(flags=3), "Cowfile is dirty"),
                                    (sound.packed(), "Cowfile is packed already")]),
                            ("-u", [*both, (sound.packed(flags=3), "Cowfile is dirty"),
                                    (sound.zipped(), "Not a valid cowfile (wrong magic)"),
                                    (sound.file(), "Cowfile is not packed")])]:
            for content, text in cases:
                self.make("source", content)
                self.make("result", b"stays")
                with self.nothing_written():
                    self.tool("cowpack", flag, "source", "result", status=1, err=text + "\n")

    def test_damaged_packed_files(self):
        cowfile = Cowfile(BASE, self.blocks)
        for flags, content in [
                (["-u"], cowfile.packed()[:-1]), (["-u"], cowfile.packed()[:2000]),
                (["-uz"], cowfile.zipped()[:-9]), (["-uz"], cowfile.zipped()[:30]),
                (["-uz"], cowfile.zipped()[:100] + b"garbage" + cowfile.zipped()[107:]),
                (["-uz"], b"\x1f\x8b" + bytes(2000)), (["-uz"], cowfile.packed())]:
            self.make("source", content)
            self.make("result", b"stays")
            with self.nothing_written():
                done = self.run_tool("cowpack", *flags, "source", "result")
                self.assertEqual((done.returncode, done.stdout), (1, ""), (flags, len(content)))
                self.assertRegex(done.stderr, r"\A[^\n]+\n\Z")

    def test_files_that_are_not_there(self):
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        self.make("work.pck", Cowfile(BASE, self.blocks).packed())
        why = "No such file or directory\n"
        with self.nothing_written():
            self.tool("cowpack", "-p", "none.cow", "result", status=1, err="Opening cowfile: " + why)
            self.tool("cowpack", "-u", "none.pck", "result", status=1, err="Opening inputfile: " + why)
            self.tool("cowpack", "-p", "work.cow", "none/result", status=1, err="Opening outputfile: " + why)
            self.tool("cowpack", "-u", "work.pck", "none/result", status=1, err="Opening cowfile: " + why)

    def test_usage(self):
        self.check_usage("cowpack", USAGE, [], ["-p"], ["-z"], ["work.cow", "work.pck"], ["-p", "work.cow"],
                         ["-p", "-u", "work.cow", "work.pck"], ["-pp", "work.cow", "work.pck"],
                         ["-p", "one", "two", "three"])
        self.tool("cowpack", "-x", "work.cow", status=1,
                  err="cowpack: invalid option -- 'x'\n" + USAGE.replace("{}", "cowpack"))


if __name__ == "__main__":
    unittest.main()
