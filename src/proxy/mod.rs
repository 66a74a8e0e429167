//! The proxy door: a request comes in, is judged, and goes to the upstream.
//!
//! [`Proxy`] answers requests as a list of steps, and never decides anything about a token or a subscription: that is
//! [`Judge::check`]. Bodies are streamed, never buffered (RFC 9110 section 7.6).

mod authority;
mod body;
mod client;
mod connect;
#[cfg(test)]
mod connection_tests;
mod echo;
mod exchange;
#[cfg(test)]
mod exchange_tests;
mod forward;
mod headers;
mod limits;
mod pool;
pub mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod upgrade;
mod upstream;

use std::{
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header, request::Parts};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};

pub use body::Body;
pub use settings::Settings;

use self::{
    body::RequestBody,
    client::Client,
    connect::Tls,
    exchange::{Exchange, Observer},
    forward::{Plan, Target},
    headers::Outbound,
    upstream::Upstreams,
};
use crate::{
    authz::{Authorizer, CheckRequest, Decision, Denial, Found, Grant, fault},
    net::{
        Clock, Connection, Drain, Room,
        connection::Raw,
        listener::Listener,
        server::{Handler, Limits, Server},
        tls::{self, Acceptor},
    },
    store::{KeyType, Store, UpstreamScheme},
    telemetry::{AccessLog, ConnectionError, Door, Metrics, UpstreamError},
    throttle::Usage,
};

/// Gives verdicts. [`Authorizer`] does; tests bring their own.
pub trait Judge: Send + Sync + 'static {
    /// The verdict on a request.
    fn check(&self, request: &CheckRequest<'_>) -> impl Future<Output = Decision> + Send;
}

impl Judge for Authorizer {
    async fn check(&self, request: &CheckRequest<'_>) -> Decision {
        self.check_sampled(request).await
    }
}

/// What all workers of the door share.
#[derive(Debug)]
pub struct Shared<J = Authorizer> {
    /// Who judges.
    pub judge: Arc<J>,
    /// The tables.
    pub store: Arc<Store>,
    /// The time.
    pub clock: Arc<Clock>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where access lines go.
    pub access_log: AccessLog,
    /// Settings; a reload replaces them.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The settings' part that the server reads; replaced with them.
    pub limits: Arc<ArcSwap<Limits>>,
    /// Where clients' connections find a place.
    pub room: Room,
    /// When to go away.
    pub drain: Drain,
}

impl<J> Clone for Shared<J> {
    fn clone(&self) -> Self {
        Self {
            judge: self.judge.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            access_log: self.access_log.clone(),
            settings: self.settings.clone(),
            limits: self.limits.clone(),
            room: self.room.clone(),
            drain: self.drain.clone(),
        }
    }
}

impl<J> Shared<J> {
    /// Puts new settings in force: limits for new connections, timeouts and body size for new requests.
    pub fn reload(&self, settings: Settings) {
        self.limits.store(Arc::new(Limits::from(&settings)));
        self.settings.store(Arc::new(settings));
    }
}

/// One worker's door: shares everything but its connections to upstreams.
#[derive(Debug)]
pub struct Proxy<J = Authorizer> {
    shared: Shared<J>,
    observer: Arc<Observer>,
    upstreams: Upstreams,
}

impl<J: Judge> Proxy<J> {
    /// A door with connections of its own.
    pub fn new(shared: Shared<J>) -> Result<Self, tls::Error> {
        let observer = Observer { metrics: shared.metrics.clone(), access_log: shared.access_log.clone() };
        Ok(Self { shared, observer: Arc::new(observer), upstreams: Upstreams::new(Tls::shared()?) })
    }

    /// Serves `listener` on the present runtime until it is drained.
    pub async fn run(self: Arc<Self>, listener: Listener, tls: Option<Acceptor>) -> io::Result<()> {
        let server = Server {
            door: Door::Proxy,
            handler: self.clone(),
            limits: self.shared.limits.clone(),
            room: self.shared.room.clone(),
            tls,
            metrics: self.shared.metrics.clone(),
            drain: self.shared.drain.clone(),
        };
        tokio::select! {
            ended = server.run(listener) => ended,
            () = self.sweep() => Ok(()),
        }
    }

    /// Closes idle connections to upstreams, for ever.
    async fn sweep(&self) {
        loop {
            let idle = self.shared.settings.load().timeouts.idle.0.max(SHORTEST_SWEEP);
            tokio::time::sleep(idle / 2).await;
            self.upstreams.sweep(idle);
        }
    }

