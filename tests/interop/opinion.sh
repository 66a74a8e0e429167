# Second opinions: what the gate takes, npm's jose and PyJWT must take too, over good tokens of every algorithm and
# seeded mutations of them. Sourced by run.sh.
# shellcheck shell=bash disable=SC2154

#   TOLLGATE_SEED, TOLLGATE_MUTATIONS: other ones than usual
opinion() {
  local dir=$work/opinion gate admin gate_pid python lines
  command -v node >/dev/null && jose_package || { skip "second opinions: no node, npm or jose"; return; }
  python=$(pyjwt) || { skip "second opinions: PyPI's PyJWT cannot be had"; return; }
  check "second opinions: keys are made" timeout 60 node "$dir/opinion.mjs" keys "$dir"
  read -r gate admin < <(free_ports 2)
  lines=$(for alg in 256 384 512; do
    echo "  { kid = \"s$alg\", alg = \"HS$alg\", encoding = \"base64url\", secret = { file = \"$dir/s$alg\" } },"
  done)
  lines="[[key_managers]]
name = \"second\"
connector = \"oidc\"
issuer = \"https://idp.example.com/second\"
discovery = false
jwks = { file = \"$dir/jwks.json\" }
audience = [\"second-opinion\"]
validation = \"jwt\"
leeway = \"5m\"
algorithms = [\"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\", \"ES512\", \"EdDSA\", \"HS256\", \"HS384\", \"HS512\"]
secret_keys = [
$lines
]
decryption_keys = [{ file = \"$dir/decryption.json\" }]

[throttle]
failures = { requests = 1000000, per = \"1m\" }

[[apis]]
name = \"second\"
context = \"/second\"
upstream = \"echo:\"
subscription = \"none\"

[[apis.resources]]
path = \"/items/{id}\"
"
  start_manager_gate opinion "$lines" || { fail "second opinions: Tollgate is ready" "$(tail -5 "$work/opinion.gate.log")"; return; }
  agrees "what Tollgate takes, jose $jose takes" node "$dir/opinion.mjs" ask "$dir" "$gate" "${TOLLGATE_SEED:-1}" "${TOLLGATE_MUTATIONS:-3000}"
  agrees "what Tollgate takes, PyJWT $pyjwt takes" "$python" "$dir/opinion.py" "$dir"
  stop "$gate_pid"
}

# agrees NAME COMMAND…: its counts are shown either way.
agrees() {
  local name=$1
  shift
  if timeout 300 "$@" >"$work/said" 2>&1; then ok "second opinions: $name"; else fail "second opinions: $name"; fi
  sed 's/^/   /' "$work/said"
}

jose_package() {
  local home=$cache/jose-$jose
  if [[ ! -d $home/node_modules/jose ]]; then
    echo "installing jose $jose"
    mkdir -p "$home"
    npm install --prefix "$home" --no-audit --no-fund --ignore-scripts --loglevel=error "jose@$jose" >/dev/null || return 1
  fi
  mkdir -p "$work/opinion"
  # In a folder of its own: another package's link lies in `work`, and a token.py that Python would import lies here.
  ln -sfn "$home/node_modules" "$work/opinion/node_modules"
  cp "$here/opinion.mjs" "$here/opinion.py" "$here/keypair.mjs" "$work/opinion/"
}

# The path of a Python that has PyJWT.
pyjwt() {
  local venv=$cache/pyjwt-$pyjwt
  [[ -x $venv/bin/pip ]] || python3 -m venv "$venv" >&2 || return 1
  "$venv/bin/python3" -c 'import cryptography, jwt' 2>/dev/null ||
    "$venv/bin/pip" install --quiet --disable-pip-version-check "pyjwt[crypto]==$pyjwt" >&2 || return 1
  echo "$venv/bin/python3"
}

jose=6.2.18
pyjwt=2.15.1
