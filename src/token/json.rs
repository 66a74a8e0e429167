//! JSON read strictly (RFC 8259, RFC 7515 section 4, RFC 7519 section 4): a member that occurs twice is
//! refused at any depth, in whatever spelling, and so is deep nesting.
//!
//! Borrows from the text where it can. Never used for what we write ourselves.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Object<'a>),
}

/// A JSON object; no name occurs twice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Object<'a> {
    /// Reads a text that is one object and nothing else.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        // serde_json would check each string by itself; once for all is quicker.
        let text = std::str::from_utf8(text).ok()?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let value = Seed { depth: 0 }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        match value {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The member called `name`, compared byte for byte.
    pub(super) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The value that `path` leads to: that of the member of that very name, dots and all; else through the object
    /// whose name is the longest that ends before a dot, and from there on by the same rule. One way only: what it
    /// lacks is not looked for on another.
    pub(super) fn at(&self, path: &str) -> Option<&Json<'a>> {
        if let Some(value) = self.get(path) {
            return Some(value);
        }
        let way = |(dot, _)| Some((self.get(&path[..dot])?, &path[dot + 1..]));
        let (value, rest) = path.rmatch_indices('.').find_map(way)?;
        match value {
            Json::Object(inner) => inner.at(rest),
            _ => None,
        }
    }

    /// Every member.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a member called `name`, whatever its value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

impl Json<'_> {
    /// The text of a string.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Builds a value at a depth.
#[derive(Clone, Copy)]
struct Seed {
    depth: u8,
}

impl Seed {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("too deep"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'a> DeserializeSeed<'a> for Seed {
    type Value = Json<'a>;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Json<'a>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Seed {
    type Value = Json<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'a>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'a>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'a>, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'a>, E> {
        Ok(Json::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'a>, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Json<'a>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'a>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut from: A) -> Result<Json<'a>, A::Error> {
        let seed = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = from.next_element_seed(seed)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut from: A) -> Result<Json<'a>, A::Error> {
        let seed = self.deeper()?;
        let mut members = Vec::with_capacity(if self.depth == 0 { TYPICAL_MEMBERS } else { 0 });
        while let Some(name) = from.next_key_seed(Name)? {
            members.push((name, from.next_value_seed(seed)?));
        }
        if has_twins(&members) {
            return Err(A::Error::custom("duplicate member"));
        }
        Ok(Json::Object(Object(members)))
    }
}

/// Reads a member's name, unescaped.
struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Cow<'a, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Whether a name occurs twice. Comparing with those before is quickest for the few members of a token, where hardly
/// any look alike, and would be quadratic for the many of an attack.
fn has_twins(members: &[(Cow<'_, str>, Json<'_>)]) -> bool {
    if members.len() <= FEW_MEMBERS {
        let mut looks = 0_u64;
        return members.iter().enumerate().any(|(i, (name, _))| {
            let look = 1 << look(name);
            let seen = looks & look != 0;
            looks |= look;
            seen && members[..i].iter().any(|(other, _)| other == name)
        });
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// What equal names have in common, of 64.
fn look(name: &str) -> u8 {
    let letter = |letter: Option<&u8>| letter.copied().unwrap_or_default();
    let bytes = name.as_bytes();
    letter(bytes.first())
        .wrapping_mul(5)
        .wrapping_add(letter(bytes.last()).wrapping_mul(3))
        .wrapping_add(bytes.len() as u8)
        % 64
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_unit(),
            Self::Bool(value) => to.serialize_bool(*value),
            Self::Unsigned(value) => to.serialize_u64(*value),
            Self::Signed(value) => to.serialize_i64(*value),
            Self::Float(value) => to.serialize_f64(*value),
            Self::Text(text) => to.serialize_str(text),
            Self::List(list) => to.collect_seq(list),
            Self::Object(Object(members)) => {
                let mut map = to.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

const MAX_DEPTH: u8 = 32;
const FEW_MEMBERS: usize = 24;
const TYPICAL_MEMBERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str) -> bool {
        Object::parse(text.as_bytes()).is_some()
    }

    #[test]
    fn twins_are_refused_at_any_depth_and_in_any_spelling() {
        assert!(reads(r#"{"a":1,"b":{"a":1},"A":2}"#));
        assert!(!reads(r#"{"a":1,"a":1}"#));
        assert!(!reads(r#"{"exp":1,"\u0065xp":2}"#));
        assert!(!reads(r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#));
        let many = |last: &str| {
            let members: Vec<String> = (0..1000).map(|i| format!("\"m{i}\":1")).collect();
            format!("{{{},\"{last}\":1}}", members.join(","))
        };
        assert!(reads(&many("m1000")));
        assert!(!reads(&many("m500")));
    }

    #[test]
    fn only_one_object_and_not_too_deep() {
        for text in
            ["", "null", "1", "\"a\"", "[]", "{}{}", "{} x", "\u{feff}{}", "{\"a\":1e999}", "{a:1}", "{\"a\":NaN}"]
        {
            assert!(!reads(text), "{text}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_none());
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(reads(&nested(31)));
        assert!(!reads(&nested(32)));
        assert!(!reads(&nested(20_000)));
    }

    #[test]
    fn paths_prefer_the_longest_name() {
        let at = |text: &str, path: &str| {
            let object = Object::parse(text.as_bytes()).expect("valid");
            object.at(path).and_then(Json::as_text).map(str::to_owned)
        };
        for (text, path, expected) in [
            (r#"{"a":"x"}"#, "a", Some("x")),
            (r#"{"a.b":"flat","a":{"b":"deep"}}"#, "a.b", Some("flat")),
            (r#"{"a":{"b":"deep"}}"#, "a.b", Some("deep")),
            (r#"{"a":{"b.c":"x","b":{"c":"y"}}}"#, "a.b.c", Some("x")),
            (r#"{"a.b":{"c":"x"},"a":{"b":{"c":"y"}}}"#, "a.b.c", Some("x")),
            (r#"{"a.b":{},"a":{"b":{"c":"y"}}}"#, "a.b.c", None),
            (r#"{"https://x.example/roles":"x"}"#, "https://x.example/roles", Some("x")),
            (r#"{"resource_access":{"my.client":{"role":"x"}}}"#, "resource_access.my.client.role", Some("x")),
            (r#"{"a":"x"}"#, "a.b", None),
            (r#"{"a":[{"b":"x"}]}"#, "a.b", None),
            (r#"{"":{"":"x"}}"#, ".", Some("x")),
            (r#"{"a":{"b":"x"}}"#, "a..b", None),
            (r#"{"a":{"b":"x"}}"#, "", None),
        ] {
            assert_eq!(at(text, path).as_deref(), expected, "{text} {path}");
        }
    }

    #[test]
    fn values_print_as_compact_json() {
        let text = r#"{"a":[1,-2,1.5,true,null,"x\"y"],"b":{"c":"d"}}"#;
        let object = Object::parse(text.as_bytes()).expect("valid");
        assert_eq!(serde_json::to_string(&Json::Object(object)).expect("no I/O"), text);
    }
}
