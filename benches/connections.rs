//! What an open connection costs in memory, and that it stays that way: 10,000 idle ones and 1,000 slow ones of each
//! kind, against the program as a process. Prints resident memory per connection; ends with a failure where memory
//! does not stay flat.
//!
//! `cargo bench --bench connections`

#[path = "support/gate.rs"]
mod gate;

use std::{
    fmt::Write as _,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tollgate::net::raise_descriptors;

use gate::Gate;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How a client keeps its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Says nothing.
    Silent,
    /// Had an answer over HTTP/1.1.
    Http1,
    /// Had an answer over HTTP/2.
    Http2,
    /// Had an answer over HTTP/1.1 with TLS.
    Tls,
    /// Sends a head a byte at a time.
    SlowHead,
    /// Sends a body a byte at a time.
    SlowBody,
}

/// An open connection, to be kept.
#[expect(dead_code, reason = "kept, for dropping it closes it")]
enum Open {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Http2(h2::client::SendRequest<bytes::Bytes>),
}

const PLAIN_PORT: u16 = 18_480;
const ADMIN_PORT: u16 = 18_481;
const GET: &[u8] = b"GET /echo/a HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &[u8] = b"POST /echo/a HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let descriptors = usize::try_from(raise_descriptors())?;
    // The gate counts two for each.
    let many = 10_000.min(descriptors.saturating_sub(200) / 2);
    println!("{:<28} {:>11} {:>12} {:>12} {:>12}", "connections", "number", "RSS MiB", "each KiB", "after, MiB");
    for (kind, number) in [
        (Kind::Silent, many),
        (Kind::Http1, many),
        (Kind::Http2, many),
        (Kind::Tls, many),
        (Kind::SlowHead, 1000),
        (Kind::SlowBody, 1000),
    ] {
        runtime.block_on(measure(kind, number))?;
    }
    Ok(())
}

async fn measure(kind: Kind, number: usize) -> Result<(), Error> {
    let (gate, connector) = start(kind == Kind::Tls).await?;
    // What the first ones make of lasting things does not count.
    drop(open(kind, 50, &connector).await?);
    sleep(SETTLE).await;
    let before = gate.resident()?;
    let mut clients = open(kind, number, &connector).await?;
    sleep(SETTLE).await;
    let full = gate.resident()?;
    let open = gate.metric("tollgate_connections_open{door=\"proxy\"}").await?;
    if open < number as f64 {
        return Err(format!("{kind:?}: only {open} of {number} connections are open").into());
    }
    let end = Instant::now() + HOLD;
    while Instant::now() < end {
        for client in &mut clients {
            if let (Open::Plain(stream), Kind::SlowHead | Kind::SlowBody) = (client, kind) {
                stream.write_all(b"x").await?;
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
    let held = gate.resident()?;
    drop(clients);
    sleep(SETTLE).await;
    let after = gate.resident()?;
    let each = (full as f64 - before as f64) / number as f64 / 1024.0;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("{:<28} {number:>11} {:>12.1} {each:>12.2} {:>12.1}", format!("{kind:?}"), mib(full), mib(after));
    if held > full + full / 10 {
        return Err(format!("{kind:?}: grew from {full} to {held} bytes while nothing happened").into());
    }
    Ok(())
}

async fn open(kind: Kind, number: usize, connector: &TlsConnector) -> Result<Vec<Open>, Error> {
    let mut all = Vec::with_capacity(number);
    for _ in 0..number {
        let mut stream = TcpStream::connect(("127.0.0.1", PLAIN_PORT)).await?;
        all.push(match kind {
            Kind::Silent => Open::Plain(stream),
            Kind::Http1 => {
                ask(&mut stream).await?;
                Open::Plain(stream)
            }
            Kind::Tls => {
                let mut stream = Box::new(connector.connect("localhost".try_into()?, stream).await?);
                ask(&mut *stream).await?;
                Open::Tls(stream)
            }
            Kind::Http2 => {
                let (client, connection) = h2::client::handshake(stream).await?;
                tokio::spawn(connection);
                let mut client = client.ready().await?;
                let request = http::Request::get("http://a/echo/a").body(())?;
                let mut body = client.send_request(request, true)?.0.await?.into_body();
                while let Some(data) = body.data().await {
                    body.flow_control().release_capacity(data?.len())?;
                }
                Open::Http2(client)
            }
            Kind::SlowHead => {
                stream.write_all(b"GET /echo/a HTTP/1.1\r\nhost: a\r\nx: ").await?;
                Open::Plain(stream)
            }
            Kind::SlowBody => {
                stream.write_all(POST).await?;
                Open::Plain(stream)
            }
        });
    }
    Ok(all)
}

/// Has one answer.
async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> Result<(), Error> {
    stream.write_all(GET).await?;
    let mut read = [0; 4096];
    if stream.read(&mut read).await? == 0 || !read.starts_with(b"HTTP/1.1 200") {
        return Err("no answer".into());
    }
    Ok(())
}

/// A gate, and who trusts its certificate where it has one.
async fn start(tls: bool) -> Result<(Gate, TlsConnector), Error> {
    let dir = tempfile::tempdir()?;
    let mut text = format!("[proxy]\nlisten = \"127.0.0.1:{PLAIN_PORT}\"\n");
    text.push_str("timeouts = { header = \"5m\", idle = \"5m\", request = \"5m\" }\n");
    let mut roots = RootCertStore::empty();
    if tls {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        fs::write(&cert, certificate.cert.pem())?;
        fs::write(&key, certificate.signing_key.serialize_pem())?;
        writeln!(text, "tls = {{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display())?;
        roots.add(certificate.cert.der().clone())?;
    }
    text.push_str("[log]\naccess_sample = 0.0\n");
    text.push_str("[[apis]]\nname = \"Echo\"\ncontext = \"/echo\"\nupstream = \"echo:\"\n");
    text.push_str("[[apis.resources]]\npath = \"/{id}\"\nauth = \"none\"\n");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Once it is ready it has read its certificate.
    Ok((Gate::start(&[], &text, ADMIN_PORT).await?, TlsConnector::from(Arc::new(config))))
}

const SETTLE: Duration = Duration::from_secs(2);
const HOLD: Duration = Duration::from_secs(6);
