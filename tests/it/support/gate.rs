//! The program as a user runs it: a process, a file, signals, two output streams.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Request, Via, client};

/// A running gate.
pub(crate) struct Gate {
    pub(crate) ports: Ports,
    pub(crate) dir: TempDir,
    child: Option<Child>,
    watchdog: Child,
}

/// Where a gate listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) proxy: u16,
    pub(crate) admin: u16,
    /// For the embedded provider.
    pub(crate) provider: u16,
}

/// A command line of the program, without inherited settings.
pub(crate) fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command.env_remove("TOLLGATE_MANAGEMENT_URL").env_remove("TOLLGATE_MANAGEMENT_TOKEN");
    command
}

/// Runs a command line to its end; one that does not end by itself is killed, and has no exit code.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let child = tollgate(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id().to_string();
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    done.recv_timeout(STARTING)
        .or_else(|_| {
            Command::new("sh").args(["-c", r#"kill -9 "$1""#, "kill", &pid]).status().unwrap();
            done.recv()
        })
        .unwrap()
        .unwrap()
}

/// Ports that nothing else here asks for: below those the system gives to outgoing connections.
pub(crate) fn free_ports() -> Ports {
    Ports { proxy: free_port(), admin: free_port(), provider: free_port() }
}

fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 97).unwrap() * 120;
    for _ in 0..10_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

impl Gate {
    /// Starts `serve` with what `config` writes for the ports, and waits until it is ready.
    pub(crate) fn start(config: impl Fn(&Ports) -> String) -> Self {
        let gate = Self::launch(config);
        gate.wait_ready();
        gate
    }

    /// Starts `serve` and waits until the admin door answers at all.
    pub(crate) fn launch(config: impl Fn(&Ports) -> String) -> Self {
        Self::launch_with(&[], config)
    }

    /// The same with these environment variables.
    pub(crate) fn launch_with(environment: &[(&str, &Path)], config: impl Fn(&Ports) -> String) -> Self {
        for attempt in 0.. {
            let ports = free_ports();
            let mut gate = Self::spawn(ports, &config(&ports), environment);
            match gate.wait_listening() {
                Ok(()) => return gate,
                // Another process may have taken a port meanwhile.
                Err(status) if status.code() == Some(78) && attempt < 2 && gate.stderr().contains("in use") => {}
                Err(status) => panic!("the gate ended with {status}:\n{}\n{}", gate.stderr(), gate.config_text()),
            }
        }
        unreachable!("the loop ends by return or panic")
    }

