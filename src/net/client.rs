//! The client towards providers: one, hardened, shared by all connectors.
//!
//! It never follows a redirect, never reads more than it is told to, never undoes a compression, never waits
//! without a limit, and never connects to link-local addresses, where clouds keep their credentials; to loopback
//! and private ones only for a request that may ([`Reach`]). What counts is the address connected to, so that a
//! name cannot be one thing when it is looked at and another when it is used. Proxies named by environment
//! variables are not used: through which host our secrets travel is not for an inherited variable to say.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{
    Proxy, RequestBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{
    freshness,
    reach::{self, Kind, Reach},
    tls,
};

/// The client. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    /// For [`Reach::Public`]. A pool of its own: what the other is connected to must not be used.
    public: reqwest::Client,
    /// For [`Reach::Local`].
    local: reqwest::Client,
    kind: fn(IpAddr) -> Kind,
    lookup: Lookup,
    roots: Arc<RootCertStore>,
    proxied: bool,
}

/// What one provider is reached with, where it is not what all others are. Nothing: like all others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own<'a> {
    /// PEM file of the authorities that it alone is trusted by, and no others.
    pub ca: Option<&'a Path>,
    /// Certificate and key of ours (RFC 8705), PEM files.
    pub certificate: Option<(&'a Path, &'a Path)>,
    /// The HTTP proxy on the way to it. It looks names up itself: what they lead to is for it to allow.
    pub proxy: Option<&'a Url>,
}

/// Any request.
#[derive(Debug)]
pub struct Request<'r> {
    /// Method.
    pub method: Method,
    /// Where to.
    pub url: &'r Url,
    /// How far it may go.
    pub reach: Reach,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body; its type stands in the headers.
    pub body: Option<Zeroizing<String>>,
    /// Longest body of the answer, in bytes.
    pub limit: usize,
    /// For the whole exchange.
    pub timeout: Duration,
}

/// A form to send (RFC 6749 appendix B), with what goes beside it.
#[derive(Debug)]
pub struct Form {
    /// Header fields, such as `Accept` and credentials.
    pub headers: HeaderMap,
    /// `application/x-www-form-urlencoded`
    pub body: Zeroizing<String>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Status; redirects are answers like any other.
    pub status: StatusCode,
    /// Body, no longer than asked for.
    pub body: Bytes,
    /// Who answered: [`Reach::Local`] if it has a loopback or private address.
    pub from: Reach,
    /// For how long the answer says it is fresh.
    pub max_age: Option<Duration>,
    /// Its media type in lower case, without parameters; empty where it has none.
    pub media_type: Box<str>,
    /// All header fields.
    pub headers: HeaderMap,
}

