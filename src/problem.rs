//! A mistake of meaning in the configuration: which field, and what is wrong with it.
//!
//! Every constructor that takes settings reports all of its problems at once; the loader adds file
//! and line. A problem never quotes a value, since a value may be a secret.

use std::{borrow::Cow, fmt, sync::Arc};

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

/// What whoever wrote a value calls its kinds.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    object: &'static str,
    text: &'static str,
}

impl Words {
    /// Of the configuration file.
    pub const FILE: Self = Self { object: "a table", text: "a string" };
    /// Of JSON that comes over an API.
    pub const JSON: Self = Self { object: "an object", text: "a text" };

    /// What serde says it expects, without its names of types, and without ours.
    pub fn plainly(self, expected: &str) -> Cow<'_, str> {
        match expected {
            "usize" | "u64" => "a whole number, 0 or more".into(),
            "u32" => format!("a whole number from 0 to {}", u32::MAX).into(),
            "u16" => format!("a whole number from 0 to {}", u16::MAX).into(),
            "u8" => format!("a whole number from 0 to {}", u8::MAX).into(),
            "i64" => "a whole number".into(),
            "f64" => "a number".into(),
            "a boolean" => "true or false".into(),
            "a sequence" => "a list".into(),
            "a map" => self.object.into(),
            // What serde_json says of a text that stands for one of several.
            "a string" | "path string" | "string or map" => self.text.into(),
            text if text.starts_with("struct ") => self.object.into(),
            text => text.strip_prefix("expected ").unwrap_or(text).into(),
        }
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
