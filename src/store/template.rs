//! What is compared with paths: contexts, versions, templates and hosts, as the configuration writes them.
//!
//! Literals are brought to the canonical form of request paths, so that `/café` matches however it is sent.

use std::borrow::Cow;

use super::path::{canonical, comparable};

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// This text, in canonical form.
    Exact(Cow<'a, str>),
    /// Any one segment that is not empty.
    Param,
    /// Everything below, and the parent itself.
    Rest,
}

/// The segments of a template, or what is wrong with it. One trailing slash means nothing.
pub(super) fn template(text: &str) -> Result<Vec<Part<'_>>, &'static str> {
    if !text.starts_with('/') {
        return Err("a template begins with a slash");
    }
    let body = text.strip_suffix('/').unwrap_or(text);
    let mut parts = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let end = body[at + 1..].find('/').map_or(body.len(), |n| at + 1 + n);
        parts.push(part(&body[at..end], end == text.len())?);
        at = end;
    }
    if parts.len() > MAX_SEGMENTS {
        return Err("a template has at most 128 segments");
    }
    Ok(parts)
}

/// One segment, with its leading slash.
fn part(segment: &str, last: bool) -> Result<Part<'_>, &'static str> {
    let text = &segment[1..];
    if text == "*" {
        return if last { Ok(Part::Rest) } else { Err("`*` stands only at the end, as `/*`") };
    }
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))
        && is_param_name(name)
    {
        return Ok(Part::Param);
    }
    literal(segment).map(Part::Exact)
}

/// A literal segment, with its leading slash, in canonical form without it.
fn literal(segment: &str) -> Result<Cow<'_, str>, &'static str> {
    if segment.contains(['{', '}']) {
        return Err("a parameter is a whole segment, such as {id}: letters, digits, `_`, `-` and `.`");
    }
    if segment.contains('*') {
        return Err("`*` stands only at the end, as `/*`");
    }
    let text = canonical(segment).map_err(|flaw| flaw.describe())?;
    match &*comparable(&text) {
        "/" => Err("has an empty segment"),
        text => Ok(Cow::Owned(text[1..].to_owned())),
    }
}

/// Plain names only: `{path*}` and `{+path}` mean several segments elsewhere (RFC 6570), here they would not.
fn is_param_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// A context such as `/a` or `/a/b` in canonical form; `/` is the empty one.
pub(super) fn context(text: &str) -> Result<String, &'static str> {
    if text == "/" {
        return Ok(String::new());
    }
    if !text.starts_with('/') {
        return Err("a context begins with a slash");
    }
    if text.ends_with('/') {
        return Err("a context ends without a slash");
    }
    if text.contains(['{', '}', '*']) {
        return Err("a context has no parameters and no `*`");
    }
    canonical(text).map(|text| comparable(&text).into_owned()).map_err(|flaw| flaw.describe())
}

/// A version as a path segment in canonical form, with a leading slash.
pub(super) fn version(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains('/') {
        return Err("a version is one path segment");
    }
    if text.contains(['{', '}', '*']) {
        return Err("a version has no parameters and no `*`");
    }
    canonical(&format!("/{text}")).map(|text| comparable(&text).into_owned()).map_err(|flaw| flaw.describe())
}

/// A host in the form requests are looked up by: lower case, without port, trailing dot and brackets.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    const FORM: &str = "a host is a name or an address, such as api.example.com; a port is ignored";
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(FORM)?;
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| FORM)?;
            (address.to_string(), after)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (text[..end].to_ascii_lowercase(), &text[end..])
        }
    };
    let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    let name = name.strip_suffix('.').unwrap_or(&name);
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if name.is_empty() || !port_is_good || !name.chars().all(is_host) || name.split('.').any(str::is_empty) {
        return Err(FORM);
    }
    Ok(name.to_owned())
}

/// Deeper than any real API; bounds the recursion of a look-up.
const MAX_SEGMENTS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &'static str) -> Part<'static> {
        Part::Exact(text.into())
    }

    #[test]
    fn templates_read_segment_by_segment() {
        for (text, parts) in [
            ("/", vec![]),
            ("/*", vec![Part::Rest]),
            ("/items", vec![exact("items")]),
            ("/items/", vec![exact("items")]),
            ("/items/{id}", vec![exact("items"), Part::Param]),
            ("/{a}/b/*", vec![Part::Param, exact("b"), Part::Rest]),
            ("/{order-id}/{x_1.y}", vec![Part::Param, Part::Param]),
            ("/café", vec![exact("caf%C3%A9")]),
            ("/%63af%c3%a9", vec![exact("caf%C3%A9")]),
            ("/a b", vec![exact("a%20b")]),
            ("/a:b@c", vec![exact("a:b@c")]),
        ] {
            assert_eq!(template(text), Ok(parts), "{text}");
        }
    }

    #[test]
    fn other_templates_are_refused() {
        let deep = "/a".repeat(MAX_SEGMENTS + 1);
        for text in [
            "", "items", "*", "//", "/a//b", "/*/", "/*/a", "/a*", "/**", "/*.json", "/{a}{b}", "/x{a}", "/{a}x",
            "/{}", "/{", "/}", "/{a", "/{a/b}", "/{+a}", "/{a*}", "/{a b}", "/..", "/a/./b", "/a;b", "/a#b", "/a?b",
            "/a%2Fb", "/%", "/a\\b", &deep,
        ] {
            assert!(template(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_lose_case_port_and_dot() {
        for (text, expected) in [
            ("EXAMPLE.com", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:443", "example.com"),
            ("Example.com.:8443", "example.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]:8080", "::1"),
            ("[0:0::1]", "::1"),
            ("my_service", "my_service"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", ".", ":80", "a..b", "a b", "http://a", "a/b", "*.a", "a:b", "a:99999", "::1", "[::1", "é.com"]
        {
            assert!(host(text).is_err(), "{text}");
        }
    }
}
