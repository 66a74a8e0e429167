//! Quotas that several gates count together through Redis: each mode, Redis away, back, slow; tiers and modes that
//! change. Rows A06, A09 and A10 of the attack list.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::support::{Answer, BOTH, Config, Gate, Idp, Redis, Request, api, block_on, resource};

/// Gates that share a Redis and an open API.
pub(crate) struct Place {
    pub(crate) gates: Vec<Gate>,
    pub(crate) redis: Redis,
    // Held: its keys are fetched at start.
    idp: Idp,
    asked: AtomicUsize,
}

/// A day, so that no test meets the end of a window but at midnight.
pub(crate) fn tables(limit: u64) -> String {
    format!("\n[[tiers]]\nname = \"Shared\"\nrequests = {limit}\nper = \"1d\"\n")
        + &api("Open", "/open", None, "upstream = \"echo:\"\nsubscription = \"none\"\ntier = \"Shared\"")
        + &resource("/*", "auth = \"none\"")
}

fn config(idp: &Idp, redis: &Redis, shared: &str, limit: u64) -> Config {
    with_tables(idp, redis, shared, &tables(limit))
}

/// Unless a test is about it, nobody goes on without Redis because this machine is slow.
pub(crate) fn with_tables(idp: &Idp, redis: &Redis, shared: &str, tables: &str) -> Config {
    let patience = if shared.contains("timeout") { "" } else { "\ntimeout = \"10s\"" };
    let shared = redis.shared(&format!("{shared}{patience}"));
    Config::orders(idp, "echo:").with("[throttle]\nheaders = true\n").with(&shared).with(tables)
}

impl Place {
    pub(crate) fn new(gates: usize, limit: u64, shared: &str) -> Self {
        let (idp, redis) = (Idp::start(), Redis::start());
        let settings = config(&idp, &redis, shared, limit);
        let gates: Vec<Gate> = (0..gates).map(|_| Gate::start(|ports| settings.text(ports))).collect();
        let place = Self::of(gates, redis, idp);
        place.wait_available(1.0);
        place
    }

    pub(crate) fn of(gates: Vec<Gate>, redis: Redis, idp: Idp) -> Self {
        Self { gates, redis, idp, asked: AtomicUsize::new(0) }
    }

    pub(crate) fn wait_available(&self, wanted: f64) {
        for gate in &self.gates {
            gate.wait_for("shared counters", || metric(gate, "available") == wanted);
        }
    }

    /// Over HTTP/1.1 and HTTP/2 in turn.
    pub(crate) fn ask(&self, gate: usize) -> Answer {
        let via = BOTH[self.asked.fetch_add(1, Ordering::Relaxed) % 2];
        block_on(self.gates[gate].send(via, &Request::get("/open/x")))
    }

    pub(crate) fn status(&self, gate: usize) -> u16 {
        self.ask(gate).status
    }

    /// How many of `n` requests pass, at the gates in turn.
    pub(crate) fn passing(&self, n: usize) -> usize {
        (0..n).filter(|n| self.status(n % self.gates.len()) == 200).count()
    }

    fn reload(&self, gate: usize, shared: &str, limit: u64) {
        self.reload_to(gate, &config(&self.idp, &self.redis, shared, limit));
    }

    fn reload_to(&self, gate: usize, settings: &Config) {
        let gate = &self.gates[gate];
        let reloads = || gate.metric("tollgate_config_reloads_total", &["outcome=\"ok\""]);
        let before = reloads();
        gate.reload(&settings.text(&gate.ports));
        gate.wait_for("the reload", || reloads() > before);
    }
}

pub(crate) fn metric(gate: &Gate, name: &str) -> f64 {
    gate.metric(&format!("tollgate_shared_counters_{name}"), &[])
}

/// How often a gate has logged it.
pub(crate) fn logged(gate: &Gate, words: &str) -> usize {
    format!("{}{}", gate.stdout(), gate.stderr()).matches(words).count()
}

fn policy(answer: &Answer) -> String {
    answer.header("ratelimit-policy").unwrap_or_default().to_owned()
}

#[test]
fn a_strict_limit_is_exact_whoever_is_asked() {
    let place = Place::new(3, 30, "mode = \"strict\"");
    assert_eq!(place.passing(60), 30);
    let refused = place.ask(1);
    assert_eq!((refused.status, &*policy(&refused)), (429, "\"Shared\";q=30;w=86400"));
    assert_eq!(refused.json()["code"], "900800");
    assert_eq!(place.redis.counted(), 30);
}

