//! Revocations: from Redis to every gate, and what becomes of them when Redis is away, lies or loses all.
//! Rows O16, O17 and O18 of the attack list.

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{
    Backend, Case, Config, Expect, Form, Gate, Idp, Recipient, Redis, Request, Token, Via, block_on, check_all, now,
    redis, unique,
};

/// Gates that share a Redis.
struct Place {
    gates: Vec<Gate>,
    config: Config,
    idp: Idp,
    redis: Redis,
}

impl Place {
    fn new(gates: usize) -> Self {
        Self::with(gates, "")
    }

    /// With further lines in `[shared]`.
    fn with(gates: usize, lines: &str) -> Self {
        Self::with_keys(gates, lines, "")
    }

    /// And in the key manager's section.
    fn with_keys(gates: usize, lines: &str, key_manager: &str) -> Self {
        let (idp, redis) = (Idp::start(), Redis::start());
        // The upstream's task lives on the shared runtime; the handle is not needed.
        let upstream = Backend::start("production");
        let mut config = Config::orders(&idp, &upstream.url()).with(&redis.shared(lines));
        let audience = "audience = [\"orders-api\"]";
        config.rest = config.rest.replacen(audience, &format!("{audience}\n{key_manager}"), 1);
        let mut place = Self { gates: Vec::new(), config, idp, redis };
        for _ in 0..gates {
            let gate = place.another();
            place.gates.push(gate);
        }
        place
    }

    /// One more gate, ready.
    fn another(&self) -> Gate {
        Gate::start(|ports| self.config.text(ports))
    }

    /// A token of its own user, application `shop-web`, with this `jti`.
    fn token(&self, jti: &str) -> Token {
        Token::of(&self.idp, "shop-web").claim("jti", jti).claim("sub", format!("user-{jti}"))
    }

    fn revocation(&self, more: &Value) -> Value {
        let mut whole = json!({ "issuer": self.idp.issuer() });
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        whole
    }

    /// A token that passes at every gate (and is cached there).
    fn good(&self) -> (String, String) {
        let jti = unique();
        let token = self.token(&jti).sign();
        assert!(self.gates.iter().all(|gate| status(gate, &token) == 200), "a good token passes");
        (token, jti)
    }

    /// A good token that is then revoked in Redis, and refused everywhere.
    fn revoked(&self) -> String {
        let (token, jti) = self.good();
        self.redis.revoke(&self.revocation(&json!({ "jti": jti, "until": now() + 600 })));
        self.refused_everywhere(&token);
        token
    }

    fn refused_everywhere(&self, token: &str) {
        for gate in &self.gates {
            gate.wait_for("the refusal", || status(gate, token) == 401);
        }
    }

    fn connected(&self, connected: bool) {
        for gate in &self.gates {
            let wanted = f64::from(u8::from(connected));
            gate.wait_for("the connection's state", || {
                (gate.metric("tollgate_shared_connected", &[]) - wanted).abs() < 0.5
            });
        }
    }
}

fn status(gate: &Gate, token: &str) -> u16 {
    block_on(gate.send(Via::H1, &Request::get("/orders/v1/plain/{m}").bearer(token))).status
}

fn events(gate: &Gate, outcome: &str) -> f64 {
    gate.metric("tollgate_revocation_events_total", &[&format!("outcome=\"{outcome}\"")])
}

