//! TOML, YAML 1.2 and JSON, each read into the same tree.
//!
//! Stricter than the formats: names stand once, no dates, no YAML aliases or tags of one's own, one
//! document, bounded depth.

use std::{borrow::Cow, fmt, path::Path};

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::tree::{Fault, Key, Node, Value, duplicate, printable};

/// In which language a configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0
    Toml,
    /// YAML 1.2, core schema
    Yaml,
    /// JSON, RFC 8259
    Json,
}

impl Format {
    /// The format that a file's extension names.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Reads `text` into a tree.
    pub(super) fn read(self, text: &str) -> Result<Node<'_>, Fault> {
        match self {
            Self::Toml => read_toml(text),
            Self::Yaml => Yaml { parser: Parser::new_from_str(text) }.document(),
            Self::Json => Json { text }.node(text, 0).map_err(|fault| fault_of_whole(text, fault)),
        }
    }

    /// Line and column, from 1, of an offset that this format gave.
    pub(super) fn place(self, text: &str, at: usize) -> (usize, usize) {
        let bytes = match self {
            Self::Yaml => text.char_indices().nth(at).map_or(text.len(), |(bytes, _)| bytes),
            Self::Toml | Self::Json => text.floor_char_boundary(at.min(text.len())),
        };
        let before = &text[..bytes];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

fn read_toml(text: &str) -> Result<Node<'_>, Fault> {
    let table = DeTable::parse(text).map_err(|error| {
        // Its `Display` shows the line itself, and with it a value.
        Fault::at(error.span().map_or(0, |span| span.start), error.message())
    })?;
    let at = table.span().start;
    Ok(Node { at, value: toml_table(table.into_inner())? })
}

fn toml_table(table: DeTable<'_>) -> Result<Value<'_>, Fault> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let key = Key { at: key.span().start, name: key.into_inner() };
        let node = toml_node(value).map_err(|fault| fault.within(&key.name))?;
        entries.push((key, node));
    }
    // The crate sorts by name; the first mistake to tell is the first in the file.
    entries.sort_by_key(|(key, _)| key.at);
    Ok(Value::Table(entries))
}

fn toml_node(value: Spanned<DeValue<'_>>) -> Result<Node<'_>, Fault> {
    let at = value.span().start;
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text),
        DeValue::Integer(number) => {
            Node::integer(number.as_str(), number.radix()).ok_or_else(|| Fault::at(at, NUMBER_TOO_LARGE))?
        }
        DeValue::Float(number) => {
            number.as_str().parse().map(Value::Float).map_err(|_| Fault::at(at, "expected a number"))?
        }
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(_) => return Err(Fault::at(at, "dates and times are not used here; quote it if it is text")),
        DeValue::Array(items) => {
            let items = items.into_iter().enumerate();
            let nodes = items.map(|(i, item)| toml_node(item).map_err(|fault| fault.within_item(i)));
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => toml_table(table)?,
    };
    Ok(Node { at, value })
}

/// A YAML parser's events, one after the other.
struct Yaml<'i> {
    parser: Parser<'i, StrInput<'i>>,
}

impl<'i> Yaml<'i> {
    fn document(mut self) -> Result<Node<'i>, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if root.is_some() => return Err(Fault::at(span.start.index(), "expected a single document")),
                event => root = Some(self.node(event, span, 0)?),
            }
        }
        match root {
            // A file of comments alone is an empty table, as in TOML.
            None | Some(Node { value: Value::Null, .. }) => Ok(Node { at: 0, value: Value::Table(Vec::new()) }),
            Some(node) => Ok(node),
        }
    }

    fn next(&mut self) -> Result<(Event<'i>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Fault::at(error.marker().index(), error.info())),
            None => Err(Fault::at(0, "unexpected end of the file")),
        }
    }

    fn node(&mut self, event: Event<'i>, span: Span, depth: usize) -> Result<Node<'i>, Fault> {
        let at = span.start.index();
        if depth > MAX_DEPTH {
            return Err(Fault::at(at, TOO_DEEP));
        }
        let value = match event {
            Event::Scalar(text, style, 0, tag) => scalar(text, style, tag, at)?,
            Event::SequenceStart(0, tag) => {
                refuse_tag(tag, at)?;
                self.list(depth)?
            }
            Event::MappingStart(0, tag) => {
                refuse_tag(tag, at)?;
                self.table(depth)?
            }
            _ => return Err(Fault::at(at, "anchors and aliases are not used here")),
        };
        Ok(Node { at, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value<'i>, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::List(items));
            }
            items.push(self.node(event, span, depth + 1).map_err(|fault| fault.within_item(items.len()))?);
        }
    }

    fn table(&mut self, depth: usize) -> Result<Value<'i>, Fault> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return table(entries);
            }
            let key = self.node(event, span, depth + 1)?;
            let Value::Text(name) = key.value else {
                return Err(Fault::at(key.at, "expected a name; quote it if it is one"));
            };
            let key = Key { at: key.at, name };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1).map_err(|fault| fault.within(&key.name))?;
            entries.push((key, node));
        }
    }
}

