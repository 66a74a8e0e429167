//! From `[[apis]]` to [`Api`]: what is wrong with each field, and what is shared between APIs.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use http::Method;

use crate::{telemetry::ApiCounters, units::Span};

use super::{
    Api, ApiRow, AuthLevel, AuthRule, BackendLimits, Cors, FaultFormat, KeyManagerSet, KeyType, QuotaSettings,
    Resource, ResourceMetadata, SignIn, Subject, Tier, TokenPlace, TokenUsage, Upstream, Upstreams,
    resource::Placement,
    settings::{ApiSettings, BackendLimitSettings, OneOrMany, ResourceSettings, TierLevel},
    snapshot::ANY_METHOD,
    source::Named,
    suggest::{Problems, Suggest},
    template,
    tier::Digest,
    tiers::{Tiers, UNLIMITED},
    token_usage::TokenUsageSettings,
};

/// Builds APIs one by one; remembers what they share.
pub(super) struct ApiBuilder<'a> {
    pub(super) tiers: &'a Tiers,
    pub(super) key_managers: &'a [String],
    /// Their issuers.
    issuers: &'a [&'a str],
    pub(super) fault_format: FaultFormat,
    upstreams: HashMap<Upstream, Arc<Upstream>>,
    methods: HashSet<Arc<[Method]>>,
    scopes: HashSet<Arc<[Box<str>]>>,
    templates: HashSet<Arc<str>>,
}

/// `name:version`, or the name where there is no version.
pub(super) fn id(api: &ApiSettings) -> String {
    match &api.version {
        Some(version) => format!("{}:{version}", api.name),
        None => api.name.clone(),
    }
}

impl ApiSettings {
    /// Whether a deny condition that says `text` is about this API: its name and version, or where it is served.
    pub fn is_denied_as(&self, text: &str) -> bool {
        let context = contexts(self, &|name| name.to_owned(), &mut Problems::default()).into_iter().next();
        text == id(self) || text.starts_with('/') && context.as_deref() == Some(text.trim_end_matches('/'))
    }
}