    /// A request's whole way.
    async fn respond(&self, mut request: Request<Incoming>, connection: &Arc<Connection>, raw: Raw) -> Response<Body> {
        let started = Instant::now();
        let time = (self.shared.clock.at(started), started);
        let settings = self.shared.settings.load_full();
        let tables = self.shared.store.load();
        let websocket = headers::asks_for_websocket(request.version(), request.headers());
        let upgrade = websocket.then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();

        let client = Client::of(&parts.headers, connection, &tables.gate);
        let request_id = headers::request_id(&parts.headers, client.trusted);
        let mut exchange =
            Exchange::begin(&self.observer, Found::new(tables), &parts, client.address, request_id, time);

        let host = match limits::admit(&parts, &body, raw, &settings)
            .and_then(|()| authority::host(&parts, connection.is_tls()))
        {
            Ok(host) => host,
            Err(denial) => return self.refuse(denial, exchange, &parts, body, connection, &settings).await,
        };
        let decision = self
            .shared
            .judge
            .check(&CheckRequest {
                method: &parts.method,
                host: &host,
                path: parts.uri.path(),
                query: parts.uri.query(),
                headers: &parts.headers,
                client: client.address,
                now: time.0,
            })
            .await;
        drop(host);
        match decision {
            Ok(grant) => {
                self.forward(Granted { grant, parts, body, client, upgrade }, exchange, connection, &settings).await
            }
            Err(refusal) => {
                exchange.judged(refusal.found);
                self.refuse(refusal.denial, exchange, &parts, body, connection, &settings).await
            }
        }
    }

