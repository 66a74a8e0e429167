//! Operations on clients, and which of the platform's applications they belong to.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Caller, ConsumerSecretInfo, ConsumerSecretRequest, Done, Engine, Error, Managed, OAuthApplicationInfo, Operation,
    Origin, Result, Sensitive, check,
    engine::{Asked, Effect},
    rows::{APPLICATIONS, Mapping, Mode, RowChange, declared_application, joined, taken_application, taken_client},
    told::{known, told},
    unmanaged::{left_at_provider, unasked},
};
use crate::store::KeyType;

/// A client that the provider has, and whose it is to be.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MapRequest {
    /// The consumer key.
    #[schema(value_type = super::Name)]
    pub client_id: String,
    /// Its secret, compared with the provider's; needless where that cannot be asked.
    #[serde(default)]
    #[schema(value_type = Option<super::SecretText>)]
    pub client_secret: Option<Sensitive>,
    /// The application of the platform that it is for.
    #[serde(rename = "applicationUUID", default)]
    #[schema(value_type = Option<super::Name>)]
    pub application_uuid: Option<String>,
    /// `PRODUCTION`, as without it, or `SANDBOX`.
    #[serde(default)]
    #[schema(value_type = Option<super::KeyType>)]
    pub key_type: Option<String>,
    /// Who owns it.
    #[serde(default)]
    #[schema(value_type = Option<super::Name>)]
    pub app_owner: Option<String>,
}

impl Engine {
    /// `createApplication`. The answer has the secret, this once.
    pub async fn create_application(
        &self,
        caller: &Caller,
        key_manager: &str,
        app: OAuthApplicationInfo,
    ) -> Result<Done<OAuthApplicationInfo>> {
        let named = app.client_id.as_deref().or(app.client_name.as_deref()).unwrap_or_default();
        let asked = Asked::new(caller, key_manager, Operation::CreateApplication, named).with(&app);
        let app = self.checked(key_manager, app);
        let free = app.as_ref().map_or(Ok(()), |app| self.require_free(key_manager, app, Mode::Created));
        let checked = app.as_ref().map(drop).map_err(Clone::clone).and(free);
        let app = app.unwrap_or_default();
        self.perform(asked, checked, |managed| async move {
            let mut made = managed.connector.create_application(&app).await?;
            let Some(consumer_key) = made.client_id.clone() else {
                return Err(Error::Answer("a client was made, and its id is not told".into()).unclear());
            };
            require_usable(&managed, &consumer_key).await?;
            self.require_new(key_manager, &consumer_key, &app)?;
            made.application_uuid = made.application_uuid.or_else(|| app.application_uuid.clone());
            made.app_owner = made.app_owner.or_else(|| app.app_owner.clone());
            let mapping = mapping_of(&managed, &consumer_key, &app, Mode::Created)?;
            let mut effect = Effect::of(made).row(map(&managed, mapping));
            effect.after = told(&effect.gave);
            effect.subject = Some(consumer_key.clone());
            effect.made = Some(consumer_key);
            Ok(effect)
        })
        .await
    }

