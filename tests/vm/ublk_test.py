#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ublk_test.py SCENARIO: oxbow's block devices of the kernel's ublk driver, in the virtual machine; guest_ublk.sh says
what each scenario is. $OXBOW is the program."""

import os
import sys

import vm

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = [os.path.join(HERE, name) for name in ("guest_ublk.sh", "guest_device.sh")]
MAKERS = {"ext4": ["mkfs.ext4", "e2fsck"], "xfs": ["mkfs.xfs", "xfs_repair"], "btrfs": ["mkfs.btrfs", "btrfs"]}
MEMORY, SMALL_MEMORY = 2048, 512  # MiB
DISK = 3400  # MiB
SECONDS = 1700


def main():
    scenario = sys.argv[1]
    kind, _, file_system = scenario.partition("-")
    programs = [os.environ["OXBOW"], "partx", "setpriv", "strace", *MAKERS["ext4" if kind != "files" else file_system]]
    modules = ["ublk_drv", "ext4", *([file_system] if kind == "files" else [])]
    if kind == "short":
        modules += ["loop", "fuse"]
    memory, disk = MEMORY, 0
    if kind == "reclaim":
        modules += ["virtio_blk", "loop", "fuse"]
        memory, disk = SMALL_MEMORY, DISK
    try:
        return vm.run(["sh", "/vm/guest_ublk.sh", kind, file_system, os.environ.get("OXBOW_TEST_SEED", "1")], programs,
                      FILES, modules, memory=memory, seconds=SECONDS, disk=disk)
    except vm.Lacking as lacking:
        print(f"SKIP: {lacking}")
        return vm.SKIPPED


if __name__ == "__main__":
    sys.exit(main())
