# Ground of the interop run: counting, installing, starting and ending.
# shellcheck shell=bash

passed=0
failed=0
skipped=0
pids=()

# Lines about what was checked are kept in a file too, for README's table.
ok() {
  passed=$((passed + 1))
  echo "ok $1" | tee -a "$work/lines"
}

# fail NAME [WHY]
fail() {
  failed=$((failed + 1))
  echo "FAIL $1" >>"$work/lines"
  echo "FAIL $1${2:+: $2}"
}

# Said aloud; on CI a skipped part is a failure.
skip() {
  skipped=$((skipped + 1))
  echo "SKIP $1"
}

# check NAME COMMAND…: ok if the command succeeds; what it says is shown if not.
check() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then ok "$name"; else fail "$name" "${said:0:600}"; fi
}

# start LOG COMMAND…: in the background, ended by `stop_all`; its id is left in `started`.
start() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 </dev/null &
  started=$!
  pids+=("$started")
}

# stop PID: SIGTERM, ten seconds, SIGKILL; `stopped` is its exit status.
stop() {
  local pid=$1 kept=() other
  kill -TERM "$pid" 2>/dev/null || true
  reap "$pid"
  for other in "${pids[@]}"; do [[ $other == "$pid" ]] || kept+=("$other"); done
  pids=("${kept[@]}")
}

# reap PID [TENTHS]: waits for its end, ten seconds at most; `stopped` is its exit status.
reap() {
  local pid=$1 tries=0
  while kill -0 "$pid" 2>/dev/null && ((tries++ < ${2:-100})); do sleep 0.1; done
  kill -KILL "$pid" 2>/dev/null || true
  stopped=0
  wait "$pid" 2>/dev/null || stopped=$?
}

stop_all() {
  local pid
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do reap "$pid"; done
  pids=()
}

# await SECONDS COMMAND…: until it succeeds.
await() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

# listens PORT: whether something on loopback does.
listens() {
  (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# free_ports N: that many, each given once in a run, so that what is slow to start finds its own still free. Below those of
# the tests in Rust (20,000 on), some of which run here while Keycloak starts, and those that the kernel gives to clients.
free_ports() {
  python3 -c '
import random, socket, sys
with open(sys.argv[2], "a+") as given:
    given.seek(0)
    taken = set(map(int, given.read().split()))
    held = []
    while len(held) < int(sys.argv[1]):
        port = random.randrange(10000, 20000)
        if port in taken:
            continue
        try:
            held.append(socket.create_server(("127.0.0.1", port)))
            print(port, file=given)
        except OSError:
            pass
print(*(one.getsockname()[1] for one in held))' "$1" "$work/ports"
}

# need PROGRAM PACKAGE: from Debian, if it is missing and we may.
need() {
  export PATH=$PATH:/usr/sbin:/sbin
  command -v "$1" >/dev/null && return
  package "$2" && command -v "$1" >/dev/null
}

# package NAME: installs it, if we may.
package() {
  [[ $EUID == 0 ]] && command -v apt-get >/dev/null || return 1
  if [[ -z ${apt_updated:-} ]]; then
    apt-get update -qq || return 1
    apt_updated=1
  fi
  echo "installing $1"
  without_services env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$1" >/dev/null
}

# Debian starts what it installs; policy-rc.d is its way of saying no (only for the time of the installation).
without_services() {
  local policy=/usr/sbin/policy-rc.d status=0
  if [[ -e $policy ]]; then
    "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  "$@" || status=$?
  rm -f "$policy"
  return "$status"
}

# fill TEMPLATE TARGET NAME=VALUE…: writes it with each @NAME@ replaced.
fill() {
  local text pair
  text=$(<"$1")
  for pair in "${@:3}"; do text=${text//"@${pair%%=*}@"/"${pair#*=}"}; done
  printf '%s\n' "$text" >"$2"
}
