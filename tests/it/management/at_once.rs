//! What is revoked, deleted or rotated at the management door is refused at the proxy with the next request.

use serde_json::{Value, json};

use super::{Desk, Place, ask, text};
use crate::support::{Client, Gate, Request, Via, block_on, free_ports, send};

#[test]
fn a_revoked_token_a_deleted_client_and_a_rotated_secret_are_refused_at_once() {
    for tokens in ["jwt", "opaque"] {
        let desk = Desk::start(&format!("tokens = \"{tokens}\""));
        let own = "/v1/key-managers/own";
        let (id, secret) = desk.client(json!({ "clientName": "shop" }));

        let (first, second) = (desk.token(&id, &secret), desk.token(&id, &secret));
        assert_eq!((desk.verdict(&first), desk.verdict(&second)), (200, 200), "{tokens}");
        let told = desk.ask("POST", &format!("{own}/tokens/introspect"), &json!({ "token": first })).json();
        assert_eq!((&told["isTokenValid"], &told["keyManager"]), (&json!(true), &json!("own")), "{told}");
        let revoked = desk.ask("POST", &format!("{own}/tokens/revoke"), &json!({ "token": first }));
        assert_eq!(revoked.status, 204, "{}", revoked.text());
        assert_eq!((desk.verdict(&first), desk.verdict(&second)), (401, 200), "{tokens}");

        let body = json!({ "kind": "token", "value": second, "issuer": format!("http://127.0.0.1:{}", desk.provider) });
        assert_eq!(desk.ask("POST", "/v1/revocations", &body).status, 201);
        assert_eq!(desk.verdict(&second), 401, "{tokens}");

        let before = desk.token(&id, &secret);
        assert_eq!(desk.verdict(&before), 200);
        let rotated = desk.ask("POST", &format!("{own}/clients/{id}/secret"), &Value::Null);
        assert_eq!(rotated.status, 200, "{}", rotated.text());
        assert_eq!(desk.verdict(&before), 401, "obtained with the secret before ({tokens})");
        let after = desk.token(&id, rotated.json()["clientSecret"].as_str().unwrap());
        assert_eq!(desk.verdict(&after), 200, "{tokens}");

        assert_eq!(desk.ask("DELETE", &format!("{own}/clients/{id}"), &Value::Null).status, 204);
        assert_eq!(desk.verdict(&after), 401, "{tokens}");
        assert_eq!(desk.ask("GET", &format!("{own}/clients/{id}"), &Value::Null).status, 404);
    }
}

/// A token that is to go before another is issued goes only for its own client, and then whatever comes of the other.
#[test]
fn a_token_revoked_before_another_is_refused_at_once() {
    for tokens in ["jwt", "opaque"] {
        let desk = Desk::start(&format!("tokens = \"{tokens}\""));
        let ((id, secret), (other, others)) = (desk.client(json!({})), desk.client(json!({})));
        let ask = |client: &str, body: Value| {
            desk.ask("POST", &format!("/v1/key-managers/own/clients/{client}/tokens"), &body)
        };
        let (first, second) = (desk.token(&id, &secret), desk.token(&id, &secret));
        for (client, body, field) in [
            (&other, json!({ "clientSecret": others, "tokenToRevoke": first }), "tokenToRevoke"),
            (&other, json!({ "tokenToRevoke": first }), "tokenToRevoke"),
            (&id, json!({ "clientSecret": "wrong", "tokenToRevoke": first }), "clientSecret"),
        ] {
            let refused = ask(client, body);
            assert_eq!((refused.status, &refused.json()["field"]), (400, &json!(field)), "{tokens}");
            assert_eq!(desk.verdict(&first), 200, "{tokens}");
        }
        let issued = ask(&id, json!({ "clientSecret": secret, "tokenToRevoke": first }));
        assert_eq!((issued.status, desk.verdict(&first)), (201, 401), "{tokens}: {}", issued.text());
        assert_eq!(desk.verdict(&text(&issued.json(), "accessToken")), 200);
        let failed = ask(&id, json!({ "clientSecret": secret, "tokenToRevoke": second, "scope": ["none"] }));
        assert_eq!((failed.status, desk.verdict(&second)), (400, 401), "{tokens}: {}", failed.text());
        assert!(failed.text().contains("is revoked all the same"), "{}", failed.text());
        let audit = desk.ask("GET", "/v1/audit", &Value::Null).json();
        let last = audit["items"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["operation"], &last["outcome"]), (&json!("revokeToken"), &json!("done")), "{last}");
    }
}

