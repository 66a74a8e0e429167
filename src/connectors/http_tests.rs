//! The connector outside: when it is asked what it cannot do, and where about tokens.

use super::{
    super::tests::{Server, reply},
    *,
};
use crate::{
    keymanager::{Memory, Passing},
    net::{Clock, client::Client},
};

fn connector(endpoint: &str) -> Http {
    let text = format!(
        r#"{{"name":"a","connector":"http","issuer":"https://a.example","token":"s3cret","endpoint":"{endpoint}"}}"#
    );
    let (client, clock) = (Client::new().expect("roots"), Arc::new(Clock::new()));
    let memory: Arc<dyn Memory> = Arc::new(Passing::default());
    let means = Means { client: &client, clock: &clock, memory: &memory };
    Http::new(&serde_json::from_str(&text).expect("good settings"), "key_managers[0]", means).expect("good")
}

#[tokio::test]
async fn what_it_cannot_do_is_asked_again_after_a_minute_and_believed_while_nobody_answers() {
    let said = r#"{"connector":"a","cannot":{"getAllScopes":"not now"}}"#;
    let server = Server::start_at("127.0.0.1", |_| Box::new(|_| reply("200 OK", said)), None).await;
    let http = connector(&format!("http://{}", server.address));
    let refused = Error::Unsupported { operation: Operation::AllScopes, reason: "not now".into() };
    for _ in 0..2 {
        assert_eq!(http.scopes().await, Err(refused.clone()));
    }
    assert_eq!(server.asked(), ["/capabilities"]);
    let old = |cannot| Capabilities { cannot, at: Instant::now().checked_sub(BELIEVED).expect("up for a minute") };
    http.said.store(Some(Arc::new(old(BTreeMap::new()))));
    assert_eq!(http.scopes().await, Err(refused.clone()));
    assert_eq!(server.asked().len(), 2);
    let gone = connector("http://127.0.0.1:1");
    gone.said.store(Some(Arc::new(old(BTreeMap::from([(Operation::AllScopes, "not now".into())])))));
    assert_eq!(gone.scopes().await, Err(refused));
}

#[tokio::test]
async fn a_reason_that_holds_our_secret_is_told_without_it() {
    let said = r#"{"connector":"a","cannot":{"getAllScopes":"Bearer s3cret is not let in"}}"#;
    let server = Server::start_at("127.0.0.1", |_| Box::new(|_| reply("200 OK", said)), None).await;
    let refused = connector(&format!("http://{}", server.address)).scopes().await;
    let reason = "Bearer [redacted] is not let in".into();
    assert_eq!(refused, Err(Error::Unsupported { operation: Operation::AllScopes, reason }));
}

/// No change was asked for: none may have been done.
#[tokio::test]
async fn one_that_does_not_say_what_it_cannot_do_in_time_cannot_be_reached() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let mut http = connector(&format!("http://{}", silent.local_addr().expect("bound")));
    http.api = http.api.within(Duration::from_millis(200));
    let outcome = http.register_scope(&Scope { key: "a".into(), ..Scope::default() }).await;
    assert!(matches!(outcome, Err(Error::Unreachable(_))), "{outcome:?}");
}

