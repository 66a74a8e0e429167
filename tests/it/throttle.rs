//! Quotas and bursts through the door: which bucket a request meets, and what it does not count on.

use crate::support::{Answer, BOTH, Place, Request, Token, Via, application, block_on, subscription};

/// Windows of a day, so that no test meets the end of one but at midnight.
const TIERS: &str = "
[[tiers]]
name = \"Five\"
requests = 5
per = \"1d\"
[[tiers]]
name = \"Three\"
requests = 3
per = \"1d\"
[[tiers]]
name = \"Burst\"
requests = 1000
per = \"1d\"
burst = { requests = 2, per = \"1h\" }
[[tiers]]
name = \"Soft\"
requests = 2
per = \"1d\"
stop_on_quota_reach = false
";

fn subscribed(client: &str, application_tier: &str, subscription_tier: &str) -> String {
    application(client, client, application_tier, "")
        + &subscription(client, "Orders:v1", subscription_tier, "UNBLOCKED")
}

fn place(section: &str, tables: &str) -> Place {
    Place::start(&format!("{TIERS}{tables}\n{section}"))
}

fn call(place: &Place, client: &str) -> Answer {
    place.send(&place.get("/orders/v1/items/{m}", client))
}

/// How many of `n` calls pass.
fn passing(place: &Place, client: &str, n: usize) -> usize {
    (0..n).filter(|_| call(place, client).status == 200).count()
}

#[test]
fn the_quota_is_exact_and_refreshing_the_token_gives_no_more() {
    let place = place("", &subscribed("five", "Unlimited", "Five"));
    assert_eq!(passing(&place, "five", 9), 5);
    assert_eq!(call(&place, "five").json()["code"], "900804");
    assert_eq!(passing(&place, "shop-web", 9), 9, "others are not affected");
}

#[test]
fn the_quota_is_exact_over_many_connections() {
    let place = place("", &subscribed("five", "Unlimited", "Five"));
    let token = Token::of(&place.idp, "five").sign();
    let all = block_on(futures_util::future::join_all((0..30).map(|n| {
        let request = Request::get("/orders/v1/items/{m}").bearer(&token);
        let (gate, via) = (&place.gate, BOTH[n % 2]);
        async move { gate.send(via, &request).await.status }
    })));
    assert_eq!(all.iter().filter(|status| **status == 200).count(), 5, "{all:?}");
}

#[test]
fn application_quota_counts_per_user() {
    let place = place("", &subscribed("three", "Three", "Unlimited"));
    let call = |user: &str| {
        let token = Token::of(&place.idp, "three").claim("sub", user).sign();
        place.send(&Request::get("/orders/v1/items/{m}").bearer(token))
    };
    for user in ["alice", "bob"] {
        assert_eq!((0..5).filter(|_| call(user).status == 200).count(), 3, "{user}");
        assert_eq!(call(user).json()["code"], "900803");
    }
}

#[test]
fn bursts_have_their_own_code() {
    let tables = subscribed("sub-burst", "Unlimited", "Burst") + &subscribed("app-burst", "Burst", "Unlimited");
    let place = place("", &tables);
    for (client, code) in [("sub-burst", "900807"), ("app-burst", "900809")] {
        assert_eq!(passing(&place, client, 2), 2, "{client}");
        let refused = call(&place, client);
        assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some(code)), "{refused:?}");
        assert!(refused.header("retry-after").is_some());
    }
}

#[test]
fn a_soft_quota_counts_but_lets_pass() {
    let place = place("[throttle]\nheaders = true", &subscribed("soft", "Unlimited", "Soft"));
    assert_eq!(passing(&place, "soft", 6), 6);
}

#[test]
fn refused_requests_count_nowhere() {
    // Refused at the subscription, a request takes nothing from the application; refused before, from none.
    let place = place("", &subscribed("both", "Five", "Three"));
    let good = Token::of(&place.idp, "both");
    for _ in 0..6 {
        let bad = good.clone().claim("exp", 1);
        assert_eq!(place.send(&Request::get("/orders/v1/items/{m}").bearer(bad.sign())).status, 401);
        let scopeless = good.clone().claim("scope", "x");
        assert_eq!(place.send(&Request::get("/orders/v1/items/{m}").bearer(scopeless.sign())).status, 403);
        assert_eq!(place.send(&Request::get("/orders/v1/nothing/a/{m}").bearer(good.sign())).status, 403);
    }
    assert_eq!(passing(&place, "both", 9), 3);
}

#[test]
fn buckets_are_not_joined_by_concatenation() {
    let names = [("a:b", "c"), ("a", "b:c")];
    let tables: String = names
        .iter()
        .map(|(app, key)| {
            application(app, key, "Three", "") + &subscription(app, "Orders:v1", "Unlimited", "UNBLOCKED")
        })
        .collect();
    let place = place("", &tables);
    for (_, key) in names {
        assert_eq!(passing(&place, key, 5), 3, "{key}");
    }
}

#[test]
fn no_header_escapes_the_bucket() {
    let place = place("", &subscribed("five", "Unlimited", "Five"));
    let token = Token::of(&place.idp, "five").sign();
    let schemes = ["Bearer ", "bearer ", "BEARER  "];
    let passed = (0..12).filter(|n| {
        let request = Request::get("/orders/v1/items/{m}")
            .header("authorization", format!("{}{token}", schemes[n % 3]))
            .header("x-forwarded-for", format!("203.0.113.{n}"))
            .header("x-auth-client-id", format!("client-{n}"))
            .header("x-auth-tier", "Unlimited");
        place.send(&request).status == 200
    });
    assert_eq!(passed.count(), 5);
}

#[test]
fn accepted_answers_tell_the_limit_when_asked_to() {
    let place = place("[throttle]\nheaders = true", &subscribed("five", "Unlimited", "Five"));
    let first = call(&place, "five");
    assert_eq!(first.header("ratelimit-policy"), Some("\"Five\";q=5;w=86400"), "{first:?}");
    assert!(first.header("ratelimit").is_some_and(|v| v.starts_with("\"Five\";r=4;t=")), "{first:?}");
    let silent = self::place("", "");
    assert_eq!(call(&silent, "shop-web").header("ratelimit"), None);
}

#[test]
fn api_and_resource_tiers_meet_anonymous_calls_too() {
    let api =
        crate::support::api("Free", "/free", None, "upstream = \"UP\"\nsubscription = \"none\"\ntier = \"Three\"")
            + &crate::support::resource("/a/{id}", "auth = \"none\"\ntier = \"Five\"");
    let place = place("", &api);
    let all: Vec<_> = (0..5).map(|_| block_on(place.gate.send(Via::H2, &Request::get("/free/a/{m}")))).collect();
    assert_eq!(all.iter().filter(|answer| answer.status == 200).count(), 3, "the API's tier replaces the resource's");
    assert_eq!(all[4].json()["code"], "900800");
}
