//! The tiers by name: WSO2's built-in ones and the configured, which replace them.

use std::{collections::HashMap, sync::Arc};

use crate::problem::Place;

use super::{
    Label,
    advanced::Advanced,
    quota::{MAX_LIMIT, QuotaSettings, window, without_months},
    settings::{BurstSettings, TierLevel, TierSettings},
    source::Origins,
    suggest::{Problems, Suggest},
    tier::{Burst, Limits, Quota, QuotaKind, Window},
};

/// All tiers that can be named.
#[derive(Debug, Clone)]
pub(super) struct Tiers {
    by_name: HashMap<Box<str>, Entry>,
    /// Those that are not built in: which of them each is.
    configured: HashMap<Box<str>, usize>,
    origins: Origins,
}

#[derive(Debug, Clone)]
struct Entry {
    label: Arc<Label>,
    level: TierLevel,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Unlimited,
    Limited(Arc<Limits>),
    /// Configured wrongly, which is reported once and where it stands.
    Broken,
}

/// A tier that some part of the configuration names.
pub(super) struct Picked {
    pub(super) name: Arc<Label>,
    pub(super) limits: Option<Arc<Limits>>,
}

impl Tiers {
    /// The built-in tiers.
    pub(super) fn new() -> Self {
        let mut tiers = Self { by_name: HashMap::new(), origins: Origins::default(), configured: HashMap::new() };
        for (name, kind, level) in built_in() {
            tiers.add(name, level, kind);
        }
        tiers
    }

    /// Adds a configured tier, which replaces a built-in one of its name.
    pub(super) fn configure(&mut self, tier: &TierSettings, place: Option<&Place>, problems: &mut Problems) {
        let n = self.origins.add(place);
        let field = self.origins.named("tiers", "tier", n).to_string();
        problems.stand_at(place);
        problems.refuse_unsayable(&tier.name, || format!("{field}.name"));
        if let Some(earlier) = self.configured.get(&*tier.name) {
            let earlier = self.origins.told("tiers", *earlier);
            problems.add(format!("{field}.name"), format!("{earlier} has this name too"));
            return;
        }
        self.configured.insert(tier.name.as_str().into(), n);
        self.define(tier, place.is_none(), &field, problems);
    }

    /// Whether a tier has this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Adds a tier whose name no other has.
    pub(super) fn insert(&mut self, tier: &TierSettings, problems: &mut Problems) {
        problems.refuse_unsayable(&tier.name, || "tier.name".into());
        self.define(tier, false, "tier", problems);
    }

    /// `whole`: it stands in the configuration itself.
    fn define(&mut self, tier: &TierSettings, whole: bool, field: &str, problems: &mut Problems) {
        let kind = limits(tier, whole, field, problems).map_or(Kind::Broken, |limits| Kind::Limited(Arc::new(limits)));
        self.add(&tier.name, tier.level, kind);
    }

    fn add(&mut self, name: &str, level: TierLevel, kind: Kind) {
        self.by_name.insert(name.into(), Entry { label: Arc::new(name.into()), level, kind });
    }

    /// The tier called `name`, for use at `level`; a problem at `field` if it is none.
    pub(super) fn pick(
        &self,
        name: &str,
        level: TierLevel,
        field: impl Fn() -> String,
        problems: &mut Problems,
    ) -> Option<Picked> {
        let Some(entry) = self.by_name.get(name) else {
            let nearest = problems.nearest(name, self.by_name.keys().map(|name| &**name));
            problems.add(field(), Suggest("no tier has this name", nearest));
            return None;
        };
        if entry.level != TierLevel::Any && entry.level != level {
            problems.add(field(), format!("the tier {name} is {}, not {}", place(entry.level), place(level)));
            return None;
        }
        let limits = match &entry.kind {
            Kind::Unlimited => None,
            Kind::Limited(limits) => Some(Arc::clone(limits)),
            Kind::Broken => return None,
        };
        Some(Picked { name: Arc::clone(&entry.label), limits })
    }
}

const fn place(level: TierLevel) -> &'static str {
    match level {
        TierLevel::Any => "for any use",
        TierLevel::Subscription => "for subscriptions",
        TierLevel::Application => "for applications",
        TierLevel::Advanced => "for APIs and resources",
    }
}

