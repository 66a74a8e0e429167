//! TLS on both sides: certificates of a listener, and what we trust when we call out.
//!
//! There is no switch that turns verification off.

use std::{fmt, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use super::{
    TlsSettings,
    client::{self, ClientError},
};
use crate::file;

/// Why certificates cannot be used. Names the setting, never a file's contents.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or is no PEM.
    #[error("tls.{field}: {problem}")]
    File {
        /// `cert`, `key` or `client_ca`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The parts do not fit together.
    #[error("tls: {0}")]
    Config(#[from] rustls::Error),
    /// There is nothing to trust when we call out.
    #[error(transparent)]
    Roots(#[from] ClientError),
}

/// A listener's certificates. They can be replaced while it serves; clones share them.
#[derive(Clone)]
pub struct Acceptor(Arc<ArcSwap<ServerConfig>>, Clients);

/// Certificates that have been read, and are not yet in force. Dropped, they leave the present ones alone.
#[derive(Debug)]
#[must_use]
pub struct Renewed<'a>(&'a Acceptor, Arc<ServerConfig>);

/// Whether clients must bring a certificate, where `client_ca` asks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    Must,
    May,
}

impl Acceptor {
    /// Reads the files.
    pub fn new(settings: &TlsSettings) -> Result<Self, Error> {
        Self::with(settings, Clients::Must)
    }

    /// Reads the files, for a listener whose clients may come without a certificate: they have other ways to say who
    /// they are. One that comes with a bad certificate is refused.
    pub fn optional(settings: &TlsSettings) -> Result<Self, Error> {
        Self::with(settings, Clients::May)
    }

    fn with(settings: &TlsSettings, clients: Clients) -> Result<Self, Error> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(server_config(settings, clients)?)), clients))
    }

    /// Reads the files anew; they count once they are put in force.
    pub fn renewed(&self, settings: &TlsSettings) -> Result<Renewed<'_>, Error> {
        Ok(Renewed(self, Arc::new(server_config(settings, self.1)?)))
    }

    /// The present certificates.
    pub(super) fn current(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

impl Renewed<'_> {
    /// For handshakes from now on.
    pub fn put_in_force(self) {
        self.0.0.store(self.1);
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

/// What we offer and trust when we call out: [`client::root_store`].
pub fn client_config(protocols: &[&[u8]]) -> Result<ClientConfig, Error> {
    Ok(client_config_with(client::root_store()?, protocols)?)
}

/// Like [`client_config`], trusting `roots`.
pub fn client_config_with(
    roots: impl Into<Arc<RootCertStore>>,
    protocols: &[&[u8]],
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// A certificate's chain and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads a certificate of our own, for when we call out.
pub(super) fn identity(cert: &Path, key: &Path) -> Result<Identity, Error> {
    let chain = certificates("cert", cert)?;
    Ok((chain, private_key(key)?))
}

fn server_config(settings: &TlsSettings, clients: Clients) -> Result<ServerConfig, Error> {
    let chain = certificates("cert", &settings.cert)?;
    let key = private_key(&settings.key)?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots("client_ca", path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match clients {
                Clients::Must => verifier,
                Clients::May => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|problem| wrong("client_ca", &problem))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The authorities in a PEM file, for when we call out and trust no others.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    roots("ca", path)
}

fn roots(field: &'static str, path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(field, path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Every certificate of a PEM file; none is a mistake, never "accept any".
fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = file::read(path).map_err(|problem| wrong(field, &problem))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|problem| wrong(field, &problem))?;
    if found.is_empty() {
        return Err(wrong(field, &"no certificate in it"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = file::read(path).map_err(|problem| wrong("key", &problem))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|problem| wrong("key", &problem))
}

fn wrong(field: &'static str, problem: &dyn fmt::Display) -> Error {
    Error::File { field, problem: problem.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_load_reload_and_a_bad_file_keeps_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let settings = TlsSettings { cert: dir.path().join("cert"), key: dir.path().join("key"), client_ca: None };
        std::fs::write(&settings.cert, made.cert.pem()).unwrap();
        std::fs::write(&settings.key, made.signing_key.serialize_pem()).unwrap();
        let acceptor = Acceptor::new(&settings).unwrap();
        let before = acceptor.0.load_full();
        drop(acceptor.renewed(&settings).unwrap());
        assert!(Arc::ptr_eq(&before, &acceptor.0.load_full()), "not before they are put in force");
        acceptor.renewed(&settings).unwrap().put_in_force();
        assert!(!Arc::ptr_eq(&before, &acceptor.0.load_full()));

        let empty = dir.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        let kept = acceptor.0.load_full();
        for bad in [
            TlsSettings { cert: empty.clone(), ..settings.clone() },
            TlsSettings { key: empty.clone(), ..settings.clone() },
            TlsSettings { client_ca: Some(empty), ..settings.clone() },
            TlsSettings { client_ca: Some(dir.path().join("missing")), ..settings },
        ] {
            assert!(acceptor.renewed(&bad).is_err());
            assert!(Arc::ptr_eq(&kept, &acceptor.0.load_full()));
        }
    }
}
