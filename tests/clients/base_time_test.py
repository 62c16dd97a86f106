#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A base whose last change is as old as a power loss makes it: what a layer has recorded of it survives as well."""

import os
import shutil
import signal
import subprocess
import tempfile

from clients import KIB, MIB, main, need, skip, socket_of
from nbd_client import NbdClient
from oxbow_test import CommandTest


def run(*command):
    """A system command's success; what it printed when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"))
    return "" if done.returncode == 0 else f"{' '.join(command)}: {done.stdout}{done.stderr}"


class BaseTime(CommandTest):
    """The base lies on an ext4 of its own, which commits nothing by itself; the layer elsewhere."""

    def setUp(self):
        super().setUp()
        self.mount = tempfile.mkdtemp(prefix="oxbow-base-")
        self.addCleanup(shutil.rmtree, self.mount, ignore_errors=True)
        self.image = self.path("disk.img")
        with open(self.image, "wb") as file:
            file.truncate(64 * MIB)
        failure = run("mkfs.ext4", "-q", self.image) or self.mount_image(self.image)
        if failure:
            self.skipTest("no file system can be mounted here: " + failure)
        self.base = os.path.join(self.mount, "base.img")
        with open(self.base, "wb") as file:
            file.write(os.urandom(4 * MIB))
        os.sync()

    def mount_image(self, image):
        failure = run("mount", "-o", "loop,commit=600", image, self.mount)
        if not failure:
            self.addCleanup(run, "umount", "-l", self.mount)
        return failure

    def lose_power(self):
        """What the file system has written so far is all there is of it."""
        shutil.copyfile(self.image, self.path("found.img"))
        self.assertEqual(run("umount", "-l", self.mount), "")
        self.assertEqual(self.mount_image(self.path("found.img")), "")

    @staticmethod
    def change(server):
        client = NbdClient(socket_of(server.uri))
        client.write(1 * MIB, b"w" * 64 * KIB)
        client.flush()
        client.socket.close()

    def test_a_base_that_was_changed_before_the_layer_was_made(self):
        with open(self.base, "r+b") as file:
            file.write(b"changed" * 1000)
        self.succeed("create", "--base", self.base, "work.oxb")
        server = self.serve("work.oxb")
        self.change(server)
        self.assertEqual(server.stop(signal.SIGKILL)[0], -signal.SIGKILL)
        self.lose_power()
        with open(self.base, "rb") as file:
            self.assertEqual(file.read(7000), b"changed" * 1000)
        self.succeed("map", "work.oxb")

    def test_a_base_that_was_merged_into(self):
        self.succeed("create", "--base", self.base, "work.oxb")
        server = self.serve("work.oxb")
        self.change(server)
        self.assertEqual(server.stop()[0], 0)
        os.sync()
        self.succeed("merge", "--yes", "work.oxb")
        self.lose_power()
        with open(self.base, "rb") as file:
            file.seek(1 * MIB)
            self.assertEqual(file.read(64 * KIB), b"w" * 64 * KIB)
        self.succeed("map", "work.oxb")


if __name__ == "__main__":
    if os.geteuid() != 0:
        skip("file systems are mounted by root alone")
    need("mount", "umount", "mkfs.ext4")
    main()
