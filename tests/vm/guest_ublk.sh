#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# guest_ublk.sh KIND HOW SEED: block devices of ublk, served by oxbow, as the guest runs it.
#
#   short            what the block device is, and that it comes and goes; partitions of a loop device too
#   cycles           attached and detached a hundred times
#   unprivileged     somebody who is not root
#   files FS         a file system with a tree on it, compared, checked, mounted anew, trimmed
#   recovery         the process is killed while a mounted file system is written to, and its device taken over
#   kills            the process is killed at each step of making a device, taking it away and taking it over
#   reclaim HOW      much more is written than there is memory, through ublk or loop, with memory for all ("all") or
#                    in a control group of 256 MiB ("cgroup"): HOW is ublk-all, loop-cgroup, ...
set -eu
kind=$1
how=$2
seed=$3
device=/dev/ublkb0
. /vm/guest_device.sh

# serve ARGUMENTS: in the background.
serve() {
  serve_disk "$@" --ublk --log-level info
  expect "URI" "$(cat /tmp/serve.out)" "file://$device"
}

nothing_left() {
  left=$(ls /dev | grep '^ublk[bc]' || true)
  [ -z "$left" ] || die "$1: left is $left"
  left=$(ls /run/oxbow /run/user/oxbow 2>/dev/null | grep '\.note' || true)
  [ -z "$left" ] || die "$1: left is $left"
}

take_at_most() {
  echo "$1" >/proc/sys/kernel/hung_task_timeout_secs
}

make_fs() {
  case $1 in
    ext4) mkfs.ext4 -q -F "$device" ;;
    xfs) mkfs.xfs -q -f "$device" ;;
    btrfs) mkfs.btrfs -q -f "$device" ;;
  esac
}

check_fs() {
  case $1 in
    ext4) e2fsck -fn "$device" ;;
    xfs) xfs_repair -n "$device" ;;
    btrfs) btrfs check "$device" ;;
  esac >/tmp/fsck 2>&1 || { cat /tmp/fsck; die "$1 is damaged"; }
}

# --- short ---

facts() {
  serve --ram 64M
  expect "sectors" "$(blockdev --getsz $device)" 131072
  expect "sector" "$(blockdev --getss $device)" 512
  expect "block" "$(cat /sys/block/ublkb0/queue/physical_block_size)" 4096
  expect "read-only" "$(blockdev --getro $device)" 0
  expect "cache" "$(cat /sys/block/ublkb0/queue/write_cache)" "write back"
  expect "FUA" "$(cat /sys/block/ublkb0/queue/fua)" 1
  expect "discards" "$(cat /sys/block/ublkb0/queue/discard_granularity)" 4096
  dd if=/dev/urandom of=/tmp/random bs=1M count=8 2>/dev/null
  dd if=/tmp/random of=$device bs=64k seek=3 conv=fsync 2>/dev/null
  dd if=$device bs=64k skip=3 count=128 iflag=direct 2>/dev/null | cmp - /tmp/random || die "read as it was not written"
  blkdiscard -o 196608 -l 1048576 $device
  expect "discarded" "$(dd if=$device bs=64k skip=3 count=16 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)" 0
  stop -TERM
  nothing_left "after the end"
  [ ! -s /tmp/serve.log ] || die "the log is not empty"
}

attach() {
  expect "attached" "$(oxbow attach --ram 64M --name disk)" "$device"
  make_fs ext4
  mount "$device" "$place"
  ! oxbow detach disk 2>/tmp/err || die "detached what is mounted"
  grep -q "mounted at $place" /tmp/err || die "not told who uses it"
  echo kept >"$place/kept"
  umount "$place"
  mount "$device" "$place"
  expect "file" "$(cat "$place/kept")" kept
  umount "$place"
  oxbow detach disk
  nothing_left "after detach"
  expect "attached" "$(oxbow attach --ram 64M --name disk)" "$device"
  make_fs ext4
  mount "$device" "$place"
  oxbow detach disk --force
  ! touch "$place/new" 2>/dev/null || die "a device that is gone was written to"
  umount "$place"
  nothing_left "after detach by force"
}

