#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How a server ends, what it refuses, and that it outlives clients that vanish or send garbage."""

import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import nbd_client as nbd
from clients import ClientTest, MIB, main, need, seed_of, socket_of
from oxbow_test import sha256
from traced import traceable


class DevicesTest(ClientTest):
    def test_a_chain_of_three_layers(self):
        below = "golden.img"
        for number, layer in enumerate(["one.oxb", "two.oxb", "three.oxb"], 1):
            form = [] if number == 1 else ["--base-format", "oxb"]
            self.succeed("create", "--base", below, *form, layer)
            server = self.serve(layer)
            self.qemu_io(server.uri, f"write -P {number} {number}M 1M",
                         f"write -P {16 * number} 8000000 {9000 // number}", f"discard {number + 10}M 64k")
            self.stop(server)
            below = layer
        before = {layer: sha256(self.path(layer)) for layer in ("one.oxb", "two.oxb")}
        server = self.serve("three.oxb")
        self.qemu_io(server.uri, "read -P 1 1M 1M", "read -P 2 2M 1M", "read -P 3 3M 1M", "read -P 48 8000000 3000",
                     "read -P 32 8003000 1500", "read -P 16 8004500 4500", "read -P 0 11M 64k", "read -P 0 12M 64k",
                     "read -P 0 13M 64k", "write -P 9 1500000 4096")
        golden = self.content("golden.img")
        self.assertTrue(self.connect(server).read(4 * MIB, 3 * MIB) == golden[4 * MIB:7 * MIB])
        self.stop(server)
        self.assertEqual({layer: sha256(self.path(layer)) for layer in before}, before)

    def test_a_ram_disk_forgets(self):
        for _ in range(2):
            server = self.serve("--ram", "4M")
            self.qemu_io(server.uri, "read -P 0 0 4M", "write -P 3 0 4M", "read -P 3 0 4M", "discard 1M 1M",
                         "read -P 0 1M 1M")
            self.stop(server)

    def test_a_file_is_written_itself(self):
        self.make("disk.img", 2 * MIB)
        server = self.serve("--file", "disk.img")
        self.qemu_io(server.uri, "write -P 4 1000 1000000", "flush")
        self.stop(server)
        self.assertEqual(self.content("disk.img"), bytes(1000) + b"\4" * 1000000 + bytes(2 * MIB - 1001000))

    def test_a_table_of_a_file_a_layer_and_zeroes(self):
        self.make("disk.img", MIB)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.make("a.table", b"0 2048 file disk.img 0\n2048 2048 cow work.oxb 2048\n4096 2048 zero\n")
        server = self.serve("--table", "a.table")
        self.run_client("nbdcopy", server.uri, "out.img")
        self.assertTrue(self.content("out.img") == bytes(MIB) + self.content("golden.img")[MIB:2 * MIB] + bytes(MIB))
        self.qemu_io(server.uri, "write -P 6 1048000 2000", "read -P 6 1048000 2000")
        self.stop(server)
        self.assertEqual(self.content("disk.img")[-576:], b"\6" * 576)

    def test_a_read_only_server_refuses_every_change(self):
        self.stop(self.serve_layer())
        with self.nothing_written():
            server = self.serve("work.oxb", "--read-only")
            client = self.connect(server)
            self.assertTrue(client.flags & nbd.FLAG_READ_ONLY)
            for change in (lambda: client.write(0, b"x" * 512), lambda: client.write_zeroes(0, 512),
                           lambda: client.trim(0, 4096)):
                with self.assertRaises(nbd.NbdError) as caught:
                    change()
                self.assertEqual(caught.exception.number, 1)  # EPERM
            self.assertTrue(client.read(0, 4096) == self.content("golden.img")[:4096])
            done = subprocess.run(["nbdcopy", "golden.img", server.uri], cwd=self.folder, capture_output=True,
                                  text=True, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("read-only", done.stderr)
            client.disconnect()
            self.stop(server)

    def test_several_servers_of_one_golden_image(self):
        servers = [self.serve_layer(f"work{number}.oxb") for number in range(8)]
        for number, server in enumerate(servers):
            self.qemu_io(server.uri, f"write -P {number + 1} 0 1M")
        for number, server in enumerate(servers):
            self.qemu_io(server.uri, f"read -P {number + 1} 0 1M")
            self.stop(server)


class HolderTest(ClientTest):
    def test_a_second_server_of_a_layer_is_told_who_has_it(self):
        server = self.serve_layer()
        holder = f"process {server.process.pid} on {re.escape(socket.gethostname())} \\([^)]*oxbow[^)]*\\)"
        self.refuse_matching(1, f"cannot open layer: .*work\\.oxb: .*{holder}.*", "serve", "work.oxb", "--name",
                             "second")
        self.qemu_io(server.uri, "write -P 1 0 4k")
        self.stop(server)
        self.stop(self.serve("work.oxb"))

    def test_two_read_only_servers_share_a_layer(self):
        self.stop(self.serve_layer())
        one = self.serve("work.oxb", "--read-only", "--name", "one")
        two = self.serve("work.oxb", "--read-only", "--name", "two")
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", one.uri, two.uri)
        self.stop(one)
        self.stop(two)

    def test_a_socket_in_use_is_refused(self):
        server = self.serve_layer()
        done = self.run_oxbow("serve", "--ram", "1M", "--name", "work")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("work.sock", done.stderr)
        self.qemu_io(server.uri, "read 0 4k")
        self.stop(server)

    def test_a_socket_that_a_killed_server_left_is_taken_over(self):
        server = self.serve_layer()
        server.stop(signal.SIGKILL)
        self.assertTrue(os.path.exists(self.path("oxbow/work.sock")))
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "read 0 4k")
        self.stop(server)
        self.assertFalse(os.path.exists(self.path("oxbow/work.sock")))


