#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The systemd units: they parse, name what is there, and systemd has nothing to say against them."""

import configparser
import glob
import os
import re
import shutil
import subprocess
import unittest

from oxbow_test import CommandTest, OXBOW, SECONDS, SOURCE

BUILD = os.environ["OXBOW_BUILD_DIR"]


class UnitsTest(CommandTest):
    def install(self):
        """Installs into the folder; returns what is there: names without folders, and their paths."""
        subprocess.run(["cmake", "--install", BUILD], env=dict(self.environment, DESTDIR=self.folder), check=True,
                       capture_output=True, timeout=SECONDS)
        return {os.path.basename(path): path for path in glob.glob(f"{self.folder}/**", recursive=True)
                if os.path.isfile(path)}

    def parse(self, path):
        unit = configparser.ConfigParser(interpolation=None, strict=True, delimiters="=")
        unit.optionxform = str
        with open(path, encoding="utf-8") as file:
            unit.read_file(file)
        return unit

    def test_what_is_installed(self):
        there = self.install()
        pages = [os.path.basename(page) for page in
                 glob.glob(f"{SOURCE}/man/*.[157]") + glob.glob(f"{SOURCE}/src/**/*.7", recursive=True)]
        self.assertGreater(len(pages), 10)
        for name in ["oxbow", "oxbow@.service", "oxbow-attach@.service", "oxbow@.socket", "60-oxbow.rules", *pages]:
            self.assertIn(name, there)
        self.assertTrue(there["oxbow@.service"].endswith("/lib/systemd/system/oxbow@.service"))
        self.assertTrue(there["60-oxbow.rules"].endswith("/lib/udev/rules.d/60-oxbow.rules"))
        self.assertTrue(there["oxbow-config.5"].endswith("/man/man5/oxbow-config.5"))

    def test_the_service_runs_what_is_installed(self):
        there = self.install()
        service = self.parse(there["oxbow@.service"])["Service"]
        program, *args = service["ExecStart"].split()
        self.assertEqual(self.folder + program, there["oxbow"])
        self.assertEqual(args, ["serve", "--config", "/etc/oxbow/%i.toml"])
        self.assertIn("\n  --config FILE\n", self.succeed("serve", "--help"))
        self.assertEqual((service["Type"], service["NotifyAccess"], service["Restart"]), ("notify", "main", "no"))
        self.assertEqual((service["RuntimeDirectory"], service["RuntimeDirectoryMode"],
                          service["RuntimeDirectoryPreserve"]), ("oxbow", "0700", "yes"))

    def test_the_service_of_block_devices_runs_what_is_installed(self):
        there = self.install()
        unit = self.parse(there["oxbow-attach@.service"])
        program, *args = unit["Service"]["ExecStart"].split()
        self.assertEqual(self.folder + program, there["oxbow"])
        self.assertEqual(args, ["attach", "--foreground", "--config", "/etc/oxbow/%i.toml"])
        for option in ("--config FILE", "--foreground"):
            self.assertIn(f"\n  {option}\n", self.succeed("attach", "--help"))
        # File systems on its devices are unmounted before it has to end.
        self.assertIn("remote-fs-pre.target", unit["Unit"]["Before"].split())
        self.assertIn("remote-fs-pre.target", unit["Unit"]["Wants"].split())
        self.assertEqual(unit["Service"]["LimitMEMLOCK"], "infinity")

    def test_rules_find_the_names_where_they_are(self):
        with open(f"{SOURCE}/systemd/60-oxbow.rules", encoding="utf-8") as file:
            rules = file.read()
        with open(f"{SOURCE}/src/exports/loop/leftovers.cpp", encoding="utf-8") as file:
            self.assertIn('k_suffix = ".loop"', file.read())
        self.assertIn('"/run/oxbow/*.loop"', rules)
        with open(f"{SOURCE}/src/exports/ublk/own_devices.cpp", encoding="utf-8") as file:
            parts = re.findall(r'k_note_(?:prefix|suffix) = "([^"]*)"', file.read())
        self.assertEqual(len(parts), 2)
        self.assertEqual(rules.count(f"/run/oxbow/{parts[0]}%n{parts[1]}"), 2)

    def test_the_socket_is_for_its_user_alone(self):
        unit = self.parse(f"{SOURCE}/systemd/oxbow@.socket")["Socket"]
        self.assertEqual((unit["ListenStream"], unit["SocketMode"], unit["DirectoryMode"]),
                         ("/run/oxbow/%i.sock", "0600", "0700"))

    def test_systemd_finds_nothing(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("no systemd-analyze on this machine")
        with open(f"{BUILD}/systemd/oxbow@.service", encoding="utf-8") as file:
            service = re.sub(r"^ExecStart=\S+", f"ExecStart={OXBOW}", file.read(), flags=re.M)
        units = [self.make("oxbow@.service", service.encode()), self.path("oxbow@.socket")]
        shutil.copy(f"{SOURCE}/systemd/oxbow@.socket", units[1])
        with open(f"{BUILD}/systemd/oxbow-attach@.service", encoding="utf-8") as file:
            attach = re.sub(r"^ExecStart=\S+", f"ExecStart={OXBOW}", file.read(), flags=re.M)
        self.make("oxbow-attach@.service", attach.encode())
        instances = [self.path(f"{each}") for each in
                     ("oxbow@lab.service", "oxbow@lab.socket", "oxbow-attach@lab.service")]
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *instances], capture_output=True, text=True,
                              check=False, timeout=SECONDS)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        # It does find something where there is something.
        self.make("oxbow@.service", service.replace("Type=notify", "Type=tell").replace(OXBOW, "/none").encode())
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *instances], capture_output=True, text=True,
                              check=False, timeout=SECONDS)
        self.assertNotEqual((done.returncode, done.stdout + done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