#[test]
fn a_lease_is_never_exceeded_and_used_up() {
    let place = Place::new(3, 30, "mode = \"lease\"\ninterval = \"10ms\"");
    let mut passed = 0;
    let begun = Instant::now();
    while passed < 30 && begun.elapsed() < Duration::from_secs(60) {
        passed += place.passing(3);
    }
    assert_eq!((passed, place.passing(30)), (30, 0));
    assert_eq!(place.redis.counted(), 30);
}

/// A09.
#[test]
fn batches_are_reconciled_and_no_request_asks() {
    let place = Place::new(4, 100, "interval = \"10ms\"");
    assert_eq!((0..60).filter(|_| place.status(0) == 200).count(), 60);
    place.gates[0].wait_for("what was counted to be told", || place.redis.counted() == 60);
    // The others learn it with their first exchange: each passes one request or two before.
    let others: usize = (1..4).map(|gate| usize::from(place.status(gate) == 200)).sum();
    assert_eq!(others, 3);
    place.gates[3].wait_for("what others counted to be told", || place.redis.counted() == 63);
    let mut passed = 63;
    for _ in 0..100 {
        passed += usize::from(place.status(3) == 200);
    }
    assert_eq!(passed, 100, "the others' 62 count here");
    assert_eq!(place.redis.asked()[1], 0);
    assert_eq!(metric(&place.gates[3], "asked_total"), 0.0);
}

#[test]
fn sliding_windows_and_buckets_are_shared_in_every_mode() {
    for algorithm in ["sliding", "gcra"] {
        for mode in ["batched", "lease", "strict"] {
            let (idp, redis) = (Idp::start(), Redis::start());
            let shared = format!("mode = \"{mode}\"\ninterval = \"10ms\"");
            let tables = tables(30).replace("per =", &format!("algorithm = \"{algorithm}\"\nper ="));
            let settings = with_tables(&idp, &redis, &shared, &tables);
            let gates: Vec<Gate> = (0..3).map(|_| Gate::start(|ports| settings.text(ports))).collect();
            let place = Place { gates, redis, idp, asked: AtomicUsize::new(0) };
            place.wait_available(1.0);
            let (mut passed, begun) = (0, Instant::now());
            while begun.elapsed() < Duration::from_secs(60) {
                let before = passed;
                let exchanges: Vec<f64> = place.gates.iter().map(|gate| metric(gate, "round_trips_total")).collect();
                passed += place.passing(3);
                // What passed is told within an exchange, and learnt by the next.
                for (gate, before) in place.gates.iter().zip(exchanges).filter(|_| mode == "batched") {
                    gate.wait_for("an exchange", || metric(gate, "round_trips_total") > before);
                }
                if passed == before && passed >= 30 {
                    break;
                }
            }
            // In a day's bucket there is room for one more after 48 minutes.
            let most = if mode == "batched" { 30 + 2 * 3 + 3 } else { 30 };
            assert!((30..=most).contains(&passed), "{algorithm} {mode}: {passed}");
            let refused = place.ask(0);
            assert_eq!((refused.status, &*policy(&refused)), (429, "\"Shared\";q=30;w=86400"), "{algorithm} {mode}");
            let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            // Of a sliding window the share in the next one has to fall, too.
            let longest = if algorithm == "sliding" { 2 * 86_400 } else { 86_400 };
            assert!((1..=longest).contains(&after), "{algorithm} {mode}: {after}");
        }
    }
}

