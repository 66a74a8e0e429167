//! What a quota has counted, as one word of 128 bits, and how it moves with time. Pure: from word to word.
//!
//! - *Fixed*: the window's number and the amount in it. Exact.
//! - *Sliding*: fixed windows, and the amount of the one before: what counts is the present window's amount and, of
//!   the former's, the share that the last window's length still reaches into, rounded up. Exact where the former's
//!   was spread evenly; in any time of a share f of a window's length no more than 1 + f limits are admitted.
//! - *GCRA* (ITU-T I.371), as a bucket: when it was last counted, and what was in it then. A request has as many parts as
//!   the window has milliseconds, and in each as many run out as the limit is, so that nothing is ever rounded. Exact; in
//!   any time of a share f of a window's length no more than 1 + f limits are admitted.
//!
//! The limit is in none of the words: under another one what was used counts on.
//!
//! A window only rolls forward: a moment before it counts as its beginning.

use super::window;
use crate::{
    net::Now,
    store::{Algorithm, Quota, Window},
};

/// A moment, as a quota sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) ms: u64,
    /// The fixed window it falls into.
    window: u32,
}

impl Moment {
    pub(super) fn of(quota: &Quota, now: Now) -> Self {
        let ms = now.steady_ms;
        let window = if quota.algorithm == Algorithm::Gcra { 0 } else { window::number(quota.window, ms) };
        Self { ms, window }
    }

    /// The same, sooner where what was counted last, `word`, is of the same window.
    #[inline]
    pub(super) fn after(quota: &Quota, word: u128, now: Now) -> Self {
        let ms = now.steady_ms;
        let last = match quota.algorithm {
            Algorithm::Fixed => Fixed::of(word).window,
            Algorithm::Sliding => Sliding::of(word).window,
            Algorithm::Gcra => return Self { ms, window: 0 },
        };
        if window::is_plainly(quota.window, last, ms) { Self { ms, window: last } } else { Self::of(quota, now) }
    }
}

/// Whether one more may pass: what is counted, with it, is at most the limit.
#[inline]
pub(super) fn has_room(quota: &Quota, word: u128, at: Moment) -> bool {
    match quota.algorithm {
        Algorithm::Fixed => Fixed::at(word, at).amount < quota.limit,
        Algorithm::Sliding => Sliding::at(word, at).counted(quota, at) < quota.limit,
        Algorithm::Gcra => Bucket::at(word, quota, at.ms).content + Bucket::one(quota) <= Bucket::full(quota),
    }
}

/// What counts at this moment, rounded up.
pub(super) fn counted(quota: &Quota, word: u128, at: Moment) -> u64 {
    match quota.algorithm {
        Algorithm::Fixed => Fixed::at(word, at).amount,
        Algorithm::Sliding => Sliding::at(word, at).counted(quota, at),
        Algorithm::Gcra => {
            let content = Bucket::at(word, quota, at.ms).content.div_ceil(Bucket::one(quota));
            u64::try_from(content).unwrap_or(u64::MAX)
        }
    }
}

/// The word with `amount` more. What is beyond the largest limit, nobody can mean: it counts as much as that.
#[inline]
pub(super) fn add(quota: &Quota, word: u128, amount: u64, at: Moment) -> u128 {
    let amount = amount.min(Quota::MOST);
    match quota.algorithm {
        Algorithm::Fixed => {
            let mut fixed = Fixed::at(word, at);
            fixed.amount = fixed.amount.saturating_add(amount).min(Fixed::MOST);
            fixed.word()
        }
        Algorithm::Sliding => {
            let mut sliding = Sliding::at(word, at);
            sliding.amount = sliding.amount.saturating_add(amount).min(Sliding::MOST);
            sliding.word()
        }
        Algorithm::Gcra => {
            let mut bucket = Bucket::at(word, quota, at.ms);
            bucket.content = bucket.content.saturating_add(Bucket::one(quota) * u128::from(amount));
            bucket.word()
        }
    }
}

/// The word with one less, which had made it `taken`; none where that no longer counts.
pub(super) fn give_back(quota: &Quota, word: u128, taken: u128) -> Option<u128> {
    match quota.algorithm {
        Algorithm::Fixed => {
            let (mut fixed, taken) = (Fixed::of(word), Fixed::of(taken));
            let counts = fixed.window == taken.window && fixed.amount > 0;
            fixed.amount = fixed.amount.saturating_sub(1);
            counts.then(|| fixed.word())
        }
        Algorithm::Sliding => {
            let (mut sliding, taken) = (Sliding::of(word), Sliding::of(taken));
            let amount = match sliding.window.checked_sub(taken.window) {
                Some(0) => &mut sliding.amount,
                Some(1) => &mut sliding.before,
                _ => return None,
            };
            *amount = amount.checked_sub(1)?;
            Some(sliding.word())
        }
        Algorithm::Gcra => {
            let mut bucket = Bucket::of(word);
            bucket.content = bucket.content.saturating_sub(Bucket::one(quota));
            Some(bucket.word())
        }
    }
}

