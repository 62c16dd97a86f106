#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cowsync, cowwatch and cowctl on pairs that are served."""

import os
import random
import signal
import subprocess
import time
import unittest

from cowloop_file import BLOCK, DIRTY, IN_ORDER, Cowfile, device, read_back, readonly
from cowloop_test import CowloopTest
from oxbow_test import SECONDS

SECTOR = 512
SEED = 17
BASE = readonly(100)
NONE = "neither the name of a served pair nor its cowfile; oxbow list shows names"


class CowServedTest(CowloopTest):
    def serve_pair(self, width=8, name="work"):
        """A pair with block 3, served under that name; its cowfile is NAME.cow."""
        self.make("disk.img", BASE)
        self.blocks = {3: b"three".ljust(BLOCK, b".")}
        self.make(f"{name}.cow", Cowfile(BASE, self.blocks, width).file())
        return self.serve("--cowloop", "disk.img", f"{name}.cow", "--name", name)

    def write(self, server, number, byte):
        """A block of that byte."""
        self.qemu_io(server.uri, f"write -P {byte} {number}k 1k")
        self.blocks[number] = bytes([byte]) * BLOCK

    def stored(self, name="work.cow"):
        with open(self.path(name), "rb") as file:
            return file.read()

    def head(self, width=8, **fields):
        """The fields of a head with the present blocks."""
        return Cowfile(BASE, self.blocks, width).head(**fields)[:8 + 6 * width]

    def refuse_tool(self, name, status, text, *args):
        with self.nothing_written():
            self.tool(name, *args, status=status, err=f"{name}: {text}\n")

    def test_what_is_not_served(self):
        for word in ("work", "/dev/cow/0", "work.cow", self.path("work.cow")):
            text = f"no such cowdevice: {word}: {NONE}"
            self.refuse_tool("cowctl", 2, text, "-c", word)
            self.refuse_tool("cowctl", 2, text, "-r", word)
            self.refuse_tool("cowwatch", 2, text, word)
            self.refuse_tool("cowwatch", 2, text, word, "nothing")
            self.refuse_tool("cowsync", 1, text, word)

    def test_nothing_to_sync(self):
        self.tool("cowsync")

    def test_what_is_no_pair(self):
        server = self.serve("--ram", "1M", "--name", "ram")
        text = "cannot use device: ram: it is not a cowloop pair"
        self.refuse_tool("cowctl", 2, text, "-c", "ram")
        self.refuse_tool("cowwatch", 2, text, "ram")
        self.refuse_tool("cowsync", 1, text, "ram")
        self.tool("cowsync")
        self.assertEqual(server.stop(), (0, ""))

    def test_syncing_leaves_a_clean_and_complete_cowfile(self):
        for width in (8, 4):
            for words in ([], ["work"], ["work.cow"], [self.path("work.cow")]):
                server = self.serve_pair(width)
                self.write(server, 70, 7)
                self.assertEqual(self.stored()[:8 + 6 * width], self.head(width, flags=DIRTY, used=IN_ORDER))
                self.tool("cowsync", *words)
                self.assertEqual(self.stored(), Cowfile(BASE, self.blocks, width).whole())
                self.write(server, 71, 8)
                self.assertEqual(self.stored()[:8 + 6 * width], self.head(width, flags=DIRTY, used=IN_ORDER))
                self.assertEqual(server.stop(), (0, ""))
                self.assertEqual(self.stored(), Cowfile(BASE, self.blocks, width).whole())

    def test_syncing_all_pairs(self):
        servers = [self.serve_pair(name=name) for name in ("one", "two", "three")]
        for server in servers:
            self.write(server, 70, 7)
        self.tool("cowsync", "two", "none.cow", "one.cow", status=1,
                  err=f"cowsync: no such cowdevice: none.cow: {NONE}\n")
        sound = Cowfile(BASE, self.blocks).whole()
        self.assertEqual([self.stored(f"{name}.cow") == sound for name in ("one", "two", "three")], [True, True, False])
        self.tool("cowsync")
        self.assertEqual(self.stored("three.cow"), sound)

    def test_closing(self):
        for word in ("work", "work.cow"):
            server = self.serve_pair()
            self.write(server, 70, 7)
            self.tool("cowctl", "-c", word)
            self.assertEqual(self.stored(), Cowfile(BASE, self.blocks).whole())
            # Nobody has it any more.
            held = [os.readlink(f"/proc/{server.process.pid}/fd/{fd}")
                    for fd in os.listdir(f"/proc/{server.process.pid}/fd")]
            self.assertEqual([path for path in held if path.endswith((".cow", ".img"))], [])
            self.assertRegex(self.read(server, 5), "Input/output error")
            self.assertRegex(self.read(server, 70), "Input/output error")
            # Its path still names it, also when there is no file there.
            os.rename(self.path("work.cow"), self.path("away.cow"))
            for again in ("work.cow", self.path("work.cow"), "oxbow/../work.cow", "work"):
                done = self.run_tool("cowctl", "-r", again)
                self.assertEqual((done.returncode, done.stdout), (2, ""), again)
                self.assertRegex(done.stderr, r"\Acowctl: [^\n]*work\.cow: No such file or directory[^\n]*\n\Z")
            self.tool("cowsync")
            os.rename(self.path("away.cow"), self.path("work.cow"))
            self.tool("cowctl", "-r", word)
            self.assertRegex(self.read(server, 70), "read 1024/1024")
            self.assertEqual(server.stop()[0], 0)

    def test_holding_it_for_reading_only(self):
        for word in ("work", "./work.cow"):
            server = self.serve_pair()
            self.write(server, 70, 7)
            self.tool("cowctl", "-r", word)
            self.assertEqual(self.stored(), Cowfile(BASE, self.blocks).whole())
            copied = subprocess.run(["nbdcopy", server.uri, "-"], capture_output=True, check=True, timeout=SECONDS)
            self.assertEqual(copied.stdout, device(BASE, self.blocks))
            with self.nothing_written():
                done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 1k", server.uri], capture_output=True,
                                      text=True, check=False, timeout=SECONDS)
                self.assertRegex(done.stdout + done.stderr, "(?i)permission denied|not permitted")
            self.assertEqual(server.stop(), (0, ""))

    def read(self, server, number):
        """What qemu-io says about reading a block."""
        done = subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", f"read {number}k 1k", server.uri],
                              capture_output=True, text=True, check=False, timeout=SECONDS)
        return done.stdout + done.stderr

    def kib(self):
        """Of the folder's file system: all, and what is available."""
        facts = os.statvfs(self.folder)
        return facts.f_blocks * facts.f_frsize >> 10, facts.f_bavail * facts.f_frsize >> 10

    def watch(self, *args):
        """Runs cowwatch, which prints; returns the numbers."""
        done = self.run_tool("cowwatch", *args)
        self.assertEqual((done.returncode, done.stderr), (0, ""), args)
        self.assertRegex(done.stdout, r"\ATotal: [ \d]{8,}\d Kb\nAvail: [ \d]{8,}\d Kb\n\Z")
        return tuple(int(line.split()[1]) for line in done.stdout.splitlines())

    def test_the_room_of_the_file_system(self):
        self.serve_pair()
        for word in ("work", "work.cow", self.path("work.cow")):
            total, available = self.watch(word)
            self.assertEqual(total, self.kib()[0])
            self.assertLess(abs(available - self.kib()[1]), 2 << 20)
        # Thresholds that are reached already.
        huge = str(1 << 50)
        for threshold in (str(self.kib()[1] + (4 << 20)), huge, " " + huge, "+" + huge, "9" * 23, "0x7fffffffffffffff",
                          "0777777777777777777"):
            self.watch("work", threshold)

    def test_thresholds_that_are_no_numbers(self):
        self.serve_pair()
        for word in ("", " ", "-1", "x", "12k", "0x", "08", "5 ", "1e3"):
            self.tool("cowwatch", "work", word, status=3, err=f"{word}: not a valid numerical value\n")

    def test_waiting_until_it_is_short(self):
        server = self.serve_pair()
        self.run_tool("cowwatch")  # makes the link
        half = str(self.kib()[1] // 2)
        waiting = subprocess.Popen(["cowwatch", "work", half], executable=self.path("bin/cowwatch"), text=True,
                                   env=self.environment, cwd=self.folder, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        time.sleep(1.2)
        self.assertIsNone(waiting.poll())
        self.tool("cowctl", "-c", "work")
        told = waiting.communicate(timeout=SECONDS)
        self.assertEqual((waiting.returncode, *told), (5, "", "cowwatch: cannot watch device: work: it is closed\n"))
        self.tool("cowwatch", "work", status=5, err="cowwatch: cannot watch device: work: it is closed\n")
        self.assertEqual(server.stop(), (0, ""))

    def test_random_writes_are_read_back_as_the_driver_would(self):
        print("seed", SEED)
        random.seed(SEED)
        for width in (8, 4):
            server = self.serve_pair(width)
            content = bytearray(device(BASE, self.blocks))
            for _ in range(8):
                commands = []
                for _ in range(12):
                    start = random.randrange(len(content) // SECTOR)
                    length = random.randint(1, min(9, len(content) // SECTOR - start)) * SECTOR
                    start *= SECTOR
                    byte = random.choice([0, 0, random.randrange(1, 256)])
                    if byte == 0 and random.random() < 0.5:
                        commands.append(f"{random.choice(['write -z', 'write -z -u'])} {start} {length}")
                    else:
                        commands.append(f"write -P {byte} {start} {length}")
                    content[start:start + length] = bytes([byte]) * length
                self.qemu_io(server.uri, *commands)
                self.tool("cowsync", "work.cow")
                self.assertEqual(read_back(self.stored(), BASE, width)[0], bytes(content))
            self.assertEqual(server.stop(), (0, ""))
            read, used = read_back(self.stored(), BASE, width)
            self.assertEqual(read, bytes(content))
            self.assertIn(f"  cowblocks in use: {used:9} (of 1024 bytes)\n",
                          self.run_tool("cowlist", "work.cow").stdout)

    def test_what_a_killed_process_leaves(self):
        for width in (8, 4):
            server = self.serve_pair(width)
            self.write(server, 70, 0)
            self.qemu_io(server.uri, "flush")
            self.assertEqual(server.stop(signal.SIGKILL)[0], -signal.SIGKILL)
            # All that was flushed is in the bitmap, the block of zeros too.
            self.assertEqual(self.stored()[BLOCK:2 * BLOCK], Cowfile(BASE, self.blocks, width).bitmap())
            self.assertIn("  cowblocks in use:         2 (of 1024 bytes)\n",
                          self.run_tool("cowlist", "work.cow").stdout)
            with self.nothing_written():
                self.assertEqual(self.run_tool("cowmerge", "disk.img", "work.cow", stdin="Y").stderr,
                                 "cowfile work.cow is dirty (repair needed)\n")
            again = self.serve("--cowloop", "disk.img", "work.cow", "--name", "again")
            self.assertEqual(again.stop(), (0, ""))
            self.assertEqual(self.stored(), Cowfile(BASE, self.blocks, width).whole())

    def test_a_marked_file_is_listed_with_the_blocks_that_its_bitmap_has(self):
        server = self.serve_pair()
        self.assertIn("     state cowfile:     clean\n", self.run_tool("cowlist", "work.cow").stdout)
        self.write(server, 70, 7)
        listed = self.run_tool("cowlist", "work.cow").stdout
        self.assertIn("     state cowfile:     dirty\n", listed)
        self.assertRegex(listed, r"\n  cowblocks in use:         [12] \(of 1024 bytes\)\n")

    def test_tools_leave_a_served_pair_alone(self):
        self.serve_pair()
        with self.nothing_written():
            for name, args in [("cowrepair", ["-f", "work.cow"]), ("cowmerge", ["disk.img", "work.cow"]),
                               ("cowpack", ["-p", "work.cow", "new.pck"]),
                               ("cowpack", ["-u", "work.pck", "work.cow"])]:
                if "-u" in args:
                    self.make("work.pck", Cowfile(BASE, self.blocks).packed())
                done = self.run_tool(name, *args, stdin="Y\n")
                self.assertEqual((done.returncode, done.stdout), (1, ""), args)
                self.assertRegex(done.stderr, rf"\A{name}: [^\n]*in use[^\n]*\n\Z")
                if "-u" in args:
                    os.remove(self.path("work.pck"))

    def test_usage(self):
        self.check_usage("cowctl", "Usage:\n"
                                   "\t{} -c cowdevice\tclose cowfile related to device\n"
                                   "\t{} -r cowdevice\treopen cowfile read-only\n",
                         [], ["-c"], ["-r"], ["work"], ["-x", "work"], ["-cr", "work"], ["-c", "work", "other"],
                         ["-c", "-r", "work"])
        self.check_usage("cowwatch", "Usage: {} cowdevice [threshold]\n"
                                     "\tWhen a threshold-value is specified, cowwatch\n"
                                     "\tblocks till the available space for the cowfile\n"
                                     "\tdrops below the threshold-value (in Kb).\n", [], ["work", "1", "2"])
        self.check_usage("cowsync", "Usage: {} [cowdevice ...]\n")


if __name__ == "__main__":
    unittest.main()
