//! Counters that gates share, while something about them is odd: an upstream that tells absurd amounts, a Redis that
//! answers too late, a clock that is wrong.

use std::time::Duration;

use crate::{
    shared_counters::{Place, logged, metric, tables, with_tables},
    support::{Backend, Gate, Idp, Redis, Request, Via, api, block_on, resource},
};

const MODES: [&str; 3] = ["batched", "lease", "strict"];

/// Tokens as an upstream tells them: its own window is used up, and nothing else is touched.
#[test]
fn an_absurd_count_of_tokens_uses_up_its_own_limit_and_no_other() {
    let upstream = Backend::start("model");
    let models = format!(
        "\n[[tiers]]\nname = \"Tokens\"\ntokens = 100\nper = \"1d\"\nlevel = \"advanced\"\n{}{}",
        api(
            "Models",
            "/models",
            None,
            &format!(
                "upstream = \"{}\"\nsubscription = \"none\"\ntier = \"Tokens\"\ntoken_usage = {{ header = \"x-tokens\" }}",
                upstream.url()
            )
        ),
        resource("/*", "auth = \"none\"")
    );
    // Beside 2^53, 2^63 and 2^64: what no float tells, no signed number, and no sum.
    let absurd = [1 << 53, (1 << 53) + 1, 1 << 63, u64::MAX];
    for mode in MODES {
        let (idp, redis) = (Idp::start(), Redis::start());
        let shared = format!("mode = \"{mode}\"\non_outage = \"deny\"\ninterval = \"10ms\"");
        let settings = with_tables(&idp, &redis, &shared, &(tables(1_000) + &models));
        let gates: Vec<Gate> = (0..2).map(|_| Gate::start(|ports| settings.text(ports))).collect();
        let place = Place::of(gates, redis, idp);
        place.wait_available(1.0);
        // Two gates pass one each, and some more in the time until they have heard of it.
        let call = |gate: usize, tokens: u64| {
            let request = Request::post("/models/{m}").script("reply:application/json");
            let request = request.header("x-tokens", tokens.to_string()).body("{}");
            block_on(place.gates[gate].send(Via::H1, &request)).status
        };
        for (n, tokens) in absurd.into_iter().enumerate() {
            let status = call(n % 2, tokens);
            assert!(n > 0 && status == 429 || status == 200, "{mode} {n}: {status}");
        }
        for (n, gate) in place.gates.iter().enumerate() {
            gate.wait_for("the limit to be used up", || call(n, 1) == 429);
        }
        assert_eq!(place.passing(20), 20, "{mode}: another API's limit");
        for gate in &place.gates {
            assert_eq!((metric(gate, "replaced_total"), metric(gate, "available")), (0.0, 1.0), "{mode}");
            assert_eq!(logged(gate, "Redis is lost"), 0, "{mode}");
        }
    }
}

/// Who is refused since Redis answers too late has spent nothing, whenever Redis did what it was told.
#[test]
fn who_is_refused_since_redis_is_slow_spends_nothing() {
    let gcra = tables(10).replace("per =", "algorithm = \"gcra\"\nper =");
    for (mode, tables) in [("strict", tables(10)), ("strict", gcra.clone()), ("lease", gcra)] {
        let (idp, redis) = (Idp::start(), Redis::start());
        let shared = format!("mode = \"{mode}\"\non_outage = \"deny\"\ntimeout = \"150ms\"");
        let settings = with_tables(&idp, &redis, &shared, &tables);
        let place = Place::of(vec![Gate::start(|ports| settings.text(ports))], redis, idp);
        place.wait_available(1.0);
        place.gates[0].wait_for("the first to pass", || place.status(0) == 200);
        let mut late = 0;
        for _ in 0..3 {
            place.redis.lag(Duration::from_millis(300));
            late += usize::from(place.status(0) == 503);
            place.redis.lag(Duration::ZERO);
            place.wait_available(1.0);
            // Not answered before it is done, either.
            place.redis.hang();
            late += usize::from(place.status(0) == 503);
            std::thread::sleep(Duration::from_millis(150));
            place.redis.resume();
            place.wait_available(1.0);
        }
        assert_eq!(late, 6, "{mode}");
        // What goes back may be on its way yet.
        std::thread::sleep(Duration::from_millis(500));
        place.wait_available(1.0);
        assert_eq!(place.passing(20), 9, "{mode} {tables}");
    }
}

#[test]
fn a_clock_that_is_not_that_of_redis_is_told_of_once_and_shown() {
    let place = Place::new(1, 10, "interval = \"10ms\"");
    let (gate, words) = (&place.gates[0], "the clock by which windows are named is not Redis's");
    assert!(metric(gate, "clock_ahead_seconds").abs() < 5.0);
    assert_eq!(logged(gate, words), 0);
    place.redis.set_clock_ahead(7_200);
    gate.wait_for("the clocks to be compared", || {
        place.status(0);
        (metric(gate, "clock_ahead_seconds") + 7_200.0).abs() < 5.0
    });
    for _ in 0..3 {
        place.status(0);
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(logged(gate, words), 1);
    assert!(metric(gate, "exchange_duration_seconds_count") > 0.0);
}
