//! Behaviour of the whole program over real sockets: a gate is a process, its answers are what a user sees.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admin;
mod attacks;
mod backend_jwt;
mod chart;
mod claims;
mod cli;
mod connector;
mod cors;
mod docs;
mod drain;
mod even_load;
mod explain;
mod faults;
mod first_sight;
mod introspection;
mod jwe;
mod jwks;
mod km;
mod layers;
mod limits;
mod management;
mod provider;
mod provider_kill;
mod proxy;
mod quickstart;
mod refusals;
mod reload;
mod revocation;
mod shared_counters;
mod streams;
mod support;
mod tables;
mod throttle;
mod tls;
mod tokens;
