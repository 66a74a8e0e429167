//! `Secret`: a value that never shows itself. From a file, an environment variable or inline.

use std::{
    borrow::Cow,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, Visitor},
};
use zeroize::Zeroizing;

use crate::file;

/// Where a secret comes from. Prints as `[redacted]`, whatever it holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Written in the configuration itself.
    Inline(String),
    /// The content of a file, without a trailing newline.
    File(FileSource),
    /// The value of an environment variable.
    Env(EnvSource),
}

/// `{ file = "…" }`
#[derive(Clone, PartialEq, Eq)]
pub struct FileSource {
    /// Path of the file.
    pub file: PathBuf,
}

/// `{ env = "…" }`
#[derive(Clone, PartialEq, Eq)]
pub struct EnvSource {
    /// Name of the variable.
    pub env: String,
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The variable is not set, or not UTF-8.
    #[error("environment variable {0} is not set")]
    Env(String),
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
}

impl Secret {
    /// Reads the secret now. Wiped from memory when dropped.
    pub fn read(&self) -> Result<Zeroizing<String>, Error> {
        let value = Zeroizing::new(match self {
            Self::Inline(value) => value.clone(),
            Self::File(FileSource { file }) => {
                text(file).map_err(|source| Error::File { path: file.clone(), source })?
            }
            Self::Env(EnvSource { env }) => std::env::var(env).map_err(|_| Error::Env(env.clone()))?,
        });
        match value.trim_end_matches(['\r', '\n']) {
            "" => Err(Error::Empty),
            trimmed => Ok(Zeroizing::new(trimmed.to_owned())),
        }
    }
}

fn text(path: &Path) -> io::Result<String> {
    file::text(&file::read(path)?).map(str::to_owned)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// As it prints: what is told of a configuration holds no secret.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SecretVisitor)
    }
}

/// By hand, not derived: no error may name a key or a value, and a list is no secret.
struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORM)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Secret, E> {
        Ok(Secret::Inline(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Secret, E> {
        Ok(Secret::Inline(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let secret = match map.next_key::<Cow<'de, str>>()?.as_deref() {
            Some("file") => Secret::File(FileSource { file: map.next_value()? }),
            Some("env") => Secret::Env(EnvSource { env: map.next_value()? }),
            _ => return Err(A::Error::custom(EXPECTED)),
        };
        match map.next_key::<Cow<'de, str>>()? {
            None => Ok(secret),
            Some(_) => Err(A::Error::custom(EXPECTED)),
        }
    }
}

/// What a secret is told as.
pub const REDACTED: &str = "[redacted]";
const FORM: &str = "a secret: a string, { file = \"…\" } or { env = \"…\" }";
const EXPECTED: &str = "expected a secret: a string, { file = \"…\" } or { env = \"…\" }";

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let source = |name: &str| {
            json_schema!({
                "type": "object", "properties": { (name): { "type": "string" } },
                "required": [name], "additionalProperties": false
            })
        };
        json_schema!({ "description": "A secret: inline, from a file, or from an environment variable.", "anyOf": [{ "type": "string" }, source("file"), source("env")] })
    }
}

/// The text without these secrets, however they overlap. A short one is taken out where it stands alone: within a word it is
/// most likely a part of that word, and would be told by what is missing. One that is encoded as a form or JSON would have it
/// is known too.
pub(crate) fn redacted<'s>(text: &str, secrets: impl IntoIterator<Item = &'s str>) -> String {
    let mut found: Vec<Range<usize>> = secrets.into_iter().flat_map(|secret| places(text, secret)).collect();
    if found.is_empty() {
        return text.to_owned();
    }
    found.sort_unstable_by_key(|place| place.start);
    let mut told = String::with_capacity(text.len());
    let mut shown_from = 0;
    for place in found {
        // One that begins within the one before, or where that ends, has been told with it.
        if place.start > shown_from || told.is_empty() {
            told.push_str(text.get(shown_from..place.start).unwrap_or_default());
            told.push_str(REDACTED);
        }
        shown_from = shown_from.max(place.end);
    }
    told.push_str(text.get(shown_from..).unwrap_or_default());
    told
}

