#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""pack, unpack, and packed layers served as they are."""

import json
import os
import random
import signal
import subprocess
import unittest

from oxbow_test import CommandTest, SECONDS

MIB = 1 << 20
SIZE = 4 * MIB + 1234
SEED = 41


class PackTest(CommandTest):
    def setUp(self):
        super().setUp()
        random.seed(SEED)
        self.make("golden.img", random.randbytes(MIB) + bytes(MIB) + random.randbytes(SIZE - 2 * MIB))
        self.succeed("create", "--base", "golden.img", "work.oxb")

    def write(self, layer="work.oxb"):
        """Changes the layer: clusters of data that shrink and that don't, zeros, a part of the last cluster."""
        self.make("random.bin", random.randbytes(300 * 1024))
        server = self.serve(layer)
        self.qemu_io(server.uri, "write -P 7 4k 8k", "write -z -u 64k 64k", "discard 2M 1M",
                     f"write -s {self.path('random.bin')} 3M 300k", "write -P 0 512k 200k",
                     f"write -P 9 {SIZE - 900} 900")
        self.assertEqual(server.stop(), (0, ""))

    def content(self, *device):
        """What a device reads as."""
        done = subprocess.run(
            [os.environ["OXBOW"], "serve", *device, "--read-only", "--name", "content", "--run", 'nbdcopy "$uri" -'],
            cwd=self.folder, env=self.environment, capture_output=True, timeout=SECONDS, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return done.stdout

    def map(self, name):
        return [(each["start"], each["length"], each["state"], each["reads"], each["layer"])
                for each in json.loads(self.succeed("map", "--json", name))]

    def info(self, name):
        return json.loads(self.succeed("info", "--json", name))

    def test_a_layer_comes_back_as_it_was(self):
        self.write()
        content, extents = self.content("work.oxb"), self.map("work.oxb")
        for options in ([], ["--level", "1"], ["--level", "19"], ["--no-compress"]):
            with self.subTest(options):
                self.assertRegex(self.succeed("pack", *options, "--force", "work.oxb", "work.oxp"),
                                 r"\Apacked work\.oxb into work\.oxp: 5\d\dK of data in \d+K\n\Z")
                self.assertRegex(self.succeed("unpack", "--force", "work.oxp", "again.oxb"),
                                 r"\Aunpacked work\.oxp into again\.oxb: 5\d\dK of data from \d+K\n\Z")
                for name in ("work.oxp", "again.oxb"):
                    self.assertEqual(self.content(name), content, name)
                    self.assertEqual(self.map(name), extents, name)
                self.assertIn("checked: 2 superblocks, 2 flush records, 1 state pages",
                              self.succeed("check", "again.oxb"))

    def test_compression_shrinks_what_can_be_shrunk(self):
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 7 0 3M")
        self.assertEqual(server.stop(), (0, ""))
        self.succeed("pack", "work.oxb", "small.oxp")
        self.succeed("pack", "--no-compress", "work.oxb", "plain.oxp")
        self.assertLess(os.stat(self.path("small.oxp")).st_size, 16 << 10)
        self.assertGreater(os.stat(self.path("plain.oxp")).st_size, 3 * MIB)

    def test_an_unpacked_layer_is_another_one_unless_it_is_to_be_the_same(self):
        self.write()
        self.succeed("pack", "work.oxb", "work.oxp")
        self.succeed("unpack", "work.oxp", "copy.oxb")
        self.succeed("unpack", "--keep-uuid", "work.oxp", "same.oxb")
        uuid = self.info("work.oxb")["uuid"]
        self.assertEqual(self.info("work.oxp")["uuid"], uuid)
        self.assertEqual(self.info("same.oxb")["uuid"], uuid)
        self.assertNotEqual(self.info("copy.oxb")["uuid"], uuid)
        self.assertEqual(self.info("same.oxb")["epoch"], self.info("work.oxb")["epoch"])
        self.assertEqual(self.info("copy.oxb")["epoch"], 1)
        server = self.serve("copy.oxb")
        self.qemu_io(server.uri, "read -P 7 4k 8k", "write -P 5 4k 4k", "flush", "write -P 6 1M 64k")
        self.assertEqual(server.stop(), (0, ""))
        server = self.serve("copy.oxb")
        self.qemu_io(server.uri, "read -P 5 4k 4k", "read -P 7 8k 4k", "read -P 6 1M 64k", "read -P 0 64k 64k")

    def test_a_chain_moves_when_the_layers_stay_the_same(self):
        self.write()
        self.succeed("create", "--base", "work.oxb", "--base-format", "oxb", "child.oxb")
        server = self.serve("child.oxb")
        self.qemu_io(server.uri, "write -P 3 8k 4k")
        self.assertEqual(server.stop(), (0, ""))
        content, extents = self.content("child.oxb"), self.map("child.oxb")
        self.succeed("pack", "work.oxb", "work.oxp")
        self.succeed("pack", "child.oxb", "child.oxp")
        for name in ("work.oxb", "child.oxb"):
            os.unlink(self.path(name))
        self.succeed("unpack", "work.oxp", "work.oxb")
        self.succeed("unpack", "child.oxp", "child.oxb")
        self.refuse_matching(1, r"cannot open layer: child\.oxb: its base can't be used: wrong base: \S+work\.oxb: "
                             r"the layer was made over layer \S+, this one is \S+", "map", "child.oxb")
        self.succeed("unpack", "--keep-uuid", "--force", "work.oxp", "work.oxb")
        self.assertEqual(self.content("child.oxb"), content)
        self.assertEqual(self.map("child.oxb"), extents)
        # The base may as well stay packed.
        os.rename(self.path("work.oxp"), self.path("work.oxb"))
        self.assertEqual(self.content("child.oxb"), content)
        self.assertEqual([each["format"] for each in self.info("child.oxb")["chain"]], ["oxb", "packed", "raw"])

    def test_a_packed_layer_can_be_a_base(self):
        self.write()
        content = self.content("work.oxb")
        self.succeed("pack", "work.oxb", "work.oxp")
        self.refuse(1, "cannot use base: work.oxp: it is an oxbow layer, but was given as a raw image: "
                    "--base-format oxb", "create", "--base", "work.oxp", "child.oxb")
        self.succeed("create", "--base", "work.oxp", "--base-format", "oxb", "child.oxb")
        self.assertEqual(self.content("child.oxb"), content)
        server = self.serve("child.oxb")
        self.qemu_io(server.uri, "write -P 3 5k 1k", "read -P 7 4k 1k", "read -P 3 5k 1k", "read -P 7 6k 6k")
        self.assertEqual(server.stop(), (0, ""))

    def test_it_is_served_for_reading_only(self):
        self.write()
        self.succeed("pack", "work.oxb", "work.oxp")
        with self.nothing_written():
            server = self.serve("work.oxp")
            told = subprocess.run(["nbdinfo", "--json", server.uri], capture_output=True, text=True,
                                  check=True).stdout
            self.assertTrue(json.loads(told)["exports"][0]["is_read_only"])
            table = self.succeed("table", "work")
            self.assertIn(f"packed {self.path('work.oxp')} 0", table)
            status = self.succeed("status", "work")
            self.assertRegex(status, r"work\.oxp  packed, 4\.1M, clusters of 4\.0K")
            self.assertEqual(server.stop(), (0, ""))

    def test_a_table_can_name_it(self):
        self.write()
        self.succeed("pack", "work.oxb", "work.oxp")
        content = self.content("work.oxb")
        self.make("table", b"0 1024 packed work.oxp 1024\n1024 8 packed work.oxp\n")
        self.assertEqual(self.content("--table", "table"), content[1024 * 512:2048 * 512] + content[:4096])
        self.make("table", b"0 8 linear work.oxp 0\n")
        self.refuse(1, "cannot load table: table line 1: cannot make target linear: work.oxp: it is a packed layer, "
                    "not a raw image: name it as LAYER, or in a table with the target packed", "serve", "--table",
                    "table")

    def test_who_wants_to_write_is_told(self):
        self.succeed("pack", "work.oxb", "work.oxp")
        why = ("cannot open layer: work.oxp: it is a packed layer, which can only be read: oxbow unpack makes a layer "
               "of it again")
        with self.nothing_written():
            self.refuse(1, why, "serve", "--base", "golden.img", "--overlay", "work.oxp")
            self.refuse(1, why, "check", "work.oxp")

    def test_info(self):
        self.write()
        self.succeed("pack", "work.oxb", "work.oxp")
        layer, packed = self.info("work.oxb"), self.info("work.oxp")
        for name in ("uuid", "created", "size", "max_size", "cluster", "clusters", "data_clusters", "zero_clusters",
                     "epoch"):
            self.assertEqual(packed[name], layer[name], name)
        self.assertEqual(packed["version"], 1)
        self.assertEqual(packed["packed"]["bytes"], os.stat(self.path("work.oxp")).st_size)
        self.assertEqual(packed["packed"]["frames"], -(-packed["data_clusters"] * 4096 // packed["packed"]["frame"]))
        self.assertEqual([each["format"] for each in packed["chain"]], ["packed", "raw"])
        text = self.succeed("info", "work.oxp")
        self.assertRegex(text, r"(?m)^format +oxbow packed layer, version 1$")
        self.assertRegex(text, r"(?m)^packed +\d{4}-\d\d-\d\dT\S+Z, \d+K in \d+ frames of 128K$")
        self.assertRegex(text, r"(?m)^  0  work\.oxp  packed layer, 4\.1M, \S+ allocated$")

    def test_an_empty_layer(self):
        self.succeed("pack", "work.oxb", "work.oxp")
        self.assertEqual(os.stat(self.path("work.oxp")).st_size, 4096 + 64)
        self.succeed("unpack", "work.oxp", "again.oxb")
        self.assertEqual(self.map("again.oxb"), self.map("work.oxb"))

    def test_paths_are_relative_to_the_new_place(self):
        os.mkdir(self.path("sub"))
        self.succeed("pack", "work.oxb", "sub/work.oxp")
        self.refuse_matching(1, r"cannot open packed layer: sub/work\.oxp: its base can't be used: cannot open file: "
                             r"\S*sub/golden\.img: No such file or directory", "map", "sub/work.oxp")
        self.refuse_matching(1, r"cannot unpack layer: sub/w\.oxb: its base can't be used: cannot open file: "
                             r"sub/golden\.img: No such file or directory; with --keep-uuid the base isn't needed",
                             "unpack", "sub/work.oxp", "sub/w.oxb")
        self.succeed("unpack", "--keep-uuid", "sub/work.oxp", "sub/w.oxb")
        self.succeed("unpack", "sub/work.oxp", "here.oxb")
        self.assertEqual(self.map("here.oxb"), self.map("work.oxb"))
        self.assertEqual(sorted(os.listdir(self.path("sub"))), ["w.oxb", "work.oxp"])

    def test_a_base_with_another_time_has_to_be_accepted(self):
        self.succeed("pack", "work.oxb", "work.oxp")
        os.utime(self.path("golden.img"), (1, 1))
        self.refuse_matching(1, r"cannot unpack layer: again\.oxb: its base can't be used: wrong base: golden\.img: "
                             r"the base was modified at .*: --accept-base; with --keep-uuid the base isn't needed",
                             "unpack", "work.oxp", "again.oxb")
        self.succeed("unpack", "--accept-base", "work.oxp", "again.oxb")
        self.succeed("map", "again.oxb")

    def test_nothing_is_overwritten_by_chance(self):
        self.succeed("pack", "work.oxb", "work.oxp")
        with self.nothing_written():
            exists = "it exists already; --force replaces it"
            self.refuse(1, f"cannot pack layer: work.oxp: {exists}", "pack", "work.oxb", "work.oxp")
            self.refuse(1, f"cannot unpack layer: work.oxb: {exists}", "unpack", "work.oxp", "work.oxb")
            self.refuse(1, "cannot pack layer: work.oxb: it is in use by another process", "pack", "--force",
                        "work.oxb", "work.oxb")
            os.mkdir(self.path("folder"))
            self.refuse(1, "cannot pack layer: folder: it is no regular file, which could be replaced", "pack",
                        "--force", "work.oxb", "folder")
            self.refuse(1, "cannot pack layer: nowhere/work.oxp: No such file or directory", "pack", "work.oxb",
                        "nowhere/work.oxp")

    def test_what_is_being_served_is_left_alone(self):
        self.succeed("pack", "work.oxb", "work.oxp")
        server = self.serve("work.oxb")
        with self.nothing_written():
            self.refuse_matching(1, r"cannot open layer: work\.oxb: it is in use by process \d+ .*", "pack", "work.oxb",
                                 "x.oxp")
            self.refuse(1, "cannot unpack layer: work.oxb: it is in use by another process", "unpack", "--force",
                        "work.oxp", "work.oxb")
        self.assertEqual(server.stop(), (0, ""))

    def test_a_layer_whose_server_was_killed_is_recovered_first(self):
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 7 4k 900k")
        self.assertEqual(server.stop(signal.SIGKILL)[0], -signal.SIGKILL)
        self.succeed("pack", "work.oxb", "work.oxp")
        self.assertEqual(self.info("work.oxb")["state"], "clean")
        self.assertEqual(self.content("work.oxp")[4096:904 * 1024], bytes([7]) * (900 * 1024))

    def test_wrong_usage(self):
        for level in ("0", "20", "-1", "fast"):
            self.refuse(2, "wrong usage: --level: a level is a number from 1 to 19; see oxbow pack --help", "pack",
                        f"--level={level}", "work.oxb", "x.oxp")
        self.refuse(2, "wrong usage: --level excludes --no-compress; see oxbow pack --help", "pack", "--level", "3",
                    "--no-compress", "work.oxb", "x.oxp")
        self.refuse(1, "cannot open packed layer: work.oxb: it has no magic of a packed layer", "unpack", "work.oxb",
                    "x.oxb")
        self.refuse(1, "cannot open packed layer: empty: it is too short to be a packed layer (0 bytes)", "unpack",
                    self.make("empty", 0) and "empty", "x.oxb")

    def test_a_damaged_byte_is_never_served(self):
        self.write()
        self.succeed("pack", "work.oxb", "work.oxp")
        with open(self.path("work.oxp"), "rb") as file:
            sound = file.read()
        # Header, first and last frame, index, trailer.
        places = {30: "its header is damaged: its checksum is wrong",
                  4100: r"cannot read packed layer: work\.oxp: frame 0 at byte 4096 is damaged: its checksum is wrong",
                  len(sound) - 70: "its index is damaged: its checksum is wrong",
                  len(sound) - 64: r"it has no trailer at its end: it was cut off, or something was appended "
                                   r"\(\d+ bytes\)",
                  len(sound) - 20: "its trailer is damaged: its checksum is wrong"}
        for place, why in places.items():
            with self.subTest(place):
                self.make("bad.oxp", sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1:])
                what = "cannot unpack layer" if place == 4100 else "cannot open packed layer"
                self.refuse_matching(1, rf"{what}: bad\.oxp: {why.replace('work', 'bad')}", "unpack", "bad.oxp",
                                     "x.oxb")
        for length in (0, 1, 4095, 4096, 4160, len(sound) // 2, len(sound) - 1):
            self.make("bad.oxp", sound[:length])
            done = self.run_oxbow("unpack", "bad.oxp", "x.oxb")
            self.assertEqual(done.returncode, 1, length)
            self.assertIn("cannot open packed layer: bad.oxp: ", done.stderr)
        self.make("bad.oxp", sound + b"x")
        self.refuse_matching(1, r"cannot open packed layer: bad\.oxp: it has no trailer at its end: .*", "map",
                             "bad.oxp")
        self.assertNotIn("x.oxb", os.listdir(self.folder))

    def test_reads_of_a_damaged_frame_fail_and_status_names_it(self):
        self.write()
        self.succeed("pack", "--no-compress", "work.oxb", "work.oxp")
        with open(self.path("work.oxp"), "r+b") as file:
            file.seek(5000)
            file.write(b"\xff")
        server = self.serve("work.oxp")
        done = subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", "read 4k 4k", server.uri], capture_output=True,
                              text=True, check=False)
        self.assertIn("Input/output error", done.stdout + done.stderr)
        done = subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", f"read -P 9 {SIZE - 900} 900", server.uri],
                              capture_output=True, text=True, check=False)
        self.assertNotIn("rror", done.stdout + done.stderr)
        self.assertIn("frame 0 at byte 4096 is damaged: its checksum is wrong",
                      self.succeed("status", "--json", "work"))
        self.assertEqual(server.stop(), (0, ""))


if __name__ == "__main__":
    print(f"seed {SEED}")
    unittest.main()
