#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# power.sh FILE-SYSTEM FLUSHES BETWEEN SEED: a layer under load on a file system over dm-log-writes, with a mark after
# each flush; then what the disk would hold after a power loss at each mark, and at BETWEEN places after each mark, is
# mounted, opened and compared with what was promised by then.
set -eu
case $1 in
  check) ;;
  *) export file_system=$1 flushes=$2 between=$3 seed=$4 ;;
esac
. /vm/guest_disk.sh

# check ENTRY MARK NEXT, as vm-replay calls it. Mounting writes: it is given a snapshot.
check() {
  echo "0 $disk_sectors snapshot /dev/loop2 /dev/loop3 N 8" | dmsetup create snapshot
  if [ "$2" != "$3" ]; then vm-replay some /dev/loop1 /dev/mapper/snapshot "$1" "$((seed + $1))"; fi
  pretend_boot
  attach /dev/mapper/snapshot "$place"
  verify "$2" "$3" || { echo "power.sh: wrong at entry $1 of the log, after mark $2, before $3, seed $seed"; exit 1; }
  echo "$1" >>/tmp/checked
  umount "$place"
  dmsetup remove snapshot
}

main() {
  loop 0 384
  loop 1 1024
  echo "0 $disk_sectors log-writes /dev/loop0 /dev/loop1" | dmsetup create log
  format /dev/mapper/log
  attach /dev/mapper/log "$place"
  vm-load base "$base" "$sectors"
  oxbow create --base "$base" "$place/$layer"
  serve
  say "seed $seed, writing"
  vm-load write /tmp/socket "$trace" "$flushes" "$seed" "dmsetup message log 0 mark"
  stop -TERM
  umount "$place"
  dmsetup remove log
  losetup -d /dev/loop0
  rm /tmp/loop0
  loop 2 384
  loop 3 384
  say "log of $(du -m /tmp/loop1 | cut -f 1) MiB, replaying"
  vm-replay all /dev/loop1 /dev/loop2 "$between" "$seed" "sh /vm/power.sh check"
  say "$file_system: $(wc -l </tmp/checked) states verified, seed $seed"
}

if [ "$1" = check ]; then check "$2" "$3" "$4"; else main; fi
