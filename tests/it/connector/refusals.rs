//! What a connector refuses: what it cannot do, with its reason; and names that are nobody's.

use std::fmt::Debug;

use tollgate::keymanager::{
    AccessTokenRequest, ApiResource, ConsumerSecretRequest, Error, OAuthApplicationInfo, Operation, Result, Scope,
    Sensitive,
};

use super::{Run, resources::resource};

/// What it cannot do is refused, with the reason that it gives beforehand.
pub(super) async fn refuses_what_it_cannot(run: &Run<'_>) {
    for operation in Operation::ALL {
        let Some(reason) = run.manager.cannot(operation) else { continue };
        assert!(reason.len() > 8, "{operation:?}: a reason, not {reason:?}");
        let Some(outcome) = attempt(run, operation).await else { continue };
        let unsupported = Error::Unsupported { operation, reason };
        assert_eq!(outcome, Err(unsupported), "{}: {operation:?}", run.manager.connector());
    }
}

/// The operation, on nothing in particular; none: it is done by Tollgate itself.
async fn attempt(run: &Run<'_>, operation: Operation) -> Option<Result<()>> {
    let (manager, none) = (run.manager, "no-such-thing");
    let (application, token) = (OAuthApplicationInfo::default(), Sensitive::from("x"));
    let (keys, scope) = (vec![none.to_owned()], Scope { key: none.into(), ..Scope::default() });
    let api = ApiResource { api_id: none.into(), ..ApiResource::default() };
    let outcome = match operation {
        Operation::CreateApplication => void(manager.create_application(&run.application()).await),
        Operation::UpdateApplication => void(manager.update_application(none, &application).await),
        Operation::RetrieveApplication => void(manager.retrieve_application(none).await),
        Operation::DeleteApplication => void(manager.delete_application(none).await),
        Operation::UpdateApplicationOwner => void(manager.update_application_owner(none, none).await),
        Operation::MapOAuthApplication => void(manager.map_application(none, None).await),
        Operation::NewApplicationAccessToken => void(manager.new_access_token(&AccessTokenRequest::default()).await),
        Operation::TokenMetaData => void(manager.token_meta_data(&token).await),
        Operation::AccessTokenByConsumerKey => void(manager.access_token(none).await),
        Operation::ActiveTokensByConsumerKey => void(manager.active_tokens(none).await),
        Operation::NewApplicationConsumerSecret => void(manager.new_secret(none).await),
        Operation::GenerateConsumerSecret => void(manager.add_secret(none, &ConsumerSecretRequest::default()).await),
        Operation::RetrieveConsumerSecrets => void(manager.secrets(none).await),
        Operation::DeleteConsumerSecret => void(manager.delete_secret(none, none).await),
        Operation::RevokeToken => void(manager.revoke_token(&token).await),
        Operation::RevokeOneTimeToken => void(manager.revoke_one_time_token(&token, none).await),
        Operation::RegisterNewResource => void(manager.register_resource(&resource("api")).await),
        Operation::ResourceByApiId => void(manager.resource(none).await),
        Operation::UpdateRegisteredResource => void(manager.update_resource(&api).await),
        Operation::DeleteRegisteredResourceByApiId => void(manager.delete_resource(none).await),
        Operation::RegisterScope => void(manager.register_scope(&scope).await),
        Operation::ScopeByName => void(manager.scope(none).await),
        Operation::AllScopes => void(manager.scopes().await),
        Operation::UpdateScope => void(manager.update_scope(&scope).await),
        Operation::DeleteScope => void(manager.delete_scope(none).await),
        Operation::AttachResourceScopes => void(manager.attach_scopes(none, &keys).await),
        Operation::UpdateResourceScopes => void(manager.replace_scopes(none, &keys).await),
        Operation::DetachResourceScopes => void(manager.detach_scopes(none, &keys).await),
        Operation::ScopesForApis => void(manager.scopes_for_apis(&keys).await),
        Operation::UserClaims => void(manager.user_claims(none).await),
        Operation::IsScopeExists => void(manager.scope_exists(none).await),
        Operation::ValidateScopes => void(manager.validate_scopes(&keys).await),
        Operation::DeleteMappedApplication
        | Operation::KeyManagerConfiguration
        | Operation::LoadConfiguration
        | Operation::BuildFromJson
        | Operation::BuildAccessTokenRequestFromJson
        | Operation::BuildAccessTokenRequestFromOAuthApp
        | Operation::CanHandleToken
        | Operation::Type
        | Operation::SetTenantDomain => return None,
    };
    Some(outcome)
}

