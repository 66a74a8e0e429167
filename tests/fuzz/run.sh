#!/usr/bin/env bash
# Fuzzes each target for so many seconds: `tests/fuzz/run.sh SECONDS [TARGET…]`. Needs cargo-fuzz (`cargo install cargo-fuzz
# --locked`), a C++ compiler and python3; stable Rust will do. What was found so far is kept in target/fuzz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=${1:?"usage: tests/fuzz/run.sh SECONDS [TARGET…]"}
shift
targets=("$@")
[[ ${#targets[@]} != 0 ]] || targets=(token claims jwks introspection path credential)

if ! command -v cargo-fuzz >/dev/null; then
  echo "SKIPPED fuzzing: cargo-fuzz is not installed"
  exit 0
fi
# The sanitizer's flag is not stable yet; the compiler is.
export RUSTC_BOOTSTRAP=1
work=$PWD/target/fuzz
mkdir -p "$work"
python3 tests/fuzz/seeds.py "$work/seeds"
# The versions that the program is built from.
cp Cargo.lock tests/fuzz/Cargo.lock

failed=()
for target in "${targets[@]}"; do
  mkdir -p "$work/corpus/$target" "$work/artifacts/$target" "$work/seeds/$target"
  log=$work/$target.log
  echo "==> fuzz $target: $seconds s"
  if cargo fuzz run --fuzz-dir tests/fuzz --target-dir "$work/build" "$target" "$work/corpus/$target" "$work/seeds/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -artifact_prefix="$work/artifacts/$target/" \
    -print_final_stats=1 >"$log" 2>&1; then
    grep -E 'stat::number_of_executed_units|stat::average_exec_per_sec' "$log" || true
  else
    tail -n 40 "$log"
    failed+=("$target")
  fi
done
if [[ ${#failed[@]} != 0 ]]; then
  echo "fuzzing failed: ${failed[*]}; inputs under target/fuzz/artifacts"
  exit 1
fi
