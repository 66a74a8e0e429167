//! What is registered of APIs, and the scopes bound to it.

use tollgate::keymanager::{ApiResource, Operation};

use super::{Run, named, scopes::scope};

/// Made once, read, changed, removed.
pub(super) async fn live_and_die(run: &Run<'_>) {
    if !run.can(&[Operation::RegisterNewResource]) {
        return;
    }
    let asked = resource("api");
    let made = run.done("register", run.manager.register_resource(&asked).await);
    assert_same(&made, &asked);
    let again = run.refused("register it twice", run.manager.register_resource(&asked).await);
    super::assert_clash(&again, "apiId");
    if run.can(&[Operation::ResourceByApiId]) {
        assert_same(&run.done("read", run.manager.resource(&asked.api_id).await), &asked);
        run.not_found("read an unknown API", run.manager.resource(&named("none")).await);
    }
    if run.can(&[Operation::UpdateRegisteredResource]) {
        let changed =
            ApiResource { name: Some(named("Orders, again")), uris: vec!["/orders/{id}".into()], ..asked.clone() };
        assert_same(&run.done("update", run.manager.update_resource(&changed).await), &changed);
        if run.can(&[Operation::ResourceByApiId]) {
            assert_same(&run.done("read", run.manager.resource(&asked.api_id).await), &changed);
        }
        run.not_found("update an unknown API", run.manager.update_resource(&resource("none")).await);
    }
    is_removed(run, &asked.api_id).await;
}

async fn is_removed(run: &Run<'_>, api_id: &str) {
    if !run.can(&[Operation::DeleteRegisteredResourceByApiId]) {
        return;
    }
    run.done("delete", run.manager.delete_resource(api_id).await);
    run.not_found("delete it twice", run.manager.delete_resource(api_id).await);
    if run.can(&[Operation::ResourceByApiId]) {
        run.not_found("read what is gone", run.manager.resource(api_id).await);
    }
}

/// Scopes are attached, replaced, detached, and told by API.
pub(super) async fn have_scopes(run: &Run<'_>) {
    if !run.can(&[Operation::RegisterNewResource, Operation::AttachResourceScopes]) {
        return;
    }
    let keys: Vec<String> = ["a", "b", "c"].into_iter().map(named).collect();
    if run.can(&[Operation::RegisterScope]) {
        for key in &keys {
            let asked = tollgate::keymanager::Scope { key: key.clone(), ..scope("x") };
            run.done("register a scope", run.manager.register_scope(&asked).await);
        }
    }
    let asked = resource("api");
    run.done("register", run.manager.register_resource(&asked).await);
    let api = &asked.api_id;
    let bound = async |these: &[String]| {
        if run.can(&[Operation::ResourceByApiId]) {
            let mut told = run.done("read", run.manager.resource(api).await).scopes;
            told.sort();
            let mut these = these.to_vec();
            these.sort();
            assert_eq!(told, these);
        }
    };
    run.done("attach", run.manager.attach_scopes(api, &keys[..1]).await);
    run.done("attach more, one of them again", run.manager.attach_scopes(api, &keys[..2]).await);
    bound(&keys[..2]).await;
    run.not_found("attach to an unknown API", run.manager.attach_scopes(&named("none"), &keys).await);
    is_registered_first(run, &asked, &keys[0]).await;
    if run.can(&[Operation::UpdateResourceScopes]) {
        run.done("replace", run.manager.replace_scopes(api, &keys[1..]).await);
        bound(&keys[1..]).await;
        run.not_found("replace at an unknown API", run.manager.replace_scopes(&named("none"), &keys).await);
    }
    if run.can(&[Operation::ScopesForApis]) {
        let all = run.done("by APIs", run.manager.scopes_for_apis(std::slice::from_ref(api)).await);
        let told = all.get(api).expect("the API is there");
        assert!(told.iter().any(|scope| scope.key == keys[1]), "{told:?}");
        let one_unknown = [api.to_owned(), named("none")];
        run.not_found("by APIs, one of them unknown", run.manager.scopes_for_apis(&one_unknown).await);
    }
    if run.can(&[Operation::DetachResourceScopes]) {
        run.done("detach one", run.manager.detach_scopes(api, &keys[1..2]).await);
        if run.can(&[Operation::UpdateResourceScopes]) {
            bound(&keys[2..]).await;
        }
        run.done("detach all", run.manager.detach_scopes(api, &[]).await);
        bound(&[]).await;
        run.not_found("detach at an unknown API", run.manager.detach_scopes(&named("none"), &[]).await);
    }
    is_removed(run, api).await;
    if run.can(&[Operation::RegisterScope, Operation::DeleteScope]) {
        for key in &keys {
            run.done("delete a scope", run.manager.delete_scope(key).await);
        }
    }
}

/// A scope that is not there stands in the way, by the field that names it.
async fn is_registered_first(run: &Run<'_>, api: &ApiResource, known: &str) {
    let needed = [Operation::RegisterScope, Operation::UpdateResourceScopes, Operation::UpdateRegisteredResource];
    if !run.world.binds_registered || !run.can(&needed) {
        return;
    }
    let keys = [known.to_owned(), named("none")];
    let with = |api: ApiResource| ApiResource { scopes: keys.to_vec(), ..api };
    for (what, outcome) in [
        ("attach", run.manager.attach_scopes(&api.api_id, &keys).await),
        ("replace", run.manager.replace_scopes(&api.api_id, &keys).await),
        ("update", run.manager.update_resource(&with(api.clone())).await),
        ("register", run.manager.register_resource(&with(resource("other"))).await),
    ] {
        let error = run.refused(what, outcome);
        super::assert_clash(&error, "scopes");
        assert!(error.to_string().contains(&keys[1]), "{error}");
    }
}

/// What is to be registered of an API with an id of its own.
pub(super) fn resource(id: &str) -> ApiResource {
    ApiResource {
        api_id: named(id),
        name: Some(named("Orders")),
        uris: vec!["/orders".into(), "/orders/*".into()],
        scopes: Vec::new(),
        id: None,
    }
}

fn assert_same(told: &ApiResource, asked: &ApiResource) {
    assert_eq!((&told.api_id, &told.name, &told.uris), (&asked.api_id, &asked.name, &asked.uris));
    assert!(told.id.as_ref().is_some_and(|id| !id.is_empty()), "the provider's own id: {told:?}");
}
