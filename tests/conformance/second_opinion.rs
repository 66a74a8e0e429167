//! Whatever we accept, another library alone accepts too, and reads the same out of it.
//!
//! Good tokens are bent at random: their text, which then is refused unless it is what it was; and their members,
//! signed anew, so that nothing but the claims and the header stands between them and a pass.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, Waker},
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, Validation, decode, jwk::Jwk};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use tollgate::{
    net::{Clock, Now},
    store::KeyManagerSet,
    token::{Authenticator, Identity, KeyManagers, KeySource, settings::CacheSettings},
};

const ISSUER: &str = "https://idp.example.com";
const AUDIENCE: &str = "orders-api";
const LEEWAY: u64 = 30;
const SECRET: &[u8] = b"a secret of 64 bytes, which is long enough for every hash of HMAC";

proptest! {
    // `PROPTEST_CASES` asks for more.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// One text for each token: no other spelling of a good one passes.
    #[test]
    fn a_bent_text_is_refused(signer in signers(), bends in prop::collection::vec(bend(), 1..4)) {
        let token = signer.sign(&signer.header(), &claims(now().unix()));
        let bent = bends.iter().fold(token.clone(), |text, bend| bend.apply(&text));
        prop_assert!(judged(&token).is_some(), "the token itself is good: {token}");
        if bent != token {
            prop_assert!(judged(&bent).is_none(), "{token}\n{bent}");
        }
    }

    #[test]
    fn what_we_accept_another_accepts(
        signer in signers(),
        header in prop::collection::vec(change(HEADER_NAMES, HEADER_VALUES), 0..3),
        payload in prop::collection::vec(change(CLAIM_NAMES, CLAIM_VALUES), 0..4),
        space in select(&["", " ", "\t", "\r\n  "][..]),
    ) {
        let header = text(&changed(members(&signer.header()), &header), space);
        let payload = text(&changed(members(&claims(now().unix())), &payload), space);
        let token = signer.sign(&header, &payload);
        if let Some(identity) = judged(&token) {
            let other = second_opinion(signer, &token);
            prop_assert!(other.is_ok(), "{header} {payload}: {other:?}");
            let other = other.unwrap_or_default();
            prop_assert_eq!(other["sub"].as_str(), identity.subject.as_deref());
            prop_assert_eq!(other["iss"].as_str(), Some(&*identity.common.issuer));
            prop_assert_eq!(other["jti"].as_str(), identity.jti.as_deref());
            let exp = other["exp"].as_f64().unwrap_or_default();
            prop_assert!((exp - identity.expires_at as f64).abs() < 1.0, "{exp} {}", identity.expires_at);
        }
    }
}

/// The generators are worth something only if enough of what they make passes.
#[test]
fn changes_that_do_no_harm_pass() {
    let passes = |name: &str, value: &str| {
        let change = Change { name: name.into(), value: value.into(), how: How::Add };
        let signer = &SIGNERS[0];
        let payload = text(&changed(members(&claims(now().unix())), &[change]), " ");
        judged(&signer.sign(&signer.header(), &payload)).is_some()
    };
    assert!(passes("\"note\"", "[1,2,{\"a\":null}]"));
    assert!(passes("\"\\u006eote\"", "1.5e3"));
    assert!(!passes("\"\\u0065xp\"", "4102444800"), "exp in another spelling, a second time");
}

/// Our verdict, with nothing cached from before.
fn judged(token: &str) -> Option<Arc<Identity>> {
    let all = KeyManagerSet::all();
    let settings = json!({
        "name": "idp", "connector": "oidc", "issuer": ISSUER, "audience": [AUDIENCE],
        "algorithms": SIGNERS.iter().map(|signer| signer.algorithm).collect::<Vec<_>>(),
        "secret_keys": [{ "alg": "HS256", "kid": "HS256", "secret": std::str::from_utf8(SECRET).unwrap() }],
    });
    let keys: Vec<Value> = SIGNERS.iter().filter_map(|signer| signer.jwk.clone()).collect();
    let source = KeySource::fixed(&json!({ "keys": keys }));
    let managers = vec![(serde_json::from_value(settings).unwrap(), source)];
    let managers = KeyManagers::build(managers, &Arc::default()).unwrap();
    let tokens = Authenticator::new(&CacheSettings::default(), &prometheus::Registry::new()).unwrap();
    let _issuers = tokens.replace(managers);
    at_once(tokens.authenticate(token, &all, None, now())).ok().map(|good| good.identity)
}

