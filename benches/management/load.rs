//! Callers that create clients.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::interval_at,
};

use super::{CALLERS, Error, KEY_MANAGER, MANAGEMENT_PORT, http::answer};

/// How callers write.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// One after the other.
    Busy,
    /// All of them together [`STEADY`] a second.
    Steady,
}

/// Creates clients that long: how many were acknowledged, and the microseconds it took.
pub(crate) async fn writes(key: &str, prefix: &str, pace: Pace, seconds: u64) -> Result<(), Error> {
    let callers = match pace {
        Pace::Busy => CALLERS,
        Pace::Steady => STEADY_CALLERS,
    };
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let (client, key) = (Client::connect(MANAGEMENT_PORT).await?, key.to_owned());
        let name = format!("{prefix}-{caller}");
        tasks.push(tokio::spawn(async move {
            match pace {
                Pace::Busy => client.write_until(end, &key, &name, None).await,
                Pace::Steady => {
                    let each = Duration::from_secs(STEADY_CALLERS as u64) / STEADY;
                    let first = begun + each * caller as u32 / STEADY_CALLERS as u32;
                    client.write_until(end, &key, &name, Some((first, each))).await
                }
            }
        }));
    }
    let mut acknowledged = 0;
    for task in tasks {
        acknowledged += task.await??;
    }
    println!("{acknowledged} {}", begun.elapsed().as_micros());
    Ok(())
}

/// An open connection.
pub(crate) struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Client {
    pub(crate) async fn connect(port: u16) -> Result<Self, Error> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self { read: BufReader::new(read), write })
    }

    pub(crate) async fn send(&mut self, request: &str) -> Result<u16, Error> {
        self.write.write_all(request.as_bytes()).await?;
        answer(&mut self.read).await
    }

    /// Creates clients until then, from a first time on and in an interval, or without a pause; how many.
    async fn write_until(
        mut self,
        end: Instant,
        key: &str,
        name: &str,
        times: Option<(Instant, Duration)>,
    ) -> Result<u64, Error> {
        let mut times = times.map(|(first, each)| interval_at(first.into(), each));
        let mut acknowledged = 0;
        loop {
            if let Some(times) = &mut times {
                times.tick().await;
            }
            if Instant::now() >= end {
                return Ok(acknowledged);
            }
            let body = format!(
                r#"{{"clientName":"{name}-{acknowledged}","parameters":{{"grant_types":"client_credentials"}}}}"#
            );
            match self.send(&create(key, &body)).await? {
                201 => acknowledged += 1,
                status => return Err(format!("a write was answered with {status}").into()),
            }
        }
    }
}

/// A request that creates a client.
pub(crate) fn create(key: &str, body: &str) -> String {
    format!("POST {KEY_MANAGER}/clients {}{body}", head(key, body.len()))
}

pub(crate) fn head(key: &str, length: usize) -> String {
    format!(
        "HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

/// Writes a second beside the proxy's load.
const STEADY: u32 = 100;
const STEADY_CALLERS: usize = 10;
