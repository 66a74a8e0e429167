//! Clients: made, read, changed, given away, proven by several secrets, mapped, removed.

use serde_json::json;
use tollgate::keymanager::{ConsumerSecretRequest, OAuthApplicationInfo, Operation, Sensitive};

use super::{Run, request};
use crate::support::now;

/// Made, read, changed, given to another owner, removed; and nothing is left.
pub(super) async fn live_and_die(run: &Run<'_>) {
    if !run.can(&[Operation::CreateApplication]) {
        return;
    }
    let asked = run.application();
    let made = run.done("create", run.manager.create_application(&asked).await);
    let id = made.client_id.clone().expect("an id");
    let secret = run.keep(&made.client_secret.expect("a secret"));
    if run.can(&[Operation::RetrieveApplication]) {
        let read = run.done("retrieve", run.manager.retrieve_application(&id).await);
        assert_told(run, &read, &id, &asked);
    }
    if run.can(&[Operation::UpdateApplication]) {
        let mut changed = asked.clone();
        changed.client_name = Some(format!("{}-2", asked.client_name.as_deref().unwrap_or_default()));
        changed.call_back_url = Some("https://shop.example/other".into());
        let told = run.done("update", run.manager.update_application(&id, &changed).await);
        assert_told(run, &told, &id, &changed);
        if run.can(&[Operation::RetrieveApplication]) {
            let read = run.done("retrieve", run.manager.retrieve_application(&id).await);
            assert_told(run, &read, &id, &changed);
        }
        if run.can(&[Operation::NewApplicationAccessToken]) {
            assert!(run.proves(&id, &secret).await, "a change leaves the secret alone");
        }
    }
    if run.can(&[Operation::UpdateApplicationOwner]) {
        let told = run.done("change the owner", run.manager.update_application_owner(&id, "grace").await);
        assert_eq!(told.client_id.as_deref(), Some(&*id));
        assert_eq!(told.client_secret, None, "a secret is told once");
        if run.can(&[Operation::RetrieveApplication]) {
            let read = run.done("retrieve", run.manager.retrieve_application(&id).await);
            assert_eq!(read.app_owner.as_deref(), Some("grace"));
        }
    }
    if !run.can(&[Operation::DeleteApplication]) {
        return;
    }
    let token = match run.can(&[Operation::NewApplicationAccessToken]) {
        true => run.done("get a token", run.manager.new_access_token(&request(&id, &secret)).await).access_token,
        false => None,
    };
    run.done("delete", run.manager.delete_application(&id).await);
    if let Some(token) = token.filter(|_| run.world.voids_tokens && run.can(&[Operation::TokenMetaData])) {
        let said = run.done("ask", run.manager.token_meta_data(&run.keep(&token)).await);
        assert!(!said.is_token_valid, "a token of a client that is gone");
    }
    is_gone(run, &id, &secret).await;
}

/// Every operation on a client that is not there says so.
async fn is_gone(run: &Run<'_>, id: &str, secret: &Sensitive) {
    let manager = run.manager;
    let request = ConsumerSecretRequest::default();
    if run.can(&[Operation::RetrieveApplication]) {
        run.not_found("retrieve what is gone", manager.retrieve_application(id).await);
    }
    if run.can(&[Operation::UpdateApplication]) {
        run.not_found("update what is gone", manager.update_application(id, &run.application()).await);
    }
    if run.can(&[Operation::UpdateApplicationOwner]) {
        run.not_found("give away what is gone", manager.update_application_owner(id, "grace").await);
    }
    if run.can(&[Operation::MapOAuthApplication]) {
        run.not_found("map what is gone", manager.map_application(id, Some(secret)).await);
    }
    if run.can(&[Operation::NewApplicationConsumerSecret]) {
        run.not_found("rotate what is gone", manager.new_secret(id).await);
    }
    if run.can(&[Operation::GenerateConsumerSecret]) {
        run.not_found("one more secret of what is gone", manager.add_secret(id, &request).await);
    }
    if run.can(&[Operation::RetrieveConsumerSecrets]) {
        run.not_found("secrets of what is gone", manager.secrets(id).await);
    }
    if run.can(&[Operation::DeleteConsumerSecret]) {
        run.not_found("drop a secret of what is gone", manager.delete_secret(id, "x").await);
    }
    if run.can(&[Operation::ActiveTokensByConsumerKey]) {
        run.not_found("tokens of what is gone", manager.active_tokens(id).await);
    }
    if run.can(&[Operation::NewApplicationAccessToken]) {
        assert!(!run.proves(id, secret).await, "a client that is gone gets a token");
    }
    run.not_found("delete what is gone", manager.delete_application(id).await);
}

/// That a client is told as it was asked for.
fn assert_told(run: &Run<'_>, told: &OAuthApplicationInfo, id: &str, asked: &OAuthApplicationInfo) {
    assert_eq!(told.client_id.as_deref(), Some(id));
    assert_eq!(told.client_secret, None, "a secret is told once");
    let text = serde_json::to_string(told).unwrap();
    run.assert_silent(&text);
    if run.world.tells_all {
        assert_eq!(told.client_name, asked.client_name);
        assert_eq!(told.redirect_uris(), asked.redirect_uris());
        assert_eq!(told.app_owner, asked.app_owner);
        for grant in asked.list("grant_types") {
            assert!(told.list("grant_types").contains(&grant), "{grant} is missing: {text}");
        }
    }
}

