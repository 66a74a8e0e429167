//! By what a token may have been revoked.

use aws_lc_rs::digest::{SHA256, digest};

use super::revoked::Map;

/// What is asked of a good token.
#[derive(Debug, Clone, Copy)]
pub struct TokenFacts<'a> {
    /// `iss`
    pub issuer: &'a str,
    /// `jti`
    pub jti: Option<&'a str>,
    /// SHA-256 of its text, where it is known.
    pub token_sha256: Option<TokenSha256<'a>>,
    /// OAuth client id.
    pub consumer_key: Option<&'a str>,
    /// `sub`
    pub subject: Option<&'a str>,
    /// `iat`, Unix seconds.
    pub issued_at: Option<u64>,
}

/// SHA-256 of a token's text.
#[derive(Debug, Clone, Copy)]
pub enum TokenSha256<'a> {
    /// Known.
    Is(&'a [u8; 32]),
    /// That of this text: to be made only where some token of the issuer is revoked by it.
    Of(&'a str),
}

impl TokenSha256<'_> {
    pub(super) fn is_in(self, revoked: &Map<[u8; 32], u64>) -> bool {
        let revoked = revoked.pin();
        match self {
            Self::Is(digest) => revoked.contains_key(digest),
            Self::Of(_) if revoked.is_empty() => false,
            Self::Of(text) => {
                digest(&SHA256, text.as_bytes()).as_ref().try_into().is_ok_and(|it: &[u8; 32]| revoked.contains_key(it))
            }
        }
    }
}
