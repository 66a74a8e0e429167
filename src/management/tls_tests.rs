//! Client certificates at the door: one that the authority signed may call, and who has none may bring a token.

use std::{path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::testing::Stand;
use crate::net::{TlsSettings, tls::Acceptor};

/// An authority, and what it has signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn settings(&self, folder: &Path) -> TlsSettings {
        let (cert, key) = self.sign("localhost");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsSettings {
            cert: write("cert.pem", &cert),
            key: write("key.pem", &key),
            client_ca: Some(write("ca.pem", &self.0.pem())),
        }
    }

    /// Asks with a certificate and key, or without.
    async fn ask(&self, stand: &Stand, identity: Option<(String, String)>, head: &str) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let stream = TcpStream::connect(stand.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let request = format!("GET /v1/key-managers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

#[tokio::test]
async fn a_certificate_of_the_authority_may_call_and_so_may_a_token_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let stand = Stand::over(Some(Acceptor::optional(&ours.settings(folder.path())).unwrap())).await;
    let answer = ours.ask(&stand, Some(ours.sign("admin")), "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = ours.ask(&stand, None, "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let bearer = format!("Authorization: Bearer {}\r\n", stand.key);
    let answer = ours.ask(&stand, None, &bearer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A bad token is not made good by a certificate.
    let answer = ours.ask(&stand, Some(ours.sign("admin")), "Authorization: Bearer wrong\r\n").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let refused = ours.ask(&stand, Some(theirs.sign("admin")), "").await;
    assert!(refused.is_err(), "another authority's: {refused:?}");
}
