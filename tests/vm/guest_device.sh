# SPDX-License-Identifier: Apache-2.0
# What the scripts share that try block devices of the kernel's in the guest.

export XDG_RUNTIME_DIR=/run
place=/tmp/mnt
mkdir -p "$place" /tmp/work
cd /tmp/work

say() {
  echo "$(cut -d ' ' -f 1 /proc/uptime) $*"
}

die() {
  echo "${0##*/}: $*"
  cat /tmp/serve.log /tmp/err 2>/dev/null || true
  dmesg | grep -v "^\[ *[0-3]\." | tail -40
  exit 1
}

# expect WHAT IS WANTED
expect() {
  [ "$2" = "$3" ] || die "$1: $2, not $3"
}

# serve_disk ARGUMENTS: in the background.
serve_disk() {
  oxbow serve "$@" --name disk --daemon --pid-file /tmp/serve.pid --log-file /tmp/serve.log >/tmp/serve.out \
    2>/tmp/err || die "serve $*"
}

# Ends the process, and waits until it has.
stop() {
  pid=$(cat /tmp/serve.pid)
  kill "$@" "$pid"
  gone "$pid"
}

gone() {
  tries=0
  while [ -e "/proc/$1" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 3000 ] || die "process $1 does not end"
    usleep 20000
  done
}

# Tasks that hang are told by the kernel, and what may be a bug of it.
quiet_kernel() {
  if dmesg | grep -E 'blocked for more than|BUG:|WARNING:|Oops|general protection'; then die "the kernel complains"; fi
}

# layer [SIZE]: work.oxb over a new base.
layer() {
  truncate -s "${1:-400M}" base.img
  rm -f work.oxb
  oxbow create --base base.img work.oxb
}
