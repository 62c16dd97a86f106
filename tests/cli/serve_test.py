#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve: every kind of device, addresses, signals."""

import json
import os
import resource
import signal
import socket
import subprocess
import unittest

from oxbow_test import CommandTest, sha256

MIB = 1 << 20


class ServeTest(CommandTest):
    def nbdinfo(self, uri):
        done = subprocess.run(["nbdinfo", "--json", uri], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["exports"][0]

    def nbdcopy(self, *args):
        done = subprocess.run(["nbdcopy", *args], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_ram_disk_in_the_run_directory(self):
        server = self.serve("--ram", "3M")
        self.assertEqual(server.uri, f"nbd+unix:///?socket={self.folder}/oxbow/ram.sock")
        self.assertEqual(os.stat(self.path("oxbow")).st_mode & 0o777, 0o700)
        info = self.nbdinfo(server.uri)
        self.assertEqual((info["export-size"], info["is_read_only"]), (3 * MIB, False))
        self.qemu_io(server.uri, "read -P 0 0 3M", "write -P 5 1000 10000", "read -P 5 1000 10000", "read -P 0 0 1000")
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(os.listdir(self.path("oxbow")), [])

    def test_each_stop_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                server = self.serve("--ram", "1M", "--prealloc")
                self.assertEqual(server.stop(number), (0, ""))

    def test_a_budget_ends_in_no_space_left(self):
        server = self.serve("--ram", "1G", "--budget", "64K", "--on-full", "error")
        self.qemu_io(server.uri, "write -P 5 512M 64k", "read -P 0 0 1M")
        full = subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 6 0 4k", server.uri], text=True, timeout=60,
                              capture_output=True, check=False)
        self.assertIn("No space left on device", full.stdout + full.stderr)
        self.qemu_io(server.uri, "discard 512M 4k", "write -P 6 0 4k", "read -P 5 536875008 60k")
        self.assertEqual(server.stop(), (0, ""))

    def test_a_budget_below_a_page_is_refused(self):
        done = subprocess.run([os.environ["OXBOW"], "serve", "--ram", "1M", "--budget", "4095"], text=True,
                              env=self.environment, timeout=60, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stderr),
                         (1, "oxbow: cannot open device: RAM disk: a budget of 4095 bytes holds no page of 4096\n"))

    def test_a_vanished_reader_of_the_uri_does_not_end_it_unseen(self):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([os.environ["OXBOW"], "serve", "--ram", "1M"], stdout=writing, stderr=subprocess.PIPE,
                              env=self.environment, text=True, timeout=60, check=False)
        os.close(writing)
        self.assertEqual((done.returncode, done.stderr), (1, "oxbow: cannot print: standard output: Broken pipe\n"))

    def test_a_file(self):
        content = os.urandom(2 * MIB + 100)
        path = self.make("disk.img", content)
        server = self.serve("--file", "disk.img", "--offset", "100", "--length", "1M")
        self.assertTrue(server.uri.endswith("/oxbow/disk.sock"), server.uri)
        self.assertEqual(self.nbdinfo(server.uri)["export-size"], MIB)
        self.nbdcopy(server.uri, self.path("copy"))
        with open(self.path("copy"), "rb") as copy:
            self.assertEqual(copy.read(), content[100:100 + MIB])
        self.qemu_io(server.uri, "write -P 6 4k 4k", "flush")
        self.assertEqual(server.stop(), (0, ""))
        with open(path, "rb") as file:
            self.assertEqual(file.read(), content[:100 + 4096] + b"\6" * 4096 + content[100 + 8192:])

    def test_a_file_to_its_end_read_only(self):
        path = self.make("disk.img", os.urandom(MIB + 7))
        before = sha256(path)
        server = self.serve("--file", "disk.img", "--offset", "4K", "--read-only", "--name", "it.is_a-name")
        self.assertTrue(server.uri.endswith("/oxbow/it.is_a-name.sock"), server.uri)
        info = self.nbdinfo(server.uri)
        self.assertEqual((info["export-size"], info["is_read_only"]), (MIB + 7 - 4096, True))
        other = self.serve("--file", "disk.img", "--read-only", "--name", "other")
        self.assertEqual(other.stop(), (0, ""))
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(sha256(path), before)

    def test_a_file_past_the_page_cache(self):
        self.make("disk.img", os.urandom(MIB))
        server = self.serve("--file", "disk.img", "--direct")
        self.qemu_io(server.uri, "write -P 6 4000 5000", "read -P 6 4000 5000", "flush")
        self.assertEqual(server.stop(), (0, ""))

    def test_a_table(self):
        first = os.urandom(64 << 10)
        self.make("a file", first)
        text = "# a table\n0 64 file a\\ file 512\n64 64 zero\n128 64 linear a\\ file 64\n192 8 error\n"
        self.make("my.table", text.encode())
        server = self.serve("--table", "my.table")
        self.assertTrue(server.uri.endswith("/oxbow/my.sock"), server.uri)
        self.assertEqual(self.nbdinfo(server.uri)["export-size"], 200 * 512)
        self.qemu_io(server.uri, "write -P 1 32k 32k", "read -P 0 32k 32k")
        done = subprocess.run(["qemu-io", "-f", "raw", "-c", "read 96k 4k", server.uri], capture_output=True,
                              text=True, check=False)
        self.assertIn("Input/output error", done.stdout + done.stderr)
        self.assertEqual(server.stop(), (0, ""))
        piped = subprocess.Popen([os.environ["OXBOW"], "serve", "--table", "-"], cwd=self.folder, text=True,
                                 env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(piped.wait)
        self.addCleanup(piped.terminate)
        self.addCleanup(piped.stdout.close)
        piped.stdin.write(text)
        piped.stdin.close()
        uri = piped.stdout.readline().strip()
        self.assertTrue(uri.endswith("/oxbow/table.sock"), uri)

    def test_a_table_over_a_layer(self):
        self.make("golden.img", os.urandom(MIB))
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.make("swap.table", b"0 1024 cow work.oxb 1024\n1024 1024 cow work.oxb\n")
        server = self.serve("--table", "swap.table")
        self.qemu_io(server.uri, "write -P 4 512k 4k")
        self.assertEqual(server.stop(), (0, ""))
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "read -P 4 0 4k")
        self.assertEqual(server.stop(), (0, ""))

    def test_what_is_served_for_writing_is_held(self):
        self.make("disk.img", MIB)
        server = self.serve("--file", "disk.img")
        for more in ([], ["--read-only"]):
            self.refuse(1, "cannot open file: disk.img: it is in use by another process",
                        "serve", "--file", "disk.img", "--name", "second", *more)
        self.refuse(1, "cannot open file: disk.img: it is in use by another process",
                    "create", "--base", "disk.img", "work.oxb")
        self.assertEqual(server.stop(), (0, ""))

    def test_a_flush_that_fails_at_the_end(self):
        self.make("golden.img", MIB)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        server = self.serve("work.oxb")
        # Without the flush that qemu-io sends at its end.
        subprocess.run(["qemu-io", "-t", "unsafe", "-f", "raw", "-c", "write -P 1 0 4k", server.uri], check=True,
                       capture_output=True)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        self.assertEqual(server.stop(), (1, "oxbow: cannot close device: work: File too large\n"))
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 2 64k 4k", "read -P 2 64k 4k")
        self.assertEqual(server.stop(), (0, ""))
        self.succeed("check", "work.oxb")

    def test_several_addresses(self):
        server = self.serve("--ram", "1M", "--nbd", f"unix:{self.folder}/one", "--nbd", f"unix:{self.folder}/two")
        second = server.process.stdout.readline().strip()
        self.assertEqual((server.uri, second), (f"nbd+unix:///?socket={self.folder}/one",
                                                f"nbd+unix:///?socket={self.folder}/two"))
        self.qemu_io(server.uri, "write -P 8 0 4k")
        self.qemu_io(second, "read -P 8 0 4k")
        self.assertEqual(server.stop(), (0, ""))

    def test_tcp(self):
        server = self.serve("--ram", "1M", "--nbd", "tcp:127.0.0.1:0")
        self.assertRegex(server.uri, r"\Anbd://127\.0\.0\.1:[1-9]\d*/?\Z")
        self.assertEqual(self.nbdinfo(server.uri)["export-size"], MIB)
        self.assertEqual(server.stop(), (0, ""))

    def test_a_name_is_served_at_all_of_its_addresses(self):
        # In a mount namespace of its own, where the name has two addresses.
        self.make("hosts", b"127.0.0.1 localhost\n127.0.0.2 two.test\n127.0.0.3 two.test\n")
        inside = ["unshare", "--mount", "sh", "-c", f"mount --bind {self.folder}/hosts /etc/hosts && exec \"$@\"", "sh"]
        if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
            self.skipTest("no mount namespaces for this user")
        done = subprocess.run(
            [*inside, os.environ["OXBOW"], "serve", "--ram", "1M", "--nbd", "tcp:two.test:0", "--run",
             'nbdinfo --size "nbd://127.0.0.2:$port"; nbdinfo --size "nbd://127.0.0.3:$port"; echo "$uri"'],
            env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"\A1048576\n1048576\nnbd://two\.test:\d+/\n\Z")
        # One of them that is taken is an error, even where the other is free.
        with socket.socket() as taken:
            taken.bind(("127.0.0.3", 0))
            taken.listen()
            address = f"tcp:two.test:{taken.getsockname()[1]}"
            done = subprocess.run([*inside, os.environ["OXBOW"], "serve", "--ram", "1M", "--nbd", address],
                                  env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"oxbow: cannot listen: {address}: Address already in use\n"))


if __name__ == "__main__":
    unittest.main()
