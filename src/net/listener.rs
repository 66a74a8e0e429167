//! Listeners: one socket per worker on the same port, or one Unix socket whose connections are handed out.
//!
//! A port is first bound without `SO_REUSEPORT`, so that a port someone else serves is an error and never shared
//! in silence. Nothing here speaks HTTP or TLS.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
};

use super::{Address, side};

/// One worker's share of an address, bound and not yet part of any runtime.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(StdTcpListener),
    /// The worker that accepts on a Unix socket, and where the others wait for their share.
    UnixOwner(StdUnixListener, SocketFile, Vec<mpsc::Sender<StdUnixStream>>),
    UnixShare(PathBuf, mpsc::Receiver<StdUnixStream>),
}

/// Binds `address` for `n` workers. Port 0 picks one port for all of them.
pub fn bind(address: &Address, n: usize) -> io::Result<Vec<Listener>> {
    match address {
        Address::Tcp(address) => bind_tcp(*address, n.max(1)),
        Address::Unix(path) => bind_unix(path, n.max(1)),
    }
}

impl Listener {
    /// The address it is bound to; tells the port where 0 was asked for.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Kind::UnixOwner(_, file, _) => Ok(Address::Unix(file.path.clone())),
            Kind::UnixShare(path, _) => Ok(Address::Unix(path.clone())),
        }
    }

    /// Makes it the listener of a side door, in the present runtime.
    pub fn into_side(self) -> io::Result<side::Listener> {
        match self.into_incoming()? {
            Incoming::Tcp(listener) => Ok(listener.into()),
            Incoming::UnixOwner { listener, _file, .. } => Ok(side::Listener::Unix(listener, Some(_file))),
            Incoming::UnixShare(_) => Err(io::Error::other("a side door has one listener")),
        }
    }

    /// Makes it part of the present runtime.
    pub(super) fn into_incoming(self) -> io::Result<Incoming> {
        Ok(match self.0 {
            Kind::Tcp(listener) => Incoming::Tcp(TcpListener::from_std(listener)?),
            Kind::UnixOwner(listener, file, shares) => {
                Incoming::UnixOwner { listener: UnixListener::from_std(listener)?, shares, next: 0, _file: file }
            }
            Kind::UnixShare(_, connections) => Incoming::UnixShare(connections),
        })
    }
}

/// A client's connection, as accepted.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// A listener that accepts.
#[derive(Debug)]
pub(super) enum Incoming {
    Tcp(TcpListener),
    UnixOwner { listener: UnixListener, shares: Vec<mpsc::Sender<StdUnixStream>>, next: usize, _file: SocketFile },
    UnixShare(mpsc::Receiver<StdUnixStream>),
}

impl Incoming {
    /// The next connection of this worker. `None`: there will be no more. Cancel-safe.
    pub(super) async fn accept(&mut self) -> Option<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => Some(listener.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer))),
            Self::UnixOwner { listener, shares, next, .. } => loop {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => return Some(Err(error)),
                };
                if let Some(own) = hand_out(stream, shares, next).transpose() {
                    return Some(own.map(Accepted::Unix));
                }
            },
            Self::UnixShare(connections) => {
                let stream = connections.recv().await?;
                Some(UnixStream::from_std(stream).map(Accepted::Unix))
            }
        }
    }

    /// Stops listening; what already waits in the queue is still accepted.
    pub(super) fn close(self) -> Vec<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                std::iter::from_fn(|| listener.accept().ok()).filter_map(tcp_from_std).collect()
            }
            Self::UnixOwner { listener, shares, mut next, _file } => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                std::iter::from_fn(|| listener.accept().ok())
                    .filter_map(|(stream, _)| {
                        stream.set_nonblocking(true).ok()?;
                        let stream = UnixStream::from_std(stream).ok()?;
                        hand_out(stream, &shares, &mut next).ok()?.map(Accepted::Unix)
                    })
                    .collect()
            }
            Self::UnixShare(mut connections) => {
                connections.close();
                std::iter::from_fn(|| connections.try_recv().ok())
                    .filter_map(|stream| UnixStream::from_std(stream).ok().map(Accepted::Unix))
                    .collect()
            }
        }
    }
}

fn tcp_from_std((stream, peer): (std::net::TcpStream, SocketAddr)) -> Option<Accepted> {
    stream.set_nonblocking(true).ok()?;
    Some(Accepted::Tcp(TcpStream::from_std(stream).ok()?, peer))
}

/// Gives `stream` to the next worker in turn; `Some`: that is the accepting one itself, or nobody else takes it.
fn hand_out(
    stream: UnixStream,
    shares: &[mpsc::Sender<StdUnixStream>],
    next: &mut usize,
) -> io::Result<Option<UnixStream>> {
    let turn = *next;
    *next = (turn + 1) % (shares.len() + 1);
    let Some(share) = turn.checked_sub(1).and_then(|i| shares.get(i)) else { return Ok(Some(stream)) };
    match share.try_send(stream.into_std()?) {
        Ok(()) => Ok(None),
        Err(mpsc::error::TrySendError::Full(stream) | mpsc::error::TrySendError::Closed(stream)) => {
            UnixStream::from_std(stream).map(Some)
        }
    }
}

fn bind_tcp(address: SocketAddr, n: usize) -> io::Result<Vec<Listener>> {
    let probe = tcp_socket(address, false)?;
    if n == 1 {
        return Ok(vec![Listener(Kind::Tcp(probe.into()))]);
    }
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    (0..n).map(|_| tcp_socket(address, true).map(|socket| Listener(Kind::Tcp(socket.into())))).collect()
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

fn bind_unix(path: &Path, n: usize) -> io::Result<Vec<Listener>> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    // Before `listen`: nobody connects while the mode is still the umask's.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    socket.listen(BACKLOG)?;
    let (shares, waiting): (Vec<_>, Vec<_>) = (1..n).map(|_| mpsc::channel(HANDED_OUT)).unzip();
    let owner = Listener(Kind::UnixOwner(socket.into(), file, shares));
    let others = waiting.into_iter().map(|share| Listener(Kind::UnixShare(path.to_owned(), share)));
    Ok(std::iter::once(owner).chain(others).collect())
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
/// Connections that may wait for a worker; beyond it the accepting worker serves them itself.
const HANDED_OUT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn a_unix_socket_is_handed_out_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sock");
        let address = Address::Unix(path.clone());
        let mut listeners = bind(&address, 2).unwrap().into_iter();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind(&address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let mut owner = listeners.next().unwrap().into_incoming().unwrap();
        let mut share = listeners.next().unwrap().into_incoming().unwrap();
        let _clients: Vec<_> = (0..3).map(|_| StdUnixStream::connect(&path).unwrap()).collect();
        assert!(matches!(owner.accept().await, Some(Ok(Accepted::Unix(_)))));
        assert!(matches!(owner.accept().await, Some(Ok(Accepted::Unix(_)))));
        assert!(matches!(share.accept().await, Some(Ok(Accepted::Unix(_)))));
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
            let [Accepted::Tcp(accepted, _)] = &incoming.into_iter().flat_map(Incoming::close).collect::<Vec<_>>()[..]
            else {
                panic!("one connection")
            };
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
        assert_eq!(incoming.close().len(), 3);
    }
}
