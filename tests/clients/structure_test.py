#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Layers that are reset, resized, merged, closed and reopened, many of them while clients use them."""

import json
import os
import pty
import random
import shutil
import subprocess
import threading
import time

import clients
from nbd_client import EIO, EPERM, NbdClient, NbdError
from oxbow_test import OXBOW, sha256

KIB, MIB = 1 << 10, 1 << 20


class Load:
    """A client that writes, reads back and flushes its own part of a device until it is told to stop; what it is
    answered must be right, and no answer may be an error unless `errors` says so."""

    def __init__(self, path, number, errors=()):
        self.client = NbdClient(path)
        self.random = random.Random(number)
        self.base = number * 4 * MIB
        self.errors = errors
        self.model = {}
        self.flushes = 0
        self.failed = 0
        self.wrong = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def step(self):
        at = self.base + self.random.randrange(256) * 4 * KIB
        data = self.random.randbytes(4 * KIB)
        self.client.write(at, data)
        self.model[at] = data
        at, data = self.random.choice(list(self.model.items()))
        if self.client.read(at, len(data)) != data:
            raise AssertionError(f"byte {at} is not what was written")
        if self.random.random() < 0.1:
            self.client.flush()
            self.flushes += 1

    def run(self):
        try:
            while not self.stop.is_set():
                try:
                    self.step()
                except NbdError as error:
                    self.failed += 1
                    if error.number not in self.errors:
                        raise
                    time.sleep(0.01)
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.wrong = error

    def end(self):
        self.stop.set()
        self.thread.join()
        self.client.socket.close()
        return self.wrong


