//! Which pages in browsers may call an API, and read its answers (CORS, the Fetch standard section 3.3).
//!
//! Keeps nobody but browsers from anything: whoever calls still needs a token.

use http::{
    HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
    },
};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{api, suggest::Problems};
use crate::{
    net::{Fields, fields::lists},
    units::Span,
};

/// `[[apis]] cors`: which pages may call the API; without it none, unless the upstream says so itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsSettings {
    /// Origins of the pages, as browsers send them: `https://app.example.com`; or `*` alone.
    pub origins: Vec<String>,
    /// Verbs they may use, of those that resources list; empty: all of those.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Request headers they may set; empty: any.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Response headers they may read, besides those that any page may.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether browsers may send cookies and client certificates along; tokens need no such leave.
    #[serde(default)]
    pub credentials: bool,
    /// How long browsers may remember what they may do, in whole seconds.
    #[serde(default = "an_hour")]
    pub max_age: Span,
}

/// [`CorsSettings`], ready for answers.
#[derive(Debug)]
pub struct Cors {
    /// None: any.
    origins: Option<Box<[HeaderValue]>>,
    methods: Box<[Method]>,
    /// `methods`; none: the one that is asked for.
    methods_value: Option<HeaderValue>,
    /// None: those that are asked for.
    headers_value: Option<HeaderValue>,
    /// Of an upstream's answer.
    expose: Option<HeaderValue>,
    /// Of a refusal.
    expose_refusal: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// Whose answer is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerOf {
    /// The upstream's.
    Upstream,
    /// Ours: a refusal, or a failure.
    Gate,
}

impl Cors {
    /// Only good if no problem was added.
    pub(super) fn build(settings: &CorsSettings, field: &dyn Fn(&str) -> String, problems: &mut Problems) -> Self {
        let field = |name: &str| format!("{}.{name}", field("cors"));
        let CorsSettings { origins, methods, headers, expose, credentials, max_age } = settings;
        let any = origins.iter().any(|origin| origin == "*");
        if origins.is_empty() {
            problems.add(field("origins"), "is empty: leave out cors instead");
        }
        if any && origins.len() > 1 {
            problems.add(field("origins"), "`*` stands alone");
        }
        if any && *credentials {
            problems.add(field("credentials"), "may not be true with origins = [\"*\"]: name the origins");
        }
        if !max_age.is_whole_seconds() {
            problems.add(field("max_age"), "is whole seconds");
        }
        for (n, _) in origins.iter().enumerate().filter(|(_, text)| *text != "*" && !is_origin(text)) {
            problems.add(format!("{}[{n}]", field("origins")), ORIGIN_FORM);
        }
        let methods = api::verbs(methods, &field("methods"), problems);
        for (name, list) in [("headers", headers), ("expose", expose)] {
            for (n, _) in list.iter().enumerate().filter(|(_, text)| !is_header_name(text)) {
                problems.add(format!("{}[{n}]", field(name)), "is not a header name");
            }
        }
        let refusal: Vec<&str> = expose.iter().map(String::as_str).chain(OF_REFUSALS).collect();
        Self {
            origins: (!any).then(|| origins.iter().filter_map(|text| HeaderValue::from_str(text).ok()).collect()),
            methods_value: list(&methods.iter().map(Method::as_str).collect::<Vec<_>>()),
            methods: methods.into(),
            headers_value: list(headers),
            expose: list(expose),
            expose_refusal: list(&refusal),
            credentials: *credentials,
            max_age: HeaderValue::from(max_age.0.as_secs()),
        }
    }

    /// The fields of the answer to a preflight that asks for `method`, which a resource lists; none: it is not allowed,
    /// or was sent by no page.
    pub fn preflight(&self, request: &Fields, method: &Method) -> Option<Fields> {
        if !self.methods.is_empty() && !self.methods.contains(method) {
            return None;
        }
        let origin = self.allows(request.sole(ORIGIN.as_str())?)?;
        let mut fields = Fields::default();
        fields.push(&ACCESS_CONTROL_ALLOW_ORIGIN, &origin);
        let methods = self.methods_value.clone().or_else(|| HeaderValue::from_str(method.as_str()).ok())?;
        fields.push(&ACCESS_CONTROL_ALLOW_METHODS, &methods);
        let asked = || HeaderValue::from_bytes(request.sole(ACCESS_CONTROL_REQUEST_HEADERS.as_str())?).ok();
        if let Some(headers) = self.headers_value.clone().or_else(asked) {
            fields.push(&ACCESS_CONTROL_ALLOW_HEADERS, &headers);
        }
        fields.push(&ACCESS_CONTROL_MAX_AGE, &self.max_age);
        if self.credentials {
            fields.push(&ACCESS_CONTROL_ALLOW_CREDENTIALS, &HeaderValue::from_static("true"));
        }
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        fields.push(&VARY, &HeaderValue::from_static(vary));
        Some(fields)
    }

