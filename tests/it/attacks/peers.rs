//! The rows of tokens and their places before Envoy and HAProxy too: the same requests, the same upstream, and a table of
//! who lets what through. Over HTTP/1.1. Only here are others judged, and only by whether the upstream saw the request.
//!
//! `tests/interop/run.sh peers` runs it, with the programs it installs, and compares with `tests/interop/peers.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{id_of, orders_gate, section_01, section_02, section_06, section_07, section_15};
use crate::support::{
    Answer, Backend, Case, Expect, Form, Idp, Key, Request, Token, Via, World, block_on, free_ports, keys, send, world,
};

#[test]
#[ignore = "needs Envoy and HAProxy: tests/interop/run.sh peers"]
fn the_same_rows_before_peers() {
    let programs = Programs::find();
    let world = world(Form::Wso2);
    let cases = rows(world);
    let dir = tempfile::tempdir().unwrap();
    let idps = [&world.idp, &world.second, &world.strict];
    let envoy = programs.envoy(dir.path(), idps, &world.upstream);
    let haproxy = programs.haproxy(dir.path(), idps, &world.upstream);
    assert!(envoy.is_some() && haproxy.is_some(), "a peer does not start");
    let mut table = Table::default();
    let peers = Peers { envoy, haproxy };
    table.run(world.gate.ports.proxy, &peers, &[&world.upstream, &world.sandbox], &cases);
    for (name, request, is_clean) in identities(world) {
        let clean = |port: u16| {
            let answer = block_on(send(port, Via::H1, &request()));
            if answer.status != 200 || is_clean(&answer) { "clean" } else { "forged" }.to_owned()
        };
        let [envoy, haproxy] = [&peers.envoy, &peers.haproxy].map(|peer| clean(peer.as_ref().unwrap().port));
        table.note(name, "clean".into(), [clean(world.gate.ports.proxy), envoy, haproxy]);
    }
    for (idp, cases) in [section_01::unsafe_keys(), section_01::key_rules()] {
        let upstream = Backend::start("production");
        let gate = orders_gate(&idp, &upstream);
        let dir = tempfile::tempdir().unwrap();
        let envoy = programs.envoy(dir.path(), [&idp, &idp, &idp], &upstream);
        let peers = Peers { envoy, haproxy: None };
        table.run(gate.ports.proxy, &peers, &[&upstream], &cases);
    }
    fs::write(env::var("TOLLGATE_PEERS_TABLE").unwrap(), table.text()).unwrap();
    let wrong = table.rows.iter().filter(|(_, row)| !row[0].contains_key("either") && cell(&row[0]) != cell(&row[1]));
    let wrong: Vec<_> = wrong.map(|(name, _)| name).collect();
    assert!(wrong.is_empty(), "not as required: {wrong:?}");
}

/// Whoever adds a row, or takes one away, has the peers judged anew.
#[test]
fn the_table_of_peers_has_every_row_and_no_other() {
    let world = world(Form::Wso2);
    let (unsafe_keys, key_rules) = (section_01::unsafe_keys(), section_01::key_rules());
    let cases = rows(world).into_iter().chain(unsafe_keys.1).chain(key_rules.1).map(|case| case.name);
    let probes = identities(world).into_iter().map(|(name, ..)| name.to_owned());
    let judged: BTreeSet<String> = cases.chain(probes).map(|name| name.trim_end().to_owned()).collect();
    let cells = |line: &str| {
        let (id, what) = line.strip_prefix("| ")?.split_once(" | ")?;
        Some(format!("{id} {}", what.split(" | ").next()?))
    };
    let table = include_str!("../../interop/peers.md").lines().filter_map(cells);
    let told: BTreeSet<String> = table.filter(|row| row.as_bytes()[1].is_ascii_digit()).collect();
    let differ: Vec<&String> = judged.symmetric_difference(&told).collect();
    assert!(differ.is_empty(), "tests/interop/run.sh peers: {differ:?}");
}

/// The cases of the sections about tokens, their places, identity headers and protected resources.
fn rows(world: &'static World) -> Vec<Case> {
    let sections =
        [section_01::SECTION, section_02::SECTION, section_06::SECTION, section_07::SECTION, section_15::SECTION];
    sections.iter().flat_map(|section| (section.cases)(world)).collect()
}

const NO_KEY_SETS: &str = "n/a: no key sets";
const NO_STEP_UP: &str = "n/a: no step-up";
const NO_SUBSCRIPTIONS: &str = "n/a: no subscriptions";
const NO_EDDSA: &str = "n/a: no EdDSA";
const NO_START: &str = "n/a: the whole set is refused";

// ---- the table -------------------------------------------------------------------------------------------------------

/// Where the peers listen.
struct Peers {
    /// None: it does not start with this key set.
    envoy: Option<Peer>,
    /// None: the key set cannot be said to it.
    haproxy: Option<Peer>,
}

