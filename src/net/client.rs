//! The client towards providers: one, hardened, shared by all connectors.
//!
//! It never follows a redirect, never reads more than it is told to, never waits without a limit, and never
//! connects to link-local addresses, where clouds keep their credentials. Proxies named by environment
//! variables are not used: through which host our secrets travel is not for an inherited variable to say.

use std::{
    error::Error as _,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, header};
use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use url::{Host, Url};

/// The client. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client(reqwest::Client);

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Status; redirects are answers like any other.
    pub status: StatusCode,
    /// Body, no longer than asked for.
    pub body: Bytes,
}

/// Why there is no answer. Names the address asked, never a body.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client cannot be built: no trusted roots.
    #[error("{0}")]
    Roots(String),
    /// The address must not be asked.
    #[error("{0} is a link-local address")]
    Forbidden(String),
    /// No connection, or it broke, or it took too long.
    #[error("{url}: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The body is longer than allowed.
    #[error("{url}: the body is longer than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// The limit.
        limit: usize,
    },
}

impl Client {
    /// A client that trusts [`root_store`].
    pub fn new() -> Result<Self, ClientError> {
        Self::with_roots(root_store()?)
    }

    /// A client that trusts `roots` alone.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that builds a client")]
    pub fn with_roots(roots: Arc<RootCertStore>) -> Result<Self, ClientError> {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Roots(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(2)
            .dns_resolver(Arc::new(Resolver))
            .build()
            .map(Self)
            .map_err(|error| ClientError::Roots(error.to_string()))
    }

    /// Gets a document of at most `limit` bytes; the whole of it within `timeout`.
    pub async fn get(&self, url: &Url, accept: &str, limit: usize, timeout: Duration) -> Result<Answer, ClientError> {
        // Names are looked at once they are resolved.
        if host_address(url).is_some_and(is_forbidden) {
            return Err(ClientError::Forbidden(shown(url)));
        }
        let request = self.0.get(url.clone()).header(header::ACCEPT, accept).timeout(timeout);
        let mut response = request.send().await.map_err(|error| unreachable(url, &error))?;
        let too_large = || ClientError::TooLarge { url: shown(url), limit };
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status(), body: body.freeze() })
    }
}

/// The roots we trust: the system's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, or Mozilla's where
/// there is neither, as in an image made from scratch. What the variables name is never silently replaced.
pub fn root_store() -> Result<Arc<RootCertStore>, ClientError> {
    let chosen = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    let native = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(native.certs);
    match added {
        0 if chosen => Err(ClientError::Roots("SSL_CERT_FILE or SSL_CERT_DIR names no usable certificate".into())),
        0 => {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            Ok(Arc::new(roots))
        }
        _ => Ok(Arc::new(roots)),
    }
}

/// Whether `url` leads to this very machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        _ => host_address(url).is_some_and(|address| address.is_loopback()),
    }
}

/// Resolves as the system does, without the addresses that must not be asked.
#[derive(Debug)]
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| !is_forbidden(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the name has no address that may be asked".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Link-local addresses and what clouds use like them: metadata services, never a provider.
fn is_forbidden(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.is_multicast() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified() || v6 == AWS_METADATA,
    }
}

fn host_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

fn unreachable(url: &Url, error: &reqwest::Error) -> ClientError {
    let reason = if error.is_timeout() { "timed out".into() } else { innermost(error) };
    ClientError::Unreachable { url: shown(url), reason }
}

/// The cause that says something; what reqwest puts around it only repeats the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(|c| c.source()) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| "failed".into(), ToString::to_string)
}

/// An address for a log: without user, query and fragment, where secrets may stand.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

const IDLE: Duration = Duration::from_secs(30);
const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_forbidden_in_every_spelling() {
        for text in
            ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "::", "224.0.0.1"]
        {
            assert!(is_forbidden(text.parse().expect("an address")), "{text}");
        }
        for text in ["127.0.0.1", "::1", "10.0.0.1", "fd00::1", "93.184.216.34"] {
            assert!(!is_forbidden(text.parse().expect("an address")), "{text}");
        }
        // The URL parser has already undone the odd spellings of numbers.
        for text in ["http://2852039166/", "http://0xA9FEA9FE/", "http://169.254.43518/", "http://[::ffff:a9fe:a9fe]/"]
        {
            let url = Url::parse(text).expect("a URL");
            assert!(host_address(&url).is_some_and(is_forbidden), "{text}");
        }
    }

    #[test]
    fn loopback_is_the_host_itself_not_a_name_that_looks_like_it() {
        for (text, expected) in [
            ("http://127.0.0.1:9000/", true),
            ("http://[::1]/", true),
            ("http://localhost:1/", true),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://127.0.0.1@example.com/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(text).expect("a URL")), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        let url = Url::parse("https://user:pw@idp.example.com/jwks?key=s3cret#x").expect("a URL");
        assert_eq!(shown(&url), "https://idp.example.com/jwks");
    }
}
