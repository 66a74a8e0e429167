//! The file as a tree of values with their places, and serde's way through it.
//!
//! All three formats become this tree. [`Fault`] is the error of reading it into settings: it is made
//! from what was expected and what *kind* of value was found, so that no value can reach a message.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess,
        Visitor, value::CowStrDeserializer,
    },
    forward_to_deserialize_any,
};

use crate::problem::Words;

/// A value and where it begins.
pub(super) struct Node<'i> {
    /// Offset in the text, in the format's unit (bytes; YAML: characters).
    pub(super) at: usize,
    pub(super) value: Value<'i>,
}

/// What stands there.
pub(super) enum Value<'i> {
    Null,
    Bool(bool),
    Signed(i64),
    /// Only for what is too large for `Signed`.
    Unsigned(u64),
    Float(f64),
    Text(Cow<'i, str>),
    List(Vec<Node<'i>>),
    Table(Vec<(Key<'i>, Node<'i>)>),
}

/// A field's name and where it begins.
pub(super) struct Key<'i> {
    pub(super) at: usize,
    pub(super) name: Cow<'i, str>,
}

/// Why the tree is not the settings: never with a value in it.
#[derive(Debug, Default)]
pub(super) struct Fault {
    pub(super) message: String,
    /// Where, once known: the innermost place wins.
    pub(super) at: Option<usize>,
    /// From the innermost segment outwards.
    path: Vec<String>,
}

impl<'i> Node<'i> {
    /// An integer of any format, or `None` if it fits neither 64 bit form.
    pub(super) fn integer(digits: &str, radix: u32) -> Option<Value<'i>> {
        let signed = i64::from_str_radix(digits, radix).map(Value::Signed);
        signed.or_else(|_| u64::from_str_radix(digits, radix).map(Value::Unsigned)).ok()
    }

    /// The place of the field at `path` (`apis[0].resources[2].path`), or of the nearest table around it.
    pub(super) fn locate(&self, path: &str) -> usize {
        if let (Value::List(items), Some((index, rest))) = (&self.value, split_index(path)) {
            return items.get(index).map_or(self.at, |item| item.locate(rest));
        }
        let Value::Table(entries) = &self.value else { return self.at };
        let path = path.strip_prefix('.').unwrap_or(path);
        // The longest name wins: names of claims may hold dots themselves.
        let found = entries.iter().filter(|(key, _)| names(path, &key.name)).max_by_key(|(key, _)| key.name.len());
        let Some((key, node)) = found else { return self.at };
        match &path[key.name.len()..] {
            "" => key.at,
            rest => node.locate(rest),
        }
    }
}

/// Splits `[3].rest` into 3 and `.rest`.
fn split_index(path: &str) -> Option<(usize, &str)> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

/// Whether `path` begins with the whole segment `name`.
fn names(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The first name that stands twice in a table, for formats whose parser does not look.
pub(super) fn duplicate<'a, 'i>(entries: &'a [(Key<'i>, Node<'i>)]) -> Option<&'a Key<'i>> {
    if entries.len() <= FEW {
        let mut keys = entries.iter().map(|(key, _)| key).enumerate();
        return keys.find(|(n, key)| entries[..*n].iter().any(|(other, _)| other.name == key.name)).map(|(_, key)| key);
    }
    let mut seen = HashSet::with_capacity(entries.len());
    entries.iter().map(|(key, _)| key).find(|key| !seen.insert(&*key.name))
}

impl Fault {
    /// A fault at a known place.
    pub(super) fn at(at: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), at: Some(at), path: Vec::new() }
    }

    /// Notes the place, unless a more exact one is known.
    pub(super) fn or_at(mut self, at: usize) -> Self {
        self.at.get_or_insert(at);
        self
    }

    /// Notes that all this happened inside the field `name`.
    pub(super) fn within(mut self, name: &str) -> Self {
        self.path.push(printable(name));
        self
    }

    /// Notes that all this happened inside an item of a list.
    pub(super) fn within_item(mut self, index: usize) -> Self {
        self.path.push(format!("[{index}]"));
        self
    }

    /// The field's path as in the file; `None` at the top.
    pub(super) fn field(&self) -> Option<String> {
        let mut path = String::new();
        for segment in self.path.iter().rev() {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        (!path.is_empty()).then_some(path)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    /// Only our own types' words come here ("a size is …"), and they hold no value.
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), ..Self::default() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, found {}", plainly(expected), kind(found)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}", plainly(expected)))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}", plainly(expected)))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(one_of(expected))
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        let fault = Self::custom(format_args!("unknown field \"{}\"{}", printable(name), suggestion(name, expected)));
        fault.within(name)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::custom(format_args!("missing field \"{name}\"")).within(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::custom(format_args!("field \"{name}\" is there twice")).within(name)
    }
}

