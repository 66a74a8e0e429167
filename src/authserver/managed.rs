//! What the Key Manager does to the provider, and what its endpoints and the doors say afterwards.

use serde_json::{Value, json};

use super::{
    clients::{ClientSecret, PROOFS, Proof},
    manage::{ClientInfo, ClientSpec, Error as ManageError},
    secrets::hash,
    testing::{FORM, GRANT, Server, basic, settings},
    *,
};
use crate::store::{TokenFacts, TokenSha256, record::Table};

pub(super) const PASSWORD: &str = "grant_type=password&username=ada&password=l0velace";

pub(super) fn with_users(form: &str) -> Value {
    json!({
        "tokens": form,
        "registration": "open",
        "registration_scopes": ["base"],
        "users": [
            { "name": "ada", "password": "l0velace", "scopes": ["base", "plain"], "claims": { "roles": ["editor"] } },
            { "name": "bob", "password": "bobs-own", "scopes": ["base", "plain"], "claims": { "roles": "guest, reader" } },
        ],
    })
}

pub(super) fn all_grants() -> ClientSpec {
    let grant_types = ["client_credentials", "password", "refresh_token"].map(str::to_owned).into();
    ClientSpec { grant_types, ..ClientSpec::default() }
}

pub(super) fn scope(key: &str, roles: &[&str]) -> ScopeInfo {
    ScopeInfo { key: key.into(), roles: roles.iter().map(|role| (*role).to_owned()).collect(), ..ScopeInfo::default() }
}

fn chosen(secret: &str) -> NewSecret {
    NewSecret { secret: Some(secret.to_owned().into()), ..NewSecret::default() }
}

impl Server {
    pub(super) async fn made(&self, spec: ClientSpec) -> (String, String) {
        let (client, secret) =
            self.provider.create_client(spec, None, NewSecret::default()).await.expect("a good client");
        (client.id, secret.to_string())
    }

