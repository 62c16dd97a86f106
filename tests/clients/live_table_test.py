#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tables that are suspended, replaced and resumed while clients use them: requests wait, none fails, none is lost."""

import json
import os
import random
import select
import signal
import subprocess
import threading
import time

from clients import ClientTest, KIB, MIB, SCALE, main, seed_of, socket_of
from nbd_client import EIO, READ, WRITE, NbdClient, NbdError, request
from oxbow_test import OXBOW

SECTOR = 512
SEGMENT = MIB  # of the devices below, in which segments move from file to file
BLOCK = 4 * KIB


class File:
    """A device that is shown as a file, with the methods of a client."""

    def __init__(self, path):
        self.socket = open(path, "r+b", buffering=0)  # pylint: disable=consider-using-with

    def write(self, offset, data):
        assert os.pwrite(self.socket.fileno(), data, offset) == len(data)

    def write_zeroes(self, offset, length):
        self.write(offset, bytes(length))

    def read(self, offset, length):
        return os.pread(self.socket.fileno(), length, offset)

    def flush(self):
        os.fsync(self.socket.fileno())


class User(threading.Thread):
    """A client that writes, reads back and flushes the blocks of its own, every `count`-th, until it is told to stop;
    what it is answered must be right. `wrong` is what wasn't."""

    def __init__(self, client, number, count, blocks, seed):
        super().__init__()
        self.client = client
        self.random = random.Random(seed + number)
        self.mine = range(number, blocks, count)
        self.model = {}
        self.rounds = 0
        self.wrong = None
        self.ending = threading.Event()
        self.start()

    def step(self):
        at = self.random.choice(self.mine) * BLOCK
        kind = self.random.randrange(8)
        if kind == 0:
            self.model[at] = bytes(BLOCK)
            self.client.write_zeroes(at, BLOCK)
        else:
            self.model[at] = self.random.randbytes(BLOCK)
            self.client.write(at, self.model[at])
        at, data = self.random.choice(list(self.model.items()))
        if self.client.read(at, BLOCK) != data:
            raise AssertionError(f"byte {at} is not what was written")
        if kind == 1:
            self.client.flush()
        self.rounds += 1

    def run(self):
        try:
            while not self.ending.is_set():
                self.step()
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.wrong = error
        finally:
            self.client.socket.close()

    def end(self):
        self.ending.set()
        self.join()
        return self.wrong


class LiveTableTest(ClientTest):
    SIZE = 2 * MIB

    def status(self, name="disk"):
        return json.loads(self.succeed("status", "--json", name))

    def serve_table(self, text, *options):
        self.make("first.table", text.encode())
        return self.serve("--table", "first.table", "--name", "disk", *options)

    def load(self, text, name="disk"):
        self.succeed("table", name, "--load", "-", stdin=text)

    def refuse_load(self, why, text, name="disk"):
        before = self.succeed("table", name)
        self.refuse(1, why, "table", name, "--load", "-", stdin=text)
        self.assertEqual(self.succeed("table", name), before)

    def ask(self, server, path, body):
        """A POST without oxbow's own client."""
        done = subprocess.run(["curl", "-s", "--unix-socket", self.path(f"oxbow/{server.process.pid}.control"), "-H",
                               "Content-Type: application/json", "-d", json.dumps(body),
                               "http://oxbow/v1/devices/" + path], capture_output=True, text=True, check=True)
        error = json.loads(done.stdout).get("error")
        return error and f"{error['what']}: {error['where']}: {error['why']}"

    def let_go(self, client, name="disk"):
        """The client goes, and the server has noticed."""
        client.socket.close()
        until = time.monotonic() + 60
        while self.status(name)["clients"]:
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)

    @staticmethod
    def answers(client, seconds):
        """Whether anything comes within that time."""
        return bool(select.select([client], [], [], seconds)[0])

    def file_content(self, name, at, length):
        with open(self.path(name), "rb") as file:
            file.seek(at)
            return file.read(length)


