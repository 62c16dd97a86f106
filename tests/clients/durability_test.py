#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A server that is killed keeps what a client flushed, on whichever connection, and never mixes or invents bytes."""

import random

import nbd_client as nbd
from clients import ClientTest, KIB, MIB, SCALE, main, seed_of

SECTOR = 512


class KillTest(ClientTest):
    SIZE = 8 * MIB + 2560

    def read_again(self, offset, length):
        server = self.serve("work.oxb")
        data = self.connect(server).read(offset, length)
        self.stop(server)
        self.assert_checked("work.oxb")
        return data


class DurabilityTest(KillTest):
    def test_a_flush_on_one_connection_covers_a_write_on_another(self):
        server = self.serve_layer()
        a, b = self.connect(server), self.connect(server)
        self.assertTrue(a.flags & nbd.FLAG_CAN_MULTI_CONN)
        a.write(MIB + 100, b"A" * 10000)
        b.flush()
        self.kill(server)
        self.assertEqual(self.read_again(MIB + 100, 10000), b"A" * 10000)

    def changed_on_a_flushed_on_b(self, change):
        """What is there after a kill: ten of `change` on connection A, a flush on B, then more on A."""
        server = self.serve_layer()
        a, b = self.connect(server), self.connect(server)
        a.write(MIB, b"o" * MIB)
        a.write(3 * MIB, b"o" * MIB)
        a.flush()
        for number in range(10):
            change(a, MIB + number * 100 * KIB, 50 * KIB)
        b.flush()
        change(a, 3 * MIB, MIB)
        self.kill(server)
        return self.read_again(MIB, MIB)

    def assert_ten_holes(self, data):
        expected = bytearray(b"o" * MIB)
        for number in range(10):
            start = number * 100 * KIB
            expected[start:start + 50 * KIB] = bytes(50 * KIB)
        self.assertTrue(data == expected)

    def test_a_flush_on_one_connection_covers_zeroes_on_another(self):
        self.assert_ten_holes(self.changed_on_a_flushed_on_b(lambda a, at, length: a.write_zeroes(at, length)))

    def test_a_flush_on_one_connection_covers_zeroes_without_a_hole_on_another(self):
        self.assert_ten_holes(self.changed_on_a_flushed_on_b(
            lambda a, at, length: a.write_zeroes(at, length, flags=nbd.NO_HOLE)))

    def test_a_flush_on_one_connection_covers_a_trim_on_another(self):
        # 50 KiB at multiples of 100 KiB from a whole MiB are whole clusters of 4 KiB
        self.succeed("create", "--base", "golden.img", "--cluster", "4K", "work.oxb")
        data = self.changed_on_a_flushed_on_b(lambda a, at, length: a.trim(at, length))
        for number in range(10):
            start = number * 100 * KIB
            inner, end = -start % (4 * KIB), 50 * KIB // (4 * KIB) * (4 * KIB)
            self.assertEqual(data[start + inner:start + end].strip(b"\0"), b"", number)
            self.assertEqual(data[start + 50 * KIB:start + 100 * KIB].strip(b"o"), b"", number)

    def test_a_flush_on_one_connection_covers_a_file_too(self):
        self.make("disk.img", b"o" * MIB)
        server = self.serve("--file", "disk.img")
        a, b = self.connect(server), self.connect(server)
        a.write(1000, b"A" * 5000)
        a.write_zeroes(100 * KIB, 50 * KIB)
        a.trim(200 * KIB, 64 * KIB)
        b.flush()
        self.kill(server)
        content = self.content("disk.img")
        self.assertEqual((content[1000:6000], content[100 * KIB:150 * KIB], content[200 * KIB:264 * KIB]),
                         (b"A" * 5000, bytes(50 * KIB), bytes(64 * KIB)))

    def test_a_write_on_one_connection_is_seen_on_another_at_once(self):
        server = self.serve_layer()
        a, b = self.connect(server), self.connect(server)
        for number in range(200):
            data = bytes([number + 1]) * 5000
            a.write(number * 5000, data)
            self.assertEqual(b.read(number * 5000, 5000), data)
            a, b = b, a
        self.stop(server)

    def test_a_write_with_fua_needs_no_flush(self):
        server = self.serve_layer()
        self.connect(server).write(12345, b"F" * 4097, flags=nbd.FUA)
        self.kill(server)
        self.assertEqual(self.read_again(12345, 4097), b"F" * 4097)

    def test_zeroes_and_trims_with_fua_need_no_flush(self):
        server = self.serve_layer()
        client = self.connect(server)
        client.write(MIB, b"x" * MIB)
        client.flush()
        client.write_zeroes(MIB + 5, 100000, flags=nbd.FUA)
        client.trim(MIB + 512 * KIB, 256 * KIB, flags=nbd.FUA)
        self.kill(server)
        self.assertEqual(self.read_again(MIB, MIB), b"x" * 5 + bytes(100000) + b"x" * (512 * KIB - 100005) +
                         bytes(256 * KIB) + b"x" * (256 * KIB))

    def test_a_killed_servers_layer_is_free_again(self):
        server = self.serve_layer()
        self.connect(server).write(0, b"1" * 4096)
        self.kill(server)
        server = self.serve("work.oxb")
        self.stop(server)

    def test_a_file_keeps_what_was_flushed(self):
        self.make("disk.img", MIB)
        server = self.serve("--file", "disk.img")
        a, b = self.connect(server), self.connect(server)
        a.write(1000, b"A" * 5000)
        b.flush()
        self.kill(server)
        self.assertEqual(self.content("disk.img")[1000:6000], b"A" * 5000)


