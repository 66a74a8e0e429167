#!/usr/bin/env python3
"""Writes the first inputs of the fuzz targets: seeds.py FOLDER. From the vectors that TOLLGATE_VECTORS names, where
there are any, and a few by hand. Nothing of it is kept in the repository."""

import base64
import hashlib
import json
import os
import pathlib
import sys

CLAIMS = {
    "iss": "https://idp.example.com", "sub": "alice", "aud": "orders-api", "client_id": "shop-web",
    "scope": "orders:read", "iat": 1800000000, "exp": 1800000600, "jti": "1",
}
PATHS = ["/", "/orders/v1/items/42", "/a/%41", "/a/../b", "/a/%2e%2e/b", "/a//b", "/a%2fb", "/a;b", "/%c3%a9", "/%c0%af", "/a/"]
CREDENTIALS = [
    "Bearer a.b.c", "Basic YTpi", "Bearer ", "bearer\tx", "Bearer a, Bearer b", "authorization:Bearer a.b.c\nauthorization:x",
    "DPoP a.b.c\ndpop:x", "cookie:access_token=x",
]


def main():
    root = pathlib.Path(sys.argv[1])
    counts = {}

    def put(target, data):
        data = data if isinstance(data, bytes) else data.encode()
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        counts[target] = counts.get(target, 0) + 1

    variants = [{}, {"aud": ["x", "orders-api"]}, {"exp": 1.8000006e9}, {"scope": ["a", "b"]}, {"email": "a@b.é\r\n"},
                {"address": {"country": "NO"}}, {"cnf": {"jkt": "x"}}, {"aut": "APPLICATION"}, {"groups": ["a,b", "c d"]}]
    for change in variants:
        text = json.dumps(CLAIMS | change)
        put("claims", text)
        put("introspection", json.dumps({"active": True} | CLAIMS | change))
        put("token", b64(b'{"alg":"HS256"}') + "." + b64(text.encode()) + "." + b64(bytes(32)))
    for path in PATHS:
        put("path", path)
    for credential in CREDENTIALS:
        put("credential", credential)

    vectors = os.environ.get("TOLLGATE_VECTORS")
    for file in sorted(pathlib.Path(vectors).glob("wycheproof/json_web_*.json")) if vectors else []:
        for group in json.loads(file.read_text())["testGroups"]:
            for key in filter(None, (group.get("public"), group.get("private"))):
                put("jwks", json.dumps(key if "keys" in key else {"keys": [key]}))
                put("jwks", json.dumps(key))
            for test in group["tests"]:
                token = test.get("jws") or test.get("jwe")
                if isinstance(token, str):
                    put("token", token)
                    put("credential", "Bearer " + token)
    if not vectors:
        put("jwks", '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"' + b64(bytes(range(32))) + '"}]}')
    print("seeds:", ", ".join(f"{target} {count}" for target, count in sorted(counts.items())))


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


if __name__ == "__main__":
    main()
