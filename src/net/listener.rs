//! Listeners: one socket per worker on the same port, or one Unix socket, and the way on which workers hand
//! connections to each other.
//!
//! A port is first bound without `SO_REUSEPORT`, so that a port someone else serves is an error and never shared
//! in silence. Who gets a connection is [`Room`](super::Room)'s to say. Nothing here speaks HTTP or TLS.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
};

use super::{Address, room::Seat, side};

/// One worker's share of an address, bound and not yet part of any runtime.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    crew: Crew,
}

#[derive(Debug)]
enum Kind {
    Tcp(StdTcpListener),
    /// The worker that accepts on a Unix socket.
    UnixOwner(StdUnixListener, SocketFile),
    /// One that is handed its share.
    UnixShare(PathBuf),
}

/// A worker among those of its address.
#[derive(Debug)]
struct Crew {
    number: usize,
    /// Where each of them, itself too, takes what others have accepted for it; empty for one alone.
    inboxes: Arc<[mpsc::Sender<Handed>]>,
    inbox: Option<mpsc::Receiver<Handed>>,
}

/// A connection on its way from one worker to another, part of neither's runtime.
#[derive(Debug)]
struct Handed {
    socket: Unhoused,
    seat: Seat,
}

#[derive(Debug)]
enum Unhoused {
    Tcp(StdTcpStream, SocketAddr),
    Unix(StdUnixStream),
}

/// Binds `address` for `n` workers. Port 0 picks one port for all of them.
pub fn bind(address: &Address, n: usize) -> io::Result<Vec<Listener>> {
    let n = n.max(1);
    let kinds = match address {
        Address::Tcp(address) => bind_tcp(*address, n)?,
        Address::Unix(path) => bind_unix(path, n)?,
    };
    Ok(kinds.into_iter().zip(Crew::of(n)).map(|(kind, crew)| Listener { kind, crew }).collect())
}

impl Listener {
    /// The address it is bound to; tells the port where 0 was asked for.
    pub fn address(&self) -> io::Result<Address> {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Kind::UnixOwner(_, file) => Ok(Address::Unix(file.path.clone())),
            Kind::UnixShare(path) => Ok(Address::Unix(path.clone())),
        }
    }

    /// Makes it the listener of a side door, in the present runtime.
    pub fn into_side(self) -> io::Result<side::Listener> {
        match self.into_incoming()?.socket {
            Accepting::Tcp(listener) => Ok(listener.into()),
            Accepting::Unix(listener, file) => Ok(side::Listener::Unix(listener, Some(file))),
            Accepting::Nothing => Err(io::Error::other("a side door has one listener")),
        }
    }

    /// Makes it part of the present runtime.
    pub(super) fn into_incoming(self) -> io::Result<Incoming> {
        let socket = match self.kind {
            Kind::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
            Kind::UnixOwner(listener, file) => Accepting::Unix(UnixListener::from_std(listener)?, file),
            Kind::UnixShare(_) => Accepting::Nothing,
        };
        Ok(Incoming { socket, crew: self.crew })
    }
}

impl Crew {
    fn of(n: usize) -> Vec<Self> {
        if n == 1 {
            return vec![Self { number: 0, inboxes: [].into(), inbox: None }];
        }
        let (inboxes, waiting): (Vec<_>, Vec<_>) = (0..n).map(|_| mpsc::channel(HANDED_OVER)).unzip();
        let inboxes = Arc::from(inboxes);
        let member = |(number, inbox)| Self { number, inboxes: Arc::clone(&inboxes), inbox: Some(inbox) };
        waiting.into_iter().enumerate().map(member).collect()
    }

    /// What another has accepted for this one. Cancel-safe.
    async fn handed(&mut self) -> Handed {
        let handed = match &mut self.inbox {
            Some(inbox) => inbox.recv().await,
            None => None,
        };
        match handed {
            Some(handed) => handed,
            // There are no others, or no more of them.
            None => std::future::pending().await,
        }
    }
}

/// A client's connection, as accepted.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// How a worker came by a connection.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It has accepted it; who serves it is open.
    Here(Accepted),
    /// Another has accepted it, and this one is to serve it.
    Handed(Accepted, Seat),
}

/// A listener that accepts, in its worker's runtime.
#[derive(Debug)]
pub(super) struct Incoming {
    socket: Accepting,
    crew: Crew,
}

#[derive(Debug)]
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
    Nothing,
}

