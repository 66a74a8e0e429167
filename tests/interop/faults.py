"""A fault schedule among real processes: `faults.py PLAN.json`.

Clients bring tokens to two gates that share a Redis and have the tokens of a third Tollgate, while that is hung or killed
and Redis is killed, stopped or cut off. An oracle knows what each answer may be, by what has happened and what each gate
has answered before. Prints its counts; fails on one wrong answer. TOLLGATE_FAULTS_SEED repeats a schedule's decisions.

The plan: `programs` (name: command), `ports` (name: port), `partition` and `heal` (commands), `seconds`, `ttl`.
"""

import base64
import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

CLIENTS = 6
POOL = 80
BRIEF = 0.25
TIMEOUT = 1.0


def now():
    return time.monotonic()


def http_call(port, method, path, body=None, headers=None, timeout=20):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Program:
    def __init__(self, name, command, port):
        self.name, self.command, self.port, self.process = name, command, port, None

    def start(self):
        log = open(f"{WORK}/faults.{self.name}.log", "ab")
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Token:
    def __init__(self, kind, text, exp):
        self.kind, self.text, self.exp, self.lock = kind, text, exp, threading.Lock()
        self.revoking = None
        # By gate: when it was first seen refused after its revocation; between which times its last answer was fetched.
        self.refused, self.fetched = {}, {}


