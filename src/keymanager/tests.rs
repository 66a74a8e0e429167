//! The one path of the operations, with a provider in memory.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{engine::Asked, rows::RowChange, task::Task, testing::Memory, *};
use crate::{
    net::Clock,
    store::{Revocations, TokenFacts, record::Record},
};

#[path = "given_tests.rs"]
mod given_tests;
#[path = "issue_tests.rs"]
mod issue_tests;
#[path = "overtaken_tests.rs"]
mod overtaken_tests;

struct Stand {
    engine: Arc<Engine>,
    one: Arc<Memory>,
    two: Arc<Memory>,
    revocations: Arc<Revocations>,
    record: Record,
}

fn stand() -> Stand {
    let (one, two) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
    let (revocations, record) = (Arc::new(Revocations::default()), Record::in_memory().unwrap());
    let registry = prometheus::Registry::new();
    let engine =
        Engine::new(Some(record.clone()), Arc::clone(&revocations), Arc::new(Clock::new()), &registry, None).unwrap();
    engine.registry.replace(vec![one.managed("one", ""), two.managed("two", "token_pattern = 't_.*'")]);
    Stand { engine: Arc::new(engine), one, two, revocations, record }
}

fn caller() -> Caller {
    Caller { who: "tester".into(), ..Caller::default() }
}

fn app(json: serde_json::Value) -> OAuthApplicationInfo {
    serde_json::from_value(json).unwrap()
}

fn did<T: std::fmt::Debug>(done: Result<Done<T>>) -> T {
    match done.unwrap() {
        Done::Did(gave) => gave,
        Done::Would(plan) => panic!("{plan:?}"),
    }
}

impl Stand {
    async fn create(&self, json: serde_json::Value) -> Result<Done<OAuthApplicationInfo>> {
        self.engine.create_application(&caller(), "one", app(json)).await
    }

    fn is_revoked(&self, client: &str, issued_at: u64) -> bool {
        self.revocations.is_revoked(&TokenFacts {
            issuer: "https://one.example",
            jti: None,
            token_sha256: None,
            consumer_key: Some(client),
            subject: None,
            own_subject: None,
            issued_at: Some(issued_at),
        })
    }

    /// Waits for what the queue does in its own time.
    async fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..500 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what} has not come about");
    }
}

#[tokio::test]
async fn a_created_client_is_mapped_and_told_once_with_its_secret() {
    let stand = stand();
    let made = did(stand.create(json!({"clientId": "a/b", "applicationUUID": "u", "appOwner": "ada"})).await);
    assert_eq!(made.client_secret.as_ref().map(Sensitive::reveal), Some("s3cret-of-a/b"));
    let mapping = stand.engine.mapping("one", "a/b").unwrap().unwrap();
    assert_eq!(
        (mapping.mode, mapping.owner.as_deref(), &*mapping.key_type),
        (Mode::Created, Some("ada"), "PRODUCTION")
    );
    let read = stand.engine.retrieve_application("one", "a/b").await.unwrap();
    assert_eq!((read.client_secret, read.application_uuid.as_deref()), (None, Some("u")));
    let audit = stand.engine.audit(0, 10).unwrap();
    assert_eq!(
        (audit.len(), &*audit[0].who, &*audit[0].operation, &*audit[0].subject),
        (1, "tester", "createApplication", "a/b")
    );
    assert!(!serde_json::to_string(&audit).unwrap().contains("s3cret"), "{audit:?}");
}

#[tokio::test]
async fn one_application_has_one_client_of_a_kind() {
    let stand = stand();
    did(stand.create(json!({"clientId": "a", "applicationUUID": "u"})).await);
    for again in [json!({"clientId": "a"}), json!({"clientId": "b", "applicationUUID": "u"})] {
        assert!(matches!(stand.create(again.clone()).await, Err(Error::Conflict(_))), "{again}");
    }
    let sandbox = json!({"clientId": "c", "applicationUUID": "u", "parameters": {"key_type": "SANDBOX"}});
    did(stand.create(sandbox).await);
    let ids: Vec<_> = stand.one.clients.lock().keys().cloned().collect();
    assert_eq!(ids, ["a", "c"], "nobody was asked for those that are taken");
}

