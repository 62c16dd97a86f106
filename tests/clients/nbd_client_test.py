#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""nbd-client, which belongs to the kernel's client, as far as it goes without the kernel: it lists exports."""

import os
import shutil
import urllib.parse

from clients import ClientTest, main, need, socket_of


class NbdClientTest(ClientTest):
    def listed(self, *where):
        program = shutil.which("nbd-client", path=os.environ["PATH"] + ":/usr/sbin")
        lines = self.run_client(program, "-l", *where).splitlines()
        return [line for line in lines if line and not line.startswith("Negotiation")]

    def test_exports_over_a_unix_socket(self):
        server = self.serve_layer("work.oxb", "--name", "its-name", "--description", "what it is")
        listed = self.listed("-u", socket_of(server.uri))
        self.assertEqual(len(listed), 1)
        self.assertRegex(listed[0], r"its-name(\s*\[what it is\])?")
        self.stop(server)

    def test_exports_over_tcp(self):
        server = self.serve_layer("work.oxb", "--name", "its-name", "--nbd", "tcp:127.0.0.1:0")
        port = urllib.parse.urlparse(server.uri).port
        self.assertEqual(len(self.listed("127.0.0.1", str(port))), 1)
        self.stop(server)

    def test_several_exports(self):
        self.make("config.toml", b'[[device]]\nname = "one"\nram = "1M"\n[[device]]\nname = "two"\nram = "1M"\n')
        server = self.serve("--config", "config.toml", "--nbd", f"unix:{self.path('both.sock')}")
        self.assertEqual(self.listed("-u", self.path("both.sock")), ["one", "two"])
        self.stop(server)


if __name__ == "__main__":
    need("nbd-client")
    main()
