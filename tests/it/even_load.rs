//! Every worker gets its share of the connections, however few there are and however they come and go.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use tollgate::net::raise_descriptors;

use crate::support::{Config, Gate, api, resource};

/// An open connection that has had an answer.
#[derive(Debug)]
enum Kept {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Kept {
    fn tcp(port: u16) -> Self {
        Self::Tcp(TcpStream::connect(("127.0.0.1", port)).unwrap()).asked()
    }

    fn unix(path: &Path) -> Self {
        Self::Unix(UnixStream::connect(path).unwrap()).asked()
    }

    fn asked(mut self) -> Self {
        self.ask().expect("an answer");
        self
    }

    fn ask(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                ask(stream)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                ask(stream)
            }
        }
    }
}

/// Has one answer, read whole.
fn ask(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(b"GET /echo/a HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece)?;
        said.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&said);
        if read == 0 || !text.starts_with(&"HTTP/1.1 200 "[..text.len().min(13)]) {
            return Err(io::Error::other(text.into_owned()));
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if length.is_none_or(|length: usize| body.len() >= length) {
            return Ok(());
        }
    }
}

/// A gate that answers by itself.
fn gate(workers: usize, listen: Option<&Path>) -> Gate {
    raise_descriptors();
    let echo = api("Echo", "/echo", None, "upstream = \"echo:\"") + &resource("/{id}", "auth = \"none\"");
    let log = "\n[log]\naccess_sample = 0.0\n";
    let config = Config { top: format!("workers = {workers}"), ..Config::default() }.with(log).with(&echo);
    Gate::start(|ports| {
        let text = config.text(ports);
        match listen {
            Some(path) => text.replace(&format!("127.0.0.1:{}", ports.proxy), &format!("unix:{}", path.display())),
            None => text,
        }
    })
}

/// Connections of each worker.
fn held(gate: &Gate, workers: usize) -> Vec<usize> {
    let of = |worker| gate.metric("tollgate_worker_connections", &[&format!("worker=\"{worker}\"")]) as usize;
    (0..workers).map(of).collect()
}

/// No worker holds more than half as much again as the mean.
fn assert_even(gate: &Gate, workers: usize, connections: usize, how: &str) {
    let held = held(gate, workers);
    assert_eq!(held.iter().sum::<usize>(), connections, "{how}: {held:?}");
    assert_eq!(gate.metric("tollgate_connections_open", &[]) as usize, connections, "{how}: {held:?}");
    assert!(held.iter().all(|held| 2 * held * workers <= 3 * connections), "{how}: {held:?}");
}

fn wait_closed(gate: &Gate, workers: usize) {
    gate.wait_for("all are closed", || held(gate, workers).iter().all(|held| *held == 0));
}

#[test]
fn no_worker_holds_much_more_than_the_mean() {
    for workers in [2, 4] {
        let gate = gate(workers, None);
        let port = gate.ports.proxy;
        for connections in [8, 64, 1000] {
            let how = format!("{connections} one after the other");
            let mut kept: Vec<_> = (0..connections).map(|_| Kept::tcp(port)).collect();
            assert_even(&gate, workers, connections, &how);
            assert!(kept.iter_mut().all(|kept| kept.ask().is_ok()), "{how}: they last");
            drop(kept);
            wait_closed(&gate, workers);

            let how = format!("{connections} at once");
            let clients: Vec<_> = (0..8)
                .map(|_| thread::spawn(move || (0..connections / 8).map(|_| Kept::tcp(port)).collect::<Vec<_>>()))
                .collect();
            let kept: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
            assert_even(&gate, workers, connections, &how);
            drop(kept);
            wait_closed(&gate, workers);
        }
    }
}

#[test]
fn there_are_as_many_workers_as_processors_to_use() {
    let gate = gate(0, None);
    let workers = gate.metrics().lines().filter(|line| line.starts_with("tollgate_worker_connections{")).count();
    assert_eq!(workers, tollgate::net::cpu::available());
}

#[test]
fn silent_connections_count_too() {
    let gate = gate(4, None);
    let silent: Vec<_> = (0..64).map(|_| TcpStream::connect(("127.0.0.1", gate.ports.proxy)).unwrap()).collect();
    gate.wait_for("all are accepted", || gate.metric("tollgate_connections_open", &[]) as usize == silent.len());
    assert_even(&gate, 4, 64, "silent");
}

#[test]
fn new_connections_even_out_what_ended_unevenly() {
    for workers in [2, 4] {
        let gate = gate(workers, None);
        let (port, each) = (gate.ports.proxy, 16);
        // Who serves a connection shows as it is opened.
        let mut of: Vec<Vec<Kept>> = (0..workers).map(|_| Vec::new()).collect();
        for _ in 0..each * workers {
            let before = held(&gate, workers);
            let kept = Kept::tcp(port);
            let after = held(&gate, workers);
            let worker = (0..workers).find(|worker| after[*worker] > before[*worker]).expect("somebody serves it");
            of[worker].push(kept);
        }
        let ended = of.remove(0).len();
        let left = each * workers - ended;
        gate.wait_for("all of one worker's are closed", || held(&gate, workers)[0] == 0);
        let _kept: Vec<_> = (0..ended).map(|_| Kept::tcp(port)).collect();
        assert_even(&gate, workers, left + ended, "opened again");
        assert!(held(&gate, workers)[0] >= ended / 2, "{:?}", held(&gate, workers));
    }
}

#[test]
fn a_unix_socket_is_shared_as_evenly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate.sock");
    let gate = gate(2, Some(&path));
    for connections in [8, 64] {
        let kept: Vec<_> = (0..connections).map(|_| Kept::unix(&path)).collect();
        assert_even(&gate, 2, connections, "unix");
        drop(kept);
        wait_closed(&gate, 2);
    }
}

/// Idle ones are closed and the program ends, wherever they came in.
#[test]
fn connections_that_changed_hands_drain_like_all() {
    let mut gate = gate(4, None);
    let mut kept: Vec<_> = (0..64).map(|_| Kept::tcp(gate.ports.proxy)).collect();
    assert_even(&gate, 4, 64, "before");
    gate.signal("INT");
    let status = gate.wait_exit();
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", gate.stderr());
    assert!(kept.iter_mut().all(|kept| kept.ask().is_err()), "closed");
}

const PATIENCE: Duration = Duration::from_secs(60);
