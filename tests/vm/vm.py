#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vm.py [--mem MIB] [--disk MIB] [--timeout SECONDS] [--module NAME]... [--program NAME]... [--file PATH]... -- COMMAND
[ARG]...

Runs a command in a virtual machine: a Debian kernel that is downloaded but never installed, and an initramfs with
busybox, the programs named, the libraries they need, and the files, which it finds in /vm. Nothing of this machine
can be seen or changed from inside, and no privilege is needed. The guest's output is this program's output, its exit
status this one's; 77 and a line that says why when the machine lacks something, 124 when time ran out.
"""

import argparse
import glob
import lzma
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

KERNELS = ["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"]  # the first that apt knows is taken
QEMU = "qemu-system-x86_64"
NEEDED = [QEMU, "busybox", "cpio", "modprobe", "depmod", "ldd", "apt-get", "dpkg-deb"]
KVM_SECONDS = 20  # a guest that has not said anything by then never will
SKIPPED, TIMED_OUT = 77, 124
PATHS = os.environ["PATH"] + ":/usr/sbin:/sbin"

INIT = r"""#!/bin/sh
export PATH=/usr/bin:/usr/sbin HOME=/root LC_ALL=C DM_DISABLE_UDEV=1
/bin/busybox --install -s /vm/busybox
PATH=$PATH:/vm/busybox
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /run
for place in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777,size=90% tmpfs "$place"; done
ln -s /proc/self/fd /dev/fd
ifconfig lo up
for port in /sys/class/virtio-ports/*; do
  case $(cat "$port/name") in
    output) output=/dev/${port##*/} ;;
    status) status=/dev/${port##*/} ;;
  esac
done
exec 3>"$status"
echo started >&3
loaded=0
for module in $(cat /vm/modules/order); do
  insmod "/vm/modules/$module" || loaded=1
done
cd /vm
mkfifo /run/output
cat /run/output >"$output" 3>&- &
reader=$!
if [ "$loaded" = 0 ]; then sh /vm/command </dev/null >/run/output 2>&1 3>&-; fi
# Who was left behind in the background may write for ever.
for wait in 1 2 3 4 5 6 7 8 9 10; do
  if [ -d "/proc/$reader" ]; then usleep 100000; fi
done
echo "ended $(cat /vm/result || echo 125)" >&3
reboot -n -f
"""


class Lacking(Exception):
    """Something that this machine does not have; the test cannot be run on it."""


def find(program):
    """The program's absolute path."""
    found = shutil.which(program, path=PATHS)
    if found is None:
        raise Lacking(f"no {program} on this machine (scripts/install-packages vm)")
    return os.path.abspath(found)


def output_of(*command, **more):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **more).stdout


