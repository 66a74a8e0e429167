//! Every mistake that the tables can hold, and the field it is told by.

use super::tests::build;

const GOOD: &str = r#"
    [[apis]]
    name = "Orders"
    context = "/orders"
    version = "v1"
    upstream = "echo:"
    [[apis.resources]]
    path = "/items"
    [[applications]]
    name = "shop-web"
    owner = "ada"
    keys = [{ consumer_key = "shop" }]
    [[subscriptions]]
    application = "shop-web"
    api = "Orders:v1"
    tier = "Gold"
"#;

/// Each row: what stands in `GOOD`, what stands there instead, and the field that is wrong.
const MISTAKES: &[(&str, &str, &str)] = &[
    (r#"name = "Orders""#, r#"name = """#, "apis[0].name"),
    (r#"context = "/orders""#, r#"context = "orders""#, "apis[0].context"),
    (r#"context = "/orders""#, r#"context = "/orders/""#, "apis[0].context"),
    (r#"context = "/orders""#, r#"context = "/a//b""#, "apis[0].context"),
    (r#"context = "/orders""#, r#"context = "/a/../b""#, "apis[0].context"),
    (r#"context = "/orders""#, r#"context = "/a/{b}""#, "apis[0].context"),
    (r#"version = "v1""#, r#"version = "v1/2""#, "apis[0].version"),
    (r#"version = "v1""#, r#"version = """#, "apis[0].version"),
    (r#"version = "v1""#, r#"version = "..""#, "apis[0].version"),
    (r#"upstream = "echo:""#, r#"upstream = "ftp://a""#, "apis[0].upstream"),
    (r#"upstream = "echo:""#, r#"upstream = []"#, "apis[0].upstream"),
    (r#"upstream = "echo:""#, r#"upstream = ["echo:", ""]"#, "apis[0].upstream[1]"),
    (r#"upstream = "echo:""#, "", "apis[0].upstream"),
    (r#"upstream = "echo:""#, "upstream = 'echo:'\nsandbox = 'echo:'", "apis[0].upstream"),
    (r#"upstream = "echo:""#, r#"production = "http://u@a""#, "apis[0].production"),
    (r#"upstream = "echo:""#, "upstream = 'echo:'\nhosts = ['a', 'a/b']", "apis[0].hosts[1]"),
    (r#"upstream = "echo:""#, "upstream = 'echo:'\ntoken_in = []", "apis[0].token_in"),
    (r#"upstream = "echo:""#, "upstream = 'echo:'\nkey_managers = ['keyclock']", "apis[0].key_managers[0]"),
    (r#"upstream = "echo:""#, "upstream = 'echo:'\naudience = ['']", "apis[0].audience[0]"),
    (r#"upstream = "echo:""#, "upstream = 'echo:'\ntier = 'Golden'", "apis[0].tier"),
    (r#"upstream = "echo:""#, "upstream = 'echo:'\ntier = 'Gold'", "apis[0].tier"),
    ("[[apis.resources]]\n    path = \"/items\"", "", "apis[0].resources"),
    (r#"path = "/items""#, r#"path = "items""#, "apis[0].resources[0].path"),
    (r#"path = "/items""#, r#"path = "/{a}{b}""#, "apis[0].resources[0].path"),
    (r#"path = "/items""#, r#"path = "/x{a}""#, "apis[0].resources[0].path"),
    (r#"path = "/items""#, "path = '/items'\nmethods = []", "apis[0].resources[0].methods"),
    (r#"path = "/items""#, "path = '/items'\nmethods = ['GET', 'post']", "apis[0].resources[0].methods[1]"),
    (r#"path = "/items""#, "path = '/items'\nmethods = ['CONNECT']", "apis[0].resources[0].methods[0]"),
    (r#"path = "/items""#, "path = '/items'\nmethods = ['*', 'TRACE']", "apis[0].resources[0].methods[1]"),
    (r#"path = "/items""#, "path = '/items'\nmethods = ['A B']", "apis[0].resources[0].methods[0]"),
    (r#"path = "/items""#, "path = '/items'\nmethods = ['']", "apis[0].resources[0].methods[0]"),
    (r#"path = "/items""#, "path = '/items'\nscopes = ['a b']", "apis[0].resources[0].scopes[0]"),
    (r#"path = "/items""#, "path = '/items'\nscopes = ['a', '']", "apis[0].resources[0].scopes[1]"),
    (r#"path = "/items""#, "path = '/items'\nscopes = ['a\"']", "apis[0].resources[0].scopes[0]"),
    (r#"path = "/items""#, "path = '/items'\nscopes = ['a\\']", "apis[0].resources[0].scopes[0]"),
    (r#"path = "/items""#, "path = '/items'\nacr_values = ['a', 'b c']", "apis[0].resources[0].acr_values[1]"),
    (r#"path = "/items""#, "path = '/items'\nacr_values = ['a']\nauth = 'none'", "apis[0].resources[0].acr_values"),
    (r#"path = "/items""#, "path = '/items'\nmax_age = '1h'\nauth = 'none'", "apis[0].resources[0].max_age"),
    (r#"path = "/items""#, "path = '/items'\nmax_age = '0'", "apis[0].resources[0].max_age"),
    (r#"path = "/items""#, "path = '/items'\nmax_age = '1500ms'", "apis[0].resources[0].max_age"),
    (r#"path = "/items""#, "path = '/items'\ntier = '50PerMin'", "apis[0].resources[0].tier"),
    (
        r#"path = "/items""#,
        "path = '/items/{a}'\n[[apis.resources]]\npath = '/items/{b}/'",
        "apis[0].resources[1].path",
    ),
    (r#"path = "/items""#, "path = '/é'\n[[apis.resources]]\npath = '/%C3%a9'", "apis[0].resources[1].path"),
    (
        r#"path = "/items""#,
        "path = '/a'\n[[apis.resources]]\npath = '/a'\nmethods = ['GET']",
        "apis[0].resources[1].path",
    ),
    (r#"name = "shop-web""#, r#"name = """#, "applications[0].name"),
    (r#"owner = "ada""#, r#"owner = """#, "applications[0].owner"),
    (r#"owner = "ada""#, "owner = 'ada'\ntier = 'Gold'", "applications[0].tier"),
    (r#"consumer_key = "shop""#, r#"consumer_key = """#, "applications[0].keys[0].consumer_key"),
    (
        r#"{ consumer_key = "shop" }"#,
        "{ consumer_key = 'a' }, { consumer_key = 'a', key_type = 'SANDBOX' }",
        "applications[0].keys[1].consumer_key",
    ),
    (
        r#"consumer_key = "shop""#,
        "consumer_key = 'shop', key_manager = 'keycloac'",
        "applications[0].keys[0].key_manager",
    ),
    (r#"application = "shop-web""#, r#"application = "shop_web""#, "subscriptions[0].application"),
    (r#"api = "Orders:v1""#, r#"api = "Orders""#, "subscriptions[0].api"),
    (r#"tier = "Gold""#, r#"tier = "gold""#, "subscriptions[0].tier"),
    (r#"tier = "Gold""#, r#"tier = "10KPerMin""#, "subscriptions[0].tier"),
    (
        r#"tier = "Gold""#,
        "tier = 'Gold'\n[[subscriptions]]\napplication = 'shop-web'\napi = 'Orders:v1'\ntier = 'Silver'",
        "subscriptions[1].api",
    ),
];

/// Tables that stand after `GOOD`, and the field that is wrong.
const MISTAKEN_TABLES: &[(&str, &str)] = &[
    ("[[tiers]]\nname = ''\nrequests = 1\nper = '1m'", "tiers[0].name"),
    ("[[tiers]]\nname = \"A\\nB\"\nrequests = 1\nper = '1m'", "tiers[0].name"),
    ("[[tiers]]\nname = \"A\\u0085\"\nrequests = 1\nper = '1m'", "tiers[0].name"),
    ("[[tiers]]\nname = 'A'\nper = '1m'", "tiers[0]"),
    ("[[tiers]]\nname = 'A'\ntokens = 1\nbytes = 1\nper = '1m'", "tiers[0]"),
    ("[[tiers]]\nname = 'A'\nbytes = 0\nper = '1m'", "tiers[0].bytes"),
    ("[[tiers]]\nname = 'A'\nbytes = '0'\nper = '1m'", "tiers[0].bytes"),
    ("[[tiers]]\nname = 'A'\nbytes = 70368744177665\nper = '1m'", "tiers[0].bytes"),
    ("[[tiers]]\nname = 'A'\nevents = 0\nper = '1m'", "tiers[0].events"),
    ("[[tiers]]\nname = 'A'\ntokens = 70368744177665\nper = '1m'", "tiers[0].tokens"),
    ("[[tiers]]\nname = 'A'\ntokens = 1\nrequests = 2147483648\nper = '1m'", "tiers[0].requests"),
    ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '1mo'\nalgorithm = 'gcra'", "tiers[0].per"),
    ("[[tiers]]\nname = 'A'\nrequests = 0\nper = '1m'", "tiers[0].requests"),
    ("[[tiers]]\nname = 'A'\nrequests = 2147483648\nper = '1m'", "tiers[0].requests"),
    ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '0m'", "tiers[0].per"),
    ("[[tiers]]\nname = 'A'\nrequests = 1\nper = 'm'", "tiers[0].per"),
    ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '1'", "tiers[0].per"),
    ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '1w'", "tiers[0].per"),
    ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '99999999999d'", "tiers[0].per"),
    ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '121mo'", "tiers[0].per"),
    (
        "[[tiers]]\nname = 'A'\nrequests = 1\nper = '1m'\nburst = { requests = 0, per = '1s' }",
        "tiers[0].burst.requests",
    ),
    ("[[tiers]]\nname = 'A'\nrequests = 1\nper = '1m'\nburst = { requests = 1, per = '1mo' }", "tiers[0].burst.per"),
    (
        "[[tiers]]\nname = 'A'\nrequests = 1\nper = '1m'\n[[tiers]]\nname = 'A'\nrequests = 2\nper = '1m'",
        "tiers[1].name",
    ),
    (
        "[[tiers]]\nname = 'A'\nrequests = 1\nper = '1m'\nlevel = 'advanced'\n[[tiers.conditions]]\n\
         when = [{ query = 'q', matches = 'x' }]\nlimit = { requests = 0, per = '1m' }",
        "tiers[0].conditions[0].limit.requests",
    ),
    (
        "[[tiers]]\nname = 'A'\nrequests = 1\nper = '1m'\nlevel = 'advanced'\n[[tiers.conditions]]\n\
         when = [{ query = 'q', matches = 'x' }]\nlimit = { requests = 2147483648, per = '1m' }",
        "tiers[0].conditions[0].limit.requests",
    ),
    (
        "[[apis]]\nname = 'L'\ncontext = '/l'\nupstream = 'echo:'\nresources = [{ path = '/' }]\n\
         backend_limit = { production = { requests = 0, per = '1s' } }",
        "apis[1].backend_limit.production.requests",
    ),
    (
        "[[apis]]\nname = 'L'\ncontext = '/l'\nupstream = 'echo:'\nresources = [{ path = '/' }]\n\
         backend_limit = { sandbox = { requests = 0, per = '1s' } }",
        "apis[1].backend_limit.sandbox.requests",
    ),
    (
        "[[apis]]\nname = 'Orders'\nversion = 'v1'\ncontext = '/o'\nupstream = 'echo:'\nresources = [{ path = '/' }]",
        "apis[1].name",
    ),
    (
        "[[apis]]\nname = 'B'\ncontext = '/orders/v1'\nupstream = 'echo:'\nresources = [{ path = '/items/' }]",
        "apis[1].resources[0].path",
    ),
    ("[[applications]]\nname = 'shop-web'\nowner = 'bob'", "applications[1].name"),
    (
        "[[applications]]\nname = 'b'\nowner = 'bob'\nkeys = [{ consumer_key = 'shop' }]",
        "applications[1].keys[0].consumer_key",
    ),
];

#[test]
fn every_mistake_is_named_once_with_its_field() {
    build(GOOD).unwrap();
    let replaced = MISTAKES.iter().map(|(good, bad, field)| {
        assert!(GOOD.contains(good), "{good}");
        (GOOD.replacen(good, bad, 1), field)
    });
    let added = MISTAKEN_TABLES.iter().map(|(bad, field)| (format!("{GOOD}{bad}"), field));
    for (toml, field) in replaced.chain(added) {
        let problems = build(&toml).err().unwrap_or_else(|| panic!("{field}: not refused\n{toml}"));
        let mut fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        // What refers to something unnamed is a mistake too.
        fields.retain(|it| it == field || !it.starts_with("subscriptions"));
        assert_eq!(fields, [*field], "{problems:?}\n{toml}");
    }
}

#[test]
fn all_mistakes_come_in_one_run() {
    let toml = GOOD.replace("/orders", "orders").replace("echo:", "").replace("Gold", "Golden").replace("ada", "");
    let fields: Vec<String> = build(&toml).unwrap_err().into_iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["apis[0].context", "apis[0].upstream", "applications[0].owner", "subscriptions[0].tier"]);
}

#[test]
fn the_nearest_name_is_told_and_no_value_quoted() {
    for (good, bad, nearest) in [
        ("Gold", "Golb", "`Gold`"),
        ("Orders:v1", "Orders:v2", "`Orders:v1`"),
        (r#"application = "shop-web""#, r#"application = "shop-wep""#, "`shop-web`"),
        (r#"consumer_key = "shop""#, "consumer_key = 'shop', key_manager = 'keycloac'", "`keycloak`"),
    ] {
        let file = if good == "Orders:v1" { GOOD.replace(good, bad) } else { GOOD.replacen(good, bad, 1) };
        let problems = build(&file).unwrap_err();
        assert!(problems[0].message.contains(nearest), "{problems:?}");
        assert!(!problems[0].message.contains(bad), "{problems:?}");
    }
}

#[test]
fn the_key_manager_may_be_left_out_only_when_there_is_one() {
    for (key_managers, expected) in [("[]", false), ("['keycloak']", true), ("['a', 'b']", false)] {
        let built = build(&format!("key_managers = {key_managers}\n{GOOD}"));
        assert_eq!(built.is_ok(), expected, "{key_managers}");
    }
}
