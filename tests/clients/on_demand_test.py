#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""RAM disks that clients get by asking for their names."""

import json
import os
import subprocess
import threading

from clients import KIB, MIB, main, socket_of
from nbd_client import (ENOSPC, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, REP_ACK, REP_ERR_UNKNOWN, REP_SERVER,
                        READ, Haggler, NbdClient, NbdError, go_data)
from oxbow_test import CommandTest

UNKNOWN = "there is no export '%s'"


class OnDemandTest(CommandTest):
    def serve_ram(self, *options, size="1M", count="4"):
        return self.serve("--ram", size, "--name", "first", "--on-demand", count, *options)

    def connect(self, server, export):
        client = NbdClient(socket_of(server.uri), export.encode())
        self.addCleanup(client.socket.close)
        return client

    def names(self):
        return [each["name"] for each in json.loads(self.succeed("list", "--json"))]

    def exports(self, server):
        with Haggler(socket_of(server.uri)) as haggler:
            return [payload[4:4 + int.from_bytes(payload[:4], "big")].decode()
                    for kind, payload in haggler.option(OPT_LIST) if kind == REP_SERVER]

    def asked(self, server, name, option=OPT_GO):
        """The last reply to an option about an export."""
        with Haggler(socket_of(server.uri)) as haggler:
            kind, payload = haggler.option(option, go_data(name.encode()))[-1]
            return kind, payload.decode()

    def test_a_name_that_is_asked_for_is_a_disk_from_then_on(self):
        server = self.serve_ram("--description", "memory")
        self.assertEqual(self.exports(server), ["first"])
        one, again, two = self.connect(server, "one"), self.connect(server, "one"), self.connect(server, "two")
        one.write(4096, b"1" * 512)
        two.write(4096, b"2" * 512)
        self.assertEqual((one.size, again.read(4096, 512), two.read(4096, 512)), (MIB, b"1" * 512, b"2" * 512))
        self.assertEqual(self.connect(server, "").read(4096, 512), bytes(512))  # the first
        self.assertEqual(self.exports(server), ["first", "one", "two"])
        self.assertEqual(sorted(self.names()), ["first", "one", "two"])
        for client in (one, again):
            client.socket.close()
        self.assertEqual(self.connect(server, "one").read(4096, 512), b"1" * 512)  # it stays
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(self.names(), [])

    def test_commands_know_it(self):
        server = self.serve_ram()
        client = self.connect(server, "one")
        client.write(0, b"x" * 64 * KIB)
        status = json.loads(self.succeed("status", "--json", "one"))
        self.assertEqual((status["state"], status["size"], len(status["clients"])), ("writable", MIB, 1))
        self.assertEqual(status["uris"], [server.uri.replace(":///", ":///one")])
        self.assertEqual(json.loads(self.succeed("status", "--json", "first"))["clients"], [])
        self.succeed("resize", "one", "64G")
        client.write(32 << 30, b"far" * 100)
        self.succeed("suspend", "one")
        read = client.submit(READ, 32 << 30, 300)
        self.succeed("resume", "one")
        self.assertEqual(client.wait(), (read, 0, b"far" * 100))
        who = f"1 client has it open: process {os.getpid()} of user {os.getuid()}"
        self.refuse(1, f"cannot clear device: one: Device or resource busy: {who}", "clear", "one")
        self.assertIn('oxbow_device_size_bytes{device="one"} 68719476736\n', subprocess.run(
            ["curl", "-s", "--unix-socket", self.path(f"oxbow/{server.process.pid}.control"), "http://oxbow/metrics"],
            capture_output=True, text=True, check=True).stdout)
        # Whoever else would serve that name is refused.
        self.refuse_matching(1, rf"cannot serve device: one: process {server.process.pid} serves a device of that name "
                             r"in \S+ \(.*\)", "serve", "--ram", "1M", "--name", "one")
        self.succeed("suspend", "one")
        self.assertEqual(server.stop(), (0, ""))

    def test_who_only_asks_makes_nothing(self):
        server = self.serve_ram()
        self.assertEqual(self.asked(server, "one", OPT_INFO), (REP_ERR_UNKNOWN, UNKNOWN % "one"))
        self.assertEqual(self.exports(server), ["first"])
        self.assertEqual(self.asked(server, "one"), (REP_ACK, ""))
        self.assertEqual(self.asked(server, "one", OPT_INFO), (REP_ACK, ""))
        with Haggler(socket_of(server.uri)) as haggler:
            haggler.send_option(OPT_EXPORT_NAME, b"two")
            self.assertEqual(int.from_bytes(haggler.take(8), "big"), MIB)
        self.assertEqual(self.exports(server), ["first", "one", "two"])
        self.assertEqual(server.stop(), (0, ""))

    def test_names_and_numbers_are_bounded(self):
        server = self.serve_ram(count="2")
        for name, why in (("../x", "a name has only letters, digits and ._-"), ("a b", "a name has only letters, "
                          "digits and ._-"), (".x", "a name does not start with . or -"), ("n" * 65, "a name has at "
                          "most 64 characters")):
            self.assertEqual(self.asked(server, name), (REP_ERR_UNKNOWN, f"{UNKNOWN % name}: {why}"))
        self.assertEqual([self.asked(server, name)[0] for name in ("a", "b", "a")], [REP_ACK] * 3)
        self.assertEqual(self.asked(server, "c"), (REP_ERR_UNKNOWN, UNKNOWN % "c" + ": no more are made on demand"))
        self.assertEqual(server.stop(), (0, ""))

    def test_a_name_that_another_process_has_is_not_made(self):
        other = self.serve("--ram", "1M", "--name", "taken")
        server = self.serve_ram()
        self.assertEqual(self.asked(server, "taken"), (REP_ERR_UNKNOWN, UNKNOWN % "taken" + ": it can't be made"))
        self.assertEqual(self.asked(server, "free"), (REP_ACK, ""))
        self.assertEqual(other.stop(), (0, ""))
        self.assertEqual(self.asked(server, "taken"), (REP_ACK, ""))
        status, log = server.stop()
        self.assertEqual(status, 0)
        self.assertRegex(log, rf"\A\S+ warning serve: no RAM disk taken on demand: cannot serve device: taken: process "
                         rf"{other.process.pid} serves a device of that name in .*\n\Z")

    def test_they_share_a_budget(self):
        server = self.serve_ram("--budget", "1M", "--on-full", "error", size="8M")
        one, two = self.connect(server, "one"), self.connect(server, "two")
        one.write(0, b"1" * 512 * KIB)
        two.write(0, b"2" * 512 * KIB)
        for client in (one, two, self.connect(server, "first")):
            with self.assertRaises(NbdError) as caught:
                client.write(4 * MIB, b"3" * 4096)
            self.assertEqual(caught.exception.number, ENOSPC)
        one.trim(0, 4096)
        two.write(4 * MIB, b"3" * 4096)
        self.assertEqual(json.loads(self.succeed("status", "--json", "one"))["table"][0]["chain"][0]["free"], 0)
        self.assertEqual(server.stop(), (0, ""))

    def test_many_ask_at_once(self):
        server = self.serve_ram(count="8")
        found, wrong = [], []

        def ask(number):
            try:
                with NbdClient(socket_of(server.uri), f"disk{number % 8}".encode()) as client:
                    client.write(number * 512, bytes([number]) * 512)
                    found.append(client.size)
            except Exception as error:  # pylint: disable=broad-exception-caught
                wrong.append(error)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((found, wrong), ([MIB] * 64, []))
        for number in range(64):
            with NbdClient(socket_of(server.uri), f"disk{number % 8}".encode()) as client:
                self.assertEqual(client.read(number * 512, 512), bytes([number]) * 512)
        self.assertEqual(sorted(self.names()), [f"disk{number}" for number in range(8)] + ["first"])
        self.assertEqual(server.stop(), (0, ""))

    def test_wrong_usage(self):
        for options, why in ((("--file", "x", "--on-demand", "2"), "--on-demand requires --ram"),
                             (("--ram", "1M", "--on-demand", "2", "--read-only"), "--read-only excludes --on-demand"),
                             (("--ram", "1M", "--on-demand", "2", "--prealloc"), "--prealloc excludes --on-demand"),
                             (("--ram", "1M", "--on-demand", "0"),
                              "--on-demand: 0 is not a number from 1 to 1024")):
            self.refuse(2, f"wrong usage: {why}; see oxbow serve --help", "serve", *options)

    def test_a_configuration_has_it_too(self):
        self.make("vm.toml", b'[[device]]\nram = "1M"\non-demand = 1\n')
        server = self.serve("--config", "vm.toml")
        self.assertEqual([self.asked(server, name)[0] for name in ("a", "b")], [REP_ACK, REP_ERR_UNKNOWN])
        self.assertEqual(server.stop(), (0, ""))
        self.make("two.toml", b'[[device]]\nram = "1M"\nname = "a"\non-demand = 1\n\n[[device]]\nram = "1M"\n'
                  b'name = "b"\non-demand = 1\n')
        self.refuse(1, "cannot use configuration: two.toml line 6: on-demand: the device of line 1 has it already",
                    "serve", "--config", "two.toml")
        self.make("read.toml", b'[[device]]\nram = "1M"\nread-only = true\non-demand = 1\n')
        self.refuse(1, "cannot use configuration: read.toml line 4: on-demand: makes no sense with read-only",
                    "serve", "--config", "read.toml")


if __name__ == "__main__":
    main()
