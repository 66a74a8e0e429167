//! Which of the quotas that a request has met is told: of one kind, that of which fewest are left, for that is how many
//! more pass; of several kinds, which cannot be compared by number, that whose share is the smallest.

use crate::store::QuotaKind;

/// What is left of a quota.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) kind: QuotaKind,
    pub(super) limit: u64,
    pub(super) remaining: u64,
}

/// The tightest so far, of each kind. Where as many are left, the one that resets later counts; then the earlier met.
pub(super) struct Tightest<T, R> {
    of_kind: [Option<(Standing, T)>; QuotaKind::ALL.len()],
    /// When a quota resets; asked for only where that decides.
    reset: R,
}

impl<T, R: Fn(&T) -> u64> Tightest<T, R> {
    pub(super) const fn new(reset: R) -> Self {
        Self { of_kind: [const { None }; QuotaKind::ALL.len()], reset }
    }

    pub(super) fn meet(&mut self, standing: Standing, quota: T) {
        let slot = &mut self.of_kind[standing.kind as usize];
        let is_tighter = match slot {
            None => true,
            Some((it, other)) if it.remaining == standing.remaining => (self.reset)(&quota) > (self.reset)(other),
            Some((it, _)) => standing.remaining < it.remaining,
        };
        if is_tighter {
            *slot = Some((standing, quota));
        }
    }

    /// The tightest of all.
    pub(super) fn found(self) -> Option<T> {
        let share = |of: Standing, other: Standing| u128::from(of.remaining) * u128::from(other.limit);
        let tighter = |first: (Standing, T), second: (Standing, T)| {
            if share(second.0, first.0) < share(first.0, second.0) { second } else { first }
        };
        self.of_kind.into_iter().flatten().reduce(tighter).map(|(_, quota)| quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_of_a_kind_count_and_the_least_share_of_several() {
        use QuotaKind::{Bytes, Requests, Tokens};
        /// Kind, limit, what remains, and the reset.
        type Row = (QuotaKind, u64, u64, u64);
        let cases: [(&[Row], Option<usize>); 7] = [
            (&[], None),
            (&[(Requests, 20, 8, 60), (Requests, 4, 3, 60)], Some(1)),
            (&[(Requests, 4, 3, 60), (Requests, 20, 8, 60)], Some(0)),
            (&[(Requests, 4, 3, 60), (Requests, 9, 3, 90), (Requests, 5, 3, 90)], Some(1)),
            (&[(Requests, 500, 490, 60), (Tokens, 50_000, 600, 60)], Some(1)),
            (&[(Bytes, 100, 60, 60), (Requests, 20, 8, 60), (Requests, 4, 3, 60)], Some(0)),
            (&[(Requests, 4, 0, 60), (Bytes, 100, 0, 60)], Some(0)),
        ];
        for (quotas, expected) in cases {
            let mut tightest = Tightest::new(|n: &usize| quotas[*n].3);
            for (n, &(kind, limit, remaining, _)) in quotas.iter().enumerate() {
                tightest.meet(Standing { kind, limit, remaining }, n);
            }
            assert_eq!(tightest.found(), expected, "{quotas:?}");
        }
    }
}
