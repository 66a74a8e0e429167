//! Configurations as text, the way a user writes them.

use super::{Idp, Ports};

/// A configuration in parts; `text` puts them in TOML's order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// Keys before the first table.
    pub(crate) top: String,
    /// Further lines of `[proxy]`.
    pub(crate) proxy: String,
    /// Everything else.
    pub(crate) rest: String,
}

impl Config {
    /// One provider, the Orders API, the subscribed application `shop-web`.
    pub(crate) fn orders(idp: &Idp, upstream: &str) -> Self {
        let rest = format!(
            "{}{}{}",
            key_manager("main", idp, r#"audience = ["orders-api"]"#),
            orders_api(upstream),
            application("shop-web", "shop-web", "Unlimited", "")
        );
        Self { rest, ..Self::default() }.with(&subscription("shop-web", "Orders:v1", "Unlimited", "UNBLOCKED"))
    }

    /// Adds tables.
    pub(crate) fn with(mut self, tables: &str) -> Self {
        self.rest.push_str(tables);
        self
    }

    /// Adds lines to `[proxy]`.
    pub(crate) fn proxy(mut self, lines: &str) -> Self {
        self.proxy.push_str(lines);
        self.proxy.push('\n');
        self
    }

    /// The file.
    pub(crate) fn text(&self, ports: &Ports) -> String {
        format!(
            "{}\n[proxy]\nlisten = \"127.0.0.1:{}\"\n{}\n[admin]\nlisten = \"127.0.0.1:{}\"\n{}",
            self.top,
            ports.proxy,
            self.proxy,
            ports.admin,
            patient(&self.rest)
        )
    }
}

/// A provider here answers on a machine that is busy with other tests: unless a test is about its time-out, it has time.
fn patient(tables: &str) -> String {
    const HEAD: &str = "\n[[key_managers]]\n";
    let mut parts = tables.split(HEAD);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let own = part.split("\n[").next().unwrap_or_default();
        let given = own.contains("connector = \"embedded\"") || own.lines().any(|line| line.starts_with("timeout "));
        text + HEAD + if given { "" } else { "timeout = \"20s\"\n" } + part
    })
}

/// `[[key_managers]]` for a test provider, with further lines.
pub(crate) fn key_manager(name: &str, idp: &Idp, more: &str) -> String {
    format!("\n[[key_managers]]\nname = \"{name}\"\nconnector = \"oidc\"\nissuer = \"{}\"\n{more}\n", idp.issuer())
}

/// The Orders API with a resource of every kind.
pub(crate) fn orders_api(upstream: &str) -> String {
    let mut api = api("Orders", "/orders", Some("v1"), &format!("upstream = \"{upstream}\""));
    for (path, lines) in [
        ("/items/{id}", "methods = [\"GET\"]\nscopes = [\"orders:read\"]"),
        ("/items/{id}", "methods = [\"POST\"]\nscopes = [\"orders:write\"]"),
        ("/any/{id}", "scopes = [\"a\", \"b\"]"),
        ("/all/{id}", "scopes = [\"a\", \"b\"]\nscopes_match = \"all\""),
        ("/plain/{id}", ""),
        ("/public/{id}", "auth = \"none\""),
        ("/maybe/{id}", "auth = \"optional\""),
        ("/options/{id}", "methods = [\"GET\", \"OPTIONS\"]\nauth = \"none\""),
        ("/head/{id}", "methods = [\"GET\"]\nauth = \"none\""),
        ("/person/{id}", "auth_level = \"application_user\""),
        ("/gold/{id}", "acr_values = [\"gold\", \"urn:silver\"]"),
        ("/fresh/{id}", "max_age = \"5m\""),
        ("/both/{id}", "acr_values = [\"gold\"]\nmax_age = \"1h\""),
        ("/admin/{id}", "scopes = [\"admin\"]"),
        ("/wild/*", ""),
        ("/wild/exact/{id}", "scopes = [\"admin\"]"),
    ] {
        api.push_str(&resource(path, lines));
    }
    api
}

/// `[[apis]]`
pub(crate) fn api(name: &str, context: &str, version: Option<&str>, more: &str) -> String {
    let version = version.map(|v| format!("version = \"{v}\"\n")).unwrap_or_default();
    format!("\n[[apis]]\nname = \"{name}\"\ncontext = \"{context}\"\n{version}{more}\n")
}

/// `[[apis.resources]]` of the API before it.
pub(crate) fn resource(path: &str, more: &str) -> String {
    format!("[[apis.resources]]\npath = \"{path}\"\n{more}\n")
}

/// `[[applications]]` with one key; `more` goes into the key.
pub(crate) fn application(name: &str, consumer_key: &str, tier: &str, more: &str) -> String {
    format!(
        "\n[[applications]]\nname = \"{name}\"\nowner = \"ada\"\ntier = \"{tier}\"\n\
         keys = [{{ key_manager = \"main\", consumer_key = \"{consumer_key}\"{more} }}]\n"
    )
}

/// `[[subscriptions]]`
pub(crate) fn subscription(application: &str, api: &str, tier: &str, state: &str) -> String {
    format!(
        "\n[[subscriptions]]\napplication = \"{application}\"\napi = \"{api}\"\ntier = \"{tier}\"\nstate = \"{state}\"\n"
    )
}
