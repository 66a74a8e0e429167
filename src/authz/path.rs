//! The canonical path: computed once, judged and forwarded alike (design, step 1).
//!
//! The rules stand in `store`, since templates are compared in the same form.

use std::borrow::Cow;

use crate::store;

use super::PathFlaw;

/// The canonical form of a path as sent, or why there is none.
///
/// Unreserved characters (RFC 3986 section 2.3) are decoded, the hex digits of what stays encoded are
/// upper case. Borrowed when the path is canonical as sent, the common case.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, PathFlaw> {
    store::canonical(path).map_err(PathFlaw::from)
}

impl From<store::PathFlaw> for PathFlaw {
    fn from(flaw: store::PathFlaw) -> Self {
        match flaw {
            store::PathFlaw::NoLeadingSlash => Self::NoLeadingSlash,
            store::PathFlaw::EncodedSlash => Self::EncodedSlash,
            store::PathFlaw::Backslash => Self::Backslash,
            store::PathFlaw::Control => Self::Control,
            store::PathFlaw::Encoding => Self::Encoding,
            store::PathFlaw::Utf8 => Self::Utf8,
            store::PathFlaw::Fragment => Self::Fragment,
            store::PathFlaw::DotSegment => Self::DotSegment,
            store::PathFlaw::EmptySegment => Self::EmptySegment,
            store::PathFlaw::Parameter => Self::Parameter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_keep_their_names() {
        for (sent, flaw) in [
            ("*", PathFlaw::NoLeadingSlash),
            ("/a%2fb", PathFlaw::EncodedSlash),
            ("/a\\b", PathFlaw::Backslash),
            ("/%00", PathFlaw::Control),
            ("/%zz", PathFlaw::Encoding),
            ("/%c0%ae", PathFlaw::Utf8),
            ("/a#b", PathFlaw::Fragment),
            ("/%2e%2e/a", PathFlaw::DotSegment),
            ("//a", PathFlaw::EmptySegment),
            ("/a%3b", PathFlaw::Parameter),
        ] {
            assert_eq!(canonical(sent), Err(flaw), "{sent}");
        }
        assert_eq!(canonical("/%41").as_deref(), Ok("/A"));
    }
}
