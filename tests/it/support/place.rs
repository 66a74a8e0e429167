//! A provider, an upstream, and a gate with the Orders API and further tables between them.

use super::{Answer, Backend, Config, Gate, Idp, Request, Token, Via, block_on};

/// All three.
pub(crate) struct Place {
    pub(crate) gate: Gate,
    pub(crate) idp: Idp,
    pub(crate) upstream: Backend,
}

impl Place {
    /// The Orders API and `shop-web`, with further tables; `UP` in them is the upstream.
    pub(crate) fn start(tables: &str) -> Self {
        Self::with_key_manager(tables, "")
    }

    /// And further lines in the key manager's section.
    pub(crate) fn with_key_manager(tables: &str, lines: &str) -> Self {
        let (idp, upstream) = (Idp::start(), Backend::start("production"));
        let mut config = Config::orders(&idp, &upstream.url()).with(&tables.replace("UP", &upstream.url()));
        let audience = "audience = [\"orders-api\"]";
        config.rest = config.rest.replacen(audience, &format!("{audience}\n{lines}"), 1);
        let gate = Gate::start(|ports| config.text(ports));
        Self { gate, idp, upstream }
    }

    /// A request with a new token of that client.
    pub(crate) fn get(&self, target: &str, client: &str) -> Request {
        Request::get(target).bearer(Token::of(&self.idp, client).sign())
    }

    /// Over HTTP/1.1; the upstream sees what passes, and nothing else.
    pub(crate) fn send(&self, request: &Request) -> Answer {
        let answer = block_on(self.gate.send(Via::H1, request));
        assert_eq!(self.upstream.saw(&request.mark), answer.status == 200, "{answer:?}");
        answer
    }
}
