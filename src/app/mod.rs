//! The assembly: builds every part once, binds, reloads, drains.
//!
//! [`App::build`] constructs everything and neither binds a port nor contacts anyone, so that `tollgate
//! check` is simply that. Only this module starts tasks that live as long as the process.

mod ending;
mod explain;
mod operators;
mod reload;
mod run;
mod tables;
mod watch;
mod worker;

use std::{io, path::PathBuf, sync::Arc};

pub use explain::{ExplainError, Question};

use crate::{
    authserver::{self, Provider},
    authz::{Authorizer, Step},
    config::{Settings, TableFiles, TableFindings},
    connectors, keymanager,
    net::{Address, Clock, Now, client::Client, tls},
    problem::Problem,
    store::{Revocations, Snapshot, Store, record},
    sync::{self, Sharer},
    telemetry::Metrics,
    throttle::{
        Limiter,
        shared::{self, Shared},
    },
    token::{
        Authenticator, Introspect, KeyManagers, KeySource, Sources,
        assertion::Assertions,
        settings::{ConnectorKind, KeyManagerSettings, TokenForm, Validation},
    },
};

/// Everything, built and at rest.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    findings: TableFindings,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    authorizer: Arc<Authorizer>,
    key_managers: KeyManagers,
    providers: Vec<Embedded>,
    client: Client,
    tls: Option<tls::Acceptor>,
    management_tls: Option<tls::Acceptor>,
    assertions: Option<Assertions>,
    sharer: Option<Sharer>,
    keeper: tables::Keeper,
}

/// An embedded provider and where it listens.
#[derive(Debug)]
struct Embedded {
    name: String,
    listen: Address,
    provider: Arc<Provider>,
}

impl Embedded {
    /// Whether it is where these settings want it.
    fn settled(&self, settings: &KeyManagerSettings) -> bool {
        let listen = settings.listen.as_deref().and_then(|listen| listen.parse().ok());
        self.provider.issuer() == settings.issuer && listen.as_ref() == Some(&self.listen)
    }

    /// Its keys as they turn over; and it is asked without a socket, where there is something to ask. Else it would
    /// only come in the way of others whose tokens are opaque.
    fn sources(&self, settings: &KeyManagerSettings) -> Sources {
        let asked = settings.tokens == TokenForm::Opaque
            || settings.token_pattern.is_some()
            || matches!(settings.validation, Validation::Introspect | Validation::Both);
        Sources {
            keys: KeySource::Local(self.provider.local_keys()),
            introspection: asked.then(|| Arc::clone(&self.provider) as Arc<dyn Introspect>),
        }
    }
}

