#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve under a service manager: sockets that it passes on, and what it is told."""

import os
import signal
import socket
import subprocess
import unittest

from oxbow_test import CommandTest, OXBOW, SECONDS

# Starts "$@" as the process that LISTEN_PID names.
AS_LISTENER = 'export LISTEN_PID=$$; exec "$@"'


class ActivationTest(CommandTest):
    def listening(self, path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.bind(self.path(path))
        sock.listen(5)
        return sock

    def tcp(self, host):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.bind((host, 0))
        sock.listen(5)
        return sock

    def start(self, sockets, *args, command=AS_LISTENER, **environment):
        """The process with the sockets as its descriptors from 3 on."""
        moved = [os.dup(each.fileno()) for each in sockets]

        def place():
            high = [os.dup2(fd, 100 + i, inheritable=False) for i, fd in enumerate(moved)]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i, inheritable=True)

        values = dict(self.environment, LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES="a:b", **environment)
        process = subprocess.Popen(["sh", "-c", command, "sh", OXBOW, "serve", *args], cwd=self.folder, env=values,
                                   text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=place,
                                   close_fds=False)
        for fd in moved:
            os.close(fd)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def end(self, process):
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=SECONDS)
        return process.returncode, *output

    def refused(self, sockets, *args, **more):
        process = self.start(sockets, *args, **more)
        output, errors = process.communicate(timeout=SECONDS)
        self.assertEqual((process.returncode, output), (1, ""))
        return errors

    def test_passed_sockets_are_served_and_stay(self):
        one, two = self.listening("one"), self.listening("two")
        loopback = self.tcp("127.0.0.1")
        process = self.start([one, two, loopback], "--ram", "1M")
        uris = [process.stdout.readline().strip() for _ in range(3)]
        self.assertEqual(uris, [f"nbd+unix:///?socket={self.folder}/one", f"nbd+unix:///?socket={self.folder}/two",
                                f"nbd://127.0.0.1:{loopback.getsockname()[1]}/"])
        self.qemu_io(uris[0], "write -P 4 0 4k")
        self.qemu_io(uris[1], "read -P 4 0 4k")
        self.qemu_io(uris[2], "read -P 4 0 4k")
        self.assertEqual(self.end(process), (0, "", ""))
        self.assertTrue(os.path.exists(self.path("one")) and os.path.exists(self.path("two")))

    def test_a_connection_from_before_the_start_is_served(self):
        waiting = self.listening("one")
        client = subprocess.Popen(["nbdinfo", "--size", f"nbd+unix:///?socket={self.folder}/one"],
                                  stdout=subprocess.PIPE, text=True)
        process = self.start([waiting], "--ram", "1M")
        self.assertEqual(client.communicate(timeout=SECONDS)[0], f"{1 << 20}\n")
        self.assertEqual(self.end(process)[0], 0)

    def test_a_command_sees_nothing_of_it(self):
        process = self.start([self.listening("one")], "--ram", "1M", "--run",
                             "env | grep -E '^(LISTEN|NOTIFY)'; ls -l /proc/self/fd | grep -cE 'socket|anon|memfd'; "
                             "echo $uri")
        output, errors = process.communicate(timeout=SECONDS)
        self.assertEqual((process.returncode, output, errors), (0, f"0\nnbd+unix:///?socket={self.folder}/one\n", ""))

    def test_what_is_passed_to_another_process_is_not_ours(self):
        process = self.start([self.listening("one")], "--ram", "1M", command='export LISTEN_PID=1; exec "$@"')
        self.assertEqual(process.stdout.readline().strip(), f"nbd+unix:///?socket={self.folder}/oxbow/ram.sock")
        self.assertEqual(self.end(process), (0, "", ""))

    def test_what_is_no_listening_stream_socket(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            self.assertEqual(self.refused([datagrams], "--ram", "1M"),
                             "oxbow: cannot listen: descriptor 3: it is not a stream socket\n")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as idle:
            self.assertEqual(self.refused([self.listening("one"), idle], "--ram", "1M"),
                             "oxbow: cannot listen: descriptor 4: it is not listening\n")
        with open(self.make("file", 1), "rb") as file:
            self.assertEqual(self.refused([file], "--ram", "1M"),
                             "oxbow: cannot listen: descriptor 3: it is not a socket\n")

    def test_tcp_in_the_clear_beyond_loopback(self):
        public = self.tcp("0.0.0.0")
        port = public.getsockname()[1]
        self.assertEqual(self.refused([public], "--ram", "1M"),
                         f"oxbow: cannot listen: descriptor 3, tcp:0.0.0.0:{port}: other hosts can reach it, and "
                         "nothing is encrypted: TLS is needed, or --tcp-plaintext to allow it\n")
        process = self.start([public], "--ram", "1M", "--tcp-plaintext")
        self.assertEqual(process.stdout.readline(), f"nbd://0.0.0.0:{port}/\n")
        self.assertEqual(self.end(process), (0, "", ""))

    def test_variables_that_cannot_be(self):
        bad = 'export LISTEN_PID=$$; export LISTEN_FDS="$BAD"; exec "$@"'
        for text in ("x", "-1", "1025", "", "1 "):
            why = f"LISTEN_FDS: '{text}' is not a number from 0 to 1024"
            self.assertEqual(self.refused([], "--ram", "1M", command=bad, BAD=text),
                             f"oxbow: cannot take passed sockets: {why}\n")
        self.assertEqual(self.refused([], "--ram", "1M", command='export LISTEN_PID=me; exec "$@"'),
                         "oxbow: cannot take passed sockets: LISTEN_PID: 'me' is not the number of a process\n")
        self.assertEqual(self.refused([], "--ram", "1M", command=bad + " 3<&- 4<&-", BAD="2"),
                         "oxbow: cannot take passed sockets: descriptor 3: Bad file descriptor\n")

    def test_with_a_configuration(self):
        self.make("vm.toml", b"[[device]]\nname = \"a\"\nram = 4096\n[[device]]\nname = \"b\"\nram = 8192\n")
        process = self.start([self.listening("one")], "--config", "vm.toml")
        uris = [process.stdout.readline().strip() for _ in range(2)]
        self.assertEqual(uris, [f"nbd+unix:///{name}?socket={self.folder}/one" for name in ("a", "b")])
        self.qemu_io(uris[1], "read 4k 4k")
        self.assertEqual(self.end(process), (0, "", ""))
        self.make("vm.toml", b"nbd = \"unix:two\"\n[[device]]\nram = 4096\n")
        self.assertEqual(self.refused([self.listening("three")], "--config", "vm.toml"),
                         "oxbow: cannot serve: vm.toml line 1, nbd: sockets were passed by a service manager, and "
                         "those are the ones to serve at\n")

    def test_other_addresses_beside_passed_sockets(self):
        sockets = [self.listening("one")]
        self.assertEqual(self.refused(sockets, "--ram", "1M", "--nbd", "unix:two"),
                         "oxbow: cannot serve: --nbd: sockets were passed by a service manager, and those are the ones "
                         "to serve at\n")
        self.assertEqual(self.refused(sockets, "--ram", "1M", "--daemon"),
                         "oxbow: cannot serve: --daemon: sockets were passed by a service manager, which starts it in "
                         "the background itself\n")


class NotificationTest(CommandTest):
    def manager(self, address):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.settimeout(SECONDS)
        return sock

    def told(self, sock):
        return sock.recv(4096).decode()

    def test_readiness_and_the_end_are_told(self):
        abstract = f"oxbow-test-{os.getpid()}"
        for address, name in ((self.path("notify"), self.path("notify")), ("\0" + abstract, "@" + abstract)):
            with self.subTest(name):
                sock = self.manager(address)
                self.environment["NOTIFY_SOCKET"] = name
                server = self.serve("--ram", "1M")
                self.assertEqual(self.told(sock), f"READY=1\nSTATUS=Serving at {server.uri}")
                self.assertEqual(server.stop(), (0, ""))
                self.assertEqual(self.told(sock),
                                 "STOPPING=1\nSTATUS=Letting clients go and making everything durable")

    def test_nothing_is_told_by_one_that_does_not_start(self):
        sock = self.manager(self.path("notify"))
        self.environment["NOTIFY_SOCKET"] = self.path("notify")
        self.refuse(1, "cannot open file: nothing: No such file or directory", "serve", "--file", "nothing")
        sock.settimeout(0)
        self.assertRaises(BlockingIOError, sock.recv, 10)

    def test_a_manager_that_is_not_there_is_no_reason_to_stop(self):
        for name, why in ((self.path("none"), f"{self.folder}/none: No such file or directory"),
                          ("relative", "NOTIFY_SOCKET: 'relative' is neither an absolute path nor @ and a name")):
            with self.subTest(name):
                self.environment["NOTIFY_SOCKET"] = name
                server = self.serve("--ram", "1M")
                self.qemu_io(server.uri, "read 0 4k")
                self.assertEqual(server.stop(), (0, f"oxbow: cannot tell the service manager: {why}\n" * 2))


if __name__ == "__main__":
    unittest.main()
