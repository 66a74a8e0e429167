//! How many connections a door holds at one time, and which of its workers holds how many.
//!
//! Beyond the cap a connection is accepted and closed at once, as Envoy's connection limit does: it neither waits in
//! a queue that nobody sees, nor takes a descriptor that an upstream needs. The cap is never more than descriptors
//! allow, of which each connection may need two.
//!
//! The system spreads connections over workers by hash, and few of them unevenly. So each gets its worker here when
//! it is accepted, once: the one that accepted it, unless that would hold more than its fair share; then the one
//! that holds least. Nothing here moves a connection that is served, so after many have ended on one worker it is
//! new ones that even it out.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A door's room. Clones share it.
#[derive(Debug, Clone)]
pub struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    taken: AtomicUsize,
    /// What descriptors allow.
    most: usize,
    /// Connections of each worker, at least one worker.
    held: Box<[AtomicUsize]>,
}

/// A connection's place with a worker, until dropped.
#[must_use = "dropped, it is free again"]
pub(super) struct Seat {
    room: Arc<Inner>,
    worker: usize,
}

impl Room {
    /// Room for as many connections as `descriptors` allow, with that many workers.
    pub fn new(descriptors: u64, workers: usize) -> Self {
        let most = usize::try_from(descriptors.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX);
        let held = (0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect();
        Self(Arc::new(Inner { taken: AtomicUsize::new(0), most: most.max(1), held }))
    }

    /// What descriptors allow.
    pub fn most(&self) -> usize {
        self.0.most
    }

    /// Shows what each worker holds, as `tollgate_worker_connections`.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let help = "Connections of clients that each worker of the proxy door holds.";
        let options = Opts::new("worker_connections", help).namespace("tollgate");
        let gauges = IntGaugeVec::new(options, &["worker"])?;
        registry.register(Box::new(Shown { room: self.clone(), gauges }))
    }

    /// A place for a connection that worker `by` has accepted, if fewer than `cap` are taken.
    pub(super) fn enter(&self, by: usize, cap: usize) -> Option<Seat> {
        let cap = cap.min(self.0.most);
        let taken = self.0.taken.fetch_update(Relaxed, Relaxed, |taken| (taken < cap).then_some(taken + 1));
        taken.is_ok().then(|| Seat { worker: self.0.elect(by), room: Arc::clone(&self.0) })
    }
}

impl Inner {
    /// Chooses the worker of one more connection and counts it there.
    fn elect(&self, by: usize) -> usize {
        loop {
            let (mut all, mut own, mut least) = (0, usize::MAX, (usize::MAX, 0));
            for (worker, held) in self.held.iter().enumerate() {
                let held = held.load(Relaxed);
                all += held;
                least = least.min((held, worker));
                if worker == by {
                    own = held;
                }
            }
            let (held, worker) = if own < fair_share(all + 1, self.held.len()) { (own, by) } else { least };
            // Only as seen: of several that accept at once, each sees what the others have chosen. Who has to look
            // again does so because another got on.
            if self.held[worker].compare_exchange(held, held + 1, Relaxed, Relaxed).is_ok() {
                return worker;
            }
        }
    }
}

/// Most connections that a worker keeps of what it accepts, when there are `all`: the mean, rounded up, and an eighth
/// of it, so that of many connections few change hands.
fn fair_share(all: usize, workers: usize) -> usize {
    all.div_ceil(workers) + all / workers / 8
}

impl Seat {
    /// The worker it is with.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    /// With another worker, which serves it after all.
    pub(super) fn with(mut self, worker: usize) -> Self {
        if let Some(held) = self.room.held.get(worker) {
            held.fetch_add(1, Relaxed);
            self.room.held[self.worker].fetch_sub(1, Relaxed);
            self.worker = worker;
        }
        self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.held[self.worker].fetch_sub(1, Relaxed);
        self.room.taken.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("worker", &self.worker).finish_non_exhaustive()
    }
}

/// A room as a scrape sees it.
struct Shown {
    room: Room,
    gauges: IntGaugeVec,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (worker, held) in self.room.0.held.iter().enumerate() {
            let held = i64::try_from(held.load(Relaxed)).unwrap_or(i64::MAX);
            self.gauges.with_label_values(&[worker.to_string()]).set(held);
        }
        self.gauges.collect()
    }
}

/// Lets the process open as many descriptors as the system allows it to ask for; how many that is.
pub fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let now = current.unwrap_or(u64::MAX);
    let most = maximum.unwrap_or(u64::MAX);
    if now < most && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() { most } else { now }
}