    async fn gets(&self, (id, secret): &(String, String), body: &str) -> String {
        let answer = self.token(Some((id, secret)), body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
        answer.json()["access_token"].as_str().expect("a token").to_owned()
    }

    pub(super) async fn scope_of(&self, who: &(String, String), body: &str) -> Value {
        let answer = self.token(Some((&who.0, &who.1)), body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
        answer.json()["scope"].clone()
    }

    async fn introspect(&self, (id, secret): (&str, &str), token: &str) -> (u16, Value) {
        let authorization = format!("authorization: Basic {}", basic(&format!("{id}:{secret}")));
        let answer = self.post("/introspect", &[FORM, &authorization], &format!("token={token}")).await;
        (answer.status, answer.json())
    }

    /// What the doors of this process say, who ask the table of revocations.
    fn doors_refuse(&self, token: &str) -> bool {
        let claims = self.claims(token);
        let text = |name: &str| claims[name].as_str();
        let digest = random::digest(token);
        self.provider.state().expect("open").is_revoked(TokenFacts {
            issuer: "",
            jti: text("jti"),
            token_sha256: Some(TokenSha256::Is(&digest)),
            consumer_key: text("client_id"),
            subject: text("sub"),
            own_subject: None,
            issued_at: claims["iat"].as_u64(),
        })
    }

    /// The claims of a JWT, good or not.
    fn claims(&self, token: &str) -> Value {
        self.provider.keys().expect("open").verify(token).map_or(Value::Null, Value::Object)
    }
}

#[tokio::test]
async fn a_secret_that_has_expired_or_was_dropped_is_refused_everywhere() {
    let server = Server::start(&[]).await;
    let me = server.made(ClientSpec::default()).await;
    let token = server.gets(&me, GRANT).await;
    let new = NewSecret { expires_in: Some(60), description: Some("night".into()), secret: None };
    let (told, second) = server.provider.add_secret(&me.0, new).await.expect("room");
    let now = server.provider.now();
    assert!((now + 59..=now + 60).contains(&told.expires_at), "{told:?}");
    let state = server.provider.state().expect("open");
    let good_at = |at: u64| state.authenticate(&me.0, &second, at).expect("readable").is_some();
    assert!(good_at(told.expires_at - 1) && !good_at(told.expires_at), "it ends in that second");

    let key = state.key(&me.0);
    let old = ClientSecret { id: "old".into(), hash: hash("an-old-secret"), description: None, expires_at: now - 1 };
    let rows = key.clone();
    let change = move |changes: &crate::store::record::Changes<'_>| {
        let proof = changes.get(&PROOFS, &rows)?.expect("it has a proof");
        let secrets = proof.secrets().into_iter().chain([old.clone()]).collect();
        changes.put(&PROOFS, &rows, &proof.with(secrets))
    };
    state.record.change(change).await.expect("written");
    for (secret, good) in [(&*me.1, true), (&**second, true), ("an-old-secret", false), ("", false)] {
        let asked = server.token(Some((&me.0, secret)), GRANT).await;
        assert_eq!(asked.status == 200, good, "{}", asked.text);
        assert_eq!(server.introspect((&me.0, secret), &token).await.0 == 200, good);
        assert_eq!(server.provider.is_secret(&me.0, secret).expect("readable"), good);
    }
    server.provider.delete_secret(&me.0, &told.id).await.expect("it is there");
    server.token(Some((&me.0, &second)), GRANT).await.assert_refused(401, "invalid_client", "dropped");
    assert_eq!(server.provider.delete_secret(&me.0, &told.id).await, Err(ManageError::NotFound("secret")));
    let listed: Vec<String> = server.provider.secrets(&me.0).expect("readable").into_iter().map(|s| s.id).collect();
    assert_eq!(listed.len(), 2, "the expired one is shown until it is dropped: {listed:?}");
}

#[tokio::test]
async fn a_client_has_a_bounded_number_of_secrets() {
    let server = Server::start(&[]).await;
    let me = server.made(ClientSpec::default()).await;
    for _ in 1..clients::MOST_SECRETS {
        server.provider.add_secret(&me.0, NewSecret::default()).await.expect("room");
    }
    let full = server.provider.add_secret(&me.0, NewSecret::default()).await.expect_err("no room");
    assert!(matches!(&full, ManageError::Conflict(why) if why.contains('8')), "{full:?}");
    let other = server.made(ClientSpec::default()).await.0;
    for bad in [
        "too-short",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "long enough but with spaces in it",
        &"xyz0123456789".repeat(20),
    ] {
        let refused =
            server.provider.add_secret(&other, chosen(bad)).await.expect_err("it can be guessed, or not sent");
        assert!(matches!(refused, ManageError::Invalid { field: "clientSecret", .. }), "{bad}");
        assert!(!refused.to_string().contains(bad));
    }
}

#[tokio::test]
async fn a_new_secret_voids_the_old_one_and_what_was_issued() {
    for form in ["jwt", "opaque"] {
        let server = Server::with(with_users(form)).await;
        let me = server.made(all_grants()).await;
        let other = server.made(all_grants()).await;
        let (mine, users) = (server.gets(&me, GRANT).await, server.gets(&me, PASSWORD).await);
        let others = server.gets(&other, GRANT).await;
        let next = (me.0.clone(), server.provider.new_secret(&me.0).await.expect("it is there").to_string());
        let after = server.gets(&next, GRANT).await;
        for (token, good) in [(&mine, false), (&users, false), (&others, true), (&after, true)] {
            assert_eq!(server.provider.said_of(token).expect("readable").is_some(), good, "{form}");
            assert!(form == "opaque" || server.doors_refuse(token) != good, "{form}");
        }
        server.token(Some((&me.0, &me.1)), GRANT).await.assert_refused(401, "invalid_client", "void");
        let live = server.provider.live_tokens(&me.0).expect("readable");
        assert_eq!(live.len(), 1, "{form}: {live:?}");
    }
}

#[tokio::test]
async fn many_tokens_of_one_second_are_all_voided() {
    let server = Server::start(&[]).await;
    let me = server.made(ClientSpec::default()).await;
    let mut tokens = Vec::new();
    for _ in 0..issued::MOST_NAMES + 20 {
        tokens.push(server.gets(&me, GRANT).await);
    }
    assert_eq!(server.provider.live_tokens(&me.0).expect("readable").len(), issued::MOST_NAMES, "the newest");
    server.provider.new_secret(&me.0).await.expect("it is there");
    for token in &tokens {
        assert!(server.doors_refuse(token));
    }
}

#[tokio::test]
async fn no_token_of_an_old_secret_slips_through_while_it_is_replaced() {
    for form in ["jwt", "opaque"] {
        let server = Server::with(json!({ "tokens": form })).await;
        let (id, secret) = server.made(ClientSpec::default()).await;
        let provider = &server.provider;
        // Until it is refused, each asks again and again.
        let one = async || {
            let mut tokens = Vec::new();
            loop {
                let answer = server.token(Some((&id, &secret)), GRANT).await;
                if answer.status != 200 {
                    answer.assert_refused(401, "invalid_client", "it is void");
                    return tokens;
                }
                tokens.push(answer.json()["access_token"].as_str().expect("a token").to_owned());
            }
        };
        let all = futures_util::future::join_all((0..8).map(|_| one()));
        let rotated = async {
            while provider.live_tokens(&id).expect("readable").len() < 10 {
                tokio::task::yield_now().await;
            }
            provider.new_secret(&id).await.expect("it is there")
        };
        // Names go to the record meanwhile.
        let tidied = async {
            while provider.is_secret(&id, &secret).expect("readable") {
                provider.tend_once().await.expect("written");
                tokio::task::yield_now().await;
            }
        };
        let (all, ..) = tokio::join!(all, rotated, tidied);
        let all: Vec<String> = all.into_iter().flatten().collect();
        assert!(all.len() >= 2, "{form}: {}", all.len());
        for token in &all {
            assert_eq!(provider.said_of(token), Ok(None), "{form}");
        }
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_gone_at_every_door() {
    let server = Server::start(&[]).await;
    let spec = ClientSpec::default();
    let secret = "a-secret-of-our-own-choosing";
    let made = server.provider.create_client(spec.clone(), Some("shop/eu 1"), chosen(secret)).await.expect("free");
    let me = (made.0.id, made.1.to_string());
    assert_eq!(me, ("shop/eu 1".to_owned(), secret.to_owned()));
    let token = server.gets(&(me.0.replace(' ', "%20").replace('/', "%2F"), me.1.clone()), GRANT).await;
    assert!(!server.doors_refuse(&token));
    server.provider.delete_client(&me.0).await.expect("it is there");
    assert!(server.doors_refuse(&token));
    assert_eq!(server.provider.said_of(&token), Ok(None));
    assert_eq!(server.provider.delete_client(&me.0).await, Err(ManageError::NotFound("client")));
    assert_eq!(server.provider.live_tokens(&me.0), Err(ManageError::NotFound("client")));
    let again = server.provider.create_client(spec, Some(&me.0), NewSecret::default()).await.expect_err("too soon");
    assert!(matches!(&again, ManageError::Clash { why, .. } if why.contains("a moment ago")), "{again:?}");
}

#[tokio::test]
async fn there_is_a_most_of_clients_and_whoever_goes_makes_room() {
    let server = Server::start(&[]).await;
    let most = usize::try_from(server.provider.state().expect("open").limits.clients).expect("few");
    let make = || server.provider.create_client(ClientSpec::default(), None, NewSecret::default());
    let all = futures_util::future::join_all((0..most / 2).map(|_| make())).await;
    let more = futures_util::future::join_all((most / 2..most).map(|_| make())).await;
    assert!(all.iter().chain(&more).all(Result::is_ok));
    assert!(matches!(make().await, Err(ManageError::Full(_))));
    let gone = all.into_iter().flatten().next().expect("one").0.id;
    server.provider.delete_client(&gone).await.expect("it is there");
    make().await.expect("there is room");
}

#[tokio::test]
async fn ids_that_mean_somebody_else_are_not_given() {
    let server = Server::with(with_users("jwt")).await;
    for (id, conflict) in [("shop", true), ("ada", true), ("", false), (" x", false), ("a\nb", false)] {
        let refused = server
            .provider
            .create_client(ClientSpec::default(), Some(id), NewSecret::default())
            .await
            .expect_err("refused");
        assert_eq!(matches!(refused, ManageError::Clash { field: "clientId", .. }), conflict, "{id:?}: {refused:?}");
    }
    // Who was there before the user loses out, rather than being taken for the user.
    let secret = "a-secret-of-our-own-choosing";
    server.provider.create_client(ClientSpec::default(), Some("eve"), chosen(secret)).await.expect("free");
    assert_eq!(server.token(Some(("eve", secret)), GRANT).await.status, 200);
    let mut more = with_users("jwt");
    more["users"].as_array_mut().expect("users").push(json!({ "name": "eve", "password": "x" }));
    server.provider.replace_terms(Terms::new(&settings(more), "key_managers[0]").expect("good settings"));
    server.token(Some(("eve", secret)), GRANT).await.assert_refused(401, "invalid_client", "it is a user");
    let asked = Asked { client_id: "eve".into(), grant: "client_credentials".into(), ..Asked::default() };
    assert!(matches!(server.provider.token(&asked).await, Err(ManageError::Conflict(_))));
}

#[tokio::test]
async fn a_client_that_registered_itself_is_the_same_kind_of_client() {
    let server = Server::with(with_users("jwt")).await;
    let json = "content-type: application/json";
    let said = server.post("/register", &[json], r#"{"client_name":"Ada's","scope":"base"}"#).await.json();
    assert_eq!(said.get("platform"), None, "{said}");
    let text = |name: &str| said[name].as_str().expect(name).to_owned();
    let (id, secret, token) = (text("client_id"), text("client_secret"), text("registration_access_token"));
    let ClientInfo { spec, declared, .. } = server.provider.client(&id).expect("it is there");
    assert_eq!((spec.name.as_deref(), declared, spec.scopes), (Some("Ada's"), false, Some(vec!["base".into()])));
    assert_eq!(server.provider.change_owner(&id, "ada").await.expect("it is there").spec.owner.as_deref(), Some("ada"));
    let put = async |body: Value| {
        let head =
            format!("PUT /register/{id} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}");
        let body = body.to_string();
        let answer =
            server.exchange(&format!("{head}\r\n{json}\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    assert_eq!(put(json!({ "client_id": id, "client_name": "new" })).await["client_name"], "new");
    assert_eq!(
        server.provider.client(&id).expect("it is there").spec.owner.as_deref(),
        Some("ada"),
        "not its to change"
    );
    let me = (id.clone(), secret);
    server.provider.register_scope(scope("more", &[])).await.expect("new");
    let more = "grant_type=client_credentials&scope=more";
    server.token(Some((&me.0, &me.1)), more).await.assert_refused(400, "invalid_scope", "an owner gives no scopes");
    let only = ClientSpec { scopes: Some(vec!["more".into()]), ..ClientSpec::default() };
    server.provider.update_client(&id, only).await.expect("it is there");
    assert_eq!(server.scope_of(&me, GRANT).await, "more", "the Key Manager does");
    let said = put(json!({ "client_id": id, "scope": "base", "grant_types": ["password"] })).await;
    assert_eq!([&said["scope"], &said["grant_types"]], [&json!("more"), &json!(["client_credentials"])]);
    assert_eq!(server.scope_of(&me, GRANT).await, "more", "what it decided stays");
    let kept = server.provider.client(&id).expect("it is there").spec;
    assert_eq!((kept.owner.as_deref(), kept.name), (Some("ada"), None));
}

#[tokio::test]
async fn clients_of_the_file_are_seen_and_left_alone() {
    let server = Server::start(&[]).await;
    let provider = &server.provider;
    let seen = provider.client("shop").expect("it is configured");
    assert!(seen.declared);
    assert_eq!(seen.spec.scopes, Some(vec!["orders:read".into(), "orders:write".into()]));
    assert_eq!(provider.secrets("shop").expect("it is configured").len(), 1);
    assert!(provider.is_secret("shop", "s3cret").expect("open") && !provider.is_secret("shop", "other").expect("open"));
    let asked = Asked { client_id: "shop".into(), grant: "client_credentials".into(), ..Asked::default() };
    provider.token(&asked).await.expect("the Key Manager vouches for it");
    assert_eq!(provider.live_tokens("shop").expect("it is configured").len(), 1);
    for (what, outcome) in [
        ("update", provider.update_client("shop", ClientSpec::default()).await.map(drop)),
        ("owner", provider.change_owner("shop", "ada").await.map(drop)),
        ("rotate", provider.new_secret("shop").await.map(drop)),
        ("add", provider.add_secret("shop", NewSecret::default()).await.map(drop)),
        ("drop", provider.delete_secret("shop", "declared").await),
        ("delete", provider.delete_client("shop").await),
    ] {
        let declared = matches!(&outcome, Err(ManageError::Conflict(why)) if why.contains("declared in the file"));
        assert!(declared, "{what}: {outcome:?}");
    }
}

#[tokio::test]
async fn lifetimes_are_the_least_of_what_is_said() {
    let server = Server::with(with_users("jwt")).await;
    let lifetimes = Lifetimes { application: Some(600), user: Some(60), refresh: Some(120) };
    let me = server.made(ClientSpec { lifetimes, ..all_grants() }).await;
    for (body, seconds) in [
        (GRANT, 600),
        ("grant_type=client_credentials&validity_period=5", 5),
        ("grant_type=client_credentials&validity_period=9999999", 600),
        (PASSWORD, 60),
    ] {
        let said = server.token(Some((&me.0, &me.1)), body).await.json();
        assert_eq!(said["expires_in"], seconds, "{body}");
        let claims = server.claims(said["access_token"].as_str().expect("a token"));
        assert_eq!(claims["exp"].as_u64(), claims["iat"].as_u64().map(|iat| iat + seconds), "{body}");
    }
    let bad = "grant_type=client_credentials&validity_period=-1";
    server.token(Some((&me.0, &me.1)), bad).await.assert_refused(400, "invalid_request", bad);
    let longer = ClientSpec { lifetimes: Lifetimes { user: Some(3601), ..lifetimes }, ..all_grants() };
    let refused = server.provider.create_client(longer, None, NewSecret::default()).await.expect_err("too long");
    assert!(refused.to_string().contains("user_access_token_expiry_time: must be 1 to 3600"), "{refused}");
}

#[tokio::test]
async fn rows_from_before_there_were_several_secrets_are_read() {
    let server = Server::with(json!({ "registration": "open", "registration_scopes": ["base"] })).await;
    let state = server.provider.state().expect("open");
    let key = state.key("old");
    let client = json!({
        "client_id": "old", "client_id_issued_at": 1, "grant_types": ["client_credentials"], "response_types": [],
        "redirect_uris": [], "token_endpoint_auth_method": "client_secret_basic", "scope": "base",
    });
    let proof = json!({ "secret": hash("the-secret-of-old"), "registration": hash("its-token") });
    let change = move |changes: &crate::store::record::Changes<'_>| {
        changes.put(&Table::<Value>::new("provider.clients"), &key, &client)?;
        changes.put(&Table::<Value>::new("provider.proofs"), &key, &proof)
    };
    state.record.change(change).await.expect("written");
    let me = ("old".to_owned(), "the-secret-of-old".to_owned());
    assert_eq!(server.scope_of(&me, GRANT).await, "base");
    assert!(state.registered("old", "its-token").expect("readable").is_some());
    assert_eq!(server.provider.secrets("old").expect("readable").len(), 1);
    let (_, second) = server.provider.add_secret("old", NewSecret::default()).await.expect("room");
    for secret in [&me.1, &*second] {
        assert!(server.provider.is_secret("old", secret).expect("readable"));
    }
    assert!(state.registered("old", "its-token").expect("readable").is_some());
    server.provider.new_secret("old").await.expect("it is there");
    assert!(!server.provider.is_secret("old", &me.1).expect("readable"));
    assert!(state.registered("old", "").expect("readable").is_none());
}

#[test]
fn nothing_proves_a_client_without_a_secret() {
    let none = Proof::new(Vec::new(), None);
    assert!(none.secrets().is_empty());
    let text = serde_json::to_string(&none).expect("rows are JSON");
    let read: Proof = serde_json::from_str(&text).expect("it reads what it wrote");
    assert!(read.secrets().is_empty());
}

#[tokio::test]
async fn another_process_knows_all_of_it_and_the_file_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.redb");
    let start = async || Server::on(with_users("jwt"), Record::open(&path).expect("a good file"), Arc::default()).await;
    let server = start().await;
    let own = "a-secret-of-our-own-choosing";
    let spec = ClientSpec { name: Some("Shop".into()), owner: Some("ada".into()), ..all_grants() };
    server.provider.create_client(spec, Some("shop/eu"), chosen(own)).await.expect("free");
    let (_, second) = server.provider.add_secret("shop/eu", NewSecret::default()).await.expect("room");
    server.provider.register_scope(scope("edit", &["editor"])).await.expect("new");
    let api = ResourceInfo { api_id: "api".into(), scopes: vec!["edit".into()], ..ResourceInfo::default() };
    server.provider.register_resource(api.clone()).await.expect("new");
    let token = server.gets(&("shop%2Feu".into(), own.into()), GRANT).await;
    server.provider.tend_once().await.expect("written");
    let names = server.provider.live_tokens("shop/eu").expect("readable");
    let client = server.provider.client("shop/eu").expect("it is there");
    server.end().await;
    let bytes = std::fs::read(&path).expect("the file");
    for secret in [own, &second, &token] {
        assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "a secret stands in the file");
    }
    let server = start().await;
    assert_eq!(server.provider.client("shop/eu"), Ok(client));
    assert_eq!(server.provider.live_tokens("shop/eu"), Ok(names));
    assert!(server.provider.is_secret("shop/eu", &second).expect("readable"));
    assert_eq!(server.provider.scopes_of("api"), Ok(Some(vec![scope("edit", &["editor"])])));
    assert_eq!(server.provider.resource("api"), Ok(api));
    // Names go when their tokens have.
    let state = server.provider.state().expect("open");
    let end = server.provider.now() + 2 * 3600;
    while state.sweep(end).await.expect("written") {}
    assert_eq!(
        state.record.get(&issued::ISSUED, &state.key("shop/eu")).expect("readable").map(|names| names.len()),
        None
    );
}
