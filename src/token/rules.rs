//! By what a key manager's tokens are judged: its settings, and what was made of them once.
//!
//! Reads files; contacts nobody.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{
    conditions::{self, Patterns},
    jose, jwe,
    jwks::{self, Key, SharedKeyError},
    keys::Wanted,
    settings::{JwksFile, KeyManagerSettings, SecretEncoding, SecretKeySettings, Validation},
};
use crate::{file, problem::Problem};

/// By what a key manager's tokens are judged.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) settings: KeyManagerSettings,
    pub(super) name: Arc<str>,
    pub(super) issuer: Arc<str>,
    /// Claims wanted as headers.
    pub(super) header_claims: Arc<[Box<str>]>,
    /// Where a token has each of them; nowhere, where its name has been given to another.
    pub(super) header_sources: Box<[Option<Box<str>>]>,
    /// The claim that is the subject instead of `sub`.
    pub(super) subject_source: Option<Box<str>>,
    /// Which tokens are this one's.
    pub(super) patterns: Patterns,
    /// Keys that open its tokens.
    pub(super) decryption: jwe::Keys,
    /// Keys shared with the provider.
    secrets: Vec<Arc<Key>>,
}

/// What is in the files counts too; everything else follows from what is compared.
impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        let same_keys = |ours: &[Arc<Key>], theirs: &[Arc<Key>]| {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| a.is_same(b))
        };
        self.settings == other.settings
            && self.header_claims == other.header_claims
            && self.decryption == other.decryption
            && same_keys(&self.secrets, &other.secrets)
    }
}

impl Rules {
    /// Reads what the settings name, or tells every mistake; `field` is where they stand.
    pub(super) fn build(
        settings: KeyManagerSettings,
        header_claims: &Arc<[Box<str>]>,
        field: &str,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        conditions::mistakes(&settings, field, &mut problems);
        let patterns = Patterns::build(&settings, field, &mut problems);
        let decryption = decryption(&settings, field, &mut problems);
        let secrets = secrets(&settings, field, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: settings.name.as_str().into(),
            issuer: settings.issuer.as_str().into(),
            header_claims: Arc::clone(header_claims),
            header_sources: header_claims.iter().map(|name| conditions::source(&settings, name)).collect(),
            subject_source: conditions::source(&settings, "sub").filter(|path| **path != *"sub"),
            patterns,
            decryption,
            secrets,
            settings,
        })
    }

    /// Whether nothing is ever verified.
    pub(super) fn needs_no_keys(&self) -> bool {
        self.settings.validation == Validation::Introspect && self.secrets.is_empty()
    }

    /// Which keys of the provider's set count, and those beside it.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { algorithms: &self.settings.algorithms, local: &self.secrets }
    }
}

/// The private keys of the files.
fn decryption(settings: &KeyManagerSettings, field: &str, problems: &mut Vec<Problem>) -> jwe::Keys {
    let mut keys = jwe::Keys::default();
    for (index, JwksFile { file }) in settings.decryption_keys.iter().enumerate() {
        let read = file::read(file)
            .map_err(|error| format!("cannot read the file: {error}"))
            .and_then(|text| jwe::Keys::parse(&text).map_err(|error| error.to_string()));
        match read {
            Ok(more) => keys.extend(more),
            Err(why) => problems.push(Problem::new(format!("{field}.decryption_keys[{index}].file"), why)),
        }
    }
    keys
}

/// The keys shared with the provider. Each is for an algorithm that `algorithms` names, and each such
/// algorithm has one: neither is there by accident.
fn secrets(settings: &KeyManagerSettings, field: &str, problems: &mut Vec<Problem>) -> Vec<Arc<Key>> {
    let mut keys = Vec::new();
    for (index, shared) in settings.secret_keys.iter().enumerate() {
        let field = format!("{field}.secret_keys[{index}]");
        match secret(shared) {
            Ok(key) => keys.push(Arc::new(key)),
            Err((name, why)) => problems.push(Problem::new(format!("{field}.{name}"), why)),
        }
        if jwks::share_a_name(&keys) {
            problems.push(Problem::new(field.clone(), SharedKeyError::Twice.to_string()));
            keys.pop();
        }
        if !settings.algorithms.contains(&shared.alg) {
            problems.push(Problem::new(format!("{field}.alg"), "must be named in algorithms too"));
        }
    }
    for algorithm in settings.algorithms.iter().filter(|algorithm| algorithm.is_symmetric()) {
        if !settings.secret_keys.iter().any(|shared| shared.alg == *algorithm) {
            let why = format!("{} needs a key in secret_keys", algorithm.name());
            problems.push(Problem::new(format!("{field}.algorithms"), why));
        }
    }
    keys
}