    /// What the verdict lets pass goes to the upstream, and its answer back.
    async fn forward(
        &self,
        granted: Granted,
        mut exchange: Box<Exchange>,
        connection: &Arc<Connection>,
        settings: &Settings,
    ) -> Response<Body> {
        let Granted { grant, mut parts, body, client, upgrade } = granted;
        let Grant { found, path, context_len, query, usage } = grant;
        exchange.judged(found);
        exchange.granted();
        let tables = exchange.found.tables.clone();
        let Some(api) = exchange.found.api.and_then(|api| tables.apis.get(api as usize)) else {
            return self.refuse(Denial::Internal, exchange, &parts, body, connection, settings).await;
        };
        let upstreams = match exchange.found.key_type {
            KeyType::Production => &api.upstreams.production,
            KeyType::Sandbox => &api.upstreams.sandbox,
        };
        let host = parts.headers.get(header::HOST).cloned().or_else(|| headers::authority_value(&parts.uri));
        let plan = Plan {
            target: Target::of(path.as_deref(), if api.strip_prefix { context_len } else { 0 }, &query, &parts.uri),
            preserved_host: host.clone().filter(|_| api.preserve_host),
            websocket: upgrade.is_some() && upstreams.iter().all(|upstream| upstream.scheme != UpstreamScheme::H2c),
            connect_timeout: settings.timeouts.connect.0,
            since: exchange.started,
        };
        exchange.path = path;
        let kind = parts.headers.get(header::CONTENT_TYPE).cloned();
        Outbound {
            found: &exchange.found,
            client,
            connection,
            request_id: &exchange.request_id,
            version: parts.version,
            host,
            websocket: plan.websocket,
        }
        .edit(&mut parts.headers);
        let keeps_alive = (parts.version < Version::HTTP_2).then_some(connection);
        let (body, fate) = RequestBody::new(body, settings.max_body.0, keeps_alive, &tables);

        let sent = plan.send(Request::from_parts(parts, body), &self.upstreams, upstreams);
        let answer = limits::in_time(pin!(sent), settings.timeouts.request.0, fate.as_deref()).await;
        exchange.answered();
        let (failure, reason) = match answer {
            Ok(Ok(response)) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                exchange.upload = fate;
                return pass_on(response, exchange, usage.as_ref());
            }
            Ok(Ok(response)) => match upgrade.filter(|_| plan.websocket) {
                Some(client) => return switch(response, client, exchange, connection),
                None => (Denial::UpstreamFailed, UpstreamError::Protocol),
            },
            Ok(Err(failure)) => (failure.denial(), failure.reason()),
            Err(_) => (Denial::UpstreamTimedOut, UpstreamError::Timeout),
        };
        match fate.as_deref() {
            Some(fate) if fate.is_too_large() => self.fault(&Denial::BodyTooLarge, exchange, kind),
            Some(fate) if fate.is_broken() => {
                self.client_broke(exchange, connection, StatusCode::BAD_REQUEST, ConnectionError::Reset)
            }
            // Over HTTP/2 a client may wait, too: for the first message of a stream that goes both ways.
            Some(fate) if keeps_alive.is_some() && fate.is_waiting() && failure == Denial::UpstreamTimedOut => {
                self.client_broke(exchange, connection, StatusCode::REQUEST_TIMEOUT, ConnectionError::BodyTimeout)
            }
            _ => {
                self.shared.metrics.upstream_error(reason);
                self.fault(&failure, exchange, kind)
            }
        }
    }

    /// The answer to what may not pass, before anything of it was forwarded.
    async fn refuse(
        &self,
        denial: Denial,
        mut exchange: Box<Exchange>,
        parts: &Parts,
        body: Incoming,
        connection: &Arc<Connection>,
        settings: &Settings,
    ) -> Response<Body> {
        exchange.denied(&denial);
        if !body.is_end_stream() {
            // Boxed: rare, and every request would carry room for it.
            Box::pin(limits::discard(body, parts, connection, settings.timeouts.header.0)).await;
        }
        self.fault(&denial, exchange, parts.headers.get(header::CONTENT_TYPE).cloned())
    }

    /// A refusal or failure as an answer. `kind` is the request's content type: gRPC is answered its own way.
    fn fault(&self, denial: &Denial, mut exchange: Box<Exchange>, kind: Option<HeaderValue>) -> Response<Body> {
        let fields: HeaderMap = kind.map(|kind| (header::CONTENT_TYPE, kind)).into_iter().collect();
        let mut response = fault::render(denial, &exchange.found, &fields, exchange.now);
        response.headers_mut().insert(&headers::X_REQUEST_ID, exchange.request_id.clone());
        exchange.denied(denial);
        exchange.status = response.status().as_u16();
        if !exchange.wants_body() {
            // HTTP/1 leaves the body out by itself; over HTTP/2 it would be a protocol error.
            let length = HeaderValue::from(response.body().len());
            response.headers_mut().insert(header::CONTENT_LENGTH, length);
            return response.map(|_| Body::default().with(exchange));
        }
        response.map(|bytes| Body::full(bytes).with(exchange))
    }

    /// The client's body was no HTTP, stopped coming, or it went away: like what the parser finds, a status only.
    fn client_broke(
        &self,
        mut exchange: Box<Exchange>,
        connection: &Connection,
        status: StatusCode,
        reason: ConnectionError,
    ) -> Response<Body> {
        self.shared.metrics.connection_error(reason);
        connection.close_after();
        exchange.status = status.as_u16();
        let mut response = Response::new(Body::default().with(exchange));
        *response.status_mut() = status;
        response
    }
}

impl<J: Judge> Handler for Proxy<J> {
    type Body = Body;

    async fn call(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
        raw: Raw,
    ) -> Response<Body> {
        self.respond(request, &connection, raw).await
    }
}

/// A request that may pass.
#[derive(Debug)]
struct Granted {
    grant: Grant,
    parts: Parts,
    body: Incoming,
    client: Client,
    upgrade: Option<OnUpgrade>,
}

/// An upstream's answer, as the client gets it.
fn pass_on(mut response: Response<Body>, mut exchange: Box<Exchange>, usage: Option<&Usage>) -> Response<Body> {
    let version = response.version();
    headers::edit_response(response.headers_mut(), version, false, usage);
    *response.version_mut() = Version::HTTP_11;
    exchange.status = response.status().as_u16();
    response.map(|body| body.with(exchange))
}

/// Client and upstream agreed to switch: what follows goes from one to the other.
fn switch(
    mut response: Response<Body>,
    client: OnUpgrade,
    mut exchange: Box<Exchange>,
    connection: &Arc<Connection>,
) -> Response<Body> {
    upgrade::join(client, hyper::upgrade::on(&mut response), connection.clone());
    headers::edit_response(response.headers_mut(), Version::HTTP_11, true, None);
    exchange.status = response.status().as_u16();
    response.map(|body| body.with(exchange))
}

const SHORTEST_SWEEP: Duration = Duration::from_secs(1);
