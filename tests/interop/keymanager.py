"""One key manager taken through every operation of the management door, as a platform would, and what became of each.

  keymanager.py RUN.json OUT.json     see `Run` for what the first holds; the second gets {operation: true or a reason}

Every operation that the connector says it cannot do must answer 501 with the same reason. Prints a line a check: `ok …` or
`FAIL …: why`.
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

quoted = lambda text: urllib.parse.quote(text, safe="")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers = status, headers
        self.body = json.loads(body) if body[:1] in b"{[" and body else body.decode(errors="replace")

    def __getitem__(self, name):
        return self.body[name]


def call(method, url, body=None, headers={}):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method, headers={**headers})
    if data is not None:
        request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


class Run:
    """`name`: the provider's, for the lines. `km`: the key manager's. `door`, `key_file`: the management door and its key.
    `gate`: the proxy, with the APIs /open and /shop of this key manager. `config`: the gate's file, to which applications
    are added. `create`: further members of a new client. `map`: a client to adopt, its id and secret. `user`: a user and
    some of its claims. `request`: further members of a token request. `exchange`: only token exchange and resources are
    tried, with these clients."""

    exchange = None

    def __init__(self, told):
        self.__dict__.update(told)
        with open(self.key_file) as file:
            self.bearer = {"authorization": f"Bearer {file.read().strip()}"}
        self.cans = self.ask("GET", "/capabilities").body
        self.outcome = {}
        self.failed = 0

    def ask(self, method, path, body=None, **headers):
        return call(method, f"{self.door}/v1/key-managers/{quoted(self.km)}{path}", body, {**self.bearer, **headers})

    def line(self, what, good, why=""):
        self.failed += not good
        print(f"ok key manager: {self.name}: {what}" if good else f"FAIL key manager: {self.name}: {what}: {why}", flush=True)
        return good

    def do(self, operation, status, method, path, body=None, what=None, **headers):
        """The answer, if the operation can be done and was; else none, and the refusal is what it must be."""
        answer = self.ask(method, path, body, **headers)
        if answer.status == 501:
            # What a provider offers may only be known once it has been asked.
            self.cans = self.ask("GET", "/capabilities").body
        can = self.cans.get(operation, "not among the capabilities")
        if can is not True:
            said = answer["detail"] if isinstance(answer.body, dict) else answer.body
            good = answer.status == 501 and (method == "HEAD" or can in said)
            self.line(f"{operation}: 501, {can}", good, f"{answer.status} {answer.body}")
            self.outcome[operation] = can
            return None
        good = self.line(what or operation, answer.status == status, f"wanted {status}, got {answer.status} {answer.body}")
        self.outcome[operation] = bool(good and self.outcome.get(operation, True) is True)
        return answer if good else None

    def holds(self, what, good, why=""):
        return self.line(what, bool(good), why)

    def gate_says(self, what, status, api, token, seconds=0.0):
        """What the proxy says of a token; within so many seconds."""
        end = time.monotonic() + seconds
        while True:
            said = call("GET", f"{self.gate}/{api}/items/1", headers={"authorization": f"Bearer {token}"})
            if said.status == status or time.monotonic() > end:
                return self.line(what, said.status == status, f"wanted {status}, got {said.status} {said.body}")
            time.sleep(0.02)

    def wins(self, consumer_key):
        """The application with this key, in the file."""
        with open(self.config, "a") as file:
            file.write(
                f'\n[[applications]]\nname = "made-{self.km}"\nowner = "ada"\n'
                f"keys = [{{ key_manager = {json.dumps(self.km)}, consumer_key = {json.dumps(consumer_key)} }}]\n"
                f'[[subscriptions]]\napplication = "made-{self.km}"\napi = "shop-{self.km}"\ntier = "Unlimited"\n'
            )


def made(run):
    """A new client: its consumer key and its secret; none where none could be made."""
    wanted = {"clientName": "made by the platform", "appOwner": "ada", "applicationUUID": f"u-{run.km}"}
    wanted["parameters"] = {"grant_types": "client_credentials", **run.create.pop("parameters", {})}
    answer = run.do("createApplication", 201, "POST", "/clients", {**wanted, **run.create})
    if not answer:
        return None, None
    ck, secret = answer["clientId"], answer["clientSecret"]
    at = f"/clients/{quoted(ck)}"
    read = run.do("retrieveApplication", 200, "GET", at)
    if read:
        run.holds("a client is read without its secret", "clientSecret" not in read.body and secret not in str(read.body))
        # What the provider has said goes back to it, changed.
        changed = {**read.body, "clientName": "renamed"}
        if run.do("updateApplication", 200, "PUT", at, changed):
            again = run.ask("GET", at)
            run.holds("a client has changed", again.body.get("clientName") == "renamed", again.body)
            tag = run.ask("PUT", at, changed, **{"if-match": '"stale"'})
            run.holds("a client that has changed meanwhile is 412", tag.status == 412, tag.status)
    else:
        run.do("updateApplication", 200, "PUT", at, {**wanted, "clientId": ck})
    return ck, secret


def owner(run, ck):
    at = f"/clients/{quoted(ck)}"
    told = run.do("updateApplicationOwner", 200, "PUT", f"{at}/owner", {"owner": "grace"})
    if told:
        run.holds("the new owner is told", told["appOwner"] == "grace", told.body)
        if run.cans.get("retrieveApplication") is True:
            read = run.ask("GET", at)
            run.holds("and read back", read.status == 200 and read["appOwner"] == "grace", read.body)


def delete(run, ck, secret):
    """What the client had is refused from now on."""
    at = f"/clients/{quoted(ck)}"
    issued = issue(run, ck, secret)
    if issued:
        run.gate_says("before a client is deleted, its token passes", 200, f"open-{run.km}", issued["accessToken"])
    if not run.do("deleteApplication", 204, "DELETE", at):
        return
    if issued:
        run.gate_says("a deleted client's token is 401 at once", 401, f"open-{run.km}", issued["accessToken"])
    if run.cans.get("retrieveApplication") is True:
        run.holds("a deleted client is 404", run.ask("GET", at).status == 404)


def issue(run, ck, secret, status=201):
    request = {"clientSecret": secret, **run.request}
    return run.do("getNewApplicationAccessToken", status, "POST", f"/clients/{quoted(ck)}/tokens", request)


def tokens(run, ck, secret):
    issued = issue(run, ck, secret)
    at = f"/clients/{quoted(ck)}"
    run.do("buildFromJSON", 200, "POST", "/clients/parse", {"client_id": ck, "grant_types": "client_credentials"})
    run.do("buildAccessTokenRequestFromJSON", 200, "POST", "/tokens/parse", {"client_id": ck, "validityPeriod": 60})
    run.do("buildAccessTokenRequestFromOAuthApp", 200, "POST", f"{at}/token-request", {"clientId": ck, "clientSecret": secret})
    if not issued:
        return None
    token = issued["accessToken"]
    known = run.do("getTokenMetaData", 200, "POST", "/tokens/introspect", {"token": token})
    if known:
        run.holds("a token is its client's", known["isTokenValid"] and known["consumerKey"] == ck, known.body)
    can = run.do("canHandleToken", 200, "POST", "/tokens/can-handle", {"token": token})
    run.holds("a token is this key manager's", can and can["canHandle"] is True)
    live = run.do("getActiveTokensByConsumerKey", 200, "GET", f"{at}/tokens")
    if live:
        # Keycloak names sessions of users, which a client's own token has none of.
        named = live["items"] or run.km == "keycloak"
        run.holds("live tokens are named, and not told", named and token not in str(live.body), live.body)
    run.do("getAccessTokenByConsumerKey", 200, "GET", f"{at}/token")
    run.gate_says("a token passes where no subscription is asked for", 200, f"open-{run.km}", token)
    run.gate_says("without a subscription it is 403", 403, f"shop-{run.km}", token)
    run.wins(ck)
    run.gate_says("once its key is in the file it passes there too", 200, f"shop-{run.km}", token, 15)
    return token


def secrets(run, ck, secret):
    at = f"/clients/{quoted(ck)}"
    more = run.do("generateNewApplicationConsumerSecret", 201, "POST", f"{at}/secrets", {"parameters": {"description": "second"}})
    listed = run.do("retrieveApplicationConsumerSecrets", 200, "GET", f"{at}/secrets")
    if listed:
        run.holds("secrets are listed masked", secret not in str(listed.body) and listed["items"], listed.body)
    if more:
        issue(run, ck, more["clientSecret"])
        run.do("deleteApplicationConsumerSecret", 204, "DELETE", f"{at}/secrets/{quoted(more['secretId'])}")
        refused = run.ask("POST", f"{at}/tokens", {"clientSecret": more["clientSecret"], **run.request})
        run.holds("a dropped secret is good no more", refused.status >= 400, refused.status)
    else:
        run.do("deleteApplicationConsumerSecret", 204, "DELETE", f"{at}/secrets/none")
    issued = issue(run, ck, secret)
    if issued:
        run.gate_says("before a secret is rotated, a token passes", 200, f"open-{run.km}", issued["accessToken"])
    rotated = run.do("getNewApplicationConsumerSecret", 200, "POST", f"{at}/secret")
    if not rotated:
        return secret
    if issued:
        run.gate_says("a token obtained with the secret before is 401 at once", 401, f"open-{run.km}", issued["accessToken"])
    refused = run.ask("POST", f"{at}/tokens", {"clientSecret": secret, **run.request})
    run.holds("a rotated secret is good no more", refused.status >= 400, refused.status)
    again = issue(run, ck, rotated["clientSecret"])
    if again:
        run.gate_says("one obtained with the new secret passes", 200, f"open-{run.km}", again["accessToken"])
    return rotated["clientSecret"]


def revoke(run, ck, secret):
    for operation, path, more in (
        ("revokeToken", "/tokens/revoke", {}),
        ("revokeOneTimeToken", "/tokens/revoke-one-time", {"consumerKey": ck}),
    ):
        issued = issue(run, ck, secret)
        if not issued:
            continue
        token = issued["accessToken"]
        run.gate_says(f"{operation}: before it, a token passes", 200, f"open-{run.km}", token)
        if run.do(operation, 204, "POST", path, {"token": token, **more}):
            run.gate_says(f"{operation}: the token is 401 at once", 401, f"open-{run.km}", token)


def mapping(run):
    ck, secret = run.map["clientId"], run.map["clientSecret"]
    wrong = run.ask("POST", "/clients/map", {"clientId": ck, "clientSecret": "not it"})
    if run.cans.get("mapOAuthApplication") is True:
        # Not every provider tells a wrong secret from a client that is not there.
        run.holds("an existing client is not mapped by a wrong secret", wrong.status in (400, 404), wrong.body)
        run.holds("nor is the secret told", "not it" not in str(wrong.body))
    asked = {"clientId": ck, "clientSecret": secret}
    if run.do("mapOAuthApplication", 200, "POST", "/clients/map", asked):
        again = run.ask("POST", "/clients/map", asked)
        run.holds("an existing client is mapped once: 409", again.status == 409, again.status)
        run.do("deleteMappedApplication", 204, "DELETE", f"/clients/{quoted(ck)}/mapping")


def scopes(run):
    key = f"{run.km}:pay"
    scope = {"key": key, "name": "Pay", "description": "may pay"}
    if run.do("registerScope", 201, "POST", "/scopes", scope):
        run.holds("a scope is registered once: 409", run.ask("POST", "/scopes", scope).status == 409)
    at = f"/scopes/{quoted(key)}"
    run.do("getScopeByName", 200, "GET", at)
    listed = run.do("getAllScopes", 200, "GET", "/scopes?limit=100")
    if listed:
        run.holds("scopes are listed", any(one["key"] == key for one in listed["items"]), listed.body)
    run.do("isScopeExists", 200, "HEAD", at)
    if run.do("updateScope", 200, "PUT", at, {**scope, "description": "may pay, and be paid"}):
        run.holds("a scope has changed", "be paid" in str(run.ask("GET", at).body))
    if run.do("validateScopes", 200, "POST", "/scopes/validate", {"scopes": [{"key": key}]}):
        lacking = run.ask("POST", "/scopes/validate", {"scopes": [{"key": key}, {"key": "nobody:knows"}]})
        run.holds("a scope that is not there is named", lacking.status == 400 and "nobody:knows" in str(lacking.body), lacking.body)
    # Scopes are bound to what is registered.
    wanted = registered(run)
    bound(run, key, wanted)
    if run.do("deleteScope", 204, "DELETE", at):
        run.holds("a deleted scope is 404", run.ask("HEAD", at).status == 404)
    resources(run, wanted)


def resource_at(wanted):
    return f"/resources/{quoted(wanted['apiId'])}"


def registered(run):
    wanted = {"apiId": f"api/{run.km}", "name": f"Shop {run.km}", "uris": ["/items/{id}"], "scopes": []}
    run.do("registerNewResource", 201, "POST", "/resources", wanted)
    read = run.do("getResourceByApiId", 200, "GET", resource_at(wanted))
    if read:
        run.holds("a resource reads as it was made", read["uris"] == wanted["uris"] and read["name"] == wanted["name"], read.body)
    return wanted


def bound(run, key, wanted):
    at = f"{resource_at(wanted)}/scopes"
    answer = run.do("attachResourceScopes", 200, "PUT", at, {"scopes": [key]})
    if answer:
        run.holds("a scope is bound", key in answer["scopes"], answer.body)
    of = run.do("getScopesForAPIS", 200, "GET", f"/scopes?api={quoted(wanted['apiId'])}")
    if of and answer:
        run.holds("an API's scopes are told", any(one["key"] == key for one in of["items"][wanted["apiId"]]), of.body)
    run.do("updateResourceScopes", 200, "PATCH", at, {"scopes": [key]})
    if run.do("detachResourceScopes", 204, "DELETE", at, {"scopes": [key]}):
        run.holds("a scope is unbound", key not in run.ask("GET", resource_at(wanted))["scopes"])


def resources(run, wanted):
    at = resource_at(wanted)
    if run.do("updateRegisteredResource", 200, "PUT", at, {**wanted, "uris": ["/items/{id}", "/items"]}):
        run.holds("a resource has changed", "/items" in run.ask("GET", at)["uris"])
    if run.do("deleteRegisteredResourceByAPIId", 204, "DELETE", at):
        run.holds("a deleted resource is 404", run.ask("GET", at).status == 404)


def exchange(run):
    """RFC 8693: one client's token for another's. `exchange`: who gets a user's token, who exchanges it."""
    first, second = run.exchange["of"], run.exchange["by"]
    user = {"grantType": "password", "resourceOwnerUsername": run.user["name"], "resourceOwnerPassword": run.user["password"]}
    issued = run.do("getNewApplicationAccessToken", 201, "POST", f"/clients/{quoted(first['clientId'])}/tokens",
                    {"clientSecret": first["clientSecret"], **user}, what="a user's token is issued")
    if not issued:
        return
    asked = {"clientSecret": second["clientSecret"], "grantType": "urn:ietf:params:oauth:grant-type:token-exchange"}
    asked["requestParameters"] = {"subject_token": issued["accessToken"]}
    at = f"/clients/{quoted(second['clientId'])}/tokens"
    given = run.do("getNewApplicationAccessToken", 201, "POST", at, asked, what="it is exchanged (RFC 8693)")
    if given:
        kind = given["parameters"].get("issued_token_type")
        run.holds("for an access token", kind == "urn:ietf:params:oauth:token-type:access_token", given.body)
        run.holds("which is another", given["accessToken"] != issued["accessToken"])
        run.gate_says("and passes at the proxy", 200, f"open-{run.km}", given["accessToken"])
    asked["requestParameters"] = {"subject_token": issued["accessToken"][:-8] + "AAAAAAAA"}
    refused = run.ask("POST", at, asked)
    run.holds("a forged token is exchanged for nothing", 400 <= refused.status < 500, f"{refused.status} {refused.body}")


