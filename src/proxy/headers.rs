//! Header fields on their way through, edited in place (RFC 9110 section 7.6, attacks I01–I08).
//!
//! First everything goes that concerns one connection only or that a client must not say; only then ours are set.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};

use smallvec::SmallVec;

use super::client::{Client, X_FORWARDED_FOR};
use crate::{
    authz::Found,
    net::{
        Connection,
        fields::{lists, members},
    },
    store::{AuthRule, Gate},
};

/// What `forward` needs to know to edit a request's fields.
#[derive(Debug)]
pub(super) struct Outbound<'a> {
    pub(super) found: &'a Found,
    pub(super) client: Client,
    pub(super) connection: &'a Connection,
    pub(super) request_id: &'a HeaderValue,
    /// The protocol it came by.
    pub(super) version: Version,
    /// What the client asked for, as it wrote it.
    pub(super) host: Option<HeaderValue>,
    /// The client asks for a WebSocket.
    pub(super) websocket: bool,
}

/// What is left of a client's fields.
struct Kept {
    /// It takes trailers.
    trailers: bool,
    /// There is a list of forwarded addresses, to be continued.
    continues: bool,
}

impl Outbound<'_> {
    /// Makes a client's fields into what the upstream gets, save `Host` and what one connection is told of trailers.
    /// Tells whether the client takes those.
    pub(super) fn edit(self, headers: &mut HeaderMap) -> bool {
        let gate = &self.found.tables.gate;
        let upgrade = self.websocket.then(|| headers.get(header::UPGRADE).cloned()).flatten();
        let Kept { trailers, continues } = self.clean(headers, gate);
        headers.reserve(ADDED);
        if let Some(upgrade) = upgrade {
            headers.insert(header::UPGRADE, upgrade);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        self.forwarding(headers, continues);
        self.identity(headers, gate);
        headers.append(header::VIA, via(self.version));
        trailers
    }

    /// Takes out what must not pass.
    fn clean(&self, headers: &mut HeaderMap, gate: &Gate) -> Kept {
        let keep_token = self.found.api().is_some_and(|api| api.forward_token && api.token_in_header)
            && self.found.resource().is_some_and(|resource| resource.auth != AuthRule::None);
        let mut unwanted = Unwanted::new();
        let (mut trailers, mut continues) = (false, false);
        for (name, value) in &*headers {
            match name.as_str() {
                "host" | "content-length" => {}
                "connection" => {
                    named(value, &mut unwanted);
                    unwanted.push(header::CONNECTION);
                }
                "te" => {
                    trailers |= lists(value.as_bytes(), "trailers");
                    unwanted.push(header::TE);
                }
                "authorization" if !keep_token && is_token(value) => unwanted.push(header::AUTHORIZATION),
                "authorization" => {}
                other => {
                    if is_hop_by_hop(other) || (!self.client.trusted && is_forwarding(other)) || gate.strips(other) {
                        unwanted.push(name.clone());
                    } else if *name == X_FORWARDED_FOR {
                        continues = true;
                    }
                }
            }
        }
        for name in unwanted {
            headers.remove(name);
        }
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        Kept { trailers, continues }
    }

    /// `X-Forwarded-*` and `X-Request-Id`: a trusted peer's are kept and continued, another's are gone.
    fn forwarding(&self, headers: &mut HeaderMap, continues: bool) {
        if let Some(peer) = self.connection.peer_value() {
            let continued = continues.then(|| continue_list(headers, peer)).flatten();
            headers.insert(&X_FORWARDED_FOR, continued.unwrap_or_else(|| peer.clone()));
        }
        let proto = if self.connection.is_tls() { "https" } else { "http" };
        headers.entry(&X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(proto));
        if let Some(host) = &self.host {
            headers.entry(&X_FORWARDED_HOST).or_insert_with(|| host.clone());
        }
        headers.insert(&X_REQUEST_ID, self.request_id.clone());
    }

    /// The client's own are gone by now: a claim that the token lacks leaves no header.
    fn identity(&self, headers: &mut HeaderMap, gate: &Gate) {
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
                headers.insert(name, value.clone());
            }
        }
        let Some(application) = self.found.application() else { return };
        headers.insert(&names.application, application.name.value().clone());
        if let Some(subscription) = self.found.subscription() {
            headers.insert(&names.tier, subscription.tier_name.value().clone());
        }
    }
}

