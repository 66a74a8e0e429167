//! What may be in the bodies that WSO2 leaves open, for `/openapi.json`: each schema says what `keymanager::check` and
//! the readers of loose JSON take.

use serde_json::{Map, Value, json};

use crate::keymanager::{
    TOKEN_EXCHANGE,
    check::{DEEPEST, MOST_ITEMS, MOST_LIFETIME, MOST_NAME, MOST_TEXT, MOST_TOKEN},
};

/// The schemas by name. Each takes the place of one that only stands for it.
pub(super) fn schemas() -> Map<String, Value> {
    let all = [
        ("Parameters", parameters()),
        ("Attributes", texts("Attributes of the platform's application.", MOST_TEXT)),
        ("RequestParameters", texts("Parameters of a token request.", MOST_TOKEN)),
        ("SecretParameters", secret_parameters()),
        ("LooseApplication", loose_application()),
        ("LooseTokenRequest", loose_token_request()),
    ];
    all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// The free-form bag of a client.
fn parameters() -> Value {
    json!({
        "type": "object",
        "description": "The free-form bag: at most 100 members, nested at most 4 levels deep.",
        "maxProperties": MOST_ITEMS,
        "propertyNames": name(),
        "properties": known_parameters(),
        "additionalProperties": value(0),
    })
}

/// Those that are read here; what else there may be is the provider's.
fn known_parameters() -> Value {
    let lifetime = json!({ "anyOf": [
        { "type": "integer", "minimum": 0, "maximum": MOST_LIFETIME },
        { "type": "string", "pattern": format!("^(N/A|{SECONDS})$") },
    ] });
    let flag = json!({ "enum": [true, false, "true", "false", "N/A"] });
    json!({
        "grant_types": { "type": "string", "maxLength": MOST_TEXT, "description": "Parted by commas or spaces.",
            "pattern": format!("^[, ]*([!-+\\--~]+([, ]+|$)){{0,{MOST_ITEMS}}}$") },
        "key_type": { "enum": ["PRODUCTION", "SANDBOX"] },
        "additionalProperties": {
            "type": "object",
            "maxProperties": MOST_ITEMS,
            "propertyNames": name(),
            "properties": {
                "application_access_token_expiry_time": lifetime,
                "user_access_token_expiry_time": lifetime,
                "refresh_token_expiry_time": lifetime,
                "id_token_expiry_time": lifetime,
                "pkceMandatory": flag,
                "pkceSupportPlain": flag,
                "bypassClientCredentials": flag,
            },
            "additionalProperties": value(1),
        },
    })
}

/// Any value, so many levels deep.
fn value(depth: usize) -> Value {
    let mut value = text(MOST_TEXT);
    match depth {
        DEEPEST => {
            value["maxItems"] = 0.into();
            value["maxProperties"] = 0.into();
        }
        depth => {
            value["maxItems"] = MOST_ITEMS.into();
            value["items"] = self::value(depth + 1);
            value["maxProperties"] = MOST_ITEMS.into();
            value["propertyNames"] = name();
            value["additionalProperties"] = self::value(depth + 1);
        }
    }
    value
}

fn secret_parameters() -> Value {
    json!({
        "type": "object",
        "description": "What one more secret is asked for with.",
        "properties": {
            "description": { "$ref": "#/components/schemas/LongText" },
            "expiresIn": { "type": "integer", "minimum": 1, "maximum": MOST_LIFETIME,
                "description": "Seconds; left out: for ever, or as long as the provider's secrets last." },
        },
        "additionalProperties": false,
    })
}

fn loose_application() -> Value {
    let mut properties = known_parameters();
    properties["client_id"] = or_null("Name");
    properties["client_name"] = or_null("Name");
    properties["client_secret"] = or_null("SecretText");
    for url in ["callbackUrl", "callback_url"] {
        let mut text = text(MOST_TEXT);
        text["type"] = json!(["string", "null"]);
        properties[url] = text;
    }
    json!({
        "type": "object",
        "description": "A client in WSO2's loose JSON: what is no field of a client is one of its parameters.",
        "maxProperties": MOST_ITEMS,
        "propertyNames": name(),
        "properties": properties,
        "additionalProperties": value(0),
    })
}

fn loose_token_request() -> Value {
    json!({
        "type": "object",
        "description": "A token request in WSO2's loose JSON. subject_token is for the grant of token exchange alone.",
        "properties": {
            "client_id": or_null("Name"),
            "client_secret": or_null("SecretText"),
            "grant_type": or_null("Text"),
            "subject_token": or_null("TokenText"),
            "scope": { "anyOf": [
                { "type": "string", "pattern": SCOPE_LIST, "description": "Parted by spaces." },
                { "type": "array", "maxItems": MOST_ITEMS, "items": { "$ref": "#/components/schemas/ScopeKey" } },
                { "type": "null" },
            ] },
            "validityPeriod": { "anyOf": [
                { "type": "integer", "minimum": -1, "maximum": MOST_LIFETIME },
                { "type": "string", "pattern": format!("^(|N/A|-1|{SECONDS})$") },
                { "type": "null" },
            ] },
        },
        "anyOf": [
            { "properties": { "subject_token": { "type": "null" } } },
            { "properties": { "grant_type": { "const": TOKEN_EXCHANGE } }, "required": ["grant_type"] },
        ],
        "additionalProperties": false,
    })
}

/// Texts by name.
fn texts(about: &str, most: usize) -> Value {
    let mut text = text(most);
    text["type"] = "string".into();
    json!({
        "type": "object",
        "description": about,
        "maxProperties": MOST_ITEMS,
        "propertyNames": name(),
        "additionalProperties": text,
    })
}

fn or_null(name: &str) -> Value {
    json!({ "anyOf": [{ "$ref": format!("#/components/schemas/{name}") }, { "type": "null" }] })
}

fn name() -> Value {
    text(MOST_NAME)
}

/// No control characters, and at most so many.
fn text(most: usize) -> Value {
    json!({ "maxLength": most, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$" })
}

/// At most 100 scopes of RFC 6749 section 3.3.
const SCOPE_LIST: &str = r"^ *([!#-\[\]-~]{1,255}( +|$)){0,100}$";
/// 0 to [`MOST_LIFETIME`] in at most ten digits.
const SECONDS: &str = "[0-9]{1,9}|[01][0-9]{9}|20[0-9]{8}|21[0-3][0-9]{7}|214[0-6][0-9]{6}|2147[0-3][0-9]{5}|21474[0-7][0-9]{4}|214748[0-2][0-9]{3}|2147483[0-5][0-9]{2}|21474836[0-3][0-9]|214748364[0-7]";
