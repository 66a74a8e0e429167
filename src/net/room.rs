//! How many connections a door holds at one time.
//!
//! Beyond the cap a connection is accepted and closed at once, as Envoy's connection limit does: it neither waits in
//! a queue that nobody sees, nor takes a descriptor that an upstream needs. The cap is never more than descriptors
//! allow, of which each connection may need two.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
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
}

/// A connection's place, until dropped.
#[derive(Debug)]
#[must_use = "dropped, it is free again"]
pub(super) struct Seat(Arc<Inner>);

impl Room {
    /// Room for as many connections as `descriptors` allow.
    pub fn new(descriptors: u64) -> Self {
        let most = usize::try_from(descriptors.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX);
        Self(Arc::new(Inner { taken: AtomicUsize::new(0), most: most.max(1) }))
    }

    /// What descriptors allow.
    pub fn most(&self) -> usize {
        self.0.most
    }

    /// A place, if fewer than `cap` are taken.
    pub(super) fn enter(&self, cap: usize) -> Option<Seat> {
        let cap = cap.min(self.0.most);
        let taken =
            self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < cap).then_some(taken + 1));
        taken.is_ok().then(|| Seat(Arc::clone(&self.0)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
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
        let room = Room::new(1000);
        let seats: Vec<_> = (0..3).map(|_| room.clone().enter(3)).collect();
        assert!(seats.iter().all(Option::is_some) && room.enter(3).is_none());
        assert!(room.enter(4).is_some(), "a reload may widen it");
        drop(seats);
        assert!(room.enter(1).is_some());
    }

    #[test]
    fn descriptors_are_the_last_word() {
        let room = Room::new(RESERVED + 4);
        let seats: Vec<_> = (0..3).filter_map(|_| room.enter(10)).collect();
        assert_eq!((seats.len(), room.most()), (2, 2));
        assert!(Room::new(0).enter(10).is_some(), "never none at all");
    }

    #[test]
    fn descriptors_are_raised_to_what_is_allowed() {
        assert_eq!(raise_descriptors(), getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }
}