/// `; did you mean "audience"?`, or what is allowed where that is short, or nothing.
fn suggestion(name: &str, known: &[&str]) -> String {
    let like = |candidate: &&str| strsim::jaro_winkler(&name.to_ascii_lowercase(), candidate);
    let nearest = known.iter().copied().max_by(|a, b| like(a).total_cmp(&like(b)));
    match nearest {
        Some(nearest) if like(&nearest) >= NEAR => format!("; did you mean \"{nearest}\"?"),
        Some(_) if known.len() <= FEW => format!("; {}", one_of(known)),
        _ => String::new(),
    }
}

fn one_of(allowed: &[&str]) -> String {
    let quoted: Vec<_> = allowed.iter().map(|name| format!("\"{name}\"")).collect();
    match &quoted[..] {
        [only] => format!("expected {only}"),
        _ => format!("expected one of {}", quoted.join(", ")),
    }
}

fn plainly(expected: &dyn Expected) -> String {
    Words::FILE.plainly(&expected.to_string()).into_owned()
}

fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        _ => "something else",
    }
}

/// A name from the file, short and without control characters.
pub(super) fn printable(name: &str) -> String {
    let mut shown: String = name.chars().take(LONGEST_NAME).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST_NAME).is_some() {
        shown.push('…');
    }
    shown
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Signed(value) => visitor.visit_i64(value),
            Value::Unsigned(value) => visitor.visit_u64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Value::Text(Cow::Owned(text)) => visitor.visit_string(text),
            Value::List(items) => visitor.visit_seq(Items(items.into_iter().enumerate())),
            Value::Table(entries) => visitor.visit_map(Entries { rest: entries.into_iter(), value: None }),
        };
        result.map_err(|fault| fault.or_at(self.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Text(name) = self.value else { return Err(Fault::at(self.at, one_of(variants))) };
        visitor.visit_enum(Variant(name)).map_err(|fault| fault.or_at(self.at))
    }

    /// A table only: a list is not read as fields by position.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Value::List(_) => Err(<Fault as de::Error>::invalid_type(Unexpected::Seq, &visitor).or_at(self.at)),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// The items of a list.
struct Items<'i>(std::iter::Enumerate<std::vec::IntoIter<Node<'i>>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, node)) = self.0.next() else { return Ok(None) };
        let at = node.at;
        seed.deserialize(node).map(Some).map_err(|fault| fault.or_at(at).within_item(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// The fields of a table.
struct Entries<'i> {
    rest: std::vec::IntoIter<(Key<'i>, Node<'i>)>,
    value: Option<(Key<'i>, Node<'i>)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        let (at, name) = (key.at, key.name.clone());
        self.value = Some((key, node));
        let name: CowStrDeserializer<'_, Fault> = name.into_deserializer();
        seed.deserialize(name).map(Some).map_err(|fault| fault.or_at(at))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, node) = self.value.take().ok_or_else(|| Fault::at(0, "a value without its name"))?;
        let at = node.at;
        seed.deserialize(node).map_err(|fault| fault.or_at(at).within(&key.name))
    }
}

/// The name of a choice: all enums of the settings are plain names.
struct Variant<'i>(Cow<'i, str>);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let name: CowStrDeserializer<'_, Fault> = self.0.clone().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Fault> {
        Err(de::Error::custom(PLAIN_NAME))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(de::Error::custom(PLAIN_NAME))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        Err(de::Error::custom(PLAIN_NAME))
    }
}

const PLAIN_NAME: &str = "expected a plain name";
const LONGEST_NAME: usize = 64;
/// Likeness from which a known name is offered.
const NEAR: f64 = 0.8;
/// So many names are listed where none is near.
const FEW: usize = 8;
