//! What remembered tokens cost in memory, and that the caches keep their caps, against the program as a process:
//! 100,000 verified and 100,000 introspected ones, a burst of distinct tokens far beyond the cap, good and bad, and
//! fifty first sights of one opaque token. Prints resident memory; fails beyond the budgets.
//!
//! `cargo bench --bench cached` (`TOKENS=10000000` for a longer flood, `TOLLGATE_BIN=…` for a program built elsewhere)

#[path = "support/gate.rs"]
mod gate;
#[path = "support/http.rs"]
mod http;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use gate::Gate;
use http::{answer, head, length, request};

type Error = Box<dyn std::error::Error + Send + Sync>;

const BUDGET: u64 = 80_000_000;
/// Both caches of the flood.
const CAPS: u64 = 9 << 20;
const REMEMBERED: u64 = 100_000;
const CONNECTIONS: u64 = 16;
const GATE_PORT: u16 = 18_482;
const ADMIN_PORT: u16 = 18_483;
const ISSUER: &str = "http://127.0.0.1:18484";

fn main() -> Result<(), Error> {
    let flood = std::env::var("TOKENS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let provider = Provider::start().await?;
        println!("{:<44} {:>12} {:>12} {:>12} {:>12}", "what", "number", "RSS MB", "before MB", "each, bytes");
        let mut beyond = remembered("verified tokens", &provider, Form::Jwt).await?;
        beyond.extend(remembered("introspected tokens", &provider, Form::Opaque).await?);
        beyond.extend(floods(&provider, flood).await?);
        beyond.extend(together(&provider).await?);
        // All is measured before anything is complained of.
        if beyond.is_empty() { Ok(()) } else { Err(beyond.join("\n").into()) }
    })
}

/// What kind of tokens clients bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Good JWTs.
    Jwt,
    /// Opaque ones that the provider calls good.
    Opaque,
    /// Opaque ones that it does not know.
    Random,
    /// JWTs with a signature that is none.
    Forged,
}

/// What is wrong with what was measured.
type Beyond = Vec<String>;

/// So many are remembered, and the process stays within the budget.
async fn remembered(what: &str, provider: &Arc<Provider>, form: Form) -> Result<Beyond, Error> {
    let gate = start("tokens = \"128MiB\"\n").await?;
    let idle = gate.resident()?;
    bring(provider, form, 0..REMEMBERED).await?;
    sleep(Duration::from_secs(1)).await;
    let full = gate.resident()?;
    tell(what, REMEMBERED, full, idle);
    // All of them are there: the second time, nobody is asked and nothing is verified.
    let before =
        (gate.metric("tollgate_cache_lookups_total{cache=\"tokens\",outcome=\"hit\"}").await?, provider.calls());
    bring(provider, form, 0..REMEMBERED).await?;
    let hits = gate.metric("tollgate_cache_lookups_total{cache=\"tokens\",outcome=\"hit\"}").await? - before.0;
    if hits < REMEMBERED as f64 || provider.calls() != before.1 {
        return Ok(vec![format!("{what}: only {hits} of {REMEMBERED} were remembered")]);
    }
    let over = full > BUDGET;
    Ok(over.then(|| format!("{what}: {full} bytes are more than {BUDGET}")).into_iter().collect())
}

