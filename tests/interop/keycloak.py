"""A Keycloak for the interop run, by its admin API.

  keycloak.py realm PORT        the realm `gw`, its clients, and the audiences that their tokens name
  keycloak.py rotate PORT NAME  a new RSA key of that name signs from now on
  keycloak.py manage PORT       the client `tollgate` may do what the Key Manager does, and exchange tokens; a user `ada`
  keycloak.py retire PORT       no key but those that `rotate` made signs or verifies any more
"""

import json
import sys
import urllib.parse
import urllib.request


def call(method, url, token=None, body=None, form=None):
    data = urllib.parse.urlencode(form).encode() if form else json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, method=method)
    request.add_header("content-type", "application/x-www-form-urlencoded" if form else "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class Admin:
    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
        self.token = call("POST", f"{self.base}/realms/master/protocol/openid-connect/token", form=form)["access_token"]

    def __call__(self, method, path, body=None):
        return call(method, f"{self.base}/admin/realms{path}", self.token, body)


def audience(name):
    config = {"included.custom.audience": name, "access.token.claim": "true", "introspection.token.claim": "true"}
    return {
        "name": f"for-{name}",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": config,
    }


def client(client_id, audiences=(), scopes=(), lifespan=None):
    return {
        "clientId": client_id,
        "secret": f"{client_id}-secret",
        "protocol": "openid-connect",
        "publicClient": False,
        "serviceAccountsEnabled": True,
        "standardFlowEnabled": False,
        "protocolMappers": [audience(name) for name in audiences],
        "defaultClientScopes": ["basic", *scopes],
        "attributes": {"access.token.lifespan": str(lifespan)} if lifespan else {},
    }


def realm(admin):
    orders = {"name": "orders:read", "protocol": "openid-connect", "attributes": {"include.in.token.scope": "true"}}
    admin("POST", "", {"realm": "gw", "enabled": True, "accessTokenLifespan": 900})
    admin("POST", "/gw/client-scopes", orders)
    # The introspecting client must be in the `aud` of what it asks about.
    everything = ("orders", "tollgate")
    for made in (
        client("shop-web", everything, ["orders:read"]),
        client("brief", everything, ["orders:read"], lifespan=4),
        client("unscoped", everything),
        client("stranger", everything, ["orders:read"]),
        client("elsewhere", ("billing", "tollgate"), ["orders:read"]),
        client("unasked", ("orders",), ["orders:read"]),
        client("tollgate"),
    ):
        admin("POST", "/gw/clients", made)


def manage(admin):
    found = {made["clientId"]: made["id"] for made in admin("GET", "/gw/clients")}
    own, realm_management = found["tollgate"], found["realm-management"]
    row = admin("GET", f"/gw/clients/{own}") | {"authorizationServicesEnabled": True}
    row["attributes"] |= {"standard.token.exchange.enabled": "true"}
    admin("PUT", f"/gw/clients/{own}", row)
    shop = found["shop-web"]
    admin("PUT", f"/gw/clients/{shop}", admin("GET", f"/gw/clients/{shop}") | {"directAccessGrantsEnabled": True})
    # By UMA 2.0 a protection token is asked for by this scope, which no realm has from the start.
    admin("POST", "/gw/client-scopes", {"name": "uma_protection", "protocol": "openid-connect"})
    scopes = {made["name"]: made["id"] for made in admin("GET", "/gw/client-scopes")}
    admin("PUT", f"/gw/clients/{own}/optional-client-scopes/{scopes['uma_protection']}")
    wanted = {"manage-clients", "view-users", "query-users"}
    roles = [role for role in admin("GET", f"/gw/clients/{realm_management}/roles") if role["name"] in wanted]
    account = admin("GET", f"/gw/clients/{own}/service-account-user")["id"]
    admin("POST", f"/gw/users/{account}/role-mappings/clients/{realm_management}", roles)
    password = {"type": "password", "value": "l0velace-and-more", "temporary": False}
    person = {"username": "ada", "email": "ada@example.com", "firstName": "Ada", "lastName": "Lovelace"}
    admin("POST", "/gw/users", person | {"enabled": True, "emailVerified": True, "credentials": [password]})


KEYS = "org.keycloak.keys.KeyProvider"


def rotate(admin, name):
    config = {"priority": ["500"], "enabled": ["true"], "active": ["true"], "keySize": ["2048"], "algorithm": ["RS256"]}
    parent = admin("GET", "/gw")["id"]
    made = {"name": f"made-{name}", "providerId": "rsa-generated", "providerType": KEYS, "parentId": parent, "config": config}
    admin("POST", "/gw/components", made)


def retire(admin):
    for found in admin("GET", f"/gw/components?type={KEYS}"):
        if found["providerId"].startswith("rsa-generated") and not found["name"].startswith("made-"):
            found["config"] |= {"enabled": ["false"], "active": ["false"]}
            admin("PUT", f"/gw/components/{found['id']}", found)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["realm", port]:
            realm(Admin(port))
        case ["rotate", port, name]:
            rotate(Admin(port), name)
        case ["manage", port]:
            manage(Admin(port))
        case ["retire", port]:
            retire(Admin(port))
        case _:
            sys.exit(__doc__)
