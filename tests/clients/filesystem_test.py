#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real ext4 filesystem with real files: clean when served, clean after files were changed through a real client."""

import os
import shutil
import subprocess
import time

from clients import ClientTest, MIB, main, need
from oxbow_test import SOURCE, sha256

TOOLS = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")


class FilesystemTest(ClientTest):
    SIZE = 256 * MIB

    def make_image(self, path, size, seed):
        """An ext4 image of this project's sources."""
        with open(path, "wb") as file:
            file.truncate(size)
        self.tool("mke2fs", "-q", "-t", "ext4", "-d", os.path.join(SOURCE, "src"), path)

    def tool(self, *command, **more):
        done = subprocess.run(command, cwd=self.folder, env=TOOLS, capture_output=True, text=True, timeout=240,
                              check=False, **more)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def debugfs(self, image, *commands, write=False):
        """Runs debugfs's commands; it says its errors on standard error and goes on."""
        args = ["-w"] if write else []
        done = subprocess.run(["debugfs", *args, "-f", "-", image], cwd=self.folder, env=TOOLS, capture_output=True,
                              text=True, input="\n".join(commands) + "\n", timeout=240, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.splitlines()[1:], [], commands)  # the first line is its version

    CHANGES = ["rm cli/serve.cpp", "mkdir new", "write big.bin new/big.bin", "write small.txt new/small.txt",
               "symlink new/link small.txt"]

    def make_changes(self, image):
        with open(self.path("big.bin"), "wb") as file:
            file.write(os.urandom(9 * MIB + 77))
        self.make("small.txt", b"a small file\n")
        self.debugfs(image, *self.CHANGES, write=True)

    def assert_changed(self, image):
        self.tool("e2fsck", "-fn", image)
        self.debugfs(image, "dump new/big.bin big.out", "dump new/small.txt small.out",
                     "dump cli/create.cpp create.out")
        for one, other in [("big.bin", "big.out"), ("small.txt", "small.out")]:
            self.assertEqual(sha256(self.path(one)), sha256(self.path(other)))
        self.assertEqual(sha256(self.path("create.out")), sha256(os.path.join(SOURCE, "src/cli/create.cpp")))
        listed = self.tool("debugfs", "-R", "ls -p cli", image)
        self.assertIn("/create.cpp/", listed)
        self.assertNotIn("/serve.cpp/", listed)

    def copy_out(self, name):
        server = self.serve("work.oxb", "--read-only")
        self.run_client("nbdcopy", "--connections=4", server.uri, name)
        self.stop(server)
        return self.path(name)

    def test_a_new_layer_is_as_clean_as_its_base(self):
        server = self.serve_layer()
        self.run_client("qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri, "out.img")
        self.stop(server)
        self.tool("e2fsck", "-fn", self.path("out.img"))

    def test_changed_blocks_written_by_qemu_img(self):
        shutil.copy(self.golden, self.path("changed.img"))
        self.make_changes(self.path("changed.img"))
        server = self.serve_layer()
        self.run_client("qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", "changed.img",
                        server.uri)
        self.stop(server)
        self.assert_changed(self.copy_out("out.img"))
        self.assert_checked("work.oxb")

    def test_files_changed_through_nbdfuse(self):
        if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("nbdfuse"):
            self.skipTest("no usable /dev/fuse or no nbdfuse on this machine")
        server = self.serve_layer()
        with self.mounted(server.uri) as image:
            self.tool("e2fsck", "-fn", image)
            self.make_changes(image)
            self.assert_changed(image)
        self.stop(server)
        server = self.serve("work.oxb")
        with self.mounted(server.uri) as image:
            self.assert_changed(image)
        self.stop(server)
        self.assert_changed(self.copy_out("out.img"))
        self.assert_checked("work.oxb")
        allocated = os.stat(self.path("work.oxb")).st_blocks * 512
        self.assertLess(allocated, 14 * MIB)

    def mounted(self, uri):
        test = self

        class Mounted:
            def __enter__(self):
                self.path = test.path("device.img")
                open(self.path, "wb").close()
                self.process = subprocess.Popen(["nbdfuse", self.path, uri], stdout=subprocess.PIPE,
                                                stderr=subprocess.STDOUT, text=True)
                for _ in range(600):
                    if os.path.ismount(self.path):
                        return self.path
                    if self.process.poll() is not None:
                        test.fail(f"nbdfuse: {self.process.communicate()[0]}")
                    time.sleep(0.05)
                self.__exit__()
                return test.fail("nbdfuse mounts nothing")

            def __exit__(self, *_):
                subprocess.run(["fusermount3", "-u", self.path], check=False, capture_output=True)
                if self.process.poll() is None and os.path.ismount(self.path):
                    self.process.terminate()
                test.assertEqual((self.process.wait(timeout=60), self.process.stdout.read()), (0, ""))
                self.process.stdout.close()

        return Mounted()


if __name__ == "__main__":
    need("mke2fs", "e2fsck", "debugfs", "nbdcopy", "qemu-img")
    main()