/// A burst beyond a cap of 8 MiB: within a second it is kept, however many tokens come after.
async fn floods(provider: &Arc<Provider>, many: u64) -> Result<Beyond, Error> {
    let gate = start("tokens = \"8MiB\"\nnegative = \"1MiB\"\n").await?;
    // What a few requests make of lasting things does not count.
    bring(provider, Form::Jwt, 0..500).await?;
    let idle = gate.resident()?;
    for form in [Form::Jwt, Form::Opaque, Form::Random, Form::Forged] {
        bring(provider, form, 0..50_000).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let full = gate.resident()?;
    let mut beyond = Vec::new();
    tell("four bursts at a cap of 8 MiB + 1 MiB", 200_000, full, idle);
    if full > idle + CAPS + CAPS / 10 {
        beyond.push(format!("the caches of {CAPS} bytes hold {} more than before", full - idle));
    }
    for form in [Form::Opaque, Form::Random, Form::Forged] {
        let each = many / 3;
        bring(provider, form, 50_000..50_000 + each).await?;
        sleep(Duration::from_secs(1)).await;
        let after = gate.resident()?;
        tell(&format!("a second after a flood ({form:?})"), each, after, full);
        if after > full + CAPS / 10 {
            beyond.push(format!("{form:?}: grew from {full} to {after} bytes"));
        }
    }
    Ok(beyond)
}

/// Fifty first sights of one token at the same time: one call.
async fn together(provider: &Arc<Provider>) -> Result<Beyond, Error> {
    let _gate = start("").await?;
    let (before, mut clients) = (provider.calls(), Vec::new());
    let token = provider.token(Form::Opaque, u64::MAX);
    for _ in 0..50 {
        let stream = TcpStream::connect(("127.0.0.1", GATE_PORT)).await?;
        let (read, write) = stream.into_split();
        clients.push((BufReader::new(read), write));
    }
    for (_, write) in &mut clients {
        write.write_all(request(&token).as_bytes()).await?;
    }
    for (read, _) in &mut clients {
        if answer(read).await? != 200 {
            return Err("a good token was refused".into());
        }
    }
    let calls = provider.calls() - before;
    println!("{:<44} {:>12}", "calls for 50 first sights of one token", calls);
    Ok((calls != 1).then(|| format!("{calls} calls for one token")).into_iter().collect())
}

fn tell(what: &str, number: u64, bytes: u64, idle: u64) {
    let each = bytes.saturating_sub(idle) / number;
    println!("{what:<44} {number:>12} {:>12.1} {:>12.1} {each:>12}", bytes as f64 / 1e6, idle as f64 / 1e6);
}

/// Brings each token once, over a few connections that stay open.
async fn bring(provider: &Arc<Provider>, form: Form, numbers: std::ops::Range<u64>) -> Result<(), Error> {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let expected = if matches!(form, Form::Jwt | Form::Opaque) { 200 } else { 401 };
    let clients = (0..CONNECTIONS).map(|_| {
        let (provider, next, end) = (Arc::clone(provider), Arc::clone(&next), numbers.end);
        tokio::spawn(async move {
            let (read, mut write) = TcpStream::connect(("127.0.0.1", GATE_PORT)).await?.into_split();
            let mut read = BufReader::new(read);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok::<(), Error>(());
                }
                write.write_all(request(&provider.token(form, number)).as_bytes()).await?;
                let status = answer(&mut read).await?;
                if status != expected {
                    return Err(format!("{form:?} {number}: {status}").into());
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(())
}

/// A provider that knows every token that begins with `good`, and signs as many JWTs as are wanted.
struct Provider {
    /// Of a kind that signs alike each time: a token is brought again.
    key: Ed25519KeyPair,
    expires: u64,
    calls: AtomicU64,
}

impl Provider {
    async fn start() -> Result<Arc<Self>, Error> {
        let key = Ed25519KeyPair::generate().map_err(|_| "no key")?;
        let expires = tollgate::net::Clock::new().now().unix() + 36_000;
        let provider = Arc::new(Self { key, expires, calls: AtomicU64::new(0) });
        let listener = TcpListener::bind(ISSUER.trim_start_matches("http://")).await?;
        let serving = Arc::clone(&provider);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let provider = Arc::clone(&serving);
                tokio::spawn(async move { provider.serve(stream).await });
            }
        });
        Ok(provider)
    }

    async fn serve(&self, stream: TcpStream) -> Result<(), Error> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        while let Some(head) = head(&mut read).await? {
            let mut body = vec![0; length(&head)];
            read.read_exact(&mut body).await?;
            let form: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
            let body = match head.split(' ').nth(1) {
                Some("/jwks") => self.key_set(),
                Some("/introspect") => {
                    self.calls.fetch_add(1, Ordering::Relaxed);
                    let good = form.iter().any(|(name, value)| name == "token" && value.starts_with("good"));
                    if good { self.claims("opaque").to_string() } else { json!({ "active": false }).to_string() }
                }
                _ => String::new(),
            };
            let text = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            write.write_all(text.as_bytes()).await?;
        }
        Ok(())
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn key_set(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "e", "x": x }] })
            .to_string()
    }

    fn claims(&self, jti: &str) -> serde_json::Value {
        json!({ "active": true, "iss": ISSUER, "sub": "0b8f3b0e-1f3c-4d5e-9a7b-2c1d3e4f5a6b", "aud": "orders",
            "client_id": "shop-web-client", "scope": "orders:read orders:write", "exp": self.expires, "jti": jti })
    }

    fn token(&self, form: Form, number: u64) -> String {
        match form {
            Form::Opaque => format!("good_{number:040}"),
            Form::Random => format!("random_{number:040}"),
            Form::Jwt | Form::Forged => {
                let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
                let header = encode(json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "e" }).to_string());
                let signed = format!("{header}.{}", encode(self.claims(&number.to_string()).to_string()));
                let signature = match form {
                    Form::Jwt => self.key.sign(signed.as_bytes()).as_ref().to_vec(),
                    _ => vec![1; 64],
                };
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }
}

/// A gate with these further lines of `[cache]`.
async fn start(cache: &str) -> Result<Gate, Error> {
    let text = format!(
        "workers = 2\n[proxy]\nlisten = \"127.0.0.1:{GATE_PORT}\"\n\
         [log]\naccess_sample = 0.0\n[throttle]\nfailures = {{ requests = 0, per = \"1m\" }}\n\
         [cache]\nintrospection_ttl = \"10m\"\n{cache}\
         [[key_managers]]\nname = \"idp\"\nconnector = \"oidc\"\nissuer = \"{ISSUER}\"\naudience = [\"orders\"]\n\
         discovery = false\njwks_uri = \"{ISSUER}/jwks\"\nintrospection_endpoint = \"{ISSUER}/introspect\"\n\
         client_id = \"tollgate\"\nclient_secret = \"of-the-bench\"\ntimeout = \"10s\"\n\
         [[apis]]\nname = \"Echo\"\ncontext = \"/echo\"\nupstream = \"echo:\"\nsubscription = \"none\"\n\
         [[apis.resources]]\npath = \"/{{id}}\"\n"
    );
    Gate::start(&[], &text, ADMIN_PORT).await
}
