#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cowloop's commands are links that are built and installed; their usage and their manual pages say the same."""

import glob
import os
import re
import subprocess
import unittest

from cowloop_test import CowloopTest
from help_test import items, manual, words
from oxbow_test import OXBOW, SECONDS, SOURCE

BUILD = os.environ["OXBOW_BUILD_DIR"]
FLAG = re.compile(r"(?<![\w-])-[a-z]\b")


def pages():
    return {os.path.basename(page).removesuffix(".1") for page in glob.glob(f"{SOURCE}/man/cow*.1")}


class CowloopUsageTest(CowloopTest):
    def test_every_command_is_built_and_has_a_page(self):
        linked = {name for name in os.listdir(BUILD) if name.startswith("cow") and
                  os.path.islink(os.path.join(BUILD, name))}
        self.assertGreaterEqual(linked, {"cowlist", "cowsync", "cowwatch", "cowctl"})
        self.assertEqual(linked, pages())
        for name in linked:
            self.assertEqual(os.readlink(os.path.join(BUILD, name)), os.path.basename(OXBOW))
            self.assertTrue(self.run_tool(name, "--version").stdout.startswith(f"{name} (oxbow "), name)

    def test_they_are_installed_beside_the_program(self):
        subprocess.run(["cmake", "--install", BUILD], env=dict(self.environment, DESTDIR=self.folder), check=True,
                       capture_output=True, timeout=SECONDS)
        for name in pages():
            [link] = glob.glob(f"{self.folder}/**/bin/{name}", recursive=True)
            self.assertEqual(os.readlink(link), "oxbow")
            self.assertTrue(os.path.exists(link))
            done = subprocess.run([link, "--help"], capture_output=True, text=True, check=True, timeout=SECONDS)
            self.assertTrue(done.stdout.startswith("Usage:"))

    def test_pages_have_the_synopsis_and_the_flags_of_the_usage(self):
        for name in pages():
            usage = self.run_tool(name, "--help").stdout
            forms = [line.split("\t")[0] for line in usage.replace("Usage:", "").replace("\n\t", "\n").splitlines()]
            forms = [re.sub("[<>]", "", words(form)) for form in forms if words(form).startswith(name + " ")]
            written = manual(name)
            self.assertEqual([words(line) for line in written["SYNOPSIS"] if line.strip()], forms, name)
            described = {heading for text in items(written.get("OPTIONS", []), 5) for heading in FLAG.findall(text)}
            self.assertEqual(described, set(FLAG.findall(usage)), name)
            self.assertEqual(words(" ".join(written["NAME"])).partition(" – ")[0], name)
            self.assertIn("--help", " ".join(written["DIFFERENCES"]), name)

    def test_other_names_are_the_command_itself(self):
        for name in ("oxbow", "cowdump", "cow", "xcowlist"):
            self.assertTrue(self.run_tool(name, "--version").stdout.startswith("oxbow "), name)


if __name__ == "__main__":
    unittest.main()
