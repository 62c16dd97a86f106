#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random changes give the same bytes on a layer and on a qcow2 overlay of the same base, and the bytes that a model
has where requests are many and in flight on several connections."""

import os
import random

import nbd_client as nbd
from clients import ClientTest, KIB, MIB, SCALE, main, need, seed_of

LARGEST_CLUSTER = 64 * KIB


class QcowTest(ClientTest):
    OPERATIONS = 800
    ROUNDS = 4

    def operation(self, chance):
        """A command for qemu-io. Discards are of whole clusters: parts of clusters may be left alone."""
        length = chance.choice([512, 4096, chance.randrange(1, 20000), chance.randrange(1, 300000)])
        at = chance.randrange(self.SIZE - length)
        if chance.random() < 0.3:
            at -= at % 4096
        kind = chance.choices(["write", "fua", "zero", "unmap", "discard", "flush"], [60, 5, 10, 10, 10, 5])[0]
        if kind in ("write", "fua"):
            return f"write {'-f ' if kind == 'fua' else ''}-P {chance.randrange(1, 256)} {at} {length}"
        if kind in ("zero", "unmap"):
            return f"write -z {'-u ' if kind == 'unmap' else ''}{at} {length}"
        if kind == "discard":
            at = min(at - at % LARGEST_CLUSTER, self.SIZE // LARGEST_CLUSTER * LARGEST_CLUSTER - 4 * LARGEST_CLUSTER)
            return f"discard {at} {LARGEST_CLUSTER * chance.randrange(1, 5)}"
        return "flush"

    def run_all(self, target, operations, *options):
        args = [word for operation in operations for word in ("-c", operation)]
        output = self.run_client("qemu-io", *options, *args, target)
        self.assertNotRegex(output, "(?i)failed|error")

    def compare_with_qcow2(self, cluster):
        seed = seed_of(f"against qcow2, clusters of {cluster}")
        chance = random.Random(f"{seed} {cluster}")
        self.succeed("create", "--base", "golden.img", "--cluster", cluster, "work.oxb")
        self.run_client("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "golden.img",
                        "-F", "raw", "work.qcow2")
        for _ in range(self.ROUNDS):
            operations = [self.operation(chance) for _ in range(int(self.OPERATIONS * SCALE) // self.ROUNDS)]
            server = self.serve("work.oxb")
            self.run_all(server.uri, operations, "-f", "raw")
            self.run_all("work.qcow2", operations, "-f", "qcow2", "-t", "unsafe")
            self.run_client("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.uri, "work.qcow2")
            self.stop(server)
            self.assert_checked("work.oxb")
        server = self.serve("work.oxb", "--read-only")
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.uri, "work.qcow2")
        self.stop(server)

    def test_clusters_of_4_kib(self):
        self.compare_with_qcow2("4K")

    def test_clusters_of_64_kib(self):
        self.compare_with_qcow2("64K")

    def test_a_difference_is_found(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.run_client("qemu-img", "create", "-q", "-f", "qcow2", "-b", "golden.img", "-F", "raw", "work.qcow2")
        server = self.serve("work.oxb")
        self.run_all(server.uri, ["write -P 7 77777 1"], "-f", "raw")
        with self.assertRaisesRegex(AssertionError, "Content mismatch at offset 77312"):
            self.run_client("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.uri, "work.qcow2")
        self.stop(server)


class InFlightTest(ClientTest):
    """Sixteen requests in flight on each of four connections, each connection in a quarter of its own."""

    SIZE = 8 * MIB
    DEPTH = 16

    def request(self, chance, quarter, busy):
        """A random request that overlaps none in flight; nothing when there is no room."""
        length = chance.choice([1, 512, 4096, chance.randrange(1, 70000)])
        at = quarter + chance.randrange(self.SIZE // 4 - length)
        command = chance.choices([nbd.READ, nbd.WRITE, nbd.WRITE_ZEROES, nbd.TRIM, nbd.FLUSH], [40, 40, 8, 8, 2])[0]
        if command == nbd.TRIM:  # of a whole cluster: parts may be left alone
            at, length = at - at % LARGEST_CLUSTER, LARGEST_CLUSTER
        if any(at < end and start < at + length for start, end in busy.values()):
            return None
        return (command, 0, 0) if command == nbd.FLUSH else (command, at, length)

    def send(self, client, request, chance, state):
        command, at, length = request
        data = chance.randbytes(length) if command == nbd.WRITE else b""
        flags = chance.choice([0, nbd.NO_HOLE, nbd.FUA]) if command == nbd.WRITE_ZEROES else 0
        state["busy"][client.submit(command, at, length, data, flags)] = (at, at + length)
        if command in (nbd.WRITE, nbd.WRITE_ZEROES, nbd.TRIM):
            state["model"][at:at + length] = data or bytes(length)

    def receive(self, client, state):
        cookie, error, data = client.wait()
        self.assertEqual(error, 0)
        start, end = state["busy"].pop(cookie)
        self.assertTrue(not data or data == state["model"][start:end], f"{start} to {end} reads wrong bytes")

    def run_requests(self, server, model, chance, count):
        clients = [self.connect(server) for _ in range(4)]
        states = [{"busy": {}, "model": model} for _ in clients]
        for _ in range(count):
            which = chance.randrange(4)
            client, state = clients[which], states[which]
            while len(state["busy"]) >= self.DEPTH:
                self.receive(client, state)
            if request := self.request(chance, which * self.SIZE // 4, state["busy"]):
                self.send(client, request, chance, state)
        for client, state in zip(clients, states):
            while state["busy"]:
                self.receive(client, state)
        self.assertTrue(clients[0].read(0, self.SIZE) == model, "the device is not what the model is")

    def run_on(self, device, model):
        chance = random.Random(seed_of(f"in flight on {device[0]}"))
        for _ in range(3):
            server = self.serve(*device)
            self.run_requests(server, model, chance, int(3000 * SCALE))
            self.stop(server)
            if device[0] == "--ram":
                return

    def test_a_layer_of_clusters_of_4_kib(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.run_on(["work.oxb"], bytearray(self.content("golden.img")))
        self.assert_checked("work.oxb")

    def test_a_layer_of_clusters_of_64_kib(self):
        self.succeed("create", "--base", "golden.img", "--cluster", "64K", "large.oxb")
        self.run_on(["large.oxb"], bytearray(self.content("golden.img")))
        self.assert_checked("large.oxb")

    def test_a_ram_disk(self):
        self.run_on(["--ram", str(self.SIZE)], bytearray(self.SIZE))

    def test_a_file(self):
        self.make_image(self.path("disk.img"), self.SIZE, seed=5)
        self.run_on(["--file", "disk.img"], bytearray(self.content("disk.img")))

    def test_a_file_past_the_page_cache(self):
        self.make_image(self.path("disk.img"), self.SIZE, seed=6)
        self.run_on(["--file", "disk.img", "--direct"], bytearray(self.content("disk.img")))


class SharedClustersTest(ClientTest):
    """Four connections write to the same fresh clusters at the same time, each to its own quarter of every one."""

    SIZE = 8 * MIB

    def write_all(self, server, model, chance, cluster):
        clients = [self.connect(server) for _ in range(4)]
        places = [at for at in range(0, self.SIZE, cluster) if chance.random() < 0.8]
        chance.shuffle(places)
        for number, at in enumerate(places):
            for client, quarter in chance.sample(list(zip(clients, range(4))), 4):
                start = at + quarter * cluster // 4 + chance.randrange(100)
                data = chance.randbytes(chance.randrange(1, cluster // 4 - 100))
                client.submit(nbd.WRITE, start, len(data), data)
                model[start:start + len(data)] = data
            if number % 4 == 3 or number == len(places) - 1:
                for client in clients:
                    while client.sent:
                        self.assertEqual(client.wait()[1:], (0, b""))
        self.assertTrue(clients[0].read(0, self.SIZE) == model, "the layer is not what the model is")

    def share(self, cluster):
        chance = random.Random(seed_of(f"shared clusters of {cluster} bytes"))
        for number in range(max(3, int(6 * SCALE))):
            model = bytearray(self.content("golden.img"))
            self.succeed("create", "--base", "golden.img", "--cluster", str(cluster), f"{number}.oxb")
            server = self.serve(f"{number}.oxb")
            self.write_all(server, model, chance, cluster)
            self.stop(server)
            self.assert_checked(f"{number}.oxb")
            server = self.serve(f"{number}.oxb", "--read-only")
            self.assertTrue(self.connect(server).read(0, self.SIZE) == model, "the layer has lost bytes")
            self.stop(server)
            os.remove(self.path(f"{number}.oxb"))

    def test_clusters_of_4_kib(self):
        self.share(4 * KIB)

    def test_clusters_of_64_kib(self):
        self.share(64 * KIB)


if __name__ == "__main__":
    need("qemu-img", "qemu-io")
    main()
