//! An answer that is lost, or of no use: what may have been made at a provider is undone, or stands in the record.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::{
    Means, key_manager,
    tests::{Server, Site, reply},
};
use crate::{
    keymanager::{
        Caller, Done, Engine, Error, Kept, Managed, MapRequest, Memory, OAuthApplicationInfo, Origin, Result,
    },
    net::{Clock, client::Client},
    store::record::{Record, Table},
    token::settings::KeyManagerSettings,
};

/// An engine over the provider at `address`, which registers clients at `/clients`.
pub(super) fn engine(kind: &str, address: SocketAddr) -> Engine {
    let mut settings = json!({
        "name": "idp", "connector": kind, "issuer": format!("http://{address}/oauth2/token"), "discovery": false,
        "registration_endpoint": format!("http://{address}/clients"), "token_endpoint": format!("http://{address}/token"),
        "revocation_endpoint": format!("http://{address}/revoke"), "client_id": "we", "client_secret": "ours",
    });
    if kind == "http" {
        settings["endpoint"] = format!("http://{address}").into();
        settings["token"] = "our-bearer".into();
    }
    let settings = serde_json::from_value(settings);
    let settings = settings.expect("good settings");
    let (client, clock) = (Client::new().expect("roots"), Arc::new(Clock::new()));
    let record = Record::in_memory().expect("memory");
    let memory: Arc<dyn Memory> = Arc::new(Kept::new(record.clone(), "idp"));
    let means = Means { client: &client, clock: &clock, memory: &memory };
    let connector = key_manager(&settings, "key_managers[0]", means).expect("good settings");
    let engine = Engine::new(Some(record), Arc::default(), clock, &prometheus::Registry::new(), None).expect("metrics");
    engine.registry.replace(vec![Managed { settings, connector, origin: Origin::Declared }]);
    engine
}

pub(super) async fn server(site: impl Fn(SocketAddr, &str) -> Vec<u8> + Send + Sync + 'static) -> Server {
    let site = |at: SocketAddr| -> Box<Site> { Box::new(move |path| site(at, path)) };
    Server::start_at("127.0.0.1", site, None).await
}

async fn create(engine: &Engine, id: Option<&str>) -> Result<Done<OAuthApplicationInfo>> {
    let caller = Caller { who: "tester".into(), ..Caller::default() };
    let app = OAuthApplicationInfo {
        client_id: id.map(str::to_owned),
        client_name: Some("shop".into()),
        ..OAuthApplicationInfo::default()
    };
    engine.create_application(&caller, "idp", app).await
}

/// What is left for a human, and what the audit says became of the operation.
fn left(engine: &Engine) -> (usize, Vec<String>) {
    let waiting = engine.pending("idp", 0, 10).expect("readable");
    assert!(waiting.iter().all(|row| row.operation == "none"), "{waiting:?}");
    let audit = engine.audit(0, 10).expect("readable");
    (waiting.len(), audit.into_iter().map(|entry| entry.outcome).collect())
}

