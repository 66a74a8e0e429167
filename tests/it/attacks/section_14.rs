//! 14: Configuration, injection, operations.

use super::Section;
use crate::support::{Backend, Case, Config, Form, Gate, Idp, World, free_ports, run, world};

pub(super) const SECTION: Section = Section {
    cases: no_cases,
    tests: &[
        ("G01", "mistakes_are_refused"),
        ("G02", "mistakes_are_refused"),
        ("G03", "mistakes_are_refused"),
        ("G04", "mistakes_are_refused"),
        ("G05", "mistakes_are_refused"),
        ("G06", "reload::a_bad_file_keeps_the_old_configuration"),
        ("G07", "reload::reloading_under_load_loses_nothing"),
        ("G13", "drain::every_request_whose_head_was_read_is_answered"),
        ("M01", "admin::only_its_own_paths"),
        ("M02", "log_lines_cannot_be_forged"),
        ("M03", "every table: support::table looks for its tokens in access lines, metrics and logs of level trace"),
        ("M09", "nothing_in_a_request_is_expanded"),
    ],
    waits: &[
        ("G08", "waits for Kubernetes"),
        ("G09", "waits for injection"),
        ("G10", "waits for the webhook"),
        ("G11", "waits for the webhook"),
        ("G12", "waits for injection"),
        ("M04", "waits for the management door"),
        ("M05", "waits for internal channels"),
        ("M06", "waits for the control plane"),
        ("M08", "there are no profiling endpoints"),
    ],
};

fn no_cases(_: &'static World) -> Vec<Case> {
    Vec::new()
}

/// (row, what replaces what in a good file, a word of the message, whether the file must be untouched by `check`)
const MISTAKES: [(&str, &str, &str, &str); 9] = [
    ("G01", "audience = [\"orders-api\"]", "audiences = [\"orders-api\"]", "audience"),
    ("G01", "scopes = [\"admin\"]", "scope = [\"admin\"]", "scopes"),
    ("G01", "auth = \"optional\"", "auth = \"optionl\"", "auth"),
    ("G02", "audience = [\"orders-api\"]", "audience = [\"${TOLLGATE_TEST_NOT_SET}\"]", "TOLLGATE_TEST_NOT_SET"),
    ("G02", "[admin]", "tls = { cert = \"/nowhere/cert.pem\", key = \"/nowhere/key.pem\" }\n[admin]", "proxy.tls"),
    (
        "G03",
        "[admin]",
        "tls = { cert = \"CERT\", key = \"KEY\", client_ca = \"/nowhere/ca.pem\" }\n[admin]",
        "client_ca",
    ),
    ("G03", "[admin]", "tls = { cert = \"CERT\", key = \"KEY\", client_ca = \"EMPTY\" }\n[admin]", "client_ca"),
    ("G04", "[admin]", "tls = { cert = \"CERT\", key = \"KEY\", min_version = \"1.9\" }\n[admin]", "min_version"),
    ("G05", "audience = [\"orders-api\"]", "insecure_skip_verify = false", "insecure_skip_verify"),
];

#[test]
fn mistakes_are_refused() {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let good = Config::orders(&idp, &upstream.url()).text(&free_ports());
    let dir = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cert = file("cert.pem", &certificate.cert.pem());
    let key = file("key.pem", &certificate.signing_key.serialize_pem());
    let empty = file("empty.pem", "");
    let mut failures = Vec::new();
    for (row, old, new, word) in MISTAKES {
        assert!(good.contains(old), "{row}: the good file has no {old}");
        let new = new.replace("CERT", &cert).replace("KEY", &key).replace("EMPTY", &empty);
        let path = file("tollgate.toml", &good.replacen(old, &new, 1));
        for command in ["check", "serve"] {
            let output = run(&[command, "--config", &path]);
            let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            if output.status.code() != Some(78) || !told.contains(word) {
                failures.push(format!("{row} {command} {new}: {:?} {told}", output.status));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(idp.discoveries() + idp.key_fetches(), 0, "nobody is contacted");
}

#[test]
fn log_lines_cannot_be_forged() {
    use crate::support::{Request, Via, block_on};
    let world = world(Form::Wso2);
    let forged = r#"{"status":200,"path":"/forged"}"#;
    let request = Request::get("/orders/v1/wild/{m}%22%7B%22status%22")
        .header("user-agent", forged)
        .header("x-request-id", forged)
        .header("traceparent", forged)
        .bearer(world.token().header("kid", "x\r\n{\"forged\":1}\u{1b}[31m").sign());
    for via in [Via::H1, Via::H2] {
        block_on(world.gate.send(via, &request));
    }
    let line = world.gate.access_line(&request.mark).unwrap();
    assert_eq!(line["status"], 401, "{line}");
    let out = world.gate.stdout() + &world.gate.stderr();
    assert!(!out.contains('\u{1b}'));
    assert!(
        out.lines()
            .all(|line| !line.starts_with("{\"forged\"") && !line.starts_with("{\"status\":200,\"path\":\"/forged"))
    );
    let unparsed: Vec<&str> =
        out.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).collect();
    assert!(unparsed.is_empty(), "{unparsed:?}");
}

#[test]
fn nothing_in_a_request_is_expanded() {
    use crate::support::{Request, Via, block_on};
    let world = world(Form::Wso2);
    let request = Request::get("/orders/v1/public/{m}?x=${PATH}").header("x-a", "${PATH}{env.PATH}");
    let answer = block_on(world.gate.send(Via::H1, &request));
    assert_eq!(answer.forwarded_field("x-a"), ["${PATH}{env.PATH}"]);
    assert!(answer.forwarded().contains("?x=${path}"), "{}", answer.forwarded());
    let _: &Gate = &world.gate;
}
