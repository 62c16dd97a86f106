#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cowdev, cowloop's command that makes block devices, with real ones; and those of the others that take a device."""

import os
import subprocess

from attaching import AttachTest, need_block_devices, SECONDS, TOOLS
from clients import MIB, main
from oxbow_test import OXBOW, SOURCE

HEAD = ("cowdevice    read-only file   copy-on-write file              \n"
        "---------------------------------------------------\n")


class CowdevTest(AttachTest):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("bin"))
        for name in ("oxbow", "cowdev", "cowsync", "cowctl"):
            os.symlink(OXBOW, self.path(f"bin/{name}"))
        self.make("rdo.img", 64 * MIB)
        # As a loop device also where there is ublk, which the tests of the virtual machine have.
        self.environment = dict(self.environment, PATH=self.path("bin") + ":" + TOOLS["PATH"])

    def run_tool(self, *command):
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
                              timeout=SECONDS, check=False)

    def told(self, *command):
        done = self.run_tool(*command)
        self.assertEqual((done.returncode, done.stderr), (0, ""), command)
        return done.stdout

    def activate(self, *more, cowfile="work.cow"):
        path = self.told("cowdev", "-a", "rdo.img", cowfile, *more).rstrip("\n")
        self.assertRegex(path, r"\A/dev/(loop|ublkb)\d+\Z")
        return path

    def row(self, path, cowfile="work.cow"):
        return f"{path:<12} {self.path('rdo.img'):<16} {self.path(cowfile):<32}\n"

    def refused(self, why, *command):
        done = self.run_tool(*command)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (1, "", f"cowdev: {why}\n"))

    def test_a_pair_is_mounted_and_keeps_what_was_written(self):
        self.assertEqual(self.told("cowdev", "-l"), HEAD)
        path = self.activate()
        self.assertEqual(self.told("cowdev", "-l"), HEAD + self.row(path))
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        self.fill()
        self.refused(f"cannot detach device: work: {path} is in use: mounted at {self.mnt}", "cowdev", "-d", path)
        self.told("cowsync", path)
        self.umount()
        self.assertEqual(self.told("cowdev", "-d", path), "")
        self.assertEqual(self.told("cowdev", "-l"), HEAD)
        self.nothing_left()
        with open(self.path("rdo.img"), "rb") as file:
            self.assertEqual(file.read().strip(b"\0"), b"", "the read-only file was written")
        path = self.activate()
        self.mount(path)
        self.compare()
        self.umount()
        self.told("cowdev", "-d", "work.cow")
        self.nothing_left()

    def test_several_with_names(self):
        one = self.activate("/dev/cow/3", cowfile="one.cow")
        two = self.activate("second", cowfile="two.cow")
        self.assertEqual(sorted(self.told("cowdev", "-l").splitlines(True)),
                         sorted((HEAD + self.row(one, "one.cow") + self.row(two, "two.cow")).splitlines(True)))
        self.assertIn("\n3 ", self.succeed("list"))
        self.told("cowctl", "-c", one)
        self.assertIn(f"{one:<12} {'(closed)':<16} {'(closed)':<32}\n", self.told("cowdev", "-l"))
        self.told("cowdev", "-d", two)
        self.told("cowdev", "-d", "3")
        self.nothing_left()

    def test_one_that_is_served_otherwise(self):
        server = self.serve("--cowloop", "rdo.img", "work.cow", "--name", "other")
        self.assertEqual(self.told("cowdev", "-l"), HEAD + self.row("other"))
        self.refused("cannot detach device: other: it is no block device of the kernel's", "cowdev", "-d", "other")
        self.stop(server)

    def test_what_is_refused(self):
        self.refused("no such cowdevice: /dev/cow/0: neither the name of a served pair nor its cowfile; oxbow list "
                     "shows names", "cowdev", "-d", "/dev/cow/0")
        self.activate()
        done = self.run_tool("cowdev", "-a", "rdo.img", "work.cow", "again")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Aoxbow: .*work\.cow: .*in use.*\n\Z")
        done = self.run_tool("cowdev", "-a", "none.img", "new.cow")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Aoxbow: .*none\.img: No such file or directory\n\Z")
        self.assertFalse(os.path.exists(self.path("new.cow")))
        self.told("cowdev", "-d", "work")
        self.nothing_left()

    def test_usage(self):
        usage = self.told("cowdev", "--help")
        for args in ([], ["-l", "x"], ["-a", "rdo.img"], ["-d"], ["-a", "1", "2", "3", "4"], ["-x"]):
            done = self.run_tool("cowdev", *args)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (1, "", usage), args)

    def test_what_the_page_for_newcomers_says(self):
        with open(f"{SOURCE}/docs/cowloop.md", encoding="utf-8") as file:
            rows = file.read().split("<!-- commands: attached -->\n")[1].split("\n\n")[0].splitlines()[2:]
        self.assertEqual(len(rows), 3)
        for column in (1, 2):
            self.make("disk.img", 8 * MIB)
            states = []
            for row in rows:
                self.told("sh", "-c", row.split("|")[column].strip().strip("`"))
                states.append("\nwork " in self.succeed("list"))
            self.assertEqual(states, [True, True, False], column)


if __name__ == "__main__":
    need_block_devices()
    main()
