//! The provider over sockets: what it publishes, and every way to be refused a token.

use base64::Engine;

use super::{
    testing::{FORM, GRANT, ISSUER, Server, basic, settings},
    *,
};
use crate::store::{TokenFacts, record};

#[tokio::test]
async fn metadata_leads_to_keys_and_tokens() {
    let server = Server::start(&[]).await;
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200);
        let said = answer.json();
        assert_eq!(said["issuer"], ISSUER);
        assert_eq!(said["token_endpoint"], format!("{ISSUER}/token"));
        assert_eq!(said["jwks_uri"], format!("{ISSUER}/jwks"));
        assert_eq!(said["grant_types_supported"], json!(["client_credentials", "refresh_token"]));
        assert_eq!(said["introspection_endpoint"], format!("{ISSUER}/introspect"));
        assert_eq!(said["revocation_endpoint"], format!("{ISSUER}/revoke"));
        assert_eq!(said.get("registration_endpoint"), None, "registration is off");
        assert_eq!(said["response_types_supported"], json!([]));
    }
    let key = server.get("/jwks").await.json()["keys"][0].clone();
    assert_eq!([&key["kty"], &key["crv"], &key["use"], &key["alg"]], ["EC", "P-256", "sig", "ES256"]);
    assert!(key.get("d").is_none(), "the private half stays inside");
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, key["x"], key["y"]);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, members.as_bytes());
    assert_eq!(key["kid"], base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(digest), "RFC 7638");
}

#[tokio::test]
async fn a_token_verifies_by_the_published_keys() {
    let server = Server::start(&[]).await;
    let before = server.provider.clock.now().unix();
    let answer = server.token(Some(("shop", "s3cret")), "grant_type=client_credentials").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.text.contains("cache-control: no-store"), "{}", answer.text);
    let issued = answer.json();
    assert_eq!([&issued["token_type"], &issued["scope"]], ["Bearer", "orders:read orders:write"]);
    assert_eq!(issued["expires_in"], 3600);

    let (typ, claims) = server.verified(&issued).await;
    assert_eq!(typ.as_deref(), Some("at+jwt"));
    for (claim, value) in [("iss", ISSUER), ("sub", "shop"), ("client_id", "shop"), ("aud", ISSUER)] {
        assert_eq!(claims[claim], value, "{claim}");
    }
    assert_eq!(claims["scope"], "orders:read orders:write");
    let iat = claims["iat"].as_u64().expect("a number");
    assert!((before..=server.provider.clock.now().unix()).contains(&iat));
    assert_eq!(claims["exp"], iat + 3600);
    let again = server.token(Some(("shop", "s3cret")), "grant_type=client_credentials").await.json();
    assert_ne!(server.verified(&again).await.1["jti"], claims["jti"]);
}

#[tokio::test]
async fn scopes_are_a_subset_of_the_clients() {
    let server = Server::start(&[]).await;
    for (asked, granted) in [
        ("orders:read", "orders:read"),
        ("orders:write%20orders:read", "orders:write orders:read"),
        ("orders:read+orders:read", "orders:read"),
        ("", "orders:read orders:write"),
    ] {
        let body = format!("grant_type=client_credentials&scope={asked}");
        let issued = server.token(Some(("shop", "s3cret")), &body).await.json();
        assert_eq!(issued["scope"], granted, "{asked}");
        assert_eq!(server.verified(&issued).await.1["scope"], granted);
    }
    let issued = server.token(Some(("bare", "other")), "grant_type=client_credentials").await.json();
    assert_eq!(issued.get("scope"), None);
    assert_eq!(server.verified(&issued).await.1.get("scope"), None);
}

#[tokio::test]
async fn several_audiences_are_a_list_and_one_is_text() {
    for (audience, expected) in [(vec!["a"], json!("a")), (vec!["a", "b"], json!(["a", "b"]))] {
        let server = Server::start(&audience).await;
        let issued = server.token(Some(("shop", "s3cret")), "grant_type=client_credentials").await.json();
        assert_eq!(server.verified(&issued).await.1["aud"], expected);
    }
}