/// A token that another key manager has issued is refused by name, and passes on.
#[test]
fn another_key_managers_token_is_not_revoked_here() {
    let folder = tempfile::tempdir().unwrap();
    let (place, other) = (Place::new(folder.path()), free_ports().provider);
    let second = format!(
        "[[key_managers]]\nname = \"second\"\nconnector = \"embedded\"\nlisten = \"127.0.0.1:{other}\"\n\
         issuer = \"http://127.0.0.1:{other}\"\naudience = [\"orders\"]\n"
    );
    let gate = Gate::start(|ports| place.config(ports, "tokens = \"opaque\"", &second));
    let key = place.key();
    let tell = |method: &str, path: &str, body: &Value| ask(place.port, &key, method, path, body);
    let client = |km: &str| {
        let made = tell("POST", &format!("/v1/key-managers/{km}/clients"), &json!({})).json();
        (text(&made, "clientId"), text(&made, "clientSecret"))
    };
    let ((mine, secret), (theirs, others)) = (client("own"), client("second"));
    let path = format!("/v1/key-managers/own/clients/{mine}/tokens");
    let token = text(&tell("POST", &path, &json!({ "clientSecret": secret })).json(), "accessToken");
    let verdict = || {
        let request = Request::get("/orders/items/1").bearer(&token);
        block_on(send(gate.ports.proxy, Via::H1, &request)).status
    };
    assert_eq!(verdict(), 200);
    let handles = |km: &str| {
        tell("POST", &format!("/v1/key-managers/{km}/tokens/can-handle"), &json!({ "token": token })).json()["canHandle"]
            .clone()
    };
    assert_eq!((handles("own"), handles("second")), (json!(true), json!(false)), "as the door chooses");
    let audit = || tell("GET", "/v1/audit", &Value::Null).json()["items"].as_array().map(Vec::len);
    let before = audit();
    let at = "/v1/key-managers/second";
    for (path, body, field) in [
        (
            format!("{at}/clients/{theirs}/tokens"),
            json!({ "clientSecret": others, "tokenToRevoke": token }),
            "tokenToRevoke",
        ),
        (format!("{at}/tokens/revoke"), json!({ "token": token }), "token"),
        (format!("{at}/tokens/revoke-one-time"), json!({ "token": token, "consumerKey": theirs }), "token"),
    ] {
        for query in ["", "?dry_run=true"] {
            let refused = tell("POST", &format!("{path}{query}"), &body);
            let told = (refused.status, refused.json()["field"].clone());
            assert_eq!(told, (400, json!(field)), "{path}{query}: {}", refused.text());
        }
    }
    assert_eq!((verdict(), audit()), (200, before), "nothing was done");
    // What nobody knows counts as revoked (RFC 7009), and no door takes it.
    let unknown = json!({ "token": "nobody-ever-issued-this" });
    assert_eq!(tell("POST", &format!("{at}/tokens/revoke"), &unknown).status, 204);
    let own = json!({ "token": token });
    assert_eq!(tell("POST", "/v1/key-managers/own/tokens/revoke", &own).status, 204);
    assert_eq!(verdict(), 401);
}

/// Connections that stay open, of which every worker has at least one.
struct Everywhere(Vec<Client>);

impl Everywhere {
    fn open(gate: &Gate, workers: usize) -> Self {
        let mut kept = Vec::new();
        let has_some =
            |worker: usize| gate.metric("tollgate_worker_connections", &[&format!("worker=\"{worker}\"")]) >= 1.0;
        while kept.len() < 4 * workers || !(0..workers).all(has_some) {
            assert!(kept.len() < 200, "a worker gets none");
            let mut client = block_on(Client::connect(gate.ports.proxy)).unwrap();
            assert_eq!(block_on(client.call(&Request::get("/orders/items/1"))).status, 401, "no token");
            kept.push(client);
        }
        Self(kept)
    }

    /// What each says of a token.
    fn verdicts(&mut self, token: &str) -> Vec<u16> {
        let request = Request::get("/orders/items/1").bearer(token);
        let answers = self.0.iter_mut().map(|client| block_on(client.call(&request)).status);
        let mut statuses: Vec<u16> = answers.collect();
        statuses.dedup();
        statuses
    }
}

