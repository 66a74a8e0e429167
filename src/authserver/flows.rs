//! Grants, introspection, revocation and registration, as a client meets them.

use serde_json::{Value, json};

use super::{
    introspection::live,
    testing::{Answer, FORM, GRANT, ISSUER, Server, basic},
    *,
};

const SHOP: Option<(&str, &str)> = Some(("shop", "s3cret"));
const BARE: Option<(&str, &str)> = Some(("bare", "other"));
const PASSWORD: &str = "grant_type=password&username=ada&password=l0velace";

fn with_users(form: &str) -> Value {
    json!({
        "tokens": form,
        "users": [{
            "name": "ada", "password": "l0velace", "scopes": ["orders:read", "other"],
            "claims": { "email": "ada@example.com", "groups": ["a", "b"] },
        }],
    })
}

impl Server {
    async fn form(&self, path: &str, who: Option<(&str, &str)>, body: &str) -> Answer {
        let authorization =
            who.map(|(id, secret)| format!("authorization: Basic {}", basic(&format!("{id}:{secret}"))));
        let headers: Vec<&str> = [FORM].into_iter().chain(authorization.as_deref()).collect();
        self.post(path, &headers, body).await
    }

    async fn issued(&self, who: Option<(&str, &str)>, body: &str) -> (String, Option<String>) {
        let answer = self.token(who, body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
        let text = |name: &str| answer.json()[name].as_str().map(str::to_owned);
        (text("access_token").expect("a token"), text("refresh_token"))
    }

    async fn introspected(&self, token: &str) -> Value {
        let answer = self.form("/introspect", BARE, &format!("token={token}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    async fn is_active(&self, token: &str) -> bool {
        let answer = self.introspected(token).await;
        let active = answer["active"].as_bool().expect("a boolean");
        assert!(active || answer == json!({ "active": false }), "nothing is told of a dead token: {answer}");
        active
    }

    async fn call(&self, method: &str, path: &str, bearer: Option<&str>, body: &Value) -> Answer {
        let bearer = bearer.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{bearer}");
        let head = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.exchange(&head).await
    }
}

#[tokio::test]
async fn a_users_token_says_whose_it_is_in_both_forms() {
    for form in ["jwt", "opaque"] {
        let server = Server::with(with_users(form)).await;
        let answer = server.token(SHOP, PASSWORD).await;
        let said = answer.json();
        assert_eq!(said["scope"], "orders:read", "what client and user both have: {}", answer.text);
        let token = said["access_token"].as_str().expect("a token");
        assert_eq!(token.contains('.'), form == "jwt", "{token}");
        if form == "jwt" {
            let (_, claims) = server.verified(&said).await;
            assert_eq!([&claims["sub"], &claims["client_id"], &claims["email"]], ["ada", "shop", "ada@example.com"]);
        }
        let told = server.introspected(token).await;
        for (name, value) in [
            ("active", json!(true)),
            ("iss", json!(ISSUER)),
            ("sub", json!("ada")),
            ("username", json!("ada")),
            ("client_id", json!("shop")),
            ("aud", json!(ISSUER)),
            ("scope", json!("orders:read")),
            ("token_type", json!("Bearer")),
            ("aut", json!("APPLICATION_USER")),
            ("email", json!("ada@example.com")),
            ("groups", json!(["a", "b"])),
        ] {
            assert_eq!(told[name], value, "{form} {name}");
        }
        assert_eq!(told["exp"].as_u64(), told["iat"].as_u64().map(|iat| iat + 3600));
        assert!(told["jti"].is_string());
        let (own, none) = server.issued(SHOP, GRANT).await;
        assert_eq!(none, None, "no refresh token without a user (RFC 6749 section 4.4.3)");
        let told = server.introspected(&own).await;
        assert_eq!([&told["sub"], &told["aut"]], ["shop", "APPLICATION"]);
        assert_eq!(told.get("username"), None);
    }
}

#[tokio::test]
async fn password_grants_are_refused_by_name() {
    let server = Server::with(with_users("jwt")).await;
    for (who, body, status, error) in [
        (SHOP, "grant_type=password&username=ada&password=wrong", 400, "invalid_grant"),
        (SHOP, "grant_type=password&username=bob&password=l0velace", 400, "invalid_grant"),
        (SHOP, "grant_type=password&username=ada", 400, "invalid_request"),
        (SHOP, "grant_type=password&password=l0velace", 400, "invalid_request"),
        (SHOP, "grant_type=password&username=ada&password=l0velace&scope=orders:write", 400, "invalid_scope"),
        (BARE, "grant_type=password&username=ada&password=l0velace&scope=other", 400, "invalid_scope"),
        (None, PASSWORD, 401, "invalid_client"),
    ] {
        let answer = server.token(who, body).await;
        answer.assert_refused(status, error, body);
        assert!(!answer.text.contains("l0velace"));
    }
    let unknown = server.token(SHOP, "grant_type=password&username=bob&password=x").await.json();
    let wrong = server.token(SHOP, "grant_type=password&username=ada&password=x").await.json();
    assert_eq!(unknown, wrong, "nothing tells which users there are");
    let without = Server::start(&[]).await;
    without.token(SHOP, PASSWORD).await.assert_refused(400, "unsupported_grant_type", "no users");
}

#[tokio::test]
async fn refresh_tokens_turn_over_and_narrow_and_reuse_ends_them_all() {
    for form in ["jwt", "opaque"] {
        let server = Server::with(with_users(form)).await;
        let refresh = |token: &str| format!("grant_type=refresh_token&refresh_token={token}");
        let (first, Some(one)) = server.issued(SHOP, PASSWORD).await else { panic!("no refresh token") };
        let (second, Some(two)) = server.issued(SHOP, &refresh(&one)).await else { panic!("no refresh token") };
        assert!(first != second && one != two);
        assert_eq!(server.introspected(&second).await["scope"], "orders:read");
        for (who, body, error) in [
            (BARE, refresh(&two), "invalid_grant"),
            (SHOP, refresh("tgr_unknown"), "invalid_grant"),
            (SHOP, refresh(&second), "invalid_grant"),
            (SHOP, refresh(&two) + "&scope=orders:write", "invalid_scope"),
        ] {
            server.token(who, &body).await.assert_refused(400, error, &body);
        }
        let (third, Some(three)) = server.issued(SHOP, &(refresh(&two) + "&scope=orders:read")).await else {
            panic!("no refresh token")
        };
        for token in [&first, &second, &third] {
            assert!(server.is_active(token).await);
        }
        assert!(!server.is_active(&three).await, "a refresh token is no access token");
        server.token(SHOP, &refresh(&one)).await.assert_refused(400, "invalid_grant", "reuse");
        for token in [&first, &second, &third] {
            assert!(!server.is_active(token).await, "{form}");
        }
        server.token(SHOP, &refresh(&three)).await.assert_refused(400, "invalid_grant", "its family is gone");
    }
}

#[tokio::test]
async fn introspection_is_for_clients_and_tells_nothing_of_what_is_not_ours() {
    let server = Server::start(&[]).await;
    let (token, _) = server.issued(SHOP, GRANT).await;
    let stranger = Server::start(&[]).await;
    let (foreign, _) = stranger.issued(SHOP, GRANT).await;
    let (signed, signature) = token.rsplit_once('.').expect("a JWT");
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let changed = format!("{signed}.{other}{}", &signature[1..]);
    let unknown = format!("tgo_{}", "a".repeat(43));
    for dead in ["x", "tgo_", &unknown, "a.b.c", &foreign, &changed, &format!("{token}.")] {
        assert!(!server.is_active(dead).await, "{dead}");
    }
    let body = format!("token={token}&token_type_hint=refresh_token");
    assert_eq!(server.form("/introspect", SHOP, &body).await.json()["active"], true);
    for (who, body, status, error) in [
        (None, &*body, 401, "invalid_client"),
        (Some(("shop", "wrong")), &*body, 401, "invalid_client"),
        (Some(("nobody", "x")), &*body, 401, "invalid_client"),
        (SHOP, "token_type_hint=access_token", 400, "invalid_request"),
        (SHOP, "token=a&token=b", 400, "invalid_request"),
    ] {
        server.form("/introspect", who, body).await.assert_refused(status, error, body);
    }
}

#[tokio::test]
async fn a_client_revokes_its_own_tokens_and_no_others() {
    for form in ["jwt", "opaque"] {
        let server = Server::with(with_users(form)).await;
        let (token, Some(refresh)) = server.issued(SHOP, PASSWORD).await else { panic!("no refresh token") };
        for mine in [&token, &refresh] {
            let body = format!("token={mine}");
            server.form("/revoke", BARE, &body).await.assert_refused(400, "unauthorized_client", "another's");
            server.form("/revoke", None, &body).await.assert_refused(401, "invalid_client", "nobody's");
        }
        server.form("/revoke", SHOP, "x=y").await.assert_refused(400, "invalid_request", "no token");
        assert!(server.is_active(&token).await);
        for unknown in ["x", "tgr_x", "tgo_x", "a.b.c"] {
            assert_eq!(server.form("/revoke", SHOP, &format!("token={unknown}")).await.status, 200, "{unknown}");
        }
        // A wrong hint is no hindrance (RFC 7009 section 2.1).
        let body = format!("token={token}&token_type_hint=refresh_token");
        for _ in 0..2 {
            assert_eq!(server.form("/revoke", SHOP, &body).await.status, 200);
            assert!(!server.is_active(&token).await, "{form}");
        }
        let next = format!("grant_type=refresh_token&refresh_token={refresh}");
        let (second, Some(refresh)) = server.issued(SHOP, &next).await else { panic!("no refresh token") };
        assert_eq!(server.form("/revoke", SHOP, &format!("token={refresh}")).await.status, 200);
        assert!(!server.is_active(&second).await, "the grant is revoked with its refresh token");
        let next = format!("grant_type=refresh_token&refresh_token={refresh}");
        server.token(SHOP, &next).await.assert_refused(400, "invalid_grant", "revoked");
    }
}

#[tokio::test]
async fn a_user_who_is_gone_has_no_good_token() {
    let server = Server::with(with_users("opaque")).await;
    let (token, Some(refresh)) = server.issued(SHOP, PASSWORD).await else { panic!("no refresh token") };
    let (other, _) = server.issued(SHOP, GRANT).await;
    let without = testing::settings(json!({ "tokens": "opaque" }));
    server.provider.replace_terms(Terms::new(&without, "key_managers[0]").expect("good settings"));
    assert!(!server.is_active(&token).await && server.is_active(&other).await);
    let next = format!("grant_type=refresh_token&refresh_token={refresh}");
    server.token(SHOP, &next).await.assert_refused(400, "invalid_grant", "she is gone");
    // Back again, what she had before is as dead as it was.
    let with = testing::settings(with_users("opaque"));
    server.provider.replace_terms(Terms::new(&with, "key_managers[0]").expect("good settings"));
    server.token(SHOP, &next).await.assert_refused(400, "invalid_grant", "it is an old one");
    assert!(!server.is_active(&token).await);
}

#[tokio::test]
async fn registration_is_off_by_a_secret_or_open() {
    let server = Server::start(&[]).await;
    for (method, path) in [("POST", "/register"), ("GET", "/register/x"), ("DELETE", "/register/x")] {
        let answer = server.call(method, path, None, &json!({})).await;
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("access_denied")), "{method} {path}");
        assert!(answer.text.contains("registration is off"), "{}", answer.text);
    }
    let by_token = json!({ "registration": "token", "registration_token": "let-me-in" });
    let server = Server::with(by_token).await;
    let said = server.get("/.well-known/openid-configuration").await.json();
    assert_eq!(said["registration_endpoint"], format!("{ISSUER}/register"));
    for bearer in [None, Some("wrong"), Some(""), Some("let-me-in2")] {
        let answer = server.call("POST", "/register", bearer, &json!({})).await;
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("invalid_token")), "{bearer:?}");
        assert!(answer.text.contains("www-authenticate: Bearer "), "{}", answer.text);
    }
    assert_eq!(server.call("POST", "/register", Some("let-me-in"), &json!({})).await.status, 201);
    let server = Server::with(json!({ "registration": "open" })).await;
    assert_eq!(server.call("POST", "/register", None, &json!({})).await.status, 201);
}

