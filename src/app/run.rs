//! The life of the process: bind, start, wait for signals, drain.

use std::{
    convert::Infallible,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};

use super::{
    App, Error,
    ending::{Signals, finish},
    operators::{self, Wiring, Wish},
    reload::{ConfigStatus, Reloader},
    tables::Preparing,
    watch::FileWatch,
    worker::{control, start_worker},
};
use crate::{
    admin::{self, Health, KeyManagerHealth},
    authz::Authorizer,
    net::{
        Address, Clock, Room, cpu,
        drain::{Drain, Phase},
        listener::{self, Listener},
        raise_descriptors,
        server::Limits,
    },
    proxy::{self, Proxy},
    store::record::Record,
    sync::Sharer,
    telemetry::{AccessLog, Logs},
    token::{Circuit, Issuer, IssuerStatus, assertion::Assertions},
};

/// What is bound, before anything runs.
struct Bound {
    admin: Option<Listener>,
    management: Option<Listener>,
    providers: Vec<Listener>,
    proxy: Vec<Listener>,
}

impl App {
    /// Binds every door, tells by `bound` that it has, and serves until a signal ends it. `file` is
    /// watched for changes.
    pub fn run(self, file: Option<&Path>, bound: impl FnOnce()) -> Result<(), Error> {
        let logs = Logs::start(&self.settings.log).map_err(|error| Error::Logs(error.to_string()))?;
        let access_log = AccessLog::start(&self.settings.log, self.metrics.access_lines_dropped.clone())
            .map_err(|source| Error::System { what: "the access log's thread", source })?;
        // Held, and with it the file, until the end.
        let record = self.open_record()?;
        let doors = self.bind()?;
        bound();
        for warning in self.settings.warnings().iter().chain(&self.findings.warnings) {
            tracing::warn!(field = warning.field, "{}", warning.message);
        }
        let outcome = control(self.serve(doors, file, (logs, access_log.clone()), record));
        access_log.shutdown();
        outcome?
    }

    /// Opens the record, and with it what the embedded providers remember. Before any door: nobody is served by
    /// half of what was acknowledged.
    fn open_record(&self) -> Result<Option<Record>, Error> {
        let begun = Instant::now();
        let path = self.settings.store.as_ref().and_then(|store| store.path.as_deref());
        let open = |path: &Path| Record::open(path).map_err(Error::Record);
        let record = path.map(open).transpose()?;
        for embedded in &self.providers {
            let record = match &record {
                Some(record) => record.clone(),
                None => Record::in_memory().map_err(Error::Record)?,
            };
            let revocations = Arc::clone(&self.authorizer.store.revocations);
            embedded.provider.open(record, revocations).map_err(Error::Provider)?;
        }
        if let Some(record) = &record {
            operators::restore(record, &self.authorizer.store)?;
            let system = |error| Error::System { what: "the record's metrics", source: io::Error::other(error) };
            record.register(&self.metrics.registry).map_err(system)?;
        }
        if let Some(path) = path {
            let duration_ms = begun.elapsed().as_secs_f64() * 1000.0;
            tracing::info!(path = %path.display(), duration_ms, "the record is open");
        }
        Ok(record)
    }

    fn bind(&self) -> Result<Bound, Error> {
        let bind = |field: String, address: &Address, n| {
            listener::bind(address, n).map_err(|source| Error::Bind { field, address: address.clone(), source })
        };
        let one = |field: String, address: &Address| Ok(bind(field, address, 1)?.pop());
        let mut providers = Vec::new();
        for embedded in &self.providers {
            providers.extend(one(format!("{}: listen", embedded.name), &embedded.listen)?);
        }
        let proxy = match &self.settings.proxy {
            Some(proxy) => bind("proxy.listen".into(), &proxy.listen, self.workers())?,
            None => Vec::new(),
        };
        let management = match &self.settings.management {
            Some(management) => one("management.listen".into(), &management.listen)?,
            None => None,
        };
        // Last, so that whoever finds the admin door finds the others too.
        let admin = match &self.settings.admin {
            Some(admin) => one("admin.listen".into(), &admin.listen)?,
            None => None,
        };
        Ok(Bound { admin, management, providers, proxy })
    }

    fn workers(&self) -> usize {
        match self.settings.workers {
            0 => cpu::available(),
            n => n,
        }
    }

