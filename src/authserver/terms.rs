//! On which terms tokens are issued: clients, users, audience, lifetimes, registration. Immutable; a reload swaps
//! all of it.
//!
//! What an operator chose (secrets, passwords) is kept as a tag under a key of this process and written nowhere.

use std::collections::{HashMap, hash_map::Entry};

use aws_lc_rs::{
    hmac::{self, HMAC_SHA256},
    rand,
};
use serde_json::{Map, Value};

use super::state::{Kind, Longest};
use crate::{
    problem::Problem,
    secret::Secret,
    token::settings::{ClientSettings, KeyManagerSettings, Registration, TokenForm, UserSettings},
    units::Span,
};

/// Who gets which tokens.
#[derive(Debug)]
pub struct Terms {
    /// `aud` of every token.
    pub(super) audience: Vec<String>,
    /// Form of access tokens.
    pub(super) form: TokenForm,
    /// Seconds that an access token lives, at least 1.
    pub(super) lifetime: u64,
    /// Seconds that a refresh token lives, at least 1.
    pub(super) refresh_lifetime: u64,
    /// Seconds that one key signs; 0: for ever.
    pub(super) key_rotation: u64,
    /// Seconds that a key stays after its tokens have expired: whoever judges them may be lenient for as long.
    pub(super) leeway: u64,
    /// Who may register clients.
    pub(super) registration: Registration,
    /// Scopes that registered clients may ask for.
    pub(super) registration_scopes: Vec<Box<str>>,
    registration_token: Option<hmac::Tag>,
    clients: HashMap<Box<str>, Client>,
    users: HashMap<Box<str>, User>,
    /// Secrets are kept as tags under this key, which never leaves the process.
    key: hmac::Key,
    /// Compared where there is no such client or user, so that it takes as long.
    nobody: hmac::Tag,
}

/// A client of the configuration.
#[derive(Debug)]
pub(super) struct Client {
    /// Scopes it may ask for, in configured order.
    pub(super) scopes: Vec<Box<str>>,
    secret: hmac::Tag,
}

/// A user of the configuration.
#[derive(Debug)]
pub(super) struct User {
    /// Scopes its tokens may have.
    pub(super) scopes: Vec<Box<str>>,
    /// Further claims of its tokens.
    pub(super) claims: Map<String, Value>,
    password: hmac::Tag,
}

impl Terms {
    /// The terms, or every mistake in them.
    pub fn new(settings: &KeyManagerSettings, field: &str) -> Result<Self, Vec<Problem>> {
        let Ok((key, nobody)) = random_key() else {
            return Err(vec![Problem::new(field, "the system gives no random numbers")]);
        };
        let mut read = Reading { key: &key, problems: Vec::new() };
        let lifetime = read.seconds(settings.token_lifetime, &format!("{field}.token_lifetime"));
        let refresh_lifetime = read.seconds(settings.refresh_lifetime, &format!("{field}.refresh_lifetime"));
        if !settings.key_rotation.is_whole_seconds() {
            read.problem(&format!("{field}.key_rotation"), "is whole seconds, or 0");
        }
        let clients = read.all(&settings.clients, &format!("{field}.clients"), "id", Reading::client);
        let users = read.all(&settings.users, &format!("{field}.users"), "name", Reading::user);
        for (at, user) in settings.users.iter().enumerate() {
            if clients.contains_key(&*user.name) {
                read.problem(
                    &format!("{field}.users[{at}].name"),
                    "is a client's id, and so their tokens would be alike",
                );
            }
        }
        let token = format!("{field}.registration_token");
        let registration_token = match (settings.registration, &settings.registration_token) {
            (Registration::Token, Some(secret)) => read.tag(secret, &token),
            (Registration::Token, None) => {
                read.problem(&token, "is needed by registration = \"token\"");
                None
            }
            _ => None,
        };
        let registration_scopes = read.scopes(&settings.registration_scopes, &format!("{field}.registration_scopes"));
        let problems = read.problems;
        if !problems.is_empty() {
            return Err(problems);
        }
        let audience = match settings.audience.as_slice() {
            [] => vec![settings.issuer.clone()],
            some => some.to_vec(),
        };
        Ok(Self {
            audience,
            form: settings.tokens,
            lifetime,
            refresh_lifetime,
            key_rotation: settings.key_rotation.0.as_secs(),
            leeway: settings.leeway.0.as_secs(),
            registration: settings.registration,
            registration_scopes,
            registration_token,
            clients,
            users,
            key,
            nobody,
        })
    }

    /// The client whose secret this is. Takes as long for an unknown client as for a wrong secret.
    pub(super) fn authenticate(&self, id: &str, secret: &str) -> Option<&Client> {
        let client = self.clients.get(id);
        self.is(secret, client.map(|client| &client.secret)).then_some(client).flatten()
    }

    /// The user whose password this is. Takes as long for an unknown user as for a wrong password.
    pub(super) fn authenticate_user(&self, name: &str, password: &str) -> Option<&User> {
        let user = self.users.get(name);
        self.is(password, user.map(|user| &user.password)).then_some(user).flatten()
    }

