//! For how long an answer says it stays fresh (RFC 9111 sections 4.2 and 5.2.2.1).
//!
//! Only `max-age` counts, less the `Age` that a cache on the way has added. What forbids caching says nothing of
//! when to ask again, and neither does what cannot be read.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

/// What is left of the answer's `max-age`; the least, where it has several.
pub(super) fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = values(headers, header::CACHE_CONTROL).flat_map(|value| value.split(','));
    let age = values(headers, header::AGE).filter_map(|value| seconds(value.trim())).max().unwrap_or_default();
    let least = directives.filter_map(directive).min()?;
    Some(Duration::from_secs(least.saturating_sub(age)))
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

fn directive(text: &str) -> Option<u64> {
    let (name, value) = text.split_once('=')?;
    let value = value.trim().trim_matches('"');
    name.trim().eq_ignore_ascii_case("max-age").then(|| seconds(value)).flatten()
}

/// A number of seconds; one too large to hold is the largest (RFC 9111 section 1.2.2).
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn max_age_is_read_in_every_form() {
        for (fields, expected) in [
            (&[][..], None),
            (&[("cache-control", "max-age=60")], Some(60)),
            (&[("cache-control", "public, Max-Age = \"60\", must-revalidate")], Some(60)),
            (&[("cache-control", "max-age=0")], Some(0)),
            (&[("cache-control", "max-age=1000000000000")], Some(1_000_000_000_000)),
            (&[("cache-control", "max-age=99999999999999999999999")], Some(u64::MAX)),
            (&[("cache-control", "max-age=300"), ("age", "299")], Some(1)),
            (&[("cache-control", "max-age=300"), ("age", "301")], Some(0)),
            (&[("cache-control", "max-age=300, max-age=20")], Some(20)),
            (&[("cache-control", "max-age=300"), ("cache-control", "max-age=20")], Some(20)),
            (&[("cache-control", "no-cache, no-store")], None),
            (&[("cache-control", "s-maxage=60")], None),
            (&[("cache-control", "max-age=-1")], None),
            (&[("cache-control", "max-age=")], None),
            (&[("cache-control", "max-age=1e3")], None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{fields:?}");
        }
    }
}
