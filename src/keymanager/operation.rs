//! The operations of a Key Manager, by WSO2's names.

use serde::{Serialize, Serializer};

macro_rules! operations {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// An operation of WSO2's Key Manager interface. Those that only read or write what Tollgate itself keeps are no
        /// methods of [`KeyManager`](super::KeyManager): every connector has them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Operation {
            /// All of them, in the order of README's table.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// WSO2's name: `createApplication`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

operations! {
    /// Registers a client.
    CreateApplication = "createApplication",
    /// Changes a client.
    UpdateApplication = "updateApplication",
    /// Reads a client.
    RetrieveApplication = "retrieveApplication",
    /// Removes a client.
    DeleteApplication = "deleteApplication",
    /// Gives a client another owner.
    UpdateApplicationOwner = "updateApplicationOwner",
    /// Adopts a client that the provider has.
    MapOAuthApplication = "mapOAuthApplication",
    /// Lets an adopted client go; the provider keeps it.
    DeleteMappedApplication = "deleteMappedApplication",
    /// Obtains a token for a client.
    NewApplicationAccessToken = "getNewApplicationAccessToken",
    /// Asks about a token.
    TokenMetaData = "getTokenMetaData",
    /// A token of a client, to be shown.
    AccessTokenByConsumerKey = "getAccessTokenByConsumerKey",
    /// The live tokens of a client.
    ActiveTokensByConsumerKey = "getActiveTokensByConsumerKey",
    /// Replaces a client's secret.
    NewApplicationConsumerSecret = "getNewApplicationConsumerSecret",
    /// Gives a client one more secret.
    GenerateConsumerSecret = "generateNewApplicationConsumerSecret",
    /// Lists a client's secrets.
    RetrieveConsumerSecrets = "retrieveApplicationConsumerSecrets",
    /// Drops one of a client's secrets.
    DeleteConsumerSecret = "deleteApplicationConsumerSecret",
    /// Revokes a token (RFC 7009).
    RevokeToken = "revokeToken",
    /// Revokes a token after its first use.
    RevokeOneTimeToken = "revokeOneTimeToken",
    /// What a key manager is configured with.
    KeyManagerConfiguration = "getKeyManagerConfiguration",
    /// Configures a key manager.
    LoadConfiguration = "loadConfiguration",
    /// Reads a client from JSON.
    BuildFromJson = "buildFromJSON",
    /// Reads a token request from JSON.
    BuildAccessTokenRequestFromJson = "buildAccessTokenRequestFromJSON",
    /// Derives a token request from a client.
    BuildAccessTokenRequestFromOAuthApp = "buildAccessTokenRequestFromOAuthApp",
    /// Registers the resources of an API.
    RegisterNewResource = "registerNewResource",
    /// Reads the resources of an API.
    ResourceByApiId = "getResourceByApiId",
    /// Changes the resources of an API.
    UpdateRegisteredResource = "updateRegisteredResource",
    /// Removes the resources of an API.
    DeleteRegisteredResourceByApiId = "deleteRegisteredResourceByAPIId",
    /// Makes a scope.
    RegisterScope = "registerScope",
    /// Reads a scope.
    ScopeByName = "getScopeByName",
    /// Lists the scopes.
    AllScopes = "getAllScopes",
    /// Whether there is a scope.
    IsScopeExists = "isScopeExists",
    /// Changes a scope.
    UpdateScope = "updateScope",
    /// Removes a scope.
    DeleteScope = "deleteScope",
    /// Checks scopes and fills them in.
    ValidateScopes = "validateScopes",
    /// Binds scopes to the resources of an API.
    AttachResourceScopes = "attachResourceScopes",
    /// Binds other scopes to them.
    UpdateResourceScopes = "updateResourceScopes",
    /// Unbinds scopes from them.
    DetachResourceScopes = "detachResourceScopes",
    /// The scopes of some APIs.
    ScopesForApis = "getScopesForAPIS",
    /// What is said of a user.
    UserClaims = "getUserClaims",
    /// Whether a token is this key manager's.
    CanHandleToken = "canHandleToken",
    /// The connector's name.
    Type = "getType",
    /// Without meaning here: one organization a process.
    SetTenantDomain = "setTenantDomain",
}

impl Operation {
    /// Whether it is about the resources of APIs, and what is bound to them.
    pub const fn is_about_resources(self) -> bool {
        matches!(
            self,
            Self::RegisterNewResource
                | Self::ResourceByApiId
                | Self::UpdateRegisteredResource
                | Self::DeleteRegisteredResourceByApiId
                | Self::AttachResourceScopes
                | Self::UpdateResourceScopes
                | Self::DetachResourceScopes
                | Self::ScopesForApis
        )
    }

    /// Whether it is about scopes by themselves.
    pub const fn is_about_scopes(self) -> bool {
        matches!(
            self,
            Self::RegisterScope
                | Self::ScopeByName
                | Self::AllScopes
                | Self::IsScopeExists
                | Self::UpdateScope
                | Self::DeleteScope
                | Self::ValidateScopes
        )
    }

    /// Whether the provider has a part in it; the others are done here alone.
    pub const fn is_providers(self) -> bool {
        !matches!(
            self,
            Self::DeleteMappedApplication
                | Self::KeyManagerConfiguration
                | Self::LoadConfiguration
                | Self::BuildFromJson
                | Self::BuildAccessTokenRequestFromJson
                | Self::BuildAccessTokenRequestFromOAuthApp
                | Self::CanHandleToken
                | Self::Type
                | Self::SetTenantDomain
        )
    }

    /// Whether it changes what the provider has.
    pub const fn writes(self) -> bool {
        matches!(
            self,
            Self::CreateApplication
                | Self::UpdateApplication
                | Self::DeleteApplication
                | Self::UpdateApplicationOwner
                | Self::NewApplicationAccessToken
                | Self::NewApplicationConsumerSecret
                | Self::GenerateConsumerSecret
                | Self::DeleteConsumerSecret
                | Self::RevokeToken
                | Self::RevokeOneTimeToken
                | Self::RegisterNewResource
                | Self::UpdateRegisteredResource
                | Self::DeleteRegisteredResourceByApiId
                | Self::RegisterScope
                | Self::UpdateScope
                | Self::DeleteScope
                | Self::AttachResourceScopes
                | Self::UpdateResourceScopes
                | Self::DetachResourceScopes
        )
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}
