//! The configuration as a whole: mistakes and their places, the three formats, the files of `config/`.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use super::{load::parse_with, *};
use crate::problem::Problem;

/// What is said of a text, without the file's name.
fn said(format: Format, text: &str) -> String {
    let error = parse(text, format, "f").map(drop).unwrap_err().to_string();
    error.strip_prefix("f:").unwrap_or(&error).to_owned()
}

#[test]
fn toml_mistakes_name_line_column_and_field() {
    for (text, expected) in [
        ("x = 1", r#"1:1: x: unknown field "x""#),
        ("[prox]\nlisten = 1", r#"1:2: prox: unknown field "prox"; did you mean "proxy"?"#),
        (
            "[[key_managers]]\n\naudiance = []",
            r#"3:1: key_managers[0].audiance: unknown field "audiance"; did you mean "audience"?"#,
        ),
        (
            "[log]\nformat = 'text'\ncolour = 1",
            r#"3:1: log.colour: unknown field "colour"; expected one of "format", "level", "access_sample""#,
        ),
        (
            "[proxy]\nlisten = '[::1]:1'\ntimeouts = { conect = '1s' }",
            r#"3:14: proxy.timeouts.conect: unknown field "conect"; did you mean "connect"?"#,
        ),
        ("\n[proxy]\nmax_headers = 1", r#"2:1: proxy.listen: missing field "listen""#),
        (
            "[[apis]]\nname = 'A'\n[[apis]]\nname = 'B'\ncontext = '/b'\n[[apis.resources]]\nscopes = []",
            r#"1:1: apis[0].context: missing field "context""#,
        ),
        (
            "[[apis]]\nname = 'A'\ncontext = '/a'\n[[apis.resources]]\nscopes = []",
            r#"4:1: apis[0].resources[0].path: missing field "path""#,
        ),
        ("[proxy]\nlisten = 3", "2:10: proxy.listen: expected a string, found a whole number"),
        ("[log]\nformat = 'xml'", r#"2:10: log.format: expected one of "json", "text""#),
        ("[log]\nformat = 2", r#"2:10: log.format: expected one of "json", "text""#),
        ("[log]\naccess_sample = 'all'", "2:17: log.access_sample: expected a number, found a string"),
        ("[throttle]\nheaders = 1", "2:11: throttle.headers: expected true or false, found a whole number"),
        ("log = ['json']", "1:7: log: expected a table, found a list"),
        ("strip_headers = { a = 1 }", "1:17: strip_headers: expected a list, found a table"),
        ("workers = -1", "1:11: workers: expected a whole number, 0 or more"),
        ("workers = 1.5", "1:11: workers: expected a whole number, 0 or more, found a number"),
        ("workers = 99999999999999999999", "1:11: workers: the number is too large"),
        ("workers = 1979-05-27", "1:11: workers: dates and times are not used here; quote it if it is text"),
        ("realm = 'a'\nrealm = 'b'", "2:1: duplicate key"),
        (
            "[cache]\ntokens = '64 MB'",
            r#"2:10: cache.tokens: a size is a whole number and B, KiB, MiB or GiB, such as "64KiB""#,
        ),
        (
            "trusted_proxies = ['127.0.0.1', 'lan']",
            r#"1:33: trusted_proxies[1]: a network is an IP address and a prefix length, such as "10.0.0.0/8", or a single address"#,
        ),
        ("[[apis]]\nname = 'A'\nupstream = ['a', 3]", "3:12: apis[0].upstream: expected a string or a list of strings"),
        (
            "[[key_managers]]\nscopes_claim = 3",
            "2:16: key_managers[0].scopes_claim: expected a claim name or a list of claim names",
        ),
        (
            "[[key_managers]]\nclient_secret = { fil = 'x' }",
            r#"2:17: key_managers[0].client_secret: expected a secret: a string, { file = "…" } or { env = "…" }"#,
        ),
        // A later mistake by name, an earlier one by place.
        ("workers = 'x'\ncache = 1", "1:11: workers: expected a whole number, 0 or more, found a string"),
    ] {
        assert_eq!(said(Format::Toml, text), expected, "{text}");
    }
}

#[test]
fn yaml_mistakes_name_line_column_and_field() {
    for (text, expected) in [
        ("proxy:\n  listen: 3\n", "2:11: proxy.listen: expected a string, found a whole number"),
        ("# é\r\nproxy:\r\n  lisen: 3\r\n", r#"3:3: proxy.lisen: unknown field "lisen"; did you mean "listen"?"#),
        ("apis:\n- name: A\n- 3", r#"2:3: apis[0].context: missing field "context""#),
        ("realm: a\nrealm: b", r#"2:1: realm: "realm" is there twice"#),
        ("realm: &x a", "1:8: realm: anchors and aliases are not used here"),
        ("realm: *x", "1:8: while parsing node, found unknown anchor"),
        ("realm: !x a", "1:8: realm: tags are not used here"),
        ("realm: a\n---\nrealm: b", "3:1: expected a single document"),
        ("1: a", "1:1: expected a name; quote it if it is one"),
        ("? [a]\n: b", "1:3: expected a name; quote it if it is one"),
        ("- a", "1:1: expected a table, found a list"),
        ("realm: no\nlog: yes", "2:6: log: expected a table, found a string"),
        ("throttle: { headers: yes }", "1:22: throttle.headers: expected true or false, found a string"),
    ] {
        assert_eq!(said(Format::Yaml, text), expected, "{text}");
    }
}

#[test]
fn json_mistakes_name_line_column_and_field() {
    for (text, expected) in [
        ("{\n  \"proxy\": {\n    \"listen\": 3 } }", "3:15: proxy.listen: expected a string, found a whole number"),
        (
            "{\n  \"proxy\": {\n    \"lisen\": 3 } }",
            r#"3:5: proxy.lisen: unknown field "lisen"; did you mean "listen"?"#,
        ),
        ("{\n  \"proxy\": {} }", r#"2:12: proxy.listen: missing field "listen""#),
        ("{\"realm\": \"é\",\n \"realm\": \"b\"}", r#"2:2: realm: "realm" is there twice"#),
        ("{\"realm\": \"a\",\n \"r\\u0065alm\": \"b\"}", r#"2:2: realm: "realm" is there twice"#),
        ("{\"realm\": a}", "1:11: expected value"),
        ("{\"realm\": \"a\",}", "1:15: trailing comma"),
        ("{} {}", "1:4: trailing characters"),
        ("{\"workers\": 1e999}", "1:17: workers: number out of range"),
        ("", "1:1: expected a table, found nothing"),
        ("[]", "1:1: expected a table, found a list"),
    ] {
        assert_eq!(said(Format::Json, text), expected, "{text}");
    }
}

#[test]
fn hostile_nesting_is_refused() {
    assert!(said(Format::Json, &"[".repeat(100_000)).contains("EOF"));
    assert!(
        said(Format::Json, &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))).ends_with("nested too deep")
    );
    assert!(said(Format::Yaml, &"[".repeat(100_000)).contains("recursion"));
    assert!(said(Format::Yaml, &"[".repeat(100)).ends_with("nested too deep"));
    assert!(said(Format::Yaml, &"- ".repeat(10_000)).ends_with("nested too deep"));
    assert!(said(Format::Toml, &format!("a = {}", "[".repeat(100_000))).contains("recurs"));
}

#[test]
fn the_three_formats_mean_the_same() {
    let toml = everything();
    let (from_toml, _) = parse(toml.as_str(), Format::Toml, "f").unwrap();
    let json = serde_json::to_string_pretty(&toml::from_str::<Value>(&toml).unwrap()).unwrap();
    assert_eq!(parse(json.as_str(), Format::Json, "f").unwrap().0, from_toml);
    assert_eq!(parse(json.as_str(), Format::Yaml, "f").unwrap().0, from_toml);

    let block = "workers: 2\nlog: { level: debug, access_sample: 1 }\ntls: ~\nproxy:\n  listen: 127.0.0.1:8080\n";
    let block = block.replace("tls: ~\n", "admin: ~\n");
    let toml = "workers = 2\nlog = { level = 'debug' }\nproxy = { listen = '127.0.0.1:8080' }";
    assert_eq!(parse(block, Format::Yaml, "f").unwrap().0, parse(toml, Format::Toml, "f").unwrap().0);
    for (text, format) in
        [("", Format::Toml), ("# nothing\n", Format::Yaml), ("{}", Format::Json), ("\u{feff}", Format::Toml)]
    {
        assert_eq!(parse(text, format, "f").unwrap().0, Settings::default());
    }
}

#[test]
fn variables_are_expanded_in_every_format() {
    let lookup = |name: &str| (name == "REALM").then(|| "shop ${REALM}".to_owned());
    for (text, format) in [
        ("realm = '${REALM}'", Format::Toml),
        ("realm: ${REALM}", Format::Yaml),
        (r#"{"realm": "${REALM}"}"#, Format::Json),
    ] {
        let (settings, _) = parse_with(text.into(), format, "f".into(), &lookup).unwrap();
        assert_eq!(settings.realm, "shop ${REALM}");
    }
    let text = "[[key_managers]]\nclient_secret = 'hunter2${MISSING}'";
    let error = parse_with(text.into(), Format::Toml, "f".into(), &lookup).map(drop).unwrap_err().to_string();
    assert_eq!(error, "f:2:17: key_managers[0].client_secret: environment variable MISSING is not set");
}

#[test]
fn no_message_shows_a_value() {
    let whole: Value = toml::from_str(&everything()).unwrap();
    let markers = [
        json!("hunter2"),
        json!("${hunter2 "),
        json!(["hunter2"]),
        json!([["hunter2"]]),
        json!({ "x": "hunter2" }),
        json!({ "file": "hunter2", "env": "hunter2" }),
        json!(7_700_112_233_u64),
        json!(-7_700_112_233_i64),
        json!(77_001_122.5),
        json!(true),
    ];
    let mut refused = 0;
    for path in paths(&whole) {
        for marker in &markers {
            let mut changed = whole.clone();
            *changed.pointer_mut(&path).unwrap() = marker.clone();
            let said = match parse(changed.to_string(), Format::Json, "f") {
                Err(error) => error.to_string(),
                Ok((settings, document)) => {
                    let problems = [settings.problems(), settings.fail_open_traps(), settings.warnings()].concat();
                    document.explain(problems).to_string()
                }
            };
            refused += usize::from(said.starts_with("f:1:"));
            assert!(
                !said.contains("hunter2") && !said.contains("7001122") && !said.contains("700112"),
                "{path}: {said}"
            );
        }
    }
    assert!(refused > 1_000, "{refused}");
}

#[test]
fn no_syntax_error_shows_a_value() {
    for (text, format) in [
        ("realm = hunter2", Format::Toml),
        ("realm = \"hunter2", Format::Toml),
        ("realm = \"hunter2\" hunter2", Format::Toml),
        ("realm = \"\\hunter2\"", Format::Toml),
        ("realm = hunter2.hunter2\nrealm = 1", Format::Toml),
        ("realm: \"hunter2", Format::Yaml),
        ("realm: [hunter2", Format::Yaml),
        ("realm: \"\\hunter2\"", Format::Yaml),
        ("realm: !!int hunter2", Format::Yaml),
        ("{\"realm\": hunter2}", Format::Json),
        ("{\"realm\": \"hunter2", Format::Json),
        ("{\"realm\": \"\\hunter2\"}", Format::Json),
    ] {
        let said = said(format, text);
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn settings_print_no_secret() {
    let mut whole: Value = toml::from_str(&everything()).unwrap();
    for path in [
        "/key_managers/0/client_secret",
        "/key_managers/0/token",
        "/key_managers/1/clients/0/secret",
        "/store/url",
        "/shared/redis",
        "/shared/password",
    ] {
        *whole.pointer_mut(path).unwrap() = json!("hunter2");
    }
    let (settings, document) = parse(whole.to_string(), Format::Json, "f").unwrap();
    assert!(!format!("{settings:?} {document:?}").contains("hunter2"));
}

#[test]
fn problems_get_their_lines_and_stand_once() {
    let text = "realm = 'a'\n\n[[apis]]\nname = 'A'\ncontext = '/a'\n[[apis.resources]]\npath = '/x'\n\
                [identity_headers.claims]\n'https://x.example/a.b' = 'X-A'\n";
    let (_, document) = parse(text, Format::Toml, "f").unwrap();
    for (field, line) in [
        ("realm", 1),
        ("apis[0]", 3),
        ("apis[0].context", 5),
        ("apis[0].upstream", 3),
        ("apis[0].resources[0].path", 7),
        ("apis[0].resources[0].methods[1]", 6),
        ("apis[7].name", 3),
        ("identity_headers.claims.https://x.example/a.b", 9),
        ("tiers[0].name", 1),
    ] {
        assert_eq!(document.locate(field), Some(line), "{field}");
    }
    let problems = ["apis[0].resources[0].path", "realm", "apis[0].resources[0].path"];
    let error = document.explain(problems.map(|field| Problem::new(field, "is wrong")).to_vec());
    assert_eq!(error.to_string(), "f:1: realm: is wrong\nf:7: apis[0].resources[0].path: is wrong");
}

#[test]
fn files_are_read_by_their_extension() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let write = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).map(|()| path)
    };
    assert_eq!(load(&write("a.yml", b"workers: 3")?)?.0.workers, 3);
    assert_eq!(load(&write("a.JSON", b"{\"workers\": 3}")?)?.0.workers, 3);
    assert!(matches!(load(&write("a.conf", b"")?), Err(Error::Extension { .. })));
    assert!(matches!(load(&write("a.toml", b"realm = '\xff'")?), Err(Error::Encoding { .. })));
    assert!(matches!(load(&dir.path().join("none.toml")), Err(Error::Unreadable { .. })));
    let path = write("b.toml", b"workers = true")?;
    let error = load(&path).map(drop).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{}:1:11: workers: expected a whole number, 0 or more, found true or false", path.display())
    );
    Ok(())
}

#[test]
fn the_files_of_the_repository_are_good() {
    let mut seen = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("connector-openapi.yaml") {
            continue;
        }
        let (settings, document) = load(&path).unwrap_or_else(|error| panic!("{error}"));
        let problems = settings.problems();
        assert!(problems.is_empty(), "{}", document.explain(problems));
        assert_eq!(settings.fail_open_traps(), [], "{}", path.display());
        assert_eq!(settings.warnings(), [], "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 4);
    assert!(quickstart().is_ok());
}

#[test]
fn the_reference_names_every_setting() {
    let whole: Value = toml::from_str(&everything()).unwrap();
    let written: BTreeSet<String> = paths(&whole).into_iter().map(without_indices).collect();
    let schema = schema();
    let mut known = BTreeSet::new();
    fields(&schema, &schema, String::new(), &mut known);
    // What may be limited is told once, of tiers.
    let told = |path: &str| {
        let limit = path.contains(".limit.") || path.contains(".backend_limit.");
        limit && path.rsplit_once('.').is_some_and(|(_, name)| written.contains(&format!("tiers.{name}")))
    };
    let missing: Vec<_> = known.difference(&written).filter(|path| !told(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(known.len() > 140);
}

/// The values that the reference writes out are the defaults, save those it says are needed or examples.
#[test]
fn the_reference_writes_defaults() {
    let (reference, _) = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml")).unwrap();
    let proxy = parse("[proxy]\nlisten = '0.0.0.0:8080'", Format::Toml, "f").unwrap().0.proxy;
    let bare = r#"{"name": "provider", "connector": "oidc", "issuer": "https://idp.example.com/realms/shop", "audience": ["orders-api"]}"#;
    let bare: KeyManagerSettings = serde_json::from_str(bare).unwrap();
    assert_eq!(reference.key_managers[0], bare);
    assert_eq!(reference.proxy, proxy);
    let bare = r#"{"name": "Orders", "context": "/orders", "version": "v1", "upstream": "http://127.0.0.1:3000", "resources": [{"path": "/items/{id}"}]}"#;
    assert_eq!(reference.apis, [serde_json::from_str::<ApiSettings>(bare).unwrap()]);
    // A section that switches something on by being there.
    assert_eq!(reference.backend_jwt, Some(crate::token::assertion::BackendJwtSettings::default()));
    let Settings { proxy, admin, backend_jwt, key_managers, apis, applications, subscriptions, tiers, deny, .. } =
        reference.clone();
    let defaults = Settings {
        proxy,
        admin,
        backend_jwt,
        key_managers,
        apis,
        applications,
        subscriptions,
        tiers,
        deny,
        throttle: crate::throttle::Settings { rules: reference.throttle.rules.clone(), ..Default::default() },
        ..Settings::default()
    };
    assert_eq!(reference, defaults);
}

/// The reference with its commented settings too.
fn everything() -> String {
    let setting = |line: &str| {
        let name = line.split([' ', '=']).next().unwrap_or_default();
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        line.starts_with('[') || (named && line[name.len()..].starts_with(" = "))
    };
    let reference = include_str!("../../config/reference.toml").lines();
    let lines = reference.map(|line| line.strip_prefix("# ").filter(|rest| setting(rest)).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// JSON pointers of everything below `value`.
fn paths(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    let below = |(name, child): (String, &Value)| {
        let inner = paths(child).into_iter().map(|path| format!("/{name}{path}")).collect::<Vec<_>>();
        std::iter::once(format!("/{name}")).chain(inner).collect::<Vec<_>>()
    };
    children.into_iter().flat_map(below).collect()
}

fn without_indices(path: String) -> String {
    let names = path.split('/').filter(|segment| segment.parse::<usize>().is_err() && !segment.is_empty());
    names.collect::<Vec<_>>().join(".")
}

/// Paths of all fields that the schema knows below `at`.
fn fields(schema: &Value, at: &Value, prefix: String, known: &mut BTreeSet<String>) {
    let reference = at["$ref"].as_str().and_then(|reference| schema.pointer(reference.trim_start_matches('#')));
    let inner = reference.into_iter().chain(at.get("items")).chain(at.pointer("/anyOf/0"));
    // The forms of a secret are one setting.
    for inner in inner.filter(|_| at["$ref"] != "#/$defs/Secret") {
        fields(schema, inner, prefix.clone(), known);
    }
    for (name, property) in at["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        fields(schema, property, path.clone(), known);
        known.insert(path);
    }
}
