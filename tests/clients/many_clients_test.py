#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A thousand clients at once, ten thousand one after the other: all are served, and nothing of them stays behind."""

import os
import resource
import socket
import subprocess
import sys
import time

import nbd_client as nbd
from clients import ClientTest, KIB, MIB, main, skip, socket_of
from oxbow_test import Server

CLIENTS = 1000
SANITIZED = bool(os.environ.get("OXBOW_SANITIZE"))  # then memory that was given back is kept for a while
HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

# Reads as fast as it can until its standard input ends; how many bytes it got is its output.
FLOOD = """
import socket, struct, sys, threading
from nbd_client import NbdClient, READ
client = NbdClient(sys.argv[1])
print("ready", flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), client.socket.shutdown(socket.SHUT_RDWR)), daemon=True).start()
got, into = 0, bytearray(1 << 20)
try:
    for _ in range(64):
        client.submit(READ, 0, 1 << 18)
    while True:
        part = client.socket.recv_into(into)
        if part == 0:
            break
        if (got + part) // (1 << 18) > got // (1 << 18):
            client.submit(READ, 0, 1 << 18)
        got += part
except OSError:
    pass
print(got)
"""


class UsualServer(Server):
    """A server that was started with the usual limit of 1024 descriptors."""

    def __init__(self, args, cwd, env):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        try:
            super().__init__(args, cwd, env)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class ManyClientsTest(ClientTest):
    SIZE = 16 * MIB

    def setUp(self):
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def serve(self, *args):
        server = UsualServer(args, self.folder, self.environment)
        self.addCleanup(server.stop)
        self.assertTrue(server.uri)
        return server

    def descriptors(self, server):
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    def memory(self, server):
        """The server's own memory that is in RAM, in bytes; what it maps of files does not count."""
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["RssAnon"].split()[0]) * KIB

    def assert_returns_to(self, server, before):
        """Waits for the server to see that clients have gone."""
        until = time.monotonic() + 20
        while self.descriptors(server) > before and time.monotonic() < until:
            time.sleep(0.02)
        self.assertLessEqual(self.descriptors(server), before)

    def all_at_once(self, server):
        """A thousand clients that write and read all at the same time, each its own sixteen kibibytes."""
        clients = [self.connect(server) for _ in range(CLIENTS)]
        self.assertGreaterEqual(self.descriptors(server), CLIENTS)
        for number, client in enumerate(clients):
            client.submit(nbd.WRITE, number * 16 * KIB, 16 * KIB, number.to_bytes(2, "big") * (8 * KIB))
        for number, client in enumerate(clients):
            self.assertEqual(client.wait(), (1, 0, b""), number)
        for number, client in enumerate(clients):
            client.submit(nbd.READ, number * 16 * KIB, 16 * KIB)
        for number, client in enumerate(clients):
            self.assertTrue(client.wait() == (2, 0, number.to_bytes(2, "big") * (8 * KIB)), number)
        for client in clients:
            client.socket.close()

    def test_a_thousand_clients_at_once_are_all_served_and_leave_nothing(self):
        server = self.serve_layer()
        self.connect(server).disconnect()
        before = self.descriptors(server)
        self.all_at_once(server)
        self.assert_returns_to(server, before)
        after_first = self.memory(server)
        self.all_at_once(server)
        self.assert_returns_to(server, before)
        if not SANITIZED:
            self.assertLess(self.memory(server) - after_first, 4 * MIB)
        self.stop(server)
        self.assert_checked("work.oxb")

    def come_and_go(self, server, count):
        """Clients that leave at every point of a short conversation, in turn."""
        address = socket_of(server.uri)
        hello = (3).to_bytes(4, "big") + (0x49484156454F5054).to_bytes(8, "big") + (7).to_bytes(4, "big") + \
            (6).to_bytes(4, "big") + bytes(6)
        partings = [b"", hello[:9], hello, hello + nbd.request(nbd.READ, 1, 0, 4096),
                    hello + nbd.request(nbd.WRITE, 1, 0, 4096) + bytes(1000),
                    hello + nbd.request(nbd.READ, 1, 0, MIB) * 3]
        for number in range(count):
            if number % 2:
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(address)
                connection.sendall(partings[number // 2 % len(partings)])
                connection.close()
            else:
                client = nbd.NbdClient(address)
                client.disconnect()
                client.socket.close()

    def test_ten_thousand_connects_and_disconnects_leave_nothing(self):
        server = self.serve_layer()
        self.connect(server).disconnect()
        before = self.descriptors(server)
        self.come_and_go(server, 2000)
        self.assert_returns_to(server, before)
        memory = self.memory(server)
        self.come_and_go(server, 8000)
        self.assert_returns_to(server, before)
        if not SANITIZED:
            self.assertLess(self.memory(server) - memory, 2 * MIB)
        self.stop(server)
        self.assert_checked("work.oxb")

    def test_nobody_is_starved_while_others_flood(self):
        server = self.serve("--ram", "16M")
        clients = [self.connect(server) for _ in range(CLIENTS - 4)]
        floods = [self.flood(server) for _ in range(4)]
        longest = 0
        for _ in range(20):
            began = time.monotonic()
            for number, client in enumerate(clients):
                client.submit(nbd.READ, number * 4 * KIB, 4 * KIB)
            for client in clients:
                self.assertEqual(client.wait()[1], 0)
            longest = max(longest, time.monotonic() - began)
        flooded = []
        for each in floods:
            output, errors = each.communicate(timeout=60)
            self.assertEqual((each.returncode, errors), (0, ""))
            flooded.append(int(output))
        print(f"all of {len(clients)} answered within {longest:.2f} s beside {[got // MIB for got in flooded]} MiB",
              file=sys.stderr)
        self.assertLess(longest, 5)
        self.assertGreater(min(flooded), MIB)
        self.stop(server)

    def flood(self, server):
        environment = dict(self.environment, PYTHONPATH=os.path.dirname(os.path.abspath(__file__)))
        process = subprocess.Popen([sys.executable, "-c", FLOOD, socket_of(server.uri)], env=environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process


if __name__ == "__main__":
    if HARD != resource.RLIM_INFINITY and HARD < 4096:
        skip(f"this process may open no more than {HARD} files")
    main()
