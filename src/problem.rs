//! A mistake of meaning in the configuration: which field, and what is wrong with it.
//!
//! Every constructor that takes settings reports all of its problems at once; the loader adds file
//! and line. A problem never quotes a value, since a value may be a secret.

use std::{fmt, sync::Arc};

/// One mistake: the field's path in the file and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field as in the file: `apis[0].resources[2].path`.
    pub field: String,
    /// What is wrong, what is allowed; never the value itself.
    pub message: String,
    /// Where the field stands, if that is another file than the configuration.
    pub place: Option<Box<Place>>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
}

impl Problem {
    /// A problem at `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), place: None }
    }

    /// The same, in another file than the configuration.
    pub fn at(self, place: Place) -> Self {
        Self { place: Some(Box::new(place)), ..self }
    }

    /// The problem of a setting that this build knows but has no part for yet.
    pub fn not_in_this_build(field: impl Into<String>) -> Self {
        Self::new(field, "not in this build")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