fn void<T>(outcome: Result<T>) -> Result<()> {
    outcome.map(drop)
}

/// Claims of a user that there is, and none of one that there is not.
pub(super) async fn tells_claims_of_users(run: &Run<'_>) {
    if !run.can(&[Operation::UserClaims]) {
        return;
    }
    if let Some(user) = &run.world.user {
        let told = run.done("claims", run.manager.user_claims(&user.name).await);
        for (name, value) in &user.claims {
            assert_eq!(told.get(name), Some(value), "{name}: {told:?}");
        }
    }
    run.not_found("claims of nobody", run.manager.user_claims("nobody-has-this-name").await);
}

/// An id may hold anything that is visible: it is never taken for a path, an escape or a query.
pub(super) async fn odd_names_are_only_names(run: &Run<'_>) {
    let manager = run.manager;
    for odd in ["a/b", "../clients", "a b", "50%", "%2e%2e%2fclients", "zoë/日本", "a?b=c#d", "x\"y'z\\", ".", ".."]
    {
        let none = |what: &str, outcome: Result<String>| run.not_found(&format!("{what} {odd}"), outcome);
        if run.can(&[Operation::RetrieveApplication]) {
            none("retrieve", shown(manager.retrieve_application(odd).await));
        }
        if run.can(&[Operation::CreateApplication, Operation::DeleteApplication]) {
            none("delete", shown(manager.delete_application(odd).await));
        }
        if run.can(&[Operation::ResourceByApiId]) {
            none("read API", shown(manager.resource(odd).await));
        }
        if run.can(&[Operation::ScopeByName]) {
            none("read scope", shown(manager.scope(odd).await));
        }
        if run.can(&[Operation::UserClaims]) {
            none("claims of", shown(manager.user_claims(odd).await));
        }
        keeps(run, odd).await;
    }
}

/// What is made under an odd name is found, and removed, under that name.
async fn keeps(run: &Run<'_>, odd: &str) {
    let manager = run.manager;
    let odd = format!("{odd}{}", super::named("-"));
    if run.world.takes_ids && run.can(&[Operation::CreateApplication, Operation::DeleteApplication]) {
        let asked = OAuthApplicationInfo { client_id: Some(odd.clone()), ..run.application() };
        let made = run.done("create", manager.create_application(&asked).await);
        let secret = run.keep(&made.client_secret.expect("a secret"));
        assert_eq!(made.client_id.as_ref(), Some(&odd));
        let twice = run.refused("create it twice", manager.create_application(&asked).await);
        let named = |field: &str| field == "clientId";
        assert!(
            matches!(&twice, Error::Conflict(clash) if clash.field.as_deref().is_none_or(named)),
            "a provider may not tell which it is: {twice:?}"
        );
        if run.can(&[Operation::RetrieveApplication]) {
            let read = run.done("retrieve", manager.retrieve_application(&odd).await);
            assert_eq!(read.client_id.as_ref(), Some(&odd));
        }
        if run.can(&[Operation::NewApplicationAccessToken]) {
            assert!(run.proves(&odd, &secret).await, "{odd}");
        }
        run.done("delete", manager.delete_application(&odd).await);
    }
    if run.can(&[Operation::RegisterNewResource, Operation::DeleteRegisteredResourceByApiId]) {
        let asked = ApiResource { api_id: odd.clone(), ..resource("api") };
        let made = run.done("register", manager.register_resource(&asked).await);
        assert_eq!(made.api_id, odd);
        if run.can(&[Operation::ResourceByApiId]) {
            assert_eq!(run.done("read", manager.resource(&odd).await).api_id, odd);
        }
        run.done("delete", manager.delete_resource(&odd).await);
    }
}

fn shown(outcome: Result<impl Debug>) -> Result<String> {
    outcome.map(|value| format!("{value:?}"))
}
