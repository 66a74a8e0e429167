# What every provider is put through: a gate before it, an outage, a revocation; and README's table of them.
# shellcheck shell=bash disable=SC2154

# cannot PROVIDER ROW WHY: what it cannot do, said aloud where the lines about it would stand.
cannot() {
  echo "-- $1: $2: $3" | tee -a "$work/lines"
}

# manager NAME LINES: a key manager and the API /NAME that its tokens open, for an application that subscribes to it.
manager() {
  cat <<END

[[key_managers]]
name = "$1"
timeout = "1s"
jwks_cooldown = "1s"
jwks_refresh = "5s"
leeway = "0"
$2

[[apis]]
name = "$1"
context = "/$1"
upstream = "echo:"
key_managers = ["$1"]

[[apis.resources]]
path = "/items/{id}"
scopes = [${scope:+\"$scope\"}]

[[applications]]
name = "shop-$1"
owner = "ada"
keys = [{ key_manager = "$1", consumer_key = "shop-web" }, { key_manager = "$1", consumer_key = "brief" }, { key_manager = "$1", consumer_key = "unscoped" }]

[[subscriptions]]
application = "shop-$1"
api = "$1"
tier = "Unlimited"
END
}

# start_manager_gate NAME MANAGERS [LINES]: on ports `gate` and `admin`; its id is left in `gate_pid`.
start_manager_gate() {
  fill "$here/managers.toml" "$work/$1.gate.toml" "GATE=$gate" "ADMIN=$admin" "LINES=${3:-}" "MANAGERS=$2"
  start "$work/$1.gate.log" "$binary" serve --config "$work/$1.gate.toml"
  gate_pid=$started
  await 30 curl -sf "http://127.0.0.1:$admin/readyz"
}

# json NAME: that member of the object on standard input.
json() {
  python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

spoiled() {
  python3 "$here/token.py" "$1" "$2"
}

# kid TOKEN: of the key that signed it.
kid() {
  python3 -c 'import base64, json, sys; h = sys.argv[1].split(".")[0]; print(json.loads(base64.urlsafe_b64decode(h + "=" * (-len(h) % 4)))["kid"])' "$1"
}

# good PROVIDER ROW API TOKEN: passes, and the upstream is told whose it is.
good() {
  expect "$1: $2: $3: a token passes" 200 GET "/$3/items/1" "$4"
  says "$1: $2: $3: the upstream sees the client" body '"x-auth-client-id":"shop-web"'
  says "$1: $2: $3: the upstream sees the application" body "\"x-auth-application\":\"shop-$3\""
  expect "$1: $2: $3: once more, from memory" 200 GET "/$3/items/1" "$4"
}

# A hung provider, then a dead one, is no verdict: what is known passes, what must be asked is 503, and all recovers.
# outage PROVIDER PID RESTART JWT-API CACHED UNSEEN ASKED-API CACHED UNSEEN AFTER: AFTER mints a token for ASKED-API.
outage() {
  local p="$1: outage" pid=$2 restart=$3 verified=/$4/items/1 cached=$5 unseen=$6 asked=/$7/items/1 known=$8 unknown=$9 after=${10}
  ask GET "$verified" "$cached"
  settles "$p: before it, an introspected token is known" 5 200 GET "$asked" "$known"
  kill -STOP "$pid"
  expect "$p: hung: an introspected token passes for its time" 200 GET "$asked" "$known"
  expect "$p: hung: a verified token passes" 200 GET "$verified" "$cached"
  refused "$p: hung: a token to be asked about is 503" 503 900900 GET "$asked" "$unknown"
  says "$p: hung: 503 says when to come again" head '^retry-after: [1-9]'
  expect "$p: hung: an unseen token of a known key passes" 200 GET "$verified" "$unseen"
  refused "$p: hung: a garbled signature is 401" 401 900901 GET "$verified" "$(spoiled garble "$cached")"
  settles "$p: hung: the introspected token is 503 after its time" 8 503 GET "$asked" "$known"
  kill -CONT "$pid"
  settles "$p: answers again: the introspected token passes" 40 200 GET "$asked" "$known"
  settles "$p: answers again: so does the one that was 503" 10 200 GET "$asked" "$unknown"
  kill -KILL "$pid"
  { reap "$pid"; } 2>/dev/null
  expect "$p: dead: a verified token passes" 200 GET "$verified" "$cached"
  ask GET "$verified" "$(spoiled forge "$cached")"
  if [[ $status == 401 || $status == 503 ]]; then ok "$p: dead: an unknown key does not pass"; else fail "$p: dead: an unknown key does not pass" "$status"; fi
  settles "$p: dead: a token to be asked about is 503 after its time" 8 503 GET "$asked" "$known"
  "$restart" || { fail "$p: it starts again"; return; }
  unknown=$("$after")
  settles "$p: back: an introspected token passes" 60 200 GET "$asked" "$unknown"
}

# revocation PROVIDER WHAT API TOKEN COMMAND…: refused once what is remembered has had its time.
revocation() {
  expect "$1: revocation: before it, $2 passes" 200 GET "/$3/items/1" "$4"
  check "$1: revocation: the provider takes it" "${@:5}"
  settles "$1: revocation: $2 is 401 within introspection_ttl" 8 401 GET "/$3/items/1" "$4"
}

# README's table of providers against the lines above: each cell is ✓ where its lines ran and none failed, and – with
# the reason where the provider cannot. A provider that was left out is not compared; on CI nothing is left out.
table_holds() {
  check "README: the table of providers is what ran" python3 "$here/table.py" "$top/README.md" "$work/lines"
}
