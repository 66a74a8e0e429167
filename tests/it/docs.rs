//! What the papers say, held against the program.

use std::collections::BTreeSet;

use serde_json::json;

use crate::{
    management::Desk,
    support::{Form, Request, Via, block_on, world},
};

#[test]
fn the_readme_names_every_metric_and_no_other() {
    let world = world(Form::Wso2);
    let token = world.bearer("shop-web");
    // Some series begin with their first event.
    for _ in 0..300 {
        block_on(world.gate.send(Via::H1, &Request::get("/orders/v1/items/{m}").bearer(&token)));
    }
    for _ in 0..2 {
        block_on(world.gate.send(Via::H1, &Request::get("/tinyapi/v1/items/{m}").bearer(&token)));
    }
    // And some belong to the management door and its record.
    let desk = Desk::start("");
    desk.client(json!({ "clientName": "shop" }));
    let metrics = world.gate.metrics() + &desk.gate.metrics();
    let readme = include_str!("../../README.md");
    assert_eq!(names(readme), names(&metrics));
    for name in names(&metrics) {
        assert!(readme.matches(&format!("\n| `{name}` |")).count() < 2, "{name} has one row");
    }
}

fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let name = |word: &'_ str| ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).is_none();
    words.filter(|word| word.starts_with("tollgate_") && name(word)).collect()
}
