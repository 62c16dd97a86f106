#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Devices that are attached as block devices of the kernel's: attach, detach and what becomes of them."""

import gzip
import json
import mmap
import os
import random
import signal
import stat
import struct
import subprocess
import time
import unittest

from attaching import AttachTest, has_ended, need_block_devices, SECONDS, TOOLS, wait_until
from clients import KIB, MIB, main, seed_of
from oxbow_test import OXBOW

SANITIZED = bool(os.environ.get("OXBOW_SANITIZE"))
CYCLES = 20 if SANITIZED else 100
KILLS = 10 if SANITIZED else 50
NOBODY = 65534


def knows_partitions():
    """Whether the kernel reads master boot records; where it doesn't say, it does."""
    try:
        with gzip.open("/proc/config.gz", "rt", encoding="ascii") as file:
            return "\nCONFIG_MSDOS_PARTITION=y\n" in file.read()
    except OSError:
        return True


KNOWS_PARTITIONS = knows_partitions()


def partition_table(first, sectors):
    """A master boot record with one Linux partition."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x83, b"\0\0\0", first, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


class AttachDeviceTest(AttachTest):
    def lines(self, *command):
        return self.tool(*command).splitlines()

    def pread(self, path, size, at):
        file = os.open(path, os.O_RDONLY)
        try:
            return os.pread(file, size, at)
        finally:
            os.close(file)

    # --- what it looks like ---

    def test_it_reads_and_keeps_what_the_device_has(self):
        path = self.attach("--base", "golden.img", "--overlay", "work.oxb")
        self.assertEqual(self.succeed("status", "work").splitlines()[0].split(), ["device", "work"])
        self.tool("cmp", path, self.golden)
        file = os.open(path, os.O_RDWR)
        os.pwrite(file, b"w" * 5000, 12345)
        os.close(file)
        self.detach("work")
        self.nothing_left()
        with open(self.golden, "rb") as file:
            expected = bytearray(file.read())
        expected[12345:17345] = b"w" * 5000
        path = self.attach("work.oxb")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), expected)
        self.detach("work")
        self.assert_checked("work.oxb")

    def test_what_tools_say_of_it(self):
        path = self.attach("--ram", "64M", "--name", "disk")
        name = os.path.basename(path)
        self.assertEqual(self.lines("blockdev", "--getss", "--getpbsz", "--getsize64", "--getro", path),
                         ["512", "512", str(64 * MIB), "0"])
        listed = json.loads(self.tool("losetup", "--json", "--list", "--output",
                                      "NAME,AUTOCLEAR,RO,DIO,BACK-FILE,OFFSET", path))["loopdevices"]
        self.assertEqual(listed, [{"name": path, "autoclear": True, "ro": False, "dio": True, "offset": 0,
                                   "back-file": os.path.join(self.run_directory, "disk.loop")}])
        device, = json.loads(self.tool("lsblk", "--json", "--bytes", "--output", "NAME,SIZE,RO,TYPE,DISC-MAX",
                                       path))["blockdevices"]
        self.assertGreater(device.pop("disc-max"), 0)
        self.assertEqual(device, {"name": name, "size": 64 * MIB, "ro": False, "type": "loop"})
        self.tool("mkfs.ext4", "-q", "-L", "label", path)
        self.assertEqual(self.tool("blkid", "-o", "value", "-s", "TYPE", "-s", "LABEL", path), "label\next4\n")
        with open(f"/sys/block/{name}/queue/write_cache", encoding="ascii") as file:
            self.assertEqual(file.read(), "write back\n")
        seen = os.stat(os.path.join(self.run_directory, "disk.loop"))
        self.assertEqual(stat.filemode(seen.st_mode), "-rw-------")
        self.detach("disk")
        self.nothing_left()

    def test_list_and_status_show_it(self):
        path = self.attach("--ram", "1M", "--name", "shown")
        self.assertIn(f"file://{path}", self.succeed("list"))
        self.assertIn(f"uri        file://{path}\n", self.succeed("status", "shown"))
        self.detach("shown")
        self.assertNotIn("shown", self.succeed("list"))

    def test_beside_nbd_it_is_detached_alone(self):
        server = self.serve("--ram", "1M", "--name", "both", "--nbd", f"unix:{self.path('s')}", "--loop")
        client = self.connect(server)
        client.write(4096, b"x" * 4096)
        uris = json.loads(self.succeed("list", "--json"))[0]["uris"]
        self.assertEqual([uri.split(":")[0] for uri in uris], ["nbd+unix", "file"])
        path = uris[1].removeprefix("file://")
        self.assertEqual(self.pread(path, 4096, 4096), b"x" * 4096)
        self.detach("both")
        self.assertEqual(self.loops(), [])
        self.assertEqual(json.loads(self.succeed("list", "--json"))[0]["uris"], uris[:1])
        self.assertEqual(client.read(4096, 4096), b"x" * 4096)
        client.disconnect()
        self.refuse(1, "cannot detach device: both: it is no block device of the kernel's", "detach", "both")
        self.stop(server)
        self.nothing_left()

    def test_in_a_configuration_and_around_a_command(self):
        self.make("vm.toml", b'[[device]]\nram = "1M"\nname = "one"\nloop = true\n'
                             b'[[device]]\nram = "2M"\nname = "two"\nloop = true\n')
        self.assertEqual(self.succeed("serve", "--config", "vm.toml", "--run", 'blockdev --getsize64 "$file"'),
                         f"{MIB}\n")
        self.nothing_left()

    def start_in_foreground(self):
        """Two devices of one configuration; their paths too."""
        self.make("lab.toml", b'[[device]]\nram = "1M"\nname = "one"\nloop = true\n'
                              b'[[device]]\nram = "2M"\nname = "two"\nloop = true\n')
        process = subprocess.Popen([OXBOW, "attach", "--foreground", "--config", "lab.toml"], cwd=self.folder,
                                   env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for each in (process.stdout.close, process.stderr.close, process.wait, process.kill):
            self.addCleanup(each)
        paths = [process.stdout.readline().strip() for _ in range(2)]
        self.assertEqual(self.lines("blockdev", "--getsize64", paths[0]), [str(MIB)])
        self.assertEqual(self.lines("blockdev", "--getsize64", paths[1]), [str(2 * MIB)])
        return process, paths

    def test_several_in_the_foreground_until_a_signal(self):
        process, _ = self.start_in_foreground()
        process.terminate()
        self.assertEqual((process.wait(SECONDS), process.stderr.read()), (0, ""))
        self.nothing_left()

    def test_several_end_with_the_last_that_is_detached(self):
        process, paths = self.start_in_foreground()
        self.detach("one")
        self.assertEqual(self.loops(), paths[1:])
        self.assertIsNone(process.poll())
        self.detach("two")
        self.assertEqual((process.wait(SECONDS), process.stderr.read()), (0, ""))
        self.nothing_left()

    def test_a_partition(self):
        path = self.attach("--ram", "64M", "--name", "disk")
        file = os.open(path, os.O_RDWR)
        os.pwrite(file, partition_table(2048, 32768), 0)
        os.fsync(file)
        os.close(file)
        self.tool("blockdev", "--rereadpt", path)
        if not KNOWS_PARTITIONS:
            self.tool("addpart", path, "1", "2048", "32768")
        self.assertEqual(self.tool("blockdev", "--getsize64", f"{path}p1"), f"{16 * MIB}\n")
        self.tool("mkfs.ext4", "-q", f"{path}p1")
        self.mount(f"{path}p1")
        self.refuse(1, f"cannot detach device: disk: {path} is in use: mounted at {self.mnt}", "detach", "disk")
        self.umount()
        self.detach("disk")

    @unittest.skipUnless(KNOWS_PARTITIONS, "the kernel knows no tables of partitions")
    def test_a_partition_that_is_there_from_the_start(self):
        with open(self.make("disk.img", 16 * MIB), "r+b") as file:
            file.write(partition_table(2048, 8192))
            file.seek(2048 * 512)
            file.write(b"first")
        path = self.attach("--file", "disk.img")
        self.assertEqual(self.pread(f"{path}p1", 5, 0), b"first")
        self.detach("disk")

    def test_read_only_is_read_only(self):
        path = self.attach("--file", self.golden, "--read-only", "--name", "ro")
        self.assertEqual(self.tool("blockdev", "--getro", path), "1\n")
        self.tool("dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=1", "conv=fsync", status=1)
        self.tool("blkdiscard", path, status=1)
        self.tool("cmp", path, self.golden)
        self.detach("ro")

    def test_odd_sizes(self):
        self.make("odd.img", 3 * MIB + 700)
        done = self.run_oxbow("attach", "--file", "odd.img", "--loop")
        self.assertRegex(done.stderr, r"\A\S+ warning loop: odd: its size is no multiple of 512 bytes, and its last "
                                      r"188 are not part of the block device\n\Z")
        path = done.stdout.rstrip("\n")
        self.assertEqual(self.tool("blockdev", "--getsize64", path), f"{3 * MIB + 512}\n")
        self.detach("odd")
        self.make("tiny.img", 511)
        self.refuse(1, "cannot make block device: tiny: it has 511 bytes, and a block device at least 512", "attach",
                    "--file", "tiny.img", "--loop")
        self.nothing_left()

    def test_it_grows_with_the_device(self):
        path = self.attach_layer(size="64M")
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        self.succeed("resize", "work", "128M")
        self.assertEqual(self.tool("blockdev", "--getsize64", path), f"{128 * MIB}\n")
        self.umount()
        self.tool("e2fsck", "-f", "-y", path)
        self.tool("resize2fs", path)
        self.mount(path)
        self.assertGreater(os.statvfs(self.mnt).f_blocks * os.statvfs(self.mnt).f_frsize, 100 * MIB)
        self.umount()
        self.detach("work")

    def test_a_reset_shows_at_once_and_not_below_a_mount(self):
        path = self.attach("--base", "golden.img", "--overlay", "work.oxb")
        self.tool("dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=4", "status=none")  # in the kernel's cache
        self.succeed("reset", "work", "--yes")
        self.tool("cmp", path, self.golden)
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        self.refuse(1, f"cannot reset device: work: Device or resource busy: {path}: mounted at {self.mnt}", "reset",
                    "work", "--yes")
        self.umount()
        self.detach("work")

    # --- who uses it ---

    def refused(self, path, why, name="disk"):
        self.refuse(1, f"cannot detach device: {name}: {path} is in use: {why}", "detach", name)

    def test_detach_names_who_has_it_open(self):
        path = self.attach("--ram", "16M", "--name", "disk")
        with open(path, "rb") as file:
            holder = subprocess.Popen(["sleep", "1000"], stdin=file)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        wait_until(lambda: os.path.basename(os.readlink(f"/proc/{holder.pid}/exe")) == "sleep", "sleep is there")
        self.refused(path, f"process {holder.pid} (sleep) has it open")
        holder.kill()
        holder.wait()
        self.detach("disk")
        self.nothing_left()

    def close_everything_of(self, path):
        """Closes this process's own descriptors of the device."""
        for each in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{each}") == path:
                    os.close(int(each))
            except FileNotFoundError:
                pass

    def test_detach_names_mounts_of_other_namespaces(self):
        path = self.attach("--ram", "16M", "--name", "disk")
        self.tool("mkfs.ext4", "-q", path)
        script = f"mount {path} {self.mnt} && echo mounted && exec sleep 1000"
        holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", script], env=TOOLS,
                                  stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.stdout.close)
        self.addCleanup(holder.kill)
        self.assertEqual(holder.stdout.readline(), "mounted\n")
        wait_until(lambda: os.path.basename(os.readlink(f"/proc/{holder.pid}/exe")) != "sh", "the shell becomes sleep")
        self.refused(path, f"mounted at {self.mnt} in the mount namespace of process {holder.pid} (sleep)")
        holder.kill()
        holder.wait()
        self.detach("disk")

    def test_detach_names_swap_space(self):
        path = self.attach("--ram", "16M", "--name", "disk")
        self.tool("mkswap", path)
        done = subprocess.run(["swapon", path], env=TOOLS, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no swap space here: {done.stderr}")
        self.addCleanup(subprocess.run, ["swapoff", path], env=TOOLS, check=False, stderr=subprocess.DEVNULL)
        self.refused(path, f"{path} is swap space")
        self.tool("swapoff", path)
        self.detach("disk")

    def test_detach_names_a_device_on_top(self):
        path = self.attach("--ram", "16M", "--name", "disk")
        top = self.tool("losetup", "--find", "--show", path).strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", top], env=TOOLS, check=False,
                        stderr=subprocess.DEVNULL)
        self.refused(path, f"{os.path.basename(top)} lies on it")
        self.tool("losetup", "--detach", top)
        self.detach("disk")

    def test_force_takes_it_from_under_a_mount(self):
        path = self.attach_layer(size="64M")
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        self.assertEqual(self.succeed("detach", "work", "--force"), "")
        with self.assertRaises(OSError):
            with open(os.path.join(self.mnt, "new"), "wb") as file:
                file.write(bytes(MIB))
                os.fsync(file.fileno())
        self.umount()
        wait_until(lambda: self.loops() == [], "the loop device goes with its last user")
        self.nothing_left()
        self.assert_checked("work.oxb")

    def test_a_signal_waits_for_who_uses_it(self):
        path = self.attach("--ram", "64M", "--name", "disk", "--log-file", self.path("log"))
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        pid = self.pid_of("disk")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: self.content("log"), "the log says who uses it")
        self.assertRegex(self.content("log").decode(), r"\A\S+ warning serve: goes on until nobody uses it any more: "
                                                       rf"{path}: mounted at {self.mnt}\n\Z")
        self.fill()
        self.compare()
        self.umount()
        wait_until(lambda: has_ended(pid), "the process ends with the mount")
        self.nothing_left()

    def test_a_second_signal_does_not_wait(self):
        path = self.attach("--ram", "64M", "--name", "disk")
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        pid = self.pid_of("disk")
        os.kill(pid, signal.SIGTERM)
        time.sleep(1.5)
        self.assertFalse(has_ended(pid))
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: has_ended(pid), "the process ends")
        self.umount()
        wait_until(lambda: self.loops() == [], "the loop device goes with its last user")
        self.nothing_left()

    # --- the process is killed ---

    def test_a_kill_under_a_mount_loses_nothing_that_was_written(self):
        path = self.attach_layer()
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        self.fill()
        self.tool("sync", "--file-system", self.mnt)
        self.kill_served("work")
        self.umount()
        self.assertNotIn("work", self.succeed("list"))
        self.nothing_left()
        path = self.attach_layer()
        self.mount(path)
        self.compare()
        self.umount()
        self.tool("e2fsck", "-f", "-n", path)
        self.detach("work")
        self.assert_checked("work.oxb")

    def test_a_kill_with_a_full_cache_ends_the_process(self):
        path = self.attach("--ram", "128M", "--name", "disk")
        # Nothing of that is written when the process dies, and its own descriptor is the device's last.
        self.tool("dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=64", "status=none")
        self.kill_served("disk")
        wait_until(lambda: self.loops() == [], "the loop device goes with the process")
        self.assertNotIn("disk", self.succeed("list"))
        self.nothing_left()

    def test_a_kill_while_the_cache_is_written_ends_the_process(self):
        for how in ("signal", "detach", "reset"):
            with self.subTest(how):
                path = self.attach_layer("--name", "disk", size="512M")
                pid = self.pid_of("disk")
                self.tool("dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=400", "status=none")
                asked = {"signal": ("kill", str(pid)), "detach": (OXBOW, "detach", "disk"),
                         "reset": (OXBOW, "reset", "disk", "--yes")}[how]
                asking = subprocess.Popen(asked, env=self.environment, stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL)
                time.sleep(0.1)
                os.kill(pid, signal.SIGKILL)
                asking.wait(SECONDS)
                wait_until(lambda pid=pid: has_ended(pid), "a killed process ends", 20)
                wait_until(lambda: self.loops() == [], "the loop device goes with the process")
                self.succeed("list")
                self.nothing_left()

    def test_a_kill_at_any_moment_leaves_nothing(self):
        rng = random.Random(seed_of(self.id()))
        # The RAM disk is read while partitions are looked for.
        command = [OXBOW, "attach", "--foreground", "--ram", "16M", "--name", "disk", "--loop"]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True)
        self.assertRegex(process.stdout.readline(), r"\A/dev/loop")
        whole = time.monotonic() - began
        for i in range(KILLS):
            with self.subTest(i):
                if i > 0:
                    process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE)
                    time.sleep(whole * rng.uniform(0.2, 1.1))
                process.kill()
                process.stdout.close()
                wait_until(lambda pid=process.pid: has_ended(pid), "a killed process ends", 20)
                process.wait(SECONDS)
                wait_until(lambda: self.loops() == [], "the loop device goes with the process")
                self.succeed("list")
                self.nothing_left()

    def test_attaching_again_cleans_what_a_kill_left(self):
        self.attach("--ram", "16M", "--name", "disk")
        self.kill_served("disk")
        self.assertEqual(self.mounts(), [os.path.join(self.run_directory, "disk.loop")])
        self.attach("--ram", "16M", "--name", "disk")
        self.detach("disk")
        self.nothing_left()

    # --- what it costs ---

    def test_cycles_leave_nothing(self):
        for _ in range(CYCLES):
            self.attach("--ram", "1M", "--name", "disk")
            self.detach("disk")
        self.nothing_left()
        self.assertEqual(self.processes(), [])

    def test_cycles_in_one_process_leave_no_descriptors(self):
        server = self.serve("--ram", "1M", "--name", "disk", "--loop")
        device = os.path.join(self.run_directory, "disk.loop")
        self.assertTrue(os.path.exists(device))
        before = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        self.detach("disk")
        after = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        self.assertLess(after, before)
        self.stop(server)
        self.nothing_left()

    def test_an_idle_device_is_small(self):
        if SANITIZED:
            self.skipTest("a sanitizer has memory of its own")
        self.attach_layer()
        with open(f"/proc/{self.pid_of('work')}/status", encoding="ascii") as file:
            status = dict(line.split(":", 1) for line in file)
        own = sum(int(status[each].split()[0]) for each in ("RssAnon", "RssShmem")) * KIB
        self.assertLess(own, 10 * MIB, status)
        self.detach("work")

    def test_random_reads_and_writes(self):
        rng = random.Random(seed_of(self.id()))
        path = self.attach("--base", "golden.img", "--overlay", "work.oxb")
        with open(self.golden, "rb") as file:
            model = bytearray(file.read())
        file = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.addCleanup(self.close_everything_of, path)
        buffer = mmap.mmap(-1, MIB)
        for _ in range(300):
            length = 512 * rng.randrange(1, 2048)
            at = 512 * rng.randrange((len(model) - length) // 512)
            view = memoryview(buffer)[:length]
            if rng.random() < 0.5:
                view[:] = rng.randbytes(length)
                self.assertEqual(os.pwritev(file, [view], at), length)
                model[at:at + length] = view
            else:
                self.assertEqual(os.preadv(file, [view], at), length)
                self.assertEqual(view, model[at:at + length])
            view.release()
        os.close(file)
        self.detach("work")
        path = self.attach("work.oxb")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), model)
        self.detach("work")

    # --- what goes wrong ---

    def test_names_and_files_that_are_taken(self):
        self.attach("--ram", "1M", "--name", "disk")
        self.refuse_matching(1, rf"cannot serve device: disk: process \d+ serves a device of that name in "
                                rf"{self.run_directory} \(.*\)", "attach", "--ram", "1M", "--name", "disk", "--loop")
        self.detach("disk")
        self.attach_layer(size="64M")
        self.refuse_matching(1, r"cannot open layer: work\.oxb: .*in use.*", "attach", "work.oxb", "--name", "other",
                             "--loop")
        self.detach("work")
        self.nothing_left()

    def test_a_malformed_table(self):
        self.make("table", b"0 8 zero\n9 8 zero\n")
        done = self.run_oxbow("attach", "--table", "table", "--loop")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Aoxbow: cannot .*table line 2.*\n\Z")
        self.nothing_left()

    def test_a_table_on_the_device_itself(self):
        self.make("one.img", 32 * MIB)
        self.make("table", f"0 65536 linear {self.path('one.img')} 0\n".encode())
        path = self.attach("--table", "table")
        self.tool("mkfs.ext4", "-q", path)
        self.mount(path)
        inside = os.path.join(self.mnt, "inside.img")
        with open(inside, "wb") as file:
            file.truncate(32 * MIB)
        self.make("wrong", f"0 65536 linear {inside} 0\n".encode())
        self.refuse(1, f"cannot use file: {inside}: it lies on {path}, which is the device table itself", "table",
                    "table", "--load", "wrong")
        top = self.tool("losetup", "--find", "--show", inside).strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", top], env=TOOLS, check=False,
                        stderr=subprocess.DEVNULL)
        self.make("wrong", f"0 65536 linear {top} 0\n".encode())
        self.refuse(1, f"cannot use file: {top}: it lies on {path}, which is the device table itself", "table",
                    "table", "--load", "wrong")
        self.tool("losetup", "--detach", top)
        self.fill()
        self.compare()
        self.umount()
        self.detach("table")

    def test_nothing_of_that_name(self):
        self.refuse_matching(1, "no such device: disk: nobody serves it in .*", "detach", "disk")

    def test_wrong_usage(self):
        for args, why in (([], "DEVICE"), (["--ram", "1M", "--nbd", "unix:x"], "--nbd"),
                          (["--ram", "1M", "--loop", "--ublk"], "--ublk: makes no sense with --loop"),
                          (["--ram", "1M", "--name", "a/b"], "--name")):
            done = self.run_oxbow("attach", *args)
            self.assertEqual((done.returncode, done.stdout), (2, ""), args)
            self.assertIn(why, done.stderr)
            self.assertIn("see oxbow attach --help", done.stderr)

    def in_a_poor_dev(self, *nodes):
        """Attaches where /dev has these nodes only; what it says."""
        known = {"null": "1 3", "urandom": "1 9", "fuse": "10 229"}
        made = " && ".join(f"mknod -m 666 /dev/{each} c {known[each]}" for each in ("null", "urandom", *nodes))
        script = f'mount -t tmpfs none /dev && {made} && exec "$0" attach --ram 1M --name disk --loop'
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, OXBOW],
                              env=dict(self.environment, PATH=TOOLS["PATH"]), cwd=self.folder, capture_output=True,
                              text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.nothing_left()
        return done.stderr

    def test_a_machine_without_fuse_or_loop_devices(self):
        if self.folder.startswith("/dev/"):
            self.skipTest("this test's folder is in /dev, which it covers")
        self.assertEqual(self.in_a_poor_dev(),
                         "oxbow: cannot show device as file: /dev/fuse: No such file or directory\n")
        self.assertEqual(self.in_a_poor_dev("fuse"),
                         "oxbow: cannot make loop device: /dev/loop-control: No such file or directory\n")

    def test_somebody_who_is_not_root(self):
        if subprocess.run(["test", "-x", OXBOW], user=NOBODY, group=NOBODY, extra_groups=[], check=False).returncode:
            self.skipTest("others can't run this oxbow")
        os.chown(self.folder, NOBODY, NOBODY)
        done = subprocess.run([OXBOW, "attach", "--ram", "1M", "--name", "disk", "--loop"], cwd=self.folder, text=True,
                              env=self.environment, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True,
                              timeout=60, check=False)
        self.assertRegex(done.stderr, r"\Aoxbow: cannot (show device as file|make loop device): .*\n\Z")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.nothing_left()


if __name__ == "__main__":
    need_block_devices()
    main()
