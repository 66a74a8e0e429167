//! Tokens that their provider is asked about, from text to verdict, with a provider in process.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    AnswerForm, Authenticator, Flaw, Introspect, IntrospectError, IntrospectFuture, IntrospectionAnswer, KeyManagers,
    KeySource, Rejection, Sources,
    settings::{Algorithm, CacheSettings, KeyManagerSettings, Validation},
    testing::{Signer, ask, b64, flaw, is_unavailable, settings},
};
use crate::{
    net::Now,
    store::KeyManagerSet,
    units::{Size, Span},
};

#[path = "asking_tests.rs"]
mod asking;

const ISSUER: &str = "https://idp.example.com";
const NOW: Now = Now::at_ms(1_800_000_000_000);

type Say = dyn Fn(&str) -> Result<(AnswerForm, String), IntrospectError> + Send + Sync;

/// A provider that answers what the test says.
struct Oracle {
    say: Mutex<Arc<Say>>,
    delay: Duration,
    calls: AtomicUsize,
}

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Oracle")
    }
}

impl Oracle {
    fn new(say: impl Fn(&str) -> Value + Send + Sync + 'static) -> Arc<Self> {
        Self::slow(Duration::ZERO, say)
    }

    fn slow(delay: Duration, say: impl Fn(&str) -> Value + Send + Sync + 'static) -> Arc<Self> {
        let say: Arc<Say> = Arc::new(move |token| Ok((AnswerForm::Json, say(token).to_string())));
        Arc::new(Self { say: Mutex::new(say), delay, calls: AtomicUsize::new(0) })
    }

    fn says(&self, say: impl Fn(&str) -> Result<(AnswerForm, String), IntrospectError> + Send + Sync + 'static) {
        *self.say.lock() = Arc::new(say);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Introspect for Oracle {
    fn introspect<'a>(&'a self, token: &'a str) -> IntrospectFuture<'a> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            let say = Arc::clone(&*self.say.lock());
            say(token).map(|(form, body)| IntrospectionAnswer { body: Bytes::from(body), form })
        })
    }
}

fn active(_: &str) -> Value {
    json!({ "active": true, "client_id": "shop-web", "sub": "ada", "scope": "orders:read" })
}

/// Active where the token begins with `op_`; says whose token it was.
fn mirror(token: &str) -> Value {
    json!({ "active": token.starts_with("op_"), "client_id": token, "sub": token })
}

fn changed(name: &str, change: impl FnOnce(&mut KeyManagerSettings)) -> KeyManagerSettings {
    let mut settings = settings(ISSUER);
    settings.name = name.into();
    change(&mut settings);
    settings
}

fn asked(keys: KeySource, oracle: &Arc<Oracle>) -> Sources {
    Sources { keys, introspection: Some(Arc::clone(oracle) as Arc<dyn Introspect>) }
}

fn keys() -> (Signer, KeySource) {
    let signer = Signer::new(Algorithm::ES256, "e");
    let source = KeySource::fixed(&signer.jwks());
    (signer, source)
}

fn with(managers: Vec<(KeyManagerSettings, Sources)>) -> Arc<Authenticator> {
    let tokens = Authenticator::new(&CacheSettings::default(), &prometheus::Registry::new()).expect("a fresh registry");
    put(&tokens, managers);
    Arc::new(tokens)
}

fn put(tokens: &Authenticator, managers: Vec<(KeyManagerSettings, Sources)>) {
    let _no_task = tokens.replace(KeyManagers::build(managers, &Arc::default()).expect("good settings"));
}

/// One key manager, by default settings.
fn one(oracle: &Arc<Oracle>) -> Arc<Authenticator> {
    with(vec![(settings(ISSUER), asked(keys().1, oracle))])
}

fn after(seconds: u64) -> Now {
    Now::at_ms(NOW.unix_ms + seconds * 1000)
}

