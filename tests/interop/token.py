"""Spoils a real token: `token.py garble TOKEN` (one bit of its signature), `token.py forge TOKEN` (an unknown key)."""

import base64
import json
import os
import sys


def decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def garble(header, payload, signature):
    spoiled = bytearray(decode(signature))
    spoiled[len(spoiled) // 2] ^= 1
    return header, payload, encode(bytes(spoiled))


def forge(header, payload, signature):
    fields = json.loads(decode(header))
    fields["kid"] = os.urandom(8).hex()
    return encode(json.dumps(fields).encode()), payload, encode(os.urandom(len(decode(signature))))


if __name__ == "__main__":
    how = {"garble": garble, "forge": forge}[sys.argv[1]]
    print(".".join(how(*sys.argv[2].split("."))))