#[tokio::test]
async fn a_registered_client_lives_from_its_first_day_to_its_last() {
    let server = Server::with(json!({ "registration": "open", "registration_scopes": ["a", "b"] })).await;
    let asked =
        json!({ "client_name": "Ada's shop", "scope": "a", "redirect_uris": ["https://a.example/cb"], "new": 1 });
    let answer = server.call("POST", "/register", None, &asked).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert!(answer.text.contains("cache-control: no-store"));
    let said = answer.json();
    let text = |name: &str| said[name].as_str().expect(name).to_owned();
    let (id, secret, token) = (text("client_id"), text("client_secret"), text("registration_access_token"));
    assert_eq!(text("registration_client_uri"), format!("{ISSUER}/register/{id}"));
    assert_eq!(said["client_secret_expires_at"], 0);
    assert_eq!([&said["grant_types"], &said["response_types"]], [&json!(["client_credentials"]), &json!([])]);
    assert_eq!([&said["client_name"], &said["scope"]], ["Ada's shop", "a"]);
    let me = Some((&*id, &*secret));
    let (access, _) = server.issued(me, GRANT).await;
    assert_eq!(server.introspected(&access).await["scope"], "a");
    server.token(me, "grant_type=client_credentials&scope=b").await.assert_refused(400, "invalid_scope", "b");
    server.token(Some((&*id, "wrong")), GRANT).await.assert_refused(401, "invalid_client", "wrong");
    server.token(me, "grant_type=refresh_token&refresh_token=x").await.assert_refused(400, "unauthorized_client", "");

    let path = format!("/register/{id}");
    for (method, path, bearer) in [
        ("GET", &*path, None),
        ("GET", &path, Some(&*secret)),
        ("PUT", &path, Some("wrong")),
        ("DELETE", &path, Some("wrong")),
        ("GET", "/register/unknown", Some(&*token)),
    ] {
        let answer = server.call(method, path, bearer, &json!({ "client_id": id })).await;
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("invalid_token")), "{method} {path}");
    }
    let read = server.call("GET", &path, Some(&token), &Value::Null).await.json();
    assert_eq!([&read["client_id"], &read["registration_access_token"]], [&said["client_id"], &json!(token)]);
    assert_eq!(read.get("client_secret"), None, "nobody knows it any more");

    let mut new = json!({ "client_id": id, "client_secret": secret, "scope": "a b" });
    let replaced = server.call("PUT", &path, Some(&token), &new).await;
    assert_eq!((replaced.status, &replaced.json()["scope"]), (200, &json!("a b")), "{}", replaced.text);
    assert_eq!(replaced.json().get("client_name"), None, "what is left out is removed");
    assert_eq!(replaced.json()["client_id_issued_at"], said["client_id_issued_at"]);
    let (second, _) = server.issued(me, "grant_type=client_credentials&scope=b").await;
    for (name, value) in [
        ("client_id", json!("other")),
        ("client_secret", json!("other")),
        ("registration_access_token", json!(token)),
        ("client_id_issued_at", json!(1)),
    ] {
        new[name] = value;
        let answer = server.call("PUT", &path, Some(&token), &new).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_client_metadata")), "{name}");
        new = json!({ "client_id": id, "scope": "a b" });
    }

    assert_eq!(server.call("DELETE", &path, Some(&token), &Value::Null).await.status, 204);
    assert_eq!(server.call("GET", &path, Some(&token), &Value::Null).await.status, 401);
    server.token(me, GRANT).await.assert_refused(401, "invalid_client", "it is gone");
    assert!(!server.is_active(&access).await && !server.is_active(&second).await);
}

