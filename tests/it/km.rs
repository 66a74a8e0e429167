//! `tollgate km` as a script sees it: a process with a management door over the embedded provider, and the command
//! line beside it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Output, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::support::{Gate, Ports, free_ports, run, tollgate};

/// A gate with an embedded provider and a management door on a Unix socket.
struct Stand {
    gate: Gate,
    folder: tempfile::TempDir,
}

impl Stand {
    fn start() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let door = format!(
            "[store]\npath = \"{path}/tollgate.redb\"\n[management]\nlisten = \"unix:{path}/door.sock\"\n{more}\n"
        );
        let gate = Gate::start(|ports| config(ports, &door));
        Self { gate, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn key(&self) -> String {
        self.path("bootstrap.key")
    }

    /// Runs a command as the bootstrap key's holder.
    fn km(&self, words: &str) -> Output {
        let (url, key) = (format!("unix:{}", self.path("door.sock")), self.key());
        let words: Vec<&str> = words.split_whitespace().collect();
        run(&[&["km", "--url", &url, "--bootstrap-key", &key], &*words].concat())
    }

    /// The same, which must end with `code`; both streams.
    fn ends(&self, words: &str, code: i32) -> (String, String) {
        let output = self.km(words);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words}: {out}{err}");
        (out, err)
    }

    fn good(&self, words: &str) -> String {
        self.ends(words, 0).0
    }

    fn json(&self, words: &str) -> Value {
        let told = self.good(&format!("{words} --json"));
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{words}: {error}: {told}"))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn config(ports: &Ports, door: &str) -> String {
    let Ports { proxy, admin, provider } = ports;
    format!(
        "workers = 1\n[proxy]\nlisten = \"127.0.0.1:{proxy}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         {door}\
         [[key_managers]]\nname = \"own\"\nconnector = \"embedded\"\nlisten = \"127.0.0.1:{provider}\"\n\
         issuer = \"http://127.0.0.1:{provider}\"\naudience = [\"orders\"]\n\
         clients = [{{ id = \"shop\", secret = \"s3cret-of-shop\", scopes = [\"orders:read\"] }}]\n\
         users = [{{ name = \"ada\", password = \"l0velace-and-more\", scopes = [\"orders:read\"], \
         claims = {{ email = \"a@b\" }} }}]\n"
    )
}

/// The value behind a name in a table of names and values.
fn value<'t>(told: &'t str, name: &str) -> &'t str {
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
    line.unwrap_or_else(|| panic!("no {name}: {told}")).trim()
}

