//! Claims beyond those of the RFCs: paths, required ones, other names, whose token it is, which key manager's.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::{
    Backend, Case, Config, Expect, Form, Gate, Idp, Request, Token, Via, block_on, check_all, key_manager, resource,
};

const AUDIENCE: &str = "audience = [\"orders-api\"]";

/// A gate with one provider, with further lines of its key manager.
fn gate(idp: &Idp, upstream: &Backend, lines: &str, more: &str) -> Gate {
    let mut config = Config::orders(idp, &upstream.url());
    config.rest = config.rest.replacen(AUDIENCE, &format!("{AUDIENCE}\n{lines}"), 1);
    let config = config.with(more);
    Gate::start(|ports| config.text(ports))
}

fn item(name: &str, expect: Expect, token: &Token) -> Case {
    let token = token.sign();
    Case::new(name, expect, move || Request::get("/orders/v1/items/{m}").bearer(&token))
}

#[test]
fn a_name_with_dots_is_a_member_before_it_is_a_path() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let lines =
        "scopes_claim = \"a.b\"\nconsumer_key_claim = \"who.client\"\nrequired_claims = { \"a.b\" = \"orders:read\" }";
    let headers = "\n[identity_headers]\nclaims = { \"a.b\" = \"X-Auth-Ab\" }\n";
    let gate = gate(&idp, &upstream, lines, headers);
    let token = |extra: Value| {
        let base = Token::of(&idp, "ignored")
            .without("client_id")
            .without("scope")
            .claim("who", json!({"client": "shop-web"}));
        extra.as_object().unwrap().iter().fold(base, |token, (name, value)| token.claim(name, value.clone()))
    };
    let (read, other) = (json!("orders:read"), json!("other"));
    let cases = [
        item("nested", Expect::Pass, &token(json!({"a": {"b": read}}))),
        item("flat", Expect::Pass, &token(json!({"a.b": read}))),
        item("both, the flat one is good", Expect::Pass, &token(json!({"a": {"b": other}, "a.b": read}))),
        item("both, the nested one is good", Expect::T401, &token(json!({"a": {"b": read}, "a.b": other}))),
        item("neither", Expect::T401, &token(json!({"a": {"c": read}}))),
        item("through a list", Expect::T401, &token(json!({"a": [{"b": read}]}))),
        item(
            "a consumer key that is not where it should be",
            Expect::NOT_SUBSCRIBED,
            &token(json!({"a.b": read, "who.client": "x"})),
        ),
    ];
    check_all(&gate, &[&upstream], Form::Wso2, &cases);
    // What is told to the upstream is what was judged.
    for claims in [json!({"a": {"b": other}, "a.b": read}), json!({"a": {"b": read}})] {
        let request = Request::get("/orders/v1/items/{m}").bearer(token(claims).sign());
        let answer = block_on(gate.send(Via::H1, &request));
        assert_eq!(answer.forwarded_field("x-auth-ab"), ["orders:read"]);
    }
}

#[test]
fn required_claims_are_whole_and_exact() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let lines = "required_claims = { email = [\"ada@corp.com\", \"a.b@corp.com\"], hd = \"corp.com\", \
                 groups = [\"ops\", \"dev.*\"], verified = true }";
    let gate = gate(&idp, &upstream, lines, "");
    let good = Token::of(&idp, "shop-web")
        .claim("email", "ada@corp.com")
        .claim("hd", "corp.com")
        .claim("groups", json!(["x", "ops"]))
        .claim("verified", true);
    let mut cases = vec![
        item("all hold", Expect::Pass, &good),
        item("a group as a text", Expect::Pass, &good.clone().claim("groups", "ops")),
        item("the literal with a dot and a star", Expect::Pass, &good.clone().claim("groups", "dev.*")),
    ];
    for (claim, values) in [
        (
            "email",
            &["a@evil.com@corp.com", "ada@corp.com.evil", "ada@corp.co", "Ada@corp.com", "axb@corp.com", "", " "][..],
        ),
        ("hd", &["evil.com@corp.com", "corp.com.evil", "corpxcom", "evil.com\ncorp.com"]),
        ("groups", &["developers", "dev", "ops dev", "OPS", "*", ""]),
    ] {
        for value in values {
            cases.push(item(&format!("{claim} {value:?}"), Expect::T401, &good.clone().claim(claim, *value)));
        }
        cases.push(item(&format!("no {claim}"), Expect::T401, &good.clone().without(claim)));
    }
    for value in [json!(false), json!(null), json!(""), json!([])] {
        cases.push(item(&format!("verified {value}"), Expect::T401, &good.clone().claim("verified", value)));
    }
    check_all(&gate, &[&upstream], Form::Wso2, &cases);
}