/// Why there is no answer. Names the address asked, never a body.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client cannot be built: no trusted roots.
    #[error("{0}")]
    Roots(String),
    /// The address must not be asked.
    #[error("{0}: its address must not be asked")]
    Forbidden(String),
    /// No connection, or it broke.
    #[error("{url}: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What happened.
        reason: String,
        /// Whether the request had a connection: then it may have arrived.
        sent: bool,
    },
    /// It took too long.
    #[error("{0}: timed out")]
    TimedOut(String),
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
    pub fn with_roots(roots: Arc<RootCertStore>) -> Result<Self, ClientError> {
        Self::build(roots, system_lookup, reach::kind, None, None)
    }

    /// The same, on connections of its own.
    pub fn apart(&self) -> Result<Self, ClientError> {
        Self::build(Arc::clone(&self.roots), self.lookup, self.kind, None, None)
    }

    /// The same for one provider, on connections of its own; a clone where it has nothing of its own.
    pub fn with(&self, own: Own<'_>) -> Result<Self, tls::Error> {
        if own.ca.is_none() && own.certificate.is_none() && own.proxy.is_none() {
            return Ok(self.clone());
        }
        let roots = match own.ca {
            Some(file) => Arc::new(tls::authorities(file)?),
            None => Arc::clone(&self.roots),
        };
        let identity = own.certificate.map(|(cert, key)| tls::identity(cert, key)).transpose()?;
        Ok(Self::build(roots, self.lookup, self.kind, identity, own.proxy)?)
    }

    /// A client in a world of its own, for tests.
    #[cfg(test)]
    pub(crate) fn imagined(lookup: Lookup, kind: fn(IpAddr) -> Kind) -> Result<Self, ClientError> {
        Self::build(root_store()?, lookup, kind, None, None)
    }

    fn build(
        roots: Arc<RootCertStore>,
        lookup: Lookup,
        kind: fn(IpAddr) -> Kind,
        identity: Option<tls::Identity>,
        proxy: Option<&Url>,
    ) -> Result<Self, ClientError> {
        let broken = |error: &dyn ToString| ClientError::Roots(error.to_string());
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| broken(&error))?
            .with_root_certificates(Arc::clone(&roots));
        let tls = match identity {
            None => tls.with_no_client_auth(),
            Some((chain, key)) => tls.with_client_auth_cert(chain, key).map_err(|error| broken(&error))?,
        };
        // Only the proxy's own name is looked up then, and the configuration names it.
        let client = |reach| {
            let reach = if proxy.is_some() { Reach::Local } else { reach };
            plain(tls.clone(), Resolver { reach, lookup, kind }, proxy).map_err(|error| broken(&error))
        };
        let (public, local) = (client(Reach::Public)?, client(Reach::Local)?);
        Ok(Self { public, local, kind, lookup, roots, proxied: proxy.is_some() })
    }

    /// Gets a document of at most `limit` bytes; the whole of it within `timeout`.
    pub async fn get(
        &self,
        url: &Url,
        reach: Reach,
        accept: &str,
        limit: usize,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let accept = HeaderValue::from_str(accept).map_err(|_| ClientError::Forbidden(shown(url)))?;
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
        self.send(Request { method: Method::GET, url, reach, headers, body: None, limit, timeout }).await
    }

    /// Sends a form and gets an answer of at most `limit` bytes; the whole of it within `timeout`.
    pub async fn post(
        &self,
        url: &Url,
        reach: Reach,
        form: Form,
        limit: usize,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let Form { mut headers, body } = form;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.send(Request { method: Method::POST, url, reach, headers, body: Some(body), limit, timeout }).await
    }

    /// Sends a request and gets its whole answer.
    pub async fn send(&self, request: Request<'_>) -> Result<Answer, ClientError> {
        let Request { method, url, reach, headers, body, limit, timeout } = request;
        let mut sent = self.towards(url, reach)?.request(method, url.clone()).headers(headers).timeout(timeout);
        if let Some(body) = body {
            sent = sent.body(body.as_str().to_owned());
        }
        self.receive(url, sent, limit).await
    }

    async fn receive(&self, url: &Url, request: RequestBuilder, limit: usize) -> Result<Answer, ClientError> {
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
        let status = response.status();
        let from = self.origin(url, response.remote_addr());
        let headers = std::mem::take(response.headers_mut());
        let (max_age, media_type) = (freshness::max_age(&headers), media_type(&headers));
        Ok(Answer { status, body: body.freeze(), from, max_age, media_type, headers })
    }

    /// Who answered. Behind a proxy only an address in the URL itself is known to be near.
    fn origin(&self, url: &Url, peer: Option<SocketAddr>) -> Reach {
        let address = if self.proxied { host_address(url) } else { peer.map(|peer| peer.ip()) };
        match address.map_or(Kind::Public, self.kind) {
            Kind::Public => Reach::Public,
            _ => Reach::Local,
        }
    }

    /// The client that may ask `url`. Names are looked at once they are resolved.
    fn towards(&self, url: &Url, reach: Reach) -> Result<&reqwest::Client, ClientError> {
        if host_address(url).is_some_and(|address| !reach.covers((self.kind)(address))) {
            return Err(ClientError::Forbidden(shown(url)));
        }
        Ok(match reach {
            Reach::Public => &self.public,
            Reach::Local => &self.local,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that builds a client")]
fn plain(tls: ClientConfig, resolver: Resolver, proxy: Option<&Url>) -> reqwest::Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .dns_resolver(Arc::new(resolver));
    match proxy {
        Some(proxy) => client.proxy(Proxy::all(proxy.clone())?).build(),
        None => client.build(),
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

/// Resolves without the addresses that must not be asked.
#[derive(Debug)]
struct Resolver {
    reach: Reach,
    lookup: Lookup,
    kind: fn(IpAddr) -> Kind,
}

/// A name's addresses.
pub(crate) type Lookup = fn(Name) -> Found;
pub(crate) type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// A name has addresses, and none that may be asked.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address that may be asked")]
struct NoAddress;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { reach, lookup, kind } = *self;
        Box::pin(async move {
            let found = lookup(name).await?.into_iter();
            let allowed: Vec<_> = found.filter(|address| reach.covers(kind(*address))).collect();
            if allowed.is_empty() {
                return Err(NoAddress.into());
            }
            Ok(Box::new(allowed.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

fn system_lookup(name: Name) -> Found {
    Box::pin(async move {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    })
}

fn host_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

fn unreachable(url: &Url, error: &reqwest::Error) -> ClientError {
    if causes(error).any(|cause| cause.is::<NoAddress>()) {
        return ClientError::Forbidden(shown(url));
    }
    // A connection that is not made in time is none, and nothing was sent.
    if error.is_timeout() && !error.is_connect() {
        return ClientError::TimedOut(shown(url));
    }
    ClientError::Unreachable { url: shown(url), reason: innermost(error), sent: !error.is_connect() }
}

fn media_type(headers: &HeaderMap) -> Box<str> {
    let field = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    field.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().into()
}

/// The cause that says something; what reqwest puts around it only repeats the address.
fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| "failed".into(), ToString::to_string)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// An address for a log: without user, query and fragment, where secrets may stand.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// How long a connection may take, with TLS. Less than the whole of a change, so that what is never sent is told from what
/// may have been done.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// Providers are asked about many tokens at one time.
const MAX_IDLE: usize = 32;
const IDLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_spellings_of_addresses_are_undone() {
        let client = Client::new().expect("roots");
        let refused = |text: &str, reach| client.towards(&Url::parse(text).expect("a URL"), reach).is_err();
        for text in [
            "http://169.254.169.254/",
            "http://2852039166/",
            "http://0xA9FEA9FE/",
            "http://169.254.43518/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[64:ff9b::169.254.169.254]/",
        ] {
            assert!(refused(text, Reach::Local) && refused(text, Reach::Public), "{text}");
        }
        for text in ["http://127.0.0.1/", "http://2130706433/", "http://127.1/", "http://10.0.0.1/", "http://[::1]/"] {
            assert!(!refused(text, Reach::Local) && refused(text, Reach::Public), "{text}");
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
