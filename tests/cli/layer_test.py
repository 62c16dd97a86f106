#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""create, info, map and check on layers that are as they should be."""

import json
import os
import re
import subprocess
import time
import unittest

from oxbow_test import CommandTest, sha256

MIB = 1 << 20


class LayerTest(CommandTest):
    def setUp(self):
        super().setUp()
        # 1 MiB of data, 1 MiB of a hole, 2 MiB of data
        self.make("golden.img", os.urandom(MIB) + bytes(MIB) + os.urandom(2 * MIB))
        subprocess.run(["fallocate", "--dig-holes", self.path("golden.img")], check=True)
        self.digest = sha256(self.path("golden.img"))

    def tearDown(self):
        self.assertEqual(sha256(self.path("golden.img")), self.digest, "the base was changed")

    def info(self, name):
        return json.loads(self.succeed("info", "--json", name))

    def map(self, name):
        return [(each["start"], each["length"], each["state"], each["reads"], os.path.basename(each["file"]))
                for each in json.loads(self.succeed("map", "--json", name))]

    def test_create_makes_a_sparse_layer_that_others_may_not_see_half_made(self):
        began = time.monotonic()
        self.assertEqual(self.succeed("create", "--base", "golden.img", "work.oxb"), "")
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(sorted(os.listdir(self.folder)), ["golden.img", "work.oxb"])
        self.assertLess(os.stat(self.path("work.oxb")).st_blocks * 512, 64 << 10)

    def test_create_follows_the_umask(self):
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.assertEqual(os.stat(self.path("work.oxb")).st_mode & 0o777, 0o640)

    def test_a_new_layer_shows_its_base(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.assertEqual(self.map("work.oxb"), [
            (0, MIB, "absent", "data", "golden.img"),
            (MIB, MIB, "absent", "zero", "golden.img"),
            (2 * MIB, 2 * MIB, "absent", "data", "golden.img")])
        info = self.info("work.oxb")
        self.assertEqual((info["size"], info["cluster"], info["data_clusters"], info["zero_clusters"]),
                         (4 * MIB, 4096, 0, 0))
        self.assertEqual((info["state"], info["damaged"], info["epoch"]), ("clean", False, 1))
        self.assertRegex(info["uuid"], r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
        self.assertEqual([(each["file"], each["format"], each["size"]) for each in info["chain"]],
                         [("work.oxb", "oxb", 4 * MIB), (self.path("golden.img"), "raw", 4 * MIB)])

    def test_a_larger_device_ends_in_zeros(self):
        self.succeed("create", "--base", "golden.img", "--size", "6M", "--cluster", "64K", "work.oxb")
        self.assertEqual(self.info("work.oxb")["cluster"], 65536)
        self.assertEqual(self.map("work.oxb")[-1][:4], (4 * MIB, 2 * MIB, "absent", "zero"))

    def test_what_was_changed_is_the_layers_own(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 7 4k 8k", "write -z -u 64k 64k", "discard 2M 1M", "write -P 9 3M 100")
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(self.map("work.oxb"), [
            (0, 4096, "absent", "data", "golden.img"),
            (4096, 8192, "data", "data", "work.oxb"),
            (12288, 53248, "absent", "data", "golden.img"),
            (65536, 65536, "zero", "zero", "work.oxb"),
            (131072, MIB - 131072, "absent", "data", "golden.img"),
            (MIB, MIB, "absent", "zero", "golden.img"),
            (2 * MIB, MIB, "zero", "zero", "work.oxb"),
            (3 * MIB, 4096, "data", "data", "work.oxb"),
            (3 * MIB + 4096, MIB - 4096, "absent", "data", "golden.img")])
        info = self.info("work.oxb")
        self.assertEqual((info["data_clusters"], info["zero_clusters"], info["state"]), (3, 16 + 256, "clean"))
        self.assertLess(info["allocated"], 256 << 10)
        self.assertEqual(self.succeed("check", "work.oxb"),
                         "checked: 2 superblocks, 2 flush records, 1 state pages; 3 data clusters, 272 zero clusters\n")
        again = self.serve("work.oxb", "--read-only")
        self.qemu_io_read_only(again.uri, "read -P 7 4k 8k", "read -P 0 64k 64k", "read -P 0 2M 1M", "read -P 9 3M 100")

    def qemu_io_read_only(self, uri, *commands):
        args = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(["qemu-io", "-r", "-f", "raw", *args, uri], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotRegex(done.stdout + done.stderr, "(?i)failed")

    def test_tables_for_people(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        lines = self.succeed("map", "work.oxb").splitlines()
        self.assertEqual(lines[0].split(), ["START", "LENGTH", "STATE", "READS", "FROM"])
        self.assertEqual(lines[1].split(), ["0", "1048576", "absent", "data", self.path("golden.img")])
        self.assertEqual(len(lines), 4)
        text = self.succeed("info", "work.oxb")
        for line in (r"layer +work\.oxb", r"format +oxbow layer, version \d+", r"size +4\.0M \(4194304 bytes\)",
                     r"cluster +4\.0K", r"data +0 clusters, 0 \(0 bytes\)", r"zero +0 clusters, 0 \(0 bytes\)",
                     r"created +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", r"state +clean", r"chain",
                     r"  0  work\.oxb  layer, 4\.0M, \S+ allocated",
                     r"  1  \S+/golden\.img  raw, 4\.0M, \S+ allocated"):
            self.assertRegex(text, re.compile(f"^{line}$", re.MULTILINE))

    def test_a_chain_of_layers(self):
        self.succeed("create", "--base", "golden.img", "one.oxb")
        server = self.serve("one.oxb")
        self.qemu_io(server.uri, "write -P 1 0 64k")
        self.assertEqual(server.stop(), (0, ""))
        os.mkdir(self.path("sub"))
        self.succeed("create", "--base", "one.oxb", "--base-format", "oxb", "sub/two.oxb")
        server = self.serve("sub/two.oxb")
        self.qemu_io(server.uri, "read -P 1 0 64k", "write -P 2 4k 4k")
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(self.map("sub/two.oxb")[:4], [
            (0, 4096, "absent", "data", "one.oxb"),
            (4096, 4096, "data", "data", "two.oxb"),
            (8192, 57344, "absent", "data", "one.oxb"),
            (65536, MIB - 65536, "absent", "data", "golden.img")])
        self.assertEqual([os.path.basename(each["file"]) for each in self.info("sub/two.oxb")["chain"]],
                         ["two.oxb", "one.oxb", "golden.img"])

    def test_a_layer_and_its_base_can_be_moved_together_and_linked_to(self):
        os.mkdir(self.path("a"))
        os.mkdir(self.path("a/b"))
        self.succeed("create", "--base", "golden.img", "a/b/work.oxb")
        os.rename(self.path("a"), self.path("c"))
        os.rename(self.path("golden.img"), self.path("gold"))
        os.mkdir(self.path("d"))
        self.refuse_matching(1, r"cannot open layer: c/b/work\.oxb: its base can't be used: cannot open file: "
                             r"\S+/golden\.img: No such file or directory", "map", "c/b/work.oxb")
        self.assertEqual(self.info("c/b/work.oxb")["chain"][1]["problem"], "No such file or directory")
        os.rename(self.path("gold"), self.path("golden.img"))
        self.assertEqual(len(self.map("c/b/work.oxb")), 3)
        os.symlink("../c/b/work.oxb", self.path("d/link.oxb"))
        self.assertEqual(len(self.map("d/link.oxb")), 3)

    def test_the_base_may_be_named_absolute(self):
        self.succeed("create", "--base", self.path("golden.img"), "work.oxb")
        os.mkdir(self.path("sub"))
        os.rename(self.path("work.oxb"), self.path("sub/work.oxb"))
        self.assertEqual(len(self.map("sub/work.oxb")), 3)

    def test_overlay_is_made_when_it_is_not_there(self):
        server = self.serve("--base", "golden.img", "--overlay", "work.oxb")
        self.qemu_io(server.uri, "write -P 3 0 4k")
        self.assertEqual(server.stop(), (0, ""))
        server = self.serve("--base", "golden.img", "--overlay", "work.oxb")
        self.qemu_io(server.uri, "read -P 3 0 4k")
        self.assertEqual(server.stop(), (0, ""))
        self.make("other.img", 4 * MIB)
        self.refuse(1, f"cannot open layer: work.oxb: its base is {self.path('golden.img')}, not other.img",
                    "serve", "--base", "other.img", "--overlay", "work.oxb")
        self.refuse(1, "cannot open layer: work.oxb: its base is a raw image: --base-format raw",
                    "serve", "--base", "golden.img", "--base-format", "oxb", "--overlay", "work.oxb")

    def test_a_layer_that_is_being_served(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 3 0 4k", "flush")
        holder = (rf"cannot open layer: work\.oxb: it is in use by process {server.process.pid} on \S+ "
                  r"\(\S+ serve work\.oxb\), since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
        self.refuse_matching(1, holder, "map", "work.oxb")
        self.refuse_matching(1, holder, "check", "work.oxb")
        self.refuse_matching(1, holder, "serve", "work.oxb", "--name", "second")
        info = self.info("work.oxb")
        self.assertEqual((info["state"], info["data_clusters"]), ("in use", 1))
        self.assertRegex(self.succeed("info", "work.oxb"), r"(?m)^state +in use, or not closed cleanly$")


if __name__ == "__main__":
    unittest.main()
