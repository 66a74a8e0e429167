//! `tollgate km`: the operations of the Key Manager on the command line, done by a running process's management door.
//!
//! A command becomes a [`call::Call`], which names an operation of the door's own table (`management::offers`): verb and
//! path are looked up there, so that they cannot differ. Secrets come from files or standard input; what an error says
//! never has one.

mod call;
mod clients;
mod door;
mod help;
mod keep;
mod pages;
mod scopes;
mod show;
#[cfg(test)]
mod tests;
mod text;
mod tokens;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use serde_json::Value;

use call::{Body, Call, Inputs};
use clients::{ClientCommand, SecretCommand};
use door::{Answer, Connection, Door};
use scopes::{EverywhereCommand, ResourceCommand, ScopeCommand};
use text::text;
use tokens::{Revoke, TokenCommand};

/// What the command line says.
#[derive(Debug, Args)]
#[command(after_help = help::text())]
pub(crate) struct Arguments {
    /// Print the answer as it is, JSON, not as a table.
    #[arg(long, global = true)]
    json: bool,
    /// Tell what would be done; change nothing.
    #[arg(long, global = true)]
    dry_run: bool,
    /// Change only what still has this ETag, as a reading command told it.
    #[arg(long, global = true, value_name = "ETAG")]
    if_match: Option<String>,
    /// Make a creation repeatable: the same key and body are done once.
    #[arg(long, global = true, value_name = "TEXT", value_parser = text::<String>, allow_hyphen_values = true)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the key managers.
    List(Part),
    /// Show a key manager's configuration and connector, secrets aside.
    Show(KeyManager),
    /// Tell what each operation can do at a key manager, or why not.
    Capabilities(KeyManager),
    /// Configure a key manager that is kept in the store.
    Load {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        /// Its settings as JSON, in the configuration's field names; - reads standard input.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Remove a key manager that is kept in the store; none of its clients may be left here.
    Delete(KeyManager),
    /// Clients: create, get, update, delete, owner, map, unmap, parse.
    #[command(subcommand)]
    Client(ClientCommand),
    /// Clients' secrets: rotate, add, list, delete.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Tokens: new, active, show, introspect, revoke, revoke-one-time, can-handle, request, parse.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Scopes: register, get, list, exists, update, delete, validate.
    #[command(subcommand)]
    Scope(ScopeCommand),
    /// Resources of APIs: register, get, update, delete, attach-scopes, replace-scopes, detach-scopes.
    #[command(subcommand)]
    Resource(ResourceCommand),
    /// Scopes and resources at every key manager at once.
    #[command(subcommand)]
    Everywhere(EverywhereCommand),
    /// Users: claims.
    #[command(subcommand)]
    User(UserCommand),
    /// List what is still to be done at a provider.
    Pending {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        #[command(flatten)]
        page: Page,
    },
    /// Forget something that is still to be done.
    Forget {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        /// Its number, as `pending` lists it.
        id: u64,
    },
    /// Refuse tokens from now on, by jti, token, client or subject.
    Revoke(Revoke),
    /// List what is revoked.
    Revocations(Page),
    /// Show a revocation.
    Revocation {
        /// Its id, as `revocations` lists it.
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Lift a revocation: tokens that are good in all else pass again.
    Lift {
        /// Its id, as `revocations` lists it.
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// List who changed what.
    Audit(Page),
    /// Tell what is used of limits, as far as the process has counted.
    Usage(Usage),
}

/// Whose limits.
#[derive(Debug, Args)]
struct Usage {
    #[command(flatten)]
    of: UsageOf,
    /// With --subject: whose own counters are told too; the issuer of the user's tokens.
    #[arg(long, value_name = "URL", requires = "subject")]
    issuer: Option<String>,
    /// With --issuer: the user, as tokens have it (`sub`).
    #[arg(long, value_name = "TEXT", requires = "issuer", value_parser = text::<String>, allow_hyphen_values = true)]
    subject: Option<String>,
    #[command(flatten)]
    part: Part,
}

/// One of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct UsageOf {
    /// All that have this tier.
    #[arg(long, value_name = "NAME", value_parser = text::<String>, allow_hyphen_values = true)]
    tier: Option<String>,
    /// An application's.
    #[arg(long, value_name = "NAME", value_parser = text::<String>, allow_hyphen_values = true)]
    application: Option<String>,
    /// An API's: name:version, or its name where it has no version.
    #[arg(long, value_name = "API", value_parser = text::<String>, allow_hyphen_values = true)]
    api: Option<String>,
}

impl Usage {
    fn call(self) -> Call {
        let Self { of: UsageOf { tier, application, api }, issuer, subject, part } = self;
        let call = Call::new("listUsage", []).ask("tier", tier).ask("application", application).ask("api", api);
        part.on(call.ask("issuer", issuer).ask("subject", subject))
    }
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Tell what the provider says of a user.
    Claims {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        /// The user's name.
        user: String,
    },
}

/// Which key manager.
#[derive(Debug, Args)]
struct KeyManager {
    /// The key manager.
    #[arg(value_name = "NAME")]
    km: String,
}

/// Which part of a list that may be long without end.
#[derive(Debug, Args)]
struct Page {
    /// At most so many; 100 without it.
    #[arg(long)]
    limit: Option<u16>,
    /// Those behind, as the page before told it.
    #[arg(long, value_name = "TEXT", value_parser = text::<String>, allow_hyphen_values = true)]
    cursor: Option<String>,
}

impl Page {
    fn on(self, call: Call) -> Call {
        call.ask("limit", self.limit).ask("cursor", self.cursor)
    }
}

/// Which part of a list that is told whole without it.
#[derive(Debug, Args)]
struct Part {
    /// At most so many; all without it.
    #[arg(long)]
    limit: Option<u16>,
    /// Those behind, as the page before told it.
    #[arg(long, value_name = "TEXT", value_parser = text::<String>, allow_hyphen_values = true)]
    cursor: Option<String>,
}

impl Part {
    fn on(self, call: Call) -> Call {
        let call = Call { whole: self.limit.is_none(), ..call };
        call.ask("limit", self.limit).ask("cursor", self.cursor)
    }
}

impl Command {
    fn call(self, inputs: &Inputs) -> Result<Call, Error> {
        Ok(match self {
            Self::List(part) => part.on(Call::new("listKeyManagers", [])),
            Self::Show(KeyManager { km }) => Call::new("getKeyManagerConfiguration", [km]),
            Self::Capabilities(KeyManager { km }) => Call::new("capabilities", [km]),
            Self::Load { km, from } => Call::new("loadConfiguration", [km]).with(Body::begin(inputs, Some(&from))?),
            Self::Delete(KeyManager { km }) => Call::new("deleteKeyManager", [km]),
            Self::Client(command) => command.call(inputs)?,
            Self::Secret(command) => command.call(inputs)?,
            Self::Token(command) => command.call(inputs)?,
            Self::Scope(command) => command.call(inputs)?,
            Self::Resource(command) => command.call(inputs)?,
            Self::Everywhere(command) => command.call(inputs)?,
            Self::User(UserCommand::Claims { km, user }) => Call::new("getUserClaims", [km, user]),
            Self::Pending { km, page } => page.on(Call::new("listPending", [km])),
            Self::Forget { km, id } => Call::new("forgetPending", [km, id.to_string()]),
            Self::Revoke(revoke) => revoke.call(inputs)?,
            Self::Revocations(page) => tokens::revocations(page),
            Self::Revocation { id } => Call::new("getRevocation", [id]),
            Self::Lift { id } => Call::new("liftRevocation", [id]),
            Self::Usage(usage) => usage.call(),
            Self::Audit(page) => page.on(Call::new("listAudit", [])),
        })
    }
}

/// What a command gave.
#[derive(Debug)]
pub(crate) struct Told {
    /// For standard output.
    pub(crate) text: String,
    /// For standard error; empty: nothing.
    pub(crate) note: String,
    /// The exit code.
    pub(crate) code: u8,
}

/// Why a command gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Wrong arguments.
    #[error("{0}")]
    Usage(String),
    /// A file or setting cannot be used.
    #[error("{0}")]
    Unreadable(String),
    /// The door cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// What answers is no management door, or the fault is ours.
    #[error("{0}")]
    Fault(String),
    /// The door says no.
    #[error("{text}")]
    Refused {
        /// With this status.
        status: StatusCode,
        /// Its problem.
        text: String,
    },
}

impl Error {
    /// The exit code, by sysexits(3) where it has one.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Unreadable(_) => 78,
            Self::Unreachable(_) => 69,
            Self::Fault(_) => 70,
            Self::Refused { status, .. } => match status.as_u16() {
                401 | 403 => 77,
                404 => 66,
                429 => 75,
                400..=499 => 65,
                501 => 3,
                _ => 70,
            },
        }
    }
}