/// Where a secret stands, its overlaps with itself too.
fn places<'t>(text: &'t str, secret: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    let alone = secret.len() < UNLIKELY_IN_A_WORD;
    let ends = |rest: Option<char>| rest.is_none_or(|c| !c.is_alphanumeric());
    text.char_indices()
        .filter(|_| !secret.is_empty())
        .filter_map(move |(at, _)| {
            let lengths = ENCODINGS.iter().filter_map(|encoding| spelt(&text[at..], secret, *encoding));
            lengths.max().map(|length| at..at + length)
        })
        .filter(move |place| {
            let (before, after) = (&text[..place.start], &text[place.end..]);
            !alone || ends(before.chars().next_back()) && ends(after.chars().next())
        })
}

/// How many bytes at the beginning of a text one character takes there, if that is what begins it.
type Encoding = fn(&str, char) -> Option<usize>;

/// How many bytes the secret takes at the beginning of the text, if it stands there in that encoding.
fn spelt(text: &str, secret: &str, encoding: Encoding) -> Option<usize> {
    secret.chars().try_fold(0, |at, c| Some(at + encoding(text.get(at..)?, c)?))
}

fn plain(text: &str, c: char) -> Option<usize> {
    text.starts_with(c).then(|| c.len_utf8())
}

/// Of a form or a path (RFC 3986 section 2.1), where any character may be encoded, and `%` has to be.
fn percent(text: &str, c: char) -> Option<usize> {
    if c == ' ' && text.starts_with('+') {
        return Some(1);
    }
    if c != '%' && text.starts_with(c) {
        return plain(text, c);
    }
    if !text.starts_with('%') {
        return None;
    }
    let encoded: String = c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect();
    text.get(..encoded.len()).filter(|it| it.eq_ignore_ascii_case(&encoded)).map(str::len)
}

/// Of a JSON text (RFC 8259 section 7), where any character may be escaped, and `\` has to be.
fn json(text: &str, c: char) -> Option<usize> {
    if c != '\\' && text.starts_with(c) {
        return plain(text, c);
    }
    let escaped = text.strip_prefix('\\')?;
    if matches!(c, '"' | '\\' | '/') && escaped.starts_with(c) {
        return Some(2);
    }
    let units: String = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    text.get(..units.len()).filter(|it| it.eq_ignore_ascii_case(&units)).map(str::len)
}

/// Whether a field of this name holds a secret, in whichever spelling: `client_secret`, `apiKey`. One list for all that is
/// told: audit, dry runs, and a provider's words.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let tells_about_one = has(&ABOUT_SECRETS) || ABOUT_SECRETS_AT_END.iter().any(|end| name.ends_with(end));
    SECRET_NAMES.contains(&&*name) || (has(&IN_SECRET_NAMES) && !tells_about_one)
}