    fn spawn(ports: Ports, config: &str, environment: &[(&str, &Path)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tollgate.toml");
        fs::write(&file, config).unwrap();
        let child = tollgate(&["serve", "--config", file.to_str().unwrap()])
            .envs(environment.iter().copied())
            .stdout(File::create(dir.path().join("stdout")).unwrap())
            .stderr(File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        // A gate kept for the whole run is never dropped: this ends it when our end of the pipe closes.
        let watchdog = Command::new("sh")
            .args(["-c", r#"cat >/dev/null; kill -9 "$1"; rm -rf "$2""#, "watchdog"])
            .args([child.id().to_string().as_str(), dir.path().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { ports, dir, child: Some(child), watchdog }
    }

    fn wait_listening(&mut self) -> Result<(), ExitStatus> {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                return Err(status);
            }
            if std::net::TcpStream::connect(("127.0.0.1", self.ports.admin)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(BETWEEN);
        }
        panic!("the gate does not listen:\n{}", self.stderr());
    }

    /// Waits for `/readyz` 200.
    pub(crate) fn wait_ready(&self) {
        self.wait_for("ready", || self.admin("/readyz").status == 200);
    }

    /// Waits until `condition` holds, or fails the test.
    pub(crate) fn wait_for(&self, what: &str, mut condition: impl FnMut() -> bool) {
        for _ in 0..LOOKS {
            if condition() {
                return;
            }
            std::thread::sleep(BETWEEN);
        }
        panic!("never came: {what}\n{}", self.stderr());
    }

    /// Sends a request to the proxy door.
    pub(crate) async fn send(&self, via: Via, request: &Request) -> Answer {
        client::send(self.ports.proxy, via, request).await
    }

    /// A GET at the admin door. Blocking, so that it works inside and outside of the runtime.
    pub(crate) fn admin(&self, path: &str) -> Answer {
        http_get(self.ports.admin, path)
    }

    /// The text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        self.admin("/metrics").text()
    }

    /// Sum over the series of a metric whose labels contain all of `labels` (`name="value"`).
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        let lines = text.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let wanted = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The access line whose path holds `mark`; waits for it a while.
    pub(crate) fn access_line(&self, mark: &str) -> Option<Value> {
        for _ in 0..LOOKS {
            let text = self.stdout();
            let found =
                text.lines().filter(|line| line.contains(mark)).filter_map(|l| serde_json::from_str::<Value>(l).ok());
            let mut found = found.filter(|line| line["path"].as_str().is_some_and(|path| path.contains(mark)));
            if let Some(line) = found.next() {
                return Some(line);
            }
            std::thread::sleep(BETWEEN);
        }
        None
    }

    pub(crate) fn stdout(&self) -> String {
        read(&self.dir.path().join("stdout"))
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.dir.path().join("stderr"))
    }

    /// The configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("tollgate.toml")
    }

    pub(crate) fn config_text(&self) -> String {
        read(&self.config_file())
    }

    /// Puts another configuration in place, at once and whole, and signals it.
    pub(crate) fn reload(&self, config: &str) {
        let next = self.dir.path().join("next.toml");
        fs::write(&next, config).unwrap();
        fs::rename(&next, self.config_file()).unwrap();
        self.signal("HUP");
    }

    /// The nice value (proc(5)) of its thread of that name.
    pub(crate) fn niceness(&self, thread: &str) -> i32 {
        let pid = self.child.as_ref().map(Child::id).unwrap();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
        let is_it = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread);
        let stat = read(&tasks.into_iter().find(is_it).unwrap().join("stat"));
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)).unwrap().parse().unwrap()
    }

    /// Sends a signal by name. After `STOP` nothing runs any more.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().map(Child::id).unwrap();
        let sent =
            Command::new("sh").args(["-c", r#"kill -s "$1" "$2""#, "kill", name, &pid.to_string()]).status().unwrap();
        assert!(sent.success(), "cannot signal the gate");
        if name == "STOP" {
            self.wait_for("its threads to stop", || stands_still(pid));
        }
    }

    /// Waits for its end.
    pub(crate) fn wait_exit(&mut self) -> Option<ExitStatus> {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                return Some(status);
            }
            std::thread::sleep(BETWEEN);
        }
        None
    }

    /// Whether it still runs.
    pub(crate) fn alive(&self) -> bool {
        self.admin("/livez").status == 200
    }

    /// Where, if anywhere, a piece of these tokens shows outside: logs, access lines, metrics.
    pub(crate) fn leaks(&self, secrets: &[String]) -> Vec<String> {
        let places = [("stdout", self.stdout()), ("stderr", self.stderr()), ("metrics", self.metrics())];
        let mut found = Vec::new();
        for (place, text) in &places {
            let leaked = secrets.iter().flat_map(|s| needles(s)).find(|n| text.contains(n));
            found.extend(leaked.map(|needle| format!("{needle} in {place}")));
        }
        found
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // First the watchdog, so that it can never meet a reused process id.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The pieces of a token that may stand nowhere outside. Headers of tokens are alike and say nothing.
pub(crate) fn needles(secret: &str) -> Vec<String> {
    let parts = secret.split('.').skip(usize::from(secret.contains('.')));
    let long = parts.filter(|part| part.len() >= 20 && part.is_ascii());
    long.flat_map(|part| [part[..20].to_owned(), part[part.len() - 20..].to_owned()]).collect()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// One GET on a connection of its own.
pub(crate) fn http_get(port: u16, path: &str) -> Answer {
    use std::io::{Read as _, Write as _};
    let mut answer = Answer::default();
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return answer };
    let _ = stream.set_read_timeout(Some(STARTING));
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut bytes = Vec::new();
    if stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut bytes)).is_err() {
        return answer;
    }
    let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") else { return answer };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    answer.status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let fields = head.lines().skip(1).filter_map(|l| l.split_once(':'));
    answer.headers = fields.map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect();
    answer.body = bytes[end + 4..].to_vec();
    answer
}

/// How often it is looked for what must come, and the pause between. Looks are counted, not seconds: a machine that is slow,
/// or stands still for a while, has as many.
/// Whether no thread of the process runs.
fn stands_still(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state comes after the name, which is in parentheses.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

const LOOKS: u32 = 3000;
const BETWEEN: Duration = Duration::from_millis(20);
/// Longest wait for the end of a command, and for an answer of the admin door.
const STARTING: Duration = Duration::from_secs(60);
