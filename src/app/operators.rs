//! Who does the operations of key managers: the connectors, those of the file and those that are stored; and the door
//! at which they are asked for.

use std::{io, path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use super::{App, Embedded, Error, ending::Counter, key_managers, longest_leeway_s, sources_of, worker::Desk};
use crate::{
    config::Settings,
    connectors::{self, Means},
    keymanager::{self, Assembly, Engine, Kept, Managed, Memory, Origin, Passing},
    management::{Access, Door},
    net::{Clock, client::Client, listener::Listener, tls::Acceptor},
    problem::Problem,
    store::record::Record,
    token::settings::{ConnectorKind, KeyManagerSettings},
};

/// Asks for the present configuration to be taken over anew; what became of it.
pub(super) type Wish = oneshot::Sender<Result<(), String>>;

/// How a stored key manager comes to life.
#[derive(Debug)]
pub(super) struct Wiring {
    pub(super) client: Client,
    pub(super) clock: Arc<Clock>,
    pub(super) wishes: mpsc::Sender<Wish>,
}

#[async_trait::async_trait]
impl Assembly for Wiring {
    fn check(&self, settings: &KeyManagerSettings) -> Result<(), Vec<Problem>> {
        let alone = Settings { key_managers: vec![settings.clone()], ..Settings::default() };
        let mut problems = alone.problems();
        problems.retain(|problem| problem.field.starts_with(FIELD));
        if !problems.is_empty() {
            return Err(problems);
        }
        sources_of(&alone, |manager, field| connectors::sources(manager, field, &self.client, &self.clock))?;
        let memory = memory_of(None, settings);
        let means = Means { client: &self.client, clock: &self.clock, memory: &memory };
        connectors::key_manager(settings, FIELD, means).map(drop)
    }

    async fn take_over(&self) -> Result<(), String> {
        let (wish, outcome) = oneshot::channel();
        self.wishes.send(wish).await.map_err(|_| "the process is about to end".to_owned())?;
        outcome.await.unwrap_or_else(|_| Err("the process is about to end".into()))
    }
}

/// The settings with the stored key managers behind those of the file, which has the last word about a name. One that
/// cannot be used is told and left out: no row of the record keeps the file from being served.
pub(super) fn with_stored(settings: &Settings, record: Option<&Record>, wiring: &Wiring) -> Settings {
    let mut all = settings.clone();
    let stored = match record.map(keymanager::stored) {
        Some(Ok(stored)) => stored,
        Some(Err(error)) => {
            tracing::error!(%error, "the stored key managers cannot be read");
            return all;
        }
        None => return all,
    };
    for manager in stored {
        let manager = match manager {
            Ok(manager) => manager,
            Err(error) => {
                tracing::error!(%error, "a stored key manager cannot be read");
                continue;
            }
        };
        if all.key_managers.iter().any(|other| other.name == manager.name) {
            tracing::warn!(key_manager = manager.name, "is stored and declared in the file: the file's counts");
        } else if let Err(problems) = wiring.check(&manager) {
            let why = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            tracing::error!(key_manager = manager.name, why, "a stored key manager cannot be used");
        } else {
            all.key_managers.push(manager);
        }
    }
    all
}

/// The connectors of all key managers; those behind the first `declared` are stored. One of the `present` ones whose
/// settings are the same goes on, with what it knows of its provider.
pub(super) fn operators(
    settings: &Settings,
    declared: usize,
    (client, clock): (&Client, &Arc<Clock>),
    providers: &[Embedded],
    record: Option<&Record>,
    present: &[Arc<Managed>],
) -> Result<Vec<Managed>, Vec<Problem>> {
    let (mut managers, mut problems) = (Vec::new(), Vec::new());
    // A connection is driven by the thread that made it: requests do not wait for calls that give way to them.
    let client = &client.apart().map_err(|error| vec![Problem::new("key_managers", error.to_string())])?;
    for (index, manager) in settings.key_managers.iter().enumerate() {
        let origin = if index < declared { Origin::Declared } else { Origin::Stored };
        if let Some(same) = present.iter().find(|it| it.origin == origin && it.settings == *manager) {
            managers.push(Managed::clone(same));
            continue;
        }
        let own = providers.iter().find(|p| manager.connector == ConnectorKind::Embedded && p.name == manager.name);
        let connector = match own {
            Some(embedded) => Ok(connectors::embedded(Arc::clone(&embedded.provider))),
            None => {
                let memory = memory_of(record, manager);
                let means = Means { client, clock, memory: &memory };
                connectors::key_manager(manager, &format!("key_managers[{index}]"), means)
            }
        };
        match connector {
            Ok(connector) => managers.push(Managed { settings: manager.clone(), connector, origin }),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(managers) } else { Err(problems) }
}

/// What a connector remembers outlives the process where the record does.
fn memory_of(record: Option<&Record>, settings: &KeyManagerSettings) -> Arc<dyn Memory> {
    match record {
        Some(record) => Arc::new(Kept::new(record.clone(), &settings.name)),
        None => Arc::new(Passing::default()),
    }
}

impl App {
    /// Takes the stored key managers in, beside those of the file. Gives back who does the operations.
    pub(super) fn take_stored(&mut self, record: Option<&Record>, wiring: &Wiring) -> Result<Vec<Managed>, Error> {
        let declared = self.settings.key_managers.len();
        let all = with_stored(&self.settings, record, wiring);
        let failed = |problems: Vec<Problem>| {
            let why: Vec<_> = problems.iter().map(ToString::to_string).collect();
            broken("the key managers", io::Error::other(why.join("; ")))
        };
        if all.key_managers.len() > declared {
            self.key_managers = key_managers(&all, &self.client, &self.clock, &self.providers).map_err(failed)?;
            self.authorizer.store.revocations.outlast(longest_leeway_s(&all));
        }
        match self.settings.management {
            Some(_) => {
                let means = (&self.client, &self.clock);
                operators(&all, declared, means, &self.providers, record, &[]).map_err(failed)
            }
            None => Ok(Vec::new()),
        }
    }

    /// Opens the management door, if there is one, and lets its engine go to work, on a thread of theirs.
    pub(super) fn start_management(
        &self,
        listener: Option<Listener>,
        managers: Vec<Managed>,
        record: Option<&Record>,
        wiring: &Arc<Wiring>,
    ) -> Result<Option<(Counter, Desk)>, Error> {
        let Some((settings, listener)) = self.settings.management.as_ref().zip(listener) else { return Ok(None) };
        let revocations = Arc::clone(&self.authorizer.store.revocations);
        let assembly: Arc<dyn Assembly> = Arc::clone(wiring) as _;
        let registry = &self.metrics.registry;
        let engine = Engine::new(record.cloned(), revocations, Arc::clone(&self.clock), registry, Some(assembly));
        let engine = engine.map_err(|error| broken("the management door's metrics", io::Error::other(error)))?;
        let engine = Arc::new(engine.with_tables(Arc::clone(&self.authorizer.store)));
        engine.registry.replace(managers);
        let path = bootstrap_key(&self.settings).unwrap_or_default();
        let access = Access::new(
            &settings.key_managers,
            &path,
            &self.settings.realm,
            Arc::clone(&self.authorizer.tokens),
            Arc::clone(&self.authorizer.store),
            Arc::clone(&self.clock),
        );
        let access = access.map_err(|source| Error::BootstrapKey { path, source })?;
        let desk = Desk::start()?;
        let listener = {
            let _there = desk.handle().enter();
            listener.into_side().map_err(|error| broken("a listener", error))?
        };
        let tls = self.management_tls.clone();
        let door = Door::new(Arc::clone(&engine), access, Arc::clone(&self.authorizer.limiter));
        let (stop, stopped) = watch::channel(false);
        let served = desk.handle().spawn(door.serve(listener, tls, stopped));
        desk.handle().spawn(Arc::clone(&engine).tend());
        Ok(Some((Counter { engine, served, stop }, desk)))
    }
}

/// Where the management door's key is, or will be made.
fn bootstrap_key(settings: &Settings) -> Option<PathBuf> {
    let store = settings.store.as_ref().and_then(|store| store.path.as_deref());
    settings.management.as_ref()?.key_file(store)
}

/// Refuses a management door's key that is there and cannot be used.
pub(super) fn check_bootstrap_key(settings: &Settings) -> Result<(), Vec<Problem>> {
    let Some(path) = bootstrap_key(settings) else { return Ok(()) };
    Access::check_key(&path)
        .map_err(|error| vec![Problem::new("management.bootstrap_key_file", format!("{}: {error}", path.display()))])
}

/// The management door's certificates: those who bring none may have a token.
pub(super) fn management_tls(settings: &Settings) -> Result<Option<Acceptor>, Vec<Problem>> {
    let Some(tls) = settings.management.as_ref().and_then(|door| door.tls.as_ref()) else { return Ok(None) };
    Acceptor::optional(tls).map(Some).map_err(|error| vec![Problem::new("management.tls", error.to_string())])
}

const fn broken(what: &'static str, source: io::Error) -> Error {
    Error::System { what, source }
}

/// What was revoked before is refused from the first request on, whether or not there is a management door.
pub(super) fn restore(record: &Record, store: &crate::store::Store) -> Result<(), Error> {
    keymanager::restore(record, &store.revocations).map_err(Error::Operations)
}

const FIELD: &str = "key_managers[0]";
