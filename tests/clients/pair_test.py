#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pairs of cowloop that are served: what clients write is there, also after a kill, and an independent reader of the
format finds it; what a sync, a close and a reopening leave; what is refused."""

import glob
import json
import os
import random
import subprocess
import threading
import time

import nbd_client as nbd
from clients import KIB, LiveClientTest, MIB, main, need, seed_of
from cowloop_file import BLOCK, Cowfile, DIRTY, PACKED, fingerprint
from traced import traceable

MARKED = (1 << 64) - 1


class PairTest(LiveClientTest):
    SIZE = 8 * MIB + 1024

    def serve_pair(self, *more, cowfile="cow"):
        return self.serve("--cowloop", "golden.img", cowfile, "--live", self.live, *more)

    def head(self, name="cow"):
        """Flags and cowused."""
        head = self.content(name)[:64]
        width = 8 if head[8:16] == BLOCK.to_bytes(8, "little") else 4
        used = int.from_bytes(head[8 + 5 * width:8 + 6 * width], "little")
        return head[6], used

    def shown(self, name="cow"):
        """What the original would show, from the description of the format."""
        base, cow = self.content("golden.img"), self.content(name)
        parts = Cowfile(base)
        image = bytearray(base[:parts.rdoblocks * BLOCK])
        for block in range(parts.rdoblocks):
            if cow[BLOCK + block // 8] >> block % 8 & 1:
                at = parts.doffset + block * BLOCK
                image[block * BLOCK:(block + 1) * BLOCK] = cow[at:at + BLOCK].ljust(BLOCK, b"\0")
        return bytes(image)

    def assert_clean(self, name="cow"):
        base, cow = self.content("golden.img"), self.content(name)
        parts = Cowfile(base)
        used = int.from_bytes(cow[BLOCK:BLOCK + parts.mapsize], "little").bit_count()
        self.assertEqual(cow[:BLOCK], parts.head(flags=0, used=used))

    def read_all(self, server):
        return self.connect(server).read(0, self.SIZE)


class ServedTest(PairTest):
    def test_a_cowfile_is_made_where_there_is_none_or_an_empty_one(self):
        self.make("empty", 0)
        for name in ("cow", "empty"):
            server = self.serve_pair(cowfile=name)
            self.assertTrue(self.read_all(server) == self.content("golden.img"))
            self.connect(server).write(5 * KIB + 512, b"1" * 1024)
            self.stop(server)
            self.assert_clean(name)
            self.assertEqual(self.head(name), (0, 2))

    def test_the_layout_of_32_bit_machines_on_request(self):
        server = self.serve_pair("--cowfile-32bit")
        self.connect(server).write(0, b"1" * 1024)
        self.stop(server)
        self.assertEqual(self.content("cow")[:64],
                         Cowfile(self.content("golden.img"), width=4).head(used=1)[:64])

    def test_an_independent_reader_finds_what_was_flushed(self):
        seed = seed_of(self.id())
        dice = random.Random(seed)
        model = bytearray(self.content("golden.img"))
        server = self.serve_pair()
        client = self.connect(server)
        for _ in range(12):
            for _ in range(40):
                unit = dice.choice((1, 512, 512, 1024))
                at = dice.randrange(self.SIZE // unit) * unit
                length = min(dice.randrange(1, 60) * unit, self.SIZE - at)
                data = dice.choice((bytes(length), dice.randbytes(length)))
                if data.strip(b"\0"):
                    client.write(at, data)
                else:
                    client.write_zeroes(at, length, flags=dice.choice((0, nbd.NO_HOLE)))
                model[at:at + length] = data
            client.flush()
            self.assertTrue(self.shown() == bytes(model))
            if dice.randrange(2):
                self.succeed("sync", "cow")
                self.assert_clean()
                self.assertTrue(self.shown() == bytes(model))
        self.assertTrue(self.read_all(server) == bytes(model))
        self.stop(server)
        self.assert_clean()
        self.assertTrue(self.shown() == bytes(model))

    def test_as_a_line_of_a_table(self):
        self.stop(self.serve_pair())
        self.make("table", f"0 8192 cowloop golden.img cow 2\n8192 2 cowloop golden.img cow\n".encode())
        server = self.serve("--table", "table", "--name", "pair", "--live", self.live)
        client = self.connect(server)
        self.assertEqual(client.read(0, 512), self.content("golden.img")[1024:1536])
        client.write(0, b"1" * 512)
        client.write(4 * MIB, b"2" * 512)
        self.assertIn(f"0 8192 cowloop {self.path('golden.img')} {self.path('cow')} 2\n", self.succeed("table", "pair"))
        self.succeed("sync", "pair")
        self.assert_clean()
        self.stop(server)
        self.assertEqual(self.head(), (0, 2))
        self.assertEqual(self.shown()[1024:1536], b"1" * 512)
        self.assertEqual(self.shown()[:512], b"2" * 512)

    def test_what_is_cut_off_is_told(self):
        self.make("odd.img", self.content("golden.img") + b"x" * 700)
        server = self.serve("--cowloop", "odd.img", "cow", "--live", self.live)
        self.assertEqual(self.connect(server).size, self.SIZE)
        status, errors = server.stop()
        self.assertEqual(status, 0)
        self.assertIn("odd.img: its last 700 bytes are no whole block of 1024 and are not part of the device", errors)


class ControlTest(PairTest):
    def test_sync_leaves_a_clean_head_and_goes_on(self):
        server = self.serve_pair()
        client = self.connect(server)
        client.write(0, b"1" * 3000)
        self.assertEqual(self.head(), (DIRTY, MARKED))
        self.succeed("sync", "cow")
        self.assert_clean()
        self.assertEqual(self.head(), (0, 3))
        client.write(100 * KIB, b"2" * 1024)
        self.assertEqual(self.head(), (DIRTY, MARKED))
        self.stop(server)
        self.assertEqual(self.head(), (0, 4))

    def test_syncs_under_load_lose_and_fail_nothing(self):
        server = self.serve_pair()
        done = threading.Event()
        written = []

        def write():
            client = self.connect(server)
            for block in range(3000):
                client.write(block * BLOCK, bytes([block % 255 + 1]) * BLOCK)
                written.append(block)
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        syncs = 0
        while not done.is_set():
            self.succeed("sync", "cow")
            syncs += 1
        writer.join()
        self.assertGreater(syncs, 0)
        self.assertEqual(len(written), 3000)
        self.stop(server)
        self.assert_clean()
        self.assertEqual(self.head(), (0, 3000))
        shown = self.shown()
        for block in range(3000):
            self.assertEqual(shown[block * BLOCK], block % 255 + 1)

    def test_close_lets_go_of_the_files_and_reopen_reads_again(self):
        server = self.serve_pair()
        client = self.connect(server)
        client.write(0, b"1" * 1024)
        self.succeed("close", "cow")
        self.assert_clean()
        self.assertEqual(os.listdir(self.live), [])
        links = [os.readlink(link) for link in glob.glob(f"/proc/{server.process.pid}/fd/*") if os.path.islink(link)]
        self.assertNotIn(self.path("cow"), links)
        self.assertNotIn(self.path("golden.img"), links)
        with self.assertRaises(nbd.NbdError):
            client.read(0, 512)
        self.succeed("reopen-ro", "cow")
        self.assertEqual(client.read(0, 1024), b"1" * 1024)
        with self.assertRaises(nbd.NbdError):
            client.write(0, b"2" * 512)
        self.stop(server)
        self.assertEqual(self.head(), (0, 1))

    def test_reopen_read_only_while_it_is_written(self):
        server = self.serve_pair()
        client = self.connect(server)
        client.write(0, b"1" * 1024)
        self.succeed("reopen-ro", "cow")
        self.assert_clean()
        self.assertEqual(client.read(0, 1024), b"1" * 1024)
        with self.nothing_written():
            self.assertEqual(client.read(4096, 1024), self.content("golden.img")[4096:5120])
        self.stop(server)

    def test_status_and_space(self):
        server = self.serve_pair()
        client = self.connect(server)
        client.write(0, b"1" * 5000)
        client.read(0, 1000)
        client.read(100 * KIB, 512)
        status = json.loads(self.succeed("status", "--json", "cow"))
        pair, base = status["table"][0]["chain"]
        self.assertEqual((pair["format"], pair["used"], pair["state"], pair["cluster"]), ("cowloop", 5, "dirty", 1024))
        self.assertEqual((base["format"], base["used"], base["state"]), ("raw", None, None))
        self.assertEqual(status["table"][0]["info"], f"5/{self.SIZE // BLOCK} dirty")
        counted = status["statistics"]
        # The write was completed from the read-only file.
        self.assertEqual((counted["own_reads"], counted["below_reads"], counted["writes"]), (1, 2, 1))
        self.assertEqual(len(status["clients"]), 1)
        text = self.succeed("status", "cow")
        self.assertIn("1 pieces of its own, 2 from below", text)
        self.assertIn(f"5 of {self.SIZE // BLOCK} blocks in use, dirty", text)
        self.succeed("sync", "cow")
        self.assertIn("blocks in use, clean", self.succeed("status", "cow"))
        total, available = self.succeed("watch", "cow").split()[:2]
        self.assertTrue(total and available)
        self.stop(server)


class ReadOnlyTest(PairTest):
    def test_what_is_only_read_is_left_alone(self):
        base = self.content("golden.img")
        self.make("cow", Cowfile(base, {3: b"1" * BLOCK}).file())
        with self.nothing_written():
            server = self.serve_pair("--read-only")
            self.assertEqual(self.connect(server).read(3 * BLOCK, BLOCK), b"1" * BLOCK)
            os.rename(self.path("cow"), self.path("other"))
            os.rename(self.path("other"), self.path("cow"))
            self.stop(server)

    def test_a_read_only_one_is_not_made(self):
        self.assertIn("cannot open cowfile: cow: No such file or directory",
                      self.run_oxbow("serve", "--cowloop", "golden.img", "cow", "--read-only").stderr)
        self.assertFalse(os.path.exists(self.path("cow")))

    def test_after_a_kill_it_shows_what_was_answered_and_writes_nothing(self):
        server = self.serve_pair()
        self.connect(server).write(0, b"1" * 1024)
        self.kill(server)
        before = self.content("cow")
        server = self.serve_pair("--read-only")
        self.assertEqual(self.connect(server).read(0, 1024), b"1" * 1024)
        self.stop(server)
        self.assertEqual(self.content("cow"), before)
        server = self.serve_pair()
        self.assertEqual(self.connect(server).read(0, 1024), b"1" * 1024)
        self.stop(server)
        self.assert_clean()


class KilledTest(PairTest):
    def test_what_was_answered_is_there_after_a_kill(self):
        seed = seed_of(self.id())
        server = self.serve_pair()
        model = bytearray(self.content("golden.img"))
        share = MIB

        def work(number):
            dice = random.Random(seed + number)
            client = self.connect(server)
            for _ in range(150):
                at = number * share + dice.randrange(share - 70 * KIB)
                length = dice.randrange(1, 64 * KIB)
                kind = dice.randrange(4)
                data = dice.randbytes(length) if kind < 2 else bytes(length)
                if kind < 2:
                    client.write(at, data)
                elif kind == 2:
                    client.write_zeroes(at, length, flags=dice.choice((0, nbd.NO_HOLE)))
                else:
                    at, length = at // BLOCK * BLOCK, length // BLOCK * BLOCK
                    data = bytes(length)
                    if length:
                        client.trim(at, length)
                model[at:at + length] = data

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.kill(server)
        self.assertEqual(self.head(), (DIRTY, MARKED))
        for _ in range(2):  # the second time nothing was written since
            server = self.serve_pair()
            self.assertTrue(self.read_all(server) == bytes(model))
            self.kill(server)
        server = self.serve_pair()
        self.connect(server).flush()
        self.assertTrue(self.shown() == bytes(model))
        self.stop(server)
        self.assertEqual(os.listdir(self.live), [])
        self.assert_clean()
        self.assertTrue(self.shown() == bytes(model))

    def test_kills_under_load_lose_nothing_that_was_answered(self):
        seed = seed_of(self.id())
        dice = random.Random(seed)
        share = 2 * MIB  # of each client
        answered = [bytearray(self.content("golden.img")[number * share:(number + 1) * share]) for number in range(4)]
        pending = [None] * 4

        def work(number, client, own):
            try:
                while True:
                    unit = own.choice((512, 1024, 4096))
                    at = own.randrange(share // unit - 8) * unit
                    data = own.choice((bytes(unit), own.randbytes(unit * own.randrange(1, 8))))
                    pending[number] = (at, data)
                    if own.randrange(20) == 0:
                        client.flush()
                    client.write(number * share + at, data)
                    answered[number][at:at + len(data)] = data
                    pending[number] = None
            except (nbd.NbdError, OSError):
                pass

        for _ in range(8):
            server = self.serve_pair()
            threads = [threading.Thread(target=work, args=(number, self.connect(server), random.Random(dice.random())))
                       for number in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(dice.random() * 0.5)
            if dice.randrange(3) == 0:
                self.succeed("sync", "cow")
            self.kill(server)
            for thread in threads:
                thread.join()
            server = self.serve_pair()
            found = self.read_all(server)
            for number in range(4):
                got = found[number * share:(number + 1) * share]
                if pending[number] is not None:  # each of its sectors may be there
                    at, data = pending[number]
                    for sector in range(at, at + len(data), 512):
                        if got[sector:sector + 512] == data[sector - at:sector - at + 512]:
                            answered[number][sector:sector + 512] = got[sector:sector + 512]
                    pending[number] = None
                self.assertTrue(got == bytes(answered[number]), f"client {number}")
            self.kill(server)
        server = self.serve_pair()
        self.stop(server)
        self.assert_clean()
        self.assertTrue(self.shown()[:4 * share] == b"".join(answered))

    def test_a_missing_live_file_is_refused_and_can_be_given_up(self):
        server = self.serve_pair()
        client = self.connect(server)
        client.write(0, b"1" * 1024)
        client.flush()
        client.write(4096, b"2" * 1024)
        self.kill(server)
        live, = glob.glob(self.live + "/*.live")
        os.unlink(live)
        done = self.run_oxbow("serve", "--cowloop", "golden.img", "cow", "--live", self.live)
        self.assertEqual((done.returncode, done.stderr), (1, (
            "oxbow: cannot open cowfile: cow: it was not closed cleanly, and the live state that has its last writes "
            f"can't be used ({live}: No such file or directory); to give up what was written since the last flush: "
            "--discard-live\n")))
        server = self.serve_pair("--discard-live")
        client = self.connect(server)
        self.assertEqual(client.read(0, 1024), b"1" * 1024)
        self.assertEqual(client.read(4096, 1024), self.content("golden.img")[4096:5120])
        self.stop(server)
        self.assert_clean()

    def test_another_files_live_state_is_refused(self):
        server = self.serve_pair()
        self.connect(server).write(0, b"1" * 1024)
        self.kill(server)
        live, = glob.glob(self.live + "/*.live")
        with open(live, "r+b") as file:
            file.seek(16)  # of which session it is
            file.write(b"\0" * 16)
        done = self.run_oxbow("serve", "--cowloop", "golden.img", "cow", "--live", self.live)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"({live}: ", done.stderr)

    def test_without_live_state_what_was_flushed_survives(self):
        server = self.serve("--cowloop", "golden.img", "cow", "--live", "off", "--log-level", "error")
        client = self.connect(server)
        client.write(0, b"1" * 1024)
        client.write_zeroes(8192, 2048)
        client.flush()
        self.kill(server)
        server = self.serve_pair()
        client = self.connect(server)
        self.assertEqual(client.read(0, 1024), b"1" * 1024)
        self.assertEqual(client.read(8192, 2048), bytes(2048))
        self.stop(server)
        self.assertEqual(self.head(), (0, 3))


class RefusedTest(PairTest):
    def refused(self, why, *more):
        before = self.content("cow")
        self.refuse(1, f"cannot open cowfile: cow: {why}", "serve", "--cowloop", "golden.img", "cow", "--live",
                    self.live, *more)
        self.assertEqual(self.content("cow"), before)

    def test_what_is_no_cowfile_of_the_pair(self):
        base = self.content("golden.img")
        parts = Cowfile(base, {1: b"1" * BLOCK})
        good = parts.file()
        blocks = self.SIZE // BLOCK
        for head, why in (
                (dict(magic=1), "its magic is 0x00000001, and a cowfile's is 0x574f437f"),
                (dict(version=2), "its version is 2, and oxbow knows version 1 alone"),
                (dict(flags=PACKED, used=1), "it is packed: oxbow unpack makes a cowfile of it that can be used"),
                (dict(flags=DIRTY), "it is dirty: it was not closed, and its bitmap may lack blocks that were written; "
                                    "--repair, or oxbow repair, finds those that are not all zeros"),
                (dict(used=3), "its cowused is 3, and 1 bits of its bitmap are set"),
                (dict(fingerprint=fingerprint(base) ^ 1),
                 f"its rdofingerprint is {fingerprint(base) ^ 1:#010x}, and that of the read-only file golden.img is "
                 f"{fingerprint(base):#010x}: it is not the file that the cowfile belongs to, or it was changed"),
        ):
            self.make("cow", parts.head(**head) + good[BLOCK:])
            self.refused(why)
        longer = Cowfile(base, rdoblocks=blocks + 1)
        self.make("cow", longer.file())
        self.refused(f"its rdoblocks is {blocks + 1}, and the read-only file golden.img has {blocks} blocks of 1024 "
                     "bytes")

    def test_what_is_neither_file_nor_block_device(self):
        os.mkdir(self.path("folder"))
        self.refuse(1, "cannot open cowfile: folder: it is a directory, not a file or block device", "serve",
                    "--cowloop", "golden.img", "folder")
        self.refuse(1, "cannot open cowfile: /dev/null: it is neither a regular file nor a block device", "serve",
                    "--cowloop", "golden.img", "/dev/null")
        self.refuse(1, "cannot create cowfile: /dev/null: it is neither a regular file nor a block device", "serve",
                    "--cowloop", "/dev/null", "cow")
        self.make("empty", 0)
        self.refuse(1, "cannot create cowfile: empty: the read-only file is empty", "serve", "--cowloop", "empty",
                    "cow")
        self.assertFalse(os.path.exists(self.path("cow")))

    def test_a_cowfile_in_use(self):
        server = self.serve_pair()
        self.refuse(1, "cannot open cowfile: cow: it is in use by another process", "serve", "--cowloop", "golden.img",
                    "cow", "--name", "other")
        self.stop(server)

    def test_a_cowfile_alone(self):
        self.stop(self.serve_pair())
        self.refuse(1, "cannot open layer: cow: it is a cowfile of cowloop, which doesn't say where its read-only file "
                       "is: --cowloop RDOFILE COWFILE", "serve", "cow")

    def test_repair_on_request(self):
        base = self.content("golden.img")
        parts = Cowfile(base, {1: b"1" * BLOCK, 7: b"7" * BLOCK}, bits=[1], flags=DIRTY)
        self.make("cow", parts.file())
        server = self.serve_pair("--repair")
        self.assertEqual(self.connect(server).read(7 * BLOCK, BLOCK), b"7" * BLOCK)
        self.stop(server)
        self.assertEqual(self.head(), (0, 2))


class LargeTest(PairTest):
    """4 TiB, nearly all of it holes."""

    def test_the_ends_of_a_pair_of_4_tib(self):
        size = 1 << 42
        with open(self.path("large.img"), "wb") as file:
            file.truncate(size)
            file.seek(size - 4096)
            file.write(b"9" * 4096)
        server = self.serve("--cowloop", "large.img", "cow", "--live", self.live)
        client = self.connect(server)
        self.assertEqual(client.size, size)
        self.assertEqual(client.read(size - 1024, 1024), b"9" * 1024)
        client.write(size - 1536, b"1" * 1024)
        client.write((1 << 41) + 512, b"2" * 1024)
        client.write(0, b"3" * 100)
        client.flush()
        self.kill(server)
        server = self.serve("--cowloop", "large.img", "cow", "--live", self.live)
        client = self.connect(server)
        self.assertEqual(client.read(size - 2048, 2048), b"9" * 512 + b"1" * 1024 + b"9" * 512)
        self.assertEqual(client.read(1 << 41, 2048), bytes(512) + b"2" * 1024 + bytes(512))
        self.succeed("sync", "cow")
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
            memory, = [int(line.split()[1]) for line in status if line.startswith("RssAnon:")]
        most = 256 if "OXBOW_SANITIZE" in os.environ else 64  # a sanitizer has memory of its own
        self.assertLess(memory, most * KIB)  # in KiB: the bitmap alone has 512 MiB
        self.stop(server)
        with open(self.path("cow"), "rb") as file:
            head = file.read(64)
        self.assertEqual(int.from_bytes(head[48:56], "little"), 5)
        self.assertLess(os.stat(self.path("cow")).st_blocks * 512, MIB)

    def test_opening_reads_little(self):
        size = 1 << 42
        with open(self.path("large.img"), "wb") as file:
            file.truncate(size)
            file.seek(size // 2)
            file.write(b"x" * 8192)
        self.stop(self.serve("--cowloop", "large.img", "cow", "--live", self.live))
        trace = self.path("trace")
        done = subprocess.run(["strace", "-f", "-y", "-e", "trace=read,pread64,preadv,preadv2,lseek", "-o", trace,
                               os.environ["OXBOW"], "serve", "--cowloop", "large.img", "cow", "--live", self.live,
                               "--run", "true"], cwd=self.folder, env=traceable(self.environment), capture_output=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(trace, encoding="utf-8", errors="replace") as file:
            calls = [line for line in file if "/large.img>" in line or "/cow>" in line]
        self.assertGreater(len(calls), 2)
        self.assertLess(len(calls), 100)
        read = sum(int(line.split(" = ")[1].split()[0]) for line in calls if "lseek" not in line)
        self.assertLess(read, 256 * KIB)


class ToolsTest(PairTest):
    """Other people's clients."""

    SIZE = 64 * MIB

    def test_nbdcopy_and_qemu_img(self):
        self.make_image(self.path("new.img"), self.SIZE, seed=2)
        server = self.serve_pair()
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, "golden.img")
        self.run_client("nbdcopy", "--flush", "--connections=4", "--requests=64", "new.img", server.uri)
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, "new.img")
        self.run_client("nbdcopy", server.uri, "out.img")
        self.assert_same_file("new.img", "out.img")
        self.stop(server)
        server = self.serve_pair("--read-only")
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, "new.img")
        self.stop(server)

    def test_fio_verifies_what_it_wrote(self):
        for more in ((), ("--direct",)):
            server = self.serve_pair(*more)
            self.run_client("fio", "--name=verify", "--ioengine=nbd", f"--uri={server.uri}", "--size=64M",
                            "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--rw=randwrite",
                            "--bsrange=512-64k", "--bs_unaligned=1", "--serialize_overlap=1", "--do_verify=1",
                            "--fsync=64", "--output-format=json")
            self.stop(server)
            self.assert_clean()


if __name__ == "__main__":
    need("nbdcopy", "qemu-img", "fio", "strace")
    main()