/// When nothing in the word counts any more, in milliseconds since the epoch.
pub(super) fn over_ms(quota: &Quota, word: u128) -> u64 {
    match quota.algorithm {
        Algorithm::Fixed => window::end_ms(quota.window, Fixed::of(word).window),
        Algorithm::Sliding => window::end_ms(quota.window, Sliding::of(word).window.saturating_add(1)),
        Algorithm::Gcra => Bucket::of(word).until_ms(quota, 0),
    }
}

/// In how many milliseconds the window ends, or the bucket is empty.
pub(super) fn reset_ms(quota: &Quota, word: u128, at: Moment) -> u64 {
    let end = match quota.algorithm {
        Algorithm::Fixed => window::end_ms(quota.window, Fixed::at(word, at).window),
        Algorithm::Sliding => window::end_ms(quota.window, Sliding::at(word, at).window),
        Algorithm::Gcra => Bucket::of(word).until_ms(quota, 0),
    };
    end.saturating_sub(at.ms)
}

/// In how many milliseconds there is room again, if nothing more is counted.
pub(super) fn wait_ms(quota: &Quota, word: u128, at: Moment) -> u64 {
    match quota.algorithm {
        Algorithm::Fixed => reset_ms(quota, word, at),
        Algorithm::Sliding => Sliding::at(word, at).wait_ms(quota, at),
        Algorithm::Gcra => {
            let room = Bucket::full(quota).saturating_sub(Bucket::one(quota));
            Bucket::at(word, quota, at.ms).until_ms(quota, room).saturating_sub(at.ms)
        }
    }
}

/// The length of the window that counts, in seconds.
pub(super) fn window_s(quota: &Quota, word: u128, at: Moment) -> u64 {
    let number = match quota.algorithm {
        Algorithm::Fixed => Fixed::at(word, at).window,
        Algorithm::Sliding => Sliding::at(word, at).window,
        Algorithm::Gcra => 0,
    };
    window::length_s(quota.window, number)
}

/// The word of a window with this amount; of a sliding one also with that of the window before. Buckets have none.
pub(super) fn word(algorithm: Algorithm, number: u32, before: u64, amount: u64) -> u128 {
    match algorithm {
        Algorithm::Fixed | Algorithm::Gcra => Fixed { window: number, amount: amount.min(Fixed::MOST) }.word(),
        Algorithm::Sliding => {
            let (before, amount) = (before.min(Sliding::MOST), amount.min(Sliding::MOST));
            Sliding { window: number, before, amount }.word()
        }
    }
}

/// How much of a window is left at that moment, and its length, in milliseconds.
pub(super) fn rest_ms(window: Window, number: u32, ms: u64) -> (u64, u64) {
    let length = window::length_s(window, number) * 1_000;
    // A moment before the window is its beginning.
    (window::end_ms(window, number).saturating_sub(ms).min(length), length)
}

/// What is in a bucket at that moment, in parts of which one request has so many; rounded up.
pub(super) fn content(quota: &Quota, word: u128, ms: u64, parts: u64) -> u64 {
    let content = Bucket::at(word, quota, ms).content.min(Bucket::one(quota) << 48) * u128::from(parts);
    u64::try_from(content.div_ceil(Bucket::one(quota))).unwrap_or(u64::MAX)
}

/// The bucket with that content at that moment; rounded up.
pub(super) fn bucket(quota: &Quota, content: u64, ms: u64, parts: u64) -> u128 {
    let content = (Bucket::one(quota) * u128::from(content)).div_ceil(u128::from(parts.max(1)));
    Bucket { ms: ms.min(Bucket::LAST_MS), content }.word()
}

/// One window: its number in 32 bits, its amount in 64.
#[derive(Clone, Copy)]
struct Fixed {
    window: u32,
    amount: u64,
}

impl Fixed {
    /// More is not told apart: what reads JSON's numbers as floats still reads this one.
    const MOST: u64 = (1 << 52) - 1;

    const fn of(word: u128) -> Self {
        Self { window: (word >> 64) as u32, amount: word as u64 }
    }