# One of 8 MiB, from sector 8 on.
partitioned_disk() {
  truncate -s 64M disk.img
  printf '\200\001\001\000\203\000\000\000\010\000\000\000\000\100\000\000' |
    dd of=disk.img bs=1 seek=446 conv=notrunc 2>/dev/null
  printf '\125\252' | dd of=disk.img bs=1 seek=510 conv=notrunc 2>/dev/null
}

partitions() {
  partitioned_disk
  serve --file disk.img
  expect "partition" "$(cat /sys/block/ublkb0/ublkb0p1/start) $(cat /sys/block/ublkb0/ublkb0p1/size)" "8 16384"
  stop -TERM
  serve --file disk.img --read-only
  expect "read-only" "$(blockdev --getro $device)" 1
  ! dd if=/dev/zero of=$device bs=4096 count=1 conv=fsync 2>/dev/null || die "a read-only device was written to"
  stop -TERM
  truncate -s 64513 odd.img
  serve --file odd.img
  expect "sectors" "$(blockdev --getsz $device)" 126
  grep -q "its last 1 are not part of the block device" /tmp/err || die "nothing about the odd end"
  stop -TERM
  nothing_left "after partitions"
}

# Those of a loop device are found when it is made, and used.
loop_partitions() {
  partitioned_disk
  expect "attached" "$(oxbow attach --file disk.img --loop --name disk)" /dev/loop0
  expect "partition" "$(cat /sys/block/loop0/loop0p1/start) $(cat /sys/block/loop0/loop0p1/size)" "8 16384"
  mkfs.ext4 -q -F /dev/loop0p1
  mount /dev/loop0p1 "$place"
  ! oxbow detach disk 2>/tmp/err || die "detached what has a mounted partition"
  grep -q "mounted at $place" /tmp/err || die "not told who uses the partition"
  echo kept >"$place/kept"
  umount "$place"
  oxbow detach disk
  expect "attached" "$(oxbow attach --file disk.img --loop --read-only --name disk)" /dev/loop0
  mount -o ro /dev/loop0p1 "$place"
  expect "file" "$(cat "$place/kept")" kept
  umount "$place"
  oxbow detach disk
  expect "what is left" "$(cat /sys/block/loop0/size)" 0
}

# --- cycles ---

kernel_kib() {
  awk '/^Slab|^VmallocUsed|^Percpu|^KernelStack/ { sum += $2 } END { print sum }' /proc/meminfo
}

cycles() {
  cycle=0
  while [ "$cycle" -lt 100 ]; do
    cycle=$((cycle + 1))
    expect "cycle $cycle" "$(oxbow attach --ram 64M --name disk)" "$device"
    expect "RAM disk" "$(dd if=$device bs=4k count=1 2>/dev/null | tr -d '\0' | wc -c)" 0
    if [ "$cycle" -eq 1 ]; then grep -E 'VmRSS|RssAnon' "/proc/$(pidof oxbow)/status"; fi
    oxbow detach disk
    nothing_left "after cycle $cycle"
    if [ "$cycle" -eq 20 ]; then before=$(kernel_kib); fi
  done
  echo 3 >/proc/sys/vm/drop_caches
  after=$(kernel_kib)
  say "the kernel has $after KiB, and had $before after 20 cycles"
  [ "$after" -lt $((before + 4096)) ] || die "the kernel keeps memory"
  expect "files" "$(ls -A /run/oxbow)" "ublk.lock"
}

# --- unprivileged ---

as_user() {
  /usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups env XDG_RUNTIME_DIR=/run/user "$@"
}

