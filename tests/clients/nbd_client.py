# SPDX-License-Identifier: Apache-2.0
"""A small, strict NBD client of its own: fixed newstyle, simple or structured replies, as many requests in flight as
the caller likes. Whatever a server says against the protocol's grammar is an AssertionError."""

import errno
import socket
import struct

FLAG_HAS_FLAGS = 1 << 0
FLAG_READ_ONLY = 1 << 1
FLAG_SEND_FLUSH = 1 << 2
FLAG_SEND_FUA = 1 << 3
FLAG_ROTATIONAL = 1 << 4
FLAG_SEND_TRIM = 1 << 5
FLAG_SEND_WRITE_ZEROES = 1 << 6
FLAG_SEND_DF = 1 << 7
FLAG_CAN_MULTI_CONN = 1 << 8
FLAG_SEND_CACHE = 1 << 10
FLAG_SEND_FAST_ZERO = 1 << 11

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = 0, 1, 2, 3, 4, 5, 6, 7
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108
ERRORS = (EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN)

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO = 1, 2, 3, 5, 6, 7
OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT = 8, 9, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT, REP_ERROR = 1, 2, 3, 4, 1 << 31
REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID = REP_ERROR + 1, REP_ERROR + 2, REP_ERROR + 3
REP_ERR_UNKNOWN, REP_ERR_TOO_BIG = REP_ERROR + 6, REP_ERROR + 9
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

_OPTION_MAGIC = 0x49484156454F5054
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC = 0x25609513
_SIMPLE_MAGIC = 0x67446698
_STRUCTURED_MAGIC = 0x668E33EF
_NONE, _OFFSET_DATA, _OFFSET_HOLE, _BLOCK_STATUS, _ERROR, _ERROR_OFFSET = 0, 1, 2, 5, 0x8001, 0x8002
_SECONDS = 60


class NbdError(Exception):
    """The server answered with an error; `number` is NBD's."""

    def __init__(self, number):
        super().__init__(f"error {number} ({errno.errorcode.get(number, '?')})")
        self.number = number


def request(command, cookie, offset=0, length=0, flags=0):
    """The 28 bytes of a request."""
    return struct.pack(">IHHQQI", _REQUEST_MAGIC, flags, command, cookie, offset, length)


def name_field(name):
    """A string as options carry it: its length and its bytes."""
    return struct.pack(">I", len(name)) + name


def go_data(name=b"", infos=()):
    """The data of INFO and GO."""
    return name_field(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def meta_data(name, *queries):
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return name_field(name) + struct.pack(">I", len(queries)) + b"".join(name_field(each) for each in queries)


class Haggler:
    """A connection before the transmission phase: sends options, returns what is answered."""

    def __init__(self, path, flags=3):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_SECONDS)
        self.socket.connect(path)
        greeting = self.take(18)
        assert greeting[:16] == b"NBDMAGICIHAVEOPT", greeting
        self.server_flags = struct.unpack(">H", greeting[16:])[0]
        self.socket.sendall(struct.pack(">I", flags))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def fileno(self):
        return self.socket.fileno()

    def take(self, length):
        """Exactly that many bytes; ConnectionError when the server closes before."""
        got = bytearray(length)
        view, done = memoryview(got), 0
        while done < length:
            part = self.socket.recv_into(view[done:])
            if not part:
                raise ConnectionError("the server closed the connection")
            done += part
        return bytes(got)

    def send_option(self, option, data=b""):
        self.socket.sendall(struct.pack(">QII", _OPTION_MAGIC, option, len(data)) + data)

    def replies(self, option):
        """The replies to the option that was sent, as pairs of type and payload; the last one ends them."""
        found = []
        while True:
            magic, answered, kind, length = struct.unpack(">QIII", self.take(20))
            assert (magic, answered) == (_OPTION_REPLY_MAGIC, option), (hex(magic), answered)
            found.append((kind, self.take(length)))
            if kind == REP_ACK or kind & REP_ERROR:
                return found
            assert kind in (REP_SERVER, REP_INFO, REP_META_CONTEXT), kind

    def option(self, option, data=b""):
        self.send_option(option, data)
        return self.replies(option)


class _Reply:
    """What the chunks of one structured reply came to."""

    def __init__(self, sent):
        self.command, self.offset, self.length, self.flags = sent
        self.error = 0
        self.errors = []
        self.pieces = []
        self.holes = 0
        self.status = {}

    def add(self, kind, payload):
        if kind & 0x8000:
            self._add_error(kind, payload)
        elif kind == _BLOCK_STATUS:
            self._add_status(payload)
        elif kind in (_OFFSET_DATA, _OFFSET_HOLE):
            self._add_content(kind, payload)
        else:
            assert (kind, payload) == (_NONE, b""), kind

    def _add_error(self, kind, payload):
        number, text = struct.unpack(">IH", payload[:6])
        assert kind in (_ERROR, _ERROR_OFFSET) and number in ERRORS, (kind, number)
        assert len(payload) == 6 + text + (8 if kind == _ERROR_OFFSET else 0), payload
        payload[6:6 + text].decode()
        if kind == _ERROR_OFFSET:
            at = struct.unpack(">Q", payload[-8:])[0]
            assert self.offset <= at < self.offset + self.length, at
            self.errors.append(at)
        self.error = self.error or number

    def _add_status(self, payload):
        context = struct.unpack(">I", payload[:4])[0]
        assert self.command == BLOCK_STATUS and context not in self.status and len(payload) % 8 == 4
        found = list(struct.iter_unpack(">II", payload[4:]))
        assert found and all(length for length, _ in found), found
        assert sum(length for length, _ in found[:-1]) < self.length
        if self.flags & REQ_ONE:
            assert len(found) == 1 and found[0][0] <= self.length, found
        self.status[context] = found

    def _add_content(self, kind, payload):
        at = struct.unpack(">Q", payload[:8])[0]
        assert self.command == READ and len(payload) > 8
        data = payload[8:]
        if kind == _OFFSET_HOLE:
            assert len(data) == 4
            data = bytes(struct.unpack(">I", data)[0])
            self.holes += 1
        assert data and self.offset <= at and at + len(data) <= self.offset + self.length
        assert all(at + len(data) <= other or other + len(more) <= at for other, more in self.pieces), "overlap"
        self.pieces.append((at, data))
        assert not self.flags & DF or len(self.pieces) == 1, "more than one chunk of content"

    def result(self):
        """Data of a read, contexts of a block status."""
        if self.error:
            return b""
        if self.command == BLOCK_STATUS:
            assert self.status
            return self.status
        data = b"".join(each for _, each in sorted(self.pieces))
        assert len(data) == (self.length if self.command == READ else 0), "gaps in the content"
        return data


