//! The command line: exit codes and what is said, as a user sees them.

use std::{fs, net::TcpListener, process::Output};

use crate::support::{Config, Gate, Idp, free_ports, key_manager, run};

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs `command --config` on a file of this name and content.
fn with_file(command: &[&str], name: &str, text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    fs::write(&file, text).unwrap();
    run(&[command, &["--config", file.to_str().unwrap()]].concat())
}

fn good() -> (Idp, String) {
    let idp = Idp::start();
    let text = Config::orders(&idp, "http://127.0.0.1:3000").text(&free_ports());
    (idp, text)
}

#[test]
fn a_good_file_checks_and_nobody_is_contacted() {
    let (idp, text) = good();
    let output = with_file(&["check"], "tollgate.toml", &text);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(idp.discoveries() + idp.key_fetches(), 0);
}

#[test]
fn json_and_yaml_are_the_same_contract() {
    let json = r#"{"proxy":{"listen":"127.0.0.1:8080"},"admin":{"listen":"127.0.0.1:9090"},
        "key_managers":[{"name":"main","connector":"oidc","issuer":"https://idp.example.com"}],
        "apis":[{"name":"Orders","context":"/orders","upstream":"echo:","resources":[{"path":"/*"}]}]}"#;
    let yaml = "proxy: { listen: '127.0.0.1:8080' }\nadmin: { listen: '127.0.0.1:9090' }\n\
        key_managers:\n  - { name: main, connector: oidc, issuer: 'https://idp.example.com' }\n\
        apis:\n  - name: Orders\n    context: /orders\n    upstream: 'echo:'\n    resources: [{ path: '/*' }]\n";
    for (name, text) in [("tollgate.json", json), ("tollgate.yaml", yaml), ("tollgate.yml", yaml)] {
        let output = with_file(&["check"], name, text);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", told(&output));
        let output = with_file(&["check"], name, &text.replace("context", "contxt"));
        assert_eq!(output.status.code(), Some(78), "{name}: {}", told(&output));
        assert!(told(&output).contains("contxt") && told(&output).contains("context"), "{name}: {}", told(&output));
    }
}

#[test]
fn a_mistake_names_file_line_field_and_the_nearest_name() {
    let (_idp, text) = good();
    let wrong = text.replacen("audience = [", "audiense = [", 1);
    let line = wrong.lines().position(|l| l.starts_with("audiense")).unwrap() + 1;
    let output = with_file(&["check"], "tollgate.toml", &wrong);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains(&format!("tollgate.toml:{line}")), "{line}: {said}");
    assert!(said.contains("audiense") && said.contains("audience"), "{said}");
}

