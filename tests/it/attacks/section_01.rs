//! 1: JOSE header and signature.

use serde_json::{Value, json};

use super::{Section, bring, orders_gate, run_section, strict};
use crate::support::{
    BOTH, Backend, Case, Config, Expect, Gate, Idp, Request, Token, Via, World, b64, block_on, compact, hs256, keys,
    now, world,
};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("T07", "keys_do_only_what_they_say"),
        ("T09", "keys_do_only_what_they_say"),
        ("T10", "keys_do_only_what_they_say"),
        ("T15", "unsafe_keys_are_not_taken_and_good_ones_are"),
        ("T16", "unsafe_keys_are_not_taken_and_good_ones_are"),
        ("T17", "unsafe_keys_are_not_taken_and_good_ones_are"),
        ("T25", "no_outbound_request_for_header_urls"),
        ("T29", "keys_do_only_what_they_say"),
        ("T30", "without_a_kid_few_keys_are_tried_and_none_fetched"),
        ("T37", "jwe::encrypted_tokens"),
        ("T38", "jwe::encrypted_tokens"),
        ("T39", "jwe::encrypted_tokens"),
        ("T40", "jwe::encrypted_tokens"),
        ("T34", "what_is_far_too_long_is_not_even_read"),
        ("T41", "what_is_far_too_long_is_not_even_read"),
        ("T42", "what_is_far_too_long_is_not_even_read"),
    ],
    waits: &[],
};

#[test]
fn jose_header_and_signature() {
    run_section(&SECTION);
}

#[test]
fn no_outbound_request_for_header_urls() {
    let world = world(crate::support::Form::Wso2);
    let lure = Idp::start();
    let url = format!("{}/keys", lure.issuer());
    let cases = ["jku", "x5u"].map(|name| {
        let token = world.token().header(name, url.clone()).key(&keys().es256_other, "lure");
        bring(format!("T25 {name}"), Expect::T401, token.sign())
    });
    crate::support::check_all(&world.gate, &world.backends(), world.form, &cases);
    assert_eq!((lure.discoveries(), lure.key_fetches(), lure.other_requests().len()), (0, 0, 0));
}

#[test]
fn unsafe_keys_are_not_taken_and_good_ones_are() {
    run_own(unsafe_keys());
}

#[test]
fn keys_do_only_what_they_say() {
    run_own(key_rules());
}

/// Of more keys than are tried, the first ones are; a token that names none is no reason to fetch.
#[test]
fn without_a_kid_few_keys_are_tried_and_none_fetched() {
    let all = keys();
    let mut published: Vec<Value> = ["a", "b", "c"].map(|kid| all.es256_other.jwk(kid)).into();
    published.extend([all.es256.jwk("fourth"), all.rsa.jwk("fifth"), all.rsa.jwk("sixth"), all.rsa.jwk("seventh")]);
    published.extend([all.rsa.jwk("eighth"), all.rsa_other.jwk("ninth")]);
    let (idp, upstream) = (Idp::with_keys(published), Backend::start("production"));
    let gate = orders_gate(&idp, &upstream);
    let unnamed = |key| Token::of(&idp, "shop-web").key(key, "").header("kid", Value::Null).sign();
    let cases = [
        bring("T30 by the fourth key of its kind", Expect::Pass, unnamed(&all.es256)),
        bring("T30 by the first", Expect::Pass, unnamed(&all.rsa)),
        refused("T30 by the fifth", unnamed(&all.rsa_other)),
        bring("T30 by the fifth, named", Expect::Pass, Token::of(&idp, "shop-web").key(&all.rsa_other, "ninth").sign()),
        refused("T30 of a kind that there is not", unnamed(&all.ed)),
    ];
    let before = idp.key_fetches();
    crate::support::check_all(&gate, &[&upstream], crate::support::Form::Wso2, &cases);
    assert_eq!(idp.key_fetches(), before);
}

/// Runs cases before a provider of their own.
fn run_own((idp, cases): (Idp, Vec<Case>)) {
    let upstream = Backend::start("production");
    let gate = orders_gate(&idp, &upstream);
    crate::support::check_all(&gate, &[&upstream], crate::support::Form::Wso2, &cases);
}