impl<'a> ApiBuilder<'a> {
    pub(super) fn new(
        tiers: &'a Tiers,
        key_managers: &'a [String],
        issuers: &'a [&'a str],
        fault_format: FaultFormat,
    ) -> Self {
        Self {
            tiers,
            key_managers,
            issuers,
            fault_format,
            upstreams: HashMap::new(),
            methods: HashSet::new(),
            scopes: HashSet::new(),
            templates: HashSet::new(),
        }
    }

    /// The API that stands `at` and where it is served; only good if no problem was added.
    pub(super) fn build(&mut self, at: Named, api: &ApiSettings, problems: &mut Problems) -> (ApiRow, Placement) {
        let field = |name: &str| format!("{at}.{name}");
        let id = id(api);
        problems.refuse_empty(&api.name, || field("name"));
        let contexts = contexts(api, &field, problems);
        let hosts = hosts(&api.hosts, &field, problems);
        let picked = self.tiers.pick(&api.tier, TierLevel::Advanced, || field("tier"), problems);
        let tier = picked.and_then(|tier| tier.limits).map(|limits| Tier::new(limits, Subject::Api(&id)));
        // By name, as in WSO2: whoever gives `Unlimited` a limit does not thereby switch off all resource tiers.
        let replaces = api.tier != UNLIMITED;

        if api.resources.is_empty() {
            problems.add(field("resources"), "is empty: nothing could pass");
        }
        let mut sound = Vec::with_capacity(api.resources.len());
        let mut resources = Vec::with_capacity(api.resources.len());
        for (m, settings) in api.resources.iter().enumerate() {
            let (mut resource, is_sound) = self.resource((at, m), &id, settings, problems);
            if replaces {
                resource.tier = None;
            }
            sound.extend(u32::try_from(m).ok().filter(|_| is_sound));
            resources.push(resource);
        }
        let built = Api {
            name: api.name.as_str().into(),
            version: api.version.as_deref().map(Into::into),
            upstreams: self.upstreams(api, &field, problems),
            strip_prefix: api.strip_prefix,
            preserve_host: api.preserve_host,
            forward_token: api.forward_token,
            backend_jwt: api.backend_jwt,
            token_in_header: places(api, TokenPlace::Header, &field, problems),
            token_in_query: api.token_in.contains(&TokenPlace::Query),
            key_managers: self.key_manager_set(&api.key_managers, &field, problems),
            audience: texts(&api.audience, &|m| format!("{at}.audience[{m}]"), problems),
            subscription: api.subscription,
            tier,
            backend_limits: backend_limits(api, &id, &field, problems),
            token_usage: token_usage(&api.token_usage, &field, problems),
            fault_format: api.fault_format.unwrap_or(self.fault_format),
            metadata: ResourceMetadata::build(api, &self.issuers_of(api), &hosts, &field, problems).map(Box::new),
            cors: api.cors.as_ref().map(|cors| Box::new(Cors::build(cors, &field, problems))),
            counters: ApiCounters::default(),
            context: contexts.first().map_or("", String::as_str).into(),
            id: id.into(),
        };
        let sound = (sound.len() < resources.len()).then_some(sound);
        let row = ApiRow { api: Arc::new(built), resources: resources.into() };
        (row, Placement { hosts, contexts, resources: sound })
    }

    /// One resource, and whether its template and verbs are good.
    fn resource(
        &mut self,
        (at, m): (Named, usize),
        api: &str,
        settings: &ResourceSettings,
        problems: &mut Problems,
    ) -> (Resource, bool) {
        let field = |name: &str| format!("{at}.resources[{m}].{name}");
        let template = template::template(&settings.path);
        if let Err(message) = &template {
            problems.add(field("path"), message);
        }
        let methods = methods(&settings.methods, &field, problems);
        let sound = template.is_ok() && methods.is_some();
        let methods = shared(&mut self.methods, methods.unwrap_or_default());
        let picked = self.tiers.pick(&settings.tier, TierLevel::Advanced, || field("tier"), problems);
        let subject = Subject::Resource(api, &settings.path, &methods);
        let tier = picked.and_then(|tier| tier.limits).map(|limits| Tier::new(limits, subject));
        if settings.auth == AuthRule::None && settings.auth_level != AuthLevel::Any {
            problems.add(field("auth_level"), "is of no use where auth = \"none\": no token is looked at");
        }
        let scopes = words(&settings.scopes, &|m| format!("{}[{m}]", field("scopes")), problems);
        let resource = Resource {
            template: self.shared_template(&settings.path),
            methods,
            scopes: shared(&mut self.scopes, scopes),
            scopes_match: settings.scopes_match,
            auth: settings.auth,
            auth_level: settings.auth_level,
            sign_in: sign_in(settings, &field, problems),
            tier,
        };
        (resource, sound)
    }

    /// `/`, `/*` and `/{id}` come up in many APIs.
    fn shared_template(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.templates.get(text) {
            return Arc::clone(known);
        }
        let template: Arc<str> = text.into();
        self.templates.insert(Arc::clone(&template));
        template
    }

    fn upstreams(&mut self, api: &ApiSettings, field: &dyn Fn(&str) -> String, problems: &mut Problems) -> Upstreams {
        let ApiSettings { upstream, production, sandbox, .. } = api;
        match (upstream, production.is_some() || sandbox.is_some()) {
            (Some(_), true) => {
                problems.add(field("upstream"), "stands for both environments: not beside production or sandbox");
            }
            (None, false) => problems.add(field("upstream"), "is needed, or production or sandbox"),
            _ => {}
        }
        let mut list = |name: &str, given: &Option<OneOrMany>| match given {
            Some(given) => self.upstream_list(given, &field(name), problems),
            None => Vec::new(),
        };
        if upstream.is_some() {
            let both = list("upstream", upstream);
            return Upstreams { production: both.clone(), sandbox: both };
        }
        Upstreams { production: list("production", production), sandbox: list("sandbox", sandbox) }
    }

    fn upstream_list(&mut self, given: &OneOrMany, field: &str, problems: &mut Problems) -> Vec<Arc<Upstream>> {
        if given.as_slice().is_empty() {
            problems.add(field, "is an empty list");
        }
        let mut upstreams = Vec::with_capacity(given.as_slice().len());
        for (m, text) in given.as_slice().iter().enumerate() {
            match Upstream::parse(text) {
                Ok(upstream) => {
                    let shared = self.upstreams.entry(upstream).or_insert_with_key(|new| Arc::new(new.clone()));
                    upstreams.push(Arc::clone(shared));
                }
                Err(message) if matches!(given, OneOrMany::One(_)) => problems.add(field, message),
                Err(message) => problems.add(format!("{field}[{m}]"), message),
            }
        }
        upstreams
    }

    /// Whose tokens count at an API, each issuer once.
    fn issuers_of(&self, api: &ApiSettings) -> Vec<&'a str> {
        let mut issuers = Vec::new();
        for (name, issuer) in self.key_managers.iter().zip(self.issuers) {
            if (api.key_managers.is_empty() || api.key_managers.contains(name)) && !issuers.contains(issuer) {
                issuers.push(*issuer);
            }
        }
        issuers
    }

    fn key_manager_set(
        &self,
        names: &[String],
        field: &dyn Fn(&str) -> String,
        problems: &mut Problems,
    ) -> KeyManagerSet {
        for (m, name) in names.iter().enumerate() {
            if !self.key_managers.contains(name) {
                let nearest = problems.nearest(name, self.key_managers.iter().map(String::as_str));
                problems.add(format!("{}[{m}]", field("key_managers")), Suggest(NO_KEY_MANAGER, nearest));
            }
        }
        KeyManagerSet::of(names)
    }
}