#[tokio::test]
async fn what_may_have_been_made_is_noted_and_what_was_refused_is_not() {
    for (name, answer, outcome) in [
        ("the connection breaks", Vec::new(), Some("unreachable")),
        ("cut short", b"HTTP/1.1 201 Created\r\nContent-Length: 20\r\n\r\n{}".to_vec(), Some("unreachable")),
        ("no JSON", reply("201 Created", "{"), Some("answer")),
        ("an error of its own", reply("500 Internal Server Error", "{}"), Some("refused")),
        ("refused", reply("400 Bad Request", r#"{"error":"invalid_client_metadata"}"#), None),
        ("it has no such thing", reply("501 Not Implemented", "{}"), None),
    ] {
        let server = server(move |_, _| answer.clone()).await;
        let engine = engine("oidc", server.address);
        let failed = create(&engine, None).await;
        assert_eq!(server.asked(), ["/clients"], "{name}: once");
        assert_eq!(matches!(failed, Err(Error::Unclear(_))), outcome.is_some(), "{name}: {failed:?}");
        let expected = Vec::from_iter(outcome.map(str::to_owned));
        assert_eq!(left(&engine), (expected.len(), expected), "{name}");
    }
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let engine = engine("oidc", gone);
    let failed = create(&engine, None).await;
    assert!(matches!(failed, Err(Error::Unreachable(_))), "{failed:?}");
    assert_eq!(left(&engine), (0, Vec::new()), "nothing was sent");
}

#[tokio::test]
async fn a_client_whose_registration_is_of_no_use_is_taken_back() {
    for id in [Value::Null, json!(""), json!("a\u{0}b")] {
        for (undone, is) in [("204 No Content", true), ("500 Internal Server Error", false)] {
            let id = id.clone();
            let server = server(move |at, path| match path {
                "/clients" => {
                    let uri = format!("http://{at}/clients/c1");
                    let told = json!({"client_id": id, "client_secret": "s3cret",
                        "registration_access_token": "t0ken", "registration_client_uri": uri});
                    reply("201 Created", &told.to_string())
                }
                _ => reply(undone, ""),
            })
            .await;
            let engine = engine("oidc", server.address);
            let failed = create(&engine, None).await.expect_err("it is of no use");
            assert_eq!(server.asked(), ["/clients", "/clients/c1"]);
            assert_eq!(matches!(failed, Error::Answer(_)), is, "{failed:?}");
            assert_eq!(matches!(failed, Error::HalfDone { .. }), !is, "{failed:?}");
            assert_eq!(left(&engine).0, usize::from(!is));
            assert!(!failed.to_string().contains("s3cret") && !failed.to_string().contains("t0ken"), "{failed}");
        }
    }
}

#[tokio::test]
async fn an_id_of_our_own_choice_is_taken_back_and_another_is_not_touched() {
    let broken = "500 Internal Server Error";
    for (made, undone, rows) in [
        (Vec::new(), "204 No Content", 0),
        // It may yet come to be.
        (Vec::new(), "404 Not Found", 1),
        (Vec::new(), broken, 1),
        (reply(broken, "{}"), "404 Not Found", 0),
        (reply("201 Created", "{}"), "204 No Content", 0),
        (reply("201 Created", "{"), "204 No Content", 0),
    ] {
        let answer = made.clone();
        let server = server(move |_, path| match path {
            "/clients" => answer.clone(),
            _ => reply(undone, ""),
        })
        .await;
        let engine = engine("wso2is", server.address);
        let failed = create(&engine, None).await;
        assert!(failed.is_err(), "{failed:?}");
        let asked = server.asked();
        assert!(asked.len() == 2 && asked[1].len() > "/clients/".len() + 20, "{asked:?}");
        assert_eq!(left(&engine).0, rows, "{undone}: {failed:?}");

        // One that was wished for may have been there before.
        let engine = self::engine("wso2is", server.address);
        let failed = create(&engine, Some("theirs")).await;
        assert!(matches!(failed, Err(Error::Unclear(_))), "{failed:?}");
        assert_eq!((server.asked().len(), left(&engine).0), (3, 1), "{:?}", server.asked());
    }
}

#[tokio::test]
async fn a_client_that_nobody_here_can_manage_is_unmapped_and_stays() {
    for managed in [true, false] {
        let server = server(move |at, _| {
            let mut told = json!({"client_id": "c1", "client_secret": "s3cret"});
            if managed {
                told["registration_access_token"] = "t0ken".into();
                told["registration_client_uri"] = format!("http://{at}/clients/c1").into();
            }
            reply("201 Created", &told.to_string())
        })
        .await;
        let (engine, caller) = (engine("oidc", server.address), Caller { who: "tester".into(), ..Caller::default() });
        create(&engine, None).await.expect("it is made");
        if managed {
            let refused = engine.delete_mapping(&caller, "idp", "c1").await;
            assert!(matches!(refused, Err(Error::Conflict(_))), "it can be deleted: {refused:?}");
            continue;
        }
        let refused = engine.delete_application(&caller, "idp", "c1").await;
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
        engine.delete_mapping(&caller, "idp", "c1").await.expect("nothing else can be done");
        assert_eq!(engine.mapping("idp", "c1").expect("readable"), None);
        let forgotten = engine.retrieve_application("idp", "c1").await;
        assert!(matches!(forgotten, Err(Error::NotFound(_))), "nothing of it is remembered: {forgotten:?}");
        let told = engine.audit(0, 10).expect("readable").pop().and_then(|line| line.detail).expect("a reason");
        assert!(told.contains("left at the provider") && told.contains("registration access token"), "{told}");
        assert_eq!(server.asked(), ["/clients"], "the provider is not asked");
    }
}

/// Its provider cannot be asked, and is not: that is neither success, nor "there is no such client".
#[tokio::test]
async fn of_a_client_mapped_by_its_id_alone_its_provider_is_asked_nothing() {
    let server = server(|_, _| reply("204 No Content", "")).await;
    let (engine, caller) = (engine("oidc", server.address), Caller { who: "tester".into(), ..Caller::default() });
    let managed = engine.registry.find("idp").expect("it is there");
    let settings = KeyManagerSettings { validate_mapped: false, ..managed.settings.clone() };
    engine.registry.replace(vec![Managed { settings, ..Managed::clone(&managed) }]);
    let request = MapRequest { client_id: "theirs".into(), ..MapRequest::default() };
    engine.map_application(&caller, "idp", request).await.expect("it is believed");
    let read = engine.retrieve_application("idp", "theirs").await;
    assert!(matches!(read, Err(Error::Unsupported { .. })), "{read:?}");
    for dry_run in [true, false] {
        let caller = Caller { dry_run, ..caller.clone() };
        let refused = engine.update_application(&caller, "idp", "theirs", OAuthApplicationInfo::default()).await;
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
        // Owners are kept here.
        engine.update_application_owner(&caller, "idp", "theirs", "ada").await.expect("it has a mapping");
        let owner = engine.mapping("idp", "theirs").expect("readable").and_then(|mapping| mapping.owner.clone());
        assert_eq!(owner.as_deref(), (!dry_run).then_some("ada"));
        let never = engine.update_application_owner(&caller, "idp", "nobody", "ada").await;
        assert!(matches!(never, Err(Error::NotFound(_))), "{never:?}");
    }
    for dry_run in [true, false] {
        let refused = engine.delete_application(&Caller { dry_run, ..caller.clone() }, "idp", "theirs").await;
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    }
    assert!(engine.mapping("idp", "theirs").expect("readable").is_some());
    engine.delete_mapping(&caller, "idp", "theirs").await.expect("that is the way");
    let never = engine.delete_application(&caller, "idp", "theirs").await;
    assert!(matches!(never, Err(Error::NotFound(_))), "nothing is known of it: {never:?}");
    assert_eq!(server.asked(), [""; 0]);
}

/// RFC 7591 section 3 lets a provider give an id again.
#[tokio::test]
async fn a_client_that_is_given_again_stays_its_applications_and_is_managed_by_the_newest_token() {
    for again in [json!({ "registration_access_token": "newest" }), json!({ "client_secret": "s3cret-2" })] {
        let (asked, more) = (AtomicUsize::new(0), again.clone());
        let server = server(move |at, path| {
            let mut told = json!({ "client_id": "c1", "registration_client_uri": format!("http://{at}/clients/c1") });
            let told_again = match (path, asked.fetch_add(1, Ordering::Relaxed)) {
                ("/clients", 0) => json!({ "registration_access_token": "first", "client_secret": "s3cret-1" }),
                ("/clients", _) => more.clone(),
                _ => json!({}),
            };
            told.as_object_mut().expect("an object").extend(told_again.as_object().expect("an object").clone());
            reply("200 OK", &told.to_string())
        })
        .await;
        let engine = engine("oidc", server.address);
        let create = async |application: &str| {
            let app = json!({ "applicationUUID": application, "appOwner": application });
            engine.create_application(&Caller::default(), "idp", serde_json::from_value(app).expect("good")).await
        };
        assert!(matches!(create("first").await, Ok(Done::Did(_))));
        let failed = create("second").await.expect_err("it is another's");
        assert!(matches!(failed, Error::HalfDone { .. }), "{failed:?}");
        let kept =
            engine.store().expect("a record").get(&MEMORIES, b"idp\nclient/c1").expect("readable").expect("kept");
        let kept: Value = serde_json::from_str(&kept).expect("JSON");
        let token = again["registration_access_token"].as_str().unwrap_or("first");
        assert_eq!((&kept["access"]["token"], &kept["owner"]), (&json!(token), &json!("first")), "{kept}");
        let read = engine.retrieve_application("idp", "c1").await.expect("it is managed");
        assert_eq!((read.application_uuid.as_deref(), read.app_owner.as_deref()), (Some("first"), Some("first")));
    }
}

const MEMORIES: Table<String> = Table::new("keymanager_memories");
