//! The gate that most rows share: providers, upstreams and one configuration with every kind of API,
//! application and subscription. One for each form of refusals.

use std::{fmt::Write as _, sync::OnceLock};

use super::{
    Backend, Config, Gate, H2Backend, Idp, Token,
    config::{api, application, key_manager, orders_api, resource, subscription},
    expect::Form,
    keys,
};

/// A gate and what is around it.
pub(crate) struct World {
    pub(crate) gate: Gate,
    /// The usual provider.
    pub(crate) idp: Idp,
    /// Publishes the same key ids with other keys.
    pub(crate) second: Idp,
    /// Of a key manager that takes `typ: at+jwt`, RS256 and ES256, an hour at most.
    pub(crate) strict: Idp,
    /// Was never there.
    pub(crate) down: Idp,
    /// Is asked about opaque tokens that begin with `op_`.
    pub(crate) opaque: Idp,
    pub(crate) upstream: Backend,
    pub(crate) sandbox: Backend,
    pub(crate) grpc: H2Backend,
    pub(crate) form: Form,
}

/// The shared world whose refusals have this form.
pub(crate) fn world(form: Form) -> &'static World {
    static WSO2: OnceLock<World> = OnceLock::new();
    static PROBLEM: OnceLock<World> = OnceLock::new();
    match form {
        Form::Problem => PROBLEM.get_or_init(|| World::start(form)),
        _ => WSO2.get_or_init(|| World::start(Form::Wso2)),
    }
}

impl World {
    fn start(form: Form) -> Self {
        let all = keys();
        let second = vec![all.es256_other.jwk("es256"), all.rsa_other.jwk("rsa")];
        let (idp, second, strict) = (Idp::start(), Idp::with_keys(second), Idp::start());
        let down = Idp::start();
        down.stop();
        let (upstream, sandbox) = (Backend::start("production"), Backend::start("sandbox"));
        let grpc = H2Backend::start();
        let opaque = Idp::start();
        let config = config(form, [&idp, &second, &strict, &down, &opaque], &upstream, &sandbox, &grpc);
        let gate = Gate::start(|ports| config.text(ports));
        Self { gate, idp, second, strict, down, opaque, upstream, sandbox, grpc, form }
    }

    /// A good token of the usual provider for `shop-web`.
    pub(crate) fn token(&self) -> Token {
        Token::of(&self.idp, "shop-web")
    }

    /// A good token's text for a client.
    pub(crate) fn bearer(&self, client: &str) -> String {
        Token::of(&self.idp, client).sign()
    }

    /// Both HTTP/1.1 upstreams.
    pub(crate) fn backends(&self) -> [&Backend; 2] {
        [&self.upstream, &self.sandbox]
    }
}

/// (client id, state of its subscription to Orders, key type)
const CLIENTS: [(&str, &str, &str); 9] = [
    ("shop-web", "UNBLOCKED", "PRODUCTION"),
    ("shop-sandbox", "UNBLOCKED", "SANDBOX"),
    ("app-tier-pending", "TIER_UPDATE_PENDING", "PRODUCTION"),
    ("app-delete-pending", "DELETE_PENDING", "PRODUCTION"),
    ("app-blocked", "BLOCKED", "PRODUCTION"),
    ("app-prod-blocked", "PROD_ONLY_BLOCKED", "PRODUCTION"),
    ("app-prod-blocked-sandbox", "PROD_ONLY_BLOCKED", "SANDBOX"),
    ("app-on-hold", "ON_HOLD", "PRODUCTION"),
    ("app-rejected", "REJECTED", "PRODUCTION"),
];

fn config(form: Form, idps: [&Idp; 5], upstream: &Backend, sandbox: &Backend, grpc: &H2Backend) -> Config {
    let [idp, second, strict, down, opaque] = idps;
    let format = if form == Form::Problem { "problem" } else { "wso2" };
    let other = if form == Form::Problem { "wso2" } else { "problem" };
    let url = upstream.url();
    let mut rest =
        String::from("[log]\nlevel = \"trace\"\n[identity_headers]\nclaims = { email = \"X-Auth-Email\" }\n");
    rest.push_str(&key_manager("main", idp, "audience = [\"orders-api\"]"));
    rest.push_str(&key_manager("second", second, "audience = [\"orders-api\"]"));
    let profile =
        "audience = [\"orders-api\"]\ntyp = \"at+jwt\"\nalgorithms = [\"RS256\", \"ES256\"]\nmax_lifetime = \"1h\"";
    rest.push_str(&key_manager("strict", strict, profile));
    rest.push_str(&key_manager("down", down, "audience = [\"orders-api\"]\nstartup = \"optional\""));
    let asked = "audience = [\"orders-api\"]\ntoken_pattern = \"op_[A-Za-z0-9_.]+\"\nclient_id = \"tollgate\"\n\
                 client_secret = \"introspection-secret-of-the-gate\"";
    rest.push_str(&key_manager("opaque", opaque, asked));
    rest.push_str("\n[throttle]\nfailures = { requests = 100000, per = \"1m\" }\n");
    rest.push_str(&orders_api(&url));
    rest.push_str(&more_apis(&url, &sandbox.url(), &grpc.url(), other));
    rest.push_str(&applications());
    rest.push_str("\n[[tiers]]\nname = \"Tiny\"\nrequests = 1\nper = \"1d\"\n");
    Config {
        top: format!("fault_format = \"{format}\"\nstrip_headers = [\"X-User\"]\n"),
        proxy: "max_body = \"1MiB\"\ntimeouts = { connect = \"6s\", request = \"6s\" }\n".into(),
        rest,
    }
}

