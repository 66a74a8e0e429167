//! The strict front of a compact JWS (RFC 7515, RFC 8725): size, parts, base64url, header.
//!
//! Reads, never verifies; nothing read here is to be trusted before the signature has been checked. Keys
//! and addresses inside a header (`jwk`, `jku`, `x5u`, `x5c`) are not looked at.

use std::borrow::Cow;

use base64_simd::URL_SAFE_NO_PAD;
use smallvec::SmallVec;

use super::{
    Flaw,
    json::{Json, Object},
    settings::{Algorithm, TypRule},
};

/// The parts of a compact JWS, decoded and not yet verified.
#[derive(Debug)]
pub(super) struct Compact<'t> {
    /// What was signed: header and payload as sent.
    pub(super) signed: &'t str,
    /// The header, decoded.
    pub(super) header: SmallVec<[u8; 128]>,
    /// The payload, decoded.
    pub(super) payload: Vec<u8>,
    /// The signature, decoded; one of RSA with 4096 bits has room in place.
    pub(super) signature: SmallVec<[u8; 512]>,
}

/// What counts of a header.
#[derive(Debug)]
pub(super) struct Header<'a> {
    /// `alg`
    pub(super) algorithm: Algorithm,
    /// `kid`
    pub(super) key_id: Option<Cow<'a, str>>,
    /// `typ`
    pub(super) typ: Option<Cow<'a, str>>,
}

impl<'t> Compact<'t> {
    /// Takes a token apart. Two dots are a JWT, four a JWE, anything else is opaque.
    pub(super) fn split(token: &'t str) -> Result<Self, Flaw> {
        if token.len() > MAX_TOKEN {
            return Err(Flaw::Malformed);
        }
        let bytes = token.as_bytes();
        match memchr::memchr_iter(b'.', bytes).count() {
            2 => {}
            4 => return Err(Flaw::Encrypted),
            _ => return Err(Flaw::Opaque),
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Flaw::Malformed)?;
        Ok(Self {
            signed,
            header: decode_short(header)?,
            payload: decode(payload)?,
            signature: decode_short(signature)?,
        })
    }
}

impl<'a> Header<'a> {
    /// Reads a header.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Flaw> {
        let header = Object::parse(text).ok_or(Flaw::Malformed)?;
        // We understand no extension, so a critical one cannot be honoured. `b64` needs no `crit` to be
        // refused: a JWT must not use it (RFC 7797 section 7).
        if header.has("crit") || header.get("b64").is_some_and(|b64| *b64 != Json::Bool(true)) {
            return Err(Flaw::Critical);
        }
        let algorithm = header.get("alg").and_then(Json::as_text).and_then(Algorithm::of).ok_or(Flaw::Algorithm)?;
        if misshapen(&header).is_some() {
            return Err(Flaw::Malformed);
        }
        Ok(Self { algorithm, key_id: text_of(&header, "kid"), typ: text_of(&header, "typ") })
    }

    /// Whether an access token may have this `typ`. Anything else is another kind of token: an ID token's
    /// logout token, a security event, a DPoP proof.
    pub(super) fn is_access_token(&self, rule: TypRule) -> bool {
        let Some(typ) = self.typ.as_deref() else { return rule == TypRule::Access };
        let typ = match typ.split_at_checked(MEDIA_PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(MEDIA_PREFIX) => rest,
            _ => typ,
        };
        typ.eq_ignore_ascii_case("at+jwt") || (rule == TypRule::Access && typ.eq_ignore_ascii_case("jwt"))
    }
}

/// The first parameter of another form than it must have.
pub(super) fn misshapen<'h>(header: &'h Object<'_>) -> Option<&'h str> {
    header.members().find(|(name, value)| !is_well_formed(name, value)).map(|(name, _)| name)
}