    async fn serve(
        mut self,
        doors: Bound,
        file: Option<&Path>,
        (logs, access_log): (Logs, AccessLog),
        record: Option<Record>,
    ) -> Result<(), Error> {
        let mut signals = Signals::new().map_err(|source| Error::System { what: "signal handlers", source })?;
        let drain = Drain::new();
        let (stop, stopped) = watch::channel(false);
        let status = Arc::new(Mutex::new(ConfigStatus { generation: 1, last_error: None }));
        let started = Arc::new(AtomicBool::new(false));

        let mut side_doors = self.start_side_doors(
            (doors.admin, doors.providers),
            record.as_ref(),
            &status,
            &started,
            &drain,
            &stopped,
        )?;
        self.authorizer.tokens.ask_on(runtime::Handle::current());
        let (wishes, mut wished) = mpsc::channel(MOST_WISHES);
        let wiring = Arc::new(Wiring { client: self.client.clone(), clock: Arc::clone(&self.clock), wishes });
        let managed = self.take_stored(record.as_ref(), &wiring)?;
        let issuers = self.authorizer.tokens.replace(std::mem::take(&mut self.key_managers));
        // Its thread ends with this function.
        let (counter, _desk) = self.start_management(doors.management, managed, record.as_ref(), &wiring)?.unzip();
        let engine = counter.as_ref().map(|counter| Arc::clone(&counter.engine));
        start_issuers(issuers, &self.clock, record.as_ref());
        if let Some(sharer) = self.sharer.take() {
            tokio::spawn(sharer.run());
        }
        let counters = self
            .authorizer
            .limiter
            .shared()
            .map(|shared| tokio::spawn(Arc::clone(shared).run(Arc::clone(&self.clock), stopped.clone())));
        tokio::spawn(sweep(Arc::clone(&self.authorizer), Arc::clone(&self.clock)));

        let (alive, mut gone) = mpsc::channel(1);
        let assertions = self.assertions.take();
        let proxy = self.start_proxy(assertions, doors.proxy, &access_log, &drain, &alive)?;
        // An embedded provider alone has no workers that could end: the sender is kept for them.
        let alive = proxy.is_none().then_some(alive);
        started.store(true, Ordering::Release);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving");

        let (tables, stamps) = (self.settings.tables.clone(), std::mem::take(&mut self.findings.stamps));
        let mut reloader = file.map(|file| Reloader {
            file: file.to_owned(),
            settings: self.settings,
            authorizer: self.authorizer,
            metrics: self.metrics,
            client: self.client,
            clock: Arc::clone(&self.clock),
            providers: self.providers,
            record: record.clone(),
            wiring,
            anew: false,
            engine,
            tls: self.tls,
            management_tls: self.management_tls,
            proxy: proxy.clone(),
            logs,
            access_log,
            status,
        });
        let mut watch = file.and_then(|file| {
            FileWatch::start(file, &tables, stamps)
                .inspect_err(|error| tracing::warn!(%error, "the configuration is not watched; SIGHUP reloads it"))
                .ok()
        });
        let (mut preparing, mut wishers) = (Preparing::new(self.keeper), Vec::new());
        loop {
            tokio::select! {
                Some(wish) = wished.recv() => {
                    preparing.start(&reloader);
                    wishers.push(wish);
                }
                () = changed(&mut watch) => {
                    reloader.iter_mut().for_each(|reloader| reloader.anew = true);
                    preparing.start(&reloader);
                }
                _ = signals.hangup.recv() => {
                    watch.iter_mut().for_each(FileWatch::settle);
                    reloader.iter_mut().for_each(|reloader| reloader.anew = true);
                    preparing.start(&reloader);
                }
                prepared = preparing.done() => {
                    if let (Some(watch), Ok(prepared)) = (&mut watch, &prepared) {
                        watch.follow(prepared.files());
                    }
                    let (issuers, replaced) =
                        reloader.as_mut().map(|reloader| reloader.reload(prepared)).unwrap_or_default();
                    let outcome = reloader.as_ref().map_or(Ok(()), Reloader::outcome);
                    wishers.drain(..).for_each(|wish: Wish| drop(wish.send(outcome.clone())));
                    start_issuers(issuers, &self.clock, record.as_ref());
                    preparing.go_on(&reloader, replaced);
                }
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => {
                    // Someone at a terminal: no load balancer needs a delay to notice.
                    drain.enter(Phase::Closing);
                    break;
                }
                _ = gone.recv() => return Err(Error::System {
                    what: "the workers",
                    source: io::Error::other("ended by themselves"),
                }),
            }
        }
        // Nothing is taken over any more: whoever waits for it is told.
        drop((wished, wishers, alive));
        let settings = proxy.map(|proxy| proxy.settings.load_full());
        finish(&drain, settings.as_deref(), &mut gone, counter, &mut signals).await;
        let _ = stop.send(true);
        let doors = async {
            if drain.phase() < Phase::Cut {
                while side_doors.join_next().await.is_some() {}
            }
        };
        let counters = async {
            if let Some(counters) = counters {
                let _ = counters.await;
            }
        };
        // Their own patience is shorter; and a process that ends waits for nobody longer.
        let _ = time::timeout(LAST_EXCHANGE, async { tokio::join!(doors, counters) }).await;
        tracing::info!("drained");
        Ok(())
    }

