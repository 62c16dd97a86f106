#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# guest_nbd.sh KIND SEED: what oxbow serves, as a block device of the kernel's own NBD client, as the guest runs it.
#
#   files      a file system with a tree on it, over a Unix socket and over TCP: compared, checked, trimmed, read-only
#   reconnect  the server is killed while a mounted file system is written to over several connections, and comes back
set -eu
kind=$1
seed=$2
device=/dev/nbd0
. /vm/guest_device.sh

# wait_for_sectors COUNT: of the block device.
wait_for_sectors() {
  tries=0
  while [ "$(cat /sys/block/nbd0/size)" != "$1" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 500 ] || die "the block device has $(cat /sys/block/nbd0/size) sectors, not $1"
    usleep 20000
  done
}

check_fs() {
  e2fsck -fn $device >/tmp/fsck 2>&1 || { cat /tmp/fsck; die "it is damaged"; }
}

# with_client ARGUMENTS: of nbd-client, before the name of the device.
with_client() {
  nbd-client "$@" >/tmp/err 2>&1 || die "nbd-client $*"
  wait_for_sectors 819200
}

without_client() {
  nbd-client -d $device >/tmp/err 2>&1 || die "nbd-client -d"
  wait_for_sectors 0
}

files() {
  layer 400M
  serve_disk work.oxb --nbd unix:/tmp/socket --nbd tcp:127.0.0.1:10809
  with_client -unix /tmp/socket $device
  expect "read-only" "$(blockdev --getro $device)" 0
  expect "cache" "$(cat /sys/block/nbd0/queue/write_cache)" "write back"
  expect "FUA" "$(cat /sys/block/nbd0/queue/fua)" 1
  mkfs.ext4 -q -F $device
  mount $device "$place"
  mkdir /tmp/tree
  cp -a /usr/lib /usr/sbin /vm /tmp/tree
  seq 1 500 | while read -r number; do echo "$number" >"/tmp/tree/$number"; done
  cp -a /tmp/tree "$place/tree"
  umount "$place"
  check_fs
  without_client
  say "written over a Unix socket"
  with_client 127.0.0.1 10809 $device
  check_fs
  mount $device "$place"
  diff -r /tmp/tree "$place/tree" || die "differs over TCP"
  before=$(du -k work.oxb | cut -f 1)
  rm -rf "$place/tree"
  sync
  fstrim "$place"
  sync
  after=$(du -k work.oxb | cut -f 1)
  [ "$after" -lt $((before / 2)) ] || die "fstrim left $after of $before KiB"
  echo kept >"$place/kept"
  umount "$place"
  check_fs
  without_client
  stop -TERM
  oxbow check work.oxb
  say "$before KiB, $after after fstrim"
}

read_only() {
  serve_disk work.oxb --read-only --nbd unix:/tmp/socket
  with_client -unix /tmp/socket $device
  expect "read-only" "$(blockdev --getro $device)" 1
  ! dd if=/dev/zero of=$device bs=4096 count=1 conv=fsync 2>/dev/null || die "a read-only device was written to"
  mount -o ro $device "$place"
  expect "file" "$(cat "$place/kept")" kept
  umount "$place"
  without_client
  stop -TERM
}

reconnect() {
  layer 400M
  serve_disk work.oxb --nbd unix:/tmp/socket
  vm-nbd connect /tmp/socket 4 0 || die "connect"
  wait_for_sectors 819200
  mkfs.ext4 -q -F $device
  mount $device "$place"
  round=0
  while [ "$round" -lt 3 ]; do
    round=$((round + 1))
    mkdir "$place/$round"
    ( cp -a /usr "$place/$round/" && sync "$place/$round" && echo done >"/tmp/copied$round" ) &
    writer=$!
    usleep $(((seed * 7919 + round * 600011) % 1500000 + 100000))
    stop -KILL
    rm -f /tmp/socket
    usleep 300000
    serve_disk work.oxb --nbd unix:/tmp/socket
    vm-nbd reconnect /tmp/socket 4 0 || die "reconnect"
    wait "$writer"
    [ -e "/tmp/copied$round" ] || die "the writer failed"
    # What was answered was in the layer's live state, flushed or not; the rest was sent again.
    echo 3 >/proc/sys/vm/drop_caches
    diff -r /usr "$place/$round/usr" || die "lost, seed $seed, round $round"
    say "round $round: nothing lost"
  done
  umount "$place"
  check_fs
  vm-nbd disconnect 0 || die "disconnect"
  wait_for_sectors 0
  stop -TERM
  oxbow check work.oxb
}

echo 100 >/proc/sys/kernel/hung_task_timeout_secs
case $kind in
  files)
    files
    read_only
    ;;
  reconnect) reconnect ;;
esac
quiet_kernel
say "$kind: done"
