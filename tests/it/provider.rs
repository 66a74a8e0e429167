//! The embedded provider as part of the program: its tokens at the proxy door, its keys while they turn over, its
//! record.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Answer, Gate, Ports, Request, Via, api, block_on, free_ports, resource, run, send};

/// A gate with an embedded provider, two workers and an API that needs a scope but no subscription.
pub(crate) fn config(ports: &Ports, provider: u16, lines: &str, people: &str) -> String {
    format!(
        "workers = 2\n[proxy]\nlisten = \"127.0.0.1:{}\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n\
         [[key_managers]]\nname = \"own\"\nconnector = \"embedded\"\nlisten = \"127.0.0.1:{provider}\"\n\
         issuer = \"http://127.0.0.1:{provider}\"\naudience = [\"orders\"]\nregistration = \"open\"\n\
         registration_scopes = [\"orders:read\"]\n{lines}\n\
         clients = [{{ id = \"shop\", secret = \"s3cret\", scopes = [\"orders:read\"] }}]\n{people}\n{}{}",
        ports.proxy,
        ports.admin,
        api("Orders", "/orders", None, "upstream = \"echo:\"\nsubscription = \"none\""),
        resource("/items/{id}", "scopes = [\"orders:read\"]"),
    )
}

/// `users = …` with one user.
pub(crate) const ADA: &str =
    "users = [{ name = \"ada\", password = \"l0velace\", scopes = [\"orders:read\"], claims = { email = \"a@b\" } }]";

/// A client of the provider at `port`.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) port: u16,
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Caller {
    pub(crate) fn shop(port: u16) -> Self {
        Self { port, id: "shop".into(), secret: "s3cret".into() }
    }

    /// POSTs a form.
    pub(crate) fn form(&self, path: &str, body: &str) -> Answer {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", self.id, self.secret));
        let request = Request::new("POST", path)
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        block_on(send(self.port, Via::H1, &request))
    }

    pub(crate) fn token(&self, body: &str) -> Value {
        let answer = self.form("/token", body);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        answer.json()
    }

    pub(crate) fn is_active(&self, token: &str) -> bool {
        let answer = self.form("/introspect", &format!("token={token}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["active"].as_bool().unwrap()
    }
}

pub(crate) fn register(port: u16, metadata: &Value) -> Answer {
    let request =
        Request::new("POST", "/register").header("content-type", "application/json").body(metadata.to_string());
    block_on(send(port, Via::H1, &request))
}

pub(crate) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

/// Statuses of a few calls on connections of their own: more than one worker meets them.
fn statuses(gate: &Gate, token: &str) -> BTreeSet<u16> {
    let call = || block_on(gate.send(Via::H1, &Request::get("/orders/items/{m}").bearer(token))).status;
    (0..8).map(|_| call()).collect()
}

const GRANT: &str = "grant_type=client_credentials";
const PASSWORD: &str = "grant_type=password&username=ada&password=l0velace";

#[test]
fn its_tokens_pass_until_they_are_revoked_and_then_at_no_worker() {
    for form in [
        "tokens = \"jwt\"",
        "tokens = \"opaque\"",
        "tokens = \"opaque\"\ntoken_pattern = \"^tgo_[A-Za-z0-9_-]{43}$\"",
        "tokens = \"jwt\"\nvalidation = \"introspect\"",
        "tokens = \"jwt\"\nvalidation = \"jwt+introspect\"",
    ] {
        let gate = Gate::start(|ports| config(ports, ports.provider, form, ADA));
        let shop = Caller::shop(gate.ports.provider);
        let token = text(&shop.token(GRANT), "access_token");
        assert_eq!(token.contains('.'), form.contains("jwt"));
        assert_eq!(statuses(&gate, &token), [200].into(), "{form}");
        let other = text(&shop.token(GRANT), "access_token");
        assert_eq!(statuses(&gate, &other), [200].into(), "{form}");
        assert_eq!(shop.form("/revoke", &format!("token={token}")).status, 200);
        assert_eq!(statuses(&gate, &token), [401].into(), "{form}: it was cached");
        assert_eq!(statuses(&gate, &other), [200].into(), "{form}: another is not concerned");
        assert!(!shop.is_active(&token) && shop.is_active(&other));

        // A family that has two holders ends, with the access tokens that came of it.
        let first = shop.token(PASSWORD);
        let next = format!("grant_type=refresh_token&refresh_token={}", text(&first, "refresh_token"));
        let second = shop.token(&next);
        let both = [text(&first, "access_token"), text(&second, "access_token")];
        both.iter().for_each(|token| assert_eq!(statuses(&gate, token), [200].into(), "{form}"));
        let again = shop.form("/token", &next);
        assert_eq!((again.status, again.json()["error"].as_str()), (400, Some("invalid_grant")));
        both.iter().for_each(|token| assert_eq!(statuses(&gate, token), [401].into(), "{form}"));

        let secrets = [token, other, text(&second, "refresh_token")];
        assert!(gate.leaks(&secrets).is_empty(), "{:?}", gate.leaks(&secrets));
        assert!(!gate.stderr().contains("l0velace") && !gate.stderr().contains("s3cret"));
    }
}

#[test]
fn a_deleted_client_and_a_removed_user_have_no_good_token() {
    let lines = "tokens = \"opaque\"\n";
    let gate = Gate::start(|ports| config(ports, ports.provider, lines, ADA));
    let port = gate.ports.provider;
    let client = register(port, &json!({ "scope": "orders:read" }));
    assert_eq!(client.status, 201, "{client:?}");
    let client = client.json();
    let own = Caller { port, id: text(&client, "client_id"), secret: text(&client, "client_secret") };
    let token = text(&own.token(GRANT), "access_token");
    assert_eq!(statuses(&gate, &token), [200].into());
    let request =
        Request::new("DELETE", &format!("/register/{}", own.id)).bearer(text(&client, "registration_access_token"));
    assert_eq!(block_on(send(port, Via::H1, &request)).status, 204);
    assert_eq!(statuses(&gate, &token), [401].into());

    let shop = Caller::shop(port);
    let (hers, its) = (text(&shop.token(PASSWORD), "access_token"), text(&shop.token(GRANT), "access_token"));
    assert_eq!(statuses(&gate, &hers), [200].into());
    assert_eq!(statuses(&gate, &its), [200].into());
    gate.reload(&config(&gate.ports, port, lines, ""));
    gate.wait_for("her end", || statuses(&gate, &hers) == [401].into());
    assert_eq!(statuses(&gate, &its), [200].into());
    let gone = shop.form("/token", PASSWORD);
    assert_eq!((gone.status, gone.json()["error"].as_str()), (400, Some("unsupported_grant_type")));
}

#[test]
fn keys_turn_over_while_requests_run() {
    let lines = "token_lifetime = \"2s\"\nkey_rotation = \"1s\"\nleeway = \"0\"";
    let gate = Gate::start(|ports| config(ports, ports.provider, lines, ""));
    let shop = Caller::shop(gate.ports.provider);
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let published = || {
        let keys = crate::support::http_get(gate.ports.provider, "/jwks").json()["keys"].clone();
        keys.as_array().unwrap().iter().map(|key| text(key, "kid")).collect::<Vec<_>>()
    };
    let (start, mut kids) = (Instant::now(), BTreeSet::new());
    let mut held: Option<(Instant, String)> = None;
    while start.elapsed() < Duration::from_secs(4) || kids.len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "the keys do not turn over: {kids:?}");
        let fetched = Instant::now();
        let token = text(&shop.token(GRANT), "access_token");
        kids.insert(kid(&token));
        let shown = published().contains(&kid(&token));
        let call = |token: &str| block_on(gate.send(Via::H1, &Request::get("/orders/items/{m}").bearer(token))).status;
        let status = call(&token);
        // Only who asks long after it was issued comes too late.
        let late = fetched.elapsed() > Duration::from_millis(900);
        assert!(shown || late, "it signs with what it shows");
        assert!(status == 200 || late, "a new token is never too early: {status}");
        // One from before the turn is good for as long as it lives.
        let (since, old) = held.get_or_insert((fetched, token));
        let status = call(old);
        assert!(status == 200 || since.elapsed() > Duration::from_millis(900), "{status}");
        if since.elapsed() > Duration::from_millis(900) {
            held = None;
        }
    }
    let first = kids.first().cloned().unwrap();
    let last = || text(&shop.token(GRANT), "access_token");
    gate.wait_for("the first keys' end", || !published().contains(&first) || kid(&last()) == first);
    assert!(published().len() < 8, "old keys go: {:?}", published());
}