/// A scalar, typed by the core schema.
fn scalar<'i>(
    text: Cow<'i, str>,
    style: ScalarStyle,
    tag: Option<Cow<'i, Tag>>,
    at: usize,
) -> Result<Value<'i>, Fault> {
    if tag.as_ref().is_some_and(|tag| !tag.is_yaml_core_schema()) {
        return Err(Fault::at(at, NO_TAGS));
    }
    match Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref()) {
        Some(Scalar::Null) => Ok(Value::Null),
        Some(Scalar::Boolean(value)) => Ok(Value::Bool(value)),
        Some(Scalar::Integer(value)) => Ok(Value::Signed(value)),
        Some(Scalar::FloatingPoint(value)) => Ok(Value::Float(value.into_inner())),
        Some(Scalar::String(text)) => Ok(Value::Text(text)),
        None => Err(Fault::at(at, "is not what its tag says")),
    }
}

fn refuse_tag(tag: Option<Cow<'_, Tag>>, at: usize) -> Result<(), Fault> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => Err(Fault::at(at, NO_TAGS)),
        _ => Ok(()),
    }
}

/// A JSON text whose parts are sliced out of it, which tells their places.
struct Json<'i> {
    text: &'i str,
}

impl<'i> Json<'i> {
    fn node(&self, part: &'i str, depth: usize) -> Result<Node<'i>, Fault> {
        let at = self.offset(part) + (part.len() - part.trim_start().len());
        if depth > MAX_DEPTH {
            return Err(Fault::at(at, TOO_DEEP));
        }
        let wrong = |error| json_fault(part, self.offset(part), &error);
        let value = match part.trim_start().as_bytes().first() {
            Some(b'{') => self.table(serde_json::from_str(part).map_err(wrong)?, depth)?,
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(part).map_err(wrong)?;
                let items = items.into_iter().enumerate();
                let nodes = items.map(|(i, item)| self.node(item.get(), depth + 1).map_err(|f| f.within_item(i)));
                Value::List(nodes.collect::<Result<_, _>>()?)
            }
            Some(b'"') => Value::Text(serde_json::from_str::<Text<'_>>(part).map_err(wrong)?.0),
            _ => json_scalar(&serde_json::from_str(part).map_err(wrong)?).ok_or_else(|| Fault::at(at, NOT_A_NUMBER))?,
        };
        Ok(Node { at, value })
    }

    fn table(&self, Pairs(pairs): Pairs<'i>, depth: usize) -> Result<Value<'i>, Fault> {
        let mut entries = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let at = self.offset(name.get());
            let wrong = |error| json_fault(name.get(), at, &error);
            let key = Key { at, name: serde_json::from_str::<Text<'_>>(name.get()).map_err(wrong)?.0 };
            let node = self.node(value.get(), depth + 1).map_err(|fault| fault.within(&key.name))?;
            entries.push((key, node));
        }
        table(entries)
    }

    /// Where a slice of the text begins in it.
    fn offset(&self, part: &str) -> usize {
        (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }
}

fn json_scalar(value: &serde_json::Value) -> Option<Value<'static>> {
    match value {
        serde_json::Value::Null => Some(Value::Null),
        serde_json::Value::Bool(value) => Some(Value::Bool(*value)),
        serde_json::Value::Number(number) => None
            .or_else(|| number.as_i64().map(Value::Signed))
            .or_else(|| number.as_u64().map(Value::Unsigned))
            .or_else(|| number.as_f64().map(Value::Float)),
        _ => None,
    }
}

/// A JSON error in `part`, which begins at `offset`: its words without its own place.
fn json_fault(part: &str, offset: usize, error: &serde_json::Error) -> Fault {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    let line_start = match error.line() {
        0 | 1 => 0,
        line => part.match_indices('\n').nth(line - 2).map_or(0, |(newline, _)| newline + 1),
    };
    let at = offset + line_start + error.column().saturating_sub(1);
    Fault::at(at, message.strip_suffix(&place).unwrap_or(&message))
}

/// An empty file is not JSON: told at its start.
fn fault_of_whole(text: &str, fault: Fault) -> Fault {
    if text.trim().is_empty() { Fault::at(0, "expected a table, found nothing") } else { fault }
}

/// A JSON string, borrowed where it has no escapes.
struct Text<'i>(Cow<'i, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(TextVisitor)
    }
}

/// An object as its pairs, in order and with names that stand twice.
struct Pairs<'i>(Vec<(&'i RawValue, &'i RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(PairsVisitor)
    }
}

fn table<'i>(entries: Vec<(Key<'i>, Node<'i>)>) -> Result<Value<'i>, Fault> {
    match duplicate(&entries) {
        None => Ok(Value::Table(entries)),
        Some(key) => Err(Fault::at(key.at, format!("\"{}\" is there twice", printable(&key.name))).within(&key.name)),
    }
}

const MAX_DEPTH: usize = 32;
const TOO_DEEP: &str = "nested too deep";
const NO_TAGS: &str = "tags are not used here";
const NUMBER_TOO_LARGE: &str = "the number is too large";
const NOT_A_NUMBER: &str = "is neither a number nor a name";
