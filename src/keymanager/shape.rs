//! What texts of the models may be, for `/openapi.json`: each says exactly what [`check`](super::check) takes.

use utoipa::ToSchema;

/// A name or an id: not blank, no control characters.
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 255,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\u0000-\u001f\u007f-\u009f\s][^\u0000-\u001f\u007f-\u009f]*$"
)]
#[expect(dead_code, reason = "it only stands for a schema")]
pub struct Name(String);

/// Text without control characters.
#[derive(Debug, ToSchema)]
#[schema(max_length = 255, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
#[expect(dead_code, reason = "it only stands for a schema")]
pub struct Text(String);

/// Longer text without control characters.
#[derive(Debug, ToSchema)]
#[schema(max_length = 4096, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
#[expect(dead_code, reason = "it only stands for a schema")]
pub struct LongText(String);

/// At most 100 names, parted by commas.
#[derive(Debug, ToSchema)]
#[schema(
    max_length = 4096,
    pattern = r"^,*([^,\u0000-\u001f\u007f-\u009f]{1,255},+){0,99}([^,\u0000-\u001f\u007f-\u009f]{1,255},*)?$"
)]
#[expect(dead_code, reason = "it only stands for a schema")]
pub struct NameList(String);

/// A URI, or a template of one; without control characters.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 2048, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
#[expect(dead_code, reason = "it only stands for a schema")]
pub struct Uri(String);

/// A secret: visible ASCII characters and spaces (RFC 6749 appendix A).
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 1024, pattern = "^[ -~]+$")]
#[expect(dead_code, reason = "it only stands for a schema")]
pub struct SecretText(String);

/// A token: visible ASCII characters without spaces.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 65536, pattern = "^[!-~]+$")]
#[expect(dead_code, reason = "it only stands for a schema")]
pub struct TokenText(String);

/// A scope's key (RFC 6749 section 3.3).
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 255, pattern = r"^[!#-\[\]-~]+$")]
#[expect(dead_code, reason = "it only stands for a schema")]
pub struct ScopeKey(String);

/// For which of an application's keys a client is.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum KeyType {
    Production,
    Sandbox,
}

/// Attributes of the platform's application, by name.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
#[expect(dead_code, reason = "it only stands for a schema, which the management door writes out")]
pub struct Attributes(serde_json::Map<String, serde_json::Value>);

/// Parameters of a token request, by name.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
#[expect(dead_code, reason = "it only stands for a schema, which the management door writes out")]
pub struct RequestParameters(serde_json::Map<String, serde_json::Value>);

/// The free-form bag of a client.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
#[expect(dead_code, reason = "it only stands for a schema, which the management door writes out")]
pub struct Parameters(serde_json::Map<String, serde_json::Value>);

/// What one more secret is asked for with.
#[derive(Debug, ToSchema)]
#[schema(value_type = Object)]
#[expect(dead_code, reason = "it only stands for a schema, which the management door writes out")]
pub struct SecretParameters(serde_json::Map<String, serde_json::Value>);
