//! How often a provider's keys are fetched.

use std::{ops::Range, time::Duration};

use super::settings::KeyManagerSettings;

/// How long until good keys are fetched anew: as long as the provider says within [`bounds`], and long before they are
/// too old, however close `jwks_refresh` is to `jwks_max_stale`. The `first` time it is any part of the second half of
/// that, so that sidecars that started together part at once; later a tenth more or less keeps them apart.
pub(super) fn until_refresh(settings: &KeyManagerSettings, max_age: Option<Duration>, first: bool) -> Duration {
    let (least, most) = bounds(settings.jwks_refresh.0);
    let span = max_age.map_or(settings.jwks_refresh.0, |age| age.clamp(least, most));
    let span = span.min(settings.jwks_max_stale.0 / 2).max(FIRST_RETRY);
    let part = if first { 0.5..1.0 } else { 0.9..1.1 };
    span.mul_f64(within(part))
}

/// The least and the most that a provider's `max-age` makes of `jwks_refresh`: a tenth, but never more often than every
/// ten seconds on its account, and twice.
fn bounds(refresh: Duration) -> (Duration, Duration) {
    (refresh.min((refresh / 10).max(SHORTEST_MAX_AGE)), refresh.saturating_mul(2))
}

/// How long until a fetch that failed is tried again, after so many failures: twice as long each time, half of it more
/// or less.
pub(super) fn until_retry(has_keys: bool, failures: u32) -> Duration {
    let first = if has_keys { LATER_RETRY } else { FIRST_RETRY };
    let doublings = failures.saturating_sub(1).min(10);
    (first * 2_u32.pow(doublings)).min(LONGEST_RETRY).mul_f64(within(0.5..1.5))
}

/// A random number in the range.
fn within(range: Range<f64>) -> f64 {
    range.start + (range.end - range.start) * fastrand::f64()
}

const SHORTEST_MAX_AGE: Duration = Duration::from_secs(10);
/// Until the first keys are there, so that a provider that starts beside us is found at once.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LATER_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
