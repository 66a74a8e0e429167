//! 7: Identity headers towards the backend.

use super::{Section, run_section};
use crate::support::{Case, Expect, Form, Request, Via, World, block_on, world};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("I01", "identity_of_the_client_never_passes"),
        ("I02", "identity_of_the_client_never_passes"),
        ("I03", "identity_of_the_client_never_passes"),
        ("I04", "hop_by_hop_lists_cannot_remove_ours"),
        ("I05", "an_absent_claim_is_not_inherited"),
        ("I06", "a_claim_of_several_values_is_one_field"),
        ("I07", "identity_in_trailers_is_dropped"),
        ("I08", "proxy::the_credential_is_removed"),
        ("I10", "backend_jwt::it_is_short_lived_and_verifies_by_the_published_keys, assertion::tests"),
        ("I11", "backend_jwt::nobody_is_told_of_another"),
    ],
    waits: &[(
        "I09",
        "does not apply: there are no mirrors and error pages, and redirects are passed on, not followed",
    )],
};

#[test]
fn identity_headers() {
    run_section(&SECTION);
}

fn cases(_: &'static World) -> Vec<Case> {
    let injected = || Request::get("/orders/v1/public/{m}").host("a\"; for=1.2.3.4");
    vec![
        Case::new("I12 Host injection", Expect::BAD, injected).only(&[Via::H1]),
        // There the parser is the first to say no.
        Case::new("I12 Host injection", Expect::Parser(&[400, 0]), injected).only(&[Via::H2]),
    ]
}

/// Every name that would carry an identity, in the spellings an upstream may fold together.
fn spellings() -> Vec<String> {
    let names = [
        "X-Auth-Subject",
        "X-Auth-Client-Id",
        "X-Auth-Scopes",
        "X-Auth-Application",
        "X-Auth-Tier",
        "X-Auth-Email",
        "X-JWT-Assertion",
        "Client-Cert",
        "Client-Cert-Chain",
        "X-Forwarded-Client-Cert",
        "X-WSO2-CLIENT-CERTIFICATE",
        "X-User",
    ];
    let forms = |name: &str| {
        [
            name.into(),
            name.to_ascii_lowercase(),
            name.to_ascii_uppercase(),
            name.replace('-', "_"),
            name.replace('-', "."),
            mixed(name),
        ]
    };
    names.iter().flat_map(|name| forms(name)).collect()
}

fn mixed(name: &str) -> String {
    name.replacen('-', "_", 1)
}

#[test]
fn identity_of_the_client_never_passes() {
    let world = world(Form::Wso2);
    let token = world.token().claim("email", "a@example.com").sign();
    for via in crate::support::BOTH {
        for target in ["/orders/v1/public/{m}", "/orders/v1/maybe/{m}", "/orders/v1/items/{m}"] {
            for names in spellings().chunks(40) {
                let mut request = Request::get(target);
                if target.contains("items") {
                    request = request.bearer(&token);
                }
                for name in names {
                    request = request.header(name, "forged").header(name, "");
                }
                let answer = block_on(world.gate.send(*via, &request));
                assert_eq!(answer.status, 200, "{via:?} {target} {answer:?}");
                let head = answer.forwarded();
                assert!(!head.contains("forged"), "{via:?} {target} {head}");
            }
        }
    }
}

#[test]
fn hop_by_hop_lists_cannot_remove_ours() {
    let world = world(Form::Wso2);
    let token = world.bearer("shop-web");
    for list in
        ["X-Auth-Subject, Authorization", "close, x-auth-subject, x-auth-client-id", "x-forwarded-for, via, host"]
    {
        let request = Request::get("/orders/v1/items/{m}").bearer(&token).header("connection", list);
        let answer = block_on(world.gate.send(Via::H1, &request));
        assert_eq!(answer.status, 200, "{list} {answer:?}");
        assert_eq!(answer.forwarded_field("x-auth-subject"), ["alice"], "{list}");
        assert_eq!(answer.forwarded_field("x-auth-client-id"), ["shop-web"], "{list}");
        assert_eq!(answer.forwarded_field("x-forwarded-for").len(), 1, "{list}");
        assert_eq!(answer.forwarded_field("host").len(), 1, "{list}");
    }
}

#[test]
fn an_absent_claim_is_not_inherited() {
    let world = world(Form::Wso2);
    for via in crate::support::BOTH {
        let request =
            Request::get("/orders/v1/items/{m}").bearer(world.bearer("shop-web")).header("x-auth-email", "forged");
        let answer = block_on(world.gate.send(*via, &request));
        assert_eq!(answer.status, 200);
        assert!(answer.forwarded_field("x-auth-email").is_empty(), "{}", answer.forwarded());
    }
}

#[test]
fn a_claim_of_several_values_is_one_field() {
    let world = world(Form::Wso2);
    let token = world.token().claim("email", serde_json::json!(["a@example.com", "b,\r\nx-evil: 1"])).sign();
    for via in crate::support::BOTH {
        let request = Request::get("/orders/v1/items/{m}")
            .bearer(&token)
            .header("x-auth-email", "forged")
            .header("X_Auth_Email", "forged");
        let answer = block_on(world.gate.send(*via, &request));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.forwarded_field("x-auth-email"), ["a@example.com,b%2C%0D%0Ax-evil:%201"], "{via:?}");
        assert!(!answer.forwarded().contains("forged"), "{}", answer.forwarded());
    }
}

#[test]
fn identity_in_trailers_is_dropped() {
    let world = world(Form::Wso2);
    for via in crate::support::BOTH {
        let request = Request::post("/orders/v1/plain/{m}")
            .bearer(world.bearer("shop-web"))
            .header("trailer", "x-auth-subject, x_jwt_assertion, authorization, x-kept")
            .trailer("x-kept", "1")
            .trailer("x-auth-subject", "forged")
            .trailer("x_jwt_assertion", "forged")
            .trailer("authorization", "forged");
        let answer = block_on(world.gate.send(*via, &request));
        assert_eq!(answer.status, 200, "{via:?} {answer:?}");
        assert_eq!(answer.json()["body_len"], 5, "{via:?}");
        assert!(answer.text().contains("x-kept: 1"), "others pass: {via:?} {}", answer.text());
        assert!(!answer.text().contains("forged"), "{via:?} {}", answer.text());
    }
}
