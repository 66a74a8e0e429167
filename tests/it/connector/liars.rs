//! The suite itself: connectors that say they did what they have not done are found out.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use tollgate::{
    connectors,
    keymanager::{
        AccessTokenInfo, AccessTokenRequest, Error, KeyManager, OAuthApplicationInfo, Operation, Result, Sensitive,
    },
};

use super::{
    conforms,
    embedded::{provider, world},
};
use crate::support::block_on;

/// What is wrong with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    DeletesNothing,
    UpdatesNothing,
    RevokesNothing,
    TellsTheSecretAgain,
    TellsTheSecretInAnError,
    TakesAnySecret,
    KnowsEveryClient,
    GivesAnotherReason,
}

/// The embedded connector, the few operations of it that the lies are about.
#[derive(Debug)]
struct Liar {
    truth: Arc<dyn KeyManager>,
    lie: Lie,
}

impl Liar {
    fn is(&self, lie: Lie) -> bool {
        self.lie == lie
    }
}

#[async_trait]
impl KeyManager for Liar {
    fn connector(&self) -> &'static str {
        "liar"
    }

    fn cannot(&self, operation: Operation) -> Option<Cow<'static, str>> {
        let does = [
            Operation::CreateApplication,
            Operation::UpdateApplication,
            Operation::RetrieveApplication,
            Operation::DeleteApplication,
            Operation::MapOAuthApplication,
            Operation::NewApplicationAccessToken,
            Operation::TokenMetaData,
            Operation::RevokeToken,
        ];
        (!does.contains(&operation)).then_some(Cow::Borrowed("it is not what the lies are about"))
    }

    async fn create_application(&self, application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        self.truth.create_application(application).await
    }

    async fn update_application(&self, id: &str, application: &OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        match self.is(Lie::UpdatesNothing) {
            true => Ok(OAuthApplicationInfo { client_id: Some(id.to_owned()), ..application.clone() }),
            false => self.truth.update_application(id, application).await,
        }
    }

    async fn retrieve_application(&self, id: &str) -> Result<OAuthApplicationInfo> {
        if self.is(Lie::KnowsEveryClient) {
            let made = OAuthApplicationInfo { client_id: Some(id.to_owned()), ..OAuthApplicationInfo::default() };
            return self.truth.retrieve_application(id).await.or(Ok(made));
        }
        let told = self.truth.retrieve_application(id).await?;
        let secret = self.is(Lie::TellsTheSecretAgain).then(|| "a secret".into());
        Ok(OAuthApplicationInfo { client_secret: secret, ..told })
    }

    async fn delete_application(&self, id: &str) -> Result<()> {
        match self.is(Lie::DeletesNothing) {
            true => Ok(()),
            false => self.truth.delete_application(id).await,
        }
    }

    async fn map_application(&self, id: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
        self.truth.map_application(id, secret.filter(|_| !self.is(Lie::TakesAnySecret))).await
    }

    async fn new_access_token(&self, request: &AccessTokenRequest) -> Result<AccessTokenInfo> {
        let outcome = self.truth.new_access_token(request).await;
        match (&request.client_secret, outcome) {
            (Some(secret), Err(_)) if self.is(Lie::TellsTheSecretInAnError) => {
                Err(Error::Refused { status: 401, detail: format!("{} is wrong", secret.reveal()) })
            }
            (_, outcome) => outcome,
        }
    }

    async fn token_meta_data(&self, token: &Sensitive) -> Result<AccessTokenInfo> {
        self.truth.token_meta_data(token).await
    }

    async fn revoke_token(&self, token: &Sensitive) -> Result<()> {
        match self.is(Lie::RevokesNothing) {
            true => Ok(()),
            false => self.truth.revoke_token(token).await,
        }
    }

    async fn new_secret(&self, id: &str) -> Result<Sensitive> {
        let operation = Operation::NewApplicationConsumerSecret;
        match self.is(Lie::GivesAnotherReason) {
            true => self.truth.new_secret(id).await,
            false => tollgate::keymanager::unsupported(self, operation),
        }
    }
}

#[test]
fn a_connector_that_lies_is_found_out() {
    for (lie, honest) in [
        (Lie::None, true),
        (Lie::DeletesNothing, false),
        (Lie::UpdatesNothing, false),
        (Lie::RevokesNothing, false),
        (Lie::TellsTheSecretAgain, false),
        (Lie::TellsTheSecretInAnError, false),
        (Lie::TakesAnySecret, false),
        (Lie::KnowsEveryClient, false),
        (Lie::GivesAnotherReason, false),
    ] {
        let liar = Arc::new(Liar { truth: connectors::embedded(provider("jwt")), lie });
        let found_out = block_on(async move { tokio::spawn(async move { conforms(liar, &world()).await }).await });
        assert_eq!(found_out.is_ok(), honest, "{lie:?}");
    }
}
