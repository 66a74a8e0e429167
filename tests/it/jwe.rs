//! Encrypted tokens: what is inside is judged like any other; whatever is wrong outside is one and the same refusal.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Backend, Case, Config, Expect, Form, Gate, Idp, Recipient, Request, Sealed, Token, b64, check_all, key_manager,
    keys,
};

/// A gate whose first key manager has decryption keys, and whose second has none.
struct Setting {
    gate: Gate,
    idp: Idp,
    second: Idp,
    upstream: Backend,
    rsa: Recipient,
    ec: Recipient,
    okp: Recipient,
    only: Recipient,
    _folder: TempDir,
}

fn setting() -> Setting {
    let (idp, second, upstream) = (Idp::start(), Idp::start(), Backend::start("production"));
    let (rsa, ec, okp) = (Recipient::rsa("rsa"), Recipient::p256("ec"), Recipient::x25519("okp"));
    let mut only = Recipient::p256("only");
    only.jwk["alg"] = "ECDH-ES".into();
    let folder = tempfile::tempdir().unwrap();
    let (one, set) = (folder.path().join("rsa.json"), folder.path().join("set.json"));
    std::fs::write(&one, rsa.jwk.to_string()).unwrap();
    std::fs::write(&set, json!({ "keys": [ec.jwk, okp.jwk, only.jwk] }).to_string()).unwrap();
    let audience = "audience = [\"orders-api\"]";
    let mut config = Config::orders(&idp, &upstream.url());
    let lines = format!(
        "{audience}\ndecryption_keys = [{{ file = \"{}\" }}, {{ file = \"{}\" }}]",
        one.display(),
        set.display()
    );
    config.rest = config.rest.replacen(audience, &lines, 1);
    let applications = "\n[[applications]]\nname = \"second\"\nowner = \"ada\"\n\
        keys = [{ key_manager = \"second\", consumer_key = \"shop-web\" }]\n[[subscriptions]]\n\
        application = \"second\"\napi = \"Orders:v1\"\ntier = \"Unlimited\"\n";
    let config = config.with(&key_manager("second", &second, audience)).with(applications);
    let gate = Gate::start(|ports| config.text(ports));
    Setting { gate, idp, second, upstream, rsa, ec, okp, only, _folder: folder }
}

fn case(name: impl Into<String>, expect: Expect, token: String) -> Case {
    Case::new(name, expect, move || Request::get("/orders/v1/items/{m}").bearer(&token))
}

fn refused(name: impl Into<String>, token: String) -> Case {
    case(name, Expect::T401, token)
}

#[test]
fn encrypted_tokens() {
    let setting = setting();
    let mut cases = good(&setting);
    cases.extend(contents(&setting));
    cases.extend(headers(&setting));
    cases.extend(wrapped(&setting));
    cases.extend(parts(&setting));
    check_all(&setting.gate, &[&setting.upstream], Form::Wso2, &cases);
}

fn token(setting: &Setting) -> String {
    Token::of(&setting.idp, "shop-web").sign()
}

fn sealed(setting: &Setting, more: Value) -> Sealed {
    setting.ec.seal("ECDH-ES", "A128GCM", more, token(setting).as_bytes())
}

fn good(setting: &Setting) -> Vec<Case> {
    let Setting { rsa, ec, okp, only, .. } = setting;
    let mut all = vec![case("not encrypted", Expect::Pass, token(setting))];
    for (recipient, algorithm) in [(rsa, "RSA-OAEP-256"), (ec, "ECDH-ES"), (okp, "ECDH-ES"), (only, "ECDH-ES")] {
        for encryption in ["A128GCM", "A256GCM"] {
            let sealed = recipient.seal(algorithm, encryption, json!({}), token(setting).as_bytes());
            assert_eq!(sealed.protected(), b64(sealed.header.to_string()));
            all.push(case(
                format!("{} {algorithm} {encryption}", recipient.jwk["kid"]),
                Expect::Pass,
                sealed.compact(),
            ));
        }
    }
    all.push(case("no kid", Expect::Pass, sealed(setting, json!({"kid": null})).compact()));
    all.push(case("cty in lower case", Expect::Pass, sealed(setting, json!({"cty": "jwt"})).compact()));
    all
}