#[tokio::test]
async fn a_dry_run_and_a_mistake_ask_nobody() {
    let stand = stand();
    let dry = Caller { dry_run: true, ..caller() };
    let more = json!({"apiKey": "s3cret", "pwd": "s3cret"});
    let asked = json!({"clientId": "a", "clientSecret": "s3cret",
        "parameters": {"api_key": "s3cret", "passphrase": "s3cret", "additionalProperties": more}});
    let done = stand.engine.create_application(&dry, "one", app(asked)).await;
    let Ok(Done::Would(plan)) = done else { panic!("{done:?}") };
    assert_eq!((&*plan.operation, &plan.request["clientSecret"]), ("createApplication", &json!("[redacted]")));
    let told = plan.request.to_string();
    assert!(!told.contains("s3cret") && told.matches("[redacted]").count() == 5, "{told}");
    assert!(
        matches!(stand.create(json!({"clientName": "a\nb"})).await, Err(Error::Invalid { field, .. }) if field == "clientName")
    );
    assert!(stand.one.clients.lock().is_empty() && stand.engine.audit(0, 10).unwrap().is_empty());
}

#[tokio::test]
async fn a_deleted_client_and_a_rotated_secret_void_tokens_after_a_restart_too() {
    let stand = stand();
    did(stand.create(json!({"clientId": "a"})).await);
    did(stand.create(json!({"clientId": "b"})).await);
    let before = stand.engine.now();
    did(stand.engine.delete_application(&caller(), "one", "a").await);
    did(stand.engine.new_secret(&caller(), "one", "b").await);
    let after = stand.engine.now();
    assert!(stand.is_revoked("a", before) && stand.is_revoked("b", before));
    assert!(!stand.is_revoked("b", after), "what is obtained with the new secret is good");
    assert!(stand.engine.mapping("one", "a").unwrap().is_none());
    let anew = Revocations::default();
    restore(&stand.record, &anew).unwrap();
    let mut kept = 0;
    anew.for_each(|_| kept += 1);
    assert_eq!(kept, 2);
}

#[tokio::test]
async fn an_adopted_client_is_compared_unless_nobody_can_or_shall() {
    let stand = stand();
    did(stand.create(json!({"clientId": "a"})).await);
    let map = |id: &str, secret: Option<&str>| MapRequest {
        client_id: id.into(),
        client_secret: secret.map(Sensitive::from),
        ..MapRequest::default()
    };
    let who = caller();
    let run = |request| stand.engine.map_application(&who, "one", request);
    assert!(matches!(run(map("a", None)).await, Err(Error::Conflict(_))), "it is mapped by its creation");
    stand.one.clients.lock().insert("theirs".into(), app(json!({"clientId": "theirs", "clientSecret": "right"})));
    assert!(
        matches!(run(map("theirs", Some("wrong"))).await, Err(Error::Invalid { field, .. }) if field == "clientSecret")
    );
    assert!(matches!(run(map("unknown", None)).await, Err(Error::NotFound(_))));
    let mapped = did(run(map("theirs", Some("right"))).await);
    assert_eq!(mapped.client_secret, None);
    assert!(matches!(run(map("theirs", Some("right"))).await, Err(Error::Conflict(_))));
    let delete = stand.engine.delete_mapping(&caller(), "one", "a").await;
    assert!(matches!(delete, Err(Error::Conflict(_))), "it was created here");
    did(stand.engine.delete_mapping(&caller(), "one", "theirs").await);
    assert!(stand.one.clients.lock().contains_key("theirs"), "the provider keeps it");
    let issued_at = stand.engine.now();
    assert!(!stand.is_revoked("theirs", issued_at), "and it had it before");
    stand.one.cannot.lock().push(Operation::DeleteApplication);
    did(stand.engine.delete_mapping(&caller(), "one", "a").await);
    assert!(stand.engine.mapping("one", "a").unwrap().is_none() && stand.one.clients.lock().contains_key("a"));
    assert!(stand.is_revoked("a", issued_at), "as if it were deleted");
    let detail = stand.engine.audit(0, 100).unwrap().pop().and_then(|line| line.detail);
    assert_eq!(detail.as_deref(), Some("created here, and left at the provider: a memory cannot"));

    stand.one.cannot.lock().push(Operation::MapOAuthApplication);
    assert!(matches!(run(map("far", Some("x"))).await, Err(Error::Invalid { field, .. }) if field == "clientSecret"));
    did(run(map("far", None)).await);
    stand.engine.registry.replace(vec![stand.one.managed("one", "validate_mapped = false")]);
    did(run(map("believed", Some("x"))).await);
}

