//! Tollgate judges tokens for API gateways.

#![forbid(unsafe_code)]

pub mod authz;
pub mod config;
pub mod net;
pub mod problem;
pub mod proxy;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod throttle;
pub mod token;
pub mod units;
