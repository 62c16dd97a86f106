# SPDX-License-Identifier: Apache-2.0
"""What the tests of cowloop's commands share: running one by its name, and comparing all that it prints."""

import os
import subprocess

from oxbow_test import CommandTest, OXBOW, SECONDS


class CowloopTest(CommandTest):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("bin"))
        self.environment["PATH"] = self.path("bin") + ":" + self.environment["PATH"]

    def run_tool(self, name, *args, stdin="", called=None):
        """Runs the program through a link of that name; `called` is what it sees as its name."""
        link = self.path(f"bin/{name}")
        if not os.path.lexists(link):
            os.symlink(OXBOW, link)
        return subprocess.run([called or name, *args], executable=link, cwd=self.folder, env=self.environment,
                              text=True, input=stdin, capture_output=True, timeout=SECONDS, check=False)

    def tool(self, name, *args, status=0, out="", err="", stdin=""):
        """Runs it and compares exit status, standard output and standard error literally."""
        done = self.run_tool(name, *args, stdin=stdin)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (status, out, err), (name, args))

    def check_full_output(self, name, *args, stdin="", why="No space left on device"):
        """Output that can't be written is an error."""
        self.run_tool(name)  # makes the link
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([name, *args], executable=self.path(f"bin/{name}"), cwd=self.folder, text=True,
                                  env=self.environment, input=stdin, stdout=full, stderr=subprocess.PIPE,
                                  timeout=SECONDS, check=False)
        self.assertEqual((done.returncode, done.stderr), (1, f"{name}: cannot print: standard output: {why}\n"))

    def check_usage(self, name, text, *wrong):
        """Each of the wrong argument lists is answered with the usage, as is --help, on the other stream."""
        for args in wrong:
            for called in (name, f"/usr/bin/{name}"):
                done = self.run_tool(name, *args, called=called)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (1, "", text.replace("{}", called)), args)
        self.tool(name, "--help", out=text.replace("{}", name))
        self.assertRegex(self.run_tool(name, "--version").stdout, rf"\A{name} \(oxbow \d+\.\d+\.\d+\)\n\Z")
