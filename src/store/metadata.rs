//! What an API tells clients of itself: protected resource metadata (RFC 9728), by which they find the providers whose
//! tokens it takes. Made once, of the configuration alone: nothing that a request says gets into it.

use std::collections::HashMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ApiRow, TokenPlace, path::canonical, settings::ApiSettings, source::Origins, suggest::Problems, template};
use crate::net::client::is_loopback;

/// `[[apis]] resource_metadata`: what the API tells of itself; without it nothing is published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataSettings {
    /// The API as its clients know it (RFC 8707): `https://`, host and path, without query and fragment.
    pub resource: String,
    /// What people call it; absent: the API's name.
    pub name: Option<String>,
    /// A page for developers.
    pub documentation: Option<String>,
}

/// What an API publishes, and where.
#[derive(Debug)]
pub struct ResourceMetadata {
    /// Where it is found, for challenges: the resource with the well-known path put between host and path.
    pub url: Box<str>,
    /// The document.
    pub document: Bytes,
    /// Bytes of `url` before its path.
    origin: usize,
    /// The resource's host, as hosts are looked up.
    host: String,
    /// Other hosts that the API is served at.
    hosts: Vec<String>,
    /// The API is served at any host.
    anywhere: bool,
}

/// RFC 9728 section 2.
#[derive(Serialize)]
struct Document<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    authorization_servers: &'a [&'a str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scopes_supported: &'a [&'a str],
    bearer_methods_supported: &'a [&'a str],
    resource_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_documentation: Option<&'a str>,
}

impl ResourceMetadata {
    /// What `api` publishes; `issuers` are those whose tokens count there, `hosts` where it is served (empty: anywhere).
    pub(super) fn build(
        api: &ApiSettings,
        issuers: &[&str],
        hosts: &[String],
        field: &dyn Fn(&str) -> String,
        problems: &mut Problems,
    ) -> Option<Self> {
        let settings = api.resource_metadata.as_ref()?;
        let field = |name: &str| format!("{}.{name}", field("resource_metadata"));
        let wrong = |text: &Option<String>| text.as_deref().is_some_and(|text| Url::parse(text).is_err());
        if wrong(&settings.documentation) {
            problems.add(field("documentation"), "is no URL");
        }
        if settings.name.as_deref().is_some_and(str::is_empty) {
            problems.add(field("name"), "is empty");
        }
        let (origin, host) = match read(&settings.resource) {
            Ok(read) => read,
            Err(message) => {
                problems.add(field("resource"), message);
                return None;
            }
        };
        let mut scopes: Vec<&str> = Vec::new();
        for scope in api.resources.iter().flat_map(|resource| &resource.scopes) {
            if !scopes.contains(&scope.as_str()) {
                scopes.push(scope);
            }
        }
        let methods: Vec<&str> = [(TokenPlace::Header, "header"), (TokenPlace::Query, "query")]
            .into_iter()
            .filter(|(place, _)| api.token_in.contains(place))
            .map(|(_, method)| method)
            .collect();
        let document = Document {
            resource: &settings.resource,
            authorization_servers: issuers,
            scopes_supported: &scopes,
            bearer_methods_supported: &methods,
            resource_name: settings.name.as_deref().unwrap_or(&api.name),
            resource_documentation: settings.documentation.as_deref(),
        };
        // RFC 9728 section 3.1: a slash that is all of the path is left out.
        let (before, path) = settings.resource.split_at(origin);
        let path = if path == "/" { "" } else { path };
        Some(Self {
            url: format!("{before}{WELL_KNOWN}{path}").into(),
            document: serde_json::to_vec(&document).expect("texts and lists of texts are JSON").into(),
            origin,
            host,
            hosts: hosts.to_vec(),
            anywhere: hosts.is_empty(),
        })
    }

    /// The path where it is found, exactly.
    fn path(&self) -> &str {
        &self.url[self.origin..]
    }

    /// How well a host fits, best first. A gateway in front may have put another in place of the resource's own.
    fn rank(&self, host: &str) -> Option<u8> {
        if self.host == host {
            return Some(0);
        }
        if self.hosts.iter().any(|it| it == host) {
            return Some(1);
        }
        self.anywhere.then_some(2)
    }
}

/// The documents by their paths.
#[derive(Debug, Clone, Default)]
pub(super) struct Documents(HashMap<Box<str>, Vec<u32>>);

impl Documents {
    /// Of all APIs that are served and publish one. Two at the same place are a problem.
    pub(super) fn build(
        apis: &[ApiRow],
        served: &dyn Fn(u32) -> bool,
        origins: &Origins,
        problems: &mut Problems,
    ) -> Self {
        let mut by_path: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        for (n, api) in (0u32..).zip(apis).filter(|(n, _)| served(*n)) {
            let Some(metadata) = &api.metadata else { continue };
            let there = by_path.entry(metadata.path().into()).or_default();
            let host = |n: u32| apis[n as usize].metadata.as_ref().map(|metadata| &*metadata.host);
            if let Some(earlier) = there.iter().find(|earlier| host(**earlier) == Some(&*metadata.host)) {
                let earlier = origins.told("apis", *earlier as usize);
                problems.stand_at(origins.place(n as usize).as_ref());
                let at = origins.named("apis", "api", n as usize);
                problems.add(format!("{at}.resource_metadata.resource"), format!("{earlier} is this resource too"));
            }
            there.push(n);
        }
        Self(by_path)
    }

