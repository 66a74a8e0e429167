//! As much HTTP/1.1 as a bench needs.

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::tcp::OwnedReadHalf,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A request for the echo API with this token.
pub(crate) fn request(token: &str) -> String {
    format!("GET /echo/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n")
}

/// Reads one response to its end; its status.
pub(crate) async fn answer(read: &mut BufReader<OwnedReadHalf>) -> Result<u16, Error> {
    let head = head(read).await?.ok_or("closed")?;
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or("no status")?;
    let mut body = vec![0; length(&head)];
    read.read_exact(&mut body).await?;
    Ok(status)
}

/// A head as text; none where the other side has closed.
pub(crate) async fn head(read: &mut BufReader<OwnedReadHalf>) -> Result<Option<String>, Error> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if read.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

/// What `content-length` says, or 0.
pub(crate) fn length(head: &str) -> usize {
    let named = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    head.lines().find(named).and_then(|line| line.split_once(':')?.1.trim().parse().ok()).unwrap_or(0)
}
