#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""--help and the manual say the same, word for word and both ways."""

import os
import re
import subprocess
import unittest

from oxbow_test import CommandTest, SOURCE


def words(text):
    return " ".join(text.split())


def items(lines, indent):
    """Headings at `indent` columns with the text further in below each: {heading: text}."""
    found, heading = {}, None
    for line in lines:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if depth <= indent:
            heading = words(line)
            assert heading not in found, heading
            found[heading] = ""
        else:
            found[heading] = words(found[heading] + " " + line)
    return found


def manual(name):
    """A page's sections as lines: {title: lines}."""
    page = os.path.join(SOURCE, "man", name + ".1")
    text = subprocess.run(["mandoc", "-T", "utf8", "-O", "width=900", page], capture_output=True, text=True,
                          check=True).stdout
    text = re.sub(".\b", "", text)
    sections, title = {}, None
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][A-Z ]*", line):
            title = line
            sections[title] = []
        elif title:
            sections[title].append(line)
    return sections


def sections_of_help(text):
    """What --help prints, by its titles: {title: lines}; the first lines are under "Usage" and "Description"."""
    parts = {"Usage": [], "Description": []}
    title = "Usage"
    for line in text.splitlines():
        if match := re.fullmatch(r"([A-Z][a-z]+):", line):
            title = match[1]
            parts[title] = []
        elif line.startswith("The manual has more: "):
            parts["Manual"] = [line]
        elif title == "Usage" and not line:
            title = "Description"
        else:
            parts[title].append(line.removeprefix("Usage: "))
    return parts


class HelpTest(CommandTest):
    def commands(self):
        return sorted(items(sections_of_help(self.succeed("--help"))["Commands"], 2))

    def compare(self, command):
        page = "-".join(["oxbow", *command])
        told = sections_of_help(self.succeed(*command, "--help"))
        written = manual(page)
        self.assertEqual(words(" ".join(told["Usage"])), words(" ".join(written["SYNOPSIS"])), page)
        self.assertEqual(items(told.get("Arguments", []) + told["Options"], 2), items(written["OPTIONS"], 5), page)
        self.assertEqual(items(told.get("Commands", []), 2), items(written.get("COMMANDS", []), 5), page)
        name, _, what = words(" ".join(written["NAME"])).partition(" – ")
        self.assertEqual(name, page)
        described = words(" ".join(told["Description"]))
        self.assertEqual(described[0].lower() + described[1:], what + ".", page)
        self.assertEqual(told["Manual"], [f"The manual has more: man {page}"])

    def test_main_command(self):
        self.compare([])

    def test_every_command(self):
        for command in self.commands():
            with self.subTest(command):
                self.compare([command])

    def test_every_page_has_its_command(self):
        pages = {name.removesuffix(".1") for name in os.listdir(os.path.join(SOURCE, "man"))
                 if re.fullmatch(r"oxbow.*\.1", name)}
        self.assertEqual(pages, {"oxbow"} | {f"oxbow-{command}" for command in self.commands()})

    def test_no_line_is_wider_than_a_screen(self):
        for command in [[], *([each] for each in self.commands())]:
            for line in self.succeed(*command, "--help").splitlines():
                self.assertLessEqual(len(line), 80, line)
                self.assertEqual(line, line.rstrip())

    def test_short_option(self):
        self.assertEqual(self.succeed("-h"), self.succeed("--help"))

    def test_version(self):
        self.assertRegex(self.succeed("--version"), r"\Aoxbow \d+\.\d+\.\d+\n\Z")


if __name__ == "__main__":
    unittest.main()
