#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real file systems that fill up and are enlarged, while clients write, flush, read and leave."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

import nbd_client as nbd
from clients import KIB, MIB, main, need, skip, socket_of
from nbd_client import NbdClient
from oxbow_test import CommandTest

ENOSPC = 28
SECONDS = 60
PAUSED = ("device work: paused for lack of room (No space left on device): changes that need room wait for it, and "
          "flushes with them; reads go on")


def run(*command):
    """A system command's success; what it printed when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"))
    return "" if done.returncode == 0 else f"{' '.join(command)}: {done.stdout}{done.stderr}"


class Tmpfs:
    """A tmpfs whose size is changed by mounting it again."""

    def __init__(self, folder):
        self.folder = folder
        self.failure = run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder)

    def enlarge(self):
        return run("mount", "-o", "remount,size=64m", self.folder)

    def remove(self):
        run("umount", "-l", self.folder)


class Ext4:
    """An ext4 on a loop device, most of which a file takes that is removed."""

    def __init__(self, folder):
        self.folder = folder
        self.image = folder + ".img"
        with open(self.image, "wb") as file:
            file.truncate(96 * MIB)
        self.failure = (run("mkfs.ext4", "-q", "-m", "0", self.image) or run("mount", "-o", "loop", self.image, folder))
        if not self.failure:
            space = os.statvfs(folder)
            with open(os.path.join(folder, "ballast"), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - 16 * MIB)

    def enlarge(self):
        os.unlink(os.path.join(self.folder, "ballast"))
        return ""

    def remove(self):
        run("umount", "-l", self.folder)
        os.unlink(self.image)


class FullDisk(CommandTest):
    """What holds on any file system."""

    make_disk = Tmpfs

    def setUp(self):
        super().setUp()
        self.mount = tempfile.mkdtemp(prefix="oxbow-full-")
        self.addCleanup(shutil.rmtree, self.mount, ignore_errors=True)
        self.disk = self.make_disk(self.mount)
        self.addCleanup(self.disk.remove)
        if self.disk.failure:
            self.skipTest("no file system can be mounted here: " + self.disk.failure)
        self.layer = os.path.join(self.mount, "work.oxb")
        self.make("golden.img", 256 * MIB)
        self.succeed("create", "--base", "golden.img", self.layer)

    def connect(self, server):
        client = NbdClient(socket_of(server.uri))
        self.addCleanup(client.socket.close)
        return client

    def status(self):
        return json.loads(self.succeed("status", "--json", "work"))

    def wait_until(self, holds, what):
        until = time.monotonic() + SECONDS
        while not holds(self.status()):
            self.assertLess(time.monotonic(), until, what)
            time.sleep(0.05)

    def fill(self, client, writes=96, first=0):
        """Sends MiBs until the device has paused; how many are on their way or done."""
        sent = {}
        for number in range(writes):
            data = bytes([number + 1]) * MIB
            cookie = client.submit(nbd.WRITE, (first + number) * MIB, MIB, data)
            sent[cookie] = (first + number, data)
            if number % 4 == 3 and self.status()["state"] == "paused":
                return sent
        self.wait_until(lambda status: status["state"] == "paused", "it never filled up")
        return sent

    def answers(self, client, sent):
        """The errors of all that was sent, by cookie."""
        errors = {}
        while len(errors) < len(sent):
            cookie, error, _ = client.wait()
            errors[cookie] = error
        return errors

    def test_what_waits_goes_on_when_the_disk_is_enlarged(self):
        server = self.serve(self.layer)
        writer, flusher, leaver, reader = (self.connect(server) for _ in range(4))
        reader.write(200 * MIB, b"r" * 4096)
        reader.flush()
        sent = self.fill(writer)
        flusher.submit(nbd.FLUSH)
        # More than a connection's requests: nothing more is received from it, and the socket has to hold the rest.
        for number in range(140):
            leaver.submit(nbd.WRITE, 150 * MIB + number * 64 * KIB, 512, b"l" * 512)
        self.wait_until(lambda status: status["paused"]["flushes"] >= 1 and len(status["clients"]) == 4, "the flush")
        paused = self.status()["paused"]
        self.assertEqual(paused["reason"], "No space left on device")
        self.assertGreaterEqual(paused["changes"], 2)
        self.assertRegex(self.succeed("status", "work"),
                         r"state      paused: No space left on device, since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ; "
                         r"\d+ changes and 1 flush wait for room\n")
        self.assertIn("paused", self.succeed("list"))
        self.assertEqual(reader.read(200 * MIB, 4096), b"r" * 4096)
        reader.write(200 * MIB, b"R" * 4096)  # needs no room
        self.assertEqual(reader.read(200 * MIB, 4096), b"R" * 4096)
        leaver.socket.close()
        self.wait_until(lambda status: len(status["clients"]) == 3, "who has left is still there")
        self.assertEqual(self.disk.enlarge(), "")
        self.assertEqual(set(self.answers(writer, sent).values()), {0})
        self.assertEqual(flusher.wait()[1], 0)
        for number, data in sent.values():
            self.assertTrue(reader.read(number * MIB, MIB) == data, number)
        self.assertEqual(self.status()["state"], "writable")
        code, errors = server.stop()
        self.assertEqual(code, 0, errors)
        self.assertEqual(len(errors.splitlines()), 2, errors)
        self.assertIn(PAUSED, errors.splitlines()[0])
        self.assertRegex(errors.splitlines()[1],
                         r"device work: there is room again, and what waited goes on after [0-9.]+ s; \d+ that had "
                         r"waited for it failed$")
        self.succeed("check", self.layer)

    def test_the_end_while_it_is_paused(self):
        server = self.serve(self.layer)
        writer, flusher = self.connect(server), self.connect(server)
        writer.write(200 * MIB, b"w" * 4096)
        sent = self.fill(writer)
        flusher.submit(nbd.FLUSH)
        self.wait_until(lambda status: status["paused"]["flushes"] == 1, "the flush")
        answered = {}
        waiting = threading.Thread(target=lambda: answered.update(self.answers(writer, sent)))
        waiting.start()
        code, errors = server.stop()
        waiting.join()
        self.assertEqual(code, 0, errors)
        self.assertEqual(set(answered.values()), {0, ENOSPC})
        self.assertEqual(flusher.wait()[1], 0)
        self.assertIn(PAUSED, errors)
        self.assertRegex(errors, r"device work: nobody waits for room any more after [0-9.]+ s; \d+ that had waited "
                                 r"for it failed\n$")
        self.succeed("check", self.layer)
        server = self.serve(self.layer, "--read-only")
        reader = self.connect(server)
        for cookie, (number, data) in sent.items():
            if answered[cookie] == 0:
                self.assertTrue(reader.read(number * MIB, MIB) == data, number)
        server.stop()

    def test_discards_make_room(self):
        server = self.serve(self.layer)
        writer, other = self.connect(server), self.connect(server)
        sent = self.fill(writer)
        done = set()
        while len(done) < len(sent):
            other.trim(0, 256 * MIB)
            cookie, error, _ = writer.wait()
            self.assertEqual(error, 0)
            done.add(cookie)
        self.assertEqual(server.stop()[0], 0)

    def test_with_error_writes_fail(self):
        server = self.serve(self.layer, "--on-full", "error")
        writer = self.connect(server)
        sent = {writer.submit(nbd.WRITE, number * MIB, MIB, b"e" * MIB): number for number in range(40)}
        self.assertEqual(set(self.answers(writer, sent).values()), {0, ENOSPC})
        writer.flush()
        self.assertEqual(self.status()["state"], "writable")
        self.assertEqual(server.stop(), (0, ""))
        self.succeed("check", self.layer)

    def test_a_reserve_stays_free(self):
        server = self.serve(self.layer, "--reserve", "8M")
        writer = self.connect(server)
        sent = self.fill(writer)
        time.sleep(1.5)
        space = os.statvfs(self.mount)
        free = space.f_bavail * space.f_frsize
        self.assertGreater(free, 6 * MIB, "what is in flight may go below, and no more")
        self.assertLess(free, 11 * MIB)
        self.assertEqual(self.disk.enlarge(), "")
        self.assertEqual(set(self.answers(writer, sent).values()), {0})
        self.assertEqual(server.stop()[0], 0)

    def test_fio_verifies_what_it_wrote_over_a_pause(self):
        if shutil.which("fio") is None:
            self.skipTest("no fio on this machine")
        server = self.serve(self.layer)
        fio = subprocess.Popen(["fio", "--name=full", "--ioengine=nbd", "--uri=" + server.uri, "--rw=randwrite",
                                "--bs=64k", "--size=40m", "--iodepth=16", "--verify=crc32c", "--fsync=32",
                                "--randseed=4", "--output-format=normal"],
                               cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(fio.stdout.close)
        self.addCleanup(fio.kill)
        self.wait_until(lambda status: status["state"] == "paused" or fio.poll() is not None, "it never filled up")
        self.assertIsNone(fio.poll(), "fio has ended before the disk was full")
        self.assertEqual(self.disk.enlarge(), "")
        output = fio.communicate(timeout=4 * SECONDS)[0]
        self.assertEqual(fio.returncode, 0, output)
        self.assertNotIn("verify failed", output)
        code, errors = server.stop()
        self.assertEqual(code, 0)
        self.assertIn("device work: there is room again, and what waited goes on after ", errors)


class OnExt4(FullDisk):
    make_disk = Ext4


if __name__ == "__main__":
    if os.geteuid() != 0:
        skip("file systems are mounted by root alone")
    need("mount", "umount")
    main()
