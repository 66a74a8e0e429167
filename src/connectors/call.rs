//! One call of a provider's management interface: what is asked, where, as whom, and what of it is secret.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header::AUTHORIZATION};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{client_auth, oidc::Place, refusal::Secrets};
use crate::keymanager::{Error, Result};

/// One call. Built by its methods: `Call::get(&place).own_token(&token_endpoint).absent("client")`.
#[derive(Debug)]
pub(super) struct Call<'c> {
    pub(super) method: Method,
    pub(super) place: &'c Place,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) who: Who<'c>,
    /// Whether a refusal of the credentials is one of ours.
    pub(super) ours: bool,
    pub(super) absent: Option<&'static str>,
    /// Whether it changes nothing. Of one that may, where it was sent and its answer is lost, of no use, a redirect or a
    /// 5xx, nobody knows whether it was done: that is [`Error::Unclear`].
    pub(super) reads: bool,
    pub(super) secrets: Secrets,
}

#[derive(Debug)]
pub(super) enum Body {
    None,
    Json(Zeroizing<String>),
    Form(Vec<(String, Zeroizing<String>)>),
}

/// As whom a call is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who<'c> {
    /// Nobody, or whom the headers say.
    Open,
    /// Ourselves, by what the settings say.
    Own,
    /// Ourselves, by an access token of this token endpoint.
    OwnToken(&'c Place),
}

impl<'c> Call<'c> {
    pub(super) fn new(method: Method, place: &'c Place) -> Self {
        let (headers, secrets) = (HeaderMap::new(), Secrets::default());
        let (who, body) = (Who::Open, Body::None);
        let reads = matches!(method, Method::GET | Method::HEAD);
        Self { method, place, headers, body, who, ours: false, absent: None, reads, secrets }
    }

    pub(super) fn get(place: &'c Place) -> Self {
        Self::new(Method::GET, place)
    }

    pub(super) fn post(place: &'c Place) -> Self {
        Self::new(Method::POST, place)
    }

    pub(super) fn put(place: &'c Place) -> Self {
        Self::new(Method::PUT, place)
    }

    pub(super) fn delete(place: &'c Place) -> Self {
        Self::new(Method::DELETE, place)
    }

    /// As ourselves, by the credential of the settings.
    pub(super) const fn own(mut self) -> Self {
        (self.who, self.ours) = (Who::Own, true);
        self
    }

    /// As ourselves, by an access token from `endpoint`; by the credential itself where that is a bearer token.
    pub(super) const fn own_token(mut self, endpoint: &'c Place) -> Self {
        (self.who, self.ours) = (Who::OwnToken(endpoint), true);
        self
    }

    /// As whoever has this token. It is no credential of ours: a 401 is the provider's refusal.
    pub(super) fn bearer(self, token: &str) -> Result<Self> {
        self.authorization(&format!("Bearer {token}"), token)
    }

    /// As this client, by RFC 6749 section 2.3.1. A 401 is the provider's refusal.
    pub(super) fn basic(mut self, id: &str, secret: &str) -> Result<Self> {
        let field = client_auth::basic(id, secret).ok_or_else(|| Error::invalid("clientId", NO_FIELD))?;
        self.secrets.note(secret);
        self.secrets.note_field(&field);
        self.headers.insert(AUTHORIZATION, field);
        Ok(self)
    }

    /// With this `Authorization` field, in which `secret` stands.
    pub(super) fn authorization(mut self, field: &str, secret: &str) -> Result<Self> {
        let field = client_auth::sensitive(field).ok_or_else(|| Error::invalid("token", NO_FIELD))?;
        self.secrets.note(secret);
        self.headers.insert(AUTHORIZATION, field);
        Ok(self)
    }

    /// What is sent as credentials is ours, of the configuration: a 401 or 403 is told as such.
    pub(super) const fn ours(mut self) -> Self {
        self.ours = true;
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With a JSON body. Members whose names say so are secret.
    pub(super) fn json(mut self, body: &Value) -> Self {
        self.secrets.note_members(body);
        self.body = Body::Json(Zeroizing::new(body.to_string()));
        self
    }

    /// With a form. Fields whose names say so are secret.
    pub(super) fn form<'f>(mut self, fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Self {
        let fields = fields.into_iter().map(|(name, value)| {
            self.secrets.note_named(name, value);
            (name.to_owned(), Zeroizing::new(value.to_owned()))
        });
        self.body = Body::Form(fields.collect());
        self
    }

    /// What a 404 says there is none of; without it a 404 is a refusal.
    pub(super) const fn absent(mut self, what: &'static str) -> Self {
        if self.absent.is_none() {
            self.absent = Some(what);
        }
        self
    }

    /// It changes nothing, whatever its method.
    pub(super) const fn reads(mut self) -> Self {
        self.reads = true;
        self
    }

    /// Marks another secret of the call.
    pub(super) fn secret(mut self, secret: &str) -> Self {
        self.secrets.note(secret);
        self
    }
}

/// A place below `base`, whose `segments` are percent-encoded, slashes too.
pub(super) fn below<'s>(base: &Place, segments: impl IntoIterator<Item = &'s str>) -> Place {
    let mut url = base.url.clone();
    // An http or https URL always has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        for segment in segments {
            // In a URL these are steps in the tree, however they are encoded: encoded twice they lead nowhere else, to
            // a name that hardly anything has.
            match segment {
                "." => path.push("%2E"),
                ".." => path.push("%2E%2E"),
                name => path.push(name),
            };
        }
    }
    Place { url, reach: base.reach }
}

/// The place with this query.
pub(super) fn asking<'q>(place: &Place, query: impl IntoIterator<Item = (&'q str, &'q str)>) -> Place {
    let mut url = place.url.clone();
    url.query_pairs_mut().extend_pairs(query);
    Place { url, reach: place.reach }
}

const NO_FIELD: &str = "must be visible ASCII characters";
