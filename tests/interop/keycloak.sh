# A real Keycloak: its JWTs verified, asked about, and both; its keys turned and disabled by its admin API; hung, killed
# and started again; its tokens revoked. Sourced by run.sh.
# shellcheck shell=bash disable=SC2154

# Whether the program is there, got once from Maven Central; `kc` is its folder.
keycloak_parts() {
  local home=$cache/keycloak-$keycloak_version zip
  kc=$home/keycloak-$keycloak_version
  [[ ! -x $kc/bin/kc.sh ]] || return 0
  need java openjdk-17-jre-headless && need mvn maven && need unzip unzip || return 1
  echo "fetching Keycloak $keycloak_version"
  mkdir -p "$home"
  mvn -q -B dependency:get -Dmaven.repo.local="$home/m2" -Dtransitive=false \
    "-Dartifact=org.keycloak:keycloak-quarkus-dist:$keycloak_version:zip" >"$work/mvn.log" 2>&1 || return 1
  zip=$(find "$home/m2" -name "keycloak-quarkus-dist-$keycloak_version.zip") && [[ -n $zip ]] || return 1
  # Whole or not at all.
  unzip -q "$zip" -d "$home/new" && mv "$home/new/keycloak-$keycloak_version" "$kc" && rm -rf "$home/m2" "$home/new"
}

# Starts it, long before it is used: its first start takes a minute and more.
keycloak_begin() {
  kc=
  keycloak_parts || { kc=; skip "Keycloak: Java, Maven or the program cannot be had"; return; }
  read -r kc_port kc_health < <(free_ports 2)
  keycloak_start
}

keycloak_start() {
  # The database is of this run: nothing of it stays in the cache.
  KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=admin JAVA_OPTS_KC_HEAP="-Xms64m -Xmx512m" \
    KC_DB_URL="jdbc:h2:file:$work/keycloak;NON_KEYWORDS=VALUE" \
    start "$work/keycloak.log" "$kc/bin/kc.sh" start-dev --http-host 127.0.0.1 --http-port "$kc_port" \
    --http-management-port "$kc_health" --health-enabled=true
  kc_shell=$started
}

# Ready; `kc_pid` is the Java process, which its shell may only watch.
keycloak_ready() {
  await "$1" curl -sf -m 5 "http://127.0.0.1:$kc_health/health/ready" || return 1
  kc_pid=$(pgrep -P "$kc_shell" java || echo "$kc_shell")
  [[ $kc_pid == "$kc_shell" ]] || pids=("$kc_pid" "${pids[@]}")
}

keycloak_again() {
  { reap "$kc_shell"; } 2>/dev/null
  keycloak_start
  keycloak_ready 180
}

# kc_token [CLIENT]
kc_token() {
  local client=${1:-shop-web}
  curl -sf -m 20 -u "$client:$client-secret" "http://127.0.0.1:$kc_port/realms/gw/protocol/openid-connect/token" \
    -d grant_type=client_credentials | json access_token || true
}