/// A connector that can do everything and answers `said` to whatever is asked.
async fn saying(said: &'static str) -> (Http, Server) {
    let site = move |path: &str| reply("200 OK", if path == "/capabilities" { r#"{"cannot":{}}"# } else { said });
    let server = Server::start_at("127.0.0.1", |_| Box::new(site), None).await;
    (connector(&format!("http://{}", server.address)), server)
}

#[tokio::test]
async fn a_client_is_told_without_its_secrets_wherever_they_stand() {
    let (http, _server) = saying(
        r#"{"clientId":"one","clientSecret":"a","parameters":{"client_secret":"b","scope":"x","additionalProperties":
           {"clientSecret":"c","registration_access_token":"d","refresh_token_lifetime":60,"deeper":{"client-secret":"e"},
           "list":[{"clientSecret":"f","a":1},[{"client_secret":"g"}]]}},"appAttributes":{"client_secret":"h","team":"x"}}"#,
    )
    .await;
    let further = json!({ "refresh_token_lifetime": 60, "deeper": {}, "list": [{ "a": 1 }, [{}]] });
    let parameters = json!({ "scope": "x", "additionalProperties": further });
    let wish = OAuthApplicationInfo::default();
    for told in [
        http.retrieve_application("one").await,
        http.update_application("one", &wish).await,
        http.update_application_owner("one", "ada").await,
        http.map_application("one", None).await,
    ] {
        let told = told.expect("a good answer");
        assert_eq!((told.client_id.as_deref(), told.client_secret), (Some("one"), None));
        assert_eq!(Value::Object(told.parameters), parameters);
        assert_eq!(told.app_attributes, BTreeMap::from([("team".into(), "x".into())]));
    }
    let (http, _server) = saying(r#"[{"secretId":"s","parameters":{"client_secret":"b","expiresAt":0}}]"#).await;
    let listed = http.secrets("one").await.expect("a good answer");
    assert_eq!(Value::Object(listed[0].parameters.clone()), json!({ "expiresAt": 0 }));
    let (http, _server) = saying(r#"{"isTokenValid":true,"accessToken":"t","refreshToken":"r"}"#).await;
    let token = http.access_token("one").await.expect("a good answer");
    assert_eq!((token.is_token_valid, &token.access_token, &token.refresh_token), (true, &None, &None));
}

/// Whatever is said with a status that leaves open whether a change was done.
#[tokio::test]
async fn a_server_error_or_redirect_never_says_that_nothing_was_done() {
    for status in ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "302 Found"] {
        for code in ["invalid", "not_found", "conflict", "unsupported", "refused"] {
            let said = format!(r#"{{"code":"{code}","detail":"x","field":"token"}}"#);
            let site = move |path: &str| match path {
                "/capabilities" => reply("200 OK", r#"{"cannot":{}}"#),
                _ => reply(status, &said),
            };
            let server = Server::start_at("127.0.0.1", |_| Box::new(site), None).await;
            let http = connector(&format!("http://{}", server.address));
            let outcome = http.revoke_token(&"t".into()).await;
            assert!(matches!(outcome, Err(Error::Unclear(_))), "{status} {code}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_about_another_thing_is_none() {
    let read = |outcome: Result<()>| assert!(matches!(outcome, Err(Error::Answer(_))), "{outcome:?}");
    // Of a change nobody knows whether it was done, nor whose.
    let changed = |outcome: Result<()>| match outcome {
        Err(Error::Unclear(why)) => assert!(matches!(*why, Error::Answer(_)), "{why:?}"),
        outcome => panic!("{outcome:?}"),
    };
    let (http, _server) = saying(r#"{"clientId":"evil"}"#).await;
    read(http.retrieve_application("one").await.map(drop));
    read(http.map_application("one", None).await.map(drop));
    changed(http.update_application("one", &OAuthApplicationInfo::default()).await.map(drop));
    changed(http.update_application_owner("one", "ada").await.map(drop));
    let (http, _server) = saying(r#"{"isTokenValid":true,"accessToken":"t","consumerKey":"evil"}"#).await;
    read(http.access_token("one").await.map(drop));
    let request = AccessTokenRequest { client_id: Some("one".into()), ..AccessTokenRequest::default() };
    changed(http.new_access_token(&request).await.map(drop));
    for said in ["{}", r#"{"active":true}"#] {
        read(saying(said).await.0.token_meta_data(&"t".into()).await.map(drop));
    }
    for said in ["{}", r#"{"one":[]}"#, r#"{"one":[],"two":[],"three":[]}"#, r#"{"one":[],"two":[{"name":"x"}]}"#] {
        read(saying(said).await.0.scopes_for_apis(&["one".into(), "two".into()]).await.map(drop));
    }
    let (http, _server) = saying(r#"{"key":"b"}"#).await;
    let scope = Scope { key: "a".into(), ..Scope::default() };
    read(http.scope("a").await.map(drop));
    changed(http.register_scope(&scope).await.map(drop));
    changed(http.update_scope(&scope).await.map(drop));
    let (http, _server) = saying(r#"{"apiId":"w"}"#).await;
    let resource = ApiResource { api_id: "q".into(), ..ApiResource::default() };
    read(http.resource("q").await.map(drop));
    changed(http.register_resource(&resource).await.map(drop));
    changed(http.update_resource(&resource).await.map(drop));
    changed(http.attach_scopes("q", &["a".into()]).await.map(drop));
    changed(http.replace_scopes("q", &["a".into()]).await.map(drop));
    let (http, _server) = saying(r#"{"q":[],"w":[{"key":"a"}]}"#).await;
    read(http.scopes_for_apis(&["q".into()]).await.map(drop));
    let both = http.scopes_for_apis(&["q".into(), "w".into()]).await.expect("it was asked about both");
    assert_eq!(both["w"][0].key, "a");
}

#[tokio::test]
async fn an_empty_secret_or_token_is_none() {
    let (http, _server) = saying(r#"{"clientSecret":"","accessToken":""}"#).await;
    let asked = AccessTokenRequest::default();
    for outcome in [http.new_secret("one").await.map(drop), http.new_access_token(&asked).await.map(drop)] {
        assert!(matches!(&outcome, Err(Error::Unclear(why)) if matches!(**why, Error::Answer(_))), "{outcome:?}");
    }
}

#[test]
fn opaque_tokens_are_asked_about_below_the_endpoint() {
    let of = |more: &str| -> KeyManagerSettings {
        let text = format!(r#"{{"name":"a","issuer":"https://a.example","token":"s3cret",{more}}}"#);
        serde_json::from_str(&text).expect("good settings")
    };
    for base in ["https://a.example/base", "https://a.example/base/"] {
        let own = of(&format!(r#""connector":"http","endpoint":"{base}""#));
        let asked = introspected(&own);
        assert_eq!(asked.introspection_endpoint.as_deref(), Some("https://a.example/base/introspect"));
        assert_eq!(asked.client_auth, ClientAuth::Bearer);
        assert_eq!(asked.client_secret, own.token);
    }
    for other in [
        r#""connector":"http","endpoint":"https://a.example","introspection_endpoint":"https://b.example/""#,
        r#""connector":"okta","endpoint":"https://a.example""#,
    ] {
        let other = of(other);
        assert_eq!(*introspected(&other), other);
    }
}