/// Asks the door, and tells what it answered.
pub(crate) fn run(arguments: Arguments) -> Result<Told, Error> {
    let Arguments { connection, json, dry_run, if_match, idempotency_key, command } = arguments;
    let inputs = Inputs::default();
    let call = command.call(&inputs)?;
    let terms = door::Terms { dry_run, if_match, idempotency_key };
    let door = Door::open(&connection, &inputs)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Fault(format!("no runtime: {error}")))?;
    let outcome = runtime.block_on(answer(&door, &call, &terms, json));
    // A lookup of a name that hangs holds up nobody.
    runtime.shutdown_background();
    outcome.map_err(|error| inputs.hidden(error))
}

async fn answer(door: &Door, call: &Call, terms: &door::Terms, json: bool) -> Result<Told, Error> {
    match keep::ask(door, call, terms).await {
        Ok(answer) if answer.method == Method::HEAD => is_door(door, call).await.map(|()| exists(true, json)),
        Ok(answer) if !is_said(call.operation, answer.body.as_ref()) => Err(door.is_none()),
        Ok(answer) => Ok(told(call.operation, &answer, json)),
        Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) if call.operation == SCOPE_EXISTS => {
            is_door(door, call).await.map(|()| exists(false, json))
        }
        Err(error) => Err(error),
    }
}

