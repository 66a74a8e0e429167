//! A pinned process, ended when dropped; what it and its children use, read from `/proc`.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;

/// Which core a process runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Core {
    /// What sends the requests, and the backend.
    Load,
    /// What is measured.
    Proxy,
}

impl Core {
    fn number(self) -> &'static str {
        match self {
            Self::Load => "0",
            Self::Proxy => "1",
        }
    }
}

/// `program`, to be run on that core alone.
pub(crate) fn pinned(core: Core, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core.number(), program]).stdin(Stdio::null());
    command
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it writes to standard error goes to `errors`, standard output nowhere.
    pub(crate) fn start(mut command: Command, errors: &Path) -> anyhow::Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(File::create(errors)?).spawn()?;
        Ok(Self { child })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// User and system time of the process and its children so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.family().map(|family| family.iter().map(|stat| stat.cpu).sum())
    }

    /// Resident memory of the process and its children, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        self.family().map(|family| family.iter().map(|stat| stat.resident).sum())
    }

    fn family(&self) -> anyhow::Result<Vec<Stat>> {
        let all: Vec<Stat> = fs::read_dir("/proc")?
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
            .filter_map(|line| Stat::parse(&line))
            .collect();
        let mut family = vec![self.child.id()];
        let mut at = 0;
        while let Some(&parent) = family.get(at) {
            family.extend(all.iter().filter(|stat| stat.parent == parent).map(|stat| stat.pid));
            at += 1;
        }
        let family: Vec<Stat> = all.into_iter().filter(|stat| family.contains(&stat.pid)).collect();
        anyhow::ensure!(!family.is_empty(), "the process has ended");
        Ok(family)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM first: a killed nginx master leaves its worker behind.
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        if asked.is_ok_and(|status| status.success()) {
            for _ in 0..30 {
                if self.has_ended() {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What `/proc/PID/stat` says (proc(5)).
struct Stat {
    pid: u32,
    parent: u32,
    cpu: Duration,
    resident: u64,
}

impl Stat {
    /// The name in parentheses may hold anything, so fields are counted from its end.
    fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(" (")?;
        let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split(' ').collect();
        let number = |field: usize| fields.get(field - 3)?.trim().parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            parent: u32::try_from(number(4)?).ok()?,
            cpu: Duration::from_millis((number(14)? + number(15)?) * MILLIS_PER_TICK),
            resident: number(24)? * PAGE,
        })
    }
}

/// Runs `program` to its end and gives what it wrote.
pub(crate) fn output(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The first number with dots that a program says of itself, wherever it says it.
pub(crate) fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let told = [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).join(" ");
    told.split(|c: char| c.is_whitespace() || "/-+".contains(c))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(str::to_owned)
}

/// Linux tells a hundred ticks a second to programs, whatever its own clock does.
const MILLIS_PER_TICK: u64 = 10;
const PAGE: u64 = 4096;