/// jsonwebtoken's, told the same by its own settings.
fn second_opinion(signer: &Signer, token: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let key = match &signer.jwk {
        Some(jwk) => DecodingKey::from_jwk(&serde_json::from_value::<Jwk>(jwk.clone()).unwrap())?,
        None => DecodingKey::from_secret(SECRET),
    };
    let mut validation = Validation::new(signer.algorithm.parse()?);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    decode::<Value>(token, &key, &validation).map(|data| data.claims)
}

/// A private key, with its public half unless it is a secret.
struct Signer {
    algorithm: &'static str,
    jwk: Option<Value>,
    sign: Sign,
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

impl Signer {
    fn header(&self) -> String {
        json!({ "alg": self.algorithm, "kid": self.algorithm, "typ": "at+jwt" }).to_string()
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = URL_SAFE_NO_PAD.encode((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.algorithm)
    }
}

fn signers() -> impl Strategy<Value = &'static Signer> {
    (0..SIGNERS.len()).prop_map(|index| &SIGNERS[index])
}

static SIGNERS: LazyLock<Vec<Signer>> = LazyLock::new(|| {
    let rsa = Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    let by_rsa = |algorithm: &'static str, padding: &'static signature::RsaSignatureEncoding| {
        let (public, rsa) = (rsa.public_key().clone(), Arc::clone(&rsa));
        let (n, e) = (public.modulus(), public.exponent());
        let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
        let jwk = json!({ "kty": "RSA", "kid": algorithm, "alg": algorithm,
            "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e) });
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        };
        Signer { algorithm, jwk: Some(jwk), sign: Box::new(sign) }
    };
    let by_curve = |algorithm: &'static str, curve: &str, kind: &'static signature::EcdsaSigningAlgorithm| {
        let pair = EcdsaKeyPair::generate(kind).unwrap();
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let jwk = json!({ "kty": "EC", "crv": curve, "kid": algorithm, "alg": algorithm,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) });
        let sign = move |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        Signer { algorithm, jwk: Some(jwk), sign: Box::new(sign) }
    };
    let ed = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "alg": "EdDSA",
        "x": URL_SAFE_NO_PAD.encode(ed.public_key().as_ref()) });
    let secret = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    vec![
        by_curve("ES256", "P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        by_curve("ES384", "P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        Signer {
            algorithm: "EdDSA",
            jwk: Some(jwk),
            sign: Box::new(move |message| ed.sign(message).as_ref().to_vec()),
        },
        by_rsa("RS256", &signature::RSA_PKCS1_SHA256),
        by_rsa("PS256", &signature::RSA_PSS_SHA256),
        Signer {
            algorithm: "HS256",
            jwk: None,
            sign: Box::new(move |message| hmac::sign(&secret, message).as_ref().to_vec()),
        },
    ]
});

fn claims(now: u64) -> String {
    json!({
        "iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "client_id": "shop-web", "scope": "orders:read",
        "iat": now, "exp": now + 600, "jti": "1",
    })
    .to_string()
}

/// What is done to a token's text.
#[derive(Debug, Clone)]
enum Bend {
    Replace(usize, char),
    Insert(usize, char),
    Remove(usize),
    Swap(usize),
    Case(usize),
    Append(&'static str),
    Cut(usize),
    /// A part in another's place.
    Parts(usize, usize),
}

fn bend() -> impl Strategy<Value = Bend> {
    let at = 0..4000_usize;
    let letter = prop_oneof![
        6 => proptest::char::range('A', 'z'),
        2 => proptest::char::range('0', '9'),
        2 => select(&['=', '.', '-', '_', '+', '/', ' ', '\n', '\0', 'é', '%'][..]),
    ];
    prop_oneof![
        4 => (at.clone(), letter.clone()).prop_map(|(at, letter)| Bend::Replace(at, letter)),
        2 => (at.clone(), letter).prop_map(|(at, letter)| Bend::Insert(at, letter)),
        2 => at.clone().prop_map(Bend::Remove),
        1 => at.clone().prop_map(Bend::Swap),
        1 => at.clone().prop_map(Bend::Case),
        1 => select(&["=", "==", ".", ".A", "A", " ", "\n", "\0", "~"][..]).prop_map(Bend::Append),
        1 => at.prop_map(Bend::Cut),
        1 => (0..3_usize, 0..3_usize).prop_map(|(from, to)| Bend::Parts(from, to)),
    ]
}

impl Bend {
    fn apply(&self, text: &str) -> String {
        let mut all: Vec<char> = text.chars().collect();
        let place = |at: usize| at % text.chars().count().max(1);
        match *self {
            _ if all.is_empty() => {}
            Self::Replace(at, letter) => all[place(at)] = letter,
            Self::Insert(at, letter) => all.insert(place(at), letter),
            Self::Remove(at) => drop(all.remove(place(at))),
            Self::Swap(at) => {
                let next = place(at + 1);
                all.swap(place(at), next);
            }
            Self::Case(at) => {
                let letter = &mut all[place(at)];
                *letter =
                    if letter.is_ascii_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
            }
            Self::Append(more) => all.extend(more.chars()),
            Self::Cut(at) => all.truncate(place(at)),
            Self::Parts(from, to) => {
                let mut parts: Vec<&str> = text.split('.').collect();
                if from < parts.len() && to < parts.len() {
                    parts[to] = parts[from];
                }
                return parts.join(".");
            }
        }
        all.into_iter().collect()
    }
}

/// Members as written: the name with its quotes, the value as JSON.
type Members = Vec<(String, String)>;

/// What is done to a member.
#[derive(Debug, Clone)]
struct Change {
    name: String,
    value: String,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// One more, whatever there is.
    Add,
    /// In front, whatever there is.
    Lead,
    /// In place of the one of that name.
    Replace,
    /// The one of that name goes.
    Remove,
}

fn change(names: &'static [&'static str], values: &'static [&'static str]) -> impl Strategy<Value = Change> {
    let name = prop_oneof![5 => select(names).prop_map(str::to_owned), 1 => "[ -~]{0,8}".prop_map(|text| json!(text).to_string())];
    let value = prop_oneof![
        5 => select(values).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| json!(number).to_string()),
        1 => (0..4_000_000_000_u64).prop_map(|number| number.to_string()),
        1 => "\\PC{0,12}".prop_map(|text| json!(text).to_string()),
    ];
    let how = select(&[How::Add, How::Lead, How::Replace, How::Replace, How::Remove][..]);
    (name, value, how).prop_map(|(name, value, how)| Change { name, value, how })
}