/// An answer to HEAD has no words: a 200 may be a page of whatever else answers there, a 404 be of the key manager. What
/// reads the key manager tells, by what only the door says of it.
async fn is_door(door: &Door, call: &Call) -> Result<(), Error> {
    let of = Call { parts: call.parts.first().cloned().into_iter().collect(), ..Call::new(READ, []) };
    let read = door.ask(&of, &door::Terms::default()).await?.body;
    let text = |name: &str| read.as_ref()?.get(name)?.as_str();
    let is_it = text("name") == of.parts.first().map(String::as_str) && text("declaredIn").is_some();
    if is_it { Ok(()) } else { Err(door.is_none()) }
}

/// Whether an answer that is read as yes or no says which.
fn is_said(operation: &str, body: Option<&Value>) -> bool {
    let member = match operation {
        "canHandleToken" => "canHandle",
        "getTokenMetaData" => "isTokenValid",
        _ => return true,
    };
    body.and_then(|body| body.get(member)).is_some_and(Value::is_boolean)
}

fn exists(there: bool, json: bool) -> Told {
    let text = match (json, there) {
        (true, _) => format!("{there}\n"),
        (false, true) => "yes\n".into(),
        (false, false) => "no\n".into(),
    };
    Told { text, note: String::new(), code: u8::from(!there) }
}

fn told(operation: &str, answer: &Answer, json: bool) -> Told {
    let Some(body) = &answer.body else {
        let text = if json { String::new() } else { "done\n".into() };
        return Told { text, note: String::new(), code: 0 };
    };
    let mut notes = Vec::new();
    if let Some(tag) = &answer.etag {
        notes.push(format!("etag: {tag}"));
    }
    if let Some(cursor) = body.get("cursor").and_then(Value::as_str).filter(|_| !json) {
        notes.push(format!("there is more: --cursor {}", crate::explain::clean(cursor)));
    }
    if let Some(hint) = body.get("hint").and_then(Value::as_str).filter(|_| !json) {
        notes.push(crate::explain::clean(hint));
    }
    let failed = show::failed(body);
    if !failed.is_empty() {
        notes.push(format!("failed at: {}", crate::explain::clean(&failed.join(", "))));
    }
    let text = if json { answer.text.clone() + "\n" } else { show::text(operation, body) };
    Told { text, note: notes.join("\n"), code: if failed.is_empty() { 0 } else { 70 } }
}

const SCOPE_EXISTS: &str = "isScopeExists";
const READ: &str = "getKeyManagerConfiguration";
