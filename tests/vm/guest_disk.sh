# SPDX-License-Identifier: Apache-2.0
# What the scripts that run in the guest share. $file_system says what the disk is formatted with.

export type=${file_system%%-*}
layer=work.oxb
base=/tmp/base.img
trace=/tmp/trace
place=/tmp/disk
export layer base trace place
sectors=32773        # of the device: its last cluster is not whole
disk_sectors=786432  # xfs wants more than 300 MiB

say() {
  echo "$(cut -d ' ' -f 1 /proc/uptime) $*"
}

# loop NUMBER MIB: a disk in memory as /dev/loopNUMBER.
loop() {
  truncate -s "$2M" "/tmp/loop$1"
  losetup "/dev/loop$1" "/tmp/loop$1"
}

format() {
  case $type in
    ext4) mkfs.ext4 -q -F -J size=8 -E nodiscard "$1" ;;
    xfs) mkfs.xfs -q -f -K "$1" ;;
    btrfs) mkfs.btrfs -q -f -K "$1" 2>/dev/null ;;
  esac
}

# Mounting is what recovers the file system.
attach() {
  options=rw
  case $file_system in
    ext4) options=data=ordered ;;
    ext4-*) options=data=${file_system#ext4-} ;;
    btrfs) btrfs device scan --forget >/dev/null 2>&1 || true ;;  # of other copies of the same file system
  esac
  mkdir -p "$2"
  mount -t "$type" -o "$options" "$1" "$2"
}

# serve ARGUMENTS: the layer in the background, in /tmp/serve.pid, behind /tmp/socket.
serve() {
  oxbow serve "$place/$layer" --nbd unix:/tmp/socket --daemon --pid-file /tmp/serve.pid --log-file /tmp/serve.log "$@" \
    >/tmp/serve.out
}

# Ends the server and waits until it has.
stop() {
  pid=$(cat /tmp/serve.pid)
  kill "$@" "$pid"
  while [ -e "/proc/$pid" ]; do usleep 20000; done
}

# Another boot, as far as programs can see: a number of its own and an empty run directory.
pretend_boot() {
  cat /proc/sys/kernel/random/uuid >/tmp/boot_id
  if ! grep -q ' /proc/sys/kernel/random/boot_id ' /proc/mounts; then
    mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id
  fi
  rm -rf /tmp/run /dev/shm/*
  mkdir -p -m 700 /tmp/run
}

# verify MARK NEXT: opens the layer and compares all of it with the trace.
verify() {
  oxbow serve "$place/$layer" --nbd unix:/tmp/verify.socket \
    --run "vm-load verify /tmp/verify.socket $trace $1 $2" >/tmp/verify.out 2>&1 ||
    { cat /tmp/verify.out; return 1; }
  oxbow check "$place/$layer" >/tmp/check.out 2>&1 || { cat /tmp/check.out; return 1; }
}

export XDG_RUNTIME_DIR=/tmp/run
mkdir -p -m 700 /tmp/run
