//! Whole numbers, as JSON Schema has them: 6.0 is one. At most 2^53 − 1, which every reader of JSON keeps exact (RFC 8259
//! section 6).

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Number, Value};

/// The number as it is, if it is whole.
pub(super) fn of(number: &Number) -> Option<i64> {
    let whole = |float: &f64| float.fract() == 0.0 && float.abs() <= MOST as f64;
    let integer = number.as_i64().or_else(|| number.as_f64().filter(whole).map(|float| float as i64));
    integer.filter(|integer| (-MOST..=MOST).contains(integer))
}

/// For `deserialize_with`.
pub(super) fn optional<'de, D: Deserializer<'de>, T: TryFrom<i64>>(from: D) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(from)? else { return Ok(None) };
    let whole = of(&number).and_then(|whole| T::try_from(whole).ok());
    whole.map(Some).ok_or_else(|| D::Error::custom("must be a whole number, of at most 9007199254740991"))
}

/// Every number in `value` that is whole becomes an integer.
pub(super) fn settle(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = of(number) {
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(members) => members.values_mut().for_each(settle),
        _ => {}
    }
}

const MOST: i64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Asked {
        #[serde(default, deserialize_with = "optional")]
        seconds: Option<u64>,
    }

    #[test]
    fn a_whole_float_is_an_integer_and_nothing_else_is() {
        for (text, is) in [(r#"{"seconds":6.0}"#, Some(6)), (r#"{"seconds":6}"#, Some(6)), ("{}", None)] {
            assert_eq!(serde_json::from_str::<Asked>(text).unwrap().seconds, is, "{text}");
        }
        for no in [json!(6.5), json!(-1), json!(1e300), json!(u64::MAX), json!(1_u64 << 53), json!("6")] {
            assert!(serde_json::from_value::<Asked>(json!({ "seconds": no })).is_err(), "{no}");
        }
    }

    #[test]
    fn numbers_are_settled_wherever_they_stand() {
        let mut value = json!({ "a": [1.0, { "b": 2.0 }], "c": 0.5 });
        settle(&mut value);
        assert_eq!(value, json!({ "a": [1, { "b": 2 }], "c": 0.5 }));
    }
}
