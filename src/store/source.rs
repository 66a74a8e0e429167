//! Rows that stand elsewhere than in the configuration, and where each row stands.
//!
//! A [`Source`] is read in passes, so that rows may stand in any order and none of them has to be kept: what a row
//! names is known before the row is judged.

use std::{fmt, sync::Arc};

use crate::problem::{Place, Problem};

use super::settings::{ApiSettings, ApplicationSettings, SubscriptionSettings, TierSettings};

/// A row of one of the tables.
#[derive(Debug)]
pub enum Row {
    /// As in `[[tiers]]`.
    Tier(TierSettings),
    /// As in `[[apis]]`.
    Api(Box<ApiSettings>),
    /// As in `[[applications]]`.
    Application(ApplicationSettings),
    /// As in `[[subscriptions]]`.
    Subscription(SubscriptionSettings),
}

/// What rows are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Tiers. The first pass, and the one that tells of what is no row at all.
    Tiers,
    /// APIs and applications.
    Named,
    /// Subscriptions.
    Subscriptions,
}

/// Gives rows in passes.
pub trait Source {
    /// Hands out the rows of a pass, one by one; those that cannot be read are problems. False from `take`: no more.
    fn read(&mut self, pass: Pass, take: &mut dyn FnMut(Row, &Place) -> bool) -> Vec<Problem>;
}

/// No further rows.
#[derive(Debug)]
pub struct NoSource;

impl Source for NoSource {
    fn read(&mut self, _: Pass, _: &mut dyn FnMut(Row, &Place) -> bool) -> Vec<Problem> {
        Vec::new()
    }
}

/// A row's name in messages: `apis[3]` in the configuration, `api` in a line of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named {
    Config(&'static str, usize),
    Line(&'static str),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(table, n) => write!(f, "{table}[{n}]"),
            Self::Line(kind) => f.write_str(kind),
        }
    }
}

/// Where the rows of a table stand, to tell of an earlier one: first those of the configuration, then lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    configured: usize,
    /// The first row of each file.
    files: Vec<(usize, Arc<str>)>,
    lines: Vec<u32>,
}

impl Origins {
    /// Notes where the next row stands, and gives its number.
    pub(super) fn add(&mut self, place: Option<&Place>) -> usize {
        let row = self.configured + self.lines.len();
        let Some(place) = place else {
            self.configured += 1;
            return row;
        };
        if self.files.last().is_none_or(|(_, file)| *file != place.file) {
            self.files.push((self.lines.len(), Arc::clone(&place.file)));
        }
        self.lines.push(place.line);
        row
    }

    /// Where a row stands; none: in the configuration.
    pub(super) fn place(&self, row: usize) -> Option<Place> {
        let n = row.checked_sub(self.configured)?;
        let line = *self.lines.get(n)?;
        let (_, file) = self.files.iter().rev().find(|(first, _)| *first <= n)?;
        Some(Place { file: Arc::clone(file), line })
    }

    /// A row as an earlier one is told of: `apis[3]`, or file and line.
    pub(super) fn told(&self, table: &str, row: usize) -> String {
        self.place(row).map_or_else(|| format!("{table}[{row}]"), |place| place.to_string())
    }

    /// A row's name in the field of a problem.
    pub(super) fn named(&self, table: &'static str, kind: &'static str, row: usize) -> Named {
        if row < self.configured { Named::Config(table, row) } else { Named::Line(kind) }
    }
}
