//! A changed configuration, taken while serving: everything new is built beside the old, then swapped. A
//! bad one changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    Embedded, assertions, embedded, keep, key_managers, limit_tokens, longest_leeway_s,
    operators::{Wiring, operators, with_stored},
    tables,
};
use crate::{
    authserver::{Provider, Terms},
    authz::Authorizer,
    config::{self, Document, Settings, Stamps, TableFindings, TablesSettings},
    keymanager::Engine,
    net::{
        Clock,
        client::Client,
        tls::{self, Renewed},
    },
    problem::Problem,
    proxy,
    store::{Snapshot, record::Record},
    telemetry::{AccessLog, Logs, Metrics},
    token::{Issuer, KeyManagers, settings::KeyManagerSettings},
};

/// What readiness tells of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct ConfigStatus {
    pub(super) generation: u64,
    pub(super) last_error: Option<String>,
}

/// A configuration that was read, and its tables: what takes long, and touches nothing that runs.
#[derive(Debug)]
pub(super) struct Prepared {
    settings: Settings,
    document: Document,
    tables: Result<(Snapshot, TableFindings), Vec<Problem>>,
}

/// Reads the file, and those it names, and builds the tables. Large ones take seconds: not for a thread that serves.
pub(super) fn prepare(file: &Path, generation: u64) -> Result<Prepared, config::Error> {
    let (settings, document) = config::load(file)?;
    let tables = tables(&settings, generation);
    Ok(Prepared { settings, document, tables })
}

impl Prepared {
    /// The files that belong to it, and which content of them was read, where it was.
    pub(super) fn files(&self) -> (&TablesSettings, Option<&Stamps>) {
        (&self.settings.tables, self.tables.as_ref().ok().map(|(_, findings)| &findings.stamps))
    }
}

/// What a reload leaves to do: issuers to start, tables to free.
pub(super) type Replaced = (Vec<Arc<Issuer>>, Option<Arc<Snapshot>>);

/// Takes new settings over into the parts that run.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) file: PathBuf,
    /// The settings in force.
    pub(super) settings: Settings,
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) client: Client,
    pub(super) clock: Arc<Clock>,
    pub(super) providers: Vec<Embedded>,
    pub(super) record: Option<Record>,
    pub(super) wiring: Arc<Wiring>,
    /// The files are to be read again, those that settings name too: no connector goes on as it is.
    pub(super) anew: bool,
    /// None: there is no management door.
    pub(super) engine: Option<Arc<Engine>>,
    pub(super) tls: Option<tls::Acceptor>,
    pub(super) management_tls: Option<tls::Acceptor>,
    /// None: it is not configured.
    pub(super) proxy: Option<proxy::Shared>,
    pub(super) logs: Logs,
    pub(super) access_log: AccessLog,
    pub(super) status: Arc<Mutex<ConfigStatus>>,
}

impl Reloader {
    /// Takes over what was read, or tells why not. Gives back the issuers to start, and the tables before.
    pub(super) fn reload(&mut self, prepared: Result<Prepared, config::Error>) -> Replaced {
        let outcome = prepared.and_then(|prepared| self.take_over(prepared));
        self.metrics.config_reloaded(outcome.is_ok());
        match outcome {
            Ok(replaced) => {
                let mut status = self.status.lock();
                status.generation += 1;
                status.last_error = None;
                tracing::info!(generation = status.generation, "configuration reloaded");
                replaced
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is not taken over; the present one stays");
                self.status.lock().last_error = Some(error.to_string());
                Replaced::default()
            }
        }
    }

    /// Why the newest reload failed; none: it did not.
    pub(super) fn outcome(&self) -> Result<(), String> {
        self.status.lock().last_error.clone().map_or(Ok(()), Err)
    }

    /// What [`prepare`] is to read, and the generation of what it reads.
    pub(super) fn next(&self) -> (PathBuf, u64) {
        (self.file.clone(), self.status.lock().generation + 1)
    }