#[tokio::test]
async fn what_may_yet_succeed_is_tried_again_and_what_cannot_is_told() {
    let stand = stand();
    let scope = Scope { key: "orders:read".into(), ..Scope::default() };
    *stand.two.mood.lock() = Some(Error::Unreachable("nobody answers".into()));
    let outcomes = stand.engine.everywhere(&caller(), Everywhere::RegisterScope(scope.clone())).await.unwrap();
    let told: Vec<_> = outcomes.iter().map(|it| (&*it.key_manager, &*it.outcome)).collect();
    assert_eq!(told, [("one", "done"), ("two", "pending")]);
    let waiting = stand.engine.pending("two", 0, 10).unwrap();
    assert_eq!((waiting.len(), &*waiting[0].operation, &*waiting[0].subject), (1, "registerScope", "orders:read"));
    // What is wanted last counts.
    let change = Everywhere::UpdateScope("orders:read".into(), Scope { name: Some("Read".into()), ..scope });
    stand.engine.everywhere(&caller(), change).await.unwrap();
    assert_eq!(stand.engine.pending("two", 0, 10).unwrap().len(), 1);
    let tending = tokio::spawn(Arc::clone(&stand.engine).tend());
    *stand.two.mood.lock() = None;
    stand.wait_until("the scope", |stand| stand.two.scopes.lock().contains_key("orders:read")).await;
    assert_eq!(stand.two.scopes.lock()["orders:read"].name.as_deref(), Some("Read"));
    stand.wait_until("an empty queue", |stand| stand.engine.pending("two", 0, 10).unwrap().is_empty()).await;
    tending.abort();
    stand.two.cannot.lock().push(Operation::DeleteScope);
    let outcomes = stand.engine.everywhere(&caller(), Everywhere::DeleteScope("orders:read".into())).await.unwrap();
    let told: Vec<_> = outcomes.iter().map(|it| &*it.outcome).collect();
    assert_eq!(told, ["done", "unsupported"]);
}

#[tokio::test]
async fn a_key_manager_whose_turn_never_comes_keeps_no_other_up() {
    let stand = stand();
    let gone = || Some(Error::Unreachable("nobody answers".into()));
    (*stand.one.mood.lock(), *stand.two.mood.lock()) = (gone(), gone());
    let scope = Scope { key: "a".into(), ..Scope::default() };
    stand.engine.everywhere(&caller(), Everywhere::RegisterScope(scope)).await.unwrap();
    (*stand.one.mood.lock(), *stand.two.mood.lock()) = (None, None);
    let held = stand.engine.turn(["scope", "one", "a"].join("\0")).await;
    let tending = tokio::spawn(Arc::clone(&stand.engine).tend());
    stand.wait_until("the other's scope", |stand| stand.two.scopes.lock().contains_key("a")).await;
    assert!(stand.one.scopes.lock().is_empty());
    drop(held);
    stand.wait_until("its own", |stand| stand.one.scopes.lock().contains_key("a")).await;
    tending.abort();
}

