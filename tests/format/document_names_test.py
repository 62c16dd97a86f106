#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the pages under docs/ name is there: tests, canaries, files and links."""

import os
import re
import unittest

ROOT = os.environ.get("OXBOW_SOURCE_DIR") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def files(*folders):
    for folder in folders:
        for place, _, names in os.walk(os.path.join(ROOT, folder)):
            yield from (os.path.relpath(os.path.join(place, name), ROOT) for name in names)


def pages():
    return sorted([path for path in files("docs") if path.endswith(".md")] + ["README.md", "CONTRIBUTING.md"])


def tests_in(path):
    """Suite.Name of each GoogleTest in a source, and the methods of a Python test."""
    if path.endswith(".cpp"):
        for suite, name in re.findall(r"^TEST(?:_[FP])?\(\s*(\w+)\s*,\s*(\w+)\s*\)", read(path), re.M):
            yield f"{suite}.{name}"
    elif path.endswith("_test.py"):
        yield from re.findall(r"^\s+def (test_\w+)\(", read(path), re.M)


class DocumentNamesTest(unittest.TestCase):
    def test_every_test_that_is_named_exists(self):
        known = {test for path in files("src", "tests") for test in tests_in(path)}
        named = 0
        for page in pages():
            for name in re.findall(r"`([A-Z]\w+\.[A-Z]\w+|test_\w+)`", read(page)):
                named += 1
                self.assertIn(name, known, page)
        self.assertGreater(named, 20)

    def test_every_canary_is_named_and_exists(self):
        known = set(re.findall(r'CanaryName\{Canary::\w+, "([\w-]+)"\}', read("src/os/canary.h")))
        named = set(re.findall(r"canary ([a-z]+(?:-[a-z]+)+)", read("docs/durability.md")))
        self.assertEqual(named, known)

    def test_every_file_that_is_named_exists(self):
        for page in pages():
            for path in re.findall(r"`((?:src|tests|include|scripts|docs|man|fuzz|bench)/[\w./-]+)`", read(page)):
                if path.isupper() or re.search(r"/[A-Z]+(/|$)|NAME|PRESET", path):
                    continue  # stands for others
                self.assertTrue(os.path.exists(os.path.join(ROOT, path)), f"{page}: {path}")

    def test_every_link_between_pages_leads_somewhere(self):
        for page in pages():
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(page)):
                if re.match(r"[a-z]+:", target):
                    continue
                path = os.path.normpath(os.path.join(ROOT, os.path.dirname(page), target))
                self.assertTrue(os.path.exists(path), f"{page}: {target}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