    /// `updateApplication`. An owner that it names is the owner from then on.
    pub async fn update_application(
        &self,
        caller: &Caller,
        key_manager: &str,
        consumer_key: &str,
        app: OAuthApplicationInfo,
    ) -> Result<Done<OAuthApplicationInfo>> {
        let asked = Asked::new(caller, key_manager, Operation::UpdateApplication, consumer_key).with(&app);
        let app = self.checked(key_manager, app).and_then(|app| match &app.client_id {
            Some(id) if id != consumer_key => Err(Error::invalid("clientId", "is not the client of the path")),
            _ => Ok(app),
        });
        let mapping = self.mapping(key_manager, consumer_key)?;
        let checked = check::name("ck", consumer_key)
            .and_then(|()| app.as_ref().map_err(Clone::clone))
            .and_then(|app| keeps_owner(mapping.as_deref(), app));
        let app = app.unwrap_or_default();
        self.perform(asked, checked, |managed| async move {
            if let Some(secret) = &app.client_secret {
                require_secret(&managed, consumer_key, secret).await?;
            }
            let before = known(&managed, consumer_key).await?;
            let after = match managed.connector.update_application(consumer_key, &app).await {
                Ok(after) => after,
                Err(error) => {
                    return Err(unasked(&managed, mapping.as_deref(), Operation::UpdateApplication, error).await);
                }
            };
            let owner = app.app_owner.filter(|_| mapping.is_some());
            let gave = completed(after.clone(), mapping.as_deref(), owner.as_deref());
            let effect = Effect::of(gave).before(before).after(&after);
            Ok(match owner {
                Some(owner) => effect.row(owned(&managed, consumer_key, owner)),
                None => effect,
            })
        })
        .await
        .map(|done| done.map(without_secret))
    }