const ENCODINGS: [Encoding; 3] = [plain, percent, json];
/// In bytes.
const UNLIKELY_IN_A_WORD: usize = 8;
const SECRET_NAMES: [&str; 2] = ["code", "codeverifier"];
const IN_SECRET_NAMES: [&str; 12] = [
    "secret",
    "token",
    "assertion",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "credential",
    "private",
    "apikey",
    "accesskey",
    "pwd",
];
/// Named like secrets, and none.
const ABOUT_SECRETS: [&str; 3] = ["tokentype", "tokenendpoint", "tokenscope"];
const ABOUT_SECRETS_AT_END: [&str; 7] =
    ["authmethod", "signingalg", "encryptionalg", "lifetime", "expiresin", "expiresat", "secretid"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_taken_out_where_it_stands_alone() {
        for (text, secret, expected) in [
            ("is too short", "shor", "is too short"),
            ("no \"shor\" here, shor", "shor", "no \"[redacted]\" here, [redacted]"),
            ("user=shor&x", "shor", "user=[redacted]&x"),
            ("xs3cret-of-8y", "s3cret-of-8", "x[redacted]y"),
            ("äb b bä", "b", "äb [redacted] bä"),
            ("ba-a-a a-a-", "a-a", "ba-[redacted] [redacted]-"),
            ("xäxä ä", "ä", "xäxä [redacted]"),
            ("a", "", "a"),
        ] {
            assert_eq!(redacted(text, [secret]), expected, "{text}");
        }
    }

    #[test]
    fn secrets_that_overlap_are_taken_out_whole() {
        for (text, secrets, expected) in [
            ("conn-secret-abcdef-tail-9876", &["conn-secret-abcdef", "abcdef-tail-9876"][..], "[redacted]"),
            ("a conn-secret-abcdef-tail-9876!", &["abcdef-tail-9876", "conn-secret-abcdef"], "a [redacted]!"),
            ("abcabcabcabc", &["abcabcabc"], "[redacted]"),
            ("ababababab ab", &["abababab", "ab"], "[redacted] [redacted]"),
            ("long-secret-1 in long-secret-12", &["long-secret-1", "long-secret-12"], "[redacted] in [redacted]"),
            ("inner-secret", &["inner-secret", "inner"], "[redacted]"),
            ("one-secret.two-secret", &["one-secret", "two-secret"], "[redacted].[redacted]"),
            ("s3cret-ééés3cret-ééé", &["s3cret-ééé", "ééés3cret"], "[redacted]"),
            ("none", &["", "other-secret"], "none"),
        ] {
            assert_eq!(redacted(text, secrets.iter().copied()), expected, "{text}");
        }
    }

    #[test]
    fn a_secret_that_is_echoed_in_an_encoding_is_taken_out_too() {
        for (text, secret) in [
            ("client_secret=s3%2Bc%2fret%3d", "s3+c/ret="),
            ("client_secret=s3+cret+of+ours", "s3 cret of ours"),
            ("client_secret=%73%33cret-of-ours", "s3cret-of-ours"),
            ("client_secret=100%25-s3cret", "100%-s3cret"),
            ("client_secret=s3cret-%C3%A9%e2%82%ac", "s3cret-é€"),
            (r"client_secret=s3\u002bc\u002Fret", "s3+c/ret"),
            (r"client_secret=s3c\/ret-of\/ours", "s3c/ret-of/ours"),
            (r#"client_secret=s3c\"ret\\of-ours"#, r#"s3c"ret\of-ours"#),
            (r"client_secret=s3cret-\ud83d\ude00", "s3cret-😀"),
            (r"client_secret=a\u002bb", "a+b"),
        ] {
            assert_eq!(redacted(text, [secret]), "client_secret=[redacted]", "{text}");
        }
        for (text, secret) in
            [("s3%2Ccret-ours", "s3+cret-ours"), (r"s3\u002ccret-ours", "s3+cret-ours"), ("%2", "%2B")]
        {
            assert_eq!(redacted(text, [secret]), text, "it is another");
        }
    }

    #[test]
    fn names_of_secrets_are_known_in_every_spelling() {
        for name in [
            "client_secret",
            "clientSecret",
            "api_key",
            "apiKey",
            "x-api-key",
            "passphrase",
            "pwd",
            "db_pwd",
            "Password",
            "private_key",
            "registration_access_token",
            "refresh_token",
            "client_assertion",
            "code",
            "code_verifier",
            "password_hint",
            "tokens",
            "credentials",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "token_type",
            "tokenType",
            "subject_token_type",
            "token_type_hint",
            "token_type_extension",
            "token_endpoint",
            "token_endpoint_auth_method",
            "token_endpoint_auth_signing_alg",
            "tokenScope",
            "secretId",
            "expiresAt",
            "client_secret_expires_at",
            "access_token_lifetime",
            "client_name",
            "postal_code",
            "keyType",
            "key",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn prints_redacted() {
        assert_eq!(format!("{:?}", Secret::Inline("hunter2".into())), "[redacted]");
    }

    #[test]
    fn three_forms_are_read_and_no_error_shows_a_word() {
        let read = |json: &str| serde_json::from_str::<Secret>(json).map_err(|error| error.to_string());
        assert!(read(r#""x""#).is_ok_and(|secret| secret == Secret::Inline("x".into())));
        assert!(read(r#"{"file": "/x"}"#).is_ok_and(|secret| matches!(secret, Secret::File(_))));
        assert!(read(r#"{"env": "X"}"#).is_ok_and(|secret| matches!(secret, Secret::Env(_))));
        for wrong in [
            r#"["hunter2"]"#,
            r#"{"hunter2": "hunter2"}"#,
            r#"{"file": "hunter2", "env": "hunter2"}"#,
            r#"{"file": "hunter2", "file": "hunter2"}"#,
            "{}",
            "4711",
            "null",
        ] {
            let error = read(wrong).map(drop).unwrap_err();
            assert!(error.contains("a secret: a string") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn file_loses_its_newline_and_empty_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("secret");
        std::fs::write(&file, "s3cret\n")?;
        let secret = Secret::File(FileSource { file: file.clone() });
        assert_eq!(secret.read()?.as_str(), "s3cret");
        std::fs::write(&file, "\n")?;
        assert!(matches!(secret.read(), Err(Error::Empty)));
        Ok(())
    }
}
