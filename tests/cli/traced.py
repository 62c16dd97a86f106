# SPDX-License-Identifier: Apache-2.0
"""Commands under strace: the steps that one takes, and the same command killed at each of them."""

import re
import subprocess
import sys
import unittest

from oxbow_test import CommandTest, OXBOW, SECONDS

# Everything that changes a file or a directory.
CALLS = ("write", "pwrite64", "pwritev", "pwritev2", "fsync", "fdatasync", "ftruncate", "fallocate", "linkat", "link",
         "rename", "renameat2", "unlink", "io_uring_enter")


def traceable(environment):
    """The same without a search for leaks, which a process that is traced can't do."""
    options = filter(None, [environment.get("ASAN_OPTIONS"), "detect_leaks=0"])
    return environment | {"ASAN_OPTIONS": ":".join(options)}


class TracedTest(CommandTest):
    def strace(self, options, args):
        return subprocess.run(["strace", "-f", "-o", self.path("trace"), *options, OXBOW, *args], cwd=self.folder,
                              env=traceable(self.environment), capture_output=True, timeout=SECONDS, check=False)

    def steps(self, args):
        """Each step that the command takes undisturbed: a call and how many of it there were, by the thread that makes
        it most, since strace counts for each of its own."""
        done = self.strace(["-e", f"trace={','.join(CALLS)}"], args)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.path("trace"), encoding="utf-8") as file:
            lines = re.findall(r"^(\d+) +(\w+)\(", file.read(), re.MULTILINE)
        counts = {call: max(lines.count(line) for line in set(lines) if line[1] == call)
                  for call in sorted({line[1] for line in lines})}
        self.assertGreater(sum(counts.values()), 4, counts)
        return [(call, when) for call, times in counts.items() for when in range(1, times + 1)]

    def kill_at(self, args, step):
        done = self.strace(["-e", f"trace={step[0]}", "-e", f"inject={step[0]}:signal=KILL:when={step[1]}"], args)
        self.assertIn(done.returncode, (0, -9, 137), (step, done.stderr))


def main():
    traced = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if traced.returncode != 0:
        print("SKIP: strace cannot trace here")
        sys.exit(77)
    unittest.main()