class Kernel:
    """A Debian kernel in a folder of its own below the cache: its image and its modules."""

    def __init__(self):
        self.cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "oxbow-vm")
        self.folder = os.path.join(self.cache, self.package())
        if not os.path.exists(self.folder):
            self.download()
        self.version = os.path.basename(glob.glob(f"{self.folder}/lib/modules/*")[0])
        self.image = f"{self.folder}/boot/vmlinuz-{self.version}"

    @staticmethod
    def package():
        """The package that OXBOW_VM_KERNEL or the list names, which may be one that only depends on it."""
        for name in [os.environ["OXBOW_VM_KERNEL"]] if "OXBOW_VM_KERNEL" in os.environ else KERNELS:
            listed = subprocess.run(["apt-cache", "depends", "--important", name], capture_output=True, text=True,
                                    check=False)
            if listed.returncode == 0 and listed.stdout:
                depends = re.search(r"Depends: (linux-image-\S+)", listed.stdout)
                return depends[1] if depends else name
        raise Lacking("apt knows no kernel package: " + ", ".join(KERNELS))

    def download(self):
        os.makedirs(self.cache, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            package = os.path.basename(self.folder)
            done = subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", "download", package], cwd=folder,
                                  capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Lacking(f"cannot download {package}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
            unpacked = os.path.join(folder, "unpacked")
            subprocess.run(["dpkg-deb", "-x", *glob.glob(f"{folder}/*.deb"), unpacked], check=True)
            version = os.path.basename(glob.glob(f"{unpacked}/lib/modules/*")[0])
            subprocess.run([find("depmod"), "-b", unpacked, version], check=True)
            try:
                os.rename(unpacked, self.folder)
            except OSError:
                if not os.path.exists(self.folder):  # else another test was quicker
                    raise

    def modules(self, names):
        """The files of the modules and of what they need, in the order in which to load them."""
        found = {}
        for name in names:
            listed = subprocess.run([find("modprobe"), "-d", self.folder, "-S", self.version, "--show-depends", name],
                                    capture_output=True, text=True, check=False)
            if listed.returncode != 0:
                raise Lacking(f"the kernel {self.version} has no module {name}")
            found.update(dict.fromkeys(re.findall(r"^insmod (\S+)", listed.stdout, re.M)))
        return list(found)


class Initramfs:
    """What the guest boots with, put together in a folder."""

    def __init__(self, folder):
        self.root = folder
        for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "tmp", "run", "root", "etc",
                     "mnt", "vm/busybox", "vm/modules"):
            os.makedirs(os.path.join(folder, name))
        for name in ("bin", "sbin", "lib", "lib64"):
            os.symlink(f"usr/{name}", os.path.join(folder, name))
        self.copy(find("busybox"), "/usr/bin/busybox")
        os.symlink("busybox", os.path.join(folder, "usr/bin/sh"))
        self.write("init", INIT)

    def copy(self, path, to):
        target = self.root + to
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.realpath(path), target)

    def write(self, name, text):
        path = os.path.join(self.root, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o755)

    def add_program(self, name):
        """The program, as /usr/bin/NAME, and the libraries that it is linked to."""
        path = find(name)
        self.copy(path, "/usr/bin/" + os.path.basename(name))
        for library in re.findall(r"(/\S+) \(0x", output_of("ldd", path)):
            if not os.path.exists(self.root + library):
                self.copy(library, library)

    def add_modules(self, files):
        names = []
        for path in files:
            name = os.path.basename(path)
            with open(path, "rb") as file:
                content = file.read()
            if name.endswith(".xz"):
                name, content = name[:-3], lzma.decompress(content)
            with open(os.path.join(self.root, "vm/modules", name), "wb") as file:
                file.write(content)
            names.append(name)
        self.write("vm/modules/order", "\n".join(names) + "\n")

    def pack(self, path):
        names = output_of("find", ".", cwd=self.root)
        with open(path, "wb") as file:
            subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=self.root, check=True,
                           input=names.encode(), stdout=file)


