//! How we say who we are to a provider: RFC 6749 section 2.3.1, RFC 7523, RFC 6750, RFC 8705.
//!
//! Secrets are read once, when the connector is built; a reload reads them anew. None ever stands in an
//! error.

use std::{fmt, sync::Arc};

use aws_lc_rs::{constant_time, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use jsonwebtoken::{Algorithm as Alg, EncodingKey, Header};
use serde_json::json;
use url::{
    Url,
    form_urlencoded::{self, Serializer},
};
use zeroize::Zeroizing;

use crate::{
    file,
    net::{
        Clock,
        client::{Client, Own},
    },
    problem::Problem,
    token::settings::{Algorithm, ClientAuth, ClientKey, KeyManagerSettings},
};

/// Who we are to one provider.
pub(super) enum Credential {
    /// A ready `Authorization` field, and the secret in it, which is left out of what is told.
    Field { field: HeaderValue, secret: Zeroizing<String> },
    /// `client_id` and `client_secret` in the form.
    Post { id: Box<str>, secret: Zeroizing<String> },
    /// A signed assertion, new for each call.
    Assertion(Box<Signer>),
    /// `client_id` alone: the connection's certificate says the rest.
    Certificate { id: Box<str> },
}

/// Signs assertions.
pub(super) struct Signer {
    id: Box<str>,
    /// Whom they are for: the issuer identifier, which any of a provider's endpoints has to accept.
    audience: Box<str>,
    header: Header,
    key: EncodingKey,
    clock: Arc<Clock>,
}

/// An assertion cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign an assertion: {0}")]
pub(super) struct Unsigned(jsonwebtoken::errors::Error);

impl Credential {
    /// What the settings of the key manager at `field` say, or every mistake in them.
    pub(super) fn new(settings: &KeyManagerSettings, field: &str, clock: &Arc<Clock>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |name: &str, why: String| problems.push(Problem::new(format!("{field}.{name}"), why));
        let by = format!("is needed by client_auth = \"{}\"", name(settings.client_auth));
        let id = settings.client_id.as_deref();
        if id.is_none_or(str::is_empty) && settings.client_auth != ClientAuth::Bearer {
            wrong("client_id", by.clone());
        }
        let id = id.unwrap_or_default();
        let mut secret = || match settings.client_secret.as_ref().map(|secret| secret.read()) {
            Some(Ok(secret)) => Some(secret),
            Some(Err(error)) => {
                wrong("client_secret", error.to_string());
                None
            }
            None => {
                wrong("client_secret", by.clone());
                None
            }
        };
        let credential = match settings.client_auth {
            ClientAuth::Basic => {
                secret().and_then(|secret| basic(id, &secret).map(|field| Self::Field { field, secret }))
            }
            ClientAuth::Bearer => secret().and_then(|secret| {
                let field = sensitive(&format!("Bearer {}", *secret));
                if field.is_none() {
                    wrong("client_secret", "must be visible ASCII characters".into());
                }
                field.map(|field| Self::Field { field, secret })
            }),
            ClientAuth::Post => secret().map(|secret| Self::Post { id: id.into(), secret }),
            ClientAuth::PrivateKeyJwt => match settings.client_key.as_ref().map(signing_key) {
                Some(Ok((header, key))) => {
                    let (id, audience, clock) = (id.into(), settings.issuer.as_str().into(), Arc::clone(clock));
                    Some(Self::Assertion(Box::new(Signer { id, audience, header, key, clock })))
                }
                Some(Err(why)) => {
                    wrong("client_key", why);
                    None
                }
                None => {
                    wrong("client_key", by.clone());
                    None
                }
            },
            ClientAuth::Mtls => {
                if settings.client_certificate.is_none() {
                    wrong("client_certificate", by.clone());
                }
                Some(Self::Certificate { id: id.into() })
            }
        };
        credential.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Adds what says who we are to a call.
    pub(super) fn sign(&self, headers: &mut HeaderMap, form: &mut Serializer<'_, String>) -> Result<(), Unsigned> {
        match self {
            Self::Field { field, .. } => {
                headers.insert(AUTHORIZATION, field.clone());
            }
            Self::Post { id, secret } => {
                form.append_pair("client_id", id).append_pair("client_secret", secret);
            }
            Self::Assertion(signer) => {
                let assertion = signer.assertion().map_err(Unsigned)?;
                form.append_pair("client_id", &signer.id)
                    .append_pair("client_assertion_type", ASSERTION)
                    .append_pair("client_assertion", &assertion);
            }
            Self::Certificate { id } => {
                form.append_pair("client_id", id);
            }
        }
        Ok(())
    }
}

/// The client of a key manager: with its authorities, its proxy, and our certificate there, as far as it has any.
pub(super) fn client(settings: &KeyManagerSettings, field: &str, client: &Client) -> Result<Client, Problem> {
    let at = |name: &str, why: String| Problem::new(format!("{field}.{name}"), why);
    let proxy = settings.proxy.as_deref().map(proxy).transpose().map_err(|why| at("proxy", why.into()))?;
    let client = client
        .with(Own { ca: settings.ca.as_ref().map(|ca| &*ca.file), certificate: None, proxy: proxy.as_ref() })
        .map_err(|error| at("ca", error.to_string()))?;
    let Some(own) = settings.client_certificate.as_ref().filter(|_| settings.client_auth == ClientAuth::Mtls) else {
        return Ok(client);
    };
    client
        .with(Own {
            ca: settings.ca.as_ref().map(|ca| &*ca.file),
            certificate: Some((&own.cert, &own.key)),
            proxy: proxy.as_ref(),
        })
        .map_err(|error| at("client_certificate", error.to_string()))
}

/// The address of an HTTP proxy.
pub(crate) fn proxy(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host()).ok_or(PROXY)?;
    let bare = url.username().is_empty() && url.password().is_none() && url.path() == "/" && url.query().is_none();
    if bare && url.fragment().is_none() { Ok(url) } else { Err(PROXY) }
}

impl Signer {
    /// RFC 7523 section 3, with a `jti` of its own for providers that take each but once.
    fn assertion(&self) -> Result<Zeroizing<String>, jsonwebtoken::errors::Error> {
        let now = self.clock.now().unix();
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| jsonwebtoken::errors::ErrorKind::Provider("no random numbers".into()))?;
        let claims = json!({
            "iss": self.id, "sub": self.id, "aud": self.audience,
            "jti": base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random),
            "iat": now, "exp": now + ASSERTION_LIFETIME_S,
        });
        jsonwebtoken::encode(&self.header, &claims, &self.key).map(Zeroizing::new)
    }
}

