//! The proxy door: a request comes in, is judged, and goes to the upstream.
//!
//! [`Proxy`] answers requests as a list of steps, and never decides anything about a token or a subscription: that is
//! [`Judge::check`]. Bodies are streamed, never buffered (RFC 9110 section 7.6).

mod authority;
mod body;
mod called;
mod client;
mod connect;
#[cfg(test)]
mod connection_tests;
mod cors;
mod echo;
mod events;
mod exchange;
#[cfg(test)]
mod exchange_tests;
mod forward;
mod headers;
mod http1;
mod limits;
mod meter;
mod pool;
mod published;
pub mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token_usage;
mod turn;
mod upgrade;
mod upstream;

use std::{
    borrow::Cow,
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

pub use body::Body;
pub use settings::Settings;

use self::{
    body::RequestBody,
    client::Client,
    connect::Tls,
    exchange::{Exchange, Observer},
    headers::Present,
    limits::Timers,
    meter::{Gauge, Meter},
    turn::{Outcome, Ready, Turn},
    upstream::Upstreams,
};
use crate::{
    authz::{Authorizer, CheckRequest, Decision, Denial, Found, Grant, Refusal, fault},
    net::{
        Clock, Connection, Drain, Now, Room,
        connection::Raw,
        listener::Listener,
        message::{Request, Response},
        server::{Handler, Limits, Server},
        tls::{self, Acceptor},
    },
    store::{AnswerOf, Api, FaultFormat, Store},
    telemetry::{AccessLog, ConnectionError, Door, Metrics, UpstreamError},
    throttle::{Bill, Limiter},
    token::assertion::{Assertions, Caller},
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
    /// Where bytes, events and tokens are counted as they pass.
    pub limiter: Arc<Limiter>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where access lines go.
    pub access_log: AccessLog,
    /// What mints backend JWTs, if anything does; a reload replaces it.
    pub assertions: Arc<ArcSwapOption<Assertions>>,
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
            limiter: self.limiter.clone(),
            metrics: self.metrics.clone(),
            access_log: self.access_log.clone(),
            assertions: self.assertions.clone(),
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
    timers: Timers,
}

impl<J: Judge> Proxy<J> {
    /// A door with connections of its own.
    pub fn new(shared: Shared<J>) -> Result<Self, tls::Error> {
        let Shared { store, metrics, access_log, .. } = &shared;
        let observer = Observer { store: store.clone(), metrics: metrics.clone(), access_log: access_log.clone() };
        Ok(Self {
            shared,
            observer: Arc::new(observer),
            upstreams: Upstreams::new(Tls::shared()?),
            timers: Timers::default(),
        })
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

    /// What is known of a request before it is judged.
    fn begin(&self, request: Request, connection: Arc<Connection>, raw: Raw) -> Turn {
        let started = Instant::now();
        let time = (self.shared.clock.at(started), started);
        let settings = self.shared.settings.load_full();
        let Request { head, body, upgrade } = request;
        let fields = &head.fields;
        let present = Present::of(fields);
        let upgrade = upgrade.filter(|_| headers::asks_for_websocket(head.version, fields));
        let client = Client::of(fields, present, &connection, &self.shared.store.peek().gate);
        let request_id = headers::request_id(fields, present.request_id && client.trusted);
        let exchange = Exchange::begin(&self.observer, &head, present, client.address, request_id, time);
        let kind = present.content_type.then(|| fields.value_of("content-type")).flatten();
        Turn { head, body: Some(body), raw, kind, upgrade, client, exchange, connection, settings }
    }

    /// A request's way, after [`Self::begin`] and before [`Self::answer`].
    async fn respond(&self, turn: &mut Turn) -> Outcome {
        if let Some(published) = self.published(turn) {
            return published;
        }
        let outcome = match self.judge(turn).await {
            Ok(grant) => self.forward(turn, grant).await,
            Err(refusal) => turn.refuse(refusal.denial, &refusal.found),
        };
        if let Outcome::Refused(..) = &outcome
            && let Some(body) = turn.body.take().filter(|body| !body.is_end_stream())
        {
            // Boxed: rare, and every request would carry room for it.
            Box::pin(limits::discard(body, &turn.head, &turn.connection, turn.settings.timeouts.header.0)).await;
        }
        outcome
    }

    /// The verdict, after what every request must keep to.
    async fn judge(&self, turn: &mut Turn) -> Decision {
        let head = &turn.head;
        let host = self.admitted_host(turn).map_err(|denial| {
            let found = Found::new(self.shared.store.load());
            Box::new(Refusal { denial, found })
        })?;
        let decision = self
            .shared
            .judge
            .check(&CheckRequest {
                method: &head.method,
                host: &host,
                path: head.uri.path(),
                query: head.uri.query(),
                headers: &head.fields,
                client: turn.client.address,
                now: turn.exchange.now,
            })
            .await;
        let exchange = &mut turn.exchange;
        exchange.judged(match &decision {
            Ok(grant) => &grant.found,
            Err(refusal) => &refusal.found,
        });
        cors::note(exchange, &turn.head);
        if decision.is_ok() {
            exchange.granted();
        }
        decision
    }

    /// Which host is asked for, by a request that keeps to the limits.
    fn admitted_host<'t>(&self, turn: &'t Turn) -> Result<Cow<'t, str>, Denial> {
        let body = turn.body.as_ref().ok_or(Denial::Internal)?;
        limits::admit(&turn.head, body, turn.raw, &turn.settings)?;
        authority::host(&turn.head, turn.connection.is_tls())
    }

    /// What the upstream is told of the caller by a JWT of ours; nothing of an anonymous one.
    fn assertion(&self, found: &Found, api: &Api, now: Now) -> Result<Option<(HeaderName, HeaderValue)>, Denial> {
        let assertions = self.shared.assertions.load();
        let (Some(assertions), Some(identity), Some(place), true) =
            (assertions.as_deref(), &found.identity, found.api, api.backend_jwt)
        else {
            return Ok(None);
        };
        let caller = Caller {
            identity,
            api: (api, place),
            application: found.application(),
            subscription: found.subscription(),
            key_type: found.key_type,
            generation: found.tables.generation,
        };
        let value = assertions.of(caller, now).map_err(|error| {
            tracing::error!(api.name = &*api.name, %error, "cannot sign a backend JWT");
            Denial::Internal
        })?;
        Ok(Some((assertions.header().clone(), value)))
    }

    /// What the verdict lets pass goes to the upstream, and its answer comes back.
    async fn forward(&self, turn: &mut Turn, grant: Grant) -> Outcome {
        // The tables are let go with the grant, before anything is waited for.
        let Ready { plan, body, fate } = match self.prepare(turn, grant) {
            Ok(ready) => ready,
            Err(outcome) => return *outcome,
        };
        let mut slot = Some(body);
        let limit = turn.settings.timeouts.request.0;
        let answer = {
            let Exchange { called, started, .. } = &*turn.exchange;
            let upstreams = called.api.as_deref().map_or(&[][..], |api| api.upstreams.of(called.key_type));
            let sent = plan.send(&mut slot, &self.upstreams, upstreams);
            limits::in_time(pin!(sent), *started, limit, fate.as_deref(), &self.timers).await
        };
        turn.exchange.answered();
        let (failure, reason) = match answer {
            Ok(Ok(response)) if response.status != StatusCode::SWITCHING_PROTOCOLS => {
                turn.exchange.upload = fate;
                return Outcome::Answered(response);
            }
            Ok(Ok(mut response)) => match response.upgrade.take().filter(|_| plan.websocket) {
                Some(upstream) => return Outcome::Switched(response, upstream),
                None => (Denial::UpstreamFailed, UpstreamError::Protocol),
            },
            Ok(Err(failure)) => (failure.denial(), failure.reason()),
            Err(limits::Elapsed) => (Denial::UpstreamTimedOut, UpstreamError::Timeout),
        };
        match fate.as_deref() {
            Some(fate) if fate.is_too_large() => Outcome::Failed(Denial::BodyTooLarge, None),
            Some(fate) if fate.is_broken() => Outcome::Broken(StatusCode::BAD_REQUEST, ConnectionError::Reset),
            // Over HTTP/2 a client may wait, too: for the first message of a stream that goes both ways.
            Some(fate) if turn.keeps_alive().is_some() && fate.is_waiting() && failure == Denial::UpstreamTimedOut => {
                Outcome::Broken(StatusCode::REQUEST_TIMEOUT, ConnectionError::BodyTimeout)
            }
            _ => Outcome::Failed(failure, Some(reason)),
        }
    }

    /// What is sent of a granted request. From its body on nothing refuses: a refused request's is still to be read.
    fn prepare(&self, turn: &mut Turn, mut grant: Grant) -> Result<Ready, Box<Outcome>> {
        let Some(api) = grant.found.api() else {
            return Err(Box::new(turn.refuse(Denial::Internal, &grant.found)));
        };
        let assertion = self.assertion(&grant.found, api, turn.exchange.now);
        let assertion = assertion.map_err(|denial| Box::new(turn.refuse(denial, &grant.found)))?;
        let Some(body) = turn.body.take() else {
            return Err(Box::new(turn.refuse(Denial::Internal, &grant.found)));
        };
        let meter = grant.admitted.bill.take().map(|bill| Arc::new(self.meter(bill, api)));
        let gauge = meter.as_ref().map(|meter| Box::new(Gauge::request(meter, &turn.head.fields)));
        let gate = &grant.found.tables.gate;
        let (body, fate) = RequestBody::new(body, turn.settings.max_body.0, turn.keeps_alive(), gate, gauge);
        let (exchange, admitted) = (&mut turn.exchange, &mut grant.admitted);
        exchange.path = grant.path.take();
        (exchange.usage, exchange.x_ratelimit) = (admitted.usage.take(), gate.x_ratelimit);
        exchange.over_quota = admitted.over_quota;
        let mut plan = turn.plan(&grant, assertion, api);
        if let Some(meter) = meter {
            if meter.reads_bodies() {
                plan.fields.set(&header::ACCEPT_ENCODING, &HeaderValue::from_static("identity"));
            }
            turn.exchange.meter = Some(meter);
        }
        Ok(Ready { plan, body, fate })
    }

    /// Where what a request uses is counted as it passes.
    fn meter(&self, bill: Box<Bill>, api: &Api) -> Meter {
        let Shared { limiter, clock, metrics, .. } = &self.shared;
        Meter {
            limiter: limiter.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            bill,
            token_usage: api.token_usage.clone(),
        }
    }

    /// What the client gets.
    fn answer(&self, turn: Turn, outcome: Outcome) -> Response<Body> {
        let Turn { mut exchange, connection, kind, upgrade, .. } = turn;
        match outcome {
            Outcome::Answered(response) => pass_on(response, exchange, kind),
            Outcome::Published(response) => {
                exchange.granted();
                exchange.status = response.status.as_u16();
                response.map(|body| body.with(exchange))
            }
            Outcome::Switched(response, upstream) => match upgrade {
                Some(client) => switch(response, (client, upstream), exchange, &connection),
                None => failed(&Denial::Internal, exchange, kind),
            },
            Outcome::Refused(denial, response) => fault(&denial, response, exchange),
            Outcome::Failed(denial, reason) => {
                reason.into_iter().for_each(|reason| self.shared.metrics.upstream_error(reason));
                failed(&denial, exchange, kind)
            }
            Outcome::Broken(status, reason) => {
                self.shared.metrics.connection_error(reason);
                connection.close_after();
                exchange.status = status.as_u16();
                Response { status, ..Response::new(Body::default().with(exchange)) }
            }
        }
    }
}

