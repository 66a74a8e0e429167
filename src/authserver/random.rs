//! Texts that nobody guesses, and the digests that are kept of them.
//!
//! Every text here has 256 random bits, so that its plain SHA-256 may be stored: it cannot be searched for. The one
//! exception are secrets that the Key Manager brings for a client: `secrets` demands random ones, of 22 characters.
//! What people choose (passwords, secrets of the configuration) never goes this way; see `terms`.

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// SHA-256 of a text.
pub(super) type Digest = [u8; 32];

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(super) struct NoRandom;

/// A new secret or token: `prefix` and 43 characters.
pub(super) fn secret(prefix: &str) -> Result<String, NoRandom> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).map_err(|_| NoRandom)?;
    let mut text = String::with_capacity(prefix.len() + 43);
    text.push_str(prefix);
    BASE64_URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
    Ok(text)
}

/// A new identifier that is no secret: 22 characters, of which the first is a letter: on a command line a dash would begin
/// an option.
pub(super) fn id() -> Result<String, NoRandom> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    bytes[0] &= 0x7f;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// What is kept of a text made here.
pub(super) fn digest(text: &str) -> Digest {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// Whether two digests are the same, in a time that tells nothing.
pub(super) fn same(a: &Digest, b: &Digest) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Begins every opaque access token.
pub(super) const OPAQUE: &str = "tgo_";
/// Begins every refresh token.
pub(super) const REFRESH: &str = "tgr_";
/// Begins the secret of every registered client.
pub(super) const CLIENT_SECRET: &str = "tgs_";
/// Begins every registration access token.
pub(super) const REGISTRATION: &str = "tgc_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_begin_with_a_letter() {
        for _ in 0..1000 {
            let id = id().unwrap();
            assert!(id.len() == 22 && id.starts_with(|first: char| first.is_ascii_alphabetic()), "{id}");
        }
    }
}
