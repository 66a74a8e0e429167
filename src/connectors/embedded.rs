//! Connector `embedded`: the operations of a Key Manager, done by the provider in this process.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;

use crate::{
    authserver::Provider,
    keymanager::{KeyManager, Operation},
};

/// The embedded provider as a Key Manager.
#[derive(Debug)]
pub(super) struct Embedded {
    #[expect(dead_code, reason = "the operations follow")]
    provider: Arc<Provider>,
}

impl Embedded {
    /// That of this provider.
    pub(super) const fn new(provider: Arc<Provider>) -> Self {
        Self { provider }
    }
}

#[async_trait]
impl KeyManager for Embedded {
    fn connector(&self) -> &'static str {
        "embedded"
    }

    fn cannot(&self, _operation: Operation) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed("not in this build"))
    }
}
