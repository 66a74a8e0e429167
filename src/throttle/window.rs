//! Which window a moment falls into, and when it ends.

use crate::store::Window;

/// The number of the window that `now_ms` falls into; counts up with time.
pub(super) fn number(window: Window, now_ms: u64) -> u32 {
    let number = match window {
        Window::Seconds(length) => now_ms / 1_000 / u64::from(length.max(1)),
        Window::Months(length) => month(now_ms / DAY_MS) / u64::from(length.max(1)),
    };
    u32::try_from(number).unwrap_or(u32::MAX - 1)
}

/// Whether `now_ms` falls into window `number`, where that is told without a division; else no.
#[inline]
pub(super) fn is_plainly(window: Window, number: u32, now_ms: u64) -> bool {
    let Window::Seconds(length) = window else { return false };
    let length_ms = u64::from(length) * 1_000;
    // Before its beginning, the difference wraps round.
    u64::from(number).checked_mul(length_ms).is_some_and(|begin_ms| now_ms.wrapping_sub(begin_ms) < length_ms)
}

/// When window `number` ends, in milliseconds since the epoch.
pub(super) fn end_ms(window: Window, number: u32) -> u64 {
    let next = u64::from(number) + 1;
    match window {
        Window::Seconds(length) => next.saturating_mul(u64::from(length.max(1)) * 1_000),
        Window::Months(length) => first_day(next.saturating_mul(u64::from(length.max(1)))).saturating_mul(DAY_MS),
    }
}

/// The length of window `number` in seconds.
pub(super) fn length_s(window: Window, number: u32) -> u64 {
    match window {
        Window::Seconds(length) => u64::from(length.max(1)),
        Window::Months(_) => {
            let start_ms = number.checked_sub(1).map_or(0, |before| end_ms(window, before));
            (end_ms(window, number) - start_ms) / 1_000
        }
    }
}

/// Months from January 1970 to the one that `day` (since the epoch) falls into.
fn month(day: u64) -> u64 {
    // 400 years have 4,800 months and 146,097 days, so the guess is wrong by one at most.
    let guess = day * 4_800 / 146_097;
    (guess.saturating_sub(1)..=guess + 1).rev().find(|month| first_day(*month) <= day).unwrap_or(0)
}

/// The day since the epoch on which a month since January 1970 begins (proleptic Gregorian calendar).
fn first_day(month: u64) -> u64 {
    let (year, month) = (1_970 + month / 12, month % 12);
    // Leap days before this year, and before 1970.
    let past = year - 1;
    let leap_days = past / 4 - past / 100 + past / 400 - 477;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let before = DAYS_BEFORE[usize::try_from(month).unwrap_or(0)] + u64::from(is_leap && month > 1);
    (year - 1_970) * 365 + leap_days + before
}

const DAY_MS: u64 = 86_400_000;
const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_calendar_months() {
        let day = |date: &str| httpdate::parse_http_date(date).unwrap();
        let ms = |date: &str| {
            let since = day(date).duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::try_from(since.as_millis()).unwrap()
        };
        let rows = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sat, 31 Jan 1970 23:59:59 GMT", 0),
            ("Sun, 01 Feb 1970 00:00:00 GMT", 1),
            ("Sun, 31 Dec 1972 23:59:59 GMT", 35),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 361),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 362),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 649),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 650),
            ("Mon, 23 Nov 2026 15:00:00 GMT", 682),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 1562),
        ];
        for (date, month) in rows {
            assert_eq!(number(Window::Months(1), ms(date)), month, "{date}");
        }
        let april = number(Window::Months(1), ms("Wed, 15 Apr 2026 00:00:00 GMT"));
        assert_eq!(end_ms(Window::Months(1), april), ms("Fri, 01 May 2026 00:00:00 GMT"));
        assert_eq!(length_s(Window::Months(1), april), 30 * 86_400);
        let quarter = number(Window::Months(3), ms("Wed, 15 Apr 2026 00:00:00 GMT"));
        assert_eq!(end_ms(Window::Months(3), quarter), ms("Wed, 01 Jul 2026 00:00:00 GMT"));
    }

    #[test]
    fn every_day_of_three_centuries_is_in_the_month_that_holds_it() {
        for day in 0..110_000 {
            let month = month(day);
            assert!(first_day(month) <= day && day < first_day(month + 1), "day {day}");
        }
    }

    #[test]
    fn seconds_are_multiples_since_the_epoch() {
        assert_eq!(number(Window::Seconds(60), 59_999), 0);
        assert_eq!(number(Window::Seconds(60), 60_000), 1);
        assert_eq!(end_ms(Window::Seconds(60), 1), 120_000);
        assert_eq!(length_s(Window::Seconds(60), 1), 60);
    }
}
