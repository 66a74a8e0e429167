//! Connections to Redis and Valkey: one server, a sentinel's master, or a cluster; plain or with TLS.
//!
//! Knows addresses and credentials, no keys and no commands. A connection that fails is not mended here:
//! whoever uses it asks for a new one, and so notices what may have changed meanwhile.
//!
//! Addresses are written as other clients write them:
//!
//! ```text
//! redis[s]://[user:password@]host[:6379][/database]
//! redis[s]-sentinel://[user:password@]host[:26379][/database]?sentinelServiceName=mymaster[&node=host2:26379]…
//! redis[s]-cluster://[user:password@]host[:6379][?node=host2:6379]…
//! ```
//!
//! The credentials are those of the Redis servers; sentinels are asked without. With TLS the system's
//! authorities are trusted (`SSL_CERT_FILE`, `SSL_CERT_DIR`), and the certificate must be the host's.

use std::{fmt, time::Duration};

use percent_encoding::percent_decode_str;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, Pipeline, RedisConnectionInfo, RedisFuture, RedisResult, TlsMode,
    Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::time;
use url::Url;
use zeroize::Zeroizing;

/// Where a Redis is, and as whom we come.
#[derive(Clone)]
pub struct Redis {
    topology: Topology,
    nodes: Vec<ConnectionAddr>,
    database: i64,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Topology {
    One,
    /// The master of this name.
    Sentinel(String),
    Cluster,
}

/// A connection. Clones share it.
#[derive(Clone)]
pub struct Connection(Kind);

#[derive(Clone)]
enum Kind {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Redis {
    /// Reads an address, or says what is wrong; never quotes it. Credentials beside the address and in it
    /// are one too many.
    pub fn new(
        address: &str,
        username: Option<String>,
        password: Option<Zeroizing<String>>,
    ) -> Result<Self, &'static str> {
        let url = Url::parse(address).map_err(|_| FORM)?;
        let (tls, topology, port) = match url.scheme() {
            "redis" => (false, Topology::One, 6379),
            "rediss" => (true, Topology::One, 6379),
            "redis-sentinel" => (false, Topology::Sentinel(String::new()), 26379),
            "rediss-sentinel" => (true, Topology::Sentinel(String::new()), 26379),
            "redis-cluster" => (false, Topology::Cluster, 6379),
            "rediss-cluster" => (true, Topology::Cluster, 6379),
            _ => return Err(FORM),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(FORM)?;
        if url.fragment().is_some() {
            return Err(FORM);
        }
        let mut redis = Self {
            nodes: vec![node(host, url.port().unwrap_or(port), tls)],
            topology,
            database: database(url.path())?,
            username: decoded(url.username())?,
            password: url.password().map(decoded).transpose()?.flatten().map(Zeroizing::new),
        };
        if (redis.username.is_some() && username.is_some()) || (redis.password.is_some() && password.is_some()) {
            return Err("has the user or the password in it, and they are given beside it too");
        }
        redis.username = redis.username.or(username);
        redis.password = redis.password.take().or(password);
        if redis.username.is_some() && redis.password.is_none() {
            return Err("a user needs a password");
        }
        redis.read_query(&url, port, tls)?;
        Ok(redis)
    }

    fn read_query(&mut self, url: &Url, port: u16, tls: bool) -> Result<(), &'static str> {
        for (name, value) in url.query_pairs() {
            match (&*name, &mut self.topology) {
                ("node", Topology::Sentinel(_) | Topology::Cluster) => {
                    let other = Url::parse(&format!("redis://{value}")).map_err(|_| FORM)?;
                    let host = other.host_str().filter(|host| !host.is_empty()).ok_or(FORM)?;
                    self.nodes.push(node(host, other.port().unwrap_or(port), tls));
                }
                ("sentinelServiceName", Topology::Sentinel(service)) => *service = value.into_owned(),
                _ => return Err("has a parameter that means nothing here"),
            }
        }
        match &self.topology {
            Topology::Sentinel(service) if service.is_empty() => Err("needs sentinelServiceName"),
            Topology::Cluster if self.database != 0 => Err("a cluster has one database"),
            _ => Ok(()),
        }
    }

