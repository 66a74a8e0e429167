//! The program as a process, its configuration in a folder of its own, and what it says of itself.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A gate that runs until this is dropped.
pub(crate) struct Gate {
    pub(crate) child: Child,
    admin: u16,
    _dir: tempfile::TempDir,
}

impl Gate {
    /// Starts it by these words before its own (such as `taskset -c 1`) and waits until it is ready. The configuration
    /// is this text and an admin door at `admin`. `TOLLGATE_BIN=…` is a program built elsewhere.
    pub(crate) async fn start(by: &[&str], text: &str, admin: u16) -> Result<Self, Error> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("tollgate.toml");
        fs::write(&file, format!("{text}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n"))?;
        let program = std::env::var("TOLLGATE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tollgate").into());
        let mut command = match by {
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            [] => Command::new(program),
        };
        command.arg("serve").arg("--config").arg(&file);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let gate = Self { child, admin, _dir: dir };
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if gate.ask("/readyz").await.is_ok_and(|text| text.starts_with("HTTP/1.1 200")) {
                return Ok(gate);
            }
            sleep(Duration::from_millis(1)).await;
        }
        Err("the gate is not ready".into())
    }

    /// The value of a series, by its name and labels as they are written.
    pub(crate) async fn metric(&self, series: &str) -> Result<f64, Error> {
        let text = self.ask("/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(series)).ok_or("no such series")?;
        Ok(line.trim().parse()?)
    }

    /// Bytes of resident memory.
    pub(crate) fn resident(&self) -> Result<u64, Error> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    async fn ask(&self, path: &str) -> Result<String, Error> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
