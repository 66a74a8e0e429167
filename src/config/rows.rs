//! One line of a table's file (NDJSON): `{"api": {…}}`, `{"application": {…}}`, `{"subscription": {…}}` or `{"tier": {…}}`.
//!
//! A line is read into the same tree as a configuration, and so by the same rules: fields, types, `${NAME}`, what is
//! said of mistakes. The tree is first made without places, which is fast; only a line that is wrong is read again.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};

use super::{
    expand::expand,
    format::Format,
    tree::{Fault, Key, Node, Value, duplicate},
};
use crate::store::{Pass, Row};

/// The pass in which a line is read, by its first name; none: it begins with none that is known.
pub(super) fn pass_of(line: &[u8]) -> Option<Pass> {
    let rest = line.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let name = &rest[..memchr::memchr(b'"', rest)?];
    PASSES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, pass)| *pass)
}

/// The row of a line.
pub(super) fn row(line: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Row, Fault> {
    if let Ok(Quick(tree)) = serde_json::from_str(line)
        && let Ok(row) = understood(tree, line, lookup)
    {
        return Ok(row);
    }
    understood(Format::Json.read(line)?, line, lookup)
}

/// From 1, in characters.
pub(super) fn column(line: &str, fault: &Fault) -> usize {
    Format::Json.place(line, fault.at.unwrap_or(0)).1
}

fn understood(mut tree: Node<'_>, line: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Row, Fault> {
    if line.contains("${") {
        expand(&mut tree, lookup)?;
    }
    let at = tree.at;
    let Value::Table(mut entries) = tree.value else { return Err(Fault::at(at, FORM)) };
    let (Some((key, node)), true) = (entries.pop(), entries.is_empty()) else { return Err(Fault::at(at, FORM)) };
    let row = match &*key.name {
        "api" => Deserialize::deserialize(node).map(Row::Api),
        "application" => Deserialize::deserialize(node).map(Row::Application),
        "subscription" => Deserialize::deserialize(node).map(Row::Subscription),
        "tier" => Deserialize::deserialize(node).map(Row::Tier),
        name => return Err(Fault::unknown_field(name, KINDS).or_at(key.at)),
    };
    row.map_err(|fault| fault.within(&key.name))
}

/// A tree without places.
struct Quick<'i>(Node<'i>);

impl<'de> Deserialize<'de> for Quick<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(QuickVisitor).map(|value| Self(Node { at: 0, value }))
    }
}

struct QuickVisitor;

impl<'de> Visitor<'de> for QuickVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(value).map_or(Value::Unsigned(value), Value::Signed))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut nodes = Vec::new();
        while let Some(Quick(node)) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value<'de>, A::Error> {
        let mut entries = Vec::with_capacity(FIELDS);
        while let Some((Name(name), Quick(node))) = fields.next_entry()? {
            entries.push((Key { at: 0, name }, node));
        }
        match duplicate(&entries) {
            None => Ok(Value::Table(entries)),
            Some(_) => Err(A::Error::custom("a name that stands twice")),
        }
    }
}

/// A field's name, borrowed where it has no escapes.
struct Name<'i>(Cow<'i, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match from.deserialize_str(QuickVisitor)? {
            Value::Text(name) => Ok(Self(name)),
            _ => Err(D::Error::custom("no name")),
        }
    }
}

const KINDS: &[&str] = &["api", "application", "subscription", "tier"];
const PASSES: [(&str, Pass); 4] =
    [("api", Pass::Named), ("application", Pass::Named), ("subscription", Pass::Subscriptions), ("tier", Pass::Tiers)];
pub(super) const FORM: &str =
    "a line is one row: {\"api\": {…}}, {\"application\": {…}}, {\"subscription\": {…}} or {\"tier\": {…}}";
/// How many fields most tables have.
const FIELDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        match row(line, &|name| (name == "TIER").then(|| "Gold".into())) {
            Ok(row) => format!("{row:?}"),
            Err(fault) => format!("{}: {}", fault.field().unwrap_or_default(), fault.message),
        }
    }

    #[test]
    fn rows_are_read_by_the_rules_of_configurations() {
        for (line, expected) in [
            (
                r#"{"tier": {"name": "A", "requests": 1, "per": "1m"}}"#,
                "Tier(TierSettings { name: \"A\", requests: Some(1)",
            ),
            (
                r#" { "subscription" : {"application": "\u0061\n", "api": "b", "tier": "${TIER}"} } "#,
                "Subscription(SubscriptionSettings { application: \"a\\n\", api: \"b\", tier: \"Gold\"",
            ),
            (
                r#"{"application": {"name": "a", "ownr": "b"}}"#,
                "application.ownr: unknown field \"ownr\"; did you mean \"owner\"?",
            ),
            (r#"{"application": {"name": "a"}}"#, "application.owner: missing field \"owner\""),
            (r#"{"application": {"name": 7}}"#, "application.name: expected a string, found a whole number"),
            (r#"{"application": ["a", "b"]}"#, "application: expected a table, found a list"),
            (
                r#"{"application": {"name": "a", "owner": "b", "keys": [{"consumer_key": "é", "key_type": "x"}]}}"#,
                "application.keys[0].key_type: expected one of \"PRODUCTION\", \"SANDBOX\"",
            ),
            (
                r#"{"application": {"name": "a", "owner": "b", "owner": "c"}}"#,
                "application.owner: \"owner\" is there twice",
            ),
            (r#"{"tier": {"name": "${X}", "per": "1m"}}"#, "tier.name: environment variable X is not set"),
            (r#"{"tier": {"name": "A", "per": "1m", "requests": 1e400}}"#, "tier.requests: number out of range"),
            (r#"{"aplication": {}}"#, "aplication: unknown field \"aplication\"; did you mean \"application\"?"),
            (r#"{"tier": {}, "api": {}}"#, &format!(": {FORM}")),
            ("{}", &format!(": {FORM}")),
            ("[]", &format!(": {FORM}")),
            ("7", &format!(": {FORM}")),
            (r#"{"tier": {"name": "A", "#, ": EOF while parsing an object"),
            (r#"{"tier": {}} {}"#, ": trailing characters"),
        ] {
            let told = told(line);
            assert!(told.starts_with(expected), "{line}\n{told}\n{expected}");
        }
    }

    #[test]
    fn a_line_says_first_what_it_is() {
        for (line, expected) in [
            ("{\"api\": {}}", Some(Pass::Named)),
            (" {\t\"application\" :{}}", Some(Pass::Named)),
            ("{\"subscription\":", Some(Pass::Subscriptions)),
            ("{\"tier\"", Some(Pass::Tiers)),
            ("{\"\\u0061pi\": {}}", None),
            ("{\"apis\": {}}", None),
            ("{api", None),
            ("\"api\"", None),
            ("", None),
        ] {
            assert_eq!(pass_of(line.as_bytes()), expected, "{line}");
        }
    }
}