    /// Makes an answer readable for pages of `origin`, if they may read it. What the upstream has said of it does not
    /// count. An answer to nobody's page tells caches all the same that it depends.
    pub fn decorate(&self, origin: Option<&HeaderValue>, of: AnswerOf, fields: &mut Fields) {
        fields.retain(|name, _| OURS.iter().all(|ours| ours.as_str().as_bytes() != name));
        let allowed = match (&self.origins, origin) {
            (None, _) => Some(ANY),
            (Some(_), origin) => {
                vary_by_origin(fields);
                origin.and_then(|origin| self.allows(origin.as_bytes()))
            }
        };
        let Some(allowed) = allowed else { return };
        fields.push(&ACCESS_CONTROL_ALLOW_ORIGIN, &allowed);
        if self.credentials {
            fields.push(&ACCESS_CONTROL_ALLOW_CREDENTIALS, &HeaderValue::from_static("true"));
        }
        let expose = if of == AnswerOf::Gate { &self.expose_refusal } else { &self.expose };
        if let Some(expose) = expose {
            fields.push(&ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }

    /// What `Access-Control-Allow-Origin` says to an origin; none: nothing.
    fn allows(&self, origin: &[u8]) -> Option<HeaderValue> {
        match &self.origins {
            None => Some(ANY),
            Some(origins) => origins.iter().find(|allowed| allowed.as_bytes() == origin).cloned(),
        }
    }
}

/// A request's origin: one page's.
pub fn origin(request: &Fields) -> Option<HeaderValue> {
    HeaderValue::from_bytes(request.sole(ORIGIN.as_str())?).ok()
}

fn vary_by_origin(fields: &mut Fields) {
    let named = fields.all(VARY.as_str()).any(|value| lists(value, "*") || lists(value, "origin"));
    if !named {
        fields.push(&VARY, &HeaderValue::from_static("Origin"));
    }
}

/// Names in one field; none without any.
fn list(names: &[impl AsRef<str>]) -> Option<HeaderValue> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
}

/// As browsers write it (RFC 6454 section 6.2); of schemes of apps and extensions too, but never `null`, which any page
/// can be.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    if matches!(scheme, "http" | "https") {
        return !text.contains('*') && Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text);
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '+' | '_');
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase()) && scheme.chars().all(plain);
    is_scheme && !authority.is_empty() && authority.chars().all(|c| plain(c) || c == ':')
}

/// `*` is a token too, but would not mean `Authorization` (the Fetch standard), nor anything where credentials are sent.
fn is_header_name(text: &str) -> bool {
    text != "*" && HeaderName::from_bytes(text.as_bytes()).is_ok()
}

fn an_hour() -> Span {
    Span::seconds(3600)
}

const ANY: HeaderValue = HeaderValue::from_static("*");
/// Who may read an answer is told by these alone.
const OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];
/// What a page needs of a refusal to know what to do about it.
const OF_REFUSALS: [&str; 5] = ["WWW-Authenticate", "Retry-After", "RateLimit-Policy", "RateLimit", "X-Request-Id"];
const ORIGIN_FORM: &str = "is an origin as browsers send it, such as https://app.example.com: scheme, host and port in \
                           lower case, no default port, no path; or `*` alone";

#[cfg(test)]
mod tests {
    use super::{super::tests::build, *};

