# The key managers, each with a real provider behind it, through every operation of the management door; and README's table
# of them. Sourced by run.sh, whose parts for Keycloak and oidc-provider call it while those run.
# shellcheck shell=bash disable=SC2154

# Those that no provider is run for: what they say they can do is in the table, tried against recorded shapes by cargo test.
recorded() {
  cat <<END
[[key_managers]]
name = "wso2is"
connector = "wso2is"
issuer = "http://127.0.0.1:$nobody_home/oauth2/token"
startup = "optional"
client_id = "tollgate"
client_secret = "nobody"
[[key_managers]]
name = "okta"
connector = "okta"
issuer = "http://127.0.0.1:$nobody_home/oauth2/default"
startup = "optional"
client_id = "tollgate"
client_secret = "nobody"
token = "nobody"
[[key_managers]]
name = "auth0"
connector = "auth0"
issuer = "http://127.0.0.1:$nobody_home/"
audience = ["orders"]
startup = "optional"
client_id = "tollgate"
client_secret = "nobody"
END
}

# managed NAME PROVIDER LINES MEMBERS: a gate before one key manager, with a management door, and all operations through
# it. MEMBERS: of RUN.json (keymanager.py), beside those that are known here.
managed() {
  local name=$1 provider=$2 lines=$3 members=$4 gate admin door nobody_home gate_pid dir=$work/managed-$1
  read -r gate admin door nobody_home < <(free_ports 4)
  mkdir -p "$dir"
  start_manager_gate "managed-$name" "[[key_managers]]
name = \"$name\"
$lines
$(recorded)
[[apis]]
name = \"open-$name\"
context = \"/open-$name\"
upstream = \"echo:\"
subscription = \"none\"
key_managers = [\"$name\"]
[[apis.resources]]
path = \"/items/{id}\"
[[apis]]
name = \"shop-$name\"
context = \"/shop-$name\"
upstream = \"echo:\"
key_managers = [\"$name\"]
[[apis.resources]]
path = \"/items/{id}\"" "
[store]
path = \"$dir/record.redb\"
[management]
listen = \"127.0.0.1:$door\"" || { fail "key manager: $provider: Tollgate is ready" "$(tail -5 "$work/managed-$name.gate.log")"; return; }
  cat >"$dir/run.json" <<END
{"name": "$provider", "km": "$name", "door": "http://127.0.0.1:$door", "key_file": "$dir/bootstrap.key",
 "gate": "http://127.0.0.1:$gate", "config": "$work/managed-$name.gate.toml", $members}
END
  python3 "$here/keymanager.py" "$dir/run.json" "$work/managed-$name.json" >"$dir/lines" 2>"$dir/err" || true
  count_lines "$dir/lines"
  [[ ! -s $dir/err ]] || fail "key manager: $provider: the run ends" "$(tail -3 "$dir/err")"
  if [[ ! -e $work/recorded.json ]]; then
    curl -sf -m 10 "http://127.0.0.1:$door/openapi.json" >"$work/openapi.json"
    python3 "$here/keymanager_table.py" recorded "http://127.0.0.1:$door" "$dir/bootstrap.key" >"$work/recorded.json" ||
      fail "key manager: what the recorded ones can do is told"
  fi
  [[ $name != embedded ]] || fuzzed "$door" "$dir/bootstrap.key"
  stop "$gate_pid"
}

# count_lines FILE: lines of another program, counted as ours.
count_lines() {
  local line
  while IFS= read -r line; do
    case $line in
      "ok "*) ok "${line#ok }" ;;
      "FAIL "*) fail "${line#FAIL }" ;;
    esac
  done <"$1"
}

# conforms NAME TEST VARIABLE=VALUE…: cargo's own tests of a connector, which are left out of `cargo test`, at a provider
# that runs here. TEST: one of them, or the module that they are in.
conforms() {
  local name=$1 tests=$2 said
  said=$(env "${@:3}" cargo test --quiet --locked --manifest-path "$top/Cargo.toml" --test it -- --ignored --test-threads 1 \
    "connector::$tests" 2>&1) || { fail "connector suite: $name" "$(tail -c 1500 <<<"$said")"; return; }
  # None that ran is none that passed.
  if [[ $said =~ \ ([1-9][0-9]*)\ passed ]]; then ok "connector suite: $name: ${BASH_REMATCH[1]} passed"; else fail "connector suite: $name: it ran" "$said"; fi
}

