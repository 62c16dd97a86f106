#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""libnbd from Python: what it negotiates and asks for that command line clients seldom do."""

import errno
import struct

import nbd_client as raw
from clients import ClientTest, KIB, MIB, libnbd, main

nbd = libnbd()
DEPTH = "qemu:allocation-depth"


class LibnbdTest(ClientTest):
    SIZE = 8 * MIB

    def handle(self, server=None, structured=True, contexts=(), opt_mode=False):
        """A connected handle; with `opt_mode` still in its options."""
        handle = nbd.NBD()
        handle.set_request_structured_replies(structured)
        for each in contexts:
            handle.add_meta_context(each)
        handle.set_opt_mode(opt_mode)
        if server is not None:
            handle.connect_uri(server.uri)
        return handle

    def extents(self, handle, length, offset, flags=0):
        """By context: pairs of length and flags."""
        found = {}

        def extent(context, at, entries, error):
            self.assertEqual((at, error.value), (offset, 0))
            self.assertNotIn(context, found)
            found[context] = list(zip(entries[::2], entries[1::2]))
            return 0

        handle.block_status(length, offset, extent, flags)
        return found

    def test_block_status_of_several_contexts(self):
        server = self.serve_layer()
        handle = self.handle(server, contexts=(nbd.CONTEXT_BASE_ALLOCATION, DEPTH))
        self.assertTrue(handle.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION) and handle.can_meta_context(DEPTH))
        handle.pwrite(b"x" * 64 * KIB, MIB)
        handle.zero(64 * KIB, MIB + 64 * KIB)
        found = self.extents(handle, 4 * MIB, 0)
        self.assertEqual(set(found), {nbd.CONTEXT_BASE_ALLOCATION, DEPTH})
        for entries in found.values():
            self.assertEqual(sum(length for length, _ in entries), 4 * MIB)
        at, holes = 0, []
        for length, flags in found[nbd.CONTEXT_BASE_ALLOCATION]:
            if flags & nbd.STATE_ZERO:
                holes.append((at, length))
            at += length
        self.assertIn((MIB + 64 * KIB, 64 * KIB), holes)
        self.assertIn((2 * MIB, MIB), holes)  # the image's own
        depths = []
        at = 0
        for length, depth in found[DEPTH]:
            depths.append((at, length, depth))
            at += length
        self.assertIn((MIB, 128 * KIB, 1), depths)
        self.stop(server)

    def test_one_extent_on_request_only(self):
        server = self.serve_layer()
        handle = self.handle(server, contexts=(nbd.CONTEXT_BASE_ALLOCATION, DEPTH))
        for offset, length in [(0, 8 * MIB), (MIB, 3 * MIB), (2 * MIB + 512, 4096), (2 * MIB - 1, 3)]:
            for entries in self.extents(handle, length, offset, nbd.CMD_FLAG_REQ_ONE).values():
                self.assertEqual(len(entries), 1)
                self.assertLessEqual(entries[0][0], length)
        self.stop(server)

    def test_queries_for_contexts(self):
        server = self.serve_layer()
        for queries, expected in [((), {nbd.CONTEXT_BASE_ALLOCATION, DEPTH}),
                                  (("base:",), {nbd.CONTEXT_BASE_ALLOCATION}), (("qemu:",), {DEPTH}),
                                  ((nbd.CONTEXT_BASE_ALLOCATION, DEPTH), {nbd.CONTEXT_BASE_ALLOCATION, DEPTH}),
                                  (("x-nobody:", "base:nothing"), set())]:
            handle = self.handle(server, contexts=queries, opt_mode=True)
            found = set()
            handle.opt_list_meta_context(found.add)
            self.assertEqual(found, expected, queries)
            handle.opt_abort()
        self.stop(server)

    def test_structured_replies_on_and_off(self):
        server = self.serve_layer()
        golden = self.content("golden.img")
        for structured in (True, False):
            handle = self.handle(server, structured=structured)
            self.assertEqual(handle.get_structured_replies_negotiated(), structured)
            self.assertEqual(handle.can_df(), structured)
            self.assertTrue(handle.pread(3 * MIB, MIB) == golden[MIB:4 * MIB])
            chunks = []
            data = handle.pread_structured(3 * MIB, MIB, lambda buf, at, status, error: chunks.append((at, status)))
            self.assertTrue(data == golden[MIB:4 * MIB])
            self.assertEqual(nbd.READ_HOLE in [status for _, status in chunks], structured)
            with self.assertRaises(nbd.Error) as caught:
                handle.set_strict_mode(0)
                handle.pread(2, self.SIZE - 1)
            self.assertEqual(caught.exception.errnum, errno.EINVAL)
            with self.assertRaises(nbd.Error) as caught:
                handle.pwrite(b"xx", self.SIZE - 1)
            self.assertEqual(caught.exception.errnum, errno.ENOSPC)
            handle.shutdown()
        self.stop(server)

    def test_reads_that_must_not_be_fragmented_come_in_one_chunk(self):
        server = self.serve_layer()
        handle = self.handle(server)
        golden = self.content("golden.img")
        for offset, length in [(0, 64 * KIB), (2 * MIB - 5000, 10000), (2 * MIB, MIB), (1, MIB)]:
            chunks = []
            data = handle.pread_structured(length, offset, lambda buf, at, status, error: chunks.append((at, status)),
                                           nbd.CMD_FLAG_DF)
            self.assertTrue(data == golden[offset:offset + length])
            self.assertEqual(chunks, [(offset, nbd.READ_DATA)])
        self.stop(server)

    def test_cache_and_fast_zero(self):
        server = self.serve_layer()
        handle = self.handle(server)
        self.assertTrue(handle.can_cache() and handle.can_fast_zero())
        handle.cache(MIB, 100)
        handle.cache(self.SIZE, 0)
        handle.pwrite(b"x" * MIB, MIB)
        for offset, length in [(MIB, 256 * KIB), (MIB + 300 * KIB + 1, 511)]:
            before = handle.pread(length, offset)
            try:
                handle.zero(length, offset, nbd.CMD_FLAG_FAST_ZERO)
                self.assertEqual(handle.pread(length, offset), bytes(length))
            except nbd.Error as error:
                self.assertEqual(error.errnum, errno.ENOTSUP)
                self.assertEqual(handle.pread(length, offset), before)
        handle.zero(MIB, MIB, nbd.CMD_FLAG_NO_HOLE)
        self.assertEqual(handle.pread(MIB, MIB), bytes(MIB))
        self.stop(server)

    def test_every_flag_and_many_requests_in_flight(self):
        server = self.serve_layer()
        handle = self.handle(server)
        buffers = [nbd.Buffer.from_bytearray(bytearray([number]) * 5000) for number in range(200)]
        cookies = [handle.aio_pwrite(each, number * 5000, flags=nbd.CMD_FLAG_FUA if number % 3 == 0 else 0)
                   for number, each in enumerate(buffers)]
        for cookie in cookies:
            while not handle.aio_command_completed(cookie):
                handle.poll(-1)
        handle.flush()
        self.assertTrue(handle.pread(1000000, 0) == b"".join(bytes([number]) * 5000 for number in range(200)))
        self.stop(server)
        self.assert_checked("work.oxb")

    def test_exports_by_name_and_contexts_of_each(self):
        self.make("config.toml", b"""
[[device]]
name = "one"
file = "golden.img"
read-only = true

[[device]]
name = "two"
ram = "4M"
""")
        server = self.serve("--config", "config.toml", "--nbd", f"unix:{self.path('both.sock')}")
        listing = self.handle(opt_mode=True)
        listing.connect_unix(self.path("both.sock"))
        names = []
        listing.opt_list(lambda name, description: names.append(name))
        self.assertEqual(sorted(names), ["one", "two"])
        for name, size in (("one", self.SIZE), ("two", 4 * MIB), ("", self.SIZE)):
            listing.set_export_name(name)
            listing.opt_info()
            self.assertEqual(listing.get_size(), size)
        listing.set_export_name("three")
        with self.assertRaises(nbd.Error):
            listing.opt_info()
        listing.opt_abort()
        self.contexts_do_not_go_with_another_export()
        self.stop(server)

    def contexts_do_not_go_with_another_export(self):
        allocation = nbd.CONTEXT_BASE_ALLOCATION.encode()
        for taken, error in ((b"one", 0), (b"two", raw.EINVAL)):
            with raw.Haggler(self.path("both.sock")) as haggler:
                haggler.option(raw.OPT_STRUCTURED_REPLY)
                found = haggler.option(raw.OPT_SET_META_CONTEXT, raw.meta_data(b"one", allocation))
                self.assertEqual([kind for kind, _ in found], [raw.REP_META_CONTEXT, raw.REP_ACK])
                self.assertEqual(haggler.option(raw.OPT_GO, raw.go_data(taken))[-1][0], raw.REP_ACK)
                haggler.socket.sendall(raw.request(raw.BLOCK_STATUS, 7, 0, 4096))
                _, _, kind, _, length = struct.unpack(">IHHQI", haggler.take(20))
                payload = haggler.take(length)
                self.assertEqual(struct.unpack(">I", payload[:4])[0] if kind & 0x8000 else 0, error)


if __name__ == "__main__":
    main()
