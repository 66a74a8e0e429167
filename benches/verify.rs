//! What a token costs: its first sight beside the bare signature check of its algorithm, and a hit.
//!
//! Budget: first sight at most 1.15 × the bare check for ES256 and EdDSA, 1.30 × for RS256, in one run.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaPublicKeyComponents},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use divan::{Bencher, black_box};
use serde_json::{Value, json};
use tollgate::{
    net::Now,
    store::KeyManagerSet,
    token::{Authenticator, KeyManagers, KeySource, settings::CacheSettings},
};

/// The program's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// The signature alone, its key parsed beforehand.
#[divan::bench(args = ALGORITHMS, sample_count = 1000, sample_size = 4)]
fn bare_signature(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let provider = provider(algorithm);
    let input = || {
        let token = provider.token();
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        (signed.to_owned(), URL_SAFE_NO_PAD.decode(signature).expect("our own"))
    };
    bencher.with_inputs(input).bench_refs(|(signed, signature)| {
        provider.public.verify_sig(signed.as_bytes(), signature).expect("our own");
    });
}

/// A token never seen before, from text to identity.
#[divan::bench(args = ALGORITHMS, sample_count = 1000, sample_size = 4)]
fn first_sight(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let provider = provider(algorithm);
    let (tokens, all) = (provider.authenticator(), KeyManagerSet::all());
    bencher.with_inputs(|| provider.token()).bench_refs(|token| {
        let good = at_once(tokens.authenticate(token, &all, None, NOW)).expect("good");
        assert!(!good.from_cache);
        good
    });
}

/// A token seen before.
#[divan::bench]
fn hit(bencher: Bencher<'_, '_>) {
    let provider = provider(Algorithm::ES256);
    let (tokens, all, token) = (provider.authenticator(), KeyManagerSet::all(), provider.token());
    at_once(tokens.authenticate(&token, &all, None, NOW)).expect("good");
    bencher.bench(|| at_once(tokens.authenticate(black_box(&token), &all, None, NOW)));
}

/// A wrong signature seen before.
#[divan::bench]
fn negative_hit(bencher: Bencher<'_, '_>) {
    let provider = provider(Algorithm::ES256);
    let (tokens, all) = (provider.authenticator(), KeyManagerSet::all());
    let token = provider.token();
    let (signed, _) = token.rsplit_once('.').expect("three parts");
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([1; 64]));
    bencher.bench(|| at_once(tokens.authenticate(black_box(&forged), &all, None, NOW)).is_err());
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    RS256,
    PS256,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

const ALGORITHMS: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::ES512, Algorithm::EdDSA];

/// An OAuth provider with one key.
struct Provider {
    algorithm: Algorithm,
    key: Private,
    jwk: Value,
    public: ParsedPublicKey,
    issued: AtomicU64,
}

enum Private {
    Rsa(RsaKeyPair),
    Elliptic(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
}

static PROVIDERS: LazyLock<[Provider; 6]> = LazyLock::new(|| ALGORITHMS.map(Provider::new));

fn provider(algorithm: Algorithm) -> &'static Provider {
    PROVIDERS.iter().find(|provider| provider.algorithm == algorithm).expect("one for each")
}

impl Provider {
    fn new(algorithm: Algorithm) -> Self {
        let elliptic = |signing, verification: &'static _, curve: &str| {
            let key = EcdsaKeyPair::generate(signing).expect("a key");
            let point = key.public_key().as_ref();
            let (x, y) = point[1..].split_at(point.len() / 2);
            let jwk = json!({ "kty": "EC", "kid": "k", "crv": curve, "x": b64(x), "y": b64(y) });
            let public = ParsedPublicKey::new(verification, point).expect("our own");
            (Private::Elliptic(key), jwk, public)
        };
        let (key, jwk, public) = match algorithm {
            Algorithm::RS256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::PS256 => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::ES256 => {
                elliptic(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P256_SHA256_FIXED, "P-256")
            }
            Algorithm::ES384 => {
                elliptic(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED, "P-384")
            }
            Algorithm::ES512 => {
                elliptic(&signature::ECDSA_P521_SHA512_FIXED_SIGNING, &signature::ECDSA_P521_SHA512_FIXED, "P-521")
            }
            Algorithm::EdDSA => {
                let key = Ed25519KeyPair::generate().expect("a key");
                let x = key.public_key().as_ref();
                let jwk = json!({ "kty": "OKP", "kid": "k", "crv": "Ed25519", "x": b64(x) });
                let public = ParsedPublicKey::new(&signature::ED25519, x).expect("our own");
                (Private::Edwards(key), jwk, public)
            }
        };
        Self { algorithm, key, jwk, public, issued: AtomicU64::new(0) }
    }

    /// A new access token such as providers issue, of about 700 bytes.
    fn token(&self) -> String {
        let header = json!({ "alg": format!("{:?}", self.algorithm), "typ": "at+jwt", "kid": "k" });
        let claims = json!({
            "iss": ISSUER, "sub": "0b6cf1d2-6b0a-4a52-9f0b-3a1a8a0c7b11", "aud": ["orders-api", "account"],
            "exp": NOW.unix() + 300, "iat": NOW.unix(), "jti": format!("trrtcc:{:032x}", self.issued.fetch_add(1, Ordering::Relaxed)),
            "client_id": "shop-web", "azp": "shop-web", "scope": "openid orders:read orders:write profile email",
            "realm_access": { "roles": ["offline_access", "uma_authorization", "default-roles-shop"] },
            "email_verified": true, "preferred_username": "ada", "email": "ada@example.com"
        });
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        format!("{signed}.{}", b64(self.sign(signed.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Private::Rsa(key) => {
                let mut out = vec![0; key.public_modulus_len()];
                let pss = self.algorithm == Algorithm::PS256;
                let encoding = if pss { &signature::RSA_PSS_SHA256 } else { &signature::RSA_PKCS1_SHA256 };
                key.sign(encoding, &random, message, &mut out).expect("it signs");
                out
            }
            Private::Elliptic(key) => key.sign(&random, message).expect("it signs").as_ref().into(),
            Private::Edwards(key) => key.sign(message).as_ref().into(),
        }
    }

    fn authenticator(&self) -> Authenticator {
        let text = json!({ "name": "idp", "connector": "oidc", "issuer": ISSUER, "audience": ["orders-api"] });
        let settings = serde_json::from_value(text).expect("good settings");
        let keys = KeySource::fixed(&json!({ "keys": [self.jwk] }));
        let managers = KeyManagers::build(vec![(settings, keys)], &Arc::default()).expect("good settings");
        let registry = prometheus::Registry::new();
        let tokens = Authenticator::new(&CacheSettings::default(), &registry).expect("a fresh registry");
        assert_eq!(tokens.replace(managers).len(), 1);
        tokens
    }
}

fn rsa(parameters: &'static signature::RsaParameters) -> (Private, Value, ParsedPublicKey) {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let public = key.public_key();
    let (n, e) = (public.modulus(), public.exponent());
    let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
    let jwk = json!({ "kty": "RSA", "kid": "k", "n": b64(n), "e": b64(e) });
    let public = RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).expect("our own");
    (Private::Rsa(key), jwk, public)
}

/// Nothing waits here: keys are at hand.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the keys are at hand"),
    }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

const ISSUER: &str = "https://idp.example.com/realms/shop";
const NOW: Now = Now::at_ms(1_800_000_000_000);