fn only(names: &[&str], id: u64) -> KeyManagerSet {
    KeyManagerSet { names: names.iter().map(|name| (*name).into()).collect(), id }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_first_sights_are_one_call() {
    let oracle = Oracle::slow(Duration::from_millis(50), active);
    let tokens = one(&oracle);
    let barrier = Arc::new(tokio::sync::Barrier::new(50));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (tokens, barrier) = (Arc::clone(&tokens), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                ask(&tokens, "opaque", NOW).await.is_ok_and(|good| !good.from_cache)
            })
        })
        .collect();
    let mut fresh = 0;
    for task in tasks {
        fresh += u32::from(task.await.expect("no panic"));
    }
    assert_eq!((fresh, oracle.calls(), tokens.metrics.count_verified()), (1, 1, 1));
    let good = ask(&tokens, "opaque", NOW).await.expect("good");
    assert!(good.from_cache);
    assert_eq!(good.identity.common.consumer_key.as_deref(), Some("shop-web"));
    assert_eq!(tokens.flights.under_way(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_interleaved_checks_never_mix_two_tokens() {
    let oracle = Oracle::slow(Duration::from_millis(1), mirror);
    let tokens = one(&oracle);
    // Some are forgotten while others are asked about.
    tokens.set_limits(
        &CacheSettings {
            introspection_ttl: Span::millis(2),
            negative_ttl: Span::millis(2),
            ..CacheSettings::default()
        },
        0,
        Duration::from_secs(60),
    );
    let tasks: Vec<_> = (0..50_u64)
        .map(|task| {
            let tokens = Arc::clone(&tokens);
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(task);
                for n in 0..200 {
                    let name = random.u32(..40);
                    let token = if random.bool() { format!("op_{name}") } else { format!("no_{name}") };
                    match ask(&tokens, &token, Now::at_ms(NOW.unix_ms + n)).await {
                        Ok(good) => {
                            assert_eq!(good.identity.subject.as_deref(), Some(token.as_str()));
                            assert_eq!(good.identity.common.consumer_key.as_deref(), Some(token.as_str()));
                            assert!(token.starts_with("op_"));
                        }
                        Err(Rejection::Invalid(Flaw::Inactive)) => assert!(token.starts_with("no_"), "{token}"),
                        Err(other) => panic!("{token}: {other:?}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no two were mixed");
    }
    assert!(oracle.calls() > 80, "{} calls", oracle.calls());
}

#[tokio::test]
async fn whoever_waits_may_go_away_and_the_call_goes_on() {
    let oracle = Oracle::slow(Duration::from_millis(60), active);
    let tokens = one(&oracle);
    let impatient = ask(&tokens, "opaque", NOW);
    assert!(tokio::time::timeout(Duration::from_millis(10), impatient).await.is_err());
    assert!(ask(&tokens, "opaque", NOW).await.is_ok_and(|good| good.from_cache), "it waited for the same call");
    assert_eq!(oracle.calls(), 1);
}

#[tokio::test]
async fn a_call_that_panics_leaves_nobody_waiting_and_nothing_remembered() {
    let oracle = Oracle::new(active);
    oracle.says(|_| panic!("as the test wants"));
    let tokens = one(&oracle);
    let both = tokio::time::timeout(Duration::from_secs(5), async {
        tokio::join!(ask(&tokens, "opaque", NOW), ask(&tokens, "opaque", NOW))
    });
    let (one, two) = both.await.expect("nobody waits for ever");
    assert!(is_unavailable(&one) && is_unavailable(&two), "{one:?} {two:?}");
    oracle.says(|token| Ok((AnswerForm::Json, active(token).to_string())));
    assert_eq!(flaw(ask(&tokens, "opaque", NOW).await), None);
}

#[tokio::test]
async fn a_failure_is_no_verdict_and_is_not_remembered() {
    let oracle = Oracle::new(active);
    let tokens = one(&oracle);
    for (error, wait) in [
        (IntrospectError::Unreachable("x".into()), 1),
        (IntrospectError::Timeout("x".into()), 1),
        (IntrospectError::Answer("x".into()), 1),
        (IntrospectError::Credentials("x".into()), 1),
        (IntrospectError::Saturated, 1),
        (IntrospectError::CircuitOpen { retry_after: 7 }, 7),
    ] {
        oracle.says(move |_| Err(error.clone()));
        match ask(&tokens, "opaque", NOW).await {
            Err(Rejection::Unavailable { retry_after, .. }) => assert_eq!(retry_after, wait),
            other => panic!("{other:?}"),
        }
    }
    for body in ["", "<html>", "[]", "null", r#"{"active":true,"active":false}"#, r#"{"active":true}x"#, "{"] {
        oracle.says(move |_| Ok((AnswerForm::Json, body.into())));
        assert!(is_unavailable(&ask(&tokens, "opaque", NOW).await), "{body}");
    }
    oracle.says(|token| Ok((AnswerForm::Json, active(token).to_string())));
    assert_eq!(flaw(ask(&tokens, "opaque", NOW).await), None);
    let calls = oracle.calls();
    oracle.says(|_| Err(IntrospectError::Unreachable("x".into())));
    assert!(ask(&tokens, "opaque", after(10)).await.is_ok_and(|good| good.from_cache), "what is known stays good");
    assert_eq!(oracle.calls(), calls);
}

#[tokio::test]
async fn an_answer_is_used_for_the_ttl_and_never_past_exp() {
    for (exp, ttl, used_until) in [(None, 60, 60), (Some(300), 60, 60), (Some(3), 3600, 3), (Some(40), 3600, 40)] {
        let oracle = Oracle::new(move |token| {
            let mut answer = active(token);
            if let Some(exp) = exp {
                answer["exp"] = json!(NOW.unix() + exp);
            }
            answer
        });
        let tokens = one(&oracle);
        let times = CacheSettings { introspection_ttl: Span::seconds(ttl), ..CacheSettings::default() };
        tokens.set_limits(&times, 0, Duration::from_secs(60));
        assert_eq!(flaw(ask(&tokens, "opaque", NOW).await), None);
        assert!(ask(&tokens, "opaque", after(used_until - 1)).await.is_ok_and(|good| good.from_cache), "{exp:?}");
        assert_eq!(oracle.calls(), 1);
        // A second later: the ttl counts from the answer, which has taken its time.
        let ended = ask(&tokens, "opaque", after(used_until + 1)).await;
        assert!(ended.is_ok_and(|good| !good.from_cache), "{exp:?}: asked again, within the leeway");
        assert_eq!(oracle.calls(), 2);
        if let Some(exp) = exp {
            assert_eq!(flaw(ask(&tokens, "opaque", after(exp + 30)).await), Some(Flaw::Expired), "{exp:?}");
        }
        oracle.says(|_| Ok((AnswerForm::Json, r#"{"active":false}"#.into())));
        let late = after(used_until.max(exp.unwrap_or(0)) + 3700);
        assert!(flaw(ask(&tokens, "opaque", late).await).is_some());
    }
}

#[tokio::test]
async fn no_is_remembered_for_a_few_seconds_and_only_when_certain() {
    let oracle = Oracle::new(|_| json!({ "active": false }));
    let tokens = one(&oracle);
    for seconds in [0, 1, 4] {
        assert_eq!(flaw(ask(&tokens, "opaque", after(seconds)).await), Some(Flaw::Inactive));
    }
    assert_eq!(oracle.calls(), 1);
    oracle.says(|token| Ok((AnswerForm::Json, active(token).to_string())));
    assert_eq!(flaw(ask(&tokens, "opaque", after(6)).await), None, "it has become active");
    oracle.says(|_| Ok((AnswerForm::Json, r#"{"active":"true"}"#.into())));
    let calls = oracle.calls();
    for _ in 0..2 {
        assert_eq!(flaw(ask(&tokens, "other", NOW).await), Some(Flaw::Inactive));
    }
    assert_eq!(oracle.calls(), calls + 2, "malformed is not certain");
}

#[tokio::test]
async fn signed_answers_count_only_with_everything_in_place() {
    let (signer, source) = keys();
    let signer = Arc::new(signer);
    let oracle = Oracle::new(active);
    let manager = changed("a", |s| s.client_id = Some("tollgate".into()));
    let tokens = with(vec![(manager, asked(source, &oracle))]);
    let envelope = || {
        json!({ "iss": ISSUER, "aud": "tollgate", "iat": NOW.unix(),
            "token_introspection": { "active": true, "client_id": "shop-web", "exp": NOW.unix() + 300 } })
    };
    let header = |typ: &str| format!(r#"{{"alg":"ES256","kid":"e","typ":"{typ}"}}"#);
    let right = "token-introspection+jwt";
    let sign = |typ: &str, claims: &Value| signer.sign(&header(typ), claims.to_string().as_bytes());
    let serial = AtomicUsize::new(0);
    let ask = async |answer: String| {
        oracle.says(move |_| Ok((AnswerForm::Jwt, answer.clone())));
        ask(&tokens, &format!("opaque{}", serial.fetch_add(1, Ordering::Relaxed)), NOW).await
    };
    assert_eq!(flaw(ask(sign(right, &envelope())).await), None);
    assert_eq!(flaw(ask(sign("Application/Token-Introspection+JWT", &envelope())).await), None);
    let changed = |name: &str, value: Value| {
        let mut claims = envelope();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = envelope();
        claims.as_object_mut().expect("an object").remove(name);
        claims
    };
    let other_key = Signer::new(Algorithm::ES256, "e");
    let unknown_key = Signer::new(Algorithm::ES256, "other");
    let unsigned =
        format!("{}.{}.", b64(r#"{"alg":"none","typ":"token-introspection+jwt"}"#), b64(envelope().to_string()));
    for (name, answer) in [
        ("typ at+jwt", sign("at+jwt", &envelope())),
        ("typ JWT", sign("JWT", &envelope())),
        ("no typ", signer.sign(r#"{"alg":"ES256","kid":"e"}"#, envelope().to_string().as_bytes())),
        ("unsigned", unsigned),
        ("another's signature", other_key.sign(&header(right), envelope().to_string().as_bytes())),
        (
            "an unknown key",
            unknown_key.sign(
                r#"{"alg":"ES256","kid":"other","typ":"token-introspection+jwt"}"#,
                envelope().to_string().as_bytes(),
            ),
        ),
        ("another iss", sign(right, &changed("iss", json!("https://evil.example.com")))),
        ("no iss", sign(right, &without("iss"))),
        ("another aud", sign(right, &changed("aud", json!("other")))),
        ("no aud", sign(right, &without("aud"))),
        ("an old one", sign(right, &changed("iat", json!(NOW.unix() - 600)))),
        ("one from the future", sign(right, &changed("iat", json!(NOW.unix() + 600)))),
        ("no iat", sign(right, &without("iat"))),
        ("no answer in it", sign(right, &without("token_introspection"))),
        ("an answer that is text", sign(right, &changed("token_introspection", json!("{\"active\":true}")))),
        ("plain JSON", envelope()["token_introspection"].to_string()),
        ("nothing", String::new()),
    ] {
        assert!(is_unavailable(&ask(answer).await), "{name}");
    }
    let inactive = changed("token_introspection", json!({ "active": false }));
    assert_eq!(flaw(ask(sign(right, &inactive)).await), Some(Flaw::Inactive));
    let replayed = sign(right, &envelope());
    let nested = with(vec![(changed_manager(), keys_of(&signer).into())]);
    assert_eq!(flaw(self::ask(&nested, &replayed, NOW).await), Some(Flaw::Type), "an answer is no access token");
}

fn changed_manager() -> KeyManagerSettings {
    changed("a", |s| s.require_exp = false)
}

fn keys_of(signer: &Signer) -> KeySource {
    KeySource::fixed(&signer.jwks())
}

#[tokio::test]
async fn changed_rules_have_it_asked_anew_and_equal_ones_do_not() {
    let oracle = Oracle::new(|_| json!({ "active": true, "aud": "orders" }));
    let (_, source) = keys();
    let manager = |change: fn(&mut KeyManagerSettings)| (changed("a", change), asked(source.clone(), &oracle));
    let tokens = with(vec![manager(|_| {})]);
    assert_eq!(flaw(ask(&tokens, "opaque", NOW).await), None);
    put(&tokens, vec![manager(|_| {})]);
    assert!(ask(&tokens, "opaque", NOW).await.is_ok_and(|good| good.from_cache));
    assert_eq!(oracle.calls(), 1);
    put(&tokens, vec![manager(|s| s.audience = vec!["billing".into()])]);
    assert_eq!(flaw(ask(&tokens, "opaque", NOW).await), Some(Flaw::Audience));
    put(&tokens, vec![manager(|s| s.audience = vec!["orders".into()])]);
    assert_eq!(flaw(ask(&tokens, "opaque", NOW).await), None, "nor is a no kept");
    // Another manager's pattern takes the token away, though nothing of the first has changed.
    let other = Oracle::new(|_| json!({ "active": false }));
    let taker = || (changed("b", |s| s.token_pattern = Some("opa.*".into())), asked(source.clone(), &other));
    put(&tokens, vec![manager(|s| s.audience = vec!["orders".into()]), taker()]);
    assert_eq!(flaw(ask(&tokens, "opaque", NOW).await), Some(Flaw::Inactive));
    // Renewed credentials under equal settings count from the next call.
    let renewed = Oracle::new(active);
    put(&tokens, vec![(changed("a", |_| {}), asked(source.clone(), &oracle))]);
    put(&tokens, vec![(changed("a", |_| {}), asked(source.clone(), &renewed))]);
    assert_eq!(flaw(ask(&tokens, "fresh", NOW).await), None);
    assert_eq!(renewed.calls(), 1);
}

#[tokio::test]
async fn a_reload_under_a_question_has_it_judged_by_the_new_rules() {
    let oracle = Oracle::slow(Duration::from_millis(60), |_| json!({ "active": true, "aud": "orders" }));
    let (_, source) = keys();
    let manager =
        |audience: &str| (changed("a", |s| s.audience = vec![audience.to_owned()]), asked(source.clone(), &oracle));
    let tokens = with(vec![manager("orders")]);
    let question = tokio::spawn({
        let tokens = Arc::clone(&tokens);
        async move { ask(&tokens, "opaque", NOW).await }
    });
    while oracle.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    put(&tokens, vec![manager("billing")]);
    assert_eq!(flaw(question.await.expect("no panic")), Some(Flaw::Audience));
    assert_eq!(oracle.calls(), 2);
}

#[tokio::test]
async fn no_token_shows_in_what_is_remembered() {
    let oracle = Oracle::new(|token| json!({ "active": token.len() % 2 == 0 }));
    let tokens = one(&oracle);
    let secrets = ["very-secret-token-1x", "very-secret-token-2xy"];
    for token in secrets {
        let _either = ask(&tokens, token, NOW).await;
    }
    let dump = format!("{tokens:?}");
    assert!(!dump.contains("very-secret"), "{dump}");
}

#[test]
fn patterns_and_ways_that_cannot_be_are_named() {
    let oracle = Oracle::new(active);
    let problems = |change: fn(&mut KeyManagerSettings), introspected: bool| {
        let sources = if introspected { asked(keys().1, &oracle) } else { keys().1.into() };
        let built = KeyManagers::build(vec![(changed("a", change), sources)], &Arc::default());
        let found: HashMap<String, String> =
            built.err().unwrap_or_default().into_iter().map(|p| (p.field, p.message)).collect();
        let mut fields: Vec<String> = found.into_keys().collect();
        fields.sort();
        fields
    };
    let none: [&str; 0] = [];
    assert_eq!(problems(|s| s.token_pattern = Some("a+".into()), true), none);
    assert_eq!(problems(|s| s.token_pattern = Some("a(".into()), true), ["key_managers[0].token_pattern"]);
    assert_eq!(problems(|s| s.token_pattern = Some("a+".into()), false), ["key_managers[0].token_pattern"]);
    let both = |s: &mut KeyManagerSettings| (s.token_pattern, s.validation) = (Some("a".into()), Validation::Both);
    assert_eq!(problems(both, true), ["key_managers[0].token_pattern"]);
    assert_eq!(problems(|s| s.validation = Validation::Introspect, false), ["key_managers[0].validation"]);
    assert_eq!(problems(|s| s.validation = Validation::Both, false), ["key_managers[0].validation"]);
}

#[tokio::test]
async fn a_request_carries_little_for_the_rare_ways() {
    let tokens = one(&Oracle::new(active));
    let all = KeyManagerSet::all();
    let future = tokens.authenticate("opaque", &all, None, NOW);
    let size = std::mem::size_of_val(&future);
    assert!(size <= 128, "{size} bytes: what is rare is to be boxed");
    assert!(future.await.is_ok());
}
