#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How serve ends: under load, when not everything can be made durable, and when it takes too long."""

import os
import resource
import signal
import subprocess
import threading
import time
import unittest

from oxbow_test import CommandTest, SECONDS

MIB = 1 << 20


class StopTest(CommandTest):
    def layer(self):
        self.make("golden.img", 16 * MIB)
        self.succeed("create", "--base", "golden.img", "work.oxb")

    def load(self, uri):
        """A client that writes all the time, with flushes; it ends when the server does."""
        client = subprocess.Popen(["qemu-io", "-f", "raw", "-t", "writeback", uri], stdin=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)

        def feed():
            try:
                for i in range(100_000):
                    client.stdin.write(f"write -q -P {i % 255 + 1} {i % 256 * 64}k 64k\n")
                    if i % 50 == 49:
                        client.stdin.write("flush\n")
                client.stdin.close()
            except OSError:
                pass  # the client has ended

        feeder = threading.Thread(target=feed)
        feeder.start()

        def end():
            client.kill()
            client.wait()
            feeder.join()
            try:
                client.stdin.close()
            except OSError:
                pass  # what it had not been sent yet

        self.addCleanup(end)

    def wait_for_growth(self, name, least):
        deadline = time.monotonic() + SECONDS
        while os.stat(self.path(name)).st_blocks * 512 < least:
            self.assertLess(time.monotonic(), deadline, "nothing is written")
            time.sleep(0.01)

    def test_a_stop_under_load_is_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                for name in ("golden.img", "work.oxb"):
                    if os.path.exists(self.path(name)):
                        os.remove(self.path(name))
                self.layer()
                server = self.serve("work.oxb")
                for _ in range(3):
                    self.load(server.uri)
                self.wait_for_growth("work.oxb", 4 * MIB)
                self.assertEqual(server.stop(number), (0, ""))
                self.succeed("check", "work.oxb")
                self.assertFalse(os.path.exists(self.path("oxbow/work.sock")))

    def test_a_stop_under_load_that_cannot_be_made_durable(self):
        self.layer()
        server = self.serve("work.oxb")
        self.load(server.uri)
        self.wait_for_growth("work.oxb", 2 * MIB)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        status, errors = server.stop()
        self.assertEqual(status, 1)
        self.assertRegex(errors, r"\Aoxbow: cannot close device: work: (File too large|Input/output error)\n\Z")
        self.succeed("check", "work.oxb")

    def test_every_device_is_closed_and_every_error_told(self):
        self.make("golden.img", MIB)
        text = ""
        for name in ("a", "b"):
            self.succeed("create", "--base", "golden.img", f"{name}.oxb")
            text += f'[[device]]\nlayer = "{name}.oxb"\n'
        self.make("vm.toml", text.encode())
        server = self.serve("--config", "vm.toml")
        second = server.process.stdout.readline().strip()
        for uri in (server.uri, second):
            subprocess.run(["qemu-io", "-t", "unsafe", "-f", "raw", "-c", "write -P 1 0 4k", uri], check=True,
                           capture_output=True)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        self.assertEqual(server.stop(), (1, "oxbow: cannot close device: a: File too large\n"
                                         "oxbow: cannot close device: b: File too large\n"))

    def stuck(self):
        """A server whose stop waits for a client that doesn't take its reply."""
        # The thread sanitizer's word for a process that ends with its threads is no news here.
        options = filter(None, [self.environment.get("TSAN_OPTIONS"), "report_thread_leaks=0"])
        self.environment["TSAN_OPTIONS"] = ":".join(options)
        server = self.serve("--ram", "64M")
        client = subprocess.Popen(["python3", "-c", f"""
import socket, struct, time
client = socket.socket(socket.AF_UNIX)
client.connect({self.path("oxbow/ram.sock")!r})
client.recv(18, socket.MSG_WAITALL)
client.send(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))
client.recv(10, socket.MSG_WAITALL)
for i in range(4):
    client.send(struct.pack(">IHHQQI", 0x25609513, 0, 0, i, 0, 32 << 20))
print(client.recv(1), flush=True)
time.sleep(600)
"""], stdout=subprocess.PIPE)
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        self.assertTrue(client.stdout.readline())
        return server

    def test_a_second_signal_ends_it_at_once(self):
        server = self.stuck()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)  # too soon: whoever stops a group may send two
        time.sleep(1.1)
        self.assertIsNone(server.process.poll())
        self.assertEqual(server.stop(), (1, "oxbow: cannot stop in order: second signal: ended at once, what was not "
                                         "flushed may be lost\n"))
        self.assertLess(time.monotonic() - began, 4)

    def test_a_client_that_takes_nothing_is_not_waited_for_forever(self):
        server = self.stuck()
        began = time.monotonic()
        self.assertEqual(server.stop(), (0, ""))
        self.assertLess(time.monotonic() - began, 20)


if __name__ == "__main__":
    unittest.main()