/// Descriptors for all else: listeners, side doors, files, providers.
const RESERVED: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_is_kept_and_places_come_back() {
        let room = Room::new(1000, 1);
        let seats: Vec<_> = (0..3).map(|_| room.clone().enter(0, 3)).collect();
        assert!(seats.iter().all(Option::is_some) && room.enter(0, 3).is_none());
        assert!(room.enter(0, 4).is_some(), "a reload may widen it");
        drop(seats);
        assert!(room.enter(0, 1).is_some());
    }

    #[test]
    fn descriptors_are_the_last_word() {
        let room = Room::new(RESERVED + 4, 1);
        let seats: Vec<_> = (0..3).filter_map(|_| room.enter(0, 10)).collect();
        assert_eq!((seats.len(), room.most()), (2, 2));
        assert!(Room::new(0, 0).enter(0, 10).is_some(), "never none at all");
    }

    #[test]
    fn descriptors_are_raised_to_what_is_allowed() {
        assert_eq!(raise_descriptors(), getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }

    /// What each worker holds.
    fn held(room: &Room) -> Vec<usize> {
        room.0.held.iter().map(|held| held.load(Relaxed)).collect()
    }

    /// Whether no worker holds more than half as much again as the mean, or than one of a fraction.
    fn is_even(room: &Room) -> bool {
        let held = held(room);
        let all: usize = held.iter().sum();
        held.iter().all(|held| 2 * held * room.0.held.len() <= 3 * all || *held <= all.div_ceil(room.0.held.len()))
    }

    #[test]
    fn whoever_accepts_no_worker_gets_too_many() {
        for workers in [1, 2, 3, 4, 7, 16, 64] {
            for connections in [8, 64, 1000] {
                let spreads: [&dyn Fn(usize) -> usize; 4] =
                    [&|_| 0, &|n| n % workers, &|n| n / 10 % workers, &|_| fastrand::usize(..workers)];
                for (spread, by) in spreads.iter().enumerate() {
                    let room = Room::new(u64::MAX, workers);
                    let mut seats = Vec::new();
                    for n in 0..connections {
                        seats.extend(room.enter(by(n), usize::MAX));
                        assert!(is_even(&room), "{workers} {spread} {n}: {:?}", held(&room));
                    }
                    assert_eq!(held(&room).iter().sum::<usize>(), connections);
                    drop(seats);
                    assert!(held(&room).iter().all(|held| *held == 0));
                }
            }
        }
    }

    #[test]
    fn whoever_accepts_at_once_no_worker_gets_too_many() {
        for connections in [8, 64, 1000] {
            let room = Room::new(u64::MAX, 4);
            let seats = parking_lot::Mutex::new(Vec::new());
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|threads| {
                for worker in 0..4 {
                    let (room, seats, start) = (&room, &seats, &start);
                    threads.spawn(move || {
                        start.wait();
                        // One accepts most of them.
                        let share = if worker == 0 { connections - 3 * (connections / 8) } else { connections / 8 };
                        let own: Vec<_> = (0..share).filter_map(|_| room.enter(worker, usize::MAX)).collect();
                        seats.lock().extend(own);
                    });
                }
            });
            assert_eq!(seats.lock().len(), connections);
            assert!(is_even(&room), "{:?}", held(&room));
        }
    }

    #[test]
    fn new_connections_even_out_what_ended_unevenly() {
        let room = Room::new(u64::MAX, 4);
        let mut seats: Vec<_> = (0..400).filter_map(|n| room.enter(n % 4, usize::MAX)).collect();
        seats.retain(|seat| seat.worker() != 2);
        assert_eq!(held(&room), [100, 100, 0, 100]);
        for n in 0..100 {
            let seat = room.enter(n % 4, usize::MAX).expect("there is room");
            seats.push(seat);
        }
        assert!(is_even(&room), "{:?}", held(&room));
        // A few that come and go where they were accepted stay there.
        for by in 0..4 {
            let seat = room.enter(by, usize::MAX).expect("there is room");
            assert_eq!(seat.worker(), by);
        }
    }

    #[test]
    fn a_seat_moves_with_its_connection() {
        let room = Room::new(u64::MAX, 2);
        let seat = room.enter(1, 9).expect("there is room").with(0).with(7);
        assert_eq!((seat.worker(), held(&room)), (0, vec![1, 0]), "a worker that is none changes nothing");
        drop(seat);
        assert_eq!(held(&room), [0, 0]);
        assert!(room.enter(7, 9).is_some(), "an unknown worker's goes to one of ours");
    }

    #[test]
    fn a_scrape_shows_every_worker() {
        let (room, registry) = (Room::new(u64::MAX, 2), Registry::new());
        room.register(&registry).expect("a fresh registry");
        let _seat = room.enter(1, 9);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("it can be written");
        for line in ["tollgate_worker_connections{worker=\"0\"} 0", "tollgate_worker_connections{worker=\"1\"} 1"] {
            assert!(text.lines().any(|l| l == line), "{text}");
        }
    }
}