    fn take_over(&mut self, prepared: Prepared) -> Result<Replaced, config::Error> {
        let Prepared { settings, document, tables } = prepared;
        let mut problems = settings.problems();
        let tables = keep(&mut problems, tables);
        let declared = settings.key_managers.len();
        let all = with_stored(&settings, self.record.as_ref(), &self.wiring);
        let managers = keep(&mut problems, self.key_managers(&all));
        let operators = match &self.engine {
            Some(engine) => {
                let (means, record) = ((&self.client, &self.clock), self.record.as_ref());
                let present = if self.anew { Arc::default() } else { engine.registry.all() };
                keep(&mut problems, operators(&all, declared, means, &self.providers, record, &present))
            }
            None => None,
        };
        let signing = self.proxy.as_ref().and_then(|proxy| proxy.assertions.load_full());
        let minting = keep(&mut problems, assertions(&settings, signing.as_deref(), self.clock.now()));
        let (Some((tables, _)), Some(managers), Some(minting)) = (tables, managers, minting) else {
            return Err(document.explain(problems));
        };
        if !problems.is_empty() {
            return Err(document.explain(problems));
        }
        let terms = self.new_terms(&settings).map_err(|problems| document.explain(problems))?;
        // The last that can fail: from here on everything is taken over.
        let certificates = self.certificates(&settings).map_err(|problems| document.explain(problems))?;
        certificates.into_iter().for_each(Renewed::put_in_force);
        for (provider, terms) in terms {
            provider.replace_terms(terms);
        }
        for field in config::restart_only(&self.settings, &settings) {
            tracing::warn!(field, "changed, and waits for a restart");
        }
        self.metrics.set_api_count(tables.apis.len());
        limit_tokens(&self.authorizer.tokens, &settings);
        if let (Some(counters), Some(shared)) = (self.authorizer.limiter.shared(), &settings.shared) {
            counters.reload(shared.terms());
        }
        let started = self.authorizer.tokens.replace(managers);
        if let (Some(engine), Some(operators)) = (&self.engine, operators) {
            engine.registry.replace(operators);
        }
        self.authorizer.store.revocations.outlast(longest_leeway_s(&all));
        let before = self.authorizer.store.replace(tables);
        self.metrics.tables_replaced();
        self.logs.apply(&settings.log);
        self.access_log.apply(&settings.log);
        if let (Some(proxy), Some(settings)) = (&self.proxy, &settings.proxy) {
            proxy.reload(settings.clone());
            proxy.assertions.store(minting.map(Arc::new));
        }
        self.settings = settings;
        self.anew = false;
        Ok((started, Some(before)))
    }

    fn key_managers(&self, settings: &Settings) -> Result<KeyManagers, Vec<Problem>> {
        let runs = |manager: &KeyManagerSettings| {
            self.providers.iter().any(|own| own.name == manager.name && own.settled(manager))
        };
        let new: Vec<Problem> = embedded(settings)
            .filter(|(_, manager)| !runs(manager))
            .map(|(field, _)| Problem::new(field, "an embedded provider that is new or moves needs a restart"))
            .collect();
        if !new.is_empty() {
            return Err(new);
        }
        key_managers(settings, &self.client, &self.clock, &self.providers)
    }

    /// Certificates are read anew even where their names are the same: that is how they are renewed. Those of all
    /// doors, or an error for each that cannot be used.
    fn certificates(&self, settings: &Settings) -> Result<Vec<Renewed<'_>>, Vec<Problem>> {
        let proxy = settings.proxy.as_ref().and_then(|door| door.tls.as_ref());
        let management = settings.management.as_ref().and_then(|door| door.tls.as_ref());
        let (mut read, mut problems) = (Vec::new(), Vec::new());
        for (field, acceptor, new) in
            [("proxy.tls", &self.tls, proxy), ("management.tls", &self.management_tls, management)]
        {
            match acceptor.as_ref().zip(new).map(|(acceptor, new)| acceptor.renewed(new)) {
                Some(Ok(renewed)) => read.push(renewed),
                Some(Err(error)) => problems.push(Problem::new(field, error.to_string())),
                None => {}
            }
        }
        if problems.is_empty() { Ok(read) } else { Err(problems) }
    }

    /// The terms of each embedded provider, not yet in force.
    fn new_terms(&self, settings: &Settings) -> Result<Vec<(&Provider, Terms)>, Vec<Problem>> {
        let own = |name: &str| self.providers.iter().find(|embedded| embedded.name == name);
        embedded(settings)
            .filter_map(|(field, manager)| own(&manager.name).map(|own| (&*own.provider, field, manager)))
            .map(|(provider, field, manager)| Ok((provider, Terms::new(manager, &field)?)))
            .collect()
    }
}
