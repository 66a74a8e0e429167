//! The tiers by name: WSO2's built-in ones and the configured, which replace them.

use std::{collections::HashMap, sync::Arc};

use arrayvec::ArrayVec;

use crate::problem::Place;

use super::{
    Label,
    settings::{BurstSettings, TierLevel, TierSettings, Volume},
    source::Origins,
    suggest::{Problems, Suggest},
    tier::{Algorithm, Burst, Limits, Quota, QuotaKind, Window},
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
        problems.refuse_empty(&tier.name, || format!("{field}.name"));
        if let Some(earlier) = self.configured.get(&*tier.name) {
            let earlier = self.origins.told("tiers", *earlier);
            problems.add(format!("{field}.name"), format!("{earlier} has this name too"));
            return;
        }
        self.configured.insert(tier.name.as_str().into(), n);
        self.define(tier, &field, problems);
    }

    /// Whether a tier has this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Adds a tier whose name no other has.
    pub(super) fn insert(&mut self, tier: &TierSettings, problems: &mut Problems) {
        problems.refuse_empty(&tier.name, || "tier.name".into());
        self.define(tier, "tier", problems);
    }

    fn define(&mut self, tier: &TierSettings, field: &str, problems: &mut Problems) {
        let kind = limits(tier, field, problems).map_or(Kind::Broken, |limits| Kind::Limited(Arc::new(limits)));
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
            problems.add(field(), format!("this tier is {}, not {}", place(entry.level), place(level)));
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
fn limits(tier: &TierSettings, field: &str, problems: &mut Problems) -> Option<Limits> {
    let amounts = amounts(tier, field, problems);
    let window = quota_window(tier, field, problems);
    let burst = match &tier.burst {
        Some(settings) => Some(burst(settings, field, problems)?),
        None => None,
    };
    let (window, mut amounts) = (window?, amounts?.into_iter());
    let mut next = || {
        let (kind, limit) = amounts.next()?;
        Some(Quota { kind, limit, window, algorithm: tier.algorithm })
    };
    Some(Limits {
        name: tier.name.as_str().into(),
        quota: next()?,
        also: next(),
        burst,
        stop_on_quota_reach: tier.stop_on_quota_reach,
    })
}

/// What is limited, and to how much: one kind, or another and requests.
fn amounts(tier: &TierSettings, field: &str, problems: &mut Problems) -> Option<ArrayVec<(QuotaKind, u64), 4>> {
    let given: ArrayVec<(QuotaKind, u64), 4> = [
        (QuotaKind::Bytes, tier.bytes.map(Volume::count)),
        (QuotaKind::Events, tier.events),
        (QuotaKind::Tokens, tier.tokens),
        (QuotaKind::Requests, tier.requests),
    ]
    .into_iter()
    .filter_map(|(kind, amount)| Some((kind, amount?)))
    .collect();
    let others = given.iter().filter(|(kind, _)| *kind != QuotaKind::Requests).count();
    if given.is_empty() || others > 1 {
        problems.add(field, "has exactly one of requests, bytes, events and tokens; or requests beside one of these");
        return None;
    }
    let mut good = true;
    for (kind, amount) in &given {
        let most = if *kind == QuotaKind::Requests { u64::from(MAX_LIMIT) } else { Quota::MOST };
        if !(1..=most).contains(amount) {
            problems.add(format!("{field}.{}", kind.name()), format!("is a number from 1 to {most}"));
            good = false;
        }
    }
    good.then_some(given)
}

fn quota_window(tier: &TierSettings, field: &str, problems: &mut Problems) -> Option<Window> {
    match window(&tier.per) {
        Ok(Window::Months(_)) if tier.algorithm == Algorithm::Gcra => {
            problems.add(format!("{field}.per"), "with algorithm \"gcra\" is in s, m, h or d: months differ in length");
            None
        }
        Ok(window) => Some(window),
        Err(message) => {
            problems.add(format!("{field}.per"), message);
            None
        }
    }
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
        Ok(Window::Seconds(seconds)) => requests.map(|requests| Burst { requests, per_ms: u64::from(seconds) * 1_000 }),
        Ok(Window::Months(_)) => {
            problems.add(format!("{field}.burst.per"), "a burst is limited in s, m, h or d");
            None
        }
        Err(message) => {
            problems.add(format!("{field}.burst.per"), message);
            None
        }
    }
}

/// Reads `1m`, `30s`, `2mo`.
fn window(text: &str) -> Result<Window, &'static str> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "mo" => 0,
        _ => return Err(WINDOW_FORM),
    };
    if number.is_empty() {
        return Err(WINDOW_FORM);
    }
    let number: u32 = number.parse().map_err(|_| "is longer than 10 years")?;
    if number == 0 {
        return Err(WINDOW_FORM);
    }
    if unit == "mo" {
        return if number <= 120 { Ok(Window::Months(number)) } else { Err("is longer than 10 years") };
    }
    let seconds = number.checked_mul(seconds).filter(|n| *n <= MAX_WINDOW_S).ok_or("is longer than 10 years")?;
    Ok(Window::Seconds(seconds))
}

/// WSO2's default policies (facts/gateway.md section 7). A webhook policy's number of webhook subscriptions is of no
/// meaning here: Tollgate keeps no webhooks.
fn built_in() -> impl Iterator<Item = (&'static str, Kind, TierLevel)> {
    let limited = |name: &str, quota, also| {
        Kind::Limited(Arc::new(Limits { name: name.into(), quota, also, burst: None, stop_on_quota_reach: true }))
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

const MAX_LIMIT: u32 = i32::MAX as u32;
const MAX_WINDOW_S: u32 = 3_660 * 86_400;
const WINDOW_FORM: &str = "is a whole number from 1 and s, m, h, d or mo, such as \"1m\"";
