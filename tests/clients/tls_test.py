#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""TLS with libnbd's and qemu's clients: certificates and keys made for the test, and clients that have wrong ones."""

import os
import socket
import struct
import subprocess
import urllib.parse

from clients import ClientTest, MIB, main, need

AUTHORITY = 'cn = "Test authority"\nca\ncert_signing_key\n'
SERVER = 'cn = "localhost"\ndns_name = "localhost"\nip_address = "127.0.0.1"\ntls_www_server\nsigning_key\n'
CLIENT = 'cn = "Test client"\ntls_www_client\nsigning_key\n'


class TlsTest(ClientTest):
    SIZE = 4 * MIB + 2560

    def certtool(self, *words):
        subprocess.run(["certtool", *words], cwd=self.folder, check=True, capture_output=True)

    def make_key(self, name):
        self.certtool("--generate-privkey", "--key-type", "ecdsa", "--outfile", name)

    def make_authority(self, folder):
        os.mkdir(self.path(folder))
        self.make(f"{folder}/ca.info", AUTHORITY.encode())
        self.make_key(f"{folder}/ca-key.pem")
        self.certtool("--generate-self-signed", "--load-privkey", f"{folder}/ca-key.pem", "--template",
                      f"{folder}/ca.info", "--outfile", f"{folder}/ca-cert.pem")

    def make_certificate(self, folder, name, template):
        self.make(f"{folder}/{name}.info", template.encode())
        self.make_key(f"{folder}/{name}-key.pem")
        self.certtool("--generate-certificate", "--load-ca-certificate", f"{folder}/ca-cert.pem",
                      "--load-ca-privkey", f"{folder}/ca-key.pem", "--load-privkey", f"{folder}/{name}-key.pem",
                      "--template", f"{folder}/{name}.info", "--outfile", f"{folder}/{name}-cert.pem")

    def make_pki(self, folder="pki"):
        self.make_authority(folder)
        self.make_certificate(folder, "server", SERVER)
        self.make_certificate(folder, "client", CLIENT)

    def make_keys(self, folder="keys", user="alice"):
        os.makedirs(self.path(folder), exist_ok=True)
        subprocess.run(["psktool", "--username", user, "--pskfile", self.path(f"{folder}/keys.psk")], check=True,
                       capture_output=True)

    def serve_tls(self, *options):
        return self.serve("--file", "golden.img", "--read-only", "--nbd", "tcp:127.0.0.1:0", *options)

    def serve_scratch(self, *options):
        """Something that may be written to."""
        return self.serve("--ram", str(self.SIZE), "--nbd", "tcp:127.0.0.1:0", *options)

    def port(self, server):
        return urllib.parse.urlparse(server.uri).port

    def with_certificates(self, server, folder):
        return f"{server.uri}?tls-certificates={self.path(folder)}"

    def with_key(self, server, user="alice", folder="keys"):
        return f"nbds://{user}@127.0.0.1:{self.port(server)}/?tls-psk-file={self.path(folder)}/keys.psk"

    def credentials(self, of_qemu):
        return ["--object", f"{of_qemu},id=t,endpoint=client"]

    def image(self, server):
        """What a qemu program calls the server together with credentials()."""
        return f"driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port={self.port(server)},file.tls-creds=t"

    def assert_size(self, uri, size):
        self.assertEqual(self.run_client("nbdinfo", "--size", uri), f"{size}\n")

    def assert_refused(self, why, *command):
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stderr, why)

    def end(self, server):
        """Ends a server; clients that were let go may have been worth a line."""
        self.assertEqual(server.stop()[0], 0)

    def test_uris_say_tls(self):
        self.make_keys()
        server = self.serve_tls("--tls-psk", "keys/keys.psk")
        self.assertRegex(server.uri, r"\Anbds://127\.0\.0\.1:\d+/\Z")
        self.stop(server)
        server = self.serve("--ram", "1M", "--nbd", "unix:s", "--tls-psk", "keys/keys.psk")
        self.assertEqual(server.uri, f"nbds+unix:///?socket={self.folder}/s")
        self.assert_size(f"nbds+unix://alice@/?socket={self.folder}/s&tls-psk-file={self.folder}/keys/keys.psk", MIB)
        self.stop(server)

    def test_certificates_with_libnbd(self):
        self.make_pki()
        server = self.serve_tls("--tls-certificates", "pki")
        uri = self.with_certificates(server, "pki")
        self.assertRegex(self.run_client("nbdinfo", uri), "protocol: newstyle-fixed with TLS")
        self.run_client("nbdcopy", uri, self.path("copy.img"))
        self.assert_same_file("copy.img", "golden.img")
        self.stop(server)

    def test_certificates_with_qemu(self):
        self.make_pki()
        server = self.serve_tls("--tls-certificates", "pki")
        self.run_client("qemu-img", "convert", *self.credentials(f"tls-creds-x509,dir={self.path('pki')}"),
                        "--image-opts", self.image(server), "-O", "raw", self.path("copy.img"))
        self.assert_same_file("copy.img", "golden.img")
        self.stop(server)

    def test_keys_with_libnbd_both_ways(self):
        self.make_keys()
        server = self.serve_scratch("--tls-psk", "keys/keys.psk")
        uri = self.with_key(server)
        self.run_client("nbdcopy", "--connections=4", self.golden, uri)
        self.run_client("nbdcopy", "--connections=4", uri, self.path("copy.img"))
        self.assert_same_file("copy.img", "golden.img")
        self.stop(server)

    def test_keys_with_qemu_both_ways(self):
        self.make_keys()
        server = self.serve_scratch("--tls-psk", "keys/keys.psk")
        credentials = self.credentials(f"tls-creds-psk,username=alice,dir={self.path('keys')}")
        self.run_client("qemu-img", "convert", *credentials, "-n", "--image-opts", "--target-image-opts",
                        f"driver=raw,file.driver=file,file.filename={self.golden}", self.image(server))
        self.run_client("qemu-img", "convert", *credentials, "--image-opts", self.image(server), "-O", "raw",
                        self.path("copy.img"))
        self.assert_same_file("copy.img", "golden.img")
        self.stop(server)

    def test_several_users(self):
        self.make_keys()
        self.make_keys(user="bob")
        server = self.serve_tls("--tls-psk", "keys/keys.psk")
        for user in ("alice", "bob"):
            with self.subTest(user):
                self.assert_size(self.with_key(server, user), self.SIZE)
        self.stop(server)

    def test_wrong_and_unknown_keys_are_refused(self):
        self.make_keys()
        self.make_keys("other")
        self.make_keys("other", "mallory")
        server = self.serve_tls("--tls-psk", "keys/keys.psk")
        for user in ("alice", "mallory"):
            with self.subTest(user):
                self.assert_refused("(?i)handshake|TLS", "nbdinfo", self.with_key(server, user, "other"))
        self.assert_size(self.with_key(server), self.SIZE)
        self.end(server)

    def test_plaintext_clients_are_refused(self):
        self.make_pki()
        server = self.serve_tls("--tls-certificates", "pki")
        plain = server.uri.replace("nbds://", "nbd://")
        self.assert_refused("this server is used with TLS only", "env", "LIBNBD_DEBUG=1", "nbdinfo", plain)
        self.assert_refused("(?i)TLS", "qemu-img", "info", "-f", "raw", plain)
        self.end(server)

    def test_a_tls_client_is_told_that_there_is_none(self):
        self.make_pki()
        server = self.serve_tls()
        self.assertTrue(server.uri.startswith("nbd://"), server.uri)
        uri = self.with_certificates(server, "pki").replace("nbd://", "nbds://")
        self.assert_refused("this server does not use TLS", "env", "LIBNBD_DEBUG=1", "nbdinfo", uri)
        self.end(server)

    def test_a_client_of_another_authority_refuses(self):
        self.make_pki()
        self.make_pki("other")
        server = self.serve_tls("--tls-certificates", "pki")
        self.assert_refused("(?i)certificate|issuer|handshake", "nbdinfo", self.with_certificates(server, "other"))
        self.end(server)

    def test_verified_clients(self):
        self.make_pki()
        self.make_pki("other")
        os.mkdir(self.path("nobody"))
        self.make("nobody/ca-cert.pem", self.content("pki/ca-cert.pem"))
        # Trusts the server, and is somebody whom the server's authority doesn't know.
        os.mkdir(self.path("foreign"))
        self.make("foreign/ca-cert.pem", self.content("pki/ca-cert.pem"))
        for name in ("client-cert.pem", "client-key.pem"):
            self.make(f"foreign/{name}", self.content(f"other/{name}"))
        server = self.serve_tls("--tls-certificates", "pki", "--tls-verify-peer")
        self.assert_size(self.with_certificates(server, "pki"), self.SIZE)
        self.run_client("qemu-img", "info", *self.credentials(f"tls-creds-x509,dir={self.path('pki')}"),
                        "--image-opts", self.image(server))
        for folder in ("nobody", "foreign"):
            with self.subTest(folder):
                self.assert_refused(".", "nbdinfo", self.with_certificates(server, folder))
        self.end(server)
        server = self.serve_tls("--tls-certificates", "pki")
        self.assert_size(self.with_certificates(server, "nobody"), self.SIZE)
        self.end(server)

    def test_what_is_pipelined_in_the_clear_does_not_count(self):
        self.make_keys()
        server = self.serve_tls("--tls-psk", "keys/keys.psk")
        with socket.create_connection(("127.0.0.1", self.port(server)), timeout=10) as client:
            option = struct.Struct(">QII")
            magic = 0x49484156454F5054
            client.sendall(struct.pack(">I", 3) + option.pack(magic, 5, 0) + option.pack(magic, 3, 0))
            answer = b""
            while len(answer) < 38:
                answer += client.recv(100)
            self.assertEqual(answer[18:], struct.pack(">QIII", 0x0003e889045565a9, 5, 1, 0))
            client.settimeout(0.5)
            with self.assertRaises(TimeoutError):
                client.recv(1)
        self.end(server)

    def test_a_file_that_is_cut_short_fails_requests_only(self):
        self.make_keys()
        self.make_image(self.path("short.img"), 8 * MIB, seed=2)
        server = self.serve("--file", "short.img", "--read-only", "--nbd", "tcp:127.0.0.1:0", "--tls-psk",
                            "keys/keys.psk")
        self.run_client("nbdcopy", self.with_key(server), self.path("copy.img"))
        self.assert_same_file("copy.img", "short.img")
        os.truncate(self.path("short.img"), MIB + 5000)
        self.assert_refused("(?i)error", "nbdcopy", self.with_key(server), self.path("copy.img"))
        self.assert_size(self.with_key(server), 8 * MIB)
        self.assertIsNone(server.process.poll(), "it was ended by the missing bytes")
        server.stop()

    def test_remote_addresses_need_no_permission(self):
        self.make_keys()
        server = self.serve("--ram", "1M", "--nbd", "tcp:0.0.0.0:0", "--tls-psk", "keys/keys.psk")
        self.assertTrue(server.uri.startswith("nbds://0.0.0.0:"), server.uri)
        self.assert_size(self.with_key(server), MIB)
        self.stop(server)

    def test_in_a_configuration(self):
        self.make_keys()
        self.make("vm.toml", b'nbd = "tcp:127.0.0.1:0"\ntls-psk = "keys/keys.psk"\n[[device]]\nram = "1M"\n')
        server = self.serve("--config", "vm.toml")
        self.assert_size(self.with_key(server), MIB)
        self.stop(server)
        # Who the server is comes from one place.
        self.make_pki()
        server = self.serve("--config", "vm.toml", "--tls-certificates", "pki")
        self.assert_size(self.with_certificates(server, "pki"), MIB)
        self.stop(server)
        self.make("vm.toml", b'tls-verify-peer = true\n[[device]]\nram = "1M"\n')
        self.refuse(1, "cannot serve: --tls-verify-peer: needs --tls-certificates", "serve", "--config", "vm.toml")

    def test_wrong_files(self):
        self.make_pki()

        def refuse(why, *options):
            self.refuse(1, why, "serve", "--ram", "1M", "--nbd", "unix:s", *options)
        what = "cannot use TLS certificates: "
        os.rename(self.path("pki/server-key.pem"), self.path("right-key.pem"))
        refuse(what + "pki/server-key.pem: No such file or directory", "--tls-certificates", "pki")
        self.make_key("pki/server-key.pem")
        refuse(what + "pki/server-key.pem: the key does not belong to server-cert.pem", "--tls-certificates", "pki")
        refuse(what + "nowhere/ca-cert.pem: No such file or directory", "--tls-certificates", "nowhere")
        self.make("keys.psk", b"alice\n")
        refuse("cannot use TLS keys: keys.psk line 1: a line has the form NAME:KEY", "--tls-psk", "keys.psk")
        self.assertFalse(os.path.exists(self.path("s")))

    def test_options_that_contradict_each_other(self):
        self.refuse(2, "wrong usage: --tls-verify-peer: needs --tls-certificates; see oxbow serve --help", "serve",
                    "--ram", "1M", "--tls-verify-peer")
        self.refuse(2, "wrong usage: --tls-psk: makes no sense with --tls-certificates: either keys or certificates; "
                    "see oxbow serve --help", "serve", "--ram", "1M", "--tls-psk", "a", "--tls-certificates", "b")


if __name__ == "__main__":
    need("certtool", "psktool", "nbdinfo", "nbdcopy", "qemu-img")
    main()
