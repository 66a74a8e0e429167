//! Changes that are only tried: they are not refused, and nothing of them is left, whichever the connector.

use std::{fmt, sync::Arc};

use serde_json::json;
use tollgate::{
    keymanager::{
        ApiResource, Caller, ConsumerSecretRequest, Done, Engine, Error, KeyManager, Managed, Operation, Origin,
        Result, Scope,
    },
    net::Clock,
    store::{Revocations, record::Record},
};

use super::{Run, named, request};

pub(super) async fn leave_nothing(run: &Run<'_>, manager: &Arc<dyn KeyManager>) {
    if !run.can(&[Operation::CreateApplication, Operation::RetrieveApplication]) {
        return;
    }
    let engine = engine(manager);
    let dry = &Caller { who: "a test".into(), dry_run: true, ..Caller::default() };
    let (id, secret) = run.client().await;
    let before = run.done("read", manager.retrieve_application(&id).await);
    let mut changed = run.application();
    changed.client_name = Some("another".into());
    let more = ConsumerSecretRequest::default();
    tried(run, "create", engine.create_application(dry, OF, run.application()).await);
    tried(run, "update", engine.update_application(dry, OF, &id, changed.clone()).await);
    changed.client_secret = Some(secret.clone());
    tried(run, "update with the secret", engine.update_application(dry, OF, &id, changed).await);
    tried(run, "give away", engine.update_application_owner(dry, OF, &id, "grace").await);
    tried(run, "rotate", engine.new_secret(dry, OF, &id).await);
    tried(run, "one more secret", engine.add_secret(dry, OF, &id, more).await);
    tried(run, "issue", engine.new_access_token(dry, OF, &id, request(&id, &secret)).await);
    tried(run, "delete", engine.delete_application(dry, OF, &id).await);
    let after = run.done("read", manager.retrieve_application(&id).await);
    assert_eq!(json!(after), json!(before), "{}: a client that was only tried at", manager.connector());
    if run.can(&[Operation::NewApplicationAccessToken]) {
        assert!(run.proves(&id, &secret).await, "its secret stays");
    }
    run.away(&id).await;

    let scope = Scope { key: named("scope"), ..Scope::default() };
    tried(run, "register a scope", engine.register_scope(dry, OF, scope.clone()).await);
    if run.can(&[Operation::IsScopeExists]) {
        assert!(!run.done("look", manager.scope_exists(&scope.key).await), "a scope that was only tried");
    }
    let resource = ApiResource { api_id: named("api"), uris: vec!["/orders".into()], ..ApiResource::default() };
    tried(run, "register a resource", engine.register_resource(dry, OF, resource.clone()).await);
    if run.can(&[Operation::ResourceByApiId]) {
        run.not_found("a resource that was only tried", manager.resource(&resource.api_id).await);
    }
}

/// An engine with this key manager alone.
fn engine(manager: &Arc<dyn KeyManager>) -> Engine {
    let settings = json!({ "name": OF, "connector": "oidc", "issuer": "https://one.example" });
    let settings = serde_json::from_value(settings).unwrap();
    let record = Some(Record::in_memory().unwrap());
    let (clock, metrics) = (Arc::new(Clock::new()), prometheus::Registry::new());
    let engine = Engine::new(record, Arc::new(Revocations::default()), clock, &metrics, None).unwrap();
    engine.registry.replace(vec![Managed { settings, connector: Arc::clone(manager), origin: Origin::Declared }]);
    engine
}

fn tried<T: fmt::Debug>(run: &Run<'_>, what: &str, outcome: Result<Done<T>>) {
    match outcome {
        Ok(Done::Would(_)) | Err(Error::Unsupported { .. }) => {}
        other => panic!("{}: {what}: {other:?}", run.manager.connector()),
    }
}

const OF: &str = "one";
