//! One request of a person's to a door of Tollgate's, over TCP or a Unix socket: for the command line.
//!
//! Unlike [`super::client`] it goes wherever the person says. It follows no redirect, asks no proxy, and reads a bounded
//! answer in bounded time.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use reqwest::redirect;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use url::Url;
use zeroize::Zeroizing;

use super::client;

/// Whom to trust, and who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust<'a> {
    /// PEM of the only authorities trusted; none: those of [`client::root_store`].
    pub ca: Option<&'a Path>,
    /// Certificate chain and key of our own, PEM.
    pub certificate: Option<(&'a Path, &'a Path)>,
}

/// What is asked. Not `Debug`: it may hold secrets.
pub struct Question {
    /// The verb.
    pub method: Method,
    /// The whole address; of a Unix socket its path alone counts.
    pub url: Url,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body; none: nothing is sent.
    pub body: Option<Zeroizing<Vec<u8>>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status; redirects are answers like any other.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body, within the limit.
    pub body: Bytes,
}

/// Why there is none. Never tells a body or a header field.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error("{0}")]
    Files(String),
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long.
    #[error("timed out")]
    TimedOut,
    /// The answer is longer than the limit.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
}

/// Whoever asks.
#[derive(Debug)]
pub struct Visitor(reqwest::Client);

impl Visitor {
    /// Reads the files. With `socket` everything goes there.
    #[expect(clippy::disallowed_methods, reason = "the person says where to; the limits are set here")]
    pub fn new(trust: Trust<'_>, socket: Option<PathBuf>, timeout: Duration) -> Result<Self, Error> {
        let files = |error: &dyn ToString| Error::Files(error.to_string());
        let roots = match trust.ca {
            Some(path) => Arc::new(authorities(path)?),
            None => client::root_store().map_err(|error| files(&error))?,
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| files(&error))?
            .with_root_certificates(roots);
        let tls = match trust.certificate {
            None => tls.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
                tls.with_client_auth_cert(chain, key).map_err(|error| files(&error))?
            }
        };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout);
        if let Some(path) = socket {
            builder = builder.unix_socket(path);
        }
        builder.build().map(Self).map_err(|error| files(&error))
    }

    /// Asks, and reads an answer of at most `limit` bytes.
    pub async fn ask(&self, question: Question, limit: usize) -> Result<Answer, Error> {
        let Question { method, url, headers, body } = question;
        let mut request = self.0.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body.to_vec());
        }
        let mut response = request.send().await.map_err(|error| failed(&error))?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + chunk.len() > limit {
                return Err(Error::TooLarge(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status(), headers: response.headers().clone(), body: body.freeze() })
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(path, &error))?;
    }
    Ok(roots)
}

/// Every certificate of a file, which may be a pipe: the person's shell may write it (`--ca <(…)`).
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(path, &error))?;
    // None is a mistake, never "trust any".
    if found.is_empty() { Err(wrong(path, &"no certificate in it")) } else { Ok(found) }
}

fn wrong(path: &Path, why: &dyn ToString) -> Error {
    Error::Files(format!("{}: {}", path.display(), why.to_string()))
}

/// The cause that says something; what is around it only repeats the address.
fn failed(error: &reqwest::Error) -> Error {
    if error.is_timeout() {
        return Error::TimedOut;
    }
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    Error::Unreachable(cause.map_or_else(|| "failed".to_owned(), ToString::to_string))
}
