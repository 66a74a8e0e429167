//! What is asked of whom, and what is wanted of the answers: data only.

use jsonwebtoken::Algorithm;

/// A program in one way of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tollgate,
    Bare,
    Nginx,
    Haproxy,
    HaproxyJwt,
    Envoy,
    EnvoyJwt,
}

impl Kind {
    /// As the table says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tollgate => "**Tollgate**",
            Self::Bare => "bare hyper",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::HaproxyJwt => "HAProxy `jwt_verify`",
            Self::Envoy => "Envoy",
            Self::EnvoyJwt => "Envoy `jwt_authn`, cached",
        }
    }

    /// What it looks at before it lets a request pass.
    pub(crate) fn checks(self) -> &'static str {
        match self {
            Self::Tollgate => "everything",
            Self::Bare | Self::Nginx | Self::Haproxy | Self::Envoy => "none",
            Self::HaproxyJwt => "signature, claims, scope",
            Self::EnvoyJwt => "signature, claims, scope",
        }
    }
}

/// What each request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// One token, known after the first request.
    Warm(Algorithm),
    /// One after the other of [`crate::token::DISTINCT`] RS256 tokens, each known after the first time round.
    Distinct,
    /// One opaque token that a provider was asked about (RFC 7662), and is again when the answer is a minute old.
    Opaque,
    NoToken,
    /// One token whose signature is wrong.
    KnownBad,
    /// One good token whose application has used up its tier.
    BeyondTier,
}

impl Ask {
    /// The only answer that is no error.
    pub(crate) fn expected(self) -> u16 {
        match self {
            Self::Warm(_) | Self::Distinct | Self::Opaque => 200,
            Self::NoToken | Self::KnownBad => 401,
            Self::BeyondTier => 429,
        }
    }

    /// As the table says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RS256 => "RS256",
            ES256 => "ES256",
            EDDSA => "EdDSA",
            Self::Warm(_) => "another algorithm",
            Self::Distinct => "20,000 RS256 tokens",
            Self::Opaque => "opaque, introspected",
            Self::NoToken => "refused: no token",
            Self::KnownBad => "refused: known bad signature",
            Self::BeyondTier => "refused: beyond the tier",
        }
    }
}

/// What is spoken with the proxy; with the backend it is always HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Http1Tls,
    Http2Tls,
}

impl Protocol {
    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Tls)
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Http1Tls | Self::Http2Tls)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http1Tls => "HTTP/1.1 over TLS",
            Self::Http2Tls => "HTTP/2 over TLS",
        }
    }

    /// Requests under way on each connection: so many of HTTP/2 that they are at least 128 in all, but for one alone.
    pub(crate) fn streams(self, connections: u16) -> u16 {
        if self.is_http2() { (128 / connections).clamp(1, 32) } else { 1 }
    }
}

/// One line of a table, and one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) ask: Ask,
    pub(crate) connections: u16,
}

/// Rows that are measured side by side, once for each number of connections.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    protocol: Protocol,
    connections: &'static [u16],
    rows: &'static [(Kind, Ask)],
    /// Further rows, with connections of their own.
    beside: &'static [Row],
}

/// Rows whose rounds are interleaved: one table.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) scenario: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) connections: u16,
    pub(crate) rows: Vec<Row>,
}

impl Scenario {
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        self.connections.iter().map(|&connections| Group {
            scenario: self.name,
            protocol: self.protocol,
            connections,
            rows: self
                .rows
                .iter()
                .map(|&(kind, ask)| Row { kind, ask, connections })
                .chain(self.beside.iter().copied())
                .collect(),
        })
    }
}

/// A ratio of two rows in one group, and how far it may go.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) what: &'static str,
    pub(crate) figure: Figure,
    pub(crate) ours: Row,
    pub(crate) theirs: Row,
    pub(crate) limit: Limit,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    Cpu,
    P99,
    PerSecond,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

const RS256: Ask = Ask::Warm(Algorithm::RS256);
const ES256: Ask = Ask::Warm(Algorithm::ES256);
const EDDSA: Ask = Ask::Warm(Algorithm::EdDSA);
const OURS: Row = Row { kind: Kind::Tollgate, ask: RS256, connections: 32 };
const OURS_512: Row = Row { connections: 512, ..OURS };
const EACH: &[u16] = &[1, 32, 512];