impl KeyManagerSet {
    /// The set of these key managers; of none: all. Order and repetition mean nothing.
    pub fn of(names: &[String]) -> Self {
        if names.is_empty() {
            return Self::all();
        }
        let mut names: Vec<Box<str>> = names.iter().map(|name| name.as_str().into()).collect();
        names.sort_unstable();
        names.dedup();
        let mut digest = Digest::new();
        for name in &names {
            digest.text(name);
        }
        // 0 is for all; a digest of 0 will not come up, but then it is told apart too.
        Self { id: u64::from_be_bytes(digest.finish()).max(1), names: names.into() }
    }
}

/// How much the API's upstreams get, by environment.
fn backend_limits(
    api: &ApiSettings,
    id: &str,
    field: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Box<BackendLimits>> {
    let BackendLimitSettings { production, sandbox } = api.backend_limit.as_ref()?;
    let mut tier = |given: &Option<QuotaSettings>, name: &str, key_type| {
        let at = format!("{}.{name}", field("backend_limit"));
        let limits = given.as_ref()?.limits(name, true, &at, problems)?;
        Some(Tier::new(Arc::new(limits), Subject::Backend(id, key_type)))
    };
    Some(Box::new(BackendLimits {
        production: tier(production, "production", KeyType::Production),
        sandbox: tier(sandbox, "sandbox", KeyType::Sandbox),
    }))
}

/// Where the API is served, without host.
fn contexts(api: &ApiSettings, field: &dyn Fn(&str) -> String, problems: &mut Problems) -> Vec<String> {
    let context = template::context(&api.context).map_err(|message| problems.add(field("context"), message));
    let version = api.version.as_deref().map(template::version).transpose();
    let version = version.map_err(|message| problems.add(field("version"), message));
    match (context, version) {
        (Ok(context), Ok(None)) => vec![context],
        (Ok(context), Ok(Some(version))) if api.default_version => vec![format!("{context}{version}"), context],
        (Ok(context), Ok(Some(version))) => vec![context + &version],
        _ => Vec::new(),
    }
}

fn hosts(given: &[String], field: &dyn Fn(&str) -> String, problems: &mut Problems) -> Vec<String> {
    let mut hosts = Vec::with_capacity(given.len());
    for (m, text) in given.iter().enumerate() {
        match template::host(text) {
            Ok(host) => hosts.push(host),
            Err(message) => problems.add(format!("{}[{m}]", field("hosts")), message),
        }
    }
    hosts
}

/// Whether a credential may stand in `place`.
/// None where it is the default, which most have.
fn token_usage(
    settings: &TokenUsageSettings,
    field: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Arc<TokenUsage>> {
    let built = TokenUsage::build(settings, field, problems);
    (built != TokenUsage::default()).then(|| Arc::new(built))
}

fn places(api: &ApiSettings, place: TokenPlace, field: &dyn Fn(&str) -> String, problems: &mut Problems) -> bool {
    if api.token_in.is_empty() {
        problems.add(field("token_in"), "is empty: no credential could be brought");
    }
    api.token_in.contains(&place)
}

/// Verbs in the form of [`Resource::methods`]; none if something is wrong with them.
fn methods(given: &[String], field: &dyn Fn(&str) -> String, problems: &mut Problems) -> Option<Vec<Method>> {
    if given.is_empty() {
        problems.add(field("methods"), "is empty: nothing could pass");
        return None;
    }
    let mut methods: Vec<Method> = Vec::with_capacity(given.len());
    let mut sound = true;
    let any = given.iter().any(|method| method == "*");
    for (m, text) in given.iter().enumerate().filter(|(_, text)| *text != "*") {
        match method(text) {
            Ok(method) if methods.contains(&method) || any && ANY_METHOD.contains(&method) => {}
            Ok(method) => methods.push(method),
            Err(message) => {
                problems.add(format!("{}[{m}]", field("methods")), message);
                sound = false;
            }
        }
    }
    if any && !methods.is_empty() {
        methods.extend_from_slice(&ANY_METHOD);
    }
    sound.then_some(methods)
}

/// Verbs one by one, without `*`: empty stands for all.
pub(super) fn verbs(given: &[String], field: &str, problems: &mut Problems) -> Vec<Method> {
    let mut verbs = Vec::with_capacity(given.len());
    for (m, text) in given.iter().enumerate() {
        match if text == "*" { Err("`*` is said by an empty list") } else { method(text) } {
            Ok(verb) => verbs.push(verb),
            Err(message) => problems.add(format!("{field}[{m}]"), message),
        }
    }
    verbs
}

fn method(text: &str) -> Result<Method, &'static str> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err("a verb is upper case");
    }
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => Err("CONNECT and TRACE are never forwarded"),
        Ok(method) => Ok(method),
        Err(_) => Err("a verb is a token, such as GET"),
    }
}

