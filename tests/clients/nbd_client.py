# SPDX-License-Identifier: Apache-2.0
"""A small NBD client of its own: fixed newstyle, simple replies, as many requests in flight as the caller likes."""

import errno
import socket
import struct

FLAG_HAS_FLAGS = 1 << 0
FLAG_READ_ONLY = 1 << 1
FLAG_SEND_FLUSH = 1 << 2
FLAG_SEND_FUA = 1 << 3
FLAG_SEND_TRIM = 1 << 5
FLAG_SEND_WRITE_ZEROES = 1 << 6
FLAG_CAN_MULTI_CONN = 1 << 8

READ, WRITE, DISC, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FUA, NO_HOLE = 1 << 0, 1 << 1

_OPTION_MAGIC = 0x49484156454F5054
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698
_OPT_GO, _REP_ACK, _REP_INFO, _INFO_EXPORT = 7, 1, 3, 0
_SECONDS = 60


class NbdError(Exception):
    """The server answered with an error; `number` is NBD's."""

    def __init__(self, number):
        super().__init__(f"error {number} ({errno.errorcode.get(number, '?')})")
        self.number = number


class NbdClient:
    """One connection to the default export behind a Unix socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_SECONDS)
        self.socket.connect(path)
        self.sent = {}
        self.cookie = 0
        self._negotiate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _take(self, length):
        got = bytearray()
        while len(got) < length:
            part = self.socket.recv(length - len(got))
            if not part:
                raise ConnectionError("the server closed the connection")
            got += part
        return bytes(got)

    def _negotiate(self):
        greeting = self._take(18)
        assert greeting[:16] == b"NBDMAGICIHAVEOPT", greeting
        self.socket.sendall(struct.pack(">I", 3))
        self.socket.sendall(struct.pack(">QII", _OPTION_MAGIC, _OPT_GO, 6) + struct.pack(">IH", 0, 0))
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self._take(20))
            payload = self._take(length)
            assert (magic, option) == (_OPTION_REPLY_MAGIC, _OPT_GO), (magic, option)
            if kind == _REP_ACK:
                return
            assert kind == _REP_INFO, kind
            if struct.unpack(">H", payload[:2])[0] == _INFO_EXPORT:
                _, self.size, self.flags = struct.unpack(">HQH", payload)

    def submit(self, command, offset=0, length=0, data=b"", flags=0):
        """Sends a request and returns its cookie; wait() answers it."""
        self.cookie += 1
        self.sent[self.cookie] = length if command == READ else 0
        self.socket.sendall(
            struct.pack(">IHHQQI", _REQUEST_MAGIC, flags, command, self.cookie, offset, length) + data)
        return self.cookie

    def wait(self):
        """The next reply, of whichever request: its cookie, its error (0: none) and the data that was read."""
        magic, error, cookie = struct.unpack(">IIQ", self._take(16))
        assert magic == _REPLY_MAGIC, hex(magic)
        length = self.sent.pop(cookie)
        return cookie, error, self._take(length) if not error else b""

    def _call(self, *args, **more):
        assert not self.sent, "requests are in flight"
        cookie = self.submit(*args, **more)
        answered, error, data = self.wait()
        assert answered == cookie, (answered, cookie)
        if error:
            raise NbdError(error)
        return data

    def read(self, offset, length):
        return self._call(READ, offset, length)

    def write(self, offset, data, flags=0):
        self._call(WRITE, offset, len(data), data, flags)

    def trim(self, offset, length, flags=0):
        self._call(TRIM, offset, length, flags=flags)

    def write_zeroes(self, offset, length, flags=0):
        self._call(WRITE_ZEROES, offset, length, flags=flags)

    def flush(self):
        self._call(FLUSH)

    def disconnect(self):
        """Says goodbye and waits until the server has closed its end."""
        self.socket.sendall(struct.pack(">IHHQQI", _REQUEST_MAGIC, 0, DISC, 0, 0, 0))
        assert self.socket.recv(1) == b""
