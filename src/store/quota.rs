//! What is limited and in which window, as the configuration writes it: of tiers, condition groups, custom rules and
//! backend limits alike.

use std::fmt;

use arrayvec::ArrayVec;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Unexpected, Visitor},
};

use super::{
    settings::TierSettings,
    suggest::Problems,
    tier::{Algorithm, Limits, Quota, QuotaKind, Window},
};
use crate::units::Size;

/// One of `requests`, `bytes`, `events` and `tokens`, or `requests` beside another; and the window.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    /// Requests a window.
    #[serde(default, deserialize_with = "amount")]
    pub requests: Option<u64>,
    /// Bytes of bodies a window, as tiers count them.
    pub bytes: Option<Volume>,
    /// Events a window.
    #[serde(default, deserialize_with = "amount")]
    pub events: Option<u64>,
    /// Model tokens a window.
    #[serde(default, deserialize_with = "amount")]
    pub tokens: Option<u64>,
    /// The window: a whole number and `s`, `m`, `h`, `d` or `mo` (UTC calendar months).
    pub per: String,
    /// How the window moves on.
    #[serde(default)]
    pub algorithm: Algorithm,
}

/// Reads how many, so that what is no number says from where it begins.
pub(super) fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<Amount>::deserialize(from)?.map(|Amount(number)| number))
}

/// The same where it must be said.
pub(super) fn needed_amount<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Amount::deserialize(from).map(|Amount(number)| number)
}

struct Amount(u64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_u64(ReadAmount).map(Self)
    }
}

struct ReadAmount;

impl Visitor<'_> for ReadAmount {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, 1 or more")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// So many bytes: a number, or a size with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Volume {
    /// A bare number.
    Number(u64),
    /// With a unit.
    Size(Size),
}

impl Volume {
    /// How many.
    pub const fn count(self) -> u64 {
        match self {
            Self::Number(n) | Self::Size(Size(n)) => n,
        }
    }
}

/// By hand, so that a size which is none says why.
impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ReadVolume)
    }
}

struct ReadVolume;