#[tokio::test]
async fn a_late_answer_waits_once_where_it_is_tried_again_and_is_left_where_it_is_not() {
    let stand = stand();
    let scope = Scope { key: "orders:read".into(), ..Scope::default() };
    *stand.two.mood.lock() = Some(Error::TimedOut("late".into()));
    let outcomes = stand.engine.everywhere(&caller(), Everywhere::RegisterScope(scope.clone())).await.unwrap();
    assert_eq!(outcomes[1].outcome, "pending");
    let waiting = stand.engine.pending("two", 0, 10).unwrap();
    assert_eq!((waiting.len(), &*waiting[0].operation), (1, "registerScope"), "{waiting:?}");
    let tending = tokio::spawn(Arc::clone(&stand.engine).tend());
    *stand.two.mood.lock() = None;
    stand.wait_until("an empty queue", |stand| stand.engine.pending("two", 0, 10).unwrap().is_empty()).await;
    tending.abort();
    assert!(stand.two.scopes.lock().contains_key("orders:read"));
    // Then nothing keeps the key manager here.
    stand.engine.change(vec![RowChange::Unconfigure("two".into())]).await.unwrap();

    *stand.one.mood.lock() = Some(Error::TimedOut("late".into()));
    assert!(stand.engine.register_scope(&caller(), "one", scope).await.is_err());
    let left = stand.engine.pending("one", 0, 10).unwrap();
    assert_eq!((left.len(), &*left[0].operation), (1, "none"), "{left:?}");
}