#[test]
fn mistakes_of_meaning_are_told_all_at_once() {
    let (_idp, text) = good();
    let wrong = text
        .replacen("api = \"Orders:v1\"", "api = \"Oders:v1\"", 1)
        .replacen("path = \"/any/{id}\"", "path = \"any/{id\"", 1)
        .replacen("application = \"shop-web\"", "application = \"nobody\"", 1);
    let output = with_file(&["check"], "tollgate.toml", &wrong);
    let said = told(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for field in ["subscriptions[0].api", "subscriptions[0].application", "apis[0].resources[2].path"] {
        assert!(said.contains(field), "{field}: {said}");
    }
    let line = wrong.lines().position(|l| l.contains("any/{id\"")).unwrap() + 1;
    assert!(said.contains(&format!(":{line}")), "{line}: {said}");
}

#[test]
fn every_mistake_is_refused_without_quoting_values() {
    let (_idp, text) = good();
    let rows = [
        ("listen = \"127.0.0.1:", "listen = \"s3cr3t-value:", "listen"),
        ("connector = \"oidc\"", "connector = \"s3cr3t-value\"", "connector"),
        ("connector = \"oidc\"", "connector = \"http\"", "endpoint"),
        ("connector = \"oidc\"", "connector = \"oidc\"\nvalidation = \"introspect\"", "client_secret"),
        (
            "connector = \"oidc\"",
            "connector = \"oidc\"\ntoken_pattern = \"s3cr3t-value(\"\nclient_id = \"a\"\nclient_secret = \"s3cr3t-value\"",
            "token_pattern",
        ),
        ("context = \"/orders\"", "context = \"s3cr3t-value\"", "context"),
        ("upstream = \"http://", "upstream = \"s3cr3t-value://", "upstream"),
        ("tier = \"Unlimited\"", "tier = \"s3cr3t-value\"", "tier"),
        ("methods = [\"GET\"]", "methods = [\"s3cr3t value\"]", "methods"),
        ("[admin]", "timeouts = { request = \"s3cr3t-value\" }\n[admin]", "request"),
        ("[admin]", "max_body = \"s3cr3t-value\"\n[admin]", "max_body"),
        ("audience = [\"orders-api\"]", "audience = [\"orders-api\"]\nleeway = 30", "leeway"),
        ("audience = [\"orders-api\"]", "algorithms = [\"HS256\"]", "algorithms"),
        ("audience = [\"orders-api\"]", "algorithms = []", "algorithms"),
        ("issuer = \"http://127.0.0.1", "issuer = \"http://idp.example.com", "issuer"),
        ("issuer = \"http://127.0.0.1", "issuer = \"s3cr3t-value", "issuer"),
        ("[[subscriptions]]", "[store]\nurl = \"postgres://s3cr3t-value\"\n[[subscriptions]]", "not in this build"),
        (
            "[[subscriptions]]",
            "[shared]\nredis = \"redis://h\"\ninterval = \"1ms\"\n[[subscriptions]]",
            "shared.interval",
        ),
        ("[[subscriptions]]", "[shared]\nredis = \"http://s3cr3t-value\"\n[[subscriptions]]", "shared.redis"),
        ("[[subscriptions]]", "[shared]\nredis = \"redis://u:s3cr3t-value@h/x\"\n[[subscriptions]]", "shared.redis"),
        (
            "[[subscriptions]]",
            "[shared]\nredis = \"redis://h\"\nprefix = \"s3cr3t value\"\n[[subscriptions]]",
            "shared.prefix",
        ),
    ];
    let mut failures = Vec::new();
    for (old, new, word) in rows {
        assert!(text.contains(old), "{old}");
        let output = with_file(&["check"], "tollgate.toml", &text.replacen(old, new, 1));
        let said = told(&output);
        if output.status.code() != Some(78)
            || !said.contains(word)
            || said.contains("s3cr3t")
            || said.contains("panicked")
        {
            failures.push(format!("{new}: {:?} {said}", output.status.code()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Each of them, once.
#[test]
fn a_bad_header_or_realm_is_told_once() {
    let (_idp, text) = good();
    for (lines, told_of) in [
        ("realm = 'a\"b'", "realm: is visible ASCII without quotes and backslashes, and not empty"),
        ("realm = ''", "realm: is visible ASCII without quotes and backslashes, and not empty"),
        ("strip_headers = ['X-A', 'X A']", "strip_headers[1]: is not a header name"),
        ("strip_headers = ['host']", "strip_headers[0]: this header belongs to the connection"),
        ("identity_headers.tier = ''", "identity_headers.tier: is not a header name"),
        (
            "identity_headers.tier = 'x_auth_scopes'",
            "identity_headers.tier: identity_headers.scopes has this header too",
        ),
        ("identity_headers.claims = { e = 'Authorization' }", "identity_headers.claims.e: this header belongs to the"),
        ("backend_jwt.header = 'Host'", "backend_jwt.header: this header belongs to the connection"),
        ("backend_jwt.header = 'X A'", "backend_jwt.header: is not a header name"),
    ] {
        let output = with_file(&["check"], "tollgate.toml", &format!("{lines}\n{text}"));
        let said = told(&output);
        assert_eq!(output.status.code(), Some(78), "{lines}: {said}");
        assert!(said.contains(told_of), "{lines}: {said}");
        let field = told_of.split_once(": ").unwrap().0;
        assert_eq!(said.matches(&format!(" {field}: ")).count(), 1, "{lines}: {said}");
    }
}

/// Limits wherever they stand, below the least.
#[test]
fn limits_of_nothing_and_less_are_refused_with_their_field() {
    let (_idp, text) = good();
    let tier = |lines: &str| format!("[[tiers]]\nname = \"T\"\nper = \"1m\"\n{lines}\n[[subscriptions]]");
    let group = |n: i8| {
        let when = "when = [{ query = \"q\", matches = \"x\" }]";
        tier(&format!(
            "requests = 1\nlevel = \"advanced\"\nconditions = [{{ {when}, limit = {{ requests = {n}, per = \"1m\" }} }}]"
        ))
    };
    let rule = |n: i8| {
        let limit = format!("limit = {{ requests = {n}, per = \"1m\" }}");
        format!("[[throttle.rules]]\nname = \"r\"\nkey = \"$userId\"\n{limit}\n[[subscriptions]]")
    };
    let backend = |n: i8| {
        format!(
            "[[apis]]\nname = \"L\"\ncontext = \"/l\"\nupstream = \"echo:\"\nresources = [{{ path = \"/\" }}]\n\
                 backend_limit = {{ production = {{ requests = {n}, per = \"1s\" }} }}\n[[subscriptions]]"
        )
    };
    let mut failures = Vec::new();
    for n in [-1, 0] {
        for (new, field) in [
            (tier(&format!("requests = {n}")), "tiers[0].requests"),
            (tier(&format!("bytes = {n}")), "tiers[0].bytes"),
            (tier(&format!("requests = 1\nburst = {{ requests = {n}, per = \"1s\" }}")), "tiers[0].burst.requests"),
            (group(n), "tiers[0].conditions[0].limit.requests"),
            (rule(n), "throttle.rules[0].limit.requests"),
            (backend(n), "backend_limit.production.requests"),
        ] {
            let output = with_file(&["check"], "tollgate.toml", &text.replacen("[[subscriptions]]", &new, 1));
            let said = told(&output);
            if output.status.code() != Some(78) || !said.contains(field) {
                failures.push(format!("{n} {field}: {:?} {said}", output.status.code()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn one_consumer_key_in_two_applications_is_refused() {
    let (_idp, text) = good();
    let twice = crate::support::application("other", "shop-web", "Unlimited", "");
    let output = with_file(&["check"], "tollgate.toml", &(text + &twice));
    assert_eq!(output.status.code(), Some(78), "{}", told(&output));
    assert!(told(&output).contains("applications[1].keys[0]"), "{}", told(&output));
}

#[test]
fn two_templates_of_one_shape_are_refused() {
    let (_idp, text) = good();
    for (old, new) in
        [("path = \"/plain/{id}\"", "path = \"/items/{other}\""), ("path = \"/plain/{id}\"", "path = \"/public/{x}\"")]
    {
        let output = with_file(&["check"], "tollgate.toml", &text.replacen(old, new, 1));
        assert_eq!(output.status.code(), Some(78), "{new}: {}", told(&output));
        assert!(told(&output).contains("resources["), "{}", told(&output));
    }
}

#[test]
fn strict_fails_on_an_open_audience() {
    let (_idp, text) = good();
    let open = text.replacen("audience = [\"orders-api\"]\n", "", 1);
    let lax = with_file(&["check"], "tollgate.toml", &open);
    assert_eq!(lax.status.code(), Some(0), "{}", told(&lax));
    assert!(told(&lax).contains("audience"), "it warns: {}", told(&lax));
    let strict = with_file(&["check", "--strict"], "tollgate.toml", &open);
    assert_eq!(strict.status.code(), Some(78), "{}", told(&strict));
    let closed = with_file(&["check", "--strict"], "tollgate.toml", &text);
    assert_eq!(closed.status.code(), Some(0), "{}", told(&closed));
}

#[test]
fn arguments() {
    for arguments in [&["serve"][..], &["check"], &["bork"], &["serve", "--bork"], &["serve", "--config"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", told(&output));
    }
    for arguments in [&["--version"][..], &["--help"], &["serve", "--help"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", told(&output));
    }
    assert!(told(&run(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unreadable_file_is_78() {
    for file in ["/nowhere/tollgate.toml", "/"] {
        for command in ["check", "serve"] {
            let output = run(&[command, "--config", file]);
            assert_eq!(output.status.code(), Some(78), "{command} {file}: {}", told(&output));
            assert!(told(&output).contains(file), "{}", told(&output));
        }
    }
}

#[test]
fn the_schema_is_json_and_knows_every_section() {
    let output = run(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for section in [
        "workers",
        "trusted_proxies",
        "fault_format",
        "realm",
        "strip_headers",
        "proxy",
        "decision",
        "management",
        "admin",
        "store",
        "shared",
        "cache",
        "throttle",
        "log",
        "identity_headers",
        "key_managers",
        "apis",
        "applications",
        "subscriptions",
        "tiers",
    ] {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
}

#[test]
fn a_key_that_others_may_read_is_78_and_told_once_with_its_file() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("bootstrap.key");
    std::fs::write(&key, "tgb_0123456789abcdef0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = format!(
        "[proxy]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"\nbootstrap_key_file = \"{}\"\n",
        key.display()
    );
    let expected =
        format!("management.bootstrap_key_file: {}: others may read it: its mode must be 0600", key.display());
    for command in ["serve", "check"] {
        let output = with_file(&[command], "gate.toml", &config);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(78), "{command}: {said}");
        let lines: Vec<_> = said.lines().filter(|line| line.contains("0600")).collect();
        assert!(lines.len() == 1 && lines[0].contains("gate.toml:5") && lines[0].ends_with(&expected), "{said}");
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = with_file(&["check"], "gate.toml", &config);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    std::fs::remove_file(&key).unwrap();
    let output = with_file(&["check"], "gate.toml", &config);
    assert_eq!(output.status.code(), Some(0), "it will be made: {}", told(&output));
    assert!(!key.exists(), "a check makes none");
}

#[test]
fn files_that_are_no_regular_files_are_78_at_once_by_check_and_serve() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    symlink("pipe", at("to a pipe")).unwrap();
    symlink("nothing", at("to nothing")).unwrap();
    let no_file = "it is not a regular file";
    let files = [
        (at("pipe"), no_file),
        (at("to a pipe"), no_file),
        (at(""), no_file),
        ("/dev/zero".to_owned(), no_file),
        (at("to nothing"), "it is a link to nothing"),
    ];
    let idp = Idp::start();
    let text = Config::orders(&idp, "echo:").text(&free_ports());
    let in_key_manager = |line: &str| text.replacen("[[key_managers]]\n", &format!("[[key_managers]]\n{line}\n"), 1);
    for (file, why) in files {
        let settings = [
            (
                "bootstrap_key_file",
                format!("[management]\nlisten = \"127.0.0.1:0\"\nbootstrap_key_file = \"{file}\"\n{text}"),
            ),
            (
                "management.tls",
                format!(
                    "[management]\nlisten = \"127.0.0.1:0\"\nbootstrap_key_file = \"{}\"\ntls = {{ cert = \"{file}\", key = \"{file}\" }}\n{text}",
                    at("key")
                ),
            ),
            ("jwks", in_key_manager(&format!("jwks = {{ file = \"{file}\" }}"))),
            ("decryption_keys[0]", in_key_manager(&format!("decryption_keys = [{{ file = \"{file}\" }}]"))),
            ("ca", in_key_manager(&format!("ca = {{ file = \"{file}\" }}"))),
            (
                "client_secret",
                in_key_manager(&format!("client_id = \"gate\"\nclient_secret = {{ file = \"{file}\" }}")),
            ),
            (
                "client_key",
                in_key_manager(&format!(
                    "client_id = \"gate\"\nclient_auth = \"private_key_jwt\"\nclient_key = {{ file = \"{file}\" }}"
                )),
            ),
        ];
        for (field, text) in settings {
            for command in ["check", "serve"] {
                let output = with_file(&[command], "gate.toml", &text);
                let said = told(&output);
                assert_eq!(output.status.code(), Some(78), "{command} {field} {file}: {said}");
                assert!(
                    said.lines().any(|line| line.contains(field) && line.ends_with(why)),
                    "{command} {field} {file}: {said}"
                );
            }
        }
    }
}

#[test]
fn a_taken_port_is_78() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let idp = Idp::start();
    let mut ports = free_ports();
    ports.proxy = taken.local_addr().unwrap().port();
    let output = with_file(&["serve"], "tollgate.toml", &Config::orders(&idp, "echo:").text(&ports));
    assert_eq!(output.status.code(), Some(78), "{}", told(&output));
    assert!(told(&output).contains(&ports.proxy.to_string()), "{}", told(&output));
}

#[test]
fn health_asks_the_admin_door() {
    let idp = Idp::start();
    let config =
        Config::orders(&idp, "echo:").with(&key_manager("extra", &idp, "audience = [\"x\"]\nstartup = \"optional\""));
    let gate = Gate::start(|ports| config.text(ports));
    let health = |gate: &Gate| run(&["health", "--config", gate.config_file().to_str().unwrap()]);
    let output = health(&gate);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    gate.signal("KILL");
    gate.wait_for("its end", || gate.admin("/livez").status == 0);
    assert_ne!(health(&gate).status.code(), Some(0));

    let away = Idp::start();
    away.stop();
    let gate = Gate::launch(|ports| Config::orders(&away, "echo:").text(ports));
    let address = format!("127.0.0.1:{}", gate.ports.admin);
    for output in [health(&gate), run(&["health", "--address", &address])] {
        assert_eq!(output.status.code(), Some(1), "alive, and not ready: {}", told(&output));
        assert!(told(&output).contains("not ready: main"), "{}", told(&output));
    }
}

#[test]
fn environment_variables_are_expanded_once() {
    let (_idp, text) = good();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tollgate.toml");
    fs::write(&file, text.replacen("context = \"/orders\"", "context = \"${CONTEXT}\"", 1)).unwrap();
    let check = |value: Option<&str>| {
        let mut command = crate::support::tollgate(&["check", "--config", file.to_str().unwrap()]);
        command.env_remove("CONTEXT");
        command.envs(value.map(|v| ("CONTEXT", v)));
        command.output().unwrap()
    };
    assert_eq!(check(Some("/orders")).status.code(), Some(0), "{}", told(&check(Some("/orders"))));
    let unset = check(None);
    assert_eq!(unset.status.code(), Some(78));
    assert!(told(&unset).contains("CONTEXT"), "{}", told(&unset));
    // A value is not expanded again: this is a context with a dollar in it, and no good one.
    assert_eq!(check(Some("${HOME}")).status.code(), Some(78));
}
