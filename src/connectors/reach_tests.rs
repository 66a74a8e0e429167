//! Where a provider's metadata may lead: in a world where 127.0.0.2 is a public address, and 127.0.0.3 one that
//! nobody may ask.

use std::{
    future::ready,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    key_source,
    tests::{KEYS, Server, Site, metadata, reply, settings},
};
use crate::{
    net::{
        Kind,
        client::{Client, Found},
    },
    token::{FetchError, KeySource, settings::KeyManagerSettings},
};

const LOCAL: &str = "127.0.0.1";
const PUBLIC: &str = "127.0.0.2";
const NEVER: &str = "127.0.0.3";

fn kind(address: IpAddr) -> Kind {
    match address.to_string().as_str() {
        LOCAL => Kind::Local,
        PUBLIC => Kind::Public,
        _ => Kind::Forbidden,
    }
}

/// Names are what they say; `turns` is public once, and local from then on.
fn lookup(name: reqwest::dns::Name) -> Found {
    static TURNS: AtomicUsize = AtomicUsize::new(0);
    let hosts: &[&str] = match name.as_str() {
        "local.test" => &[LOCAL],
        "public.test" => &[PUBLIC],
        "never.test" => &[NEVER],
        "mixed.test" => &[NEVER, LOCAL, PUBLIC],
        "turns.test" if TURNS.fetch_add(1, Ordering::SeqCst) == 0 => &[PUBLIC],
        _ => &[LOCAL],
    };
    Box::pin(ready(Ok(hosts.iter().filter_map(|host| host.parse::<Ipv4Addr>().ok()).map(IpAddr::V4).collect())))
}

/// A server of keys at `host`, in the name of `name`; and its address.
async fn keys(host: &str, name: &str) -> (Server, String) {
    let server = Server::start_at(host, |_| Box::new(|_| reply("200 OK", KEYS)), None).await;
    let url = format!("http://{name}:{}/keys", server.address.port());
    (server, url)
}

async fn fetch(settings: &KeyManagerSettings) -> Result<(), FetchError> {
    let client = Client::imagined(lookup, kind).expect("roots");
    match key_source(settings, "key_managers[0]", &client) {
        Ok(KeySource::Remote(source)) => source.fetch(false).await.map(drop),
        other => panic!("{other:?}"),
    }
}

/// What comes of an issuer at `host`, in the name of `name`, whose metadata leads to `keys`.
async fn discover(host: &str, name: &'static str, keys: String) -> Result<(), FetchError> {
    let issuer = move |port: u16| format!("http://{name}:{port}");
    let site = move |at: SocketAddr| -> Box<Site> { Box::new(move |_| metadata(&issuer(at.port()), &keys)) };
    let server = Server::start_at(host, site, None).await;
    fetch(&settings(&issuer(server.address.port()), r#","allow_http":true"#)).await
}

#[tokio::test]
async fn metadata_leads_no_further_than_its_issuer_is() {
    for (issuer, issuer_name, host, name, allowed) in [
        (PUBLIC, PUBLIC, PUBLIC, PUBLIC, true),
        (PUBLIC, "public.test", PUBLIC, "public.test", true),
        (PUBLIC, PUBLIC, LOCAL, LOCAL, false),
        (PUBLIC, PUBLIC, LOCAL, "local.test", false),
        (PUBLIC, "public.test", LOCAL, "localhost", false),
        (LOCAL, LOCAL, LOCAL, "local.test", true),
        (LOCAL, "local.test", PUBLIC, "public.test", true),
        (LOCAL, "local.test", NEVER, "never.test", false),
        (LOCAL, "local.test", NEVER, NEVER, false),
        (PUBLIC, "public.test", NEVER, NEVER, false),
        // Of several addresses only those count that may be asked.
        (PUBLIC, "public.test", PUBLIC, "mixed.test", true),
        // What it was when the metadata came is not what it is now.
        (PUBLIC, "turns.test", LOCAL, "turns.test", false),
    ] {
        let (server, url) = keys(host, name).await;
        let outcome = discover(issuer, issuer_name, url).await;
        let case = format!("{issuer_name} to {name}: {outcome:?}");
        assert_eq!(outcome.is_ok(), allowed, "{case}");
        assert!(allowed || matches!(outcome, Err(FetchError::Forbidden(_))), "{case}");
        assert_eq!(server.asked().len(), usize::from(allowed), "{case}");
    }
}

#[tokio::test]
async fn what_the_configuration_names_may_be_local_but_not_anywhere() {
    for (host, name, allowed) in [
        (LOCAL, "local.test", true),
        (LOCAL, LOCAL, true),
        (PUBLIC, "public.test", true),
        (NEVER, "never.test", false),
        (NEVER, NEVER, false),
    ] {
        let (server, url) = keys(host, name).await;
        let by_hand = format!(r#","allow_http":true,"jwks_uri":"{url}""#);
        let outcome = fetch(&settings("https://public.test", &by_hand)).await;
        assert_eq!((outcome.is_ok(), server.asked().len()), (allowed, usize::from(allowed)), "{name}: {outcome:?}");
    }
}