/// A set of keys that cannot be trusted, each with a signature that holds for it, among the usual ones.
pub(super) fn unsafe_keys() -> (Idp, Vec<Case>) {
    let (all, infinity) = (keys(), b64([0; 32]));
    let rsa = |kid: &str, n: &[u8], e: &[u8]| json!({ "kty": "RSA", "kid": kid, "n": b64(n), "e": b64(e) });
    let point = |kid: &str, x: &str, y: &str| json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y });
    let good = all.es256.jwk("bent");
    let (x, y) = (good["x"].as_str().unwrap(), good["y"].as_str().unwrap());
    let mut even = vec![0xff; 256];
    even[255] = 0xfe;
    let mut identity = [0; 32];
    identity[0] = 1;
    let published = vec![
        point("off-curve", y, x),
        point("too-large", &b64([0xff; 32]), y),
        point("infinity", &infinity, &infinity),
        rsa("n-512", &[0xff; 64], &[1]),
        rsa("n-1024", &[0xff; 128], &[1]),
        rsa("e-1", &[0xff; 256], &[1]),
        rsa("e-even", &[0xff; 256], &[2]),
        rsa("n-even", &even, &[1]),
        rsa("n-16384", &[0xff; 2048], &[1]),
        rsa("e-huge", &[0xff; 256], &[1, 0, 0, 0, 0, 1]),
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "small-order", "x": b64(identity) }),
        json!({ "kty": "OKP", "crv": "Ed448", "kid": "ed448", "x": all.ed.jwk("x")["x"] }),
        all.es256.jwk("es256"),
        all.rsa.jwk("rsa"),
    ];
    let idp = Idp::with_keys(published);
    let token = |alg: &str, kid: &str| Token::of(&idp, "shop-web").header("alg", alg).header("kid", kid);
    let mut cases = vec![
        bring("T15 a good key beside them", Expect::Pass, token("ES256", "es256").sign()),
        bring("T16 a good RSA key beside them", Expect::Pass, Token::of(&idp, "shop-web").key(&all.rsa, "rsa").sign()),
    ];
    for kid in ["off-curve", "too-large", "infinity"] {
        cases.push(refused(&format!("T15 {kid}"), token("ES256", kid).sign()));
    }
    // With e = 1 a signature is the padded digest itself: anyone can make it.
    for (kid, size) in [("n-512", 64), ("n-1024", 128), ("e-1", 256), ("e-even", 256), ("n-even", 256)] {
        cases.push(refused(&format!("T16 {kid}"), token("RS256", kid).sign_with(|m| padded(m, size))));
    }
    for (kid, size) in [("n-16384", 2048), ("e-huge", 256)] {
        cases.push(refused(&format!("T17 {kid}"), token("RS256", kid).sign_with(|m| padded(m, size))));
    }
    // R the neutral point and S = 0 hold for every message under that key.
    let neutral = [identity, [0; 32]].concat();
    cases.push(refused("T20 a key of small order", token("EdDSA", "small-order").sign_with(|_| neutral)));
    cases.push(refused("T20 an Ed448 key", token("EdDSA", "ed448").sign_with(|m| all.ed.sign("EdDSA", m))));
    (idp, cases)
}

/// `alg`, `use` and `key_ops` of a key hold whatever a token says; a symmetric key of a set is none.
pub(super) fn key_rules() -> (Idp, Vec<Case>) {
    let all = keys();
    let with = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let secret = [7; 32];
    let published = vec![
        with(all.rsa.jwk("rs256"), "alg", json!("RS256")),
        with(all.rsa.jwk("ps256"), "alg", json!("PS256")),
        with(all.es256.jwk("enc"), "use", json!("enc")),
        with(all.es256.jwk("ops"), "key_ops", json!(["sign"])),
        json!({ "kty": "oct", "kid": "oct", "alg": "HS256", "k": b64(secret) }),
        all.rsa.jwk("twin"),
        all.es256.jwk("twin"),
        all.ed.jwk("twin"),
        with(all.es256_other.jwk("ops-good"), "key_ops", json!(["verify"])),
    ];
    let idp = Idp::with_keys(published);
    let token = |key, kid: &str| Token::of(&idp, "shop-web").key(key, kid);
    let as_alg = |kid: &str, alg: &str| token(&all.rsa, kid).header("alg", alg).sign();
    let hs = token(&all.es256, "oct").header("alg", "HS256");
    let cases = vec![
        bring("T07 as the key says", Expect::Pass, as_alg("rs256", "RS256")),
        bring("T07 as the other key says", Expect::Pass, as_alg("ps256", "PS256")),
        refused("T07 PS256 by a key for RS256", as_alg("rs256", "PS256")),
        refused("T07 RS256 by a key for PS256", as_alg("ps256", "RS256")),
        refused("T07 RS512 by a key for RS256", as_alg("rs256", "RS512")),
        refused("T09 HS256 by a key of the set", hs.sign_with(|message| hs256(&secret, message))),
        refused("T10 a key for encryption", token(&all.es256, "enc").sign()),
        refused("T10 a key that may not verify", token(&all.es256, "ops").sign()),
        bring("T10 a key that may", Expect::Pass, token(&all.es256_other, "ops-good").sign()),
        bring("T29 the RSA key of that id", Expect::Pass, token(&all.rsa, "twin").sign()),
        bring("T29 the EC key of that id", Expect::Pass, token(&all.es256, "twin").sign()),
        bring("T29 the Ed25519 key of that id", Expect::Pass, token(&all.ed, "twin").sign()),
        refused("T29 another EC key", token(&all.es256_other, "twin").sign()),
    ];
    (idp, cases)
}

