#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pairs of cowloop whose read-only file is a block device: a loop device, where this process may make one."""

import shutil
import subprocess
import sys
import unittest

from cowloop_file import BLOCK, Cowfile, device, read_back, readonly
from oxbow_test import CommandTest

BLOCKS = {0: b"\x07" * BLOCK, 9: bytes(BLOCK), 50: b"\x09" * BLOCK}


def attach(path):
    """The name of a loop device over the file; None where there is none to be had."""
    if not shutil.which("losetup"):
        return None
    done = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


class CowfileDeviceTest(CommandTest):
    def loop(self, name, content):
        self.make(name, content)
        found = attach(self.path(name))
        if not found:
            sys.exit(77)
        self.addCleanup(subprocess.run, ["losetup", "--detach", found], check=False)
        return found

    def get(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def test_all_tools(self):
        base = readonly(61) + b"x" * 512  # less than a block
        loop = self.loop("disk", base)
        for width, name in ((8, "cowloop"), (4, "cowloop-32")):
            done = self.run_oxbow("create", "--base", loop, "--format", name, f"{name}.cow")
            self.assertEqual((done.returncode, done.stderr), (
                0, f"oxbow: warning: {loop}: its last 512 bytes are less than a block of 1024 and no part of the "
                "device\n"))
            self.assertEqual(self.get(f"{name}.cow"), Cowfile(base, width=width).file())
        self.make("cow", Cowfile(base, BLOCKS).file())
        self.succeed("check", "--base", loop, "--data", "cow")
        self.succeed("convert", "--base", loop, "cow", "made.oxb")
        self.succeed("convert", "made.oxb", "again")
        self.assertEqual(self.get("again"), self.get("cow"))
        self.succeed("merge", "--base", loop, "--yes", "cow")
        with open(loop, "rb") as file:
            merged = file.read()
        self.assertEqual(merged, device(base, BLOCKS) + b"x" * 512)
        self.assertEqual(read_back(self.get("cow"), merged, 8), (merged[:61 * BLOCK], 0))

    def test_a_cowfile_is_no_block_device(self):
        base = readonly(61)
        self.make("rdo", base)
        loop = self.loop("cow", Cowfile(base, BLOCKS).whole().ljust(128 << 10, b"\0"))
        why = "it is a block device, and a cowfile is a regular file"
        for what, args in (("cannot check cowfile", ("check", loop)), ("cannot show cowfile", ("info", loop)),
                           ("cannot repair cowfile", ("repair", "--force", loop)),
                           ("cannot merge cowfile", ("merge", "--base", "rdo", "--yes", loop)),
                           ("cannot pack cowfile", ("pack", loop, "out")),
                           ("cannot convert cowfile", ("convert", "--base", "rdo", loop, "out"))):
            with self.nothing_written():
                self.refuse(1, f"{what}: {loop}: {why}", *args)


if __name__ == "__main__":
    unittest.main()
