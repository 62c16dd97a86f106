#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cowrepair says and does what cowloop's own one did, on files that are made without oxbow."""

import os
import unittest

from cowloop_file import BLOCK, DIRTY, IN_ORDER, Cowfile, readonly, with_merge, with_session
from cowloop_test import CowloopTest

BASE = readonly(100)
USAGE = ("Usage: {} [-f] [-n] [-v[v]] cowfile\n\n"
         "   -f   forced:   repair cowfile which is not dirty\n"
         "   -n   nomodify: do not modify cowfile (fake mode)\n"
         "   -v   verbose:  provide extra info\n")


def block(text):
    return text.encode().ljust(BLOCK, b".")


class CowrepairTest(CowloopTest):
    def setUp(self):
        super().setUp()
        self.blocks = {3: block("three"), 4: bytes(BLOCK), 70: block("seventy"), 99: block("last")}

    def broken(self, width=8, **more):
        """A dirty file in whose bitmap blocks 3 and 99 are missing."""
        return Cowfile(BASE, self.blocks, width, flags=DIRTY, used=1, bits=[4, 70], **more).file()

    def sound(self, width=8):
        return Cowfile(BASE, self.blocks, width).file()

    def content(self):
        with open(self.path("work.cow"), "rb") as file:
            return file.read()

    def test_a_dirty_file(self):
        for width in (8, 4):
            self.make("work.cow", self.broken(width))
            self.tool("cowrepair", "work.cow", out="Number of corrections in bitmap: 2\n")
            self.assertEqual(self.content(), self.sound(width))
            self.tool("cowrepair", "work.cow", err="cowfile work.cow is not dirty\n")
            self.assertEqual(self.content(), self.sound(width))

    def test_each_correction_is_told(self):
        lines = ("data block         3 (offset        3072) not marked in bitmap; corrected\n"
                 "data block        99 (offset      101376) not marked in bitmap; corrected\n")
        self.make("work.cow", self.broken())
        with self.nothing_written():
            told = lines + "Number of corrections in bitmap: 2 (not done due to flag -n)\n"
            self.tool("cowrepair", "-n", "-v", "work.cow", out=told)
            self.tool("cowrepair", "work.cow", "-vn", out=told)
        self.tool("cowrepair", "-vv", "work.cow", out=lines + "Number of corrections in bitmap: 2\n")
        self.assertEqual(self.content(), self.sound())

    def test_nothing_to_correct(self):
        self.make("work.cow", Cowfile(BASE, self.blocks, flags=DIRTY, used=77).file())
        self.tool("cowrepair", "-v", "work.cow", out="Number of corrections in bitmap: 0\n")
        self.assertEqual(self.content(), self.sound())

    def test_a_clean_file_by_force(self):
        self.make("work.cow", Cowfile(BASE, self.blocks, bits=[3, 4], used=77).file())
        with self.nothing_written():
            self.tool("cowrepair", "work.cow", err="cowfile work.cow is not dirty\n")
            self.tool("cowrepair", "-n", "work.cow", err="cowfile work.cow is not dirty\n")
            self.tool("cowrepair", "-fn", "work.cow",
                      out="Number of corrections in bitmap: 2 (not done due to flag -n)\n")
        self.tool("cowrepair", "-f", "work.cow", out="Number of corrections in bitmap: 2\n")
        self.assertEqual(self.content(), self.sound())

    def test_fresh_files(self):
        fresh = Cowfile(BASE)
        self.make("work.cow", fresh.file(flags=DIRTY, used=5))
        self.tool("cowrepair", "work.cow", out="Number of corrections in bitmap: 0\n")
        self.assertEqual(self.content(), fresh.file())

    def test_a_file_that_is_longer_than_its_device(self):
        # Cowloop's own cowrepair went on behind the end of the bitmap.
        for more in (BLOCK, 20 << 20):
            self.make("work.cow", self.broken() + b"x" * more)
            done = self.run_tool("cowrepair", "work.cow")
            self.assertEqual((done.returncode, done.stdout), (0, "Number of corrections in bitmap: 2\n"), done.stderr)
            self.assertEqual(self.content()[:len(self.sound())], self.sound())

    def test_a_file_that_ends_within_a_block(self):
        self.make("work.cow", self.broken()[:-BLOCK + 2])
        self.tool("cowrepair", "work.cow", out="Number of corrections in bitmap: 2\n")
        self.assertEqual(self.content()[:4096], self.sound()[:4096])

    def test_block_numbers_that_need_more_than_32_bits(self):
        huge = Cowfile(b"", rdoblocks=(5 << 40) // BLOCK, flags=DIRTY)
        huge.fingerprint = 7
        number = (4 << 30) + 5
        self.make("work.cow", huge.head(used=3))
        with open(self.path("work.cow"), "r+b") as file:
            file.seek(huge.doffset + number * BLOCK)
            file.write(block("far"))
        self.tool("cowrepair", "-v", "work.cow", out=(
            "data block 4294967301 (offset 4398046516224) not marked in bitmap; corrected\n"
            "Number of corrections in bitmap: 1\n"))
        with open(self.path("work.cow"), "rb") as file:
            self.assertEqual(file.read(BLOCK), huge.head(flags=0, used=1))
            file.seek(BLOCK + number // 8)
            self.assertEqual(file.read(1), bytes([1 << number % 8]))

    def test_a_file_that_was_kept_in_order_is_not_searched(self):
        # What lies in blocks without a bit was not flushed.
        for width in (8, 4):
            kept = Cowfile(BASE, self.blocks, width, flags=DIRTY, used=IN_ORDER, bits=[4, 70]).file()
            self.make("work.cow", with_session(kept, bytes(range(16)), bytes(range(16, 32))))
            self.tool("cowrepair", "-v", "work.cow", out="Number of corrections in bitmap: 0\n")
            self.assertEqual(self.content(), Cowfile(BASE, self.blocks, width, bits=[4, 70]).file())
            self.make("work.cow", with_session(kept, bytes(range(16)), bytes(range(16, 32))))
            self.tool("cowrepair", "-f", "work.cow", out="Number of corrections in bitmap: 2\n")
            self.assertEqual(self.content(), self.sound(width))

    def test_a_file_whose_live_state_may_be_there_is_left_alone(self):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = bytes.fromhex(file.read().strip().replace("-", ""))
        kept = Cowfile(BASE, self.blocks, flags=DIRTY, used=IN_ORDER).file()
        self.make("work.cow", with_session(kept, boot, bytes(range(16))))
        with self.nothing_written():
            done = self.run_tool("cowrepair", "work.cow")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, r"\Acowrepair: cannot repair cowfile: work\.cow: a process [^\n]*\n\Z")

    def test_a_file_that_is_being_merged_is_left_alone(self):
        for flags, text in [([], "cowfile work.cow is not dirty\n"),
                            (["-f"], "cowrepair: cannot repair cowfile: work.cow: a merge into its read-only file was "
                                     "begun and is not finished: resume it with oxbow merge\n")]:
            self.make("work.cow", with_merge(self.sound(), 7))
            with self.nothing_written():
                self.tool("cowrepair", *flags, "work.cow", status=1 if flags else 0, err=text)

    def test_refusals(self):
        sound = Cowfile(BASE, self.blocks, flags=DIRTY)
        for content, text in [
                (b"", "error during read of cowheader: the file ends at byte 0"),
                (bytes(4096), "bad.cow is not a valid cowfile (wrong magic)"),
                (sound.file(version=2), "version of cowfile bad.cow not supported"),
                (sound.packed(), "cowfile bad.cow cannot be repaired while packed")]:
            self.make("bad.cow", content)
            for flags in ([], ["-f"], ["-n"]):
                with self.nothing_written():
                    self.tool("cowrepair", *flags, "bad.cow", status=1, err=text + "\n")
        self.tool("cowrepair", "none.cow", status=1, err="none.cow: No such file or directory\n")
        os.mkdir(self.path("folder"))
        self.tool("cowrepair", "folder", status=1,
                  err="folder is not a valid cowfile (it is not a regular file)\n")

    def test_output_that_cannot_be_written(self):
        # More lines than are kept until they are written; the file is repaired all the same.
        lost = Cowfile(BASE, {number: block(str(number)) for number in range(100)})
        self.make("work.cow", Cowfile(BASE, lost.blocks, flags=DIRTY, used=0, bits=[]).file())
        self.check_full_output("cowrepair", "-v", "work.cow")
        self.assertEqual(self.content(), lost.file())

    def test_usage(self):
        self.check_usage("cowrepair", USAGE, [], ["-f"], ["-n", "-v"], ["one.cow", "two.cow"])
        self.make("work.cow", self.broken())
        with self.nothing_written():
            self.tool("cowrepair", "-x", "work.cow", status=1,
                      err="cowrepair: invalid option -- 'x'\n" + USAGE.replace("{}", "cowrepair"))


if __name__ == "__main__":
    unittest.main()
