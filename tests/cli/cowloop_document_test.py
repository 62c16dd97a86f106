#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/cowloop.md: every command line in it is run; fields and example are those of a file made without oxbow."""

import contextlib
import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import time
import unittest

from cowloop_file import BLOCK, DIRTY, Cowfile, device, readonly
from cowloop_test import CowloopTest
from oxbow_test import OXBOW, SECONDS, SOURCE

BUILD = os.environ["OXBOW_BUILD_DIR"]
BASE = readonly(100)
BLOCKS = {3: b"three".ljust(BLOCK, b"."), 4: bytes(BLOCK), 70: b"\xff" * BLOCK}


def document():
    with open(f"{SOURCE}/docs/cowloop.md", encoding="utf-8") as file:
        return file.read()


def table(kind):
    """The rows below <!-- commands: KIND -->, each with the command lines of its cells."""
    lines = document().split(f"<!-- commands: {kind} -->\n")[1].split("\n\n")[0].splitlines()[2:]
    return [[code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", line)] for line in lines]


def digest(content):
    """Of bytes without zeros at the end: differences of long texts take minutes to be shown."""
    return hashlib.sha256(content.rstrip(b"\0")).hexdigest()


class CowloopDocumentTest(CowloopTest):
    def setUp(self):
        super().setUp()
        for name in ["oxbow", *(name for name in os.listdir(BUILD) if name.startswith("cow"))]:
            if os.path.islink(os.path.join(BUILD, name)) or name == "oxbow":
                os.symlink(OXBOW, self.path(f"bin/{name}"))
        self.scene()

    def scene(self):
        """The files that the page's command lines name, as they are at the beginning."""
        for name in os.listdir(self.folder):
            if os.path.isfile(self.path(name)):
                os.remove(self.path(name))
        sound = Cowfile(BASE, BLOCKS)
        self.make("disk.img", BASE)
        self.make("work.cow", sound.file())
        self.make("dirty.cow", Cowfile(BASE, BLOCKS, flags=DIRTY, used=1, bits=[4]).file())
        self.make("work.pck", sound.packed())
        self.make("work.pgz", sound.zipped())

    def shell(self, line):
        done = subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True,
                              text=True, timeout=SECONDS, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), line)
        return done.stdout

    def left(self):
        """Digests of what the files hold; of gzip, what is compressed; of a cowfile, but for who has it open."""
        found = {}
        for name in os.listdir(self.folder):
            if os.path.isfile(self.path(name)) and not name.endswith(".pid"):
                with open(self.path(name), "rb") as file:
                    content = file.read()
                content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
                if name.endswith(".cow"):
                    content = content[:512] + bytes(64) + content[576:]
                found[name] = digest(content)
        return found

    def test_old_and_new_commands_on_files_do_the_same(self):
        rows = table("files")
        self.assertEqual(len(rows), 9)
        for old, new in rows:
            results = []
            for line in (old, new):
                self.scene()
                told = self.shell(line)
                if line == old:
                    self.assertEqual(told == "", "cowpack" in line, line)
                results.append(self.left())
                if "merge" in line:
                    # oxbow's own empties the cowfile, cowmerge leaves its blocks where they are.
                    emptied = line.startswith("oxbow")
                    left = Cowfile(device(BASE, BLOCKS), {} if emptied else BLOCKS).file()
                    self.assertEqual(results[-1].pop("work.cow"), digest(left), line)
            self.assertEqual(*results, (old, new))

    def test_old_and_new_commands_on_served_pairs_do_the_same(self):
        rows = table("served")
        self.assertEqual(len(rows), 6)
        for old, new in rows:
            results = []
            for line in (old, new):
                self.scene()
                server = self.serve("--cowloop", "disk.img", "work.cow", "--name", "work")
                self.qemu_io(server.uri, "write -P 9 50k 1k")
                self.shell(line)
                state = re.search(r"^work +(\S+)", self.succeed("list"), re.M)[1]
                results.append((state, self.left()))
                self.assertEqual(server.stop()[0], 0, line)
            self.assertEqual(*results, (old, new))

    def test_commands_in_the_drivers_place(self):
        self.addCleanup(self.end_servers)
        rows = table("oxbow")
        self.assertEqual(len(rows), 5)
        for _, new in rows:
            self.shell(new)
        self.assertRegex(self.succeed("list"), r"(?m)^dirty ")

    def end_servers(self):
        """Ends what serves in the background, and waits for it."""
        for name in [name for name in os.listdir(self.folder) if name.endswith(".pid")]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(self.path(name), encoding="utf-8") as file:
                    process = int(file.read())
                os.kill(process, signal.SIGTERM)
                end = time.monotonic() + SECONDS
                while os.path.exists(f"/proc/{process}"):
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.02)

    def test_what_the_driver_told_is_told(self):
        server = self.serve("--cowloop", "disk.img", "work.cow", "--name", "work")
        self.qemu_io(server.uri, "write -P 9 50k 1k", "read 3k 1k", "read 10k 1k", "read 11k 1k")
        status = json.loads(self.succeed("status", "--json", "work"))
        found = {}
        for line in document().split("<!-- status -->\n")[1].split("\n\n")[0].splitlines()[2:]:
            for field in re.findall(r"`([^`]+)`", line):
                value = status
                for part in [] if field == "cowlist" else field.split("."):
                    value = value[int(part) if part.isdigit() else part]
                found[field] = value
        del found["cowlist"]
        self.assertEqual(found, {
            "state": "writable", "failure": None, "clients": [], "process.pid": server.process.pid,
            "table.0.chain.1.store": self.path("disk.img"), "statistics.below_reads": 2,
            "table.0.chain.0.store": self.path("work.cow"), "table.0.chain.0.state": "dirty",
            "table.0.chain.0.used": 4, "statistics.own_reads": 1, "statistics.writes": 1})

    def test_conversions(self):
        rows = table("convert")
        self.assertEqual(len(rows), 4)
        for row in rows:
            self.shell(row[-1])
        for name, cowfile in [("new.cow", Cowfile(BASE, BLOCKS)), ("fresh.cow", Cowfile(BASE)),
                              ("small.cow", Cowfile(BASE, width=4))]:
            with open(self.path(name), "rb") as file:
                self.assertEqual(file.read().rstrip(b"\0"), cowfile.file().rstrip(b"\0"), name)

    def test_fields(self):
        rows = document().split("<!-- fields: head -->\n")[1].split("\n\n")[0].splitlines()[2:]
        rows = [[cell.strip() for cell in row.strip("|").split("|")[:3]] for row in rows]
        names = [name.strip("`") for _, _, name in rows]
        for column, width in ((0, 8), (1, 4)):
            sizes = [4, 2, 2, *[width] * 6]
            self.assertEqual([int(row[column]) for row in rows], [sum(sizes[:i]) for i in range(9)])
            head = Cowfile(BASE, BLOCKS, width).head()
            for row, name, size in zip(rows, names, sizes):
                at = int(row[column])
                found = int.from_bytes(head[at:at + size], "little")
                known = {"magic": 0x574F437F, "version": 1, "flags": 0, "mapunit": 1024, "mapsize": 1024,
                         "doffset": 4096, "rdoblocks": 100, "cowused": 3,
                         "rdofingerprint": 0xFFFFFFFF8835E23C & (1 << 8 * width) - 1}
                self.assertEqual(found, known[name], name)

    def test_example(self):
        shown = document().split("<!-- example -->\n```\n")[1].split("```")[0]
        parts = []
        for width, length in ((8, 64), (4, 32)):
            parts.append((0, Cowfile(BASE, BLOCKS, width).file()[:length]))
        parts.append((BLOCK, Cowfile(BASE, BLOCKS).file()[BLOCK:BLOCK + 16]))
        dumped = ["".join(f"{start + at:04x}  {part[at:at + 16].hex(' ')}\n" for at in range(0, len(part), 16))
                  for start, part in parts]
        self.assertEqual(shown, "\n".join(dumped))
        self.make("work.cow", Cowfile(BASE, BLOCKS).file())
        self.assertIn("  cowblocks in use:         3 (of 1024 bytes)\n", self.run_tool("cowlist", "work.cow").stdout)

    def test_pages_and_options_that_are_named(self):
        # Whatever else is in backquotes and begins like a command is in one of the tables.
        tables = {line for kind in ("files", "served", "attached", "oxbow", "convert")
                  for row in table(kind) for line in row}
        for line in re.findall(r"`((?:oxbow|cow\w+) [^`]+)`", document()):
            if line.replace("\\|", "|") not in tables:
                self.assertIn(line, ("cowpack -p", "cowpack -p -z", "oxbow merge", "oxbow status --json work"))
        help_texts = "".join(self.succeed(command, "--help") for command in ("serve", "check", "merge", "convert"))
        for option in re.findall(r"`(--[\w-]+)`", document()):
            self.assertRegex(help_texts, rf"\n  {option}\b")


if __name__ == "__main__":
    unittest.main()
