//! Tokens: issued, told of, listed, revoked.

use tollgate::keymanager::{AccessTokenInfo, AccessTokenRequest, Operation, Sensitive};

use super::{Run, request};

/// Issued for the right secret alone; told of while good; no good once revoked.
pub(super) async fn are_issued_told_and_revoked(run: &Run<'_>) {
    if !run.can(&[Operation::NewApplicationAccessToken]) {
        return;
    }
    let Some((id, secret)) = run.some_client().await else { return };
    let wrong = run.keep(&Sensitive::from(format!("{}x", secret.reveal())));
    run.invalid("a wrong secret", "clientSecret", run.manager.new_access_token(&request(&id, &wrong)).await);
    let issued = run.done("get a token", run.manager.new_access_token(&request(&id, &secret)).await);
    let token = run.keep(issued.access_token.as_ref().expect("a token"));
    assert!(issued.validity_period.is_none_or(|seconds| (1..10_000_000).contains(&seconds)), "seconds: {issued:?}");
    if run.can(&[Operation::TokenMetaData]) {
        let said = run.done("ask", run.manager.token_meta_data(&token).await);
        assert!(said.is_token_valid && said.errorcode.is_none(), "{said:?}");
        assert_eq!(said.consumer_key.as_deref(), Some(&*id));
        assert!(said.issued_time.is_none_or(|millis| millis > 1_600_000_000_000), "milliseconds: {said:?}");
        let unknown = Sensitive::from("nobody-ever-issued-this");
        assert_no_good(&run.done("ask", run.manager.token_meta_data(&unknown).await));
    }
    if run.can(&[Operation::ActiveTokensByConsumerKey]) {
        let names = run.done("list tokens", run.manager.active_tokens(&id).await);
        assert_eq!(names.is_empty(), run.world.lists_users_alone, "a live token is not listed");
        run.assert_silent(&names.join(" "));
    }
    if run.can(&[Operation::AccessTokenByConsumerKey]) {
        let shown = run.done("show a token", run.manager.access_token(&id).await);
        assert_eq!(shown.consumer_key.as_deref(), Some(&*id));
        assert!(shown.is_token_valid);
    }
    if run.can(&[Operation::RevokeToken]) {
        let others = match run.can(&[Operation::ActiveTokensByConsumerKey]) {
            true => run.done("list tokens", run.manager.active_tokens(&id).await),
            false => Vec::new(),
        };
        run.done("revoke", run.manager.revoke_token(&token).await);
        if run.can(&[Operation::TokenMetaData]) {
            assert_no_good(&run.done("ask", run.manager.token_meta_data(&token).await));
        }
        if run.world.voids_tokens && !others.is_empty() {
            let left = run.done("list tokens", run.manager.active_tokens(&id).await);
            assert!(left.len() < others.len(), "a revoked token is listed as alive: {left:?}");
        }
        run.done("revoke twice", run.manager.revoke_token(&token).await);
        run.done("revoke what is unknown", run.manager.revoke_token(&Sensitive::from("nobody-ever-issued-this")).await);
    }
    if run.can(&[Operation::RevokeOneTimeToken]) {
        let issued = run.done("get a token", run.manager.new_access_token(&request(&id, &secret)).await);
        let token = run.keep(&issued.access_token.expect("a token"));
        run.done("revoke after its use", run.manager.revoke_one_time_token(&token, &id).await);
        if run.can(&[Operation::TokenMetaData]) {
            assert_no_good(&run.done("ask", run.manager.token_meta_data(&token).await));
        }
    }
    run.away(&id).await;
}

fn assert_no_good(said: &AccessTokenInfo) {
    assert!(!said.is_token_valid, "{said:?}");
    assert_eq!(said.errorcode, Some(900_901), "{said:?}");
}

/// A token that is to go before another is issued goes by the client's own secret alone.
pub(super) async fn go_before_others(run: &Run<'_>) {
    use Operation as Op;
    if !run.can(&[Op::NewApplicationAccessToken, Op::RevokeToken, Op::TokenMetaData]) {
        return;
    }
    let Some((id, secret)) = run.some_client().await else { return };
    let issued = run.done("get a token", run.manager.new_access_token(&request(&id, &secret)).await);
    let token = run.keep(issued.access_token.as_ref().expect("a token"));
    let wrong = run.keep(&Sensitive::from(format!("{}x", secret.reveal())));
    let asked = |secret| AccessTokenRequest { token_to_revoke: Some(token.clone()), ..request(&id, secret) };
    run.invalid("a wrong secret", "clientSecret", run.manager.new_access_token(&asked(&wrong)).await);
    assert!(
        run.done("ask", run.manager.token_meta_data(&token).await).is_token_valid,
        "a wrong secret revokes a token"
    );
    let next = run.done("get another", run.manager.new_access_token(&asked(&secret)).await);
    run.keep(&next.access_token.expect("a token"));
    assert_no_good(&run.done("ask", run.manager.token_meta_data(&token).await));
    run.away(&id).await;
}

/// A user's token names the user, and its refresh token gets another.
pub(super) async fn of_users_are_refreshed(run: &Run<'_>) {
    let user = run.world.user.as_ref().and_then(|user| Some((&user.name, user.password.as_ref()?)));
    let (Some((name, password)), true) = (user, run.can(&[Operation::NewApplicationAccessToken])) else { return };
    let Some((id, secret)) = (match run.can(&[Operation::CreateApplication]) {
        true => {
            let mut asked = run.application();
            asked.parameters.insert("grant_types".into(), "password,refresh_token".into());
            let made = run.done("create", run.manager.create_application(&asked).await);
            Some((made.client_id.expect("an id"), run.keep(&made.client_secret.expect("a secret"))))
        }
        false => run.some_client().await,
    }) else {
        return;
    };
    let password = run.keep(&password.as_str().into());
    let asked = AccessTokenRequest {
        grant_type: Some("password".into()),
        resource_owner_username: Some(name.clone()),
        resource_owner_password: Some(password.clone()),
        ..request(&id, &secret)
    };
    let issued = run.done("get a user's token", run.manager.new_access_token(&asked).await);
    let token = run.keep(&issued.access_token.expect("a token"));
    if run.can(&[Operation::TokenMetaData]) {
        let said = run.done("ask", run.manager.token_meta_data(&token).await);
        assert!(said.is_token_valid && !said.is_application_token, "{said:?}");
        assert_eq!(said.end_user_name.as_ref(), Some(name));
    }
    let refresh = run.keep(&issued.refresh_token.expect("a refresh token"));
    let again = AccessTokenRequest {
        grant_type: Some("refresh_token".into()),
        refresh_token: Some(refresh),
        ..request(&id, &secret)
    };
    let refreshed = run.done("refresh", run.manager.new_access_token(&again).await);
    assert!(run.keep(&refreshed.access_token.expect("a token")) != token);
    let wrong = run.keep(&Sensitive::from(format!("{}x", password.reveal())));
    let wrong = AccessTokenRequest { resource_owner_password: Some(wrong), ..asked };
    run.refused("a wrong password", run.manager.new_access_token(&wrong).await);
    run.away(&id).await;
}
