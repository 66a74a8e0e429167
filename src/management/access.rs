//! Who may call: a bearer token of a key manager named for it, judged by the engine as at any door; a client
//! certificate; or, on this machine, the bootstrap key.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use aws_lc_rs::{
    constant_time,
    digest::{SHA256, digest},
    rand,
};
use http::{HeaderMap, StatusCode, header};

use super::answer::Problem;
use crate::{
    file,
    keymanager::hex,
    net::{Clock, door::Peer},
    store::{KeyManagerSet, Store},
    token::{Authenticator, Rejection},
};

/// What a caller must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `tollgate:read`, or `tollgate:manage`.
    Read,
    /// `tollgate:manage`
    Manage,
    /// `tollgate:tokens`, or `tollgate:manage`: whoever may rotate a secret may have its tokens. The former lends nobody
    /// our rights at a provider: see `by_our_rights` of its route.
    Tokens,
}

impl Need {
    /// The scope that suffices.
    pub const fn scope(self) -> &'static str {
        match self {
            Self::Read => "tollgate:read",
            Self::Manage => MANAGE,
            Self::Tokens => "tollgate:tokens",
        }
    }
}

/// Someone who may call, and what.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    /// As the audit names it.
    pub(super) who: String,
    /// None: everything.
    scopes: Option<Vec<String>>,
}

impl Admitted {
    pub(super) fn require(&self, need: Need, realm: &str) -> Result<(), Problem> {
        let Some(scopes) = &self.scopes else { return Ok(()) };
        if scopes.iter().any(|scope| scope == need.scope() || scope == MANAGE) {
            return Ok(());
        }
        Err(lacks(need.scope(), realm, format!("the token lacks the scope {}", need.scope())))
    }

    /// Refuses what our own rights at a provider would be lent for to someone who may not manage it.
    pub(super) fn require_proof(&self, field: &str, realm: &str) -> Result<(), Problem> {
        if self.require(Need::Manage, realm).is_ok() {
            return Ok(());
        }
        let why =
            format!("{field} is left out, and so this needs the scope {MANAGE}: give it, or a token with that scope");
        Err(lacks(MANAGE, realm, why))
    }
}

fn lacks(scope: &str, realm: &str, why: String) -> Problem {
    let challenge = format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{scope}\"");
    Problem::new(StatusCode::FORBIDDEN, why).code("900910").header(header::WWW_AUTHENTICATE, challenge)
}

/// Judges callers.
#[derive(Debug)]
pub struct Access {
    /// Key managers whose tokens may call; none: no token may.
    key_managers: Option<KeyManagerSet>,
    tokens: Arc<Authenticator>,
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<Clock>,
    /// SHA-256 of the bootstrap key.
    key: [u8; 32],
    realm: String,
}

impl Access {
    /// Reads the bootstrap key, or makes it where there is none.
    pub fn new(
        key_managers: &[String],
        key_file: &Path,
        realm: &str,
        tokens: Arc<Authenticator>,
        store: Arc<Store>,
        clock: Arc<Clock>,
    ) -> io::Result<Self> {
        let key_managers = (!key_managers.is_empty()).then(|| KeyManagerSet::of(key_managers));
        // A realm that would end its quotes is none.
        let realm = realm.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect();
        Ok(Self { key_managers, tokens, store, clock, key: bootstrap_key(key_file)?, realm })
    }