/// T37: inside must be a signed token of the key manager whose key it is.
fn contents(setting: &Setting) -> Vec<Case> {
    let seal = |content: &str| setting.ec.seal("ECDH-ES", "A256GCM", json!({}), content.as_bytes()).compact();
    let inner = Token::of(&setting.idp, "shop-web");
    let none = inner.clone().header("alg", "none").sign_with(|_| Vec::new());
    let foreign = Token::of(&setting.second, "shop-web").sign();
    vec![
        refused("T37 alg none inside", seal(&none)),
        refused("T37 bare claims inside", seal(&inner.claims_text())),
        refused("T37 nothing inside", seal("")),
        refused("T37 encrypted twice", seal(&seal(&inner.sign()))),
        refused("T37 another's signature inside", seal(&inner.clone().key(&keys().es256_other, "es256").sign())),
        refused("T37 an expired token inside", seal(&inner.clone().claim("exp", 1).sign())),
        refused("T37 a token of another key manager inside", seal(&foreign)),
        case("T37 which passes by itself", Expect::Pass, foreign),
        refused("T37 not said to be a JWT", sealed(setting, json!({"cty": null})).compact()),
        refused("T37 said to be something else", sealed(setting, json!({"cty": "text/plain"})).compact()),
    ]
}

/// T38 and T39, and whatever else a header may ask for.
fn headers(setting: &Setting) -> Vec<Case> {
    let with = |more: Value| sealed(setting, more).compact();
    let stranger = Recipient::p256("ec");
    vec![
        refused("T38 zip", with(json!({"zip": "DEF"}))),
        refused("T38 zip of another kind", with(json!({"zip": ""}))),
        refused("T39 PBES2", with(json!({"alg": "PBES2-HS256+A128KW", "p2c": 2_147_483_648_u64, "p2s": b64([7; 16])}))),
        refused("T40 dir", with(json!({"alg": "dir"}))),
        refused("T40 RSA1_5", with(json!({"alg": "RSA1_5", "kid": "rsa"}))),
        refused("T40 RSA-OAEP with SHA-1", with(json!({"alg": "RSA-OAEP", "kid": "rsa"}))),
        refused("T40 A128CBC-HS256", with(json!({"enc": "A128CBC-HS256"}))),
        refused("T40 another algorithm than it was made by", with(json!({"alg": "RSA-OAEP-256", "kid": "rsa"}))),
        refused("T40 another encryption than it was made by", with(json!({"enc": "A256GCM"}))),
        refused("T40 another than the key is for", {
            let more = json!({"kid": "only"});
            setting.rsa.seal("RSA-OAEP-256", "A128GCM", more, token(setting).as_bytes()).compact()
        }),
        refused("T40 crit", with(json!({"crit": ["exp"]}))),
        refused("T40 a kid that there is not", with(json!({"kid": "gone"}))),
        refused("T40 a kid of another key", with(json!({"kid": "rsa"}))),
        refused("T40 kid no text", with(json!({"kid": ["ec"]}))),
        refused("T40 for another recipient", {
            stranger.seal("ECDH-ES", "A128GCM", json!({}), token(setting).as_bytes()).compact()
        }),
    ]
}

/// Well made, for the gate's own keys, by an algorithm that is not taken.
fn wrapped(setting: &Setting) -> Vec<Case> {
    let mut all = Vec::new();
    for recipient in [&setting.ec, &setting.okp, &setting.only] {
        for algorithm in ["ECDH-ES+A128KW", "ECDH-ES+A256KW"] {
            for encryption in ["A128GCM", "A256GCM"] {
                let kid = &recipient.jwk["kid"];
                for (said, more) in [("", json!({})), (", no kid", json!({"kid": null}))] {
                    let sealed = recipient.seal(algorithm, encryption, more, token(setting).as_bytes());
                    let name = format!("T40 not taken: {kid} {algorithm} {encryption}{said}");
                    all.push(refused(name, sealed.compact()));
                }
            }
        }
    }
    all
}

