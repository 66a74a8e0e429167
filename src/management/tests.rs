//! The door as its callers see it, with providers in memory.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::{
    routes::routes,
    testing::{Stand, access},
};
use crate::{
    keymanager::Error,
    net::{Clock, door::Peer},
};

#[tokio::test]
async fn a_client_lives_and_dies() {
    let stand = Stand::start().await;
    let made = stand.ask("POST", "/v1/key-managers/one/clients", r#"{"clientId":"a/b","appOwner":"ada"}"#).await;
    assert_eq!((made.status, &made.json()["clientSecret"]), (201, &json!("s3cret-of-a/b")), "{}", made.body);
    let path = "/v1/key-managers/one/clients/a%2Fb";
    let read = stand.ask("GET", path, "").await;
    assert_eq!((read.status, &read.json()["clientId"], read.json().get("clientSecret")), (200, &json!("a/b"), None));
    let changed = stand.ask("PUT", path, r#"{"clientName":"new"}"#).await;
    assert_eq!((changed.status, &changed.json()["clientName"]), (200, &json!("new")));
    let secret = stand.ask("POST", &format!("{path}/secret"), "").await;
    assert_eq!((secret.status, &secret.json()["clientSecret"]), (200, &json!("n3w-s3cret")));
    let token = stand.ask("POST", &format!("{path}/tokens"), r#"{"scope":["a"]}"#).await;
    assert_eq!((token.status, &token.json()["keyManager"]), (201, &json!("one")), "{}", token.body);
    assert_eq!(stand.ask("DELETE", path, "").await.status, 204);
    let gone = stand.ask("GET", path, "").await;
    assert_eq!((gone.status, gone.field("content-type")), (404, Some("application/problem+json")));
    let audit = stand.ask("GET", "/v1/audit?limit=3", "").await.json();
    let told: Vec<_> = audit["items"].as_array().unwrap().iter().map(|entry| entry["operation"].clone()).collect();
    assert_eq!(told, ["createApplication", "updateApplication", "getNewApplicationConsumerSecret"]);
    let rest = stand.ask("GET", &format!("/v1/audit?cursor={}", audit["cursor"].as_str().unwrap()), "").await.json();
    assert_eq!(rest["items"][1]["operation"], "deleteApplication");
    assert!(!format!("{audit}{rest}").contains("s3cret"), "{audit}{rest}");
}

#[tokio::test]
async fn only_whoever_may_call_may() {
    let stand = Stand::start().await;
    for (head, code, challenge) in [
        (String::new(), "900902", "Bearer realm=\"tollgate\""),
        ("Authorization: Bearer wrong\r\n".to_owned(), "900901", "Bearer realm=\"tollgate\", error=\"invalid_token\""),
        ("Authorization: Basic YTpi\r\n".to_owned(), "900902", "Bearer realm=\"tollgate\""),
    ] {
        for path in ["/v1/key-managers", "/v1/nothing", "/"] {
            let answer = stand.raw("GET", path, &head, "").await;
            assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some(challenge)), "{head}{path}");
            assert_eq!(answer.json()["code"], code, "{head}");
        }
    }
    let twice = format!("Authorization: Bearer {0}\r\nAuthorization: Bearer {0}\r\n", stand.key);
    assert_eq!(stand.raw("GET", "/v1/key-managers", &twice, "").await.status, 400);
    assert_eq!(stand.ask("GET", "/v1/key-managers", "").await.status, 200);
}

#[tokio::test]
async fn every_route_wants_a_credential_and_knows_its_verbs() {
    let stand = Stand::start().await;
    for route in routes() {
        let path: String = route
            .path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let answer = stand.raw(route.method.as_str(), &path, "", "").await;
        assert_eq!(answer.status, 401, "{} {path}", route.method);
        // No such key manager, or what the body lacks: but the route is there.
        let answer = stand.ask(route.method.as_str(), &path, "").await;
        assert!(
            !matches!(answer.status, 401 | 403 | 405 | 500),
            "{} {path}: {} {}",
            route.method,
            answer.status,
            answer.body
        );
        let answer = stand.ask("TRACE", &path, "").await;
        assert_eq!(answer.status, 405, "{path}");
        let allow: Vec<&str> = answer.field("allow").unwrap_or_default().split(',').collect();
        for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", route.method.as_str()] {
            let named = allow.iter().filter(|it| **it == method).count();
            assert!(named <= 1 && (named == 1 || *method != route.method), "{path}: {allow:?}");
        }
        assert_eq!(answer.json()["status"], 405);
    }
}