impl Credential {
    /// What must stand in nothing that is told.
    pub(super) fn secret(&self) -> Option<&str> {
        match self {
            Self::Field { secret, .. } | Self::Post { secret, .. } => Some(secret),
            Self::Assertion(_) | Self::Certificate { .. } => None,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Id and secret are encoded before they are joined: either may hold a colon (RFC 6749 section 2.3.1).
pub(super) fn basic(id: &str, secret: &str) -> Option<HeaderValue> {
    let encode = |text: &str| Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
    let pair = Zeroizing::new(format!("{}:{}", *encode(id), *encode(secret)));
    sensitive(&format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

/// A header field that is not shown.
pub(super) fn sensitive(field: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(field).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether two secrets are the same, without telling how far.
pub(super) fn same(one: &str, other: &str) -> bool {
    let digest = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    constant_time::verify_slices_are_equal(digest(one).as_ref(), digest(other).as_ref()).is_ok()
}

/// Whether all is there that tells the provider who we are.
pub(super) fn says_who_we_are(settings: &KeyManagerSettings) -> bool {
    let credential = match settings.client_auth {
        ClientAuth::Basic | ClientAuth::Post => settings.client_secret.is_some(),
        ClientAuth::Bearer => return settings.client_secret.is_some(),
        ClientAuth::PrivateKeyJwt => settings.client_key.is_some(),
        ClientAuth::Mtls => settings.client_certificate.is_some(),
    };
    credential && settings.client_id.is_some()
}

type Reader = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;

/// The key in a file, and the header of what it signs.
fn signing_key(settings: &ClientKey) -> Result<(Header, EncodingKey), String> {
    let pem =
        file::read(&settings.file).map_err(|error| format!("cannot read {}: {error}", settings.file.display()))?;
    let readers: [(Reader, &[Alg]); 3] = [
        (EncodingKey::from_rsa_pem, &[Alg::RS256, Alg::RS384, Alg::RS512, Alg::PS256, Alg::PS384, Alg::PS512]),
        (EncodingKey::from_ec_pem, &[Alg::ES256, Alg::ES384]),
        (EncodingKey::from_ed_pem, &[Alg::EdDSA]),
    ];
    let wanted: Option<Alg> = match settings.alg {
        None => None,
        Some(alg) => Some(known(alg).ok_or("cannot be used with this alg")?),
    };
    for (read, algorithms) in readers {
        let Ok(key) = read(&pem) else { continue };
        for alg in algorithms.iter().filter(|alg| wanted.is_none_or(|wanted| wanted == **alg)) {
            let header = Header { kid: settings.kid.clone(), ..Header::new(*alg) };
            // What a key can sign with, only signing tells.
            if jsonwebtoken::encode(&header, &json!({}), &key).is_ok() {
                return Ok((header, key));
            }
        }
        return Err("is no key for this alg".into());
    }
    Err(format!("{} holds no RSA, P-256, P-384 or Ed25519 key in PEM", settings.file.display()))
}

fn known(algorithm: Algorithm) -> Option<Alg> {
    Some(match algorithm {
        Algorithm::RS256 => Alg::RS256,
        Algorithm::RS384 => Alg::RS384,
        Algorithm::RS512 => Alg::RS512,
        Algorithm::PS256 => Alg::PS256,
        Algorithm::PS384 => Alg::PS384,
        Algorithm::PS512 => Alg::PS512,
        Algorithm::ES256 => Alg::ES256,
        Algorithm::ES384 => Alg::ES384,
        Algorithm::EdDSA => Alg::EdDSA,
        _ => return None,
    })
}

/// As the configuration says it.
fn name(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::Basic => "basic",
        ClientAuth::Post => "post",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
        ClientAuth::Bearer => "bearer",
        ClientAuth::Mtls => "mtls",
    }
}

const PROXY: &str = "must be http://host:port, without user, password, path and query";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ASSERTION_LIFETIME_S: u64 = 60;
