//! Metrics as a scrape sees them.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::*;

#[test]
fn what_is_bounded_starts_at_0() {
    let text = Metrics::new().render();
    for reason in ConnectionError::ALL {
        assert_line(&text, &format!("tollgate_connection_errors_total{{reason=\"{}\"}} 0", reason.label()));
    }
    for reason in UpstreamError::ALL {
        assert_line(&text, &format!("tollgate_upstream_errors_total{{reason=\"{}\"}} 0", reason.label()));
    }
    for line in [
        "tollgate_config_reloads_total{outcome=\"ok\"} 0",
        "tollgate_config_reloads_total{outcome=\"failed\"} 0",
        "tollgate_access_lines_dropped_total 0",
        "tollgate_connections_open{door=\"proxy\"} 0",
        "tollgate_check_duration_seconds_count 0",
        concat!("tollgate_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert_line(&text, line);
    }
}

#[test]
fn every_event_is_counted_under_its_own_label() {
    let metrics = Metrics::new();
    metrics.connection_error(ConnectionError::Http2);
    metrics.upstream_error(UpstreamError::Timeout);
    metrics.config_reloaded(false);
    let open = metrics.connection_opened(Door::Proxy);
    let text = metrics.render();
    for line in [
        "tollgate_connection_errors_total{reason=\"http2\"} 1",
        "tollgate_connection_errors_total{reason=\"reset\"} 0",
        "tollgate_upstream_errors_total{reason=\"timeout\"} 1",
        "tollgate_config_reloads_total{outcome=\"failed\"} 1",
        "tollgate_config_reloads_total{outcome=\"ok\"} 0",
        "tollgate_connections_open{door=\"proxy\"} 1",
    ] {
        assert_line(&text, line);
    }
    drop(open);
    assert_line(&metrics.render(), "tollgate_connections_open{door=\"proxy\"} 0");
}

#[test]
fn requests_are_counted_by_verdict() {
    let (metrics, orders, nobody) = (Metrics::new(), ApiCounters::default(), ApiCounters::default());
    for _ in 0..3 {
        metrics.count_request(&orders, Door::Proxy, "Orders \"1\"", 0, "granted", "granted");
    }
    metrics.count_request(&orders, Door::Proxy, "Orders \"1\"", 63, "denied", "scope");
    metrics.count_request(&nobody, Door::Proxy, "_none", REASONS, "denied", "no_api");
    let text = metrics.render();
    for line in [
        r#"tollgate_requests_total{api="Orders \"1\"",door="proxy",outcome="granted",reason="granted"} 3"#,
        r#"tollgate_requests_total{api="Orders \"1\"",door="proxy",outcome="denied",reason="scope"} 1"#,
        r#"tollgate_requests_total{api="_none",door="proxy",outcome="denied",reason="no_api"} 1"#,
    ] {
        assert_line(&text, line);
    }
}

#[test]
fn above_500_apis_none_is_named() {
    let metrics = Metrics::new();
    metrics.set_api_count(MAX_NAMED_APIS + 1);
    for api in ["a", "b"] {
        metrics.count_request(&ApiCounters::default(), Door::Proxy, api, 0, "granted", "granted");
    }
    let line = r#"tollgate_requests_total{api="",door="proxy",outcome="granted",reason="granted"} 2"#;
    assert_line(&metrics.render(), line);
    metrics.set_api_count(MAX_NAMED_APIS);
    metrics.count_request(&ApiCounters::default(), Door::Proxy, "a", 0, "granted", "granted");
    assert_line(&metrics.render(), &line.replace("api=\"\"", "api=\"a\"").replace("} 2", "} 1"));
}

#[test]
fn ages_of_removed_key_managers_go() {
    let metrics = Metrics::new();
    metrics.set_jwks_ages([("one", 7), ("two", 8)].into_iter());
    metrics.set_jwks_ages([("two", 9)].into_iter());
    let text = metrics.render();
    assert_line(&text, "tollgate_jwks_age_seconds{key_manager=\"two\"} 9");
    assert!(!text.contains("\"one\""), "{text}");
}

#[test]
fn the_age_of_the_tables_starts_again() {
    let metrics = Metrics::new();
    metrics.tables_since_ms.store(u64::MAX, Ordering::Relaxed);
    assert_line(&metrics.render(), "tollgate_snapshot_age_seconds 0");
    metrics.tables_replaced();
    assert_ne!(metrics.tables_since_ms.load(Ordering::Relaxed), u64::MAX);
}

/// Every line has a form of the text format; every family has its HELP and TYPE before its samples.
#[test]
fn the_text_is_well_formed() {
    let metrics = Metrics::new();
    metrics.count_request(&ApiCounters::default(), Door::Proxy, "Orders", 0, "granted", "granted");
    let sample = regex_lite::Regex::new(r#"^[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+$"#)
        .expect("a valid pattern");
    let mut family = String::new();
    for line in metrics.render().lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap_or_default().to_owned();
            assert!(help.len() > family.len() + 1 && help.ends_with('.'), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert!(kind.starts_with(&format!("{family} ")), "{line}");
            assert_eq!(kind.ends_with(" counter"), family.ends_with("_total"), "{line}");
        } else {
            assert!(line.starts_with(&family) && sample.is_match(line), "{line}");
        }
    }
}

/// Says nothing where `promtool` is not installed; the interop run has it.
#[test]
fn promtool_is_silent() {
    let metrics = Metrics::new();
    metrics.count_request(&ApiCounters::default(), Door::Proxy, "Orders", 0, "granted", "granted");
    metrics.set_jwks_ages([("one", 7)].into_iter());
    metrics.check_duration.observe(Duration::from_micros(3));
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("skipped: promtool is not installed");
        return;
    };
    let mut stdin = promtool.stdin.take().expect("is piped");
    stdin.write_all(metrics.render().as_bytes()).expect("promtool reads");
    drop(stdin);
    let said = promtool.wait_with_output().expect("promtool ends");
    assert!(
        said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(),
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
}

fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
}
