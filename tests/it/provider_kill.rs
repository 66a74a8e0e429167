//! Killed at any moment, the provider loses nothing that it has acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;

use crate::{
    provider::{ADA, Caller, config, register, text},
    support::{Gate, free_ports},
};

/// What was acknowledged, by one writer.
#[derive(Debug, Default)]
struct Ledger {
    clients: Vec<Caller>,
    live: Vec<String>,
    revoked: Vec<String>,
    /// The newest of each family.
    refresh: Vec<String>,
}

impl Ledger {
    /// Asks and notes, until the provider is gone.
    fn write(port: u16, mut random: fastrand::Rng, stop: &AtomicBool, answers: &AtomicUsize) -> Self {
        let (mut ledger, shop) = (Self::default(), Caller::shop(port));
        while !stop.load(Ordering::Relaxed) {
            let answer = match random.u8(0..5) {
                0 => {
                    let answer = register(port, &json!({ "client_name": "killed" }));
                    if answer.status == 201 {
                        let said = answer.json();
                        let (id, secret) = (text(&said, "client_id"), text(&said, "client_secret"));
                        ledger.clients.push(Caller { port, id, secret });
                    }
                    answer
                }
                1 if !ledger.live.is_empty() => {
                    // Without an answer nobody knows: it is noted nowhere.
                    let token = ledger.live.swap_remove(random.usize(0..ledger.live.len()));
                    let answer = shop.form("/revoke", &format!("token={token}"));
                    ledger.revoked.extend((answer.status == 200).then_some(token));
                    answer
                }
                2 if !ledger.refresh.is_empty() => {
                    let old = ledger.refresh.swap_remove(random.usize(0..ledger.refresh.len()));
                    let answer = shop.form("/token", &format!("grant_type=refresh_token&refresh_token={old}"));
                    ledger.note_tokens(&answer);
                    answer
                }
                3 => {
                    let answer = shop.form("/token", "grant_type=password&username=ada&password=l0velace");
                    ledger.note_tokens(&answer);
                    answer
                }
                _ => {
                    let answer = shop.form("/token", "grant_type=client_credentials");
                    ledger.note_tokens(&answer);
                    answer
                }
            };
            assert!(matches!(answer.status, 0 | 200 | 201), "{answer:?}");
            if answer.status == 0 {
                break;
            }
            answers.fetch_add(1, Ordering::Relaxed);
        }
        ledger
    }

    fn note_tokens(&mut self, answer: &crate::support::Answer) {
        if answer.status == 200 {
            let said = answer.json();
            self.live.push(text(&said, "access_token"));
            self.refresh.extend(said["refresh_token"].as_str().map(str::to_owned));
        }
    }

    /// Everything is as it was acknowledged.
    fn verify(&mut self, port: u16) {
        let shop = Caller::shop(port);
        for client in &self.clients {
            client.token("grant_type=client_credentials");
        }
        for token in &self.live {
            assert!(shop.is_active(token), "an issued token is lost");
        }
        for token in &self.revoked {
            assert!(!shop.is_active(token), "a revocation is lost");
        }
        for token in &mut self.refresh {
            let said = shop.token(&format!("grant_type=refresh_token&refresh_token={token}"));
            *token = text(&said, "refresh_token");
        }
    }

    fn len(&self) -> usize {
        self.clients.len() + self.live.len() + self.revoked.len() + self.refresh.len()
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_it_is_killed() {
    let seed = 20_261_125;
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let store = format!("\n[store]\npath = \"{}\"\n", folder.path().join("tollgate.redb").display());
    let port = free_ports().provider;
    let start = || Gate::start(|ports| config(ports, port, "tokens = \"opaque\"", ADA) + &store);
    let mut ledgers: Vec<Ledger> = Vec::new();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let gate = start();
        let fresh = ledgers.len().saturating_sub(WRITERS);
        ledgers[fresh..].iter_mut().for_each(|ledger| ledger.verify(port));
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (random, stop, answers) = (random.fork(), Arc::clone(&stop), Arc::clone(&answers));
                thread::spawn(move || Ledger::write(port, random, &stop, &answers))
            })
            .collect();
        // At any moment, but after enough to say something.
        gate.wait_for("acknowledgements", || answers.load(Ordering::Relaxed) > 15);
        thread::sleep(Duration::from_millis(random.u64(..200)));
        gate.signal("KILL");
        // Should the gate outlive the signal, the writers end all the same.
        thread::sleep(Duration::from_millis(50));
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let ledger = writer.join().unwrap_or_else(|_| panic!("round {round}, seed {seed}"));
            acknowledged += ledger.len();
            ledgers.push(ledger);
        }
        drop(gate);
    }
    assert!(acknowledged > 10 * ROUNDS, "too little was acknowledged to say anything: {acknowledged}");
    let gate = start();
    ledgers.iter_mut().for_each(|ledger| ledger.verify(port));
    println!("{acknowledged} acknowledged in {ROUNDS} rounds, seed {seed}: all there");
    drop(gate);
}

const ROUNDS: usize = 10;
const WRITERS: usize = 4;
