# SPDX-License-Identifier: Apache-2.0
"""What the tests of block devices of the kernel's share: attached devices, mounts, and nothing that stays behind."""

import json
import os
import shutil
import signal
import subprocess
import time

from clients import ClientTest, MIB, need, skip
from oxbow_test import SOURCE

TOOLS = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin", LC_ALL="C")
SECONDS = 240


def need_block_devices():
    """Ends the test as skipped unless this is root on a machine with FUSE and loop devices."""
    if os.geteuid() != 0:
        skip("only root makes block devices")
    for each in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(each):
            skip(f"no {each} on this machine")
    need("losetup", "mount", "blockdev")


def wait_until(condition, what, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def has_ended(pid):
    """Whether nothing of the process runs any more; its parent may not have asked for its status yet."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            status = file.read()
        return "\nState:\tZ" in status and len(os.listdir(f"/proc/{pid}/task")) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True


class AttachTest(ClientTest):
    """Attaches devices, and takes away at the end what is left of them, whatever failed."""

    SIZE = 8 * MIB + 2560

    def setUp(self):
        super().setUp()
        self.mnt = self.path("mnt")
        os.mkdir(self.mnt)
        self.run_directory = self.path("oxbow")
        self.addCleanup(self.take_rest_away)

    def mounts(self):
        with open("/proc/self/mounts", encoding="utf-8") as file:
            return [line.split()[1] for line in file if line.split()[1].startswith(self.folder)]

    def loops(self):
        """The loop devices over files of this test's folder."""
        return [line.split(":")[0] for line in self.tool("losetup", "--all").splitlines() if self.folder in line]

    def processes(self):
        """Those that serve in this test's run directory."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    ours = f"XDG_RUNTIME_DIR={self.folder}\0".encode() in file.read()
                if ours and os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "oxbow":
                    found.append(int(pid))
            except OSError:
                continue
        return found

    def take_rest_away(self):
        for point in self.mounts():
            if not point.endswith(".loop"):
                subprocess.run(["umount", "-l", point], env=TOOLS, check=False, timeout=SECONDS)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        for point in self.mounts():
            # By force: a process that waits for its own file would never end.
            subprocess.run(["umount", "-f", point], env=TOOLS, check=False, timeout=SECONDS, stderr=subprocess.DEVNULL)
            subprocess.run(["umount", "-l", point], env=TOOLS, check=False, timeout=SECONDS, stderr=subprocess.DEVNULL)

    def tool(self, *command, status=0, **more):
        done = subprocess.run(command, cwd=self.folder, env=TOOLS, capture_output=True, text=True, timeout=SECONDS,
                              check=False, **more)
        self.assertEqual(done.returncode, status, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def attach(self, *args):
        """Attaches a device as a loop device; its path."""
        path = self.succeed("attach", *args, "--loop").rstrip("\n")
        self.assertRegex(path, r"\A/dev/loop\d+\Z")
        return path

    def attach_layer(self, *args, size="320M"):
        """A layer over golden.img, made with that size when it is not there."""
        if not os.path.exists(self.path("work.oxb")):
            self.succeed("create", "--base", "golden.img", "--size", size, "work.oxb")
        return self.attach("work.oxb", *args)

    def detach(self, name):
        self.assertEqual(self.succeed("detach", name), "")

    def pid_of(self, name):
        return json.loads(self.succeed("status", name, "--json"))["process"]["pid"]

    def kill_served(self, name):
        pid = self.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: has_ended(pid), "a killed process ends")

    def mount(self, device, *options):
        def mounted():
            done = subprocess.run(["mount", *options, device, self.mnt], env=TOOLS, capture_output=True, text=True,
                                  timeout=SECONDS, check=False)
            # A mount namespace that somebody else makes has a copy of what was mounted before, as long as it is there.
            busy = done.returncode == 32 and "busy" in done.stderr
            self.assertTrue(done.returncode == 0 or busy, done.stderr)
            return not busy
        wait_until(mounted, f"{device} can be mounted")

    def umount(self):
        self.tool("umount", self.mnt)

    def nothing_left(self):
        self.assertEqual(self.mounts(), [])
        self.assertEqual(self.loops(), [])
        if os.path.exists(self.run_directory):
            # Live states go through a kill on purpose; where this folder is on tmpfs they are here.
            left = [name for name in os.listdir(self.run_directory) if not name.endswith(".live")]
            self.assertEqual(left, [])

    def fill(self):
        """A real tree on what is mounted."""
        for name in ("src", "docs", "man"):
            shutil.copytree(os.path.join(SOURCE, name), os.path.join(self.mnt, name), symlinks=True)

    def compare(self):
        for name in ("src", "docs", "man"):
            self.tool("diff", "-r", os.path.join(SOURCE, name), os.path.join(self.mnt, name))