fn cases(world: &'static World) -> Vec<Case> {
    let mut all = algorithms(world);
    all.extend(confusions(world));
    all.extend(signatures(world));
    all.extend(paddings(world));
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

/// Signatures of the right key in another form. The many forms of the vector files are in `tests/conformance`.
fn paddings(world: &World) -> Vec<Case> {
    let rsa = || world.token().key(&keys().rsa, "rsa");
    let by = |claimed: &str, made: &'static str| rsa().header("alg", claimed).sign_with(|m| keys().rsa.sign(made, m));
    let mut all = vec![
        refused("T18 the digest of another hash", by("RS256", "RS384")),
        refused("T18 PSS under a PKCS#1 name", by("RS256", "PS256")),
        refused("T18 the padded digest itself", rsa().sign_with(|m| padded(m, 256))),
        refused("T18 a leading zero", rsa().sign_with(|m| [&[0], keys().rsa.sign("RS256", m).as_slice()].concat())),
        refused("T18 zeros", rsa().sign_with(|_| vec![0; 256])),
        refused("T18 larger than the modulus", rsa().sign_with(|_| vec![0xff; 256])),
        refused("T19 another hash and salt", by("PS256", "PS384")),
        refused("T19 another hash and salt, longer", by("PS256", "PS512")),
        refused("T19 PKCS#1 under a PSS name", by("PS256", "RS256")),
        bring("T19 its own", Expect::Pass, by("PS256", "PS256")),
    ];
    let ed = || world.token().key(&keys().ed, "ed");
    all.push(refused("T20 S plus the order", ed().sign_with(|m| plus_order(keys().ed.sign("EdDSA", m)))));
    all.push(refused("T20 R of small order", ed().sign_with(|_| [vec![1], vec![0; 63]].concat())));
    all
}

/// EMSA-PKCS1-v1_5 (RFC 8017 section 9.2) with SHA-256.
fn padded(message: &[u8], size: usize) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message);
    let info = [&SHA256_INFO[..], digest.as_ref()].concat();
    let fill = vec![0xff; size.saturating_sub(info.len() + 3)];
    [&[0, 1][..], &fill, &[0], &info].concat()
}

/// The same signature in a spelling that only a lax verifier takes: S + L.
fn plus_order(mut signature: Vec<u8>) -> Vec<u8> {
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ED25519_ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    signature
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

/// Where heads may be as long as that: by what is counted, a token beyond 64 KiB meets nothing but its length, neither
/// the digest of a look-up nor base64 nor a signature; one within it is refused by its form. Memory stays.
#[test]
fn what_is_far_too_long_is_not_even_read() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let config = Config::orders(&idp, &upstream.url()).proxy("max_header_bytes = \"4MiB\"");
    let gate = Gate::start(|ports| config.text(ports));
    let nested = |depth: usize| {
        let claims = Token::of(&idp, "shop-web").claims_text();
        format!("{},\"deep\":{}{}}}", claims.trim_end_matches('}'), "[".repeat(depth), "]".repeat(depth))
    };
    let token = |depth: usize| Token::of(&idp, "shop-web").raw_payload(nested(depth).as_bytes());
    let counted = || {
        let lookups = gate.metric("tollgate_cache_lookups_total", &[]);
        let malformed = gate.metric("tollgate_token_verifications_total", &["outcome=\"malformed\""]);
        let good = gate.metric("tollgate_token_verifications_total", &["outcome=\"ok\""]);
        (lookups, malformed, good, gate.metric("process_resident_memory_bytes", &[]))
    };
    let send = |via: Via, token: &str| block_on(gate.send(via, &Request::get("/orders/v1/items/{m}").bearer(token)));
    assert_eq!(send(Via::H1, &token(20)).status, 200, "that deep is not too deep");
    // Bytes, dots, nested arrays; then those of a length that is looked at.
    let long = ["x".repeat(1 << 20), ".".repeat(1_000_000), token(100_000)];
    let short = [".".repeat(64 << 10), token(20_000)];
    // What the first ones make of buffers does not count.
    let round = || long.iter().for_each(|token| assert_eq!(send(Via::H1, token).status, 401));
    (0..10).for_each(|_| round());
    let before = counted();
    for _ in 0..10 {
        for token in &long {
            let answer = send(Via::H1, token);
            assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("900901")), "{answer:?}");
        }
    }
    let after = counted();
    assert_eq!((after.0, after.1, after.2), (before.0, before.1 + 30.0, before.2), "nothing looked them up");
    let grown = (after.3 - before.3) / f64::from(1 << 20);
    assert!(grown < 16.0, "{grown} MiB");
    for via in BOTH {
        for token in &short {
            assert_eq!(send(*via, token).status, 401, "{via:?}");
        }
    }
    assert!(counted().0 > after.0, "what is short enough is looked for");
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

/// The order of Ed25519's base point (RFC 8032 section 5.1), little-endian.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// DigestInfo of SHA-256 (RFC 8017 section 9.2, note 1).
const SHA256_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