/// What is required and what came, by Tollgate, Envoy and HAProxy: each outcome with how often it came.
type Row = [BTreeMap<String, usize>; 4];

#[derive(Default)]
struct Table {
    order: Vec<String>,
    rows: BTreeMap<String, Row>,
}

impl Table {
    fn run(&mut self, gate: u16, peers: &Peers, upstreams: &[&Backend], cases: &[Case]) {
        for case in cases {
            let request = (case.build)();
            let required = match case.expect {
                Expect::Pass => "passed",
                Expect::Either => "either",
                _ => "refused",
            };
            let by = |peer: &Option<Peer>, why: &str| {
                peer.as_ref().map_or_else(|| why.to_owned(), |peer| outcome(peer.port, case, upstreams))
            };
            let envoy = both_lack(case).map_or_else(|| by(&peers.envoy, NO_START), str::to_owned);
            let haproxy = haproxy_lacks(case, &request).map_or_else(|| by(&peers.haproxy, NO_KEY_SETS), str::to_owned);
            self.note(&case.name, required.into(), [outcome(gate, case, upstreams), envoy, haproxy]);
        }
    }

    fn note(&mut self, name: &str, required: String, seen: [String; 3]) {
        if !self.rows.contains_key(name) {
            self.order.push(name.to_owned());
        }
        let row = self.rows.entry(name.to_owned()).or_default();
        for (column, outcome) in row.iter_mut().zip([required].into_iter().chain(seen)) {
            *column.entry(outcome).or_default() += 1;
        }
    }

    fn text(&self) -> String {
        let mut out =
            String::from("| row | what | required | Tollgate | Envoy | HAProxy |\n|---|---|---|---|---|---|\n");
        let mut names = self.order.clone();
        names.sort_by_key(|name| id_of(name).to_owned());
        for name in names {
            let (id, what) = name.split_once(' ').unwrap_or((&name, ""));
            let cells = self.rows[&name].each_ref().map(cell).join(" | ");
            let _ = writeln!(out, "| {id} | {what} | {cells} |");
        }
        out
    }
}

/// `refused`, or `passed 1 of 4`; what does not apply is told where nothing does.
fn cell(seen: &BTreeMap<String, usize>) -> String {
    let told: BTreeMap<_, _> = seen.iter().filter(|(outcome, _)| !outcome.starts_with("n/a")).collect();
    let total: usize = told.values().copied().sum();
    match seen.get("passed") {
        Some(passed) if *passed < total => format!("passed {passed} of {total}"),
        _ if told.is_empty() => seen.keys().cloned().collect::<Vec<_>>().join(", "),
        _ => told.into_keys().cloned().collect::<Vec<_>>().join(", "),
    }
}

type Probe = (&'static str, Box<dyn Fn() -> Request>, fn(&Answer) -> bool);

/// Rows of section 7: what a client says of itself must not reach the upstream as the gateway's word.
fn identities(world: &'static World) -> Vec<Probe> {
    let open = || Request::get("/orders/v1/public/{m}");
    let closed = |token: Token| Request::get("/orders/v1/items/{m}").bearer(token.sign());
    let unforged: fn(&Answer) -> bool = |answer| !answer.forwarded().contains("forged");
    let alice: fn(&Answer) -> bool = |answer| answer.forwarded_field("x-auth-subject") == ["alice"];
    let without: fn(&Answer) -> bool = |answer| !answer.forwarded().contains("eyJ");
    vec![
        ("I01 no token needed", Box::new(move || open().header("x-auth-subject", "forged")), unforged),
        ("I01 beside a token", Box::new(move || closed(world.token()).header("x-auth-subject", "forged")), unforged),
        (
            "I02 case, twice",
            Box::new(move || open().header("X-AUTH-Subject", "forged").header("x-auth-subject", "forged")),
            unforged,
        ),
        ("I03 underscores", Box::new(move || open().header("x_auth_subject", "forged")), unforged),
        ("I03 dots", Box::new(move || open().header("x.auth.subject", "forged")), unforged),
        (
            "I04 named by Connection",
            Box::new(move || closed(world.token()).header("connection", "x-auth-subject")),
            alice,
        ),
        (
            "I05 an absent claim",
            Box::new(move || closed(world.token().without("sub")).header("x-auth-subject", "forged")),
            unforged,
        ),
        ("I08 the credential", Box::new(move || closed(world.token())), without),
    ]
}

fn outcome(port: u16, case: &Case, upstreams: &[&Backend]) -> String {
    let request = (case.build)();
    let _ = block_on(send(port, Via::H1, &request));
    if upstreams.iter().any(|upstream| upstream.saw(&request.mark)) { "passed".into() } else { "refused".into() }
}

fn both_lack(case: &Case) -> Option<&'static str> {
    match id_of(&case.name) {
        "C21" => Some(NO_STEP_UP),
        "C22" => Some(NO_SUBSCRIPTIONS),
        _ => None,
    }
}