#[test]
fn key_managers_and_what_they_can_do_are_told() {
    let stand = Stand::start();
    let list = stand.good("list");
    let words: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [["NAME", "TYPE", "DECLAREDIN"], ["own", "embedded", "file"]]);
    assert_eq!(stand.json("list")["items"][0]["type"], "embedded");
    assert_eq!(value(&stand.good("show own"), "type"), "embedded");
    assert!(!stand.good("show own --json").contains("s3cret"));
    let can = stand.good("capabilities own");
    assert_eq!(value(&can, "createApplication"), "yes");
    assert!(value(&can, "setTenantDomain").contains("one organization"), "{can}");
    let (_, err) = stand.ends("show nobody", 66);
    assert!(err.starts_with("404 Not Found: ") && err.contains("code 404"), "{err}");
    let settings = stand.file("settings.json", r#"{"connector":"oidc"}"#);
    assert!(stand.ends(&format!("load own --from {settings}"), 65).1.contains("declared in the file"));
    let (_, err) = stand.ends(&format!("load second --from {settings}"), 65);
    assert!(err.starts_with("400 ") && err.contains("issuer") && err.contains("(field "), "{err}");
    let settings = stand.file("settings.json", r#"{"connector":"oidc","issuer":"http://127.0.0.1:1"}"#);
    stand.good(&format!("load second --from {settings}"));
    // What is shown is more than its configuration.
    let shown = stand.file("shown.json", &stand.good("show second --json"));
    let (_, err) = stand.ends(&format!("load second --from {shown}"), 65);
    assert!(err.contains("what stands under it") && err.contains("field configuration"), "{err}");
    assert_eq!(stand.good("delete second"), "done\n");
    stand.ends("delete second", 66);
    assert!(stand.ends("delete own", 65).1.contains("declared in the file"));
}

#[test]
fn a_client_and_its_secrets_live_and_die() {
    let stand = Stand::start();
    let made = stand.good("client create own --id web --grant-type client_credentials --owner ada");
    let first = value(&made, "clientSecret").to_owned();
    assert!(first.len() >= 16, "{made}");
    let read = stand.good("client get own web");
    assert_eq!((value(&read, "clientId"), value(&read, "appOwner")), ("web", "ada"));
    assert!(!read.contains(&first), "{read}");
    let name = "client update own web --grant-type client_credentials --name Shop";
    assert_eq!(value(&stand.good(name), "clientName"), "Shop");
    assert_eq!(value(&stand.good("client owner own web bob"), "appOwner"), "bob");

    let rotated = stand.json("secret rotate own web")["clientSecret"].as_str().unwrap().to_owned();
    assert_ne!(rotated, first);
    let added = stand.json("secret add own web --description night --expires-in 600");
    let listed = stand.good("secret list own web");
    assert!(listed.contains("night") && listed.lines().count() == 3, "{listed}");
    assert!(!listed.contains(&rotated) && !listed.contains(added["clientSecret"].as_str().unwrap()), "{listed}");
    let id = added["secretId"].as_str().unwrap();
    assert_eq!(stand.good(&format!("secret delete own web {id}")), "done\n");
    stand.ends(&format!("secret delete own web {id}"), 66);

    assert_eq!(stand.good("client delete own web"), "done\n");
    let (out, err) = stand.ends("client get own web", 66);
    assert!(out.is_empty() && err.contains("404"), "{out}{err}");
    let (_, err) = stand.ends("client create own --grant-type nonsense", 65);
    assert!(err.contains("field ") && err.contains("grant"), "{err}");
}

#[test]
fn a_client_is_mapped_by_a_secret_that_is_never_said() {
    let stand = Stand::start();
    let wrong = stand.file("wrong", "hunter2-and-more\n");
    let (out, err) = stand.ends(&format!("client map own shop --secret-file {wrong}"), 65);
    assert!(!format!("{out}{err}").contains("hunter2"), "{out}{err}");
    let right = stand.file("right", "s3cret-of-shop\n");
    let told = stand.good(&format!("client map own shop --secret-file {right}"));
    assert_eq!(value(&told, "clientId"), "shop");
    stand.ends(&format!("client map own shop --secret-file {right}"), 65);
    assert_eq!(stand.good("client unmap own shop"), "done\n");
    stand.ends("client unmap own shop", 66);
    let loose = stand.file("loose.json", r#"{"client_id":"x","grant_types":"client_credentials"}"#);
    assert_eq!(stand.json(&format!("client parse own --from {loose}"))["clientId"], "x");
}

#[test]
fn tokens_are_issued_looked_at_and_revoked() {
    let stand = Stand::start();
    let secret = stand.file("secret", "s3cret-of-shop\n");
    let issued = stand.json(&format!("token new own shop --scope orders:read --secret-file {secret}"));
    let token = issued["accessToken"].as_str().unwrap().to_owned();
    let file = stand.file("token", &token);
    assert_eq!(value(&stand.good(&format!("token introspect own @{file}")), "isTokenValid"), "yes");
    assert_eq!(stand.json(&format!("token can-handle own {token}"))["canHandle"], true);
    assert_eq!(stand.json("token active own shop")["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(stand.good("token active own shop").lines().count(), 1);
    assert_eq!(value(&stand.good("token show own shop"), "consumerKey"), "shop");
    assert_eq!(stand.good(&format!("token revoke own @{file}")), "done\n");
    assert_eq!(value(&stand.good(&format!("token introspect own @{file}")), "isTokenValid"), "no");
    let once = stand.json(&format!("token new own shop --secret-file {secret}"));
    let once = once["accessToken"].as_str().unwrap();
    assert_eq!(stand.good(&format!("token revoke-one-time own shop {once}")), "done\n");
    let client = stand.file("client.json", r#"{"clientId":"shop","clientSecret":"s3cret-of-shop"}"#);
    assert_eq!(stand.json(&format!("token request own shop --from {client}"))["clientId"], "shop");
    assert_eq!(value(&stand.good("token parse own"), "scope"), "-");
    let revoked = stand.good("revoke --kind jti --value an-id --until 4102444800");
    assert_eq!((value(&revoked, "kind"), value(&revoked, "value")), ("jti", "an-id"));
    assert!(stand.good("revocations").contains("an-id"));
    let id = value(&revoked, "id");
    assert_eq!(value(&stand.good(&format!("revocation {id}")), "value"), "an-id");
    assert_eq!(stand.good(&format!("lift {id}")), "done\n");
    stand.ends(&format!("lift {id}"), 66);
    stand.ends("revoke --kind nonsense --value x", 65);
}

#[test]
fn a_token_may_come_on_standard_input() {
    let stand = Stand::start();
    let (url, key) = (format!("unix:{}", stand.path("door.sock")), stand.key());
    let given = |words: &[&str], input: &str| {
        let mut command = tollgate(&[&["km", "--url", &url, "--bootstrap-key", &key], words].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = given(&["token", "introspect", "own", "-"], "not-a-token\n");
    assert_eq!(value(&text(&output.stdout), "isTokenValid"), "no");
    let twice = ["token", "new", "own", "shop", "--secret-file", "-", "--password-file", "-"];
    let output = given(&twice, "s3cret-of-shop\n");
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("s3cret"));
}

#[test]
fn scopes_and_resources_are_kept() {
    let stand = Stand::start();
    let told = stand.good("scope register own orders:write --display-name Write --role editor --role chief");
    assert_eq!(value(&told, "roles"), "editor,chief");
    stand.ends("scope register own orders:write", 65);
    assert_eq!(stand.good("scope exists own orders:write"), "yes\n");
    assert_eq!(stand.ends("scope exists own never", 1).0, "no\n");
    assert_eq!(stand.ends("scope exists own never --json", 1).0, "false\n");
    stand.ends("scope exists nobody never", 66);
    let (_, err) = stand.ends("scope exists own a\\b", 65);
    assert!(err.starts_with("400 ") && err.contains("`scope get`"), "no words come with it: {err}");
    let list = stand.good("scope list own");
    assert!(list.starts_with("KEY") && list.contains("editor,chief"), "{list}");
    stand.good("scope register own orders:zap");
    let more = stand.ends("scope list own --limit 1", 0).1;
    assert!(more.contains("--cursor "), "{more}");
    assert_eq!(value(&stand.good("scope update own orders:write --display-name W"), "name"), "W");
    assert!(stand.good("scope validate own orders:write").contains("orders:write"));
    assert!(stand.ends("scope validate own orders:write never", 65).1.contains("never"));

    let api = stand.good("resource register own api/1 --uri /orders --scope orders:write");
    assert_eq!((value(&api, "apiId"), value(&api, "scopes")), ("api/1", "orders:write"));
    assert_eq!(value(&stand.good("resource update own api/1 --uri /o --uri /p"), "uris"), "/o, /p");
    assert_eq!(stand.json("resource attach-scopes own api/1 orders:write")["scopes"][0], "orders:write");
    assert_eq!(value(&stand.good("scope list own --api api/1"), "api/1"), "orders:write");
    assert_eq!(value(&stand.good("resource replace-scopes own api/1"), "scopes"), "-");
    stand.good("resource attach-scopes own api/1 orders:write");
    stand.ends("resource detach-scopes own api/1", 64);
    assert_eq!(value(&stand.good("resource get own api/1"), "scopes"), "orders:write");
    assert_eq!(stand.good("resource detach-scopes own api/1 orders:write"), "done\n");
    assert_eq!(value(&stand.good("resource get own api/1"), "scopes"), "-");
    assert_eq!(stand.good("resource delete own api/1 --json"), "");
    stand.ends("resource get own api/1", 66);
    assert_eq!(stand.good("scope delete own orders:write"), "done\n");
    stand.ends("scope get own orders:write", 66);
}

#[test]
fn a_change_by_flags_keeps_what_no_flag_names() {
    let stand = Stand::start();
    stand.good("scope register own --display-name Write --role editor --role chief --description old -- -s");
    let told = stand.good("scope update own --description new -- -s");
    let of = |told: &str| ["name", "roles", "description"].map(|name| value(told, name).to_owned());
    assert_eq!(of(&told), ["Write", "editor,chief", "new"]);
    assert_eq!(of(&stand.good("scope get own -- -s")), ["Write", "editor,chief", "new"]);
    assert_eq!(of(&stand.good("scope update own --role -r -- -s")), ["Write", "-r", "new"]);
    let plan = stand.good("scope update own --display-name Other --dry-run -- -s");
    assert_eq!(value(&plan, "operation"), "updateScope");
    assert_eq!(value(&stand.good("scope get own -- -s"), "name"), "Write", "it was a dry run");
    stand.ends("scope update own --display-name Other --if-match \"old\" -- -s", 65);
    stand.ends("scope update own never --display-name Other", 66);
    let whole = stand.file("scope.json", r#"{"name":"Whole"}"#);
    let told = stand.good(&format!("scope update own --from {whole} -- -s"));
    assert!(value(&told, "name") == "Whole" && !told.contains("roles"), "{told}");

    stand.good("resource register own api --uri /old --scope -s");
    let told = stand.good("resource update own api --uri /new");
    assert_eq!((value(&told, "uris"), value(&told, "scopes")), ("/new", "-s"));
}

#[test]
fn ids_and_tokens_may_begin_with_a_dash() {
    let stand = Stand::start();
    assert_eq!(value(&stand.good("client create own --id -x --grant-type client_credentials"), "clientId"), "-x");
    assert_eq!(value(&stand.good("client owner own -x -- -ada"), "appOwner"), "-ada");
    assert_eq!(stand.json("token introspect own -abc")["isTokenValid"], false);
    assert_eq!(stand.good("token revoke own --abc"), "done\n");
    assert_eq!(value(&stand.good("revoke --kind jti --value -v --until 4102444800"), "value"), "-v");
    let (_, err) = stand.ends("client create own --id --json", 64);
    assert!(err.contains("--id") && err.contains("is an option"), "{err}");
}

#[test]
fn everywhere_tells_each_outcome() {
    let stand = Stand::start();
    let told = stand.good("everywhere register-scope all:read --description Reads");
    assert!(told.starts_with("KEYMANAGER") && told.lines().any(|line| line.starts_with("own ")), "{told}");
    assert_eq!(stand.json("everywhere get-scope all:read")["outcomes"][0]["result"]["description"], "Reads");
    stand.good("everywhere register-resource api --uri /x");
    stand.good("everywhere attach-scopes api all:read");
    stand.ends("everywhere detach-scopes api", 64);
    stand.good("everywhere detach-scopes api all:read");
    stand.good("everywhere delete-resource api");
    stand.good("everywhere delete-scope all:read");
    // All say the same of it: so does the door.
    stand.ends("everywhere get-scope all:read", 66);
    stand.ends("everywhere get-resource api", 66);
    stand.ends("everywhere delete-scope all:read", 66);
}

#[test]
fn users_what_waits_and_the_audit_are_told() {
    let stand = Stand::start();
    assert_eq!(value(&stand.good("user claims own ada"), "email"), "a@b");
    stand.ends("user claims own nobody", 66);
    assert!(stand.good("pending own").starts_with("ID"));
    stand.ends("forget own 7", 66);
    stand.good("scope register own a:b");
    let audit = stand.good("audit --limit 5");
    assert!(audit.contains("bootstrap") && audit.contains("registerScope"), "{audit}");
    assert_eq!(stand.json("audit")["items"][0]["subject"], "a:b");
}

#[test]
fn a_change_may_be_tried_tied_to_what_was_read_and_repeated() {
    let stand = Stand::start();
    let plan = stand.good("scope register own a:b --dry-run");
    assert_eq!((value(&plan, "dryRun"), value(&plan, "operation")), ("yes", "registerScope"));
    stand.ends("scope get own a:b", 66);
    stand.good("scope register own a:b");
    let (_, err) = stand.ends("scope get own a:b --json", 0);
    let tag = err.trim().strip_prefix("etag: ").unwrap().to_owned();
    stand.good(&format!("scope update own a:b --display-name One --if-match {tag}"));
    let (_, err) = stand.ends(&format!("scope update own a:b --display-name Two --if-match {tag}"), 65);
    assert!(err.starts_with("412 "), "{err}");
    let create = "client create own --name once --grant-type client_credentials --idempotency-key k1 --json";
    assert_eq!(stand.good(create), stand.good(create));
    for words in
        ["list --dry-run", "list --if-match x", "client delete own web --idempotency-key x", "scope get own .."]
    {
        stand.ends(words, 64);
    }
}

#[test]
fn whoever_may_not_or_does_not_reach_it_is_told_so() {
    let stand = Stand::start();
    let url = format!("unix:{}", stand.path("door.sock"));
    let ends = |words: &[&str], code: i32| {
        let output = run(&[&["km"], words].concat());
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        said
    };
    let said = ends(&["--url", &url, "--token", "hunter2-and-more", "list"], 77);
    assert!(said.starts_with("401 ") && said.contains("code 900901") && !said.contains("hunter2"), "{said}");
    assert!(ends(&["--url", &url, "list"], 77).contains("--bootstrap-key"));
    assert!(ends(&["--url", "unix:/nowhere/door.sock", "list"], 69).contains("/nowhere/door.sock"));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    ends(&["--url", &format!("http://{free}"), "list"], 69);
    // The admin door is none of it.
    let admin = format!("http://127.0.0.1:{}", stand.gate.ports.admin);
    ends(&["--url", &admin, "list"], 66);
    for url in ["ftp://a.example", "http://a.example", "https://u:p@a.example", "http://127.0.0.1/?a=b", "nonsense"] {
        assert!(ends(&["--url", url, "list"], 64).contains("--url"), "{url}");
    }
    let said = ends(&["--url", "https://a.example", "--bootstrap-key", &stand.key(), "list"], 64);
    assert!(said.contains("--bootstrap-key"), "{said}");
    ends(&["--url", &url, "--token-file", "/nowhere", "list"], 78);
    ends(&["--url", &url, "--ca", &stand.key(), "list"], 78);
    ends(&["--url", &url, "--cert", "a.pem", "list"], 64);
    ends(&["--url", &url, "--token", "a", "--token-file", "b", "list"], 64);
    ends(&["--url", &url, "nonsense"], 64);
    let help = ends(&["--help"], 0);
    assert!(help.contains("getNewApplicationConsumerSecret") && help.contains("Exit codes"), "{help}");
}

/// A login page in front of everything, say: each request is answered 200 with HTML. Its URL.
fn page(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let page = if request[..read].starts_with(b"HEAD ") { "" } else { text };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            let _ = stream.write_all(format!("{head}{page}").as_bytes());
        }
    });
    url
}

#[test]
fn what_answers_everything_is_no_door_and_has_no_scope() {
    let (html, other_json, another) = (page("<html>"), page("{}"), page(r#"{"name":"z","declaredIn":"file"}"#));
    let exists = &["scope", "exists", "x", "y"][..];
    for (url, words) in [
        (&html, &["list"][..]),
        (&html, exists),
        (&html, &["scope", "exists", "x", "y", "--json"]),
        (&other_json, exists),
        (&another, exists),
        (&other_json, &["token", "can-handle", "x", "y"]),
        (&other_json, &["token", "introspect", "x", "y", "--json"]),
    ] {
        let output = run(&[&["km", "--url", url], words].concat());
        assert_eq!(output.status.code(), Some(70), "{words:?}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains("is no management door"), "{words:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{words:?}");
    }
}

#[test]
fn variables_name_the_door_and_the_token() {
    let stand = Stand::start();
    let output = tollgate(&["km", "list"])
        .env("TOLLGATE_MANAGEMENT_URL", format!("unix:{}", stand.path("door.sock")))
        .env("TOLLGATE_MANAGEMENT_TOKEN", fs::read_to_string(stand.key()).unwrap().trim())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_done_ends_with_a_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let door =
        format!("[management]\nlisten = \"unix:{path}/door.sock\"\nbootstrap_key_file = \"{path}/bootstrap.key\"\n");
    let gate = Gate::start(|ports| config(ports, &door));
    let stand = Stand { gate, folder };
    stand.good("list");
    let (_, err) = stand.ends("scope register own a:b", 3);
    assert!(err.starts_with("501 ") && err.contains("[store]"), "{err}");
}

#[test]
fn what_none_of_all_can_tell_ends_with_the_same_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let gate = Gate::start(|Ports { proxy, admin, .. }| {
        format!(
            "workers = 1\n[proxy]\nlisten = \"127.0.0.1:{proxy}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
             [management]\nlisten = \"unix:{path}/door.sock\"\nbootstrap_key_file = \"{path}/bootstrap.key\"\n\
             [[key_managers]]\nname = \"far\"\nconnector = \"oidc\"\nissuer = \"https://127.0.0.1:1\"\n\
             discovery = false\njwks_uri = \"https://127.0.0.1:1/jwks\"\naudience = [\"orders\"]\nstartup = \"optional\"\n"
        )
    });
    let stand = Stand { gate, folder };
    for words in ["everywhere list-scopes", "everywhere get-scope a:b", "everywhere get-resource api"] {
        let (_, err) = stand.ends(words, 3);
        assert!(err.starts_with("501 ") && err.contains("far: "), "{words}: {err}");
    }
}

#[test]
fn a_certificate_calls_over_tls_and_only_a_known_authority_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let file = |name: &str, text: String| {
        fs::write(folder.path().join(name), text).unwrap();
        format!("{path}/{name}")
    };
    let authority = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&key).unwrap();
        (file(&format!("{name}.ca"), made.pem()), Issuer::new(params, key))
    };
    let ((ca, issuer), (other, _)) = (authority("ours"), authority("others"));
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (file(&format!("{name}.pem"), made.pem()), file(&format!("{name}.key"), key.serialize_pem()))
    };
    let (server, client) = (signed("server"), signed("client"));
    let port = std::cell::Cell::new(0);
    let gate = Gate::start(|ports| {
        port.set(free_ports().proxy);
        let door = format!(
            "[management]\nlisten = \"127.0.0.1:{}\"\nbootstrap_key_file = \"{path}/bootstrap.key\"\n\
             tls = {{ cert = \"{}\", key = \"{}\", client_ca = \"{ca}\" }}\n",
            port.get(),
            server.0,
            server.1,
        );
        config(ports, &door)
    });
    let url = format!("https://localhost:{}", port.get());
    let ends = |words: &[&str], code: i32| {
        let output = run(&[&["km", "--url", &url], words, &["list"]].concat());
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output.stderr));
    };
    ends(&["--ca", &ca, "--cert", &client.0, "--key", &client.1], 0);
    ends(&["--ca", &ca, "--bootstrap-key", &format!("{path}/bootstrap.key")], 0);
    ends(&["--ca", &ca], 77);
    ends(&["--ca", &other, "--cert", &client.0, "--key", &client.1], 69);
    ends(&["--cert", &client.0, "--key", &client.1], 69);
    assert!(gate.alive());
}