#[test]
fn o16_each_kind_of_event_refuses_its_tokens_at_every_gate_at_once() {
    let place = Place::new(2);
    let (issued, until) = (now() - 100, now() + 600);
    let mut cases = Vec::new();
    for (kind, hit) in
        ["jti", "token_sha256", "subject", "consumer_key"].into_iter().flat_map(|kind| [(kind, true), (kind, false)])
    {
        let jti = unique();
        let mut token = place.token(&jti).claim("iat", issued);
        if kind == "consumer_key" && hit {
            // An application of its own would need a subscription: this one's older tokens then.
            token = token.claim("iat", issued - 1000);
        }
        let text = token.sign();
        assert!(place.gates.iter().all(|gate| status(gate, &text) == 200));
        let event = match (kind, hit) {
            ("jti", true) => json!({ "jti": jti, "until": until }),
            ("jti", false) => json!({ "jti": format!("{jti}x"), "until": until }),
            ("token_sha256", true) => json!({ "token_sha256": sha256(&text), "until": until }),
            ("token_sha256", false) => json!({ "token_sha256": sha256("another"), "until": until }),
            ("subject", true) => json!({ "subject": format!("user-{jti}"), "before": issued, "until": until }),
            ("subject", false) => json!({ "subject": format!("user-{jti}"), "before": issued - 1, "until": until }),
            (_, true) => json!({ "consumer_key": "shop-web", "before": issued - 1000, "until": until }),
            (_, false) => json!({ "consumer_key": "another", "before": issued, "until": until }),
        };
        let before: Vec<f64> = place.gates.iter().map(|gate| events(gate, "received")).collect();
        place.redis.revoke(&place.revocation(&event));
        // A read waits at Redis for it. Whoever has it refuses the very next request, cached or not.
        for (gate, before) in place.gates.iter().zip(before) {
            gate.wait_for("the event", || events(gate, "received") > before);
            assert_eq!(status(gate, &text), if hit { 401 } else { 200 }, "{kind}");
        }
        let expect = if hit { Expect::T401 } else { Expect::Pass };
        cases.push(Case::new(format!("O16 {kind} {hit}"), expect, move || {
            Request::get("/orders/v1/plain/{m}").bearer(&text)
        }));
    }
    // Another issuer's tokens have nothing to do with it.
    let (other, jti) = place.good();
    place.redis.revoke(&json!({ "issuer": "https://another", "jti": jti, "until": until }));
    place.gates[0].wait_for("the event", || events(&place.gates[0], "received") >= 9.0);
    cases.push(Case::new("O16 another issuer", Expect::Pass, move || {
        Request::get("/orders/v1/plain/{m}").bearer(&other)
    }));
    for gate in &place.gates {
        check_all(gate, &[], Form::Wso2, &cases);
        assert!(gate.metric("tollgate_requests_total", &["reason=\"revoked\""]) >= 1.0, "{}", gate.metrics());
    }
}

/// Whoever holds a revoked token can spell its signature otherwise, or encrypt it as often as they like.
#[test]
fn a_token_revoked_by_its_digest_is_refused_in_every_spelling() {
    let (folder, recipient) = (tempfile::tempdir().unwrap(), Recipient::p256("ec"));
    let file = folder.path().join("key.json");
    std::fs::write(&file, recipient.jwk.to_string()).unwrap();
    let place = Place::with_keys(1, "", &format!("decryption_keys = [{{ file = \"{}\" }}]", file.display()));
    let seal = |token: &str| recipient.seal("ECDH-ES", "A128GCM", json!({}), token.as_bytes()).compact();
    let (token, _) = place.good();
    let twin = twin(&token);
    assert_ne!(twin, token);
    let spellings = [token.clone(), seal(&token), seal(&token), twin.clone(), seal(&twin)];
    let gate = &place.gates[0];
    // One of each kind is cached before, one is met for the first time.
    assert!(spellings.iter().all(|token| status(gate, token) == 200), "each verifies");
    let (fresh, fresh_twin) = (seal(&token), seal(&twin));
    let (other, _) = place.good();
    place.redis.revoke(&place.revocation(&json!({ "token_sha256": sha256(&twin), "until": now() + 600 })));
    place.refused_everywhere(&twin);
    for token in spellings.iter().chain([&fresh, &fresh_twin]) {
        assert_eq!(status(gate, token), 401, "{}", token.len());
    }
    assert_eq!([status(gate, &other), status(gate, &seal(&other))], [200, 200], "another token");
}

/// The same token with the ECDSA signature (r, n - s) in place of (r, s): it verifies as well.
fn twin(token: &str) -> String {
    const ORDER: [u32; 8] =
        [0xffff_ffff, 0, 0xffff_ffff, 0xffff_ffff, 0xbce6_faad, 0xa717_9e84, 0xf3b9_cac2, 0xfc63_2551];
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut octets = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for (s, n) in octets[32..].chunks_exact_mut(4).zip(ORDER).rev() {
        let left = i64::from(n) - i64::from(u32::from_be_bytes(s.try_into().unwrap())) - borrow;
        borrow = i64::from(left < 0);
        s.copy_from_slice(&(left.rem_euclid(1 << 32) as u32).to_be_bytes());
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(octets))
}

#[test]
fn o16_a_gate_that_starts_later_refuses_what_was_revoked_before() {
    let place = Place::new(1);
    let revoked = place.revoked();
    let (good, _) = place.good();
    place.gates[0].wait_for("the set", || place.redis.members().len() == 1);
    // What an operator wrote while nobody listened is only on the stream.
    let later = place.another();
    later.wait_for("the refusal", || status(&later, &revoked) == 401);
    assert_eq!(status(&later, &good), 200);
    place.redis.trim(0);
    let last = place.another();
    last.wait_for("the refusal", || status(&last, &revoked) == 401);
    assert_eq!(status(&last, &good), 200);
}