fn haproxy_lacks(case: &Case, request: &Request) -> Option<&'static str> {
    let signed_by_ed = || {
        let (_, value) = request.headers.iter().find(|(name, _)| name == "authorization")?;
        let header = URL_SAFE_NO_PAD.decode(value.strip_prefix("Bearer ")?.split('.').next()?).ok()?;
        let header: Value = serde_json::from_slice(&header).ok()?;
        (header["kid"] == "ed").then_some(NO_EDDSA)
    };
    both_lack(case).or_else(signed_by_ed)
}

// ---- the programs ----------------------------------------------------------------------------------------------------

/// What to start, by environment variables.
struct Programs {
    envoy: String,
    haproxy: String,
}

/// A running peer, ended when dropped.
struct Peer {
    port: u16,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Programs {
    fn find() -> Self {
        let named = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} names the program"));
        Self { envoy: named("TOLLGATE_ENVOY"), haproxy: named("TOLLGATE_HAPROXY") }
    }

    fn envoy(&self, dir: &Path, idps: [&Idp; 3], upstream: &Backend) -> Option<Peer> {
        let mut text = template("envoy.yaml", upstream);
        for (name, idp) in NAMES.iter().zip(idps) {
            let file = dir.join(format!("{name}.json"));
            fs::write(&file, idp.key_set().to_string()).unwrap();
            text = text.replace(&format!("{{{{{name}_issuer}}}}"), idp.issuer());
            text = text.replace(&format!("{{{{{name}_jwks}}}}"), file.to_str().unwrap());
        }
        let options = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "-c"];
        start(&self.envoy, &options, dir.join("envoy.yaml"), &text)
    }

    fn haproxy(&self, dir: &Path, idps: [&Idp; 3], upstream: &Backend) -> Option<Peer> {
        let mut rules = String::new();
        for (name, idp) in NAMES.iter().zip(idps) {
            for (kid, key) in keys_of(name) {
                let (file, algorithms) = (dir.join(format!("{name}-{kid}.pem")), algorithms_of(key));
                fs::write(&file, key.pem()).unwrap();
                let (issuer, file) = (idp.issuer(), file.display());
                let _ = write!(
                    rules,
                    "  http-request set-var(txn.key) str({name}-{kid}) if {{ var(txn.iss) -m str {issuer} }} \
                     {{ var(txn.kid) -m str {kid} }} {{ var(txn.alg) -m str {algorithms} }}\n  \
                     http-request deny deny_status 401 if {{ var(txn.key) -m str {name}-{kid} }} \
                     !{{ var(txn.bearer),jwt_verify(txn.alg,\"{file}\") 1 }}\n"
                );
            }
        }
        let text = template("haproxy.cfg", upstream).replace("{{keys}}", rules.trim_end());
        start(&self.haproxy, &["-db", "-f"], dir.join("haproxy.cfg"), &text)
    }
}

const NAMES: [&str; 3] = ["main", "second", "strict"];

/// The keys of the shared world's providers that HAProxy knows the algorithms of.
fn keys_of(provider: &str) -> Vec<(&'static str, &'static Key)> {
    let all = keys();
    match provider {
        "second" => vec![("es256", &all.es256_other), ("rsa", &all.rsa_other)],
        _ => vec![("rsa", &all.rsa), ("es256", &all.es256), ("es384", &all.es384), ("es512", &all.es512)],
    }
}

fn algorithms_of(key: &Key) -> &'static str {
    match key.algorithm() {
        "RS256" => "RS256 RS384 RS512 PS256 PS384 PS512",
        other => other,
    }
}

fn template(name: &str, upstream: &Backend) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/peers").join(name);
    let port = upstream.authority().rsplit(':').next().unwrap_or_default().to_owned();
    fs::read_to_string(path).unwrap().replace("{{backend}}", &port)
}

/// None if it ends by itself, as with a configuration that it refuses.
fn start(program: &str, options: &[&str], file: PathBuf, text: &str) -> Option<Peer> {
    let port = free_ports().proxy;
    fs::write(&file, text.replace("{{port}}", &port.to_string())).unwrap();
    let said = fs::File::create(file.with_extension("said")).unwrap();
    let mut command = Command::new(program);
    command.args(options).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    let mut peer = Peer { port, child: command.spawn().unwrap() };
    for _ in 0..300 {
        if let Some(status) = peer.child.try_wait().unwrap() {
            println!("{program}: {status}: {}", fs::read_to_string(file.with_extension("said")).unwrap());
            return None;
        }
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(peer);
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{program} does not listen")
}