/// T40: each part bent, and the ephemeral key.
fn parts(setting: &Setting) -> Vec<Case> {
    let point = |x: &str, y: &str| json!({"epk": {"kty": "EC", "crv": "P-256", "x": x, "y": y}});
    let zero = b64([0; 32]);
    let own = &setting.ec.jwk;
    let mut all = vec![
        refused("T40 no epk", sealed(setting, json!({"epk": null})).compact()),
        refused("T40 epk at infinity", sealed(setting, point(&zero, &zero)).compact()),
        refused("T40 epk off the curve", {
            sealed(setting, point(own["y"].as_str().unwrap(), own["x"].as_str().unwrap())).compact()
        }),
        refused("T40 epk too short", sealed(setting, point("AA", "AA")).compact()),
        refused("T40 epk of another curve", {
            sealed(setting, json!({"epk": {"kty": "EC", "crv": "P-384", "x": zero, "y": zero}})).compact()
        }),
        refused("T40 epk of another type", {
            sealed(setting, json!({"epk": {"kty": "OKP", "crv": "X25519", "x": zero}})).compact()
        }),
        refused("T40 X25519 of order 1", {
            let more = json!({"epk": {"kty": "OKP", "crv": "X25519", "x": zero}});
            setting.okp.seal("ECDH-ES", "A128GCM", more, token(setting).as_bytes()).compact()
        }),
    ];
    for (name, recipient, algorithm) in [("rsa", &setting.rsa, "RSA-OAEP-256"), ("direct", &setting.ec, "ECDH-ES")] {
        let good = recipient.seal(algorithm, "A128GCM", json!({}), token(setting).as_bytes());
        let mut bend = |what: &str, change: fn(&mut Sealed)| {
            let mut bent = good.clone();
            change(&mut bent);
            all.push(refused(format!("T40 {name}: {what}"), bent.compact()));
        };
        bend("a longer key", |s| s.key.push(0));
        bend("a huge key", |s| s.key = vec![1; 4000]);
        bend("another nonce", |s| s.nonce[0] ^= 1);
        bend("a short nonce", |s| s.nonce.truncate(11));
        bend("no nonce", |s| s.nonce.clear());
        bend("another content", |s| s.content[0] ^= 1);
        bend("no content", |s| s.content.clear());
        bend("another tag", |s| s.tag[15] ^= 1);
        bend("a short tag", |s| s.tag.truncate(12));
        bend("no tag", |s| s.tag.clear());
        bend("a longer tag", |s| s.tag.push(0));
        bend("another header", |s| s.header["more"] = 1.into());
        if name != "direct" {
            bend("no key", |s| s.key.clear());
            bend("another key", |s| s.key[3] ^= 1);
            bend("a short key", |s| s.key.truncate(s.key.len() - 1));
        }
        let text = good.compact();
        all.push(refused(format!("T40 {name}: padding"), format!("{text}==")));
        all.push(refused(format!("T40 {name}: six parts"), format!("{text}.AA")));
        all.push(refused(format!("T40 {name}: four parts"), text.rsplit_once('.').unwrap().0.to_owned()));
    }
    all
}

#[test]
fn files_that_hold_no_private_key_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (good, key, config) = (Recipient::p256("a").jwk, folder.path().join("key.json"), folder.path().join("c.toml"));
    let with = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        jwk.to_string()
    };
    let other = Recipient::p256("a").jwk;
    let check = |text: &str| {
        std::fs::write(&key, text).unwrap();
        let lines = format!(
            "[proxy]\nlisten = \"127.0.0.1:1\"\n[[key_managers]]\nname = \"m\"\nconnector = \"oidc\"\n\
             issuer = \"https://idp.example.com\"\ndecryption_keys = [{{ file = \"{}\" }}]\n",
            key.display()
        );
        std::fs::write(&config, lines).unwrap();
        let command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["check", "--config"])
            .arg(&config)
            .output();
        let output = command.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!told.contains(good["d"].as_str().unwrap()), "{told}");
        (output.status.code(), told)
    };
    let (code, told) = check(&good.to_string());
    assert_eq!(code, Some(0), "{told}");
    for bad in [
        String::new(),
        "{}".into(),
        json!({ "keys": [] }).to_string(),
        json!({ "keys": [good, {}] }).to_string(),
        with("d", Value::Null),
        with("d", "AA".into()),
        with("d", other["d"].clone()),
        with("x", other["x"].clone()),
        with("crv", "P-384".into()),
        with("use", "sig".into()),
        with("key_ops", json!(["sign"])),
        with("alg", "RSA-OAEP-256".into()),
        with("alg", "ES256".into()),
        with("alg", "ECDH-ES+A128KW".into()),
        with("alg", "ECDH-ES+A256KW".into()),
    ] {
        let (code, told) = check(&bad);
        assert_eq!(code, Some(78), "{bad}: {told}");
        assert!(told.contains("key_managers[0].decryption_keys[0].file"), "{told}");
    }
}
