//! Commands and the door's table, held against each other.

use std::{collections::BTreeSet, io::Write};

use clap::{CommandFactory, Parser};
use http::StatusCode;
use serde_json::json;

use super::{help::TABLE, *};
use crate::{keymanager::Operation, management::offers};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    km: Arguments,
}

fn parsed(words: &str) -> Result<Line, clap::Error> {
    Line::try_parse_from(["km"].into_iter().chain(words.split(' ')))
}

fn call(words: &str) -> Result<Call, Error> {
    let line = parsed(words).unwrap_or_else(|error| panic!("{words}: {error}"));
    line.km.command.call(&Inputs::default())
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn good(words: &str) -> Call {
    call(words).unwrap_or_else(|error| panic!("{words}: {error}"))
}

fn why(words: &str) -> (u8, String) {
    call(words).err().map(|error| (error.code(), error.to_string())).unwrap_or_else(|| panic!("{words} is good"))
}

#[test]
fn the_arguments_do_not_contradict_each_other() {
    Line::command().debug_assert();
}

#[test]
fn an_id_may_begin_with_a_dash() {
    for (words, last) in [
        ("lift -Vx9", "-Vx9"),
        ("revocation --x", "--x"),
        ("client get hr -k1 --json", "-k1"),
        ("secret delete hr k1 -s1", "-s1"),
        ("token active hr --json --k", "--k"),
    ] {
        assert_eq!(good(words).parts.last().map(|part| &**part), Some(last), "{words}");
    }
    // Whoever means an option has it, but behind --.
    assert_eq!(good("scope get hr -- --json").parts, ["hr", "--json"]);
    assert!(parsed("scope get hr --json").is_err(), "no scope is named");
}

#[test]
fn a_flag_that_there_is_not_names_nothing() {
    for words in [
        "scope register hr --dryrun",
        "scope get hr -s",
        "resource register hr --dryrun",
        "resource attach-scopes hr -a1 k",
        "everywhere register-scope --dryrun",
        "everywhere get-scope -s",
        "everywhere register-resource --dryrun",
        "everywhere detach-scopes --a k",
        "user claims hr -ada",
        "client owner hr k --dryrun",
    ] {
        let why = parsed(words).map(drop).unwrap_err();
        assert_eq!(why.kind(), clap::error::ErrorKind::UnknownArgument, "{words}: {why}");
    }
    for (words, last) in [
        ("scope get hr -- -s", "-s"),
        ("resource attach-scopes hr -- -a1 k", "-a1"),
        ("everywhere delete-scope -- --dryrun", "--dryrun"),
        ("everywhere attach-scopes -- -a1 -k", "-a1"),
        ("user claims hr -- -ada", "-ada"),
    ] {
        assert_eq!(good(words).parts.last().map(|part| &**part), Some(last), "{words}");
    }
    assert_eq!(good("client owner hr k -- -ada").body, Some(json!({ "owner": "-ada" })));
}

#[test]
fn a_text_may_begin_with_a_dash_and_takes_no_option_for_itself() {
    for (words, name, value) in [
        ("token introspect hr -abc --json", "token", json!("-abc")),
        ("token revoke hr --abc", "token", json!("--abc")),
        ("token can-handle hr -Vh", "token", json!("-Vh")),
        ("token revoke-one-time hr -k -abc", "token", json!("-abc")),
        ("client create hr --id -x --owner -o", "clientId", json!("-x")),
        ("client create hr --id -x --name --y --json", "clientName", json!("--y")),
        ("client create hr --scope -a --scope b --json", "parameters", json!({ "scope": "-a b" })),
        ("client create hr --parameter -a=-b", "parameters", json!({ "-a": "-b" })),
        ("revoke --kind jti --value -x --json", "value", json!("-x")),
        ("scope register hr k --role -r --role s --description --d", "roles", json!("-r,s")),
        ("scope register hr k --display-name -d", "name", json!("-d")),
        ("resource detach-scopes hr a -- -x --json", "scopes", json!(["-x", "--json"])),
    ] {
        assert_eq!(good(words).body.unwrap()[name], value, "{words}");
    }
    assert_eq!(good("audit --cursor -x").query, [("cursor", "-x".to_owned())]);
    assert_eq!(good("usage --tier -x --json").query, [("tier", "-x".to_owned())]);
    for words in [
        "client create hr --id --json",
        "client create --id --owner hr",
        "client create hr --id -h",
        "revoke --kind jti --value --url=x",
        "audit --cursor --limit",
        "--token --json list",
    ] {
        let why = parsed(words).map(drop).unwrap_err().to_string();
        assert!(why.contains("is an option"), "{words}: {why}");
    }
    // The value of the option that was taken is left over, and told first.
    for words in ["revoke --kind jti --value --until 5", "client create hr --id --name x"] {
        assert!(parsed(words).is_err(), "{words}");
    }
}

#[test]
fn a_change_by_flags_keeps_the_rest_and_one_from_a_file_is_whole() {
    let whole = file("{}");
    let path = whole.path().display();
    for (words, keeps) in [
        ("scope update NAME KEY --role r".to_owned(), Some("getScopeByName")),
        ("resource update NAME API --uri /".to_owned(), Some("getResourceByApiId")),
        (format!("scope update NAME KEY --from {path}"), None),
        (format!("resource update NAME API --from {path} --uri /"), None),
        ("scope register NAME KEY".to_owned(), None),
        ("everywhere update-scope KEY --role r".to_owned(), None),
    ] {
        assert_eq!(good(&words).keeps, keeps, "{words}");
    }
}

#[test]
fn every_command_of_the_help_asks_for_the_operation_beside_it() {
    let empty = file("{}");
    for (operation, command) in TABLE {
        let call = good(&command.replace("FILE", empty.path().to_str().unwrap()));
        let named = match operation {
            "getType" => "getKeyManagerConfiguration",
            "getScopesForAPIS" => "getAllScopes",
            named => named,
        };
        assert_eq!(call.operation, named, "{command}");
        let offer = offers().into_iter().find(|offer| offer.operation == named).unwrap();
        let holes = offer.path.split('/').filter(|part| part.starts_with('{')).count();
        assert_eq!(call.parts.len(), holes, "{command}: {}", offer.path);
    }
}

#[test]
fn every_operation_and_every_route_has_a_command() {
    let told: BTreeSet<&str> = TABLE.iter().map(|(operation, _)| *operation).collect();
    assert_eq!(told.len(), TABLE.len(), "none is there twice");
    let of_trait = Operation::ALL.into_iter().map(Operation::name).filter(|name| *name != "setTenantDomain");
    let lacking: Vec<_> = offers().iter().map(|offer| offer.operation).chain(of_trait).collect();
    let lacking: Vec<_> = lacking.into_iter().filter(|name| !told.contains(name)).collect();
    assert!(lacking.is_empty(), "no command does {lacking:?}");
    let help = help::text();
    assert!(told.iter().all(|operation| help.contains(operation)) && help.contains("setTenantDomain"));
}

#[test]
fn a_body_is_of_flags_files_and_both() {
    let secret = file("s3cret\n");
    let from = file(r#"{"clientName":"old","parameters":{"key_type":"SANDBOX"}}"#);
    let words = format!(
        "client create NAME --id c --name new --callback https://a.example/1 --callback https://a.example/2 \
         --grant-type client_credentials --grant-type refresh_token --scope a --scope b --owner ada \
         --parameter response_types=code=x --secret-file {} --from {}",
        secret.path().display(),
        from.path().display(),
    );
    let expected = json!({
        "clientName": "new", "clientId": "c", "clientSecret": "s3cret", "appOwner": "ada",
        "callBackURL": "https://a.example/1,https://a.example/2",
        "parameters": {
            "key_type": "SANDBOX", "grant_types": "client_credentials,refresh_token", "scope": "a b",
            "response_types": "code=x",
        },
    });
    assert_eq!(good(&words).body, Some(expected));
    assert_eq!(good("secret add NAME KEY").body, None);
    let timed = good("secret add NAME KEY --expires-in 60");
    assert_eq!(timed.body, Some(json!({ "parameters": { "expiresIn": 60 } })));
    let token = good(&format!("token introspect NAME @{}", secret.path().display()));
    assert_eq!(token.body, Some(json!({ "token": "s3cret" })));
    let page = good("scope list NAME --limit 5 --cursor x");
    assert_eq!(page.query, [("limit", "5".to_owned()), ("cursor", "x".to_owned())]);
    assert!(!page.whole && !good("audit").whole);
    for words in ["list", "secret list NAME KEY", "token active NAME KEY", "scope list NAME", "everywhere list-scopes"]
    {
        let (all, part) = (good(words), good(&format!("{words} --limit 5")));
        assert!(all.whole && all.query.is_empty(), "{words}");
        assert!(!part.whole && part.query == [("limit", "5".to_owned())], "{words}");
    }
    assert_eq!(good("scope list NAME --api a --api b").query, [("api", "a,b".to_owned())]);
    assert_eq!(good("resource replace-scopes NAME API").body, Some(json!({ "scopes": [] })));
    for words in ["resource detach-scopes NAME API", "everywhere detach-scopes API"] {
        assert!(parsed(words).is_err(), "no key is not all of them: {words}");
    }
}

#[test]
fn what_cannot_be_read_is_told_without_its_content() {
    let (broken, list, empty) = (file(r#"{"clientSecret": hunter2}"#), file(r#"["hunter2"]"#), file("\n"));
    let odd = file(r#"{"parameters":"hunter2"}"#);
    let twins = file(r#"{"parameters":{"a":"hunter2","a":"hunter2"}}"#);
    let long = file(&"x".repeat((256 << 10) + 1));
    let path = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    for words in [
        format!("client create NAME --from {}", path(&broken)),
        format!("client create NAME --from {}", path(&list)),
        format!("client create NAME --scope a --from {}", path(&odd)),
        format!("client create NAME --from {}", path(&twins)),
        format!("client create NAME --secret-file {}", path(&empty)),
        format!("client create NAME --secret-file {}", path(&long)),
        "client create NAME --secret-file /nowhere/at/all".to_owned(),
    ] {
        let (code, text) = why(&words);
        assert!(code == 78 && !text.contains("hunter2"), "{words}: {text}");
    }
    let (_, text) = why(&format!("load NAME --from {}", path(&twins)));
    assert!(text.ends_with(": parameters.a is there twice"), "{text}");
    let (code, text) = why("client create NAME --parameter hunter2");
    assert!(code == 64 && text.contains("--parameter") && !text.contains("hunter2"), "{text}");
    for words in ["client create NAME", "token new NAME KEY"] {
        let twice = why(&format!("{words} --parameter a=hunter1 --parameter b=1 --parameter a=hunter2"));
        assert_eq!(twice, (64, "--parameter: a is there twice".into()), "{words}");
    }
    for (words, name) in [
        ("client create NAME --grant-type x --parameter grant_types=y", "grant_types"),
        ("client create NAME --scope x --parameter scope=y", "scope"),
    ] {
        assert_eq!(why(words), (64, format!("--parameter: {name} is there twice")), "{words}");
    }
}

#[test]
fn each_status_has_its_code_and_no_secret_is_repeated() {
    for (status, code) in [
        (400, 65),
        (401, 77),
        (403, 77),
        (404, 66),
        (405, 65),
        (409, 65),
        (412, 65),
        (413, 65),
        (415, 65),
        (422, 65),
        (429, 75),
        (302, 70),
        (500, 70),
        (501, 3),
        (502, 70),
        (503, 70),
        (504, 70),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(Error::Refused { status, text: String::new() }.code(), code, "{status}");
    }
    let inputs = Inputs::default();
    inputs.hide("hunter2-and-more");
    let text = "the provider says: hunter2-and-more is wrong".to_owned();
    let hidden = inputs.hidden(Error::Refused { status: StatusCode::BAD_REQUEST, text });
    assert_eq!(hidden.to_string(), "the provider says: [redacted] is wrong");
}

#[test]
fn what_failed_at_some_is_told_and_ends_with_70() {
    let outcomes = json!({ "outcomes": [
        { "keyManager": "one", "outcome": "done", "result": { "key": "a" } },
        { "keyManager": "two", "outcome": "failed", "detail": "gone" },
    ] });
    let answer = Answer { method: Method::GET, text: outcomes.to_string(), body: Some(outcomes), etag: None };
    let told = told("getScopeByNameEverywhere", &answer, false);
    assert_eq!((told.code, told.note.as_str()), (70, "failed at: two"), "{}", told.text);
    assert!(told.text.contains("failed"), "{}", told.text);
}