/// A10.
#[test]
fn while_redis_is_away_the_rule_holds_and_shows() {
    for mode in ["batched", "lease", "strict"] {
        for (rule, passing, status) in [("local", 9, 429), ("deny", 0, 503), ("allow", 20, 200)] {
            let place = Place::new(1, 10, &format!("mode = \"{mode}\"\non_outage = \"{rule}\""));
            assert_eq!(place.status(0), 200, "{mode} {rule}");
            // A share in hand is used also where the rule refuses; none is, once it has gone back.
            if mode == "lease" {
                place.gates[0].wait_for("the share to go back", || place.redis.counted() == 1);
            }
            place.redis.kill();
            place.wait_available(0.0);
            let first = place.ask(0);
            let passed = usize::from(first.status == 200) + place.passing(19);
            assert_eq!((passed, place.status(0)), (passing, status), "{mode} {rule}");
            assert!(metric(&place.gates[0], "outage_requests_total") >= 20.0, "{mode} {rule}");
            match rule {
                "local" => assert!(policy(&first).ends_with(";alone"), "{mode}"),
                "deny" => {
                    let told = first.json();
                    assert_eq!(
                        (&told["code"], &told["message"]),
                        (&"900900".into(), &"Limits Cannot Be Counted".into())
                    );
                    assert!(told["description"].as_str().unwrap().contains("cannot be counted"), "{told}");
                    assert_eq!(first.header("retry-after"), Some("1"));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_redis_that_comes_back_empty_is_told() {
    for mode in ["batched", "lease", "strict"] {
        let place = Place::new(2, 20, &format!("mode = \"{mode}\"\ninterval = \"10ms\""));
        assert_eq!(place.passing(8), 8);
        place.gates[0].wait_for("what was counted to be told", || place.redis.counted() >= 8);
        place.redis.kill();
        place.wait_available(0.0);
        assert_eq!(place.redis.counted(), 0);
        assert_eq!(place.passing(2), 2, "{mode}: each counts on");
        place.redis.resume();
        place.wait_available(1.0);
        place.gates[0].wait_for("what was counted to be told again", || place.redis.counted() >= 10);
        let (mut passed, begun) = (10, Instant::now());
        // What is handed out is not yet used: only what passes tells.
        while passed < 20 && begun.elapsed() < Duration::from_secs(60) {
            passed += place.passing(2);
            if mode == "batched" {
                place.gates[0].wait_for("it to be told", || place.redis.counted() >= passed as u64);
            }
        }
        let above = if mode == "batched" { 4 } else { 0 };
        assert!((20..=20 + above).contains(&passed), "{mode}: {passed}");
        if mode != "batched" {
            assert_eq!(place.passing(20), 0, "{mode}");
        }
    }
}

/// Who has ended tells nothing again. What it has counted, those who heard of it do.
#[test]
fn what_a_gate_that_ended_has_counted_is_not_admitted_again() {
    for mode in ["batched", "lease", "strict"] {
        for spoiled in [false, true] {
            let mut place = Place::new(2, 100, &format!("mode = \"{mode}\"\ninterval = \"10ms\""));
            let settled = |place: &Place, wanted: u64| {
                // An idle share goes back.
                place.gates[0].wait_for("it to be told", || place.redis.counted() == wanted);
            };
            assert_eq!((0..60).filter(|_| place.status(1) == 200).count(), 60, "{mode}");
            settled(&place, 60);
            assert_eq!((0..20).filter(|_| place.status(0) == 200).count(), 20, "{mode}");
            settled(&place, 80);
            place.gates[1].signal("TERM");
            assert!(place.gates[1].wait_exit().is_some_and(|status| status.success()));
            place.gates.truncate(1);
            place.redis.lose_counters(spoiled);
            let (mut passed, begun) = (0, Instant::now());
            while passed < 20 && begun.elapsed() < Duration::from_secs(30) {
                passed += place.passing(1);
            }
            passed += place.passing(40);
            // Of batches what passes until the first of them is answered.
            assert_eq!(passed, 20, "{mode} {spoiled}");
            settled(&place, 100);
        }
    }
}

/// Who is full asks no more. That another finds the counter overwritten is told to all before it is admitted anything.
#[test]
fn a_counter_that_is_overwritten_admits_nothing_again() {
    for algorithm in ["fixed", "sliding", "gcra"] {
        for mode in ["lease", "strict"] {
            let (idp, redis) = (Idp::start(), Redis::start());
            // Long: who is full does not look whether Redis has lost something because it counts.
            let shared = format!("mode = \"{mode}\"\non_outage = \"deny\"\ninterval = \"10s\"");
            let tables = tables(10).replace("per =", &format!("algorithm = \"{algorithm}\"\nper ="));
            let settings = with_tables(&idp, &redis, &shared, &tables);
            let gates: Vec<Gate> = (0..2).map(|_| Gate::start(|ports| settings.text(ports))).collect();
            let place = Place { gates, redis, idp, asked: AtomicUsize::new(0) };
            place.wait_available(1.0);
            assert_eq!((0..20).filter(|_| place.status(0) == 200).count(), 10, "{algorithm} {mode}");
            let told = || metric(&place.gates[0], "keys_total");
            let before = told();
            place.redis.lose_counters(true);
            assert_eq!((place.status(1), place.status(1)), (503, 503), "{algorithm} {mode}: others may hold something");
            place.gates[0].wait_for("the loss to be heard", || logged(&place.gates[0], "has lost counters") == 1);
            place.gates[0].wait_for("it to tell what it holds", || told() > before);
            place.redis.settling(false);
            place.wait_available(1.0);
            let statuses: Vec<u16> = (0..10).map(|_| place.status(1)).collect();
            assert!(statuses.iter().all(|status| *status == 429), "{algorithm} {mode}: {statuses:?}");
            let found: f64 = place.gates.iter().map(|gate| metric(gate, "replaced_total")).sum();
            assert_eq!(found, 1.0, "{algorithm} {mode}");
        }
    }
}

#[test]
fn a_redis_that_hangs_costs_one_request_its_timeout_and_others_nothing() {
    let place = Place::new(1, 1_000, "mode = \"strict\"\ntimeout = \"200ms\"");
    assert_eq!(place.status(0), 200);
    place.redis.hang();
    let begun = Instant::now();
    assert_eq!(place.status(0), 200);
    assert!(begun.elapsed() >= Duration::from_millis(200), "it waited");
    let before = metric(&place.gates[0], "outage_requests_total");
    assert_eq!(place.passing(20), 20);
    assert_eq!(metric(&place.gates[0], "outage_requests_total"), before + 20.0, "and nobody after it");
    place.redis.resume();
    place.wait_available(1.0);
    place.gates[0].wait_for("what was counted to be told", || place.redis.counted() >= 22);
    assert_eq!(place.redis.counted(), 22, "nothing is counted twice");
}

#[test]
fn while_redis_may_lack_what_others_hold_nothing_is_handed_out() {
    for mode in ["lease", "strict"] {
        let place = Place::new(1, 10, &format!("mode = \"{mode}\"\non_outage = \"deny\"\ninterval = \"10ms\""));
        place.redis.settling(true);
        place.gates[0].wait_for("the refusal", || place.status(0) == 503);
        place.wait_available(0.0);
        place.redis.settling(false);
        place.gates[0].wait_for("the end of it", || place.status(0) == 200);
        place.wait_available(1.0);
    }
}

/// At the start alone: later a gate that refuses says so by its answers.
#[test]
fn who_would_refuse_everything_is_not_ready_before_redis_hands_out() {
    for (mode, rule, waits) in
        [("lease", "deny", true), ("strict", "deny", true), ("strict", "local", false), ("batched", "deny", false)]
    {
        let (idp, redis) = (Idp::start(), Redis::start());
        let settings = config(&idp, &redis, &format!("mode = \"{mode}\"\non_outage = \"{rule}\""), 10);
        redis.settling(true);
        let gate = Gate::launch(|ports| settings.text(ports));
        let said = gate.admin("/readyz").text();
        assert_eq!(said.contains("shared counters"), waits, "{mode} {rule}: {said}");
        if waits {
            redis.settling(false);
        }
        gate.wait_ready();
        redis.settling(true);
        if mode != "batched" {
            gate.wait_for("it to settle", || metric(&gate, "available") == 0.0);
        }
        assert_eq!(gate.admin("/readyz").status, 200, "{mode} {rule}");
        // One that is away is not waited for.
        redis.kill();
        Gate::start(|ports| settings.text(ports));
    }
}

#[test]
fn who_counts_alone_while_redis_may_lack_something_says_so() {
    for mode in ["lease", "strict"] {
        let place = Place::new(1, 10, &format!("mode = \"{mode}\"\ninterval = \"10ms\""));
        place.redis.settling(true);
        place.wait_available(0.0);
        let alone = |answer: &Answer| policy(answer).ends_with(";alone");
        let first = place.ask(0);
        assert_eq!((first.status, alone(&first)), (200, true), "{mode}: {}", policy(&first));
        assert_eq!((place.passing(20), alone(&place.ask(0))), (9, true), "{mode}");
        let settles = "this ends by itself within 2 s";
        assert_eq!(logged(&place.gates[0], settles), 1, "{mode}");
        place.redis.settling(false);
        place.wait_available(1.0);
        assert!(!alone(&place.ask(0)), "{mode}");
    }
}

#[test]
fn a_redis_that_does_not_say_which_it_is_is_warned_of_once() {
    let place = Place::new(1, 10, "interval = \"10ms\"");
    let warned = || logged(&place.gates[0], "does not say which server it is");
    assert_eq!(warned(), 0);
    for _ in 0..2 {
        place.redis.kill();
        place.wait_available(0.0);
        place.redis.nameless();
        place.redis.resume();
        place.wait_available(1.0);
    }
    assert_eq!(warned(), 1);
}

/// Killed after it has saved, and back with that: what was counted since is told before anything is handed out.
#[test]
fn a_redis_that_comes_back_with_an_older_snapshot_is_told() {
    for mode in ["lease", "strict"] {
        let place = Place::new(2, 20, &format!("mode = \"{mode}\"\non_outage = \"deny\"\ninterval = \"10ms\""));
        assert_eq!(place.passing(4), 4);
        let kept = place.redis.save();
        assert_eq!(place.passing(6), 6);
        place.redis.kill_back_to(kept);
        place.wait_available(0.0);
        place.redis.resume();
        place.gates[0].wait_for("what was counted to be told again", || place.redis.counted() >= 10);
        assert_eq!(metric(&place.gates[0], "available"), 0.0, "{mode}: it is there, and may lack what others hold");
        if mode == "strict" {
            assert_eq!((place.status(0), place.status(1)), (503, 503), "it may lack what others hold");
        }
        place.redis.settling(false);
        place.wait_available(1.0);
        let (mut passed, begun) = (10, Instant::now());
        while passed < 20 && begun.elapsed() < Duration::from_secs(30) {
            passed += place.passing(2);
        }
        assert_eq!((passed, place.passing(20)), (20, 0), "{mode}");
    }
}

/// `allow` lets pass what nobody can count: bursts count here.
#[test]
fn bursts_hold_while_redis_is_away_whatever_the_rule() {
    for mode in ["batched", "strict"] {
        for (rule, passing) in [("local", 3), ("allow", 3), ("deny", 0)] {
            let (idp, redis) = (Idp::start(), Redis::start());
            let shared = redis.shared(&format!("mode = \"{mode}\"\non_outage = \"{rule}\""));
            let tables = tables(1_000).replace("per =", "burst = { requests = 3, per = \"1d\" }\nper =");
            let settings = Config::orders(&idp, "echo:").with(&shared).with(&tables);
            let gates = vec![Gate::start(|ports| settings.text(ports))];
            let place = Place { gates, redis, idp, asked: AtomicUsize::new(0) };
            place.wait_available(1.0);
            place.redis.kill();
            place.wait_available(0.0);
            assert_eq!(place.passing(8), passing, "{mode} {rule}");
            if rule == "allow" {
                let refused = place.ask(0);
                assert_eq!((refused.status, &*policy(&refused)), (429, "\"Shared\";q=3;w=86400;alone"), "{mode}");
            }
        }
    }
}

/// A06.
#[test]
fn another_limit_counts_from_what_was_used() {
    for algorithm in ["fixed", "sliding", "gcra"] {
        for mode in ["batched", "strict"] {
            let shared = format!("mode = \"{mode}\"\ninterval = \"10ms\"");
            let (idp, redis) = (Idp::start(), Redis::start());
            let text = |limit| {
                let tables = tables(limit).replace("per =", &format!("algorithm = \"{algorithm}\"\nper ="));
                Config::orders(&idp, "echo:").with(&redis.shared(&shared)).with(&tables)
            };
            let (settings, changed) = (text(100), [text(10), text(15)]);
            let gates: Vec<Gate> = (0..2).map(|_| Gate::start(|ports| settings.text(ports))).collect();
            let place = Place { gates, redis, idp, asked: AtomicUsize::new(0) };
            place.wait_available(1.0);
            assert_eq!((0..8).filter(|_| place.status(0) == 200).count(), 8);
            for (settings, left) in changed.iter().zip([2, 5]) {
                place.reload_to(0, settings);
                assert_eq!((0..8).filter(|_| place.status(0) == 200).count(), left, "{algorithm} {mode}");
            }
            // Another sidecar learns of it under the new limit.
            place.reload_to(1, &changed[1]);
            place.gates[1].wait_for("what was used to be learnt", || place.status(1) == 429);
        }
    }
}

#[test]
fn a_mode_may_change_while_serving() {
    let place = Place::new(1, 40, "mode = \"lease\"\ninterval = \"10ms\"");
    let mut passed = place.passing(10);
    for mode in ["batched", "strict", "lease"] {
        place.reload(0, &format!("mode = \"{mode}\"\ninterval = \"10ms\""), 40);
        passed += place.passing(5);
        assert_eq!(place.redis.asked()[1] > 0, mode != "batched", "{mode}");
    }
    assert_eq!(passed, 25);
    let begun = Instant::now();
    while passed < 40 && begun.elapsed() < Duration::from_secs(60) {
        passed += place.passing(1);
    }
    assert_eq!((passed, place.passing(10), place.redis.counted()), (40, 0, 40));
}

#[test]
fn a_gate_that_ends_gives_its_share_back() {
    let mut place = Place::new(1, 1_000, "mode = \"lease\"\ninterval = \"10ms\"");
    // An idle share goes back by itself: requests go on until one is seen.
    let mut passed = 0;
    place.gates[0].wait_for("a share to be held", || {
        passed += place.passing(10) as u64;
        place.redis.counted() > passed
    });
    // The last request's exchange may ask for more: what counts is what is left at the end.
    place.gates[0].signal("TERM");
    assert!(place.gates[0].wait_exit().is_some_and(|status| status.success()));
    assert_eq!(place.redis.counted(), passed);
}
