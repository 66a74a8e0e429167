//! How fast a sidecar tells a real server all it holds, once that has lost its data.

use std::{sync::Arc, time::Duration};

use prometheus::Registry;
use tokio::{sync::watch, time};

use super::{
    Demand, Metrics, Shared, Terms,
    settings::{OutageRule, SharedMode},
};
use crate::{
    net::{
        Clock,
        redis::{Connection, Redis},
    },
    store::{Algorithm, Window},
    throttle::window,
};

const COUNTERS: u128 = 10;

/// In several exchanges, of which only the first was due.
#[tokio::test]
#[ignore = "needs a Redis or Valkey, named by TOLLGATE_REDIS"]
async fn after_a_loss_all_is_told_without_a_pause() {
    let address = std::env::var("TOLLGATE_REDIS").expect("the address of a server");
    let redis = || Redis::new(&address, None, None).unwrap();
    let mut connection = redis().connect(Duration::from_secs(5)).await.unwrap();
    let prefix = format!("pace-{}:", fastrand::u64(..));
    let terms = Terms {
        mode: SharedMode::Lease,
        interval: Duration::from_secs(3_600),
        timeout: Duration::from_secs(1),
        on_outage: OutageRule::Deny,
    };
    let mut shared = Shared::new(redis(), &prefix, terms, Metrics::register(&Registry::new()).unwrap());
    shared.most = 3;
    let (shared, clock) = (Arc::new(shared), Arc::new(Clock::new()));
    let now_ms = clock.now().steady_ms;
    let window = Window::Seconds(86_400);
    for key in 0..COUNTERS {
        let number = window::number(window, now_ms);
        let demand = Demand { key, limit: 100, window, number, algorithm: Algorithm::Fixed, stop: true, amount: 1 };
        shared.record(&demand, now_ms);
    }
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(Arc::clone(&shared).run(Arc::clone(&clock), stopped));

    let counters = format!("{prefix}count:{{*");
    let first = all(&mut connection, &counters).await;
    let lost = first.iter().cloned().chain([format!("{prefix}count:epoch")]).collect::<Vec<_>>();
    let gone: usize = redis::cmd("DEL").arg(&lost).query_async(&mut connection).await.unwrap();
    assert_eq!(gone, lost.len());
    assert_eq!(all(&mut connection, &counters).await, first);

    stop.send(true).unwrap();
    running.await.unwrap();
}

/// Once every counter is there.
async fn all(connection: &mut Connection, counters: &str) -> Vec<String> {
    let told = async {
        loop {
            let mut keys: Vec<String> = redis::cmd("KEYS").arg(counters).query_async(connection).await.unwrap();
            if keys.len() == COUNTERS as usize {
                keys.sort_unstable();
                return keys;
            }
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(Duration::from_secs(30), told).await.expect("all of them, long before the next exchange is due")
}
