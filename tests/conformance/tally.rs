//! What came out of one file, beside what its vectors say.

use std::collections::BTreeMap;

use crate::{aloud, deviations::Deviation};

/// Results of one file.
pub(crate) struct Tally {
    file: &'static str,
    accepted: usize,
    refused: usize,
    /// tcId or name, with what happened.
    deviations: BTreeMap<String, &'static str>,
}

impl Tally {
    pub(crate) fn of(file: &'static str) -> Self {
        Self { file, accepted: 0, refused: 0, deviations: BTreeMap::new() }
    }

    /// Notes that a vector was accepted or not. One that says neither (`acceptable`) is a deviation where we accept it.
    pub(crate) fn note(&mut self, id: impl ToString, expected: &str, accepted: bool) {
        if accepted {
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
        let deviation = match (expected, accepted) {
            ("valid", false) => "refused",
            ("invalid" | "acceptable", true) => "accepted",
            _ => return,
        };
        self.deviations.insert(id.to_string(), deviation);
    }

    /// Prints the counts; fails unless the deviations are just those that are listed.
    pub(crate) fn settle(self, listed: &[Deviation]) {
        let Self { file, accepted, refused, deviations } = self;
        aloud(&format!(
            "{file}: {} vectors, {accepted} accepted, {refused} refused, {} deviations",
            accepted + refused,
            deviations.len()
        ));
        for deviation in listed {
            aloud(&format!("  {} {}: {}", deviation.verdict, deviation.ids.join(" "), deviation.reason));
        }
        let listed: BTreeMap<String, &str> =
            listed.iter().flat_map(|d| d.ids.iter().map(|id| ((*id).to_owned(), d.verdict))).collect();
        let unlisted: Vec<_> = deviations.iter().filter(|(id, how)| listed.get(*id) != Some(how)).collect();
        let gone: Vec<_> = listed.iter().filter(|(id, how)| deviations.get(*id) != Some(how)).collect();
        assert!(unlisted.is_empty(), "{file}: deviations that are not listed: {unlisted:?}");
        assert!(gone.is_empty(), "{file}: listed, but no deviations any more: {gone:?}");
        assert!(accepted + refused > 0, "{file}: no vectors");
    }
}