    /// `retrieveApplication`.
    pub async fn retrieve_application(&self, key_manager: &str, consumer_key: &str) -> Result<OAuthApplicationInfo> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::RetrieveApplication, consumer_key);
        let found = self
            .perform(asked, check::name("ck", consumer_key), |managed| async move {
                match managed.connector.retrieve_application(consumer_key).await {
                    Ok(found) => Ok(Effect::of(found)),
                    Err(error) => {
                        let mapping = self.mapping(key_manager, consumer_key)?;
                        Err(unasked(&managed, mapping.as_deref(), Operation::RetrieveApplication, error).await)
                    }
                }
            })
            .await?;
        let mapping = self.mapping(key_manager, consumer_key)?;
        Ok(completed(without_secret(found.did()?), mapping.as_deref(), None))
    }

    /// `deleteApplication`: its tokens are refused from now on. One that only its mapping knows of is deleted too.
    pub async fn delete_application(&self, caller: &Caller, key_manager: &str, consumer_key: &str) -> Result<Done<()>> {
        let asked = Asked::new(caller, key_manager, Operation::DeleteApplication, consumer_key);
        let mapping = self.mapping(key_manager, consumer_key)?;
        self.perform(asked, check::name("ck", consumer_key), |managed| async move {
            let mut before = known(&managed, consumer_key).await?;
            let unmanaged = match &mapping {
                Some(_) => managed.connector.unmanaged(consumer_key).await?,
                None => None,
            };
            let outcome = managed.connector.delete_application(consumer_key).await;
            let revoked = self.client_revoked(&managed, consumer_key);
            let outcome = self.refused_in_doubt(caller, &managed, consumer_key, &revoked, outcome).await;
            match (outcome, mapping) {
                // Its provider was not asked, since nothing is known here by which it could be.
                (Err(Error::NotFound(_)), Some(_)) if let Some(reason) = unmanaged => {
                    return Err(Error::Unsupported { operation: Operation::DeleteApplication, reason });
                }
                // It is gone there by another's hand: what is here of it goes too.
                (Err(Error::NotFound(_)), Some(mapping)) => before = json!(*mapping),
                (outcome, _) => outcome?,
            }
            let unmap = RowChange::Unmap { key_manager: managed.name().into(), consumer_key: consumer_key.into() };
            let mut effect = Effect::of(()).before(before).row(unmap);
            effect.revoked.push(revoked);
            Ok(effect)
        })
        .await
    }

    /// `updateApplicationOwner`.
    pub async fn update_application_owner(
        &self,
        caller: &Caller,
        key_manager: &str,
        consumer_key: &str,
        owner: &str,
    ) -> Result<Done<OAuthApplicationInfo>> {
        let asked = Asked::new(caller, key_manager, Operation::UpdateApplicationOwner, consumer_key)
            .with(&json!({ "owner": owner }));
        let checked = check::name("ck", consumer_key).and_then(|()| check::name("owner", owner));
        let mapping = self.mapping(key_manager, consumer_key)?;
        self.perform(asked, checked, |managed| async move {
            let before = match mapping.as_deref().and_then(|row| row.owner.clone()) {
                Some(owner) => json!(owner),
                None => known(&managed, consumer_key).await?.get("appOwner").cloned().unwrap_or_default(),
            };
            let mut after = match managed.connector.update_application_owner(consumer_key, owner).await {
                Ok(after) => after,
                Err(error) => {
                    match unasked(&managed, mapping.as_deref(), Operation::UpdateApplicationOwner, error).await {
                        // Its mapping is all that is known of it, and has an owner.
                        Error::Unsupported { .. } if mapping.is_some() => OAuthApplicationInfo {
                            client_id: Some(consumer_key.to_owned()),
                            ..OAuthApplicationInfo::default()
                        },
                        error => return Err(error),
                    }
                }
            };
            after.app_owner.get_or_insert_with(|| owner.to_owned());
            let after = completed(after, mapping.as_deref(), Some(owner));
            let row = owned(&managed, consumer_key, owner.into());
            let effect = Effect::of(without_secret(after)).before(json!({ "owner": before }));
            Ok(effect.after(&json!({ "owner": owner })).row(row))
        })
        .await
    }

    /// `mapOAuthApplication`: the provider looks after it, unless it cannot, or is not to be asked.
    pub async fn map_application(
        &self,
        caller: &Caller,
        key_manager: &str,
        request: MapRequest,
    ) -> Result<Done<OAuthApplicationInfo>> {
        let MapRequest { client_id, client_secret, application_uuid, key_type, app_owner } = request;
        let asked = Asked::new(caller, key_manager, Operation::MapOAuthApplication, &client_id)
            .with(&json!({ "clientId": client_id, "applicationUUID": application_uuid, "keyType": key_type }));
        let mut app = OAuthApplicationInfo {
            client_id: Some(client_id.clone()),
            application_uuid,
            app_owner,
            ..OAuthApplicationInfo::default()
        };
        let kind = check::key_type("keyType", key_type.as_deref());
        if let Some(key_type) = key_type {
            app.parameters.insert("key_type".into(), Value::String(key_type));
        }
        let checked = check::client_secret(client_secret.as_ref())
            .and_then(|()| kind.map(drop))
            .and_then(|()| mapped_id(&client_id))
            .and_then(|()| check::application(app.clone(), &[]).map(drop))
            .and_then(|()| self.require_free(key_manager, &app, Mode::Mapped));
        self.perform(asked, checked, |managed| async move {
            let found = adopted(&managed, &client_id, client_secret.as_ref()).await?;
            let mapping = mapping_of(&managed, &client_id, &app, Mode::Mapped)?;
            let mut found = without_secret(found);
            found.application_uuid = app.application_uuid.or(found.application_uuid);
            found.app_owner = app.app_owner.or(found.app_owner);
            Ok(Effect::of(found).after(&mapping).row(map(&managed, mapping)))
        })
        .await
    }

    /// `deleteMappedApplication`: the provider keeps the client. One that was created here is deleted instead, unless its
    /// provider cannot: then its tokens are refused from now on, as if it were.
    pub async fn delete_mapping(&self, caller: &Caller, key_manager: &str, consumer_key: &str) -> Result<Done<()>> {
        let asked = Asked::new(caller, key_manager, Operation::DeleteMappedApplication, consumer_key);
        let mapping = self.mapping(key_manager, consumer_key)?;
        let managed = self.registry.find(key_manager)?;
        let kept = match check::name("ck", consumer_key) {
            Ok(()) => left_at_provider(&managed, mapping.as_deref()).await,
            Err(error) => Err(error),
        };
        let checked = kept.as_ref().map(drop).map_err(Clone::clone);
        self.perform(asked, checked, |managed| async move {
            let unmap = RowChange::Unmap { key_manager: managed.name().into(), consumer_key: consumer_key.into() };
            let mut effect = Effect::of(()).before(json!(mapping.as_deref())).row(unmap);
            if let Some(why) = kept? {
                effect.detail = Some(format!("created here, and left at the provider: {why}"));
                effect.revoked.push(self.client_revoked(&managed, consumer_key));
            }
            managed.connector.delete_mapped_application(consumer_key).await?;
            Ok(effect)
        })
        .await
    }

    /// `getNewApplicationConsumerSecret`: tokens obtained with the secrets before are refused from now on.
    pub async fn new_secret(&self, caller: &Caller, key_manager: &str, consumer_key: &str) -> Result<Done<Sensitive>> {
        let asked = Asked::new(caller, key_manager, Operation::NewApplicationConsumerSecret, consumer_key);
        let done = self
            .perform(asked, check::name("ck", consumer_key), |managed| async move {
                let outcome = managed.connector.new_secret(consumer_key).await;
                let revoked = self.client_revoked(&managed, consumer_key);
                let secret = self.refused_in_doubt(caller, &managed, consumer_key, &revoked, outcome).await?;
                let mut effect = Effect::of(secret);
                effect.revoked.push(revoked);
                Ok(effect)
            })
            .await?;
        if matches!(done, Done::Did(_)) {
            self.next_second().await;
        }
        Ok(done)
    }

    /// `generateNewApplicationConsumerSecret`.
    pub async fn add_secret(
        &self,
        caller: &Caller,
        key_manager: &str,
        consumer_key: &str,
        request: ConsumerSecretRequest,
    ) -> Result<Done<ConsumerSecretInfo>> {
        let asked = Asked::new(caller, key_manager, Operation::GenerateConsumerSecret, consumer_key).with(&request);
        let checked = check::name("ck", consumer_key).and_then(|()| check::secret_request(&request));
        self.perform(asked, checked, |managed| async move {
            let made = managed.connector.add_secret(consumer_key, &request).await?;
            Ok(Effect::of(made.clone()).after(&made))
        })
        .await
    }

    /// `retrieveApplicationConsumerSecrets`.
    pub async fn secrets(&self, key_manager: &str, consumer_key: &str) -> Result<Vec<ConsumerSecretInfo>> {
        let asked = Asked::new(&Caller::default(), key_manager, Operation::RetrieveConsumerSecrets, consumer_key);
        self.perform(asked, check::name("ck", consumer_key), |managed| async move {
            managed.connector.secrets(consumer_key).await.map(Effect::of)
        })
        .await?
        .did()
    }

    /// `deleteApplicationConsumerSecret`.
    pub async fn delete_secret(
        &self,
        caller: &Caller,
        key_manager: &str,
        consumer_key: &str,
        secret_id: &str,
    ) -> Result<Done<()>> {
        let asked = Asked::new(caller, key_manager, Operation::DeleteConsumerSecret, consumer_key)
            .with(&json!({ "secretId": secret_id }));
        let checked = check::name("ck", consumer_key).and_then(|()| check::name("id", secret_id));
        self.perform(asked, checked, |managed| async move {
            managed.connector.delete_secret(consumer_key, secret_id).await?;
            Ok(Effect::of(()).before(json!({ "secretId": secret_id })))
        })
        .await
    }

    fn checked(&self, key_manager: &str, app: OAuthApplicationInfo) -> Result<OAuthApplicationInfo> {
        let managed = self.registry.find(key_manager)?;
        check::application(app, managed.connector.required_fields())
    }

    /// Refuses a client, or an application and key type, that is mapped. Asked again when the row is written.
    fn require_free(&self, key_manager: &str, app: &OAuthApplicationInfo, mode: Mode) -> Result<()> {
        if let Some(id) = &app.client_id
            && self.mapping(key_manager, id)?.is_some()
        {
            return Err(taken_client());
        }
        self.require_undeclared(key_manager, app, mode)?;
        let (Some(record), Some(uuid)) = (self.store(), &app.application_uuid) else { return Ok(()) };
        let key = joined(&[uuid, key_manager, &key_type_of(app)?]);
        match record.get(&APPLICATIONS, &key).map_err(super::engine::unkept)? {
            Some(_) => Err(taken_application()),
            None => Ok(()),
        }
    }

    /// Refuses a client that was given, and is another application's: RFC 7591 section 3 lets a server give an id again.
    fn require_new(&self, key_manager: &str, client: &str, app: &OAuthApplicationInfo) -> Result<()> {
        let given = OAuthApplicationInfo { client_id: Some(client.to_owned()), ..app.clone() };
        match self.require_free(key_manager, &given, Mode::Created) {
            Err(error) if error.is_about("clientId") => Err(error.given_twice(client)),
            // What stands against it otherwise is told when it is kept, and it is taken back.
            _ => Ok(()),
        }
    }

    /// Refuses what the configuration has: a client that is an application's there, and one more for an application. A client
    /// that the file awaits for its application may be made, once.
    fn require_undeclared(&self, key_manager: &str, app: &OAuthApplicationInfo, mode: Mode) -> Result<()> {
        let Some(tables) = self.tables.as_ref().map(|tables| tables.load()) else { return Ok(()) };
        let key_type = match key_type_of(app)?.as_str() {
            "SANDBOX" => KeyType::Sandbox,
            _ => KeyType::Production,
        };
        let application = app.application_uuid.as_deref();
        if let Some(key) = app.client_id.as_deref().and_then(|id| tables.consumer_key(key_manager, id)) {
            let name = tables.applications.get(key.application as usize).map_or("", |it| &*it.name);
            let same_type = app.parameter("key_type").is_none() || key.key_type == key_type;
            if mode == Mode::Created && same_type && application.is_none_or(|it| it == name) {
                return Ok(());
            }
            return Err(Error::conflict("clientId", format!("declared in the file, as a key of {name}")));
        }
        match application.is_some_and(|it| tables.has_key(it, key_manager, key_type)) {
            true => Err(declared_application()),
            false => Ok(()),
        }
    }
}

