#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cowmerge says and does what cowloop's own one did, on files that are made without oxbow, and refuses what it should
have refused."""

import os
import unittest

from cowloop_file import (BLOCK, DIRTY, IN_ORDER, Cowfile, device, fingerprint, readonly, with_merge,
                          with_session)
from cowloop_test import CowloopTest

BASE = readonly(100)
QUESTION = "Really want to modify disk.img with updates from work.cow (Y/N)? "
DONE = "Number of blocks modified in disk.img: {}\n"
USAGE = ("Usage: {} rdofile cowfile\n"
         "\trdofile\tread-only file to be updated\n"
         "\tcowfile\tcowfile containing the updates\n")


class CowmergeTest(CowloopTest):
    def setUp(self):
        super().setUp()
        self.blocks = {3: b"three".ljust(BLOCK, b"."), 4: bytes(BLOCK), 99: b"\xff" * BLOCK}
        self.make("disk.img", BASE)

    def merge(self, *args, **more):
        self.tool("cowmerge", "disk.img", "work.cow", *args, **more)

    def content(self, name="disk.img"):
        with open(self.path(name), "rb") as file:
            return file.read()

    def test_both_layouts(self):
        for width in (8, 4):
            self.make("disk.img", BASE)
            self.make("work.cow", Cowfile(BASE, self.blocks, width).file())
            self.merge(stdin="Y\n", out=QUESTION + DONE.format(3))
            self.assertEqual(self.content(), device(BASE, self.blocks))
            self.assertEqual(self.content("work.cow"), Cowfile(device(BASE, self.blocks), self.blocks, width).file())

    def test_the_first_letter_of_the_answer_counts(self):
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        for answer in ("N\n", "n\n", "y\n", "\n", "", " Y\n", "no Y\n"):
            with self.nothing_written():
                self.merge(stdin=answer, out=QUESTION)
        self.merge(stdin="Yes, please", out=QUESTION + DONE.format(3))
        self.assertEqual(self.content(), device(BASE, self.blocks))

    def test_nothing_to_merge(self):
        self.make("work.cow", Cowfile(BASE).file())
        self.merge(stdin="Y\n", out=QUESTION + DONE.format(0))
        self.assertEqual(self.content(), BASE)

    def test_a_part_of_a_block_at_the_end_stays(self):
        self.make("disk.img", BASE + b"tail")
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        self.merge(stdin="Y\n", out=QUESTION + DONE.format(3))
        self.assertEqual(self.content(), device(BASE, self.blocks) + b"tail")

    def test_offsets_that_need_more_than_32_bits(self):
        number = (5 << 30) // BLOCK + 3
        base = Cowfile(BASE, rdoblocks=(6 << 30) // BLOCK)
        os.truncate(self.path("disk.img"), 6 << 30)
        base.bits = [number]
        self.make("work.cow", base.head(used=1) + base.bitmap())
        with open(self.path("work.cow"), "r+b") as file:
            file.seek(base.doffset + number * BLOCK)
            file.write(b"far".ljust(BLOCK, b"."))
        self.merge(stdin="Y\n", out=QUESTION + DONE.format(1))
        with open(self.path("disk.img"), "rb") as file:
            self.assertEqual(file.read(len(BASE)), BASE)
            file.seek(number * BLOCK - BLOCK)
            self.assertEqual(file.read(3 * BLOCK), bytes(BLOCK) + b"far".ljust(BLOCK, b".") + bytes(BLOCK))
            self.assertEqual(os.fstat(file.fileno()).st_size, 6 << 30)

    def test_a_merge_that_was_cut_off_goes_on(self):
        # Block 0, which the fingerprint has to do with, was written already.
        self.blocks[0] = b"first".ljust(BLOCK, b".")
        rest = b"".join(BASE[at:at + BLOCK] for at in range(0, len(BASE), BLOCK) if at // BLOCK not in self.blocks)
        cut_off = with_merge(Cowfile(BASE, self.blocks).file(), fingerprint(rest))
        self.make("work.cow", cut_off)
        self.make("disk.img", device(BASE, {0: self.blocks[0]}))
        with self.nothing_written():
            self.merge(stdin="N\n", out=QUESTION)
        self.merge(stdin="Y\n", out=QUESTION + DONE.format(4))
        self.assertEqual(self.content(), device(BASE, self.blocks))
        # It still has its blocks, and belongs to what it was merged into.
        self.assertEqual(self.content("work.cow"), Cowfile(device(BASE, self.blocks), self.blocks).file())
        self.merge(stdin="Y\n", out=QUESTION + DONE.format(4))
        # Another file, or another place to go on, is none.
        for image, content in [(device(BASE, {1: b"other".ljust(BLOCK, b".")}), cut_off),
                               (BASE, with_merge(cut_off, fingerprint(rest) ^ 1))]:
            self.make("disk.img", image)
            self.make("work.cow", content)
            with self.nothing_written():
                done = self.run_tool("cowmerge", "disk.img", "work.cow", stdin="Y\n")
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertRegex(done.stderr, r"\Acowmerge: cannot merge cowfile: work\.cow: [^\n]*\n\Z")

    def test_states_that_are_refused(self):
        sound = Cowfile(BASE, self.blocks)
        marked = with_session(sound.file(flags=DIRTY, used=IN_ORDER), bytes(range(16)), bytes(range(16)))
        for content, text in [
                # Its test for dirty files came after one that had cleared the flag.
                (sound.file(flags=DIRTY), "cowfile work.cow is dirty (repair needed)"),
                (marked, "cowfile work.cow is dirty (repair needed)"),
                (sound.packed(), "cowfile work.cow is packed (cowpack -u needed)"),
                (sound.packed(flags=3), "cowfile work.cow is packed (cowpack -u needed)"),
                (sound.file(version=2), "version of cowfile work.cow not supported"),
                (bytes(4096), "work.cow is not a valid cowfile (wrong magic)"),
                (b"", "read of cowheader: the file ends at byte 0")]:
            self.make("work.cow", content)
            with self.nothing_written():
                self.merge(stdin="Y\n", status=1, err=text + "\n")

    def test_files_that_do_not_belong_together(self):
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        other = bytearray(BASE)
        other[5] += 1
        self.make("disk.img", bytes(other))
        with self.nothing_written():
            self.merge(stdin="Y\n", status=1,
                       err="cowmerge - fingerprint of disk.img does not correspond with work.cow\n")
        # The fingerprint of this one is the same; cowloop's own cowmerge made the file longer.
        self.make("disk.img", BASE[:99 * BLOCK])
        with self.nothing_written():
            done = self.run_tool("cowmerge", "disk.img", "work.cow", stdin="Y\n")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, r"\Acowmerge: cannot merge cowfile: [^\n]*\b100\b[^\n]*\b99\b[^\n]*\n\Z")

    def test_files_that_are_not_there(self):
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        for args, name in [(("none.img", "work.cow"), "none.img"), (("disk.img", "none.cow"), "none.cow"),
                           (("none.img", "none.cow"), "none.cow")]:
            with self.nothing_written():
                self.tool("cowmerge", *args, stdin="Y\n", status=1,
                          err=f"cowmerge - can not open {name}: No such file or directory\n")

    def test_a_question_that_cannot_be_asked(self):
        self.make("work.cow", Cowfile(BASE, self.blocks).file())
        with self.nothing_written():
            self.check_full_output("cowmerge", "disk.img", "work.cow", stdin="Y\n")

    def test_usage(self):
        self.check_usage("cowmerge", USAGE, [], ["disk.img"], ["disk.img", "work.cow", "more"])


if __name__ == "__main__":
    unittest.main()
