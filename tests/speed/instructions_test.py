#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the instructions that a 4 KiB read costs the program itself, from the bytes of the request to the list of what
is sent, the kernel's part left out. They don't depend on the machine's load, so a bound can be tight: whoever makes
the path longer has to raise it knowingly, and whoever makes it shorter by more than a seventh, to lower it."""
import os
import re
import shutil
import subprocess
import sys

# Instructions per request in a release build.
EXPECTED = {"ram": 1340, "file": 1215, "layer": 1405}
MARGIN = 0.15
FEW, MANY = 3200, 9600


def instructions(program, kind, count):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, kind, str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    if int(done.stdout) != count * (4096 + 16):
        sys.exit(f"{kind}: {done.stdout.strip()} bytes were answered, not {count * (4096 + 16)}")
    return int(re.search(r"Collected : (\d+)", done.stderr).group(1))


def main():
    program = sys.argv[1]
    if os.environ.get("OXBOW_BUILD_TYPE") != "Release" or os.environ.get("OXBOW_SANITIZE"):
        print("SKIP: instructions are counted in release builds")
        return 77
    if shutil.which("valgrind") is None:
        print("SKIP: valgrind is not installed")
        return 77
    failed = False
    for kind, expected in EXPECTED.items():
        each = (instructions(program, kind, MANY) - instructions(program, kind, FEW)) / (MANY - FEW)
        fits = abs(each - expected) <= expected * MARGIN
        failed = failed or not fits
        print(f"{kind}: {each:.0f} instructions per request, expected {expected} ± {MARGIN:.0%}"
              f"{'' if fits else ': DIFFERS'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