impl Visitor<'_> for ReadVolume {
    type Value = Volume;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, 1 or more, or a size such as \"10MiB\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Volume, E> {
        Ok(Volume::Number(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Volume, E> {
        u64::try_from(number).map(Volume::Number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Volume, E> {
        // What is too large is told with what is largest, as of a bare number.
        Size::of_any_length(text).map(Volume::Size).map_err(E::custom)
    }
}

impl QuotaSettings {
    /// A tier's own.
    pub(super) fn of(tier: &TierSettings) -> Self {
        let TierSettings { requests, bytes, events, tokens, per, algorithm, .. } = tier;
        Self {
            requests: *requests,
            bytes: *bytes,
            events: *events,
            tokens: *tokens,
            per: per.clone(),
            algorithm: *algorithm,
        }
    }

    /// Limits of this name without a burst; none, and problems, if something is wrong with them.
    pub(super) fn limits(&self, name: &str, stop: bool, field: &str, problems: &mut Problems) -> Option<Limits> {
        let amounts = self.amounts(field, problems);
        let window = self.window(field, problems);
        let (window, mut amounts) = (window?, amounts?.into_iter());
        let mut next = || {
            let (kind, limit) = amounts.next()?;
            Some(Quota { kind, limit, window, algorithm: self.algorithm })
        };
        let (quota, also) = (next()?, next());
        Some(Limits { name: name.into(), quota, also, burst: None, stop_on_quota_reach: stop, advanced: None })
    }

    /// What is limited, and to how much: one kind, or another and requests.
    fn amounts(&self, field: &str, problems: &mut Problems) -> Option<ArrayVec<(QuotaKind, u64), 4>> {
        let given: ArrayVec<(QuotaKind, u64), 4> = [
            (QuotaKind::Bytes, self.bytes.map(Volume::count)),
            (QuotaKind::Events, self.events),
            (QuotaKind::Tokens, self.tokens),
            (QuotaKind::Requests, self.requests),
        ]
        .into_iter()
        .filter_map(|(kind, amount)| Some((kind, amount?)))
        .collect();
        let others = given.iter().filter(|(kind, _)| *kind != QuotaKind::Requests).count();
        if given.is_empty() || others > 1 {
            problems
                .add(field, "has exactly one of requests, bytes, events and tokens; or requests beside one of these");
            return None;
        }
        let mut good = true;
        for (kind, amount) in &given {
            let most = if *kind == QuotaKind::Requests { u64::from(MAX_LIMIT) } else { Quota::MOST };
            if !(1..=most).contains(amount) {
                let also = if *kind == QuotaKind::Bytes { LARGEST_SIZE } else { "" };
                problems.add(format!("{field}.{}", kind.name()), format!("is a number from 1 to {most}{also}"));
                good = false;
            }
        }
        good.then_some(given)
    }

    fn window(&self, field: &str, problems: &mut Problems) -> Option<Window> {
        match window(&self.per) {
            Ok(Window::Months(_)) if self.algorithm == Algorithm::Gcra => {
                problems
                    .add(format!("{field}.per"), "with algorithm \"gcra\" is in s, m, h or d: months differ in length");
                None
            }
            Ok(window) => Some(window),
            Err(message) if self.algorithm == Algorithm::Gcra => {
                problems.add(format!("{field}.per"), without_months(message));
                None
            }
            Err(message) => {
                problems.add(format!("{field}.per"), message);
                None
            }
        }
    }
}

/// What is wrong with a window, where months are none.
pub(super) fn without_months(message: &'static str) -> &'static str {
    if message == WINDOW_FORM { SPAN_FORM } else { message }
}

/// Reads `1m`, `30s`, `2mo`.
pub(super) fn window(text: &str) -> Result<Window, &'static str> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "mo" => 0,
        _ => return Err(WINDOW_FORM),
    };
    if number.is_empty() {
        return Err(WINDOW_FORM);
    }
    let number: u32 = number.parse().map_err(|_| "is longer than 10 years")?;
    if number == 0 {
        return Err(WINDOW_FORM);
    }
    if unit == "mo" {
        return if number <= 120 { Ok(Window::Months(number)) } else { Err("is longer than 10 years") };
    }
    let seconds = number.checked_mul(seconds).filter(|n| *n <= MAX_WINDOW_S).ok_or("is longer than 10 years")?;
    Ok(Window::Seconds(seconds))
}

pub(super) const MAX_LIMIT: u32 = i32::MAX as u32;
const MAX_WINDOW_S: u32 = 3_660 * 86_400;
const WINDOW_FORM: &str = "is a whole number from 1 and s, m, h, d or mo, such as \"1m\"";

const SPAN_FORM: &str = "is a whole number from 1 and s, m, h or d, such as \"1m\"";
/// [`Quota::MOST`] as a size.
const LARGEST_SIZE: &str = ", or a size up to \"65536GiB\"";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::settings::BurstSettings;

    #[test]
    fn what_is_no_volume_says_why() {
        let read = |json: &str| serde_json::from_str::<Volume>(json).map_err(|error| error.to_string());
        assert_eq!(read("7").map(Volume::count), Ok(7));
        assert_eq!(read("\"2KiB\"").map(Volume::count), Ok(2048));
        assert_eq!(read("\"65536GiB\"").map(Volume::count), Ok(Quota::MOST));
        assert_eq!(read("\"99999999999GiB\"").map(Volume::count), Ok(u64::MAX));
        for (json, expected) in [
            ("-1", "expected a whole number, 1 or more, or a size such as \"10MiB\""),
            ("1.5", "expected a whole number, 1 or more, or a size such as \"10MiB\""),
            ("\"10MB\"", "a size is a whole number and B, KiB, MiB or GiB"),
            ("\"99999999999999999999GiB\"", "a size is a whole number and"),
        ] {
            let told = read(json).unwrap_err();
            assert!(told.contains(expected), "{json}: {told}");
        }
    }

    fn told(json: &str) -> String {
        let mut problems = Problems::default();
        let settings: QuotaSettings = serde_json::from_str(json).unwrap();
        assert!(settings.limits("T", true, "limit", &mut problems).is_none(), "{json}");
        problems.into_result().unwrap_err()[0].to_string()
    }

    #[test]
    fn what_is_beyond_a_limit_is_told_alike_in_both_spellings() {
        let expected = "limit.bytes: is a number from 1 to 70368744177664, or a size up to \"65536GiB\"";
        for bytes in ["70368744177665", "\"65537GiB\"", "0", "\"0\""] {
            assert_eq!(told(&format!("{{ \"bytes\": {bytes}, \"per\": \"1m\" }}")), expected, "{bytes}");
        }
    }

    #[test]
    fn amounts_begin_at_1_and_buckets_have_no_months() {
        let error = serde_json::from_str::<QuotaSettings>("{ \"requests\": -1, \"per\": \"1m\" }").unwrap_err();
        assert!(error.to_string().contains("expected a whole number, 1 or more"), "{error}");
        let burst = |requests: &str| {
            let read = format!("{{ \"requests\": {requests}, \"per\": \"1m\" }}");
            serde_json::from_str::<BurstSettings>(&read).map(|burst| burst.requests).map_err(|error| error.to_string())
        };
        assert_eq!(burst("7"), Ok(7));
        for wrong in ["-1", "1.5", "null"] {
            let error = burst(wrong).unwrap_err();
            assert!(error.contains("expected a whole number, 1 or more"), "{wrong}: {error}");
        }
        for (algorithm, expected) in [("gcra", "s, m, h or d, such"), ("fixed", "s, m, h, d or mo, such")] {
            let told = told(&format!("{{ \"requests\": 1, \"per\": \"0s\", \"algorithm\": \"{algorithm}\" }}"));
            assert!(told.contains(expected), "{algorithm}: {told}");
        }
    }
}
