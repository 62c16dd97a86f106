#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""oxbow map of cowfiles: which blocks are theirs."""

import json
import unittest

from cowloop_file import BLOCK, Cowfile, readonly
from oxbow_test import CommandTest


class CowfileMap(CommandTest):
    def setUp(self):
        super().setUp()
        self.base = readonly(40)
        self.make("disk.img", self.base)

    def extents(self, *args):
        return [(each["start"] // BLOCK, each["length"] // BLOCK, each["state"], each["file"])
                for each in json.loads(self.succeed("map", "--json", *args))]

    def test_both_layouts(self):
        blocks = {0: b"x" * BLOCK, 7: bytes(BLOCK), 8: b"y" * BLOCK, 39: b"z" * BLOCK}
        for width in (8, 4):
            self.make("work.cow", Cowfile(self.base, blocks, width=width).file())
            self.assertEqual(self.extents("--base", "disk.img", "work.cow"), [
                (0, 1, "data", "work.cow"), (1, 6, "absent", "disk.img"), (7, 2, "data", "work.cow"),
                (9, 30, "absent", "disk.img"), (39, 1, "data", "work.cow")])

    def test_what_is_refused(self):
        self.make("work.cow", Cowfile(self.base, {}).file())
        self.refuse(1, "cannot map cowfile: work.cow: it doesn't say what its read-only file is: name it with "
                       "--base", "map", "work.cow")
        self.refuse(1, "cannot map cowfile: work.cow: --accept-base is for layers",
                    "map", "--accept-base", "--base", "disk.img", "work.cow")
        self.make("other.img", self.base[BLOCK:])
        self.refuse_matching(1, r".*work\.cow: .*40.*39.*", "map", "--base", "other.img", "work.cow")
        self.succeed("create", "--base", "disk.img", "work.oxb")
        self.refuse(1, "cannot map layer: work.oxb: --base is for cowfiles",
                    "map", "--base", "disk.img", "work.oxb")


if __name__ == "__main__":
    unittest.main()