#[test]
fn all_of_four_workers_refuse_from_the_answer_on() {
    for tokens in ["jwt", "opaque"] {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path());
        let lines = format!("tokens = \"{tokens}\"");
        let gate = Gate::start(|ports| place.config(ports, &lines, "").replace("workers = 2", "workers = 4"));
        let key = place.key();
        let tell = |method: &str, path: &str, body: &Value| ask(place.port, &key, method, path, body);
        let clients = "/v1/key-managers/own/clients";
        let mut everywhere = Everywhere::open(&gate, 4);
        for (method, path, body, status) in [
            ("POST", "/v1/key-managers/own/tokens/revoke", json!({ "token": "TOKEN" }), 204),
            ("POST", "/v1/revocations", json!({ "kind": "client", "value": "CLIENT" }), 201),
            ("POST", "/v1/key-managers/own/clients/CLIENT/secret", Value::Null, 200),
            ("DELETE", "/v1/key-managers/own/clients/CLIENT", Value::Null, 204),
        ] {
            let made = tell("POST", clients, &json!({ "clientName": "shop" })).json();
            let (id, secret) = (text(&made, "clientId"), text(&made, "clientSecret"));
            let issued = tell("POST", &format!("{clients}/{id}/tokens"), &json!({ "clientSecret": secret }));
            let token = text(&issued.json(), "accessToken");
            // Twice: then it is in the cache of each.
            assert_eq!((everywhere.verdicts(&token), everywhere.verdicts(&token)), (vec![200], vec![200]), "{path}");
            let body = match body {
                Value::Null => body,
                body => {
                    serde_json::from_str(&body.to_string().replace("TOKEN", &token).replace("CLIENT", &id)).unwrap()
                }
            };
            let done = tell(method, &path.replace("CLIENT", &id), &body);
            assert_eq!(done.status, status, "{path}: {}", done.text());
            assert_eq!(everywhere.verdicts(&token), [401], "{tokens}: {path}: the first request after the answer");
        }
    }
}

#[test]
fn a_lifted_revocation_refuses_nobody_now_or_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    let gate = Gate::start(|ports| place.config(ports, "", ""));
    let key = place.key();
    let tell = |method: &str, path: &str, body: &Value| ask(place.port, &key, method, path, body);
    let made = tell("POST", "/v1/key-managers/own/clients", &json!({ "clientName": "shop" })).json();
    let (id, secret) = (text(&made, "clientId"), text(&made, "clientSecret"));
    let issued = tell("POST", &format!("/v1/key-managers/own/clients/{id}/tokens"), &json!({ "clientSecret": secret }));
    let token = text(&issued.json(), "accessToken");
    let verdict = |gate: &Gate| {
        let request = Request::get("/orders/items/1").bearer(&token);
        block_on(send(gate.ports.proxy, Via::H1, &request)).status
    };
    assert_eq!(verdict(&gate), 200);
    let row = tell("POST", "/v1/revocations", &json!({ "kind": "client", "value": id })).json();
    assert_eq!(verdict(&gate), 401);
    let path = format!("/v1/revocations/{}", text(&row, "id"));
    assert_eq!(tell("GET", &path, &Value::Null).json(), row);
    assert_eq!(tell("GET", "/v1/revocations", &Value::Null).json()["items"], json!([row]));
    let dry = tell("DELETE", &format!("{path}?dry_run=true"), &Value::Null);
    assert_eq!((dry.status, &dry.json()["operation"]), (200, &json!("liftRevocation")), "{}", dry.text());
    assert_eq!(verdict(&gate), 401, "it was a dry run");
    assert_eq!(tell("DELETE", &path, &Value::Null).status, 204);
    assert_eq!(verdict(&gate), 200);
    for method in ["GET", "DELETE"] {
        assert_eq!(tell(method, &path, &Value::Null).status, 404, "{method}");
    }
    assert_eq!(tell("GET", "/v1/revocations/=", &Value::Null).status, 400);
    assert_eq!(gate.metric("tollgate_revocations", &["kind=\"consumer_key\""]), 0.0);
    let audit = tell("GET", "/v1/audit", &Value::Null).json();
    let last = audit["items"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["operation"], &last["before"]["value"]), (&json!("liftRevocation"), &json!(id)), "{last}");
    drop(gate);
    let gate = Gate::start(|ports| place.config(ports, "", ""));
    gate.wait_for("the door", || verdict(&gate) == 200);
}

#[test]
fn operations_are_counted_and_leave_their_trace() {
    let desk = Desk::start("");
    let (id, secret) = desk.client(json!({ "clientName": "shop", "appOwner": "ada" }));
    let labels = ["operation=\"createApplication\"", "connector=\"embedded\"", "outcome=\"done\""];
    assert_eq!(desk.gate.metric("tollgate_keymanager_operations_total", &labels), 1.0);
    assert_eq!(desk.gate.metric("tollgate_keymanager_pending", &[]), 0.0);
    let [commits, changes] =
        ["commits", "changes"].map(|of| desk.gate.metric(&format!("tollgate_record_{of}_total"), &[]));
    assert!(1.0 <= commits && commits <= changes, "{commits} commits of {changes} changes");
    let owner = desk.ask("PUT", &format!("/v1/key-managers/own/clients/{id}/owner"), &json!({ "owner": "bob" }));
    assert_eq!((owner.status, &owner.json()["appOwner"]), (200, &json!("bob")), "{}", owner.text());
    let audit = desk.ask("GET", "/v1/audit", &Value::Null);
    let told = audit.json();
    let last = told["items"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["before"]["owner"], &last["after"]["owner"]), (&json!("ada"), &json!("bob")), "{last}");
    assert!(!audit.text().contains(&secret), "no secret in the audit");
    assert_eq!(desk.gate.leaks(&[secret, desk.key.clone()]), Vec::<String>::new());
}
