//! Handler: what is used of limits, as far as this process has counted, or knows of what all sidecars have. Reading takes
//! nothing and makes no counter.

use std::ops::Range;

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Door,
    answer::{Answer, Problem, Reply},
    ask::Ask,
};
use crate::{
    net::Now,
    store::{Api, KeyType, Snapshot, Tier},
    throttle::{Charge, Level},
    token,
};

/// What is used of limits, as far as this process has counted it, or knows what all sidecars have. Shares that sidecars hold
/// (`shared.mode = "lease"`) count as used.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageList {
    /// Each quota.
    pub(super) items: Vec<UsageRow>,
    /// Where there are more. It counts quotas: where the tables change between two pages, some may be told twice or not, and
    /// where as many are no longer there, the cursor is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
    /// Where limits are left out, since each user has a counter of their own and no user is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<&'static str>,
}

/// What is used of a quota.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageRow {
    /// `api`, `resource`, `subscription`, `application` or `backend`.
    pub(super) level: String,
    /// The tier's name; a condition group's, or a backend limit's environment.
    pub(super) tier: String,
    /// The API: `name:version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api: Option<String>,
    /// The resource's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resource: Option<String>,
    /// The application's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) application: Option<String>,
    /// `requests`, `bytes`, `events` or `tokens`.
    pub(super) kind: String,
    /// What is counted in the present window, with the shares that sidecars hold.
    pub(super) used: u64,
    /// The limit.
    pub(super) limit: u64,
    /// The window's length in seconds.
    pub(super) window_seconds: u64,
    /// Seconds until it ends.
    pub(super) reset_seconds: u64,
}

pub(super) async fn list(door: &Door, ask: Ask) -> Answer {
    let (limit, after) = ask.numbered_page()?;
    let tables = door.access.store.load();
    let wanted = Wanted::of(&ask, &tables)?;
    let list = UsageList { items: Vec::new(), cursor: None, hint: None };
    let (user, now) = (user(door, &ask)?, door.access.clock.now());
    let page = after..after.saturating_add(limit as u64);
    let mut reading = Reading { door, tables: &tables, wanted, user, now, page, met: 0, list };
    reading.apis();
    reading.subscriptions();
    reading.applications();
    Ok(Reply::ok(&reading.told()?))
}

/// Whose limits are wanted.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Tier(&'a str),
    Application(&'a str),
    Api(&'a str),
}

impl<'a> Wanted<'a> {
    fn of(ask: &'a Ask, tables: &Snapshot) -> Result<Self, Problem> {
        let (field, wanted, is_known) = match (ask.query("tier"), ask.query("application"), ask.query("api")) {
            (Some(tier), None, None) => ("tier", Self::Tier(tier), tables.knows_tier(tier)),
            (None, Some(name), None) => {
                let is_known = tables.applications.iter().any(|application| *application.name == *name);
                ("application", Self::Application(name), is_known)
            }
            (None, None, Some(id)) => ("api", Self::Api(id), tables.served().any(|api| *api.id == *id)),
            _ => return Err(Problem::field("tier", "exactly one of tier, application and api must be given")),
        };
        if is_known { Ok(wanted) } else { Err(Problem::unknown(field, "there is nothing of this name")) }
    }

    fn has_api(&self, api: &Api) -> bool {
        matches!(self, Self::Api(id) if **id == *api.id)
    }

    fn has_tier(&self, tier: &str) -> bool {
        matches!(self, Self::Tier(name) if *name == tier)
    }
}

/// The user whose own counters are wanted too.
fn user(door: &Door, ask: &Ask) -> Result<Option<u128>, Problem> {
    match (ask.query("issuer"), ask.query("subject")) {
        (None, None) => Ok(None),
        (Some(issuer), Some(_)) if !door.engine.has_issuer(issuer) => {
            Err(Problem::unknown("issuer", "no key manager has it: tokens of its users are refused, and count nowhere"))
        }
        (Some(issuer), Some(subject)) => Ok(Some(token::user(issuer, Some(subject)))),
        (None, Some(_)) => Err(Problem::field("issuer", "is needed beside subject")),
        (Some(_), None) => Err(Problem::field("subject", "is needed beside issuer")),
    }
}

struct Reading<'a> {
    door: &'a Door,
    tables: &'a Snapshot,
    wanted: Wanted<'a>,
    user: Option<u128>,
    now: Now,
    /// Which of the quotas are told.
    page: Range<u64>,
    /// So many were met.
    met: u64,
    list: UsageList,
}