#[test]
fn o17_no_door_takes_events() {
    let place = Place::new(1);
    let gate = &place.gates[0];
    let (token, jti) = place.good();
    let event = place.revocation(&json!({ "jti": jti, "until": now() + 600 })).to_string();
    for path in ["/", "/revocations", "/events", "/notify", "/internal/data/v1/notify", "/metrics", "/readyz"] {
        for port in [gate.ports.admin, gate.ports.proxy] {
            let request = Request::post(path).header("content-type", "application/json").body(event.clone());
            let answer = block_on(crate::support::send(port, Via::H1, &request));
            assert!(matches!(answer.status, 401 | 403 | 404 | 405), "{path} at {port}: {}", answer.status);
        }
    }
    assert_eq!((status(gate, &token), events(gate, "received")), (200, 0.0));
    // Who may write to Redis is Redis's to say: whoever comes without its password learns and tells nothing.
    place.redis.password("s3cr3t-of-redis");
    place.redis.kill();
    place.connected(false);
    place.redis.resume();
    place.redis.revoke(&place.revocation(&json!({ "jti": jti, "until": now() + 600 })));
    gate.wait_for("refused logins", || gate.metric("tollgate_shared_failures_total", &[]) >= 3.0);
    assert_eq!(status(gate, &token), 200);
    let authenticated = Config { rest: place.config.rest.clone(), ..place.config.clone() };
    let lines = "password = \"s3cr3t-of-redis\"\nmode = \"batched\"";
    let rest = authenticated.rest.replace("[shared]\n", &format!("[shared]\n{lines}\n"));
    let knows = Gate::start(|ports| Config { rest: rest.clone(), ..authenticated.clone() }.text(ports));
    knows.wait_for("the refusal", || status(&knows, &token) == 401);
    assert!(!(knows.stderr() + &knows.stdout()).contains("s3cr3t-of-redis"));
}