/// The limits of a configured tier; none if something is wrong with them.
fn limits(tier: &TierSettings, whole: bool, field: &str, problems: &mut Problems) -> Option<Limits> {
    let limits = QuotaSettings::of(tier).limits(&tier.name, tier.stop_on_quota_reach, field, problems);
    let burst = match &tier.burst {
        Some(settings) => Some(burst(settings, field, problems)?),
        None => None,
    };
    let advanced = Advanced::build(tier, whole, field, problems);
    Some(Limits { burst, advanced, ..limits? })
}

fn in_range(value: u64, field: impl Fn() -> String, problems: &mut Problems) -> Option<u32> {
    let limit = u32::try_from(value).ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    if limit.is_none() {
        problems.add(field(), "is a number from 1 to 2147483647");
    }
    limit
}

fn burst(settings: &BurstSettings, field: &str, problems: &mut Problems) -> Option<Burst> {
    let requests = in_range(settings.requests, || format!("{field}.burst.requests"), problems);
    match window(&settings.per) {
        Ok(Window::Seconds(seconds)) => requests.map(|requests| Burst::new(requests, u64::from(seconds) * 1_000)),
        Ok(Window::Months(_)) => {
            problems.add(format!("{field}.burst.per"), "a burst is limited in s, m, h or d");
            None
        }
        Err(message) => {
            problems.add(format!("{field}.burst.per"), without_months(message));
            None
        }
    }
}

/// WSO2's default policies (facts/gateway.md section 7). A webhook policy's number of webhook subscriptions is of no
/// meaning here: Tollgate keeps no webhooks.
fn built_in() -> impl Iterator<Item = (&'static str, Kind, TierLevel)> {
    let limited = |name: &str, quota, also| {
        Kind::Limited(Arc::new(Limits {
            name: name.into(),
            quota,
            also,
            burst: None,
            stop_on_quota_reach: true,
            advanced: None,
        }))
    };
    let counted = PER_MINUTE
        .iter()
        .map(move |&(name, limit, level)| (name, limited(name, Quota::requests(limit, MINUTE), None), level));
    let events = EVENTS.iter().map(move |&(name, limit, window)| {
        let quota = Quota { kind: QuotaKind::Events, ..Quota::requests(limit, window) };
        (name, limited(name, quota, None), TierLevel::Subscription)
    });
    let tokens = TOKENS.iter().map(move |&(name, tokens, requests)| {
        let quota = Quota { kind: QuotaKind::Tokens, ..Quota::requests(tokens, MINUTE) };
        (name, limited(name, quota, Some(Quota::requests(requests, MINUTE))), TierLevel::Subscription)
    });
    let unlimited = UNLIMITED_EVENTS.iter().map(|name| (*name, Kind::Unlimited, TierLevel::Subscription));
    counted.chain(events).chain(tokens).chain(unlimited).chain([(UNLIMITED, Kind::Unlimited, TierLevel::Any)])
}

/// The tier that limits nothing, unless it is replaced.
pub(super) const UNLIMITED: &str = "Unlimited";
const UNLIMITED_EVENTS: &[&str] = &["AsyncUnlimited", "AsyncWHUnlimited"];

const MINUTE: Window = Window::Seconds(60);
const DAY: Window = Window::Seconds(86_400);
const MONTH: Window = Window::Months(1);

const PER_MINUTE: &[(&str, u64, TierLevel)] = &[
    ("Gold", 5_000, TierLevel::Subscription),
    ("Silver", 2_000, TierLevel::Subscription),
    ("Bronze", 1_000, TierLevel::Subscription),
    ("Unauthenticated", 500, TierLevel::Subscription),
    ("DefaultSubscriptionless", 100_000, TierLevel::Subscription),
    ("50PerMin", 50, TierLevel::Application),
    ("20PerMin", 20, TierLevel::Application),
    ("10PerMin", 10, TierLevel::Application),
    ("50KPerMin", 50_000, TierLevel::Advanced),
    ("20KPerMin", 20_000, TierLevel::Advanced),
    ("10KPerMin", 10_000, TierLevel::Advanced),
];
const EVENTS: &[(&str, u64, Window)] = &[
    ("AsyncGold", 50_000, DAY),
    ("AsyncSilver", 25_000, DAY),
    ("AsyncBronze", 5_000, DAY),
    ("AsyncDefaultSubscriptionless", 10_000, DAY),
    ("AsyncWHGold", 10_000, MONTH),
    ("AsyncWHSilver", 5_000, MONTH),
    ("AsyncWHBronze", 1_000, MONTH),
];
/// Tokens and requests, both a minute.
const TOKENS: &[(&str, u64, u64)] = &[("AIGold", 50_000, 500), ("AISilver", 10_000, 100), ("AIBronze", 1_000, 10)];