#[test]
fn one_record_has_one_process_and_check_leaves_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.redb");
    let with_store = |ports: &Ports, path: &Path| {
        config(ports, ports.provider, "", "") + &format!("\n[store]\npath = \"{}\"\n", path.display())
    };
    let file = |name: &str, text: String| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let good = file("good.toml", with_store(&free_ports(), &path));
    assert_eq!(run(&["check", "--config", &good]).status.code(), Some(0));
    assert!(!path.exists(), "check writes nothing");
    let gate = Gate::start(|ports| with_store(ports, &path));
    let missing = folder.path().join("none/a.redb");
    let foreign = folder.path().join("foreign.redb");
    fs::write(&foreign, "not a record".repeat(10_000)).unwrap();
    for (path, why) in
        [(&path, "in use by another process"), (&missing, "cannot open"), (&foreign, "no record of Tollgate")]
    {
        let other = file("other.toml", with_store(&free_ports(), path));
        let output = run(&["serve", "--config", &other]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(why) && said.contains(&*path.to_string_lossy()), "{said}");
    }
    assert_eq!(run(&["check", "--config", &good]).status.code(), Some(0), "check does not want the file");
    assert!(gate.alive());
}

#[test]
fn a_drained_gate_leaves_the_record_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.redb");
    let provider = free_ports().provider;
    let store = format!("\n[store]\npath = \"{}\"\n", path.display());
    let start = || Gate::start(|ports| config(ports, provider, "tokens = \"opaque\"", ADA) + &store);
    let mut gate = start();
    let shop = Caller::shop(provider);
    let first = shop.token(PASSWORD);
    let token = text(&first, "access_token");
    gate.signal("INT");
    assert_eq!(gate.wait_exit().and_then(|status| status.code()), Some(0));
    let gate = start();
    assert_eq!(statuses(&gate, &token), [200].into());
    shop.token(&format!("grant_type=refresh_token&refresh_token={}", text(&first, "refresh_token")));
}
