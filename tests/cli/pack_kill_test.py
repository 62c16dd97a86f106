#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pack and unpack, killed at every step: there is nothing under the name, or all of it."""

import os
import re
import subprocess
import sys
import unittest

from oxbow_test import CommandTest, OXBOW, SECONDS

# Everything that changes a file or a directory.
CALLS = ("write", "pwrite64", "pwritev", "pwritev2", "fsync", "fdatasync", "ftruncate", "fallocate", "linkat", "link",
         "rename", "renameat2", "unlink", "io_uring_enter")
SIZE = 1 << 20
# A process that is traced can't be searched for leaks.
NO_LEAKS = {"ASAN_OPTIONS": ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "detect_leaks=0"]))}


def can_trace():
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return done.returncode == 0


class PackKillTest(CommandTest):
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

    def strace(self, options, args):
        return subprocess.run(["strace", "-f", "-o", self.path("trace"), *options, OXBOW, *args], cwd=self.folder,
                              env=self.environment | NO_LEAKS, capture_output=True, timeout=SECONDS, check=False)

    def count(self, args):
        """How often each call is made, by the thread that makes it most: strace counts for each of its own."""
        done = self.strace(["-e", f"trace={','.join(CALLS)}"], args)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.path("trace"), encoding="utf-8") as file:
            lines = re.findall(r"^(\d+) +(\w+)\(", file.read(), re.MULTILINE)
        return {call: max(lines.count(line) for line in set(lines) if line[1] == call)
                for call in sorted({line[1] for line in lines})}

    def check(self, name, where):
        """The file is whole: it can be read, all of it, and is what it should be."""
        self.assertEqual(self.succeed("map", "--json", name).replace(name, "FILE"), self.extents, where)
        if name.endswith(".oxb"):
            self.succeed("check", name)
        self.succeed("unpack" if name.endswith(".oxp") else "pack", "--force", name, "proof")

    def kill_everywhere(self, name, args):
        """Returns how often nothing was left, and how often all."""
        counts = self.count(args)
        self.assertGreater(sum(counts.values()), 5, counts)
        known = {"oxbow", "golden.img", "work.oxb", "sound.oxp", "trace", "proof", name}
        there = os.path.exists(self.path("before"))
        outcomes = {"nothing": 0, "all": 0}
        for call, times in counts.items():
            for when in range(1, times + 1):
                if os.path.exists(self.path(name)):
                    os.unlink(self.path(name))
                if there:
                    os.link(self.path("before"), self.path(name))
                done = self.strace(["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}"], args)
                self.assertIn(done.returncode, (0, -9, 137), (call, when, done.stderr))
                where = f"killed at {call} number {when}"
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
        print(f"{args[0]}: {counts}, {outcomes}")
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
    if not can_trace():
        print("SKIP: strace cannot trace here")
        sys.exit(77)
    unittest.main()
