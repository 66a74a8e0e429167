//! The proxy door: a request comes in, is judged, and goes to the upstream.

pub mod settings;

pub use settings::Settings;
