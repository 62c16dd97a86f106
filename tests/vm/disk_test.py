#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""disk_test.py SCENARIO [FLUSHES [MORE]]: runs a scenario in the virtual machine. power-FS: a layer on a file
system whose disk loses power; errors-FS: on one whose disk fails. $OXBOW, $VM_LOAD and $VM_REPLAY are the programs."""

import os
import sys

import vm

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = ["loop", "dm-log-writes", "dm-snapshot", "dm-flakey", "ext4", "xfs", "btrfs"]
MAKERS = {"ext4": ["mkfs.ext4"], "xfs": ["mkfs.xfs"], "btrfs": ["mkfs.btrfs", "btrfs"]}
SECONDS = 1700
SCALE = float(os.environ.get("OXBOW_TEST_SCALE", "1"))


def main():
    kind, _, file_system = sys.argv[1].partition("-")
    # Flushes of the load; then how often it is cut off between two of them, or how many requests meet a bad disk.
    count, more = {"power": (16, "3"), "errors": (8, "300")}[kind]
    flushes, more = (sys.argv[2:] + [str(max(2, int(count * SCALE))), more][len(sys.argv) - 2:])[:2]
    seed = os.environ.get("OXBOW_TEST_SEED", "1")
    programs = [os.environ["OXBOW"], os.environ["VM_LOAD"], os.environ["VM_REPLAY"], "dmsetup", "filefrag",
                *MAKERS[file_system.split("-")[0]]]
    files = [os.path.join(HERE, name) for name in ("guest_disk.sh", f"{kind}.sh")]
    command = ["sh", f"/vm/{kind}.sh", file_system, flushes, more, seed]
    try:
        return vm.run(command, programs, files, MODULES, seconds=SECONDS)
    except vm.Lacking as lacking:
        print(f"SKIP: {lacking}")
        return vm.SKIPPED


if __name__ == "__main__":
    sys.exit(main())
