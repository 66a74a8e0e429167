//! A configured name that upstreams are told: as text, and ready as a header field's value.

use std::{fmt, ops::Deref, sync::Arc};

use http::HeaderValue;
use percent_encoding::{CONTROLS, utf8_percent_encode};

/// A name and its header value: visible ASCII as it is, everything else percent-encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Label {
    text: Arc<str>,
    value: HeaderValue,
}

impl Label {
    /// The name, to be kept for longer than what it is the name of.
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The value of a header field that tells this name.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        let encoded = if text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            HeaderValue::from_str(text)
        } else {
            HeaderValue::from_str(&utf8_percent_encode(text, CONTROLS).to_string())
        };
        Self { text: text.into(), value: encoded.expect("visible ASCII and spaces are a field's value") }
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_field_can_hold_is_encoded() {
        for (text, value) in [("shop web", "shop web"), ("Ä\r\n", "%C3%84%0D%0A"), ("", ""), ("a%b", "a%b")] {
            let label = Label::from(text);
            assert_eq!((&*label, label.value().to_str().ok()), (text, Some(value)));
        }
    }
}
