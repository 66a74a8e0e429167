//! The built-in upstream, for trying out: answers with what it was sent. Never shows a credential.

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};

use super::body::{Body, RequestBody};
use crate::net::message::{Head, Response};

/// Answers in place of an upstream. The body is counted, not kept.
pub(super) async fn answer(head: Head, mut body: RequestBody) -> Option<Response<Body>> {
    let mut length = 0_u64;
    while let Some(frame) = body.frame().await {
        length += frame.ok()?.data_ref().map_or(0, |data| data.len() as u64);
    }
    let mut fields = Map::new();
    for name in head.fields.iter().filter_map(|(name, _)| str::from_utf8(name).ok()) {
        if HIDDEN.contains(&name) {
            continue;
        }
        let values: Vec<_> = head.fields.all(name).map(String::from_utf8_lossy).collect();
        fields.insert(name.to_owned(), Value::from(values.join(", ")));
    }
    let echo = json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": fields,
        "body_bytes": length,
    });
    let text = format!("{echo}\n");
    let length = HeaderValue::from(text.len());
    let body = if head.method == Method::HEAD { Body::default() } else { Body::full(Bytes::from(text)) };
    let mut response = Response::new(body);
    response.fields.push(&header::CONTENT_LENGTH, &length);
    response.fields.push(&header::CONTENT_TYPE, &HeaderValue::from_static("application/json"));
    Some(response)
}

const HIDDEN: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
