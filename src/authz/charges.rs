//! The limits that a request meets, in the order of the design. What is not configured costs a branch.

use std::{io::Write, net::IpAddr};

use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::{CheckRequest, credential::parameters, decision::Seen};
use crate::{
    net::network,
    store::{Advanced, Api, Condition, On, Part, Resource, Rule, Snapshot, Tier},
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
        charges.extend(api.tier.as_ref().map(|tier| self.advanced(Level::Api, tier)));
        charges.extend(resource.tier.as_ref().map(|tier| self.advanced(Level::Resource, tier)));
        let Some(identity) = seen.identity.as_deref() else { return charges };
        let subscription = seen.subscription(tables).and_then(|subscription| subscription.tier.as_ref());
        charges.extend(subscription.map(|tier| Charge { level: Level::Subscription, tier, user: 0 }));
        let application = seen.application(tables).and_then(|application| application.tier.as_ref());
        charges.extend(application.map(|tier| Charge { level: Level::Application, tier, user: identity.user }));
        charges.extend(tables.gate.rules.iter().filter_map(|rule| self.custom(rule, identity)));
        let backend = api.backend_limits.as_deref().and_then(|limits| limits.of(seen.key_type));
        charges.extend(backend.map(|tier| Charge { level: Level::Backend, tier, user: 0 }));
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
            On::Header(name, pattern) => {
                request.headers.get_all(name).iter().any(|value| pattern.is_in(value.as_bytes()))
            }
            On::Query(name, pattern) => parameters(request.query.unwrap_or_default())
                .filter(|(given, _)| is_name(given, name))
                .any(|(_, value)| pattern.is_in(&std::borrow::Cow::from(percent_decode(value.as_bytes())))),
            On::Claim(name, pattern) => {
                let value = identity.and_then(|identity| identity.claim(usize::MAX, name));
                value.is_some_and(|value| pattern.is_in(value.as_bytes()))
            }
        };
        found != condition.invert
    }

    /// The charge of a custom rule; none: it does not count the request's key.
    fn custom(&self, rule: &'t Rule, identity: &Identity) -> Option<Charge<'t>> {
        let client = self.request.client.map(|address| address.to_canonical());
        let (mut key, mut ends) = self.key(rule, identity, client);
        if rule.matches.as_ref().is_some_and(|pattern| !pattern.is_in(&key)) {
            return None;
        }
        if let Some(IpAddr::V6(address)) = client
            && rule.parts.contains(&Part::ClientIp)
        {
            (key, ends) = self.key(rule, identity, Some(network(address).into()));
        }
        // Where each part ends, so that no two requests meet that only look alike; and of which issuer the user is.
        ends.iter().for_each(|end| key.extend_from_slice(&end.to_be_bytes()));
        if rule.parts.contains(&Part::UserId) {
            key.extend_from_slice(&identity.user.to_be_bytes());
        }
        Some(Charge { level: Level::Custom, tier: &rule.tier, user: Rule::whose(&key) })
    }

    /// The key that a request of this address makes, and where each of its parts ends.
    fn key(&self, rule: &Rule, identity: &Identity, client: Option<IpAddr>) -> (Key, Ends) {
        let (mut key, mut ends) = (Key::new(), Ends::new());
        for part in &rule.parts {
            self.write(part, identity, client, &mut key);
            ends.push(u32::try_from(key.len()).unwrap_or(u32::MAX));
        }
        (key, ends)
    }

    /// What the request has not is empty.
    fn write(&self, part: &Part, identity: &Identity, client: Option<IpAddr>, key: &mut Key) {
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
                if let Some(address) = client {
                    // A vector takes every write.
                    let _ = write!(key, "{address}");
                }
            }
        }
    }
}

/// A custom rule's key as text.
type Key = SmallVec<[u8; 256]>;
/// Where the parts of a key end.
type Ends = SmallVec<[u32; 16]>;

/// Whether a parameter's name, however it is encoded, is this one.
fn is_name(given: &str, name: &str) -> bool {
    given == name || (given.contains('%') && percent_decode(given.as_bytes()).eq(name.bytes()))
}

/// WSO2's name of the one tenant that there is.
const TENANT: &str = "carbon.super";
/// More than the limits that a request usually meets.
const USUAL: usize = 8;
