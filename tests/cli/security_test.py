#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a layer, a size or another user may not do: bases that were not allowed, absurd numbers, open sockets."""

import contextlib
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import unittest

from bad_input_test import COPIES, crc32c
from oxbow_test import CommandTest, OXBOW, SECONDS

MIB = 1 << 20
TOP = (1 << 64) - 1
# Of fields of the superblock.
SIZE, BASE_VISIBLE, MAX_SIZE, CLUSTER_SHIFT, PAGE_COUNT = 80, 88, 96, 104, 112
SLOT_OFFSET, RECORD_OFFSET, HOLDER_OFFSET, RING_OFFSET, RING_LENGTH, DATA_OFFSET = 120, 136, 152, 160, 168, 176
EPOCH, ABSENT_BEFORE, STATE, BASE_PATH_LENGTH, BASE_KIND, BASE_SIZE = 184, 192, 200, 204, 208, 216
LIVE_PATH, BASE_PATH = 336, 1024


class SecurityTest(CommandTest):
    def edit(self, name, edits):
        """Changes fields of both superblocks, and mends their checksums: {offset: bytes}."""
        with open(self.path(name), "r+b") as file:
            for at in COPIES:
                block = bytearray(os.pread(file.fileno(), 4096, at))
                for offset, data in edits.items():
                    block[offset:offset + len(data)] = data
                block[8:12] = struct.pack("<I", crc32c(block[12:]))
                os.pwrite(file.fileno(), bytes(block), at)


class BaseTest(SecurityTest):
    """A layer that came from somebody else."""

    def setUp(self):
        super().setUp()
        for name in ("mine", "theirs"):
            os.mkdir(self.path(name))
        self.make("mine/secret.img", random.Random(1).randbytes(MIB))
        self.succeed("create", "--base", "mine/secret.img", "theirs/work.oxb")
        self.secret = os.path.realpath(self.path("mine/secret.img"))
        os.chmod(self.path("theirs/work.oxb"), 0o666)

    def refused(self, why):
        return f"cannot open layer: theirs/work.oxb: its base can't be used: cannot open file: {self.secret}: {why}"

    def test_a_foreign_layer_names_no_base_elsewhere(self):
        why = ("the layer can be written to by everybody, and may only name a base in its own directory or below; "
               f"--allow-base {os.path.dirname(self.secret)} allows it")
        text = self.refused(why)
        with self.nothing_written():
            self.refuse(1, text, "serve", "theirs/work.oxb")
            self.refuse(1, text, "map", "theirs/work.oxb")
            self.make("vm.toml", b'[[device]]\nlayer = "theirs/work.oxb"\n')
            self.refuse(1, f"vm.toml line 2, layer: {text}", "serve", "--config", "vm.toml")
            os.remove(self.path("vm.toml"))
            self.refuse(1, "cannot load table: standard input line 1: " + text, "serve", "--table", "-",
                        stdin="0 8 cow theirs/work.oxb\n")
            self.refuse(1, text, "create", "--base", "theirs/work.oxb", "--base-format", "oxb", "next.oxb")
            done = self.run_oxbow("check", "--data", "theirs/work.oxb")
            self.assertEqual((done.returncode, done.stderr), (1, f"oxbow: {text}\n"))
            link = json.loads(self.succeed("info", "--json", "theirs/work.oxb"))["chain"][1]
            self.assertEqual((link["problem"], link["size"]), (why, 0), "not even its size is told")

    def test_what_is_allowed_is_opened(self):
        self.assertEqual(len(json.loads(self.succeed("map", "--json", "--allow-base", "mine", "theirs/work.oxb"))), 1)
        self.succeed("create", "--base", "theirs/work.oxb", "--base-format", "oxb", "--allow-base", "mine", "next.oxb")
        self.succeed("check", "--data", "--allow-base", "mine", "theirs/work.oxb")
        self.make("vm.toml", b'[[device]]\nlayer = "theirs/work.oxb"\nallow-base = ["theirs", "mine"]\n')
        self.assertEqual(self.serve("--config", "vm.toml").stop(), (0, ""))
        several = self.serve("--allow-base", "theirs", "--allow-base", "mine", "theirs/work.oxb")
        self.assertEqual(several.stop(), (0, ""))
        self.assertEqual(self.serve("--base", "mine/secret.img", "--overlay", "theirs/work.oxb").stop(), (0, ""),
                         "the user named it")

    def test_only_what_is_allowed_is_opened(self):
        os.chmod(self.path("theirs/work.oxb"), 0o644)
        why = (f"it is in none of the directories that --allow-base names; --allow-base {os.path.dirname(self.secret)} "
               "allows it")
        self.refuse(1, self.refused(why), "map", "--allow-base", "theirs", "theirs/work.oxb")
        self.refuse(1, "cannot allow bases: nowhere: No such file or directory", "map", "--allow-base", "nowhere",
                    "theirs/work.oxb")

    def test_links_do_not_lead_out(self):
        os.symlink("../mine/secret.img", self.path("theirs/inside.img"))
        path = b"inside.img"
        self.edit("theirs/work.oxb", {BASE_PATH_LENGTH: struct.pack("<I", len(path)),
                                      BASE_PATH: path.ljust(64, b"\0")})
        for args in ((), ("--allow-base", "theirs")):
            done = self.run_oxbow("map", *args, "theirs/work.oxb")
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, r"/theirs/inside\.img: .*; --allow-base \S+/mine allows it\n\Z")