class World:
    def __init__(self, plan, seed):
        self.plan, self.random = plan, random.Random(seed)
        self.ports, self.ttl = plan["ports"], plan["ttl"]
        self.programs = {name: Program(name, command, self.ports.get(name)) for name, command in plan["programs"].items()}
        self.gates = ["a", "b"]
        self.pool, self.pool_lock = [], threading.Lock()
        self.revoked, self.bad, self.over = [], [], threading.Event()
        self.counts = dict.fromkeys(("requests", "passed", "known in bad weather", "refused", "503", "late"), 0)
        self.wrong, self.counts_lock, self.faults = [], threading.Lock(), {}
        self.giver_up = threading.Event()

    # ---- tokens -------------------------------------------------------------------------------------------------------

    def basic(self):
        return {
            "authorization": "Basic " + base64.b64encode(b"shop-web:shop-web-secret").decode(),
            "content-type": "application/x-www-form-urlencoded",
        }

    def mint(self):
        choose = random.Random(self.random.random())
        while not self.over.is_set():
            time.sleep(0.05)
            kind = choose.choice(["jwt", "jwt", "opaque", "opaque", "opaque", "garbled", "unknown"])
            if kind == "unknown":
                self.add(Token(kind, "tgo_" + base64.urlsafe_b64encode(choose.randbytes(32)).decode().rstrip("="), time.time() + 900))
                continue
            if not self.giver_up.is_set():
                continue
            port = self.ports["opaque" if kind == "opaque" else "jwt"]
            try:
                status, body = http_call(port, "POST", "/token", "grant_type=client_credentials&scope=orders:read", self.basic(), 5)
            except OSError:
                continue
            except http.client.HTTPException:
                continue
            if status != 200:
                continue
            got = json.loads(body)
            text, exp = got["access_token"], time.time() + got["expires_in"]
            if kind == "garbled":
                head, payload, signature = text.split(".")
                text = ".".join((head, payload, signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]))
            self.add(Token(kind, text, exp))

    def add(self, token):
        with self.pool_lock:
            if len(self.pool) >= POOL:
                self.pool.pop(self.random.randrange(len(self.pool)))
            self.pool.append(token)

    # ---- clients and the oracle ---------------------------------------------------------------------------------------

    def ask(self, gate, token):
        api = "/jwt" if token.kind in ("jwt", "garbled") else "/opaque"
        try:
            return http_call(self.ports[gate], "GET", f"{api}/items/1", headers={"authorization": f"Bearer {token.text}"})[0]
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}"

    def client(self, choose):
        while not self.over.is_set():
            with self.pool_lock:
                token = choose.choice(self.pool) if self.pool else None
            if token and token.lock.acquire(blocking=False):
                try:
                    self.bring(choose.choice(self.gates), token)
                finally:
                    token.lock.release()
            time.sleep(choose.uniform(0, 0.01))

    def is_bad(self, start, end):
        return any(begun <= end and (ended is None or ended + BRIEF >= start) for begun, ended in self.bad)

    def bring(self, gate, token):
        """One request, judged. The token's lock is held, so no other request for it is under way."""
        sent, revoked = now(), gate in token.refused
        status = self.ask(gate, token)
        came = now()
        bad = self.is_bad(sent, came)
        revoking = token.revoking is not None and token.revoking <= came
        good = token.kind in ("jwt", "opaque")
        first, last = token.fetched.get(gate, (None, None))
        known = good and not revoking and (token.kind == "jwt" or (first is not None and came + BRIEF < first + self.ttl))
        allowed = set()
        if good and not revoked:
            allowed.add(200)
        if not good or revoking:
            allowed.add(401)
        asked = token.kind in ("opaque", "unknown")
        if asked and bad and not known:
            allowed.add(503)
        late = asked and not known and status == 503 and 503 not in allowed and came - sent > TIMEOUT
        if status == 200 and token.kind == "opaque" and (last is None or sent > last + self.ttl + BRIEF):
            token.fetched[gate] = (sent, came)
        elif status == 200 and token.kind == "opaque" and came > first + self.ttl:
            # It may have been asked about anew, or not: nothing is known until it surely is.
            token.fetched[gate] = (float("-inf"), came)
        with self.counts_lock:
            self.counts["requests"] += 1
            self.counts["passed"] += status == 200
            self.counts["known in bad weather"] += status == 200 and known and bad
            self.counts["refused"] += status == 401
            self.counts["503"] += status == 503
            self.counts["late"] += late
            if status not in allowed and not late:
                self.wrong.append(
                    f"gate {gate}: {status} for {token.kind} after {came - sent:.3f} s in {'bad' if bad else 'good'} weather;"
                    f" allowed {sorted(allowed)}, known {known}, revoking {revoking}, seen revoked {revoked}"
                )
        return status

    # ---- faults -------------------------------------------------------------------------------------------------------

    def metric(self, gate, name):
        _, text = http_call(self.ports[f"admin_{gate}"], "GET", "/metrics")
        lines = (line for line in text.decode().splitlines() if line.startswith((name + " ", name + "{")))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def await_(self, what, seconds, condition):
        end = now() + seconds
        while True:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                pass
            if now() > end:
                sys.exit(f"never came: {what}")
            time.sleep(0.05)

    def connected(self, gate):
        return self.metric(gate, "tollgate_shared_connected") == 1

    def ready(self, gate):
        return http_call(self.ports[f"admin_{gate}"], "GET", "/readyz")[0] == 200

    def recovered(self):
        for gate in self.gates:
            self.await_("the provider is asked again", 45, lambda: self.metric(gate, "tollgate_introspection_circuit") == 0)
        time.sleep(TIMEOUT + 0.2)
        for gate in self.gates:
            self.await_("the provider is asked again", 45, lambda: self.metric(gate, "tollgate_introspection_circuit") == 0)

    def count(self, name):
        self.faults[name] = self.faults.get(name, 0) + 1

    def provider_fault(self, name):
        giver = self.programs["giver"]
        self.count(f"provider {name}")
        self.bad.append((now(), None))
        self.giver_up.clear()
        if name == "hung":
            giver.signal(signal.SIGSTOP)
            time.sleep(self.random.uniform(0.5, 3))
            giver.signal(signal.SIGCONT)
        else:
            giver.kill()
            time.sleep(self.random.uniform(0, 1.5))
            giver.start()
        self.await_("the provider is ready", 30, lambda: self.ready("giver"))
        self.giver_up.set()
        self.recovered()
        self.bad[-1] = (self.bad[-1][0], now())

    def redis_fault(self, name):
        redis = self.programs["redis"]
        self.count(f"Redis {name}")
        during = []
        if name == "killed":
            redis.kill()
            during = self.revoke_at_provider()
            time.sleep(self.random.uniform(0, 1))
            redis.start()
        elif name == "stopped":
            redis.signal(signal.SIGSTOP)
            during = self.revoke_at_provider()
            time.sleep(self.random.uniform(0.5, 3))
            redis.signal(signal.SIGCONT)
        else:
            subprocess.run(self.plan["partition"], check=True)
            during = self.revoke_at_provider()
            time.sleep(self.random.uniform(0.5, 6))
            subprocess.run(self.plan["heal"], check=True)
        for gate in (*self.gates, "giver"):
            self.await_(f"gate {gate} is connected after Redis was {name}", 60, lambda: self.connected(gate))
        # Revoked while Redis was away: told now, and missed by nobody.
        self.seen_refused(during, 20)

    def revoke_at_provider(self):
        chosen = self.choose(2)
        for token in chosen:
            token.revoking = now()
            port = self.ports["jwt" if token.kind == "jwt" else "opaque"]
            status, _ = http_call(port, "POST", "/revoke", f"token={token.text}", self.basic())
            if status != 200:
                sys.exit(f"/revoke: {status}")
        return chosen

    def revoke_by_operator(self):
        chosen = self.choose(2)
        for token in chosen:
            token.revoking = now()
            port = self.ports["jwt" if token.kind == "jwt" else "opaque"]
            digest = hashlib.sha256(token.text.encode()).hexdigest()
            entry = {"issuer": f"http://127.0.0.1:{port}", "token_sha256": digest, "until": int(token.exp) + 60}
            subprocess.run([*self.plan["redis_cli"], "XADD", "tollgate:revocations", "*", "revocation", json.dumps(entry)], check=True, stdout=subprocess.DEVNULL)
        self.seen_refused(chosen, 5)

    def choose(self, most):
        with self.pool_lock:
            good = [token for token in self.pool if token.kind in ("jwt", "opaque") and token.revoking is None]
        return self.random.sample(good, min(most, len(good)))

    def seen_refused(self, tokens, seconds):
        for token in tokens:
            for gate in self.gates:
                self.await_(f"gate {gate} refuses a revoked {token.kind} token", seconds, lambda: self.ask(gate, token) == 401)
                token.refused[gate] = now()
            self.revoked.append(token)

    # ---- the whole ----------------------------------------------------------------------------------------------------

    def run(self):
        for name in ("redis", "giver", "a", "b"):
            self.programs[name].start()
            if name != "redis":
                self.await_(f"{name} is ready", 60, lambda: self.ready(name) and self.connected(name))
        self.giver_up.set()
        threads = [threading.Thread(target=self.client, args=(random.Random(self.random.random()),), daemon=True) for _ in range(CLIENTS)]
        threads.append(threading.Thread(target=self.mint, daemon=True))
        for thread in threads:
            thread.start()
        time.sleep(2)
        end, bag = now() + self.plan["seconds"], []
        while now() < end or bag:
            if not bag:
                bag = [("provider", "hung"), ("provider", "killed"), ("redis", "killed"), ("redis", "stopped"), ("redis", "partitioned")]
                self.random.shuffle(bag)
            part, name = bag.pop()
            getattr(self, f"{part}_fault")(name)
            self.revoke_by_operator()
            self.seen_refused(self.revoke_at_provider(), 5)
            time.sleep(self.random.uniform(0.2, 1))
        self.over.set()
        for thread in threads:
            thread.join(30)
        self.at_rest()

    def at_rest(self):
        """What was revoked is refused by all, also by a gate that starts now; what is good passes."""
        self.programs["c"].start()
        self.await_("a late gate is ready", 60, lambda: self.ready("c") and self.connected("c"))
        for token in self.revoked:
            for gate in (*self.gates, "c"):
                self.await_(f"gate {gate} refuses what was revoked", 5, lambda: self.ask(gate, token) == 401)
        for token in [token for token in self.pool if token.kind in ("jwt", "opaque") and token.revoking is None]:
            for gate in (*self.gates, "c"):
                if (status := self.ask(gate, token)) != 200:
                    self.wrong.append(f"at rest, gate {gate}: {status} for a good {token.kind} token")


