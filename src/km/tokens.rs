//! `km token …` and `km revoke`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Error, Page, Part,
    call::{Body, Call, Inputs},
    clients::Client,
    text::text,
};
use crate::keymanager::Sensitive;

/// Tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Obtain a token for a client; prints it.
    New {
        #[command(flatten)]
        which: Client,
        #[command(flatten)]
        request: Box<TokenBody>,
    },
    /// List names of a client's live tokens.
    Active {
        #[command(flatten)]
        which: Client,
        #[command(flatten)]
        part: Part,
    },
    /// Show a client's newest token, as far as the provider knows it.
    Show(Client),
    /// Ask the provider about a token.
    Introspect(Token),
    /// Revoke a token (RFC 7009); it is refused at once.
    Revoke(Token),
    /// Revoke a token that was good for one use.
    RevokeOneTime {
        #[command(flatten)]
        which: Client,
        /// The token; - reads standard input, @FILE a file.
        #[arg(allow_hyphen_values = true)]
        token: Sensitive,
    },
    /// Tell whether a token looks like this key manager's.
    CanHandle(Token),
    /// Derive a token request from a client's JSON; changes nothing.
    Request {
        #[command(flatten)]
        which: Client,
        /// The client as JSON; - reads standard input.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Read a token request from WSO2's loose JSON; changes nothing.
    Parse {
        /// The key manager.
        #[arg(value_name = "NAME")]
        km: String,
        /// The JSON; - reads standard input.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
}

/// Which token.
#[derive(Debug, Args)]
pub(super) struct Token {
    /// The key manager.
    #[arg(value_name = "NAME")]
    km: String,
    /// The token; - reads standard input, @FILE a file.
    #[arg(allow_hyphen_values = true)]
    token: Sensitive,
}

/// What a token is asked for with.
#[derive(Debug, Args)]
pub(super) struct TokenBody {
    /// Grant type; client_credentials without it.
    #[arg(long, value_name = "TYPE")]
    grant_type: Option<String>,
    /// Scope asked for; may be given several times.
    #[arg(long = "scope", value_name = "KEY", value_parser = text::<String>, allow_hyphen_values = true)]
    scopes: Vec<String>,
    /// Lifetime wished for.
    #[arg(long, value_name = "SECONDS")]
    validity: Option<i64>,
    /// File of the client's secret, without which tollgate:manage is needed; - reads standard input.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// For the password grant.
    #[arg(long, value_name = "NAME", value_parser = text::<String>, allow_hyphen_values = true)]
    username: Option<String>,
    /// File of the password; - reads standard input.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File of the refresh token; - reads standard input.
    #[arg(long, value_name = "FILE")]
    refresh_token_file: Option<PathBuf>,
    /// File of the token to exchange (RFC 8693); - reads standard input.
    #[arg(long, value_name = "FILE")]
    subject_token_file: Option<PathBuf>,
    /// File of a token to revoke first; - reads standard input.
    #[arg(long, value_name = "FILE")]
    revoke_file: Option<PathBuf>,
    /// Further parameter of the token request; may be given several times.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = text::<String>, allow_hyphen_values = true)]
    parameters: Vec<String>,
    /// The body as JSON, in which flags replace; - reads standard input.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl TokenBody {
    fn body(self, inputs: &Inputs) -> Result<Body, Error> {
        let subject_token = self.subject_token_file.map(|file| inputs.secret(&file)).transpose()?;
        Body::begin(inputs, self.from.as_deref())?
            .put("grantType", self.grant_type)
            .list("scope", self.scopes)
            .put("validityPeriod", self.validity)
            .put("resourceOwnerUsername", self.username)
            .secret("clientSecret", inputs, self.secret_file.as_deref())?
            .secret("resourceOwnerPassword", inputs, self.password_file.as_deref())?
            .secret("refreshToken", inputs, self.refresh_token_file.as_deref())?
            .secret("tokenToRevoke", inputs, self.revoke_file.as_deref())?
            .put_in("requestParameters", "subject_token", subject_token.map(|token| token.as_str().to_owned()))?
            .pairs_in("requestParameters", "--parameter", &self.parameters)
    }
}

impl Token {
    fn call(self, inputs: &Inputs, operation: &'static str) -> Result<Call, Error> {
        let body = Body::default().put("token", Some(inputs.token(&self.token)?));
        Ok(Call::new(operation, [self.km]).with(body))
    }
}

impl TokenCommand {
    pub(super) fn call(self, inputs: &Inputs) -> Result<Call, Error> {
        Ok(match self {
            Self::New { which, request } => which.call("getNewApplicationAccessToken").with_any(request.body(inputs)?),
            Self::Active { which, part } => part.on(which.call("getActiveTokensByConsumerKey")),
            Self::Show(which) => which.call("getAccessTokenByConsumerKey"),
            Self::Introspect(token) => token.call(inputs, "getTokenMetaData")?,
            Self::Revoke(token) => token.call(inputs, "revokeToken")?,
            Self::RevokeOneTime { which, token } => {
                let body = Body::default().put("token", Some(inputs.token(&token)?));
                Call::new("revokeOneTimeToken", [which.km]).with(body.put("consumerKey", Some(which.ck)))
            }
            Self::CanHandle(token) => token.call(inputs, "canHandleToken")?,
            Self::Request { which, from } => {
                let body = Body::begin(inputs, from.as_deref())?;
                which.call("buildAccessTokenRequestFromOAuthApp").with_any(body)
            }
            Self::Parse { km, from } => {
                let body = Body::begin(inputs, from.as_deref())?;
                Call::new("buildAccessTokenRequestFromJSON", [km]).with_any(body)
            }
        })
    }
}

/// Which tokens are refused from now on.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// jti, token, client or subject.
    #[arg(long, value_name = "KIND")]
    kind: String,
    /// The jti, the token itself, the consumer key or the subject.
    #[arg(long, value_parser = text::<Sensitive>, allow_hyphen_values = true)]
    #[arg(required_unless_present = "value_file", conflicts_with = "value_file")]
    value: Option<Sensitive>,
    /// File of the value; - reads standard input.
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// Issuer of the tokens; needless where there is one key manager.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Of a client or subject: tokens issued until this Unix second; without it until now.
    #[arg(long, value_name = "SECOND")]
    before: Option<u64>,
    /// Unix second after which no such token is alive; without it for ever.
    #[arg(long, value_name = "SECOND")]
    until: Option<u64>,
}

impl Revoke {
    pub(super) fn call(self, inputs: &Inputs) -> Result<Call, Error> {
        let body = Body::default()
            .put("kind", Some(self.kind))
            .put("value", self.value.map(|value| value.reveal().to_owned()))
            .secret("value", inputs, self.value_file.as_deref())?
            .put("issuer", self.issuer)
            .put("before", self.before)
            .put("until", self.until);
        Ok(Call::new("revoke", []).with(body))
    }
}

/// `km revocations`.
pub(super) fn revocations(page: Page) -> Call {
    page.on(Call::new("listRevocations", []))
}
