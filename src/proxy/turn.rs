//! One request at the door: what is kept of it until it has its answer, and what became of it.

use std::{mem, sync::Arc};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;

use super::{
    Body, Settings,
    client::Client,
    exchange::Exchange,
    forward::{Plan, Target},
    headers::{self, Outbound},
};
use crate::{
    authz::{Denial, ForwardQuery},
    net::{Connection, connection::Raw, server::Inbound},
    store::{Api, Upstream, UpstreamScheme},
    telemetry::{ConnectionError, UpstreamError},
    throttle::Admitted,
};

/// One request's turn, from its head to its answer's.
#[derive(Debug)]
pub(super) struct Turn {
    /// Taken apart when it is forwarded.
    pub(super) head: Request<()>,
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

/// What a grant says of the request, beside what was found.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) path: Option<Box<str>>,
    pub(super) context_len: usize,
    pub(super) query: ForwardQuery,
    pub(super) admitted: Admitted,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The upstream answered.
    Answered(Response<Body>),
    /// We answer ourselves: it was no call of an API.
    Published(Response<Body>),
    /// Client and upstream agreed to switch protocols.
    Switched(Response<Body>),
    /// It may not pass; nothing of it was forwarded.
    Refused(Denial),
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

    /// How the request is to be sent.
    pub(super) fn plan(&self, granted: &Granted, api: &Api, upstreams: &[Arc<Upstream>]) -> Plan {
        let cut = if api.strip_prefix { granted.context_len } else { 0 };
        Plan {
            target: Target::of(granted.path.as_deref(), cut, &granted.query, self.head.uri()),
            preserved_host: if api.preserve_host { self.host() } else { None },
            websocket: self.upgrade.is_some()
                && upstreams.iter().all(|upstream| upstream.scheme != UpstreamScheme::H2c),
            trailers: false,
            connect_timeout: self.settings.timeouts.connect.0,
        }
    }

    /// The head as the upstream gets it, save what each way there says anew; and whether the client takes trailers.
    pub(super) fn outbound(
        &mut self,
        granted: Granted,
        assertion: Option<(HeaderName, HeaderValue)>,
        websocket: bool,
    ) -> (Request<()>, bool) {
        self.exchange.path = granted.path;
        self.exchange.usage = granted.admitted.usage;
        self.exchange.over_quota = granted.admitted.over_quota;
        let host = self.host();
        let mut head = mem::take(&mut self.head);
        let trailers = Outbound {
            found: &self.exchange.found,
            client: self.client,
            connection: &self.connection,
            request_id: &self.exchange.request_id,
            version: self.exchange.version,
            host,
            websocket,
        }
        .edit(head.headers_mut());
        if self.exchange.over_quota {
            let name = self.exchange.found.tables.gate.identity.over_quota.clone();
            head.headers_mut().insert(name, HeaderValue::from_static("true"));
        }
        // After what a client sent under that name is gone.
        if let Some((name, value)) = assertion {
            head.headers_mut().insert(name, value);
        }
        (head, trailers)
    }

    /// What the client asked for, as it wrote it.
    fn host(&self) -> Option<HeaderValue> {
        let head = &self.head;
        head.headers().get(header::HOST).cloned().or_else(|| headers::authority_value(head.uri()))
    }
}
