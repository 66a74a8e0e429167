"""PyJWT's opinion of what opinion.mjs asked: `opinion.py DIR`. Fails on any token that only the gate takes.

PyJWT reads no JWE: of an encrypted token it judges the JWT inside, as npm's jose opened it.
"""

import json
import sys

import jwt

ISSUER, AUDIENCE = "https://idp.example.com/second", "second-opinion"
ALGORITHMS = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA HS256 HS384 HS512".split()
SECRETS = {"s256": "HS256", "s384": "HS384", "s512": "HS512"}


def keys_of(directory):
    with open(f"{directory}/jwks.json", encoding="utf-8") as file:
        found = [(one["kid"], one) for one in json.load(file)["keys"]]
    for kid in SECRETS:
        with open(f"{directory}/{kid}", encoding="utf-8") as file:
            text = file.read()
        found.append((kid, {"kty": "oct", "k": text}))
    return found


def candidates(header, keys):
    """Keys that a JWT's header may mean: of its id, or any of its kind where it names none."""
    kinds = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP", "HS": "oct"}
    alg = str(header.get("alg"))
    for kid, jwk in keys:
        if jwk["kty"] == kinds.get(alg[:2]) and header.get("kid", kid) == kid and SECRETS.get(kid, alg) == alg:
            yield jwt.PyJWK(jwk, algorithm=alg)


def opinion(token, keys):
    why = "no key"
    try:
        for key in candidates(jwt.get_unverified_header(token), keys):
            try:
                jwt.decode(
                    token, key, algorithms=ALGORITHMS, issuer=ISSUER, audience=AUDIENCE, leeway=300, options={"require": ["exp"]}
                )
                return None
            except jwt.PyJWTError as error:
                why = str(error)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError, AttributeError) as error:
        why = str(error)
    return why


def main(directory):
    keys = keys_of(directory)
    with open(f"{directory}/asked.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    read = [row for row in rows if row["jws"] is not None]
    theirs, both, only, stricter = 0, 0, [], set()
    for row in read:
        why, ours = opinion(row["jws"], keys), row["status"] == 200
        theirs += why is None
        both += ours and why is None
        if ours and why is not None:
            only.append(f"only Tollgate takes: {row['name']} (PyJWT: {why})")
        if not ours and why is None and row["changes"] == 1:
            stricter.add(row["name"].split("; ", 1)[1])
    unread = sum(row["status"] == 200 for row in rows) - both - len(only)
    print(f"{len(read)} tokens read; PyJWT takes {theirs}, of Tollgate's {both}; it cannot read {unread} of those")
    print("stricter than PyJWT, by one mutation:", " | ".join(sorted(stricter)))
    print(*only[:20], sep="\n", end="\n" if only else "")
    sys.exit(bool(only or unread or not both))


if __name__ == "__main__":
    main(sys.argv[1])