    /// Whether the bootstrap key is good as it is; where there is none, one will be made.
    pub fn check_key(file: &Path) -> io::Result<()> {
        match read_key(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            read => read.map(drop),
        }
    }

    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    pub(super) async fn admit(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Admitted, Problem> {
        let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
        let credential = credentials.next();
        if credentials.next().is_some() {
            return Err(Problem::field("authorization", "must be there once"));
        }
        match (credential, peer) {
            (Some(value), peer) => {
                let token = value.to_str().ok().and_then(bearer).ok_or_else(|| self.refuse(None))?;
                self.admit_bearer(token, peer).await
            }
            (None, Some(Peer { certificate: Some(certificate), .. })) => {
                let print = hex(digest(&SHA256, certificate).as_ref());
                Ok(Admitted { who: format!("certificate sha256:{print}"), scopes: None })
            }
            (None, _) => Err(self.refuse(None)),
        }
    }

    async fn admit_bearer(&self, token: &str, peer: Option<&Peer>) -> Result<Admitted, Problem> {
        let given = digest(&SHA256, token.as_bytes());
        let is_key = constant_time::verify_slices_are_equal(given.as_ref(), &self.key).is_ok();
        if is_key && peer.is_some_and(Peer::is_local) {
            return Ok(Admitted { who: "bootstrap".into(), scopes: None });
        }
        let Some(allowed) = &self.key_managers else { return Err(self.refuse(Some("the credential is no good"))) };
        let client = peer.and_then(|peer| peer.address);
        let now = self.clock.now();
        let identity = match self.tokens.authenticate(token, allowed, client, now).await {
            Ok(good) => good.identity,
            Err(rejection) => return Err(self.rejected(&rejection)),
        };
        if self.store.revocations.is_revoked(&identity.facts(token)) {
            return Err(self.refuse(Some("the token is no good")));
        }
        let name = identity.subject.as_deref().or(identity.common.consumer_key.as_deref()).unwrap_or("unknown");
        Ok(Admitted {
            who: format!("{}: {}", identity.common.key_manager, printable(name)),
            scopes: Some(identity.common.scopes.iter().map(|scope| scope.to_string()).collect()),
        })
    }

    fn rejected(&self, rejection: &Rejection) -> Problem {
        match rejection {
            Rejection::Invalid(_) => self.refuse(Some("the token is no good")),
            Rejection::Flooded(_) => {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many bad tokens").header(header::RETRY_AFTER, "60")
            }
            Rejection::Overloaded => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many new tokens").header(header::RETRY_AFTER, "1")
            }
            Rejection::Unavailable { retry_after, .. } => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the token cannot be judged now")
                    .header(header::RETRY_AFTER, retry_after.to_string())
            }
        }
    }

    /// 401; without a credential the challenge has no error (RFC 6750 section 3).
    fn refuse(&self, why: Option<&str>) -> Problem {
        let (code, error) = if why.is_some() { ("900901", ", error=\"invalid_token\"") } else { ("900902", "") };
        Problem::new(StatusCode::UNAUTHORIZED, why.unwrap_or("a credential is needed"))
            .code(code)
            .header(header::WWW_AUTHENTICATE, format!("Bearer realm=\"{}\"{error}", self.realm))
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Only what may stand in a log line.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).take(255).collect()
}

/// SHA-256 of the key in `path`, which is made where there is none: 256 random bits, for this user alone.
fn bootstrap_key(path: &Path) -> io::Result<[u8; 32]> {
    let mut random = [0; 32];
    rand::fill(&mut random).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            writeln!(file, "tgb_{}", hex(&random))?;
            file.sync_all()?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    read_key(path)
}

fn read_key(path: &Path) -> io::Result<[u8; 32]> {
    let (opened, metadata) = file::open(path)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other("others may read it: its mode must be 0600"));
    }
    let text = file::bytes(opened, &metadata)?;
    let key = file::text(&text)?.trim();
    if key.len() < SHORTEST_KEY {
        return Err(io::Error::other(format!("holds no key of at least {SHORTEST_KEY} characters: remove it")));
    }
    let mut kept = [0; 32];
    kept.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    Ok(kept)
}

const MANAGE: &str = "tollgate:manage";
const SHORTEST_KEY: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bootstrap.key");
        let first = bootstrap_key(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bootstrap_key(&path).unwrap(), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(bootstrap_key(&path).unwrap_err().to_string().contains("0600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(bootstrap_key(&path).unwrap_err().to_string().contains("32"));
        assert!(bootstrap_key(&folder.path().join("missing/key")).is_err());
    }

    #[test]
    fn only_a_bearer_with_something_is_one() {
        assert_eq!(bearer("bEARER  abc "), Some("abc"));
        for none in ["Bearer", "Bearer ", "Basic abc", ""] {
            assert_eq!(bearer(none), None, "{none}");
        }
    }
}
