//! The command line: what the program can be asked, and how it ends.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand, error::ErrorKind};

use crate::{
    app::{self, App, ExplainError},
    authz::Outcome,
    config::{self, Document, Settings},
    explain, health, km, quickstart,
};

/// Judges tokens for API gateways. Without a command: the quickstart, all on loopback.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run with a configuration file.
    Serve {
        /// The file: .toml, .yaml or .json.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Construct everything that a configuration file asks for; bind nothing, contact nobody.
    Check {
        /// The file: .toml, .yaml or .json.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Fail on every fail-open trap too.
        #[arg(long)]
        strict: bool,
    },
    /// Tell a request's verdict, step by step, and what would make it pass. Binds nothing and counts against no quota.
    Explain(explain::Arguments),
    /// Do the Key Manager's operations, through a running process's management door.
    Km(Box<km::Arguments>),
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Ask the admin door whether it is ready: a container probe. Exit 0 when it is, else 1.
    Health {
        /// The configuration file that names the admin door.
        #[arg(long, value_name = "FILE", conflicts_with = "address")]
        config: Option<PathBuf>,
        /// The admin door: ip:port or unix:/path.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
        address: String,
    },
}

/// How a run ends, by the codes of sysexits(3).
#[derive(Debug)]
enum End {
    /// All good.
    Good,
    /// The request explained would not be granted; told on standard output: 1.
    NotGranted,
    /// The probe says no: 1.
    NotReady(String),
    /// Wrong arguments: 64.
    Usage(String),
    /// Wrong or unreadable configuration, a port taken, or a record that cannot be opened: 78.
    Config(String),
    /// A fault of ours: 70.
    Fault(anyhow::Error),
    /// As `km` says: a code of its own, and what is told besides.
    Km(String, u8),
}

/// Runs the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let end = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => execute(arguments.command),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(error.render()),
            _ => End::Usage(error.render().to_string()),
        },
    };
    end.report()
}

fn execute(command: Option<Command>) -> End {
    match command {
        None => quick_start(),
        Some(Command::Serve { config }) => serve(&config),
        Some(Command::Check { config, strict }) => check(&config, strict),
        Some(Command::Explain(arguments)) => explain(&arguments),
        Some(Command::Km(arguments)) => operate(*arguments),
        Some(Command::Schema) => print(format_args!("{:#}\n", config::schema())),
        Some(Command::Health { config, address }) => probe(config.as_deref(), &address),
    }
}

fn quick_start() -> End {
    let (settings, document) = match config::quickstart() {
        Ok(loaded) => loaded,
        Err(error) => return End::Config(error.to_string()),
    };
    let guide = quickstart::guide(&settings);
    start(settings, document, None, move || {
        // A closed standard output is no reason to stop serving.
        let _ = io::stdout().write_all(guide.as_bytes());
    })
}

fn serve(file: &Path) -> End {
    match config::load(file) {
        Ok((settings, document)) => start(settings, document, Some(file), || {}),
        Err(error) => End::Config(error.to_string()),
    }
}

fn start(settings: Settings, document: Document, file: Option<&Path>, bound: impl FnOnce()) -> End {
    let app = match App::build(settings) {
        Ok(app) => app,
        Err(problems) => return End::Config(document.explain(problems).to_string()),
    };
    match app.run(file, bound) {
        Ok(()) => End::Good,
        Err(error @ (app::Error::Bind { .. } | app::Error::Record(_) | app::Error::BootstrapKey { .. })) => {
            End::Config(error.to_string())
        }
        Err(error) => End::Fault(told_once(&error)),
    }
}

/// An error of the application says itself what its source says.
fn told_once(error: &app::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

fn check(file: &Path, strict: bool) -> End {
    let (settings, document) = match config::load(file) {
        Ok(loaded) => loaded,
        Err(error) => return End::Config(error.to_string()),
    };
    let mut traps = settings.fail_open_traps();
    let mut warnings = settings.warnings();
    match App::build(settings) {
        Ok(app) => {
            traps.extend_from_slice(&app.table_findings().traps);
            warnings.extend_from_slice(&app.table_findings().warnings);
        }
        Err(problems) => return End::Config(document.explain(problems).to_string()),
    }
    if strict && !traps.is_empty() {
        return End::Config(document.explain(traps).to_string());
    }
    if !warnings.is_empty() {
        eprintln!("warnings:\n{}", document.explain(warnings));
    }
    print(format_args!("{}: good\n", file.display()))
}

fn explain(arguments: &explain::Arguments) -> End {
    let question = match arguments.question() {
        Ok(question) => question,
        Err(wrong) => return End::Usage(wrong),
    };
    let (settings, document) = match config::load(&arguments.config) {
        Ok(loaded) => loaded,
        Err(error) => return End::Config(error.to_string()),
    };
    let app = match App::build(settings) {
        Ok(app) => app,
        Err(problems) => return End::Config(document.explain(problems).to_string()),
    };
    let (explanation, caveats) = match app.explain(&question, arguments.offline) {
        Ok(told) => told,
        Err(ExplainError::Settings(problems)) => return End::Config(document.explain(problems).to_string()),
        Err(ExplainError::App(error @ app::Error::Record(_))) => return End::Config(error.to_string()),
        Err(ExplainError::App(error)) => return End::Fault(told_once(&error)),
    };
    let text = if arguments.json {
        match explain::json(&question, &explanation, &caveats) {
            Ok(text) => text,
            Err(error) => return End::Fault(error.into()),
        }
    } else {
        explain::text(&question, &explanation, &caveats)
    };
    match print(text) {
        End::Good if explanation.verdict != Outcome::Granted => End::NotGranted,
        end => end,
    }
}

fn operate(arguments: km::Arguments) -> End {
    match km::run(arguments) {
        Ok(told) => match print(&told.text) {
            End::Good => End::Km(told.note, told.code),
            end => end,
        },
        Err(error) => End::Km(error.to_string(), error.code()),
    }
}

fn probe(file: Option<&Path>, address: &str) -> End {
    let address = match file {
        None => match address.parse() {
            Ok(address) => address,
            Err(form) => return End::Usage(format!("--address: {form}")),
        },
        Some(file) => match config::load(file) {
            Ok((Settings { admin: Some(admin), .. }, _)) => admin.listen,
            Ok(_) => return End::Config(format!("{}: has no [admin]", file.display())),
            Err(error) => return End::Config(error.to_string()),
        },
    };
    match health::ask(&address) {
        Ok(health::Answer { ready: true, text }) => print(format_args!("{text}\n")),
        Ok(health::Answer { ready: false, text }) => End::NotReady(text),
        Err(error) => End::NotReady(format!("{address}: {error}")),
    }
}

/// Prints to standard output; a reader that went away is no fault.
fn print(text: impl fmt::Display) -> End {
    match write!(io::stdout(), "{text}").context("standard output") {
        Ok(()) => End::Good,
        Err(error) if is_broken_pipe(&error) => End::Good,
        Err(error) => End::Fault(error),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl End {
    /// Tells the reason on standard error and gives the exit code.
    fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::Good => return ExitCode::SUCCESS,
            Self::NotGranted => return ExitCode::from(1),
            Self::NotReady(text) => (text, 1),
            Self::Usage(text) => (text, 64),
            Self::Fault(error) => (format!("{error:#}"), 70),
            Self::Config(text) => (text, 78),
            Self::Km(text, code) if text.is_empty() => return ExitCode::from(code),
            Self::Km(text, code) => (text, code),
        };
        eprintln!("{}", text.trim_end());
        ExitCode::from(code)
    }
}
