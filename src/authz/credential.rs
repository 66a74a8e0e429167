//! Finds the one credential of a request (RFC 6750 section 2), and keeps it from the upstream's query.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{CheckRequest, Denial, ForwardQuery, is_open};
use crate::{
    store::{Api, AuthRule, Resource},
    token::Flaw,
};

/// The bearer token, from an enabled place. `None`: the request is anonymous, and may be.
pub(super) fn find<'r>(
    request: &CheckRequest<'r>,
    api: &Api,
    resource: &Resource,
) -> Result<Option<Cow<'r, str>>, Denial> {
    if is_open(resource) {
        return Ok(None);
    }
    let header = if api.token_in_header { from_header(request)? } else { None };
    let query = if api.token_in_query { from_query(request.query)? } else { None };
    match (header, query) {
        (Some(_), Some(_)) => Err(Denial::Credentials),
        (Some(token), None) => Ok(Some(Cow::Borrowed(token))),
        (None, Some(token)) => Ok(Some(token)),
        (None, None) if resource.auth == AuthRule::Optional => Ok(None),
        (None, None) => Err(Denial::NoCredential),
    }
}

/// `Authorization: Bearer …`; another scheme is no credential here.
fn from_header<'r>(request: &CheckRequest<'r>) -> Result<Option<&'r str>, Denial> {
    let mut fields = request.headers.all("authorization");
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Denial::Credentials);
    }
    let field = field.trim_ascii();
    let scheme_end = field.iter().position(|b| BLANK.contains(b)).unwrap_or(field.len());
    let (scheme, token) = field.split_at(scheme_end);
    let token = token.trim_ascii_start();
    if token.is_empty() {
        return Ok(None);
    }
    if scheme.eq_ignore_ascii_case(b"dpop") {
        // A token of ours all the same, bound to a key whose proof this build cannot check (RFC 9449).
        return Err(Denial::Token(Flaw::Bound));
    }
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    // Two credentials in one field, which some clients and proxies fold together.
    if memchr::memchr3(b',', b' ', b'\t', token).is_some() {
        return Err(Denial::Credentials);
    }
    // Tokens are long.
    simdutf8::basic::from_utf8(token).map(Some).map_err(|_| Denial::Token(Flaw::Malformed))
}

/// `?access_token=…`
fn from_query(query: Option<&str>) -> Result<Option<Cow<'_, str>>, Denial> {
    let mut values = parameters(query.unwrap_or_default()).filter(|(name, _)| is_token_name(name));
    let Some((_, value)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denial::Credentials);
    }
    match percent_decode_str(value).decode_utf8() {
        Ok(token) if token.is_empty() => Ok(None),
        Ok(token) => Ok(Some(token)),
        Err(_) => Err(Denial::Token(Flaw::Malformed)),
    }
}

/// The query for the upstream: never with a token in it, whether the place is enabled or not.
pub(super) fn without_token(query: Option<&str>) -> ForwardQuery {
    // However it is encoded, the name is no shorter.
    let Some(query) = query.filter(|query| query.len() >= TOKEN_PARAMETER.len()) else { return ForwardQuery::AsSent };
    if !parameters(query).any(|(name, _)| is_token_name(name)) {
        return ForwardQuery::AsSent;
    }
    let kept: Vec<&str> = query.split('&').filter(|part| !is_token_name(split(part).0)).collect();
    ForwardQuery::Without((!kept.is_empty()).then(|| kept.join("&").into_boxed_str()))
}

/// Names and values, as sent.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(split)
}

fn split(part: &str) -> (&str, &str) {
    part.split_once('=').unwrap_or((part, ""))
}

/// Whether a parameter's name says `access_token`, however it is encoded.
fn is_token_name(name: &str) -> bool {
    name == TOKEN_PARAMETER || (name.contains('%') && percent_decode_str(name).eq(TOKEN_PARAMETER.bytes()))
}

const TOKEN_PARAMETER: &str = "access_token";
const BLANK: [u8; 2] = [b' ', b'\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_leave_the_query_in_every_spelling() {
        let without = |query| match without_token(Some(query)) {
            ForwardQuery::AsSent => Some(query.to_owned()),
            ForwardQuery::Without(rest) => rest.map(String::from),
        };
        for (sent, forwarded) in [
            ("a=1&b=%2F..", Some("a=1&b=%2F..")),
            ("access_token=x", None),
            ("a=1&access_token=x&b=2", Some("a=1&b=2")),
            ("access%5Ftoken=x&a", Some("a")),
            ("%61ccess_token=x&access_token=y&c=d", Some("c=d")),
            ("access_tokens=x&xaccess_token=y", Some("access_tokens=x&xaccess_token=y")),
            ("access_token", None),
            ("", Some("")),
        ] {
            assert_eq!(without(sent).as_deref(), forwarded, "{sent}");
        }
    }

    #[test]
    fn query_tokens_are_decoded_and_single() {
        assert_eq!(from_query(Some("a=b&access_token=a%2Eb")), Ok(Some(Cow::Borrowed("a.b"))));
        assert_eq!(from_query(Some("access_token=")), Ok(None));
        assert_eq!(from_query(Some("access_token=a&access%5ftoken=b")), Err(Denial::Credentials));
        assert_eq!(from_query(Some("access_token=%ff")), Err(Denial::Token(Flaw::Malformed)));
        assert_eq!(from_query(None), Ok(None));
    }
}
