//! Values with a unit, as the configuration writes them: `"30s"`, `"64KiB"`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A length of time: a whole number and one of `ms`, `s`, `m`, `h`, `d`; `"0"` alone is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// A size: a whole number and one of `B`, `KiB`, `MiB`, `GiB`; `"0"` alone is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

impl Span {
    /// A span of whole seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// A span of milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    /// Whether it has no part of a second, like the times in tokens (RFC 7519 section 2), with which it may be compared.
    pub const fn is_whole_seconds(self) -> bool {
        self.0.subsec_nanos() == 0
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split(text).ok_or(SPAN_FORM)?;
        let millis = match unit {
            "" if number == 0 => 0,
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(SPAN_FORM),
        };
        let millis = number.checked_mul(millis).filter(|n| *n <= MAX_SPAN_MS).ok_or("longer than 10 years")?;
        Ok(Self::millis(millis))
    }
}

impl Size {
    /// Reads a size, however large; what no number holds is the largest.
    pub fn of_any_length(text: &str) -> Result<Self, &'static str> {
        let (number, unit) = split(text).ok_or(SIZE_FORM)?;
        let factor = match unit {
            "" if number == 0 => 0,
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(SIZE_FORM),
        };
        Ok(Self(number.saturating_mul(factor)))
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Some(Self::of_any_length(text)?).filter(|size| size.0 <= MAX_SIZE).ok_or("larger than 1024GiB")
    }
}

/// Splits `"64KiB"` into 64 and `KiB`.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0"),
            n if n % 86_400_000 == 0 => write!(f, "{}d", n / 86_400_000),
            n if n % 3_600_000 == 0 => write!(f, "{}h", n / 3_600_000),
            n if n % 60_000 == 0 => write!(f, "{}m", n / 60_000),
            n if n % 1_000 == 0 => write!(f, "{}s", n / 1_000),
            n => write!(f, "{n}ms"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}B"),
        }
    }
}

/// A unit is a string in the file: parsed and printed by `FromStr` and `Display`.
macro_rules! text_form {
    ($type:ty, $name:literal, $pattern:literal, $form:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $form })
            }
        }
    };
}

text_form!(Span, "Span", r"^(0|[0-9]+(ms|s|m|h|d))$", SPAN_FORM);
text_form!(Size, "Size", r"^(0|[0-9]+(B|KiB|MiB|GiB))$", SIZE_FORM);

const SPAN_FORM: &str = "a length of time is a whole number and ms, s, m, h or d, such as \"30s\"";
const SIZE_FORM: &str = "a size is a whole number and B, KiB, MiB or GiB, such as \"64KiB\"";
const MAX_SPAN_MS: u64 = 10 * 366 * 86_400_000;
const MAX_SIZE: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_and_print() {
        for text in ["0", "100ms", "30s", "5m", "36h", "2d"] {
            assert_eq!(text.parse::<Span>().map(|s| s.to_string()).as_deref(), Ok(text));
        }
        for text in ["0", "7B", "64KiB", "3MiB", "2GiB"] {
            assert_eq!(text.parse::<Size>().map(|s| s.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "30", "-1s", "1.5s", "s", "30 s", "99999999999999999999s", "9999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "64", "64kb", "1e3B", "99999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
