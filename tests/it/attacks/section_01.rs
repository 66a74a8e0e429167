//! 1: JOSE header and signature.

use serde_json::{Value, json};

use super::{Section, bring, run_section, strict};
use crate::support::{Case, Expect, Token, World, b64, compact, hs256, keys, now, world};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[("T25", "no_outbound_request_for_header_urls")],
    waits: &[
        ("T15", "covered where keys are parsed"),
        ("T16", "covered where keys are parsed"),
        ("T17", "covered where keys are parsed"),
        ("T18", "waits for the vector run"),
        ("T19", "waits for the vector run"),
        ("T20", "waits for the vector run"),
        ("T37", "waits for JWE"),
        ("T38", "waits for JWE"),
        ("T39", "waits for JWE"),
        ("T40", "waits for JWE"),
    ],
};

#[test]
fn jose_header_and_signature() {
    run_section(&SECTION);
}

#[test]
fn no_outbound_request_for_header_urls() {
    let world = world(crate::support::Form::Wso2);
    let lure = crate::support::Idp::start();
    let url = format!("{}/keys", lure.issuer());
    let cases = ["jku", "x5u"].map(|name| {
        let token = world.token().header(name, url.clone()).key(&keys().es256_other, "lure");
        bring(format!("T25 {name}"), Expect::T401, token.sign())
    });
    crate::support::check_all(&world.gate, &world.backends(), world.form, &cases);
    assert_eq!((lure.discoveries(), lure.key_fetches(), lure.other_requests().len()), (0, 0, 0));
}

fn cases(world: &'static World) -> Vec<Case> {
    let mut all = algorithms(world);
    all.extend(confusions(world));
    all.extend(signatures(world));
    all.extend(critical(world));
    all.extend(key_choice(world));
    all.extend(duplicates(world));
    all.extend(forms(world));
    all.extend(payloads(world));
    all
}

fn refused(name: &str, token: impl Into<String>) -> Case {
    bring(name, Expect::T401, token)
}

fn algorithms(world: &World) -> Vec<Case> {
    let mut all = vec![refused("T01 alg none", world.token().header("alg", "none").sign_with(|_| Vec::new()))];
    for name in ["None", "nOnE", "NONE", "none "] {
        all.push(refused("T02 alg none, case", world.token().header("alg", name).sign_with(|_| Vec::new())));
    }
    let rsa = strict(world).key(&keys().rsa, "rsa");
    all.push(refused("T08 alg not allow-listed", rsa.clone().header("alg", "RS512").sign()));
    all.push(bring("T08 an allow-listed one passes", Expect::Pass, rsa.sign()));
    for name in ["es256", "RS256 ", ""] {
        all.push(refused(
            "T08 alg in another spelling",
            world.token().header("alg", name).sign_with(|m| keys().es256.sign("ES256", m)),
        ));
    }
    all.push(refused(
        "T08 no alg",
        world.token().header("alg", Value::Null).sign_with(|m| keys().es256.sign("ES256", m)),
    ));
    all
}

/// HMAC with what an attacker knows of the public key.
fn confusions(world: &World) -> Vec<Case> {
    let modulus = keys().rsa.public_bytes();
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", b64(&modulus));
    let jwk = keys().rsa.jwk("rsa");
    let secrets = [
        ("T03 HS256 with PEM", pem.clone().into_bytes()),
        ("T03 HS256 with DER", modulus),
        ("T03 HS256 with the JWK's text", jwk.to_string().into_bytes()),
        ("T03 HS256 with the modulus", jwk["n"].as_str().unwrap_or_default().as_bytes().to_vec()),
        ("T04 padded PEM", format!("\u{feff} \n{pem}").into_bytes()),
        ("T05 HS256 with the point", keys().es256.public_bytes()),
    ];
    let confused = |(name, secret): (&str, Vec<u8>)| {
        let kid = if name.starts_with("T05") { "es256" } else { "rsa" };
        let token = world.token().header("alg", "HS256").header("kid", kid);
        refused(name, token.sign_with(|message| hs256(&secret, message)))
    };
    let mut all: Vec<Case> = secrets.into_iter().map(confused).collect();
    all.push(refused("T06 alg of another family", world.token().key(&keys().es256, "rsa").sign()));
    all.push(refused("T14 ES384 by a P-256 key", world.token().header("alg", "ES384").sign()));
    all.push(refused(
        "T14 ES256 by a P-384 key",
        world.token().key(&keys().es384, "es384").header("alg", "ES256").sign(),
    ));
    all.push(refused("T14 ES256K", world.token().header("alg", "ES256K").sign()));
    all
}

