#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files that are not what they should be are refused by name, and nothing is written."""

import json
import os
import random
import re
import signal
import struct
import subprocess
import unittest

from oxbow_test import CommandTest

MIB = 1 << 20
NO_LAYER = "it has no oxbow magic: not an oxbow layer"
COPIES = (0, 64 << 10)  # where the superblocks are


def crc32c(data):
    """CRC32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class BadInputTest(CommandTest):
    def setUp(self):
        super().setUp()
        self.make("golden.img", random.Random(5).randbytes(4 * MIB))
        self.succeed("create", "--base", "golden.img", "work.oxb")
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 7 64k 64k")
        self.assertEqual(server.stop(), (0, ""))

    def read_at(self, name, at, length):
        with open(self.path(name), "rb") as file:
            return os.pread(file.fileno(), length, at)

    def write_at(self, name, at, data):
        with open(self.path(name), "r+b") as file:
            os.pwrite(file.fileno(), data, at)

    def flip(self, name, at):
        self.write_at(name, at, bytes([self.read_at(name, at, 1)[0] ^ 0x40]))

    def edit_superblocks(self, name, offset, data):
        """Changes a field of both copies and mends their checksums, so that what is behind the checksum is reached."""
        for at in COPIES:
            block = bytearray(self.read_at(name, at, 4096))
            block[offset:offset + len(data)] = data
            block[8:12] = struct.pack("<I", crc32c(block[12:]))
            self.write_at(name, at, bytes(block))

    def refuse_everywhere(self, text, name="work.oxb", commands=("serve", "map", "check", "info"),
                          what="cannot open layer"):
        """Each command that takes a layer refuses this one with these words and leaves everything alone."""
        for command in commands:
            with self.subTest(command), self.nothing_written():
                done = self.run_oxbow(command, name)
                self.assertEqual((done.returncode, done.stderr), (1, f"oxbow: {what}: {name}: {text}\n"))
                self.assertTrue(command == "check" or not done.stdout, done.stdout)  # it says more

    def check_damaged(self, name, places):
        """The check fails with that many places of damage; returns what it says."""
        with self.nothing_written():
            done = self.run_oxbow("check", name)
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"oxbow: checked layer: {name}: it is damaged in {places} "
                             f"{'place' if places == 1 else 'places'}\n"), done.stdout)
        return done.stdout

    def check_redundancy_lost(self, pattern):
        """The check says that nothing is lost, and that in its first line."""
        done = self.run_oxbow("check", "work.oxb")
        self.assertEqual(done.returncode, 3, done.stdout)
        self.assertEqual(done.stderr, "oxbow: checked layer: work.oxb: nothing is lost, but in 1 place a copy is bad "
                                      "and only the other is left; oxbow repair mends it\n")
        self.assertRegex(done.stdout.splitlines()[0], rf"\A{pattern}\Z")

    # Layers.

    def test_a_missing_layer(self):
        self.refuse_everywhere("No such file or directory", "missing.oxb", what="cannot open file")

    def test_foreign_files(self):
        self.make("random", random.Random(6).randbytes(MIB))
        self.refuse_everywhere(NO_LAYER, "random")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.path("disk.qcow2"), "1M"], check=True)
        self.refuse_everywhere(NO_LAYER, "disk.qcow2")
        self.refuse_everywhere(NO_LAYER, "golden.img")

    def test_files_too_short_to_be_a_layer(self):
        for length in (0, 1, 511, 4096, 65536, 69631):
            self.make("short", length)
            self.refuse_everywhere(f"it is too short to be an oxbow layer ({length} bytes)", "short")

    def test_what_is_no_file(self):
        os.mkdir(self.path("folder"))
        for command in ("serve", "map", "check", "info"):
            self.refuse(1, "cannot open file: folder: it is a directory, not a file or block device",
                        command, "folder")
            self.refuse(1, "cannot open file: /dev/null: it is neither a regular file nor a block device",
                        command, "/dev/null")

    def test_truncated_layers(self):
        whole = os.stat(self.path("work.oxb")).st_size
        data = whole - 4 * MIB
        for length, told in ((whole - 1, "no data was in what is missing ["),
                             (data + 69632, "cannot be read: bytes 69632 to 131071 of the device (clusters 17 to "
                                             "31) ["),
                             (data - 1, "state pages are cut off, so what is left of the data cannot be told; cannot "
                                        "be read: bytes 0 to 4194303 of the device (clusters 0 to 1023) ["),
                             (69632, "state pages are cut off, so")):
            os.truncate(self.path("work.oxb"), length)
            why = f"it is truncated: {length} bytes long, its superblock says {whole}"
            self.refuse_everywhere(why, commands=("serve", "map", "info"))
            self.assertIn(f"damage: file: {why}; {told}", self.check_damaged("work.oxb", 1))
            mended = self.run_oxbow("repair", "work.oxb")
            if length == whole - 1:
                self.assertEqual((mended.returncode, mended.stdout),
                                 (0, "mended: file: given its full length again; no data was in what was missing\n"))
                self.succeed("map", "work.oxb")
            else:
                self.assertEqual(mended.returncode, 1)
                self.assertIn(f"left: damage: file: {why}; {told}", mended.stdout)

    def test_both_superblocks_damaged(self):
        for at in COPIES:
            self.flip("work.oxb", at + 2000)
        why = "superblock copy 0 is damaged: its checksum is wrong"
        self.refuse_everywhere(why, commands=("serve", "map", "info"))
        with self.nothing_written():
            for command in ("check", "repair"):
                done = self.run_oxbow(command, "work.oxb")
                what = "cannot open layer" if command == "check" else "cannot repair layer"
                self.assertEqual((done.returncode, done.stderr), (1, f"oxbow: {what}: work.oxb: {why}\n"))
                for copy, at in enumerate(COPIES):
                    self.assertRegex(done.stdout, rf"(?m)^(left: )?damage: superblock copy {copy}: its checksum is "
                                     rf"wrong \[bytes {at} to {at + 4095} of the file, sequence \d+, epoch 2, CRC "
                                     r"0x[0-9a-f]{8} stored, 0x[0-9a-f]{8} computed\]$")

    def test_one_superblock_damaged(self):
        for copy, at in enumerate(COPIES):
            with self.subTest(copy):
                self.flip("work.oxb", at + 2000)
                with self.nothing_written():
                    self.check_redundancy_lost(
                        rf"redundancy: superblock copy {copy}: its checksum is wrong; the other copy is sound and "
                        rf"serves instead \[bytes {at} to {at + 4095} of the file, "
                        r"sequence \d+, epoch 2, CRC 0x[0-9a-f]{8} stored, 0x[0-9a-f]{8} computed\]")
                    self.assertEqual(len(json.loads(self.succeed("map", "--json", "work.oxb"))), 3)
                    self.assertNotIn("damage", self.succeed("info", "work.oxb"))
                    self.assertEqual(self.succeed("repair", "--dry-run", "work.oxb"),
                                     f"would mend: superblock copy {copy}: written again from copy {1 - copy}\n")
                self.assertEqual(self.succeed("repair", "work.oxb"),
                                 f"mended: superblock copy {copy}: written again from copy {1 - copy}\n")
                self.assertEqual(self.succeed("repair", "work.oxb"), "nothing to mend\n")
                self.succeed("check", "work.oxb")

    def test_a_newer_version(self):
        self.edit_superblocks("work.oxb", 12, struct.pack("<I", 77))
        self.refuse_everywhere("its format version is 77, this oxbow knows up to 1: use a newer oxbow")

    def test_unknown_features(self):
        self.edit_superblocks("work.oxb", 32, struct.pack("<Q", 1 << 40))
        self.refuse_everywhere("it uses features that this oxbow doesn't know (0x10000000000): use a newer oxbow")

    def test_features_that_only_allow_reading(self):
        self.edit_superblocks("work.oxb", 24, struct.pack("<Q", 4))
        self.assertEqual(len(json.loads(self.succeed("map", "--json", "work.oxb"))), 3)
        with self.nothing_written():
            self.refuse(1, "cannot open layer for writing: work.oxb: it uses features that this oxbow can only read "
                           "(0x4): use a newer oxbow, or --read-only", "serve", "work.oxb")

    def test_fields_that_contradict_each_other(self):
        for offset, data, text in (
                (104, struct.pack("<I", 3), "cluster_shift is 3, not 12 to 20"),
                (80, struct.pack("<Q", 0), "size 0 and max_size 17592186044416 don't fit each other"),
                (120, struct.pack("<Q", 4096), "the offsets don't follow from max_size and cluster_shift")):
            with self.subTest(text):
                before = self.read_at("work.oxb", offset, len(data))
                self.edit_superblocks("work.oxb", offset, data)
                self.refuse_everywhere(f"superblock copy 0: {text}")
                self.edit_superblocks("work.oxb", offset, before)

    def test_a_damaged_state_page(self):
        slots = struct.unpack("<QQ", self.read_at("work.oxb", 120, 16))
        self.flip("work.oxb", slots[0] + 100)
        found = self.check_damaged("work.oxb", 1)
        line = (r"damage: state page 0 slot 0: its checksum is wrong; the other slot: never written; cannot be read: "
                rf"bytes 0 to 4194303 of the device \(clusters 0 to 1023\) \[bytes {slots[0]} to {slots[0] + 4095} of "
                r"the file, epoch 2, flush 1, CRC 0x[0-9a-f]{8} stored, 0x[0-9a-f]{8} computed\]")
        self.assertRegex(found, rf"\A{line}\nchecked: 2 superblocks, 2 flush records, 1 state pages; 0 data clusters, "
                                r"0 zero clusters\n\Z")
        with self.nothing_written():
            told = self.run_oxbow("check", "--json", "work.oxb")
            finding = json.loads(told.stdout)["findings"][0]
            self.assertEqual((told.returncode, finding["gravity"], finding["page"], finding["slot"], finding["lost"]),
                             (1, "damage", 0, 0, [{"start": 0, "length": 4 * MIB}]))
            self.assertNotEqual(finding["crc_stored"], finding["crc_computed"])
            mapped = json.loads(self.succeed("map", "--json", "work.oxb"))
            self.assertEqual([(each["start"], each["length"], each["reads"]) for each in mapped],
                             [(0, 4 * MIB, "error")])
            self.assertRegex(self.succeed("info", "work.oxb"), r"(?m)^damage +yes: oxbow check names it$")
        server = self.serve("work.oxb", "--read-only")
        done = subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", server.uri], capture_output=True,
                              text=True, check=False)
        self.assertIn("Input/output error", done.stdout + done.stderr)
        self.assertEqual(server.stop(), (0, ""))
        self.repair_a_page(line)

    def repair_a_page(self, line):
        """Nothing is guessed: what is lost is said, and given up only when asked for."""
        left = "oxbow: cannot repair layer: work.oxb: what is left cannot be mended without losing something, and " \
               "nothing is guessed\n"
        before = os.stat(self.path("work.oxb")).st_mtime_ns
        with self.nothing_written():
            for args in (("--dry-run",), ()):
                done = self.run_oxbow("repair", *args, "work.oxb")
                self.assertEqual((done.returncode, done.stderr), (1, left))
                self.assertRegex(done.stdout, rf"\Aleft: {line}\n\Z")
            self.refuse(1, "cannot repair layer: work.oxb: state page 1 is not damaged", "repair", "--drop", "1",
                        "work.oxb")
            self.refuse(1, "cannot repair layer: work.oxb: state page 0 has no slot that is whole, so there is none to "
                           "accept", "repair", "--accept-older", "0", "work.oxb")
            told = "state page 0: given up; the base shows through again\n"
            lost = "state page 0: bytes 0 to 4194303 of the device (clusters 0 to 1023)\n"
            self.assertEqual(self.succeed("repair", "--dry-run", "--drop", "0", "work.oxb"),
                             f"would mend: {told}would be lost: {lost}")
        self.assertEqual(os.stat(self.path("work.oxb")).st_mtime_ns, before)
        self.assertEqual(self.succeed("repair", "--drop", "0", "work.oxb"), f"mended: {told}lost: {lost}")
        self.succeed("check", "work.oxb")
        self.assertEqual(self.succeed("map", "--json", "work.oxb").count("absent"), 1)

    def test_a_damaged_flush_record(self):
        records = struct.unpack("<QQ", self.read_at("work.oxb", 136, 16))
        self.flip("work.oxb", records[0] + 4000)
        self.check_redundancy_lost(rf"redundancy: flush record 0: its checksum is wrong \[bytes {records[0]} to "
                                   rf"{records[0] + 8191} of the file, epoch 2, flush 1, CRC 0x[0-9a-f]{{8}} stored, "
                                   r"0x[0-9a-f]{8} computed\]")
        self.assertEqual(self.succeed("repair", "work.oxb"),
                         "mended: flush record 0: written again: flush 3, which names no page\n")
        self.succeed("check", "work.oxb")

    def test_what_a_crash_may_leave_is_no_damage(self):
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 8 0 64k", "flush")
        server.stop(signal.SIGKILL)
        checked = "checked: 2 superblocks, 2 flush records, 1 state pages; {} data clusters, 0 zero clusters\n"
        unclean = ("note: superblock: in use or not closed cleanly; opening it for writing recovers it [sequence 4, "
                   "epoch 3]\n")
        self.assertEqual(self.succeed("check", "work.oxb"), unclean + checked.format(32))

        slots = struct.unpack("<QQ", self.read_at("work.oxb", 120, 16))
        records = struct.unpack("<QQ", self.read_at("work.oxb", 136, 16))
        ages = [struct.unpack("<QQ", self.read_at("work.oxb", at + 8, 16)) for at in records]
        newest = ages.index(max(ages))
        count, entry = (struct.unpack("<I", self.read_at("work.oxb", records[newest] + at, 4))[0] for at in (36, 64))
        self.assertEqual((count, entry & 0x7FFFFFFF), (1, 0))
        last = entry >> 31
        self.flip("work.oxb", slots[last] + 100)
        self.flip("work.oxb", records[1 - newest] + 4000)
        with self.nothing_written():
            self.assertRegex(self.succeed("check", "work.oxb"),
                             re.escape(unclean) +
                             rf"note: flush record {1 - newest}: its checksum is wrong; the last flush may have been "
                             r"cut off while it wrote it \[.*\]\n"
                             rf"note: state page 0 slot {last}: its checksum is wrong: the last flush was cut off "
                             r"while it wrote it; the other slot: epoch 2, flush \d+ \[.*\]\n" +
                             checked.format(16) + r"\Z")
        self.flip("work.oxb", slots[1 - last] + 100)
        found = self.check_damaged("work.oxb", 2)
        self.assertRegex(found, rf"(?m)^damage: state page 0 slot {1 - last}: its checksum is wrong; the other slot: "
                                r"damaged too; cannot be read: bytes 0 to 4194303 of the device \(clusters 0 to "
                                r"1023\) ")

    # Bases.

    def refuse_base(self, why):
        for command in ("serve", "map"):
            with self.subTest(command), self.nothing_written():
                self.refuse_matching(1, r"cannot open layer: work\.oxb: its base can't be used: " + why,
                                     command, "work.oxb")

    def test_a_missing_base(self):
        os.remove(self.path("golden.img"))
        self.refuse_base(r"cannot open file: \S+/golden\.img: No such file or directory")

    def test_a_base_of_another_size(self):
        os.truncate(self.path("golden.img"), 5 * MIB)
        self.refuse_base(r"wrong base: \S+/golden\.img: the layer was made over a base of 4194304 bytes, "
                         r"this one has 5242880")

    def test_a_base_with_other_content(self):
        self.flip("golden.img", 10)
        self.refuse_base(r"wrong base: \S+/golden\.img: the base's content is not what the layer was made over: "
                         r"samples of both differ")
        self.refuse_matching(1, r".*: samples of both differ", "map", "--accept-base", "work.oxb")

    def test_a_base_that_was_touched(self):
        os.utime(self.path("golden.img"), (1_000_000_000, 1_000_000_000))
        time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} UTC"
        self.refuse_base(rf"wrong base: \S+/golden\.img: the base was modified at 2001-09-09 01:46:40\.000000000 UTC, "
                         rf"but at {time} when the layer was made; samples of its content are equal, so if you are "
                         r"sure that it is unchanged: --accept-base")
        self.assertEqual(len(json.loads(self.succeed("map", "--json", "--accept-base", "work.oxb"))), 3)

    def test_a_layer_given_as_a_raw_base(self):
        with self.nothing_written():
            self.refuse(1, "cannot use base: work.oxb: it is an oxbow layer, but was given as a raw image: "
                           "--base-format oxb", "create", "--base", "work.oxb", "next.oxb")
            self.refuse(1, "cannot use base: work.oxb: it is an oxbow layer, but was given as a raw image: "
                           "--base-format oxb", "serve", "--base", "work.oxb", "--overlay", "next.oxb")

    def test_a_raw_image_given_as_a_layer(self):
        with self.nothing_written():
            self.refuse(1, f"cannot open layer: golden.img: {NO_LAYER}",
                        "create", "--base", "golden.img", "--base-format", "oxb", "next.oxb")

    def test_a_base_layer_that_was_written_to(self):
        self.succeed("create", "--base", "work.oxb", "--base-format", "oxb", "next.oxb")
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 1 0 4k")
        self.assertEqual(server.stop(), (0, ""))
        with self.nothing_written():
            self.refuse_matching(1, r"cannot open layer: next\.oxb: its base can't be used: "
                                 r"wrong base: \S+/work\.oxb: "
                                 r"the base was written after the layer was made over it: epoch 2 then, 3 now",
                                 "map", "next.oxb")

    def test_a_base_layer_in_the_place_of_another(self):
        self.succeed("create", "--base", "work.oxb", "--base-format", "oxb", "next.oxb")
        os.rename(self.path("work.oxb"), self.path("old.oxb"))
        self.succeed("create", "--base", "golden.img", "work.oxb")
        with self.nothing_written():
            self.refuse_matching(1, r"cannot open layer: next\.oxb: its base can't be used: "
                                 r"wrong base: \S+/work\.oxb: "
                                 r"the layer was made over layer [0-9a-f-]{36}, this one is [0-9a-f-]{36}",
                                 "serve", "next.oxb")

    # Creating.

    def test_creating_what_cannot_be(self):
        with self.nothing_written():
            self.refuse(1, "cannot create layer: work.oxb: it exists already",
                        "create", "--base", "golden.img", "work.oxb")
            self.refuse(1, "cannot open file: missing.img: No such file or directory",
                        "create", "--base", "missing.img", "next.oxb")
            self.refuse(1, "cannot create layer: missing/next.oxb: No such file or directory",
                        "create", "--base", "golden.img", "missing/next.oxb")
            self.refuse(1, "cannot create layer: next.oxb: a size of 1048576 bytes is below the base's 4194304",
                        "create", "--base", "golden.img", "--size", "1M", "next.oxb")
        self.make("empty.img", 0)
        with self.nothing_written():
            self.refuse(1, "cannot create layer: next.oxb: the device would have no bytes",
                        "create", "--base", "empty.img", "next.oxb")

    # Files, RAM disks and tables.

    def test_files_that_are_not_there(self):
        with self.nothing_written():
            self.refuse(1, "cannot open file: missing: No such file or directory", "serve", "--file", "missing")
            self.refuse(1, "cannot make target file: golden.img: offset 5242880 is beyond the end, which is at 4194304",
                        "serve", "--file", "golden.img", "--offset", "5M")
            self.refuse(1, "cannot make target file: golden.img: File too small: 2097152 bytes are needed from offset "
                           "3145728 on, it has 1048576",
                        "serve", "--file", "golden.img", "--offset", "3M", "--length", "2M")
            self.refuse(1, "cannot open device: golden.img: nothing is there from byte 4194304 on",
                        "serve", "--file", "golden.img", "--offset", "4M")

    def test_a_layer_served_as_a_file(self):
        why = "it is an oxbow layer, not a raw image: name it as LAYER, or in a table with the target cow"
        with self.nothing_written():
            self.refuse(1, f"cannot make target file: work.oxb: {why}", "serve", "--file", "work.oxb")
            self.refuse(1, f"cannot make target file: work.oxb: {why}", "serve", "--file", "work.oxb", "--read-only")
            self.refuse(1, "cannot load table: standard input line 1: cannot make target linear: work.oxb: " + why,
                        "serve", "--table", "-", stdin="0 8 linear work.oxb 0\n")

    def test_ram_disks_that_cannot_be(self):
        self.refuse(1, "cannot open device: RAM disk: its size is 0", "serve", "--ram", "0")
        self.refuse_matching(1, "cannot .*", "serve", "--ram", "8000000T")

    def test_tables(self):
        place = "cannot load table: standard input line"
        for text, why in (
                ("0 8 zero\n9 8 zero\n", f"{place} 2: a gap: it starts at 9, the line before it ends at 8"),
                ("0 8 zero\n7 8 zero\n", f"{place} 2: an overlap: it starts at 7, the line before it ends at 8"),
                ("1 8 zero\n", f"{place} 1: the first line starts at 1, it has to start at 0"),
                ("0 8x zero\n", f"{place} 1: length 8x has 'x' after the number"),
                ("0 -8 zero\n", f"{place} 1: length -8 is negative"),
                ("0 8 zero x\n", f"{place} 1: cannot make target zero: x: it takes no arguments"),
                ("0 8 file golden.img 0x\n",
                 f"{place} 1: cannot make target file: offset 0x: has 'x' after the number"),
                ("0 8 file golden.img 0 0\n",
                 f"{place} 1: cannot make target file: arguments: exactly two are needed (PATH BYTES), not 3"),
                ("0 8 linear golden.img 9000\n", f"{place} 1: cannot make target linear: golden.img: offset 4608000 is "
                                                 "beyond the end, which is at 4194304"),
                ("0 8 cow golden.img\n", f"{place} 1: cannot open layer: golden.img: {NO_LAYER}"),
                ("0 8 snapshot a b\n", f"{place} 1: cannot make target: snapshot: no such type; there are cow, "
                                       "cowloop, error, file, linear, packed, zero"),
                ("", "cannot load table: standard input: it has no lines")):
            with self.subTest(text), self.nothing_written():
                self.refuse(1, why, "serve", "--table", "-", stdin=text)
        self.refuse(1, "cannot open table: missing: No such file or directory", "serve", "--table", "missing")
        self.refuse(1, "cannot read table: .: Is a directory", "serve", "--table", ".")

    # Wrong usage.

    def test_wrong_usage(self):
        for args, why in (
                ((), "a command is needed; see oxbow --help"),
                (("bogus",), "there is no command 'bogus'; see oxbow --help"),
                (("serve",), "DEVICE: none is named; it is exactly one of LAYER, --overlay, --ram, --file, --table, "
                             "--cowloop; see oxbow serve --help"),
                (("serve", "--ram", "1M", "--file", "x"),
                 "DEVICE: more than one is named; it is exactly one of LAYER, --overlay, --ram, --file, --table, "
                 "--cowloop; see oxbow serve --help"),
                (("serve", "--ram", "1X"), "--ram 1X: has 'X' after the number; units are K, M, G, T; "
                                           "see oxbow serve --help"),
                (("serve", "--ram", "1M", "--name", "a/b"), "--name: a name has only letters, digits and ._-; "
                                                            "see oxbow serve --help"),
                (("serve", "--ram", "1M", "--length", "5"), "--length requires --file; see oxbow serve --help"),
                (("serve", "--overlay", "x"), "--overlay requires --base; see oxbow serve --help"),
                (("create", "--base", "golden.img", "--cluster", "5K", "x"),
                 "--cluster: a cluster is a power of two from 4K to 1M; see oxbow create --help"),
                (("create", "--base", "golden.img", "--base-format", "qcow2", "x"),
                 "--base-format qcow2: the formats are raw and oxb; see oxbow create --help"),
                (("create", "x"), "--base is required; see oxbow create --help"),
                (("create", "--base", "golden.img"), "LAYER is required; see oxbow create --help")):
            with self.subTest(args), self.nothing_written():
                self.refuse(2, f"wrong usage: {why}", *args)

    def test_addresses_that_cannot_be(self):
        self.refuse_matching(1, r".*bogus:x.*", "serve", "--ram", "1M", "--nbd", "bogus:x")
        self.refuse_matching(1, r".*/missing/socket.*No such file or directory.*",
                             "serve", "--ram", "1M", "--nbd", f"unix:{self.folder}/missing/socket")


if __name__ == "__main__":
    unittest.main()