    /// Whether this is the secret that may register clients.
    pub(super) fn may_register(&self, secret: &str) -> bool {
        self.is(secret, self.registration_token.as_ref()) && self.registration_token.is_some()
    }

    /// The user of that name.
    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The client of that id.
    pub(super) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.get(id)
    }

    /// Whether a client of the configuration has that id.
    pub(super) fn has_client(&self, id: &str) -> bool {
        self.clients.contains_key(id)
    }

    /// Whether there is any user.
    pub(super) fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Everybody in the configuration.
    pub(super) fn configured(&self) -> Vec<(Kind, String)> {
        let clients = self.clients.keys().map(|id| (Kind::Client, id.to_string()));
        clients.chain(self.users.keys().map(|name| (Kind::User, name.to_string()))).collect()
    }

    /// The lifetimes in force.
    pub(super) fn lifetimes(&self) -> Longest {
        Longest { access: self.lifetime, refresh: self.refresh_lifetime }
    }

    fn is(&self, secret: &str, expected: Option<&hmac::Tag>) -> bool {
        let known = expected.is_some();
        hmac::verify(&self.key, secret.as_bytes(), expected.unwrap_or(&self.nobody).as_ref()).is_ok() && known
    }
}

/// Reads settings, and collects every mistake.
struct Reading<'a> {
    key: &'a hmac::Key,
    problems: Vec<Problem>,
}

/// A client or a user.
trait Named {
    fn name(&self) -> &str;
}

impl Named for ClientSettings {
    fn name(&self) -> &str {
        &self.id
    }
}

impl Named for UserSettings {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Reading<'_> {
    fn all<S: Named, T>(
        &mut self,
        settings: &[S],
        field: &str,
        name: &str,
        one: impl Fn(&mut Self, &S, &str) -> Option<T>,
    ) -> HashMap<Box<str>, T> {
        let mut all = HashMap::with_capacity(settings.len());
        for (at, settings) in settings.iter().enumerate() {
            let field = format!("{field}[{at}]");
            if settings.name().is_empty() || !settings.name().bytes().all(|b| matches!(b, 0x20..=0x7e)) {
                self.problem(&format!("{field}.{name}"), "must be visible ASCII, at least one character");
            }
            let known = one(self, settings, &field);
            match (all.entry(settings.name().into()), known) {
                (Entry::Occupied(_), _) => self.problem(&format!("{field}.{name}"), "is there twice"),
                (Entry::Vacant(entry), Some(known)) => {
                    entry.insert(known);
                }
                (Entry::Vacant(_), None) => {}
            }
        }
        all
    }

    fn client(&mut self, settings: &ClientSettings, field: &str) -> Option<Client> {
        let scopes = self.scopes(&settings.scopes, &format!("{field}.scopes"));
        Some(Client { scopes, secret: self.tag(&settings.secret, &format!("{field}.secret"))? })
    }

    fn user(&mut self, settings: &UserSettings, field: &str) -> Option<User> {
        let scopes = self.scopes(&settings.scopes, &format!("{field}.scopes"));
        for claim in settings.claims.keys() {
            if is_reserved(claim) {
                self.problem(&format!("{field}.claims"), "must not name a claim that every token has");
            }
        }
        let claims = settings.claims.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(User { scopes, claims, password: self.tag(&settings.password, &format!("{field}.password"))? })
    }

    fn scopes(&mut self, scopes: &[String], field: &str) -> Vec<Box<str>> {
        for (at, scope) in scopes.iter().enumerate() {
            if !is_scope_token(scope) {
                let message = "must be a scope: visible ASCII without space, quote and backslash";
                self.problem(&format!("{field}[{at}]"), message);
            }
        }
        scopes.iter().map(|scope| scope.as_str().into()).collect()
    }

    fn tag(&mut self, secret: &Secret, field: &str) -> Option<hmac::Tag> {
        match secret.read() {
            Ok(secret) => Some(hmac::sign(self.key, secret.as_bytes())),
            Err(error) => {
                self.problem(field, &error.to_string());
                None
            }
        }
    }

    fn seconds(&mut self, span: Span, field: &str) -> u64 {
        if !span.is_whole_seconds() || span == Span::default() {
            self.problem(field, "is whole seconds, at least \"1s\"");
        }
        span.0.as_secs()
    }

    fn problem(&mut self, field: &str, message: &str) {
        self.problems.push(Problem::new(field, message));
    }
}

/// Claims that the provider itself writes, or that say who holds a token.
pub(super) fn is_reserved(claim: &str) -> bool {
    RESERVED.contains(&claim)
}

/// RFC 6749 section 3.3.
pub(super) fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

fn random_key() -> Result<(hmac::Key, hmac::Tag), aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; 64];
    rand::fill(&mut bytes)?;
    let key = hmac::Key::new(HMAC_SHA256, &bytes[..32]);
    let nobody = hmac::sign(&key, &bytes[32..]);
    Ok((key, nobody))
}

const RESERVED: [&str; 17] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "scope",
    "scp",
    "client_id",
    "azp",
    "consumerKey",
    "cnf",
    "active",
    "token_type",
    "username",
    "aut",
];