# Schemathesis, from what /openapi.json says: all checks, no failure.
#   TOLLGATE_EXAMPLES, TOLLGATE_SEED: how many requests it tries of each kind, and which
fuzzed() {
  local program=$cache/schemathesis/bin/schemathesis said door=$1 key
  key=$(<"$2")
  if [[ ! -x $program ]]; then
    echo "installing Schemathesis"
    python3 -m venv "$cache/schemathesis" >/dev/null && "$cache/schemathesis/bin/pip" install -q "schemathesis==$schemathesis_version" ||
      { skip "key manager: Schemathesis cannot be had"; return; }
  fi
  # It keeps what it finds where it runs.
  if said=$(cd "$work" && "$program" --config-file "$here/schemathesis.toml" run "http://127.0.0.1:$door/openapi.json" --checks all \
    --max-examples "${TOLLGATE_EXAMPLES:-20}" --workers 1 --seed "${TOLLGATE_SEED:-1}" --request-timeout 20 -H "Authorization: Bearer $key" \
    --no-color 2>&1); then
    ok "key manager: Schemathesis finds nothing in the management door"
  else
    fail "key manager: Schemathesis finds nothing in the management door" "$(sed -n '/= FAILURES/,/= WARNINGS/p' <<<"$said" | head -c 4000)"
  fi
  printf '%s\n' "$said" >"$work/schemathesis.log"
}

# The embedded provider, and the reference connector in Python.
keymanager() {
  local port
  port=$(free_ports 1)
  managed embedded embedded "connector = \"embedded\"
issuer = \"http://127.0.0.1:$port\"
listen = \"127.0.0.1:$port\"
clients = [{ id = \"kept\", secret = \"kept-secret-of-the-file\", scopes = [\"orders:read\"] }]
users = [{ name = \"ada\", password = \"ada-secret\", claims = { email = \"ada@example.com\" } }]" \
    '"create": {}, "request": {}, "map": {"clientId": "kept", "clientSecret": "kept-secret-of-the-file"},
 "user": {"name": "ada", "claims": {"email": "ada@example.com"}}'
  python_connector || return 0
  told "a client is there that the platform does not know" 200 POST /clients '{"clientId":"kept","clientSecret":"kept-secret-of-the-file"}'
  managed http "http (Python)" "connector = \"http\"
issuer = \"http://127.0.0.1:$connector\"
endpoint = \"http://127.0.0.1:$connector\"
token = \"$connector_secret\"
discovery = false
validation = \"introspect\"
token_pattern = \"^[A-Za-z0-9_-]{43}$\"" \
    '"create": {}, "request": {}, "map": {"clientId": "kept", "clientSecret": "kept-secret-of-the-file"},
 "user": {"name": "ada", "claims": {"email": "ada@example.com"}}'
  conforms "http (Python)" http:: CONNECTOR_URL="http://127.0.0.1:$connector" CONNECTOR_TOKEN="$connector_secret" \
    CONNECTOR_USER=ada CONNECTOR_PASSWORD=ada-secret
  stop "$connector_pid"
}

# While oidc-provider runs.
keymanager_oidc() {
  managed oidc oidc-provider "connector = \"oidc\"
issuer = \"http://127.0.0.1:$provider\"
client_id = \"tollgate\"
client_secret = \"tollgate-secret\"
registration_token = \"initial-secret\"
token_pattern = \"^[A-Za-z0-9_-]{43}$\"" \
    '"create": {}, "request": {}, "map": {"clientId": "shop-web", "clientSecret": "shop-web-secret"},
 "user": {"name": "ada", "claims": {}}'
  conforms oidc-provider oidc:: TOLLGATE_OIDC_PROVIDER="http://127.0.0.1:$provider" TOLLGATE_REGISTRATION_TOKEN=initial-secret
}

# While Keycloak runs.
keymanager_keycloak() {
  check "key manager: Keycloak: what operations need is in the realm" python3 "$here/keycloak.py" manage "$kc_port"
  managed keycloak Keycloak "connector = \"keycloak\"
issuer = \"http://127.0.0.1:$kc_port/realms/gw\"
client_id = \"tollgate\"
client_secret = \"tollgate-secret\"" \
    '"create": {}, "request": {}, "map": {"clientId": "shop-web", "clientSecret": "shop-web-secret"},
 "user": {"name": "ada", "claims": {"email": "ada@example.com"}}'
  managed standards "Keycloak by the standards" "connector = \"oidc\"
issuer = \"http://127.0.0.1:$kc_port/realms/gw\"
client_id = \"tollgate\"
client_secret = \"tollgate-secret\"" \
    '"exchange": {"of": {"clientId": "shop-web", "clientSecret": "shop-web-secret"},
 "by": {"clientId": "tollgate", "clientSecret": "tollgate-secret"}}, "user": {"name": "ada", "password": "l0velace-and-more"}'
  conforms Keycloak keycloak:: TOLLGATE_KEYCLOAK="http://127.0.0.1:$kc_port"
}

# README's table of operations: what ran is printed, and compared. A connector that was left out is not compared.
operations_hold() {
  [[ -s $work/recorded.json ]] || return 0
  python3 "$here/keymanager_table.py" print "$work" || fail "key manager: the table of operations is printed"
  check "README: the table of operations is what ran" python3 "$here/keymanager_table.py" check "$top/README.md" "$work"
}

schemathesis_version=4.32.5
