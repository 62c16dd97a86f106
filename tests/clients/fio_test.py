#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fio writes with four connections at once and verifies the checksum of every block that it wrote."""

import json
import subprocess

from clients import ClientTest, MIB, SCALE, main, need, skip


class FioTest(ClientTest):
    SIZE = 64 * MIB

    def fio(self, uri, *options):
        # each job has a connection and a quarter of the device to itself
        output = self.run_client(
            "fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", "--numjobs=4", "--size=16M",
            "--offset_increment=16M", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--randseed=20031",
            "--group_reporting", "--output-format=json", *options)
        job = json.loads(output[output.index("{"):])["jobs"][0]
        self.assertEqual(job["error"], 0)
        return job

    def check(self, server):
        loops = max(1, int(SCALE))
        job = self.fio(server.uri, "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1", "--serialize_overlap=1",
                       "--norandommap=0", "--do_verify=1", f"--loops={loops}", "--fsync=64")
        self.assertGreaterEqual(job["read"]["io_bytes"], 60 * MIB)
        self.assertGreaterEqual(job["write"]["io_bytes"], 60 * MIB)

    def test_a_layer(self):
        server = self.serve_layer()
        self.check(server)
        self.stop(server)
        self.assert_checked("work.oxb")

    def test_a_layer_again_after_it_was_closed(self):
        server = self.serve_layer()
        self.fio(server.uri, "--rw=write", "--bs=4k", "--do_verify=0")
        self.stop(server)
        server = self.serve("work.oxb")
        job = self.fio(server.uri, "--rw=read", "--bs=4k")
        self.assertEqual(job["read"]["io_bytes"], 64 * MIB)
        self.stop(server)

    def test_blocks_that_share_clusters_of_64_kib(self):
        self.succeed("create", "--base", "golden.img", "--cluster", "64K", "large.oxb")
        server = self.serve("large.oxb")
        self.fio(server.uri, "--rw=randwrite", "--bs=4k", "--do_verify=1")
        self.stop(server)
        self.assert_checked("large.oxb")

    def test_a_ram_disk(self):
        server = self.serve("--ram", "64M")
        self.check(server)
        self.stop(server)

    def test_a_file_past_the_page_cache(self):
        self.make("disk.img", 64 * MIB)
        server = self.serve("--file", "disk.img", "--direct")
        self.fio(server.uri, "--rw=randwrite", "--bs=4k", "--do_verify=1")
        self.stop(server)

    def test_fio_finds_a_changed_block(self):
        server = self.serve("--ram", "64M")
        self.fio(server.uri, "--rw=write", "--bs=4k", "--do_verify=0")
        self.qemu_io(server.uri, "write -P 1 20M 512")
        with self.assertRaisesRegex(AssertionError, "verify: bad"):
            self.fio(server.uri, "--rw=read", "--bs=4k")
        self.stop(server)


if __name__ == "__main__":
    need("fio", "qemu-io")
    if "nbd" not in subprocess.run(["fio", "--enghelp"], capture_output=True, text=True, check=True).stdout.split():
        skip("this fio has no NBD engine")
    main()