# Data go through memory that the driver is told of: it copies no other way for those who are not root.
unprivileged() {
  mkdir -p -m 700 /run/user
  chown 1000:1000 /run/user
  ! as_user oxbow attach --ram 64M --name disk --ublk 2>/tmp/err || die "attached without rights"
  grep -q "cannot use ublk: /dev/ublk-control: Permission denied" /tmp/err || die "not told"
  chmod 666 /dev/ublk-control
  # As a rule of udev has it.
  while true; do chown 1000:1000 /dev/ublk[bc]* 2>/dev/null || true; usleep 10000; done &
  rule=$!
  expect "attached" "$(as_user oxbow attach --ram 64M --name disk --log-file /tmp/user.log)" "$device"
  dd if=/dev/urandom of=/tmp/random bs=1M count=24 2>/dev/null
  chmod 644 /tmp/random
  usleep 200000
  as_user dd if=/tmp/random of=$device bs=512k seek=3 conv=fsync 2>/tmp/err || die "not written"
  echo 3 >/proc/sys/vm/drop_caches
  as_user dd if=$device bs=512k skip=3 count=48 2>/dev/null | cmp - /tmp/random || die "read as it was not written"
  as_user blkdiscard -o 1572864 -l 1048576 $device
  expect "discarded" "$(as_user dd if=$device bs=512k skip=3 count=2 2>/dev/null | tr -d '\0' | wc -c)" 0
  as_user oxbow detach disk
  nothing_left "after the end"
  as_user oxbow attach --ram 64M --name disk >/dev/null
  pid=$(pidof oxbow)
  kill -KILL "$pid"
  gone "$pid"
  as_user oxbow list >/tmp/list
  nothing_left "after a kill and list"
  kill "$rule"
}

# --- files ---

files() {
  layer
  serve work.oxb
  make_fs "$how"
  mount -t "$how" "$device" "$place"
  sync
  fresh=$(du -k work.oxb | cut -f 1)
  rm -rf /tmp/tree
  mkdir /tmp/tree
  cp -a /usr/lib /usr/sbin /vm /tmp/tree
  cp -a /tmp/tree "$place/tree"
  seq 1 3000 | while read -r number; do echo "$number" >"$place/tree/$number"; echo "$number" >"/tmp/tree/$number"; done
  diff -r /tmp/tree "$place/tree" || die "differs"
  umount "$place"
  check_fs "$how"
  say "$how: checked"
  mount -t "$how" "$device" "$place"
  diff -r /tmp/tree "$place/tree" || die "differs after mounting anew"
  before=$(du -k work.oxb | cut -f 1)
  rm -rf "$place/tree"
  # XFS frees what is removed some time later, but before it is mounted anew.
  umount "$place"
  mount -t "$how" "$device" "$place"
  fstrim "$place"
  sync
  after=$(du -k work.oxb | cut -f 1)
  [ $((after - fresh)) -lt $(((before - fresh) / 2)) ] || die "fstrim left $after of $before KiB, after $fresh"
  umount "$place"
  check_fs "$how"
  stop -TERM
  nothing_left "after $how"
  oxbow check work.oxb
  quiet_kernel
  say "$how: $fresh KiB, $before with a tree, $after after fstrim"
}

# --- recovery ---

stopped="it was stopped, and all its requests fail"

expect_refusal() {
  expect "error" "$(cat /tmp/err)" "oxbow: cannot take over block device: $device: $1"
}

kills_under_load() {
  layer
  serve work.oxb
  make_fs ext4
  mount "$device" "$place"
  round=0
  while [ "$round" -lt 4 ]; do
    round=$((round + 1))
    mkdir "$place/$round"
    ( cp -a /usr "$place/$round/" && echo done >"/tmp/copied$round" ) &
    writer=$!
    usleep $(((seed * 7919 + round * 600011) % 1500000 + 100000))
    stop -KILL
    oxbow list >/tmp/list
    grep -q "^disk *waiting .* file://$device" /tmp/list || die "list: $(cat /tmp/list)"
    serve work.oxb
    grep -q "took over $device from process" /tmp/err || die "not taken over"
    wait "$writer"
    [ -e "/tmp/copied$round" ] || die "the writer failed"
    # No sync: what the file system still has in memory, it has; what it wrote must be there.
    echo 3 >/proc/sys/vm/drop_caches
    diff -r /usr "$place/$round/usr" || die "lost, seed $seed, round $round"
    [ "$round" -lt 3 ] || rm -rf "${place:?}/$((round - 2))"
    say "round $round: nothing lost"
  done
  umount "$place"
  check_fs ext4
  stop -TERM
  nothing_left "after recovery"
  oxbow check work.oxb
}

