#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Devices as files, by FUSE, with the real kernel."""

import ctypes
import errno
import json
import mmap
import os
import random
import shutil
import signal
import stat
import subprocess
import threading
import time
import urllib.parse

from clients import ClientTest, KIB, MIB, SCALE, main, need, seed_of, skip
from oxbow_test import OXBOW, SOURCE, sha256

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16
TOOLS = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
NOBODY = 65534
LIBC = ctypes.CDLL(None, use_errno=True)


def fallocate(file, mode, offset, length):
    done = LIBC.fallocate(file, mode, ctypes.c_long(offset), ctypes.c_long(length))
    if done != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mounts():
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return file.read()


class FuseTest(ClientTest):
    SIZE = 8 * MIB + 2560

    def setUp(self):
        super().setUp()
        self.disk = self.path("disk.img")
        self.addCleanup(self.unmount_rest)

    def unmount_rest(self):
        for line in mounts().splitlines():
            if line.split()[1].startswith(self.folder):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)

    def show(self, *args):
        """Serves a device as disk.img."""
        server = self.serve(*args, "--fuse", "disk.img")
        self.assertEqual(server.uri, "file://" + self.disk)
        return server

    def layer(self, *args):
        if not os.path.exists(self.path("work.oxb")):
            self.succeed("create", "--base", "golden.img", "work.oxb")
        return self.show("work.oxb", *args)

    def open(self, flags=os.O_RDWR, name="disk.img"):
        file = os.open(self.path(name), flags)
        self.addCleanup(self.close, file)
        return file

    @staticmethod
    def close(file):
        try:
            os.close(file)
        except OSError:
            pass

    def fails(self, number, call, *args):
        with self.assertRaises(OSError) as raised:
            call(*args)
        self.assertEqual(raised.exception.errno, number, raised.exception)

    def tool(self, *command):
        done = subprocess.run(command, cwd=self.folder, env=TOOLS, capture_output=True, text=True, timeout=240,
                              check=False)
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    # --- what it looks like ---

    def test_a_file_of_the_device_s_size_and_content(self):
        server = self.layer()
        seen = os.stat(self.disk)
        self.assertEqual(seen.st_size, self.SIZE)
        self.assertEqual(seen.st_blocks, self.SIZE // 512)
        self.assertEqual(stat.filemode(seen.st_mode), "-rw-------")
        self.assert_same_file("golden.img", "disk.img")
        self.assertEqual(os.lseek(self.open(), 0, os.SEEK_END), self.SIZE)
        self.stop(server)
        self.assertFalse(os.path.exists(self.disk))
        self.assertNotIn(self.folder, mounts())

    def test_list_and_status_show_it(self):
        server = self.serve("--ram", "1M", "--name", "shown", "--fuse", "a disk")
        uri = "file://" + urllib.parse.quote(self.path("a disk"))
        self.assertEqual(server.uri, uri)
        self.assertIn(uri, self.succeed("list"))
        self.assertIn(f"uri        {uri}\n", self.succeed("status", "shown"))
        self.assertEqual(os.stat(self.path("a disk")).st_size, MIB)
        self.stop(server)

    def test_beside_nbd_with_the_same_content(self):
        server = self.serve("--ram", "1M", "--nbd", f"unix:{self.path('s')}", "--fuse", "disk.img")
        self.assertTrue(server.uri.startswith("nbd+unix:"))
        client = self.connect(server)
        client.write(4096, b"x" * 4096)
        file = self.open()
        self.assertEqual(os.pread(file, 4096, 4096), b"x" * 4096)
        os.pwrite(file, b"y" * 512, 8192)
        self.assertEqual(client.read(8192, 512), b"y" * 512)
        client.disconnect()
        os.close(file)
        self.stop(server)

    def test_in_a_configuration(self):
        self.make("vm.toml", b'[[device]]\nram = "1M"\nname = "one"\nfuse = "one.img"\n'
                             b'[[device]]\nram = "2M"\nname = "two"\nfuse = "two.img"\n')
        server = self.serve("--config", "vm.toml")
        self.assertEqual([os.stat(self.path(each)).st_size for each in ("one.img", "two.img")], [MIB, 2 * MIB])
        devices = json.loads(self.succeed("list", "--json"))
        self.assertEqual([each["uris"] for each in devices],
                         [["file://" + self.path("one.img")], ["file://" + self.path("two.img")]])
        self.stop(server)

    def test_around_a_command(self):
        self.assertEqual(self.succeed("serve", "--ram", "1M", "--fuse", "disk.img", "--run",
                                      'printf "%s " "$uri" "$file"; stat -c %s "$file"'),
                         f"file://{self.disk} {self.disk} {MIB}\n")

    def test_in_the_background(self):
        self.succeed("serve", "--ram", "1M", "--fuse", "disk.img", "--daemon", "--pid-file", "pid")
        with open(self.path("pid"), encoding="ascii") as file:
            process = int(file.read())
        self.assertEqual(os.stat(self.disk).st_size, MIB)
        os.kill(process, signal.SIGTERM)
        while os.path.exists(self.path("pid")):
            time.sleep(0.01)
        self.assertFalse(os.path.exists(self.disk))

    def test_a_device_that_grows(self):
        server = self.layer()
        file = self.open()
        self.succeed("resize", "work", "16M")
        self.assertEqual(os.lseek(file, 0, os.SEEK_END), 16 * MIB)
        self.assertEqual(os.stat(self.disk).st_size, 16 * MIB)
        self.assertEqual(os.pwrite(file, b"g" * 8192, 16 * MIB - 4096), 4096)
        self.assertEqual(os.pread(file, 8192, 16 * MIB - 4096), b"g" * 4096)
        os.close(file)
        self.stop(server)

    def test_what_it_covers_is_there_again_at_the_end(self):
        self.make("disk.img", b"what was there")
        server = self.show("--ram", "1M")
        self.assertEqual(os.stat(self.disk).st_size, MIB)
        self.stop(server)
        self.assertEqual(self.content("disk.img"), b"what was there")

    # --- reads and writes ---

    def change(self, file, model, rng):
        at = rng.randrange(len(model))
        length = min(rng.choice([1, 511, 4096, 5000, 65536, 300 * KIB, 2 * MIB]), len(model) - at)
        what = rng.randrange(8)
        if what < 4:
            data = rng.randbytes(length)
            self.assertEqual(os.pwrite(file, data, at), length)
            model[at:at + length] = data
        elif what == 4:
            fallocate(file, PUNCH_HOLE | KEEP_SIZE, at, length)
            model[at:at + length] = bytes(length)
        elif what == 5:
            fallocate(file, ZERO_RANGE | rng.choice([0, KEEP_SIZE]), at, length)
            model[at:at + length] = bytes(length)
        elif what == 6:
            os.fsync(file)
        else:
            self.assertEqual(os.pread(file, length, at), bytes(model[at:at + length]))

    def check_random(self, show, reopen):
        rng = random.Random(seed_of(self.id()))
        server = show()
        model = bytearray(self.content("disk.img"))
        file = self.open()
        for _ in range(int(300 * max(1, SCALE))):
            self.change(file, model, rng)
        self.assertEqual(self.content("disk.img"), model)
        self.check_seeks(file, model)
        os.close(file)
        self.stop(server)
        if reopen:
            server = show()
            self.assertEqual(self.content("disk.img"), model)
            self.stop(server)

    def check_seeks(self, file, model):
        """What SEEK_DATA passes over is zeros, and holes and data take turns up to the end."""
        at, holes = 0, 0
        while at < len(model):
            try:
                data = os.lseek(file, at, os.SEEK_DATA)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENXIO)
                data = len(model)
            self.assertEqual(bytes(model[at:data]), bytes(data - at))
            holes += data - at
            if data == len(model):
                break
            at = os.lseek(file, data, os.SEEK_HOLE)
            self.assertGreater(at, data)
        return holes

    def test_random_requests_to_a_layer(self):
        self.check_random(self.layer, True)
        self.assert_checked("work.oxb")

    def test_random_requests_to_a_ram_disk(self):
        self.check_random(lambda: self.show("--ram", str(self.SIZE)), False)

    def test_random_requests_to_a_file_past_the_page_cache(self):
        self.make_image(self.path("raw.img"), 8 * MIB, seed=2)
        self.check_random(lambda: self.show("--file", "raw.img", "--direct"), True)

    def test_fio_verifies_with_direct_requests(self):
        need("fio")
        server = self.show("--ram", "64M")
        output = self.run_client(
            "fio", "--name=verify", f"--filename={self.disk}", "--ioengine=libaio", "--direct=1", "--iodepth=32",
            "--rw=randwrite", "--bsrange=4k-1M", "--blockalign=4k", "--size=64M", "--verify=crc32c", "--verify_fatal=1",
            "--do_verify=1", "--fsync=64", "--randseed=20031", "--output-format=json")
        job = json.loads(output[output.index("{"):])["jobs"][0]
        self.assertEqual(job["error"], 0)
        self.assertGreaterEqual(job["write"]["io_bytes"], 60 * MIB)
        self.assertGreaterEqual(job["read"]["io_bytes"], 60 * MIB)
        self.stop(server)

    def test_requests_of_a_mebibyte_arrive_whole(self):
        server = self.show("--ram", "8M", "--name", "ram")
        file = self.open(os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, MIB)
        self.assertEqual(os.pwritev(file, [buffer], 0), MIB)
        self.assertEqual(os.preadv(file, [buffer], 0), MIB)
        counted = json.loads(self.succeed("status", "--json", "ram"))["statistics"]
        self.assertEqual((counted["writes"], counted["reads"]), (1, 1))
        self.stop(server)

    def test_the_end_is_a_block_device_s(self):
        server = self.layer()
        file = self.open()
        self.assertEqual(os.pread(file, 4096, self.SIZE), b"")
        self.assertEqual(len(os.pread(file, 4096, self.SIZE - 100)), 100)
        self.assertEqual(os.pwrite(file, b"e" * 4096, self.SIZE - 100), 100)
        self.fails(errno.ENOSPC, os.pwrite, file, b"e", self.SIZE)
        self.fails(errno.ENOSPC, fallocate, file, ZERO_RANGE, self.SIZE - 512, 1024)
        fallocate(file, ZERO_RANGE | KEEP_SIZE, self.SIZE - 512, 1024)
        fallocate(file, PUNCH_HOLE | KEEP_SIZE, self.SIZE, 4096)
        self.assertEqual(os.pread(file, 4096, self.SIZE - 512), bytes(512))
        self.fails(errno.ENXIO, os.lseek, file, self.SIZE, os.SEEK_DATA)
        os.truncate(file, self.SIZE)
        for size in (0, self.SIZE - 1, self.SIZE + 1):
            self.fails(errno.EINVAL, os.truncate, file, size)
        self.fails(errno.EPERM, os.chmod, self.disk, 0o666)
        self.fails(errno.EOPNOTSUPP, fallocate, file, 0, 0, 4096)
        self.fails(errno.EOPNOTSUPP, fallocate, file, COLLAPSE_RANGE, 0, 4096)
        os.close(self.open(os.O_WRONLY | os.O_TRUNC))
        self.assertEqual(os.stat(self.disk).st_size, self.SIZE)
        os.close(file)
        self.stop(server)

    def test_holes_give_their_room_back(self):
        server = self.layer("--name", "w")
        file = self.open()
        os.pwrite(file, b"d" * MIB, 0)
        os.fsync(file)
        self.assertEqual(os.lseek(file, 0, os.SEEK_HOLE), 2 * MIB)
        before = os.stat(self.path("work.oxb")).st_blocks
        fallocate(file, PUNCH_HOLE | KEEP_SIZE, 0, MIB)
        os.fsync(file)
        self.assertEqual(os.lseek(file, 0, os.SEEK_DATA), MIB)
        self.assertLess(os.stat(self.path("work.oxb")).st_blocks, before - 1024)
        os.close(file)
        self.stop(server)

    def test_read_only_is_read_only(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        before = sha256(self.path("work.oxb"))
        server = self.show("work.oxb", "--read-only")
        self.assertEqual(stat.filemode(os.stat(self.disk).st_mode), "-r--------")
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
            self.fails(errno.EROFS, os.open, self.disk, flags)
        file = self.open(os.O_RDONLY)
        self.fails(errno.EBADF, fallocate, file, PUNCH_HOLE | KEEP_SIZE, 0, 4096)
        os.fsync(file)
        self.assert_same_file("golden.img", "disk.img")
        os.close(file)
        self.stop(server)
        self.assertEqual(sha256(self.path("work.oxb")), before)

    # --- errors ---

    def test_a_failed_flush_of_the_store_reaches_fsync(self):
        below = self.serve("--ram", "8M", "--name", "ram", "--fuse", "below.img")
        server = self.serve("--file", "below.img", "--fuse", "disk.img")
        file = self.open()
        os.pwrite(file, b"x" * 4096, 0)
        os.fsync(file)
        os.pwrite(file, b"y" * 4096, 0)
        self.assertEqual(below.stop(signal.SIGKILL), (-signal.SIGKILL, ""))
        for _ in range(2):  # never forgotten, never taken for something that is not there
            self.fails(errno.EIO, os.fsync, file)
        self.fails(errno.EIO, os.pwrite, file, b"z", 0)
        self.fails(errno.EIO, os.close, file)  # as the last word
        status, errors = server.stop()
        self.assertEqual(status, 1)
        self.assertIn("cannot close device: below: Input/output error", errors)

    def test_a_file_below_that_is_cut_short(self):
        self.make("raw.img", b"r" * (4 * MIB))
        server = self.serve("--file", "raw.img", "--fuse", "disk.img")
        file = self.open()
        for _ in range(3):
            self.assertEqual(os.pread(file, 4 * MIB, 0), b"r" * (4 * MIB))
        os.truncate(self.path("raw.img"), MIB + 100)
        self.fails(errno.EIO, os.pread, file, 4096, 2 * MIB)
        self.fails(errno.EIO, os.pread, file, 8192, MIB - 4096)
        self.assertEqual(os.pread(file, MIB, 0), b"r" * MIB)
        os.close(file)
        server.stop()

    def test_many_holes(self):
        server = self.show("--ram", "64M")
        file = self.open()
        os.pwrite(file, b"m" * 48 * MIB, 0)
        for at in range(0, 48 * MIB, 8 * KIB):
            fallocate(file, PUNCH_HOLE | KEEP_SIZE, at, 4 * KIB)
        for at in range(32 * MIB, 32 * MIB + 80 * KIB, 8 * KIB):
            self.assertEqual(os.lseek(file, at, os.SEEK_DATA), at + 4 * KIB)
            self.assertEqual(os.lseek(file, at + 4 * KIB, os.SEEK_HOLE), at + 8 * KIB)
        os.close(file)
        self.stop(server)
        # Each cluster of a layer is told by itself: the search takes more than one turn.
        server = self.layer()
        file = self.open()
        for at in range(0, 6 * MIB, 8 * KIB):
            os.pwrite(file, b"m" * 4 * KIB, at)
        os.pwrite(file, b"m" * MIB, 2 * MIB)
        self.assertEqual(os.lseek(file, 3 * MIB, os.SEEK_HOLE), 6 * MIB)
        self.assertEqual(os.lseek(file, 0, os.SEEK_HOLE), 6 * MIB)
        os.close(file)
        self.stop(server)

    def test_refusals(self):
        os.mkdir(self.path("folder"))
        os.symlink("golden.img", self.path("link"))
        os.mkfifo(self.path("pipe"))
        what = "cannot show device as file: "
        for name, why in [("folder", "it is not a regular file"), ("pipe", "it is not a regular file"),
                          ("link", "it is a symbolic link; give the file that it leads to")]:
            self.refuse(1, f"{what}{self.path(name)}: {why}", "serve", "--ram", "1M", "--fuse", name)
        self.refuse(1, f"{what}none/disk.img: No such file or directory", "serve", "--ram", "1M", "--fuse",
                    "none/disk.img")
        self.refuse(1, f"{what}golden.img: the device golden itself lies on that file", "serve", "--file",
                    "golden.img", "--read-only", "--fuse", "golden.img")
        self.succeed("create", "--base", "golden.img", "work.oxb")
        self.refuse(1, f"{what}golden.img: the device work itself lies on that file", "serve", "work.oxb", "--fuse",
                    "golden.img")
        self.refuse(2, "wrong usage: --fuse: is empty; see oxbow serve --help", "serve", "--ram", "1M", "--fuse", "")
        server = self.show("--ram", "1M")
        self.refuse(1, f"{what}{self.disk}: a process shows a device there already", "serve", "--ram", "1M", "--name",
                    "other", "--fuse", "disk.img")
        self.assertEqual(os.stat(self.disk).st_size, MIB)
        self.stop(server)
        self.assertNotIn(self.folder, mounts())

    def test_another_mount_is_refused(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount")
        self.make("disk.img", b"")
        self.make("other", b"mounted")
        self.tool("mount", "--bind", "other", "disk.img")
        self.addCleanup(self.tool, "umount", self.disk)
        self.refuse_matching(1, "cannot show device as file: .*: something is mounted there already, of type .*",
                             "serve", "--ram", "1M", "--fuse", "disk.img")
        self.assertEqual(self.content("disk.img"), b"mounted")

    # --- ends ---

    def test_it_ends_while_the_file_is_open(self):
        server = self.layer()
        file = self.open()
        os.pwrite(file, b"kept" * 128, 0)
        self.stop(server)
        self.assertFalse(os.path.exists(self.disk))
        with self.assertRaises(OSError):
            os.pread(file, 512, 0)
        with self.assertRaises(OSError):
            os.fsync(file)
        server = self.layer()
        self.assertEqual(os.pread(self.open(), 512, 0), b"kept" * 128)

    def test_a_killed_process_s_mount_is_replaced(self):
        rng = random.Random(seed_of(self.id()))
        server = self.layer()
        model = bytearray(self.content("disk.img"))
        for _ in range(3):
            file = self.open()
            for _ in range(100):
                self.change(file, model, rng)
            self.assertEqual(server.stop(signal.SIGKILL), (-signal.SIGKILL, ""))
            self.fails(errno.ENOTCONN, os.stat, self.disk)
            self.close(file)
            server = self.layer()
            self.assertEqual(self.content("disk.img"), model)
            self.assertEqual(mounts().count(self.disk), 1)
        self.stop(server)
        self.assertNotIn(self.folder, mounts())

    def test_unmounted_by_somebody_else(self):
        server = self.show("--ram", "1M", "--name", "ram")
        self.tool("umount", self.disk)
        while "unmounted" not in (line := server.process.stderr.readline()):
            self.assertTrue(line, "nothing is said")
        self.assertIn("ram: the file that shows it was unmounted", line)
        self.assertIn("writable", self.succeed("list"))
        self.assertEqual(server.stop(), (0, ""))

    def write_until_paused(self):
        writer = subprocess.Popen(["dd", "if=/dev/urandom", f"of={self.disk}", "bs=64k", "conv=notrunc"],
                                  stderr=subprocess.PIPE, text=True, env=self.environment)
        self.addCleanup(writer.stderr.close)
        deadline = time.monotonic() + 30
        while json.loads(self.succeed("status", "--json", "ram"))["state"] != "paused":
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        return writer

    def test_it_ends_while_the_device_pauses(self):
        server = self.show("--ram", "8M", "--budget", "1M", "--name", "ram")
        writer = self.write_until_paused()
        self.assertEqual(server.stop()[0], 0)
        _, errors = writer.communicate(timeout=30)
        self.assertEqual(writer.returncode, 1)
        self.assertIn("No space left on device", errors)

    def test_a_write_that_waits_holds_no_other_up(self):
        if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 2):
            self.skipTest("this kernel sends writes to a file one after the other")
        server = self.show("--ram", "8M", "--budget", "1M", "--name", "ram")
        writer = self.write_until_paused()
        file = self.open()
        self.addCleanup(writer.kill)
        other = threading.Thread(target=os.pwrite, args=(file, b"o" * 64 * KIB, 0), daemon=True)
        other.start()
        other.join(60)
        self.assertFalse(other.is_alive())
        self.assertEqual(os.pread(file, 3, 0), b"ooo")
        writer.kill()
        writer.wait(30)
        status, errors = server.stop()
        self.assertEqual(status, 0, errors)

    def test_a_process_that_is_killed_waits_for_no_room(self):
        # The device pauses when its budget is used up; who writes can still be killed.
        server = self.show("--ram", "8M", "--budget", "1M", "--name", "ram")
        writer = self.write_until_paused()
        writer.kill()
        self.assertEqual(writer.wait(30), -signal.SIGKILL)
        status, errors = server.stop()
        self.assertEqual(status, 0, errors)

    # --- who may ---

    def test_somebody_who_is_not_root(self):
        if os.geteuid() != 0:
            self.skipTest("the other tests do that")
        helper = shutil.which("fusermount3")
        if helper is None or not os.stat(helper).st_mode & stat.S_ISUID:
            self.skipTest("no fusermount3 with the rights of root")
        if subprocess.run(["test", "-x", OXBOW], user=NOBODY, group=NOBODY, extra_groups=[], check=False).returncode:
            self.skipTest("others can't run this oxbow")
        if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
            self.skipTest("/dev/fuse is for root alone")
        os.chown(self.folder, NOBODY, NOBODY)
        process = subprocess.Popen([OXBOW, "serve", "--ram", "1M", "--fuse", "disk.img"], cwd=self.folder,
                                   env=self.environment, user=NOBODY, group=NOBODY, extra_groups=[], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), f"file://{self.disk}\n")
        script = 'printf mine | dd of="$0" conv=notrunc,fsync status=none && stat -c %s "$0" && head -c 4 "$0"'
        done = subprocess.run(["sh", "-c", script, self.disk], user=NOBODY, group=NOBODY, extra_groups=[],
                              capture_output=True, text=True, check=False)
        self.assertEqual((done.stdout, done.stderr), (f"{MIB}\nmine", ""))
        self.fails(errno.EACCES, os.open, self.disk, os.O_RDONLY)  # even root: it is that user's alone
        process.terminate()
        self.assertEqual(process.wait(30), 0)
        self.assertNotIn(self.folder, mounts())
        self.assertFalse(os.path.exists(self.disk))

    def test_the_helper_is_missing(self):
        if os.geteuid() != 0:
            self.skipTest("its user is made by root")
        if subprocess.run(["test", "-x", OXBOW], user=NOBODY, group=NOBODY, extra_groups=[], check=False).returncode:
            self.skipTest("others can't run this oxbow")
        os.chown(self.folder, NOBODY, NOBODY)
        done = subprocess.run([OXBOW, "serve", "--ram", "1M", "--fuse", "disk.img"], cwd=self.folder, text=True,
                              env=dict(self.environment, PATH=self.folder), user=NOBODY, group=NOBODY,
                              extra_groups=[], capture_output=True, timeout=60, check=False)
        self.assertEqual(done.stderr, f"oxbow: cannot show device as file: {self.disk}: it takes fusermount3, which is "
                                      "not there (package fuse3)\n")
        self.assertEqual(done.returncode, 1)
        self.assertFalse(os.path.exists(self.disk))

    # --- a block device over it ---

    def attach_loop(self):
        loop = self.tool("losetup", "--find", "--show", "--direct-io=on", self.disk).strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", loop], env=TOOLS, check=False,
                        stderr=subprocess.DEVNULL)
        return loop

    def need_loop(self):
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            self.skipTest("no loop devices for this user")

    def mount(self, loop):
        folder = self.path("mounted")
        os.makedirs(folder, exist_ok=True)
        self.tool("mount", loop, folder)
        self.addCleanup(subprocess.run, ["umount", "-l", folder], env=TOOLS, check=False, stderr=subprocess.DEVNULL)
        return folder

    def test_a_filesystem_on_a_loop_device_over_it(self):
        self.need_loop()
        server = self.show("--ram", "256M", "--name", "ram")
        loop = self.attach_loop()
        self.assertEqual(int(self.tool("blockdev", "--getsize64", loop)), 256 * MIB)
        self.tool("mke2fs", "-q", "-t", "ext4", loop)
        folder = self.mount(loop)
        shutil.copytree(os.path.join(SOURCE, "src"), os.path.join(folder, "src"))
        self.tool("umount", folder)
        self.tool("e2fsck", "-fn", loop)
        self.mount(loop)
        self.tool("diff", "-r", os.path.join(SOURCE, "src"), os.path.join(folder, "src"))
        shutil.rmtree(os.path.join(folder, "src"))
        self.assertRegex(self.tool("fstrim", "-v", folder), r"\d+ bytes\) trimmed")
        self.tool("umount", folder)
        self.tool("e2fsck", "-fn", loop)
        self.tool("losetup", "--detach", loop)
        counted = json.loads(self.succeed("status", "--json", "ram"))["statistics"]
        self.assertGreater(counted["flushes"], 0)
        self.assertGreater(counted["zeroed_bytes"], 100 * MIB)
        self.stop(server)

    def test_a_read_only_loop_device(self):
        self.need_loop()
        server = self.layer("--read-only")
        loop = self.attach_loop()
        self.assertEqual(self.tool("blockdev", "--getro", loop).strip(), "1")
        self.tool("losetup", "--detach", loop)
        self.stop(server)

    def test_a_failed_flush_reaches_a_mounted_filesystem(self):
        self.need_loop()
        below = self.serve("--ram", "64M", "--name", "ram", "--fuse", "below.img")
        server = self.serve("--file", "below.img", "--fuse", "disk.img")
        loop = self.attach_loop()
        self.tool("mke2fs", "-q", "-t", "ext4", loop)
        folder = self.mount(loop)
        with open(os.path.join(folder, "file"), "wb", buffering=0) as file:
            file.write(b"before")
            os.fsync(file)
            self.assertEqual(below.stop(signal.SIGKILL), (-signal.SIGKILL, ""))
            file.write(b"after")
            self.fails(errno.EIO, os.fsync, file)
        self.tool("umount", folder)
        self.tool("losetup", "--detach", loop)
        self.assertEqual(server.stop()[0], 1)

    def test_killed_under_a_mounted_filesystem(self):
        self.need_loop()
        self.make("golden64.img", 64 * MIB)
        self.succeed("create", "--base", "golden64.img", "work.oxb")
        server = self.layer()
        loop = self.attach_loop()
        self.tool("mke2fs", "-q", "-t", "ext4", loop)
        folder = self.mount(loop)
        with open(os.path.join(folder, "file"), "wb", buffering=0) as file:
            file.write(b"flushed" * 10000)
            os.fsync(file)
        self.assertEqual(server.stop(signal.SIGKILL), (-signal.SIGKILL, ""))
        self.tool("umount", "-l", folder)
        self.tool("losetup", "--detach", loop)
        server = self.layer()
        loop = self.attach_loop()
        self.mount(loop)
        with open(os.path.join(folder, "file"), "rb") as file:
            self.assertEqual(file.read(), b"flushed" * 10000)
        self.tool("umount", folder)
        self.tool("e2fsck", "-fn", loop)
        self.tool("losetup", "--detach", loop)
        self.stop(server)


if __name__ == "__main__":
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip("no /dev/fuse for this user on this machine")
    if os.geteuid() != 0:
        need("fusermount3")
    need("cmp")
    main()
