//! Tables as files of rows, always the same ones for a size.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// How many rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) apis: usize,
    pub(crate) applications: usize,
    pub(crate) subscriptions: usize,
}

/// Resources of each API.
pub(crate) const RESOURCES: usize = 100;

/// Writes the files of a size into a folder: `apis.ndjson`, `applications.ndjson`, `subscriptions.ndjson`. The last line of
/// the subscriptions says `state`.
pub(crate) fn write(folder: &Path, size: Size, state: &str) -> io::Result<()> {
    let file = |name: &str| File::create(folder.join(name)).map(|file| BufWriter::with_capacity(1 << 20, file));
    let mut apis = file("apis.ndjson")?;
    for api in 0..size.apis {
        let resources: Vec<String> = (0..RESOURCES).map(|n| resource(api, n)).collect();
        writeln!(
            apis,
            r#"{{"api": {{"name": "Api{api}", "context": "/context{api}", "version": "v1", "upstream": "http://127.0.0.1:3000", "resources": [{}]}}}}"#,
            resources.join(", "),
        )?;
    }
    let mut applications = file("applications.ndjson")?;
    for n in 0..size.applications {
        let (owner, key) = (n % 5_000, consumer_key(n));
        writeln!(
            applications,
            r#"{{"application": {{"name": "application-{n}", "owner": "owner-{owner}", "tier": "50PerMin", "keys": [{{"consumer_key": "{key}"}}]}}}}"#,
        )?;
    }
    let mut subscriptions = file("subscriptions.ndjson")?;
    for n in 0..size.subscriptions {
        let (application, api) = subscribed(n, size);
        let tier = ["Counted", "Counted", "Gold", "Unlimited"][n % 4];
        let state = if n + 1 == size.subscriptions { state } else { "UNBLOCKED" };
        writeln!(
            subscriptions,
            r#"{{"subscription": {{"application": "application-{application}", "api": "Api{api}:v1", "tier": "{tier}", "state": "{state}"}}}}"#,
        )?;
    }
    for mut file in [apis, applications, subscriptions] {
        file.flush()?;
    }
    Ok(())
}

/// The consumer key of an application: random, as providers make them.
pub(crate) fn consumer_key(application: usize) -> String {
    let mut random = fastrand::Rng::with_seed(application as u64 + 1);
    std::iter::repeat_with(|| random.alphanumeric()).take(24).collect()
}

/// Application and API of a subscription: no pair comes twice.
pub(crate) fn subscribed(n: usize, size: Size) -> (usize, usize) {
    let application = n % size.applications;
    (application, (application * 7 + n / size.applications) % size.apis)
}

/// A path that elects a resource by GET.
pub(crate) fn path(api: usize, resource: usize) -> String {
    format!("/context{api}/v1{}", template(api, resource).replace("{id}", "42"))
}

fn template(api: usize, resource: usize) -> String {
    let mut random = fastrand::Rng::with_seed((api * RESOURCES + resource) as u64);
    let (noun, verb) = (NOUNS[random.usize(..NOUNS.len())], VERBS[random.usize(..VERBS.len())]);
    match resource % 4 {
        0 => format!("/{noun}{resource}"),
        1 => format!("/{noun}{resource}/{{id}}"),
        _ => format!("/{noun}{resource}/{{id}}/{verb}"),
    }
}

fn resource(api: usize, n: usize) -> String {
    let (path, noun) = (template(api, n), NOUNS[(api + n) % NOUNS.len()]);
    let tier = if n.is_multiple_of(2) { "" } else { r#", "tier": "10KPerMin""# };
    format!(r#"{{"path": "{path}", "methods": ["GET", "POST"], "scopes": ["{noun}:read"]{tier}}}"#)
}

/// All scopes there are.
pub(crate) fn scopes() -> String {
    NOUNS.iter().map(|noun| format!("{noun}:read")).collect::<Vec<_>>().join(" ")
}

const NOUNS: [&str; 24] = [
    "orders",
    "items",
    "customers",
    "invoices",
    "payments",
    "carts",
    "products",
    "prices",
    "stocks",
    "shipments",
    "returns",
    "reviews",
    "users",
    "groups",
    "roles",
    "sessions",
    "reports",
    "events",
    "alerts",
    "devices",
    "sensors",
    "readings",
    "tickets",
    "contracts",
];
const VERBS: [&str; 12] = [
    "parts", "history", "status", "lines", "notes", "files", "export", "members", "comments", "tags", "totals", "links",
];
