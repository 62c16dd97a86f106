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

# The disk as it is: one whose writes fail where the layer has its extents now.
bad_layer() {
  filefrag -v -b512 "$place/$layer" | grep -v delalloc | tr -d ':.' | awk '
    $1 ~ /^[0-9]+$/ && NF >= 6 { print $4, $5 }' | sort -n | awk -v end="$disk_sectors" '
    function piece(to, how, more) {
      if (to <= at) return
      print at, to - at, how, "/dev/loop0", at, more
      at = to
    }
    BEGIN { at = 0 }
    { piece($1, "linear"); piece($2 + 1, "flakey", "0 3600 1 error_writes") }
    END { piece(end, "linear") }'
}

# turn HOW [NUMBER]: the disk is good, or all its writes are error_writes or drop_writes, or those to the layer fail.
turn() {
  case $1 in
    good) echo "0 $disk_sectors flakey /dev/loop0 0 3600 0" ;;
    bad_layer) bad_layer ;;
    *) echo "0 $disk_sectors flakey /dev/loop0 0 0 3600 1 $1" ;;
  esac >/tmp/table
  dmsetup load flakey </tmp/table
  dmsetup suspend --nolockfs --noflush flakey
  dmsetup resume flakey
}

# under_load HOW: leaves the layer closed, the disk good, and the trace.
under_load() {
  rm -f /tmp/serve.log
  loop 0 384
  echo "0 $disk_sectors flakey /dev/loop0 0 3600 0" | dmsetup create flakey
  format /dev/mapper/flakey
  attach /dev/mapper/flakey "$place"
  oxbow create --base "$base" "$place/$layer"
  serve
  vm-load write /tmp/socket "$trace" "$flushes" "$seed" true "sh /vm/errors.sh turn $1" "$requests" | tee /tmp/load.out
  if [ "$1" = drop_writes ]; then stop -KILL; else failed_as_promised; fi
}

# Whatever the file system has in memory is forgotten.
again() {
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
  again
  verify "$(marks)" 0 || die "lost after errors, seed $seed"
  say "$file_system: errors: verified"
  finish

  # The same is there at once and when the disk has nothing left in memory. Of btrfs's places the disk knows nothing.
  if [ "$type" != btrfs ]; then
    under_load bad_layer
    turn good
    verify "$(marks)" 0 || die "lost after errors of the layer's places, seed $seed"
    again
    verify "$(marks)" 0 || die "lost after errors of the layer's places and mounting, seed $seed"
    say "$file_system: errors of the layer's places: verified"
    finish
  fi

  # The last mark but one is where the disk began to forget.
  under_load drop_writes
  again
  pretend_boot
  verify "$(($(marks) - 1))" 0 || die "lost after writes were dropped, seed $seed"
  say "$file_system: dropped writes: verified"
  finish
}

if [ "$1" = turn ]; then turn "$2"; else main; fi
