"""Tokens that are revoked through Redis, and how soon two gates refuse them.

  redis.py entry KIND TOKEN [NAME=VALUE…]   the documented entry that revokes a token by jti, consumer_key, subject or token
  redis.py race N PROVIDER GATE… -- PROGRAM ARGUMENT…
      N times: a new token, good at each gate; revoked by `PROGRAM ARGUMENT… XADD …`; how long until each refuses it.
      Prints the times in milliseconds, and fails if one took longer than 50 (the program's own start included).
"""

import base64
import hashlib
import http.client
import json
import subprocess
import sys
import time
import urllib.request


def claims(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def entry(kind, token, **more):
    said = claims(token)
    out = {"issuer": said["iss"]}
    if kind == "jti":
        out |= {"jti": said["jti"], "until": said["exp"]}
    elif kind == "token":
        out |= {"token_sha256": hashlib.sha256(token.encode()).hexdigest(), "until": said["exp"]}
    elif kind == "consumer_key":
        out |= {"consumer_key": said["client_id"], "before": said["iat"], "until": said["exp"]}
    elif kind == "subject":
        out |= {"subject": said["sub"], "before": said["iat"], "until": said["exp"]}
    return json.dumps(out | more)


def new_token(provider):
    request = urllib.request.Request(f"http://127.0.0.1:{provider}/token", b"grant_type=client_credentials")
    request.add_header("authorization", "Basic " + base64.b64encode(b"shop-web:interop").decode())
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)["access_token"]


class Gate:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)

    def status(self, token):
        self.connection.request("GET", "/orders/v1/items/1", headers={"authorization": f"Bearer {token}"})
        answer = self.connection.getresponse()
        answer.read()
        return answer.status


def race(times, provider, ports, program):
    gates, took = [Gate(port) for port in ports], []
    for n in range(times):
        token = new_token(provider)
        for gate in gates:
            for _ in range(2):
                if (status := gate.status(token)) != 200:
                    sys.exit(f"a good token got {status}")
        kind = ("jti", "token")[n % 2]
        start = time.monotonic()
        command = [*program, "XADD", "tollgate:revocations", "MAXLEN", "~", "10000", "*", "revocation", entry(kind, token)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=5)
        if said.returncode != 0 or "-" not in said.stdout:
            sys.exit(f"XADD: {said.stdout}{said.stderr}")
        waiting = set(range(len(gates)))
        while waiting:
            for it in list(waiting):
                if gates[it].status(token) == 401:
                    took.append((time.monotonic() - start) * 1000)
                    waiting.discard(it)
            if time.monotonic() - start > 5:
                sys.exit("a revoked token passes after 5 s")
    took.sort()
    print(f"{times} revocations, {len(gates)} gates: median {took[len(took) // 2]:.1f} ms, longest {took[-1]:.1f} ms")
    return took[-1] <= 50


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["entry", kind, token, *more]:
            print(entry(kind, token, **dict(pair.split("=", 1) for pair in more)))
        case ["race", times, provider, *rest]:
            split = rest.index("--")
            sys.exit(not race(int(times), provider, rest[:split], rest[split + 1 :]))
        case _:
            sys.exit(__doc__)
