//! Behaviour of the whole program over real sockets: a gate is a process, its answers are what a user sees.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod refusals;
mod support;
