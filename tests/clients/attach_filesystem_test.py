#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""File systems on attached devices of every kind: made, filled with a real tree, compared, checked, mounted again."""

import os
import shutil

from attaching import AttachTest, need_block_devices
from clients import MIB, main, need

CHECKS = {"ext4": ("e2fsck", "-f", "-n"), "xfs": ("xfs_repair", "-n"), "btrfs": ("btrfs", "check", "--readonly")}
SIZE = 320 * MIB  # the least that mkfs.xfs takes is 300


class FileSystemTest(AttachTest):
    def need_maker(self, system):
        if shutil.which(f"mkfs.{system}", path=os.environ["PATH"] + ":/usr/sbin") is None:
            self.skipTest(f"no mkfs.{system} on this machine")

    def check_file_system(self, system, attach, name, keeps=True):
        """Fills one on the device that `attach` attaches; `keeps`: the device outlives being detached."""
        self.need_maker(system)
        path = attach()
        self.assertEqual(self.tool("blockdev", "--getsize64", path), f"{SIZE}\n")
        self.tool(f"mkfs.{system}", "-q", *(["-F"] if system == "ext4" else ["-f"]), path)
        self.assertEqual(self.tool("blkid", "-o", "value", "-s", "TYPE", path), f"{system}\n")
        self.mount(path)
        self.fill()
        self.compare()
        self.refuse(1, f"cannot detach device: {name}: {path} is in use: mounted at {self.mnt}", "detach", name)
        self.umount()
        self.tool(*CHECKS[system], path)
        if keeps:
            self.detach(name)
            self.nothing_left()
            path = attach()
        self.mount(path, "-o", "ro")
        self.compare()
        self.umount()
        self.tool(*CHECKS[system], path)
        self.detach(name)
        self.nothing_left()

    def layer(self):
        return self.attach_layer(size=str(SIZE))

    def ram(self):
        return self.attach("--ram", str(SIZE), "--name", "ram")

    def table(self):
        """The two halves in files, the second one first."""
        for name in ("one.img", "two.img"):
            if not os.path.exists(self.path(name)):
                self.make(name, SIZE // 2)
        sectors = SIZE // 2 // 512
        self.make("table", f"0 {sectors} linear {self.path('two.img')} 0\n"
                           f"{sectors} {sectors} linear {self.path('one.img')} 0\n".encode())
        return self.attach("--table", "table")

    def pair(self):
        if not os.path.exists(self.path("rdo.img")):
            self.make("rdo.img", SIZE)
        return self.attach("--cowloop", "rdo.img", "work.cow", "--name", "pair")

    def test_ext4_on_a_layer(self):
        self.check_file_system("ext4", self.layer, "work")
        self.assert_checked("work.oxb")

    def test_ext4_on_a_ram_disk(self):
        self.check_file_system("ext4", self.ram, "ram", keeps=False)

    def test_ext4_on_a_table(self):
        self.check_file_system("ext4", self.table, "table")

    def test_ext4_on_a_pair_of_cowloop(self):
        self.check_file_system("ext4", self.pair, "pair")

    def test_xfs_on_a_layer(self):
        self.check_file_system("xfs", self.layer, "work")
        self.assert_checked("work.oxb")

    def test_xfs_on_a_table(self):
        self.check_file_system("xfs", self.table, "table")

    def test_xfs_on_a_pair_of_cowloop(self):
        self.check_file_system("xfs", self.pair, "pair")

    def test_xfs_on_a_ram_disk(self):
        self.check_file_system("xfs", self.ram, "ram", keeps=False)

    def test_btrfs_on_a_layer(self):
        self.check_file_system("btrfs", self.layer, "work")
        self.assert_checked("work.oxb")

    def test_btrfs_on_a_ram_disk(self):
        self.check_file_system("btrfs", self.ram, "ram", keeps=False)

    def test_btrfs_on_a_table(self):
        self.check_file_system("btrfs", self.table, "table")

    def test_btrfs_on_a_pair_of_cowloop(self):
        self.check_file_system("btrfs", self.pair, "pair")

    def check_trim(self, system):
        self.need_maker(system)
        path = self.layer()
        self.tool(f"mkfs.{system}", "-q", *(["-F"] if system == "ext4" else ["-f"]), path)
        self.mount(path)
        name = os.path.join(self.mnt, "large")
        with open(name, "wb") as file:
            for _ in range(64):
                file.write(os.urandom(MIB))
            os.fsync(file.fileno())
        full = os.stat(self.path("work.oxb")).st_blocks * 512
        self.assertGreater(full, 64 * MIB)
        os.unlink(name)
        # xfs frees the blocks of what was removed when it has time; unmounting waits for that.
        self.umount()
        self.mount(path)
        self.tool("fstrim", self.mnt)
        self.tool("sync", "--file-system", self.mnt)
        self.assertLess(os.stat(self.path("work.oxb")).st_blocks * 512, full - 48 * MIB)
        self.umount()
        self.tool(*CHECKS[system], path)
        self.detach("work")
        self.assert_checked("work.oxb")

    def test_fstrim_of_ext4_gives_room_back(self):
        self.check_trim("ext4")

    def test_fstrim_of_xfs_gives_room_back(self):
        self.check_trim("xfs")


if __name__ == "__main__":
    need_block_devices()
    need("mkfs.ext4", "e2fsck", "blkid", "fstrim")
    main()