/// Another secret beside the first: both are good, none is told again, and one goes without the other.
pub(super) async fn have_several_secrets(run: &Run<'_>) {
    if !run.can(&[Operation::CreateApplication, Operation::GenerateConsumerSecret]) {
        return;
    }
    let (id, first) = run.client().await;
    let parameters = [("description", json!("for the night shift")), ("expiresIn", json!(3600))];
    let parameters = parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut asked = ConsumerSecretRequest { client_secret: None, parameters };
    if run.world.plain_secrets {
        asked.parameters.clear();
    }
    let added = run.done("add a secret", run.manager.add_secret(&id, &asked).await);
    let second = run.keep(added.client_secret.as_ref().expect("it is told once"));
    assert!(!added.secret_id.is_empty() && second != first);
    if run.can(&[Operation::NewApplicationAccessToken]) {
        for secret in [&first, &second] {
            assert!(run.proves(&id, secret).await, "each of both is good");
        }
    }
    if run.can(&[Operation::RetrieveConsumerSecrets]) {
        let all = run.done("list secrets", run.manager.secrets(&id).await);
        run.assert_silent(&serde_json::to_string(&all).unwrap());
        assert!(all.len() >= 2, "{all:?}");
        let known = all.iter().find(|secret| secret.secret_id == added.secret_id).expect("it is listed");
        let expires = known.parameters.get("expiresAt").and_then(serde_json::Value::as_u64).expect("an end");
        if run.world.plain_secrets {
            assert_eq!(expires, 0, "it has no end");
        } else {
            assert_eq!(known.parameters.get("description"), Some(&json!("for the night shift")));
            assert!(expires > now() + 3000 && expires <= now() + 3601, "{expires}");
        }
    }
    if run.can(&[Operation::DeleteConsumerSecret]) {
        run.done("drop a secret", run.manager.delete_secret(&id, &added.secret_id).await);
        run.not_found("drop it twice", run.manager.delete_secret(&id, &added.secret_id).await);
        if run.can(&[Operation::NewApplicationAccessToken]) {
            assert!(!run.proves(&id, &second).await, "a dropped secret is void");
            assert!(run.proves(&id, &first).await, "the other one is not");
        }
        if run.can(&[Operation::RetrieveConsumerSecrets]) {
            let all = run.done("list secrets", run.manager.secrets(&id).await);
            assert!(all.iter().all(|secret| secret.secret_id != added.secret_id), "{all:?}");
        }
    }
    run.away(&id).await;
}

/// A new secret voids the old one.
pub(super) async fn get_another_secret(run: &Run<'_>) {
    if !run.can(&[Operation::CreateApplication, Operation::NewApplicationConsumerSecret]) {
        return;
    }
    let (id, old) = run.client().await;
    let tokens = run.can(&[Operation::NewApplicationAccessToken]);
    let before = match tokens {
        true => run.done("get a token", run.manager.new_access_token(&request(&id, &old)).await).access_token,
        false => None,
    };
    let new = run.keep(&run.done("rotate", run.manager.new_secret(&id).await));
    assert!(old != new);
    if tokens {
        assert!(!run.proves(&id, &old).await, "the old secret is void");
        let after = run.done("get a token", run.manager.new_access_token(&request(&id, &new)).await);
        if run.can(&[Operation::TokenMetaData]) {
            let said = async |token: Option<Sensitive>| {
                run.done("ask", run.manager.token_meta_data(&run.keep(&token.expect("a token"))).await).is_token_valid
            };
            assert!(said(after.access_token).await, "what the new secret gets is good at once");
            assert!(!run.world.voids_tokens || !said(before).await, "what the old one got is not");
        }
    }
    if run.can(&[Operation::MapOAuthApplication]) {
        run.invalid("map by the old secret", "clientSecret", run.manager.map_application(&id, Some(&old)).await);
        run.done("map by the new secret", run.manager.map_application(&id, Some(&new)).await);
    }
    run.away(&id).await;
}

/// A client that the provider has is taken over by its secret, or by its id alone.
pub(super) async fn are_mapped(run: &Run<'_>) {
    if !run.can(&[Operation::MapOAuthApplication]) {
        return;
    }
    let there = run.world.client.clone().map(|(id, secret)| (id, Sensitive::from(secret)));
    let Some((id, secret)) = (match there {
        Some(there) => Some(there),
        None => run.some_client().await,
    }) else {
        return;
    };
    run.keep(&secret);
    for brought in [Some(&secret), None] {
        let told = run.done("map", run.manager.map_application(&id, brought).await);
        assert_eq!(told.client_id.as_deref(), Some(&*id));
        run.assert_silent(&serde_json::to_string(&told.parameters).unwrap());
    }
    let wrong = run.keep(&Sensitive::from(format!("{}x", secret.reveal())));
    run.invalid("map by a wrong secret", "clientSecret", run.manager.map_application(&id, Some(&wrong)).await);
    run.not_found("map an unknown client", run.manager.map_application("no-such-client", Some(&secret)).await);
    if run.world.client.is_none() {
        run.away(&id).await;
    }
}
