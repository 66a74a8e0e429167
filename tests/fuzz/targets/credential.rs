//! Any lines as header fields of a request to a resource that needs a token: never a grant.
#![no_main]

use http::{HeaderName, HeaderValue};
use tollgate::net::Fields;

libfuzzer_sys::fuzz_target!(|lines: &[u8]| {
    let mut headers = Fields::default();
    for line in lines.split(|byte| *byte == b'\n').take(16) {
        // Without a name of its own a line is a credential.
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&b"authorization"[..], line),
        };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.push(&name, &value);
        }
    }
    let lines: Vec<_> = headers.iter().collect();
    assert!(tollgate_fuzz::check("/orders/items", &headers).is_err(), "{lines:?}");
});
