//! `getNewApplicationAccessToken`: a token for a client, by its own secret or by our rights; and, where that is asked
//! for, the end of one that it had before.
//!
//! A token that is to go is known to be the client's before anything is done, and is revoked by the connector once the
//! client has proved itself. From then on no door takes it, whether or not another is issued.

use serde_json::json;

use super::{
    AccessTokenInfo, AccessTokenRequest, Caller, Done, Engine, Error, Managed, Operation, Result, Sensitive, check,
    dry::foresee_token,
    engine::{Asked, Effect},
    halting::is_tried,
    tokens::{claims, told_token},
};

impl Engine {
    /// `getNewApplicationAccessToken`. Without the client's secret it is issued by our own rights at the provider, which
    /// whoever calls has to judge; for our own client there it is not.
    pub async fn new_access_token(
        &self,
        caller: &Caller,
        key_manager: &str,
        consumer_key: &str,
        request: AccessTokenRequest,
    ) -> Result<Done<AccessTokenInfo>> {
        let asked = Asked::new(caller, key_manager, Operation::NewApplicationAccessToken, consumer_key).with(&request);
        let request = self.checked_request(key_manager, consumer_key, request).await;
        let checked = request.as_ref().map(drop).map_err(Clone::clone);
        let request = request.unwrap_or_default();
        self.perform(asked, checked, |managed| async move {
            let mut revoked = None;
            if let Some(token) = &request.token_to_revoke {
                require_issued_to(&managed, "tokenToRevoke", token, consumer_key).await?;
                revoked = Some((token, self.token_revoked(&managed, token)?));
            }
            if is_tried() {
                foresee_token(&managed, consumer_key, &request).await?;
            }
            let mut token = match managed.connector.new_access_token(&request).await {
                Ok(token) => token,
                Err(error) => {
                    // A token that nobody has got ends by itself: it is nothing to look after.
                    let Some((token, row)) = revoked else { return Err(error.settled()) };
                    return self.refused_in_doubt(caller, &managed, &told_token(token), &row, Err(error)).await;
                }
            };
            token.key_manager = Some(managed.name().to_owned());
            let mut effect = Effect::of(token);
            effect.after = json!({ "scope": effect.gave.scope, "validityPeriod": effect.gave.validity_period });
            if let Some((token, row)) = revoked {
                effect.after["revoked"] = told_token(token).into();
                effect.revoked.push(row);
            }
            Ok(effect)
        })
        .await
    }

    async fn checked_request(
        &self,
        key_manager: &str,
        consumer_key: &str,
        request: AccessTokenRequest,
    ) -> Result<AccessTokenRequest> {
        check::name("ck", consumer_key)?;
        let request = check::token_request(request, consumer_key)?;
        if request.client_secret.is_none() {
            self.refuse_ourselves(key_manager, consumer_key)?;
        }
        if let Some(token) = &request.token_to_revoke {
            self.require_own(key_manager, Operation::RevokeToken, "tokenToRevoke", token).await?;
        }
        Ok(request)
    }

    /// Whom we are at a provider, nobody is by asking us. Some providers tell no upper case from lower in ids.
    pub(super) fn refuse_ourselves(&self, key_manager: &str, consumer_key: &str) -> Result<()> {
        let issuer = &self.registry.find(key_manager)?.settings.issuer;
        let is_ours = self.registry.all().iter().any(|managed| {
            let own = managed.settings.client_id.as_ref();
            managed.settings.issuer == *issuer && own.is_some_and(|own| own.eq_ignore_ascii_case(consumer_key))
        });
        if is_ours { Err(Error::Conflict(OURSELVES.into())) } else { Ok(()) }
    }
}

/// A token of another client is not this one's to revoke, of the key manager's own as it is. A JWT says itself whose it is: one that lies is none that any
/// door takes. Of others the provider tells; where it does not, it has to see to that when it revokes as the client.
pub(super) async fn require_issued_to(
    managed: &Managed,
    field: &'static str,
    token: &Sensitive,
    consumer_key: &str,
) -> Result<()> {
    let owner = match claims(token.reveal()) {
        Some(claims) => {
            let names = managed.settings.consumer_key_claim.as_slice().iter();
            names.filter_map(|name| claims.get(name)?.as_str()).next().map(str::to_owned)
        }
        None => None,
    };
    let owner = match owner {
        None if managed.connector.cannot(Operation::TokenMetaData).is_none() => {
            let said = managed.connector.token_meta_data(token).await.map_err(Error::of_reading)?;
            said.consumer_key.filter(|_| said.is_token_valid)
        }
        known => known,
    };
    match owner {
        Some(owner) if owner != consumer_key => {
            let why = match field {
                "consumerKey" => "is not the client that the token was issued to",
                _ => "was issued to another client",
            };
            Err(Error::invalid(field, why))
        }
        _ => Ok(()),
    }
}

const OURSELVES: &str =
    "clientId: is the client that a key manager is at this provider: its tokens are issued for its secret alone";
