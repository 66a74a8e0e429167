//! 6: Token extraction.

use super::{Section, run_section};
use crate::support::{Case, Expect, Request, World};

pub(super) const SECTION: Section = Section {
    cases,
    tests: &[
        ("X12", "proxy::client_identity_is_stripped"),
        ("X14", "refusals::every_pass_that_borders_on_a_refusal"),
        (
            "X15",
            "cors::a_preflight_is_answered_without_a_token_and_without_the_upstream, \
             cors::a_preflight_that_is_not_allowed_is_judged_like_any_options",
        ),
    ],
    waits: &[
        ("X08", "tokens in bodies are not in the design"),
        ("X09", "tokens in cookies are not in the design"),
        ("X10", "tokens in Sec-WebSocket-Protocol are not in the design"),
    ],
};

#[test]
fn token_extraction() {
    run_section(&SECTION);
}

fn cases(world: &'static World) -> Vec<Case> {
    let good = world.bearer("shop-web");
    let with = |name: &str, expect: Expect, value: String| {
        Case::new(name, expect, move || Request::get("/orders/v1/items/{m}").header("authorization", &value))
    };
    let two = |name: &str, first: String, second: String| {
        Case::new(name, Expect::R400, move || {
            Request::get("/orders/v1/items/{m}").header("authorization", &first).header("Authorization", &second)
        })
    };
    let bearer = format!("Bearer {good}");
    let mut all = vec![
        two("X01 valid then invalid", bearer.clone(), "Bearer x".into()),
        two("X01 invalid then valid", "Bearer x".into(), bearer.clone()),
        two("X01 the same twice", bearer.clone(), bearer.clone()),
        two("X01 Basic then Bearer", "Basic YTpi".into(), bearer.clone()),
        with("X02 comma-joined", Expect::R400, format!("{bearer}, Bearer bad")),
        with("X02 comma-joined, no space", Expect::R400, format!("{bearer},Bearer {good}")),
        with("X04 lower case", Expect::Pass, format!("bearer {good}")),
        with("X04 upper case", Expect::Pass, format!("BEARER {good}")),
        with("X04 two spaces", Expect::Pass, format!("Bearer  {good}")),
        with("X04 nothing after it", Expect::M401, "Bearer".into()),
        with("X04 spaces after it", Expect::M401, "Bearer   ".into()),
        with("X04 tab", Expect::Either, format!("Bearer\t{good}")),
        with("X04 two words", Expect::R400, format!("Bearer {good} {good}")),
        with("X04 scheme glued", Expect::M401, format!("Bearer{good}")),
        with("X05 Basic", Expect::M401, "Basic YWRhOnB3".into()),
        with("X05 a bare token", Expect::M401, good.clone()),
        with("X05 empty field", Expect::M401, String::new()),
        Case::new("X13 nothing", Expect::M401, || Request::get("/orders/v1/items/{m}")),
        Case::new("X15 OPTIONS is not free", Expect::NO_RESOURCE, || {
            Request::new("OPTIONS", "/orders/v1/items/{m}")
                .header("origin", "https://shop.example.com")
                .header("access-control-request-method", "GET")
        }),
        Case::new("X15 listed OPTIONS passes", Expect::Pass, || Request::new("OPTIONS", "/orders/v1/options/{m}")),
        Case::new("X15 OPTIONS under every verb is judged", Expect::M401, || {
            Request::new("OPTIONS", "/bare/v1/items/{m}")
        }),
    ];
    all.extend(places(&good));
    all.extend(aliases(&good));
    all
}

fn places(good: &str) -> Vec<Case> {
    let query = |name: &str, expect: Expect, target: String| Case::new(name, expect, move || Request::get(&target));
    let both = good.to_owned();
    vec![
        Case::new("X03 header and query", Expect::R400, move || {
            Request::get(&format!("/query/v1/items/{{m}}?access_token={both}")).bearer(&both)
        }),
        query("X06 disabled place", Expect::M401, format!("/orders/v1/items/{{m}}?access_token={good}")),
        query("X06 enabled place", Expect::Pass, format!("/query/v1/items/{{m}}?a=1&access_token={good}&b=2")),
        query("X06 empty", Expect::M401, "/query/v1/items/{m}?access_token=".into()),
        query("X07 twice", Expect::R400, format!("/query/v1/items/{{m}}?access_token={good}&access_token={good}")),
        query("X07 good and bad", Expect::R400, format!("/query/v1/items/{{m}}?access_token={good}&access_token=b")),
        query(
            "X07 another spelling",
            Expect::R400,
            format!("/query/v1/items/{{m}}?access_token={good}&access%5Ftoken=b"),
        ),
    ]
}

/// Names that a careless upstream reads as `Authorization`.
fn aliases(good: &str) -> Vec<Case> {
    let names = ["authorization_", "x_authorization", "proxy-authorization", "x-forwarded-access-token"];
    let case = |name: &'static str| {
        let value = format!("Bearer {good}");
        Case::new(format!("X11 {name}"), Expect::M401, move || {
            Request::get("/orders/v1/items/{m}").header(name, &value)
        })
    };
    names.into_iter().map(case).collect()
}
