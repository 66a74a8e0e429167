//! Killed between acknowledged changes, the management API loses none of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Place, ask, text};
use crate::support::Gate;

#[derive(Debug, Default)]
struct Ledger {
    /// Clients and the application each is for.
    clients: Vec<(String, String)>,
    revoked: Vec<String>,
}

impl Ledger {
    fn write(place: &Place, key: &str, name: &str, stop: &AtomicBool, answers: &AtomicUsize) -> Self {
        let mut ledger = Self::default();
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let uuid = format!("{name}-{n}");
            let body = json!({ "clientName": uuid, "applicationUUID": uuid });
            let made = ask(place.port, key, "POST", "/v1/key-managers/own/clients", &body);
            if made.status == 201 {
                ledger.clients.push((text(&made.json(), "clientId"), uuid.clone()));
            }
            let body = json!({ "kind": "jti", "value": uuid });
            let revoked = ask(place.port, key, "POST", "/v1/revocations", &body);
            ledger.revoked.extend((revoked.status == 201).then_some(uuid));
            assert!(matches!(made.status, 0 | 201) && matches!(revoked.status, 0 | 201), "{made:?} {revoked:?}");
            answers.fetch_add(usize::from(revoked.status == 201), Ordering::Relaxed);
        }
        ledger
    }

    /// Each client is there, mapped, and audited; each revocation is in force.
    fn verify(&self, place: &Place, key: &str) {
        for (id, uuid) in &self.clients {
            let read = ask(place.port, key, "GET", &format!("/v1/key-managers/own/clients/{id}"), &Value::Null);
            assert_eq!((read.status, &read.json()["applicationUUID"]), (200, &json!(uuid)), "{}", read.text());
        }
        let audited = all(place, key, "/v1/audit", "subject");
        assert!(self.clients.iter().all(|(id, _)| audited.contains(id)), "a change without its audit");
        let refused = all(place, key, "/v1/revocations", "value");
        assert!(self.revoked.iter().all(|jti| refused.contains(jti)), "a revocation is lost");
    }
}

/// A field of every row, page by page.
fn all(place: &Place, key: &str, path: &str, field: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ask(place.port, key, "GET", &format!("{path}?limit=100{cursor}"), &Value::Null).json();
        found.extend(page["items"].as_array().unwrap().iter().map(|row| text(row, field)));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    let start = || Gate::start(|ports| place.config(ports, "", ""));
    let mut ledgers: Vec<Ledger> = Vec::new();
    for round in 0..ROUNDS {
        let gate = start();
        let key = place.key();
        let fresh = ledgers.len().saturating_sub(WRITERS);
        ledgers[fresh..].iter().for_each(|ledger| ledger.verify(&place, &key));
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (place, key, name) = (place.clone(), key.clone(), format!("u-{round}-{writer}"));
                let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
                thread::spawn(move || Ledger::write(&place, &key, &name, &stop, &answers))
            })
            .collect();
        // Each round at another moment, but after enough to say something.
        gate.wait_for("acknowledgements", || answers.load(Ordering::Relaxed) > 5);
        thread::sleep(Duration::from_millis(70 * round as u64));
        gate.signal("KILL");
        stop.store(true, Ordering::Relaxed);
        ledgers.extend(writers.into_iter().map(|writer| writer.join().unwrap()));
        drop(gate);
    }
    let acknowledged: usize = ledgers.iter().map(|ledger| ledger.clients.len() + ledger.revoked.len()).sum();
    assert!(acknowledged > 5 * ROUNDS, "too little was acknowledged to say anything: {acknowledged}");
    let _gate = start();
    ledgers.iter().for_each(|ledger| ledger.verify(&place, &place.key()));
}

const ROUNDS: usize = 4;
const WRITERS: usize = 4;
