//! What the file declares of applications' keys is taken: it is neither mapped nor created a second time.

use serde_json::{Value, json};

use super::{Place, ask};
use crate::support::Gate;

#[test]
fn a_key_that_the_file_declares_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    let applications = "[[applications]]\nname = \"shop\"\nowner = \"ada\"\nkeys = [{ consumer_key = \"till\" }]\n";
    let gate = Gate::start(|ports| place.config(ports, "", applications));
    let clients = "/v1/key-managers/own/clients";
    let tell = |method: &str, path: &str, body: &Value| ask(place.port, &place.key(), method, path, body);
    let taken = |path: &str, body: Value, field: &str| {
        for query in ["", "?dry_run=true"] {
            let refused = tell("POST", &format!("{path}{query}"), &body);
            assert_eq!(refused.status, 409, "{path}{query} {body}: {}", refused.text());
            let problem = refused.json();
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("{field}: declared in the file")), "{problem}");
        }
    };
    let map = format!("{clients}/map");
    taken(&map, json!({ "clientId": "till" }), "clientId");
    taken(&map, json!({ "clientId": "till", "applicationUUID": "shop" }), "clientId");
    taken(clients, json!({ "clientId": "till", "applicationUUID": "market" }), "clientId");
    taken(clients, json!({ "clientId": "till", "parameters": { "key_type": "SANDBOX" } }), "clientId");
    for path in [clients, &map] {
        taken(path, json!({ "clientId": "other", "applicationUUID": "shop" }), "applicationUUID");
    }
    // The file awaits it: it may be made for its application, once.
    let awaited = json!({ "clientId": "till", "applicationUUID": "shop" });
    assert_eq!(tell("POST", clients, &awaited).status, 201);
    assert_eq!(tell("POST", clients, &awaited).status, 409);
    let empty = tell("POST", &format!("{clients}/map"), &json!({ "clientId": "" }));
    assert_eq!((empty.status, &empty.json()["code"]), (400, &json!("901414")), "{}", empty.text());
    assert_eq!(empty.json()["detail"], "clientId: must not be empty");
    // Another key type, another application, another client: nothing stands against them.
    let sandbox = json!({ "clientId": "try", "applicationUUID": "shop", "parameters": { "key_type": "SANDBOX" } });
    assert_eq!(tell("POST", clients, &sandbox).status, 201);
    assert_eq!(tell("POST", clients, &json!({ "clientId": "other", "applicationUUID": "market" })).status, 201);
    // What a reload declares is taken from then on.
    let late = json!({ "clientId": "late", "applicationUUID": "market" });
    let both = applications.replace("}]", "}, { consumer_key = \"late\" }]");
    gate.reload(&gate.config_text().replace(applications, &both));
    gate.wait_for("the reload", || gate.metric("tollgate_config_reloads_total", &["outcome=\"ok\""]) >= 1.0);
    taken(clients, late, "clientId");
}
