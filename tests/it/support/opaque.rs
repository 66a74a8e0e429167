//! A test provider's introspection endpoint (RFC 7662): what it says of which token, and how it behaves.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Idp, Key, compact, now};

/// How the endpoint behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Weather {
    #[default]
    Good,
    /// Answers, but only after this many milliseconds.
    Slow(u64),
    /// Answers with this status.
    Status(u16),
    /// A page with status 200.
    Html,
    /// A page with status 200 that calls itself JSON.
    Lying,
    /// Closes the connection unanswered.
    Reset,
    /// Closes the next connection unanswered, and is good from then on.
    ResetOnce,
    /// Never answers.
    Silent,
}

/// The endpoint's state.
#[derive(Default)]
pub(crate) struct Introspection {
    pub(super) weather: Mutex<Weather>,
    answers: Mutex<HashMap<String, Reply>>,
    calls: AtomicU32,
    present: AtomicU32,
    peak: AtomicU32,
    /// The heads and forms of requests.
    asked: Mutex<Vec<(String, Form)>>,
}

/// Names and values.
type Form = Vec<(String, String)>;

#[derive(Clone)]
struct Reply {
    kind: &'static str,
    body: String,
}

impl Introspection {
    /// A whole response, and of a good one whether the token is known; none closes the connection.
    pub(super) async fn reply(&self, head: String, form: Form) -> Option<(Vec<u8>, Option<bool>)> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.peak.fetch_max(self.present.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let token = form.iter().find(|(name, _)| name == "token").map(|(_, token)| token.clone()).unwrap_or_default();
        self.asked.lock().push((head, form));
        let weather = *self.weather.lock();
        let good = || {
            let inactive = Reply { kind: "application/json", body: r#"{"active":false}"#.into() };
            let said = self.answers.lock().get(&token).cloned();
            let known = said.is_some();
            let Reply { kind, body } = said.unwrap_or(inactive);
            Some((super::idp::http("200 OK", kind, &body), Some(known)))
        };
        let odd = |status: &str, kind: &str, body: &str| Some((super::idp::http(status, kind, body), None));
        let reply = match weather {
            Weather::Good => good(),
            Weather::Slow(millis) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                good()
            }
            Weather::Status(status) => odd(&format!("{status} X"), "application/json", "{}"),
            Weather::Html => odd("200 OK", "text/html", "<html>Sign in</html>"),
            Weather::Lying => odd("200 OK", "application/json", "<html>Sign in</html>"),
            Weather::Reset => None,
            Weather::ResetOnce => {
                *self.weather.lock() = Weather::Good;
                None
            }
            Weather::Silent => {
                tokio::time::sleep(Duration::from_secs(20)).await;
                None
            }
        };
        self.present.fetch_sub(1, Ordering::SeqCst);
        reply
    }
}

impl Idp {
    /// What a good opaque token of this provider is told to be.
    pub(crate) fn told(&self, client: &str) -> Value {
        json!({
            "active": true, "iss": self.issuer(), "sub": "alice", "aud": "orders-api", "client_id": client,
            "scope": "orders:read orders:write", "token_type": "Bearer", "iat": now(), "exp": now() + 600,
        })
    }

    /// Says this of `token` from now on.
    pub(crate) fn say(&self, token: &str, answer: &Value) {
        self.say_text(token, "application/json", answer.to_string());
    }

    /// Says this very text of `token` from now on.
    pub(crate) fn say_text(&self, token: &str, kind: &'static str, body: String) {
        self.introspection().answers.lock().insert(token.to_owned(), Reply { kind, body });
    }

    /// Says nothing of `token` any more: it is inactive.
    pub(crate) fn forget(&self, token: &str) {
        self.introspection().answers.lock().remove(token);
    }

    /// Says `claims` of `token`, signed by `key` as RFC 9701 wants it.
    pub(crate) fn say_signed(&self, token: &str, header: &Value, claims: &Value, key: &'static Key) {
        let text = compact(&header.to_string(), claims.to_string().as_bytes(), |m| key.sign(key.algorithm(), m));
        self.say_text(token, "application/token-introspection+jwt", text);
    }

    pub(crate) fn weather(&self, weather: Weather) {
        *self.introspection().weather.lock() = weather;
    }

    /// How often it was asked about tokens.
    pub(crate) fn calls(&self) -> u32 {
        self.introspection().calls.load(Ordering::SeqCst)
    }

    /// How many calls were there at one time, at most.
    pub(crate) fn peak(&self) -> u32 {
        self.introspection().peak.load(Ordering::SeqCst)
    }

    /// How often it was asked about this token.
    pub(crate) fn calls_about(&self, token: &str) -> usize {
        let is_it = |(name, value): &(String, String)| name == "token" && value == token;
        self.introspection().asked.lock().iter().filter(|(_, form)| form.iter().any(is_it)).count()
    }

    /// Head and form of the newest request.
    pub(crate) fn last_call(&self) -> (String, Form) {
        self.introspection().asked.lock().last().cloned().unwrap_or_default()
    }
}