class Kills:
    """What each sector may hold: its contents since the last flush that was answered, as candidates."""

    def __init__(self, content, chance):
        self.chance = chance
        self.sectors = [{content[at:at + SECTOR]} for at in range(0, len(content), SECTOR)]
        self.latest = [next(iter(each)) for each in self.sectors]
        self.stamp = 0

    def change(self):
        """A random change: command, offset, length, bytes to send, and what the sectors hold afterwards."""
        at = self.chance.randrange(len(self.sectors))
        count = min(self.chance.choice([1, 2, 7, 8, 9, 16, 33, 64]), len(self.sectors) - at)
        command = self.chance.choices([nbd.WRITE, nbd.WRITE_ZEROES, nbd.TRIM], [8, 1, 1])[0]
        after = [bytes(SECTOR)] * count
        if command == nbd.WRITE:
            self.stamp += 1
            after = [f"{self.stamp:15} {number:15} ".encode() * (SECTOR // 32) for number in range(count)]
        data = b"".join(after) if command == nbd.WRITE else b""
        return command, at, count, data, after

    def may(self, at, after):
        for number, content in enumerate(after, at):
            self.sectors[number].add(content)

    def did(self, at, after):
        self.latest[at:at + len(after)] = after

    def flushed(self, touched):
        for number in touched:
            self.sectors[number] = {self.latest[number]}

    def settle(self, content):
        """Takes what is there after a kill as the new truth; returns sectors that hold what nobody wrote there."""
        found = [content[at:at + SECTOR] for at in range(0, len(content), SECTOR)]
        wrong = [number for number, each in enumerate(found) if each not in self.sectors[number]]
        self.latest, self.sectors = found, [{each} for each in found]
        return wrong


class RandomKillsTest(KillTest):
    def after_trim(self, client, model, at, count):
        """What is there after a trim, which may leave parts of a cluster alone: zeros or what was there before."""
        data = client.read(at * SECTOR, count * SECTOR)
        found = [data[start:start + SECTOR] for start in range(0, len(data), SECTOR)]
        for now, before in zip(found, model.latest[at:]):
            self.assertIn(now, (bytes(SECTOR), before))
        return found

    def round(self, model, chance):
        """Random changes over three connections, then SIGKILL with some in flight."""
        server = self.serve("work.oxb")
        clients = [self.connect(server) for _ in range(3)]
        touched = set()
        for _ in range(chance.randrange(150)):
            client = chance.choice(clients)
            if chance.random() < 0.05:
                client.flush()
                model.flushed(touched)
                touched.clear()
                continue
            command, at, count, data, after = model.change()
            fua = chance.random() < 0.05
            model.may(at, after)
            cookie = client.submit(command, at * SECTOR, count * SECTOR, data, nbd.FUA if fua else 0)
            self.assertEqual(client.wait(), (cookie, 0, b""))
            model.did(at, self.after_trim(client, model, at, count) if command == nbd.TRIM else after)
            touched.update(range(at, at + count))
            if fua:
                model.flushed(range(at, at + count))
                touched.difference_update(range(at, at + count))
        for client in clients:
            for _ in range(chance.randrange(5)):
                command, at, count, data, after = model.change()
                model.may(at, after)
                client.submit(command, at * SECTOR, count * SECTOR, data)
        self.kill(server)

    def test_random_changes_and_kills(self):
        chance = random.Random(seed_of("random kills"))
        model = Kills(self.content("golden.img"), chance)
        self.succeed("create", "--base", "golden.img", "--cluster", chance.choice(["4K", "16K", "64K"]), "work.oxb")
        for number in range(max(4, int(10 * SCALE))):
            self.round(model, chance)
            self.assert_checked("work.oxb")
            server = self.serve("work.oxb", "--read-only")
            wrong = model.settle(self.connect(server).read(0, self.SIZE))
            self.stop(server)
            self.assertEqual(wrong[:10], [], f"round {number}: sectors hold what they must not")


if __name__ == "__main__":
    main()
