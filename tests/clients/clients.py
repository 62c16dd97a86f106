# SPDX-License-Identifier: Apache-2.0
"""What the tests with real clients share: a golden image that must stay as it is, and the clients' command lines."""

import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.parse

from nbd_client import NbdClient
from oxbow_test import CommandTest, sha256

KIB, MIB = 1 << 10, 1 << 20
SCALE = float(os.environ.get("OXBOW_TEST_SCALE", "1"))
SECONDS = 240
# Clients that use the same bytes of a RAM disk one after the other know their order, and the thread sanitizer doesn't.
THREAD_SANITIZED = "thread" in os.environ.get("OXBOW_SANITIZE", "")
SYSTEM_PYTHON = "/usr/bin/python3"


def need(*programs):
    """Ends the test as skipped, status 77, unless all of these programs are there."""
    missing = [program for program in programs if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None]
    if missing:
        skip(f"no {', '.join(missing)} on this machine")


def libnbd():
    """libnbd's module, which belongs to the system's own Python: if that is another one, it takes over."""
    try:
        return importlib.import_module("nbd")
    except ImportError:
        if os.path.realpath(sys.executable) == os.path.realpath(SYSTEM_PYTHON) or not os.path.exists(SYSTEM_PYTHON):
            skip("no libnbd for Python on this machine")
        os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, *sys.argv])


def skip(why):
    print(f"SKIP: {why}")
    sys.exit(77)


def seed_of(test):
    """The test's seed, from OXBOW_TEST_SEED or fixed; it is printed."""
    seed = int(os.environ.get("OXBOW_TEST_SEED", "20031"))
    print(f"{test}: seed {seed}", file=sys.stderr)
    return seed


def socket_of(uri):
    """The path of the Unix socket that a URI names."""
    return urllib.parse.parse_qs(urllib.parse.urlparse(uri).query)["socket"][0]


class ClientTest(CommandTest):
    """A folder with golden.img, of which every test has to leave each byte as it is."""

    # Five sectors over a round number: its last cluster is not whole.
    SIZE = 32 * MIB + 2560

    def setUp(self):
        super().setUp()
        self.golden = self.path("golden.img")
        self.make_image(self.golden, self.SIZE, seed=1)
        self.digest = sha256(self.golden)

    def tearDown(self):
        self.assertEqual(sha256(self.golden), self.digest, "the golden image was changed")

    def make_image(self, path, size, seed):
        """An image of random bytes in which every fourth MiB is a hole."""
        bytes_of = random.Random(seed)
        with open(path, "wb") as file:
            for at in range(0, size, MIB):
                if at // MIB % 4 != 2:
                    file.seek(at)
                    file.write(bytes_of.randbytes(min(MIB, size - at)))
            file.truncate(size)

    def run_client(self, *command, timeout=SECONDS):
        """Runs a client; its output, standard output first, when it works."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
                              timeout=timeout, check=False)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def serve_layer(self, name="work.oxb", *more):
        """Serves a layer, made over golden.img when it is not there."""
        if not os.path.exists(self.path(name)):
            self.succeed("create", "--base", "golden.img", name)
        return self.serve(name, *more)

    def stop(self, server):
        """Ends a server, which has to have nothing to complain about."""
        self.assertEqual(server.stop(), (0, ""))

    def need_order_of_clients(self):
        if THREAD_SANITIZED:
            self.skipTest("the thread sanitizer doesn't see the order of its clients")

    def kill(self, server):
        """Ends a server with SIGKILL; nothing of it can run any more."""
        self.assertEqual(server.stop(signal.SIGKILL)[0], -signal.SIGKILL)

    def connect(self, server, **how):
        client = NbdClient(socket_of(server.uri), **how)
        self.addCleanup(client.socket.close)
        return client

    def content(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def assert_same_file(self, one, other):
        self.run_client("cmp", self.path(one), self.path(other))

    def assert_checked(self, layer):
        """The layer's metadata are as they should be."""
        self.succeed("check", layer)


class LiveClientTest(ClientTest):
    """The same with a folder in memory for live states, which go through a kill."""

    def setUp(self):
        super().setUp()
        if not os.path.isdir("/dev/shm"):
            skip("no /dev/shm on this machine")
        self.live = tempfile.mkdtemp(dir="/dev/shm", prefix="oxbow-live-")
        self.addCleanup(shutil.rmtree, self.live, True)


def main():
    unittest.main(verbosity=2)