#[tokio::test]
async fn bad_input_is_named() {
    let stand = Stand::start().await;
    let clients = "/v1/key-managers/one/clients";
    let large = format!(r#"{{"clientName":"{}"}}"#, "x".repeat(256 << 10));
    for (method, path, body, status, field) in [
        ("POST", clients, r#"{"clientID":"a"}"#, 400, Some("clientID")),
        ("POST", clients, r#"{"clientId":7}"#, 400, Some("clientId")),
        ("POST", clients, r#"{"clientId":"a","parameters":{"grant_types":"implicit"}}"#, 400, Some("callBackURL")),
        ("POST", clients, r#"{"clientId":"#, 400, Some("body")),
        ("POST", clients, r#"{} {}"#, 400, Some("body")),
        ("POST", clients, &large, 413, None),
        ("PUT", "/v1/key-managers/one/clients/a%00b", "{}", 400, Some("ck")),
        ("GET", "/v1/key-managers/one/clients/%FF", "", 400, None),
        ("GET", "/v1/key-managers/none/clients/a", "", 404, None),
        ("GET", "/v1/audit?limit=0", "", 400, Some("limit")),
        ("GET", "/v1/audit?cursor=x", "", 400, Some("cursor")),
        ("GET", "/v1/audit?pages=2", "", 400, Some("pages")),
        ("GET", "/v1/audit?limit=1&limit=2", "", 400, Some("limit")),
        ("GET", "/v1/audit", "{}", 400, Some("body")),
        ("POST", "/v1/key-managers/one/clients?dry_run=1", "{}", 400, Some("dry_run")),
        ("POST", "/v1/key-managers/one/scopes", r#"{"key":"a b"}"#, 400, Some("key")),
        ("POST", "/v1/key-managers/one/resources", r#"{"apiId":""}"#, 400, Some("apiId")),
        ("POST", "/v1/key-managers/one/tokens/introspect", r#"{"token":""}"#, 400, Some("token")),
        ("POST", "/v1/revocations", r#"{"kind":"all","value":"x"}"#, 400, Some("kind")),
        ("POST", "/v1/revocations", r#"{"kind":"jti","value":"x"}"#, 400, Some("issuer")),
        ("POST", "/v1/key-managers/one/tokens/revoke-one-time", r#"{"token":"x","consumerKey":"a"}"#, 501, None),
    ] {
        let answer = stand.ask(method, path, body).await;
        assert_eq!(answer.status, status, "{path} {}: {}", &body[..body.len().min(80)], answer.body);
        let problem = answer.json();
        assert_eq!(problem.get("field").and_then(Value::as_str), field, "{path}: {problem}");
        assert_eq!(problem["status"], status, "{problem}");
    }
    let typed = format!("Authorization: Bearer {}\r\nContent-Type: text/plain\r\n", stand.key);
    assert_eq!(stand.raw("POST", clients, &typed, "{}").await.status, 415);
    let told = stand.ask("POST", clients, r#"{"clientSecret":{"x":"s3cret"}}"#).await;
    assert!(told.status == 400 && !told.body.contains("s3cret"), "{}", told.body);
}

#[tokio::test]
async fn of_two_who_change_one_thing_the_later_is_told() {
    let stand = Stand::start().await;
    let (path, tag) = stand.client("a").await;
    let condition = format!("If-Match: {tag}\r\n");
    let (first, second) = tokio::join!(
        stand.ask_with("PUT", &path, &condition, r#"{"clientName":"first"}"#),
        stand.ask_with("PUT", &path, &condition, r#"{"clientName":"second"}"#)
    );
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412], "{} {}", first.body, second.body);
    assert_eq!(stand.ask_with("DELETE", &path, &condition, "").await.status, 412);
    for malformed in ["If-Match: a\tb\r\n", "If-Match: \r\n", "If-Match: *\r\nIf-Match: *\r\n"] {
        assert_eq!(stand.ask_with("DELETE", &path, malformed, "").await.status, 400, "{malformed:?}");
    }
    assert_eq!(stand.ask_with("DELETE", &path, "If-Match: *\r\n", "").await.status, 204);
}

#[tokio::test]
async fn a_condition_holds_for_all_that_is_a_clients_and_is_refused_where_there_is_no_one_thing() {
    let stand = Stand::start().await;
    let (path, tag) = stand.client("a").await;
    let (now, stale) = (format!("If-Match: {tag}\r\n"), "If-Match: \"stale\"\r\n");
    for (method, below) in [("POST", "secret"), ("POST", "secrets"), ("DELETE", "secrets/s"), ("DELETE", "mapping")] {
        let refused = stand.ask_with(method, &format!("{path}/{below}"), stale, "").await;
        assert_eq!(refused.status, 412, "{below}: {}", refused.body);
    }
    assert_eq!(stand.one.clients.lock()["a"].client_secret.as_ref().unwrap().reveal(), "s3cret-of-a");
    assert_eq!(stand.ask_with("POST", &format!("{path}/secret"), &now, "").await.status, 200);
    assert_eq!(stand.one.clients.lock()["a"].client_secret.as_ref().unwrap().reveal(), "n3w-s3cret");

    for (method, path, body) in [
        ("POST", "/v1/key-managers/one/clients", r#"{"clientId":"b"}"#),
        ("POST", "/v1/key-managers/one/clients/map", r#"{"clientId":"b"}"#),
        ("POST", "/v1/scopes", r#"{"key":"a"}"#),
        ("PUT", "/v1/scopes/a", r#"{"name":"A"}"#),
        ("DELETE", "/v1/resources/a", ""),
        ("DELETE", "/v1/key-managers/one/pending/1", ""),
    ] {
        let refused = stand.ask_with(method, path, "If-Match: *\r\n", body).await;
        assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("if-match")), "{path}: {}", refused.body);
    }
    assert!(stand.one.scopes.lock().is_empty() && stand.one.clients.lock().len() == 1);
    assert_eq!(stand.ask_with("GET", &path, stale, "").await.status, 200, "who only reads changes nothing");
}

#[tokio::test]
async fn a_dry_run_tells_and_does_nothing() {
    let stand = Stand::start().await;
    let plan = stand.ask("POST", "/v1/key-managers/one/clients?dry_run=true", r#"{"clientId":"a"}"#).await;
    assert_eq!((plan.status, &plan.json()["operation"]), (200, &json!("createApplication")), "{}", plan.body);
    assert!(stand.one.clients.lock().is_empty());
    assert_eq!(stand.ask("GET", "/v1/audit", "").await.json()["items"], json!([]));
}

#[tokio::test]
async fn what_a_setting_forbids_has_wso2s_code() {
    let stand = Stand::start().await;
    stand.engine.registry.replace(vec![stand.one.managed("one", "allow_create = false\ntoken_generation = false")]);
    for (path, code, setting) in [
        ("/v1/key-managers/one/clients", "901405", "allow_create"),
        ("/v1/key-managers/one/clients/a/tokens", "901413", "token_generation"),
    ] {
        let refused = stand.ask("POST", path, "{}").await;
        assert_eq!((refused.status, &refused.json()["code"]), (501, &json!(code)), "{path}: {}", refused.body);
        assert!(refused.body.contains(setting), "{path}: {}", refused.body);
    }
    // A provider's own words are none of a setting.
    stand.engine.registry.replace(vec![stand.one.managed("one", "")]);
    stand.one.cannot.lock().push(crate::keymanager::Operation::CreateApplication);
    let refused = stand.ask("POST", "/v1/key-managers/one/clients", "{}").await;
    assert_eq!((refused.status, &refused.json()["code"]), (501, &json!("901413")), "{}", refused.body);
}

#[tokio::test]
async fn a_providers_refusals_have_their_statuses() {
    let stand = Stand::start().await;
    let refused = |status| Error::Refused { status, detail: "their own words".into() };
    for (error, status) in [
        (refused(400), 400),
        (refused(409), 409),
        (refused(422), 422),
        (refused(401), 502),
        (refused(500), 502),
        (Error::Credentials("no".into()), 502),
        (Error::Answer("odd".into()), 502),
        (Error::Unreachable("gone".into()), 503),
        (Error::TimedOut("late".into()), 504),
        (Error::Unreachable("broke off".into()).unclear(), 502),
        (Error::HalfDone { what: "a".into(), left: "b".into() }, 502),
        (Error::Record("full".into()), 503),
    ] {
        *stand.one.mood.lock() = Some(error.clone());
        let answer = stand.ask("POST", "/v1/key-managers/one/scopes", r#"{"key":"a"}"#).await;
        assert_eq!(answer.status, status, "{error}");
        let (said, told) = (answer.json()["detail"].clone(), error.to_string());
        match error {
            Error::TimedOut(_) | Error::Unclear(_) => {
                let said = said.as_str().unwrap();
                assert!(said.starts_with(&told) && said.contains("may have been done"), "{said}");
                assert!(said.contains("/pending lists it"), "{said}");
            }
            _ => assert_eq!(said, told),
        }
    }
    let pending = stand.ask("GET", "/v1/key-managers/one/pending?limit=1", "").await.json();
    assert_eq!(pending["items"][0]["operation"], "none", "{pending}");
    assert!(pending["cursor"].is_string(), "a time-out and a half: {pending}");
    let id = &pending["items"][0]["id"];
    assert_eq!(stand.ask("DELETE", &format!("/v1/key-managers/one/pending/{id}"), "").await.status, 204);
    assert_eq!(stand.ask("DELETE", &format!("/v1/key-managers/one/pending/{id}"), "").await.status, 404);
}

#[tokio::test]
async fn all_key_managers_are_told_and_each_outcome_is_listed() {
    let stand = Stand::start().await;
    let done = stand.ask("POST", "/v1/scopes", r#"{"key":"a"}"#).await;
    assert_eq!(done.status, 200, "{}", done.body);
    *stand.two.mood.lock() = Some(Error::Unreachable("gone".into()));
    let waits = stand.ask("PUT", "/v1/scopes/a", r#"{"name":"A"}"#).await;
    let outcomes = &waits.json()["outcomes"];
    assert_eq!(
        (waits.status, &outcomes[0]["outcome"], &outcomes[1]["outcome"]),
        (202, &json!("done"), &json!("pending"))
    );
    let waiting = stand.ask("GET", "/v1/key-managers/two/pending", "").await.json();
    assert_eq!(waiting["items"][0]["subject"], "a");
    let read = stand.ask("GET", "/v1/scopes/a", "").await.json();
    assert_eq!(
        (&read["outcomes"][0]["result"]["name"], &read["outcomes"][1]["outcome"]),
        (&json!("A"), &json!("failed"))
    );
    *stand.two.mood.lock() = None;
    let api = r#"{"apiId":"orders","uris":["/orders"]}"#;
    assert_eq!(stand.ask("POST", "/v1/resources", api).await.status, 200);
    assert_eq!(stand.ask("PUT", "/v1/resources/orders/scopes", r#"{"scopes":["a"]}"#).await.status, 200);
    assert_eq!(stand.two.resources.lock()["orders"].scopes, ["a"]);
    assert_eq!(stand.ask("DELETE", "/v1/resources/orders/scopes", "").await.status, 200);
    assert!(stand.one.resources.lock()["orders"].scopes.is_empty());
    let nowhere = stand.ask("DELETE", "/v1/scopes/never", "").await;
    assert_eq!(nowhere.status, 404, "all agree: {}", nowhere.body);
    assert!(nowhere.body.contains("one: ") && nowhere.body.contains("two: "), "{}", nowhere.body);
    *stand.two.mood.lock() = Some(Error::Refused { status: 403, detail: "not yours".into() });
    let differing = stand.ask("DELETE", "/v1/scopes/never", "").await;
    assert_eq!(differing.status, 502, "{}", differing.body);
}

#[tokio::test]
async fn what_the_schema_forbids_is_400_and_what_it_allows_is_not() {
    let stand = Stand::start().await;
    let scope = r#"{"key":"a"}"#;
    assert_eq!(stand.ask("POST", "/v1/scopes", scope).await.status, 200);
    let (long, wide) = ("x".repeat(256), "%C3%BC".repeat(255));
    for (method, path, body, status, field) in [
        ("GET", format!("/v1/scopes/{long}"), "", 400, "key"),
        ("GET", format!("/v1/resources/{long}"), "", 400, "apiId"),
        ("GET", format!("/v1/resources/{wide}"), "", 404, ""),
        ("GET", "/v1/audit?cursor=%2B5".into(), "", 400, "cursor"),
        ("GET", "/v1/key-managers/one/scopes?api=a,,b".into(), "", 400, "api"),
        ("GET", "/v1/key-managers/one/scopes?api=a,%20b".into(), "", 400, "api"),
        ("GET", "/v1/key-managers/one/scopes?api=a&limit=-1".into(), "", 400, "limit"),
        ("GET", "/v1/key-managers/one/scopes?api=%zz".into(), "", 400, "api"),
        ("GET", "/v1/key-managers/one/scopes?limit=1&api=a%2".into(), "", 400, "api"),
        ("GET", "/v1/key-managers/one/scopes?api=%ff".into(), "", 400, "api"),
        ("GET", "/v1/key-managers/one/scopes?&api=%C3%BC&".into(), "", 404, ""),
        ("GET", "/v1/usage?tier=%".into(), "", 400, "tier"),
        ("PUT", "/v1/resources/x/scopes".into(), r#"{"scopes":[]}"#, 400, "scopes"),
        ("DELETE", "/v1/resources/x/scopes".into(), r#"{"scopes":[]}"#, 400, "scopes"),
        ("DELETE", "/v1/resources/x/scopes".into(), "{}", 400, "scopes"),
        ("PUT", "/v1/scopes/a".into(), r#"{"key":""}"#, 400, "key"),
        ("PUT", "/v1/scopes/a".into(), r#"{"name":"A"}"#, 200, ""),
        ("POST", "/v1/scopes".into(), r#"{"name":"A"}"#, 400, "key"),
        ("PUT", "/v1/resources/x".into(), r#"{"apiId":""}"#, 400, "apiId"),
        ("GET", "/v1/revocations/A".into(), "", 400, "id"),
        ("GET", "/v1/revocations/AA".into(), "", 404, ""),
        ("POST", "/v1/key-managers/one/tokens/parse".into(), r#"{"validityPeriod":"+5"}"#, 400, "validityPeriod"),
        ("POST", "/v1/key-managers/one/tokens/parse".into(), r#"{"validityPeriod":"2147483647"}"#, 200, ""),
        ("POST", "/v1/key-managers/one/tokens/parse".into(), r#"{"client_secret":"ü"}"#, 400, "client_secret"),
        (
            "POST",
            "/v1/key-managers/one/clients/parse".into(),
            r#"{"callback_url":1,"callbackUrl":"a:b"}"#,
            400,
            "callback_url",
        ),
        (
            "POST",
            "/v1/revocations".into(),
            r#"{"kind":"jti","value":"a","until":1,"issuer":"https://one.example"}"#,
            409,
            "",
        ),
        (
            "POST",
            "/v1/revocations".into(),
            r#"{"kind":"jti","value":"a","until":4e9,"issuer":"https://one.example"}"#,
            201,
            "",
        ),
        (
            "POST",
            "/v1/revocations".into(),
            r#"{"kind":"jti","value":"a","until":1.5,"issuer":"https://one.example"}"#,
            400,
            "until",
        ),
    ] {
        let answer = stand.ask(method, &path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.body);
        if status == 400 {
            assert_eq!(answer.json()["field"], field, "{method} {path} {body}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn scopes_and_resources_are_kept_in_step_with_their_provider() {
    let stand = Stand::start().await;
    let scopes = "/v1/key-managers/one/scopes";
    for key in ["a", "b", "c"] {
        assert_eq!(stand.ask("POST", scopes, &format!(r#"{{"key":"{key}"}}"#)).await.status, 201);
    }
    assert_eq!(stand.ask("POST", scopes, r#"{"key":"a"}"#).await.status, 409);
    let page = stand.ask("GET", &format!("{scopes}?limit=2"), "").await.json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["cursor"]), (2, &json!("b")));
    let rest = stand.ask("GET", &format!("{scopes}?cursor=b"), "").await.json();
    assert_eq!((&rest["items"][0]["key"], rest.get("cursor")), (&json!("c"), None));
    assert_eq!(stand.ask("HEAD", &format!("{scopes}/a"), "").await.status, 200);
    assert_eq!(stand.ask("HEAD", &format!("{scopes}/z"), "").await.status, 404);
    let lacking = stand.ask("POST", &format!("{scopes}/validate"), r#"{"scopes":[{"key":"a"},{"key":"z"}]}"#).await;
    assert!(lacking.status == 400 && lacking.body.contains(" z"), "{}", lacking.body);
    assert_eq!(stand.ask("PUT", &format!("{scopes}/a"), r#"{"key":"b"}"#).await.status, 400);
    let api = stand.ask("POST", "/v1/key-managers/one/resources", r#"{"apiId":"x/y","uris":["/a"]}"#).await;
    assert_eq!(api.status, 201, "{}", api.body);
    let path = "/v1/key-managers/one/resources/x%2Fy";
    assert_eq!(stand.ask("PUT", path, r#"{"uris":["/b"]}"#).await.json()["uris"], json!(["/b"]));
    assert_eq!(
        stand.ask("PATCH", &format!("{path}/scopes"), r#"{"scopes":["b"]}"#).await.json()["scopes"],
        json!(["b"])
    );
    assert_eq!(stand.ask("DELETE", &format!("{path}/scopes"), r#"{"scopes":["b"]}"#).await.status, 204);
    assert_eq!(stand.ask("DELETE", path, "").await.status, 204);
    assert_eq!(stand.ask("DELETE", path, "").await.status, 404);
}

#[tokio::test]
async fn revocations_are_listed_and_no_token_is_kept() {
    let stand = Stand::start().await;
    let body = r#"{"kind":"token","value":"t0ken","issuer":"https://one.example"}"#;
    let made = stand.ask("POST", "/v1/revocations", body).await;
    assert_eq!((made.status, made.json()["value"].as_str().map(str::len)), (201, Some(64)), "{}", made.body);
    let client = r#"{"kind":"client","value":"c","issuer":"https://one.example","before":5}"#;
    assert_eq!(stand.ask("POST", "/v1/revocations", client).await.json()["before"], 5);
    let page = stand.ask("GET", "/v1/revocations?limit=1", "").await.json();
    let rest =
        stand.ask("GET", &format!("/v1/revocations?cursor={}", page["cursor"].as_str().unwrap()), "").await.json();
    assert_eq!((&page["items"][0]["kind"], &rest["items"][0]["kind"]), (&json!("client"), &json!("token")));
    assert!(!stand.ask("GET", "/v1/audit", "").await.body.contains("t0ken"));
}

#[tokio::test]
async fn without_a_store_it_reads_and_answers_501_to_changes() {
    let stand = Stand::with(None).await;
    assert_eq!(stand.ask("GET", "/v1/key-managers/one/scopes", "").await.status, 200);
    for (path, body) in [
        ("/v1/key-managers/one/clients", "{}"),
        ("/v1/scopes", r#"{"key":"a"}"#),
        ("/v1/revocations", r#"{"kind":"jti","value":"x","issuer":"y"}"#),
    ] {
        let answer = stand.ask_with("POST", path, "Idempotency-Key: k\r\n", body).await;
        assert!(answer.status == 501 && answer.body.contains("[store]"), "{path}: {}", answer.body);
    }
    assert!(stand.one.clients.lock().is_empty());
}

#[tokio::test]
async fn the_documents_are_there_for_everyone_and_load_nothing_from_elsewhere() {
    let stand = Stand::start().await;
    let api = stand.raw("GET", "/openapi.json", "", "").await;
    assert_eq!((api.status, &api.json()["openapi"]), (200, &json!("3.1.0")));
    let page = stand.raw("GET", "/docs", "", "").await;
    assert!(
        page.status == 200 && page.field("content-security-policy").is_some_and(|it| it.contains("default-src 'none'"))
    );
    for part in ["/docs/docs.js", "/docs/docs.css"] {
        let part = stand.raw("GET", part, "", "").await;
        assert!(part.status == 200 && !part.body.contains("http"), "{}", part.body);
    }
    assert!(page.body.contains("/docs/docs.js") && !page.body.contains("http"));
}

#[tokio::test]
async fn the_bootstrap_key_is_of_no_use_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (access, key) = access(folder.path(), &Arc::new(Clock::new()), Arc::default());
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}")).unwrap());
    for (address, may) in [
        (Some("127.0.0.1"), true),
        (Some("::1"), true),
        (Some("::ffff:127.0.0.1"), true),
        (None, true),
        (Some("192.0.2.1"), false),
        (Some("2001:db8::1"), false),
    ] {
        let peer = Peer { address: address.map(|address| address.parse().unwrap()), certificate: None };
        assert_eq!(access.admit(&headers, Some(&peer)).await.is_ok(), may, "{address:?}");
    }
    assert!(access.admit(&headers, None).await.is_err(), "nobody knows who it is");
}

#[tokio::test]
async fn what_many_callers_change_at_once_is_all_kept() {
    let folder = tempfile::tempdir().unwrap();
    let record = crate::store::record::Record::open(&folder.path().join("r.redb")).unwrap();
    let stand = Arc::new(Stand::with(Some(record)).await);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..64 {
        let stand = Arc::clone(&stand);
        callers.spawn(async move {
            let body = format!(r#"{{"clientId":"c{caller}","applicationUUID":"u{caller}"}}"#);
            stand.ask("POST", "/v1/key-managers/one/clients", &body).await.status
        });
    }
    assert!(callers.join_all().await.into_iter().all(|status| status == 201));
    assert_eq!(stand.engine.audit(0, 100).unwrap().len(), 64);
}
