#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""RAM disks: resized and emptied while they are served, memory given back, and how much of it they take."""

import contextlib
import json
import os
import random
import struct
import subprocess
import threading
import time

import clients
from nbd_client import READ, WRITE, EINVAL, ENOSPC, NbdClient, NbdError
from oxbow_test import OXBOW, CommandTest

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 4 * KIB
SANITIZED = "OXBOW_SANITIZE" in os.environ


class RamDiskTest(CommandTest):
    def serve_ram(self, size, *options, name="ram"):
        return self.serve("--ram", str(size), "--name", name, *options)

    def connect(self, server, export=b"", **how):
        client = NbdClient(clients.socket_of(server.uri), export, **how)
        self.addCleanup(client.socket.close)
        return client

    def stop(self, server):
        self.assertEqual(server.stop(), (0, ""))

    def status(self, name="ram"):
        return json.loads(self.succeed("status", "--json", name))

    def allocated(self, name="ram"):
        return self.status(name)["table"][0]["chain"][0]["allocated"]

    def memory_of(self, server):
        """Bytes of the pages in the RAM disks of a process, as the kernel counts them."""
        folder, total = f"/proc/{server.process.pid}/fd", 0
        for descriptor in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # the socket of a client that has just left
                if os.readlink(f"{folder}/{descriptor}").startswith("/memfd:oxbow-ram"):
                    total += os.stat(f"{folder}/{descriptor}").st_blocks * 512
        return total

    def let_go(self, client, name="ram"):
        """The client goes, and the server has noticed."""
        client.socket.close()
        until = time.monotonic() + 60
        while self.status(name)["clients"]:
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)

    def test_resizing_a_ram_disk_while_clients_write_loses_and_fails_nothing(self):
        server = self.serve_ram(16 * MIB)
        path = clients.socket_of(server.uri)
        stop, wrong, models, rounds = threading.Event(), [], [{} for _ in range(3)], [0] * 3

        def use(number):
            bytes_of, model = random.Random(number), models[number]
            try:
                with NbdClient(path) as client:
                    while not stop.is_set():
                        at = (number * 4 * MIB) + bytes_of.randrange(32) * 128 * KIB
                        # Long enough to be received straight into the disk's memory.
                        model[at] = bytes_of.randbytes(128 * KIB)
                        client.write(at, model[at])
                        at = bytes_of.choice(list(model))
                        if client.read(at, 128 * KIB) != model[at]:
                            raise AssertionError(f"byte {at} is not what was written")
                        client.flush()
                        rounds[number] += 1
            except Exception as error:  # pylint: disable=broad-exception-caught
                wrong.append(error)

        users = [threading.Thread(target=use, args=(number,)) for number in range(3)]
        for user in users:
            user.start()
        for step in range(1, 17):
            self.succeed("resize", "ram", str(16 * MIB + step * 64 * MIB))
        stop.set()
        for user in users:
            user.join()
        self.assertEqual(wrong, [])
        self.assertTrue(all(rounds), rounds)
        client = self.connect(server)
        self.assertEqual(client.size, 16 * MIB + 16 * 64 * MIB)
        for model in models:
            for at, data in model.items():
                self.assertEqual(client.read(at, len(data)), data)
        self.assertEqual(client.read(client.size - MIB, MIB), bytes(MIB))
        self.stop(server)

    def test_a_client_may_use_what_a_ram_disk_has_grown_by(self):
        server = self.serve_ram(MIB)
        client = self.connect(server)
        with self.assertRaises(NbdError) as caught:
            client.read(MIB, 512)
        self.assertEqual(caught.exception.number, EINVAL)
        self.succeed("resize", "ram", "64G")
        client.write(63 * GIB, b"n" * 512)
        self.assertEqual(client.read(63 * GIB - 512, 1024), bytes(512) + b"n" * 512)
        self.assertEqual((self.status()["size"], self.memory_of(server)), (64 * GIB, PAGE))
        self.stop(server)

    def test_shrinking_is_refused_while_a_client_has_it_open(self):
        server = self.serve_ram(8 * MIB)
        client = self.connect(server)
        client.write(0, b"a" * 8 * MIB)
        who = f"process {os.getpid()} of user {os.getuid()}"
        busy = "cannot resize device: ram: Device or resource busy, and it is about to shrink: 1 client has it open: "
        self.refuse(1, busy + who, "resize", "ram", "1M")
        self.assertEqual(client.read(8 * MIB - 512, 512), b"a" * 512)
        self.let_go(client)
        self.succeed("resize", "ram", str(MIB + 512))
        self.assertEqual((self.status()["size"], self.allocated()), (MIB + 512, MIB + PAGE))
        self.assertEqual(self.memory_of(server), MIB + PAGE)
        self.succeed("resize", "ram", "2M")
        again = self.connect(server)
        self.assertEqual((again.size, again.read(0, 2 * MIB)), (2 * MIB, b"a" * (MIB + 512) + bytes(MIB - 512)))
        self.stop(server)

    def test_clearing_is_busy_while_a_client_has_it_open(self):
        server = self.serve_ram(8 * MIB)
        client, other = self.connect(server), self.connect(server)
        client.write(5, b"a" * 4 * MIB)
        who = f"process {os.getpid()} of user {os.getuid()}"
        why = "cannot clear device: ram: Device or resource busy: "
        self.refuse(1, f"{why}2 clients have it open: {who}, {who}", "clear", "ram")
        other.disconnect()
        other.socket.close()
        until = time.monotonic() + 60
        while len(self.status()["clients"]) > 1:
            self.assertLess(time.monotonic(), until)
        self.refuse(1, f"{why}1 client has it open: {who}", "clear", "ram")
        self.assertEqual(client.read(5, MIB), b"a" * MIB)
        self.let_go(client)
        self.succeed("clear", "ram")
        self.assertEqual((self.allocated(), self.memory_of(server)), (0, 0))
        again = self.connect(server)
        self.assertEqual(again.read(0, 8 * MIB), bytes(8 * MIB))
        again.write(4096, b"n" * 100)
        self.assertEqual(again.read(4000, 300), bytes(96) + b"n" * 100 + bytes(104))
        self.stop(server)

    def test_an_open_file_forbids_what_a_client_does(self):
        if not os.path.exists("/dev/fuse") or os.getuid() != 0:
            self.skipTest("no right to mount with FUSE on this machine")
        server = self.serve("--ram", "8M", "--name", "ram", "--fuse", "disk.img")
        busy = f"Device or resource busy, and it is about to shrink: file://{self.path('disk.img')} is open"
        with open(self.path("disk.img"), "r+b", buffering=0) as file:
            file.write(b"a" * MIB)
            self.refuse(1, "cannot clear device: ram: " + busy.replace(", and it is about to shrink", ""),
                        "clear", "ram")
            self.refuse(1, f"cannot resize device: ram: {busy}", "resize", "ram", "4K")
            self.succeed("resize", "ram", "16M")
            self.assertEqual(os.fstat(file.fileno()).st_size, 16 * MIB)
        until = time.monotonic() + 60
        while self.run_oxbow("clear", "ram").returncode != 0:  # the kernel tells a moment after the close
            self.assertLess(time.monotonic(), until)
        self.assertEqual(self.memory_of(server), 0)
        self.succeed("resize", "ram", "4K")
        with open(self.path("disk.img"), "rb") as file:
            self.assertEqual(file.read(), bytes(4 * KIB))
        self.stop(server)

    def test_clearing_a_preallocated_one_keeps_its_memory(self):
        server = self.serve_ram(4 * MIB, "--prealloc")
        client = self.connect(server)
        client.write(0, b"a" * 4 * MIB)
        self.let_go(client)
        self.succeed("clear", "ram")
        self.assertEqual((self.allocated(), self.memory_of(server)), (4 * MIB, 4 * MIB))
        self.assertEqual(self.connect(server).read(0, 4 * MIB), bytes(4 * MIB))
        self.stop(server)

    def need_address_space(self):
        if clients.THREAD_SANITIZED:
            self.skipTest("the thread sanitizer leaves no address space for this")

    def test_clients_that_come_while_it_is_cleared_lose_nothing(self):
        if clients.THREAD_SANITIZED:
            self.skipTest("the thread sanitizer doesn't see the order of its clients")
        server = self.serve_ram(16 * MIB)
        path = clients.socket_of(server.uri)
        stop, wrong = threading.Event(), []

        def use():
            try:
                while not stop.is_set():
                    with NbdClient(path) as client:
                        for at in range(0, 4 * MIB, MIB):
                            client.write(at, b"w" * MIB)
                        if client.read(0, 4 * MIB) != b"w" * 4 * MIB:
                            raise AssertionError("it was cleared while it was open")
                        client.disconnect()
            except Exception as error:  # pylint: disable=broad-exception-caught
                wrong.append(error)

        user = threading.Thread(target=use)
        user.start()
        outcomes = {0: 0, 1: 0}
        for _ in range(40):
            outcomes[self.run_oxbow("clear", "ram").returncode] += 1
        stop.set()
        user.join()
        self.assertEqual(wrong, [])
        print(f"cleared {outcomes[0]} times, busy {outcomes[1]} times")
        self.stop(server)

    def test_a_full_one_that_pauses_is_left_alone(self):
        server = self.serve_ram(GIB, "--budget", "64K")
        client, other = self.connect(server), self.connect(server)
        client.write(0, b"a" * 64 * KIB)
        client.submit(WRITE, MIB, PAGE, b"b" * PAGE)
        until = time.monotonic() + 60
        while self.status()["state"] != "paused":
            self.assertLess(time.monotonic(), until)
        why = "changes of it wait for room in its budget: discard something first"
        self.refuse(1, f"cannot resize device: ram: {why}", "resize", "ram", "2G")
        self.refuse(1, f"cannot clear device: ram: {why}", "clear", "ram")
        other.trim(0, 64 * KIB)
        self.assertEqual(client.wait()[1], 0)
        self.succeed("resize", "ram", "2G")
        self.assertEqual(json.loads(self.succeed("watch", "--json", "ram"))["total"], 64 * KIB)
        self.assertEqual(other.read(MIB, PAGE), b"b" * PAGE)
        status, log = server.stop()
        self.assertEqual((status, log.count("\n"), "there is room again" in log), (0, 2, True), log)

    def test_what_is_refused(self):
        server = self.serve_ram(MIB)
        self.refuse(1, "cannot resize device: ram: the size must not be 0", "resize", "ram", "0")
        self.refuse(1, "cannot resize device: ram: it does not fit into this process's address space, or into memory",
                    "resize", "ram", "1000000T")
        self.assertEqual((self.status()["size"], self.status()["state"]), (MIB, "writable"))
        self.stop(server)
        server = self.serve_ram(MIB, "--read-only")
        self.refuse(1, "cannot resize device: ram: it is read-only", "resize", "ram", "2M")
        self.refuse(1, "cannot clear device: ram: it is read-only", "clear", "ram")
        self.stop(server)
        with open(self.path("disk.img"), "wb") as file:
            file.truncate(MIB)
        server = self.serve("--file", "disk.img", "--name", "disk")
        self.refuse(1, "cannot clear device: disk: it is not a RAM disk", "clear", "disk")
        self.stop(server)

    def test_a_budget_is_no_more_than_there_is(self):
        self.need_address_space()
        server = self.serve_ram(32 << 40)
        space = json.loads(self.succeed("watch", "--json", "ram"))
        with open("/proc/meminfo", encoding="ascii") as file:
            total = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemTotal:"))
        self.assertLess(space["total"], total)
        self.assertEqual(space["available"], space["total"])
        self.stop(server)
        much = rf"{32 << 40} bytes, and memory has room for \d+"
        self.refuse_matching(1, rf"cannot open device: RAM disk: its budget is {much}", "serve", "--ram", "32T",
                             "--budget", "32T")
        self.refuse_matching(1, rf"cannot open device: RAM disk: preallocation takes {much}", "serve", "--ram",
                             "32T", "--prealloc")
        server = self.serve_ram(MIB, "--prealloc")
        self.refuse_matching(1, rf"cannot resize device: ram: preallocation takes {much}", "resize", "ram", "32T")
        self.succeed("resize", "ram", "3M")
        self.assertEqual(self.memory_of(server), 3 * MIB)
        self.stop(server)

    def limited_group(self, limit):
        """The folder of a new memory control group; skips where there can't be one."""
        for mount, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            folder = f"{mount}/oxbow-test-{os.getpid()}"
            try:
                os.mkdir(folder)
                self.addCleanup(os.rmdir, folder)
                with open(f"{folder}/{name}", "w", encoding="ascii") as file:
                    file.write(str(limit))
                return folder
            except OSError:
                continue
        return self.skipTest("no right to make a memory control group on this machine")

    def test_a_disk_larger_than_its_control_group_runs_out_of_room_not_of_memory(self):
        if SANITIZED:
            self.skipTest("a sanitizer has memory of its own")
        group = self.limited_group(96 * MIB)
        with open(self.path("in_group"), "w", encoding="ascii") as file:
            file.write(f'#!/bin/sh\necho $$ > {group}/cgroup.procs\nexec "$@"\n')
        os.chmod(self.path("in_group"), 0o755)
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen([self.path("in_group"), OXBOW, "serve", "--ram", "10G", "--on-full", "error"],
                                   cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        path = clients.socket_of(process.stdout.readline().strip())
        total = json.loads(self.succeed("watch", "--json", "ram"))["total"]
        self.assertTrue(32 * MIB <= total <= 64 * MIB, total)
        with NbdClient(path) as client:
            for at in range(0, total - total % MIB, MIB):
                client.write(at, b"a" * MIB)
            with self.assertRaises(NbdError) as caught:
                client.write(total, b"b" * MIB)
            self.assertEqual(caught.exception.number, ENOSPC)
            self.assertEqual(client.read(0, MIB), b"a" * MIB)
        process.terminate()
        self.assertEqual(process.wait(60), 0)

    def test_a_resized_one_has_the_budget_of_its_size(self):
        server = self.serve_ram(MIB, "--on-full", "error")
        self.succeed("resize", "ram", "3M")
        client = self.connect(server)
        client.write(0, b"a" * 3 * MIB)
        self.assertEqual(json.loads(self.succeed("watch", "--json", "ram"))["total"], 3 * MIB)
        self.stop(server)

    def test_a_discard_gives_pages_back_at_once(self):
        server = self.serve_ram(64 * MIB)
        client = self.connect(server)
        for at in range(0, 64 * MIB, 8 * MIB):
            client.write(at, b"a" * 8 * MIB)
        self.assertEqual((self.allocated(), self.memory_of(server)), (64 * MIB, 64 * MIB))
        client.trim(1, 32 * MIB - 1)
        self.assertEqual((self.allocated(), self.memory_of(server)), (32 * MIB + PAGE, 32 * MIB + PAGE))
        client.write_zeroes(32 * MIB, 32 * MIB)
        self.assertEqual((self.allocated(), self.memory_of(server)), (PAGE, PAGE))
        self.stop(server)

    def read_holes(self, client, at, length):
        """A read that has to be answered with nothing but holes; returns how many bytes they stand for."""
        client.submit(READ, at, length)
        holes, last = 0, False
        while not last:
            _, flags, kind, _, size = struct.unpack(">IHHQI", client.take(20))
            payload = client.take(size)
            self.assertIn((kind, size), ((0, 0), (2, 12)), "no hole")
            holes += struct.unpack(">I", payload[8:])[0] if kind == 2 else 0
            last = flags & 1
        return holes

    def test_reading_64_gib_of_a_sparse_disk_allocates_nothing(self):
        server = self.serve_ram(64 * GIB)
        client = self.connect(server, structured=True)
        before = own_memory(server)
        step = 32 * MIB
        self.assertEqual(sum(self.read_holes(client, at, step) for at in range(0, 64 * GIB, step)), 64 * GIB)
        plain = self.connect(server)
        for at in range(0, GIB, step):
            self.assertEqual(plain.read(at, step), bytes(step))
        self.assertEqual((self.allocated(), self.memory_of(server)), (0, 0))
        grown = own_memory(server) - before
        print(f"reading 64 GiB took {grown >> 10} KiB of other memory")
        if not SANITIZED:
            self.assertLess(grown, 64 * MIB)  # buffers, whatever the size of the disk
        self.stop(server)

    def test_64_ram_disks_in_one_process_take_under_64_mib(self):
        self.need_address_space()
        with open(self.path("disks.toml"), "w", encoding="ascii") as file:
            for number in range(64):
                file.write(f'[[device]]\nname = "ram{number}"\nram = "64G"\n')
        server = self.serve("--config", "disks.toml")
        for number in range(64):
            with NbdClient(clients.socket_of(server.uri), f"ram{number}".encode()) as client:
                client.write(number * GIB, struct.pack(">Q", number) * 512)
                self.assertEqual(client.read(number * GIB, 8), struct.pack(">Q", number))
        self.assertEqual(self.memory_of(server), 64 * PAGE)
        taken, resident = own_memory(server), status_of(server, "VmRSS")
        print(f"64 RAM disks: {taken >> 10} KiB of own memory, {resident >> 10} KiB resident")
        if not SANITIZED:
            self.assertLess(resident, 64 * MIB)
        self.stop(server)


def status_of(server, *names):
    """The sum of some lines of /proc/PID/status, in bytes."""
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.split(":")[0] in names)


def own_memory(server):
    """Bytes of a process's own memory: anonymous and shared pages, without the program's code."""
    return status_of(server, "RssAnon", "RssShmem")


if __name__ == "__main__":
    clients.main()
