//! Far more new tokens than may wait for their signature check: each is served or told to come again, none is
//! remembered as bad, and known ones pass all the while.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;

use crate::support::{Answer, BOTH, Backend, Config, Gate, Idp, Request, Token, Via, block_on, keys};

/// One worker, so that all meet in one line.
fn narrow(waiting: usize) -> (Gate, Idp, Backend) {
    let (idp, upstream) = (Idp::start(), Backend::start("production"));
    let mut config = Config::orders(&idp, &upstream.url()).with(&format!("\n[verification]\nwaiting = {waiting}\n"));
    config.top = "workers = 1\n".into();
    (Gate::start(|ports| config.text(ports)), idp, upstream)
}

/// All at the same time: they are in the sockets before the gate looks.
fn at_once(gate: &Gate, via: Via, tokens: &[String]) -> Vec<Answer> {
    let requests: Vec<_> = tokens.iter().map(|token| Request::get("/orders/v1/items/{m}").bearer(token)).collect();
    gate.signal("STOP");
    let (answers, ()) = block_on(async {
        let go = async {
            while unread(gate.ports.proxy) < requests.len() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            gate.signal("CONT");
        };
        tokio::join!(join_all(requests.iter().map(|request| gate.send(via, request))), go)
    });
    answers
}

/// Connections to the port that hold a request which nobody has read: more bytes than HTTP/2's greeting has.
fn unread(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let waiting = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, queues) = (words.next()?, words.nth(2)?);
        let bytes = u64::from_str_radix(queues.split_once(':')?.1, 16).ok()?;
        Some(local.ends_with(&format!(":{port:04X}")) && bytes > GREETING)
    };
    table.lines().filter(|line| waiting(line) == Some(true)).count()
}

/// What was answered, and how often.
fn tally(answers: &[Answer]) -> BTreeMap<(u16, String), usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        *tally.entry((answer.status, code)).or_default() += 1;
    }
    tally
}

#[test]
fn beyond_the_line_new_tokens_are_503_and_good_the_next_time() {
    for via in BOTH {
        let (gate, idp, _upstream) = narrow(4);
        let known = Token::of(&idp, "shop-web").sign();
        assert_eq!(block_on(gate.send(*via, &Request::get("/orders/v1/items/{m}").bearer(&known))).status, 200);
        let new: Vec<String> = (0..120)
            .map(|n| {
                let token = Token::of(&idp, "shop-web");
                if n % 2 == 0 { token.sign() } else { token.key(&keys().rsa, "rsa").sign() }
            })
            .collect();
        // Known ones between and behind them.
        let both: Vec<String> = new.iter().flat_map(|token| [token.clone(), known.clone()]).collect();
        let answers = at_once(&gate, *via, &both);
        let (of_new, of_known): (Vec<_>, Vec<_>) = answers.chunks(2).map(|pair| (&pair[0], &pair[1])).unzip();
        assert!(of_known.iter().all(|answer| answer.status == 200), "{via:?} {:?}", tally(&answers));

        let shed: Vec<usize> = (0..new.len()).filter(|n| of_new[*n].status == 503).collect();
        for answer in of_new {
            assert!(matches!(answer.status, 200 | 503), "{via:?} {answer:?}");
            if answer.status == 503 {
                assert_eq!(answer.json()["code"], "900900", "{via:?} {answer:?}");
                assert_eq!(answer.header("retry-after"), Some("1"), "{via:?} {answer:?}");
                assert_eq!(answer.header("www-authenticate"), None, "{via:?} {answer:?}");
            }
        }
        assert!(!shed.is_empty() && shed.len() < new.len(), "{via:?} {} of {} shed", shed.len(), new.len());
        let count = |outcome: &str| gate.metric("tollgate_token_verifications_total", &[outcome]);
        assert_eq!(gate.metric("tollgate_requests_total", &["reason=\"overloaded\""]), shed.len() as f64, "{via:?}");
        assert_eq!(count("outcome=\"shed\""), shed.len() as f64, "{via:?}");
        assert_eq!(gate.metric("tollgate_token_verifications_waiting", &[]), 0.0, "{via:?}");
        // One after the other there is a turn for each.
        for n in shed {
            let again = block_on(gate.send(*via, &Request::get("/orders/v1/items/{m}").bearer(&new[n])));
            assert_eq!(again.status, 200, "{via:?} {again:?}");
        }
        assert_eq!(count("outcome=\"ok\""), 1.0 + new.len() as f64, "{via:?} each was verified once");
    }
}

#[test]
fn many_who_bring_one_new_token_have_one_place_and_one_verification() {
    for via in BOTH {
        let (gate, idp, _upstream) = narrow(2);
        let fresh = || Token::of(&idp, "shop-web").sign();
        let (first, second) = (fresh(), fresh());
        let mut tokens = vec![first; 60];
        tokens.extend(vec![second; 60]);
        let answers = at_once(&gate, *via, &tokens);
        assert_eq!(tally(&answers), BTreeMap::from([((200, String::new()), 120)]), "{via:?}");
        assert_eq!(gate.metric("tollgate_token_verifications_total", &["outcome=\"ok\""]), 2.0, "{via:?}");
    }
}

#[test]
fn what_is_no_good_is_401_or_503_and_its_verdict_is_its_own() {
    for via in BOTH {
        let (gate, idp, _upstream) = narrow(3);
        let token = || Token::of(&idp, "shop-web");
        // The same expired one over and over: its verdict is not remembered, and it has one place.
        let old = token().claim("exp", 1).sign();
        let tokens: Vec<String> = (0..120)
            .map(|n| match n % 5 {
                0 => token().key(&keys().es256_other, "es256").sign(),
                1 => token().claim("exp", 1).sign(),
                2 => token().sign(),
                3 => "garbage".to_owned(),
                _ => old.clone(),
            })
            .collect();
        let answers = at_once(&gate, *via, &tokens);
        for (n, answer) in answers.iter().enumerate() {
            let expected: &[u16] = match n % 5 {
                2 => &[200, 503],
                3 => &[401],
                _ => &[401, 503],
            };
            assert!(expected.contains(&answer.status), "{via:?} {n} {answer:?}");
        }
        for (n, token) in tokens.iter().enumerate() {
            let again = block_on(gate.send(*via, &Request::get("/orders/v1/items/{m}").bearer(token)));
            assert_eq!(again.status, if n % 5 == 2 { 200 } else { 401 }, "{via:?} {n} {again:?}");
        }
    }
}

/// The preface and a client's SETTINGS.
const GREETING: u64 = 90;
