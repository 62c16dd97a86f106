#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cowlist prints what cowloop's own one did, of files that are made without oxbow."""

import os
import unittest

from cowloop_file import BLOCK, DIRTY, Cowfile, big_endian
from cowloop_test import CowloopTest

BASE = bytes(BLOCK) + b"base" * 256 + bytes(range(256)) * 4 * 98


class CowlistTest(CowloopTest):
    def setUp(self):
        super().setUp()
        self.blocks = {3: b"three".ljust(BLOCK, b"."), 4: bytes(BLOCK), 70: b"\xff" * BLOCK}

    def text(self, state="    clean", used=3, name="work.cow"):
        return (f"\nInfo about cowfile {name}:\n"
                f"     state cowfile: {state}\n"
                "    header-version:         1\n"
                "       data offset:      4096\n"
                "           mapunit:      1024\n"
                "     bitmap-blocks:         1 (of 1024 bytes)\n"
                f"  cowblocks in use: {used:9} (of 1024 bytes)\n"
                "      size rdofile:       100 (of 1024 bytes)\n")

    def test_both_layouts(self):
        for width in (8, 4):
            self.make("work.cow", Cowfile(BASE, self.blocks, width).file())
            with self.nothing_written():
                self.tool("cowlist", "work.cow", out=self.text())

    def test_states(self):
        for content, text in [
                (Cowfile(BASE, width=4).file(), self.text(used=0)),
                (Cowfile(BASE, self.blocks, flags=DIRTY, used=1).file(), self.text("    dirty", 1)),
                (Cowfile(BASE, self.blocks).packed(), self.text("    clean packed")),
                (Cowfile(BASE, self.blocks, 4).packed(), self.text("    clean packed"))]:
            self.make("work.cow", content)
            self.tool("cowlist", "work.cow", out=text)

    def test_numbers_that_need_more_than_32_bits(self):
        huge = Cowfile(BASE, rdoblocks=(5 << 40) // BLOCK)
        self.make("work.cow", huge.head(used=5 << 30))
        os.truncate(self.path("work.cow"), huge.doffset)
        self.tool("cowlist", "work.cow", out=(
            "\nInfo about cowfile work.cow:\n"
            "     state cowfile:     clean\n"
            "    header-version:         1\n"
            "       data offset: 671092736\n"
            "           mapunit:      1024\n"
            "     bitmap-blocks:    655360 (of 1024 bytes)\n"
            "  cowblocks in use: 5368709120 (of 1024 bytes)\n"
            "      size rdofile: 5368709120 (of 1024 bytes)\n"))

    def test_what_follows_the_file_is_ignored(self):
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        self.tool("cowlist", "work.cow", "other.cow", out=self.text())

    def test_refusals(self):
        sound = Cowfile(BASE, self.blocks)
        for content, text in [
                (b"", "error during read of cowheader: the file ends at byte 0"),
                (sound.file()[:1023], "error during read of cowheader: the file ends at byte 1023"),
                (bytes(4096), "bad.cow is not a valid cowfile (wrong magic)"),
                (bytes(55), "error during read of cowheader: the file ends at byte 55"),
                (bytes(56), "bad.cow is not a valid cowfile (wrong magic)"),
                (sound.file()[:56], "error during read of cowheader: the file ends at byte 56"),
                (sound.zipped(), "bad.cow is not a valid cowfile (wrong magic)"),
                (sound.file(version=2), "version of cowfile bad.cow not supported")]:
            self.make("bad.cow", content)
            with self.nothing_written():
                self.tool("cowlist", "bad.cow", status=1, err=text + "\n")
        self.tool("cowlist", "none.cow", status=1, err="none.cow: No such file or directory\n")
        self.tool("cowlist", ".", status=1, err=". is not a valid cowfile (it is not a regular file)\n")
        os.mkfifo(self.path("fifo"))
        self.tool("cowlist", "fifo", status=1, err="fifo is not a valid cowfile (it is not a regular file)\n")

    def test_heads_that_contradict_themselves(self):
        for width in (8, 4):
            for field, value in [("mapunit", 0), ("mapunit", 2048), ("mapsize", 0), ("mapsize", 1023),
                                 ("mapsize", 2048), ("doffset", 0), ("doffset", 2048), ("doffset", 8192),
                                 ("rdoblocks", 0), ("rdoblocks", 8193)]:
                self.make("bad.cow", Cowfile(BASE, self.blocks, width).file(**{field: value}))
                done = self.run_tool("cowlist", "bad.cow")
                self.assertEqual((done.returncode, done.stdout), (1, ""), (width, field, value))
                self.assertRegex(done.stderr, r"\Abad\.cow is not a valid cowfile \([^\n]+\)\n\Z")

    def test_big_endian_files_are_refused_by_name(self):
        for width in (8, 4):
            self.make("bad.cow", big_endian(Cowfile(BASE, self.blocks, width)))
            done = self.run_tool("cowlist", "bad.cow")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, r"\Abad\.cow is not a valid cowfile \([^\n]*big-endian[^\n]*\)\n\Z")

    def test_output_that_cannot_be_written(self):
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        self.check_full_output("cowlist", "work.cow")

    def test_usage(self):
        self.check_usage("cowlist", "Usage: {} cowfile\n", [])


if __name__ == "__main__":
    unittest.main()
