#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cowsync, cowwatch and cowctl on pairs that are served."""

import unittest

from cowloop_test import CowloopTest

NONE = "neither the name of a served pair nor its cowfile; oxbow list shows names"


class CowServedTest(CowloopTest):
    def refuse_tool(self, name, status, text, *args):
        with self.nothing_written():
            self.tool(name, *args, status=status, err=f"{name}: {text}\n")

    def test_what_is_not_served(self):
        for word in ("work", "/dev/cow/0", "work.cow", self.path("work.cow")):
            text = f"no such cowdevice: {word}: {NONE}"
            self.refuse_tool("cowctl", 2, text, "-c", word)
            self.refuse_tool("cowctl", 2, text, "-r", word)
            self.refuse_tool("cowwatch", 2, text, word)
            self.refuse_tool("cowwatch", 2, text, word, "nothing")
            self.refuse_tool("cowsync", 1, text, word)

    def test_nothing_to_sync(self):
        self.tool("cowsync")

    def test_what_is_no_pair(self):
        server = self.serve("--ram", "1M", "--name", "ram")
        text = "cannot use device: ram: it is not a cowloop pair"
        self.refuse_tool("cowctl", 2, text, "-c", "ram")
        self.refuse_tool("cowwatch", 2, text, "ram")
        self.refuse_tool("cowsync", 1, text, "ram")
        self.tool("cowsync")
        self.assertEqual(server.stop(), (0, ""))

    def test_usage(self):
        self.check_usage("cowctl", "Usage:\n"
                                   "\t{} -c cowdevice\tclose cowfile related to device\n"
                                   "\t{} -r cowdevice\treopen cowfile read-only\n",
                         [], ["-c"], ["-r"], ["work"], ["-x", "work"], ["-cr", "work"], ["-c", "work", "other"],
                         ["-c", "-r", "work"])
        self.check_usage("cowwatch", "Usage: {} cowdevice [threshold]\n"
                                     "\tWhen a threshold-value is specified, cowwatch\n"
                                     "\tblocks till the available space for the cowfile\n"
                                     "\tdrops below the threshold-value (in Kb).\n", [], ["work", "1", "2"])
        self.check_usage("cowsync", "Usage: {} [cowdevice ...]\n")


if __name__ == "__main__":
    unittest.main()