fn signatures(world: &World) -> Vec<Case> {
    let mut all = Vec::new();
    for (key, kid) in [(&keys().rsa, "rsa"), (&keys().es256, "es256"), (&keys().ed, "ed")] {
        let token = world.token().key(key, kid);
        all.push(bring(format!("T11 {kid} itself is good"), Expect::Pass, token.sign()));
        all.push(refused("T11 null signature", token.sign_with(|_| Vec::new())));
        all.push(refused(
            "T11 signature by another's hand",
            token.sign_with(|m| {
                let mut signature = key.sign(key.algorithm(), m);
                signature[5] ^= 1;
                signature
            }),
        ));
    }
    let with = |bytes: Vec<u8>| world.token().sign_with(|_| bytes);
    let mut one = vec![0; 64];
    (one[31], one[63]) = (1, 1);
    all.push(refused("T12 r and s zero", with(vec![0; 64])));
    all.push(refused("T12 r and s one", with(one)));
    all.push(refused("T12 r and s the order", with([P256_ORDER, P256_ORDER].concat())));
    let signed = |change: fn(Vec<u8>) -> Vec<u8>| world.token().sign_with(|m| change(keys().es256.sign("ES256", m)));
    all.push(refused("T13 DER", signed(|s| [&[0x30, 0x44, 2, 0x20], &s[..32], &[2, 0x20], &s[32..]].concat())));
    all.push(refused("T13 too short", signed(|s| s[..63].to_vec())));
    all.push(refused("T13 too long", signed(|s| [s.as_slice(), &[0]].concat())));
    all.push(refused("T13 leading zero", signed(|s| [&[0], s.as_slice()].concat())));
    all
}

fn critical(world: &World) -> Vec<Case> {
    let crit = |value: Value| world.token().header("bork", 1).header("crit", value).sign();
    vec![
        refused("T21 crit unknown", crit(json!(["bork"]))),
        refused("T22 crit empty", crit(json!([]))),
        refused("T22 crit no list", crit(json!("exp"))),
        refused("T22 crit registered", crit(json!(["alg"]))),
        refused("T22 crit absent", crit(json!(["gone"]))),
        refused("T22 crit twice", crit(json!(["bork", "bork"]))),
        refused("T23 b64 false", world.token().header("b64", false).header("crit", json!(["b64"])).sign()),
    ]
}