#[tokio::test]
async fn bad_metadata_is_refused_by_name() {
    let server = Server::with(json!({ "registration": "open", "registration_scopes": ["a"] })).await;
    for (body, error) in [
        (json!({ "redirect_uris": ["not a uri"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["https://a.example/#x"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": vec!["https://a.example/"; 17] }), "invalid_redirect_uri"),
        (json!({ "grant_types": ["authorization_code"] }), "invalid_client_metadata"),
        (json!({ "grant_types": [] }), "invalid_client_metadata"),
        (json!({ "response_types": ["code"] }), "invalid_client_metadata"),
        (json!({ "token_endpoint_auth_method": "none" }), "invalid_client_metadata"),
        (json!({ "scope": "a b" }), "invalid_client_metadata"),
        (json!({ "client_name": "x".repeat(201) }), "invalid_client_metadata"),
        (json!({ "client_name": 1 }), "invalid_client_metadata"),
        (json!([]), "invalid_client_metadata"),
        (json!({ "software_statement": "a.b.c" }), "unapproved_software_statement"),
    ] {
        let answer = server.call("POST", "/register", None, &body).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(error)), "{body}");
    }
    let large = json!({ "client_name": "x".repeat(70_000) });
    assert_eq!(server.call("POST", "/register", None, &large).await.status, 413);
    let answer = server.post("/register", &[FORM], "a=b").await;
    answer.assert_refused(400, "invalid_request", "no JSON");
    let twice = "POST /register HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
                 content-length: 25\r\n\r\n{\"scope\":\"a\",\"scope\":\"b\"}";
    assert_eq!(server.exchange(twice).await.status, 400, "twice");
}

#[tokio::test]
async fn keys_turn_over_and_the_old_one_stays_until_its_tokens_have_expired() {
    let server = Server::start(&[]).await;
    let (state, keys) = (server.provider.state().expect("open"), server.provider.keys().expect("open"));
    let before = server.token(SHOP, GRANT).await.json();
    let now = server.provider.clock.now().unix();
    keys.rotate(&state.record, now, now + 3600).await.expect("written");
    let after = server.token(SHOP, GRANT).await.json();
    let kid = |issued: &Value| {
        let token = issued["access_token"].as_str().expect("a token");
        jsonwebtoken::decode_header(token).expect("a JWT").kid
    };
    assert_ne!(kid(&before), kid(&after));
    server.verified(&before).await;
    server.verified(&after).await;
    for issued in [&before, &after] {
        assert!(server.is_active(issued["access_token"].as_str().expect("a token")).await);
    }
    keys.prune(&state.record, now + 3600).await.expect("written");
    assert_eq!(keys.jwks()["keys"].as_array().map(Vec::len), Some(2), "just not yet");
    keys.prune(&state.record, now + 3601).await.expect("written");
    assert_eq!(keys.jwks()["keys"].as_array().map(Vec::len), Some(1));
    assert!(!server.is_active(before["access_token"].as_str().expect("a token")).await, "nobody vouches for it");
    // The next process signs with the same key.
    let again = Server::on(json!({}), state.record.clone(), Arc::default()).await;
    assert_eq!(again.get("/jwks").await.json(), keys.jwks());
}

#[tokio::test]
async fn another_process_remembers_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    let settings = {
        let mut settings = with_users("opaque");
        settings["registration"] = json!("open");
        settings
    };
    let start = async || {
        let record = Record::open(&path).expect("a good file");
        Server::on(settings.clone(), record, Arc::default()).await
    };
    let server = start().await;
    let client = server.call("POST", "/register", None, &json!({})).await.json();
    let (token, Some(refresh)) = server.issued(SHOP, PASSWORD).await else { panic!("no refresh token") };
    let (gone, _) = server.issued(SHOP, GRANT).await;
    assert_eq!(server.form("/revoke", SHOP, &format!("token={gone}")).await.status, 200);
    let secrets = [&token, &refresh, &gone].map(String::as_str);
    let text = |name: &str| client[name].as_str().expect(name);
    let more = [text("client_secret"), text("registration_access_token"), "s3cret", "l0velace"];
    server.end().await;
    let bytes = std::fs::read(&path).expect("the file");
    for secret in secrets.iter().chain(&more) {
        assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "a secret stands in the file");
    }

    let server = start().await;
    assert!(server.is_active(&token).await && !server.is_active(&gone).await);
    server.issued(SHOP, &format!("grant_type=refresh_token&refresh_token={refresh}")).await;
    server.issued(Some((text("client_id"), text("client_secret"))), GRANT).await;
    let digest = random::digest(&gone);
    let facts = crate::store::TokenFacts {
        issuer: ISSUER,
        jti: None,
        token_sha256: Some(crate::store::TokenSha256::Is(&digest)),
        consumer_key: None,
        subject: None,
        own_subject: None,
        issued_at: None,
    };
    let state = server.provider.state().expect("open");
    assert!(state.revocations.is_revoked(&facts), "the doors refuse it from the start");
    assert!(live(&server.provider, &token, 0).expect("readable").is_some());
}

#[tokio::test]
async fn before_it_is_open_it_is_unavailable() {
    let provider = Provider::new(&testing::settings(json!({})), "key_managers[0]", Arc::default()).expect("good");
    assert!(matches!(live(&provider, "tgo_x", 0), Err(Refused::Unavailable)));
}
