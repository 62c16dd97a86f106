#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same conversations with oxbow, nbdkit and qemu-nbd over the same bytes: every answer that the protocol fixes has
to be the same. Where the protocol leaves a choice, nothing is compared:

- What a range holds after TRIM: it is written to before it is read again.
- Whether a FLUSH with an offset, a request of no bytes, or a FAST_ZERO succeeds; whether CACHE exists.
- Where extents begin and end, and what is called a hole: only that they cover the range in order, that a zero extent
  reads as zeros, and what a request with REQ_ONE returns.
- Into how many chunks a structured read is cut, and whether holes are sent as such: the client checks their grammar.
- Texts of errors; the name of the default export; which INFOs come unasked; block sizes; CAN_MULTI_CONN, SEND_CACHE,
  SEND_FAST_ZERO and ROTATIONAL.
- STARTTLS where there is no TLS: UNSUP or POLICY.

And where one of the others does something else than the protocol says, it is not asked, or excused:

- nbdkit serves its device under every name, lists contexts before it has looked at all queries, and selects one twice.
- qemu-nbd answers EINVAL instead of EPERM for what is read-only and instead of ENOSPC beyond the end.
"""

import os
import random
import struct
import subprocess
import time

import nbd_client as nbd
from clients import ClientTest, KIB, MIB, SCALE, main, need, seed_of

FIXED_FLAGS = (nbd.FLAG_HAS_FLAGS | nbd.FLAG_READ_ONLY | nbd.FLAG_SEND_FLUSH | nbd.FLAG_SEND_FUA |
               nbd.FLAG_SEND_TRIM | nbd.FLAG_SEND_WRITE_ZEROES | nbd.FLAG_SEND_DF)
ALLOCATION = b"base:allocation"


class DifferentialTest(ClientTest):
    # A multiple of what any of them might want to round to.
    SIZE = 2 * MIB

    def peers(self, read_only=False):
        """Sockets by name; oxbow's devices come first. All hold golden.img's bytes."""
        more = ["--read-only"] if read_only else []
        content = self.content("golden.img")
        self.succeed("create", "--base", "golden.img", "work.oxb")
        servers = {"oxbow layer": ["work.oxb"], "oxbow file": ["--file", "oxbow.img"]}
        if not read_only:
            servers["oxbow ram"] = ["--ram", str(self.SIZE)]
        self.make("oxbow.img", content)
        self.servers = [self.serve(*args, *more) for args in servers.values()]
        paths = {name: self.connect(server).socket.getpeername() for name, server in zip(servers, self.servers)}

        for name in ("nbdkit.img", "qemu.img"):
            self.make(name, content)
        kit = ["nbdkit", "--foreground", "--exit-with-parent", *(["-r"] if read_only else [])]
        paths["nbdkit file"] = self.start(*kit, "-U", "{}", "file", self.path("nbdkit.img"))
        if not read_only:
            paths["nbdkit memory"] = self.start(*kit, "-U", "{}", "memory", str(self.SIZE))
        paths["qemu-nbd"] = self.start("qemu-nbd", "-f", "raw", "-t", "-e", "8", "-k", "{}", "--discard=unmap",
                                       *more, self.path("qemu.img"))
        for name in ("oxbow ram", "nbdkit memory"):
            if name in paths:
                with nbd.NbdClient(paths[name]) as client:
                    client.write(0, content)
        return paths

    def start(self, *command):
        path = self.path(f"peer-{len(os.listdir(self.folder))}.sock")
        process = subprocess.Popen([word.replace("{}", path) for word in command], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        until = time.monotonic() + 30
        while not os.path.exists(path):
            self.assertIsNone(process.poll(), command)
            self.assertLess(time.monotonic(), until, command)
            time.sleep(0.01)
        return path

    def stop_all(self):
        for server in self.servers:
            self.stop(server)

    def compare(self, answers, what):
        """All answers, by peer, have to be the same."""
        first = next(iter(answers.values()))
        differing = {name: answer for name, answer in answers.items() if answer != first}
        if differing:
            shown = {name: (answer if len(repr(answer)) < 200 else f"{hash(repr(answer)):x}")
                     for name, answer in answers.items()}
            self.fail(f"{what}: {shown}")

    # --- requests ---

    def random_range(self, chance):
        length = chance.choice([1, 511, 512, 513, 4096, 4097, 65536, 100001, 262144])
        at = chance.randrange(self.SIZE - length)
        if chance.random() < 0.5:
            at -= at % 4096
        if chance.random() < 0.1:
            at = self.SIZE - length
        return at, length

    def good_request(self, chance):
        """Requests that succeed everywhere: command, offset, length, data, flags."""
        at, length = self.random_range(chance)
        fua = chance.choice([0, 0, nbd.FUA])
        command = chance.choices([nbd.READ, nbd.WRITE, nbd.WRITE_ZEROES, nbd.TRIM, nbd.FLUSH], [8, 5, 2, 2, 1])[0]
        if command == nbd.WRITE:
            return [(command, at, length, chance.randbytes(length), fua)]
        if command == nbd.TRIM:
            return [(command, at, length, b"", fua), (nbd.WRITE, at, length, chance.randbytes(length), 0)]
        if command == nbd.FLUSH:
            return [(command, 0, 0, b"", fua)]
        if command == nbd.WRITE_ZEROES:
            return [(command, at, length, b"", fua | chance.choice([0, nbd.NO_HOLE]))]
        return [(command, at, length, b"", fua)]

    def bad_request(self, chance, structured):
        """Requests that the protocol has refused, in a way that it fixes."""
        size, huge = self.SIZE, 1 << 64
        beyond = chance.choice([(size, 1), (size - 1, 2), (size - 4096, 8192), (huge - 512, 512), (huge - 512, 1024),
                                (huge - 1, 1), (1 << 63, 4096)])
        data = bytes(beyond[1])
        cases = [(nbd.READ, *beyond, b"", 0), (nbd.WRITE, *beyond, data, 0), (nbd.WRITE_ZEROES, *beyond, b"", 0),
                 (nbd.TRIM, *beyond, b"", nbd.FUA), (nbd.WRITE, *beyond, data, nbd.FUA),
                 (nbd.WRITE_ZEROES, 4096, (1 << 32) - 1, b"", 0), (nbd.TRIM, 1, (1 << 32) - 1, b"", 0),
                 (nbd.READ, 0, (1 << 32) - 1, b"", 0),
                 (chance.choice([8, 9, 77, 0xFFFF]), 0, 512, b"", 0),  # no such command
                 (nbd.BLOCK_STATUS, 0, 4096, b"", 0),  # no context was selected
                 (nbd.READ, 0, 512, b"", nbd.NO_HOLE), (nbd.READ, 0, 512, b"", 1 << 15),
                 (nbd.WRITE, 0, 3, b"abc", nbd.REQ_ONE), (nbd.TRIM, 0, 4096, b"", nbd.NO_HOLE),
                 (nbd.FLUSH, 0, 0, b"", nbd.DF), (nbd.WRITE_ZEROES, 0, 4096, b"", nbd.REQ_ONE)]
        if not structured:
            cases.append((nbd.READ, 0, 512, b"", nbd.DF))
        return [chance.choice(cases)]

    def converse(self, clients, requests):
        """Sends them in one go to each, and compares what each is answered."""
        answers = {}
        for name, client in clients.items():
            cookies = [client.submit(command, at, length, data, flags)
                       for command, at, length, data, flags in requests]
            found = {}
            for _ in cookies:
                cookie, error, data = client.wait()
                found[cookie] = (error, data)
            answers[name] = [self.excused(name, found[cookie], answers, number)
                             for number, cookie in enumerate(cookies)]
        for number, each in enumerate(requests):
            self.compare({name: answer[number] for name, answer in answers.items()},
                         f"{each[0]} at {each[1]}+{each[2]}, flags {each[4]:#x}")

    def excused(self, name, answer, answers, number):
        """The answer, or that of the first peer if qemu-nbd has the one error for it that it always has."""
        first = next(iter(answers.values()))[number] if answers else None
        if name == "qemu-nbd" and answer == (nbd.EINVAL, b"") and first[0] in (nbd.EPERM, nbd.ENOSPC):
            return first
        return answer

    def connect_all(self, paths, **how):
        clients = {name: nbd.NbdClient(path, **how) for name, path in paths.items()}
        for client in clients.values():
            self.addCleanup(client.socket.close)
        return clients

    def requests_test(self, structured):
        seed = seed_of(f"requests, {'structured' if structured else 'simple'} replies")
        paths = self.peers()
        chance = random.Random(seed + structured)
        for _ in range(max(2, int(4 * SCALE))):
            clients = self.connect_all(paths, structured=structured)
            self.compare({name: (client.size, client.flags & FIXED_FLAGS) for name, client in clients.items()},
                         "export")
            for _ in range(150):
                bad = chance.random() < 0.25
                for each in self.bad_request(chance, structured) if bad else self.good_request(chance):
                    self.converse(clients, [each])  # requests that are in flight together have no order
            contents = {name: client.read(0, self.SIZE) for name, client in clients.items()}
            self.compare(contents, "the whole device")
            for client in clients.values():
                client.disconnect()
        self.stop_all()
        self.assert_checked("work.oxb")

    def test_requests_with_simple_replies(self):
        self.requests_test(structured=False)

    def test_requests_with_structured_replies(self):
        self.requests_test(structured=True)

    def test_reads_that_must_not_be_fragmented(self):
        paths = self.peers()
        chance = random.Random(seed_of("DF"))
        clients = self.connect_all(paths, structured=True)
        for _ in range(60):
            length = chance.choice([1, 512, 4096, 65536])
            at = chance.randrange(self.SIZE - length)
            self.converse(clients, [(nbd.READ, at, length, b"", nbd.DF)])
        for client in clients.values():
            client.disconnect()
        self.stop_all()

    def test_requests_in_flight_on_one_connection(self):
        paths = self.peers()
        chance = random.Random(seed_of("in flight"))
        clients = self.connect_all(paths)
        for _ in range(30):
            # Each in a range of its own, so that the order in which they are carried out does not matter.
            places = chance.sample(range(0, self.SIZE, 32 * KIB), 12)
            requests = []
            for at in places:
                kind = chance.choice([nbd.READ, nbd.WRITE, nbd.WRITE_ZEROES])
                length = chance.randrange(1, 32 * KIB)
                requests.append((kind, at, length, chance.randbytes(length) if kind == nbd.WRITE else b"", 0))
            self.converse(clients, requests)
        for client in clients.values():
            client.disconnect()
        self.stop_all()

    def test_changes_of_a_read_only_export(self):
        paths = self.peers(read_only=True)
        for structured in (False, True):
            clients = self.connect_all(paths, structured=structured)
            self.compare({name: (client.size, client.flags & nbd.FLAG_READ_ONLY)
                          for name, client in clients.items()}, "export")
            for request in [(nbd.WRITE, 0, 512, bytes(512), 0), (nbd.WRITE_ZEROES, 0, 4096, b"", nbd.FUA),
                            (nbd.TRIM, 4096, 4096, b"", 0), (nbd.READ, 4096, 5000, b"", 0),
                            (nbd.FLUSH, 0, 0, b"", 0)]:
                if request[0] == nbd.FLUSH and not all(client.flags & nbd.FLAG_SEND_FLUSH
                                                       for client in clients.values()):
                    continue
                self.converse(clients, [request])
            for client in clients.values():
                client.disconnect()
        self.stop_all()

    # --- block status ---

    def check_extents(self, client, content, at, length, flags):
        """Grammar is the client's; here that zeros are zeros, and that something is told."""
        for extent, status in client.block_status(at, length, flags)[ALLOCATION]:
            extent = min(extent, length)
            if status & 2:
                self.assertEqual(content[at:at + extent].strip(b"\0"), b"", f"{at}+{extent} is no zeros")
            at, length = at + extent, length - extent

    def test_block_status(self):
        paths = self.peers()
        chance = random.Random(seed_of("block status"))
        content = bytearray(self.content("golden.img"))
        clients = self.connect_all(paths, structured=True, contexts=(ALLOCATION,))
        for at in range(0, self.SIZE, 256 * KIB):
            content[at:at + 128 * KIB] = bytes(128 * KIB)
            self.converse(clients, [(nbd.WRITE_ZEROES, at, 128 * KIB, b"", 0)])
        for name, client in clients.items():
            with self.subTest(name):
                for _ in range(60):
                    at, length = self.random_range(chance)
                    self.check_extents(client, content, at, length, chance.choice([0, nbd.REQ_ONE]))
        bad = [(nbd.BLOCK_STATUS, 0, 0, b"", 0), (nbd.BLOCK_STATUS, self.SIZE, 1, b"", 0),
               (nbd.BLOCK_STATUS, self.SIZE - 1, 2, b"", nbd.REQ_ONE), (nbd.BLOCK_STATUS, (1 << 64) - 1, 1, b"", 0),
               (nbd.BLOCK_STATUS, 0, 4096, b"", nbd.NO_HOLE)]
        for each in bad:
            self.converse(clients, [each])
        for client in clients.values():
            client.disconnect()
        self.stop_all()

    # --- haggling ---

    def options(self):
        """Options that the protocol fixes the answers of; which of them leave who of the others a choice."""
        name_too_long = struct.pack(">I", 100) + b"short" + struct.pack(">H", 0)
        infos_missing = nbd.name_field(b"") + struct.pack(">H", 3) + bytes(2)
        go, info = nbd.OPT_GO, nbd.OPT_INFO
        lists, sets = nbd.OPT_LIST_META_CONTEXT, nbd.OPT_SET_META_CONTEXT
        return [
            ("an unknown option", 1234, b"", ()),
            ("an unknown option with data", 0xFFFFFFFF, b"x" * 5000, ()),
            ("option 0", 0, b"", ()),
            ("LIST", nbd.OPT_LIST, b"", ()),
            ("LIST with data", nbd.OPT_LIST, b"data", ()),
            ("INFO of the default export", info, nbd.go_data(), ()),
            ("INFO with requests", info, nbd.go_data(infos=(nbd.INFO_NAME, nbd.INFO_BLOCK_SIZE, 999)), ()),
            ("INFO with a name beyond its data", info, name_too_long, ()),
            ("INFO with fewer requests than it says", info, infos_missing, ()),
            ("INFO without data", info, b"", ()),
            ("INFO with too much data", info, nbd.go_data() + b"x", ()),
            ("INFO of a name that nobody has", info, nbd.go_data(b"no such export"), ("nbdkit",)),
            ("GO with a name beyond its data", go, name_too_long, ()),
            ("GO with three bytes", go, b"abc", ()),
            ("GO of a name that nobody has", go, nbd.go_data(b"no such export"), ("nbdkit",)),
            ("STRUCTURED_REPLY with data", nbd.OPT_STRUCTURED_REPLY, b"x", ()),
            ("LIST_META_CONTEXT of everything", lists, nbd.meta_data(b""), ()),
            ("LIST_META_CONTEXT of a namespace", lists, nbd.meta_data(b"", b"base:"), ()),
            ("LIST_META_CONTEXT by name", lists, nbd.meta_data(b"", ALLOCATION), ()),
            ("LIST_META_CONTEXT of a namespace that nobody has", lists, nbd.meta_data(b"", b"x-nobody:"), ()),
            ("LIST_META_CONTEXT with more queries than data", lists,
             nbd.name_field(b"") + struct.pack(">I", 2) + nbd.name_field(b"base:"), ("nbdkit",)),
            ("LIST_META_CONTEXT of a name that nobody has", lists, nbd.meta_data(b"nobody", b"base:"), ("nbdkit",)),
            ("SET_META_CONTEXT by name", sets, nbd.meta_data(b"", ALLOCATION), ()),
            ("SET_META_CONTEXT of nothing", sets, nbd.meta_data(b""), ()),
            ("SET_META_CONTEXT of what nobody has", sets, nbd.meta_data(b"", b"base:nonsense"), ()),
            ("SET_META_CONTEXT twice the same", sets, nbd.meta_data(b"", ALLOCATION, ALLOCATION), ("nbdkit",)),
            ("SET_META_CONTEXT without queries' data", sets, nbd.name_field(b""), ()),
            ("SET_META_CONTEXT of a name that nobody has", sets, nbd.meta_data(b"nobody", ALLOCATION), ("nbdkit",)),
        ]

    def haggle(self, haggler, option, data):
        """What is fixed of the answer: the kinds of replies, and of contexts and sizes what they are."""
        found = []
        for kind, payload in haggler.option(option, data):
            if kind == nbd.REP_INFO:
                what = struct.unpack(">H", payload[:2])[0]
                if what == nbd.INFO_EXPORT:
                    _, size, flags = struct.unpack(">HQH", payload)
                    found.append((kind, size, flags & FIXED_FLAGS))
            elif kind == nbd.REP_META_CONTEXT:
                if payload[4:].startswith(b"base:"):
                    found.append((kind, payload[4:]))
            elif kind == nbd.REP_SERVER:
                length = struct.unpack(">I", payload[:4])[0]
                self.assertLessEqual(4 + length, len(payload))
                found.append((kind,))
            else:
                found.append((kind,))
        return found

    def test_every_option_alone(self):
        paths = self.peers()
        for structured in (False, True):
            for label, option, data, excepted in self.options():
                if not structured and "META_CONTEXT" in label:
                    continue
                with self.subTest(label, structured=structured):
                    answers = {}
                    for name, path in paths.items():
                        if name.split()[0] in excepted:
                            continue
                        with nbd.Haggler(path) as haggler:
                            if structured:
                                self.assertEqual(haggler.option(nbd.OPT_STRUCTURED_REPLY), [(nbd.REP_ACK, b"")])
                            answers[name] = self.haggle(haggler, option, data)
                            # whatever it was: it goes on
                            self.assertEqual(haggler.option(nbd.OPT_GO, nbd.go_data())[-1], (nbd.REP_ACK, b""))
                    self.compare(answers, label)
        self.stop_all()

    def test_options_in_random_order(self):
        paths = self.peers()
        chance = random.Random(seed_of("options"))
        for _ in range(max(10, int(25 * SCALE))):
            options = chance.sample(self.options(), 6)
            hagglers = {name: nbd.Haggler(path) for name, path in paths.items()}
            structured = chance.random() < 0.7
            if structured:
                for haggler in hagglers.values():
                    self.assertEqual(haggler.option(nbd.OPT_STRUCTURED_REPLY), [(nbd.REP_ACK, b"")])
            for label, option, data, excepted in options:
                if not structured and "META_CONTEXT" in label:
                    continue
                self.compare({name: self.haggle(haggler, option, data) for name, haggler in hagglers.items()
                              if name.split()[0] not in excepted}, label)
            ending = chance.choice([nbd.OPT_GO, nbd.OPT_ABORT])
            self.compare({name: self.haggle(haggler, ending, nbd.go_data() if ending == nbd.OPT_GO else b"")
                          for name, haggler in hagglers.items()}, "the last option")
            if ending == nbd.OPT_ABORT:
                self.compare({name: haggler.socket.recv(1) for name, haggler in hagglers.items()}, "after ABORT")
            for haggler in hagglers.values():
                haggler.socket.close()
        self.stop_all()

    def test_export_name_with_and_without_its_zeroes(self):
        paths = self.peers()
        for flags, length in ((1, 134), (3, 10)):
            answers = {}
            for name, path in paths.items():
                with nbd.Haggler(path, flags) as haggler:
                    haggler.send_option(nbd.OPT_EXPORT_NAME)
                    got = haggler.take(length)
                    size, transmission = struct.unpack(">QH", got[:10])
                    haggler.socket.sendall(nbd.request(nbd.READ, 7, 4096, 100))
                    answers[name] = (size, transmission & FIXED_FLAGS, got[10:], haggler.take(116))
            self.compare(answers, f"EXPORT_NAME, client flags {flags}")
        self.stop_all()

    def test_contexts_are_those_of_the_last_set_meta_context(self):
        paths = self.peers()
        lengths_wrong = nbd.name_field(b"") + struct.pack(">I", 7)
        for label, between in (("no other", None), ("one of nothing", nbd.meta_data(b"")),
                               ("one that fails", lengths_wrong)):
            answers = {}
            for name, path in paths.items():
                with nbd.Haggler(path) as haggler:
                    haggler.option(nbd.OPT_STRUCTURED_REPLY)
                    found = haggler.option(nbd.OPT_SET_META_CONTEXT, nbd.meta_data(b"", ALLOCATION))
                    self.assertEqual([kind for kind, _ in found], [nbd.REP_META_CONTEXT, nbd.REP_ACK], name)
                    if between is not None:
                        haggler.option(nbd.OPT_SET_META_CONTEXT, between)
                    self.assertEqual(haggler.option(nbd.OPT_GO, nbd.go_data())[-1][0], nbd.REP_ACK)
                    haggler.socket.sendall(nbd.request(nbd.BLOCK_STATUS, 5, 0, 4096))
                    magic, _, kind, cookie, length = struct.unpack(">IHHQI", haggler.take(20))
                    error = struct.unpack(">I", haggler.take(length)[:4])[0] if kind & 0x8000 else 0
                    answers[name] = (magic, kind & 0x8000, cookie, error)
            self.compare(answers, label)
        self.stop_all()


if __name__ == "__main__":
    need("nbdkit", "qemu-nbd")
    main()
