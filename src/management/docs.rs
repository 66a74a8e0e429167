//! `/docs`: `/openapi.json` to be read by people. All of it is in the binary; the page loads nothing from elsewhere.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, header};

pub(super) async fn page() -> Response {
    let policy = (header::CONTENT_SECURITY_POLICY, POLICY);
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    ([kind, policy, SNIFF, REFERRER], include_str!("docs.html")).into_response()
}

pub(super) async fn script() -> Response {
    let kind = (header::CONTENT_TYPE, "text/javascript; charset=utf-8");
    ([kind, SNIFF], include_str!("docs.js")).into_response()
}

pub(super) async fn style() -> Response {
    let kind = (header::CONTENT_TYPE, "text/css; charset=utf-8");
    ([kind, SNIFF], include_str!("docs.css")).into_response()
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
const SNIFF: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
const REFERRER: (HeaderName, &str) = (header::REFERRER_POLICY, "no-referrer");