#[tokio::test]
async fn credentials_may_stand_in_either_place() {
    let server = Server::start(&[]).await;
    // Both parts are form-encoded first (RFC 6749 section 2.3.1): `odd id` and `p:w+d%&ü`.
    let odd = Some(("odd+id", "p%3Aw%2Bd%25%26%C3%BC"));
    for (basic, body) in [
        (Some(("shop", "s3cret")), "grant_type=client_credentials"),
        (Some(("shop", "s3cret")), "grant_type=client_credentials&client_id=shop&resource=x"),
        (odd, "grant_type=client_credentials"),
        (None, "grant_type=client_credentials&client_id=shop&client_secret=s3cret"),
        (None, "client_id=odd+id&client_secret=p:w%2Bd%25%26%C3%BC&grant_type=client%5Fcredentials"),
    ] {
        let answer = server.token(basic, body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    }
    let answer = server.post("/token", &[FORM, &format!("authorization: bASIC {}", basic("shop:s3cret"))], GRANT).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn refusals_have_their_error() {
    let server = Server::start(&[]).await;
    let good = Some(("shop", "s3cret"));
    for (basic, body, status, error) in [
        (None, GRANT, 401, "invalid_client"),
        (None, "grant_type=client_credentials&client_id=shop", 401, "invalid_client"),
        (None, "grant_type=client_credentials&client_id=shop&client_secret=", 401, "invalid_client"),
        (None, "grant_type=client_credentials&client_id=shop&client_secret=s3cre", 401, "invalid_client"),
        (Some(("shop", "wrong")), GRANT, 401, "invalid_client"),
        (Some(("shop", "")), GRANT, 401, "invalid_client"),
        (Some(("nobody", "s3cret")), GRANT, 401, "invalid_client"),
        (Some(("SHOP", "s3cret")), GRANT, 401, "invalid_client"),
        (Some(("shop", "wrong")), "grant_type=password", 401, "invalid_client"),
        (good, "grant_type=client_credentials&client_id=shop&client_secret=s3cret", 400, "invalid_request"),
        (good, "grant_type=client_credentials&client_secret=s3cret", 400, "invalid_request"),
        (good, "grant_type=client_credentials&client_id=bare", 400, "invalid_request"),
        (good, "grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        (good, "grant_type=client_credentials&x=1&x=2", 400, "invalid_request"),
        (good, "grant_type=client_credentials&x=%ff", 400, "invalid_request"),
        (good, "scope=orders:read", 400, "invalid_request"),
        (good, "grant_type=", 400, "invalid_request"),
        (good, "grant_type=password", 400, "unsupported_grant_type"),
        (good, "grant_type=authorization_code&code=x", 400, "unsupported_grant_type"),
        (good, "grant_type=refresh_token&refresh_token=x", 400, "invalid_grant"),
        (good, "grant_type=refresh_token", 400, "invalid_request"),
        (good, "grant_type=client_credentials&scope=admin", 400, "invalid_scope"),
        (good, "grant_type=client_credentials&scope=orders:read+admin", 400, "invalid_scope"),
        (good, "grant_type=client_credentials&scope=orders:rea", 400, "invalid_scope"),
        (Some(("bare", "other")), "grant_type=client_credentials&scope=orders:read", 400, "invalid_scope"),
    ] {
        server.token(basic, body).await.assert_refused(status, error, body);
    }
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let server = Server::start(&[]).await;
    let authorization = format!("authorization: Basic {}", basic("shop:s3cret"));
    let large = format!("grant_type=client_credentials&x={}", "x".repeat(64 << 10));
    for (headers, body, status, error) in [
        (vec!["content-type: application/json", &*authorization], "{}", 400, "invalid_request"),
        (vec![&*authorization], GRANT, 400, "invalid_request"),
        (vec![FORM, &authorization, &authorization], GRANT, 400, "invalid_request"),
        (vec![FORM, "authorization: Basic !!!"], GRANT, 401, "invalid_client"),
        (vec![FORM, "authorization: Basic"], GRANT, 401, "invalid_client"),
        (vec![FORM, "authorization: Bearer c2hvcDpzM2NyZXQ="], GRANT, 401, "invalid_client"),
        (vec![FORM, "authorization: Basic c2hvcA=="], GRANT, 401, "invalid_client"),
        (vec![FORM, &authorization], &*large, 413, "invalid_request"),
    ] {
        server.post("/token", &headers, body).await.assert_refused(status, error, &headers.join(", "));
    }
    let charset = "content-type: Application/X-WWW-Form-Urlencoded; charset=utf-8";
    assert_eq!(server.post("/token", &[charset, &authorization], GRANT).await.status, 200);
}

#[tokio::test]
async fn nothing_else_is_there() {
    let server = Server::start(&[]).await;
    for (path, status) in
        [("/token", 405), ("/introspect", 405), ("/revoke", 405), ("/register", 405), ("/authorize", 404), ("/", 404)]
    {
        assert_eq!(server.get(path).await.status, status, "{path}");
    }
    let answer = server.post("/jwks", &[FORM], GRANT).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn new_clients_come_and_old_ones_go_while_the_key_stays() {
    let server = Server::start(&[]).await;
    let old = server.token(Some(("shop", "s3cret")), GRANT).await.json();
    let jwks = server.get("/jwks").await.json();
    let new = settings(json!({ "clients": [{ "id": "new", "secret": "x" }], "token_lifetime": "5m" }));
    server.provider.replace_terms(Terms::new(&new, "key_managers[0]").expect("good settings"));
    server.token(Some(("shop", "s3cret")), GRANT).await.assert_refused(401, "invalid_client", "shop");
    let issued = server.token(Some(("new", "x")), GRANT).await.json();
    assert_eq!(issued["expires_in"], 300);
    assert_eq!(server.get("/jwks").await.json(), jwks);
    server.verified(&old).await;

    let bad = settings(json!({ "clients": [{ "id": "other", "secret": "" }] }));
    let problems = Terms::new(&bad, "key_managers[0]").expect_err("an empty secret");
    assert_eq!(problems[0].to_string(), "key_managers[0].clients[0].secret: is empty");
}

#[tokio::test]
async fn who_left_while_the_record_takes_nothing_is_refused_all_the_same() {
    let (record, revocations) = (Record::in_memory().expect("memory"), Arc::<Revocations>::default());
    let server = Server::on(json!({}), record.clone(), Arc::clone(&revocations)).await;
    let issued = server.token(Some(("shop", "s3cret")), GRANT).await.json();
    let (_, claims) = server.verified(&issued).await;
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    let mut waiting = tokio::task::JoinSet::new();
    let busy = record.clone();
    waiting.spawn(async move { busy.change(move |_| held.recv().map_err(|_| record::Error::Closed)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..1100 {
        let busy = record.clone();
        waiting.spawn(async move { busy.change(|_| Ok(())).await });
    }
    let full = waiting.join_next().await.expect("some").expect("no panic");
    assert!(matches!(full, Err(record::Error::Busy)), "{full:?}");
    let new = settings(json!({ "clients": [{ "id": "new", "secret": "x" }] }));
    server.provider.replace_terms(Terms::new(&new, "key_managers[0]").expect("good settings"));
    let facts = TokenFacts {
        issuer: ISSUER,
        jti: None,
        token_sha256: None,
        consumer_key: Some("shop"),
        subject: None,
        own_subject: None,
        issued_at: claims["iat"].as_u64(),
    };
    let refused = revocations.is_revoked(&facts);
    go_on.send(()).expect("the writer waits");
    assert!(refused);
}

#[test]
fn every_mistake_is_named() {
    for (change, expected) in [
        (json!({ "listen": null }), vec!["listen: is needed"]),
        (json!({ "listen": "here" }), vec!["listen: an address is"]),
        (json!({ "listen": "0.0.0.0:0" }), vec!["listen: must be a loopback address"]),
        (json!({ "listen": "0.0.0.0:0", "allow_remote": true }), vec![]),
        (json!({ "listen": "unix:/run/as.sock" }), vec![]),
        (json!({ "issuer": "http://127.0.0.1:9000/as" }), vec!["issuer: must be"]),
        (json!({ "issuer": "127.0.0.1:9000" }), vec!["issuer: must be"]),
        (json!({ "issuer": "http://u:p@127.0.0.1:9000" }), vec!["issuer: must be"]),
        (json!({ "algorithms": ["RS256"] }), vec!["algorithms: must hold ES256"]),
        (json!({ "key_rotation": "900ms" }), vec!["key_rotation: is whole seconds"]),
        (json!({ "refresh_lifetime": "0" }), vec!["refresh_lifetime: is whole seconds"]),
        (json!({ "registration": "token" }), vec!["registration_token: is needed"]),
        (json!({ "registration_scopes": ["a b"] }), vec!["registration_scopes[0]: must be"]),
        (
            json!({ "users": [{ "name": "shop", "password": "topsecret" }, { "name": "", "password": "" }] }),
            vec!["users[1].name: must be", "users[1].password: is empty", "users[0].name: is a client's id"],
        ),
        (
            json!({ "users": [{ "name": "ada", "password": "topsecret", "claims": { "sub": 1, "email": 2 } }] }),
            vec!["users[0].claims: must not name"],
        ),
        (json!({ "token_lifetime": "900ms" }), vec!["token_lifetime: is whole seconds"]),
        (
            json!({ "clients": [{ "id": "a", "secret": "topsecret" }, { "id": "a", "secret": "y" }] }),
            vec!["clients[1].id: is there twice"],
        ),
        (
            json!({ "clients": [{ "id": "", "secret": "topsecret", "scopes": ["good", "a b", ""] }] }),
            vec!["clients[0].id: must be", "clients[0].scopes[1]: must be", "clients[0].scopes[2]: must be"],
        ),
        (
            json!({ "listen": "x", "clients": [{ "id": "a", "secret": { "file": "/nowhere/at/all" } }] }),
            vec!["listen: an address is", "clients[0].secret: cannot read"],
        ),
    ] {
        let made = Provider::new(&settings(change.clone()), "key_managers[2]", Arc::new(Clock::new()));
        let problems: Vec<String> = made.err().unwrap_or_default().iter().map(Problem::to_string).collect();
        assert_eq!(problems.len(), expected.len(), "{change}: {problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(&format!("key_managers[2].{expected}")), "{change}: {problem}");
            assert!(!problem.contains("topsecret"), "{problem}");
        }
    }
}

#[test]
fn secrets_do_not_show() {
    let provider =
        Provider::new(&settings(json!({})), "key_managers[0]", Arc::new(Clock::new())).expect("good settings");
    assert!(!format!("{provider:?}").contains("s3cret"));
}