keycloak() {
  local gate admin managers name lines scope=orders:read
  [[ -n $kc ]] || return 0
  keycloak_ready 240 || { fail "Keycloak: it starts" "$(tail -3 "$work/keycloak.log")"; return; }
  check "Keycloak: the realm is made" python3 "$here/keycloak.py" realm "$kc_port"
  read -r gate admin < <(free_ports 2)
  lines="connector = \"keycloak\"
issuer = \"http://127.0.0.1:$kc_port/realms/gw\"
audience = [\"orders\"]
client_id = \"tollgate\"
client_secret = \"tollgate-secret\""
  managers=$(for name in jwt introspect jwt+introspect; do
    manager "${name/jwt+introspect/both}" "$lines
validation = \"$name\""
  done)
  start_manager_gate keycloak "$managers" || { fail "Keycloak: Tollgate is ready" "$(tail -5 "$work/keycloak.gate.log")"; return; }
  keycloak_tokens
  cannot Keycloak opaque "its access tokens are always JWTs"
  keycloak_revocation
  keycloak_rotation
  outage Keycloak "$kc_pid" keycloak_again jwt "$(kc_token)" "$(kc_token)" introspect "$(kc_token)" "$(kc_token)" kc_token
  expect "Keycloak: outage: back: both ways agree again" 200 GET /both/items/1 "$(kc_token)"
  stop "$gate_pid"
  keymanager_keycloak
  stop "$kc_pid"
}

keycloak_tokens() {
  local api token brief
  for api in jwt introspect both; do
    token=$(kc_token)
    good Keycloak JWT "$api" "$token"
    refused "Keycloak: JWT: $api: a garbled signature is 401" 401 900901 GET "/$api/items/1" "$(spoiled garble "$token")"
    refused "Keycloak: JWT: $api: another audience is 401" 401 900901 GET "/$api/items/1" "$(kc_token elsewhere)"
    refused "Keycloak: JWT: $api: a client without subscription is 403" 403 900908 GET "/$api/items/1" "$(kc_token stranger)"
    refused "Keycloak: JWT: $api: a missing scope is 403" 403 900910 GET "/$api/items/1" "$(kc_token unscoped)"
    expect "Keycloak: JWT: $api: one of four seconds passes while it lives" 200 GET "/$api/items/1" "$(kc_token brief)"
  done
  expect "Keycloak: JWT: verified, it does not matter whom it is for besides" 200 GET /jwt/items/1 "$(kc_token)"
  refused "Keycloak: JWT: one that we may not be told about is 401 where it is asked about" 401 900901 \
    GET /introspect/items/1 "$(kc_token unasked)"
  brief=$(kc_token brief)
  for api in jwt introspect both; do ask GET "/$api/items/1" "$brief"; done
  sleep 5
  for api in jwt introspect both; do
    refused "Keycloak: JWT: $api: an expired token is 401" 401 900901 GET "/$api/items/1" "$brief"
  done
}

keycloak_revocation() {
  local api token
  for api in introspect both; do
    token=$(kc_token)
    revocation Keycloak "a token under /$api" "$api" "$token" curl -sf -m 20 -u shop-web:shop-web-secret \
      "http://127.0.0.1:$kc_port/realms/gw/protocol/openid-connect/revoke" -d "token=$token" -d token_type_hint=access_token
  done
}

keycloak_rotation() {
  local old new
  old=$(kc_token)
  expect "Keycloak: rotation: before it, a token passes" 200 GET /jwt/items/1 "$old"
  expect "Keycloak: rotation: before it, verified and asked about" 200 GET /both/items/1 "$old"
  check "Keycloak: rotation: a new key is made active" python3 "$here/keycloak.py" rotate "$kc_port" second
  new=$(kc_token)
  if [[ $(kid "$old") == "$(kid "$new")" ]]; then fail "Keycloak: rotation: tokens come by another key" "$(kid "$new")"; else ok "Keycloak: rotation: tokens come by another key"; fi
  expect "Keycloak: rotation: the first token by the new key passes" 200 GET /jwt/items/1 "$new"
  expect "Keycloak: rotation: also where it is asked about besides" 200 GET /both/items/1 "$new"
  expect "Keycloak: rotation: one of the old key, which is still published, passes" 200 GET /jwt/items/1 "$old"
  check "Keycloak: rotation: the old key is disabled" python3 "$here/keycloak.py" retire "$kc_port"
  settles "Keycloak: rotation: a cached token of the disabled key is 401 after the refresh" 40 401 GET /jwt/items/1 "$old"
  settles "Keycloak: rotation: also where it is asked about besides" 10 401 GET /both/items/1 "$old"
  settles "Keycloak: rotation: asked about alone, it is inactive" 10 401 GET /introspect/items/1 "$old"
  expect "Keycloak: rotation: one of the new key passes" 200 GET /jwt/items/1 "$new"
}

keycloak_version=26.7.3
