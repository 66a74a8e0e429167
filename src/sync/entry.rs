//! How a revocation is written in Redis: one JSON object (RFC 8259), read strictly. A member that occurs
//! twice, is unknown, `null` or of another type makes the whole entry malformed; nothing is guessed.

use serde::{Deserialize, Deserializer, Serialize};

use crate::store::{Revocation, Revoked};

/// The members of an entry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    issuer: Box<str>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    jti: Option<Box<str>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    token_sha256: Option<Box<str>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    consumer_key: Option<Box<str>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    subject: Option<Box<str>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

/// Reads an entry; none where it is malformed.
pub(super) fn read(bytes: &[u8]) -> Option<Revocation> {
    if bytes.len() > MAX_ENTRY {
        return None;
    }
    let wire: Wire = serde_json::from_slice(bytes).ok()?;
    let full = |text: &str| !text.is_empty();
    let dated = |date: Option<u64>| date.is_none_or(|date| date <= MAX_DATE);
    if !full(&wire.issuer) || !dated(wire.before) || !dated(wire.until) {
        return None;
    }
    let what = match (wire.jti, wire.token_sha256, wire.consumer_key, wire.subject, wire.before) {
        (Some(jti), None, None, None, None) if full(&jti) => Revoked::Jti(jti),
        (None, Some(hex), None, None, None) => Revoked::Token(digest(&hex)?),
        (None, None, Some(consumer_key), None, Some(before)) if full(&consumer_key) => {
            Revoked::ConsumerKey { consumer_key, before }
        }
        (None, None, None, Some(subject), Some(before)) if full(&subject) => Revoked::Subject { subject, before },
        _ => return None,
    };
    Some(Revocation { issuer: wire.issuer, what, until: wire.until })
}

/// Writes an entry; the same revocation is always the same text.
pub(super) fn write(revocation: &Revocation) -> String {
    let mut wire = Wire {
        issuer: revocation.issuer.clone(),
        jti: None,
        token_sha256: None,
        consumer_key: None,
        subject: None,
        before: None,
        until: revocation.until,
    };
    match &revocation.what {
        Revoked::Jti(jti) => wire.jti = Some(jti.clone()),
        Revoked::Token(digest) => {
            wire.token_sha256 = Some(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into());
        }
        Revoked::ConsumerKey { consumer_key, before } => {
            wire.consumer_key = Some(consumer_key.clone());
            wire.before = Some(*before);
        }
        Revoked::Subject { subject, before } => {
            wire.subject = Some(subject.clone());
            wire.before = Some(*before);
        }
    }
    serde_json::to_string(&wire).expect("texts and numbers are always JSON")
}

/// When an entry may go from the sorted set: its score.
pub(super) fn score(revocation: &Revocation) -> String {
    revocation.until.map_or_else(|| "+inf".to_owned(), |until| until.to_string())
}

/// A member that is there has a value: `null` is none.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let bytes = hex.as_bytes();
    let mut digest = [0; 32];
    if bytes.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(digest)
}

/// Bytes. More than a token may have, and so more than any of its claims.
const MAX_ENTRY: usize = 16 << 10;

/// The last second of the year 9999: whoever writes milliseconds is told, instead of locking everyone out.
const MAX_DATE: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let key = Revoked::ConsumerKey { consumer_key: "shop \"web\"\n".into(), before: 5 };
        let subject = Revoked::Subject { subject: "ädä".into(), before: 0 };
        for what in [Revoked::Jti("a".into()), Revoked::Token([0xAB; 32]), key, subject] {
            for until in [None, Some(7), Some(MAX_DATE)] {
                let revocation = Revocation { issuer: "https://idp".into(), what: what.clone(), until };
                assert_eq!(read(write(&revocation).as_bytes()), Some(revocation));
            }
        }
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let written = |what, until| write(&Revocation { issuer: "https://idp".into(), what, until });
        assert_eq!(written(Revoked::Jti("a".into()), Some(7)), r#"{"issuer":"https://idp","jti":"a","until":7}"#);
        let key = Revoked::ConsumerKey { consumer_key: "shop".into(), before: 5 };
        assert_eq!(written(key, None), r#"{"issuer":"https://idp","consumer_key":"shop","before":5}"#);
        let hex = "0f".repeat(32);
        let text = format!(r#"{{"issuer":"https://idp","token_sha256":"{hex}"}}"#);
        assert_eq!(written(Revoked::Token([15; 32]), None), text);
        assert!(
            read(text.to_uppercase().replace("ISSUER", "issuer").replace("TOKEN_SHA", "token_sha").as_bytes())
                .is_some()
        );
    }

    #[test]
    fn anything_else_is_malformed() {
        let long = format!(r#"{{"issuer":"i","jti":"{}"}}"#, "x".repeat(MAX_ENTRY));
        let short_hex = format!(r#"{{"issuer":"i","token_sha256":"{}"}}"#, "0".repeat(62));
        let no_hex = format!(r#"{{"issuer":"i","token_sha256":"{}"}}"#, "g".repeat(64));
        let wide = format!(r#"{{"issuer":"i","token_sha256":"{}"}}"#, "é".repeat(32));
        for text in [
            "",
            "null",
            "[]",
            "\"x\"",
            "{",
            r#"{"issuer":"i"}"#,
            r#"{"jti":"a"}"#,
            r#"{"issuer":"","jti":"a"}"#,
            r#"{"issuer":"i","jti":""}"#,
            r#"{"issuer":"i","jti":1}"#,
            r#"{"issuer":"i","jti":null}"#,
            r#"{"issuer":"i","jti":["a"]}"#,
            r#"{"issuer":"i","jti":"a"} x"#,
            r#"{"issuer":"i","jti":"a","jti":"b"}"#,
            r#"{"issuer":"i","issuer":"j","jti":"a"}"#,
            r#"{"issuer":"i","jti":"a","\u006ati":"b"}"#,
            r#"{"issuer":"i","jti":"a","until":1,"until":2}"#,
            r#"{"issuer":"i","jti":"a","other":1}"#,
            r#"{"issuer":"i","jti":"a","until":-1}"#,
            r#"{"issuer":"i","jti":"a","until":1.5}"#,
            r#"{"issuer":"i","jti":"a","until":"1"}"#,
            r#"{"issuer":"i","jti":"a","until":1764037184000}"#,
            r#"{"issuer":"i","jti":"a","subject":"b","before":1}"#,
            r#"{"issuer":"i","jti":"a","before":1}"#,
            r#"{"issuer":"i","consumer_key":"a"}"#,
            r#"{"issuer":"i","consumer_key":"a","before":1764037184000}"#,
            r#"{"issuer":"i","consumer_key":"","before":1}"#,
            r#"{"issuer":"i","subject":"a"}"#,
            r#"{"issuer":"i","subject":"a","consumer_key":"b","before":1}"#,
            &short_hex,
            &no_hex,
            &wide,
            &long,
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read(b"{\"issuer\":\"i\",\"jti\":\"\xff\"}"), None);
    }

    #[test]
    fn nothing_in_a_field_becomes_a_member() {
        let injected = r#"a"},"payloadData":{"jti":"b"#;
        let revocation = Revocation { issuer: "i".into(), what: Revoked::Jti(injected.into()), until: None };
        assert_eq!(read(write(&revocation).as_bytes()), Some(revocation));
        assert_eq!(read(format!(r#"{{"issuer":"i","jti":"{injected}"}}"#).as_bytes()), None);
    }
}