/// Why the process cannot run, once it is built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken, or not ours to take.
    #[error("{field}: cannot listen on {address}: {source}")]
    Bind {
        /// The setting.
        field: String,
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The management door's key cannot be made or read, or others may read it.
    #[error("management.bootstrap_key_file: {}: {source}", .path.display())]
    BootstrapKey {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The system refuses what every process needs: a thread, a timer, a signal handler.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The record cannot be opened.
    #[error("store.path: {0}")]
    Record(#[source] record::Error),
    /// An embedded provider cannot begin.
    #[error("{0}")]
    Provider(#[source] authserver::Error),
    /// What the operations of key managers have kept cannot be read.
    #[error("store.path: {0}")]
    Operations(#[source] keymanager::Error),
    /// Logging was started before.
    #[error("logging cannot be started: {0}")]
    Logs(String),
}

impl App {
    /// Builds every part, or names every mistake in the settings.
    pub fn build(settings: Settings) -> Result<Self, Vec<Problem>> {
        let built = tables::build(move || (tables(&settings, 1), settings));
        let built = built.map_err(|error| system("the thread of the tables", &error))?.blocking_recv();
        let ((tables, settings), keeper) = built.map_err(|error| system("the tables", &error))?;
        let mut problems = settings.problems();
        let clock = Arc::new(Clock::new());
        let metrics = Arc::new(Metrics::new());
        let client = keep(&mut problems, Client::new().map_err(|error| system("the client towards providers", &error)));
        let tokens = Authenticator::new(&settings.cache, &metrics.registry);
        let tokens = keep(&mut problems, tokens.map_err(|error| system("the cache of tokens", &error)));
        let tls = keep(&mut problems, listener_tls(&settings));
        let management_tls = keep(&mut problems, operators::management_tls(&settings));
        keep(&mut problems, operators::check_bootstrap_key(&settings));
        let assertions = keep(&mut problems, assertions(&settings, None, clock.now()));
        let tables = keep(&mut problems, tables);
        let revocations = keep(&mut problems, revocations(&settings, &metrics));
        let sharer = revocations
            .as_ref()
            .and_then(|revocations| keep(&mut problems, sharer(&settings, revocations, &clock, &metrics)));
        let providers = keep(&mut problems, providers(&settings, &clock));
        let key_managers = client
            .as_ref()
            .zip(providers.as_ref())
            .and_then(|(client, providers)| keep(&mut problems, key_managers(&settings, client, &clock, providers)));
        if let (Some(client), Some(providers), true) = (&client, &providers, settings.management.is_some()) {
            // Built anew with those that are stored, once the record is open; what is wrong is told now.
            let declared = settings.key_managers.len();
            keep(&mut problems, operators::operators(&settings, declared, (client, &clock), providers, None, &[]));
        }
        let parts =
            (client, tokens, tls, management_tls, assertions, tables, revocations, sharer, providers, key_managers);
        let (
            Some(client),
            Some(tokens),
            Some(tls),
            Some(management_tls),
            Some(assertions),
            Some((tables, findings)),
            Some(revocations),
            Some(sharer),
            Some(providers),
            Some(key_managers),
        ) = parts
        else {
            return Err(problems);
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let shared = counters(&settings, &metrics)?;
        metrics.set_api_count(tables.apis.len());
        Step::ALL.into_iter().for_each(|step| metrics.declare_step(step as usize, step.label()));
        limit_tokens(&tokens, &settings);
        let authorizer = Arc::new(Authorizer {
            store: Arc::new(Store::with_revocations(tables, revocations)),
            tokens: Arc::new(tokens),
            limiter: Arc::new(Limiter::with_shared(shared)),
            metrics: Arc::clone(&metrics),
        });
        Ok(Self {
            settings,
            findings,
            clock,
            metrics,
            authorizer,
            key_managers,
            providers,
            client,
            tls,
            management_tls,
            assertions,
            sharer,
            keeper,
        })
    }

    /// What was seen of the tables' files.
    pub const fn table_findings(&self) -> &TableFindings {
        &self.findings
    }
}

/// How long what is learnt of tokens may be used, how many bad ones a client may bring, and how many new ones may wait.
fn limit_tokens(tokens: &Authenticator, settings: &Settings) {
    let failures = &settings.throttle.failures;
    tokens.set_limits(&settings.cache, failures.requests, failures.per.0);
    tokens.set_waiting(settings.verification);
}

/// What was built; where nothing was, its problems join the others.
fn keep<T>(problems: &mut Vec<Problem>, built: Result<T, Vec<Problem>>) -> Option<T> {
    built.map_err(|found| problems.extend(found)).ok()
}

/// The tables that the settings describe, and what was seen of their files.
fn tables(settings: &Settings, generation: u64) -> Result<(Snapshot, TableFindings), Vec<Problem>> {
    let (gate, names) = (settings.gate(), settings.key_manager_names());
    let mut files = TableFiles::open(settings)?;
    let snapshot = Snapshot::build_with(&settings.tables(&gate, &names), &mut files, generation)?;
    Ok((snapshot, files.into_findings()))
}

/// The table of revocations, empty.
fn revocations(settings: &Settings, metrics: &Metrics) -> Result<Arc<Revocations>, Vec<Problem>> {
    let revocations = Revocations::default();
    revocations.outlast(longest_leeway_s(settings));
    revocations.register(&metrics.registry).map_err(|error| system("the table of revocations", &error))?;
    Ok(Arc::new(revocations))
}

/// What shares the revocations, if they are shared.
fn sharer(
    settings: &Settings,
    revocations: &Arc<Revocations>,
    clock: &Arc<Clock>,
    metrics: &Metrics,
) -> Result<Option<Sharer>, Vec<Problem>> {
    let metrics = sync::Metrics::register(&metrics.registry).map_err(|error| system("sharing", &error))?;
    let Some(shared) = &settings.shared else { return Ok(None) };
    Sharer::new(shared, Arc::clone(revocations), Arc::clone(clock), metrics).map(Some)
}

/// The counters that are shared, if they are.
fn counters(settings: &Settings, metrics: &Metrics) -> Result<Option<Arc<Shared>>, Vec<Problem>> {
    let metrics = shared::Metrics::register(&metrics.registry).map_err(|error| system("shared counters", &error))?;
    let Some(shared) = &settings.shared else { return Ok(None) };
    Ok(Some(Arc::new(Shared::new(shared.redis()?, &shared.prefix, shared.terms(), metrics))))
}

/// How long a token may live beyond its `exp`, with any key manager.
fn longest_leeway_s(settings: &Settings) -> u64 {
    settings.key_managers.iter().map(|manager| manager.leeway.0.as_secs().saturating_add(1)).max().unwrap_or(0)
}

/// The embedded providers that the settings ask for.
fn providers(settings: &Settings, clock: &Arc<Clock>) -> Result<Vec<Embedded>, Vec<Problem>> {
    let (mut providers, mut problems) = (Vec::new(), Vec::new());
    for (field, manager) in embedded(settings) {
        let Some(listen) = manager.listen.as_deref().and_then(|listen| listen.parse().ok()) else {
            problems
                .push(Problem::new(format!("{field}.listen"), "the embedded provider needs an address to listen on"));
            continue;
        };
        match Provider::new(manager, &field, Arc::clone(clock)) {
            Ok(provider) => providers.push(Embedded { name: manager.name.clone(), listen, provider }),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(providers) } else { Err(problems) }
}

/// The key managers with connector `embedded`, each with its field.
fn embedded(settings: &Settings) -> impl Iterator<Item = (String, &KeyManagerSettings)> {
    let managers = settings.key_managers.iter().enumerate();
    managers.filter(|(_, m)| m.connector == ConnectorKind::Embedded).map(|(i, m)| (format!("key_managers[{i}]"), m))
}

/// The key managers of the settings, each with how its provider is reached.
fn key_managers(
    settings: &Settings,
    client: &Client,
    clock: &Arc<Clock>,
    providers: &[Embedded],
) -> Result<KeyManagers, Vec<Problem>> {
    sources_of(settings, |manager, field| {
        let own = providers.iter().find(|p| manager.connector == ConnectorKind::Embedded && p.name == manager.name);
        match own {
            Some(embedded) => Ok(embedded.sources(manager)),
            None => connectors::sources(manager, field, client, clock),
        }
    })
}

/// The key managers of the settings; `sources` tells how the provider of each, at this field, is reached.
fn sources_of(
    settings: &Settings,
    sources: impl Fn(&KeyManagerSettings, &str) -> Result<Sources, Vec<Problem>>,
) -> Result<KeyManagers, Vec<Problem>> {
    let (mut managers, mut problems) = (Vec::new(), Vec::new());
    for (i, manager) in settings.key_managers.iter().enumerate() {
        match sources(manager, &format!("key_managers[{i}]")) {
            Ok(source) => managers.push((manager.clone(), source)),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // Those of identity headers first, by whose places they are looked up.
    let mut claims: Vec<Box<str>> = Vec::new();
    let for_upstreams = settings.backend_jwt.iter().flat_map(|jwt| &jwt.claims);
    let for_limits = settings.throttle_claims();
    for name in settings.identity_headers.claims.keys().chain(for_upstreams).chain(&for_limits) {
        if !claims.iter().any(|known| **known == *name) {
            claims.push(name.as_str().into());
        }
    }
    let claims: Arc<[Box<str>]> = claims.into();
    KeyManagers::build(managers, &claims)
}

/// What mints backend JWTs, with the keys of `before` if there was one.
fn assertions(settings: &Settings, before: Option<&Assertions>, now: Now) -> Result<Option<Assertions>, Vec<Problem>> {
    settings.backend_jwt.as_ref().map(|jwt| Assertions::build(jwt, before, now)).transpose()
}

/// The proxy's certificates.
fn listener_tls(settings: &Settings) -> Result<Option<tls::Acceptor>, Vec<Problem>> {
    let Some(tls) = settings.proxy.as_ref().and_then(|proxy| proxy.tls.as_ref()) else { return Ok(None) };
    tls::Acceptor::new(tls).map(Some).map_err(|error| vec![Problem::new("proxy.tls", error.to_string())])
}

/// Not the settings' fault, but told like one: there is no running without it.
fn system(what: &str, error: &dyn std::fmt::Display) -> Vec<Problem> {
    vec![Problem::new(what, error.to_string())]
}
