# A fault schedule among real processes: two gates that share a real Redis and take the tokens of a third Tollgate, which
# is hung and killed; Redis is killed, stopped, and cut off in a network namespace of its own. What each answer may be, an
# oracle in faults.py knows. Sourced by run.sh; TOLLGATE_FAULTS_SECONDS=… makes it longer, TOLLGATE_FAULTS_SEED=… repeats it.
# shellcheck shell=bash disable=SC2154

faults() {
  local scope=orders:read said seconds=${TOLLGATE_FAULTS_SECONDS:-30} redis jwt opaque giver a b c admin_giver admin_a admin_b admin_c
  local name=tollgate-faults-$$ host=tgf$$h inside=tgf$$i net=10.$((RANDOM % 100 + 100)).$((RANDOM % 256))
  need redis-server redis-server && need redis-cli redis-tools && need ip iproute2 ||
    { skip "the fault schedule, for want of redis-server or ip"; return; }
  network "$name" "$host" "$inside" "$net" 2>"$work/network.log" ||
    { skip "the fault schedule: no network namespace can be made ($(tail -1 "$work/network.log"))"; return; }
  read -r redis jwt opaque giver a b c admin_giver admin_a admin_b admin_c < <(free_ports 11)
  mkdir -p "$work/faults"
  faults_config giver "$giver" "$admin_giver" "$(provider_of jwt "$jwt" 'tokens = "jwt"')
$(provider_of opaque "$opaque" 'tokens = "opaque"')" "
[store]
path = \"$work/faults/giver.redb\""
  for gate in a b c; do
    local lines="connector = \"oidc\"
audience = [\"orders\"]" admin=admin_$gate
    faults_config "$gate" "${!gate}" "${!admin}" "$(manager jwt "$lines
issuer = \"http://127.0.0.1:$jwt\"")
$(manager opaque "$lines
client_id = \"tollgate\"
client_secret = \"tollgate-secret\"
token_pattern = \"^tgo_.*\$\"
issuer = \"http://127.0.0.1:$opaque\"")"
  done
  faults_plan >"$work/faults.json"
  if said=$(python3 "$here/faults.py" "$work/faults.json" 2>&1); then
    ok "fault schedule: no wrong pass, no wrong refusal"
  else
    fail "fault schedule: no wrong pass, no wrong refusal"
  fi
  sed 's/^/   /' <<<"$said"
  ip netns del "$name"
}

# network NAME HOST-END INNER-END NET: a namespace, and a link to it. Ends with the namespace, or with this run.
network() {
  [[ $EUID == 0 ]] && ip netns add "$1" || return 1
  namespaces+=("$1")
  ip link add "$2" type veth peer name "$3" netns "$1" && ip addr add "$4.1/30" dev "$2" && ip link set "$2" up &&
    ip -n "$1" addr add "$4.2/30" dev "$3" && ip -n "$1" link set "$3" up && ip -n "$1" link set lo up
}

# faults_config NAME GATE ADMIN MANAGERS [LINES]
faults_config() {
  fill "$here/managers.toml" "$work/faults/$1.toml" "GATE=$2" "ADMIN=$3" "LINES=
[throttle]
failures = { requests = 0, per = \"1m\" }

[shared]
redis = \"redis://$net.2:$redis\"
${5:-}" "MANAGERS=$4"
}

# Cut off means silence: what Redis sends goes nowhere, and nobody is told.
faults_plan() {
  local gate programs=
  for gate in giver a b c; do
    programs+="\"$gate\": [\"$binary\", \"serve\", \"--config\", \"$work/faults/$gate.toml\"], "
  done
  cat <<END
{
  "work": "$work", "seconds": $seconds, "ttl": 4,
  "programs": { ${programs}
    "redis": ["ip", "netns", "exec", "$name", "redis-server", "--port", "$redis", "--bind", "$net.2", "--protected-mode", "no",
      "--save", "", "--appendonly", "no", "--dir", "$work/faults"] },
  "redis_cli": ["redis-cli", "-h", "$net.2", "-p", "$redis"],
  "partition": ["ip", "-n", "$name", "route", "add", "blackhole", "$net.1/32"],
  "heal": ["ip", "-n", "$name", "route", "del", "blackhole", "$net.1/32"],
  "ports": { "giver": $giver, "a": $a, "b": $b, "c": $c, "jwt": $jwt, "opaque": $opaque, "admin_giver": $admin_giver,
    "admin_a": $admin_a, "admin_b": $admin_b, "admin_c": $admin_c }
}
END
}

# Those that are left when a run ends early.
leave_networks() {
  local name
  for name in "${namespaces[@]}"; do ip netns del "$name" 2>/dev/null || true; done
}

namespaces=()