impl Incoming {
    /// Which of its address's workers this is.
    pub(super) fn worker(&self) -> usize {
        self.crew.number
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<Arrival> {
        tokio::select! {
            accepted = self.socket.accept() => accepted.map(Arrival::Here),
            handed = self.crew.handed() => {
                let (accepted, seat) = handed.housed()?;
                Ok(Arrival::Handed(accepted, seat))
            }
        }
    }

    /// Hands a connection to the worker whose seat it has; `Some`: that is this one, or the other does not take it.
    pub(super) fn hand_over(&self, accepted: Accepted, seat: Seat) -> io::Result<Option<(Accepted, Seat)>> {
        let number = self.crew.number;
        if seat.worker() == number {
            return Ok(Some((accepted, seat)));
        }
        let Some(inbox) = self.crew.inboxes.get(seat.worker()) else { return Ok(Some((accepted, seat.with(number)))) };
        let handed = Handed { socket: accepted.unhoused()?, seat };
        match inbox.try_send(handed) {
            Ok(()) => Ok(None),
            Err(mpsc::error::TrySendError::Full(handed) | mpsc::error::TrySendError::Closed(handed)) => {
                let (accepted, seat) = handed.housed()?;
                Ok(Some((accepted, seat.with(number))))
            }
        }
    }

    /// Stops listening; what already waits in a queue is still accepted, and nothing is handed over any more.
    pub(super) async fn close(mut self) -> Vec<Arrival> {
        let mut waiting = Vec::new();
        if let Some(inbox) = &mut self.crew.inbox {
            inbox.close();
            // Ends when those that are being sent have come.
            while let Some(handed) = inbox.recv().await {
                waiting.extend(handed.housed().map(|(accepted, seat)| Arrival::Handed(accepted, seat)));
            }
        }
        waiting.extend(self.socket.close().into_iter().map(Arrival::Here));
        waiting
    }
}

impl Accepting {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer)),
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
            Self::Nothing => std::future::pending().await,
        }
    }

    fn close(self) -> Vec<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                std::iter::from_fn(|| listener.accept().ok())
                    .filter_map(|(stream, peer)| {
                        stream.set_nonblocking(true).ok()?;
                        Unhoused::Tcp(stream, peer).housed().ok()
                    })
                    .collect()
            }
            Self::Unix(listener, _file) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                std::iter::from_fn(|| listener.accept().ok())
                    .filter_map(|(stream, _)| {
                        stream.set_nonblocking(true).ok()?;
                        Unhoused::Unix(stream).housed().ok()
                    })
                    .collect()
            }
            Self::Nothing => Vec::new(),
        }
    }
}

impl Accepted {
    fn unhoused(self) -> io::Result<Unhoused> {
        Ok(match self {
            Self::Tcp(stream, peer) => Unhoused::Tcp(stream.into_std()?, peer),
            Self::Unix(stream) => Unhoused::Unix(stream.into_std()?),
        })
    }
}

impl Handed {
    /// Makes it part of the present runtime.
    fn housed(self) -> io::Result<(Accepted, Seat)> {
        Ok((self.socket.housed()?, self.seat))
    }
}

impl Unhoused {
    fn housed(self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(stream, peer) => Accepted::Tcp(TcpStream::from_std(stream)?, peer),
            Self::Unix(stream) => Accepted::Unix(UnixStream::from_std(stream)?),
        })
    }
}

fn bind_tcp(address: SocketAddr, n: usize) -> io::Result<Vec<Kind>> {
    let probe = tcp_socket(address, false)?;
    if n == 1 {
        return Ok(vec![Kind::Tcp(probe.into())]);
    }
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..n).map(|_| tcp_socket(address, true).map(|socket| Kind::Tcp(socket.into()))).collect()
}

fn tcp_socket(address: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    // Connections inherit it, which saves them the calls.
    socket.set_tcp_keepalive(&KEEP_ALIVE)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Has the system ask from time to time whether the peer is still there, so that connections on which nothing is
/// said for long (WebSockets, quiet streams) end when it is not (RFC 9293 section 3.8.4).
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_keepalive(&KEEP_ALIVE)
}

fn bind_unix(path: &Path, n: usize) -> io::Result<Vec<Kind>> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    // Before `listen`: nobody connects while the mode is still the umask's.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    socket.listen(BACKLOG)?;
    let others = (1..n).map(|_| Kind::UnixShare(path.to_owned()));
    Ok(std::iter::once(Kind::UnixOwner(socket.into(), file)).chain(others).collect())
}

/// Removes the socket file of a process that is gone; one that somebody serves is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket"));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// The file of a Unix socket: removed with its listener, unless another has taken the path meanwhile.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: std::fs::symlink_metadata(path)?.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A vanished peer is noticed within two minutes.
const KEEP_ALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
const BACKLOG: i32 = 4096;
/// Connections that may wait for a worker, as many as in the system's queue; beyond it the accepting worker serves
/// them itself.
const HANDED_OVER: usize = BACKLOG as usize;

#[cfg(test)]
mod tests {
    use super::{super::Room, *};