/// Refuses a client that no path could name afterwards, and takes it back. What no path can hold at all its provider
/// cannot be asked to remove either.
async fn require_usable(managed: &Managed, client: &str) -> Result<()> {
    let nameable = check::name("clientId", client);
    let Err(why) = nameable.clone().and_then(|()| check::new_id("clientId", client, &check::NO_CLIENTS)) else {
        return Ok(());
    };
    let error = Error::Answer(format!("a client was made under an id of no use: {why}"));
    let left = format!("the client {client:?}");
    if nameable.is_err() || check::DOTS.contains(&client) {
        return Err(Error::HalfDone { what: error.to_string(), left });
    }
    let undone = match managed.require(Operation::DeleteApplication) {
        Ok(()) => managed.connector.delete_application(client).await,
        Err(error) => Err(error),
    };
    Err(error.undone(undone, left))
}

fn key_type_of(app: &OAuthApplicationInfo) -> Result<String> {
    check::key_type("parameters.key_type", app.parameter("key_type"))
}

/// Whose client it is stays as it is: by that it is found, and told from others of the application.
fn keeps_owner(mapping: Option<&Mapping>, app: &OAuthApplicationInfo) -> Result<()> {
    let Some(mapping) = mapping else { return Ok(()) };
    if app.application_uuid.is_some() && app.application_uuid != mapping.application_uuid {
        return Err(Error::conflict("applicationUUID", "an update gives a client to no other application"));
    }
    match app.parameter("key_type") {
        Some(kind) if kind != mapping.key_type => {
            Err(Error::conflict("parameters.key_type", "an update leaves it as it was made or mapped"))
        }
        _ => Ok(()),
    }
}

