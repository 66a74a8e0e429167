//! Every vector that we judge otherwise than it says, with the reason.

/// Vectors of one file with one reason.
pub(crate) struct Deviation {
    /// tcId, or the name of the example.
    pub(crate) ids: &'static [&'static str],
    /// `refused` or `accepted`, by us.
    pub(crate) verdict: &'static str,
    pub(crate) reason: &'static str,
}

const fn refused(ids: &'static [&'static str], reason: &'static str) -> Deviation {
    Deviation { ids, verdict: "refused", reason }
}

const fn accepted(ids: &'static [&'static str], reason: &'static str) -> Deviation {
    Deviation { ids, verdict: "accepted", reason }
}

/// `json_web_signature_test.json`
pub(crate) const JWS: &[Deviation] = &[
    refused(&["346", "350"], "a PS384 token under a key whose alg is PS256: a key does only what it says"),
    refused(&["347", "351"], "the key's alg is ES521, which is no algorithm (RFC 7518 has ES512)"),
    refused(&["372", "373"], "a character outside of base64url in a part: there is one spelling of each value"),
    accepted(
        &SAME_AS_357,
        "letter for letter the token of 357, which is valid: the bad padding has got lost in the file",
    ),
];

/// Held to it by a test of their own.
pub(crate) const SAME_AS_357: [&str; 2] = ["367", "370"];

/// `json_web_key_test.json`
pub(crate) const JWK: &[Deviation] = &[];

/// `json_web_crypto_test.json`
pub(crate) const CRYPTO: &[Deviation] = &[];

/// `jose-cookbook/`
pub(crate) const COOKBOOK: &[Deviation] = &[];

/// The primitives.
pub(crate) const PRIMITIVES: &[(&str, &[Deviation])] = &[];
