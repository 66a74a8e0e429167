#!/usr/bin/env bash
# Builds the program as the image has it: static, optimized as a whole, and by a profile of itself at work. Two such builds
# and two minutes of load; README says what the profile saves.
#
#   deploy/build.sh FILE
#
# Needs two cores, taskset, wrk, nginx (and h2load, for HTTP/2), and the compiler's own llvm-profdata: `rustup component
# add llvm-tools`, or LLVM_PROFDATA=path of one of the same LLVM.
set -euo pipefail
file=$(realpath -m "${1:?usage: deploy/build.sh FILE}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
host=$(rustc --print host-tuple)
profdata=${LLVM_PROFDATA:-$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata}
for program in "$profdata" taskset wrk nginx; do
  command -v "$program" >/dev/null || { echo "deploy/build.sh: there is no $program"; exit 1; }
done
(($(nproc) > 1)) || { echo "deploy/build.sh: there is one core, and the load needs another"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build FLAGS FILE. Naming the target keeps the flags away from build scripts and macros, which cannot be static.
build() {
  RUSTFLAGS="-C target-feature=+crt-static $1" cargo build --locked --profile dist --bin tollgate --target "$host"
  cp "${CARGO_TARGET_DIR:-target}/$host/dist/tollgate" "$2"
}

# What runs here counts as usual; all else is built small.
load() {
  TOLLGATE_BIN=$work/tollgate ROUNDS=1 SECONDS=1 cargo bench --locked --profile release --bench "$@"
}

build "-C profile-generate=$work/raw" "$work/tollgate"
SCENARIOS=warm,distinct,introspected,refused,http2,tls load peers -- --only Tollgate
load management
"$profdata" merge -o "$work/profile" "$work/raw"
build "-C profile-use=$work/profile" "$file"
echo "$file: $("$file" --version), $(stat -c %s "$file") bytes"
