#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""nbd_test.py SCENARIO: what oxbow serves, with the kernel's own NBD client, in the virtual machine; guest_nbd.sh says
what each scenario is. $OXBOW and $VM_NBD are the programs."""

import os
import sys

import vm

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = [os.path.join(HERE, name) for name in ("guest_nbd.sh", "guest_device.sh")]
MEMORY = 2048  # MiB
SECONDS = 1700


def main():
    programs = [os.environ["OXBOW"], os.environ["VM_NBD"], "nbd-client", "mkfs.ext4", "e2fsck"]
    try:
        return vm.run(["sh", "/vm/guest_nbd.sh", sys.argv[1], os.environ.get("OXBOW_TEST_SEED", "1")], programs,
                      FILES, ["nbd", "ext4"], memory=MEMORY, seconds=SECONDS)
    except vm.Lacking as lacking:
        print(f"SKIP: {lacking}")
        return vm.SKIPPED


if __name__ == "__main__":
    sys.exit(main())