#[test]
fn a_rule_that_would_ask_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    for (line, field) in [
        ("required_claims = { groups = [\"ops\", \"\"] }", "required_claims.groups"),
        ("required_claims = { groups = [] }", "required_claims.groups"),
        ("required_claims = { groups = \"\" }", "required_claims.groups"),
        ("required_claims = { verified = false }", "required_claims.verified"),
        ("required_claims = { \"\" = true }", "required_claims"),
        ("token_match = { tenant = \"\" }", "token_match.tenant"),
        ("token_match = { tenant = \"(\" }", "token_match.tenant"),
        ("claim_mappings = { x = \"exp\" }", "claim_mappings.x"),
        ("audience = [\"\"]", "audience"),
        (
            "secret_keys = [{ alg = \"HS256\", secret = \"short\" }]\nalgorithms = [\"HS256\"]\ndiscovery = false",
            "secret_keys[0]",
        ),
        ("algorithms = [\"HS256\"]\ndiscovery = false\njwks_uri = \"https://idp.example.com/\"", "algorithms"),
    ] {
        let text = format!(
            "[proxy]\nlisten = \"127.0.0.1:1\"\n[[key_managers]]\nname = \"m\"\nconnector = \"oidc\"\n\
             issuer = \"https://idp.example.com\"\n{line}\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(78), "{line}: {told}");
        assert!(told.contains(&format!("key_managers[0].{field}")), "{line}: {told}");
        assert!(!told.contains("short\""), "{told}");
    }
}

#[test]
fn mapped_claims_are_known_by_their_local_names() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let lines = "claim_mappings = { \"contact.mail\" = \"email\", upn = \"sub\" }";
    let headers =
        "\n[identity_headers]\nclaims = { email = \"X-Auth-Email\", upn = \"X-Auth-Upn\", name = \"X-Auth-Name\" }\n";
    let gate = gate(&idp, &upstream, lines, headers);
    let token = Token::of(&idp, "shop-web").claim("upn", "ada@corp").claim("name", "Ada");
    let fields = |token: &Token| {
        let request = Request::get("/orders/v1/items/{m}").bearer(token.sign());
        let answer = block_on(gate.send(Via::H1, &request));
        assert_eq!(answer.status, 200, "{answer:?}");
        ["x-auth-email", "x-auth-upn", "x-auth-name", "x-auth-subject"]
            .map(|name| answer.forwarded_field(name).concat())
    };
    let mapped = token.clone().claim("contact", json!({"mail": "ada@x"})).claim("email", "mallory@x");
    assert_eq!(fields(&mapped), ["ada@x", "", "Ada", "ada@corp"]);
    // The local name's own claim is not what is meant by it.
    assert_eq!(fields(&token.clone().claim("email", "mallory@x")), ["", "", "Ada", "ada@corp"]);
    assert_eq!(fields(&token.without("upn")), ["", "", "Ada", ""]);
}

/// Whose a token is follows from the subject that it is known by.
#[test]
fn a_mapped_subject_tells_an_applications_token_from_a_users() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let mut api = String::from("\n[[apis]]\nname = \"Levels\"\ncontext = \"/levels\"\nsubscription = \"none\"\n");
    let _ = writeln!(api, "upstream = \"{}\"", upstream.url());
    api.push_str(&resource("/app/{id}", "auth_level = \"application\""));
    api.push_str(&resource("/user/{id}", "auth_level = \"application_user\""));
    let gate = gate(&idp, &upstream, "claim_mappings = { upn = \"sub\" }", &api);
    let token = Token::of(&idp, "shop-web");
    let mut cases = Vec::new();
    for (name, token, is_user) in [
        ("a user without sub", token.clone().without("sub").claim("upn", "ada@corp"), true),
        ("a user whose sub is the client", token.clone().claim("sub", "shop-web").claim("upn", "ada@corp"), true),
        ("the client", token.clone().claim("upn", "shop-web"), false),
        ("nobody", token, false),
    ] {
        let token = token.sign();
        for (path, good) in [("app", !is_user), ("user", is_user)] {
            let (token, target) = (token.clone(), format!("/levels/{path}/{{m}}"));
            let expect = if good { Expect::Pass } else { Expect::WRONG_LEVEL };
            cases.push(Case::new(format!("{name} at {path}"), expect, move || Request::get(&target).bearer(&token)));
        }
    }
    check_all(&gate, &[&upstream], Form::Wso2, &cases);
}

