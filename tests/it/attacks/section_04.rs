//! 4: Opaque tokens, introspection, caches, revocation.

use serde_json::{Value, json};

use super::{Section, bring, run_section};
use crate::support::{Case, Expect, Request, World, now, unique};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("O01", "introspection::one_token_of_two_providers_is_judged_by_each"),
        ("O03", "introspection::what_joins_alike_is_told_apart"),
        ("O04", "introspection::interleaved_tokens_never_cross"),
        ("O05", "introspection::an_answer_ends_at_exp"),
        ("O06", "introspection::an_answer_without_exp_ends_with_the_ttl"),
        ("O07", "introspection::no_is_remembered_for_a_few_seconds"),
        ("O08", "introspection::a_flood_of_one_address_is_stopped"),
        ("O10", "introspection::a_failing_provider_is_503_and_never_a_verdict"),
        ("O11", "introspection::refused_credentials_are_our_own_trouble"),
        ("O14", "introspection::signed_answers_are_verified"),
        ("O15", "introspection::under_both_the_signature_is_checked_here"),
        ("O19", "introspection::changed_facts_count_within_the_ttl"),
        ("O20", "introspection::a_failing_provider_is_503_and_never_a_verdict"),
        ("O21", "token::asking_tests::a_flood_evicts_no_good_token_and_memory_stays_within_the_cap"),
        ("O22", "token::introspection_tests::no_token_shows_in_what_is_remembered; every row looks for leaks"),
        ("O16", "revocation::o16_each_kind_of_event_refuses_its_tokens_at_every_gate_at_once"),
        // Events come from Redis, authenticated by its users and TLS; there is no HTTP receiver to forge at.
        ("O17", "revocation::o17_no_door_takes_events"),
        ("O18", "revocation::o18_malformed_entries_are_counted_and_revoke_nothing"),
    ],
    waits: &[],
};

#[test]
fn opaque_tokens() {
    run_section(&SECTION);
}

fn cases(world: &'static World) -> Vec<Case> {
    let mut all = policy(world);
    all.extend(activity(world));
    all.extend(issuers(world));
    all.extend(bound(world));
    all.extend(others(world));
    all
}

/// A token that the provider says this of.
fn told(world: &World, change: impl FnOnce(&mut Value)) -> String {
    let token = format!("op_of_section_four_{}", unique());
    let mut answer = world.opaque.told("shop-web");
    change(&mut answer);
    world.opaque.say(&token, &answer);
    token
}

fn member(world: &World, name: &str, value: impl Into<Value>) -> String {
    told(world, |answer| answer[name] = value.into())
}

fn without(world: &World, name: &str) -> String {
    told(world, |answer| {
        answer.as_object_mut().and_then(|members| members.shift_remove(name));
    })
}

/// One token on several routes: whatever comes first, each judges it anew.
fn policy(world: &World) -> Vec<Case> {
    let token = member(world, "scope", "orders:read");
    let case = |name: &str, expect, method: &'static str, target: &'static str| {
        let token = token.clone();
        Case::new(name, expect, move || Request::new(method, target).bearer(&token))
    };
    vec![
        case("O02 its scope", Expect::Pass, "GET", "/orders/v1/items/{m}"),
        case("O02 another scope", Expect::s403("orders:write"), "POST", "/orders/v1/items/{m}"),
        case(
            "O02 the API's audience",
            Expect::refused(403, "900914", crate::support::Challenge::Absent, "7"),
            "GET",
            "/special/v1/items/{m}",
        ),
        case("O02 another key manager's API", Expect::T401, "GET", "/second/v1/items/{m}"),
        case("O02 its scope again", Expect::Pass, "GET", "/orders/v1/items/{m}"),
    ]
}

fn activity(world: &World) -> Vec<Case> {
    let mut all = vec![
        bring("O09 active", Expect::Pass, told(world, |_| {})),
        bring("O09 unknown to it", Expect::T401, format!("op_never_heard_of_{}", unique())),
        bring("O09 active missing", Expect::T401, without(world, "active")),
        bring("O09 no pattern matches", Expect::T401, format!("xop_{}", unique())),
    ];
    for value in [json!("true"), json!(1), json!("1"), Value::Null, json!([true]), json!({}), json!(false)] {
        all.push(bring(format!("O09 active {value}"), Expect::T401, member(world, "active", value)));
    }
    let twice = format!("op_of_section_four_{}", unique());
    world.opaque.say_text(&twice, "application/json", r#"{"active":false,"active":true}"#.into());
    all.push(bring("O09 active twice", Expect::UNAVAILABLE, twice));
    all
}

fn issuers(world: &World) -> Vec<Case> {
    let issuer = world.opaque.issuer().to_owned();
    let mut all = vec![
        bring("O12 its issuer", Expect::Pass, told(world, |_| {})),
        bring("O12 no issuer", Expect::Pass, without(world, "iss")),
    ];
    for other in [
        json!(world.idp.issuer()),
        json!(format!("{issuer}/")),
        json!(issuer.to_uppercase()),
        json!(""),
        json!([issuer]),
        Value::Null,
    ] {
        all.push(bring(format!("O12 iss {other}"), Expect::T401, member(world, "iss", other)));
    }
    all
}

fn bound(world: &World) -> Vec<Case> {
    vec![
        bring("O13 token_type DPoP", Expect::T401, member(world, "token_type", "DPoP")),
        bring(
            "O13 cnf jkt",
            Expect::T401,
            member(world, "cnf", json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" })),
        ),
        bring(
            "O13 cnf x5t",
            Expect::T401,
            member(world, "cnf", json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" })),
        ),
        bring("O13 cnf of an unknown kind", Expect::T401, member(world, "cnf", json!({ "x": 1 }))),
    ]
}

/// What else an answer may say that makes a token no good.
fn others(world: &World) -> Vec<Case> {
    vec![
        bring("O12 audience of another", Expect::T401, member(world, "aud", "billing")),
        bring("O12 no audience", Expect::T401, without(world, "aud")),
        bring("O05 exp in the past", Expect::T401, member(world, "exp", now() - 60)),
        bring("O05 exp a string", Expect::T401, member(world, "exp", "9999999999")),
        bring("O05 nbf in the future", Expect::T401, member(world, "nbf", now() + 600)),
        bring("O06 no exp", Expect::Pass, without(world, "exp")),
        bring("O09 a refresh token by WSO2", Expect::T401, member(world, "token_type", "Refresh")),
        bring("O09 a refresh token", Expect::T401, member(world, "token_type", "refresh_token")),
        bring("O09 a refresh token by Keycloak", Expect::T401, member(world, "typ", "Refresh")),
        bring("O02 another application", Expect::NOT_SUBSCRIBED, member(world, "client_id", "app-unsubscribed")),
        bring("O02 no application", Expect::NOT_SUBSCRIBED, without(world, "client_id")),
    ]
}