/// A change leaves secrets alone. One that comes along must be the client's, so that nobody takes it for set.
async fn require_secret(managed: &Managed, consumer_key: &str, secret: &Sensitive) -> Result<()> {
    let wrong = |why: &'static str| Error::invalid("clientSecret", why);
    if managed.connector.cannot(Operation::MapOAuthApplication).is_some() {
        return Err(wrong("must be left out: a change leaves it alone"));
    }
    match managed.connector.map_application(consumer_key, Some(secret)).await {
        Err(Error::Invalid { field, .. }) if field == "clientSecret" => {
            Err(wrong("must be a present one, or be left out: a change leaves it alone"))
        }
        outcome => outcome.map(drop).map_err(Error::of_reading),
    }
}

/// What the provider does not tell of it and the mapping does; `owner`: whose it has become since.
fn completed(app: OAuthApplicationInfo, mapping: Option<&Mapping>, owner: Option<&str>) -> OAuthApplicationInfo {
    let Some(mapping) = mapping else { return app };
    OAuthApplicationInfo {
        application_uuid: mapping.application_uuid.clone().or(app.application_uuid),
        app_owner: owner.or(mapping.owner.as_deref()).map(str::to_owned).or(app.app_owner),
        ..app
    }
}

/// WSO2 has a code of its own for an id that is not there.
fn mapped_id(client_id: &str) -> Result<()> {
    match client_id {
        "" => Err(Error::invalid("clientId", "must not be empty").coded("901414")),
        id => check::name("clientId", id),
    }
}

