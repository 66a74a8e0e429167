"""README's table of providers against the lines of a run: `table.py README LINES`.

A line is `ok PROVIDER: ROW: …`, `FAIL PROVIDER: ROW: …`, or `-- PROVIDER: ROW: reason`. A cell is ✓ where lines ran and
none failed, and `– reason` where the provider cannot. A provider without any line was left out and is not compared.
"""

import re
import sys

HEAD = "| provider |"


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(readme):
    lines = readme.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith(HEAD)), None)
    if start is None:
        sys.exit(f"README has no table that begins with {HEAD!r}")
    columns = cells(lines[start])[1:]
    said = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *row = cells(line)
        if len(row) != len(columns):
            sys.exit(f"{name}: {len(row)} cells for {len(columns)} columns")
        said[name] = dict(zip(columns, row))
    return columns, said


def ran(text, names):
    seen = {}
    for line in text.splitlines():
        match = re.match(r"(ok|FAIL|--) ([^:]+): ([^:]+): (.*)", line)
        if match and match[2] in names:
            seen.setdefault(match[2], {}).setdefault(match[3], []).append((match[1], match[4]))
    return seen


def main(readme, lines):
    columns, said = table(open(readme, encoding="utf-8").read())
    seen = ran(open(lines, encoding="utf-8").read(), said)
    wrong = []
    for name, rows in seen.items():
        for column in columns:
            verdicts, cell = rows.pop(column, []), said[name][column]
            kinds = {kind for kind, _ in verdicts}
            if cell == "✓":
                right = kinds == {"ok"}
            elif cell.startswith("– "):
                right = verdicts == [("--", cell[2:])]
            else:
                right = False
            if not right:
                wrong.append(f"{name}, {column}: README says {cell!r}, the run {sorted(kinds) or 'nothing'}")
        wrong += [f"{name}: the run has lines of {row!r}, which is no column" for row in rows]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(seen)} of {len(said)} providers compared")


if __name__ == "__main__":
    main(*sys.argv[1:])