#[test]
fn a_resource_may_ask_for_an_applications_token_or_a_users() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let mut api = String::from("\n[[apis]]\nname = \"Levels\"\ncontext = \"/levels\"\nsubscription = \"none\"\n");
    let _ = writeln!(api, "upstream = \"{}\"", upstream.url());
    api.push_str(&resource("/app/{id}", "auth_level = \"application\""));
    api.push_str(&resource("/user/{id}", "auth_level = \"application_user\""));
    api.push_str(&resource("/any/{id}", ""));
    api.push_str(&resource("/maybe/{id}", "auth = \"optional\"\nauth_level = \"application\""));
    let gate = gate(&idp, &upstream, "", &api);
    let user = Token::of(&idp, "shop-web");
    let mut cases = Vec::new();
    for (name, token, app, person) in [
        ("aut APPLICATION", user.clone().claim("aut", "APPLICATION"), true, false),
        ("aut application", user.clone().claim("aut", "application"), true, false),
        ("aut APPLICATION_USER", user.clone().claim("aut", "APPLICATION_USER"), false, true),
        ("aut of another kind", user.clone().claim("aut", "X"), false, false),
        ("no aut, a user", user.clone(), false, true),
        ("no aut, the client", user.clone().claim("sub", "shop-web"), true, false),
        ("no aut, no subject", user.clone().without("sub"), true, false),
        (
            "Keycloak's service account",
            user.clone().claim("preferred_username", "service-account-shop-web"),
            true,
            false,
        ),
    ] {
        let token = token.sign();
        for (path, good) in [("app", app), ("user", person), ("any", true), ("maybe", app)] {
            let (token, target) = (token.clone(), format!("/levels/{path}/{{m}}"));
            let expect = if good { Expect::Pass } else { Expect::WRONG_LEVEL };
            cases.push(Case::new(format!("{name} at {path}"), expect, move || Request::get(&target).bearer(&token)));
        }
    }
    cases.push(Case::new("anonymous at maybe", Expect::Pass, || Request::get("/levels/maybe/{m}")));
    cases.push(Case::new("anonymous at app", Expect::M401, || Request::get("/levels/app/{m}")));
    check_all(&gate, &[&upstream], Form::Wso2, &cases);
}

#[test]
fn one_issuer_shared_by_two_key_managers_is_told_by_all_claims() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let lines = "token_match = { kind = \"[a-z]+\", tenant = \"one\" }";
    let two =
        key_manager("other", &idp, &format!("{AUDIENCE}\ntoken_match = {{ kind = \"[0-9]+\", tenant = \"one|two\" }}"));
    let applications = "\n[[applications]]\nname = \"other\"\nowner = \"ada\"\n\
        keys = [{ key_manager = \"other\", consumer_key = \"shop-web\" }]\n";
    let gate = gate(&idp, &upstream, lines, &(two + applications));
    let token = |kind: &str, tenant: &str| Token::of(&idp, "shop-web").claim("kind", kind).claim("tenant", tenant);
    let cases = [
        item("the first's", Expect::Pass, &token("abc", "one")),
        item("the second's, which is not subscribed", Expect::NOT_SUBSCRIBED, &token("123", "one")),
        item("only the last claim fits the first", Expect::T401, &token("a1", "one")),
        item("only the first claim fits", Expect::T401, &token("abc", "two")),
        item("a part of a value fits", Expect::T401, &token("abc", "one-two")),
        item("none is there", Expect::T401, &Token::of(&idp, "shop-web")),
    ];
    check_all(&gate, &[&upstream], Form::Wso2, &cases);
}
