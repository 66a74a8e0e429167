"""README's table of operations: what each connector does.

  keymanager_table.py recorded DOOR KEYFILE    what wso2is, okta and auth0 say they can do, as JSON
  keymanager_table.py check README WORK        compares README's table with managed-*.json, recorded.json and openapi.json
                                               of a run; TOLLGATE_TABLE_WRITE=1 puts what ran into README instead
  keymanager_table.py print WORK               the table as far as it ran: ? where a connector was left out or failed

A cell is ✓ where the operation was done, or a number: the reason, below the table, why the connector cannot.
"""

import json
import os
import re
import sys
import urllib.request

RUN = ["embedded", "oidc", "keycloak", "http"]
RECORDED = ["wso2is", "okta", "auth0"]
BEGIN, END = "<!-- operations -->", "<!-- /operations -->"


def recorded(door, key_file):
    bearer = {"authorization": f"Bearer {open(key_file).read().strip()}"}
    told = {}
    for name in RECORDED:
        request = urllib.request.Request(f"{door}/v1/key-managers/{name}/capabilities", headers=bearer)
        with urllib.request.urlopen(request, timeout=10) as answer:
            told[name] = json.load(answer)
    print(json.dumps(told))


def routes(openapi):
    found = {}
    for path, verbs in openapi["paths"].items():
        for verb, route in verbs.items():
            if "operationId" in route:
                found[route["operationId"]] = f"`{verb.upper()} {path.replace('/v1/key-managers/{km}', '…') or '…'}`"
    found["getType"] = found["getKeyManagerConfiguration"]
    found["getScopesForAPIS"] = found["getAllScopes"].rstrip("`") + "?api=…`"
    return found


def load(path):
    return json.load(open(path, encoding="utf-8")) if os.path.exists(path) else None


def table(work, as_far_as_it_ran=False):
    told = {name: load(f"{work}/managed-{name}.json") for name in RUN} | load(f"{work}/recorded.json")
    paths = routes(load(f"{work}/openapi.json"))
    here = os.path.dirname(os.path.abspath(__file__))
    names = re.findall(r' = "(\w+)",', open(f"{here}/../../src/keymanager/operation.rs", encoding="utf-8").read())
    reasons, rows = [], []
    for name in names:
        cells = []
        for column in RUN + RECORDED:
            if told[column] is None and not as_far_as_it_ran:
                sys.exit(f"{column} was left out: nothing to write")
            can = (told[column] or {}).get(name)
            if can is True:
                cells.append("✓")
            elif isinstance(can, str):
                if can not in reasons:
                    reasons.append(can)
                cells.append(str(reasons.index(can) + 1))
            elif as_far_as_it_ran:
                cells.append("?")
            else:
                sys.exit(f"{column}: {name} failed")
        rows.append(f"| {name} | {paths.get(name, '–')} | {' | '.join(cells)} |")
    head = ["operation", "route"] + RUN + [f"{name}*" for name in RECORDED]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows, ""]
    lines += [f"{n}. {reason}" for n, reason in enumerate(reasons, 1)]
    return "\n".join(lines)


def check(readme, work):
    if os.environ.get("TOLLGATE_TABLE_WRITE") != "1" and not all(os.path.exists(f"{work}/managed-{n}.json") for n in RUN):
        return
    text = open(readme, encoding="utf-8").read()
    if BEGIN not in text or END not in text:
        sys.exit(f"README has no {BEGIN} … {END}")
    before, rest = text.split(BEGIN, 1)
    said, after = rest.split(END, 1)
    ran = table(work)
    if os.environ.get("TOLLGATE_TABLE_WRITE") == "1":
        open(readme, "w", encoding="utf-8").write(f"{before}{BEGIN}\n{ran}\n{END}{after}")
    elif said.strip() != ran.strip():
        sys.exit(f"README says otherwise; what ran (TOLLGATE_TABLE_WRITE=1 writes it):\n{ran}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["recorded", door, key_file]:
            recorded(door, key_file)
        case ["check", readme, work]:
            check(readme, work)
        case ["print", work]:
            print(table(work, as_far_as_it_ran=True))
        case _:
            sys.exit(__doc__)
