#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every manual page is sound, refers to pages that exist, and every kind of target has one."""

import glob
import os
import re
import subprocess
import unittest

SOURCE = os.environ["OXBOW_SOURCE_DIR"]
# What depends on the machine: which manuals are installed.
ELSEWHERE = re.compile(r"referenced manual not found|outdated mandoc\.db")


def pages():
    found = glob.glob(f"{SOURCE}/man/*.[1-9]") + glob.glob(f"{SOURCE}/src/**/*.[1-9]", recursive=True)
    return sorted(found)


class ManualTest(unittest.TestCase):
    def test_lint(self):
        self.assertGreater(len(pages()), 5)
        for page in pages():
            done = subprocess.run(["mandoc", "-T", "lint", page], capture_output=True, text=True, check=False)
            found = [line for line in (done.stdout + done.stderr).splitlines() if not ELSEWHERE.search(line)]
            self.assertEqual(found, [], page)

    def test_references_to_own_pages(self):
        names = {os.path.basename(page) for page in pages()}
        for page in pages():
            with open(page, encoding="utf-8") as file:
                for name, section in re.findall(r"^\.Xr ((?:oxbow|cow)\S*) (\d)", file.read(), re.MULTILINE):
                    self.assertIn(f"{name}.{section}", names, page)

    def test_every_target_has_a_page(self):
        with open(f"{SOURCE}/src/targets/registry.cpp", encoding="utf-8") as file:
            types = re.findall(r'TargetType\{"(\w+)"', file.read())
        self.assertGreaterEqual(len(types), 5)
        for name in types:
            self.assertTrue(os.path.exists(f"{SOURCE}/src/targets/{name}/oxbow-{name}.7"), name)


if __name__ == "__main__":
    unittest.main()