fn key_choice(world: &World) -> Vec<Case> {
    let attacker = || world.token().key(&keys().es256_other, "es256");
    let own = keys().es256_other.jwk("es256");
    let mut all = vec![
        refused("T24 embedded jwk", attacker().header("jwk", own).sign()),
        refused("T26 x5c", attacker().header("x5c", json!([b64(b"not a certificate")])).sign()),
        // The second provider publishes the same key id with another key.
        refused("T28 the other issuer's key", world.token().key(&keys().es256_other, "es256").sign()),
        refused("T28 and the reverse", Token::of(&world.second, "shop-web").sign()),
        bring(
            "T28 its own key",
            Expect::Pass,
            Token::of(&world.second, "shop-web").key(&keys().es256_other, "es256").sign(),
        ),
        bring("T30 no kid", Expect::Pass, world.token().header("kid", Value::Null).sign()),
    ];
    let long = "k".repeat(8 << 10);
    let odd = ["../../dev/null", "' OR 1=1--", "\u{0}", "a\r\nx-evil: 1", "${jndi:ldap://x}", "es256 ", "ES256", &long];
    all.extend(odd.iter().map(|kid| refused("T27 kid", world.token().header("kid", *kid).sign())));
    for kid in [json!(1), json!(["es256"]), json!({}), json!(true)] {
        all.push(refused("T27 kid of another type", world.token().header("kid", kid).sign()));
    }
    let null = world.token().raw_header(r#"{"alg":"ES256","kid":null}"#, "ES256");
    all.push(refused("T27 kid null", null));
    all
}

fn duplicates(world: &World) -> Vec<Case> {
    let token = world.token();
    let mut all = vec![
        refused("T31 alg twice", token.raw_header(r#"{"alg":"ES256","alg":"none","kid":"es256"}"#, "ES256")),
        refused(
            "T31 alg twice, other order",
            token.raw_header(r#"{"alg":"none","alg":"ES256","kid":"es256"}"#, "ES256"),
        ),
        refused(
            "T31 escaped spelling",
            token.raw_header(r#"{"alg":"ES256","\u0061lg":"none","kid":"es256"}"#, "ES256"),
        ),
    ];
    let claims = token.claims_text();
    let inner = claims.trim_start_matches('{');
    for twice in [format!("\"exp\":{}", now() + 9000), r#""aud":"billing""#.into(), r#""scope":"admin""#.into()] {
        all.push(refused("T32 claim twice", token.raw_payload(format!("{{{twice},{inner}").as_bytes())));
    }
    let nested = format!(r#"{{"deep":{{"a":1,"a":2}},{inner}"#);
    all.push(refused("T32 member twice, nested", token.raw_payload(nested.as_bytes())));
    all
}

fn forms(world: &World) -> Vec<Case> {
    let good = world.bearer("shop-web");
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let mut all = vec![
        refused("T33 padding", format!("{header}=.{payload}.{signature}")),
        refused("T33 padded signature", format!("{good}==")),
        refused("T33 another alphabet", format!("{header}.{payload}.{}", "+/".repeat(43))),
        refused("T33 unused bits", format!("{header}.{payload}.{}", with_unused_bits(signature))),
        refused("T34 one part", header),
        refused("T34 two parts", format!("{header}.{payload}")),
        refused("T34 four parts", format!("{good}.{signature}")),
        refused("T34 dots alone", ".".repeat(20_000)),
        refused("T36 five parts", format!("{good}.{signature}.{signature}")),
        refused("T36 a JWE", format!("{}.a.b.c.d", b64(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#))),
    ];
    // Its commas may as well be read as two credentials.
    let serialised = |name, value: Value| bring(name, Expect::Parser(&[401, 400]), value.to_string());
    let flat = json!({ "payload": payload, "protected": header, "signature": signature });
    all.push(serialised("T35 flattened JSON", flat));
    let general = json!({ "payload": payload, "signatures": [{ "protected": header, "signature": signature }] });
    all.push(serialised("T35 general JSON", general));
    let case = bring("T42 huge token", Expect::Parser(&[431, 401, 400, 0]), "x".repeat(1 << 20));
    all.push(case);
    all
}

fn payloads(world: &World) -> Vec<Case> {
    let token = world.token();
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let mut all = vec![
        refused("T41 deep JSON", token.raw_payload(deep.as_bytes())),
        refused("T41 deep header", token.raw_header(&format!(r#"{{"alg":"ES256","a":{}"#, "[".repeat(9_000)), "ES256")),
        refused("T43 no UTF-8", token.raw_payload(b"{\"iss\":\"\xff\xfe\"}")),
        refused("T43 a header without UTF-8", compact("\u{fffd}", b"{}", |_| vec![0; 64])),
    ];
    for payload in [r#""str""#, "[]", "null", "1", "", "{", "{}"] {
        all.push(refused("T44 payload", token.raw_payload(payload.as_bytes())));
    }
    all
}

/// The last character's unused low bits set: the same bytes to a lax decoder.
fn with_unused_bits(signature: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = signature.split_at(signature.len() - 1);
    let at = ALPHABET.find(last).unwrap_or(0);
    format!("{rest}{}", &ALPHABET[at + 1..at + 2])
}

/// The order of P-256 (FIPS 186-5).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
