//! Conditions on a request, as condition groups of advanced tiers have them.

use http::HeaderName;
use regex_automata::{
    Input,
    dfa::{
        Automaton,
        dense::{self, DFA},
    },
    nfa::thompson,
    util::syntax,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{range::Range, suggest::Problems, tier::Digest};

/// One condition: exactly one of `ip`, `ip_range`, `header`, `query` and `claim`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionSettings {
    /// The client's address, or a network that it is in.
    pub ip: Option<String>,
    /// The first and the last address of a range that it is in; both count.
    pub ip_range: Option<Vec<String>>,
    /// A header field by name, in whose value `matches` is found; any of several lines.
    pub header: Option<String>,
    /// A parameter of the query by name, in whose decoded value `matches` is found, `+` being itself or a space; any of
    /// several.
    pub query: Option<String>,
    /// A claim of the token by name, in whose value `matches` is found, as an identity header would carry it.
    pub claim: Option<String>,
    /// A regular expression; found anywhere in the value, unless it has `^` and `$`. Of bytes: `\w` and `(?i)` are ASCII's.
    pub matches: Option<String>,
    /// Whether it holds where it else would not: also where there is no such value or address.
    #[serde(default)]
    pub invert: bool,
}

impl ConditionSettings {
    /// What tells it from others.
    pub(super) fn tell(&self, digest: &mut Digest) {
        let Self { ip, ip_range, header, query, claim, matches, invert } = self;
        for text in [ip, header, query, claim, matches] {
            digest.number(text.is_some().into()).text(text.as_deref().unwrap_or_default());
        }
        let range = ip_range.as_deref().unwrap_or_default();
        range.iter().for_each(|end| _ = digest.text(end));
        digest.number(range.len() as u32).number((*invert).into());
    }
}

/// A condition, ready to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What is looked at.
    pub on: On,
    /// Whether it holds where it else would not.
    pub invert: bool,
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// The client's address.
    Address(Range),
    /// A header field.
    Header(HeaderName, Pattern),
    /// A parameter of the query.
    Query(Box<str>, Pattern),
    /// A claim of the token.
    Claim(Box<str>, Pattern),
}

impl Condition {
    /// Reads a condition; none, and a problem, if something is wrong with it.
    pub(super) fn build(settings: &ConditionSettings, at: &str, problems: &mut Problems) -> Option<Self> {
        let field: &dyn Fn(&str) -> String = &|name| format!("{at}.{name}");
        let ConditionSettings { ip, ip_range, header, query, claim, matches, invert } = settings;
        let given = [ip.is_some(), ip_range.is_some(), header.is_some(), query.is_some(), claim.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            problems.add(at, "has exactly one of ip, ip_range, header, query and claim");
            return None;
        }
        let by_address = ip.is_some() || ip_range.is_some();
        let pattern = match (by_address, matches) {
            (true, None) => None,
            (true, Some(_)) => {
                problems.add(field("matches"), "is for header, query and claim");
                return None;
            }
            (false, None) => {
                problems.add(field("matches"), "is needed: what is searched in the value");
                return None;
            }
            (false, Some(text)) => Some(Pattern::build(text, || field("matches"), problems)?),
        };
        let on = match pattern {
            None => On::Address(Range::given(ip.as_deref(), ip_range.as_deref(), field, problems)?),
            Some(pattern) => match (header, query, claim) {
                (Some(name), _, _) => On::Header(header_name(name, field, problems)?, pattern),
                (None, Some(name), _) => On::Query(named(name, "query", field, problems)?, pattern),
                (None, None, name) => {
                    On::Claim(named(name.as_deref().unwrap_or_default(), "claim", field, problems)?, pattern)
                }
            },
        };
        Some(Self { on, invert: *invert })
    }
}

fn header_name(text: &str, field: &dyn Fn(&str) -> String, problems: &mut Problems) -> Option<HeaderName> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| problems.add(field("header"), "is not a header name")).ok()
}

fn named(text: &str, name: &str, field: &dyn Fn(&str) -> String, problems: &mut Problems) -> Option<Box<str>> {
    (!problems.refuse_empty(text, || field(name))).then(|| text.into())
}

/// A regular expression, made into an automaton when it is read: searching takes a step for each byte of the value,
/// locks nothing and allocates nothing.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    automaton: DFA<Vec<u32>>,
}

impl Pattern {
    /// Reads an expression; none, and a problem, if it is none or too large.
    pub(super) fn build(text: &str, field: impl Fn() -> String, problems: &mut Problems) -> Option<Self> {
        let automaton = match parts_of(text) {
            Ok(()) => automaton(text),
            Err(flaw) => {
                problems.add(field(), flaw);
                return None;
            }
        };
        if automaton.is_none() {
            problems.add(field(), TOO_LARGE);
        }
        automaton.map(|automaton| Self { text: text.into(), automaton })
    }

