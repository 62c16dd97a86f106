#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Servers that are killed with SIGKILL under load, again and again on one layer: with many requests in flight on
several connections, while they open the layer, and twice in a row. What may be there then is known of every sector."""

import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import unittest

import nbd_client as nbd
from clients import ClientTest, KIB, MIB, SCALE, main, seed_of
from oxbow_test import OXBOW

SECTOR = 512
FULL = os.environ.get("OXBOW_TEST_FULL") == "1" and not os.environ.get("OXBOW_SANITIZE")
ROUNDS = max(2, int((100 if FULL else 5) * SCALE))  # of each test
# Whether every write, zero and trim that was answered survives, which takes a live state, or only what a flush or FUA
# covers.
ALL_THAT_WAS_ANSWERED = "--live" in subprocess.run([OXBOW, "serve", "--help"], capture_output=True, text=True,
                                                   check=True).stdout


def content_of(stamp, sector):
    return f"{stamp:15} {sector:15} ".encode() * (SECTOR // 32)


class Change:
    """A write, zero or trim of whole sectors, and what it leaves there."""

    def __init__(self, stamp, command, first, count, flags):
        self.stamp, self.command, self.first, self.count, self.flags = stamp, command, first, count, flags
        self.answered = False

    def sectors(self):
        return range(self.first, self.first + self.count)

    def content(self, sector):
        return content_of(self.stamp, sector) if self.command == nbd.WRITE else bytes(SECTOR)

    def data(self):
        return b"".join(map(self.content, self.sectors())) if self.command == nbd.WRITE else b""


class Oracle:
    """What each sector must or may hold: what is certain to survive, and the changes sent after that."""

    def __init__(self, content):
        self.certain = bytearray(content)
        self.newer = {}  # by sector: changes, oldest first
        self.answered = set()  # changes that were answered and that no flush has covered

    def sent(self, change):
        for sector in change.sectors():
            self.newer.setdefault(sector, []).append(change)

    def was_answered(self, change):
        if change.flags & nbd.FUA or ALL_THAT_WAS_ANSWERED:
            self.survives(change)
        else:
            self.answered.add(change)

    def survives(self, change):
        """Neither what was there before nor an older change may be seen again."""
        for sector in change.sectors():
            changes = self.newer.get(sector, [])
            if change in changes:
                self.certain[sector * SECTOR:(sector + 1) * SECTOR] = change.content(sector)
                self.newer[sector] = changes[changes.index(change) + 1:]

    def flushed(self, covered):
        for change in sorted(covered, key=lambda each: each.stamp):
            self.survives(change)
        self.answered -= covered

    def settle(self, found):
        """Takes what is there now as certain; one sentence for each sector that holds what it must not."""
        wrong = []
        for sector in range(0, len(found) // SECTOR):
            place = slice(sector * SECTOR, (sector + 1) * SECTOR)
            if found[place] == self.certain[place]:
                continue
            if found[place] not in [each.content(sector) for each in self.newer.get(sector, [])]:
                wrong.append(f"sector {sector} holds {found[place][:32]}, not {bytes(self.certain[place][:32])} or one "
                             f"of {[each.stamp for each in self.newer.get(sector, [])]}")
        self.__init__(found)
        return wrong


class Load:
    """Random requests over several connections, none in flight overlapping another, until the server is gone."""

    DEPTH = 8

    def __init__(self, clients, oracle, chance, cluster, stamp):
        self.clients, self.oracle, self.chance = clients, oracle, chance
        self.cluster, self.stamp = cluster // SECTOR, stamp
        self.in_flight = {client: {} for client in clients}  # cookies: a change, or the set that a flush covers
        self.requests = self.refused = 0

    def choose(self):
        """A change that overlaps none in flight, or nothing when there is no room."""
        end = len(self.oracle.certain) // SECTOR
        command, flags = self.chance.choices([(nbd.WRITE, 0), (nbd.WRITE_ZEROES, 0), (nbd.WRITE_ZEROES, nbd.NO_HOLE),
                                              (nbd.TRIM, 0)], [12, 1, 1, 2])[0]
        count = self.chance.choice([1, 2, 7, 8, 9, 16, 33, 64, 128])
        # Half of them meet in an eighth of the device.
        first = self.chance.randrange((end // 8 if self.chance.random() < 0.5 else end) - count)
        if command == nbd.TRIM:  # of whole clusters: parts may be left alone
            first -= first % self.cluster
            count = -(-count // self.cluster) * self.cluster
            count = min(count, (end - first) // self.cluster * self.cluster)
        flags |= nbd.FUA if self.chance.random() < 0.08 else 0
        self.stamp += 1
        change = Change(self.stamp, command, first, count, flags)
        busy = (each for sent in self.in_flight.values() for each in sent.values() if isinstance(each, Change))
        free = count > 0 and all(each.first + each.count <= first or first + count <= each.first for each in busy)
        return change if free else None

    def send(self):
        client = self.chance.choice([each for each in self.clients if len(self.in_flight[each]) < self.DEPTH])
        if self.chance.random() < 0.04:
            self.in_flight[client][client.cookie + 1] = set(self.oracle.answered)
            client.submit(nbd.FLUSH)
        elif change := self.choose():
            self.in_flight[client][client.cookie + 1] = change
            self.oracle.sent(change)
            client.submit(change.command, change.first * SECTOR, change.count * SECTOR, change.data(), change.flags)
        self.requests += 1

    def take(self, client):
        cookie, error, _ = client.wait()
        done = self.in_flight[client].pop(cookie)
        if error == nbd.ESHUTDOWN:  # of a server that ends in peace, which may have begun it
            self.refused += 1
            return
        assert error == 0, f"error {error}"
        if isinstance(done, Change):
            self.oracle.was_answered(done)
        else:
            self.oracle.flushed(done)

    def full(self):
        return all(len(sent) >= self.DEPTH for sent in self.in_flight.values())

    def run(self):
        try:
            while True:
                if not self.full():
                    self.send()
                waiting, _, _ = select.select(self.clients, [], [], 1 if self.full() else 0)
                for client in waiting:
                    self.take(client)
        except (ConnectionError, BrokenPipeError):
            self.take_the_rest()

    def take_the_rest(self):
        """What was answered before the end is answered, also when nobody has read it yet."""
        for client in self.clients:
            try:
                while self.in_flight[client]:
                    self.take(client)
            except (ConnectionError, BrokenPipeError):
                pass


class OracleTest(unittest.TestCase):
    """That the oracle notices what it is there for."""

    def setUp(self):
        self.before = b"b" * 4 * SECTOR
        self.oracle = Oracle(self.before)
        self.change = Change(1, nbd.WRITE, 1, 2, 0)
        self.after = self.before[:SECTOR] + self.change.data() + self.before[3 * SECTOR:]
        self.oracle.sent(self.change)
        self.oracle.was_answered(self.change)

    def test_what_was_flushed_is_missed(self):
        self.oracle.flushed({self.change})
        self.assertEqual(len(self.oracle.settle(self.before)), 2)

    def test_what_was_flushed_is_there(self):
        self.oracle.flushed({self.change})
        self.assertEqual(self.oracle.settle(self.after), [])

    def test_what_was_not_flushed_is_missed_only_if_all_survives(self):
        self.assertEqual(len(self.oracle.settle(self.before)), 2 if ALL_THAT_WAS_ANSWERED else 0)

    def test_what_nobody_wrote_is_noticed(self):
        self.assertEqual(len(self.oracle.settle(self.after[:-1] + b"x")), 1)

    def test_what_is_there_stays(self):
        self.assertEqual(self.oracle.settle(self.after), [])
        self.assertEqual(len(self.oracle.settle(self.before)), 2)


class KillTest(ClientTest):
    SIZE = 8 * MIB + 2560
    number = 0  # of the round

    def options(self, chance):
        return chance.choice([[], [], ["--direct"], ["--threads", "2"]])

    def kill_while_it_opens(self, chance):
        with subprocess.Popen([OXBOW, "serve", "work.oxb"], cwd=self.folder, env=self.environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(chance.uniform(0, 0.05))
            process.kill()

    def look(self, oracle, *options):
        """Serves the layer; what it holds is as promised, and is from now on certain."""
        server = self.serve("work.oxb", *options)
        wrong = oracle.settle(self.connect(server).read(0, self.SIZE))
        self.assertEqual(wrong[:5], [], f"round {self.number}: {len(wrong)} sectors")
        return server

    def round(self, oracle, chance, cluster, stamp):
        if chance.random() < 0.25:
            self.kill_while_it_opens(chance)
        if chance.random() < 0.25:
            self.stop(self.look(oracle, "--read-only"))
        server = self.look(oracle, *self.options(chance))
        load = Load([self.connect(server) for _ in range(4)], oracle, chance, cluster, stamp)
        number = signal.SIGKILL if chance.random() < 0.9 else signal.SIGTERM
        killer = threading.Timer(chance.choice([0.005, 0.05, 0.4]) * chance.random(), server.process.send_signal,
                                 [number])
        killer.start()
        load.run()
        killer.join()
        if number == signal.SIGTERM:
            self.assertEqual(server.stop(0), (0, ""))  # the signal was sent: another one would end it at once
            oracle.flushed(set(oracle.answered))
        else:
            self.assertEqual(server.stop(number), (-signal.SIGKILL, ""))
            self.assertEqual(load.refused, 0)
        for client in load.clients:
            client.socket.close()
        return load

    def kill_again_and_again(self, cluster):
        chance = random.Random(seed_of(f"kills, clusters of {cluster} bytes"))
        oracle = Oracle(self.content("golden.img"))
        self.succeed("create", "--base", "golden.img", "--cluster", str(cluster), "work.oxb")
        stamp = requests = 0
        for self.number in range(ROUNDS):
            load = self.round(oracle, chance, cluster, stamp)
            stamp, requests = load.stamp, requests + load.requests
        self.stop(self.look(oracle))
        self.assert_checked("work.oxb")
        rule = "all that was answered" if ALL_THAT_WAS_ANSWERED else "what was flushed"
        print(f"kills: rounds {ROUNDS}, requests {requests}, {rule} survives", file=sys.stderr)

    def test_clusters_of_4_kib(self):
        self.kill_again_and_again(4 * KIB)

    def test_clusters_of_64_kib(self):
        self.kill_again_and_again(64 * KIB)


class LetGoTest(ClientTest):
    """The kernel lets go of a killed server's files only after the last of its requests: then it is waited for."""

    SIZE = MIB

    def setUp(self):
        super().setUp()
        self.kill_one()

    def kill_one(self):
        server = self.serve_layer()
        self.connect(server).write(0, b"x" * 4096, flags=nbd.FUA)
        server.stop(signal.SIGKILL)
        self.process = server.process

    def hold(self):
        """Locks the layer as a writer does; closing what is returned lets go of it."""
        file = open(self.path("work.oxb"), "r+b")  # pylint: disable=consider-using-with
        self.addCleanup(file.close)
        for _ in range(1000):
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
                return file
            except OSError:
                time.sleep(0.01)
        return self.fail("the killed server's lock stays")

    def test_a_layer_that_is_let_go_of_soon(self):
        for args in (["check", "work.oxb"], ["serve", "work.oxb", "--run", "true"]):
            held = self.hold()
            timer = threading.Timer(0.5, held.close)
            timer.start()
            began = time.monotonic()
            self.succeed(*args)
            self.assertGreater(time.monotonic() - began, 0.4)
            timer.join()
            self.kill_one()

    def test_a_layer_that_somebody_else_keeps_is_refused(self):
        self.hold()
        began = time.monotonic()
        self.refuse_matching(1, "cannot open layer: work\\.oxb: it is in use by another process; last recorded holder: "
                             f"process {self.process.pid} on .*", "serve", "work.oxb")
        self.assertLess(time.monotonic() - began, 20)


if __name__ == "__main__":
    main()
