//! What every connector must do, whichever provider is behind it: [`conforms`] runs it through.
//!
//! What it says it cannot do it must refuse, with the reason it gave; everything else it must do, and what has been
//! done must show. Nothing of a secret may stand in an error.

mod auth0;
mod auth0_tenant;
mod clients;
mod dry;
mod embedded;
mod http;
mod keycloak;
mod liars;
mod oidc;
mod okta;
mod okta_tenant;
mod outside;
mod outside_rows;
mod refusals;
mod resources;
mod scopes;
mod stand_in;
mod tokens;
mod tried;
mod wso2is;
mod wso2is_server;

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::Mutex;
use serde_json::json;
use tollgate::keymanager::{AccessTokenRequest, Error, KeyManager, OAuthApplicationInfo, Operation, Result, Sensitive};

use self::resources::resource;
use crate::support::{now, unique};

/// What a connector's surroundings have.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// What every client that is made says, beside name, owner and redirect URI: parameters that the provider needs.
    pub(crate) application: OAuthApplicationInfo,
    /// A client that is there from the start, to be mapped; none: one is made for it.
    pub(crate) client: Option<(String, String)>,
    /// A user.
    pub(crate) user: Option<User>,
    /// Whether a client may be given an id of our choosing.
    pub(crate) takes_ids: bool,
    /// Whether the provider tells the owner, the redirect URIs and the name of a client again as it was given them.
    pub(crate) tells_all: bool,
    /// Whether removing a client and rotating its secret void its tokens at the provider.
    pub(crate) voids_tokens: bool,
    /// Whether only what users have begun is listed as alive, and no token of a client's own.
    pub(crate) lists_users_alone: bool,
    /// Whether a scope has no name but its key.
    pub(crate) nameless_scopes: bool,
    /// Whether a scope is bound to no roles.
    pub(crate) roleless_scopes: bool,
    /// Whether a further secret has neither description nor end.
    pub(crate) plain_secrets: bool,
    /// Whether a client may ask for a scope that has just been registered.
    pub(crate) grants_scopes: bool,
    /// Whether only a scope that is registered can be bound to an API.
    pub(crate) binds_registered: bool,
}

/// A user of the provider.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    /// For the password grant, where there is one.
    pub(crate) password: Option<String>,
    /// Claims that must be told, among others.
    pub(crate) claims: BTreeMap<String, String>,
}

/// Runs a connector through everything.
pub(crate) async fn conforms(manager: Arc<dyn KeyManager>, world: &World) {
    let run = Run { manager: &*manager, world, secrets: Mutex::default() };
    assert!(!run.manager.connector().is_empty());
    refusals::refuses_what_it_cannot(&run).await;
    clients::live_and_die(&run).await;
    clients::have_several_secrets(&run).await;
    clients::get_another_secret(&run).await;
    clients::are_mapped(&run).await;
    tokens::are_issued_told_and_revoked(&run).await;
    tokens::go_before_others(&run).await;
    tokens::of_users_are_refreshed(&run).await;
    scopes::live_and_die(&run).await;
    resources::live_and_die(&run).await;
    resources::have_scopes(&run).await;
    refusals::tells_claims_of_users(&run).await;
    refusals::odd_names_are_only_names(&run).await;
    tried::leave_nothing(&run, &manager).await;
}

/// One connector on its way through.
struct Run<'a> {
    manager: &'a dyn KeyManager,
    world: &'a World,
    /// Every secret that was seen.
    secrets: Mutex<Vec<String>>,
}