/// Words that a challenge can list (RFC 6749 section 3.3, RFC 9470 section 3).
fn words(given: &[String], field: &dyn Fn(usize) -> String, problems: &mut Problems) -> Vec<Box<str>> {
    let is_word_char = |c: char| matches!(c, '!'..='~') && c != '"' && c != '\\';
    for (m, word) in given.iter().enumerate() {
        if word.is_empty() || !word.chars().all(is_word_char) {
            let message = "is visible ASCII without spaces, quotes and backslashes, and not empty";
            problems.add(field(m), message);
        }
    }
    given.iter().map(|word| word.as_str().into()).collect()
}

/// What a resource asks of its user's sign-in (RFC 9470).
fn sign_in(
    settings: &ResourceSettings,
    field: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) -> Option<Box<SignIn>> {
    let ResourceSettings { acr_values, max_age, .. } = settings;
    let given = [("acr_values", !acr_values.is_empty()), ("max_age", max_age.is_some())];
    for (name, _) in given.into_iter().filter(|(_, given)| *given && settings.auth == AuthRule::None) {
        problems.add(field(name), "is of no use where auth = \"none\": no token is looked at");
    }
    // Whoever is refused is told it in seconds.
    if max_age.is_some_and(|age| !age.is_whole_seconds() || age == Span::default()) {
        problems.add(field("max_age"), "is whole seconds, at least \"1s\"");
    }
    given.iter().any(|(_, given)| *given).then(|| {
        Box::new(SignIn {
            acr_values: words(acr_values, &|m| format!("{}[{m}]", field("acr_values")), problems).into(),
            max_age_s: max_age.map(|Span(age)| age.as_secs()),
        })
    })
}

fn texts(given: &[String], field: &dyn Fn(usize) -> String, problems: &mut Problems) -> Vec<Box<str>> {
    for (m, text) in given.iter().enumerate() {
        problems.refuse_empty(text, || field(m));
    }
    given.iter().map(|text| text.as_str().into()).collect()
}

/// `list`, or the one equal to it that others hold already.
fn shared<T: Eq + std::hash::Hash>(lists: &mut HashSet<Arc<[T]>>, list: Vec<T>) -> Arc<[T]> {
    if let Some(known) = lists.get(list.as_slice()) {
        return Arc::clone(known);
    }
    let list: Arc<[T]> = list.into();
    lists.insert(Arc::clone(&list));
    list
}

pub(super) const NO_KEY_MANAGER: &str = "no key manager has this name";
