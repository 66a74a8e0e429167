//! The canonical path: computed once, judged and forwarded alike (design, step 1).

use std::borrow::Cow;

use super::PathFlaw;

/// The canonical form of a path as sent, or why there is none.
///
/// Unreserved characters (RFC 3986 section 2.3) are decoded, the hex digits of what stays encoded are
/// upper case. Borrowed when the path is canonical as sent, the common case.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, PathFlaw> {
    let _ = path;
    unimplemented!()
}
