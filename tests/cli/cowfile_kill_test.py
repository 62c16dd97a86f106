#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What makes or changes cowfiles, killed at every step: what it makes is there as a whole or not at all; a merge and a
repair leave a file that the next one brings to the same end."""

import os
import struct

from cowloop_file import BLOCK, Cowfile, DIRTY, device, read_back, readonly
from traced import TracedTest, main

CONTENT = {0: b"\x01" * BLOCK, 1: b"\x02" * BLOCK, 8: bytes(BLOCK), 100: b"\x03" * BLOCK, 199: b"\x04" * BLOCK}


class CowfileKillTest(TracedTest):
    def setUp(self):
        super().setUp()
        self.base = readonly(200)
        self.merged = device(self.base, CONTENT)
        self.cowfile = Cowfile(self.base, CONTENT)
        self.make("rdo", self.base)
        self.make("cow", self.cowfile.file())

    def get(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def whole_or_nothing(self, args, check):
        """`check` looks at the file "out", which the command makes."""
        if os.path.exists(self.path("out")):
            os.unlink(self.path("out"))
        steps = self.steps(args)
        check("undisturbed")
        known = set(os.listdir(self.folder))
        outcomes = {False: 0, True: 0}
        for step in steps:
            if os.path.exists(self.path("out")):
                os.unlink(self.path("out"))
            self.kill_at(args, step)
            # Only a name with a dot in front may be left, where a file can't do without one.
            for name in set(os.listdir(self.folder)) - known:
                self.assertRegex(name, r"\A\.+out\.[0-9a-f.]+\Z", step)
                os.unlink(self.path(name))
            there = os.path.exists(self.path("out"))
            outcomes[there] += 1
            if there:
                check(step)
        print(f"{args[0]}: {len(steps)} steps, whole {outcomes[True]}, nothing {outcomes[False]}")
        self.assertGreater(outcomes[False], 2)

    def test_create(self):
        self.whole_or_nothing(
            ["create", "--format", "cowloop", "--base", "rdo", "out"],
            lambda where: self.assertEqual(self.get("out"), Cowfile(self.base).file(), where))

    def test_pack(self):
        self.whole_or_nothing(["pack", "cow", "out"],
                              lambda where: self.assertEqual(self.get("out"), self.cowfile.packed(), where))

    def test_unpack(self):
        self.make("packed", self.cowfile.zipped())
        self.whole_or_nothing(["unpack", "packed", "out"],
                              lambda where: self.assertEqual(self.get("out"), self.cowfile.file(), where))

    def test_convert(self):
        def check(where):
            self.succeed("check", "out")
            if os.path.exists(self.path("again")):
                os.unlink(self.path("again"))
            self.succeed("convert", "out", "again")
            self.assertEqual(self.get("again"), self.cowfile.file(), where)

        self.whole_or_nothing(["convert", "--base", "rdo", "cow", "out"], check)
        self.succeed("convert", "--base", "rdo", "cow", "layer")
        self.whole_or_nothing(["convert", "layer", "out"],
                              lambda where: self.assertEqual(self.get("out"), self.cowfile.file(), where))

    def test_merge(self):
        args = ["merge", "--yes", "--base", "rdo", "cow"]
        steps = self.steps(args)
        resumed = 0
        for step in steps:
            self.make("rdo", self.base)
            self.make("cow", self.cowfile.file())
            self.kill_at(args, step)
            # Whatever is merged so far, the pair reads as before.
            cow, base = self.get("cow"), self.get("rdo")
            bitmap = int.from_bytes(cow[BLOCK:2 * BLOCK], "little")
            present = {number: cow[self.cowfile.doffset + number * BLOCK:][:BLOCK].ljust(BLOCK, b"\0")
                       for number in range(200) if bitmap >> number & 1}
            self.assertEqual(device(base, present), self.merged, step)
            flags, = struct.unpack("<H", cow[6:8])
            self.assertIn(flags, (0, DIRTY), step)
            self.run_oxbow("info", "cow")
            if cow[576:584] == b"OXBWMRGE":
                resumed += 1
                self.refuse(1, "cannot pack cowfile: cow: a merge into its read-only file was begun and is not "
                            "finished: resume it with oxbow merge", "pack", "cow", "out")
            self.succeed(*args)
            self.assertEqual(self.get("rdo"), self.merged, step)
            self.assertEqual(read_back(self.get("cow"), self.merged, 8), (self.merged, 0), step)
        print(f"merge: {len(steps)} steps, {resumed} resumed")
        self.assertGreater(resumed, 2)

    def test_repair(self):
        dirty = Cowfile(self.base, CONTENT, flags=DIRTY, used=77, bits={1, 8}).file()
        steps = self.steps(["repair", "cow"]) if self.make("cow", dirty) else []
        for step in steps:
            self.make("cow", dirty)
            self.kill_at(["repair", "cow"], step)
            self.assertIn(self.get("cow")[6], (0, DIRTY), step)
            self.succeed("repair", "cow")
            self.assertEqual(self.get("cow"), self.cowfile.file(), step)
        print(f"repair: {len(steps)} steps")


if __name__ == "__main__":
    main()