class Guest:
    """One qemu. What the guest says goes to standard output; how it ended is told on a port of its own."""

    def __init__(self, folder, kernel, memory, disk):
        self.folder = folder
        self.command = [
            QEMU, "-M", "q35", "-smp", "2", "-m", str(memory), "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-kernel", kernel.image, "-initrd", f"{folder}/initramfs", "-append",
            "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off audit=0 cryptomgr.notests random.trust_cpu=on "
            "rcupdate.rcu_expedited=1 tsc=reliable no_timer_check",
            "-serial", f"file:{folder}/console", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", "stdio,id=output,signal=off", "-device", "virtserialport,chardev=output,name=output",
            "-chardev", f"file,id=status,path={folder}/status", "-device", "virtserialport,chardev=status,name=status"]
        if disk:
            with open(f"{folder}/disk", "wb") as file:
                file.truncate(disk << 20)
            self.command += ["-drive", f"file={folder}/disk,format=raw,if=none,id=disk,cache=unsafe",
                             "-device", "virtio-blk-pci,drive=disk"]

    def told(self):
        try:
            with open(f"{self.folder}/status", encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def last_words(self):
        """The end of what its kernel and its qemu said."""
        words = ""
        for name in ("console", "qemu.log"):
            with open(f"{self.folder}/{name}", encoding="utf-8", errors="replace") as file:
                words += file.read()[-4000:]
        return words

    def run(self, kvm, seconds):
        """Runs the guest to its end; false if it never started, the rest is in told()."""
        how = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
        # The guest may write only while qemu's input is open.
        with open(f"{self.folder}/qemu.log", "wb") as log, \
                subprocess.Popen(self.command + how, stdin=subprocess.PIPE, stderr=log) as qemu:
            began = time.monotonic()
            try:
                while qemu.poll() is None:
                    passed = time.monotonic() - began
                    if passed > seconds or (kvm and passed > KVM_SECONDS and not self.told()):
                        break
                    time.sleep(0.05)
            finally:
                qemu.kill()
        return bool(self.told())


def kvm_verdict(kernel):
    """Where it is remembered, until this machine boots again, that guests do not start under KVM here."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return os.path.join(kernel.cache, f"no-kvm-{file.read().strip()}")


def start(guest, kernel, seconds):
    """Under KVM where guests start under it, else emulated, which OXBOW_VM_ACCEL=tcg demands."""
    verdict = kvm_verdict(kernel)
    if os.environ.get("OXBOW_VM_ACCEL") != "tcg" and os.access("/dev/kvm", os.W_OK) and not os.path.exists(verdict):
        if guest.run(True, seconds):
            return "kvm"
        with open(verdict, "w", encoding="ascii"):
            pass
    guest.run(False, seconds)
    return "tcg"


def run(command, programs=(), files=(), modules=(), memory=2048, seconds=600, disk=0):
    """Runs the command in a guest; its exit status, or 124 when time ran out, 125 when the guest died. With `disk`, it
    has /dev/vda of so many MiB, empty (module virtio_blk)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TIMED_OUT))  # not without ending qemu
    for program in NEEDED:
        find(program)
    linked = subprocess.run(["ldd", find("busybox")], capture_output=True, text=True, check=False)
    if "=>" in linked.stdout:
        raise Lacking("busybox needs libraries (scripts/install-packages vm brings one that does not)")
    kernel = Kernel()
    with tempfile.TemporaryDirectory(prefix="oxbow-vm-") as folder:
        tree = Initramfs(os.path.join(folder, "root"))
        for program in programs:
            tree.add_program(program)
        for path in files:
            tree.copy(path, "/vm/" + os.path.basename(path))
        tree.add_modules(kernel.modules(modules))
        tree.write("vm/command", f"( {shlex.join(command)} )\necho $? >/vm/result\n")
        tree.pack(os.path.join(folder, "initramfs"))
        guest, began = Guest(folder, kernel, memory, disk), time.monotonic()
        how = start(guest, kernel, seconds)
        print(f"vm.py: kernel {kernel.version}, {how}, {time.monotonic() - began:.1f} s", flush=True)
        ended = re.search(r"ended (\d+)", guest.told())
        if ended and ended[1] != "125":
            return int(ended[1])
        print(guest.last_words(), file=sys.stderr)
        if time.monotonic() - began >= seconds:
            print(f"vm.py: no end after {seconds} s", file=sys.stderr)
            return TIMED_OUT
        print("vm.py: the guest ended without an exit status", file=sys.stderr)
        return 125


def main():
    parser = argparse.ArgumentParser(usage=__doc__.splitlines()[0])
    parser.add_argument("--mem", type=int, default=2048)
    parser.add_argument("--disk", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=600)
    for name in ("module", "program", "file"):
        parser.add_argument(f"--{name}", action="append", default=[])
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    try:
        return run(given.command, given.program, given.file, given.module, given.mem, given.timeout, given.disk)
    except Lacking as lacking:
        print(f"SKIP: {lacking}")
        return SKIPPED


if __name__ == "__main__":
    sys.exit(main())
