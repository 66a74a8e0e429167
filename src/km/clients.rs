//! `km client …` and `km secret …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Error, Part,
    call::{Body, Call, Inputs},
    text::text,
};

/// Clients.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Register a client; prints its secret, this once.
    Create {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        /// Consumer key wished for.
        #[arg(long, value_name = "KEY", value_parser = text::<String>, allow_hyphen_values = true)]
        id: Option<String>,
        /// File of the secret wished for; - reads standard input.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        #[command(flatten)]
        client: ClientBody,
    },
    /// Read a client.
    Get(Client),
    /// Change a client: what is given takes the place of what was there.
    Update {
        #[command(flatten)]
        which: Client,
        #[command(flatten)]
        client: ClientBody,
    },
    /// Remove a client; its tokens are refused at once.
    Delete(Client),
    /// Give a client another owner.
    Owner {
        #[command(flatten)]
        which: Client,
        /// Who owns it from now on.
        owner: String,
    },
    /// Adopt a client that the provider has.
    Map {
        #[command(flatten)]
        which: Client,
        /// File of its secret; - reads standard input.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Id of the platform's application that it is for.
        #[arg(long, value_name = "ID", value_parser = text::<String>, allow_hyphen_values = true)]
        application: Option<String>,
        /// PRODUCTION, as without it, or SANDBOX.
        #[arg(long, value_name = "TYPE")]
        key_type: Option<String>,
        /// Who owns it.
        #[arg(long, value_parser = text::<String>, allow_hyphen_values = true)]
        owner: Option<String>,
    },
    /// Let an adopted client go; the provider keeps it.
    Unmap(Client),
    /// Read a client from WSO2's loose JSON; changes nothing.
    Parse {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        /// The JSON; - reads standard input.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
}

/// Which client.
#[derive(Debug, Args)]
pub(super) struct Client {
    /// The key manager.
    #[arg(value_name = "NAME")]
    pub(super) km: String,
    /// Its consumer key.
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    pub(super) ck: String,
}

impl Client {
    pub(super) fn call(self, operation: &'static str) -> Call {
        Call::new(operation, [self.km, self.ck])
    }
}

/// What is said of a client.
#[derive(Debug, Args)]
pub(super) struct ClientBody {
    /// Name, shown on consent pages.
    #[arg(long = "name", value_name = "TEXT", value_parser = text::<String>, allow_hyphen_values = true)]
    name: Option<String>,
    /// Redirect URI; may be given several times.
    #[arg(long = "callback", value_name = "URI")]
    callbacks: Vec<String>,
    /// Grant type; may be given several times.
    #[arg(long = "grant-type", value_name = "TYPE")]
    grant_types: Vec<String>,
    /// Scope that it may ask for; may be given several times.
    #[arg(long = "scope", value_name = "KEY", value_parser = text::<String>, allow_hyphen_values = true)]
    scopes: Vec<String>,
    /// Who owns it.
    #[arg(long, value_parser = text::<String>, allow_hyphen_values = true)]
    owner: Option<String>,
    /// Id of the platform's application that it is for.
    #[arg(long, value_name = "ID", value_parser = text::<String>, allow_hyphen_values = true)]
    application: Option<String>,
    /// JWT, DEFAULT or OAUTH.
    #[arg(long, value_name = "TYPE")]
    token_type: Option<String>,
    /// Further member of `parameters`, a text; may be given several times.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = text::<String>, allow_hyphen_values = true)]
    parameters: Vec<String>,
    /// The body as JSON, in which flags replace; - reads standard input.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl ClientBody {
    fn body(self, inputs: &Inputs) -> Result<Body, Error> {
        let joined = |items: Vec<String>, by| (!items.is_empty()).then(|| items.join(by));
        Body::begin(inputs, self.from.as_deref())?
            .put("clientName", self.name)
            .put("callBackURL", joined(self.callbacks, ","))
            .put("appOwner", self.owner)
            .put("applicationUUID", self.application)
            .put("tokenType", self.token_type)
            .put_in("parameters", "grant_types", joined(self.grant_types, ","))?
            .put_in("parameters", "scope", joined(self.scopes, " "))?
            .pairs_in("parameters", "--parameter", &self.parameters)
    }
}

impl ClientCommand {
    pub(super) fn call(self, inputs: &Inputs) -> Result<Call, Error> {
        Ok(match self {
            Self::Create { km, id, secret_file, client } => {
                let body = client.body(inputs)?.put("clientId", id);
                let body = body.secret("clientSecret", inputs, secret_file.as_deref())?;
                Call::new("createApplication", [km]).with(body)
            }
            Self::Get(which) => which.call("retrieveApplication"),
            Self::Update { which, client } => which.call("updateApplication").with(client.body(inputs)?),
            Self::Delete(which) => which.call("deleteApplication"),
            Self::Owner { which, owner } => {
                which.call("updateApplicationOwner").with(Body::default().put("owner", Some(owner)))
            }
            Self::Map { which, secret_file, application, key_type, owner } => {
                let body = Body::default()
                    .put("clientId", Some(which.ck))
                    .secret("clientSecret", inputs, secret_file.as_deref())?
                    .put("applicationUUID", application)
                    .put("keyType", key_type)
                    .put("appOwner", owner);
                Call::new("mapOAuthApplication", [which.km]).with(body)
            }
            Self::Unmap(which) => which.call("deleteMappedApplication"),
            Self::Parse { km, from } => {
                Call::new("buildFromJSON", [km]).with(Body::begin(inputs, Some(from.as_path()))?)
            }
        })
    }
}

/// A client's secrets.
#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Replace a client's secret; prints the new one, this once.
    Rotate(Client),
    /// Give a client one more secret; prints it, this once.
    Add {
        #[command(flatten)]
        which: Client,
        /// What it is for.
        #[arg(long, value_name = "TEXT", value_parser = text::<String>, allow_hyphen_values = true)]
        description: Option<String>,
        /// For how long it is good; without it for ever.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
        /// File of the secret wished for; - reads standard input.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// List a client's secrets, masked.
    List {
        #[command(flatten)]
        which: Client,
        #[command(flatten)]
        part: Part,
    },
    /// Drop one of a client's secrets.
    Delete {
        #[command(flatten)]
        which: Client,
        /// The secret's id.
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

impl SecretCommand {
    pub(super) fn call(self, inputs: &Inputs) -> Result<Call, Error> {
        Ok(match self {
            Self::Rotate(which) => which.call("getNewApplicationConsumerSecret"),
            Self::Add { which, description, expires_in, secret_file } => {
                let body = Body::default()
                    .secret("clientSecret", inputs, secret_file.as_deref())?
                    .put_in("parameters", "description", description)?
                    .put_in("parameters", "expiresIn", expires_in)?;
                which.call("generateNewApplicationConsumerSecret").with_any(body)
            }
            Self::List { which, part } => part.on(which.call("retrieveApplicationConsumerSecrets")),
            Self::Delete { which: Client { km, ck }, id } => Call::new("deleteApplicationConsumerSecret", [km, ck, id]),
        })
    }
}
