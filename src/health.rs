//! `tollgate health`: asks a running process's admin door whether it is ready.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::net::Address;

/// What the admin door said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it answered 200.
    pub ready: bool,
    /// Its words, on one line.
    pub text: String,
}

/// Asks once, within a few seconds.
pub fn ask(address: &Address) -> io::Result<Answer> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream)
        }
    }
}

/// One HTTP/1.0 exchange: the answer ends where the connection does.
fn exchange(mut stream: impl Read + Write) -> io::Result<Answer> {
    stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { ready: status == "200", text: body.lines().next().unwrap_or_default().to_owned() })
}

const PATIENCE: Duration = Duration::from_secs(3);
const MAX_ANSWER: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    fn answered(answer: &'static [u8]) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = Address::Tcp(listener.local_addr()?);
        let server = thread::spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut head = [0; 256];
            let read = stream.read(&mut head)?;
            assert!(head[..read].starts_with(b"GET /readyz HTTP/1."));
            stream.write_all(answer)
        });
        let answer = ask(&address);
        server.join().expect("the server does not panic")?;
        answer
    }

    #[test]
    fn only_200_is_ready() -> io::Result<()> {
        let ready = answered(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nready")?;
        assert_eq!(ready, Answer { ready: true, text: "ready".into() });
        let not = answered(b"HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: keycloak\n")?;
        assert_eq!(not, Answer { ready: false, text: "not ready: keycloak".into() });
        assert!(answered(b"nonsense").is_err());
        Ok(())
    }
}