class MovingTest(LiveTableTest):
    FILES = ("a", "b", "c")
    SLOTS = 4  # of each file
    MOVING = 6  # segments, and one more of a layer, one of zeros, one of errors

    def setUp(self):
        super().setUp()
        for name in self.FILES:
            self.make(name, self.SLOTS * SEGMENT)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.dice = random.Random(seed_of(self.id()))
        slots = [(name, slot) for name in self.FILES for slot in range(self.SLOTS)]
        self.slots = slots
        self.places = self.dice.sample(slots, self.MOVING)

    def table(self, layer="work.oxb"):
        """The table of now, with types of targets that come as the dice fall."""
        sectors = SEGMENT // SECTOR
        lines = []
        for name, slot in self.places:
            bytes_at = slot * SEGMENT
            lines.append(self.dice.choice((f"linear {name} {bytes_at // SECTOR}", f"file {name} {bytes_at}")))
        lines += [f"cow {layer} {sectors}", "zero", "error"]
        return "".join(f"{number * sectors} {sectors} {line}\n" for number, line in enumerate(lines))

    def move(self):
        """Other places for some segments, and their bytes there: nobody else writes to the files."""
        chosen = self.dice.sample(range(self.MOVING), self.dice.randrange(1, self.MOVING + 1))
        contents = {number: self.file_content(self.places[number][0], self.places[number][1] * SEGMENT, SEGMENT)
                    for number in chosen}
        for number in chosen:
            self.places[number] = None
        for number in chosen:
            free = [slot for slot in self.slots if slot not in self.places]
            name, slot = self.places[number] = self.dice.choice(free)
            with open(self.path(name), "r+b") as file:
                file.seek(slot * SEGMENT)
                file.write(contents[number])

    def run_moves(self, server, cycles):
        blocks = (self.MOVING + 1) * SEGMENT // BLOCK
        seed = self.dice.randrange(1 << 30)
        clients = [NbdClient(socket_of(server.uri)) for _ in range(3)]
        if os.path.exists(self.path("disk.img")):
            clients.append(File(self.path("disk.img")))
        users = [User(client, number, len(clients), blocks, seed) for number, client in enumerate(clients)]
        try:
            for cycle in range(cycles):
                time.sleep(0.03)
                if cycle % 3 == 2:
                    self.load(self.table())  # the same places
                else:
                    self.succeed("suspend", "disk")
                    self.assertEqual(self.status()["state"], "suspended")
                    self.move()
                    self.load(self.table())
                self.succeed("resume", "disk")
            time.sleep(0.1)
        finally:
            wrong = [user.end() for user in users]
        self.assertEqual(wrong, [None] * len(users))
        self.assertTrue(all(user.rounds > cycles for user in users), [user.rounds for user in users])
        return {at: data for user in users for at, data in user.model.items()}

    def check(self, server, model):
        with self.connect(server) as client:
            for at, data in model.items():
                self.assertEqual(client.read(at, BLOCK), data, at)
            self.assertEqual(client.read((self.MOVING + 1) * SEGMENT, SEGMENT), bytes(SEGMENT))
            with self.assertRaises(NbdError) as caught:
                client.read((self.MOVING + 2) * SEGMENT, 512)
            self.assertEqual(caught.exception.number, EIO)

    def moves(self, *options):
        options = ("--nbd", "unix:disk.sock", *options)
        server = self.serve_table(self.table(), *options)
        model = self.run_moves(server, max(3, int(30 * SCALE)))
        self.check(server, model)
        self.assertEqual(self.status()["statistics"]["errors"], 1)
        table = self.succeed("table", "disk")
        self.assertEqual(server.stop()[0], 0)
        self.assert_checked("work.oxb")
        server = self.serve_table(table, *options)
        self.check(server, model)
        self.assertEqual(server.stop()[0], 0)

    def test_segments_move_under_clients_that_write(self):
        self.moves()

    def test_the_same_with_a_file_by_fuse(self):
        if os.getuid() != 0 or not os.path.exists("/dev/fuse"):
            self.skipTest("this needs root and /dev/fuse")
        self.moves("--fuse", "disk.img")

    def test_the_same_with_direct_io_and_without_live_states(self):
        self.moves("--direct", "--live", "off")

    def test_a_layer_moves_from_table_to_table_and_is_closed_when_none_has_it(self):
        self.succeed("create", "--base", "golden.img", "other.oxb")
        server = self.serve_table(self.table())
        client, at = self.connect(server), self.MOVING * SEGMENT
        client.write(at, b"first" * 100)
        self.load(self.table("other.oxb"))
        self.assertEqual(client.read(at, 500), b"first" * 100)
        self.succeed("resume", "disk")
        self.assertEqual(client.read(at, 500), self.file_content("golden.img", SEGMENT, 500))
        self.assert_checked("work.oxb")  # clean, and nobody holds a lock on it
        client.write(at, b"second" * 100)
        self.load(self.table())
        self.succeed("resume", "disk")
        self.assert_checked("other.oxb")
        self.assertEqual(client.read(at, 500), b"first" * 100)
        self.stop(server)

    def test_a_device_that_was_no_table_gets_one(self):
        server = self.serve("work.oxb", "--name", "disk")
        client = self.connect(server)
        client.write(5000, b"x" * 5000)
        self.assertEqual(self.succeed("table", "disk"), f"0 4096 cow {self.path('work.oxb')} 0\n")
        self.load("0 2048 cow work.oxb 0\n2048 2048 linear a 0\n4096 2048 cow work.oxb 2048\n")
        self.assertEqual(self.status()["loaded"], "standard input")
        self.succeed("resume", "disk")
        self.assertEqual((self.status()["source"], self.status()["loaded"]), ("--table standard input", None))
        self.assertEqual(client.read(5000, 5000), b"x" * 5000)
        self.assertEqual(client.read(MIB, MIB), bytes(MIB))
        client.write(2 * MIB, b"y" * 512)
        self.refuse(1, "cannot reset device: disk: it is not a layer", "reset", "--yes", "disk")
        self.succeed("reopen-ro", "disk")
        self.assertEqual(client.read(2 * MIB, 512), b"y" * 512)
        self.assertEqual(client.read(5000, 5000), b"x" * 5000)
        self.stop(server)
        self.assert_checked("work.oxb")


