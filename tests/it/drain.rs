//! SIGTERM: not ready first, every request whose head was read is answered, then exit 0.

use crate::support::{Backend, Client, Config, Gate, Idp, Request, Token, Via, block_on, runtime};

fn gate(lines: &str) -> (Gate, Idp, Backend) {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let config = Config::orders(&idp, &upstream.url()).proxy(lines);
    (Gate::start(|ports| config.text(ports)), idp, upstream)
}

#[test]
fn every_request_whose_head_was_read_is_answered() {
    let (mut gate, idp, upstream) = gate("drain_delay = \"1s\"\ngrace = \"10s\"");
    let token = Token::of(&idp, "shop-web").sign();
    let (port, slow) = (gate.ports.proxy, |n: usize| {
        Request::get("/orders/v1/items/{m}").bearer(&token).script(&format!("slow:{}", 1500 + 100 * n))
    });
    let requests: Vec<Request> = (0..6).map(slow).collect();
    let calls: Vec<_> = requests
        .iter()
        .cloned()
        .enumerate()
        .map(|(n, request)| {
            let via = if n % 2 == 0 { Via::H1 } else { Via::H2 };
            runtime().spawn(async move { crate::support::send(port, via, &request).await })
        })
        .collect();
    gate.wait_for("the requests at the upstream", || requests.iter().all(|r| upstream.saw(&r.mark)));
    gate.signal("TERM");
    let answers: Vec<_> = block_on(futures_util::future::join_all(calls)).into_iter().map(|a| a.unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let status = gate.wait_exit();
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{}", gate.stderr());
}

#[test]
fn during_the_delay_it_serves_on_and_says_goodbye() {
    // A delay that no machine outlasts; a second signal ends it.
    let (mut gate, idp, _upstream) = gate("drain_delay = \"10m\"\ngrace = \"10m\"");
    let token = Token::of(&idp, "shop-web").sign();
    let request = || Request::get("/orders/v1/items/{m}").bearer(&token);
    block_on(async {
        let mut kept = Client::connect(gate.ports.proxy).await.unwrap();
        let first = kept.call(&request()).await;
        assert_eq!(first.status, 200);
        gate.signal("TERM");
        gate.wait_for("not ready", || gate.admin("/readyz").status == 503);
        assert!(gate.alive(), "it is about to end, and nobody need restart it");
        let second = kept.call(&request()).await;
        assert_eq!(second.status, 200, "a kept connection gets one more answer");
        assert_eq!(second.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"), "{second:?}");
        assert!(kept.closes().await);
        for via in [Via::H1, Via::H2] {
            let fresh = gate.send(via, &request()).await;
            assert_eq!(fresh.status, 200, "new connections are still served: {fresh:?}");
        }
    });
    gate.signal("TERM");
    let status = gate.wait_exit();
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{}", gate.stderr());
}

#[test]
fn idle_connections_do_not_hold_it_up() {
    let (mut gate, _idp, _upstream) = gate("drain_delay = \"0\"\ngrace = \"10m\"");
    let kept: Vec<Client> = block_on(async {
        let mut all = Vec::new();
        for _ in 0..5 {
            let mut client = Client::connect(gate.ports.proxy).await.unwrap();
            assert_eq!(client.call(&Request::get("/orders/v1/public/{m}")).await.status, 200);
            all.push(client);
        }
        all
    });
    gate.signal("TERM");
    let status = gate.wait_exit();
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{}", gate.stderr());
    drop(kept);
}

#[test]
fn what_outlives_the_grace_is_cut() {
    let (mut gate, _idp, upstream) = gate("drain_delay = \"0\"\ngrace = \"1s\"");
    let port = gate.ports.proxy;
    let request = Request::get("/orders/v1/public/{m}").script("slow:600000");
    let mark = request.mark.clone();
    let call = runtime().spawn(async move { crate::support::send(port, Via::H1, &request).await });
    gate.wait_for("the request at the upstream", || upstream.saw(&mark));
    gate.signal("TERM");
    let status = gate.wait_exit();
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{}", gate.stderr());
    assert_ne!(block_on(call).unwrap().status, 200);
}