    fn tcp(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn workers_share_one_port_and_nobody_else_does() {
        let listeners = bind(&tcp("127.0.0.1:0"), 3).unwrap();
        let address = listeners[0].address().unwrap();
        assert_eq!(listeners.len(), 3);
        assert!(listeners.iter().all(|l| l.address().unwrap() == address));
        for n in [1, 2] {
            assert_eq!(bind(&address, n).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_accepted_by_one_and_served_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        let address = Address::Unix(path.clone());
        let mut listeners = bind(&address, 2).unwrap().into_iter();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind(&address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let mut owner = listeners.next().unwrap().into_incoming().unwrap();
        let mut share = listeners.next().unwrap().into_incoming().unwrap();
        let room = Room::new(u64::MAX, 2);
        let _clients: Vec<_> = (0..4).map(|_| StdUnixStream::connect(&path).unwrap()).collect();
        let mut kept = Vec::new();
        for _ in 0..4 {
            let Ok(Arrival::Here(accepted)) = owner.next().await else { panic!("a connection") };
            let seat = room.enter(owner.worker(), 9).unwrap();
            kept.extend(owner.hand_over(accepted, seat).unwrap());
        }
        assert_eq!(kept.len(), 2);
        for _ in 0..2 {
            let Ok(Arrival::Handed(Accepted::Unix(_), seat)) = share.next().await else { panic!("its share") };
            assert_eq!(seat.worker(), share.worker());
        }
        drop(owner);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_process_leaves_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(bind(&Address::Unix(path.clone()), 1).is_ok());
        std::fs::write(&path, "").unwrap();
        assert!(bind(&Address::Unix(path), 1).is_err());
    }

    #[tokio::test]
    async fn vanished_peers_are_noticed() {
        for n in [1, 2] {
            let listener = bind(&tcp("127.0.0.1:0"), n).unwrap();
            let Address::Tcp(address) = listener[0].address().unwrap() else { unreachable!() };
            let client = TcpStream::connect(address).await.unwrap();
            keep_alive(&client).unwrap();
            let incoming: Vec<_> = listener.into_iter().map(|listener| listener.into_incoming().unwrap()).collect();
            let mut accepted = Vec::new();
            for incoming in incoming {
                accepted.extend(incoming.close().await);
            }
            let [Arrival::Here(Accepted::Tcp(accepted, _))] = &accepted[..] else { panic!("one connection") };
            for stream in [accepted, &client] {
                let socket = SockRef::from(stream);
                assert!(socket.keepalive().unwrap());
                assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
                assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
                assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
            }
        }
    }

    #[tokio::test]
    async fn closing_accepts_what_waits() {
        let listener = bind(&tcp("127.0.0.1:0"), 1).unwrap().remove(0);
        let Address::Tcp(address) = listener.address().unwrap() else { unreachable!() };
        let incoming = listener.into_incoming().unwrap();
        let _clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        assert_eq!(incoming.close().await.len(), 3);
    }

    /// Two workers, the first of which has accepted a connection that the second is to serve.
    async fn two() -> (Incoming, Incoming, (Accepted, Seat), Room) {
        let listeners = bind(&tcp("127.0.0.1:0"), 2).unwrap();
        let Address::Tcp(address) = listeners[0].address().unwrap() else { unreachable!() };
        let [first, second] = listeners.try_into().unwrap();
        let [first, second] = [first, second].map(|listener: Listener| listener.into_incoming().unwrap());
        let mut client = tokio::spawn(TcpStream::connect(address)).await.unwrap().unwrap();
        let accepted = tokio::select! {
            accepted = first.socket.accept() => accepted,
            accepted = second.socket.accept() => accepted,
        };
        tokio::io::AsyncWriteExt::write_all(&mut client, b"early").await.unwrap();
        let room = Room::new(u64::MAX, 2);
        let seat = room.enter(0, 9).unwrap().with(1);
        (first, second, (accepted.unwrap(), seat), room)
    }

    #[tokio::test]
    async fn what_was_handed_over_before_closing_is_served() {
        let (first, second, (accepted, seat), _room) = two().await;
        assert!(first.hand_over(accepted, seat).unwrap().is_none());
        let waiting = second.close().await;
        let [Arrival::Handed(Accepted::Tcp(stream, _), seat)] = &waiting[..] else { panic!("it: {waiting:?}") };
        assert_eq!(seat.worker(), 1);
        let mut said = [0; 5];
        stream.readable().await.unwrap();
        assert_eq!((stream.try_read(&mut said).unwrap(), &said), (5, b"early"));
    }

    #[tokio::test]
    async fn who_accepted_serves_what_another_does_not_take() {
        let (first, second, (accepted, seat), _room) = two().await;
        assert!(second.close().await.is_empty());
        let (_, seat) = first.hand_over(accepted, seat).unwrap().expect("it comes back");
        assert_eq!(seat.worker(), 0);
    }
}
