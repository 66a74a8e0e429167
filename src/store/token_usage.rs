//! Where an API's answers tell how many tokens a model has used, for the tiers that count them.

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::suggest::Problems;

/// `[[apis]] token_usage`: where answers tell the tokens a model has used. Where neither place tells, they are
/// unknown: they count at no tier, and `tollgate_throttle_tokens_unknown_total` counts the answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenUsageSettings {
    /// A header of the answer with their number, which goes before the field.
    pub header: Option<String>,
    /// A field with their number, after the objects that it is in, joined by dots: of a JSON body up to 1 MiB, or of
    /// the last server-sent event that has it. `usage.prompt_tokens` or `usage.completion_tokens` count these alone.
    pub field: String,
}

impl Default for TokenUsageSettings {
    fn default() -> Self {
        Self { header: None, field: "usage.total_tokens".into() }
    }
}

/// Where answers tell the tokens used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUsage {
    /// The header, if any.
    pub header: Option<HeaderName>,
    /// The field's name, after those of the objects that it is in.
    pub path: Box<[Box<str>]>,
}

impl TokenUsage {
    pub(super) fn build(
        settings: &TokenUsageSettings,
        field: &dyn Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Self {
        let header = settings.header.as_ref().and_then(|name| {
            let header = HeaderName::try_from(name.as_str()).ok();
            if header.is_none() {
                problems.add(field("token_usage.header"), "is no name of a header");
            }
            header
        });
        let path: Box<[Box<str>]> = settings.field.split('.').map(Into::into).collect();
        if path.iter().any(|name| name.is_empty()) || path.len() > DEEPEST {
            problems
                .add(field("token_usage.field"), "is at most 8 names joined by dots, such as \"usage.total_tokens\"");
        }
        Self { header, path }
    }
}

impl Default for TokenUsage {
    fn default() -> Self {
        Self { header: None, path: ["usage", "total_tokens"].map(Into::into).into() }
    }
}

const DEEPEST: usize = 8;
