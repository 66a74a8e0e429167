//! What the tests stand on: a provider, an upstream, raw clients, and the program itself as a process.

mod backend;
mod client;
mod config;
mod counters;
mod expect;
mod gate;
mod h2raw;
mod idp;
mod itself;
mod jwe;
mod keys;
mod opaque;
mod place;
pub(crate) mod redis;
mod table;
mod world;

use std::{future::Future, sync::OnceLock};

pub(crate) use backend::{Backend, H2Backend};
pub(crate) use client::{Answer, Client, Request, Via, raw_h1, send};
pub(crate) use config::{Config, api, application, key_manager, resource, subscription};
pub(crate) use expect::{Challenge, Expect, Form, challenge_of};
pub(crate) use gate::{Gate, Ports, free_ports, http_get, run, tollgate};
pub(crate) use h2raw::{Flood, RawAnswer, RawH2, frame, raw_block, raw_frame, raw_h2};
pub(crate) use idp::{Idp, Mood, Told};
pub(crate) use jwe::{Recipient, Sealed};
pub(crate) use keys::{Key, Token, b64, compact, hs256, keys, now, unique, websocket_accept};
pub(crate) use opaque::Weather;
pub(crate) use place::Place;
pub(crate) use redis::Redis;
pub(crate) use table::{BOTH, Case, check_all};
pub(crate) use world::{World, world};

/// The runtime of providers, upstreams and clients: outlives every test.
pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// Runs a test's future on the shared runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}
