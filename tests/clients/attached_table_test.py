#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tables that are replaced under a block device of the kernel's."""

import os
import shutil
import subprocess

from attaching import AttachTest, need_block_devices
from clients import KIB, MIB, main

SECTORS = 64 * MIB // 512


class AttachedTableTest(AttachTest):
    def attach_table(self, text, name="disk"):
        with open(self.path("first.table"), "w", encoding="utf-8") as file:
            file.write(text)
        return self.attach("--table", "first.table", "--name", name)

    def load(self, text):
        self.succeed("table", "disk", "--load", "-", stdin=text)

    def size_of(self, path):
        return int(self.tool("blockdev", "--getsize64", path))

    def test_a_mounted_file_system_moves_to_another_file(self):
        for name in ("a", "b"):
            self.make(name, 64 * MIB)
        path = self.attach_table(f"0 {SECTORS} linear a 0\n")
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        writer = subprocess.Popen(["sh", "-c", "set -e; for n in $(seq 400); do head -c 20000 /dev/urandom >f$n; "
                                   "cp f$n g$n; rm -f f$((n - 40)) g$((n - 40)); sync f$n; done"], cwd=self.mnt)
        self.addCleanup(writer.kill)
        used, other = "a", "b"
        while writer.poll() is None:
            self.succeed("suspend", "disk")
            shutil.copyfile(self.path(used), self.path(other))
            self.load(f"0 {SECTORS} linear {other} 0\n")
            self.succeed("resume", "disk")
            used, other = other, used
        self.assertEqual(writer.returncode, 0)
        for number in range(361, 401):
            self.tool("cmp", f"{self.mnt}/f{number}", f"{self.mnt}/g{number}")
        self.umount()
        self.tool("e2fsck", "-fn", path)
        self.detach("disk")
        self.tool("e2fsck", "-fn", self.path(used))
        self.nothing_left()

    def test_it_grows_and_does_not_shrink(self):
        self.make("a", MIB)
        self.make("b", 4 * MIB)
        path = self.attach_table("0 2048 linear a 0\n")
        self.load("0 8192 linear b 0\n")
        self.succeed("resume", "disk")
        self.assertEqual(self.size_of(path), 4 * MIB)
        file = os.open(path, os.O_RDWR)
        os.pwrite(file, b"n" * 64 * KIB, 3 * MIB)
        os.close(file)
        self.load("0 2048 linear a 0\n")
        why = f"cannot resume device: disk: it would shrink, and is a block device of the kernel's: {path}"
        self.refuse(1, why, "resume", "disk")
        self.assertEqual(self.size_of(path), 4 * MIB)
        self.succeed("table", "disk", "--unload")
        self.succeed("suspend", "disk")
        self.refuse(1, "cannot detach device: disk: it is suspended: resume it first", "detach", "disk")
        self.succeed("resume", "disk")
        self.detach("disk")
        with open(self.path("b"), "rb") as file:
            file.seek(3 * MIB)
            self.assertEqual(file.read(64 * KIB), b"n" * 64 * KIB)
        self.nothing_left()


if __name__ == "__main__":
    need_block_devices()
    main()