impl Run<'_> {
    /// Whether it can do all of these.
    fn can(&self, operations: &[Operation]) -> bool {
        operations.iter().all(|operation| self.manager.cannot(*operation).is_none())
    }

    /// Takes note of a secret, which no error may hold from now on.
    fn keep(&self, secret: &Sensitive) -> Sensitive {
        assert!(!secret.reveal().is_empty(), "a secret is empty");
        self.secrets.lock().push(secret.reveal().to_owned());
        secret.clone()
    }

    /// What was done.
    fn done<T>(&self, what: &str, outcome: Result<T>) -> T {
        outcome.unwrap_or_else(|error| {
            self.assert_silent(&format!("{error} {error:?}"));
            panic!("{}: {what}: {error}", self.manager.connector())
        })
    }

    /// Why it was not done.
    fn refused<T: fmt::Debug>(&self, what: &str, outcome: Result<T>) -> Error {
        let error = outcome.expect_err(&format!("{}: {what} must be refused", self.manager.connector()));
        self.assert_silent(&format!("{error} {error:?}"));
        error
    }

    /// That there is no such thing.
    fn not_found<T: fmt::Debug>(&self, what: &str, outcome: Result<T>) {
        let error = self.refused(what, outcome);
        assert!(matches!(error, Error::NotFound(_)), "{}: {what}: {error:?}", self.manager.connector());
    }

    /// That this field is wrong.
    fn invalid<T: fmt::Debug>(&self, what: &str, field: &str, outcome: Result<T>) {
        let error = self.refused(what, outcome);
        let right = matches!(&error, Error::Invalid { field: named, .. } if named == field);
        assert!(right, "{}: {what}: {error:?} is not about {field}", self.manager.connector());
    }

    /// That no secret stands in it.
    fn assert_silent(&self, text: &str) {
        for secret in &*self.secrets.lock() {
            assert!(!text.contains(&**secret), "{}: a secret is told: {text}", self.manager.connector());
        }
    }

    /// What a new client is asked for with.
    fn application(&self) -> OAuthApplicationInfo {
        let mut application = self.world.application.clone();
        application.client_name = Some(named("shop"));
        application.app_owner = Some("ada".into());
        application.call_back_url = Some("https://shop.example/cb,https://shop.example/cb2".into());
        application.application_uuid = Some("6e1f4a80-0000-4000-8000-000000000001".into());
        let parameters = &mut application.parameters;
        parameters.entry("grant_types").or_insert_with(|| json!("client_credentials"));
        application
    }

    /// A new client, with its secret.
    async fn client(&self) -> (String, Sensitive) {
        let made = self.done("create a client", self.manager.create_application(&self.application()).await);
        let secret = self.keep(&made.client_secret.expect("a new client has a secret"));
        (made.client_id.expect("a new client has an id"), secret)
    }

    /// A client to ask for tokens with: a new one, or the one that is there.
    async fn some_client(&self) -> Option<(String, Sensitive)> {
        match &self.world.client {
            _ if self.can(&[Operation::CreateApplication]) => Some(self.client().await),
            Some((id, secret)) => Some((id.clone(), self.keep(&secret.as_str().into()))),
            None => None,
        }
    }

    /// Removes what was made, where that can be done.
    async fn away(&self, id: &str) {
        if self.can(&[Operation::CreateApplication, Operation::DeleteApplication]) {
            self.done("delete the client", self.manager.delete_application(id).await);
        }
    }

    /// Whether the provider issues the client a token for this secret.
    async fn proves(&self, id: &str, secret: &Sensitive) -> bool {
        match self.manager.new_access_token(&request(id, secret)).await {
            Ok(token) => {
                self.keep(&token.access_token.expect("a token that was issued"));
                true
            }
            Err(error) => {
                self.assert_silent(&format!("{error} {error:?}"));
                assert!(!error.may_pass(), "{}: a wrong secret: {error:?}", self.manager.connector());
                false
            }
        }
    }
}

/// Something stands against this field.
fn assert_clash(error: &Error, field: &str) {
    assert!(matches!(error, Error::Conflict(clash) if clash.field.as_deref() == Some(field)), "{error:?}");
}

/// A name that no other call gives, in this run or in another.
fn named(what: &str) -> String {
    format!("{what}-{}-{}", now(), unique())
}

/// Asks for a token of a client's own.
fn request(id: &str, secret: &Sensitive) -> AccessTokenRequest {
    AccessTokenRequest {
        client_id: Some(id.to_owned()),
        client_secret: Some(secret.clone()),
        ..AccessTokenRequest::default()
    }
}
