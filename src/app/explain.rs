//! A request's verdict, told: everything is built as for `serve`, but nothing is bound, shared or served.
//!
//! Key managers are asked as `serve` asks them, or nobody is (`offline`). Quotas are this moment's own, whatever sidecars
//! share: nothing is used of them yet.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::Method;
use tokio::{runtime, time};

use super::{App, Embedded, Error, sources_of, worker::control};
use crate::{
    authz::{Authorizer, CheckRequest, Explanation},
    connectors,
    net::Fields,
    problem::Problem,
    store::record::{self, Record},
    telemetry::{LogFormat, LogLevel, LogSettings, Logs},
    throttle::Limiter,
    token::{
        Authenticator, FetchError, FetchFuture, FetchKeys, Introspect, IntrospectError, IntrospectFuture, KeyManagers,
        KeySource, Sources,
        settings::{ConnectorKind, KeyManagerSettings, TokenForm},
    },
};

/// A request to explain.
#[derive(Debug)]
pub struct Question {
    /// Verb.
    pub method: Method,
    /// Authority it asks for: lower case, without port; empty if none.
    pub host: String,
    /// Path, percent-encoded.
    pub path: String,
    /// Query, without `?`.
    pub query: Option<String>,
    /// Header fields.
    pub headers: Fields,
    /// Who asks.
    pub client: Option<IpAddr>,
}

/// Why a request cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The settings do not allow it.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Settings(Vec<Problem>),
    /// What every process needs is not there.
    #[error(transparent)]
    App(#[from] Error),
}

impl App {
    /// The verdict on a request, step by step, and what has to be known about it besides. `offline`: nobody is asked;
    /// only keys by hand, in the record and of embedded providers count.
    pub fn explain(self, question: &Question, offline: bool) -> Result<(Explanation, Vec<String>), ExplainError> {
        let log = LogSettings { format: LogFormat::Text, level: LogLevel::Warn, ..LogSettings::default() };
        let _logs = Logs::start(&log).map_err(|error| Error::Logs(error.to_string()))?;
        let mut caveats = Vec::new();
        let record = self.look_into_record(&mut caveats)?;
        let managers = self.managers_to_ask(record.is_some(), offline).map_err(ExplainError::Settings)?;
        if self.settings.shared.is_some() {
            caveats.push("revocations and counters that are shared through Redis are not looked at".into());
        }
        let explanation = control(self.answer(question, managers, record.as_ref()))?;
        Ok((explanation, caveats))
    }

    async fn answer(&self, question: &Question, managers: KeyManagers, record: Option<&Record>) -> Explanation {
        let tokens = &self.authorizer.tokens;
        // Counters that are shared would be judged as while Redis is away.
        let authorizer = Authorizer {
            store: Arc::clone(&self.authorizer.store),
            tokens: Arc::clone(tokens),
            limiter: Arc::new(Limiter::new()),
            metrics: Arc::clone(&self.metrics),
        };
        tokens.ask_on(runtime::Handle::current());
        for issuer in tokens.replace(managers) {
            tokio::spawn(issuer.run(Arc::clone(&self.clock), record.cloned()));
        }
        self.wait_for_keys(tokens).await;
        let request = CheckRequest {
            method: &question.method,
            host: &question.host,
            path: &question.path,
            query: question.query.as_deref(),
            headers: &question.headers,
            client: question.client,
            now: self.clock.now(),
        };
        authorizer.explain(&request).await
    }

    /// Until every key manager has keys, or has failed to get them.
    async fn wait_for_keys(&self, tokens: &Authenticator) {
        let settled = async {
            while !tokens.is_settled(self.clock.now()) {
                time::sleep(LOOK_EVERY).await;
            }
        };
        // One that takes longer is judged like one that has no keys.
        let _ = time::timeout(LONGEST_WAIT, settled).await;
    }

    /// The record, if there is one and no running process has it. It is never made here.
    fn look_into_record(&self, caveats: &mut Vec<String>) -> Result<Option<Record>, Error> {
        let path = self.settings.store.as_ref().and_then(|store| store.path.as_deref());
        let Some(path) = path.filter(|path| path.exists()) else { return Ok(None) };
        let record = match Record::open(path) {
            Ok(record) => record,
            Err(record::Error::InUse { .. }) => {
                caveats.push(
                    "the record is in use by another process: last known keys and revocations in it are not looked at"
                        .into(),
                );
                return Ok(None);
            }
            Err(error) => return Err(Error::Record(error)),
        };
        for embedded in &self.providers {
            let revocations = Arc::clone(&self.authorizer.store.revocations);
            embedded.provider.open(record.clone(), revocations).map_err(Error::Provider)?;
        }
        Ok(Some(record))
    }

    /// The key managers, each with how it is asked. An embedded provider whose record is not ours to read lives in
    /// another process, and is asked where it listens.
    fn managers_to_ask(&self, has_record: bool, offline: bool) -> Result<KeyManagers, Vec<Problem>> {
        let within: &[Embedded] = if has_record { &self.providers } else { &[] };
        sources_of(&self.settings, |manager, field| {
            let own =
                within.iter().find(|own| manager.connector == ConnectorKind::Embedded && own.name == manager.name);
            let sources = match own {
                Some(embedded) => return Ok(embedded.sources(manager)),
                None if manager.connector == ConnectorKind::Embedded => {
                    connectors::sources(&from_outside(manager), field, &self.client, &self.clock)
                }
                None => connectors::sources(manager, field, &self.client, &self.clock),
            };
            sources.map(|sources| if offline { asking_nobody(sources) } else { sources })
        })
    }
}

/// An embedded provider as others see it.
fn from_outside(manager: &KeyManagerSettings) -> KeyManagerSettings {
    let mut settings = KeyManagerSettings { connector: ConnectorKind::Oidc, ..manager.clone() };
    if let (TokenForm::Opaque, Some(client)) = (manager.tokens, manager.clients.first()) {
        settings.client_id = Some(client.id.clone());
        settings.client_secret = Some(client.secret.clone());
    }
    settings
}

/// The same sources, but nobody is asked.
fn asking_nobody(sources: Sources) -> Sources {
    Sources {
        keys: match sources.keys {
            KeySource::Remote(_) => KeySource::Remote(Arc::new(Nobody)),
            at_hand => at_hand,
        },
        introspection: sources.introspection.map(|_| Arc::new(Nobody) as Arc<dyn Introspect>),
    }
}

/// Stands for a provider that may not be asked.
#[derive(Debug)]
struct Nobody;

impl FetchKeys for Nobody {
    fn fetch(&self, _rediscover: bool) -> FetchFuture<'_> {
        Box::pin(async { Err(FetchError::Unreachable(OFFLINE.into())) })
    }
}

impl Introspect for Nobody {
    fn introspect<'a>(&'a self, _token: &'a str) -> IntrospectFuture<'a> {
        Box::pin(async { Err(IntrospectError::Unreachable(OFFLINE.into())) })
    }
}

const OFFLINE: &str = "nobody is asked (--offline)";
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
