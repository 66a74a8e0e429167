//! What an exchange uses as it streams, counted for the tiers that limit bytes, events or tokens.
//!
//! - *Bytes* of the bodies, both ways, as they pass; of a WebSocket all that passes once it is one.
//! - *Events*: gRPC and WebSocket messages both ways, server-sent events.
//! - *Tokens*: what the answer says of them (`token_usage`), once it has ended.
//!
//! A request is judged at its start. A stream that runs out midway goes on, is counted on, and the next request is
//! refused; only a WebSocket is closed ([`super::upgrade`]).

use std::sync::Arc;

use http::{HeaderName, StatusCode};

use super::{
    events::{Messages, ServerSent},
    token_usage::{Finder, Form, read_events},
};
use crate::{
    net::{Clock, Fields},
    store::{QuotaKind, TokenUsage},
    telemetry::Metrics,
    throttle::{Bill, Level, Limiter},
};

/// Where an exchange's use is counted.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) limiter: Arc<Limiter>,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) bill: Box<Bill>,
    /// Where the answer tells its tokens; none: where most do.
    pub(super) token_usage: Option<Arc<TokenUsage>>,
}

impl Meter {
    /// Whether anything of this kind is counted.
    pub(super) fn counts(&self, kind: QuotaKind) -> bool {
        self.bill.counts(kind)
    }

    /// Whether bodies must come as they are, not compressed, for what is in them to be seen.
    pub(super) fn reads_bodies(&self) -> bool {
        self.counts(QuotaKind::Events) || self.counts(QuotaKind::Tokens)
    }

    /// Counts what has just passed.
    pub(super) fn record(&self, bytes: usize, events: u64) {
        let now = self.clock.now();
        self.limiter.record(&self.bill, QuotaKind::Bytes, bytes as u64, now);
        self.limiter.record(&self.bill, QuotaKind::Events, events, now);
    }

    /// Which limit of what is counted as it passes has no more room, by its level and its tier's name.
    pub(super) fn spent(&self) -> Option<(Level, &str)> {
        let now = self.clock.now();
        [QuotaKind::Bytes, QuotaKind::Events].into_iter().find_map(|kind| self.limiter.spent(&self.bill, kind, now))
    }

    /// Counts the tokens that an answer told, or that it did not tell any.
    pub(super) fn record_tokens(&self, tokens: Option<u64>) {
        match tokens {
            Some(tokens) => self.limiter.record(&self.bill, QuotaKind::Tokens, tokens, self.clock.now()),
            None => self.metrics.tokens_unknown.inc(),
        }
    }
}

/// One direction of an exchange. What an answer told of its tokens is counted when it is dropped: at the body's end, or
/// where it breaks off.
#[derive(Debug)]
pub(super) struct Gauge {
    meter: Arc<Meter>,
    events: Events,
    tokens: Tokens,
}

/// How events are told apart.
#[derive(Debug)]
enum Events {
    None,
    Grpc(Messages),
    ServerSent(ServerSent),
}

/// How tokens are found.
#[derive(Debug)]
enum Tokens {
    None,
    /// By a header, or in no way.
    Told(Option<u64>),
    InBody(Finder),
}

impl Gauge {
    /// A request's body.
    pub(super) fn request(meter: &Arc<Meter>, fields: &Fields) -> Self {
        let events = if meter.counts(QuotaKind::Events) && is_grpc(fields) {
            Events::Grpc(Messages::default())
        } else {
            Events::None
        };
        Self { meter: meter.clone(), events, tokens: Tokens::None }
    }

    /// An answer's body; `wanted`: the answer may have one.
    pub(super) fn answer(meter: &Arc<Meter>, status: StatusCode, fields: &Fields, wanted: bool) -> Self {
        let plain = fields.all("content-encoding").all(|coding| coding.eq_ignore_ascii_case(b"identity"));
        let server_sent = plain && is_server_sent(fields);
        let events = if meter.counts(QuotaKind::Events) && is_grpc(fields) {
            Events::Grpc(Messages::default())
        } else if server_sent && meter.reads_bodies() {
            Events::ServerSent(ServerSent::default())
        } else {
            Events::None
        };
        let tokens = if wanted && meter.counts(QuotaKind::Tokens) {
            let form = match server_sent {
                true => Some(Form::Events),
                false => (plain && is_json(fields)).then_some(Form::Json),
            };
            Tokens::of(meter, status, fields, form)
        } else {
            Tokens::None
        };
        Self { meter: meter.clone(), events, tokens }
    }

    /// Some of the body has passed.
    pub(super) fn pass(&mut self, data: &[u8]) {
        let mut finder = match &mut self.tokens {
            Tokens::InBody(finder) => Some(finder),
            _ => None,
        };
        if let Some(finder) = &mut finder {
            finder.json(data);
        }
        let events = match &mut self.events {
            Events::None => 0,
            Events::Grpc(messages) => messages.count(data),
            Events::ServerSent(reader) => read_events(reader, data, finder),
        };
        self.meter.record(data.len(), events);
    }
}

impl Tokens {
    fn of(meter: &Meter, status: StatusCode, fields: &Fields, form: Option<Form>) -> Self {
        let default = TokenUsage::default();
        let place = meter.token_usage.as_deref().unwrap_or(&default);
        let told = |name: &HeaderName| str::from_utf8(fields.get(name.as_str())?).ok()?.trim().parse().ok();
        let told = place.header.as_ref().and_then(told);
        if told.is_some() {
            return Self::Told(told);
        }
        match form {
            Some(form) if bears_usage(status) => Self::InBody(Finder::new(&place.path, form)),
            None if bears_usage(status) => Self::Told(None),
            // A failure has used none that it does not tell of.
            _ => Self::None,
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        match &mut self.tokens {
            Tokens::None => {}
            Tokens::Told(tokens) => self.meter.record_tokens(*tokens),
            Tokens::InBody(finder) => self.meter.record_tokens(finder.finish()),
        }
    }
}

fn bears_usage(status: StatusCode) -> bool {
    status.is_success() && status != StatusCode::NO_CONTENT
}

fn is_grpc(fields: &Fields) -> bool {
    let kind = essence(fields);
    // gRPC-Web's text form is base64, in which messages do not show.
    kind.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
        && !kind.get(16..25).is_some_and(|rest| rest.eq_ignore_ascii_case(b"-web-text"))
}

fn is_server_sent(fields: &Fields) -> bool {
    essence(fields).eq_ignore_ascii_case(b"text/event-stream")
}

fn is_json(fields: &Fields) -> bool {
    let kind = essence(fields);
    kind.eq_ignore_ascii_case(b"application/json")
        || kind.len().checked_sub(5).is_some_and(|at| kind[at..].eq_ignore_ascii_case(b"+json"))
}

/// The media type without its parameters.
fn essence(fields: &Fields) -> &[u8] {
    let kind = fields.get("content-type").unwrap_or_default();
    kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}