#[test]
fn o18_malformed_entries_are_counted_and_revoke_nothing() {
    let place = Place::new(1);
    let gate = &place.gates[0];
    let (token, jti) = place.good();
    let (issuer, until) = (place.idp.issuer().to_owned(), now() + 600);
    let good = place.revocation(&json!({ "jti": jti, "until": until })).to_string();
    let text = |text: String| vec![b"revocation".to_vec(), text.into_bytes()];
    let rows = [
        text(format!(r#"{{"issuer":"{issuer}","jti":"x","jti":"{jti}"}}"#)),
        text(format!(r#"{{"issuer":"x","issuer":"{issuer}","jti":"{jti}"}}"#)),
        text(format!(r#"{{"issuer":"{issuer}","jti":"x"}},"payloadData":{{"jti":"{jti}"}}"#)),
        text(format!(r#"{{"issuer":"{issuer}","jti":"{jti}","payloadData":{{}}}}"#)),
        text(format!(r#"{{"issuer":"{issuer}","jti":"{jti}","until":1e3}}"#)),
        text(format!(r#"{{"issuer":"{issuer}","consumer_key":"shop-web","before":{until}000}}"#)),
        text(format!("{good}{good}")),
        text(good[..good.len() - 1].to_owned()),
        text(String::new()),
        text("x".repeat(1 << 20)),
        vec![b"revocation".to_vec(), b"\xff\xfe\x00".to_vec()],
        vec![b"payload".to_vec(), good.clone().into_bytes()],
        vec![b"revocation".to_vec(), good.clone().into_bytes(), b"revocation".to_vec(), good.clone().into_bytes()],
        vec![],
    ];
    for row in &rows {
        place.redis.add(&row.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    gate.wait_for("the count", || events(gate, "malformed") >= rows.len() as f64);
    assert_eq!((status(gate, &token), events(gate, "received")), (200, 0.0));
    assert!(!gate.stderr().contains(&jti), "what others wrote is not logged");
    // And the next good one is read.
    place.redis.add(&[b"revocation", good.as_bytes()]);
    place.refused_everywhere(&token);
}

#[test]
fn a_redis_that_comes_back_empty_is_filled_again() {
    let place = Place::new(2);
    let revoked = place.revoked();
    let (good, jti) = place.good();
    place.redis.kill();
    place.connected(false);
    for gate in &place.gates {
        assert_eq!((status(gate, &revoked), status(gate, &good)), (401, 200), "what is known stays in force");
    }
    place.redis.resume();
    place.connected(true);
    place.gates[0].wait_for("the set", || place.redis.members().len() == 1);
    place.redis.revoke(&place.revocation(&json!({ "jti": jti, "until": now() + 600 })));
    place.refused_everywhere(&good);
    let later = place.another();
    later.wait_for("both refusals", || status(&later, &revoked) == 401 && status(&later, &good) == 401);
}

#[test]
fn a_redis_that_hangs_keeps_nobody_waiting_and_is_read_when_it_answers() {
    let place = Place::new(1);
    let gate = &place.gates[0];
    let (good, jti) = place.good();
    place.redis.hang();
    place.connected(false);
    assert_eq!(status(gate, &place.token("unseen").sign()), 200, "a request does not wait for Redis");
    place.redis.revoke(&place.revocation(&json!({ "jti": jti, "until": now() + 600 })));
    assert_eq!(status(gate, &good), 200, "it cannot be known");
    place.redis.resume();
    place.refused_everywhere(&good);
}

#[test]
fn a_gate_that_missed_entries_reads_the_set() {
    let place = Place::new(2);
    let _ = place.revoked();
    let (good, jti) = place.good();
    let [first, second] = &*place.gates else { panic!("two gates") };
    second.signal("STOP");
    // The answer to the read that waits already; what comes after it is not asked for.
    place.redis.revoke(&place.revocation(&json!({ "jti": "first", "until": now() + 600 })));
    first.wait_for("the set", || place.redis.members().len() == 2);
    place.redis.revoke(&place.revocation(&json!({ "jti": jti, "until": now() + 600 })));
    first.wait_for("the refusal", || status(first, &good) == 401);
    first.wait_for("the set", || place.redis.members().len() == 3);
    place.redis.trim(0);
    place.redis.revoke(&place.revocation(&json!({ "jti": "another", "until": now() + 600 })));
    second.signal("CONT");
    second.wait_for("the refusal", || status(second, &good) == 401);
}

#[test]
fn values_of_another_type_are_replaced() {
    let place = Place::new(1);
    let gate = &place.gates[0];
    let revoked = place.revoked();
    for (n, key) in [redis::STREAM, redis::SET].into_iter().enumerate() {
        place.redis.spoil(key);
        gate.wait_for("the replacement", || !place.redis.is_spoiled() && events(gate, "replaced") >= (n + 1) as f64);
        let _ = place.revoked();
        gate.wait_for("the set", || place.redis.members().len() == n + 2);
        assert_eq!(status(gate, &revoked), 401);
    }
}

#[test]
fn a_redis_that_takes_no_writes_is_still_read() {
    let place = Place::new(1);
    place.redis.refuse_writes(true);
    let _ = place.revoked();
    let _ = place.revoked();
    assert!(place.redis.members().is_empty());
    assert!(place.gates[0].metric("tollgate_shared_failures_total", &[]) >= 1.0);
}

#[test]
fn without_redis_a_gate_serves_and_says_so() {
    let (idp, redis) = (Idp::start(), Redis::start());
    redis.kill();
    let upstream = Backend::start("production");
    let config = Config::orders(&idp, &upstream.url()).with(&redis.shared(""));
    let gate = Gate::start(|ports| config.text(ports));
    assert_eq!(status(&gate, &Token::of(&idp, "shop-web").sign()), 200);
    gate.wait_for("failures", || gate.metric("tollgate_shared_failures_total", &[]) >= 1.0);
    assert_eq!(gate.metric("tollgate_shared_connected", &[]), 0.0);
    let verbose = || gate.admin("/readyz?verbose").json();
    assert_eq!((&verbose()["ready"], &verbose()["shared"]), (&json!(true), &json!({ "connected": false })));
    gate.wait_for("the warning", || (gate.stderr() + &gate.stdout()).contains("Redis is lost"));
    gate.wait_for("the other", || (gate.stderr() + &gate.stdout()).contains("counters are not shared"));
    redis.resume();
    gate.wait_for("the connection", || verbose()["shared"]["connected"] == true);
}

fn sha256(text: &str) -> String {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A user is revoked by the name its provider knows, and by the one that the platform knows.
#[test]
fn a_subject_that_is_mapped_is_revoked_by_either_name() {
    let place = Place::with_keys(1, "", "claim_mappings = { upn = \"sub\" }");
    let token = |own: &str, mapped: &str| place.token(&unique()).claim("sub", own).claim("upn", mapped).sign();
    let rows = [("f81d", "ada"), ("c02a", "bob"), ("eve", "f81d"), ("77aa", "ida")];
    let tokens = rows.map(|(own, mapped)| token(own, mapped));
    let statuses = || tokens.each_ref().map(|token| status(&place.gates[0], token));
    assert_eq!(statuses(), [200; 4]);
    for subject in ["f81d", "bob"] {
        let what = json!({ "subject": subject, "before": now() + 5, "until": now() + 600 });
        place.redis.revoke(&place.revocation(&what));
    }
    place.gates[0].wait_for("the refusals", || statuses() == [401, 401, 401, 200]);
}