fn more_apis(url: &str, sandbox: &str, grpc: &str, other_format: &str) -> String {
    let to = format!("upstream = \"{url}\"");
    let items = resource("/items/{id}", "");
    let mut out = String::new();
    let mut add = |name: &str, lines: &str| {
        let context = format!("/{}", name.to_ascii_lowercase());
        let _ = write!(out, "{}{items}", api(name, &context, Some("v1"), lines));
    };
    add("Special", &format!("{to}\naudience = [\"special-api\"]"));
    add("Bare", &format!("{to}\nsubscription = \"none\""));
    add("Query", &format!("{to}\ntoken_in = [\"header\", \"query\"]"));
    add("QueryOnly", &format!("{to}\ntoken_in = [\"query\"]\nforward_token = true\nsubscription = \"none\""));
    add("Env", &format!("production = \"{url}\"\nsandbox = \"{sandbox}\""));
    add("ProdOnly", &format!("production = \"{url}\""));
    add("Keep", &format!("{to}\nstrip_prefix = false\npreserve_host = true\nforward_token = true"));
    add("Dead", "upstream = \"http://127.0.0.1:1\"");
    add("Grpc", &format!("upstream = \"{grpc}\""));
    add("Hosted", &format!("{to}\nhosts = [\"only.example.com\"]"));
    add("Second", &format!("{to}\nkey_managers = [\"second\"]\nsubscription = \"none\""));
    add("Other", &format!("{to}\nfault_format = \"{other_format}\""));
    add("Echo", "upstream = \"echo:\"");
    add("TinyApi", &format!("{to}\ntier = \"Tiny\""));
    add("Base", &format!("upstream = \"{url}/base/path\""));
    out.push_str(&api("Turns", "/turns", None, &format!("upstream = [\"{url}\", \"{sandbox}\"]")));
    out.push_str(&items);
    out.push_str(&api("Defver", "/defver", Some("v2"), &format!("{to}\ndefault_version = true")));
    out.push_str(&items);
    let verbs = resource("/{id}", "") + &resource("/items:export", "scopes = [\"admin\"]");
    out.push_str(&api("Verbs", "/verbs", None, &format!("{to}\nsubscription = \"none\"")));
    out.push_str(&verbs);
    let tells = "subscription = \"none\"\nkey_managers = [\"strict\", \"main\"]\ntoken_in = [\"header\", \"query\"]\n\
                 audience = [\"https://mcp.example.com/mcp\"]\n\
                 resource_metadata = { resource = \"https://mcp.example.com/mcp\", name = \"Tools for machines\", \
                 documentation = \"https://example.com/docs\" }";
    out.push_str(&api("Mcp", "/mcp", None, &format!("{to}\n{tells}")));
    out.push_str(&resource("/tools/{id}", ""));
    out.push_str(&resource("/call/{id}", "scopes = [\"tools:call\", \"tools:list\"]"));
    out.push_str(&resource("/list/{id}", "scopes = [\"tools:list\"]"));
    out.push_str(&api("TinyResource", "/tinyresource", Some("v1"), &to));
    out.push_str(&resource("/items/{id}", "tier = \"Tiny\""));
    out
}

/// Names of the APIs besides Orders, as subscriptions say them.
const OTHER_APIS: [&str; 16] = [
    "Special:v1",
    "Query:v1",
    "Env:v1",
    "ProdOnly:v1",
    "Keep:v1",
    "Dead:v1",
    "Grpc:v1",
    "Hosted:v1",
    "Other:v1",
    "Echo:v1",
    "TinyApi:v1",
    "Base:v1",
    "Turns",
    "Defver:v2",
    "TinyResource:v1",
    "Second:v1",
];

fn applications() -> String {
    let mut out = String::new();
    for (client, state, key_type) in CLIENTS {
        out.push_str(&application(client, client, "Unlimited", &format!(", key_type = \"{key_type}\"")));
        out.push_str(&subscription(client, "Orders:v1", "Unlimited", state));
    }
    for client in ["shop-web", "shop-sandbox"] {
        for id in OTHER_APIS {
            out.push_str(&subscription(client, id, "Unlimited", "UNBLOCKED"));
        }
    }
    out.push_str(&application("app-unsubscribed", "app-unsubscribed", "Unlimited", ""));
    out.push_str(&application("app-tiny-subscription", "app-tiny-subscription", "Unlimited", ""));
    out.push_str(&subscription("app-tiny-subscription", "Orders:v1", "Tiny", "UNBLOCKED"));
    out.push_str(&application("app-tiny", "app-tiny", "Tiny", ""));
    out.push_str(&subscription("app-tiny", "Orders:v1", "Unlimited", "UNBLOCKED"));
    // The same consumer key at the other providers.
    for manager in ["strict", "second", "down", "opaque"] {
        let _ = write!(
            out,
            "\n[[applications]]\nname = \"{manager}-web\"\nowner = \"ada\"\n\
             keys = [{{ key_manager = \"{manager}\", consumer_key = \"shop-web\" }}]\n"
        );
        out.push_str(&subscription(&format!("{manager}-web"), "Orders:v1", "Unlimited", "UNBLOCKED"));
    }
    out.push_str(&subscription("opaque-web", "Special:v1", "Unlimited", "UNBLOCKED"));
    out
}