class StructureTest(clients.ClientTest):
    def setUp(self):
        super().setUp()
        shutil.copy(self.golden, self.path("base.img"))

    def make_layer(self, *options, name="work.oxb", base="base.img"):
        self.succeed("create", "--base", base, *options, name)

    def serve_work(self, *options):
        return self.serve("work.oxb", "--name", "work", *options)

    def loads(self, server, count=3, **how):
        path = clients.socket_of(server.uri)
        return [Load(path, number, **how) for number in range(count)]

    def state(self):
        return json.loads(self.succeed("status", "--json", "work"))

    def test_resizing_while_clients_write_loses_and_fails_nothing(self):
        self.make_layer()
        server = self.serve_work()
        loads = self.loads(server)
        try:
            for step in range(1, 9):
                time.sleep(0.05)
                self.succeed("resize", "work", str(self.SIZE + step * MIB))
        finally:
            wrong = [load.end() for load in loads]
        self.assertEqual(wrong, [None] * 3)
        self.assertGreater(sum(load.flushes for load in loads), 0)
        with self.connect(server) as client:
            self.assertEqual(client.size, self.SIZE + 8 * MIB)
            self.assertEqual(client.read(self.SIZE, 8 * MIB), bytes(8 * MIB))
            client.write(self.SIZE + 7 * MIB, b"n" * 4096)
            for load in loads:
                for at, data in load.model.items():
                    self.assertEqual(client.read(at, len(data)), data)
        self.stop(server)
        self.assert_checked("work.oxb")

    def test_a_client_may_use_what_a_device_has_grown_by(self):
        self.make_layer()
        server = self.serve_work()
        client = self.connect(server)
        self.succeed("resize", "work", str(self.SIZE + MIB))
        client.write(self.SIZE + 4096, b"x" * 512)
        self.assertEqual(client.read(self.SIZE, 8192), bytes(4096) + b"x" * 512 + bytes(3584))
        self.stop(server)

    def test_what_resize_refuses(self):
        self.make_layer()
        why = f"cannot resize layer: work.oxb: it has {self.SIZE} bytes and never shrinks, so not to 4096"
        self.refuse(1, why, "resize", "work.oxb", "4K")
        most = 16 << 40
        self.refuse(1, f"cannot resize layer: work.oxb: {most + 1} bytes are more than its max_size, {most}, which was "
                    "chosen when it was made", "resize", "work.oxb", str(most + 1))
        self.succeed("resize", "work.oxb", str(self.SIZE + MIB))
        self.assertEqual(json.loads(self.succeed("info", "--json", "work.oxb"))["size"], self.SIZE + MIB)
        server = self.serve_work()
        why = f"cannot resize layer: work.oxb: it has {self.SIZE + MIB} bytes and never shrinks, so not to 4096"
        self.refuse(1, why, "resize", "work", "4K")
        with self.connect(server) as client:
            client.write(0, b"still there" * 10)
        self.stop(server)
        image = self.serve("--file", "golden.img", "--read-only", "--name", "image")
        self.refuse(1, "cannot resize device: image: it is not a layer", "resize", "image", "64M")
        self.stop(image)
        self.refuse(1, "no such device: nothing: nobody serves it in "
                    f"{self.run_directory()}; oxbow list shows what is there, and there is no file of that name",
                    "resize", "nothing", "2M")

    def run_directory(self):
        return os.path.join(self.environment["XDG_RUNTIME_DIR"], "oxbow")

    def test_reset_while_clients_are_there_shows_the_base_again(self):
        self.make_layer()
        server = self.serve_work()
        client = self.connect(server)
        with open(self.golden, "rb") as file:
            golden = file.read()
        for at in range(0, 8 * MIB, 256 * KIB):
            client.write(at, b"w" * 64 * KIB)
        client.flush()
        self.assertNotEqual(client.read(0, MIB), golden[:MIB])
        before = os.stat(self.path("work.oxb")).st_blocks
        self.refuse(1, "cannot reset: work: nobody can be asked whether it may be: --yes", "reset", "work")
        self.succeed("reset", "--yes", "work")
        self.assertLess(os.stat(self.path("work.oxb")).st_blocks, before)
        self.assertEqual(client.read(0, 8 * MIB), golden[:8 * MIB])
        client.write(4096, b"n" * 512)
        client.flush()
        self.assertEqual(client.read(4096, 1024), b"n" * 512 + golden[4608:5120])
        self.stop(server)
        self.assert_checked("work.oxb")
        self.succeed("reset", "--yes", "work.oxb")
        server = self.serve_work()
        self.assertEqual(self.connect(server).read(0, MIB), golden[:MIB])
        self.stop(server)

    def test_requests_during_resets_are_answered(self):
        self.make_layer()
        server = self.serve_work()
        path = clients.socket_of(server.uri)
        stop, errors = threading.Event(), []

        def use(number):
            with NbdClient(path) as client:
                bytes_of = random.Random(number)
                while not stop.is_set():
                    try:
                        client.write(bytes_of.randrange(4096) * 4096, bytes_of.randbytes(4096))
                        client.read(bytes_of.randrange(4096) * 4096, 4096)
                        client.flush()
                    except NbdError as error:
                        errors.append(error)
                        return

        users = [threading.Thread(target=use, args=(number,)) for number in range(3)]
        for user in users:
            user.start()
        for _ in range(8):
            self.succeed("reset", "--yes", "work")
        stop.set()
        for user in users:
            user.join()
        self.assertEqual(errors, [])
        self.stop(server)
        self.assert_checked("work.oxb")

    def test_closing_keeps_what_was_written_and_lets_go_of_the_files(self):
        self.make_layer()
        server = self.serve_work()
        loads = self.loads(server, errors=(EIO,))
        time.sleep(0.2)
        self.succeed("close", "work")
        self.assertEqual([load.end() for load in loads], [None] * 3)
        open_files = [os.readlink(f"/proc/{server.process.pid}/fd/{fd}")
                      for fd in os.listdir(f"/proc/{server.process.pid}/fd")]
        self.assertEqual([name for name in open_files if name.startswith(self.folder)
                          and name.endswith((".oxb", ".img"))], [])
        self.assertEqual(self.state()["state"], "closed")
        self.assertIn("state      closed\n", self.succeed("status", "work"))
        client = self.connect(server)
        for call in (lambda: client.read(0, 512), lambda: client.write(0, bytes(512))):
            with self.assertRaises(NbdError) as caught:
                call()
            self.assertEqual(caught.exception.number, EIO)
        client.flush()  # there is nothing that isn't durable
        self.succeed("close", "work")
        self.refuse(1, "cannot reset device: work: it is closed", "reset", "--yes", "work")
        self.assert_checked("work.oxb")  # nobody holds a lock on it
        self.succeed("reopen-ro", "work")
        self.assertEqual(self.state()["state"], "read-only")
        for load in loads:
            for at, data in load.model.items():
                self.assertEqual(client.read(at, len(data)), data)
        self.stop(server)

    def test_reopening_read_only(self):
        self.make_layer()
        server = self.serve_work()
        client = self.connect(server)
        client.write(0, b"kept" * 128)
        self.succeed("reopen-ro", "work")
        self.assertEqual(client.read(0, 512), b"kept" * 128)
        with self.assertRaises(NbdError) as caught:
            client.write(0, bytes(512))
        self.assertEqual(caught.exception.number, EPERM)
        for fd in os.listdir(f"/proc/{server.process.pid}/fd"):
            if os.readlink(f"/proc/{server.process.pid}/fd/{fd}") == self.path("work.oxb"):
                with open(f"/proc/{server.process.pid}/fdinfo/{fd}", encoding="ascii") as info:
                    flags = next(line for line in info if line.startswith("flags:"))
                self.assertEqual(int(flags.split()[1], 8) & os.O_ACCMODE, os.O_RDONLY)
        self.refuse(1, "cannot resize device: work: it is read-only", "resize", "work", "64M")
        self.assertEqual(json.loads(self.succeed("info", "--json", "work.oxb"))["state"], "clean")
        self.stop(server)

    def test_files_that_are_gone_leave_a_device_that_says_why(self):
        self.make_layer()
        server = self.serve_work()
        client = self.connect(server)
        client.write(0, b"kept" * 128)
        self.succeed("close", "work")
        os.rename(self.path("work.oxb"), self.path("elsewhere.oxb"))
        why = ("it could not be opened again: cannot open file: " + self.path("work.oxb") +
               ": No such file or directory")
        self.refuse(1, "cannot reopen device: work: " + why, "reopen-ro", "work")
        self.assertEqual((self.state()["state"], self.state()["failure"]), ("failed", why))
        with self.assertRaises(NbdError) as caught:
            client.read(0, 512)
        self.assertEqual(caught.exception.number, EIO)
        os.rename(self.path("elsewhere.oxb"), self.path("work.oxb"))
        self.succeed("reopen-ro", "work")
        self.assertEqual(client.read(0, 512), b"kept" * 128)
        self.stop(server)

    def test_watching_the_room(self):
        self.make_layer()
        server = self.serve_work()
        told = json.loads(self.succeed("watch", "--json", "work"))
        room = os.statvfs(self.path("work.oxb"))
        self.assertEqual(told["total"], room.f_blocks * room.f_frsize)
        self.assertEqual((told["name"], told["store"]), ("work", self.path("work.oxb")))
        self.assertRegex(self.succeed("watch", "work"), r"\Atotal +\S+ \(\d+ bytes\)\navailable +\S+ \(\d+ bytes\)\n\Z")
        self.succeed("watch", "--below", str(room.f_blocks * room.f_frsize), "work")
        with subprocess.Popen([OXBOW, "watch", "--below", "1", "work"], cwd=self.folder, env=self.environment,
                              stderr=subprocess.PIPE, text=True) as waiting:
            with self.assertRaises(subprocess.TimeoutExpired):
                waiting.wait(0.7)
            self.succeed("close", "work")
            self.assertEqual(waiting.wait(60), 1)
            self.assertEqual(waiting.stderr.read(), "oxbow: cannot watch device: work: it is closed\n")
        self.stop(server)

    def merged(self):
        """What the device in work.oxb reads as."""
        server = self.serve_work("--read-only")
        with self.connect(server) as client:
            content = b"".join(client.read(at, min(MIB, client.size - at)) for at in range(0, client.size, MIB))
        self.stop(server)
        return content

    def write_to(self, layer):
        server = self.serve(layer, "--name", "work")
        bytes_of = random.Random(7)
        with self.connect(server) as client:
            for _ in range(200):
                client.write(bytes_of.randrange(client.size // 512 - 64) * 512,
                             bytes_of.randbytes(bytes_of.randrange(1, 64) * 512))
            client.write_zeroes(5 * MIB, MIB)
            client.trim(9 * MIB, MIB)
            client.write(client.size - 700, b"e" * 700)
        self.stop(server)

    def test_merging_into_a_raw_base(self):
        self.make_layer()
        self.write_to("work.oxb")
        content = self.merged()
        why = "cannot merge layer: work.oxb: nobody can be asked whether it may be: --yes"
        self.refuse(1, why, "merge", "work.oxb")
        self.assertEqual(sha256(self.path("base.img")), self.digest)
        self.succeed("merge", "--yes", "work.oxb")
        self.assertEqual(self.content("base.img"), content)
        self.assertEqual(self.merged(), content)
        told = json.loads(self.succeed("info", "--json", "work.oxb"))
        self.assertEqual((told["data_clusters"], told["zero_clusters"]), (0, 0))
        self.assert_checked("work.oxb")

    def test_merging_into_a_shorter_raw_base_extends_it(self):
        self.make_layer("--size", "40M")
        self.write_to("work.oxb")
        content = self.merged()
        self.succeed("merge", "--yes", "work.oxb")
        self.assertEqual(self.content("base.img"), content)
        self.assertEqual(self.merged(), content)

    def test_merging_into_a_layer(self):
        self.make_layer(name="lower.oxb")
        self.write_to("lower.oxb")
        self.make_layer("--base-format", "oxb", name="work.oxb", base="lower.oxb")
        self.make_layer("--base-format", "oxb", name="other.oxb", base="lower.oxb")
        self.write_to("work.oxb")
        content = self.merged()
        self.succeed("merge", "--yes", "work.oxb")
        self.assertEqual(sha256(self.path("base.img")), self.digest)
        self.assertEqual(self.merged(), content)
        os.rename(self.path("lower.oxb"), self.path("moved.oxb"))
        os.rename(self.path("work.oxb"), self.path("upper.oxb"))
        os.rename(self.path("moved.oxb"), self.path("work.oxb"))
        self.assertEqual(self.merged(), content)
        os.rename(self.path("work.oxb"), self.path("lower.oxb"))
        why = r".*: the base was written after the layer was made over it: epoch 2 then, 3 now"
        self.refuse_matching(1, why, "map", "other.oxb")

    def test_a_merge_that_is_killed_is_resumed_by_a_merge_alone(self):
        self.make_layer()
        server = self.serve("work.oxb", "--name", "work")
        with self.connect(server) as client:
            for at in range(0, 32 * MIB, MIB):
                client.write(at, random.Random(at).randbytes(MIB))
        self.stop(server)
        content = self.merged()
        refused = False
        for delay in (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05):
            with subprocess.Popen([OXBOW, "merge", "--yes", "work.oxb"], cwd=self.folder, env=self.environment,
                                  stderr=subprocess.DEVNULL) as merging:
                time.sleep(delay)
                merging.kill()
            done = self.run_oxbow("map", "work.oxb")
            if done.returncode == 0:
                continue
            refused = True
            why = "a merge into its base was begun and is not finished: resume it with oxbow merge"
            self.assertEqual(done.stderr, f"oxbow: cannot open layer: work.oxb: {why}\n")
            self.refuse(1, f"cannot reset layer: work.oxb: {why}", "reset", "--yes", "work.oxb")
        self.succeed("merge", "--yes", "work.oxb")
        print(f"a merge was cut off: {refused}")
        self.assertEqual(self.content("base.img"), content)
        self.assertEqual(self.merged(), content)

    def test_what_merge_refuses(self):
        self.make_layer()
        self.make_layer(name="other.oxb")
        server = self.serve("other.oxb", "--name", "other")
        why = f"its base {self.path('base.img')} can't be merged into: it is in use by another process"
        self.refuse(1, f"cannot merge layer: work.oxb: {why}", "merge", "--yes", "work.oxb")
        self.refuse_matching(1, r"cannot open layer: other.oxb: it is in use by process \d+ on .*", "merge", "--yes",
                             "other.oxb")
        self.stop(server)
        with open(self.path("base.img"), "r+b") as file:
            file.write(b"changed")
        self.refuse_matching(1, ".*: samples of both differ", "merge", "--yes", "work.oxb")

    def test_merge_asks_on_a_terminal(self):
        self.make_layer()
        self.write_to("work.oxb")
        content = self.merged()
        for answer, status in ((b"n\n", 1), (b"\n", 1), (b"y\n", 0)):
            ours, theirs = pty.openpty()
            with subprocess.Popen([OXBOW, "merge", "work.oxb"], cwd=self.folder, env=self.environment, stdin=theirs,
                                  stderr=subprocess.PIPE, text=True) as asking:
                os.write(ours, answer)
                told = asking.stderr.read()
                self.assertEqual(asking.wait(60), status, told)
            os.close(ours)
            os.close(theirs)
            self.assertIn(f"into its base {self.path('base.img')} (raw, ", told)
            self.assertIn("Other layers over this base", told)
            self.assertIn("Go on? [y/N] ", told)
            self.assertEqual(self.content("base.img") == content, status == 0)
            if status != 0:
                self.assertIn("cannot merge layer: work.oxb: it was not agreed to", told)


if __name__ == "__main__":
    clients.main()
