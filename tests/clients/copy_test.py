#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""nbdcopy and qemu-img move whole devices both ways, over one connection and over several; every byte is compared."""

import json
import os

from clients import ClientTest, MIB, main, need


class CopyTest(ClientTest):
    def test_nbdcopy_from_a_layer_over_one_connection(self):
        server = self.serve_layer()
        self.run_client("nbdcopy", "--connections=1", server.uri, "out.img")
        self.assert_same_file("golden.img", "out.img")
        self.stop(server)

    def test_nbdcopy_from_a_layer_over_four_connections(self):
        server = self.serve_layer()
        self.run_client("nbdcopy", "--connections=4", "--requests=64", server.uri, "out.img")
        self.assert_same_file("golden.img", "out.img")
        self.stop(server)

    def copy_to_layer(self, *options):
        self.make_image(self.path("new.img"), self.SIZE, seed=2)
        server = self.serve_layer()
        self.run_client("nbdcopy", "--flush", *options, "new.img", server.uri)
        self.run_client("nbdcopy", server.uri, "out.img")
        self.assert_same_file("new.img", "out.img")
        self.stop(server)
        self.assert_checked("work.oxb")
        server = self.serve("work.oxb", "--read-only")
        self.run_client("nbdcopy", server.uri, "again.img")
        self.assert_same_file("new.img", "again.img")
        self.stop(server)

    def test_nbdcopy_to_a_layer_over_one_connection(self):
        self.copy_to_layer("--connections=1")

    def test_nbdcopy_to_a_layer_over_four_connections(self):
        self.copy_to_layer("--connections=4", "--requests=64")

    def test_nbdcopy_to_a_layer_in_small_unaligned_requests(self):
        self.copy_to_layer("--connections=4", "--request-size=4096", "--allocated")

    def test_nbdcopy_from_one_layer_to_another(self):
        self.make_image(self.path("new.img"), self.SIZE, seed=2)
        self.succeed("create", "--base", "new.img", "new.oxb")
        source, target = self.serve("new.oxb", "--read-only"), self.serve_layer()
        self.run_client("nbdcopy", "--connections=4", source.uri, target.uri)
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", target.uri, "new.img")
        self.stop(source)
        self.stop(target)

    def test_qemu_img_convert_from_a_layer(self):
        server = self.serve_layer()
        self.run_client("qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri, "out.qcow2")
        self.run_client("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "out.qcow2", "golden.img")
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, "golden.img")
        self.stop(server)

    def test_qemu_img_convert_to_a_layer(self):
        self.make_image(self.path("new.img"), self.SIZE, seed=3)
        server = self.serve_layer()
        self.run_client("qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", "new.img", server.uri)
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", "new.img", server.uri)
        self.stop(server)
        self.assert_checked("work.oxb")
        server = self.serve("work.oxb")
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", "new.img", server.uri)
        self.stop(server)

    def zeros(self, *source):
        """Where qemu-img says that zeros are, as a set of clusters of 64 KiB."""
        extents = json.loads(self.run_client("qemu-img", "map", "--output=json", "-f", "raw", *source))
        return {at // 65536 for each in extents if each["zero"]
                for at in range(each["start"], each["start"] + each["length"], 65536)}

    def test_qemu_img_map_shows_the_same_holes_as_the_image(self):
        server = self.serve_layer()
        self.assertEqual(self.zeros(server.uri), self.zeros("golden.img"))
        self.assertTrue(self.zeros(server.uri))
        self.run_client("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "golden.img", server.uri)
        self.assertEqual(self.zeros(server.uri), self.zeros("golden.img"))
        self.stop(server)

    def test_qemu_img_convert_from_one_layer_to_another(self):
        self.make_image(self.path("new.img"), self.SIZE, seed=2)
        self.succeed("create", "--base", "new.img", "new.oxb")
        source, target = self.serve("new.oxb", "--read-only"), self.serve_layer()
        self.run_client("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source.uri, target.uri)
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", source.uri, target.uri)
        self.stop(source)
        self.stop(target)

    def test_a_converted_layer_stays_sparse(self):
        server = self.serve_layer()
        self.run_client("qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri, "out.img")
        self.assertLess(os.stat(self.path("out.img")).st_blocks * 512, 27 * MIB)
        self.assert_same_file("golden.img", "out.img")
        self.stop(server)

    def test_qemu_img_compare_finds_a_difference(self):
        server = self.serve_layer()
        self.qemu_io(server.uri, "write -P 0x5a 1M 512")
        with self.assertRaisesRegex(AssertionError, "Content mismatch at offset 1048576"):
            self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, "golden.img")
        self.stop(server)


if __name__ == "__main__":
    need("nbdcopy", "qemu-img", "qemu-io")
    main()
