//! Upstream addresses: `http://`, `https://`, `h2c://`, `unix:` and `echo:`.

use url::{Host, Url};

use super::{Upstream, UpstreamScheme, path::canonical};

impl Upstream {
    /// Reads an upstream as the configuration writes it, or says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "echo:" {
            return Ok(Self::local(UpstreamScheme::Echo, "", "echo"));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') {
                true => Ok(Self::local(UpstreamScheme::Unix, path, "localhost")),
                false => Err("unix: is followed by the absolute path of a socket"),
            };
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let (scheme, like, own_port) = match scheme {
            "http" => (UpstreamScheme::Http, "http", 80),
            "https" => (UpstreamScheme::Https, "https", 443),
            "h2c" => (UpstreamScheme::H2c, "http", 80),
            _ => return Err(FORM),
        };
        let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = host_and_port(like, authority)?;
        let port = port.unwrap_or(own_port);
        Ok(Self {
            scheme,
            authority: written_authority(&host, port, own_port).into(),
            host: host.to_string().trim_start_matches('[').trim_end_matches(']').into(),
            port,
            base_path: base_path(base)?.into(),
        })
    }

    fn local(scheme: UpstreamScheme, host: &str, authority: &str) -> Self {
        Self { scheme, host: host.into(), port: 0, authority: authority.into(), base_path: "".into() }
    }
}

/// Host and port of an authority; user information, spaces and the like are refused, not repaired.
fn host_and_port(scheme: &str, authority: &str) -> Result<(Host, Option<u16>), &'static str> {
    if authority.contains('@') {
        return Err("an upstream has no user information");
    }
    let odd = |c: char| matches!(c, '\\' | '?' | '#' | '%') || c.is_whitespace() || c.is_control();
    if authority.is_empty() || authority.ends_with(':') || authority.contains(odd) {
        return Err(FORM);
    }
    let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| FORM)?;
    let host = url.host().ok_or(FORM)?.to_owned();
    // `Url` hides a port that is the scheme's own; that one needs no telling.
    match url.port() {
        Some(0) => Err("port 0 is nowhere"),
        port => Ok((host, port)),
    }
}

fn written_authority(host: &Host, port: u16, own_port: u16) -> String {
    if port == own_port { host.to_string() } else { format!("{host}:{port}") }
}

/// The path before every forwarded path, without a trailing slash.
fn base_path(base: &str) -> Result<String, &'static str> {
    if base.contains(['?', '#']) {
        return Err("an upstream has no query and no fragment");
    }
    if base.is_empty() || base == "/" {
        return Ok(String::new());
    }
    let path = canonical(base).map_err(|flaw| flaw.describe())?;
    Ok(path.strip_suffix('/').unwrap_or(&path).to_owned())
}

const FORM: &str = "an upstream is http://host[:port][/base], https://…, h2c://…, unix:/path or echo:";

#[cfg(test)]
mod tests {
    use super::*;
    use UpstreamScheme::{Echo, H2c, Http, Https, Unix};

    #[test]
    fn addresses_are_read_into_their_parts() {
        for (text, scheme, host, port, authority, base_path) in [
            ("http://127.0.0.1:3000", Http, "127.0.0.1", 3000, "127.0.0.1:3000", ""),
            ("http://api.local", Http, "api.local", 80, "api.local", ""),
            ("http://api.local:80/", Http, "api.local", 80, "api.local", ""),
            ("http://API.Local:8080/v1/", Http, "api.local", 8080, "api.local:8080", "/v1"),
            ("https://api.local", Https, "api.local", 443, "api.local", ""),
            ("https://api.local:80", Https, "api.local", 80, "api.local:80", ""),
            ("https://api.local/a/b%2dc", Https, "api.local", 443, "api.local", "/a/b-c"),
            ("h2c://[::1]:50051", H2c, "::1", 50051, "[::1]:50051", ""),
            ("h2c://grpc", H2c, "grpc", 80, "grpc", ""),
            ("unix:/run/api.sock", Unix, "/run/api.sock", 0, "localhost", ""),
            ("echo:", Echo, "", 0, "echo", ""),
        ] {
            let upstream = Upstream::parse(text).expect(text);
            let read = (upstream.scheme, &*upstream.host, upstream.port, &*upstream.authority, &*upstream.base_path);
            assert_eq!(read, (scheme, host, port, authority, base_path), "{text}");
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "",
            "127.0.0.1:3000",
            "http:",
            "http://",
            "http:///a",
            "http:/a",
            "ftp://a",
            "HTTP://a",
            "http://u@a",
            "http://u:p@a",
            "http://a?b",
            "http://a/b?c",
            "http://a/b#c",
            "http://a#b",
            "http://a:",
            "http://a:0",
            "http://a:99999",
            "http://a b",
            "http://a\\b",
            "http://a/../b",
            "http://a//b",
            "http://a/b;c",
            "http://[::1",
            "http://%61",
            "unix:run/a",
            "unix:",
            "unix:/run/",
            "echo",
            "echo:x",
            "echo://",
        ] {
            assert!(Upstream::parse(text).is_err(), "{text}");
        }
    }
}
