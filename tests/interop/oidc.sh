# A real oidc-provider: its JWTs verified, its opaque tokens asked about in three ways of saying who we are; new keys, a
# removed key; hung, killed and started again; its tokens revoked. Sourced by run.sh, which installs and starts it.
# shellcheck shell=bash disable=SC2154

oidc() {
  local gate admin managers lines gate_pid kind scope=orders:read token brief
  read -r gate admin < <(free_ports 2)
  lines="connector = \"oidc\"
issuer = \"http://127.0.0.1:$provider\"
audience = [\"orders\"]"
  managers="$(manager jwt "$lines")
$(manager basic "$lines
client_id = \"tollgate\"
client_secret = \"tollgate-secret\"")
$(manager post "$lines
client_id = \"tollgate-post\"
client_secret = \"tollgate-post-secret\"
client_auth = \"post\"")
$(manager key "$lines
client_id = \"tollgate-key\"
client_key = { file = \"$work/keys/client.pem\", alg = \"ES256\" }
client_auth = \"private_key_jwt\"")
$(manager liar "$lines
client_id = \"tollgate\"
client_secret = \"not-the-secret\"")"
  start_manager_gate oidc "$managers" || { fail "oidc-provider: Tollgate is ready" "$(tail -5 "$work/oidc.gate.log")"; return; }
  for kind in rs256 es256; do
    good oidc-provider JWT jwt "$(token shop-web "$kind" orders:read)"
  done
  for kind in basic post key; do
    token=$(token shop-web opaque orders:read)
    good oidc-provider opaque "$kind" "$token"
    refused "oidc-provider: opaque: $kind: a token that it never gave is 401" 401 900901 GET "/$kind/items/1" "${token%?????}aaaaa"
    refused "oidc-provider: opaque: $kind: another audience is 401" 401 900901 GET "/$kind/items/1" "$(token shop-web opaque-other)"
    refused "oidc-provider: opaque: $kind: a missing scope is 403" 403 900910 GET "/$kind/items/1" "$(token shop-web opaque orders:write)"
    refused "oidc-provider: opaque: $kind: no subscription is 403" 403 900908 GET "/$kind/items/1" "$(token stranger opaque)"
  done
  refused "oidc-provider: opaque: credentials of ours that it does not take are 503, not 401" 503 900900 GET /liar/items/1 "$token"
  refused "oidc-provider: opaque: where nobody is asked it is 401" 401 900901 GET /jwt/items/1 "$token"
  brief=$(token shop-web opaque-short orders:read)
  ask GET /basic/items/1 "$brief"
  [[ $status == 200 ]] || fail "oidc-provider: opaque: one of four seconds passes" "$status"
  sleep 5
  refused "oidc-provider: opaque: an expired token is 401" 401 900901 GET /basic/items/1 "$brief"
  for kind in basic key; do
    token=$(token shop-web opaque orders:read)
    revocation oidc-provider "an opaque token ($kind)" "$kind" "$token" \
      curl -sf -m 10 -u shop-web:shop-web-secret "http://127.0.0.1:$provider/token/revocation" -d "token=$token"
  done
  oidc_rotation
  outage oidc-provider "$provider_pid" start_provider jwt "$(oidc_jwt)" "$(oidc_jwt)" \
    basic "$(oidc_opaque)" "$(oidc_opaque)" oidc_opaque
  settles "oidc-provider: outage: back: asked by private_key_jwt" 60 200 GET /key/items/1 "$(oidc_opaque)"
  stop "$gate_pid"
}

oidc_jwt() {
  token shop-web es256 orders:read
}

oidc_opaque() {
  token shop-web opaque orders:read
}

# Its keys are read at start: it is started anew with one key more, then without the old one.
oidc_rotation() {
  local old new
  old=$(oidc_jwt)
  expect "oidc-provider: rotation: before it, a token passes" 200 GET /jwt/items/1 "$old"
  stop "$provider_pid"
  newest=$((newest + 1))
  start_provider || { fail "oidc-provider: rotation: it starts with a new key" "$(<"$work/provider.log")"; return; }
  new=$(oidc_jwt)
  if [[ $(kid "$old") == "$(kid "$new")" ]]; then fail "oidc-provider: rotation: tokens come by another key"; else ok "oidc-provider: rotation: tokens come by another key"; fi
  expect "oidc-provider: rotation: the first token by the new key passes" 200 GET /jwt/items/1 "$new"
  expect "oidc-provider: rotation: one of the old key, which is still published, passes" 200 GET /jwt/items/1 "$old"
  stop "$provider_pid"
  oldest=$newest
  start_provider || { fail "oidc-provider: rotation: it starts without the old key" "$(<"$work/provider.log")"; return; }
  settles "oidc-provider: rotation: a cached token of the removed key is 401 after the refresh" 40 401 GET /jwt/items/1 "$old"
  expect "oidc-provider: rotation: one of the new key passes" 200 GET /jwt/items/1 "$new"
}

newest=1
oldest=1