def users(run):
    claims = run.do("getUserClaims", 200, "GET", f"/users/{quoted(run.user['name'])}/claims")
    if claims:
        has = all(claims.body.get(name) == value for name, value in run.user["claims"].items())
        run.holds("a user's claims are told", has, claims.body)
        run.holds("an unknown user is 404", run.ask("GET", "/users/nobody-of-that-name/claims").status == 404)


def settings(run):
    said = call("GET", f"{run.door}/v1/key-managers/{quoted(run.km)}", headers=run.bearer)
    run.outcome["getKeyManagerConfiguration"] = run.outcome["getType"] = run.line(
        "its configuration and its type are told", said.status == 200 and said["type"] and said["declaredIn"] == "file", said.body
    )
    refused = call("PUT", f"{run.door}/v1/key-managers/{quoted(run.km)}", said["configuration"], run.bearer)
    run.outcome["loadConfiguration"] = run.line("one of the file is read-only: 409", refused.status == 409, refused.body)
    run.outcome["setTenantDomain"] = run.cans["setTenantDomain"]


def whole(run):
    settings(run)
    ck, secret = made(run)
    if ck:
        token = tokens(run, ck, secret)
        secret = secrets(run, ck, secret)
        if token:
            revoke(run, ck, secret)
        owner(run, ck)
    scopes(run)
    users(run)
    mapping(run)
    if ck:
        delete(run, ck, secret)
    missing = [name for name, can in run.cans.items() if name not in run.outcome]
    run.holds("every operation has been tried", not missing, missing)


def main():
    with open(sys.argv[1]) as file:
        run = Run(json.load(file))
    if run.exchange:
        exchange(run)
        wanted = registered(run)
        bound(run, f"{run.km}:pay", wanted)
        resources(run, wanted)
    else:
        whole(run)
    with open(sys.argv[2], "w") as file:
        json.dump(run.outcome, file)
    sys.exit(run.failed > 0)


main()