    /// As it stands at that moment.
    fn at(word: u128, at: Moment) -> Self {
        let fixed = Self::of(word);
        if fixed.window < at.window { Self { window: at.window, amount: 0 } } else { fixed }
    }

    const fn word(self) -> u128 {
        (self.window as u128) << 64 | self.amount as u128
    }
}

/// Two windows: the number of the later in 32 bits, the amount of the one before and its own in 48 each, four times
/// the largest limit: more is not told apart.
#[derive(Clone, Copy)]
struct Sliding {
    window: u32,
    before: u64,
    amount: u64,
}

impl Sliding {
    const MOST: u64 = (1 << 48) - 1;

    const fn of(word: u128) -> Self {
        Self { window: (word >> 96) as u32, before: (word >> 48) as u64 & Self::MOST, amount: word as u64 & Self::MOST }
    }

    /// As it stands at that moment.
    fn at(word: u128, at: Moment) -> Self {
        let sliding = Self::of(word);
        match at.window.checked_sub(sliding.window) {
            None | Some(0) => sliding,
            Some(1) => Self { window: at.window, before: sliding.amount, amount: 0 },
            Some(_) => Self { window: at.window, before: 0, amount: 0 },
        }
    }

    const fn word(self) -> u128 {
        (self.window as u128) << 96 | (self.before as u128) << 48 | self.amount as u128
    }

    fn counted(self, quota: &Quota, at: Moment) -> u64 {
        if self.before == 0 {
            return self.amount;
        }
        let (left, length) = rest_ms(quota.window, self.window, at.ms);
        self.amount + share(self.before, left, length)
    }

    fn wait_ms(self, quota: &Quota, at: Moment) -> u64 {
        let end = window::end_ms(quota.window, self.window);
        let (window, before, room) = match quota.limit.checked_sub(self.amount + 1) {
            Some(room) => (self.window, self.before, room),
            // Not in this window: in the next, what is counted now is the former's.
            None => (self.window.saturating_add(1), self.amount, quota.limit.saturating_sub(1)),
        };
        let length = window::length_s(quota.window, window) * 1_000;
        // The longest rest of the window of which no more than the room counts.
        let left = (u128::from(room) * u128::from(length)).checked_div(u128::from(before));
        let left = left.map_or(length, |left| u64::try_from(left).unwrap_or(length).min(length));
        let begin = if window == self.window { end.saturating_sub(length) } else { end };
        (begin + length - left).saturating_sub(at.ms)
    }
}

/// `amount` × `left` / `length`, rounded up.
pub(super) fn share(amount: u64, left: u64, length: u64) -> u64 {
    match amount.checked_mul(left) {
        Some(product) => product.div_ceil(length.max(1)),
        None => u64::try_from((u128::from(amount) * u128::from(left)).div_ceil(u128::from(length))).unwrap_or(u64::MAX),
    }
}

/// A bucket: when it was last counted, in 42 bits (until the year 2109), and its content in 86, four times the largest
/// limit in the longest window: more is not told apart.
#[derive(Clone, Copy)]
struct Bucket {
    ms: u64,
    content: u128,
}

impl Bucket {
    const MOST: u128 = (1 << 86) - 1;
    /// Below the mark of a swept cell.
    const LAST_MS: u64 = (1 << 42) - 2;

    const fn of(word: u128) -> Self {
        Self { ms: (word >> 86) as u64, content: word & Self::MOST }
    }

    /// As it stands at that moment.
    fn at(word: u128, quota: &Quota, ms: u64) -> Self {
        let bucket = Self::of(word);
        let ms = ms.clamp(bucket.ms, Self::LAST_MS.max(bucket.ms));
        let gone = u128::from(ms - bucket.ms) * u128::from(quota.limit);
        Self { ms, content: bucket.content.saturating_sub(gone) }
    }

    fn word(self) -> u128 {
        u128::from(self.ms) << 86 | self.content.min(Self::MOST)
    }

    fn one(quota: &Quota) -> u128 {
        // Months are refused at load.
        let (Window::Seconds(length) | Window::Months(length)) = quota.window;
        u128::from(length.max(1)) * 1_000
    }

    fn full(quota: &Quota) -> u128 {
        Self::one(quota) * u128::from(quota.limit)
    }

    /// When no more than this is left in it.
    fn until_ms(self, quota: &Quota, rest: u128) -> u64 {
        let gone = self.content.saturating_sub(rest).div_ceil(u128::from(quota.limit.max(1)));
        self.ms.saturating_add(u64::try_from(gone).unwrap_or(u64::MAX))
    }
}
