//! The faults, one after another: what the provider and Redis do, when, and that the gate recovers.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    Place, ask,
    oracle::{Bearer, Kind, drops_the_old, key_of},
};
use crate::support::{Mood, Via, Weather, block_on, now};

/// What befalls the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Slow,
    Failing,
    HalfOpen,
    Lying,
    Flapping,
    Stopped,
    NewKeys,
}

/// What befalls Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RedisFault {
    Killed,
    Hangs,
}

/// Faults in an order that the seed decides.
pub(super) struct Schedule<'p> {
    place: &'p Place,
    random: fastrand::Rng,
    told: Report,
}

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct Report {
    faults: BTreeMap<String, u32>,
    revoked: u32,
    deactivated: u32,
    longest_recovery: Duration,
}

impl<'p> Schedule<'p> {
    pub(super) fn new(place: &'p Place, seed: u64) -> Self {
        Self { place, random: fastrand::Rng::with_seed(seed), told: Report::default() }
    }

    pub(super) fn run(mut self, length: Duration) -> Report {
        let end = Instant::now() + length;
        // Each kind once before one comes twice.
        let mut bag: Vec<Fault> = Vec::new();
        self.rest(600);
        while Instant::now() < end {
            if bag.is_empty() {
                bag = vec![
                    Fault::Slow,
                    Fault::Failing,
                    Fault::HalfOpen,
                    Fault::Lying,
                    Fault::Flapping,
                    Fault::Stopped,
                    Fault::NewKeys,
                ];
                self.random.shuffle(&mut bag);
            }
            if let Some(fault) = bag.pop() {
                self.strike(fault);
            }
            self.redis();
            self.deactivate();
        }
        self.told
    }

    fn strike(&mut self, fault: Fault) {
        let idp = &self.place.idp;
        *self.told.faults.entry(format!("{fault:?}")).or_default() += 1;
        // One that is only slow has nothing to be excused for.
        if fault != Fault::Slow {
            self.place.oracle.turns_bad();
        }
        match fault {
            Fault::Slow => {
                let millis = self.random.u64(50..300);
                self.suffer(Mood::Slow(millis), Weather::Slow(millis));
            }
            Fault::Failing => {
                let status = [500, 502, 503, 429, 404][self.random.usize(..5)];
                self.suffer(Mood::Broken, Weather::Status(status));
            }
            Fault::HalfOpen => self.suffer(Mood::Slow(20_000), Weather::Silent),
            Fault::Lying => {
                let (mood, weather) =
                    [(Mood::Html, Weather::Html), (Mood::Empty, Weather::Lying)][usize::from(self.random.bool())];
                self.suffer(mood, weather);
            }
            Fault::Flapping => {
                for _ in 0..self.random.u8(3..7) {
                    idp.mood(Mood::Broken);
                    idp.weather(if self.random.bool() { Weather::Reset } else { Weather::ResetOnce });
                    self.pause(40, 160);
                    idp.mood(Mood::Good);
                    idp.weather(Weather::Good);
                    self.pause(40, 160);
                }
            }
            Fault::Stopped => {
                idp.stop();
                self.pause(300, 1200);
                idp.restart();
            }
            Fault::NewKeys => {
                idp.stop();
                let next = self.place.oracle.next_key();
                let mut set = vec![key_of(next).jwk(&format!("generation-{next}"))];
                if !drops_the_old(next) {
                    set.push(key_of(next - 1).jwk(&format!("generation-{}", next - 1)));
                }
                idp.rotate(set);
                self.pause(50, 500);
                idp.restart();
            }
        }
        idp.mood(Mood::Good);
        idp.weather(Weather::Good);
        self.recover(fault);
        self.rest(300);
    }

    fn suffer(&mut self, mood: Mood, weather: Weather) {
        self.place.idp.mood(mood);
        self.place.idp.weather(weather);
        self.pause(400, 1500);
    }

    /// Until the gate asks again: then 503 is no right answer any more.
    fn recover(&mut self, fault: Fault) {
        let begun = Instant::now();
        let gate = &self.place.gate;
        let circuits = || gate.metric("tollgate_introspection_circuit", &[]);
        gate.wait_for("the provider is asked again", || circuits() == 0.0);
        // Calls from before end too: those of a half-open provider by the timeout of a second.
        std::thread::sleep(Duration::from_millis(if fault == Fault::HalfOpen { 1200 } else { 200 }));
        gate.wait_for("the provider is asked again", || circuits() == 0.0);
        self.place.oracle.is_well();
        self.told.longest_recovery = self.told.longest_recovery.max(begun.elapsed());
    }

    fn pause(&mut self, least: u64, most: u64) {
        std::thread::sleep(Duration::from_millis(self.random.u64(least..most)));
    }

    fn rest(&mut self, millis: u64) {
        self.pause(millis / 2, millis);
    }

    /// Revokes a few tokens, now and then with Redis away before.
    fn redis(&mut self) {
        let fault = [None, Some(RedisFault::Killed), Some(RedisFault::Hangs)][self.random.usize(..3)];
        if let Some(fault) = fault {
            *self.told.faults.entry(format!("Redis{fault:?}")).or_default() += 1;
            match fault {
                RedisFault::Killed => self.place.redis.kill(),
                RedisFault::Hangs => self.place.redis.hang(),
            }
            self.pause(100, 600);
            self.place.redis.resume();
        }
        for _ in 0..2 {
            let chosen = self.choose(|bearer| matches!(bearer.kind, Kind::Verified | Kind::Asked | Kind::Both));
            let Some(bearer) = chosen else { return };
            self.place.oracle.is_revoking(&bearer);
            // By its digest: an introspected answer has no jti.
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bearer.text.as_bytes());
            let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let issuer = self.place.idp.issuer();
            let by_jti = bearer.kind == Kind::Verified && self.random.bool();
            let what = if by_jti { ("jti", bearer.jti.clone()) } else { ("token_sha256", digest) };
            self.place.redis.revoke(&json!({ "issuer": issuer, what.0: what.1, "until": now() + 900 }));
            self.place.gate.wait_for("a revocation", || block_on(ask(&self.place.gate, &bearer, Via::H1)) == 401);
            self.place.oracle.is_revoked(&bearer);
            self.told.revoked += 1;
        }
    }

    /// The provider itself revokes a token.
    fn deactivate(&mut self) {
        if let Some(bearer) = self.choose(|bearer| matches!(bearer.kind, Kind::Asked | Kind::Both)) {
            bearer.deactivate(&self.place.idp);
            self.told.deactivated += 1;
        }
    }

    /// A token that is good for long.
    fn choose(&mut self, wanted: impl Fn(&Bearer) -> bool) -> Option<std::sync::Arc<Bearer>> {
        let pool = self.place.pool.lock();
        let good: Vec<_> = pool
            .iter()
            .filter(|bearer| wanted(bearer) && bearer.exp > now() + 60 && self.place.oracle.is_good(bearer))
            .collect();
        (!good.is_empty()).then(|| good[self.random.usize(..good.len())].clone())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.faults.iter().map(|(fault, times)| format!("{fault} {times}")).collect();
        write!(
            out,
            "{}; {} tokens revoked by events, {} by the provider; longest recovery {:?}",
            faults.join(", "),
            self.revoked,
            self.deactivated,
            self.longest_recovery
        )
    }
}
