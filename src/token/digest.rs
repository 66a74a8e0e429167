//! What a token is known by once it was seen: its text is not kept.

use std::hash::{Hash, Hasher};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hashbrown::DefaultHashBuilder;

/// Makes digests, under a key that nobody knows and that ends with the process.
///
/// A digest is the text's GMAC (NIST SP 800-38D), for a third of what SHA-256 costs. GMAC gives itself away to whoever
/// sees tags under one nonce twice; these are seen by nobody. Two texts have one tag with a probability of their
/// length in blocks over 2^128, and nobody can look for such a pair without the key.
#[derive(Debug)]
pub(super) struct DigestKey(LessSafeKey);

/// What a token is known by: which text it is, and which key managers were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    /// Of its text.
    pub(super) tag: Tag,
    /// The id of their set.
    key_managers: u64,
}

/// A GMAC.
pub(super) type Tag = [u8; 16];

impl DigestKey {
    pub(super) fn new() -> Self {
        let mut key = [0; 32];
        // The system's own: aws-lc's generator takes a tenth of a second to gather more at its first use.
        getrandom::fill(&mut key).expect("the system has random bytes");
        let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has AES-256's length");
        Self(LessSafeKey::new(key))
    }

    /// That of a token before these key managers.
    pub(super) fn digest(&self, key_managers: u64, token: &str) -> Digest {
        // Always the same, so that the same text has the same tag.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(token), &mut []);
        let tag = tag.expect("a token is far shorter than what GCM takes");
        Digest { tag: tag.as_ref().try_into().expect("a GMAC has 16 bytes"), key_managers }
    }
}

impl Digest {
    /// A part that tells it from others well enough to count by.
    pub(super) fn short(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.tag;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    #[cfg(test)]
    pub(super) fn for_test(n: u8) -> Self {
        Self { tag: [n; 16], key_managers: 0 }
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, to: &mut H) {
        to.write_u64(self.short() ^ self.key_managers);
    }
}

/// Spreads digests over a table; seeded, so that how they lie there tells nothing of them.
pub(super) type Spread = DefaultHashBuilder;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_a_text_and_key_managers_under_a_key_of_its_own() {
        let key = DigestKey::new();
        let text = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln".repeat(40);
        let one = key.digest(1, &text);
        assert_eq!(key.digest(1, &text), one);
        assert_ne!(key.digest(2, &text), one);
        for at in (0..text.len()).step_by(37) {
            let mut other = text.clone();
            other.replace_range(at..=at, "-");
            assert_ne!(key.digest(1, &other).tag, one.tag, "{at}");
        }
        assert_ne!(key.digest(1, &text[..text.len() - 1]).tag, one.tag);
        assert_ne!(key.digest(1, &format!("{text}\0")).tag, one.tag, "padding is not the text's end");
        assert_ne!(key.digest(1, "").tag, one.tag);
        assert_ne!(DigestKey::new().digest(1, &text).tag, one.tag);
    }
}
