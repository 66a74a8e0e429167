//! What the tokens of one client have in common, kept once for all of them that are remembered.
//!
//! A client's tokens differ by subject, `jti` and times, and hardly by anything else; what does not differ is most
//! of what a token says.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
    mem,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use hashbrown::DefaultHashBuilder;
use http::HeaderValue;
use parking_lot::Mutex;

use super::cache::heap;

/// What a token says that other tokens of its client are likely to say as well.
#[derive(Debug, Default)]
pub struct Common {
    /// Name of the key manager that vouches for it.
    pub key_manager: Arc<str>,
    /// `iss`
    pub issuer: Arc<str>,
    /// The consumer key (OAuth client id).
    pub consumer_key: Option<Box<str>>,
    /// Scopes, whole words, in the token's order.
    pub scopes: Box<[Box<str>]>,
    /// `aud`
    pub audience: Box<[Box<str>]>,
    /// `acr`: how its user has signed in (RFC 9470).
    pub acr: Option<Box<str>>,
    /// Ready value of the identity header for the consumer key.
    pub consumer_key_value: Option<HeaderValue>,
    /// Ready value of the identity header for the scopes, space separated.
    pub scopes_value: Option<HeaderValue>,
    /// The claims that were wanted as headers when the token was judged.
    pub claim_names: Arc<[Box<str>]>,
    /// That it is counted among the shared ones; none while it belongs to one token.
    pub(super) held: Option<Held>,
}

/// Those that are shared. They live as long as one of the tokens that have them.
#[derive(Debug)]
pub(super) struct Commons {
    table: Mutex<Table>,
    /// Whoever makes two meet has them kept twice, and no more.
    hasher: DefaultHashBuilder,
    /// Bytes that the shared ones hold.
    held: Arc<AtomicU64>,
    /// The most that they may; beyond, tokens keep their own.
    most: u64,
}

#[derive(Debug)]
struct Table {
    /// By hash. Of two that meet in one, the second is not shared.
    rows: HashMap<u64, Weak<Common>>,
    /// How many rows there may be before the dead ones are swept out.
    sweep_at: usize,
}

/// Bytes counted as long as it lives.
#[derive(Debug)]
pub(super) struct Held {
    of: Arc<AtomicU64>,
    bytes: u64,
}

impl Common {
    /// What a token's own one adds to its weight; nothing for a shared one, which is counted here.
    pub(super) fn weight(&self) -> usize {
        if self.held.is_some() { 0 } else { self.bytes() }
    }

    fn bytes(&self) -> usize {
        let lists = [&self.scopes, &self.audience];
        heap(mem::size_of::<Self>() + 2 * mem::size_of::<usize>())
            + [&self.consumer_key, &self.acr].into_iter().flatten().map(|text| heap(text.len())).sum::<usize>()
            + lists.into_iter().map(|list| heap(mem::size_of_val::<[Box<str>]>(list))).sum::<usize>()
            + lists.into_iter().flatten().map(|text| heap(text.len())).sum::<usize>()
            + [&self.consumer_key_value, &self.scopes_value].into_iter().flatten().map(value_bytes).sum::<usize>()
    }

    /// What tells it from others; the header values follow from it.
    fn key(&self) -> impl Hash + PartialEq {
        let Self { key_manager, issuer, consumer_key, scopes, audience, acr, claim_names, .. } = self;
        (key_manager, issuer, consumer_key, scopes, audience, acr, claim_names)
    }
}

impl Commons {
    /// None yet, and `most` bytes for them.
    pub(super) fn new(most: u64) -> Self {
        let table = Mutex::new(Table { rows: HashMap::new(), sweep_at: FEW });
        Self { table, hasher: DefaultHashBuilder::default(), held: Arc::default(), most }
    }

