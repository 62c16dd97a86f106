#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Devices whose size is no multiple of a sector, a page or a cluster, down to none at all: their last bytes are read,
written, zeroed, trimmed and mapped like any others; requests of a single byte, past the page cache too."""

import json
import random

import nbd_client as nbd
from clients import ClientTest, KIB, MIB, main, need, seed_of

SIZES = [1, 2, 511, 512, 513, 1000, 4095, 4097, 65535, 65537, MIB + 1, MIB + 511, MIB + 2560, MIB + 4095]


class OddSizesTest(ClientTest):
    SIZE = MIB

    def devices(self, size):
        """Every kind of device of that size: what serves it, and its bytes. Clusters are 4 KiB and 64 KiB."""
        content = random.Random(size).randbytes(size)
        self.make(f"base-{size}.img", content)
        self.make(f"file-{size}.img", content)
        yield ["--ram", str(size)], bytes(size)
        yield ["--file", f"file-{size}.img"], content
        self.make(f"file-{size}.img", content)
        yield ["--file", f"file-{size}.img", "--direct"], content
        for cluster in ("4K", "64K"):
            layer = f"layer-{size}-{cluster}.oxb"
            self.succeed("create", "--base", f"base-{size}.img", "--cluster", cluster, layer)
            yield [layer], content

    def each(self, *sizes):
        """A server of each device, and its bytes; each ends without a complaint."""
        for size in sizes or SIZES:
            for device, content in self.devices(size):
                with self.subTest(device=device):
                    server = self.serve(*device)
                    yield server, bytearray(content)
                    self.stop(server)

    def test_the_last_bytes_are_read(self):
        for server, content in self.each():
            client = self.connect(server)
            size = len(content)
            self.assertEqual(client.size, size)
            self.assertTrue(client.read(0, size) == content)
            for length in (1, 2, 511, 512, 513, 4096, 5000):
                if length <= size:
                    self.assertTrue(client.read(size - length, length) == content[size - length:], length)
            for offset, length in [(size, 1), (size - 1, 2), (0, size + 1)]:
                with self.assertRaises(nbd.NbdError) as caught:
                    client.read(offset, length)
                self.assertEqual(caught.exception.number, nbd.EINVAL)

    def change(self, client, content, chance, command, at, length):
        """Makes one change, to the device and to what it should hold."""
        flags = chance.choice([0, nbd.FUA])
        if command == nbd.WRITE:
            data = chance.randbytes(length)
            client.write(at, data, flags)
            content[at:at + length] = data
        elif command == nbd.WRITE_ZEROES:
            client.write_zeroes(at, length, flags | chance.choice([0, nbd.NO_HOLE]))
            content[at:at + length] = bytes(length)
        else:
            client.trim(at, length, flags)
            found = client.read(at, length)  # each byte stays or becomes zero
            self.assertTrue(all(now in (0, was) for now, was in zip(found, content[at:at + length])))
            content[at:at + length] = found

    def test_the_last_bytes_are_written_zeroed_and_trimmed(self):
        chance = random.Random(seed_of("last bytes"))
        for server, content in self.each():
            client = self.connect(server)
            size = len(content)
            for length in (1, 511, 700, 4097, size):
                for command in (nbd.WRITE, nbd.WRITE_ZEROES, nbd.WRITE, nbd.TRIM):
                    if length <= size:
                        self.change(client, content, chance, command, size - length, length)
                        self.assertTrue(client.read(0, size) == content, (command, length))
            client.flush()
            for change, number in [(lambda: client.write(size, b"x"), nbd.ENOSPC),
                                   (lambda: client.write_zeroes(size - 1, 2), nbd.ENOSPC),
                                   (lambda: client.trim(size, 1), nbd.EINVAL)]:
                with self.assertRaises(nbd.NbdError) as caught:
                    change()
                self.assertEqual(caught.exception.number, number)
            self.assertTrue(client.read(0, size) == content)

    def test_they_are_there_again_after_a_restart(self):
        chance = random.Random(seed_of("restart"))
        for size in (513, 65537, MIB + 511):
            for device, content in self.devices(size):
                if device[0] == "--ram":
                    continue
                with self.subTest(device=device):
                    content = bytearray(content)
                    server = self.serve(*device)
                    client = self.connect(server)
                    for length in (1, 300, 513):
                        self.change(client, content, chance, nbd.WRITE, size - length, length)
                    client.disconnect()
                    self.stop(server)
                    server = self.serve(*device, "--read-only")
                    self.assertTrue(self.connect(server).read(0, size) == content)
                    self.stop(server)
                    if device[0].endswith(".oxb"):
                        self.assert_checked(device[0])

    def test_the_last_bytes_are_mapped(self):
        for server, content in self.each():
            size = len(content)
            client = self.connect(server, structured=True, contexts=(b"base:allocation",))
            at = 0
            while at < size:
                for length, _ in client.block_status(at, size - at)[b"base:allocation"]:
                    at += length
            self.assertEqual(at, size)
            # the last bytes alone: of a block that goes beyond them, as far as they go
            for length in (1, 2, 513):
                if length <= size:
                    found = client.block_status(size - length, length, nbd.REQ_ONE)[b"base:allocation"]
                    self.assertLessEqual(found[0][0], length)
            mapped = json.loads(self.run_client("nbdinfo", "--map", "--json", server.uri))
            self.assertEqual(sum(each["length"] for each in mapped), size)

    def test_clients_see_odd_sizes_whole(self):
        for server, content in self.each(1, 513, MIB + 511):
            self.run_client("nbdcopy", server.uri, "out.img")
            self.assertTrue(self.content("out.img") == content)
            self.make("new.img", bytes(reversed(content)))
            self.run_client("nbdcopy", "new.img", server.uri)
            self.assertTrue(self.connect(server).read(0, len(content)) == bytes(reversed(content)))

    def test_a_device_of_size_0(self):
        self.make("empty.img", b"")
        for device in (["--file", "empty.img"], ["--file", "empty.img", "--read-only"]):
            with self.subTest(device):
                server = self.serve(*device)
                client = self.connect(server, structured=True, contexts=(b"base:allocation",))
                self.assertEqual(client.size, 0)
                for command, number in [(nbd.READ, nbd.EINVAL), (nbd.BLOCK_STATUS, nbd.EINVAL)]:
                    client.submit(command, 0, 1)
                    self.assertEqual(client.wait()[1], number)
                client.submit(nbd.WRITE, 0, 1, b"x")
                self.assertEqual(client.wait()[1], nbd.EPERM if "--read-only" in device else nbd.ENOSPC)
                client.flush()
                self.assertEqual(client.read(0, 0), b"")
                self.assertEqual(self.run_client("nbdinfo", "--size", server.uri), "0\n")
                self.run_client("nbdcopy", server.uri, "out.img")
                self.assertEqual(self.content("out.img"), b"")
                self.stop(server)


class SingleBytesTest(ClientTest):
    SIZE = 64 * KIB + 1001

    def test_a_client_that_asked_for_no_block_sizes_sends_single_bytes(self):
        chance = random.Random(seed_of("single bytes"))
        golden = self.content("golden.img")
        self.make("disk.img", golden)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        for device in (["--file", "disk.img"], ["--file", "disk.img", "--direct"], ["work.oxb"],
                       ["work.oxb", "--direct"], ["--ram", str(self.SIZE)]):
            with self.subTest(device=device):
                server = self.serve(*device)
                client = self.connect(server)
                self.assertIsNone(client.block_sizes)
                content = bytearray(client.read(0, self.SIZE))
                places = [0, 1, 511, 512, 4095, 4096, self.SIZE - 1] + [chance.randrange(self.SIZE) for _ in range(60)]
                for number, at in enumerate(places):
                    self.assertEqual(client.read(at, 1), content[at:at + 1])
                    content[at] = chance.randrange(256) if number % 4 else 0
                    if number % 4:
                        client.write(at, content[at:at + 1], chance.choice([0, nbd.FUA]))
                    else:
                        client.write_zeroes(at, 1, chance.choice([0, nbd.FUA, nbd.NO_HOLE]))
                    client.trim(at, 1)  # a byte is no cluster
                    content[at] = client.read(at, 1)[0]
                client.flush()
                self.assertTrue(client.read(0, self.SIZE) == content)
                self.stop(server)
                server = self.serve(*device, "--read-only")
                if device[0] != "--ram":
                    self.assertTrue(self.connect(server).read(0, self.SIZE) == content)
                self.stop(server)
        self.assert_checked("work.oxb")

    def test_a_client_that_asks_is_told_that_single_bytes_are_fine(self):
        self.make("disk.img", MIB)
        for device in (["--file", "disk.img"], ["--file", "disk.img", "--direct"], ["--ram", "1M"]):
            server = self.serve(*device)
            client = self.connect(server, infos=(nbd.INFO_BLOCK_SIZE,))
            minimum, preferred, maximum = client.block_sizes
            self.assertEqual(minimum, 1)
            self.assertGreaterEqual(preferred, 4096)
            self.assertEqual(preferred & (preferred - 1), 0)
            self.assertGreaterEqual(maximum, 32 * MIB)
            self.stop(server)


if __name__ == "__main__":
    need("nbdinfo", "nbdcopy")
    main()
