//! The management door: the operations of Key Managers over HTTP, on the management thread.
//!
//! A request goes one way: who calls ([`Access`]) → the route, from one table (`routes`) → whether the caller may → what
//! is asked (`ask`) → the handler, which calls one operation of [`keymanager::Engine`](crate::keymanager::Engine) → the
//! answer, or a problem (RFC 9457). The same table makes `/openapi.json`, which the page at `/docs` reads.
//!
//! Once it is begun a change is finished, even where its caller goes away or the process is told to end.

mod access;
mod answer;
mod ask;
mod bags;
mod body;
#[cfg(test)]
mod client_tests;
mod clients;
mod docs;
#[cfg(test)]
mod field_tests;
mod idempotency;
#[cfg(test)]
mod idempotency_tests;
mod offer;
mod openapi;
mod platform;
#[cfg(test)]
mod reading_tests;
#[cfg(test)]
mod refusing_tests;
mod route;
mod routes;
mod scopes;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod tokens;
mod usage;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, get},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::sync::watch;

pub use access::{Access, Need};
pub use answer::Problem;
pub(crate) use body::twin;
pub use offer::{Offer, offers};
pub use settings::ManagementSettings;

use access::Admitted;
use answer::{Answer, Reply};
use ask::Ask;
use idempotency::Begun;
use route::Route;
use routes::routes;

use crate::{
    keymanager::{Caller, Engine, Plan},
    net::{
        door::{self, Peer, Place},
        side::Listener,
        tls::Acceptor,
    },
    throttle::Limiter,
};

/// The door.
#[derive(Debug)]
pub struct Door {
    /// What it opens.
    pub engine: Arc<Engine>,
    /// Who may pass.
    pub access: Access,
    /// What is counted of them.
    pub limiter: Arc<Limiter>,
    openapi: Bytes,
    running: idempotency::Running,
    /// Whoever makes a change holds a receiver.
    begun: watch::Sender<()>,
}

impl Door {
    /// A door, not yet open.
    pub fn new(engine: Arc<Engine>, access: Access, limiter: Arc<Limiter>) -> Arc<Self> {
        let openapi = openapi::document(&routes());
        let (running, begun) = (idempotency::Running::default(), watch::Sender::default());
        Arc::new(Self { engine, access, limiter, openapi, running, begun })
    }

    /// Serves until `stop` says so. Returns once what was asked is answered, and every change that was begun has ended.
    pub async fn serve(self: Arc<Self>, listener: Listener, tls: Option<Acceptor>, stop: watch::Receiver<bool>) {
        let open = TowerToHyperService::new(self.open_routes());
        let guarded = TowerToHyperService::new(self.guarded_routes());
        let this = Arc::clone(&self);
        let service = service_fn(move |request| {
            let (door, open, guarded) = (Arc::clone(&this), open.clone(), guarded.clone());
            async move { door.pass(request, &open, &guarded).await }
        });
        door::serve(listener, tls, service, stop).await;
        self.begun.closed().await;
    }

    /// Before anything is told of what there is: who asks. Only what describes the door is for everyone.
    async fn pass(
        &self,
        mut request: http::Request<Incoming>,
        open: &TowerToHyperService<Router>,
        guarded: &TowerToHyperService<Router>,
    ) -> Result<Response, Infallible> {
        if OPEN.contains(&request.uri().path()) {
            return open.call(request).await;
        }
        let admitted = self.access.admit(request.headers(), request.extensions().get::<Peer>()).await;
        match admitted {
            // Only who is known may keep a place where places are short.
            Ok(_) if request.extensions().get().is_some_and(|place: &Place| !place.keep()) => {
                Ok(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "there are too many connections").into_response())
            }
            Ok(admitted) => {
                request.extensions_mut().insert(admitted);
                guarded.call(request).await
            }
            Err(problem) => Ok(problem.into_response()),
        }
    }

    /// The paths of [`OPEN`].
    fn open_routes(self: &Arc<Self>) -> Router {
        let [document, page, script, style] = OPEN;
        Router::new()
            .route(document, get(openapi))
            .route(page, get(docs::page))
            .route(script, get(docs::script))
            .route(style, get(docs::style))
            .method_not_allowed_fallback(|| async { wrong_method() })
            .with_state(Arc::clone(self))
    }

    fn guarded_routes(self: &Arc<Self>) -> Router {
        // By path: what the router itself merges says HEAD twice in Allow.
        let mut paths: BTreeMap<&str, MethodRouter> = BTreeMap::new();
        for route in routes() {
            // Every verb of the table is one that the router knows.
            let Ok(verb) = MethodFilter::try_from(route.method.clone()) else { continue };
            let (path, door, route) = (route.path, Arc::clone(self), Arc::new(route));
            let handler = move |request: Request| respond(Arc::clone(&door), Arc::clone(&route), request);
            let methods = paths.remove(path).unwrap_or_default().on(verb, handler);
            paths.insert(path, methods);
        }
        let router = paths.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
        router.method_not_allowed_fallback(|| async { wrong_method() }).fallback(|| async { nothing_here() })
    }
}

