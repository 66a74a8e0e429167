//! Scopes: made once, read, listed, changed, checked, removed.

use tollgate::keymanager::{AccessTokenRequest, Error, Operation, Scope};

use super::{Run, named, request};

/// Made once, read, listed, changed, checked, granted, removed.
pub(super) async fn live_and_die(run: &Run<'_>) {
    if !run.can(&[Operation::RegisterScope]) {
        return;
    }
    let mut asked = scope("orders:read");
    asked.name = asked.name.filter(|_| !run.world.nameless_scopes);
    let made = run.done("register a scope", run.manager.register_scope(&asked).await);
    assert_eq!(made.key, asked.key);
    let again = run.refused("register it twice", run.manager.register_scope(&asked).await);
    super::assert_clash(&again, "key");
    if run.can(&[Operation::ScopeByName]) {
        assert_same(&run.done("read", run.manager.scope(&asked.key).await), &asked);
        run.not_found("read an unknown scope", run.manager.scope(&named("none")).await);
    }
    if run.can(&[Operation::AllScopes]) {
        let all = run.done("list", run.manager.scopes().await);
        assert_same(all.iter().find(|one| one.key == asked.key).expect("it is listed"), &asked);
    }
    if run.can(&[Operation::IsScopeExists]) {
        assert!(run.done("exists", run.manager.scope_exists(&asked.key).await));
        assert!(!run.done("does not exist", run.manager.scope_exists(&named("none")).await));
    }
    if run.can(&[Operation::ValidateScopes]) {
        let found = run.done("validate", run.manager.validate_scopes(std::slice::from_ref(&asked.key)).await);
        assert_same(found.first().expect("one"), &asked);
        let none = named("none");
        let both = [asked.key.clone(), none.clone()];
        let error = run.refused("validate an unknown scope", run.manager.validate_scopes(&both).await);
        assert!(matches!(&error, Error::Invalid { why, .. } if why.contains(&none)), "{error:?}");
    }
    is_granted(run, &asked.key).await;
    if run.can(&[Operation::UpdateScope]) {
        let roles = Some("buyer".to_owned()).filter(|_| !run.world.roleless_scopes);
        let changed = Scope { description: Some("other words".into()), roles, ..asked.clone() };
        run.done("update", run.manager.update_scope(&changed).await);
        if run.can(&[Operation::ScopeByName]) {
            assert_same(&run.done("read", run.manager.scope(&asked.key).await), &changed);
        }
        run.not_found("update an unknown scope", run.manager.update_scope(&scope("none")).await);
    }
    if run.can(&[Operation::DeleteScope]) {
        run.done("delete", run.manager.delete_scope(&asked.key).await);
        run.not_found("delete it twice", run.manager.delete_scope(&asked.key).await);
        if run.can(&[Operation::ScopeByName]) {
            run.not_found("read what is gone", run.manager.scope(&asked.key).await);
        }
    }
}

/// A client asks for it and has it.
async fn is_granted(run: &Run<'_>, key: &str) {
    if !run.world.grants_scopes || !run.can(&[Operation::NewApplicationAccessToken]) {
        return;
    }
    let Some((id, secret)) = run.some_client().await else { return };
    let asked = AccessTokenRequest { scope: vec![key.to_owned()], ..request(&id, &secret) };
    let issued = run.done("get a token with the scope", run.manager.new_access_token(&asked).await);
    assert_eq!(issued.scope, [key]);
    if run.can(&[Operation::TokenMetaData]) {
        let token = run.keep(&issued.access_token.expect("a token"));
        assert_eq!(run.done("ask", run.manager.token_meta_data(&token).await).scope, [key]);
    }
    run.away(&id).await;
}

/// A scope with a key of its own.
pub(super) fn scope(name: &str) -> Scope {
    Scope {
        key: named(name),
        name: Some("Read orders".into()),
        roles: None,
        description: Some("what was ordered".into()),
        id: None,
    }
}

fn assert_same(told: &Scope, asked: &Scope) {
    let parts =
        |scope: &Scope| [Some(scope.key.clone()), scope.name.clone(), scope.description.clone(), scope.roles.clone()];
    assert_eq!(parts(told), parts(asked));
}