    /// Puts the shared one that says the same in place of a token's own. Where there is no room for it, it stays.
    pub(super) fn share(&self, common: &mut Arc<Common>) {
        let hash = self.hasher.hash_one(common.key());
        let mut table = self.table.lock();
        if let Some(shared) = table.rows.get(&hash).and_then(Weak::upgrade) {
            if shared.key() == common.key() {
                *common = shared;
            }
            return;
        }
        // One that has just been read is nobody else's yet.
        let Some(own) = Arc::get_mut(common).filter(|own| own.held.is_none()) else { return };
        let bytes = (own.bytes() + ROW) as u64;
        if self.held.load(Ordering::Relaxed).saturating_add(bytes) > self.most {
            return;
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        own.held = Some(Held { of: Arc::clone(&self.held), bytes });
        if table.rows.len() >= table.sweep_at {
            table.rows.retain(|_, row| row.strong_count() > 0);
            table.sweep_at = FEW.max(table.rows.len() * 2);
            let room = table.sweep_at;
            table.rows.shrink_to(room);
        }
        table.rows.insert(hash, Arc::downgrade(common));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a header value holds outside of itself: its text, and the count of those who share it.
pub(super) fn value_bytes(value: &HeaderValue) -> usize {
    heap(value.len()) + heap(3 * mem::size_of::<usize>())
}

/// Rows that are not worth sweeping.
const FEW: usize = 64;
/// A row of the table, and one more that is dead and not swept out yet.
const ROW: usize = 2 * 2 * mem::size_of::<(u64, usize)>() + mem::size_of::<Common>();

#[cfg(test)]
mod tests {
    use super::*;

    fn common(client: &str, scopes: &[&str]) -> Arc<Common> {
        Arc::new(Common {
            key_manager: "km".into(),
            issuer: "https://idp.example.com".into(),
            consumer_key: Some(client.into()),
            scopes: scopes.iter().map(|&scope| scope.into()).collect(),
            audience: ["api".into()].into(),
            acr: None,
            consumer_key_value: HeaderValue::from_str(client).ok(),
            scopes_value: None,
            claim_names: Arc::default(),
            held: None,
        })
    }

    fn shared(commons: &Commons, mut common: Arc<Common>) -> Arc<Common> {
        commons.share(&mut common);
        common
    }

    #[test]
    fn equal_ones_are_one_and_others_are_not() {
        let commons = Commons::new(1 << 20);
        let first = shared(&commons, common("shop", &["a", "b"]));
        assert!(Arc::ptr_eq(&first, &shared(&commons, common("shop", &["a", "b"]))));
        for other in [common("shop", &["b", "a"]), common("shop", &["a"]), common("shop2", &["a", "b"])] {
            assert!(!Arc::ptr_eq(&first, &shared(&commons, other)));
        }
        let mut elsewhere = common("shop", &["a", "b"]);
        Arc::get_mut(&mut elsewhere).expect("ours alone").issuer = "https://other.example.com".into();
        assert_eq!(&*shared(&commons, elsewhere).issuer, "https://other.example.com");
        let mut stronger = common("shop", &["a", "b"]);
        Arc::get_mut(&mut stronger).expect("ours alone").acr = Some("gold".into());
        assert_eq!(shared(&commons, stronger).acr.as_deref(), Some("gold"));
    }

    #[test]
    fn they_are_counted_while_they_live_and_beyond_their_room_tokens_keep_their_own() {
        let commons = Commons::new(20_000);
        let held: Vec<_> = (0..1000).map(|n| shared(&commons, common(&format!("client-{n}"), &["a"]))).collect();
        let counted = held.iter().filter(|common| common.weight() == 0).count();
        assert!((10..100).contains(&counted), "{counted}");
        assert!(commons.held.load(Ordering::Relaxed) <= 20_000);
        let own = held.last().expect("many");
        assert!(own.weight() > 200 && !Arc::ptr_eq(own, &shared(&commons, common("client-999", &["a"]))));
        drop(held);
        assert_eq!(commons.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn dead_rows_are_swept_out() {
        let commons = Commons::new(1 << 30);
        let kept = shared(&commons, common("kept", &[]));
        for n in 0..10_000 {
            shared(&commons, common(&format!("client-{n}"), &[]));
        }
        assert!(commons.table.lock().rows.len() <= FEW + 1);
        assert!(Arc::ptr_eq(&kept, &shared(&commons, common("kept", &[]))));
    }
}
