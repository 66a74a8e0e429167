//! The built-in upstream, for trying out: answers with what it was sent. Never shows a credential.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};

use super::body::{Body, RequestBody};

/// Answers in place of an upstream. The body is counted, not kept.
pub(super) async fn answer(request: Request<RequestBody>) -> Option<Response<Body>> {
    let (parts, mut body) = request.into_parts();
    let mut length = 0_u64;
    while let Some(frame) = body.frame().await {
        length += frame.ok()?.data_ref().map_or(0, |data| data.len() as u64);
    }
    let mut fields = Map::new();
    for name in parts.headers.keys().filter(|name| !HIDDEN.contains(&name.as_str())) {
        let values: Vec<_> =
            parts.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        fields.insert(name.to_string(), Value::from(values.join(", ")));
    }
    let echo = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "headers": fields,
        "body_bytes": length,
    });
    let text = format!("{echo}\n");
    let length = HeaderValue::from(text.len());
    let body = if parts.method == Method::HEAD { Body::default() } else { Body::full(Bytes::from(text)) };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(response)
}

const HIDDEN: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
