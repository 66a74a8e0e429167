//! One request in each protocol, to learn whether a proxy answers as it must.

use std::time::Duration;

use reqwest::Client;
use tokio::runtime::Runtime;

use crate::{load, scenarios::Protocol};

/// Asks, one request a connection.
#[derive(Debug)]
pub(crate) struct Probe {
    runtime: Runtime,
}

impl Probe {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()? })
    }

    /// The status of the answer.
    pub(crate) fn ask(&self, protocol: Protocol, port: u16, token: Option<&str>) -> anyhow::Result<u16> {
        let client = client(protocol)?;
        self.runtime.block_on(async {
            let request = client.get(load::url(protocol, port));
            let request = match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            Ok(request.send().await?.status().as_u16())
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "asks a self-signed server on loopback, which net::client must not")]
fn client(protocol: Protocol) -> anyhow::Result<Client> {
    let client = Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(2))
        .pool_max_idle_per_host(0)
        .tls_danger_accept_invalid_certs(true);
    let client = if protocol.is_http2() { client.http2_prior_knowledge() } else { client.http1_only() };
    Ok(client.build()?)
}
