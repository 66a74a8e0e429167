//! Scopes that the Key Manager registered, and who gets them.

use serde_json::Value;

use super::{
    manage::{ClientSpec, Error as ManageError},
    managed::{PASSWORD, all_grants, scope, with_users},
    testing::{GRANT, Server},
    *,
};

#[tokio::test]
async fn a_scope_bound_to_roles_goes_to_users_who_have_one() {
    let server = Server::with(with_users("jwt")).await;
    let me = server.made(all_grants()).await;
    for (key, roles) in [("plain", &[][..]), ("edit", &["editor", "chief"]), ("read", &["reader"])] {
        server.provider.register_scope(scope(key, roles)).await.expect("new");
    }
    let bob = "grant_type=password&username=bob&password=bobs-own";
    for (who, body, granted) in [
        ("the client", GRANT, "base"),
        ("the client", "grant_type=client_credentials&scope=plain", "plain"),
        ("ada", PASSWORD, "base"),
        ("ada", &format!("{PASSWORD}&scope=edit+plain"), "edit plain"),
        ("bob", &format!("{bob}&scope=read"), "read"),
    ] {
        assert_eq!(server.scope_of(&me, body).await, granted, "{who}: {body}");
    }
    for (who, body) in [
        ("the client", "grant_type=client_credentials&scope=edit"),
        ("the client", "grant_type=client_credentials&scope=unknown"),
        ("ada", &format!("{PASSWORD}&scope=read")),
        ("bob", &format!("{bob}&scope=edit")),
    ] {
        server.token(Some((&me.0, &me.1)), body).await.assert_refused(400, "invalid_scope", who);
    }
    // One of the file's own is bound like any other.
    let shop = ("shop".to_owned(), "s3cret".to_owned());
    assert_eq!(server.scope_of(&shop, GRANT).await, "orders:read orders:write");
    server.provider.register_scope(scope("orders:write", &["editor"])).await.expect("new");
    assert_eq!(server.scope_of(&shop, GRANT).await, "orders:read");
    assert_eq!(server.scope_of(&shop, &format!("{PASSWORD}&scope=orders:write")).await, "orders:write");
}

#[tokio::test]
async fn what_a_role_no_longer_gives_is_not_refreshed() {
    let server = Server::with(with_users("jwt")).await;
    let me = server.made(all_grants()).await;
    server.provider.register_scope(scope("edit", &["editor"])).await.expect("new");
    let body = format!("{PASSWORD}&scope=edit+base");
    let issued = server.token(Some((&me.0, &me.1)), &body).await.json();
    let refresh = format!("grant_type=refresh_token&refresh_token={}", issued["refresh_token"].as_str().expect("one"));
    server.provider.update_scope(scope("edit", &["chief"])).await.expect("it is there");
    assert_eq!(server.scope_of(&me, &refresh).await, "base");
}

#[tokio::test]
async fn scopes_of_a_client_go_with_their_registration() {
    let server = Server::start(&[]).await;
    let wanted = ClientSpec { scopes: Some(vec!["a".into()]), ..ClientSpec::default() };
    let early =
        server.provider.create_client(wanted.clone(), None, NewSecret::default()).await.expect_err("not registered");
    assert!(
        matches!(&early, ManageError::Invalid { field: "parameters.scope", why } if why.contains('a')),
        "{early:?}"
    );
    for key in ["a", "b"] {
        server.provider.register_scope(scope(key, &[])).await.expect("new");
    }
    let me = server.made(wanted).await;
    assert_eq!(server.scope_of(&me, GRANT).await, "a");
    let more = "grant_type=client_credentials&scope=b";
    server.token(Some((&me.0, &me.1)), more).await.assert_refused(400, "invalid_scope", "not its own");
    server
        .provider
        .register_resource(ResourceInfo {
            api_id: "api/1".into(),
            scopes: vec!["a".into(), "b".into()],
            ..ResourceInfo::default()
        })
        .await
        .expect("new");
    server.provider.delete_scope("a").await.expect("it is there");
    assert_eq!(server.scope_of(&me, GRANT).await, Value::Null);
    assert_eq!(server.provider.resource("api/1").expect("it is there").scopes, ["b"]);
    let lacking = server.provider.bind_scopes("api/1", &["a".into(), "c".into()], Bind::Attach).await;
    assert!(matches!(lacking, Err(ManageError::Clash { field: "scopes", why }) if why.contains("a, c")));
}
