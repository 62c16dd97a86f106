#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pack and unpack, killed at every step: there is nothing under the name, or all of it."""

import os

from traced import TracedTest, main

SIZE = 1 << 20


class PackKillTest(TracedTest):
    def setUp(self):
        super().setUp()
        self.make("golden.img", os.urandom(SIZE))
        self.succeed("create", "--base", "golden.img", "work.oxb")
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 7 4k 200k", "write -z -u 512k 64k")
        self.assertEqual(server.stop(), (0, ""))
        self.succeed("pack", "work.oxb", "sound.oxp")
        self.extents = self.succeed("map", "--json", "sound.oxp").replace("sound.oxp", "FILE")
        try:
            os.close(os.open(self.folder, os.O_TMPFILE | os.O_RDWR))
            self.leaves_names = False
        except OSError:
            self.leaves_names = True

    def check(self, name, where):
        """The file is whole: it can be read, all of it, and is what it should be."""
        self.assertEqual(self.succeed("map", "--json", name).replace(name, "FILE"), self.extents, where)
        if name.endswith(".oxb"):
            self.succeed("check", name)
        self.succeed("unpack" if name.endswith(".oxp") else "pack", "--force", name, "proof")

    def kill_everywhere(self, name, args):
        """Returns how often nothing was left, and how often all."""
        steps = self.steps(args)
        known = {"oxbow", "golden.img", "work.oxb", "sound.oxp", "trace", "proof", name}
        there = os.path.exists(self.path("before"))
        outcomes = {"nothing": 0, "all": 0}
        for step in steps:
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
            if there:
                os.link(self.path("before"), self.path(name))
            self.kill_at(args, step)
            where = f"killed at {step[0]} number {step[1]}"
            found = set(os.listdir(self.folder)) - known - {"before"}
            if self.leaves_names or there:
                found = {each for each in found if not each.startswith(f".{name}.")}
            self.assertEqual(found, set(), where)
            if os.path.exists(self.path(name)):
                outcomes["all"] += 1
                self.check(name, where)
            else:
                self.assertFalse(there, where)
                outcomes["nothing"] += 1
        print(f"{args[0]}: {len(steps)} steps, {outcomes}")
        return outcomes

    def test_pack(self):
        outcomes = self.kill_everywhere("out.oxp", ["pack", "work.oxb", "out.oxp"])
        self.assertGreater(outcomes["nothing"], 5)
        self.assertGreater(outcomes["all"], 0)

    def test_unpack(self):
        outcomes = self.kill_everywhere("out.oxb", ["unpack", "sound.oxp", "out.oxb"])
        self.assertGreater(outcomes["nothing"], 5)
        self.assertGreater(outcomes["all"], 0)

    def test_what_is_replaced_is_there_until_the_other_is(self):
        self.succeed("pack", "--no-compress", "work.oxb", "before")
        outcomes = self.kill_everywhere("out.oxp", ["pack", "--force", "work.oxb", "out.oxp"])
        self.assertEqual(outcomes["nothing"], 0)


if __name__ == "__main__":
    main()
