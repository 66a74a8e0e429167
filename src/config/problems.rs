//! Mistakes of meaning that only the configuration as a whole can see. Tables, tiers, and what holds for every request are
//! judged by `store::Snapshot::build`, files and keys by their readers: each mistake is told by one of them.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
};

use crate::{
    net::Address,
    problem::Problem,
    proxy,
    sync::SharedSettings,
    token::{
        VerificationSettings,
        settings::{ConnectorKind, KeyManagerSettings},
    },
    units::{Size, Span},
};

use super::{Settings, key_managers, unbuilt};

impl Settings {
    /// Every mistake of meaning; none: the configuration may be built.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Findings::default();
        self.check_general(&mut found);
        self.check_backend_jwt(&mut found);
        self.check_doors(&mut found);
        if let Some(management) = &self.management {
            let store = self.store.as_ref().and_then(|store| store.path.as_deref());
            found.0.extend(management.problems(store, &self.key_manager_names()));
        }
        if let Some(proxy) = &self.proxy {
            check_proxy(proxy, &mut found);
        }
        key_managers::check(&self.key_managers, &mut found);
        unbuilt::check(self, &mut found);
        found.0
    }

    fn check_general(&self, found: &mut Findings) {
        let failures = self.throttle.failures.per < Span::seconds(1);
        found.refuse(failures, "throttle.failures.per", "must be at least 1s");
        found.0.extend(self.shared.iter().flat_map(SharedSettings::problems));
        let waiting = VerificationSettings::WAITING;
        found.refuse(
            !waiting.contains(&self.verification.waiting),
            "verification.waiting",
            format_args!("must be from {} to {}", waiting.start(), waiting.end()),
        );
        found.refuse(self.workers > MAX_WORKERS, "workers", format_args!("must be at most {MAX_WORKERS}"));
        if let Some(store) = &self.store {
            let path = store.path.as_ref().is_some_and(|path| !path.as_os_str().is_empty());
            found.refuse(!path && store.url.is_none(), "store.path", "is needed: the file, in a folder that exists");
        }
        let share = 0.0..=1.0;
        found.refuse(!share.contains(&self.log.access_sample), "log.access_sample", "must be from 0 to 1");
    }

    fn check_backend_jwt(&self, found: &mut Findings) {
        let Some(jwt) = &self.backend_jwt else { return };
        let dashed = |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "-");
        let headers = &self.identity_headers;
        let fixed = [
            &headers.subject,
            &headers.client_id,
            &headers.scopes,
            &headers.application,
            &headers.tier,
            &headers.over_quota,
        ];
        let taken = fixed.into_iter().chain(headers.claims.values()).any(|name| dashed(name) == dashed(&jwt.header));
        found.refuse(taken, "backend_jwt.header", "is an identity header too");
        found.refuse(self.proxy.is_none(), "backend_jwt", "is of no use without [proxy], which sends it on");
    }

    fn check_doors(&self, found: &mut Findings) {
        let embedded = self.key_managers.iter().any(|manager| manager.connector == ConnectorKind::Embedded);
        let doors = self.proxy.is_some() || self.decision.is_some() || self.management.is_some() || embedded;
        found.refuse(!doors, "proxy", "is missing, and so is every other door: there is nothing to do");

        let listeners = self.listeners();
        for (index, (field, address)) in listeners.iter().enumerate() {
            if let Some((other, _)) = listeners[..index].iter().find(|(_, other)| overlap(address, other)) {
                found.add(field, format_args!("is the same address as {other}"));
            }
        }
    }

    /// Every address that is listened at, with its field.
    fn listeners(&self) -> Vec<(String, Address)> {
        let decision = self.decision.as_ref();
        let doors = [
            ("proxy.listen", self.proxy.as_ref().map(|door| &door.listen)),
            ("decision.http", decision.and_then(|door| door.http.as_ref())),
            ("decision.grpc", decision.and_then(|door| door.grpc.as_ref())),
            ("management.listen", self.management.as_ref().map(|door| &door.listen)),
            ("admin.listen", self.admin.as_ref().map(|door| &door.listen)),
        ];
        let doors = doors.into_iter().filter_map(|(field, address)| Some((field.to_owned(), address?.clone())));
        let provider = |(index, manager): (usize, &KeyManagerSettings)| {
            Some((format!("key_managers[{index}].listen"), manager.listen.as_ref()?.parse().ok()?))
        };
        doors.chain(self.key_managers.iter().enumerate().filter_map(provider)).collect()
    }
}

fn check_proxy(proxy: &proxy::Settings, found: &mut Findings) {
    let head = proxy.max_header_bytes;
    found.refuse(
        !(MIN_HEAD..=MAX_HEAD).contains(&head),
        "proxy.max_header_bytes",
        format_args!("must be from {MIN_HEAD} to {MAX_HEAD}"),
    );
    found.refuse(
        !(1..=MAX_HEADERS).contains(&proxy.max_headers),
        "proxy.max_headers",
        format_args!("must be from 1 to {MAX_HEADERS}"),
    );
    found.refuse(
        !(1..=MAX_CONNECTIONS).contains(&proxy.max_connections),
        "proxy.max_connections",
        format_args!("must be from 1 to {MAX_CONNECTIONS}"),
    );
    found.refuse(
        !(1..=MAX_STREAMS).contains(&proxy.max_streams),
        "proxy.max_streams",
        format_args!("must be from 1 to {MAX_STREAMS}"),
    );
    found.refuse(
        proxy.max_uri == Size(0) || proxy.max_uri > head || proxy.max_uri > MAX_URI,
        "proxy.max_uri",
        format_args!("must be more than 0, and at most max_header_bytes and {MAX_URI}"),
    );
    let timeouts = &proxy.timeouts;
    for (field, span) in [
        ("connect", timeouts.connect),
        ("header", timeouts.header),
        ("idle", timeouts.idle),
        ("request", timeouts.request),
    ] {
        found.refuse(span == Span::default(), format!("proxy.timeouts.{field}"), "must be longer than 0");
    }
}

/// Whether two listeners cannot both be bound. Port 0 is a new port each time.
fn overlap(a: &Address, b: &Address) -> bool {
    let (a, b) = match (a, b) {
        (Address::Tcp(a), Address::Tcp(b)) => (a, b),
        _ => return a == b,
    };
    // `[::]` takes IPv4 in too.
    let takes = |a: &SocketAddr, b: &SocketAddr| match a.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && b.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || takes(a, b) || takes(b, a))
}

/// The mistakes found so far.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Problem>);

impl Findings {
    /// A mistake at `field`.
    pub(super) fn add(&mut self, field: impl Into<String>, message: impl Display) {
        self.0.push(Problem::new(field, message.to_string()));
    }

    /// A mistake at `field`, if `wrong`.
    pub(super) fn refuse(&mut self, wrong: bool, field: impl Into<String>, message: impl Display) {
        if wrong {
            self.add(field, message);
        }
    }
}

const MAX_WORKERS: usize = 1024;
/// hyper's own least buffer.
const MIN_HEAD: Size = Size(8 << 10);
const MAX_HEAD: Size = Size(16 << 20);
/// Longest target that crate `http` reads.
const MAX_URI: Size = Size(65_534);
const MAX_HEADERS: usize = 10_000;
const MAX_CONNECTIONS: usize = 1_000_000;
const MAX_STREAMS: u32 = 10_000;

#[cfg(test)]
#[path = "problems_tests.rs"]
mod tests;
