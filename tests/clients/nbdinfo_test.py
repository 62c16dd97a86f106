#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""nbdinfo: size, flags, the list of exports and JSON, of devices that can be written to and of those that cannot."""

import json

from clients import ClientTest, MIB, main, need


class NbdinfoTest(ClientTest):
    def about(self, uri):
        return json.loads(self.run_client("nbdinfo", "--json", uri))

    def test_size(self):
        server = self.serve_layer()
        self.assertEqual(self.run_client("nbdinfo", "--size", server.uri), f"{self.SIZE}\n")
        self.stop(server)

    def test_what_a_writable_layer_can_do(self):
        server = self.serve_layer()
        about = self.about(server.uri)
        self.assertEqual((about["protocol"], about["TLS"]), ("newstyle-fixed", False))
        self.assertEqual(len(about["exports"]), 1)
        export = about["exports"][0]
        self.assertEqual(export["export-size"], self.SIZE)
        expected = {"is_rotational": False, "is_read_only": False, "can_flush": True, "can_fua": True,
                    "can_multi_conn": True, "can_trim": True, "can_zero": True, "can_fast_zero": True, "can_df": True,
                    "can_cache": True, "contexts": ["base:allocation", "qemu:allocation-depth"]}
        self.assertEqual({name: export[name] for name in expected}, expected)
        for what in ("write", "flush", "fua", "multi-conn", "trim", "zero", "fast-zero", "df", "cache",
                     "structured-reply"):
            with self.subTest(what):
                self.run_client("nbdinfo", "--can", what, server.uri)
        self.stop(server)

    def test_what_a_read_only_layer_can_do(self):
        self.stop(self.serve_layer())
        server = self.serve_layer("work.oxb", "--read-only")
        export = self.about(server.uri)["exports"][0]
        self.assertEqual((export["is_read_only"], export["can_multi_conn"], export["export-size"]),
                         (True, True, self.SIZE))
        self.run_client("nbdinfo", "--is", "read-only", server.uri)
        self.stop(server)

    def test_list(self):
        server = self.serve_layer("work.oxb", "--name", "its-name")
        listed = self.run_client("nbdinfo", "--list", server.uri)
        self.assertIn('export="its-name":', listed)
        exports = json.loads(self.run_client("nbdinfo", "--list", "--json", server.uri))["exports"]
        self.assertEqual([(each["export-name"], each["export-size"]) for each in exports], [("its-name", self.SIZE)])
        self.stop(server)

    def mapped(self, uri, *which):
        """Offset, length and type of each extent, which have to follow one another to the end."""
        extents = json.loads(self.run_client("nbdinfo", f"--map{''.join(which)}", "--json", uri))
        at = 0
        for each in extents:
            self.assertEqual(each["offset"], at)
            at += each["length"]
        self.assertEqual(at, self.SIZE)
        return [(each["offset"], each["length"], each["type"]) for each in extents]

    def test_map(self):
        server = self.serve_layer()
        holes = [extent for extent in self.mapped(server.uri) if extent[2] == 3]
        self.assertEqual([offset for offset, _, _ in holes], [number * MIB for number in range(2, 32, 4)])
        self.qemu_io(server.uri, "write -P 1 2M 64k", "write -z 8M 1M")
        after = self.mapped(server.uri)
        self.assertIn((2 * MIB + 65536, MIB - 65536, 3), after)
        self.assertIn((8 * MIB, MIB, 3), after)
        self.assertIn("zero", self.run_client("nbdinfo", "--map", "--totals", server.uri))
        self.stop(server)

    def test_map_of_the_layers_depth(self):
        server = self.serve_layer()
        self.qemu_io(server.uri, "write -P 1 1M 64k")
        depths = self.mapped(server.uri, "=qemu:allocation-depth")
        self.assertIn((MIB, 65536, 1), depths)
        self.assertEqual({depth for _, _, depth in depths}, {1, 2})
        self.stop(server)

    def test_structured_replies_contexts_and_block_sizes_are_told(self):
        server = self.serve_layer()
        export = self.about(server.uri)["exports"][0]
        self.assertEqual(set(export["contexts"]), {"base:allocation", "qemu:allocation-depth"})
        self.assertTrue(export["can_cache"] and export["can_df"] and export["can_fast_zero"])
        self.assertEqual(export["block_size_minimum"], 1)
        self.assertEqual(export["block_size_maximum"], 32 * MIB)
        self.stop(server)

    def test_an_export_by_its_name(self):
        server = self.serve_layer("work.oxb", "--name", "its-name")
        by_name = server.uri.replace("unix:///", "unix:///its-name")
        self.assertEqual(self.run_client("nbdinfo", "--size", by_name), f"{self.SIZE}\n")
        with self.assertRaisesRegex(AssertionError, "(?i)unknown|no such|not found|no export"):
            self.run_client("nbdinfo", "--size", server.uri.replace("unix:///", "unix:///other"))
        self.stop(server)


if __name__ == "__main__":
    need("nbdinfo", "qemu-io")
    main()