    /// Whether it is found in `value`.
    pub fn is_in(&self, value: &[u8]) -> bool {
        // It has no byte at which it gives up.
        self.automaton.try_search_fwd(&Input::new(value).earliest(true)).is_ok_and(|found| found.is_some())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

/// Whether it is an expression; if not, what is wrong with it and where. The crate's own message would quote the value.
fn parts_of(text: &str) -> Result<(), String> {
    if text.len() > MOST_TEXT {
        return Err(format!("is longer than {MOST_TEXT} bytes"));
    }
    let (flaw, span) = match syntax::parse_with(text, &form()) {
        Ok(_) => return Ok(()),
        Err(regex_syntax::Error::Parse(error)) => (error.kind().to_string(), *error.span()),
        Err(regex_syntax::Error::Translate(error)) => (error.kind().to_string(), *error.span()),
        Err(_) => return Err("is no regular expression".into()),
    };
    // Where a second place of the expression is told, it is after a break.
    let flaw = flaw.lines().next().unwrap_or_default();
    let at = text.get(..span.start.offset).unwrap_or(text).chars().count() + 1;
    Err(format!("is no regular expression: at character {at}: {flaw}"))
}

fn form() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false).nest_limit(MOST_NESTED)
}

fn automaton(text: &str) -> Option<DFA<Vec<u32>>> {
    dense::Builder::new()
        .configure(dense::Config::new().dfa_size_limit(Some(MOST_STATES)).determinize_size_limit(Some(MOST_STATES)))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(MOST_STATES)))
        .syntax(form())
        .build(text)
        .ok()
}

const TOO_LARGE: &str = "is too large a regular expression: 512 KiB at most once it is compiled";
const MOST_TEXT: usize = 1 << 10;
const MOST_STATES: usize = 512 << 10;
const MOST_NESTED: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<Pattern, String> {
        let mut problems = Problems::default();
        let pattern = Pattern::build(text, || "matches".into(), &mut problems);
        problems.into_result().map_err(|all| all[0].message.clone())?;
        pattern.ok_or_else(|| "none".into())
    }

    #[test]
    fn expressions_are_searched_anywhere_in_bytes() {
        for (text, value, expected) in [
            ("curl", &b"a curl/8"[..], true),
            ("^curl", b"a curl/8", false),
            ("^(a|b)$", b"b", true),
            ("^(a|b)$", b"bb", false),
            ("(?i)CURL", b"xcurl", true),
            (r"\bfoo\b", b"a foo b", true),
            (r"\d{3}", b"12\xff345", true),
            ("\u{e9}", "caf\u{e9}".as_bytes(), true),
            ("", b"", true),
            ("x", b"", false),
        ] {
            assert_eq!(pattern(text).unwrap().is_in(value), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_searched_in_bounded_time_and_room_is_refused() {
        let long = "a".repeat(MOST_TEXT + 1);
        for text in ["(a{1000}){1000}", "[ab]*a[ab]{30}"] {
            assert_eq!(pattern(text).unwrap_err(), TOO_LARGE, "{text}");
        }
        assert_eq!(pattern(&long).unwrap_err(), "is longer than 1024 bytes");
    }

    #[test]
    fn what_is_no_expression_is_told_with_the_place_and_without_the_value() {
        for (text, expected) in [
            ("(", "at character 1: unclosed group"),
            ("\u{e9}x(", "at character 3: unclosed group"),
            ("a**b(", "at character 5: unclosed group"),
            ("ab*)", "at character 4: unopened group"),
            ("*secret", "at character 1: repetition operator missing expression"),
            (r"(?=a)", "at character 1: look-around, including look-ahead and look-behind, is not supported"),
            (r"(a)\1", "at character 4: backreferences are not supported"),
            ("[z-a]", "at character 2: invalid character class range, the start must be <= the end"),
            (r"\pL", "at character 1: Unicode not allowed here"),
        ] {
            assert_eq!(pattern(text).unwrap_err(), format!("is no regular expression: {expected}"), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_field() {
        let none = ConditionSettings {
            ip: None,
            ip_range: None,
            header: None,
            query: None,
            claim: None,
            matches: None,
            invert: false,
        };
        let some = |text: &str| Some(text.to_owned());
        for (settings, expected) in [
            (none.clone(), "c"),
            (ConditionSettings { ip: some("::1"), header: some("a"), ..none.clone() }, "c"),
            (ConditionSettings { ip: some("x"), ..none.clone() }, "c.ip"),
            (ConditionSettings { ip: some("::1"), matches: some("a"), ..none.clone() }, "c.matches"),
            (ConditionSettings { ip_range: Some(vec!["::1".into()]), ..none.clone() }, "c.ip_range"),
            (ConditionSettings { header: some("a"), ..none.clone() }, "c.matches"),
            (ConditionSettings { header: some("a b"), matches: some("a"), ..none.clone() }, "c.header"),
            (ConditionSettings { query: some(""), matches: some("a"), ..none.clone() }, "c.query"),
            (ConditionSettings { claim: some(""), matches: some("a"), ..none.clone() }, "c.claim"),
            (ConditionSettings { claim: some("a"), matches: some("("), ..none.clone() }, "c.matches"),
        ] {
            let mut problems = Problems::default();
            let built = Condition::build(&settings, "c", &mut problems);
            assert_eq!(built, None);
            assert_eq!(problems.into_result().unwrap_err()[0].field, expected, "{settings:?}");
        }
    }
}
