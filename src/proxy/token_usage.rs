//! What an answer says of the tokens that a model has used: in a field of its body's JSON, or of the last
//! server-sent event that has it.
//!
//! The body passes while it is read; no more than [`MOST`] of it is kept, and of events only the present one's data.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::events::{Found, ServerSent};

/// Looks for the field as the body passes.
#[derive(Debug)]
pub(super) struct Finder {
    path: Box<[Box<str>]>,
    form: Form,
    /// The body so far, or the present event's data.
    kept: Vec<u8>,
    /// More came than is kept.
    too_large: bool,
    /// What the last event with the field has said.
    last: Option<u64>,
}

/// How an answer's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Events,
}

impl Finder {
    /// `path`: the field's name, within the objects named before it.
    pub(super) fn new(path: &[Box<str>], form: Form) -> Self {
        Self { path: path.into(), form, kept: Vec::new(), too_large: false, last: None }
    }

    /// A part of a body that is one JSON text.
    pub(super) fn json(&mut self, data: &[u8]) {
        if self.form == Form::Json {
            self.keep(data);
        }
    }

    /// What was found among events.
    pub(super) fn event(&mut self, found: Found<'_>) {
        match found {
            Found::Data(data) => self.keep(data),
            Found::LineEnd => self.keep(b"\n"),
            Found::Event => self.read_kept(),
        }
    }

    /// How many, once the body has ended or broken off.
    pub(super) fn finish(&mut self) -> Option<u64> {
        // An event that breaks off just before its blank line has said what it has to.
        self.read_kept();
        self.last
    }

    fn keep(&mut self, data: &[u8]) {
        self.too_large |= self.kept.len() + data.len() > MOST;
        if !self.too_large {
            self.kept.extend_from_slice(data);
        }
    }

    fn read_kept(&mut self) {
        let named = self.path.first().is_some_and(|name| memchr::memmem::find(&self.kept, name.as_bytes()).is_some());
        if !self.too_large && named {
            let mut json = serde_json::Deserializer::from_slice(&self.kept);
            let found = Field(&self.path).deserialize(&mut json).ok().filter(|_| json.end().is_ok()).flatten();
            self.last = found.or(self.last);
        }
        self.kept.clear();
        self.too_large = false;
    }
}

/// The number at a path; everything else is passed over.
struct Field<'p>(&'p [Box<str>]);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<u64>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<u64>, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            match self.0.split_first() {
                Some((first, rest)) if **first == *name => found = map.next_value_seed(Field(rest))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(found)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<u64>, E> {
        Ok(self.0.is_empty().then_some(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<u64>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }
}

/// Reads events for a count and for the finder at once.
pub(super) fn read_events(reader: &mut ServerSent, data: &[u8], mut finder: Option<&mut Finder>) -> u64 {
    let mut ended = 0;
    reader.read(data, &mut |found| {
        ended += u64::from(found == Found::Event);
        if let Some(finder) = finder.as_deref_mut() {
            finder.event(found);
        }
    });
    ended
}

/// Bytes of a body, or of an event's data, that are read at most.
const MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn finder(form: Form) -> Finder {
        Finder::new(&["usage".into(), "total_tokens".into()], form)
    }

    fn json(text: &str) -> Option<u64> {
        let mut finder = finder(Form::Json);
        text.as_bytes().chunks(7).for_each(|chunk| finder.json(chunk));
        finder.finish()
    }

    fn events(text: &str) -> Option<u64> {
        let (mut finder, mut reader) = (finder(Form::Events), ServerSent::default());
        for chunk in text.as_bytes().chunks(5) {
            read_events(&mut reader, chunk, Some(&mut finder));
        }
        finder.finish()
    }

    #[test]
    fn the_field_is_found_in_json() {
        for (text, expected) in [
            (r#"{"choices":[{"usage":{"total_tokens":1}}],"usage":{"prompt_tokens":3,"total_tokens":42}}"#, Some(42)),
            (r#" {"usage":{"total_tokens":0}} "#, Some(0)),
            (r#"{"\u0075sage":{"total_tokens":5},"x":"usage"}"#, Some(5)),
            (r#"{"usage":{"total_tokens":-1}}"#, None),
            (r#"{"usage":{"total_tokens":1.5}}"#, None),
            (r#"{"usage":{"total_tokens":"7"}}"#, None),
            (r#"{"usage":{"total_tokens":{"n":7}}}"#, None),
            (r#"{"usage":7}"#, None),
            (r#"{"usage":null}"#, None),
            (r#"[{"usage":{"total_tokens":1}}]"#, None),
            (r#"{"usage":{"total_tokens":42}"#, None),
            (r#"{"usage":{"total_tokens":42}} {}"#, None),
            ("", None),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    #[test]
    fn the_last_event_with_the_field_counts() {
        let text = "data: {\"usage\":{\"total_tokens\":3}}\n\ndata: {\"x\":1,\"usage\":null}\n\n\
                    data: {\"usage\":\ndata: {\"total_tokens\":9}}\n\ndata: [DONE]\n\n";
        assert_eq!(events(text), Some(9));
        assert_eq!(events("data: {\"usage\":{\"total_tokens\":3}}\n"), Some(3));
        assert_eq!(events("data: {\"usage\":{\"total_tok"), None);
        assert_eq!(events("event: usage\n\n"), None);
    }

    #[test]
    fn what_is_larger_than_is_kept_is_unknown() {
        let padding = "x".repeat(MOST);
        assert_eq!(json(&format!(r#"{{"pad":"{padding}","usage":{{"total_tokens":42}}}}"#)), None);
        let small = &padding[..MOST - 64];
        assert_eq!(json(&format!(r#"{{"pad":"{small}","usage":{{"total_tokens":42}}}}"#)), Some(42));
        // One event that is too large does not keep the next from being read.
        let text = format!("data: {padding}usage\n\ndata: {{\"usage\":{{\"total_tokens\":8}}}}\n\n");
        assert_eq!(events(&text), Some(8));
    }
}
