#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve --config: several devices in one process, errors that name file, line and key, and the manual of the keys."""

import json
import os
import re
import socket
import subprocess
import unittest

from oxbow_test import CommandTest, SECONDS, SOURCE

MIB = 1 << 20


class ConfigTest(CommandTest):
    def write(self, text, name="vm.toml"):
        return self.make(name, text.encode())

    def exports(self, uri):
        done = subprocess.run(["nbdinfo", "--list", "--json", uri], capture_output=True, text=True, check=True,
                              timeout=SECONDS)
        return {each["export-name"]: each for each in json.loads(done.stdout)["exports"]}

    def refuse_config(self, why, text, *args):
        self.write(text)
        self.refuse(1, why, "serve", "--config", "vm.toml", *args)

    def test_several_devices(self):
        self.make("golden.img", MIB)
        self.make("disk.img", 2 * MIB)
        self.make("my.table", b"0 2048 zero\n")
        self.succeed("create", "--base", "golden.img", "old.oxb")
        self.write("""nbd = ["unix:a.sock", "unix:b.sock"]
[[device]]
ram = "3M"
description = "for a while"
[[device]]
name = "new"
base = "golden.img"
overlay = "new.oxb"
default = true
[[device]]
file = "disk.img"
read-only = true
[[device]]
table = "my.table"
[[device]]
layer = "old.oxb"
""")
        server = self.serve("--config", "vm.toml")
        uris = [server.uri] + [server.process.stdout.readline().strip() for _ in range(9)]
        self.assertEqual(uris, [f"nbd+unix:///{name}?socket={self.folder}/{address}.sock"
                                for name in ("new", "ram", "disk", "my", "old") for address in ("a", "b")])
        found = self.exports(uris[0])
        self.assertEqual({name: each["export-size"] for name, each in found.items()},
                         {"new": MIB, "ram": 3 * MIB, "disk": 2 * MIB, "my": MIB, "old": MIB})
        self.assertEqual([name for name, each in found.items() if each["is_read_only"]], ["disk"])
        self.assertEqual(found["ram"]["description"], "for a while")
        self.qemu_io(f"nbd+unix:///?socket={self.folder}/b.sock", "write -P 9 0 64k")
        self.qemu_io(uris[0], "read -P 9 0 64k")
        for uri in uris[2], uris[8]:
            self.qemu_io(uri, "read -P 0 0 64k", "write -P 1 0 64k", "read -P 1 0 64k")
        self.assertEqual(server.stop(), (0, ""))
        self.succeed("check", "new.oxb")
        self.succeed("check", "old.oxb")

    def test_paths_are_meant_from_its_folder(self):
        os.mkdir(self.path("etc"))
        self.make("etc/disk.img", MIB)
        self.write('nbd = "unix:s"\n[[device]]\nfile = "disk.img"\n', "etc/vm.toml")
        server = self.serve("--config", "etc/vm.toml")
        self.assertEqual(server.uri, f"nbd+unix:///?socket={self.folder}/etc/s")
        self.assertEqual(server.stop(), (0, ""))

    def test_flags_count(self):
        self.write('nbd = "tcp:0.0.0.0:0"\n[[device]]\nram = 4096\n')
        self.refuse_matching(1, "vm.toml line 1, nbd: cannot listen: tcp:0.0.0.0:0: other hosts can reach it.*",
                             "serve", "--config", "vm.toml")
        self.write('nbd = "tcp:0.0.0.0:0"\ntcp-plaintext = true\n[[device]]\nram = 4096\n')
        server = self.serve("--config", "vm.toml")
        self.assertTrue(server.uri.startswith("nbd://0.0.0.0:"), server.uri)
        self.assertEqual(server.stop(), (0, ""))

    def test_the_command_line_wins(self):
        self.write('nbd = "unix:config.sock"\npid-file = "config.pid"\n[[device]]\nram = 4096\n')
        server = self.serve("--config", "vm.toml", "--nbd", "unix:line.sock", "--pid-file", "line.pid")
        self.assertEqual(server.uri, f"nbd+unix:///?socket={self.folder}/line.sock")
        self.qemu_io(server.uri, "read 0 4k")
        self.assertTrue(os.path.exists(self.path("line.pid")))
        self.assertFalse(os.path.exists(self.path("config.pid")) or os.path.exists(self.path("config.sock")))
        self.assertEqual(server.stop(), (0, ""))
        self.assertEqual(self.succeed("serve", "--config", "vm.toml", "--run", 'nbdinfo --size "$uri"'), "4096\n")

    def test_without_addresses_it_is_in_the_run_directory(self):
        self.write("[[device]]\nname = \"a\"\nram = 4096\n[[device]]\nname = \"b\"\nram = 8192\ndefault = true\n")
        server = self.serve("--config", "vm.toml")
        self.assertEqual(server.uri, f"nbd+unix:///b?socket={self.folder}/oxbow/b.sock")
        self.assertEqual(server.stop(), (0, ""))

    def test_bad_files(self):
        self.refuse(1, "cannot read configuration: none.toml: No such file or directory", "serve", "--config",
                    "none.toml")
        self.refuse(1, "cannot read configuration: .: Is a directory", "serve", "--config", ".")
        self.make("large.toml", MIB + 1)
        self.refuse(1, "cannot read configuration: large.toml: it is larger than 1048576 bytes", "serve", "--config",
                    "large.toml")
        self.write("[[device]]\nram = = 5\n")
        self.refuse_matching(1, r"cannot use configuration: vm\.toml line 2: Error while parsing .*", "serve",
                             "--config", "vm.toml")
        self.refuse_config("cannot use configuration: vm.toml: there is no [[device]], and nothing to serve", "")
        self.refuse_config("cannot use configuration: vm.toml line 3: ram: has to be a size like \"64M\" or a number "
                           "of bytes, and is a boolean", "\n[[device]]\nram = true\n")
        self.refuse_config("cannot use configuration: vm.toml line 1: nbd: has to be a string, or an array of strings, "
                           "and is a whole number", "nbd = 7\n", "--daemon")

    def test_files_that_are_missing(self):
        for key, what in (("file", "file"), ("layer", "file"), ("table", "table")):
            self.refuse_config(f"vm.toml line 5, {key}: cannot open {what}: none: No such file or directory",
                               f'[[device]]\nram = 4096\n\n[[device]]\n{key} = "none"\n')
        self.assertEqual(os.listdir(self.path("oxbow")), [])

    def test_addresses_that_are_taken(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
            self.refuse_config(f"vm.toml line 2, nbd: cannot listen: {address}: Address already in use",
                               f'nbd = ["unix:free.sock",\n"{address}"]\n[[device]]\nram = 4096\n')
        self.assertFalse(os.path.exists(self.path("free.sock")))
        server = self.serve("--ram", "4K", "--nbd", "unix:s")
        self.refuse_config("vm.toml line 1, nbd: cannot listen: unix:s: another process is serving this socket",
                           'nbd = "unix:s"\n[[device]]\nram = 4096\n')
        self.make("file", 1)
        self.refuse_config("vm.toml line 1, nbd: cannot listen: unix:file: the file exists and is not a socket",
                           'nbd = "unix:file"\n[[device]]\nram = 4096\n', "--daemon")
        self.refuse_config("vm.toml line 1, nbd: cannot listen: pipe:x: an address is unix:PATH or tcp:HOST:PORT",
                           'nbd = "pipe:x"\n[[device]]\nram = 4096\n')
        self.refuse_config("vm.toml line 1, nbd: cannot listen: tcp:0.0.0.0:0: other hosts can reach it, and nothing "
                           "is encrypted: TLS is needed, or --tcp-plaintext to allow it",
                           'nbd = "tcp:0.0.0.0:0"\n[[device]]\nram = 4096\n')
        self.assertEqual(server.stop(), (0, ""))

    def test_devices_that_need_the_same_file(self):
        self.make("disk.img", MIB)
        self.refuse_config("vm.toml line 4, file: cannot open file: disk.img: it is in use by another process",
                           '[[device]]\nfile = "disk.img"\n[[device]]\nfile = "disk.img"\nname = "again"\n')

    def test_options_that_belong_to_one_device(self):
        self.write("[[device]]\nram = 4096\n")
        for option in (["--name", "a"], ["--description", "a"], ["--read-only"], ["--direct"], ["--accept-base"],
                       ["--allow-base", "/"]):
            self.refuse(2, f"wrong usage: {option[0]}: belongs to a DEVICE; with --config, it is a key of its device; "
                        "see oxbow serve --help", "serve", "--config", "vm.toml", *option)
        self.refuse(2, "wrong usage: DEVICE: makes no sense with --config, which names them; see oxbow serve --help",
                    "serve", "--config", "vm.toml", "--ram", "1M")

    def test_numbers_on_the_command_line(self):
        for option, most in (("connections", 65536), ("handshake-limit", 3600), ("threads", 256), ("poll", 1000000)):
            for text in ("0", "-1", "x", "1x", str(most + 1)):
                why = f"--{option}: {text} is not a number from 1 to {most}"
                self.refuse(2, f"wrong usage: {why}; see oxbow serve --help", "serve", "--ram", "1M",
                            f"--{option}={text}")
            self.succeed("serve", "--ram", "1M", "--run", "true", f"--{option}={most if most < 65536 else 7}")
        self.succeed("serve", "--poll", "--ram", "1M", "--run", "true")

    def test_every_key_is_in_the_manual(self):
        def keys(text):
            self.write(text)
            told = self.run_oxbow("serve", "--config", "vm.toml").stderr
            return re.search(r"keys are (.*?)(?:, and \[\[device\]\])?\n", told)[1].split(", ")

        with open(f"{SOURCE}/man/oxbow-config.5", encoding="utf-8") as page:
            written = re.findall(r"^\.It Cm (\S+) No =", page.read(), re.M)
        self.assertEqual(keys("unknown = 1\n") + keys("[[device]]\nunknown = 1\n"), written)

    def test_the_manuals_example(self):
        with open(f"{SOURCE}/man/oxbow-config.5", encoding="utf-8") as page:
            example = page.read().split(".Sh EXAMPLES")[1].split("indent\n")[1].split(".Ed")[0]
        self.make("debian.img", MIB)
        example = example.replace("/srv/images/", "").replace("/srv/layers/", "").replace("/run/oxbow/", "")
        self.write(example.replace("10809", "0"))
        server = self.serve("--config", "vm.toml")
        self.assertEqual(set(self.exports(server.uri)), {"debian", "scratch"})
        self.assertEqual(server.stop(), (0, ""))


if __name__ == "__main__":
    unittest.main()
