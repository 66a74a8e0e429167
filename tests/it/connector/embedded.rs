//! The embedded provider, run through everything that a connector must do.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use tollgate::{
    authserver::Provider, connectors, net::Clock, store::record::Record, token::settings::KeyManagerSettings,
};

use super::{User, World, conforms};
use crate::support::block_on;

#[test]
fn the_embedded_provider_conforms_in_both_forms() {
    for form in ["jwt", "opaque"] {
        let provider = provider(form);
        block_on(conforms(connectors::embedded(provider), &world()));
    }
}

pub(super) fn provider(form: &str) -> Arc<Provider> {
    let settings: KeyManagerSettings = serde_json::from_value(json!({
        "name": "local", "connector": "embedded", "issuer": "http://127.0.0.1:9000", "listen": "127.0.0.1:9000",
        "tokens": form,
        "clients": [{ "id": "declared", "secret": "a secret of the file", "scopes": ["orders:read"] }],
        "users": [{
            "name": "ada", "password": "l0velace-and-more", "scopes": ["orders:read"],
            "claims": { "email": "ada@example.com", "roles": ["buyer", "editor"] },
        }],
    }))
    .unwrap();
    let provider = Provider::new(&settings, "key_managers[0]", Arc::new(Clock::new())).unwrap();
    provider.open(Record::in_memory().unwrap(), Arc::default()).unwrap();
    provider
}

pub(super) fn world() -> World {
    let claims = [("email", "ada@example.com"), ("roles", "buyer,editor"), ("sub", "ada")];
    World {
        client: Some(("declared".into(), "a secret of the file".into())),
        user: Some(User {
            name: "ada".into(),
            password: Some("l0velace-and-more".into()),
            claims: BTreeMap::from(claims.map(|(name, value)| (name.into(), value.into()))),
        }),
        takes_ids: true,
        tells_all: true,
        voids_tokens: true,
        grants_scopes: true,
        binds_registered: true,
        ..World::default()
    }
}