/// Whether a registered parameter, even one that counts for nothing here, has the form it must have (RFC 7515
/// section 4.1); those of a JWE have no place in a JWS.
fn is_well_formed(name: &str, value: &Json<'_>) -> bool {
    match name {
        "kid" => value.as_text().is_some_and(|kid| kid.len() <= MAX_KEY_ID),
        "typ" | "cty" | "jku" | "x5u" | "x5t" | "x5t#S256" => value.as_text().is_some(),
        "x5c" => matches!(value, Json::List(list) if list.iter().all(|member| member.as_text().is_some())),
        "jwk" => matches!(value, Json::Object(_)),
        "enc" | "zip" => false,
        _ => true,
    }
}

/// Base64url without padding, white space or stray bits (RFC 7515 section 2): one text for each value.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, Flaw> {
    URL_SAFE_NO_PAD.decode_to_vec(part).map_err(|_| Flaw::Malformed)
}

/// The same for what is likely to have room in place.
fn decode_short<const N: usize>(part: &str) -> Result<SmallVec<[u8; N]>, Flaw> {
    let mut decoded = SmallVec::from_slice(part.as_bytes());
    let length = URL_SAFE_NO_PAD.decode_inplace(&mut decoded).map_err(|_| Flaw::Malformed)?.len();
    decoded.truncate(length);
    Ok(decoded)
}

fn text_of<'a>(header: &Object<'a>, name: &str) -> Option<Cow<'a, str>> {
    match header.get(name) {
        Some(Json::Text(text)) => Some(text.clone()),
        _ => None,
    }
}

/// Longest token that is looked at.
pub const MAX_TOKEN: usize = 64 << 10;
const MAX_KEY_ID: usize = 1 << 10;
const MEDIA_PREFIX: &str = "application/";

#[cfg(test)]
mod tests {
    use base64::Engine;
    use proptest::{prelude::*, test_runner::FileFailurePersistence::WithSource};

    use super::*;

    fn header(json: &str) -> Result<String, Flaw> {
        Header::parse(json.as_bytes()).map(|h| format!("{:?} {:?}", h.algorithm, h.key_id))
    }

