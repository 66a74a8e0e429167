//! Rows in files of their own: they count like those of the configuration, are watched like it, and every mistake in
//! them is told by file and line.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::{Backend, Config, Gate, Idp, Request, Token, Via, api, block_on, key_manager, resource, run};

struct Place {
    gate: Gate,
    idp: Idp,
    dir: TempDir,
}

const FILES: &str = "\n[tables]\nfiles = ['rows.ndjson', 'more/*.ndjson']\n";
const ROWS: &str = "\u{feff}{\"subscription\": {\"application\": \"shop-web\", \"api\": \"Orders:v1\", \"tier\": \"Tiny\"}}\r\n\
                    \n\
                    {\"application\": {\"name\": \"shop-web\", \"owner\": \"ada\", \"keys\": [{\"consumer_key\": \"shop-web\"}]}}\n";
const TIER: &str = r#"{"tier": {"name": "Tiny", "requests": 1000000, "per": "1h"}}"#;

/// The Orders API in a file of its own, with one resource.
fn orders(upstream: &str) -> String {
    format!(
        r#"{{"api": {{"name": "Orders", "context": "/orders", "version": "v1", "upstream": "{upstream}", "resources": [{{"path": "/items/{{id}}"}}]}}}}"#
    )
}

/// A gate whose tables are all in files.
fn place() -> Place {
    let (idp, upstream, dir) = (Idp::start(), Backend::start("production"), tempfile::tempdir().unwrap());
    write(dir.path(), "rows.ndjson", ROWS);
    write(dir.path(), "more/a.ndjson", &orders(&upstream.url()));
    write(dir.path(), "more/b.ndjson", TIER);
    let files = FILES.replace("['", &format!("['{}/", dir.path().display()));
    let files = files.replace(" '", &format!(" '{}/", dir.path().display()));
    let config = Config { rest: key_manager("main", &idp, "audience = ['orders-api']"), ..Config::default() };
    let config = config.with(&files);
    Place { gate: Gate::start(|ports| config.text(ports)), idp, dir }
}

