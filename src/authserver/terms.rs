//! On which terms tokens are issued: clients, audience, lifetime. Immutable; a reload swaps all of it.

use std::collections::{HashMap, hash_map::Entry};

use aws_lc_rs::{
    hmac::{self, HMAC_SHA256},
    rand,
};

use crate::{
    problem::Problem,
    token::settings::{ClientSettings, KeyManagerSettings},
};

/// Who gets which tokens.
#[derive(Debug)]
pub struct Terms {
    /// `aud` of every token.
    pub(super) audience: Vec<String>,
    /// Seconds that a token lives, at least 1.
    pub(super) lifetime: u64,
    clients: HashMap<Box<str>, Client>,
    /// Secrets are kept as tags under this key, which never leaves the process.
    key: hmac::Key,
    /// Compared where there is no such client, so that it takes as long.
    nobody: hmac::Tag,
}

/// A client of the configuration.
#[derive(Debug)]
pub(super) struct Client {
    /// Scopes it may ask for, in configured order.
    pub(super) scopes: Vec<Box<str>>,
    secret: hmac::Tag,
}

impl Terms {
    /// The terms, or every mistake in them.
    pub fn new(settings: &KeyManagerSettings, field: &str) -> Result<Self, Vec<Problem>> {
        let Ok((key, nobody)) = random_key() else {
            return Err(vec![Problem::new(field, "the system gives no random numbers")]);
        };
        let mut problems = Vec::new();
        let lifetime = settings.token_lifetime.0.as_secs();
        if lifetime == 0 {
            problems.push(Problem::new(format!("{field}.token_lifetime"), "must be at least 1s"));
        }
        let mut clients = HashMap::with_capacity(settings.clients.len());
        for (at, client) in settings.clients.iter().enumerate() {
            let field = format!("{field}.clients[{at}]");
            let known = Client::new(client, &field, &key, &mut problems);
            match (clients.entry(client.id.as_str().into()), known) {
                (Entry::Occupied(_), _) => problems.push(Problem::new(format!("{field}.id"), "is there twice")),
                (Entry::Vacant(entry), Some(known)) => {
                    entry.insert(known);
                }
                (Entry::Vacant(_), None) => {}
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let audience = match settings.audience.as_slice() {
            [] => vec![settings.issuer.clone()],
            some => some.to_vec(),
        };
        Ok(Self { audience, lifetime, clients, key, nobody })
    }

    /// The client whose secret this is. Takes as long for an unknown client as for a wrong secret.
    pub(super) fn authenticate(&self, id: &str, secret: &str) -> Option<&Client> {
        let client = self.clients.get(id);
        let expected = client.map_or(&self.nobody, |client| &client.secret);
        hmac::verify(&self.key, secret.as_bytes(), expected.as_ref()).ok().and(client)
    }
}

impl Client {
    fn new(settings: &ClientSettings, field: &str, key: &hmac::Key, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        if settings.id.is_empty() || !settings.id.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
            problems.push(Problem::new(format!("{field}.id"), "must be visible ASCII, at least one character"));
        }
        for (at, scope) in settings.scopes.iter().enumerate() {
            if !is_scope_token(scope) {
                problems.push(Problem::new(
                    format!("{field}.scopes[{at}]"),
                    "must be a scope: visible ASCII without space, quote and backslash",
                ));
            }
        }
        let secret = match settings.secret.read() {
            Ok(secret) => hmac::sign(key, secret.as_bytes()),
            Err(error) => {
                problems.push(Problem::new(format!("{field}.secret"), error.to_string()));
                return None;
            }
        };
        let scopes = settings.scopes.iter().map(|scope| scope.as_str().into()).collect();
        (problems.len() == before).then_some(Self { scopes, secret })
    }
}

/// RFC 6749 section 3.3.
fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

fn random_key() -> Result<(hmac::Key, hmac::Tag), aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; 64];
    rand::fill(&mut bytes)?;
    let key = hmac::Key::new(HMAC_SHA256, &bytes[..32]);
    let nobody = hmac::sign(&key, &bytes[32..]);
    Ok((key, nobody))
}
