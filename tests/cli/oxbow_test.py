# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: the command, a folder of their own, servers, files left alone."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import unittest

OXBOW = os.environ["OXBOW"]
SOURCE = os.environ["OXBOW_SOURCE_DIR"]
SECONDS = 60
BLOCK = 1 << 16


def sha256(path):
    """The digest of a file's length and bytes; holes are passed over, so that sparse files are quick."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        digest.update(f"{end}".encode())
        at = 0
        while at < end:
            try:
                data = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            # Blocks start at multiples of their size: where data ends and holes begin changes with writeback.
            at = data - data % BLOCK
            block = os.pread(file.fileno(), BLOCK, at)
            if block.strip(b"\0"):
                digest.update(f"{at}:".encode() + block)
            at += BLOCK
    return digest.hexdigest()


class Server:
    """`oxbow serve` with its URI, ended with SIGTERM."""

    def __init__(self, args, cwd, env):
        self.process = subprocess.Popen([OXBOW, "serve", *args], cwd=cwd, env=env, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.uri = self.process.stdout.readline().strip()

    def stop(self, number=signal.SIGTERM):
        """Sends the signal; returns exit status and standard error."""
        if self.process.returncode is None:
            self.process.send_signal(number)
            _, self.errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, self.errors


class CommandTest(unittest.TestCase):
    """A test in a folder of its own, which is also the run directory's parent."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="oxbow-cli-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=self.folder, TZ="UTC", LC_ALL="C")

    def path(self, name):
        return os.path.join(self.folder, name)

    def make(self, name, content):
        """A file with that content: bytes, or a size of zeros."""
        with open(self.path(name), "wb") as file:
            if isinstance(content, int):
                file.truncate(content)
            else:
                file.write(content)
        return self.path(name)

    def digests(self):
        """Of every regular file in the folder, by name."""
        found = {}
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if not stat.S_ISREG(os.lstat(os.path.join(folder, name)).st_mode):
                    continue
                found[os.path.join(folder, name)] = sha256(os.path.join(folder, name))
        return found

    @contextlib.contextmanager
    def nothing_written(self):
        """Fails when a file changed, came or went meanwhile."""
        before = self.digests()
        yield
        self.assertEqual(self.digests(), before)

    def run_oxbow(self, *args, stdin=""):
        return subprocess.run([OXBOW, *args], cwd=self.folder, env=self.environment, text=True, input=stdin,
                              capture_output=True, timeout=SECONDS, check=False)

    def succeed(self, *args, **more):
        """Runs a command that works and says nothing on standard error; returns its output."""
        done = self.run_oxbow(*args, **more)
        self.assertEqual((done.returncode, done.stderr), (0, ""), args)
        return done.stdout

    def refuse(self, status, text, *args, **more):
        """Runs a command that fails with exactly this text, apart from the leading word."""
        done = self.run_oxbow(*args, **more)
        self.assertEqual(done.stderr, f"oxbow: {text}\n", args)
        self.assertEqual((done.returncode, done.stdout), (status, ""), args)

    def refuse_matching(self, status, pattern, *args, **more):
        """The same for a text that a regular expression describes."""
        done = self.run_oxbow(*args, **more)
        self.assertRegex(done.stderr, re.compile(rf"\Aoxbow: {pattern}\n\Z"), args)
        self.assertEqual((done.returncode, done.stdout), (status, ""), args)

    def serve(self, *args):
        server = Server(args, self.folder, self.environment)
        self.addCleanup(server.stop)
        if not server.uri:
            self.fail(f"serve {args}: {server.stop()}")
        return server

    def qemu_io(self, uri, *commands):
        """Runs commands of qemu-io on what is served; fails unless all of them work."""
        args = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(["qemu-io", "-f", "raw", *args, uri], capture_output=True, text=True, check=False,
                              timeout=SECONDS)
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, output)
        self.assertNotRegex(output, "(?i)failed|error")
        return output
