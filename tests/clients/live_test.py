#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A server that is killed with SIGKILL loses nothing that was answered, flushed or not; and what has its last writes is
believed only when it fits."""

import glob
import json
import os
import random
import shutil
import struct
import threading

import nbd_client as nbd
from clients import KIB, LiveClientTest, MIB, main, seed_of

UUID = slice(48, 64)  # of a superblock
EPOCH = slice(64, 72)  # of a live file
BOOT_ID = slice(48, 64)


class LiveTest(LiveClientTest):
    SIZE = 8 * MIB + 2560

    def serve_live(self, *more):
        return self.serve_layer("work.oxb", "--live", self.live, *more)

    def live_file(self):
        """The path of the only live file."""
        found = glob.glob(self.live + "/*.live")
        self.assertEqual(len(found), 1, found)
        return found[0]

    def killed(self, data=b"1" * 5000, at=MIB + 100):
        """A layer whose server was killed after a write that nobody flushed."""
        server = self.serve_live()
        self.connect(server).write(at, data)
        self.kill(server)
        return self.live_file()

    def expected(self, data=b"1" * 5000, at=MIB + 100):
        content = bytearray(self.content("golden.img"))
        content[at:at + len(data)] = data
        return bytes(content)

    def read_all(self, server):
        return self.connect(server).read(0, self.SIZE)

    def refusal(self, *options):
        done = self.run_oxbow("serve", "work.oxb", "--live", self.live, *options)
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stderr

    def assert_refused(self, path, why):
        self.assertEqual(self.refusal(), "oxbow: cannot open layer: work.oxb: it was not closed cleanly, and the live "
                         f"state that has its last writes can't be used ({path}: {why}); to give up what was written "
                         "since the last flush: --discard-live\n")


class AnsweredTest(LiveTest):
    def test_what_was_answered_is_there_after_a_kill(self):
        seed = seed_of(self.id())
        server = self.serve_live()
        model = bytearray(self.content("golden.img"))
        share = MIB  # of each client

        def work(number):
            dice = random.Random(seed + number)
            client = self.connect(server)
            for _ in range(150):
                at = number * share + dice.randrange(share - 70 * KIB)
                length = dice.randrange(1, 64 * KIB)
                kind = dice.randrange(4)
                if kind < 2:
                    data = dice.randbytes(length)
                    client.write(at, data)
                elif kind == 2:
                    data = bytes(length)
                    client.write_zeroes(at, length, flags=dice.choice((0, nbd.NO_HOLE)))
                else:
                    at, length = at // 4096 * 4096, length // 4096 * 4096
                    data = bytes(length)
                    if length:
                        client.trim(at, length)
                model[at:at + len(data)] = data

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.kill(server)
        server = self.serve_live()
        self.assertTrue(self.read_all(server) == bytes(model))
        self.kill(server)  # nothing was written since
        server = self.serve_live()
        self.assertTrue(self.read_all(server) == bytes(model))
        self.stop(server)
        self.assertEqual(os.listdir(self.live), [])
        self.assert_checked("work.oxb")
        server = self.serve_layer("work.oxb")
        self.assertTrue(self.read_all(server) == bytes(model))
        self.stop(server)

    def test_a_flush_after_the_kill_covers_what_was_answered_before(self):
        self.killed()
        server = self.serve_live()
        self.connect(server).flush()
        self.kill(server)
        os.unlink(self.live_file())
        self.assertIn("No such file or directory", self.refusal())
        server = self.serve_live("--discard-live")
        self.assertTrue(self.read_all(server) == self.expected())
        self.stop(server)

    def test_commands_that_read_make_it_clean_first(self):
        self.killed()
        server = self.serve_layer("work.oxb", "--read-only")
        self.assertTrue(self.read_all(server) == self.expected())
        self.assertEqual(os.listdir(self.live), [])
        self.stop(server)
        self.killed(b"2" * 512, 0)
        mapped = json.loads(self.succeed("map", "--json", "work.oxb"))
        self.assertEqual((mapped[0]["state"], mapped[0]["length"]), ("data", 4096))
        self.killed(b"3" * 512, 0)
        self.succeed("create", "--base", "work.oxb", "--base-format", "oxb", "child.oxb")
        server = self.serve("child.oxb")
        self.assertEqual(self.connect(server).read(0, 512), b"3" * 512)
        self.stop(server)

    def test_status_says_where_it_is_or_what_a_kill_loses(self):
        server = self.serve_live()
        part = json.loads(self.succeed("status", "--json", "work"))["table"][0]["chain"][0]
        self.assertEqual((part["live"], part["without_live"]), (self.live_file(), None))
        self.assertIn(f"live state: {self.live_file()}\n", self.succeed("status", "work"))
        self.stop(server)
        server = self.serve_layer("work.oxb", "--live", "off")
        self.assertIn("no live state, kill -9 would lose writes that no flush covers: --live off\n",
                      self.succeed("status", "work"))
        status, told = server.stop()
        self.assertEqual(status, 0)
        self.assertIn("work: kill -9 of this process would lose writes that no flush covers, for there is no live "
                      f"state of {self.path('work.oxb')}: --live off", told)


class BeliefTest(LiveTest):
    def rewrite(self, path, place, data):
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(data)

    def assert_discarded(self):
        """The layer can be used again, and has what was flushed: nothing."""
        server = self.serve_live("--discard-live")
        content = self.read_all(server)
        self.assertTrue(content in (self.expected(), self.content("golden.img")))
        self.stop(server)
        server = self.serve_live()
        self.assertTrue(self.read_all(server) == content)
        self.stop(server)

    def test_a_missing_one(self):
        path = self.killed()
        os.unlink(path)
        self.assert_refused(path, "No such file or directory")
        self.assert_refused(path, "No such file or directory")
        done = self.run_oxbow("map", "work.oxb")
        self.assertEqual(done.returncode, 1)
        self.assertIn("--discard-live", done.stderr)
        self.assert_discarded()

    def test_a_damaged_header(self):
        path = self.killed()
        with open(path, "rb") as file:
            damaged = file.read(21)[20] ^ 0xFF
        self.rewrite(path, 20, bytes([damaged]))
        self.assert_refused(path, "it is damaged: its checksum is wrong")
        self.assert_discarded()

    def test_damaged_states(self):
        path = self.killed()
        self.rewrite(path, 4096, struct.pack("<Q", 1 << 40))
        self.assert_refused(path, "it is damaged: its states contradict each other")
        self.assert_discarded()

    def test_a_shortened_one(self):
        path = self.killed()
        os.truncate(path, 5000)
        self.assert_refused(path, "it is damaged: 5000 bytes long")
        self.assert_discarded()

    def test_one_of_another_session(self):
        path = self.killed()
        self.rewrite(path, EPOCH.start, struct.pack("<QQ", 77, 77))
        self.assert_refused(path, "it is of another session of the layer")
        self.assert_discarded()

    def test_another_layers(self):
        path = self.killed()
        with open(path, "rb") as file:
            mine = file.read()
        self.succeed("create", "--base", "golden.img", "other.oxb")
        server = self.serve("other.oxb", "--live", self.live)
        self.connect(server).write(0, b"x" * 512)
        self.kill(server)
        (other,) = set(glob.glob(self.live + "/*.live")) - {path}
        shutil.copyfile(other, path)
        with open(self.path("other.oxb"), "rb") as file:
            head = file.read(4096)
        uuid = head[UUID].hex()
        text = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
        self.assert_refused(path, f"it is that of layer {text}")
        with open(path, "wb") as file:
            file.write(mine)
        server = self.serve_live()  # and goes on with its own
        self.assertTrue(self.read_all(server) == self.expected())
        self.stop(server)

    def test_a_copied_layers(self):
        path = self.killed()
        shutil.copyfile(self.path("work.oxb"), self.path("copy.oxb"))
        os.replace(self.path("copy.oxb"), self.path("work.oxb"))
        self.assert_refused(path, "it is that of another file with the same layer, which was copied")
        self.assert_discarded()

    def test_a_symbolic_link(self):
        path = self.killed()
        os.rename(path, path + ".real")
        os.symlink(path + ".real", path)
        self.assert_refused(path, "it is a symbolic link")
        os.replace(path + ".real", path)
        server = self.serve_live()
        self.assertTrue(self.read_all(server) == self.expected())
        self.stop(server)

    def test_one_that_others_may_read(self):
        path = self.killed()
        os.chmod(path, 0o644)
        self.assert_refused(path, "its mode is 0644, not 0600")

    def test_another_boots(self):
        """The same bytes as after a boot: the superblocks name another, and nothing is on tmpfs."""
        server = self.serve_live()
        client = self.connect(server)
        client.write(MIB, b"f" * 4096)
        client.flush()
        self.kill(server)
        with open(self.path("work.oxb"), "r+b") as file:
            for place in (0, 64 * KIB):
                file.seek(place)
                head = bytearray(file.read(4096))
                head[320] ^= 0xFF
                head[8:12] = struct.pack("<I", crc32c(bytes(head[12:])))
                file.seek(place)
                file.write(head)
        os.unlink(self.live_file())
        server = self.serve_live()
        self.assertEqual(self.connect(server).read(MIB, 4096), b"f" * 4096)
        self.stop(server)
        self.assertEqual(os.listdir(self.live), [])

    def test_it_is_used_whatever_the_options_say(self):
        self.killed()
        server = self.serve_layer("work.oxb", "--live", "off", "--discard-live")
        self.assertTrue(self.read_all(server) == self.expected())
        self.stop(server)
        self.assertEqual(os.listdir(self.live), [])

    def test_a_left_over_one_of_a_clean_layer(self):
        server = self.serve_live()
        self.kill(server)  # before anything was changed
        self.live_file()
        server = self.serve_live()
        self.stop(server)
        self.assertEqual(os.listdir(self.live), [])

    def test_a_directory_that_cannot_be_used(self):
        self.succeed("create", "--base", "golden.img", "work.oxb")
        for directory, why in (("/proc", "it is not on tmpfs"), ("/none", "No such file or directory")):
            done = self.run_oxbow("serve", "work.oxb", "--live", directory)
            self.assertEqual((done.returncode, done.stderr),
                             (1, f"oxbow: cannot keep live states: {directory}: {why}\n"))
        os.chmod(self.live, 0o777)
        self.assertEqual(self.refusal(), f"oxbow: cannot keep live states: {self.live}: others can write to it; chmod "
                         "go-w takes that away\n")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


if __name__ == "__main__":
    main()