/// One of them, or the field that is wrong and why; never the key.
fn secret(shared: &SecretKeySettings) -> Result<Key, (&'static str, String)> {
    let text = shared.secret.read().map_err(|error| ("secret", error.to_string()))?;
    let decoded = match shared.encoding {
        SecretEncoding::Text => None,
        SecretEncoding::Base64url => {
            Some(jose::decode(&text).map_err(|_| ("secret", "is not base64url without padding".to_owned()))?)
        }
    };
    let decoded = decoded.map(Zeroizing::new);
    let bytes = decoded.as_deref().map_or(text.as_bytes(), Vec::as_slice);
    Key::shared(shared.kid.as_deref(), shared.alg, bytes).map_err(|error| {
        let name = if error == SharedKeyError::Algorithm { "alg" } else { "secret" };
        (name, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{
        settings::Algorithm,
        testing::{b64, settings},
    };

    fn problems(change: impl FnOnce(&mut KeyManagerSettings)) -> Vec<(String, String)> {
        let mut settings = settings("https://idp.example.com");
        change(&mut settings);
        let built = Rules::build(settings, &Arc::default(), "km");
        built.err().unwrap_or_default().into_iter().map(|problem| (problem.field, problem.message)).collect()
    }

    fn shared(kid: Option<&str>, alg: Algorithm, secret: &str) -> SecretKeySettings {
        let encoding = SecretEncoding::Text;
        SecretKeySettings {
            kid: kid.map(Into::into),
            alg,
            secret: crate::secret::Secret::Inline(secret.into()),
            encoding,
        }
    }

    #[test]
    fn shared_keys_are_long_enough_and_named() {
        let with = |keys: Vec<SecretKeySettings>, algorithms: &[Algorithm]| {
            problems(|s| (s.secret_keys, s.algorithms) = (keys, algorithms.into()))
        };
        let fields =
            |found: Vec<(String, String)>| -> Vec<String> { found.into_iter().map(|(field, _)| field).collect() };
        for (algorithm, least) in [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)] {
            assert_eq!(with(vec![shared(None, algorithm, &"k".repeat(least))], &[algorithm]), []);
            let short = with(vec![shared(None, algorithm, &"k".repeat(least - 1))], &[algorithm]);
            assert_eq!(short.len(), 1, "{short:?}");
            assert_eq!(short[0].0, "km.secret_keys[0].secret");
            assert!(short[0].1.contains(&least.to_string()) && !short[0].1.contains("kk"), "{short:?}");
        }
        let good = || shared(None, Algorithm::HS256, &"k".repeat(32));
        assert_eq!(fields(with(vec![good()], &[Algorithm::ES256])), ["km.secret_keys[0].alg"]);
        assert_eq!(fields(with(vec![], &[Algorithm::ES256, Algorithm::HS256])), ["km.algorithms"]);
        assert_eq!(fields(with(vec![good(), good()], &[Algorithm::HS256])), ["km.secret_keys[1]"]);
        let public = shared(None, Algorithm::RS256, &"k".repeat(32));
        assert_eq!(fields(with(vec![public], &[Algorithm::RS256])), ["km.secret_keys[0].alg"]);
        let long = shared(None, Algorithm::HS256, &"k".repeat(1025));
        assert_eq!(fields(with(vec![long], &[Algorithm::HS256])), ["km.secret_keys[0].secret"]);
        assert_eq!(with(vec![good(), shared(Some("b"), Algorithm::HS256, &"q".repeat(32))], &[Algorithm::HS256]), []);
    }

    #[test]
    fn shared_keys_may_be_written_in_base64url() {
        let encoded = |text: String| {
            let key =
                SecretKeySettings { encoding: SecretEncoding::Base64url, ..shared(None, Algorithm::HS256, &text) };
            problems(|s| (s.secret_keys, s.algorithms) = (vec![key], vec![Algorithm::HS256])).len()
        };
        assert_eq!(encoded(b64([0xff; 32])), 0);
        assert_eq!(encoded(b64([0xff; 31])), 1, "the key's length counts, not the text's");
        assert_eq!(encoded(format!("{}=", b64([0xff; 32]))), 1);
        assert_eq!(encoded("+/".repeat(32)), 1);
    }
}
