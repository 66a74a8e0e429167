//! The backend JWT as an upstream sees it: verified by the published keys alone, and never about somebody else.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{
    Answer, BOTH, Backend, Config, Gate, Idp, Request, Token, Via, api, block_on, http_get, now, resource,
};

const KEYS: &str = "/.well-known/tollgate-backend-jwks.json";

struct Stand {
    idp: Idp,
    _upstream: Backend,
    gate: Gate,
}

/// Orders, and APIs that ask no subscription; one of them is told nothing.
fn start(section: &str) -> Stand {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let bare = format!("upstream = \"{}\"\nsubscription = \"none\"\n", upstream.url());
    let config = Config::orders(&idp, &upstream.url())
        .with(&subscription_free("Other", "/other", &bare))
        .with(&subscription_free("Silent", "/silent", &format!("{bare}backend_jwt = false")))
        .with(&format!("\n[backend_jwt]\n{section}\n"));
    let gate = Gate::start(|ports| config.text(ports));
    Stand { idp, _upstream: upstream, gate }
}

fn subscription_free(name: &str, context: &str, lines: &str) -> String {
    api(name, context, None, lines) + &resource("/*", "")
}

impl Stand {
    fn call(&self, via: Via, path: &str, token: &str) -> Answer {
        let request =
            Request::get(path).bearer(token).header("x-jwt-assertion", "forged").header("X_JWT.Assertion", "f");
        let answer = block_on(self.gate.send(via, &request));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.forwarded().contains("forged"), "{}", answer.forwarded());
        answer
    }

    fn told(&self, via: Via, path: &str, token: &str) -> Value {
        let answer = self.call(via, path, token);
        let fields = answer.forwarded_field("x-jwt-assertion");
        assert_eq!(fields.len(), 1, "{}", answer.forwarded());
        self.verified(&fields[0])
    }

    /// The claims of a JWT that one of the published keys has signed.
    fn verified(&self, jwt: &str) -> Value {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let header: Value = serde_json::from_slice(&decode(header)).unwrap();
        assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (Some("ES256"), Some("JWT")));
        let set = http_get(self.gate.ports.proxy, KEYS).json();
        let keys = set["keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap_or_else(|| panic!("{header} {set}"));
        assert!(keys.iter().all(|key| key.get("d").is_none()), "a private key is shown");
        let point = [vec![4], decode(key["x"].as_str().unwrap()), decode(key["y"].as_str().unwrap())].concat();
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        verifier.verify(signed.as_bytes(), &decode(signature)).unwrap();
        serde_json::from_slice(&decode(claims)).unwrap()
    }
}

#[test]
fn it_is_short_lived_and_verifies_by_the_published_keys() {
    let stand = start("claims = [\"email\"]");
    let token = Token::of(&stand.idp, "shop-web").claim("email", "a b%@example.com").sign();
    for via in BOTH {
        let claims = stand.told(*via, "/orders/v1/items/{m}", &token);
        let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert!(exp - iat <= 60 && exp > now() && iat <= now() + 1, "{claims}");
        for (name, value) in [
            ("iss", "tollgate"),
            ("sub", "alice"),
            ("aud", "Orders:v1"),
            ("client_id", "shop-web"),
            ("scope", "orders:read orders:write"),
            ("email", "a b%@example.com"),
        ] {
            assert_eq!(claims[name], value, "{name}: {claims}");
        }
    }
    let short = Token::of(&stand.idp, "shop-web").claim("exp", now() + 20).sign();
    let claims = stand.told(Via::H1, "/orders/v1/items/{m}", &short);
    assert!(claims["exp"].as_u64().unwrap() <= now() + 20, "never beyond the token's own: {claims}");
    assert!(stand.gate.leaks(&[token, short]).is_empty());
}

#[test]
fn nobody_is_told_of_another() {
    let stand = start("");
    let users: Vec<(String, String)> = (0..8)
        .map(|n| (format!("user-{n}"), Token::of(&stand.idp, "shop-web").claim("sub", format!("user-{n}")).sign()))
        .collect();
    let mut ids = std::collections::HashMap::new();
    for via in BOTH {
        for _ in 0..3 {
            for (name, token) in &users {
                for (path, audience) in [("/orders/v1/items/{m}", "Orders:v1"), ("/other/{m}", "Other")] {
                    let claims = stand.told(*via, path, token);
                    assert_eq!((claims["sub"].as_str(), claims["aud"].as_str()), (Some(&**name), Some(audience)));
                    let whose = ids.entry(claims["jti"].to_string()).or_insert((name, audience));
                    assert_eq!(*whose, (name, audience), "an assertion is shared");
                }
            }
        }
    }
    assert!(ids.len() < 2 * users.len() * 6, "cached: {}", ids.len());
}

#[test]
fn wso2s_dialect_under_a_name_of_ones_own() {
    let stand = start("header = \"X-Whois\"\nprofile = \"wso2\"");
    let token = Token::of(&stand.idp, "shop-web").sign();
    let request = Request::get("/orders/v1/items/{m}").bearer(&token).header("x_whois", "forged");
    let answer = block_on(stand.gate.send(Via::H1, &request));
    assert!(!answer.forwarded().contains("forged"), "{}", answer.forwarded());
    let claims = stand.verified(&answer.forwarded_field("x-whois")[0]);
    assert_eq!(claims["iss"], "wso2.org/products/am");
    for (name, value) in [
        ("subscriber", "ada"),
        ("applicationname", "shop-web"),
        ("applicationtier", "Unlimited"),
        ("apiname", "Orders"),
        ("apicontext", "/orders/v1"),
        ("version", "v1"),
        ("tier", "Unlimited"),
        ("keytype", "PRODUCTION"),
        ("usertype", "Application_User"),
        ("enduser", "alice"),
    ] {
        assert_eq!(claims[format!("http://wso2.org/claims/{name}")], value, "{name}: {claims}");
    }
}

#[test]
fn the_anonymous_and_apis_without_it_get_none_and_a_reload_keeps_the_keys() {
    let stand = start("");
    let token = Token::of(&stand.idp, "shop-web").sign();
    for path in ["/silent/{m}", "/orders/v1/public/{m}"] {
        let answer = stand.call(Via::H1, path, &token);
        assert!(answer.forwarded_field("x-jwt-assertion").is_empty(), "{path}: {}", answer.forwarded());
    }
    let keys = http_get(stand.gate.ports.proxy, KEYS);
    assert_eq!((keys.status, keys.header("content-type")), (200, Some("application/jwk-set+json")));
    assert_eq!(keys.json()["keys"].as_array().map(Vec::len), Some(2), "the present one and the next");
    assert_eq!(block_on(stand.gate.send(Via::H1, &Request::post(KEYS))).status, 404);
    stand.gate.reload(&stand.gate.config_text().replace("[backend_jwt]", "[backend_jwt]\nissuer = \"gate-7\""));
    stand.gate.wait_for("the new issuer", || stand.told(Via::H2, "/other/{m}", &token)["iss"] == "gate-7");
    assert_eq!(http_get(stand.gate.ports.proxy, KEYS).json(), keys.json());
    let bad = stand.gate.config_text().replace("issuer = \"gate-7\"", "lifetime = \"1h\"");
    stand.gate.reload(&bad);
    stand.gate.wait_for("the refusal", || {
        stand.gate.metric("tollgate_config_reloads_total", &["outcome=\"error\""]) >= 1.0
            || stand.gate.stderr().contains("backend_jwt.lifetime")
    });
    assert_eq!(stand.told(Via::H1, "/other/{m}", &token)["iss"], json!("gate-7"));
}