    /// Index of the API whose document is at this very path; none where two would fit a host equally well.
    pub(super) fn find(&self, apis: &[ApiRow], host: &str, path: &str) -> Option<u32> {
        let rank = |n: u32| Some((apis.get(n as usize)?.metadata.as_ref()?.rank(host)?, n));
        let mut fitting: Vec<(u8, u32)> = self.0.get(path)?.iter().filter_map(|n| rank(*n)).collect();
        fitting.sort_unstable();
        match *fitting {
            [(best, _), (second, _), ..] if best == second => None,
            [(_, api), ..] => Some(api),
            [] => None,
        }
    }
}

/// Bytes of a resource identifier before its path, and its host as hosts are looked up (RFC 9728 section 1.2).
fn read(text: &str) -> Result<(usize, String), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(FORM)?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = template::host(authority).map_err(|_| FORM)?;
    let url = Url::parse(text).map_err(|_| FORM)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err("is http:// only on loopback");
    }
    if text.contains(['?', '#']) {
        return Err("has no query and no fragment");
    }
    // As requests are sent and compared: byte for byte.
    if !path.is_empty() && canonical(path).map_err(|flaw| flaw.describe())? != path {
        return Err("has a path that is written in another way than requests are: decode what needs no encoding");
    }
    Ok((text.len() - path.len(), host))
}

/// Where documents are found (RFC 9728 section 3).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
const FORM: &str = "is https://, a host and a path, such as https://api.example.com/orders";

#[cfg(test)]
mod tests {
    use super::super::tests::build;

    fn api(name: &str, more: &str) -> String {
        format!(
            "[[apis]]\nname = '{name}'\ncontext = '/{name}'\nupstream = 'echo:'\n{more}\n\
             resources = [{{ path = '/a', scopes = ['r', 's'] }}, {{ path = '/b', scopes = ['s', 't'] }}]\n"
        )
    }

    fn resource(text: &str) -> String {
        format!("resource_metadata = {{ resource = '{text}' }}")
    }

    #[test]
    fn the_well_known_path_stands_between_host_and_path() {
        for (text, url, path) in [
            ("https://a.example", "https://a.example/.well-known/oauth-protected-resource", ""),
            ("https://a.example/", "https://a.example/.well-known/oauth-protected-resource", ""),
            ("https://a.example:8443/o", "https://a.example:8443/.well-known/oauth-protected-resource/o", "/o"),
            ("https://a.example/o/v1/", "https://a.example/.well-known/oauth-protected-resource/o/v1/", "/o/v1/"),
            ("http://127.0.0.1:8080/o", "http://127.0.0.1:8080/.well-known/oauth-protected-resource/o", "/o"),
            ("http://localhost/o", "http://localhost/.well-known/oauth-protected-resource/o", "/o"),
        ] {
            let tables = build(&api("x", &resource(text))).expect(text);
            let metadata = tables.apis[0].metadata.as_ref().expect(text);
            assert_eq!(&*metadata.url, url);
            let document: serde_json::Value = serde_json::from_slice(&metadata.document).expect("JSON");
            assert_eq!(document["resource"], text);
            assert_eq!(document["scopes_supported"], serde_json::json!(["r", "s", "t"]));
            assert_eq!(tables.metadata("elsewhere", &format!("{}{path}", super::WELL_KNOWN)), Some(0));
        }
    }

    #[test]
    fn other_identifiers_are_refused() {
        for text in [
            "",
            "a.example/o",
            "HTTPS://a.example/o",
            "http://a.example/o",
            "urn:orders",
            "https://",
            "https:///o",
            "https://u@a.example/o",
            "https://a.example/o?x=1",
            "https://a.example/o#x",
            "https://a.example?x",
            "https://a.example/a/../o",
            "https://a.example//o",
            "https://a.example/%6f",
            "https://a.example/o\" x",
            "https://a example/o",
        ] {
            let problems = build(&api("x", &resource(text))).expect_err(text);
            let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(fields, ["apis[0].resource_metadata.resource"], "{text}");
        }
        let more = "resource_metadata = { resource = 'https://a.example', name = '', documentation = 'x y' }";
        let problems = build(&api("x", more)).expect_err("two mistakes");
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn hosts_tell_documents_of_one_path_apart() {
        let at = |host: &str, hosts: &str| format!("{}\nhosts = [{hosts}]", resource(&format!("https://{host}/o")));
        let (a, b) = (api("a", &at("a.example", "'inner.example'")), api("b", &at("b.example", "")));
        let (c, d) = (api("c", &at("c.example", "")), api("d", &at("b.example", "")));
        let path = "/.well-known/oauth-protected-resource/o";
        let tables = build(&format!("{a}{b}")).expect("two hosts");
        for (host, expected) in
            [("a.example", Some(0)), ("inner.example", Some(0)), ("b.example", Some(1)), ("other.example", Some(1))]
        {
            assert_eq!(tables.metadata(host, path), expected, "{host}");
        }
        let two = build(&format!("{b}{c}")).expect("two hosts");
        assert_eq!([two.metadata("c.example", path), two.metadata("other.example", path)], [Some(1), None]);
        let elsewhere = build(&a).expect("one");
        assert_eq!(elsewhere.metadata("other.example", path), None, "served at its hosts alone");
        for other in ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/o/"] {
            assert_eq!(tables.metadata("a.example", other), None);
        }
        assert_eq!(build(&format!("{b}{d}")).expect_err("the same").len(), 1);
    }
}
