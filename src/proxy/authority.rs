//! Which host a request asks for (RFC 9112 section 3.2, RFC 9113 section 8.3.1). Whatever could be read in two ways
//! is refused.

use std::{borrow::Cow, net::Ipv6Addr};

use http::{Method, Uri, Version};

use crate::{
    authz::Denial,
    net::{Fields, message::Head},
};

/// The host a request asks for: lower case, without port and trailing dot; empty only for HTTP/1.0 without one.
pub(super) fn host(head: &Head, tls: bool) -> Result<Cow<'_, str>, Denial> {
    if head.method == Method::CONNECT {
        return Err(Denial::Method);
    }
    let field = single_host(&head.fields)?;
    let default_port = if tls { 443 } else { 80 };
    match (target(&head.uri)?, field) {
        (None, None) if head.version < Version::HTTP_11 => Ok(Cow::Borrowed("")),
        (None, None) => Err(Denial::Host),
        (None, Some(field)) => read(field).map(|named| named.host),
        (Some(target), None) if head.version != Version::HTTP_11 => read(target).map(|named| named.host),
        (Some(_), None) => Err(Denial::Host),
        (Some(target), Some(field)) => {
            let (target, field) = (read(target)?, read(field)?);
            let same =
                target.host == field.host && target.port.unwrap_or(default_port) == field.port.unwrap_or(default_port);
            if same { Ok(target.host) } else { Err(Denial::Host) }
        }
    }
}

/// The authority of an absolute-form target, or `:authority`. Of another scheme than http and https (RFC 9110 section 4.2)
/// nothing is served here, and without one it is CONNECT's form: 400 for both, as Envoy has it; nginx passes any scheme.
fn target(uri: &Uri) -> Result<Option<&str>, Denial> {
    let Some(authority) = uri.authority() else { return Ok(None) };
    match uri.scheme_str() {
        Some("http" | "https") => Ok(Some(authority.as_str())),
        _ => Err(Denial::Host),
    }
}

fn single_host(fields: &Fields) -> Result<Option<&str>, Denial> {
    let mut hosts = fields.all("host");
    let Some(host) = hosts.next() else { return Ok(None) };
    if hosts.next().is_some() {
        return Err(Denial::Host);
    }
    str::from_utf8(host).map(Some).map_err(|_| Denial::Host)
}

#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    host: Cow<'a, str>,
    port: Option<u16>,
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; no user information and no characters that a name does not have.
fn read(text: &str) -> Result<Named<'_>, Denial> {
    let end = if text.starts_with('[') {
        text.find(']').ok_or(Denial::Host)? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, port) = text.split_at(end);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().map_err(|_| Denial::Host)?),
        _ => return Err(Denial::Host),
    };
    let kinds = host.bytes().fold(0, |kinds, byte| kinds | KINDS[usize::from(byte)]);
    let good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => kinds & OTHER == 0,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if !good || host.is_empty() || host.ends_with('.') {
        return Err(Denial::Host);
    }
    let host = if kinds & UPPER != 0 { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) };
    Ok(Named { host, port })
}

/// What a byte of a name is, if it is no lower case letter, digit or mark: every request names a host.
static KINDS: [u8; 256] = {
    let mut kinds = [OTHER; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        if byte.is_ascii_uppercase() {
            kinds[byte as usize] = UPPER;
        } else if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            kinds[byte as usize] = 0;
        }
        byte += 1;
    }
    kinds
};
const UPPER: u8 = 1;
const OTHER: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn asked(request: http::request::Builder) -> Head {
        request.body(()).unwrap().into_parts().0.into()
    }

    fn judge(version: Version, target: &str, hosts: &[&str]) -> Result<String, Denial> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        host(&asked(request), false).map(Cow::into_owned)
    }

    #[test]
    fn hosts_are_normalised() {
        for (given, expected) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:80", "example.com"),
            ("example.com:", "example.com"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
        ] {
            assert_eq!(judge(Version::HTTP_11, "/", &[given]).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn odd_hosts_are_refused() {
        for given in [
            "",
            "a,b",
            "u@h",
            "a\"; for=1.2.3.4",
            "a b",
            "a/b",
            "a:b",
            "a:99999",
            "[::1",
            "[x]",
            ".",
            "a..",
            "a:1:2",
            "é",
            "a%2e",
        ] {
            assert_eq!(judge(Version::HTTP_11, "/", &[given]), Err(Denial::Host), "{given}");
        }
    }

    #[test]
    fn one_host_is_named_and_only_one() {
        assert_eq!(judge(Version::HTTP_11, "/", &[]), Err(Denial::Host));
        assert_eq!(judge(Version::HTTP_11, "/", &["a", "a"]), Err(Denial::Host));
        assert_eq!(judge(Version::HTTP_10, "/", &[]).as_deref(), Ok(""));
        assert_eq!(judge(Version::HTTP_11, "http://a/x", &["A:80"]).as_deref(), Ok("a"));
        assert_eq!(judge(Version::HTTP_11, "http://evil/x", &["a"]), Err(Denial::Host));
        assert_eq!(judge(Version::HTTP_11, "http://a:81/x", &["a"]), Err(Denial::Host));
        assert_eq!(judge(Version::HTTP_11, "http://u@a/x", &["a"]), Err(Denial::Host));
        assert_eq!(judge(Version::HTTP_2, "http://a/x", &[]).as_deref(), Ok("a"));
        assert_eq!(judge(Version::HTTP_2, "http://a/x", &["b"]), Err(Denial::Host));
    }

    #[test]
    fn a_target_is_of_http_or_it_is_none() {
        for target in ["http://a/x", "https://a/x", "HTTP://a/x", "hTTps://a"] {
            assert!(judge(Version::HTTP_2, target, &[]).is_ok(), "{target}");
        }
        for target in ["ftp://a/x", "ws://a/x", "httpx://a/x", "a:80", "a"] {
            assert_eq!(judge(Version::HTTP_11, target, &["a"]), Err(Denial::Host), "{target}");
            assert_eq!(judge(Version::HTTP_2, target, &[]), Err(Denial::Host), "{target}");
        }
    }

    #[test]
    fn connect_is_no_method_of_ours() {
        let request = Request::builder().method("CONNECT").uri("a:443").header("host", "a:443");
        assert_eq!(host(&asked(request), false), Err(Denial::Method));
    }
}
