//! 12: Authorisation, subscription, throttling.

use super::{Section, run_section};
use crate::support::{Case, Expect, Request, World};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("A05", "introspection::an_opaque_token_needs_a_subscription_too"),
        ("A06", "reload::another_limit_or_tier_of_the_same_window_goes_on_with_what_was_used"),
        ("A07", "throttle::buckets_are_not_joined_by_concatenation"),
        ("A08", "throttle::no_header_escapes_the_bucket"),
        ("A09", "shared_counters::batches_are_reconciled_and_no_request_asks"),
        ("A10", "shared_counters::while_redis_is_away_the_rule_holds_and_shows"),
        ("A11", "refusals::a_429_says_when_to_come_back"),
        (
            "A13",
            "throttle::refused_requests_count_nowhere, introspection::a_flood_of_one_address_is_stopped, \
             introspection::bad_jwts_stay_401_and_spend_no_allowance",
        ),
        (
            "A16",
            "refusals::every_refusal_in_wso2_form, levels::every_level_in_every_state_with_and_without_a_stop, \
             levels::whom_a_deny_condition_names_is_blocked, levels::custom_rules_count_by_the_key_that_a_request_makes, \
             levels::a_backend_limit_protects_each_environment",
        ),
    ],
    waits: &[
        ("A04", "API keys are no credential here"),
        ("A12", "covered where the clock and the windows are: a process cannot step the machine's clock"),
        ("A14", "policy languages are not in the design"),
    ],
};

#[test]
fn authorisation() {
    run_section(&SECTION);
}

fn cases(world: &'static World) -> Vec<Case> {
    let mut all = scopes(world);
    all.extend(states(world));
    for method in ["OPTIONS", "DELETE", "PATCH"] {
        let token = world.bearer("shop-web");
        all.push(Case::new(format!("A15 {method} is in no rule"), Expect::NO_RESOURCE, move || {
            Request::new(method, "/orders/v1/items/{m}").bearer(&token)
        }));
    }
    all.push(Case::new("A15 HEAD follows GET", Expect::Parser(&[401]), || {
        Request::new("HEAD", "/orders/v1/items/{m}")
    }));
    all
}

fn scopes(world: &World) -> Vec<Case> {
    let case = |name: &str, expect: Expect, method: &'static str, target: &'static str, scope: &str| {
        let token = world.token().claim("scope", scope).sign();
        Case::new(name, expect, move || Request::new(method, target).bearer(&token))
    };
    vec![
        case("A01 GET with its scope", Expect::Pass, "GET", "/orders/v1/items/{m}", "orders:read"),
        case("A01 POST without its scope", Expect::s403("orders:write"), "POST", "/orders/v1/items/{m}", "orders:read"),
        case("A01 POST with its scope", Expect::Pass, "POST", "/orders/v1/items/{m}", "orders:write"),
        case("A01 HEAD needs GET's scope", Expect::Parser(&[403]), "HEAD", "/orders/v1/items/{m}", "orders:write"),
        case("A02 any of two", Expect::Pass, "GET", "/orders/v1/any/{m}", "b"),
        case("A02 any of two, neither", Expect::s403("a b"), "GET", "/orders/v1/any/{m}", "c"),
        case("A02 all of two, one", Expect::s403("a b"), "GET", "/orders/v1/all/{m}", "b"),
        case("A02 all of two, both", Expect::Pass, "GET", "/orders/v1/all/{m}", "b a"),
        case("A02 empty list", Expect::Pass, "GET", "/orders/v1/plain/{m}", ""),
        Case::new("A02 empty list still needs a token", Expect::M401, || Request::get("/orders/v1/plain/{m}")),
    ]
}

fn states(world: &World) -> Vec<Case> {
    let case = |name: &str, expect: Expect, client: &str| {
        let token = world.bearer(client);
        Case::new(name, expect, move || Request::get("/orders/v1/plain/{m}").bearer(&token))
    };
    vec![
        case("A03 missing", Expect::NOT_SUBSCRIBED, "app-unsubscribed"),
        case("A03 no application", Expect::NOT_SUBSCRIBED, "never-heard-of"),
        case("A03 BLOCKED", Expect::BLOCKED, "app-blocked"),
        case("A03 PROD_ONLY_BLOCKED", Expect::BLOCKED, "app-prod-blocked"),
        case("A03 PROD_ONLY_BLOCKED, sandbox key", Expect::Pass, "app-prod-blocked-sandbox"),
        case("A03 ON_HOLD", Expect::INACTIVE, "app-on-hold"),
        case("A03 REJECTED", Expect::INACTIVE, "app-rejected"),
        case("A03 TIER_UPDATE_PENDING", Expect::Pass, "app-tier-pending"),
        case("A03 DELETE_PENDING", Expect::Pass, "app-delete-pending"),
    ]
}