async fn openapi(State(door): State<Arc<Door>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], door.openapi.clone()).into_response()
}

fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this route has no such method; Allow names those it has")
}

fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such route; /openapi.json names them all")
}

async fn respond(door: Arc<Door>, route: Arc<Route>, request: Request) -> Response {
    match answer(door, route, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn answer(door: Arc<Door>, route: Arc<Route>, request: Request) -> Result<Response, Problem> {
    let Some(admitted) = request.extensions().get::<Admitted>().cloned() else {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "a credential is needed"));
    };
    admitted.require(route.need, door.access.realm())?;
    let key = match route.changes && request.method() == Method::POST {
        true => ask::header_text(request.headers(), &IDEMPOTENCY_KEY)?,
        false => None,
    };
    key.as_deref().map_or(Ok(()), idempotency::check)?;
    // No POST that changes anything asks for more than a dry run: that is of the same change.
    let path = key.as_ref().map(|_| request.uri().path().to_owned()).unwrap_or_default();
    let reads = request.method().is_safe() && !route.changes;
    let caller = Caller { who: admitted.who.clone(), ..Caller::default() };
    let ask = Ask::read(request, &route, caller).await?;
    if let Some(proof) = &route.by_our_rights
        && !(proof.is_given)(&ask)?
    {
        admitted.require_proof(proof.field, door.access.realm())?;
    }
    if reads {
        return (route.run)(&door, ask).await.map(IntoResponse::into_response);
    }
    // A task of its own: whoever goes away ends nothing that is begun.
    let begun = door.begun.subscribe();
    let task = tokio::spawn(async move {
        let _begun = begun;
        match key {
            Some(key) => once(&door, &route, ask, &key, &path).await,
            None => (route.run)(&door, ask).await.map(IntoResponse::into_response),
        }
    });
    let ended = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the operation ended without an answer");
    task.await.map_err(ended)?
}

/// Runs the route, unless it has been run for this key: then its answer is given again. A dry run is told so, and takes
/// no key.
async fn once(door: &Door, route: &Route, ask: Ask, key: &str, path: &str) -> Result<Response, Problem> {
    // Without a record nothing is changed either.
    let Some(record) = door.engine.store() else {
        return (route.run)(door, ask).await.map(IntoResponse::into_response);
    };
    let now = door.engine.now();
    if ask.caller.dry_run {
        return match idempotency::begin(&record.rehearsal(), &door.running, &ask, key, path, now).await? {
            Begun::Before(Ok(_)) => Ok(Reply::ok(&done_before(route, &ask)).into_response()),
            Begun::Before(Err(problem)) => Err(problem),
            Begun::New(_) => (route.run)(door, ask).await.map(IntoResponse::into_response),
        };
    }
    let reply = match idempotency::begin(record, &door.running, &ask, key, path, now).await? {
        Begun::Before(answer) => {
            let mut response = given(answer);
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            return Ok(response);
        }
        Begun::New(ticket) => {
            let answer = (route.run)(door, ask).await;
            ticket.end(record, &answer).await;
            answer
        }
    };
    Ok(given(reply))
}

fn done_before(route: &Route, ask: &Ask) -> Plan {
    Plan {
        dry_run: true,
        operation: route.operation.into(),
        key_manager: ask.km().into(),
        subject: String::new(),
        request: Value::Null,
        note: Some("it was done with this Idempotency-Key: its answer would be given again, and nothing be done"),
    }
}

fn given(answer: Answer) -> Response {
    match answer {
        Ok(reply) => reply.into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// What describes the door.
const OPEN: [&str; 4] = ["/openapi.json", "/docs", "/docs/docs.js", "/docs/docs.css"];
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