#[tokio::test]
async fn what_is_left_half_done_is_audited_and_waits_for_a_human() {
    let stand = stand();
    *stand.one.mood.lock() =
        Some(Error::HalfDone { what: "the second step failed".into(), left: "the client x-1".into() });
    assert!(matches!(stand.create(json!({"clientName": "x"})).await, Err(Error::HalfDone { .. })));
    let waiting = stand.engine.pending("one", 0, 10).unwrap();
    assert_eq!((waiting.len(), &*waiting[0].operation, waiting[0].next_attempt), (1, "none", None));
    assert_eq!(&*stand.engine.audit(0, 10).unwrap()[0].outcome, "half_done");
    stand.engine.forget_pending(&caller(), "one", waiting[0].id).await.unwrap();
    assert!(stand.engine.pending("one", 0, 10).unwrap().is_empty());
    assert!(matches!(stand.engine.forget_pending(&caller(), "one", waiting[0].id).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn what_may_have_been_made_unseen_waits_for_a_human() {
    let stand = stand();
    *stand.one.mood.lock() = Some(Error::Unreachable("it broke off".into()).unclear());
    let failed = stand.create(json!({"clientName": "x"})).await;
    assert!(matches!(&failed, Err(error @ Error::Unclear(_)) if error.to_string().contains("may have been done")));
    let waiting = stand.engine.pending("one", 0, 10).unwrap();
    assert_eq!((waiting.len(), &*waiting[0].operation), (1, "none"), "{waiting:?}");
    let audit = stand.engine.audit(0, 10).unwrap();
    assert_eq!((audit.len(), &*audit[0].outcome), (1, "unreachable"), "{audit:?}");
    *stand.one.mood.lock() = Some(Error::Unreachable("nobody is there".into()));
    assert!(stand.create(json!({"clientName": "x"})).await.is_err());
    assert_eq!(stand.engine.pending("one", 0, 10).unwrap().len(), 1, "nothing was sent");
}

#[tokio::test]
async fn what_could_not_be_undone_is_undone_later() {
    let stand = stored().await;
    stand.engine.change(vec![RowChange::Unconfigure("one".into())]).await.unwrap();
    *stand.one.holding.lock() = Some(Error::Unreachable("gone".into()));
    let failed = stand.create(json!({"clientId": "orphan"})).await;
    assert!(matches!(failed, Err(Error::HalfDone { .. })), "{failed:?}");
    assert!(stand.one.clients.lock().contains_key("orphan"));
    let waiting = stand.engine.pending("one", 0, 10).unwrap();
    let told = (waiting.len(), &*waiting[0].operation, &*waiting[0].subject);
    assert_eq!(told, (1, "deleteApplication", "orphan"));
    let tending = tokio::spawn(Arc::clone(&stand.engine).tend());
    stand.wait_until("a try", |stand| stand.engine.pending("one", 0, 10).unwrap()[0].attempts > 1).await;
    *stand.one.holding.lock() = None;
    stand.wait_until("an empty queue", |stand| stand.engine.pending("one", 0, 10).unwrap().is_empty()).await;
    tending.abort();
    assert!(stand.one.clients.lock().is_empty());
    let audit = stand.engine.audit(0, 10).unwrap();
    let told: Vec<_> = audit.iter().map(|entry| (&*entry.operation, &*entry.outcome)).collect();
    assert_eq!(told, [("createApplication", "half_done"), ("deleteApplication", "done")]);
}

#[tokio::test]
async fn a_client_that_is_gone_at_its_provider_can_be_deleted_here() {
    let stand = stand();
    did(stand.create(json!({"clientId": "a", "applicationUUID": "u"})).await);
    let before = stand.engine.now();
    stand.one.clients.lock().clear();
    did(stand.engine.delete_application(&caller(), "one", "a").await);
    assert!(stand.engine.mapping("one", "a").unwrap().is_none() && stand.is_revoked("a", before));
    let audit = stand.engine.audit(0, 10).unwrap();
    let last = audit.last().unwrap();
    assert_eq!((&*last.operation, &*last.outcome), ("deleteApplication", "done"));
    assert_eq!(last.before["applicationUUID"], "u", "{last:?}");
    // Its application may have another, and there is nothing more to delete.
    assert!(matches!(stand.engine.delete_application(&caller(), "one", "a").await, Err(Error::NotFound(_))));
    did(stand.create(json!({"clientId": "b", "applicationUUID": "u"})).await);
}

#[tokio::test]
async fn what_is_done_everywhere_and_what_is_tried_again_take_their_turns() {
    let stand = stand();
    let scope = |key: &str| Scope { key: key.into(), ..Scope::default() };
    let turn = |key_manager: &str, key: &str| stand.engine.turn(["scope", key_manager, key].join("\0"));
    let held = turn("one", "a").await;
    let engine = Arc::clone(&stand.engine);
    let change = Everywhere::RegisterScope(scope("a"));
    let telling = tokio::spawn(async move { engine.everywhere(&caller(), change).await });
    stand.wait_until("the other's scope", |stand| stand.two.scopes.lock().contains_key("a")).await;
    assert!(stand.one.scopes.lock().is_empty(), "somebody else changes it now");
    drop(held);
    assert!(telling.await.unwrap().unwrap().iter().all(|outcome| outcome.outcome == "done"));
    assert!(stand.one.scopes.lock().contains_key("a"));

    *stand.two.mood.lock() = Some(Error::Unreachable("gone".into()));
    stand.engine.everywhere(&caller(), Everywhere::RegisterScope(scope("b"))).await.unwrap();
    *stand.two.mood.lock() = None;
    let rows = stand.record.view().unwrap().rows(&super::rows::PENDING, &[], 10).unwrap();
    let row = rows.into_iter().next().unwrap().1;
    let (id, held) = (row.id, turn("two", "b").await);
    let engine = Arc::clone(&stand.engine);
    let retrying = tokio::spawn(async move { engine.retry_one(row).await });
    tokio::task::yield_now().await;
    stand.engine.forget_pending(&caller(), "two", id).await.unwrap();
    drop(held);
    retrying.await.unwrap().unwrap();
    assert!(!stand.two.scopes.lock().contains_key("b"), "it was no longer wanted");
}

#[tokio::test]
async fn without_a_record_nothing_is_changed() {
    let registry = prometheus::Registry::new();
    let engine = Engine::new(None, Arc::default(), Arc::new(Clock::new()), &registry, None).unwrap();
    let one = Arc::new(Memory::default());
    engine.registry.replace(vec![one.managed("one", "")]);
    let made = engine.create_application(&caller(), "one", OAuthApplicationInfo::default()).await;
    assert!(matches!(made, Err(Error::Unsupported { .. })), "{made:?}");
    assert!(one.clients.lock().is_empty());
    assert!(engine.scopes("one").await.unwrap().is_empty(), "reading needs none");
}

#[tokio::test]
async fn a_token_is_whose_form_it_has() {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as B64};
    let stand = stand();
    let jwt = |claims: serde_json::Value| format!("{}.{}.sig", B64.encode("{}"), B64.encode(claims.to_string()));
    let own = jwt(json!({"iss": "https://one.example", "aud": ["a"]}));
    for (token, one, two) in
        [(own.as_str(), true, false), ("t_opaque", false, true), ("opaque", false, false), ("a.b.c", false, false)]
    {
        assert_eq!(stand.engine.can_handle_token("one", token).await.unwrap(), one, "{token}");
        assert_eq!(stand.engine.can_handle_token("two", token).await.unwrap(), two, "{token}");
    }
    // A list is no text, and matches nothing.
    let strict = stand.one.managed("one", "token_match = { aud = 'a' }");
    stand.engine.registry.replace(vec![strict]);
    assert!(!stand.engine.can_handle_token("one", &own).await.unwrap());
    assert!(stand.engine.can_handle_token("one", "opaque").await.unwrap(), "it is the only one to ask");
    let another = jwt(json!({"iss": "https://other.example"}));
    let revoked = stand.engine.revoke_token(&caller(), "one", &another.into()).await;
    assert!(matches!(revoked, Err(Error::Invalid { field, .. }) if field == "token"));
}

#[tokio::test]
async fn what_a_setting_forbids_is_unsupported_with_its_name() {
    let stand = stand();
    stand.engine.registry.replace(vec![stand.one.managed("one", "allow_create = false\ntoken_generation = false")]);
    let told = stand.engine.capabilities("one").await.unwrap();
    assert_eq!(told["createApplication"], json!("allow_create = false forbids it"));
    assert_eq!((&told["updateApplication"], &told["canHandleToken"]), (&json!(true), &json!(true)));
    let token = stand.engine.new_access_token(&caller(), "one", "a", AccessTokenRequest::default()).await;
    assert!(matches!(token, Err(Error::SwitchedOff { setting: "token_generation", .. })), "{token:?}");
    let made = stand.create(json!({})).await.unwrap_err();
    assert_eq!(made.to_string(), "createApplication: allow_create = false forbids it");
}

#[tokio::test]
async fn loose_json_is_read_without_mixing_id_and_secret() {
    let stand = stand();
    let json = json!({"callbackUrl": "https://a.example/cb", "client_id": "a", "client_secret": "s3cret",
        "grant_types": "authorization_code", "x": 1});
    let read = stand.engine.build_from_json("one", json.as_object().unwrap().clone()).unwrap();
    assert_eq!((read.client_id.as_deref(), read.call_back_url.as_deref()), (Some("a"), Some("https://a.example/cb")));
    assert!(read.parameters.contains_key("x") && !read.parameters.contains_key("client_secret"));
    let request = json!({"client_id": "a", "validityPeriod": "60", "subject_token": "x",
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"});
    let request = stand.engine.request_from_json("one", request.as_object().unwrap()).unwrap();
    assert_eq!((request.validity_period, &*request.request_parameters["subject_token"]), (Some(60), "x"));
    let app = app(json!({"clientSecret": "s", "parameters": {"tokenScope": ["a", "b"], "validityPeriod": 5}}));
    let request = stand.engine.request_from_application("one", "a", &app).unwrap();
    assert_eq!((request.scope, request.validity_period), (vec!["a".to_owned(), "b".into()], Some(5)));
    let none = OAuthApplicationInfo { client_name: Some("n".into()), ..OAuthApplicationInfo::default() };
    assert!(stand.engine.request_from_application("one", "a", &none).is_err(), "a secret is needed");
}

#[tokio::test]
async fn a_key_manager_stays_while_clients_or_waiting_changes_are_about_it() {
    let stand = stand();
    let remove = || stand.engine.change(vec![RowChange::Unconfigure("one".into())]);
    did(stand.create(json!({ "clientId": "a/b" })).await);
    let refused = remove().await.unwrap_err();
    assert!(matches!(&refused, Error::Conflict(clash) if clash.why.contains("a/b")), "{refused:?}");
    did(stand.engine.delete_application(&caller(), "one", "a/b").await);

    let asked = Asked::new(&caller(), "one", Operation::CreateApplication, "a/b");
    let left = Task::Left { left: "something".into() };
    let row = stand.engine.waiting(&asked, left, &Error::TimedOut("late".into()));
    stand.engine.change(vec![RowChange::Wait(row)]).await.unwrap();
    let refused = remove().await.unwrap_err();
    assert!(matches!(&refused, Error::Conflict(clash) if clash.why.ends_with(": 1")), "{refused:?}");
    stand.engine.forget_pending(&caller(), "one", 1).await.unwrap();

    // Whatever is about others is none of its business.
    did(stand.engine.create_application(&caller(), "two", app(json!({ "clientId": "c" }))).await);
    remove().await.unwrap();
}

/// The key manager `one`, stored.
async fn stored() -> Stand {
    let stand = stand();
    stand.engine.registry.replace(vec![Managed { origin: Origin::Stored, ..stand.one.managed("one", "") }]);
    let settings = json!({"name": "one", "connector": "oidc", "issuer": "https://one.example"});
    stand.engine.change(vec![RowChange::Configure { name: "one".into(), settings }]).await.unwrap();
    stand
}

#[tokio::test]
async fn what_is_removed_but_still_in_force_gets_no_client() {
    let stand = stored().await;
    did(stand.create(json!({"clientId": "before"})).await);
    let removal = || vec![RowChange::Unconfigure("one".into())];
    assert!(
        matches!(stand.engine.change(removal()).await, Err(Error::Conflict(clash)) if clash.why.contains("before"))
    );
    did(stand.engine.delete_application(&caller(), "one", "before").await);
    stand.engine.change(removal()).await.unwrap();

    let refused = stand.create(json!({"clientId": "after"})).await;
    assert!(matches!(&refused, Err(Error::Conflict(clash)) if clash.why.contains("removed")), "{refused:?}");
    assert!(stand.one.clients.lock().is_empty(), "it is taken back");
    assert!(stand.engine.mapping("one", "after").unwrap().is_none());
    stand.one.clients.lock().insert("known".into(), OAuthApplicationInfo::default());
    let secret = Some("any".into());
    let request = MapRequest { client_id: "known".into(), client_secret: secret, ..MapRequest::default() };
    let refused = stand.engine.map_application(&caller(), "one", request).await;
    assert!(matches!(&refused, Err(Error::Conflict(clash)) if clash.why.contains("removed")), "{refused:?}");

    // Another of the name is another key manager.
    let settings = json!({"name": "one", "connector": "oidc", "issuer": "https://other.example"});
    stand.engine.change(vec![RowChange::Configure { name: "one".into(), settings }]).await.unwrap();
    assert!(matches!(stand.create(json!({"clientId": "after"})).await, Err(Error::Conflict(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_beside_creations_leaves_no_mapping_behind() {
    for _ in 0..20 {
        let stand = Arc::new(stored().await);
        let creations: Vec<_> = (0..8)
            .map(|n| {
                let stand = Arc::clone(&stand);
                tokio::spawn(async move { stand.create(json!({"clientId": format!("c{n}")})).await })
            })
            .collect();
        let removed = stand.engine.change(vec![RowChange::Unconfigure("one".into())]).await;
        let mut made = 0;
        for creation in creations {
            made += usize::from(creation.await.unwrap().is_ok());
        }
        let view = stand.record.view().unwrap();
        let mapped = view.rows(&super::rows::MAPPINGS, &[], 100).unwrap().len();
        assert_eq!(mapped, made);
        assert_eq!(stand.one.clients.lock().len(), made, "what is not mapped is taken back");
        assert!(removed.is_err() || made == 0, "removed, with {made} clients");
    }
}
