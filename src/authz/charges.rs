//! The limits that a request meets, in the order of the design. What is not configured costs a branch.

use std::{borrow::Cow, io::Write, net::IpAddr};

use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::{CheckRequest, credential::parameters, decision::Seen};
use crate::{
    net::network,
    store::{Advanced, Api, Condition, On, Part, Pattern, Resource, Rule, Snapshot, Tier},
    throttle::{Charge, Level},
    token::Identity,
};

/// The limits that a request meets.
pub(super) type Charges<'t> = SmallVec<[Charge<'t>; USUAL]>;

/// Of whom, and of what, they are.
#[derive(Clone, Copy)]
pub(super) struct Call<'t, 'r> {
    pub(super) tables: &'t Snapshot,
    pub(super) api: &'t Api,
    pub(super) resource: &'t Resource,
    pub(super) seen: &'r Seen,
    pub(super) request: &'r CheckRequest<'r>,
}

impl<'t> Call<'t, '_> {
    /// All of them. Who is anonymous meets those of API and resource alone.
    pub(super) fn charges(&self) -> Charges<'t> {
        let Self { tables, api, resource, seen, .. } = *self;
        let mut charges = Charges::new();
        if let Some(tier) = &api.tier {
            charges.push(self.advanced(Level::Api, tier));
        }
        if let Some(tier) = &resource.tier {
            charges.push(self.advanced(Level::Resource, tier));
        }
        let Some(identity) = seen.identity.as_deref() else { return charges };
        if let Some(tier) = seen.subscription(tables).and_then(|subscription| subscription.tier.as_ref()) {
            charges.push(Charge { level: Level::Subscription, tier, user: 0 });
        }
        if let Some(tier) = seen.application(tables).and_then(|application| application.tier.as_ref()) {
            charges.push(Charge { level: Level::Application, tier, user: identity.user });
        }
        for rule in &tables.gate.rules {
            if let Some(user) = self.whose(rule, identity) {
                charges.push(Charge { level: Level::Custom, tier: &rule.tier, user });
            }
        }
        if let Some(tier) = api.backend_limits.as_deref().and_then(|limits| limits.of(seen.key_type)) {
            charges.push(Charge { level: Level::Backend, tier, user: 0 });
        }
        charges
    }

    /// The tier's own limit, or that of the first condition group which the request meets.
    #[inline]
    fn advanced(&self, level: Level, tier: &'t Tier) -> Charge<'t> {
        match tier.limits.advanced.as_deref() {
            None => Charge { level, tier, user: 0 },
            Some(advanced) => self.elect(level, tier, advanced),
        }
    }

    fn elect(&self, level: Level, tier: &'t Tier, advanced: &'t Advanced) -> Charge<'t> {
        let identity = self.seen.identity.as_deref();
        let user = identity.filter(|_| advanced.per_user).map_or(0, |identity| identity.user);
        let met = |condition: &Condition| self.holds(condition, identity);
        match advanced.groups.iter().find(|group| group.conditions.iter().all(met)) {
            None => Charge { level, tier, user },
            // A group's counter does not know which API or resource it is for; the tier's does.
            Some(group) => Charge { level, tier: &group.tier, user: tier.of_group(user) },
        }
    }

    fn holds(&self, condition: &Condition, identity: Option<&Identity>) -> bool {
        let request = self.request;
        let found = match &condition.on {
            On::Address(range) => request.client.is_some_and(|address| range.contains(address.to_canonical())),
            On::Header(name, pattern) => request.headers.all(name.as_str()).any(|value| pattern.is_in(value)),
            On::Query(name, pattern) => parameters(request.query.unwrap_or_default())
                .filter(|(given, _)| is_name(given, name))
                .any(|(_, value)| is_in_parameter(pattern, value)),
            On::Claim(name, pattern) => {
                let value = identity.and_then(|identity| identity.claim(usize::MAX, name));
                value.is_some_and(|value| pattern.is_in(value.as_bytes()))
            }
        };
        found != condition.invert
    }

    /// Whose counter of a custom rule it is; none: the rule does not count the request's key.
    fn whose(&self, rule: &Rule, identity: &Identity) -> Option<u128> {
        if let Some(pattern) = &rule.matches {
            let mut key = Key::new();
            rule.parts.iter().for_each(|part| self.write(part, identity, &mut key));
            if !pattern.is_in(&key) {
                return None;
            }
        }
        let mut told = Key::new();
        rule.parts.iter().for_each(|part| self.tell(part, identity, &mut told));
        Some(Rule::whose(&told))
    }

    /// What tells the request's counter from others of the rule, as short as can be: few bytes are one block of a digest.
    /// What differs in length ends with it, so that no two requests meet that only look alike.
    fn tell(&self, part: &Part, identity: &Identity, told: &mut Key) {
        let begin = told.len();
        match part {
            // The same in every key of the rule.
            Part::Text(_) | Part::Tenant => return,
            // A digest of subject and issuer.
            Part::UserId => return told.extend_from_slice(&identity.user.to_be_bytes()),
            Part::ClientIp => match self.request.client.map(|address| address.to_canonical()) {
                None => {}
                Some(IpAddr::V4(address)) => told.extend_from_slice(&address.octets()),
                Some(IpAddr::V6(address)) => told.extend_from_slice(&network(address).octets()[..NETWORK]),
            },
            _ => self.write(part, identity, told),
        }
        let length = u32::try_from(told.len() - begin).unwrap_or(u32::MAX);
        told.extend_from_slice(&length.to_be_bytes());
    }

    /// A part of the key as text. What the request has not is empty.
    fn write(&self, part: &Part, identity: &Identity, key: &mut Key) {
        let Self { tables, api, resource, seen, request } = *self;
        let mut text = |text: &str| key.extend_from_slice(text.as_bytes());
        match part {
            Part::Text(it) => text(it),
            Part::UserId => text(identity.subject.as_deref().unwrap_or_default()),
            Part::ApiContext => text(&api.context),
            Part::ApiVersion => text(api.version.as_deref().unwrap_or_default()),
            Part::ResourceKey => {
                // HEAD may have been elected by GET.
                let follows = !resource.lists(request.method) && request.method == http::Method::HEAD;
                text(&api.context);
                text(&resource.template);
                text(":");
                text(if follows { "GET" } else { request.method.as_str() });
            }
            Part::AppId => text(seen.application(tables).map_or("", |application| &application.name)),
            Part::Tenant => text(TENANT),
            Part::Claim(name) => {
                let value = identity.claim(usize::MAX, name);
                key.extend_from_slice(value.map_or(b"", |value| value.as_bytes()));
            }
            Part::ClientIp => {
                if let Some(address) = request.client {
                    // A vector takes every write.
                    let _ = write!(key, "{}", address.to_canonical());
                }
            }
        }
    }
}

/// A custom rule's key.
type Key = SmallVec<[u8; 256]>;

/// Whether a parameter's name, however it is encoded, is this one.
/// Whether the pattern is found in a parameter's value. Some upstreams take `+` for a space, as forms write it, and some for
/// what it is: both are looked at.
fn is_in_parameter(pattern: &Pattern, value: &str) -> bool {
    let is_in = |value: &str| pattern.is_in(&Cow::from(percent_decode(value.as_bytes())));
    is_in(value) || (value.contains('+') && is_in(&value.replace('+', " ")))
}

fn is_name(given: &str, name: &str) -> bool {
    given == name || (given.contains('%') && percent_decode(given.as_bytes()).eq(name.bytes()))
}

/// Bytes of a network's address that are not 0.
const NETWORK: usize = 8;
/// WSO2's name of the one tenant that there is.
const TENANT: &str = "carbon.super";
/// More than the limits that a request usually meets.
const USUAL: usize = 8;