class EndTest(ClientTest):
    def test_sigterm_with_clients_connected(self):
        server = self.serve_layer()
        client, idle = self.connect(server), self.connect(server)
        half = socket.socket(socket.AF_UNIX)
        self.addCleanup(half.close)
        half.connect(socket_of(server.uri))
        client.write(MIB, b"unflushed" * 1000)
        began = time.monotonic()
        self.stop(server)
        self.assertLess(time.monotonic() - began, 30)
        for each in (client, idle):
            self.assertEqual(each.socket.recv(1), b"")
        server = self.serve("work.oxb", "--read-only")
        self.assertEqual(self.connect(server).read(MIB, 9000), b"unflushed" * 1000)
        self.stop(server)

    def test_sigterm_while_a_client_copies(self):
        server = self.serve_layer()
        copying = subprocess.Popen(["nbdcopy", "--connections=4", "golden.img", server.uri], cwd=self.folder,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.02)
        self.stop(server)
        copying.wait(timeout=60)
        self.assert_checked("work.oxb")
        self.stop(self.serve("work.oxb"))

    def test_a_flush_that_fails_at_the_end_is_told(self):
        if not shutil.which("strace"):
            self.skipTest("no strace on this machine")
        self.succeed("create", "--base", "golden.img", "work.oxb")
        synced, *ended = self.serve_traced("trace=fdatasync")
        self.assertEqual(ended, [0, ""])
        self.succeed("create", "--base", "golden.img", "other.oxb")
        _, *ended = self.serve_traced(f"inject=fdatasync:error=EIO:when={synced + 1}+", "other.oxb")
        self.assertEqual(ended, [1, "oxbow: cannot close device: other: Input/output error\n"])

    def serve_traced(self, expression, layer="work.oxb"):
        """Serves under strace, writes and ends it: syncs before its end, exit status, errors."""
        log = self.path("strace.log")
        with subprocess.Popen(["strace", "-f", "-o", log, "-e", expression, os.environ["OXBOW"], "serve", layer],
                              cwd=self.folder, env=traceable(self.environment), text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as traced:
            uri = traced.stdout.readline().strip()
            with nbd.NbdClient(socket_of(uri)) as client:
                client.write(0, b"lost" * 1024)
                client.disconnect()
            synced = self.content(log).count(b"fdatasync(")
            with open(f"/proc/{traced.pid}/task/{traced.pid}/children", encoding="ascii") as children:
                os.kill(int(children.read().split()[0]), signal.SIGTERM)
            _, errors = traced.communicate(timeout=60)
        return synced, traced.returncode, errors


class BadClientsTest(ClientTest):
    def assert_serves(self, server, bystander):
        """Those who were there are served on, and so are newcomers."""
        golden = self.content("golden.img")
        self.assertTrue(bystander.read(20 * MIB, 65536) == golden[20 * MIB:20 * MIB + 65536])
        self.assertTrue(self.connect(server).read(21 * MIB, 65536) == golden[21 * MIB:21 * MIB + 65536])

    def raw(self, server):
        """A connection on which nothing was said yet."""
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(30)
        connection.connect(socket_of(server.uri))
        return connection

    def test_clients_killed_in_the_middle_of_a_copy(self):
        self.make_image(self.path("new.img"), 16 * MIB, seed=4)
        server = self.serve_layer()
        bystander = self.connect(server)
        chance = random.Random(seed_of("killed copies"))
        for number in range(10):
            command = ["new.img", server.uri] if number % 2 else [server.uri, "null:"]
            copying = subprocess.Popen(["nbdcopy", "--connections=4", *command], cwd=self.folder,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.005, 0.1))
            copying.kill()
            copying.wait()
            self.assert_serves(server, bystander)
        self.stop(server)
        self.assert_checked("work.oxb")

    def test_clients_that_vanish_in_the_middle_of_a_message(self):
        server = self.serve_layer()
        bystander = self.connect(server)
        write = struct.pack(">IHHQQI", 0x25609513, 0, nbd.WRITE, 1, 0, 100000) + b"v" * 5000
        for length in (1, 4, 27, 28, 29, 4000, len(write)):
            self.connect(server).socket.sendall(write[:length])
        for client in [self.connect(server) for _ in range(5)]:
            for _ in range(50):
                client.submit(nbd.READ, 0, MIB)
            client.socket.close()
        self.raw(server).close()
        half = self.raw(server)
        half.sendall(struct.pack(">IQ", 3, 0x49484156454F5054))
        half.close()
        self.assert_serves(server, bystander)
        self.stop(server)

    def test_garbage_in_the_handshake(self):
        server = self.serve_layer()
        bystander = self.connect(server)
        chance = random.Random(seed_of("garbage in the handshake"))
        with self.unchanged(server):
            for _ in range(50):
                connection = self.raw(server)
                connection.recv(18)
                begin = chance.choice([b"", struct.pack(">I", 3), struct.pack(">IQ", 3, 0x49484156454F5054)])
                self.send_all_or_be_cut_off(connection, begin + chance.randbytes(chance.randrange(1, 3000)))
                connection.close()
        self.assert_serves(server, bystander)
        self.stop(server)

    def test_garbage_among_requests(self):
        server = self.serve_layer()
        bystander = self.connect(server)
        chance = random.Random(seed_of("garbage among requests"))
        with self.unchanged(server):
            for _ in range(50):
                client = self.connect(server)
                garbage = b"\0" + chance.randbytes(chance.randrange(27, 3000))  # 0 begins no request
                self.send_all_or_be_cut_off(client.socket, garbage)
                with self.assertRaises(ConnectionError):
                    client.wait()
        self.assert_serves(server, bystander)
        self.stop(server)

    def send_all_or_be_cut_off(self, connection, data):
        try:
            connection.sendall(data)
        except ConnectionError:
            pass  # the server has already hung up, as it may

    def unchanged(self, server):
        """Fails unless the device has the same bytes afterwards."""
        test = self

        class Unchanged:
            def __enter__(self):
                self.before = test.connect(server).read(0, 16 * MIB)

            def __exit__(self, *_):
                test.assertTrue(test.connect(server).read(0, 16 * MIB) == self.before, "the device was changed")

        return Unchanged()

    def test_requests_beyond_the_end_and_oversized_ones(self):
        server = self.serve_layer()
        bystander = self.connect(server)
        huge = 2 ** 64
        einval, enospc = 22, 28
        cases = [(nbd.READ, self.SIZE, 1), (nbd.READ, self.SIZE - 1, 2), (nbd.READ, huge - 512, 1024),
                 (nbd.READ, huge - 1, 1), (nbd.TRIM, self.SIZE - 1, 2), (nbd.TRIM, huge - 4096, 8192),
                 (nbd.WRITE_ZEROES, self.SIZE, 512), (nbd.WRITE_ZEROES, huge - 1, 2 ** 32 - 1),
                 (nbd.READ, 0, 2 ** 32 - 1), (77, 0, 512)]
        with self.unchanged(server):
            client = self.connect(server)
            for command, offset, length in cases:
                with self.subTest(command=command, offset=offset, length=length):
                    cookie = client.submit(command, offset, length)
                    answered, error, _ = client.wait()
                    self.assertEqual(answered, cookie)
                    self.assertEqual(error, enospc if command == nbd.WRITE_ZEROES else einval)
            for offset in (self.SIZE, self.SIZE - 1, huge - 1, huge - 4096):
                cookie = client.submit(nbd.WRITE, offset, 4096, b"w" * 4096)
                self.assertEqual(client.wait(), (cookie, enospc, b""))
            self.assertEqual(client.read(0, 512), self.content("golden.img")[:512])
        self.assert_serves(server, bystander)
        self.stop(server)


if __name__ == "__main__":
    need("nbdcopy", "qemu-io", "qemu-img")
    main()
