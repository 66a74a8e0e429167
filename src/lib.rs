//! Tollgate judges tokens for API gateways: is the token good, is its application subscribed, may it
//! use this resource, is there room left in its tier. Then the request is forwarded, or refused with a
//! reason.
//!
//! # The map
//!
//! Lower layers never use upper ones (`tests/it/layers.rs` holds us to it):
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 5 assembly | [`app`] [`cli`] [`config`] [`health`] [`quickstart`] | read the settings, build every part once, bind, reload, drain; what the commands say |
//! | 4 doors, feeders | [`proxy`] [`management`] [`admin`] [`connectors`] [`sync`] | let requests in; fetch what the engine needs to know |
//! | 3 engines | [`authz`] [`keymanager`] [`authserver`] | the verdict; the operations of Key Managers; the embedded OAuth provider |
//! | 2 parts | [`token`] [`throttle`] | facts about a token; counting |
//! | 1 tables | [`store`] | APIs, applications, subscriptions, tiers: one immutable snapshot; revocations; the record |
//! | 0 ground | [`problem`] [`units`] [`mod@file`] [`secret`] [`telemetry`] [`net`] | nothing of ours |
//!
//! # Walkthrough 1: a request
//!
//! ```text
//! net::server → net::plain → proxy::Proxy::respond → authz::Authorizer::check → proxy::forward → proxy::http1
//! ```
//!
//! A worker is one thread with a runtime, a listener and upstream connections of its own. It accepts a
//! connection; requests without a body over HTTP/1.1 are read by `net::plain`, all others, from the first
//! one on that a connection brings, by hyper, as HTTP/2 is towards upstreams. It hands each request to [`proxy::Proxy`], whose `respond` is one visible list of steps. The
//! door fills in an [`authz::CheckRequest`] (borrows only) and asks [`authz::Authorizer::check`], which
//! is the verdict as a list of steps: canonical path, resource, credential, token, revocation, subscription,
//! scopes, quota. The answer is an [`authz::Grant`] or an [`authz::Refusal`]. A grant goes on to
//! `proxy::forward`: of the header fields ([`net::Fields`]) goes what may go, with ours (`proxy::headers`), and the body is streamed. A
//! refusal becomes a response in [`authz::fault`], and nowhere else. Either way one access line is
//! written and one counter moves.
//!
//! In the common case, a token seen before, nothing on this path waits or locks: the tables are a
//! snapshot behind an atomic pointer, the token is in the cache, the counters are atomics.
//!
//! # Walkthrough 2: a token seen for the first time
//!
//! [`token::Authenticator::authenticate`] looks the token's keyed digest up in the cache. On a miss the
//! strict front end (`token::jose`) takes the token apart (an encrypted one is opened first,
//! [`token::jwe`]), the issuer is chosen by `iss`, its key by
//! `kid`, and the signature and claims are judged (`token::jwt`, `token::claims`). An unknown `kid` asks
//! the issuer's task for one fetch, shared by all who wait. An opaque token, or one whose key manager says
//! so, is its provider's to judge (RFC 7662): `token::ask` makes one call for all who wait, on the control
//! runtime, through what `connectors` implements ([`token::Introspect`]), and `token::answer` reads what
//! comes back. What is remembered is only facts about the token; scopes, subscription and quota are judged anew for every request.
//!
//! # Walkthrough 3: an operation of a Key Manager
//!
//! ```text
//! management::access → management::routes → keymanager::Engine → dyn KeyManager (connectors) → the record → store::Revocations
//! ```
//!
//! The management door finds out who asks, and by one table of routes what is asked. The operation of
//! [`keymanager::Engine`] goes one path: whether the key manager can, whether the request is good, then the provider through its
//! connector, then the record, with a line of the audit in the same change; what is revoked by it is in force before it
//! is answered. All of it runs on the management thread: no worker waits for a provider.
//!
//! # Walkthrough 4: a start, a reload, an end
//!
//! `main` → [`cli`] → [`config::load`] → [`app::App::build`], which constructs every part and binds
//! nothing (that is all of `tollgate check`; `tollgate explain` asks the engine once and ends,
//! `tollgate km` asks a running process's management door) → [`app::App::run`], which binds, starts the workers and the
//! issuers' tasks, and waits. A changed file or SIGHUP builds new tables and issuers beside the old ones
//! and swaps them; a bad file changes nothing. Tables are built, and freed once no request holds them, by a thread of
//! their own. SIGTERM drains: not ready, still serving, then closing.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod authserver;
pub mod authz;
pub mod cli;
pub mod config;
pub mod connectors;
mod explain;
pub mod file;
pub mod health;
pub mod keymanager;
mod km;
pub mod management;
pub mod net;
pub mod problem;
pub mod proxy;
pub mod quickstart;
pub mod secret;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod throttle;
pub mod token;
pub mod units;