    #[test]
    fn parts_are_counted() {
        for token in ["", "abc", "a.b", "a.b.c.d", "a.b.c.d.e.f"] {
            assert_eq!(Compact::split(token).err(), Some(Flaw::Opaque), "{token}");
        }
        assert_eq!(Compact::split("a.b.c.d.e").err(), Some(Flaw::Encrypted));
        assert_eq!(Compact::split(&".".repeat(60_000)).err(), Some(Flaw::Opaque));
        assert_eq!(Compact::split(&".".repeat(1_000_000)).err(), Some(Flaw::Malformed));
        assert_eq!(Compact::split(r#"{"payload":"e30","signature":"AA"}"#).err(), Some(Flaw::Opaque));
        assert!(Compact::split("e30.e30.AA").is_ok());
    }

    #[test]
    fn base64_has_one_spelling() {
        for part in ["e30=", "e3 0", "e30\n", "e3+/", "e31", "AB", "A"] {
            assert_eq!(Compact::split(&format!("e30.{part}.AA")).err(), Some(Flaw::Malformed), "{part}");
        }
    }

    proptest! {
        // Cases that failed once lie beside this file.
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(WithSource("regressions"))),
            ..ProptestConfig::default()
        })]
        /// A second opinion on which texts are base64url, and of what.
        #[test]
        fn base64_is_decoded_as_others_decode_it(part in "[A-Za-z0-9_-]{0,200}[A-Za-z0-9_=+/ -]?") {
            let other = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&part).ok();
            prop_assert_eq!(decode(&part).ok(), other.clone());
            prop_assert_eq!(decode_short::<64>(&part).ok().map(|short| short.to_vec()), other);
        }
    }

    #[test]
    fn headers_are_read_strictly() {
        assert_eq!(
            header(r#"{"alg":"ES256","kid":"a","jku":"http://169.254.169.254/"}"#).as_deref(),
            Ok("ES256 Some(\"a\")")
        );
        assert_eq!(header(r#"{"alg":"ES256","b64":true}"#).as_deref(), Ok("ES256 None"));
        for alg in ["none", "None", "nOnE", "NONE", "none ", "hs256", "es256", "ES256K", "", "RSA1_5"] {
            assert_eq!(header(&format!("{{\"alg\":\"{alg}\"}}")), Err(Flaw::Algorithm), "{alg}");
        }
        for json in ["{}", r#"{"alg":["ES256"]}"#, r#"{"alg":null}"#] {
            assert_eq!(header(json), Err(Flaw::Algorithm), "{json}");
        }
        for crit in [r#"["bork"],"bork":1"#, "[]", "\"exp\"", "null", r#"["b64"],"b64":false"#, r#"["alg"]"#] {
            assert_eq!(header(&format!("{{\"alg\":\"ES256\",\"crit\":{crit}}}")), Err(Flaw::Critical), "{crit}");
        }
        assert_eq!(header(r#"{"alg":"ES256","b64":false}"#), Err(Flaw::Critical));
        for kid in ["1", "[\"a\"]", "null", "{}", &format!("\"{}\"", "k".repeat(1025))] {
            assert_eq!(header(&format!("{{\"alg\":\"ES256\",\"kid\":{kid}}}")), Err(Flaw::Malformed), "{kid}");
        }
        for json in [r#"{"alg":"ES256","alg":"none"}"#, r#"{"alg":"none","\u0061lg":"ES256"}"#, "\"x\"", "null", "[]"] {
            assert_eq!(header(json), Err(Flaw::Malformed), "{json}");
        }
    }

    #[test]
    fn parameters_of_no_use_have_their_form_or_are_refused() {
        for (parameter, good) in [
            (r#""cty":"JWT""#, true),
            (r#""cty":0"#, false),
            (r#""jku":"http://169.254.169.254/""#, true),
            (r#""jku":null"#, false),
            (r#""x5c":["AA"]"#, true),
            (r#""x5c":"AA""#, false),
            (r#""x5c":[1]"#, false),
            (r#""x5t#S256":{}"#, false),
            (r#""jwk":{"kty":"oct"}"#, true),
            (r#""jwk":"{}""#, false),
            (r#""zip":"DEF""#, false),
            (r#""enc":"A128GCM""#, false),
            (r#""anything":[{}]"#, true),
        ] {
            let expected = if good { Ok("ES256 None".to_owned()) } else { Err(Flaw::Malformed) };
            assert_eq!(header(&format!("{{\"alg\":\"ES256\",{parameter}}}")), expected, "{parameter}");
        }
    }

    #[test]
    fn typ_names_an_access_token() {
        let accepts = |typ: &str, rule| {
            let text = format!("{{\"alg\":\"ES256\"{typ}}}");
            Header::parse(text.as_bytes()).is_ok_and(|h| h.is_access_token(rule))
        };
        for (typ, access, at_jwt) in [
            ("", true, false),
            (r#","typ":"JWT""#, true, false),
            (r#","typ":"jwt""#, true, false),
            (r#","typ":"application/JWT""#, true, false),
            (r#","typ":"at+jwt""#, true, true),
            (r#","typ":"AT+JWT""#, true, true),
            (r#","typ":"Application/at+jwt""#, true, true),
            (r#","typ":"""#, false, false),
            (r#","typ":"logout+jwt""#, false, false),
            (r#","typ":"secevent+jwt""#, false, false),
            (r#","typ":"dpop+jwt""#, false, false),
            (r#","typ":"id_token""#, false, false),
            (r#","typ":"JWT ""#, false, false),
            (r#","typ":"application/""#, false, false),
            (r#","typ":7"#, false, false),
        ] {
            assert_eq!(accepts(typ, TypRule::Access), access, "{typ}");
            assert_eq!(accepts(typ, TypRule::AtJwt), at_jwt, "{typ}");
        }
    }
}