/// The client as the provider has it, by what can be asked of it.
async fn adopted(managed: &Managed, client_id: &str, secret: Option<&Sensitive>) -> Result<OAuthApplicationInfo> {
    if managed.settings.validate_mapped {
        match managed.connector.cannot(Operation::MapOAuthApplication) {
            None => {
                let found = managed.connector.map_application(client_id, secret).await.map_err(Error::of_reading)?;
                let method = found.parameter("token_endpoint_auth_method");
                // Whoever leaves the secret out has proven nothing; only a client that has none cannot.
                if secret.is_none() && method.is_none_or(|method| method.starts_with("client_secret")) {
                    return Err(Error::invalid(
                        "clientSecret",
                        "is needed: it is compared with the provider's, unless validate_mapped = false is set",
                    ));
                }
                return Ok(found);
            }
            Some(_) if secret.is_some() => {
                return Err(Error::invalid(
                    "clientSecret",
                    "cannot be compared by this key manager: leave it out, or set validate_mapped = false",
                ));
            }
            Some(_) => {}
        }
    }
    Ok(OAuthApplicationInfo { client_id: Some(client_id.to_owned()), ..OAuthApplicationInfo::default() })
}

fn mapping_of(managed: &Managed, consumer_key: &str, app: &OAuthApplicationInfo, mode: Mode) -> Result<Mapping> {
    Ok(Mapping {
        key_mapping_id: super::tokens::random_id()?,
        key_manager: managed.name().to_owned(),
        consumer_key: consumer_key.to_owned(),
        application_uuid: app.application_uuid.clone(),
        owner: app.app_owner.clone(),
        key_type: key_type_of(app)?,
        mode,
    })
}

fn owned(managed: &Managed, consumer_key: &str, owner: String) -> RowChange {
    RowChange::Owner { key_manager: managed.name().into(), consumer_key: consumer_key.into(), owner }
}

/// Its row, for as long as the key manager stands.
fn map(managed: &Managed, mapping: Mapping) -> RowChange {
    let stored = (managed.origin == Origin::Stored).then(|| managed.settings.issuer.clone());
    RowChange::Map { mapping, stored }
}

/// Shown once, when it is made.
fn without_secret(app: OAuthApplicationInfo) -> OAuthApplicationInfo {
    OAuthApplicationInfo { client_secret: None, ..app }
}
