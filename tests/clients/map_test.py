#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The map of a device that is served: what the map of its file says once nobody serves it."""

import json
import os
import subprocess

from clients import ClientTest, KIB, MIB, main
from oxbow_test import SECONDS

FIELDS = ("start", "length", "state", "reads", "layer")


class MapTest(ClientTest):
    SIZE = 40 * MIB + 2048

    def map(self, what, *options):
        return json.loads(self.succeed("map", "--json", *options, what))

    def without_paths(self, extents):
        """Each with its file's name alone: a device has files by the path that was given to it."""
        return [dict(extent, file=os.path.basename(extent["file"])) for extent in extents]

    def assert_whole(self, extents, size):
        at = 0
        for extent in extents:
            self.assertEqual(extent["start"], at)
            self.assertGreater(extent["length"], 0)
            at += extent["length"]
        self.assertEqual(at, size)

    def test_a_layer(self):
        server = self.serve_layer()
        client = self.connect(server)
        client.write(4 * KIB, b"w" * 12 * KIB)
        client.trim(MIB, MIB)
        served = self.map("work")
        self.assert_whole(served, self.SIZE)
        self.assertEqual([served[1][field] for field in FIELDS], [4 * KIB, 12 * KIB, "data", "data", 0])
        self.assertEqual([extent["file"].endswith("work.oxb") for extent in served if extent["layer"] == 0], [True] * 2)
        lines = self.succeed("map", "work").splitlines()
        self.assertEqual(lines[0].split(), ["START", "LENGTH", "STATE", "READS", "FROM"])
        self.assertEqual(len(lines), 1 + len(served))
        self.stop(server)
        self.assertEqual(self.without_paths(self.map("work.oxb")), self.without_paths(served))

    def test_more_extents_than_one_answer_has(self):
        server = self.serve_layer()
        client = self.connect(server)
        for number in range(5000):
            client.write(number * 8 * KIB, b"x" * 4 * KIB)
        served = self.map("work")
        self.assert_whole(served, self.SIZE)
        self.assertGreater(len(served), 9000)
        self.stop(server)
        self.assertEqual(self.without_paths(self.map("work.oxb")), self.without_paths(served))

    def test_a_pair(self):
        server = self.serve("--cowloop", "golden.img", "cow", "--name", "pair")
        self.connect(server).write(8 * KIB, b"p" * 4 * KIB)
        served = self.map("pair")
        self.stop(server)
        self.assertEqual([served[1][field] for field in FIELDS], [8 * KIB, 4 * KIB, "data", "data", 0])
        self.assertEqual(self.without_paths(self.map("cow", "--base", "golden.img")), self.without_paths(served))

    def test_a_ram_disk_and_a_table(self):
        with open(self.path("table"), "w", encoding="ascii") as file:
            file.write(f"0 8 linear {self.golden} 0\n8 8 zero\n16 8 error\n24 8 linear {self.golden} 8\n")
        server = self.serve("--ram", "1G", "--name", "ram")
        self.connect(server).write(64 * KIB, b"r" * 4 * KIB)
        self.assertEqual([[extent[field] for field in FIELDS] for extent in self.map("ram")],
                         [[0, 64 * KIB, "zero", "zero", 0], [64 * KIB, 4 * KIB, "data", "data", 0],
                          [68 * KIB, (1 << 30) - 68 * KIB, "zero", "zero", 0]])
        self.stop(server)
        server = self.serve("--table", "table", "--name", "table")
        served = self.map("table")
        self.assertEqual([[extent[field] for field in ("start", "reads")] for extent in served],
                         [[0, "data"], [4 * KIB, "zero"], [8 * KIB, "error"], [12 * KIB, "data"]])
        self.assertEqual([bool(extent["file"]) for extent in served], [True, False, False, True])
        self.stop(server)

    def test_what_is_refused(self):
        server = self.serve_layer()
        for option in (["--base", "golden.img"], ["--accept-base"], ["--allow-base", "."], ["--discard-live"]):
            self.refuse(1, f"cannot map device: work: {option[0]} is for files", "map", *option, "work")
        body = {"start": "here"}
        socket = [name for name in os.listdir(self.path("oxbow")) if name.endswith(".control")][0]
        done = subprocess.run(["curl", "-s", "--unix-socket", self.path("oxbow/" + socket), "-d", json.dumps(body),
                               "-H", "Content-Type: application/json", "http://oxbow/v1/devices/work/map"],
                              capture_output=True, text=True, timeout=SECONDS, check=True)
        self.assertEqual(json.loads(done.stdout)["error"],
                         {"what": "cannot map device", "where": "work", "why": "start is to be a number of bytes"})
        self.stop(server)
        self.refuse(1, "cannot open file: nothing: No such file or directory", "map", "nothing")


if __name__ == "__main__":
    main()
