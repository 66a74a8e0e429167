//! A fault schedule: clients bring tokens of every kind while the provider is slow, failing, half open, lying, flapping
//! and restarted with new keys, and Redis is killed and hangs. An oracle knows what each answer may be.
//!
//! Seeded: `TOLLGATE_FAULTS_SEED=…` repeats a schedule's decisions, `TOLLGATE_FAULTS_SECONDS=…` makes it longer. The
//! oracle judges by what has been said over sockets and when, never by how long things should take.

mod oracle;
mod weather;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde_json::json;

use crate::support::{
    Backend, Config, Gate, Idp, Redis, Request, Token, Via, api, block_on, key_manager, keys, now, resource, runtime,
    unique,
};
use oracle::{Bearer, Counts, Kind, Oracle};
use weather::Schedule;

/// All that a schedule plays with.
struct Place {
    gate: Gate,
    config: Config,
    idp: Idp,
    redis: Redis,
    oracle: Oracle,
    /// Tokens that clients bring.
    pool: Mutex<Vec<Arc<Bearer>>>,
    over: AtomicBool,
}

#[test]
fn a_schedule_of_faults_gives_no_wrong_verdict() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("TOLLGATE_FAULTS_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let length = Duration::from_secs(number("TOLLGATE_FAULTS_SECONDS").unwrap_or(12));
    println!("fault schedule: TOLLGATE_FAULTS_SEED={seed}");
    let place = Arc::new(Place::start());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| runtime().spawn(client(Arc::clone(&place), fastrand::Rng::with_seed(seed.wrapping_add(n)))))
        .collect();
    let minter = {
        let place = Arc::clone(&place);
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6d69_6e74);
        std::thread::spawn(move || {
            while !place.over.load(Ordering::Relaxed) {
                place.mint(&mut random);
                std::thread::sleep(Duration::from_millis(40));
            }
        })
    };
    let told = Schedule::new(&place, seed).run(length);
    place.over.store(true, Ordering::Relaxed);
    minter.join().unwrap();
    let counts = block_on(async {
        let mut counts = Counts::default();
        for client in clients {
            counts.add(client.await.unwrap());
        }
        counts
    });
    println!("fault schedule: {told}\nfault schedule: {counts}");
    place.at_rest();
    let wrong = &counts.wrong;
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} wrong, such as {:#?}\n{told}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    // A schedule in which nothing happened would prove nothing.
    assert!(counts.passes > 50 && counts.refusals > 20 && counts.unavailable > 0, "seed {seed}: {counts}");
    assert!(counts.known_in_bad_weather > 0, "seed {seed}: {counts}");
    assert!(counts.late * 20 <= counts.requests, "seed {seed}: {counts}");
}

impl Place {
    fn start() -> Self {
        let (idp, redis) = (Idp::with_keys(vec![keys().es256.jwk("generation-0")]), Redis::start());
        let upstream = Backend::start("production");
        let rules = "leeway = \"0\"\ntimeout = \"1s\"\njwks_refresh = \"1s\"\njwks_cooldown = \"300ms\"\n\
                     client_id = \"tollgate\"\nclient_secret = \"a secret of the gate\"";
        let both = format!("audience = [\"both-api\"]\nvalidation = \"jwt+introspect\"\n{rules}");
        let tables = key_manager("both", &idp, &both)
            + &api(
                "Both",
                "/both",
                None,
                &format!("upstream = \"{}\"\nsubscription = \"none\"\nkey_managers = [\"both\"]", upstream.url()),
            )
            + &resource("/items/{id}", "scopes = [\"orders:read\"]")
            + "\n[cache]\nintrospection_ttl = \"1s\"\nnegative_ttl = \"500ms\"\n\
               [throttle]\nfailures = { requests = 0, per = \"1m\" }\n"
            + &redis.shared("");
        let mut config = Config::orders(&idp, &upstream.url()).with(&tables);
        let audience = "audience = [\"orders-api\"]";
        config.rest = config.rest.replacen(audience, &format!("{audience}\n{rules}"), 1);
        // Opaque tokens at Orders have one manager to ask.
        config.rest =
            config.rest.replacen("context = \"/orders\"", "context = \"/orders\"\nkey_managers = [\"main\"]", 1);
        config.top.push_str("workers = 2\n");
        let gate = connected(&config);
        let (oracle, pool, over) = (Oracle::new(), Mutex::default(), AtomicBool::new(false));
        Self { gate, config, idp, redis, oracle, pool, over }
    }

