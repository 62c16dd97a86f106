#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ends in the middle of work: goodbyes with requests in flight, SIGTERM under load, clients that vanish within a
payload, and requests as large as the protocol allows and larger."""

import contextlib
import os
import random
import struct
import threading
import time

import nbd_client as nbd
from clients import ClientTest, KIB, MIB, THREAD_SANITIZED, main, seed_of

BLOCK = 4 * KIB
SANITIZED = bool(os.environ.get("OXBOW_SANITIZE"))  # then memory that was given back is kept for a while


def block(number, round_):
    """The content of a block: who wrote it, and in which round."""
    return struct.pack(">II", number, round_) * (BLOCK // 8)


class Writer(threading.Thread):
    """A client that keeps many writes in flight, each to a block of its own region, until the server hangs up."""

    def __init__(self, client, first, count, depth):
        super().__init__(daemon=True)
        self.client, self.first, self.count, self.depth = client, first, count, depth
        self.sent = {}
        self.acknowledged = {}  # block: the round of its last acknowledged write
        self.may_be = {}  # block: the rounds that were sent after that
        self.refused = 0
        self.wrong = None

    def run(self):
        try:
            number = 0
            while True:
                while len(self.sent) < self.depth:
                    self.submit(number)
                    number += 1
                self.take()
        except (ConnectionError, BrokenPipeError):
            pass
        except BaseException as error:  # pylint: disable=broad-except  # the main thread shows it
            self.wrong = error

    def submit(self, number):
        where, round_ = self.first + number % self.count, number // self.count
        self.may_be.setdefault(where, set()).add(round_)
        cookie = self.client.submit(nbd.WRITE, where * BLOCK, BLOCK, block(where, round_))
        self.sent[cookie] = (where, round_)

    def take(self):
        cookie, error, _ = self.client.wait()
        where, round_ = self.sent.pop(cookie)
        if error:
            assert error == nbd.ESHUTDOWN, error
            self.refused += 1
            return
        self.acknowledged[where] = round_
        self.may_be[where] = {each for each in self.may_be[where] if each >= round_}

    def lost(self, content):
        """Blocks that hold less than was acknowledged, or what was never sent."""
        wrong = []
        for where, rounds in self.may_be.items():
            found = content[where * BLOCK:(where + 1) * BLOCK]
            if found not in [block(where, each) for each in rounds] and where in self.acknowledged:
                wrong.append((where, self.acknowledged[where], found[:8]))
        return wrong


class SigtermTest(ClientTest):
    SIZE = 16 * MIB

    def under_load(self, *device):
        server = self.serve(*device)
        count = self.SIZE // BLOCK // 4
        # Fewer in flight than blocks: two writes of one block are never in flight together.
        writers = [Writer(self.connect(server), number * count, count, depth) for number, depth in
                   enumerate([1, 16, 64, 200])]
        for each in writers:
            each.start()
        time.sleep(0.7)
        began = time.monotonic()
        self.stop(server)
        self.assertLess(time.monotonic() - began, 20)
        for each in writers:
            each.join(30)
            self.assertFalse(each.is_alive())
            self.assertIsNone(each.wrong)
            self.assertTrue(each.acknowledged)
        return writers

    def assert_nothing_lost(self, writers, content):
        for each in writers:
            self.assertEqual(each.lost(content)[:5], [])

    def test_sigterm_under_load_loses_no_acknowledged_write_of_a_layer(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        writers = self.under_load("work.oxb")
        self.assert_checked("work.oxb")
        server = self.serve("work.oxb", "--read-only")
        self.assert_nothing_lost(writers, self.connect(server).read(0, self.SIZE))
        self.stop(server)

    def test_sigterm_under_load_loses_no_acknowledged_write_of_a_file(self):
        self.make("disk.img", self.SIZE)
        self.assert_nothing_lost(self.under_load("--file", "disk.img"), self.content("disk.img"))

    def test_sigterm_under_load_loses_no_acknowledged_write_past_the_page_cache(self):
        self.make("disk.img", self.SIZE)
        self.assert_nothing_lost(self.under_load("--file", "disk.img", "--direct"), self.content("disk.img"))


class DisconnectTest(ClientTest):
    SIZE = 16 * MIB

    def devices(self):
        self.make("disk.img", self.content("golden.img"))
        self.succeed("create", "--base", "golden.img", "work.oxb")
        for device in (["work.oxb"], ["--file", "disk.img"], ["--file", "disk.img", "--direct"]):
            with self.subTest(device):
                server = self.serve(*device)
                yield server
                self.stop(server)

    def test_everything_before_a_goodbye_is_answered(self):
        for server in self.devices():
            for structured in (False, True):
                client = self.connect(server, structured=structured)
                expected = bytearray(client.read(0, MIB))
                cookies = set()
                for number in range(60):
                    data = bytes([number + 1 + 100 * structured]) * 3000
                    cookies.add(client.submit(nbd.WRITE, number * 3000, 3000, data))
                    expected[number * 3000:(number + 1) * 3000] = data
                    cookies.add(client.submit(nbd.READ, 8 * MIB, 256 * KIB))
                client.socket.sendall(nbd.request(nbd.DISC, 999))
                while cookies:
                    cookie, error, _ = client.wait()
                    self.assertEqual(error, 0)
                    cookies.remove(cookie)
                self.assertEqual(client.socket.recv(1), b"")
                self.assertTrue(self.connect(server).read(0, MIB) == expected)

    def test_nothing_behind_a_goodbye_is_carried_out(self):
        for server in self.devices():
            client = self.connect(server)
            before = client.read(0, 4096)
            client.socket.sendall(nbd.request(nbd.DISC, 1) + nbd.request(nbd.WRITE, 2, 0, 4096) + b"x" * 4096)
            try:
                self.assertEqual(client.socket.recv(1), b"")
            except ConnectionResetError:
                pass  # it did not even read that
            self.assertTrue(self.connect(server).read(0, 4096) == before)


class VanishingTest(ClientTest):
    SIZE = 4 * MIB

    def memory(self, server):
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
            return int(dict(line.split(":", 1) for line in status)["RssAnon"].split()[0]) * KIB

    def test_clients_that_vanish_within_a_payload_tear_no_sector_and_give_memory_back(self):
        chance = random.Random(seed_of("vanishing"))
        self.make("disk.img", self.content("golden.img"))
        self.make("direct.img", self.content("golden.img"))
        self.succeed("create", "--base", "golden.img", "work.oxb")
        for device in (["work.oxb"], ["--file", "disk.img"], ["--file", "direct.img", "--direct"], ["--ram", "4M"]):
            if THREAD_SANITIZED and device[0] == "--ram":
                continue
            with self.subTest(device):
                server = self.serve(*device)
                self.vanish(server, chance, 40)
                memory = self.memory(server)
                self.vanish(server, chance, 160)
                if not SANITIZED:
                    self.assertLess(self.memory(server) - memory, 5 * MIB)
                self.stop(server)
        self.assert_checked("work.oxb")

    def connections(self, server):
        """How many sockets the server has open, those that it listens on included."""
        count = 0
        for each in os.scandir(f"/proc/{server.process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed just now
                count += os.readlink(each.path).startswith("socket:")
        return count

    def wait_for_one_client(self, server):
        """A read beside a write that is being carried out may see parts of both; so let it end."""
        until = time.monotonic() + 20
        while self.connections(server) > self.usual and time.monotonic() < until:
            time.sleep(0.001)
        self.assertLessEqual(self.connections(server), self.usual)

    def vanish(self, server, chance, count):
        observer = self.connect(server)
        observer.read(0, 1)
        self.usual = self.connections(server)
        for number in range(count):
            length = chance.choice([512, 700, 4096, 70000, 300000, MIB])
            at = chance.randrange(self.SIZE - length)
            before = observer.read(at, length)
            new = struct.pack(">I", number) * (length // 4 + 1)
            cut = chance.choice([0, 1, 511, 512, length - 1, chance.randrange(length)])
            client = self.connect(server)
            client.socket.sendall(nbd.request(nbd.WRITE, 1, at, length) + new[:min(cut, length - 1)])
            client.socket.close()
            self.wait_for_one_client(server)
            self.assert_whole_sectors(at, before, new[:length], observer.read(at, length))
            observer.write(at, before)
        observer.disconnect()

    def assert_whole_sectors(self, at, before, new, now):
        """Each sector of the device is old or new; at both ends, what the write covers of it."""
        start = 0
        while start < len(now):
            end = min(start + 512 - (at + start) % 512, len(now))
            self.assertIn(now[start:end], (before[start:end], new[start:end]), f"{at}, {start} to {end}")
            start = end


class LargeTest(ClientTest):
    GIB4 = 4 << 30

    def big_devices(self):
        self.make("big.img", self.GIB4 + 4096)
        self.make("base.img", self.GIB4 + 4096)
        self.succeed("create", "--base", "base.img", "big.oxb")
        for device in (["big.oxb"], ["--file", "big.img"], ["--ram", str(self.GIB4 + 4096)]):
            with self.subTest(device):
                server = self.serve(*device)
                yield server
                self.stop(server)

    def test_zeroes_and_trims_of_4_gib_less_a_byte(self):
        most = self.GIB4 - 1
        for server in self.big_devices():
            client = self.connect(server)
            for change in (client.trim, client.write_zeroes):
                for start in (0, 1, 4097):
                    marks = [0, 4096, MIB + 5, self.GIB4 // 2, self.GIB4 - 2, self.GIB4, self.GIB4 + 4095]
                    for mark in marks:
                        client.write(mark, b"m")
                    change(start, most, flags=nbd.FUA)
                    for mark in marks:
                        inside = start <= mark < start + most
                        # of a trim, clusters at its ends may stay
                        near_end = min(abs(mark - start), abs(start + most - mark)) <= 64 * KIB
                        if change == client.trim and inside and near_end:  # pylint: disable=comparison-with-callable
                            self.assertIn(client.read(mark, 1), (b"m", b"\0"))
                        else:
                            self.assertEqual(client.read(mark, 1), b"\0" if inside else b"m", (start, mark))

    def test_requests_of_4_gib_beyond_the_end_change_nothing(self):
        server = self.serve_layer()
        client = self.connect(server)
        for command, number in [(nbd.TRIM, nbd.EINVAL), (nbd.WRITE_ZEROES, nbd.ENOSPC)]:
            client.submit(command, 0, self.GIB4 - 1)
            self.assertEqual(client.wait()[1], number)
        self.assertTrue(client.read(0, 16 * MIB) == self.content("golden.img")[:16 * MIB])
        self.stop(server)

    def test_a_write_over_the_maximum_is_drained_and_never_taken_for_requests(self):
        """The payload is made of writes: were one of them carried out, its bytes would be there."""
        self.make("disk.img", MIB)
        trap = nbd.request(nbd.WRITE, 666, 0, 4) + b"TRAP"
        for structured in (False, True):
            server = self.serve("--file", "disk.img")
            client = self.connect(server, structured=structured)
            for length in (32 * MIB + 1, 40 * MIB):
                payload = (trap * (length // len(trap) + 1))[:length]
                cookie = client.submit(nbd.WRITE, 0, length, payload)
                answered, error, _ = client.wait()
                self.assertEqual((answered, error), (cookie, nbd.EINVAL))
                self.assertEqual(client.read(0, MIB), bytes(MIB))
            # as much as is allowed, beyond the end: drained in the same way
            cookie = client.submit(nbd.WRITE, MIB - 4, 32 * MIB, (trap * (MIB + 1))[:32 * MIB])
            self.assertEqual(client.wait()[:2], (cookie, nbd.ENOSPC))
            client.write(5, b"fine")
            self.assertEqual(client.read(0, 12), b"\0" * 5 + b"fine" + b"\0" * 3)
            client.write(5, bytes(4))
            self.stop(server)

    def test_a_write_of_the_largest_size_is_carried_out(self):
        self.make("disk.img", 33 * MIB)
        server = self.serve("--file", "disk.img")
        client = self.connect(server)
        data = random.Random(1).randbytes(32 * MIB)
        client.write(4097, data, nbd.FUA)
        self.assertTrue(client.read(4097, 32 * MIB) == data)
        self.stop(server)


if __name__ == "__main__":
    main()
