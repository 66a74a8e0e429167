//! Answers as people read them: lists as tables, everything else as names and values.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::explain::clean;

/// The answer of an operation.
pub(super) fn text(operation: &str, body: &Value) -> String {
    let Value::Object(object) = body else { return line(body) + "\n" };
    let of_all = object.get("outcomes").map(|rows| (rows, OUTCOMES));
    let listed = of_all.or_else(|| object.get("items").map(|rows| (rows, columns(operation))));
    match listed {
        Some((Value::Array(rows), [])) => rows.iter().map(|row| line(row) + "\n").collect(),
        Some((Value::Array(rows), columns)) => table(rows, columns),
        Some((Value::Object(by_name), _)) => aligned(&by_name.iter().map(named).collect::<Vec<_>>()),
        _ => properties(object),
    }
}

/// The key managers of a change for all at which it failed.
pub(super) fn failed(body: &Value) -> Vec<String> {
    let outcomes = body.get("outcomes").and_then(Value::as_array).into_iter().flatten();
    let failed = outcomes.filter(|outcome| outcome.get("outcome").is_some_and(|what| what == "failed"));
    failed.map(|outcome| outcome.get("keyManager").map_or_else(String::new, line)).collect()
}

/// What of a list's rows is shown, by dotted names; none: each row is one value.
fn columns(operation: &str) -> &'static [&'static str] {
    match operation {
        "listKeyManagers" => &["name", "type", "declaredIn"],
        "retrieveApplicationConsumerSecrets" => {
            &["secretId", "clientSecret", "parameters.description", "parameters.expiresAt"]
        }
        "getAllScopes" | "validateScopes" => &["key", "name", "roles", "description"],
        "listPending" => &["id", "operation", "subject", "since", "attempts", "nextAttempt", "lastError"],
        "listRevocations" => &["kind", "value", "issuer", "before", "until", "id"],
        "listUsage" => &["level", "tier", "api", "resource", "application", "kind", "used", "limit", "resetSeconds"],
        "listAudit" => &["id", "time", "who", "operation", "keyManager", "subject", "outcome", "detail"],
        _ => &[],
    }
}

fn table(rows: &[Value], columns: &[&str]) -> String {
    let head = columns.iter().map(|name| name.rsplit('.').next().unwrap_or(name).to_uppercase()).collect();
    let cells = |row: &Value| columns.iter().map(|name| cell(name, at(row, name))).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    aligned(&lines)
}

/// The value behind a dotted name.
fn at<'v>(row: &'v Value, name: &str) -> Option<&'v Value> {
    name.split('.').try_fold(row, |value, part| value.get(part))
}

fn cell(name: &str, value: Option<&Value>) -> String {
    let text = value.map(|value| moment(name, value).unwrap_or_else(|| line(value))).unwrap_or_default();
    if text.is_empty() { "-".into() } else { text }
}

/// A moment in UTC, by the names that the door gives moments.
fn moment(name: &str, value: &Value) -> Option<String> {
    let number = value.as_u64()?;
    let seconds = match name.rsplit('.').next()? {
        "time" | "since" | "nextAttempt" | "issuedTime" => number / 1000,
        "expiresAt" if number == 0 => return Some("never".into()),
        "expiresAt" | "before" | "until" => number,
        _ => return None,
    };
    // What is later has no such form.
    let moment = (seconds < YEAR_10000).then(|| UNIX_EPOCH + Duration::from_secs(seconds))?;
    Some(httpdate::fmt_http_date(moment))
}

fn named((name, value): (&String, &Value)) -> Vec<String> {
    let keys = value.as_array().map(|scopes| scopes.iter().filter_map(|scope| scope.get("key")).map(line));
    let keys = keys.map(|keys| keys.collect::<Vec<_>>().join(", "));
    vec![clean(name), keys.filter(|keys| !keys.is_empty()).unwrap_or_else(|| "-".into())]
}

/// Each member on a line, those of objects by dotted names.
fn properties(object: &Map<String, Value>) -> String {
    let mut lines = Vec::new();
    flatten("", object, &mut lines);
    aligned(&lines)
}

fn flatten(prefix: &str, object: &Map<String, Value>, lines: &mut Vec<Vec<String>>) {
    for (name, value) in object {
        let name = format!("{prefix}{}", clean(name));
        match value {
            Value::Object(inner) => flatten(&format!("{name}."), inner, lines),
            Value::Null => {}
            value => {
                let cell = cell(&name, Some(value));
                lines.push(vec![name, cell]);
            }
        }
    }
}

/// A value on one line.
fn line(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => clean(text),
        Value::Array(items) => items.iter().map(line).collect::<Vec<_>>().join(", "),
        value => clean(&value.to_string()),
    }
}

/// Columns as wide as their widest cell; nothing behind the last.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Seconds since the epoch.
const YEAR_10000: u64 = 253_402_300_800;
const OUTCOMES: &[&str] = &["keyManager", "outcome", "detail", "result"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_tables_and_nothing_steers_the_terminal() {
        let scopes =
            json!({ "items": [{ "key": "a", "roles": "x,y" }, { "key": "b\u{1b}[2J", "name": "Bé\u{202e}" }] });
        let told = text("getAllScopes", &scopes);
        assert_eq!(
            told,
            "KEY         NAME        ROLES  DESCRIPTION\na           -           x,y    -\nb\\u{1b}[2J  Bé\\u{202e}  -      -\n"
        );
        assert_eq!(text("getAllScopes", &json!({ "items": [] })), "KEY  NAME  ROLES  DESCRIPTION\n");
        let by_api = json!({ "items": { "orders": [{ "key": "a" }, { "key": "b" }], "none": [] } });
        assert_eq!(text("getAllScopes", &by_api), "orders  a, b\nnone    -\n");
        assert_eq!(text("getActiveTokensByConsumerKey", &json!({ "items": ["one", "two"] })), "one\ntwo\n");
    }

    #[test]
    fn an_object_is_names_and_values() {
        let app = json!({ "clientId": "a", "parameters": { "grant_types": "x,y", "more": { "n": 1 } }, "uris": [] });
        assert_eq!(
            text("retrieveApplication", &app),
            "clientId                a\nparameters.grant_types  x,y\nparameters.more.n       1\nuris                    -\n"
        );
        let can = json!({ "createApplication": true, "setTenantDomain": "has no meaning" });
        assert_eq!(text("capabilities", &can), "createApplication  yes\nsetTenantDomain    has no meaning\n");
    }

    #[test]
    fn moments_are_read_by_people() {
        let told = |name: &str, number: u64| cell(name, Some(&json!(number)));
        assert_eq!(told("time", 1_700_000_000_123), "Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(told("parameters.expiresAt", 1_700_000_000), "Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(told("parameters.expiresAt", 0), "never");
        assert_eq!(told("until", u64::MAX), u64::MAX.to_string());
        assert_eq!(told("attempts", 3), "3");
    }

    #[test]
    fn where_it_failed_is_told() {
        let outcomes = json!({ "outcomes": [
            { "keyManager": "one", "outcome": "done", "result": { "key": "a" } },
            { "keyManager": "two", "outcome": "failed", "detail": "gone" },
        ] });
        assert_eq!(failed(&outcomes), ["two"]);
        let told = text("updateScopeEverywhere", &outcomes);
        assert!(told.contains("two         failed   gone    -"), "{told}");
        assert!(failed(&json!({ "items": [] })).is_empty());
    }
}