class NbdClient(Haggler):
    """One connection in the transmission phase to an export behind a Unix socket."""

    def __init__(self, path, export=b"", structured=False, contexts=(), infos=()):
        super().__init__(path)
        self.sent = {}
        self.unfinished = {}
        self.cookie = 0
        self.structured = structured
        self.contexts = {}
        self.last = None  # the _Reply of the last structured reply that was complete
        self.block_sizes = None
        if structured:
            assert self.option(OPT_STRUCTURED_REPLY) == [(REP_ACK, b"")]
        if contexts:
            *found, last = self.option(OPT_SET_META_CONTEXT, meta_data(export, *contexts))
            assert last == (REP_ACK, b""), last
            self.contexts = {payload[4:]: struct.unpack(">I", payload[:4])[0] for _, payload in found}
        self._go(export, infos)

    def _go(self, export, infos):
        *found, last = self.option(OPT_GO, go_data(export, infos))
        assert last == (REP_ACK, b""), last
        for kind, payload in found:
            assert kind == REP_INFO, kind
            what = struct.unpack(">H", payload[:2])[0]
            if what == INFO_EXPORT:
                _, self.size, self.flags = struct.unpack(">HQH", payload)
            elif what == INFO_BLOCK_SIZE:
                self.block_sizes = struct.unpack(">III", payload[2:])

    def submit(self, command, offset=0, length=0, data=b"", flags=0):
        """Sends a request and returns its cookie; wait() answers it."""
        self.cookie += 1
        self.sent[self.cookie] = (command, offset, length, flags)
        self.socket.sendall(request(command, self.cookie, offset, length, flags) + data)
        return self.cookie

    def wait(self):
        """The next complete reply, of whichever request: its cookie, its error (0: none) and what it brought."""
        while True:
            magic = struct.unpack(">I", self.take(4))[0]
            if magic == _SIMPLE_MAGIC:
                return self._simple()
            assert magic == _STRUCTURED_MAGIC and self.structured, hex(magic)
            if (done := self._chunk()) is not None:
                return done

    def _simple(self):
        error, cookie = struct.unpack(">IQ", self.take(12))
        command, _, length, _ = self.sent.pop(cookie)
        assert cookie not in self.unfinished, "a simple reply among chunks"
        assert error == 0 or error in ERRORS, error
        assert not (self.structured and command in (READ, BLOCK_STATUS)), "a simple reply to a read"
        return cookie, error, self.take(length) if not error and command == READ else b""

    def _chunk(self):
        flags, kind, cookie, length = struct.unpack(">HHQI", self.take(16))
        assert flags in (0, 1), flags
        reply = self.unfinished.setdefault(cookie, _Reply(self.sent[cookie]))
        reply.add(kind, self.take(length))
        if not flags:
            assert kind != _NONE
            return None
        del self.sent[cookie], self.unfinished[cookie]
        self.last = reply
        return cookie, reply.error, reply.result()

    def call(self, *args, **more):
        """One request, alone: what it brought, or NbdError."""
        assert not self.sent, "requests are in flight"
        cookie = self.submit(*args, **more)
        answered, error, data = self.wait()
        assert answered == cookie, (answered, cookie)
        if error:
            raise NbdError(error)
        return data

    def read(self, offset, length, flags=0):
        return self.call(READ, offset, length, flags=flags)

    def write(self, offset, data, flags=0):
        self.call(WRITE, offset, len(data), data, flags)

    def trim(self, offset, length, flags=0):
        self.call(TRIM, offset, length, flags=flags)

    def write_zeroes(self, offset, length, flags=0):
        self.call(WRITE_ZEROES, offset, length, flags=flags)

    def cache(self, offset, length, flags=0):
        self.call(CACHE, offset, length, flags=flags)

    def block_status(self, offset, length, flags=0):
        """By the context's name: pairs of length and flags."""
        found = self.call(BLOCK_STATUS, offset, length, flags=flags)
        assert set(found) == set(self.contexts.values()), found
        return {name: found[number] for name, number in self.contexts.items()}

    def flush(self):
        self.call(FLUSH)

    def disconnect(self):
        """Says goodbye and waits until the server has closed its end."""
        self.socket.sendall(request(DISC, 0))
        assert self.socket.recv(1) == b""