/// The first is what runs when none is named: it has the rows of all bounds.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bounds",
        protocol: Protocol::Http1,
        connections: &[32],
        rows: &[
            (Kind::Bare, RS256),
            (Kind::Haproxy, RS256),
            (Kind::Tollgate, RS256),
            (Kind::EnvoyJwt, RS256),
            (Kind::Tollgate, Ask::Distinct),
            (Kind::EnvoyJwt, Ask::Distinct),
            (Kind::Tollgate, Ask::NoToken),
            (Kind::Tollgate, Ask::KnownBad),
            (Kind::Tollgate, Ask::BeyondTier),
        ],
        beside: &[OURS_512],
    },
    Scenario {
        name: "warm",
        protocol: Protocol::Http1,
        connections: EACH,
        rows: &[
            (Kind::Bare, RS256),
            (Kind::Haproxy, RS256),
            (Kind::Nginx, RS256),
            (Kind::Envoy, RS256),
            (Kind::Tollgate, RS256),
            (Kind::Tollgate, ES256),
            (Kind::Tollgate, EDDSA),
            (Kind::HaproxyJwt, RS256),
            (Kind::HaproxyJwt, ES256),
            (Kind::EnvoyJwt, RS256),
            (Kind::EnvoyJwt, ES256),
            (Kind::EnvoyJwt, EDDSA),
        ],
        beside: &[],
    },
    Scenario {
        name: "distinct",
        protocol: Protocol::Http1,
        connections: EACH,
        rows: &[(Kind::Tollgate, Ask::Distinct), (Kind::HaproxyJwt, Ask::Distinct), (Kind::EnvoyJwt, Ask::Distinct)],
        beside: &[],
    },
    // Of these programs only Tollgate asks a provider about opaque tokens.
    Scenario {
        name: "introspected",
        protocol: Protocol::Http1,
        connections: EACH,
        rows: &[(Kind::Tollgate, RS256), (Kind::Tollgate, Ask::Opaque)],
        beside: &[],
    },
    // Of these programs only Tollgate knows tiers.
    Scenario {
        name: "refused",
        protocol: Protocol::Http1,
        connections: EACH,
        rows: &[
            (Kind::Tollgate, RS256),
            (Kind::Tollgate, Ask::NoToken),
            (Kind::Tollgate, Ask::KnownBad),
            (Kind::Tollgate, Ask::BeyondTier),
            (Kind::HaproxyJwt, Ask::NoToken),
            (Kind::HaproxyJwt, Ask::KnownBad),
            (Kind::EnvoyJwt, Ask::NoToken),
            (Kind::EnvoyJwt, Ask::KnownBad),
        ],
        beside: &[],
    },
    Scenario {
        name: "http2",
        protocol: Protocol::Http2,
        connections: EACH,
        rows: &[
            (Kind::Bare, RS256),
            (Kind::Haproxy, RS256),
            (Kind::Nginx, RS256),
            (Kind::Envoy, RS256),
            (Kind::Tollgate, RS256),
            (Kind::EnvoyJwt, RS256),
        ],
        beside: &[],
    },
    Scenario { name: "tls", protocol: Protocol::Http1Tls, connections: EACH, rows: OVER_TLS, beside: &[] },
    Scenario { name: "http2-tls", protocol: Protocol::Http2Tls, connections: EACH, rows: OVER_TLS, beside: &[] },
];

const OVER_TLS: &[(Kind, Ask)] = &[
    (Kind::Haproxy, RS256),
    (Kind::Nginx, RS256),
    (Kind::Envoy, RS256),
    (Kind::Tollgate, RS256),
    (Kind::EnvoyJwt, RS256),
];

pub(crate) const BOUNDS: &[Bound] = &[
    Bound {
        what: "CPU, warm token, over bare hyper",
        figure: Figure::Cpu,
        ours: OURS,
        theirs: Row { kind: Kind::Bare, ..OURS },
        limit: Limit::AtMost(1.15),
    },
    Bound {
        what: "CPU, warm token, over HAProxy merely proxying",
        figure: Figure::Cpu,
        ours: OURS,
        theirs: Row { kind: Kind::Haproxy, ..OURS },
        limit: Limit::AtMost(1.0),
    },
    Bound {
        what: "CPU, warm token, over Envoy `jwt_authn` with its cache",
        figure: Figure::Cpu,
        ours: OURS,
        theirs: Row { kind: Kind::EnvoyJwt, ..OURS },
        limit: Limit::AtMost(0.25),
    },
    Bound {
        what: "CPU, 20,000 distinct tokens, over Envoy `jwt_authn` with them",
        figure: Figure::Cpu,
        ours: Row { ask: Ask::Distinct, ..OURS },
        theirs: Row { kind: Kind::EnvoyJwt, ask: Ask::Distinct, ..OURS },
        limit: Limit::AtMost(0.25),
    },
    Bound {
        what: "p99, 32 connections, over HAProxy merely proxying",
        figure: Figure::P99,
        ours: OURS,
        theirs: Row { kind: Kind::Haproxy, ..OURS },
        limit: Limit::AtMost(1.0),
    },
    Bound {
        what: "CPU, refused for no token, over accepted",
        figure: Figure::Cpu,
        ours: Row { ask: Ask::NoToken, ..OURS },
        theirs: OURS,
        limit: Limit::AtMost(0.6),
    },
    Bound {
        what: "CPU, refused for a known bad token, over accepted",
        figure: Figure::Cpu,
        ours: Row { ask: Ask::KnownBad, ..OURS },
        theirs: OURS,
        limit: Limit::AtMost(0.6),
    },
    Bound {
        what: "CPU, refused beyond the tier, over accepted",
        figure: Figure::Cpu,
        ours: Row { ask: Ask::BeyondTier, ..OURS },
        theirs: OURS,
        limit: Limit::AtMost(0.6),
    },
    Bound {
        what: "requests a second, 512 connections over 32",
        figure: Figure::PerSecond,
        ours: OURS_512,
        theirs: OURS,
        limit: Limit::AtLeast(0.9),
    },
];