class AbsurdTest(SecurityTest):
    """Numbers near the ends of their types."""

    def setUp(self):
        super().setUp()
        self.make("golden.img", random.Random(2).randbytes(MIB))
        self.succeed("create", "--base", "golden.img", "sound.oxb")

    def fail_in_words(self, *args, **more):
        """The command fails with one line, quickly, and neither crashes nor takes memory as if the number were true."""
        done = subprocess.run(["prlimit", "--as=4294967296", OXBOW, *args] if "OXBOW_SANITIZE" not in os.environ
                              else [OXBOW, *args], cwd=self.folder, env=self.environment, text=True,
                              capture_output=True, timeout=SECONDS, check=False, **more)
        self.assertIn(done.returncode, (1, 2), (args, done.stderr))
        self.assertRegex(done.stderr, r"\Aoxbow: [^\n]+\n\Z", args)
        return done.stderr

    def test_superblocks(self):
        u32, u64 = (lambda value: struct.pack("<I", value)), (lambda value: struct.pack("<Q", value))
        extremes = [1, 4095, 1 << 31, 1 << 32, 1 << 60, (1 << 60) + 1, 1 << 62, 1 << 63, TOP - 4095, TOP - 1, TOP]
        cases = [{SIZE: u64(value)} for value in (0, *extremes[4:])]
        cases += [{SIZE: u64(value), MAX_SIZE: u64(value)} for value in extremes[4:]]
        cases += [{MAX_SIZE: u64(value)} for value in (0, *extremes)]
        cases += [{BASE_VISIBLE: u64(value)} for value in extremes[2:]]
        cases += [{SIZE: u64(value), MAX_SIZE: u64(value), BASE_VISIBLE: u64(value), BASE_SIZE: u64(value)}
                  for value in extremes[6:]]
        cases += [{CLUSTER_SHIFT: u32(value)} for value in (0, 11, 21, 31, 32, 63, 64, 255, (1 << 32) - 1)]
        for field in (PAGE_COUNT, SLOT_OFFSET, SLOT_OFFSET + 8, RECORD_OFFSET, RECORD_OFFSET + 8, HOLDER_OFFSET,
                      RING_OFFSET, RING_LENGTH, DATA_OFFSET):
            cases += [{field: u64(value)} for value in (0, 1 << 20, *extremes)
                      if not (field == RING_OFFSET and value == 1 << 20)]
        cases += [{SLOT_OFFSET: self.field(SLOT_OFFSET + 8)}, {RECORD_OFFSET: self.field(RECORD_OFFSET + 8)}]
        cases += [{EPOCH: u64(0)}, {ABSENT_BEFORE: u64(TOP)}, {STATE: u32(2)}, {STATE: u32((1 << 32) - 1)},
                  {BASE_KIND: u32(3)}, {BASE_KIND: u32((1 << 32) - 1)}]
        cases += [{BASE_PATH_LENGTH: u32(value)} for value in (0, 3073, 4096, 1 << 31, (1 << 32) - 1)]
        cases += [{BASE_PATH_LENGTH: u32(3072), BASE_PATH: b"/" + b"a" * 3071}, {BASE_PATH: b"\0"}]
        self.assertGreater(len(cases), 120)
        for edits in cases:
            with self.subTest(edits), self.edited(edits):
                self.fail_in_words("map", "sound.oxb")

    @contextlib.contextmanager
    def edited(self, edits):
        """The layer with those fields in both superblocks, which nobody writes to."""
        head = self.head()
        self.edit("sound.oxb", edits)
        changed = self.head()
        yield
        self.assertEqual(self.head(), changed)
        with open(self.path("sound.oxb"), "r+b") as file:
            os.pwrite(file.fileno(), head, 0)

    def head(self):
        with open(self.path("sound.oxb"), "rb") as file:
            return os.pread(file.fileno(), MIB, 0)

    def field(self, offset):
        with open(self.path("sound.oxb"), "rb") as file:
            return os.pread(file.fileno(), 8, offset)

    def test_what_the_layer_says_of_its_session(self):
        """A path without an end is no way out of the field, and nothing is opened or removed because of it."""
        for state in (0, 1):
            with self.edited({LIVE_PATH: b"/" * 256, STATE: struct.pack("<I", state)}):
                done = self.run_oxbow("check", "sound.oxb")
                self.assertEqual(done.returncode, 1)
                self.assertIn("damage: superblock: live_path: it has no end", done.stdout)
                self.assertIn(self.run_oxbow("map", "sound.oxb").returncode, (0, 1))

    def test_the_command_line(self):
        for args in (("create", "--base", "golden.img", "--size", "16777216T", "new.oxb"),
                     ("create", "--base", "golden.img", "--size", "8388607T", "new.oxb"),
                     ("create", "--base", "golden.img", "--size", str(TOP), "new.oxb"),
                     ("create", "--base", "golden.img", "--size", str(TOP + 1), "new.oxb"),
                     ("create", "--base", "golden.img", "--size", str((1 << 60) + 1), "new.oxb"),
                     ("create", "--base", "golden.img", "--cluster", "8388608T", "new.oxb"),
                     ("serve", "--ram", str(TOP)), ("serve", "--ram", "16777216T"), ("serve", "--ram", "-1"),
                     ("serve", "--file", "golden.img", "--offset", str((1 << 63) - 1)),
                     ("serve", "--file", "golden.img", "--offset", str((1 << 63) - 1), "--length", str((1 << 63) - 1)),
                     ("serve", "--file", "golden.img", "--length", str((1 << 63) - 1)),
                     ("repair", "--drop", str(TOP), "sound.oxb"), ("repair", "--drop", str(TOP + 1), "sound.oxb"),
                     ("repair", "--accept-older", "-1", "sound.oxb")):
            with self.subTest(args):
                self.fail_in_words(*args)
                self.assertFalse(os.path.exists(self.path("new.oxb")))

    def test_tables(self):
        last = TOP // 512
        for line in (f"0 {TOP} zero", f"0 {last + 1} zero", f"0 {TOP + 1} zero", f"0 8 linear golden.img {TOP}",
                     f"0 8 linear golden.img {last}", f"0 {last} linear golden.img {last}",
                     f"0 8 file golden.img {TOP}", f"0 8 file golden.img {TOP - 4095}",
                     f"0 8 cow sound.oxb {TOP}", f"0 8 cow sound.oxb {last}", f"0 8 cow sound.oxb {(1 << 60) // 512}",
                     f"0 {last} cow sound.oxb", f"0 1 zero\n1 {last} zero\n{last + 1} {last} zero"):
            with self.subTest(line):
                self.fail_in_words("serve", "--table", "-", input=line + "\n")

    def test_a_configuration(self):
        for text in (f'ram = "{TOP}"', "ram = 9223372036854775808", "ram = -1", 'ram = "16777216T"',
                     f'file = "golden.img"\noffset = {(1 << 63) - 1}',
                     f'file = "golden.img"\noffset = {(1 << 63) - 1}\nlength = {(1 << 63) - 1}'):
            self.make("vm.toml", f"[[device]]\n{text}\n".encode())
            with self.subTest(text):
                self.fail_in_words("serve", "--config", "vm.toml")


