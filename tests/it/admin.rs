//! The admin door: metrics, liveness, readiness, and nothing else.

use crate::support::{Config, Form, Gate, Idp, Request, Via, block_on, world};

#[test]
fn only_its_own_paths() {
    let gate = &world(Form::Wso2).gate;
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(gate.admin(path).status, 200, "{path}");
    }
    for path in [
        "/",
        "/metrics/",
        "/metricsx",
        "/metrics/../livez",
        "/admin",
        "/debug/pprof",
        "/orders/v1/public/1",
        "//metrics",
    ] {
        assert!(matches!(gate.admin(path).status, 400 | 404), "{path}");
    }
    // And the proxy door has none of them.
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(block_on(gate.send(Via::H1, &Request::get(path))).status, 404, "{path}");
    }
}

#[test]
fn readiness_tells_of_key_managers_and_configuration() {
    let world = world(Form::Wso2);
    let ready = world.gate.admin("/readyz");
    assert_eq!((ready.status, ready.text().trim()), (200, "ready"));
    let verbose = world.gate.admin("/readyz?verbose");
    let state = verbose.json();
    assert_eq!(state["ready"], true, "{}", verbose.text());
    let managers = state["key_managers"].as_array().unwrap();
    let ready = |name: &str| managers.iter().find(|m| m["name"] == name).map(|m| m["ready"].clone());
    assert_eq!(ready("main"), Some(true.into()), "{state}");
    assert_eq!(ready("down"), Some(false.into()), "{state}");
    assert!(managers.iter().find(|m| m["name"] == "main").is_some_and(|m| m["keys_age_s"].is_number()), "{state}");
    assert!(state["config"]["generation"].is_number() && state["config"]["last_error"].is_null(), "{state}");
}

#[test]
fn metrics_are_named_counted_and_bounded() {
    let world = world(Form::Wso2);
    let gate = &world.gate;
    let granted = || gate.metric("tollgate_requests_total", &["api=\"Bare\"", "outcome=\"granted\"", "door=\"proxy\""]);
    let before = granted();
    let token = world.bearer("anyone");
    for _ in 0..3 {
        let request = Request::get("/bare/v1/items/{m}").bearer(&token);
        assert_eq!(block_on(gate.send(Via::H1, &request)).status, 200);
    }
    assert!(granted() >= before + 3.0, "{} {before}", granted());
    for n in 0..20 {
        let request = Request::get(&format!("/nowhere-{n}/{{m}}")).bearer(format!("kid-{n}"));
        block_on(gate.send(Via::H1, &request));
    }
    let text = gate.metrics();
    assert!(!text.contains("nowhere-") && !text.contains("kid-1"), "a label comes from a request");
    for name in [
        "tollgate_requests_total",
        "tollgate_check_duration_seconds_bucket",
        "tollgate_cache_lookups_total",
        "tollgate_jwks_age_seconds",
        "tollgate_connection_errors_total",
        "tollgate_config_reloads_total",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
    }
    assert!(text.contains("api=\"_none\""), "requests without an API are counted");
}

#[test]
fn what_nobody_has_done_yet_is_0_and_not_absent() {
    let (idp, steps) = (
        Idp::start(),
        ["path", "resolve", "credential", "authenticate", "revocation", "subscription", "scope", "throttle", "grant"],
    );
    let gate = Gate::start(|ports| Config::orders(&idp, "echo:").text(ports));
    let text = gate.metrics();
    let at_0 = |series: &str| text.lines().any(|line| line.strip_prefix(series) == Some(" 0"));
    for step in steps {
        assert!(at_0(&format!("tollgate_step_duration_seconds_count{{step=\"{step}\"}}")), "{step}");
    }
    assert_eq!(gate.metric("tollgate_step_duration_seconds_count", &[]), 0.0);
    for series in [
        "tollgate_check_duration_seconds_count",
        "tollgate_cache_lookups_total{cache=\"tokens\",outcome=\"hit\"}",
        "tollgate_config_reloads_total{outcome=\"failed\"}",
        "tollgate_connection_errors_total{reason=\"parse\"}",
        "tollgate_upstream_errors_total{reason=\"connect\"}",
        "tollgate_jwks_fetches_total{key_manager=\"main\",outcome=\"unreachable\"}",
        "tollgate_access_lines_dropped_total",
    ] {
        assert!(at_0(series), "{series}");
    }
}

#[test]
fn every_metric_has_help_and_type() {
    let text = world(Form::Wso2).gate.metrics();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let known =
            |kind: &str| text.contains(&format!("# {kind} {base} ")) || text.contains(&format!("# {kind} {name} "));
        assert!(known("HELP") && known("TYPE"), "{line}");
        assert!(name.starts_with("tollgate_") || name.starts_with("process_"), "{line}");
    }
}
