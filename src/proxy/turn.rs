//! One request at the door: what is kept of it until it has its answer, and what became of it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Version};
use hyper::upgrade::OnUpgrade;

use super::{
    Body, Settings,
    body::{Fate, RequestBody},
    client::Client,
    exchange::Exchange,
    forward::{Plan, Target},
    headers::{self, Edited, Outbound},
};
use crate::{
    authz::{Denial, Found, Grant, fault},
    net::{
        Connection,
        connection::Raw,
        message::{Head, Response},
        server::Inbound,
    },
    store::{Api, UpstreamScheme},
    telemetry::{ConnectionError, UpstreamError},
};

/// One request's turn, from its head to its answer's.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) head: Head,
    /// Until it is forwarded.
    pub(super) body: Option<Inbound>,
    pub(super) raw: Raw,
    /// Its content type: gRPC is refused its own way.
    pub(super) kind: Option<HeaderValue>,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) client: Client,
    pub(super) exchange: Box<Exchange>,
    pub(super) connection: Arc<Connection>,
    pub(super) settings: Arc<Settings>,
}

/// A granted request, ready to be sent. Nothing of it holds the tables.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) plan: Plan,
    pub(super) body: RequestBody,
    pub(super) fate: Option<Arc<Fate>>,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The upstream answered.
    Answered(Response<Body>),
    /// We answer ourselves: it was no call of an API.
    Published(Response<Body>),
    /// Client and upstream agreed to switch protocols.
    Switched(Response<Body>, OnUpgrade),
    /// It may not pass, and is answered so; nothing of it was forwarded.
    Refused(Denial, Response<Bytes>),
    /// It could not be passed on; with what the upstream did wrong.
    Failed(Denial, Option<UpstreamError>),
    /// The client's body was no HTTP, stopped coming, or it went away: like what the parser finds, a status only.
    Broken(StatusCode, ConnectionError),
}

impl Turn {
    /// HTTP/1, whose connection goes on only when the body was read to its end.
    pub(super) fn keeps_alive(&self) -> Option<&Arc<Connection>> {
        (self.exchange.version < Version::HTTP_2).then_some(&self.connection)
    }

    /// The answer to one that may not pass.
    pub(super) fn refuse(&self, denial: Denial, found: &Found) -> Outcome {
        let response = fault::render(&denial, found, self.kind.as_ref(), self.exchange.now);
        Outcome::Refused(denial, response)
    }

    /// How the request is to be sent.
    pub(super) fn plan(&self, grant: &Grant, assertion: Option<(HeaderName, HeaderValue)>, api: &Api) -> Plan {
        let Grant { found, context_len, query, .. } = grant;
        let exchange = &self.exchange;
        let upstreams = api.upstreams.of(found.key_type);
        let websocket =
            self.upgrade.is_some() && upstreams.iter().all(|upstream| upstream.scheme != UpstreamScheme::H2c);
        let cut = if api.strip_prefix { *context_len } else { 0 };
        let target = Target::of(exchange.path.as_deref(), cut, query, &self.head.uri);
        let outbound = Outbound {
            found,
            client: self.client,
            connection: &self.connection,
            request_id: &exchange.request_id,
            websocket,
        };
        let Edited { mut fields, trailers, said_length } = outbound.edit(&self.head);
        if exchange.over_quota {
            fields.set(&found.tables.gate.identity.over_quota, &HeaderValue::from_static("true"));
        }
        // After what a client sent under that name is gone.
        if let Some((name, value)) = assertion {
            fields.set(&name, &value);
        }
        Plan {
            method: self.head.method.clone(),
            target,
            fields,
            said_length,
            preserved_host: if api.preserve_host { self.host() } else { None },
            websocket,
            trailers,
            connect_timeout: self.settings.timeouts.connect.0,
        }
    }

    /// What the client asked for, as it wrote it.
    fn host(&self) -> Option<HeaderValue> {
        self.head.fields.value_of("host").or_else(|| headers::authority_value(&self.head.uri))
    }
}