    fn cors(lines: &str) -> Result<Cors, Vec<String>> {
        let text = format!(
            "[[apis]]\nname = 'A'\ncontext = '/a'\nupstream = 'echo:'\nresources = [{{ path = '/' }}]\n[apis.cors]\n{lines}"
        );
        match build(&text) {
            Ok(tables) => {
                let api = std::sync::Arc::clone(&tables.apis[0].api);
                drop(tables);
                let api = std::sync::Arc::into_inner(api).expect("nothing else holds it");
                Ok(*api.cors.expect("it is set"))
            }
            Err(problems) => Err(problems.into_iter().map(|problem| problem.field).collect()),
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (lines, field) in [
            ("origins = []", "apis[0].cors.origins"),
            ("origins = ['*', 'https://a.example']", "apis[0].cors.origins"),
            ("origins = ['*']\ncredentials = true", "apis[0].cors.credentials"),
            ("origins = ['*']\nmethods = ['get']", "apis[0].cors.methods[0]"),
            ("origins = ['*']\nmethods = ['GET', '*']", "apis[0].cors.methods[1]"),
            ("origins = ['*']\nmethods = ['TRACE']", "apis[0].cors.methods[0]"),
            ("origins = ['*']\nheaders = ['*']", "apis[0].cors.headers[0]"),
            ("origins = ['*']\nheaders = ['X-A', 'X B']", "apis[0].cors.headers[1]"),
            ("origins = ['*']\nexpose = ['X-A,X-B']", "apis[0].cors.expose[0]"),
            ("origins = ['*']\nmax_age = '1500ms'", "apis[0].cors.max_age"),
        ] {
            assert_eq!(cors(lines).expect_err(lines), [field], "{lines}");
        }
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        for good in [
            "https://app.example.com",
            "http://localhost:3000",
            "https://app.example.com:8443",
            "http://[::1]:8080",
            "https://xn--caf-dma.example",
            "chrome-extension://abcdefghijklmnop",
            "capacitor://localhost",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for wrong in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://App.example.com",
            "HTTPS://app.example.com",
            "https://app.example.com/",
            "https://app.example.com/x",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://u@app.example.com",
            "https://*.example.com",
            "https://app.example.com, https://b.example.com",
            "https://café.example",
            "app://",
            "app://x/y",
            "://x",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }

    fn decorated(cors: &Cors, origin: Option<&str>, of: AnswerOf, fields: &[(&'static str, &'static str)]) -> String {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut answer: Fields = fields.iter().map(field).collect();
        let origin = origin.map(|text| HeaderValue::from_str(text).expect("visible"));
        cors.decorate(origin.as_ref(), of, &mut answer);
        let mut lines: Vec<String> = answer
            .iter()
            .map(|(name, value)| String::from_utf8_lossy(&[name, value].join(&b": "[..])).into_owned())
            .collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    #[test]
    fn answers_are_for_the_listed_origins_alone() {
        let cors = cors("origins = ['https://a.example', 'https://b.example']\ncredentials = true\nexpose = ['X-A']")
            .expect("good");
        let upstream = |origin| decorated(&cors, origin, AnswerOf::Upstream, &[]);
        assert_eq!(
            upstream(Some("https://b.example")),
            "access-control-allow-credentials: true\naccess-control-allow-origin: https://b.example\n\
             access-control-expose-headers: X-A\nvary: Origin"
        );
        for other in [None, Some("https://c.example"), Some("https://b.example.evil"), Some("null"), Some("*")] {
            assert_eq!(upstream(other), "vary: Origin", "{other:?}");
        }
        let own = [("access-control-allow-origin", "*"), ("access-control-max-age", "9"), ("vary", "Accept, origin")];
        let replaced = decorated(&cors, Some("https://c.example"), AnswerOf::Upstream, &own);
        assert_eq!(replaced, "vary: Accept, origin", "what the upstream said is gone");
        let refusal = decorated(&cors, Some("https://a.example"), AnswerOf::Gate, &[]);
        assert!(refusal.contains("expose-headers: X-A, WWW-Authenticate, Retry-After"), "{refusal}");
    }

    #[test]
    fn anyone_is_told_without_regard_to_who_asks() {
        let cors = cors("origins = ['*']").expect("good");
        for origin in [None, Some("https://a.example"), Some("null")] {
            assert_eq!(decorated(&cors, origin, AnswerOf::Upstream, &[]), "access-control-allow-origin: *");
        }
    }

    #[test]
    fn a_preflight_is_told_what_is_set_or_what_it_asked_for() {
        let asked = |fields: &[(&'static str, &'static str)]| {
            let field = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            fields.iter().map(field).collect::<Fields>()
        };
        let page = ("origin", "https://a.example");
        let headers = ("access-control-request-headers", "authorization,x-a");
        let open = cors("origins = ['https://a.example']").expect("good");
        let fields = open.preflight(&asked(&[page, headers]), &Method::DELETE).expect("allowed");
        assert_eq!(fields.sole(ACCESS_CONTROL_ALLOW_METHODS.as_str()), Some("DELETE".as_bytes()));
        assert_eq!(fields.sole(ACCESS_CONTROL_ALLOW_HEADERS.as_str()), Some("authorization,x-a".as_bytes()));
        assert_eq!(fields.sole(ACCESS_CONTROL_MAX_AGE.as_str()), Some("3600".as_bytes()));
        assert!(!fields.contains(ACCESS_CONTROL_ALLOW_CREDENTIALS.as_str()));
        assert!(
            !open
                .preflight(&asked(&[page]), &Method::GET)
                .expect("allowed")
                .contains(ACCESS_CONTROL_ALLOW_HEADERS.as_str())
        );
        let set =
            "origins = ['https://a.example']\nmethods = ['GET', 'PUT']\nheaders = ['Authorization']\nmax_age = '0'";
        let set = cors(set).expect("good");
        let fields = set.preflight(&asked(&[page, headers]), &Method::PUT).expect("allowed");
        assert_eq!(fields.sole(ACCESS_CONTROL_ALLOW_METHODS.as_str()), Some("GET, PUT".as_bytes()));
        assert_eq!(fields.sole(ACCESS_CONTROL_ALLOW_HEADERS.as_str()), Some("Authorization".as_bytes()));
        assert_eq!(fields.sole(ACCESS_CONTROL_MAX_AGE.as_str()), Some("0".as_bytes()));
        assert!(set.preflight(&asked(&[page]), &Method::DELETE).is_none());
        for none in [asked(&[]), asked(&[page, page]), asked(&[("origin", "https://b.example")])] {
            assert!(open.preflight(&none, &Method::GET).is_none(), "{none:?}");
        }
    }
}