impl<J: Judge> Handler for Proxy<J> {
    type Body = Body;

    fn call(
        self: Arc<Self>,
        request: Request,
        connection: Arc<Connection>,
        raw: Raw,
    ) -> impl Future<Output = Response<Body>> + Send {
        let mut turn = self.begin(request, connection, raw);
        async move {
            // Lent down the way: moving it from one future into the next costs more than most of what is done with it.
            let outcome = self.respond(&mut turn).await;
            self.answer(turn, outcome)
        }
    }
}

/// An upstream's answer, as the client gets it.
fn pass_on(mut response: Response<Body>, mut exchange: Box<Exchange>, kind: Option<HeaderValue>) -> Response<Body> {
    let version = response.version;
    if !headers::edit_response(&mut response.fields, version, false) {
        exchange.unreadable();
        return failed(&Denial::UpstreamFailed, exchange, kind);
    }
    if let Some(usage) = &exchange.usage {
        fault::rate_limit(usage, exchange.x_ratelimit, &mut response.fields);
    }
    cors::decorate(&exchange, AnswerOf::Upstream, &mut response.fields);
    exchange.status = response.status.as_u16();
    match exchange.meter.take() {
        None => response.map(|body| body.with(exchange)),
        Some(meter) => {
            let gauge = Gauge::answer(&meter, response.status, &response.fields, exchange.wants_body());
            response.map(|body| body.with(exchange).measured(gauge))
        }
    }
}

