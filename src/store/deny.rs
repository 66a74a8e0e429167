//! `[[deny]]`: who may not pass, whatever else is allowed (WSO2's deny policies).

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Api, Application, KeyType,
    range::{Range, any_contains, merged},
    suggest::Problems,
};

/// One deny condition: exactly one of `api`, `application`, `user`, `subscription`, `ip` and `ip_range`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DenySettings {
    /// Calls of an API: `name:version`, its name where it has no version, or where it is served (`/orders/v1`).
    pub api: Option<String>,
    /// Calls of an application: `owner:name`.
    pub application: Option<String>,
    /// Calls of a user: the token's `sub`, and what `claim_mappings` has in its place, whichever issuer says it.
    pub user: Option<String>,
    /// Calls of an API by an application.
    pub subscription: Option<DeniedSubscription>,
    /// Calls from an address, or from a network.
    pub ip: Option<String>,
    /// Calls from a range of addresses, the first and the last; both are denied, where WSO2 leaves out both.
    pub ip_range: Option<Vec<String>>,
    /// With `ip` or `ip_range`: calls from anywhere else are denied, and those of no known address.
    #[serde(default)]
    pub invert: bool,
}

/// Calls of an API by an application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeniedSubscription {
    /// The API, as in `api`.
    pub api: String,
    /// The application, as in `application`.
    pub application: String,
    /// By keys of this type alone; absent: by both.
    pub key_type: Option<KeyType>,
}

/// All deny conditions, ready to be asked.
#[derive(Debug, Default)]
pub struct Deny {
    /// By `name:version` or by where they are served.
    apis: HashSet<Box<str>>,
    /// Owners by the application's name.
    applications: HashMap<Box<str>, Vec<Box<str>>>,
    users: HashSet<Box<str>>,
    /// By the application's name.
    subscriptions: HashMap<Box<str>, Vec<Pair>>,
    inside: Box<[Range]>,
    /// Each denies what is not in it.
    outside: Box<[Range]>,
}

#[derive(Debug)]
struct Pair {
    owner: Box<str>,
    api: Box<str>,
    key_type: Option<KeyType>,
}

/// Which kind of condition denies a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DeniedBy {
    Api,
    Application,
    User,
    Subscription,
    Address,
}

impl Deny {
    /// Reads the conditions, or names every mistake in them. None: nobody is denied.
    pub(super) fn build(settings: &[DenySettings], problems: &mut Problems) -> Option<Box<Self>> {
        let mut deny = Self::default();
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for (n, row) in settings.iter().enumerate() {
            let at = format!("deny[{n}]");
            if let Some(range) = deny.add(row, &at, problems) {
                if row.invert { &mut outside } else { &mut inside }.push(range);
            }
        }
        deny.inside = merged(inside);
        deny.outside = outside.into();
        (!settings.is_empty()).then(|| Box::new(deny))
    }

    /// Adds a condition; one of addresses is given back.
    fn add(&mut self, row: &DenySettings, at: &str, problems: &mut Problems) -> Option<Range> {
        let DenySettings { api, application, user, subscription, ip, ip_range, invert } = row;
        let by_address = ip.is_some() || ip_range.is_some();
        let others = [api.is_some(), application.is_some(), user.is_some(), subscription.is_some()];
        let addresses = [ip.is_some(), ip_range.is_some()];
        if others.into_iter().chain(addresses).filter(|given| *given).count() != 1 {
            problems.add(at, "has exactly one of api, application, user, subscription, ip and ip_range");
            return None;
        }
        if *invert && !by_address {
            problems.add(format!("{at}.invert"), "is for ip and ip_range");
        }
        if let Some(api) = api {
            self.apis.insert(api_named(api, &format!("{at}.api"), problems));
        }
        if let Some((owner, name)) =
            application.as_deref().and_then(|it| owned(it, &format!("{at}.application"), problems))
        {
            self.applications.entry(name.into()).or_default().push(owner.into());
        }
        if let Some(user) = user {
            problems.refuse_empty(user, || format!("{at}.user"));
            self.users.insert(user.as_str().into());
        }
        if let Some(DeniedSubscription { api, application, key_type }) = subscription {
            let api = api_named(api, &format!("{at}.subscription.api"), problems);
            let (owner, name) = owned(application, &format!("{at}.subscription.application"), problems)?;
            let pair = Pair { owner: owner.into(), api, key_type: *key_type };
            self.subscriptions.entry(name.into()).or_default().push(pair);
        }
        Range::given(ip.as_deref(), ip_range.as_deref(), &|name| format!("{at}.{name}"), problems)
    }

    /// By which condition a call is denied, in their order here; none: by none.
    pub fn denies(
        &self,
        api: &Api,
        application: Option<&Application>,
        key_type: KeyType,
        users: [Option<&str>; 2],
        client: Option<IpAddr>,
    ) -> Option<DeniedBy> {
        if !self.apis.is_empty() && (self.apis.contains(&*api.id) || self.apis.contains(&*api.context)) {
            return Some(DeniedBy::Api);
        }
        if let Some(application) = application {
            let owners = self.applications.get(&*application.name);
            if owners.is_some_and(|owners| owners.contains(&application.owner)) {
                return Some(DeniedBy::Application);
            }
            let is_it = |pair: &Pair| {
                pair.owner == application.owner
                    && (pair.api == api.id || pair.api == api.context)
                    && pair.key_type.is_none_or(|it| it == key_type)
            };
            if self.subscriptions.get(&*application.name).is_some_and(|pairs| pairs.iter().any(is_it)) {
                return Some(DeniedBy::Subscription);
            }
        }
        if users.into_iter().flatten().any(|user| self.users.contains(user)) {
            return Some(DeniedBy::User);
        }
        let from = client.map(|address| address.to_canonical());
        let inside = from.is_some_and(|from| any_contains(&self.inside, from));
        let outside = self.outside.iter().any(|range| !from.is_some_and(|from| range.contains(from)));
        (inside || outside).then_some(DeniedBy::Address)
    }
}

/// How an API is named: as it is, or without the slash after where it is served.
fn api_named(text: &str, field: &str, problems: &mut Problems) -> Box<str> {
    problems.refuse_empty(text, || field.to_owned());
    let path = text.strip_suffix('/').filter(|path| path.starts_with('/'));
    path.unwrap_or(text).into()
}

/// `owner:name`; a name may have colons of its own.
fn owned<'t>(text: &'t str, field: &str, problems: &mut Problems) -> Option<(&'t str, &'t str)> {
    let parts = text.split_once(':').filter(|(owner, name)| !owner.is_empty() && !name.is_empty());
    if parts.is_none() {
        problems.add(field, "is the application's owner and its name: owner:name");
    }
    parts
}
