//! `km scope …`, `km resource …`, and both at every key manager at once: `km everywhere …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Error, Part,
    call::{Body, Call, Inputs},
    text::text,
};

/// Scopes.
#[derive(Debug, Subcommand)]
pub(super) enum ScopeCommand {
    /// Make a scope.
    Register {
        #[command(flatten)]
        which: ScopeAt,
        #[command(flatten)]
        scope: ScopeBody,
    },
    /// Read a scope.
    Get(ScopeAt),
    /// List the scopes; with --api those of some APIs, by API.
    List {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        /// An API's id; may be given several times.
        #[arg(long = "api", value_name = "ID", value_parser = text::<String>, allow_hyphen_values = true)]
        apis: Vec<String>,
        #[command(flatten)]
        part: Part,
    },
    /// Tell whether there is a scope: exit 0 if there is, 1 if not.
    Exists(ScopeAt),
    /// Change a scope. What no flag names stays; --from gives the whole of it.
    Update {
        #[command(flatten)]
        which: ScopeAt,
        #[command(flatten)]
        scope: ScopeBody,
    },
    /// Remove a scope.
    Delete(ScopeAt),
    /// Look scopes up; every one must be there.
    Validate {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        /// The scopes' keys.
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
}

/// Which scope, and where.
#[derive(Debug, Args)]
pub(super) struct ScopeAt {
    /// The key manager.
    #[arg(value_name = "NAME")]
    km: String,
    /// The scope as it stands in tokens.
    #[arg(value_name = "KEY")]
    scope: String,
}

impl ScopeAt {
    fn call(self, operation: &'static str) -> Call {
        Call::new(operation, [self.km, self.scope])
    }
}

/// What is said of a scope.
#[derive(Debug, Args)]
pub(super) struct ScopeBody {
    /// As people read it.
    #[arg(long, value_name = "TEXT", value_parser = text::<String>, allow_hyphen_values = true)]
    display_name: Option<String>,
    /// Role whose users may have it; may be given several times.
    #[arg(long = "role", value_name = "NAME", value_parser = text::<String>, allow_hyphen_values = true)]
    roles: Vec<String>,
    /// What it allows.
    #[arg(long, value_name = "TEXT", value_parser = text::<String>, allow_hyphen_values = true)]
    description: Option<String>,
    /// The body as JSON, in which flags replace; - reads standard input.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl ScopeBody {
    fn body(self, inputs: &Inputs, key: &str) -> Result<Body, Error> {
        let body = Body::begin(inputs, self.from.as_deref())?
            .put("key", Some(key))
            .put("name", self.display_name)
            .put("roles", (!self.roles.is_empty()).then(|| self.roles.join(",")))
            .put("description", self.description);
        Ok(body)
    }
}

impl ScopeCommand {
    pub(super) fn call(self, inputs: &Inputs) -> Result<Call, Error> {
        Ok(match self {
            Self::Register { which: ScopeAt { km, scope: key }, scope } => {
                Call::new("registerScope", [km]).with(scope.body(inputs, &key)?)
            }
            Self::Get(which) => which.call("getScopeByName"),
            Self::List { km, apis, part } => {
                let call = part.on(Call::new("getAllScopes", [km]));
                call.ask("api", (!apis.is_empty()).then(|| apis.join(",")))
            }
            Self::Exists(which) => which.call("isScopeExists"),
            Self::Update { which, scope } => {
                let keeps = scope.from.is_none().then_some("getScopeByName");
                let body = scope.body(inputs, &which.scope)?;
                Call { keeps, ..which.call("updateScope").with(body) }
            }
            Self::Delete(which) => which.call("deleteScope"),
            Self::Validate { km, keys } => {
                let scopes: Vec<_> = keys.into_iter().map(|key| serde_json::json!({ "key": key })).collect();
                Call::new("validateScopes", [km]).with(Body::default().put("scopes", Some(scopes)))
            }
        })
    }
}

/// Resources of APIs.
#[derive(Debug, Subcommand)]
pub(super) enum ResourceCommand {
    /// Register an API's resources.
    Register {
        #[command(flatten)]
        which: ResourceAt,
        #[command(flatten)]
        resource: ResourceBody,
    },
    /// Read an API's resources.
    Get(ResourceAt),
    /// Change an API's resources. What no flag names stays; --from gives the whole of it.
    Update {
        #[command(flatten)]
        which: ResourceAt,
        #[command(flatten)]
        resource: ResourceBody,
    },
    /// Remove an API's resources.
    Delete(ResourceAt),
    /// Bind scopes to an API's resources, beside those they have.
    AttachScopes {
        #[command(flatten)]
        which: ResourceAt,
        /// The scopes' keys.
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
    /// Bind these scopes to an API's resources, and no others.
    ReplaceScopes {
        #[command(flatten)]
        which: ResourceAt,
        /// The scopes' keys; without one, none is bound.
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Unbind scopes from an API's resources. All of them: `replace-scopes` without a key.
    DetachScopes {
        #[command(flatten)]
        which: ResourceAt,
        /// The scopes' keys.
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
}

/// Which API, and where.
#[derive(Debug, Args)]
pub(super) struct ResourceAt {
    /// The key manager.
    #[arg(value_name = "NAME")]
    km: String,
    /// The API's id on the platform.
    #[arg(value_name = "API")]
    api: String,
}

impl ResourceAt {
    fn call(self, operation: &'static str) -> Call {
        Call::new(operation, [self.km, self.api])
    }
}

/// What is said of an API's resources.
#[derive(Debug, Args)]
pub(super) struct ResourceBody {
    /// As people read it.
    #[arg(long, value_name = "TEXT", value_parser = text::<String>, allow_hyphen_values = true)]
    display_name: Option<String>,
    /// Where it is; may be given several times.
    #[arg(long = "uri", value_name = "URI")]
    uris: Vec<String>,
    /// Scope bound to it; may be given several times.
    #[arg(long = "scope", value_name = "KEY", value_parser = text::<String>, allow_hyphen_values = true)]
    scopes: Vec<String>,
    /// The body as JSON, in which flags replace; - reads standard input.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl ResourceBody {
    fn body(self, inputs: &Inputs, api: &str) -> Result<Body, Error> {
        let body = Body::begin(inputs, self.from.as_deref())?
            .put("apiId", Some(api))
            .put("name", self.display_name)
            .list("uris", self.uris)
            .list("scopes", self.scopes);
        Ok(body)
    }
}

impl ResourceCommand {
    pub(super) fn call(self, inputs: &Inputs) -> Result<Call, Error> {
        Ok(match self {
            Self::Register { which: ResourceAt { km, api }, resource } => {
                Call::new("registerNewResource", [km]).with(resource.body(inputs, &api)?)
            }
            Self::Get(which) => which.call("getResourceByApiId"),
            Self::Update { which, resource } => {
                let keeps = resource.from.is_none().then_some("getResourceByApiId");
                let body = resource.body(inputs, &which.api)?;
                Call { keeps, ..which.call("updateRegisteredResource").with(body) }
            }
            Self::Delete(which) => which.call("deleteRegisteredResourceByAPIId"),
            Self::AttachScopes { which, keys } => which.call("attachResourceScopes").with(bound(keys)),
            Self::ReplaceScopes { which, keys } => which.call("updateResourceScopes").with(bound(keys)),
            Self::DetachScopes { which, keys } => which.call("detachResourceScopes").with(bound(keys)),
        })
    }
}

/// The same at every key manager; each outcome is told.
#[derive(Debug, Subcommand)]
pub(super) enum EverywhereCommand {
    /// Make a scope.
    RegisterScope {
        key: String,
        #[command(flatten)]
        scope: ScopeBody,
    },
    /// List the scopes.
    ListScopes(Part),
    /// Read a scope.
    GetScope { key: String },
    /// Replace a scope by what is given, and drop the rest: at each it may be another.
    UpdateScope {
        key: String,
        #[command(flatten)]
        scope: ScopeBody,
    },
    /// Remove a scope.
    DeleteScope { key: String },
    /// Register an API's resources.
    RegisterResource {
        api: String,
        #[command(flatten)]
        resource: ResourceBody,
    },
    /// Read an API's resources.
    GetResource { api: String },
    /// Replace an API's resources by what is given, and drop the rest: at each they may be others.
    UpdateResource {
        api: String,
        #[command(flatten)]
        resource: ResourceBody,
    },
    /// Remove an API's resources.
    DeleteResource { api: String },
    /// Bind scopes to an API's resources, beside those they have.
    AttachScopes {
        api: String,
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
    /// Bind these scopes to an API's resources, and no others.
    ReplaceScopes {
        api: String,
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
    },
    /// Unbind scopes from an API's resources. All of them: `replace-scopes` without a key.
    DetachScopes {
        api: String,
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
    },
}

impl EverywhereCommand {
    pub(super) fn call(self, inputs: &Inputs) -> Result<Call, Error> {
        Ok(match self {
            Self::RegisterScope { key, scope } => {
                Call::new("registerScopeEverywhere", []).with(scope.body(inputs, &key)?)
            }
            Self::ListScopes(part) => part.on(Call::new("getAllScopesEverywhere", [])),
            Self::GetScope { key } => Call::new("getScopeByNameEverywhere", [key]),
            Self::UpdateScope { key, scope } => {
                let body = scope.body(inputs, &key)?;
                Call::new("updateScopeEverywhere", [key]).with(body)
            }
            Self::DeleteScope { key } => Call::new("deleteScopeEverywhere", [key]),
            Self::RegisterResource { api, resource } => {
                Call::new("registerNewResourceEverywhere", []).with(resource.body(inputs, &api)?)
            }
            Self::GetResource { api } => Call::new("getResourceByApiIdEverywhere", [api]),
            Self::UpdateResource { api, resource } => {
                let body = resource.body(inputs, &api)?;
                Call::new("updateRegisteredResourceEverywhere", [api]).with(body)
            }
            Self::DeleteResource { api } => Call::new("deleteRegisteredResourceByAPIIdEverywhere", [api]),
            Self::AttachScopes { api, keys } => Call::new("attachResourceScopesEverywhere", [api]).with(bound(keys)),
            Self::ReplaceScopes { api, keys } => Call::new("updateResourceScopesEverywhere", [api]).with(bound(keys)),
            Self::DetachScopes { api, keys } => Call::new("detachResourceScopesEverywhere", [api]).with(bound(keys)),
        })
    }
}

fn bound(keys: Vec<String>) -> Body {
    Body::default().put("scopes", Some(keys))
}