/// What a counter is of.
#[derive(Clone, Copy, Default)]
struct Of<'a> {
    api: Option<&'a str>,
    resource: Option<&'a str>,
    application: Option<&'a str>,
}

impl Reading<'_> {
    fn apis(&mut self) {
        let (tables, wanted) = (self.tables, self.wanted);
        for api in tables.served() {
            let of = Of { api: Some(&api.id), ..Of::default() };
            let all = wanted.has_api(api);
            for tier in api.tier.iter().filter(|tier| all || wanted.has_tier(&tier.name)) {
                self.advanced(Level::Api, tier, of);
            }
            for resource in &*api.resources {
                let of = Of { resource: Some(&resource.template), ..of };
                for tier in resource.tier.iter().filter(|tier| all || wanted.has_tier(&tier.name)) {
                    self.advanced(Level::Resource, tier, of);
                }
            }
            let limits = api.backend_limits.iter().filter(|_| all);
            let environments = [KeyType::Production, KeyType::Sandbox];
            for tier in limits.flat_map(|limits| environments.into_iter().filter_map(move |it| limits.of(it))) {
                self.add(Charge { level: Level::Backend, tier, user: 0 }, of);
            }
        }
    }

    /// A tier's own counter and its groups'; those of users only where one is told.
    fn advanced(&mut self, level: Level, tier: &Tier, of: Of<'_>) {
        let per_user = tier.advanced.as_ref().is_some_and(|advanced| advanced.per_user);
        let user = if per_user { self.user } else { Some(0) };
        let Some(user) = user else {
            self.list.hint = Some(BY_USER);
            return;
        };
        self.add(Charge { level, tier, user }, of);
        for group in tier.advanced.iter().flat_map(|advanced| &advanced.groups) {
            self.add(Charge { level, tier: &group.tier, user: tier.of_group(user) }, of);
        }
    }

    fn subscriptions(&mut self) {
        let tables = self.tables;
        for subscription in tables.subscriptions() {
            let Some(tier) = &subscription.tier else { continue };
            let Some(api) = tables.apis.get(subscription.api as usize) else { continue };
            let Some(application) = tables.applications.get(subscription.application as usize) else { continue };
            let is_wanted = match self.wanted {
                Wanted::Tier(name) => *tier.name == *name,
                Wanted::Application(name) => *application.name == *name,
                Wanted::Api(id) => *api.id == *id,
            };
            if is_wanted {
                let of = Of { api: Some(&api.id), application: Some(&application.name), resource: None };
                self.add(Charge { level: Level::Subscription, tier, user: 0 }, of);
            }
        }
    }

    /// Each user of an application has a counter of their own.
    fn applications(&mut self) {
        let tables = self.tables;
        for application in tables.applications.iter() {
            let Some(tier) = &application.tier else { continue };
            let is_it = matches!(self.wanted, Wanted::Application(name) if *application.name == *name);
            if is_it || self.wanted.has_tier(&tier.name) {
                let Some(user) = self.user else {
                    self.list.hint = Some(BY_USER);
                    return;
                };
                let of = Of { application: Some(&application.name), ..Of::default() };
                self.add(Charge { level: Level::Application, tier, user }, of);
            }
        }
    }

    /// Of all cursors the digits are as many: who follows them sees them grow.
    fn told(self) -> Result<UsageList, Problem> {
        let Range { start, end } = self.page;
        if start > 0 && start >= self.met {
            return Err(Problem::field("cursor", "is none of ours, or what it led to is gone: begin anew"));
        }
        Ok(UsageList { cursor: (self.met > end).then(|| format!("{end:010}")), ..self.list })
    }

    fn add(&mut self, charge: Charge<'_>, of: Of<'_>) {
        let first = self.met;
        self.met += 1 + u64::from(charge.tier.also.is_some());
        if self.met <= self.page.start || first >= self.page.end {
            return;
        }
        let numbered = (first..).zip(self.door.limiter.counted(&charge, self.now));
        for (_, counted) in numbered.filter(|(n, _)| self.page.contains(n)) {
            self.list.items.push(UsageRow {
                level: charge.level.label().to_owned(),
                tier: counted.usage.tier.to_string(),
                api: of.api.map(str::to_owned),
                resource: of.resource.map(str::to_owned),
                application: of.application.map(str::to_owned),
                kind: counted.usage.kind.name().to_owned(),
                used: counted.used,
                limit: counted.usage.limit,
                window_seconds: counted.usage.window_s,
                reset_seconds: counted.usage.reset_s,
            });
        }
    }
}

const BY_USER: &str = "limits of which each user has a counter are left out: name a user by issuer and subject";