    /// Whether keys lie on several nodes, by their slots.
    pub const fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster)
    }

    /// A new connection, whose commands fail when they are not answered within `patience`.
    pub async fn connect(&self, patience: Duration) -> RedisResult<Connection> {
        let connecting = async {
            match &self.topology {
                Topology::One => self.connect_one(patience).await,
                Topology::Sentinel(service) => self.connect_sentinel(service, patience).await,
                Topology::Cluster => self.connect_cluster(patience).await,
            }
        };
        match time::timeout(CONNECTING * 2, connecting).await {
            Ok(connected) => connected.map(Connection),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    async fn connect_one(&self, patience: Duration) -> RedisResult<Kind> {
        let [node, ..] = &*self.nodes else { return Err(nowhere()) };
        let mut settings = RedisConnectionInfo::default().set_db(self.database);
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.as_str());
        }
        let info = redis::IntoConnectionInfo::into_connection_info(node.clone())?.set_redis_settings(settings);
        let client = redis::Client::open(info)?;
        Ok(Kind::One(client.get_multiplexed_async_connection_with_config(&timeouts(patience)).await?))
    }

    async fn connect_sentinel(&self, service: &str, patience: Duration) -> RedisResult<Kind> {
        let mut builder = SentinelClientBuilder::new(self.nodes.clone(), service, SentinelServerType::Master)?
            .set_client_to_redis_db(self.database);
        if self.nodes.iter().any(|node| matches!(node, ConnectionAddr::TcpTls { .. })) {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(username) = &self.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password.as_str());
        }
        Ok(Kind::One(builder.build()?.get_async_connection_with_config(&timeouts(patience)).await?))
    }

    async fn connect_cluster(&self, patience: Duration) -> RedisResult<Kind> {
        let mut builder = ClusterClient::builder(self.nodes.clone())
            .connection_timeout(CONNECTING)
            .response_timeout(patience)
            .overall_response_timeout(Some(patience))
            .retries(1);
        if let Some(username) = &self.username {
            builder = builder.username(username);
        }
        if let Some(password) = &self.password {
            builder = builder.password(password.as_str());
        }
        Ok(Kind::Cluster(builder.build()?.get_async_connection().await?))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("topology", &self.topology).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Kind::One(connection) => connection.req_packed_command(command),
            Kind::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Kind::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Kind::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Kind::One(connection) => connection.get_db(),
            Kind::Cluster(connection) => connection.get_db(),
        }
    }
}

fn node(host: &str, port: u16, tls: bool) -> ConnectionAddr {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match tls {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    }
}

fn database(path: &str) -> Result<i64, &'static str> {
    match path.trim_start_matches('/') {
        "" => Ok(0),
        number => number.parse::<u16>().map(i64::from).map_err(|_| "the database is a number"),
    }
}

/// Text of the user part; none where it is empty.
fn decoded(text: &str) -> Result<Option<String>, &'static str> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| FORM)?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

fn timeouts(patience: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECTING)).set_response_timeout(Some(patience))
}

fn nowhere() -> redis::RedisError {
    (redis::ErrorKind::InvalidClientConfig, "no address").into()
}

const FORM: &str =
    "is redis://[user:password@]host[:port][/database], rediss://…, redis-sentinel://… or redis-cluster://…";

/// Longest wait for a connection to one server.
const CONNECTING: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: &str) -> Result<Redis, &'static str> {
        Redis::new(address, None, None)
    }

    #[test]
    fn addresses_are_read_into_their_parts() {
        use Topology::{Cluster, One, Sentinel};
        let master = || Sentinel("m".into());
        for (address, topology, nodes, database, tls) in [
            ("redis://h", One, &["h:6379"][..], 0, false),
            ("redis://127.0.0.1:1/3", One, &["127.0.0.1:1"], 3, false),
            ("redis://[::1]:2", One, &["::1:2"], 0, false),
            ("rediss://h/", One, &["h:6379"], 0, true),
            (
                "redis-sentinel://a/2?sentinelServiceName=m&node=b:3&node=c",
                master(),
                &["a:26379", "b:3", "c:26379"],
                2,
                false,
            ),
            ("rediss-sentinel://a?sentinelServiceName=m", master(), &["a:26379"], 0, true),
            ("redis-cluster://a:1?node=b:2", Cluster, &["a:1", "b:2"], 0, false),
            ("rediss-cluster://a:1", Cluster, &["a:1"], 0, true),
        ] {
            let redis = read(address).expect(address);
            let written: Vec<String> = redis.nodes.iter().map(ToString::to_string).collect();
            assert_eq!((redis.topology, &*written, redis.database), (topology, &*own(nodes), database), "{address}");
            let secure = |node: &ConnectionAddr| matches!(node, ConnectionAddr::TcpTls { insecure: false, .. });
            assert!(redis.nodes.iter().all(|node| secure(node) == tls), "{address}");
        }
    }

    fn own(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn credentials_come_from_one_place_and_never_show() {
        let redis = read("redis://u%40x:s3%3Acret@h").unwrap();
        assert_eq!(
            (redis.username.as_deref(), redis.password.as_ref().map(|p| p.as_str())),
            (Some("u@x"), Some("s3:cret"))
        );
        assert!(!format!("{redis:?}").contains("cret"));
        assert_eq!(read("redis://:p@h").unwrap().username, None);
        let given = |text: &str| Some(Zeroizing::new(text.to_owned()));
        assert!(Redis::new("redis://h", Some("u".into()), given("p")).is_ok());
        assert!(Redis::new("redis://u@h", None, given("p")).is_ok());
        assert!(Redis::new("redis://u:p@h", Some("u".into()), None).is_err());
        assert!(Redis::new("redis://:p@h", None, given("p")).is_err());
        assert!(Redis::new("redis://h", Some("u".into()), None).is_err());
    }

    #[test]
    fn other_addresses_are_refused() {
        for address in [
            "",
            "h:6379",
            "http://h",
            "unix:/run/redis.sock",
            "redis://",
            "redis:///0",
            "redis://h/x",
            "redis://h/99999999",
            "redis://h?a=b",
            "redis://h?node=b",
            "redis://h#x",
            "redis://h:99999",
            "redis-sentinel://h",
            "redis-sentinel://h?sentinelServiceName=",
            "redis-cluster://h/1",
            "redis-cluster://h?node=",
            "redis-cluster://h?sentinelServiceName=m",
        ] {
            assert!(read(address).is_err(), "{address}");
        }
    }
}
