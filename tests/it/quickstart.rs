//! The quickstart: the file that `tollgate` alone runs, and the lines it prints.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use base64::Engine as _;

use crate::support::{Answer, Gate, Request, Via, block_on, send, tollgate};

/// A token by client_credentials (RFC 6749 section 4.4) with HTTP Basic.
fn token(port: u16, id: &str, secret: &str, scope: &str) -> Answer {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
    let request = Request::new("POST", "/token")
        .host(&format!("127.0.0.1:{port}"))
        .header("authorization", format!("Basic {basic}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("grant_type=client_credentials&scope={scope}"));
    block_on(send(port, Via::H1, &request))
}

fn access_token(answer: &Answer) -> String {
    answer.json()["access_token"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_file_gives_200_401_403_and_429() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/quickstart.toml")).unwrap();
    let gate = Gate::start(|ports| {
        text.replace("127.0.0.1:8080", &format!("127.0.0.1:{}", ports.proxy))
            .replace("127.0.0.1:9090", &format!("127.0.0.1:{}", ports.admin))
            .replace("127.0.0.1:9000", &format!("127.0.0.1:{}", ports.provider))
    });
    let provider = gate.ports.provider;
    let shop = token(provider, "shop-web", "demo-only-shop-web", "orders:read");
    assert_eq!((shop.status, shop.json()["token_type"].as_str()), (200, Some("Bearer")), "{shop:?}");
    let (shop, stranger) =
        (access_token(&shop), access_token(&token(provider, "stranger", "demo-only-stranger", "orders:read")));
    let call = |token: &str| {
        let request = Request::get("/orders/v1/items/42");
        let request = if token.is_empty() { request } else { request.bearer(token) };
        block_on(gate.send(Via::H1, &request))
    };
    assert_eq!(call(&shop).status, 200);
    assert_eq!(call("").status, 401);
    assert_eq!((call(&stranger).status, call(&stranger).json()["code"].as_str()), (403, Some("900908")));
    let post = block_on(gate.send(Via::H2, &Request::post("/orders/v1/items").bearer(&shop)));
    assert_eq!((post.status, post.json()["code"].as_str()), (403, Some("900910")), "{post:?}");
    // Five a minute: a window may end meanwhile, but not twice.
    let statuses: Vec<u16> = (0..12).map(|_| call(&shop).status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    for (id, secret) in [("shop-web", "wrong"), ("nobody", "demo-only-shop-web")] {
        let refused = token(provider, id, secret, "orders:read");
        assert_eq!((refused.status, refused.json()["error"].as_str()), (401, Some("invalid_client")), "{refused:?}");
    }
    let beyond = token(provider, "shop-web", "demo-only-shop-web", "orders:write");
    assert_eq!((beyond.status, beyond.json()["error"].as_str()), (400, Some("invalid_scope")), "{beyond:?}");
    assert!(gate.leaks(&[shop, stranger]).is_empty());
    assert!(!gate.stderr().contains("demo-only") && !gate.stdout().contains("demo-only"), "a secret in the logs");
}

#[test]
fn the_printed_lines_do_what_they_say() {
    if [8080, 9090, 9000].iter().any(|port| TcpListener::bind(("127.0.0.1", *port)).is_err()) {
        println!("skipped: a port of the quickstart is in use; the file itself is tested on other ports");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("stdout");
    let child = tollgate(&[]).stdout(File::create(&out).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let _child = Ended(child);
    let end = Instant::now() + Duration::from_secs(60);
    let ready = || crate::support::http_get(9090, "/readyz").status == 200;
    while !ready() || !fs::read_to_string(&out).unwrap().contains("429") {
        assert!(Instant::now() < end, "not ready: {}", fs::read_to_string(&out).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    let printed = fs::read_to_string(&out).unwrap();
    let mut session = Session::default();
    session.run(&printed);
    for status in [200, 401, 403, 429] {
        assert!(session.statuses.contains(&status), "no {status} in {:?}\n{printed}", session.statuses);
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A reader of the printed lines: `KEY=value`, `NAME=$(curl … )`, `curl …`, a `for` loop around one.
#[derive(Default)]
struct Session {
    variables: BTreeMap<String, String>,
    statuses: Vec<u16>,
}

impl Session {
    fn run(&mut self, printed: &str) {
        let mut comment = String::new();
        for line in printed.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('#') || line.starts_with('{') || line.is_empty() {
                comment = line.to_owned();
            } else if line.contains("curl ") {
                self.curl(line, &comment);
            } else if let Some((name, value)) = line.split_once('=').filter(|(n, _)| is_name(n)) {
                let value = self.expand(value.trim_matches(['"', '\'']));
                self.variables.insert(name.to_owned(), value);
            }
        }
    }

    fn curl(&mut self, line: &str, comment: &str) {
        let (before, rest) = line.split_once("curl ").unwrap();
        let command = rest.split([';', '|', '#']).next().unwrap_or_default();
        let command = if before.contains("$(") { command.trim_end().trim_end_matches(['"', ')']) } else { command };
        let times = if before.contains("for ") { 12 } else { 1 };
        let mut answer = Answer::default();
        for _ in 0..times {
            answer = self.call(command);
        }
        if let Some((name, _)) = before.split_once("=").filter(|(n, _)| is_name(n)) {
            assert_eq!(answer.status, 200, "{line}: {answer:?}");
            self.variables.insert(name.to_owned(), access_token(&answer));
            return;
        }
        let said: Vec<u16> = format!("{comment} {}", line.split_once('#').map_or("", |(_, c)| c))
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok().filter(|n| matches!(n, 200 | 401 | 403 | 429)))
            .collect();
        if let [expected] = said[..] {
            assert_eq!(answer.status, expected, "{line}: {answer:?}");
        }
        self.statuses.push(answer.status);
    }

    /// Does what a curl line says.
    fn call(&self, command: &str) -> Answer {
        let words = words(&self.expand(command));
        let (mut url, mut method, mut headers, mut body) = (String::new(), None, Vec::new(), Vec::new());
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_default();
            match word.as_str() {
                "-H" | "--header" => headers.push(value()),
                "-X" | "--request" => method = Some(value()),
                "-d" | "--data" | "--data-urlencode" => body.push(value()),
                "-u" | "--user" => {
                    headers.push(format!(
                        "authorization: Basic {}",
                        base64::engine::general_purpose::STANDARD.encode(value())
                    ));
                }
                "-o" | "-w" | "--output" | "--write-out" | "-m" | "--max-time" => _ = value(),
                flag if flag.starts_with('-') && flag.len() > 1 => {
                    // `-so /dev/null`, `-sw '…'`: the last letter takes the next word.
                    if !flag.starts_with("--") && flag.ends_with(['o', 'w']) {
                        _ = value();
                    }
                }
                _ => url = word,
            }
        }
        let rest = url.strip_prefix("http://").unwrap_or(&url);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = authority.rsplit(':').next().and_then(|p| p.parse().ok()).unwrap_or(80);
        let method = method.unwrap_or_else(|| if body.is_empty() { "GET".into() } else { "POST".into() });
        let mut request = Request::new(&method, &format!("/{path}")).host(authority);
        for header in headers {
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            request = request.header(&name.to_ascii_lowercase(), value.trim());
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body.join("&"));
        }
        block_on(send(port, Via::H1, &request))
    }

    fn expand(&self, text: &str) -> String {
        let mut out = text.to_owned();
        // Longest names first, so that TOKEN does not eat the start of TOKEN_TWO.
        let mut names: Vec<_> = self.variables.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, value) in names {
            out = out.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
        }
        out
    }
}

fn is_name(text: &str) -> bool {
    let text = text.trim().trim_start_matches("export ");
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Shell words: spaces outside of quotes part them.
fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => (quote, any) = (Some(c), true),
            (None, ' ' | '\t') => {
                if any || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            _ => word.push(c),
        }
    }
    if any || !word.is_empty() {
        all.push(word);
    }
    all
}

#[test]
fn shell_words_are_parted() {
    assert_eq!(words(r#"-H "a: b c" '' -d 'x=y' z"#), ["-H", "a: b c", "", "-d", "x=y", "z"]);
}