def main(path):
    global WORK
    plan = json.load(open(path, encoding="utf-8"))
    WORK = plan["work"]
    seed = int(os.environ.get("TOLLGATE_FAULTS_SEED") or random.randrange(1_000_000))
    print(f"TOLLGATE_FAULTS_SEED={seed}", flush=True)
    world = World(plan, seed)
    try:
        world.run()
    finally:
        world.over.set()
        for program in reversed(world.programs.values()):
            program.stop()
    faults = ", ".join(f"{name} {times}" for name, times in sorted(world.faults.items()))
    counts = ", ".join(f"{number} {name}" for name, number in world.counts.items())
    passes = sum(": 200 for" in line for line in world.wrong)
    known = sum("known True" in line for line in world.wrong)
    print(f"{faults}; {len(world.revoked)} tokens revoked")
    print(f"{counts}; wrong passes {passes}, wrong refusals of known tokens {known}, other wrong answers {len(world.wrong) - passes - known}")
    print("\n".join(world.wrong[:5]))
    enough = world.counts["passed"] > 100 and world.counts["refused"] > 50 and world.counts["known in bad weather"] > 0
    sys.exit(bool(world.wrong) or not enough or world.counts["late"] * 20 > world.counts["requests"])


if __name__ == "__main__":
    main(*sys.argv[1:])
