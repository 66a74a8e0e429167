//! Header fields on their way through (RFC 9110 section 7.6, attacks I01–I08).
//!
//! First everything is left out that concerns one connection only or that a client must not say; only then ours are set.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header};
use smallvec::SmallVec;

use super::client::{Client, X_FORWARDED_FOR};
use crate::{
    authz::Found,
    net::{
        Connection, Fields,
        fields::{lists, members},
        message::Head,
    },
    store::{AuthRule, Gate},
};

/// What is known of a request whose fields are edited for its upstream.
#[derive(Debug)]
pub(super) struct Outbound<'a> {
    pub(super) found: &'a Found,
    pub(super) client: Client,
    pub(super) connection: &'a Connection,
    pub(super) request_id: &'a HeaderValue,
    /// The client asks for a WebSocket.
    pub(super) websocket: bool,
}

/// A client's fields as the upstream gets them, save `Host` and what one connection is told.
#[derive(Debug)]
pub(super) struct Edited {
    pub(super) fields: Fields,
    /// The client takes trailers.
    pub(super) trailers: bool,
    /// It said how long its body is.
    pub(super) said_length: bool,
}

/// Which fields were kept that are continued, or told once.
#[derive(Debug, Default)]
struct Kept {
    forwarded_for: bool,
    forwarded_proto: bool,
    forwarded_host: bool,
    cookies: usize,
}

impl Outbound<'_> {
    /// Makes a client's fields into what the upstream gets.
    pub(super) fn edit(self, head: &Head) -> Edited {
        let gate = &self.found.tables.gate;
        let (mut edited, kept) = self.cleaned(&head.fields, gate);
        let fields = &mut edited.fields;
        if kept.cookies > 1 {
            join_cookies(fields);
        }
        if edited.trailers {
            fields.push(&header::TE, &HeaderValue::from_static("trailers"));
        }
        if self.websocket {
            fields.push_of(&header::UPGRADE, &head.fields, header::UPGRADE.as_str());
            fields.push(&header::CONNECTION, &HeaderValue::from_static("upgrade"));
        }
        self.forwarding(fields, head, &kept);
        self.identity(fields, gate);
        fields.push(&header::VIA, via(head.version));
        edited
    }

    /// What may pass.
    fn cleaned(&self, from: &Fields, gate: &Gate) -> (Edited, Kept) {
        let keep_token = self.found.api().is_some_and(|api| api.forward_token && api.token_in_header)
            && self.found.resource().is_some_and(|resource| resource.auth != AuthRule::None);
        let listed = listed(from);
        let (mut trailers, mut said_length, mut kept) = (false, false, Kept::default());
        let mut fields = Fields::with_capacity(from.len() + ADDED, from.size() + ADDED_BYTES);
        fields.extend_from(from, |name, value| match name {
            b"host" | b"connection" => false,
            b"te" => {
                trailers |= lists(value, "trailers");
                false
            }
            b"content-length" => {
                said_length = true;
                false
            }
            _ if is_listed(&listed, name) => false,
            b"authorization" => keep_token || !is_token(value),
            b"cookie" if !gate.strips(name) => {
                kept.cookies += 1;
                true
            }
            _ if is_hop_by_hop(name) || (!self.client.trusted && is_forwarding(name)) || gate.strips(name) => false,
            // Set anew.
            b"x-request-id" => false,
            b"x-forwarded-for" => {
                kept.forwarded_for = true;
                // Continued where there is somebody to be told of.
                self.connection.peer_value().is_none()
            }
            b"x-forwarded-proto" => {
                kept.forwarded_proto = true;
                true
            }
            b"x-forwarded-host" => {
                kept.forwarded_host = true;
                true
            }
            _ => true,
        });
        (Edited { fields, trailers, said_length }, kept)
    }

    /// `X-Forwarded-*` and `X-Request-Id`: a trusted peer's are kept and continued, another's are gone.
    fn forwarding(&self, fields: &mut Fields, head: &Head, kept: &Kept) {
        if let Some(peer) = self.connection.peer_value() {
            let continued = kept.forwarded_for.then(|| continue_list(&head.fields, peer)).flatten();
            fields.push(&X_FORWARDED_FOR, continued.as_ref().unwrap_or(peer));
        }
        if !kept.forwarded_proto {
            fields.push(&X_FORWARDED_PROTO, if self.connection.is_tls() { &HTTPS } else { &HTTP });
        }
        if !kept.forwarded_host && !fields.push_of(&X_FORWARDED_HOST, &head.fields, "host") {
            authority_value(&head.uri).iter().for_each(|host| fields.push(&X_FORWARDED_HOST, host));
        }
        fields.push(&X_REQUEST_ID, self.request_id);
    }

    /// The client's own are gone by now: a claim that the token lacks leaves no header.
    fn identity(&self, fields: &mut Fields, gate: &Gate) {
        let Some(identity) = self.found.identity.as_deref() else { return };
        let names = &gate.identity;
        let common = &identity.common;
        let own = [
            (&names.subject, &identity.subject_value),
            (&names.client_id, &common.consumer_key_value),
            (&names.scopes, &common.scopes_value),
        ];
        // By the claim's name: tables and tokens may be of two versions while a reload is under way.
        let claims = names.claims.iter().enumerate().map(|(at, (claim, name))| (name, identity.claim(at, claim)));
        for (name, value) in own.into_iter().map(|(name, value)| (name, value.as_ref())).chain(claims) {
            if let Some(value) = value {
                fields.set(name, value);
            }
        }
        let Some(application) = self.found.application() else { return };
        fields.set(&names.application, application.name.value());
        if let Some(subscription) = self.found.subscription() {
            fields.set(&names.tier, subscription.tier_name.value());
        }
    }
}

