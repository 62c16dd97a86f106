#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`create --hash` and `check --data`: all of the base, and all of the chain."""

import hashlib
import json
import os
import random
import signal
import unittest

from oxbow_test import CommandTest

MIB = 1 << 20


class DataTest(CommandTest):
    def setUp(self):
        super().setUp()
        self.bytes = random.Random(8).randbytes(4 * MIB + 100)
        self.make("golden.img", self.bytes)
        self.succeed("create", "--base", "golden.img", "--hash", "work.oxb")

    def write(self, layer, command):
        server = self.serve(layer)
        self.qemu_io(server.uri, command)
        self.assertEqual(server.stop(), (0, ""))

    def change_unnoticed(self):
        """Changes a byte of the base that no sample holds, and leaves its time as it was."""
        times = os.stat(self.path("golden.img"))
        for at in range(150_000, 4_000_000, 50_000):
            with open(self.path("golden.img"), "r+b") as file:
                os.pwrite(file.fileno(), bytes([self.bytes[at] ^ 1]), at)
            os.utime(self.path("golden.img"), ns=(times.st_atime_ns, times.st_mtime_ns))
            if self.run_oxbow("map", "work.oxb").returncode == 0:
                return at
            with open(self.path("golden.img"), "r+b") as file:
                os.pwrite(file.fileno(), self.bytes[at:at + 1], at)
        self.fail("every block is sampled")

    def digest(self):
        with open(self.path("golden.img"), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    def test_a_sound_chain(self):
        self.write("work.oxb", "write -P 1 64k 64k")
        with self.nothing_written():
            self.assertEqual(self.succeed("check", "--data", "work.oxb"), self.succeed("check", "work.oxb"))
            self.assertEqual(json.loads(self.succeed("check", "--data", "--json", "work.oxb"))["findings"], [])

    def test_a_base_that_changed_where_no_sample_is(self):
        before = self.digest()
        self.change_unnoticed()
        self.succeed("check", "work.oxb")
        with self.nothing_written():
            done = self.run_oxbow("check", "--data", "work.oxb")
        self.assertEqual((done.returncode, done.stderr),
                         (1, "oxbow: checked layer: work.oxb: it is damaged in 1 place\n"))
        base = os.path.realpath(self.path("golden.img"))
        self.assertEqual(done.stdout.splitlines()[0],
                         f"damage: base {base}: its SHA-256 is {self.digest()}, it was {before} when the layer was "
                         "made")

    def test_layers_below_are_looked_at_too(self):
        self.write("work.oxb", "write -P 1 64k 64k")
        self.succeed("create", "--base", "work.oxb", "--base-format", "oxb", "--hash", "next.oxb")
        self.write("next.oxb", "write -P 2 0 4k")
        self.assertEqual(self.run_oxbow("check", "--data", "next.oxb").returncode, 0)
        self.change_unnoticed()
        done = self.run_oxbow("check", "--data", "next.oxb")
        self.assertEqual(done.returncode, 1)
        work = os.path.realpath(self.path("work.oxb"))
        self.assertRegex(done.stdout, rf"(?m)^damage: base {work}: its SHA-256 is [0-9a-f]{{64}}, it was ")
        self.assertRegex(done.stdout, rf"(?m)^damage: {work}: base \S+/golden\.img: its SHA-256 is ")
        self.assertIn("next.oxb: it is damaged in 2 places\n", done.stderr)

    def test_without_a_hash_nothing_is_compared(self):
        self.succeed("create", "--base", "golden.img", "plain.oxb")
        self.change_unnoticed()
        if self.run_oxbow("map", "plain.oxb").returncode == 0:  # samples depend on the layer
            self.succeed("check", "--data", "plain.oxb")

    def test_a_base_that_cannot_be_used(self):
        os.remove(self.path("golden.img"))
        done = self.run_oxbow("check", "--data", "work.oxb")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aoxbow: cannot open layer: work\.oxb: its base can't be used: cannot open "
                                      r"file: \S+/golden\.img: No such file or directory\n\Z")
        self.assertIn("checked: 2 superblocks", done.stdout)

    def test_a_layer_that_was_not_closed(self):
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 1 64k 64k", "flush")
        server.stop(signal.SIGKILL)
        with self.nothing_written():
            done = self.run_oxbow("check", "--data", "work.oxb")
        self.assertEqual((done.returncode, done.stderr),
                         (1, "oxbow: cannot check data: work.oxb: it was not closed cleanly, and opening its chain "
                             "would recover it; oxbow repair does\n"))
        self.assertIn("mended: layer: recovered from its unclean end, and closed\n", self.succeed("repair", "work.oxb"))
        self.succeed("check", "--data", "work.oxb")


if __name__ == "__main__":
    unittest.main()
