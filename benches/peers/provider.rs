//! The provider of the opaque token, in this process: asked about that one (RFC 7662), it says yes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::token::CONSUMER_KEY;

/// The opaque token.
pub(crate) const OPAQUE: &str = "bench-opaque-7c1f3b0a9d5e4f2c8b6a";

/// Answers on a port of loopback until this process ends.
pub(crate) fn start() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        // A question that fails is asked again, or shows as an error in the table.
        listener.incoming().flatten().for_each(|stream| drop(answer(stream)));
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut question = vec![0; length];
    reader.read_exact(&mut question)?;
    let asked = String::from_utf8_lossy(&question).contains(OPAQUE);
    let claims = json!({
        "active": true, "token_type": "Bearer", "client_id": CONSUMER_KEY, "scope": "openid items:read",
        "sub": "5f0c1a52-7f3e-4b6e-9a70-2a1b3c000000", "aud": "peers", "exp": 4_102_444_800_u64,
    });
    let body = if asked { claims } else { json!({ "active": false }) }.to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}
