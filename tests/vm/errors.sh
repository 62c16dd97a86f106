#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# errors.sh FILE-SYSTEM FLUSHES REQUESTS SEED: a layer under load on a file system over dm-flakey. After FLUSHES flushes
# the disk turns bad, REQUESTS more are sent, and then the disk is good again and the layer opened and compared with
# what was promised: once with writes that fail, which has to be told and to be sticky, and once with writes that the
# disk claims to have done, which is a power loss at that moment.
set -eu
case $1 in
  turn) ;;
  *) export file_system=$1 flushes=$2 requests=$3 seed=$4 ;;
esac
. /vm/guest_disk.sh

die() {
  echo "errors.sh: $*"
  cat /tmp/serve.log
  exit 1
}

# turn HOW [NUMBER]: the disk is good, or all its writes are error_writes or drop_writes.
turn() {
  case $1 in
    good) line="0 $disk_sectors flakey /dev/loop0 0 3600 0" ;;
    *) line="0 $disk_sectors flakey /dev/loop0 0 0 3600 1 $1" ;;
  esac
  dmsetup suspend --nolockfs --noflush flakey
  echo "$line" | dmsetup load flakey
  dmsetup resume flakey
}

# under_load HOW: leaves the layer closed, the disk good and attached, and the trace.
under_load() {
  loop 0 384
  echo "0 $disk_sectors flakey /dev/loop0 0 3600 0" | dmsetup create flakey
  format /dev/mapper/flakey
  attach /dev/mapper/flakey "$place"
  oxbow create --base "$base" "$place/$layer"
  serve
  vm-load write /tmp/socket "$trace" "$flushes" "$seed" true "sh /vm/errors.sh turn $1" "$requests" | tee /tmp/load.out
  if [ "$1" = error_writes ]; then failed_as_promised; else stop -KILL; fi
  umount "$place"
  turn good
  attach /dev/mapper/flakey "$place"
}

failed_as_promised() {
  ! grep -q "failed 0" /tmp/load.out || die "no request failed"
  oxbow status "${layer%.oxb}" >/tmp/status.out
  grep -q "^state *failed: Input/output error$" /tmp/status.out || die "status: $(cat /tmp/status.out)"
  stop -TERM
  grep -q "cannot close device: ${layer%.oxb}: Input/output error" /tmp/serve.log || die "the end said nothing"
}

finish() {
  umount "$place"
  dmsetup remove flakey
  losetup -d /dev/loop0
  rm /tmp/loop0
}

main() {
  vm-load base "$base" "$sectors"
  marks() { grep -c "^mark " "$trace"; }

  # What was flushed before the errors, and whatever succeeded after all.
  under_load error_writes
  verify "$(marks)" 0 || die "lost after errors, seed $seed"
  say "$file_system: errors: verified"
  finish

  # The last mark but one is where the disk began to forget.
  under_load drop_writes
  pretend_boot
  verify "$(($(marks) - 1))" 0 || die "lost after writes were dropped, seed $seed"
  say "$file_system: dropped writes: verified"
  finish
}

if [ "$1" = turn ]; then turn "$2"; else main; fi