/// Puts a file in place of what is there.
fn write(dir: &Path, name: &str, text: &str) {
    let (path, next) = (dir.join(name), dir.join("next"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}

impl Place {
    fn status(&self, client: &str, target: &str) -> u16 {
        let token = Token::of(&self.idp, client).sign();
        block_on(self.gate.send(Via::H1, &Request::get(target).bearer(token))).status
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn error(&self) -> String {
        self.gate.admin("/readyz?verbose").json()["config"]["last_error"].as_str().unwrap_or_default().to_owned()
    }
}

const ITEM: &str = "/orders/v1/items/1";

#[test]
fn rows_of_files_count_and_are_watched() {
    let place = place();
    assert_eq!((place.status("shop-web", ITEM), place.status("other", ITEM)), (200, 403));

    let second = r#"{"application": {"name": "other", "owner": "bob", "keys": [{"consumer_key": "other"}]}}
{"subscription": {"application": "other", "api": "Orders:v1", "tier": "Gold"}}"#;
    write(place.dir(), "more/c.ndjson", second);
    place.gate.wait_for("a new file of a pattern", || place.status("other", ITEM) == 200);

    write(place.dir(), "more/c.ndjson", &second.replace("Gold", "Gould"));
    place.gate.wait_for("the mistake", || place.error().contains("more/c.ndjson:2: subscription.tier"));
    assert_eq!((place.status("other", ITEM), place.status("shop-web", ITEM)), (200, 200), "the old tables stay");

    fs::remove_file(place.dir().join("more/c.ndjson")).unwrap();
    place.gate.wait_for("a file that is gone", || place.status("other", ITEM) == 403);
    assert_eq!((place.status("shop-web", ITEM), place.error().as_str()), (200, ""));

    write(place.dir(), "rows.ndjson", &ROWS.replace("\"Tiny\"", "\"Tiny\", \"state\": \"BLOCKED\""));
    place.gate.signal("HUP");
    place.gate.wait_for("the blocked subscription", || place.status("shop-web", ITEM) == 401);
}

/// Each row: files, and what `check` says of them.
#[test]
fn every_mistake_is_told_by_file_and_line() {
    let echo = orders("echo:");
    let application = r#"{"application": {"name": "a", "owner": "o", "keys": [{"consumer_key": "k"}]}}"#;
    let many = "{\"tier\": {}}\n".repeat(1_000);
    for (rows, more, expected) in [
        (
            "{\"aplication\": {}}\n\n{\"tier\": {\"name\": \"A\", \"per\": \"1m\", \"request\": 1}}\n7",
            "{\"application\": {\"name\": \"x\"}}\n{\"subscription\": {\"application\": \"a\", \"api\": \"b\", \"tier\": 1}}\n{\"api\": ",
            &[
                "rows.ndjson:1: aplication: unknown field \"aplication\"; did you mean \"application\"?",
                "rows.ndjson:3: tier.request: unknown field \"request\"; did you mean \"requests\"?",
                "rows.ndjson:4: column 1: a line is one row: {\"api\": {…}}, {\"application\": {…}}, {\"subscription\": {…}} or {\"tier\": {…}}",
                "more/a.ndjson:1: application.owner: missing field \"owner\"",
                "more/a.ndjson:2: subscription.tier: expected a string, found a whole number",
                "more/a.ndjson:3: column 8: EOF while parsing a value",
            ][..],
        ),
        (
            &format!("{application}\n{application}"),
            &format!("{echo}\n{echo}"),
            &[
                "rows.ndjson:2: application.name: DIR/rows.ndjson:1 has this name too",
                "rows.ndjson:2: application.keys[0].consumer_key: DIR/rows.ndjson:1 has this key of this key manager too",
                "more/a.ndjson:2: api.name: DIR/more/a.ndjson:1 has this name and version too",
                "more/a.ndjson:2: api.resources[0].path: DIR/more/a.ndjson:1.resources[0] has the same shape, verb and host",
            ],
        ),
        (
            &application.replace("\"a\"", "\"from-config\""),
            &echo.replace("Orders", "Config").replace("/items/", "x"),
            &[
                "rows.ndjson:1: application.name: applications[0] has this name too",
                "more/a.ndjson:1: api.resources[0].path: a template begins with a slash",
            ],
        ),
        (
            &format!(
                "{application}\n{{\"subscription\": {{\"application\": \"b\", \"api\": \"Orders:v2\", \"tier\": \"Gold\"}}}}"
            ),
            &echo,
            &[
                "rows.ndjson:2: subscription.application: no application has this name",
                "rows.ndjson:2: subscription.api: no API has this name and version (name:version); did you mean `Orders:v1`?",
            ],
        ),
        ("\u{0}\u{0}", "", &["rows.ndjson:1: column 1: expected value"]),
        (
            &format!("{{\"tier\": {{\"name\": \"{}\"}}}}\n7", "x".repeat(4 << 20)),
            "",
            &[
                "rows.ndjson:1: line: is longer than 4MiB",
                "rows.ndjson:2: column 1: a line is one row: {\"api\": {…}}, {\"application\": {…}}, {\"subscription\": {…}} or {\"tier\": {…}}",
            ],
        ),
        (&many, "", &["rows.ndjson:1: tier.name: missing field \"name\""; 100]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "rows.ndjson", rows);
        write(dir.path(), "more/a.ndjson", more);
        let (told, code) = check(dir.path(), "");
        assert_eq!((told.len(), code), (expected.len(), Some(78)), "{rows}\n{told:?}");
        for (n, (told, expected)) in told.iter().zip(expected).enumerate() {
            let expected = expected.replace("DIR", dir.path().to_str().unwrap());
            let expected = if expected.contains("missing field \"name\"") {
                expected.replace(":1:", &format!(":{}:", n + 1))
            } else {
                expected
            };
            assert_eq!(told.strip_prefix(&format!("{}/", dir.path().display())), Some(&*expected));
        }
    }
}

#[test]
fn files_that_are_not_there_and_traps_of_their_apis_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (told, code) = check(dir.path(), "");
    assert_eq!(code, Some(78));
    assert!(told[0].contains("tables.files[1]: its folder cannot be read"), "{told:?}");
    fs::create_dir(dir.path().join("more")).unwrap();
    let (told, _) = check(dir.path(), "");
    assert!(told[0].ends_with("tables.files[1]: no file has such a name"), "{told:?}");
    fs::create_dir(dir.path().join("more/a.ndjson")).unwrap();
    let (told, _) = check(dir.path(), "");
    assert!(told.iter().all(|line| line.contains("tables.files: ") && line.contains("cannot be read")), "{told:?}");
    assert_eq!(told.len(), 2, "neither a file that is missing nor a folder: {told:?}");

    fs::remove_dir(dir.path().join("more/a.ndjson")).unwrap();
    write(dir.path(), "rows.ndjson", "");
    let api = orders("echo:");
    write(
        dir.path(),
        "more/a.ndjson",
        &api.replace("\"context\"", "\"token_in\": [\"header\", \"query\"], \"context\""),
    );
    assert_eq!(check(dir.path(), "").1, Some(0));
    let (told, code) = check(dir.path(), "--strict");
    assert_eq!(code, Some(78));
    assert!(told[0].ends_with("a.ndjson:1: api.token_in: tokens in a query end up in logs and histories"), "{told:?}");
}

/// What `check` says on standard error, and its exit code. The configuration has an API and an application too.
fn check(dir: &Path, flag: &str) -> (Vec<String>, Option<i32>) {
    let config = dir.join("tollgate.toml");
    let text = format!(
        "[proxy]\nlisten = '127.0.0.1:1'\n{FILES}[[key_managers]]\nname = 'm'\nconnector = 'oidc'\nissuer = 'https://i'\naudience = ['a']\n\
         {}{}[[applications]]\nname = 'from-config'\nowner = 'o'\n",
        api("Config", "/config", None, "upstream = \"echo:\"\naudience = ['x']"),
        resource("/a", ""),
    );
    fs::write(&config, text).unwrap();
    let flags = [flag].into_iter().filter(|flag| !flag.is_empty());
    let arguments: Vec<&str> = ["check", "--config", config.to_str().unwrap()].into_iter().chain(flags).collect();
    let output = run(&arguments);
    (String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect(), output.status.code())
}