    /// One more token, and now and then one fewer.
    fn mint(&self, random: &mut fastrand::Rng) {
        let brief = random.u8(..4) == 0;
        let exp = now() + if brief { random.u64(1..4) } else { 600 };
        let (generation, key) = self.oracle.newest_key();
        let kid = format!("generation-{generation}");
        let jti = unique();
        let jwt = |audience: &str| {
            Token::of(&self.idp, "shop-web").key(key, &kid).claim("exp", exp).claim("aud", audience).claim("jti", &*jti)
        };
        let told = |audience: &str| {
            let mut told = self.idp.told("shop-web");
            told["exp"] = json!(exp);
            told["aud"] = json!(audience);
            told
        };
        let opaque = format!("opaque-of-the-schedule-{jti}");
        let foreign = format!("of-nobody-{jti}");
        let (kind, text) = match random.u8(..12) {
            0..4 => (Kind::Verified, jwt("orders-api").sign()),
            4..7 => {
                self.idp.say(&opaque, &told("orders-api"));
                (Kind::Asked, opaque)
            }
            7..9 => {
                let text = jwt("both-api").sign();
                self.idp.say(&text, &told("both-api"));
                (Kind::Both, text)
            }
            9 => (Kind::Garbled, jwt("orders-api").sign_with(|message| keys().rsa_other.sign("RS256", message))),
            10 => (Kind::ForeignKey, jwt("orders-api").key(&keys().es512, &foreign).sign()),
            _ => (Kind::Unknown, opaque),
        };
        let kid = if kind == Kind::ForeignKey { foreign } else { kid };
        let bearer = Bearer::new(kind, text, kid, jti, exp);
        let mut pool = self.pool.lock();
        if pool.len() >= POOL {
            let gone = random.usize(..pool.len());
            pool.swap_remove(gone);
        }
        pool.push(Arc::new(bearer));
    }

    /// After the last fault: what is revoked stays refused, also by a gate that starts only now; what is good passes.
    fn at_rest(&self) {
        let pool = self.pool.lock().clone();
        for bearer in pool.iter().filter(|bearer| bearer.exp > now() + 30) {
            let status = || block_on(ask(&self.gate, bearer, Via::H1));
            let wanted = if self.oracle.is_good(bearer) { 200 } else { 401 };
            let end = Instant::now() + Duration::from_secs(10);
            let mut last = status();
            while last != wanted && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(100));
                last = status();
            }
            assert_eq!(last, wanted, "at rest: {bearer:?}");
        }
        let late = connected(&self.config);
        for bearer in self.oracle.revoked() {
            assert_eq!(block_on(ask(&self.gate, &bearer, Via::H2)), 401, "a revocation was lost: {bearer:?}");
            late.wait_for("what was revoked before it started", || block_on(ask(&late, &bearer, Via::H1)) == 401);
        }
    }
}

/// A gate that is ready and has its Redis.
fn connected(config: &Config) -> Gate {
    let gate = Gate::start(|ports| config.text(ports));
    gate.wait_for("Redis", || gate.metric("tollgate_shared_connected", &[]) >= 1.0);
    gate
}

async fn ask(gate: &Gate, bearer: &Bearer, via: Via) -> u16 {
    let target = if bearer.kind == Kind::Both { "/both/items/{m}" } else { "/orders/v1/items/{m}" };
    gate.send(via, &Request::get(target).bearer(&bearer.text)).await.status
}

/// Brings tokens, and has each answer judged.
async fn client(place: Arc<Place>, mut random: fastrand::Rng) -> Counts {
    let mut counts = Counts::default();
    while !place.over.load(Ordering::Relaxed) {
        let bearer = {
            let pool = place.pool.lock();
            (!pool.is_empty()).then(|| Arc::clone(&pool[random.usize(..pool.len())]))
        };
        if let Some(bearer) = bearer {
            let via = if random.bool() { Via::H1 } else { Via::H2 };
            let sent = Moment::now();
            let status = ask(&place.gate, &bearer, via).await;
            place.oracle.judge(&place.idp, &bearer, sent, status, &mut counts);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..20))).await;
    }
    counts
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    /// Milliseconds since the epoch, as `exp` counts.
    unix_ms: u64,
}

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "the oracle's own clock")]
    fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self { at: Instant::now(), unix_ms: u64::try_from(unix.as_millis()).unwrap() }
    }
}

const CLIENTS: u64 = 8;
const POOL: usize = 60;
