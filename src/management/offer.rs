//! What the door offers, for those who call it: the table of routes without its handlers.

use http::Method;

use super::routes::routes;

/// A route, as its caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The operation, by WSO2's name where it has one.
    pub operation: &'static str,
    /// The verb.
    pub method: Method,
    /// The path, its parts that vary in braces.
    pub path: &'static str,
    /// Whether it changes something: then `dry_run`, and on POST `Idempotency-Key`, are for it.
    pub changes: bool,
    /// Whether `If-Match` is for it.
    pub conditional: bool,
}

/// All of them.
pub fn offers() -> Vec<Offer> {
    let offer = |route: super::Route| Offer {
        operation: route.operation,
        method: route.method.clone(),
        path: route.path,
        // What takes no `dry_run` is refused one.
        changes: route.takes_query("dry_run"),
        conditional: route.conditional,
    };
    routes().into_iter().map(offer).collect()
}
