//! The last good key set of each provider, in the record: what a restart during an outage has to judge by.
//!
//! It counts as long as it would have without the restart: `jwks_max_stale` from when it was fetched, by the wall
//! clock; one from the future never does. A set that shows private keys is not written down.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::settings::KeyManagerSettings;
use crate::{
    net::Now,
    store::record::{self, Record, Table},
};

/// One provider's place in the record.
#[derive(Debug)]
pub(super) struct Known {
    record: Record,
    key: Vec<u8>,
}

/// A set as it was fetched.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    fetched_ms: u64,
    text: String,
}

impl Known {
    /// The place of the provider that these settings find keys with. Those had under other settings are another's.
    pub(super) fn of(settings: &KeyManagerSettings, record: Record) -> Self {
        let KeyManagerSettings { connector, issuer, jwks_uri, allow_http, .. } = settings;
        let key = serde_json::json!([connector, issuer, jwks_uri, allow_http]).to_string().into_bytes();
        Self { record, key }
    }

    /// The set, and its age in milliseconds. A record that cannot be read has none.
    pub(super) fn load(&self, now: Now) -> Option<(Bytes, u64)> {
        let row = self.record.get(&SETS, &self.key).unwrap_or_else(|error| {
            tracing::warn!(%error, "the last known keys cannot be read");
            None
        })?;
        Some((row.text.into(), now.unix_ms.checked_sub(row.fetched_ms)?))
    }

    /// Keeps a set that was fetched at `now`; waits until that is durable.
    pub(super) async fn keep(&self, text: &[u8], now: Now) -> Result<(), record::Error> {
        // A set that was read is JSON, and so UTF-8.
        let row = Row { fetched_ms: now.unix_ms, text: String::from_utf8_lossy(text).into_owned() };
        let key = self.key.clone();
        self.record.change(move |changes| changes.put(&SETS, &key, &row)).await
    }
}

const SETS: Table<Row> = Table::new("token_key_sets");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::testing::settings;

    #[tokio::test]
    async fn a_set_is_its_providers_alone_and_has_its_age() {
        let record = Record::in_memory().expect("memory");
        let ours = settings("https://idp.example.com");
        let known = |settings: &KeyManagerSettings| Known::of(settings, record.clone());
        assert!(known(&ours).load(Now::at_ms(5000)).is_none());
        known(&ours).keep(b"{}", Now::at_ms(5000)).await.expect("written");
        assert_eq!(known(&ours).load(Now::at_ms(7000)), Some(("{}".into(), 2000)));
        assert_eq!(known(&ours).load(Now::at_ms(4999)), None, "from the future");
        let mut renamed = ours.clone();
        renamed.name = "other".into();
        assert!(known(&renamed).load(Now::at_ms(7000)).is_some(), "the provider counts, not its name");
        let mut elsewhere = ours.clone();
        elsewhere.jwks_uri = Some("https://idp.example.com/keys".into());
        let mut open = ours;
        open.allow_http = true;
        for settings in [settings("https://idp.example.org"), elsewhere, open] {
            assert!(known(&settings).load(Now::at_ms(7000)).is_none());
        }
    }
}