/// Makes an upstream's fields into what the client gets. False: its body is in a coding other than `chunked`, which
/// nobody asked for, and which would be lost on the way (RFC 9112 section 6.1).
pub(super) fn edit_response(fields: &mut Fields, version: Version, switching: bool) -> bool {
    let upgrade = switching.then(|| fields.value_of(header::UPGRADE.as_str())).flatten();
    let listed = listed(fields);
    let (mut coded, mut readable) = (false, true);
    fields.retain(|name, value| match name {
        b"connection" | b"te" => false,
        b"transfer-encoding" => {
            readable &= !coded && value.eq_ignore_ascii_case(b"chunked");
            coded = true;
            false
        }
        _ => !is_hop_by_hop(name) && !is_listed(&listed, name),
    });
    if let Some(upgrade) = upgrade {
        fields.push(&header::UPGRADE, &upgrade);
        fields.push(&header::CONNECTION, &HeaderValue::from_static("upgrade"));
    }
    fields.push(&header::VIA, via(version));
    readable
}

/// Trailers carry no identity, no credential and nothing of one connection.
pub(super) fn clean_trailers(trailers: &mut HeaderMap, gate: &Gate) {
    let unwanted: Vec<_> = trailers
        .keys()
        .filter(|name| {
            let name = name.as_str().as_bytes();
            matches!(
                name,
                b"authorization" | b"connection" | b"te" | b"host" | b"content-length" | b"cookie" | b"x-request-id"
            ) || is_hop_by_hop(name)
                || is_forwarding(name)
                || gate.strips(name)
        })
        .cloned()
        .collect();
    for name in unwanted {
        trailers.remove(name);
    }
}

/// Which of the fields are there that are looked for in every request and mostly are not: to look at each name once
/// costs less than to ask for each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Present {
    pub(super) content_type: bool,
    pub(super) forwarded_for: bool,
    pub(super) request_id: bool,
    pub(super) traceparent: bool,
}

impl Present {
    pub(super) fn of(fields: &Fields) -> Self {
        let mut present = Self::default();
        for (name, _) in fields.iter() {
            match name {
                b"content-type" => present.content_type = true,
                b"x-forwarded-for" => present.forwarded_for = true,
                b"x-request-id" => present.request_id = true,
                b"traceparent" => present.traceparent = true,
                _ => {}
            }
        }
        present
    }
}

/// The request's id: a trusted peer's, if it is short visible ASCII, else a new one.
pub(super) fn request_id(fields: &Fields, trusted: bool) -> HeaderValue {
    let given = trusted.then(|| fields.get(X_REQUEST_ID.as_str())).flatten();
    let given = given.filter(|id| (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic));
    given.and_then(|id| HeaderValue::from_bytes(id).ok()).unwrap_or_else(|| {
        let mut id = Vec::with_capacity(32);
        let random = fastrand::u128(..).to_be_bytes();
        id.extend(random.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]));
        HeaderValue::from_maybe_shared(Bytes::from(id)).expect("hex digits are visible ASCII")
    })
}

