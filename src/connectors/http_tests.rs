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