class PrivilegeTest(SecurityTest):
    def modes(self, folder):
        return {name: stat.S_IMODE(os.lstat(os.path.join(folder, name)).st_mode) for name in os.listdir(folder)}

    def test_sockets_are_for_this_user_alone(self):
        before = os.umask(0)
        try:
            server = self.serve("--ram", "1M", "--name", "a", "--nbd", f"unix:{self.path('own.sock')}")
            other = self.serve("--ram", "1M", "--name", "b")
        finally:
            os.umask(before)
        folder = self.path("oxbow")
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
        sockets = {name: mode for name, mode in self.modes(folder).items()
                   if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode)}
        self.assertGreaterEqual(len(sockets), 3)
        self.assertEqual(set(sockets.values()), {0o600}, sockets)
        self.assertEqual(stat.S_IMODE(os.lstat(self.path("own.sock")).st_mode), 0o600)
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(other.stop(), (0, ""))

    def test_a_run_directory_of_another_user_is_refused(self):
        os.mkdir(self.path("oxbow"), 0o700)
        os.chmod(self.path("oxbow"), 0o777)
        self.refuse_matching(1, r"cannot use run directory: \S+/oxbow: others can write to it; chmod go-w takes that "
                                r"away", "serve", "--ram", "1M")

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root, to become somebody else")
    def test_no_privileges_are_needed(self):
        """All of it as a user who may do nothing: make, serve, write, check, repair."""
        folder = self.path("plain")
        os.mkdir(folder)
        shutil.copy(OXBOW, self.path("plain/oxbow.bin"))
        os.chown(folder, 65534, 65534)
        os.chmod(self.folder, 0o755)
        os.chmod(self.path("plain/oxbow.bin"), 0o755)
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--inh-caps=-all",
                     "--bounding-set=-all"]
        environment = dict(self.environment, XDG_RUNTIME_DIR=folder, HOME=folder)

        def run(*args):
            done = subprocess.run([*as_nobody, "./oxbow.bin", *args], cwd=folder, env=environment, text=True,
                                  capture_output=True, timeout=SECONDS, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""), args)
            return done.stdout

        subprocess.run([*as_nobody, "truncate", "-s", "4M", "golden.img"], cwd=folder, check=True)
        run("create", "--base", "golden.img", "--hash", "work.oxb")
        run("serve", "--run", 'qemu-io -f raw -c "write -P 5 0 64k" -c flush "$uri" >/dev/null', "work.oxb")
        self.assertIn("16 data clusters", run("check", "--data", "work.oxb"))
        self.assertEqual(run("repair", "work.oxb"), "nothing to mend\n")


if __name__ == "__main__":
    unittest.main()
