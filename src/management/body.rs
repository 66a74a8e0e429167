//! Whether a body is what it must be before anything is read from it: one JSON object, in which no member occurs twice at
//! any depth (RFC 8259 section 4). A list in its place would be read as the fields one after the other; of twins the
//! last would count, unseen.

use std::{
    collections::HashSet,
    fmt::{self, Write},
};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};

use super::answer::Problem;
use crate::keymanager::check::printable;

/// Refuses a body that is no object, or has a member twice. What is no JSON at all is for its reader to tell.
pub(super) fn check(text: &[u8]) -> Result<(), Problem> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::field("body", "must be a JSON object"));
    }
    twin(text).map_or(Ok(()), |field| Err(Problem::field(field, "is there twice")))
}

/// The member of a JSON text that occurs twice, if one does.
pub(crate) fn twin(text: &[u8]) -> Option<String> {
    let mut way = Way::default();
    let walked = Seed(&mut way).deserialize(&mut serde_json::Deserializer::from_slice(text));
    way.twice.filter(|_| walked.is_err())
}

/// Where the walk is, and the member that it has met twice.
#[derive(Default)]
struct Way {
    path: String,
    twice: Option<String>,
}

struct Seed<'w>(&'w mut Way);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        let outside = self.0.path.len();
        for at in 0_usize.. {
            // A text takes whatever is written to it.
            let _ = write!(self.0.path, "[{at}]");
            if from.next_element_seed(Seed(self.0))?.is_none() {
                break;
            }
            self.0.path.truncate(outside);
        }
        self.0.path.truncate(outside);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        let (mut names, outside) = (HashSet::new(), self.0.path.len());
        while let Some(name) = from.next_key::<String>()? {
            self.0.path.push_str(if outside == 0 { "" } else { "." });
            self.0.path.push_str(&printable(&name));
            if !names.insert(name) {
                self.0.twice = Some(self.0.path.clone());
                return Err(A::Error::custom("a member is there twice"));
            }
            from.next_value_seed(Seed(self.0))?;
            self.0.path.truncate(outside);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Option<String> {
        check(text.as_bytes()).err().and_then(|problem| problem.field)
    }

    #[test]
    fn only_an_object_without_twins_passes() {
        for good in ["{}", " \n{\"a\":1,\"b\":{\"a\":[{\"a\":null},{\"a\":-1.5}]}}", "{\"a\":", "{} {}"] {
            assert_eq!(field(good), None, "{good}");
        }
        for (bad, named) in [
            ("[]", "body"),
            ("null", "body"),
            ("", "body"),
            ("{\"a\":1,\"a\":1}", "a"),
            ("{\"a\":1,\"\\u0061\":2}", "a"),
            ("{\"p\":{\"q\":[{\"x\":1},{\"y\":true,\"y\":false}]}}", "p.q[1].y"),
        ] {
            assert_eq!(field(bad).as_deref(), Some(named), "{bad}");
        }
    }
}
