#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""qemu-io writes patterns, zeroes and discards at even and odd places, and reads back what it must find."""

import json
import subprocess

from clients import ClientTest, MIB, main, need


class QemuIoTest(ClientTest):
    CHANGES = ["write -P 0x11 0 4k", "write -P 0x22 4096 1", "write -P 0x33 1M 1M", "write -P 0x44 1049000 3000",
               "write -f -P 0x55 3333333 77777", "write -z 5M 64k", "write -z -u 6M 1M", "write -z 7340033 4095",
               "discard 8M 1M", "write -P 0x66 8500000 10", "aio_write -P 0x77 20M 2M", "aio_write -P 0x88 24M 2M",
               "aio_flush", "flush"]
    READS = ["read -P 0x11 0 4k", "read -P 0x22 4096 1", "read -P 0x33 1M 424", "read -P 0x44 1049000 3000",
             "read -P 0x33 1052000 1045152", "read -P 0x55 3333333 77777", "read -P 0 5M 64k", "read -P 0 6M 1M",
             "read -P 0 7340033 4095", "read -P 0 8M 111392", "read -P 0x66 8500000 10", "read -P 0 8500010 937174",
             "read -P 0x77 20M 2M", "read -P 0x88 24M 2M"]

    def test_patterns_zeroes_discards_and_flushes_on_a_layer(self):
        server = self.serve_layer()
        self.qemu_io(server.uri, *self.CHANGES)
        self.qemu_io(server.uri, *self.READS)
        self.stop(server)
        self.assert_checked("work.oxb")
        server = self.serve("work.oxb", "--read-only")
        self.qemu_io_read_only(server.uri, *self.READS)
        self.stop(server)

    def qemu_io_read_only(self, uri, *commands):
        args = [word for command in commands for word in ("-c", command)]
        self.assertNotIn("failed", self.run_client("qemu-io", "-r", "-f", "raw", *args, uri))

    def test_what_was_not_written_stays_the_base(self):
        server = self.serve_layer()
        self.qemu_io(server.uri, *self.CHANGES)
        golden = self.content("golden.img")
        client = self.connect(server)
        for start, end in [(4097, MIB), (2 * MIB, 3333333), (3333333 + 77777, 5 * MIB), (5 * MIB + 65536, 6 * MIB),
                           (7 * MIB, 7340033), (7340033 + 4095, 8 * MIB), (9 * MIB, 20 * MIB), (26 * MIB, self.SIZE)]:
            self.assertTrue(client.read(start, end - start) == golden[start:end], f"{start} to {end}")
        self.stop(server)

    def test_the_same_on_ram_and_on_a_file(self):
        self.make("disk.img", 32 * MIB)
        for device in (["--ram", "32M"], ["--file", "disk.img"], ["--file", "disk.img", "--direct"]):
            with self.subTest(device):
                server = self.serve(*device)
                self.qemu_io(server.uri, *self.CHANGES)
                self.qemu_io(server.uri, *self.READS)
                self.stop(server)

    def test_a_wrong_pattern_is_found(self):
        server = self.serve("--ram", "1M")
        with self.assertRaisesRegex(AssertionError, "Pattern verification failed"):
            self.qemu_io(server.uri, "write -P 1 0 4k", "read -P 2 0 4k")
        self.stop(server)

    def test_discard_gives_a_layers_space_back(self):
        server = self.serve_layer()
        self.qemu_io(server.uri, "write -P 1 0 32M", "flush")
        self.stop(server)
        full = self.allocated()
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "discard 0 16M", "write -z -u 16M 8M", "flush")
        self.stop(server)
        self.assertGreater(full, 32 * MIB)
        self.assertLess(self.allocated(), 14 * MIB)  # with 4 MiB of the commit ring

    def allocated(self):
        return json.loads(self.succeed("info", "--json", "work.oxb"))["allocated"]

    def test_writes_beyond_the_end_fail(self):
        server = self.serve("--ram", "1M")
        done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 1M 512", server.uri], capture_output=True,
                              text=True, check=False)
        self.assertIn("failed", done.stdout + done.stderr)
        self.stop(server)


if __name__ == "__main__":
    need("qemu-io")
    main()