/// Makes an upstream's fields into what the client gets. False: its body is in a coding other than `chunked`, which
/// nobody asked for, and which would be lost on the way (RFC 9112 section 6.1).
pub(super) fn edit_response(headers: &mut HeaderMap, version: Version, switching: bool) -> bool {
    let upgrade = switching.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    let mut unwanted = Unwanted::new();
    let (mut coded, mut readable) = (false, true);
    for (name, value) in &*headers {
        match name.as_str() {
            "connection" => {
                named(value, &mut unwanted);
                unwanted.push(header::CONNECTION);
            }
            "transfer-encoding" => {
                readable &= !coded && value.as_bytes().eq_ignore_ascii_case(b"chunked");
                coded = true;
                unwanted.push(header::TRANSFER_ENCODING);
            }
            other if is_hop_by_hop(other) || other == "te" => unwanted.push(name.clone()),
            _ => {}
        }
    }
    for name in unwanted {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.append(header::VIA, via(version));
    readable
}

/// Trailers carry no identity, no credential and nothing of one connection.
pub(super) fn clean_trailers(trailers: &mut HeaderMap, gate: &Gate) {
    let unwanted: Vec<_> = trailers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            matches!(
                name,
                "authorization" | "connection" | "te" | "host" | "content-length" | "cookie" | "x-request-id"
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
    pub(super) upgrade: bool,
}

impl Present {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "content-type" => present.content_type = true,
                "x-forwarded-for" => present.forwarded_for = true,
                "x-request-id" => present.request_id = true,
                "traceparent" => present.traceparent = true,
                "upgrade" => present.upgrade = true,
                _ => {}
            }
        }
        present
    }
}

/// The request's id: a trusted peer's, if it is short visible ASCII, else a new one.
pub(super) fn request_id(headers: &HeaderMap, trusted: bool) -> HeaderValue {
    let given = trusted.then(|| headers.get(&X_REQUEST_ID)).flatten();
    let given = given.filter(|id| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    given.cloned().unwrap_or_else(|| {
        let mut id = Vec::with_capacity(32);
        let random = fastrand::u128(..).to_be_bytes();
        id.extend(random.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]));
        HeaderValue::from_maybe_shared(bytes::Bytes::from(id)).expect("hex digits are visible ASCII")
    })
}

/// Whether an HTTP/1.1 client asks to switch to WebSocket. Other protocols are not offered to upstreams: `h2c` would
/// let further requests pass unjudged.
pub(super) fn asks_for_websocket(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && headers.get_all(header::UPGRADE).iter().count() == 1
        && headers.get_all(header::CONNECTION).iter().any(|value| lists(value.as_bytes(), "upgrade"))
}

/// About the bytes of a head, as HTTP/1.1 writes it.
pub(super) fn size<B>(head: &Request<B>) -> u64 {
    let fields: usize = head.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (fields + head.method().as_str().len() + head.uri().path_and_query().map_or(0, |target| target.as_str().len()))
        as u64
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
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_09 | Version::HTTP_10 => "1.0 tollgate",
        Version::HTTP_11 => "1.1 tollgate",
        _ => "2 tollgate",
    })
}

/// Fields to be removed; most often a few.
type Unwanted = SmallVec<[HeaderName; 4]>;

/// The names a `Connection` field lists. `keep-alive`, which is most often all of it, goes in any case.
fn named(value: &HeaderValue, into: &mut Unwanted) {
    if value.as_bytes().eq_ignore_ascii_case(b"keep-alive") || value.as_bytes().eq_ignore_ascii_case(b"close") {
        return;
    }
    into.extend(members(value.as_bytes()).filter_map(|name| HeaderName::from_bytes(name).ok()));
}

/// A token of ours to judge, as opposed to, say, Basic credentials meant for the upstream.
fn is_token(value: &HeaderValue) -> bool {
    let value = value.as_bytes().trim_ascii_start();
    let end = value.iter().position(|b| *b == b' ' || *b == b'\t').unwrap_or(value.len());
    let scheme = &value[..end];
    scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"dpop")
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "expect"
    )
}

/// Fields by which proxies tell of the client, in every spelling that an upstream might take for them.
fn is_forwarding(name: &str) -> bool {
    let name = name.as_bytes();
    let like = |known: &[u8]| {
        name.len() >= known.len()
            && name.iter().zip(known).all(|(b, known)| b == known || (*known == b'-' && matches!(b, b'_' | b'.')))
    };
    like(b"x-forwarded-") || (name.len() == 9 && (like(b"forwarded") || like(b"x-real-ip")))
}

/// The list of forwarded addresses, all lines of it, with `peer` at its end.
fn continue_list(headers: &HeaderMap, peer: &HeaderValue) -> Option<HeaderValue> {
    let mut lines = headers.get_all(&X_FORWARDED_FOR).iter();
    let mut list = lines.next()?.as_bytes().to_vec();
    for line in lines.chain([peer]) {
        list.extend_from_slice(b", ");
        list.extend_from_slice(line.as_bytes());
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(list)).ok()
}

static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Fields we may set.
const ADDED: usize = 12;
