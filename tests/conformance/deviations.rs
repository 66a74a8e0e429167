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

const NO_KEY_MANAGEMENT: &str =
    "algorithm not taken, how the key is had: RSA1_5, RSA-OAEP with SHA-1, dir, A*KW, A*GCMKW";
const NO_KEY_WRAP: &str = "algorithm not taken, how the key is had: ECDH-ES+A*KW, for ECDH-ES is taken direct only";
const NO_ENCRYPTION: &str = "algorithm not taken, how the content is encrypted: A*CBC-HS*, A192GCM";

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

/// `json_web_encryption_test.json`, encrypted
pub(crate) const JWE: &[Deviation] = &[
    refused(
        &[
            "1", "23", "28", "29", "30", "31", "32", "69", "70", "71", "72", "73", "74", "75", "82", "83", "84", "85",
            "86", "87", "100", "101", "102", "103", "104", "105", "112", "128", "129", "132", "133", "134", "135",
        ],
        NO_KEY_MANAGEMENT,
    ),
    refused(
        &["33", "34", "35", "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "62", "66", "67", "68", "130"],
        NO_KEY_WRAP,
    ),
    refused(&["77", "79", "80", "81", "89", "91", "92", "93", "131"], NO_ENCRYPTION),
];

/// `json_web_crypto_test.json`, encrypted
pub(crate) const CRYPTO_JWE: &[Deviation] = &[refused(&["50"], NO_KEY_MANAGEMENT), refused(&["67"], NO_KEY_WRAP)];

/// `jose-cookbook/`
pub(crate) const COOKBOOK: &[Deviation] = &[];

/// The primitives.
pub(crate) const PRIMITIVES: &[(&str, &[Deviation])] = &[];