/// Whether an HTTP/1.1 client asks to switch to WebSocket. Other protocols are not offered to upstreams: `h2c` would
/// let further requests pass unjudged.
pub(super) fn asks_for_websocket(version: Version, fields: &Fields) -> bool {
    version == Version::HTTP_11
        && fields.sole("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && fields.all("connection").any(|value| lists(value, "upgrade"))
}

/// About the bytes of a head, as HTTP/1.1 writes it.
pub(super) fn size(head: &Head) -> u64 {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    (head.fields.size() + head.method.as_str().len() + target) as u64
}

/// A target's authority as a field: HTTP/2 has no `Host`.
pub(super) fn authority_value(uri: &Uri) -> Option<HeaderValue> {
    HeaderValue::from_str(uri.authority()?.as_str()).ok()
}

/// The trace id of a valid `traceparent` (W3C Trace Context).
pub(super) fn trace_id(traceparent: &HeaderValue) -> Option<&str> {
    let text = traceparent.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, id, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let good =
        hex(version, 2) && version != "ff" && hex(id, 32) && hex(span, 16) && parts.next().is_some_and(|f| hex(f, 2));
    (good && id.bytes().any(|b| b != b'0')).then_some(id)
}

/// By which protocol a message came to us (RFC 9110 section 7.6.3).
fn via(version: Version) -> &'static HeaderValue {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => &VIA_1_0,
        Version::HTTP_11 => &VIA_1_1,
        _ => &VIA_2,
    }
}

/// What `Connection` fields list, in lower case; most often nothing that is to be looked for.
type Listed = SmallVec<[Box<[u8]>; 2]>;

fn listed(fields: &Fields) -> Listed {
    let mut listed = Listed::new();
    for list in fields.all("connection") {
        // What goes in any case, which is most often all of it.
        if !list.eq_ignore_ascii_case(b"keep-alive") && !list.eq_ignore_ascii_case(b"close") {
            listed.extend(members(list).map(|name| name.to_ascii_lowercase().into()));
        }
    }
    listed
}

fn is_listed(listed: &Listed, name: &[u8]) -> bool {
    listed.iter().any(|listed| **listed == *name)
}

/// A token of ours to judge, as opposed to, say, Basic credentials meant for the upstream.
fn is_token(value: &[u8]) -> bool {
    let value = value.trim_ascii_start();
    let end = value.iter().position(|b| *b == b' ' || *b == b'\t').unwrap_or(value.len());
    let scheme = &value[..end];
    scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"dpop")
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"transfer-encoding"
            | b"upgrade"
            | b"http2-settings"
            | b"expect"
    )
}

/// Fields by which proxies tell of the client, in every spelling that an upstream might take for them.
fn is_forwarding(name: &[u8]) -> bool {
    let like = |known: &[u8]| {
        name.len() >= known.len()
            && name.iter().zip(known).all(|(b, known)| b == known || (*known == b'-' && matches!(b, b'_' | b'.')))
    };
    like(b"x-forwarded-") || (name.len() == 9 && (like(b"forwarded") || like(b"x-real-ip")))
}

/// The list of forwarded addresses, all lines of it, with `peer` at its end.
fn continue_list(fields: &Fields, peer: &HeaderValue) -> Option<HeaderValue> {
    let lines: SmallVec<[&[u8]; 4]> = fields.all(X_FORWARDED_FOR.as_str()).chain([peer.as_bytes()]).collect();
    HeaderValue::from_maybe_shared(Bytes::from(lines.join(&b", "[..]))).ok()
}

/// HTTP/2 may split cookies over several fields, HTTP/1 must not (RFC 9113 section 8.2.3).
fn join_cookies(fields: &mut Fields) {
    let crumbs: Vec<&[u8]> = fields.all("cookie").collect();
    let mut joined =
        HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..]))).expect("fields joined are a field");
    joined.set_sensitive(true);
    fields.set(&header::COOKIE, &joined);
}

static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");
static VIA_1_0: HeaderValue = HeaderValue::from_static("1.0 tollgate");
static VIA_1_1: HeaderValue = HeaderValue::from_static("1.1 tollgate");
static VIA_2: HeaderValue = HeaderValue::from_static("2 tollgate");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Fields we may set, and about their bytes.
const ADDED: usize = 12;
const ADDED_BYTES: usize = 512;