    /// Starts the proxy's workers; `None`: it is not configured.
    fn start_proxy(
        &self,
        assertions: Option<Assertions>,
        listeners: Vec<Listener>,
        access_log: &AccessLog,
        drain: &Drain,
        alive: &mpsc::Sender<Infallible>,
    ) -> Result<Option<proxy::Shared>, Error> {
        let Some(settings) = self.settings.proxy.clone() else { return Ok(None) };
        let shared = proxy::Shared {
            judge: Arc::clone(&self.authorizer),
            store: Arc::clone(&self.authorizer.store),
            clock: Arc::clone(&self.clock),
            limiter: Arc::clone(&self.authorizer.limiter),
            metrics: Arc::clone(&self.metrics),
            access_log: access_log.clone(),
            assertions: Arc::new(ArcSwapOption::from_pointee(assertions)),
            limits: Arc::new(ArcSwap::from_pointee(Limits::from(&settings))),
            room: self.room(settings.max_connections, listeners.len())?,
            settings: Arc::new(ArcSwap::from_pointee(settings)),
            drain: drain.clone(),
        };
        for (number, listener) in listeners.into_iter().enumerate() {
            let door = Proxy::new(shared.clone())
                .map_err(|error| Error::System { what: "TLS towards upstreams", source: io::Error::other(error) })?;
            start_worker(number, Arc::new(door), listener, self.tls.clone(), alive.clone())?;
        }
        Ok(Some(shared))
    }

    /// Room for connections; tells where descriptors allow fewer than wished for.
    fn room(&self, wished: usize, workers: usize) -> Result<Room, Error> {
        let room = Room::new(raise_descriptors(), workers);
        if room.most() < wished {
            tracing::warn!(
                field = "proxy.max_connections",
                most = room.most(),
                "file descriptors do not suffice for so many connections, each of which may need two"
            );
        }
        let system = |error| Error::System { what: "the workers' metrics", source: io::Error::other(error) };
        room.register(&self.metrics.registry).map_err(system)?;
        Ok(room)
    }

    fn start_side_doors(
        &self,
        (admin, providers): (Option<Listener>, Vec<Listener>),
        record: Option<&Record>,
        status: &Arc<Mutex<ConfigStatus>>,
        started: &Arc<AtomicBool>,
        drain: &Drain,
        stopped: &watch::Receiver<bool>,
    ) -> Result<JoinSet<()>, Error> {
        let system = |source| Error::System { what: "a listener", source };
        let mut doors = JoinSet::new();
        if let Some(listener) = admin {
            let (tokens, clock) = (Arc::clone(&self.authorizer.tokens), Arc::clone(&self.clock));
            let (status, started, drain) = (Arc::clone(status), Arc::clone(started), drain.clone());
            let connected = self.sharer.as_ref().map(Sharer::connected);
            let counters = self.authorizer.limiter.shared().cloned();
            let failed = record.map(Record::failed);
            let health = move || {
                let config = status.lock().clone();
                Health {
                    started: started.load(Ordering::Acquire),
                    draining: drain.phase() != Phase::Serving,
                    key_managers: tokens.status(clock.now()).into_iter().map(health_of).collect(),
                    generation: config.generation,
                    last_error: config.last_error,
                    shared: connected.as_ref().map(|connected| connected()),
                    settling: counters.as_ref().is_some_and(|counters| counters.is_beginning()),
                    record_failed: failed.as_ref().is_some_and(|failed| failed.load(Ordering::Relaxed)),
                }
            };
            let listener = listener.into_side().map_err(system)?;
            doors.spawn(admin::serve(listener, Arc::new(health), Arc::clone(&self.metrics), stopped.clone()));
        }
        for (embedded, listener) in self.providers.iter().zip(providers) {
            let listener = listener.into_side().map_err(system)?;
            doors.spawn(Arc::clone(&embedded.provider).serve(listener, stopped.clone()));
            tokio::spawn(Arc::clone(&embedded.provider).tend());
        }
        Ok(doors)
    }
}

fn health_of(issuer: IssuerStatus) -> KeyManagerHealth {
    let IssuerStatus { name, ready, keys_age_s, required, circuit } = issuer;
    let circuit = circuit.map(|circuit| match circuit {
        Circuit::Closed => 0,
        Circuit::HalfOpen => 1,
        Circuit::Open => 2,
    });
    KeyManagerHealth { name: name.to_string(), ready, required, keys_age_s, circuit }
}

fn start_issuers(issuers: Vec<Arc<Issuer>>, clock: &Arc<Clock>, record: Option<&Record>) {
    for issuer in issuers {
        tokio::spawn(issuer.run(Arc::clone(clock), record.cloned()));
    }
}

async fn changed(watch: &mut Option<FileWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Forgets counters whose window has ended, now and then, and what was revoked and has expired.
async fn sweep(authorizer: Arc<Authorizer>, clock: Arc<Clock>) {
    let mut ticks = time::interval(SWEEP_EVERY);
    for n in 1_u64.. {
        ticks.tick().await;
        authorizer.limiter.sweep(clock.now());
        if n.is_multiple_of(REVOCATIONS_EVERY) {
            authorizer.store.revocations.sweep();
        }
    }
}

/// Changes of stored key managers that wait to be taken over.
const MOST_WISHES: usize = 64;
const LAST_EXCHANGE: Duration = Duration::from_secs(2);
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// In sweeps: a whole table is looked through, and nothing waits for the room.
const REVOCATIONS_EVERY: u64 = 30;