# Killed, and what it had is gone: whoever has it mounted gets errors, and no hanging.
what_is_lost_fails() {
  serve --ram 64M
  make_fs ext4
  mount "$device" "$place"
  stop -KILL
  ! oxbow serve --ram 64M --name disk --ublk 2>/tmp/err || die "an empty RAM disk was taken for the lost one"
  expect_refusal "its contents were in memory, and are gone: $stopped"
  ! touch "$place/new" 2>/dev/null || die "a lost file system was written to"
  umount "$place"
  nothing_left "after a loss"

  layer
  serve work.oxb
  make_fs ext4
  mount "$device" "$place"
  stop -KILL
  # Somebody else changes the layer meanwhile.
  oxbow serve work.oxb --name other --run 'true' || die "serve in between"
  ! oxbow serve work.oxb --name disk --ublk 2>/tmp/err || die "a changed layer was taken for the one that was left"
  expect_refusal "its layer was changed in between, or has no live state: $stopped"
  umount "$place"
  nothing_left "after a change in between"
}

# The layer itself can't be opened without what was only in the memory of the boot.
a_live_state_that_is_gone_fails() {
  layer
  serve work.oxb
  make_fs ext4
  mount "$device" "$place"
  stop -KILL
  rm /run/oxbow/*.live
  ! oxbow attach work.oxb --name disk 2>/tmp/err || die "attached without the live state"
  grep -q -- "--discard-live; $device, which it was, was stopped, and all its requests fail\$" /tmp/err ||
    die "not told"
  ! touch "$place/new" 2>/dev/null || die "a lost file system was written to"
  umount "$place"
  nothing_left "after the loss of a live state"
}

# What is another device leaves it alone.
others_are_refused() {
  layer 100M
  truncate -s 200M other.img
  serve work.oxb
  make_fs ext4
  mount "$device" "$place"
  echo kept >"$place/kept"
  stop -KILL
  ! oxbow serve --file other.img --name disk --ublk 2>/tmp/err || die "another device took over"
  expect_refusal "it has 204800 sectors, not 409600, and waits for that"
  ! oxbow serve --file base.img --name disk --ublk 2>/tmp/err || die "another device took over"
  expect_refusal "it was made of something else, and waits for that"
  serve work.oxb
  expect "file" "$(cat "$place/kept")" kept
  ! oxbow serve --file other.img --name disk --ublk 2>/tmp/err || die "two of one name"
  grep -q "serves a device of that name" /tmp/err || die "two of one name"
  umount "$place"
  stop -TERM
  # Nobody uses it: it need not wait.
  serve work.oxb
  stop -KILL
  oxbow list >/tmp/list
  nothing_left "after list"
}

# --- kills ---

# killed_at NUMBER ARGUMENTS: a process of its own, killed as it enters the kernel's io_uring for that time.
killed_at() {
  number=$1
  shift
  status=0
  timeout -s KILL 120 strace -qq -o /dev/null -e trace=io_uring_enter \
    -e "inject=io_uring_enter:signal=KILL:when=$number" oxbow serve --file disk.img --ublk --name disk "$@" \
    >/tmp/serve.out 2>/tmp/err || status=$?
  [ "$status" -ne 124 ] || die "hangs"
  return "$status"
}

clean() {
  timeout 60 oxbow list >/tmp/list 2>/tmp/err || die "list after $1"
  nothing_left "after $1 and list"
}

# Making it, and, as the command ends at once, taking it away.
at_each_step() {
  truncate -s 64M disk.img
  number=0
  while true; do
    number=$((number + 1))
    if killed_at "$number" --run true; then break; fi
    usleep 100000
    clean "kill $number"
    [ "$number" -lt 200 ] || die "no end"
  done
  [ "$number" -gt 10 ] || die "only $number steps: $(cat /tmp/err)"
  nothing_left "after all steps"
  serve --file disk.img
  make_fs ext4
  stop -TERM
  say "killed at each of $((number - 1)) steps"
}

# Taking it over, with a file system mounted, which goes on or gets errors, and nothing hangs.
at_each_step_of_recovery() {
  number=0
  went_on=0
  failed=0
  while true; do
    number=$((number + 1))
    serve --file disk.img
    make_fs ext4
    mount "$device" "$place"
    echo kept >"$place/kept"
    stop -KILL
    status=0
    ( killed_at "$number" --run 'sleep 0.2; umount /tmp/mnt' ) || status=$?
    if [ "$status" -eq 0 ]; then break; fi
    if grep -q " $place " /proc/mounts; then
      usleep 100000
      timeout 60 oxbow list >/tmp/list 2>/tmp/err || die "list after kill $number"
      if [ -e $device ]; then
        serve --file disk.img
        echo 3 >/proc/sys/vm/drop_caches
        expect "file" "$(cat "$place/kept")" kept
        went_on=$((went_on + 1))
        umount "$place"
        stop -TERM
      else
        ! touch "$place/new" 2>/dev/null || die "a file system without a device was written to"
        failed=$((failed + 1))
        umount "$place"
      fi
    fi
    clean "kill $number of a recovery"
    [ "$number" -lt 200 ] || die "no end"
  done
  [ "$went_on" -gt 3 ] || die "never went on"
  [ "$failed" -gt 0 ] || die "never failed"
  say "killed at each of $((number - 1)) steps: $went_on went on, $failed got errors"
}

# --- reclaim ---

# The kernel's memory is full of what has to be written by the process that is to be told to.
reclaim() {
  mkfs.ext4 -q -F /dev/vda
  mkdir -p /tmp/disk
  mount /dev/vda /tmp/disk
  cd /tmp/disk
  truncate -s 2600M base.img
  oxbow create --base base.img work.oxb
  mkdir -p /tmp/cgroup
  mount -t cgroup2 cgroup /tmp/cgroup
  echo +memory >/tmp/cgroup/cgroup.subtree_control
  mkdir /tmp/cgroup/small
  if [ "$2" = cgroup ]; then
    echo 256M >/tmp/cgroup/small/memory.max
    echo 0 >/tmp/cgroup/small/cgroup.procs
  fi
  device=$(oxbow attach work.oxb --name disk "--$1" --log-file /tmp/serve.log)
  make_fs ext4
  mount "$device" "$place"
  began=$(cut -d . -f 1 /proc/uptime)
  dd if=/dev/urandom of=/tmp/part bs=1M count=16 2>/dev/null
  seq 128 | while read -r part; do cat /tmp/part; done | dd of="$place/big" bs=1M conv=fsync 2>/tmp/err || die "2 GiB"
  expect "bytes" "$(stat -c %s "$place/big")" $((2 << 30))
  say "$1 $2: 2 GiB in $(($(cut -d . -f 1 /proc/uptime) - began)) s, $(grep -i VmRSS "/proc/$(pidof oxbow)/status")"
  echo 3 >/proc/sys/vm/drop_caches
  for part in 0 1 31 64 97 126 127; do
    dd if="$place/big" bs=16M skip="$part" count=1 2>/dev/null | cmp - /tmp/part || die "lost: part $part"
  done
  umount "$place"
  check_fs ext4
  oxbow detach disk
  oxbow check work.oxb
}

take_at_most 60
case $kind in
  short)
    facts
    partitions
    loop_partitions
    attach
    ;;
  cycles) cycles ;;
  unprivileged) unprivileged ;;
  files) files ;;
  recovery)
    others_are_refused
    what_is_lost_fails
    a_live_state_that_is_gone_fails
    kills_under_load
    ;;
  kills)
    at_each_step
    at_each_step_of_recovery
    ;;
  reclaim) reclaim "${how%-*}" "${how#*-}" ;;
esac
quiet_kernel
say "$kind: done"
