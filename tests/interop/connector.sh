# The reference connector in Python (tests/fixtures/connector.py): that it does what config/connector-openapi.yaml says.
# Sourced by run.sh.
# shellcheck shell=bash disable=SC2154

# python_connector: starts it on a free port, which is left in `connector`, its secret in `connector_secret`, its id in
# `connector_pid`; and asks it a few things itself. Says so where there is no python3.
python_connector() {
  command -v python3 >/dev/null || { skip "connector: no python3"; return 1; }
  connector_secret=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
  CONNECTOR_TOKEN=$connector_secret start "$work/connector.log" python3 "$here/../fixtures/connector.py" 0
  connector_pid=$started
  await 10 grep -q . "$work/connector.log" || { fail "connector: it starts" "$(tail -5 "$work/connector.log")"; return 1; }
  connector=$(head -1 "$work/connector.log")
  ok "connector: it starts"
  connector_clients
  connector_tables
  connector_refusals
}

# told NAME STATUS METHOD PATH [JSON]: the answer's body is left in `said`.
told() {
  local body=() answer
  [[ -z ${5:-} ]] || body=(-H "Content-Type: application/json" --data-binary "$5")
  answer=$(curl -s -m 10 -w '\n%{http_code}' -X "$3" -H "Authorization: Bearer $connector_secret" "${body[@]}" \
    "http://127.0.0.1:$connector$4") || true
  said=${answer%$'\n'*}
  if [[ ${answer##*$'\n'} == "$2" ]]; then ok "connector: $1"; else fail "connector: $1" "wanted $2, got ${answer:0:300}"; fi
}

# holds NAME EXPRESSION: of the last answer, which is `it`.
holds() {
  check "connector: $1" python3 -c 'import json, sys; it = json.loads(sys.argv[1]); sys.exit(not eval(sys.argv[2]))' "$said" "$2"
}

# field NAME
field() {
  python3 -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$said" "$1"
}

connector_clients() {
  local secret more id token
  told "a client is made" 200 POST /clients '{"clientId":"shop/web 1","parameters":{"grant_types":"client_credentials","scope":"orders"}}'
  secret=$(field clientSecret)
  told "a client is read" 200 GET /clients/shop%2Fweb%201
  holds "a client is read without its secret" '"clientSecret" not in it and it["clientId"] == "shop/web 1"'
  told "one more secret" 200 POST /clients/shop%2Fweb%201/secrets '{"parameters":{"expiresIn":60}}'
  more=$(field clientSecret) id=$(field secretId)
  told "secrets are listed" 200 GET /clients/shop%2Fweb%201/secrets
  holds "secrets are masked" "len(it) == 2 and '$secret' not in str(it) and '$more' not in str(it)"
  told "either secret gives a token" 200 POST /tokens "{\"clientId\":\"shop/web 1\",\"clientSecret\":\"$more\",\"scope\":[\"orders\"]}"
  told "a secret is dropped" 204 DELETE "/clients/shop%2Fweb%201/secrets/$id"
  told "a dropped secret is good no more" 400 POST /tokens "{\"clientId\":\"shop/web 1\",\"clientSecret\":\"$more\"}"
  told "a token is given" 200 POST /tokens "{\"clientId\":\"shop/web 1\",\"clientSecret\":\"$secret\",\"scope\":[\"orders\"]}"
  token=$(field accessToken)
  told "a token is known" 200 POST /tokens/introspect "{\"token\":\"$token\"}"
  holds "a token is the client's" 'it["isTokenValid"] and it["consumerKey"] == "shop/web 1" and it["scope"] == ["orders"]'
  told "a secret is replaced" 200 POST /clients/shop%2Fweb%201/secret
  told "a replaced secret is good no more" 400 POST /clients/shop%2Fweb%201/map "{\"clientSecret\":\"$secret\"}"
  told "a token is revoked" 204 POST /tokens/revoke "{\"token\":\"$token\"}"
  told "a revoked token is known as such" 200 POST /tokens/introspect "{\"token\":\"$token\"}"
  holds "a revoked token is not good" 'not it["isTokenValid"]'
  told "a client is removed" 204 DELETE /clients/shop%2Fweb%201
  told "a removed client is not there" 404 GET /clients/shop%2Fweb%201
}

connector_tables() {
  told "a scope is made" 200 POST /scopes '{"key":"orders:read","roles":"reader"}'
  told "a scope is not made twice" 409 POST /scopes '{"key":"orders:read"}'
  told "an API is registered" 200 POST /resources '{"apiId":"orders/v1","uris":["/orders"]}'
  told "a scope is bound" 200 PUT /resources/orders%2Fv1/scopes '{"scopes":["orders:read"]}'
  told "scopes of APIs" 200 GET '/resource-scopes?api=orders%2Fv1'
  holds "scopes of APIs are told" 'it["orders/v1"][0]["key"] == "orders:read"'
  told "a scope is removed" 204 DELETE /scopes/orders:read
  told "an API is read" 200 GET /resources/orders%2Fv1
  holds "a removed scope is unbound" 'it["scopes"] == []'
  told "an API is removed" 204 DELETE /resources/orders%2Fv1
  told "claims of a user" 200 GET /users/ada/claims
  told "no claims of nobody" 404 GET /users/nobody/claims
}

connector_refusals() {
  told "an unknown field is refused" 400 POST /clients '{"clientID":"x"}'
  holds "an unknown field is named" 'it["code"] == "invalid" and it["field"] == "clientID"'
  told "what is no JSON is refused" 400 POST /clients '{"clientId":'
  told "an unknown path is refused" 404 GET /nothing
  connector_secret=wrong told "a wrong secret is refused" 401 GET /capabilities
}
