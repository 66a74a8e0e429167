//! The management door of the whole program: who may call it, and what its changes do to the verdicts at the proxy.

mod access;
mod at_once;
mod audit;
mod capabilities;
mod declared;
mod door;
pub(crate) mod dry;
mod ending;
mod kill;
mod lists;
mod providers;
mod stored;
mod usage;

use serde_json::Value;

use crate::support::{Answer, Gate, Ports, Request, Via, api, block_on, free_ports, resource, send};

/// A gate with an embedded provider, a management door and a record.
pub(crate) struct Desk {
    pub(crate) gate: Gate,
    pub(crate) port: u16,
    pub(crate) provider: u16,
    pub(crate) key: String,
    _folder: tempfile::TempDir,
}

/// Where a desk is, which outlives a gate.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) provider: u16,
    pub(crate) store: std::path::PathBuf,
}

impl Place {
    pub(crate) fn new(folder: &std::path::Path) -> Self {
        let store = folder.join("tollgate.redb");
        Self { port: free_ports().provider, provider: free_ports().provider, store }
    }

    /// `lines` are the key manager's, `more` are further tables.
    pub(crate) fn config(&self, ports: &Ports, lines: &str, more: &str) -> String {
        let Self { port, provider, store } = self;
        format!(
            "workers = 2\n[proxy]\nlisten = \"127.0.0.1:{}\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n\
             [store]\npath = \"{}\"\n[management]\nlisten = \"127.0.0.1:{port}\"\nkey_managers = [\"own\"]\n\
             [[key_managers]]\nname = \"own\"\nconnector = \"embedded\"\nlisten = \"127.0.0.1:{provider}\"\n\
             issuer = \"http://127.0.0.1:{provider}\"\naudience = [\"orders\"]\n{lines}\n{}{}{more}",
            ports.proxy,
            ports.admin,
            store.display(),
            api("Orders", "/orders", None, "upstream = \"echo:\"\nsubscription = \"none\""),
            resource("/items/{id}", ""),
        )
    }

    /// The bootstrap key, once a gate has made it.
    pub(crate) fn key(&self) -> String {
        std::fs::read_to_string(self.store.with_file_name("bootstrap.key")).unwrap().trim().to_owned()
    }
}

impl Desk {
    pub(crate) fn start(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path());
        let gate = Gate::start(|ports| place.config(ports, lines, ""));
        Self { gate, port: place.port, provider: place.provider, key: place.key(), _folder: folder }
    }

    /// As the holder of the bootstrap key.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        ask(self.port, &self.key, method, path, body)
    }

    /// What the proxy says of a token.
    pub(crate) fn verdict(&self, token: &str) -> u16 {
        let request = Request::get("/orders/items/1").bearer(token);
        block_on(send(self.gate.ports.proxy, Via::H1, &request)).status
    }

    /// A client, by id and secret.
    pub(crate) fn client(&self, more: Value) -> (String, String) {
        let made = self.ask("POST", "/v1/key-managers/own/clients", &more);
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        (text(&made, "clientId"), text(&made, "clientSecret"))
    }

    /// A token of a client.
    pub(crate) fn token(&self, id: &str, secret: &str) -> String {
        let body = serde_json::json!({ "clientSecret": secret });
        let issued = self.ask("POST", &format!("/v1/key-managers/own/clients/{id}/tokens"), &body);
        assert_eq!(issued.status, 201, "{}", issued.text());
        text(&issued.json(), "accessToken")
    }
}

pub(crate) fn ask(port: u16, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    let mut request = Request::new(method, path).bearer(key);
    if !body.is_null() {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    block_on(send(port, Via::H1, &request))
}

pub(crate) fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}
