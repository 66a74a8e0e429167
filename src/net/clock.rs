//! Time: the wall clock, anchored at start and advanced monotonically.
//!
//! The only place that asks the system for the time of a request; everything below takes [`Now`].

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

/// One moment, read once per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch, for dates in tokens.
    pub unix_ms: u64,
    /// Like `unix_ms`, but never goes back and never jumps: for windows.
    pub steady_ms: u64,
}

impl Now {
    /// A moment for tests: both clocks at `unix_ms`.
    pub const fn at_ms(unix_ms: u64) -> Self {
        Self { unix_ms, steady_ms: unix_ms }
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix(self) -> u64 {
        self.unix_ms / 1000
    }

    /// The moment `span` after this one.
    pub fn after(self, span: Duration) -> Self {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { unix_ms: self.unix_ms.saturating_add(span), steady_ms: self.steady_ms.saturating_add(span) }
    }
}

/// A moment by the kernel's last tick, some milliseconds ago: costs a fraction of what an exact one does. For
/// limits of seconds, which every request moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoarseInstant(u64);

impl CoarseInstant {
    /// The present moment.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
        Self(seconds * 1000 + nanos / 1_000_000)
    }

    /// Milliseconds since then.
    pub fn elapsed_ms(self) -> u64 {
        Self::now().0.saturating_sub(self.0)
    }

    /// Time since then.
    pub fn elapsed(self) -> Duration {
        Duration::from_millis(self.elapsed_ms())
    }
}

/// The process's clock.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    start_unix_ms: u64,
    /// Wall clock minus steady clock, as a two's complement number of milliseconds.
    offset_ms: AtomicU64,
    /// Steady time of the last anchoring.
    anchored_ms: AtomicU64,
}

impl Clock {
    /// A clock anchored now.
    pub fn new() -> Self {
        let start_unix_ms = wall_ms();
        Self {
            start: Instant::now(),
            start_unix_ms,
            offset_ms: AtomicU64::new(0),
            anchored_ms: AtomicU64::new(start_unix_ms),
        }
    }

    /// The present moment. Re-anchors the wall clock at most once a minute, so that a stepped or
    /// slewed system clock is followed for dates, never for windows.
    pub fn now(&self) -> Now {
        self.at(Instant::now())
    }

    /// The moment `instant`, for whoever has just asked the system.
    pub fn at(&self, instant: Instant) -> Now {
        let steady_ms = self.start_unix_ms + millis(instant.saturating_duration_since(self.start));
        let anchored = self.anchored_ms.load(Ordering::Relaxed);
        if steady_ms - anchored.min(steady_ms) >= ANCHOR_EVERY_MS
            && self.anchored_ms.compare_exchange(anchored, steady_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.offset_ms.store(wall_ms().wrapping_sub(steady_ms), Ordering::Relaxed);
        }
        Now { unix_ms: steady_ms.wrapping_add(self.offset_ms.load(Ordering::Relaxed)), steady_ms }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The time of day as HTTP tells it (RFC 9110 section 5.6.7).
pub(super) fn http_date() -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(wall_ms()))
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn wall_ms() -> u64 {
    // A clock before 1970 reads as 1970: every token is then "from the future" and refused.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

const ANCHOR_EVERY_MS: u64 = 60_000;