class SuspendedTest(LiveTableTest):
    TABLE = "0 2048 linear a 0\n2048 2048 linear b 0\n"

    def setUp(self):
        super().setUp()
        for name in ("a", "b"):
            self.make(name, MIB)

    def test_requests_wait_and_find_the_new_table_with_no_flush_overtaken(self):
        server = self.serve_table(self.TABLE)
        client, other = self.connect(server), self.connect(server)
        client.write(0, b"before" * 512)
        self.succeed("suspend", "disk")
        # Durable already: it is in the file, whatever the clients ask for.
        self.assertEqual(self.file_content("a", 0, 3072), b"before" * 512)
        client.flush()
        write = client.submit(WRITE, 0, 512, b"n" * 512)
        read = other.submit(READ, 1024, 512)
        self.assertFalse(self.answers(client, 0.3))
        self.assertFalse(self.answers(other, 0))
        self.load("0 2048 linear b 0\n2048 2048 linear a 0\n")
        self.assertFalse(self.answers(client, 0.1))
        self.succeed("resume", "disk")
        self.assertEqual(client.wait()[:2], (write, 0))
        client.flush()
        self.assertEqual(other.wait(), (read, 0, bytes(512)))
        self.assertEqual(self.file_content("a", 0, 3072), b"before" * 512)
        self.assertEqual(self.file_content("b", 0, 1024), b"n" * 512 + bytes(512))
        self.assertEqual(client.read(MIB, 3072), b"before" * 512)
        self.stop(server)

    def test_what_was_written_survives_a_kill_while_suspended(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        server = self.serve_table("0 4096 cow work.oxb\n", "--live", "off")
        self.connect(server).write(4096, b"kept" * 1024)
        self.succeed("suspend", "disk")
        self.assertEqual(server.stop(signal.SIGKILL)[0], -signal.SIGKILL)
        server = self.serve("work.oxb", "--live", "off")
        self.assertEqual(self.connect(server).read(4096, 4096), b"kept" * 1024)
        self.assertEqual(server.stop()[0], 0)

    def test_what_it_says_and_does_while_suspended(self):
        server = self.serve_table(self.TABLE)
        self.assertEqual(self.status()["suspended"], None)
        self.succeed("suspend", "disk")
        self.succeed("suspend", "disk")
        status = self.status()
        self.assertEqual(status["state"], "suspended")
        self.assertRegex(status["suspended"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertRegex(self.succeed("status", "disk"), r"(?m)^state +suspended since \S+Z$")
        self.assertRegex(self.succeed("list"), r"(?m)^disk +suspended ")
        self.succeed("sync", "disk")
        first = "it is suspended: resume it first"
        for command, what in ((("reset", "--yes", "disk"), "reset"), (("resize", "disk", "64M"), "resize"),
                              (("clear", "disk"), "clear"), (("close", "disk"), "close"),
                              (("reopen-ro", "disk"), "reopen")):
            self.refuse(1, f"cannot {what} device: disk: {first}", *command)
        late = self.connect(server)  # clients may come
        read = late.submit(READ, 0, 512)
        self.assertFalse(self.answers(late, 0.1))
        self.succeed("resume", "disk")
        self.succeed("resume", "disk")
        self.assertEqual(late.wait(), (read, 0, bytes(512)))
        self.assertEqual(self.status()["state"], "writable")
        self.load(self.TABLE)
        self.assertRegex(self.succeed("status", "disk"), r"(?m)^state +writable; standard input is loaded$")
        self.refuse(1, "cannot reopen device: disk: a table is loaded for it: resume it first, or unload the table",
                    "reopen-ro", "disk")
        self.stop(server)

    def test_a_server_that_is_stopped_while_suspended_answers_those_who_wait(self):
        server = self.serve_table(self.TABLE)
        client = self.connect(server)
        self.succeed("suspend", "disk")
        self.load("0 4096 zero\n")
        write = client.submit(WRITE, 512, 512, b"w" * 512)
        self.assertFalse(self.answers(client, 0.2))
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(client.wait()[:2], (write, 0))
        self.assertEqual(self.file_content("a", 0, 1536), bytes(512) + b"w" * 512 + bytes(512))

    def test_a_device_that_waits_for_room_is_not_suspended(self):
        server = self.serve("--ram", "1M", "--budget", "64K", "--name", "disk")
        client, other = self.connect(server), self.connect(server)
        client.write(0, b"a" * 64 * KIB)
        write = client.submit(WRITE, 512 * KIB, 512, b"b" * 512)
        while self.status()["state"] != "paused":
            time.sleep(0.01)
        self.refuse(1, "cannot suspend device: disk: changes of it wait for room in its budget: discard something "
                    "first", "suspend", "disk")
        other.trim(0, 4096)
        self.assertEqual(client.wait()[:2], (write, 0))
        self.succeed("suspend", "disk")
        read = other.submit(READ, 512 * KIB, 512)
        self.assertFalse(self.answers(other, 0.1))
        self.succeed("resume", "disk")
        self.assertEqual(other.wait(), (read, 0, b"b" * 512))
        self.assertEqual(server.stop()[0], 0)

    def test_a_server_that_is_stopped_while_a_change_waits_for_a_client_ends(self):
        self.need_order_of_clients()
        server = self.serve("--ram", "1M", "--name", "disk")
        client, other = self.connect(server), self.connect(server)
        other.write(0, b"a" * 256 * KIB)
        client.socket.sendall(request(WRITE, 1, 0, 256 * KIB) + b"b" * 128 * KIB)
        while other.read(0, 1) != b"b":
            time.sleep(0.01)
        resize = subprocess.Popen([OXBOW, "resize", "disk", "2M"], env=self.environment, stderr=subprocess.PIPE,
                                  text=True)
        self.addCleanup(resize.kill)
        self.addCleanup(server.process.kill)
        read = other.submit(READ, 512 * KIB, 512)
        while self.answers(other, 0.2):  # until the change has begun
            self.assertEqual(other.wait(), (read, 0, bytes(512)))
            read = other.submit(READ, 512 * KIB, 512)
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(other.wait(), (read, 0, bytes(512)))
        self.assertEqual(resize.communicate(timeout=60)[1], "oxbow: cannot resize device: disk: it is about to end\n")

    def test_a_client_that_ends_no_request_makes_it_fail_in_time(self):
        self.need_order_of_clients()
        server = self.serve("--ram", "1M", "--name", "disk")
        client, other = self.connect(server), self.connect(server)
        other.write(0, b"a" * 256 * KIB)
        client.socket.sendall(request(WRITE, 1, 0, 256 * KIB) + b"b" * 128 * KIB)
        while other.read(0, 1) != b"b":  # it is received right into the disk's memory
            time.sleep(0.01)
        why = ("requests in flight have not ended within 1 s: a client has sent half of a request or takes no answers, "
               "or the storage doesn't answer")
        self.refuse(1, f"cannot suspend device: disk: {why}", "suspend", "disk", "--timeout", "1")
        self.assertEqual(self.status()["state"], "writable")
        other.write(512 * KIB, b"c" * 512)  # the gate is open again
        slow = subprocess.Popen([OXBOW, "suspend", "disk", "--timeout", "60"], env=self.environment,
                                stderr=subprocess.PIPE, text=True)
        self.addCleanup(slow.kill)
        read = other.submit(READ, 512 * KIB, 512)
        while self.answers(other, 0.2):  # until the suspension has begun
            self.assertEqual(other.wait(), (read, 0, b"c" * 512))
            read = other.submit(READ, 512 * KIB, 512)
        self.refuse(1, "cannot resize device: disk: another change of it is under way", "resize", "disk", "2M")
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(other.wait(), (read, 0, b"c" * 512))
        self.assertEqual(slow.communicate(timeout=60)[1], "oxbow: cannot suspend device: disk: it is about to end\n")


class RefusedTest(LiveTableTest):
    def setUp(self):
        super().setUp()
        for name in ("a", "b"):
            self.make(name, MIB)

    def test_tables_that_are_wrong(self):
        server = self.serve_table("0 2048 linear a 0\n")
        client = self.connect(server)
        client.write(0, b"old" * 512)
        self.load("0 2048 linear b 0\n")  # waits, whatever is refused after it
        wrong = {
            "": "standard input: it has no lines",
            "0 2048\n": "standard input line 1: START LENGTH TARGET are needed",
            "0 1024 zero\n1025 1024 zero\n": "standard input line 2: a gap: it starts at 1025, the line before it ends "
                                             "at 1024",
            "# why\n\n0 8 linear a\\ b 0\n": f"standard input line 3: cannot open file: {self.path('a b')}: No such "
                                             "file or directory",
            "0 4096 linear a 0\n": f"standard input line 1: cannot make target linear: {self.path('a')}: File too "
                                   "small: 2097152 bytes are needed from offset 0 on, it has 1048576",
            "0 8 nothing\n": "standard input line 1: cannot make target: nothing: no such type; there are cow, "
                             "cowloop, error, file, linear, packed, zero",
        }
        for text, why in wrong.items():
            self.refuse_load(f"cannot load table: {why}", text)
        self.refuse(1, "cannot open table: missing: No such file or directory", "table", "disk", "--load", "missing")
        self.assertEqual(self.succeed("table", "disk", "--loaded"), f"0 2048 linear {self.path('b')} 0\n")
        self.assertEqual(self.ask(server, "disk/load", {"table": "0 8\n"}),
                         "cannot load table: table line 1: START LENGTH TARGET are needed")
        self.assertEqual(self.ask(server, "disk/load", {"table": 8}),
                         "cannot load table: disk: the body is to have a member table, a text")
        self.assertEqual(self.ask(server, "disk/load", {"table": "", "source": 8}),
                         "cannot load table: disk: the member source is a text")
        self.assertEqual(self.ask(server, "disk/suspend", {"timeout": 0}),
                         "cannot suspend device: disk: the member timeout is a number of seconds, 1 to 86400")
        self.assertEqual(client.read(0, 1536), b"old" * 512)
        self.succeed("resume", "disk")
        self.assertEqual(client.read(0, 1536), bytes(1536))
        self.stop(server)

    def test_files_that_are_used_otherwise(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.succeed("create", "--base", "work.oxb", "--base-format", "oxb", "child.oxb")
        server = self.serve_table("0 2048 cow work.oxb\n")
        first = "cannot load table: standard input line 1: "
        work, child, golden = self.path("work.oxb"), self.path("child.oxb"), self.path("golden.img")
        self.refuse_load(f"{first}cannot open layer: {child}: its base can't be used: cannot open file: {work}: this "
                         "process has it open for writing already", "0 2048 cow child.oxb\n")
        self.refuse_load(f"{first}cannot open file: {golden}: this process has it open for reading only already",
                         "0 2048 linear golden.img 0\n")
        other = self.serve("--file", "a", "--name", "other")
        self.refuse_load(f"{first}cannot open file: {self.path('a')}: it is in use by another process",
                         "0 2048 linear a 0\n")
        self.refuse_load("cannot load table: ram: it is a RAM disk, whose contents would be gone", "0 8 zero\n",
                         self.ram())
        self.load("0 2048 linear b 0\n")
        refused = self.run_oxbow("serve", "--file", "b", "--run", "true")
        self.assertEqual(refused.stderr, "oxbow: cannot open file: b: it is in use by another process\n")
        self.succeed("table", "disk", "--unload")
        self.refuse(1, "cannot unload table: disk: none is loaded", "table", "disk", "--unload")
        self.refuse(1, "cannot show table: disk: none is loaded", "table", "disk", "--loaded")
        self.succeed("serve", "--file", "b", "--run", "true")
        self.succeed("close", "disk")
        self.refuse_load("cannot load table: disk: it is closed", "0 2048 linear b 0\n")
        self.refuse(1, "cannot suspend device: disk: it is closed", "suspend", "disk")
        self.stop(other)
        self.stop(server)

    def ram(self):
        self.serve("--ram", "1M", "--name", "ram")
        self.assertEqual(self.succeed("table", "ram"), "0 2048 ram\n")
        self.assertEqual(self.succeed("table", "ram", "--info"), "0 2048 ram\n")
        return "ram"

    def test_what_would_take_something_from_a_client(self):
        server = self.serve_table("0 2048 linear a 0\n")
        client = self.connect(server)
        who = f"1 client has it open: process {os.getpid()} of user {os.getuid()}"
        busy = "cannot resume device: disk: Device or resource busy, and it is about to"
        self.load("0 2047 linear b 0\n")
        self.refuse(1, f"{busy} shrink: {who}", "resume", "disk")
        self.assertEqual((self.status()["state"], client.read(MIB - 512, 512)), ("writable", bytes(512)))
        self.succeed("suspend", "disk")
        self.refuse(1, f"{busy} shrink: {who}", "resume", "disk")
        self.assertEqual(self.status()["state"], "suspended")
        self.let_go(client)
        self.succeed("resume", "disk")
        self.assertEqual(self.status()["size"], 2047 * 512)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.succeed("pack", "work.oxb", "work.oxp")
        client = self.connect(server)
        self.load("0 4096 packed work.oxp\n")
        self.refuse(1, f"{busy} become read-only: {who}", "resume", "disk")
        self.let_go(client)
        self.succeed("resume", "disk")
        self.assertEqual((self.status()["state"], self.status()["size"]), ("read-only", 2 * MIB))
        self.stop(server)


class GrowingTest(LiveTableTest):
    def grow(self, *options):
        self.make("a", MIB + 512)
        server = self.serve_table("0 2049 linear a 0\n", *options)
        client = self.connect(server)
        client.write(MIB, b"t" * 512)
        self.assertEqual(client.read(0, MIB + 512), bytes(MIB) + b"t" * 512)
        with open(self.path("a"), "r+b") as file:
            file.truncate(4 * MIB)
            file.seek(3 * MIB)
            file.write(b"added")
        self.load("0 8192 linear a 0\n")
        with self.assertRaises(NbdError):
            client.read(3 * MIB, 512)  # not yet
        self.succeed("resume", "disk")
        self.assertEqual(client.read(3 * MIB, 512), b"added" + bytes(507))
        client.write(MIB, b"u" * 4096)
        self.assertEqual(client.read(MIB - 512, 5120), bytes(512) + b"u" * 4096 + bytes(512))
        self.assertEqual(self.connect(server).size, 4 * MIB)
        self.stop(server)
        self.assertEqual(self.file_content("a", MIB - 512, 5120), bytes(512) + b"u" * 4096 + bytes(512))

    def test_a_file_that_has_grown_makes_a_larger_table(self):
        self.grow()

    def test_the_same_with_direct_io(self):
        self.grow("--direct")


if __name__ == "__main__":
    main()