fn members(object: &str) -> Members {
    let Ok(Value::Object(members)) = serde_json::from_str(object) else { return Members::new() };
    members.into_iter().map(|(name, value)| (json!(name).to_string(), value.to_string())).collect()
}

fn changed(mut members: Members, changes: &[Change]) -> Members {
    for Change { name, value, how } in changes {
        let found = members.iter().position(|(known, _)| known == name);
        match (how, found) {
            (How::Add, _) | (How::Replace, None) => members.push((name.clone(), value.clone())),
            (How::Lead, _) => members.insert(0, (name.clone(), value.clone())),
            (How::Replace, Some(at)) => members[at].1.clone_from(value),
            (How::Remove, Some(at)) => drop(members.remove(at)),
            (How::Remove, None) => {}
        }
    }
    members
}

fn text(members: &Members, space: &str) -> String {
    let members: Vec<String> =
        members.iter().map(|(name, value)| format!("{space}{name}{space}:{space}{value}")).collect();
    format!("{{{}{space}}}", members.join(","))
}

const HEADER_NAMES: &[&str] = &[
    "\"alg\"",
    "\"kid\"",
    "\"typ\"",
    "\"cty\"",
    "\"crit\"",
    "\"b64\"",
    "\"jku\"",
    "\"x5u\"",
    "\"\\u0061lg\"",
    "\"zip\"",
];
const HEADER_VALUES: &[&str] = &[
    "\"none\"",
    "\"ES256\"",
    "\"RS256\"",
    "\"HS256\"",
    "\"PS256\"",
    "\"at+jwt\"",
    "\"JWT\"",
    "\"logout+jwt\"",
    "[]",
    "[\"exp\"]",
    "false",
    "\"https://evil.example/\"",
    "\"\"",
];
const CLAIM_NAMES: &[&str] = &[
    "\"iss\"",
    "\"sub\"",
    "\"aud\"",
    "\"exp\"",
    "\"nbf\"",
    "\"iat\"",
    "\"jti\"",
    "\"client_id\"",
    "\"scope\"",
    "\"cnf\"",
    "\"\\u0065xp\"",
    "\"note\"",
    "\"e\\u0078p\"",
];
const CLAIM_VALUES: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e3",
    "4102444800",
    "4102444800.5",
    "41024448000000000000",
    "1e308",
    "\"4102444800\"",
    "\"orders-api\"",
    "[\"orders-api\"]",
    "[\"x\",\"orders-api\"]",
    "[\"orders-api\",1]",
    "[]",
    "{}",
    "\"https://idp.example.com\"",
    "[\"https://idp.example.com\"]",
    "\"https://idp.example.com/\"",
    "\"a b\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "[[[[[[]]]]]]",
    "1e400",
    "01",
    "{\"a\":1,\"a\":2}",
];

fn now() -> Now {
    Clock::new().now()
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the keys are at hand"),
    }
}
