"""Requests at a steady rate, spread over gates; what became of them.

  throttle.py flood RATE SECONDS GATE…
      Prints one line of JSON: passed, refused, unavailable, other, longest (ms), alone (answers that say so), and by_gate.
"""

import http.client
import json
import sys
import threading
import time


class Gate:
    def __init__(self, port):
        self.port, self.connection = int(port), None
        self.passed = self.refused = self.unavailable = self.other = self.alone = 0
        self.took = []

    def ask(self):
        begun = time.monotonic()
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            self.connection.request("GET", "/open/x")
            answer = self.connection.getresponse()
            answer.read()
        except OSError:
            self.connection, self.other = None, self.other + 1
            return
        self.took.append(time.monotonic() - begun)
        self.alone += (answer.getheader("ratelimit-policy") or "").endswith(";alone")
        match answer.status:
            case 200:
                self.passed += 1
            case 429:
                self.refused += 1
            case 503:
                self.unavailable += 1
            case _:
                self.other += 1

    def flood(self, pause, offset, end):
        due = time.monotonic() + offset
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            self.ask()
            due += pause


def flood(rate, seconds, ports):
    gates = [Gate(port) for port in ports]
    end = time.monotonic() + seconds
    pause = len(gates) / rate
    threads = [
        threading.Thread(target=gate.flood, args=(pause, pause * n / len(gates), end)) for n, gate in enumerate(gates)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = {name: sum(getattr(gate, name) for gate in gates) for name in ("passed", "refused", "unavailable", "other", "alone")}
    total["longest"] = round(max((took for gate in gates for took in gate.took), default=0) * 1000)
    total["by_gate"] = [gate.passed for gate in gates]
    print(json.dumps(total))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["flood", rate, seconds, *ports] if ports:
            flood(float(rate), float(seconds), ports)
        case _:
            sys.exit(__doc__)
