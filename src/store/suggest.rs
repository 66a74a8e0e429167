//! The mistakes found so far, and the nearest known name for an unknown one.

use std::fmt;

use crate::problem::{Place, Problem};

/// Mistakes, in the order they were found.
#[derive(Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    suggested: usize,
    /// The line that is judged now, if it stands in another file than the configuration.
    place: Option<Place>,
}

impl Problems {
    /// Notes one mistake.
    pub(super) fn add(&mut self, field: impl Into<String>, message: impl ToString) {
        let problem = Problem::new(field, message.to_string());
        self.found.push(match &self.place {
            Some(place) => problem.at(place.clone()),
            None => problem,
        });
    }

    /// From now on mistakes stand at this line.
    pub(super) fn stand_at(&mut self, place: Option<&Place>) {
        self.place = place.cloned();
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.found.len()
    }

    /// Notes what was found elsewhere.
    pub(super) fn extend(&mut self, found: Vec<Problem>) {
        self.found.extend(found);
    }

    /// Notes that a required text is empty. True if it is.
    pub(super) fn refuse_empty(&mut self, text: &str, field: impl Fn() -> String) -> bool {
        if text.is_empty() {
            self.add(field(), "is empty");
        }
        text.is_empty()
    }

    /// Notes that a name, which answers and metrics tell, is empty or has control characters.
    pub(super) fn refuse_unsayable(&mut self, name: &str, field: impl Fn() -> String) {
        if !self.refuse_empty(name, &field) && name.chars().any(char::is_control) {
            self.add(field(), "has a control character");
        }
    }

    /// The known name nearest to an unknown one, if any is near. Bounded: a table of a million
    /// wrong rows is reported without comparing each with every name.
    pub(super) fn nearest<'n>(&mut self, unknown: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
        self.suggested += 1;
        if self.suggested > MAX_SUGGESTED {
            return None;
        }
        known
            .map(|name| (strsim::jaro_winkler(&unknown.to_lowercase(), &name.to_lowercase()), name))
            .filter(|(score, _)| *score >= NEAR)
            .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
            .map(|(_, name)| name)
    }

    /// What was found; nothing is good.
    pub(super) fn into_result(self) -> Result<(), Vec<Problem>> {
        if self.found.is_empty() { Ok(()) } else { Err(self.found) }
    }
}

/// A message, with the name that may have been meant.
pub(super) struct Suggest<'a>(pub(super) &'static str, pub(super) Option<&'a str>);

impl fmt::Display for Suggest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        match self.1 {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

const NEAR: f64 = 0.75;
const MAX_SUGGESTED: usize = 20;