/// Client and upstream agreed to switch: what follows goes from one to the other.
fn switch(
    mut response: Response<Body>,
    (client, upstream): (OnUpgrade, OnUpgrade),
    mut exchange: Box<Exchange>,
    connection: &Arc<Connection>,
) -> Response<Body> {
    upgrade::join(client, upstream, connection.clone(), exchange.meter.take());
    headers::edit_response(&mut response.fields, Version::HTTP_11, true);
    exchange.status = response.status.as_u16();
    response.map(|body| body.with(exchange))
}

/// A failure after the verdict as an answer. `kind` is the request's content type: gRPC is answered its own way.
fn failed(denial: &Denial, exchange: Box<Exchange>, kind: Option<HeaderValue>) -> Response<Body> {
    let format = exchange.called.api.as_deref().map_or_else(FaultFormat::default, |api| api.fault_format);
    fault(denial, fault::plain(denial, format, kind.as_ref(), exchange.now), exchange)
}

/// A refusal or failure, answered so.
fn fault(denial: &Denial, mut response: Response<Bytes>, mut exchange: Box<Exchange>) -> Response<Body> {
    response.fields.set(&headers::X_REQUEST_ID, &exchange.request_id);
    cors::decorate(&exchange, AnswerOf::Gate, &mut response.fields);
    exchange.denied(denial);
    exchange.status = response.status.as_u16();
    if !exchange.wants_body() {
        // HTTP/1 leaves the body out by itself; over HTTP/2 it would be a protocol error.
        let length = HeaderValue::from(response.body.len());
        response.fields.set(&header::CONTENT_LENGTH, &length);
        return response.map(|_| Body::default().with(exchange));
    }
    response.map(|bytes| Body::full(bytes).with(exchange))
}

const SHORTEST_SWEEP: Duration = Duration::from_secs(1);
