//! What the tokens of one client have in common, kept once for all of them that are remembered.
//!
//! A client's tokens differ by subject, `jti` and times, and hardly by anything else; what does not differ is most
//! of what a token says.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    mem,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use hashbrown::DefaultHashBuilder;
use http::HeaderValue;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{cache::heap, claims, rules::Rules};

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

/// The same as a token's claims have it, borrowed: of one that is there already nothing is copied.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) rules: &'a Rules,
    pub(super) consumer_key: Option<&'a str>,
    pub(super) scopes: SmallVec<[&'a str; 8]>,
    pub(super) audience: SmallVec<[&'a str; 4]>,
    pub(super) acr: Option<&'a str>,
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
}

impl Said<'_> {
    /// What tells it from others; the header values follow from it.
    fn hash(&self, hasher: &DefaultHashBuilder) -> u64 {
        let Self { rules, consumer_key, scopes, audience, acr } = self;
        hasher.hash_one((&rules.name, &rules.issuer, consumer_key, scopes, audience, acr, &rules.header_claims))
    }

    fn is(&self, common: &Common) -> bool {
        let same = |said: &[&str], list: &[Box<str>]| {
            said.len() == list.len() && said.iter().zip(list).all(|(said, word)| **said == **word)
        };
        self.rules.name == common.key_manager
            && self.rules.issuer == common.issuer
            && self.consumer_key == common.consumer_key.as_deref()
            && same(&self.scopes, &common.scopes)
            && same(&self.audience, &common.audience)
            && self.acr == common.acr.as_deref()
            && self.rules.header_claims == common.claim_names
    }

    fn to_common(&self) -> Common {
        let list = |words: &[&str]| words.iter().map(|&word| word.into()).collect();
        Common {
            key_manager: Arc::clone(&self.rules.name),
            issuer: Arc::clone(&self.rules.issuer),
            consumer_key: self.consumer_key.map(Into::into),
            scopes: list(&self.scopes),
            audience: list(&self.audience),
            acr: self.acr.map(Into::into),
            consumer_key_value: self.consumer_key.and_then(claims::text_header),
            scopes_value: claims::joined(&self.scopes, ' '),
            claim_names: Arc::clone(&self.rules.header_claims),
            held: None,
        }
    }
}

impl Commons {
    /// None yet, and `most` bytes for them.
    pub(super) fn new(most: u64) -> Self {
        let table = Mutex::new(Table { rows: HashMap::new(), sweep_at: FEW });
        Self { table, hasher: DefaultHashBuilder::default(), held: Arc::default(), most }
    }

    /// The shared one that says this, from now on if there is none yet. Where there is no room for it, one of the
    /// token's own.
    pub(super) fn of(&self, said: &Said<'_>) -> Arc<Common> {
        let hash = said.hash(&self.hasher);
        let mut table = self.table.lock();
        let known = table.rows.get(&hash).and_then(Weak::upgrade);
        if let Some(shared) = &known
            && said.is(shared)
        {
            return Arc::clone(shared);
        }
        let mut own = said.to_common();
        let bytes = (own.bytes() + ROW) as u64;
        if known.is_some() || self.held.load(Ordering::Relaxed).saturating_add(bytes) > self.most {
            return Arc::new(own);
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        own.held = Some(Held { of: Arc::clone(&self.held), bytes });
        if table.rows.len() >= table.sweep_at {
            table.rows.retain(|_, row| row.strong_count() > 0);
            table.sweep_at = FEW.max(table.rows.len() * 2);
            let room = table.sweep_at;
            table.rows.shrink_to(room);
        }
        let shared = Arc::new(own);
        table.rows.insert(hash, Arc::downgrade(&shared));
        shared
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
    use crate::token::testing;

    fn rules(issuer: &str) -> Rules {
        Rules::build(testing::settings(issuer), &Arc::default(), "").expect("good settings")
    }

    fn said<'a>(rules: &'a Rules, client: &'a str, scopes: &[&'a str]) -> Said<'a> {
        let (scopes, audience) = (SmallVec::from(scopes), SmallVec::from_slice(&["api"]));
        Said { rules, consumer_key: Some(client), scopes, audience, acr: None }
    }

    #[test]
    fn equal_ones_are_one_and_others_are_not() {
        let (commons, rules) = (Commons::new(1 << 20), rules("https://idp.example.com"));
        let first = commons.of(&said(&rules, "shop", &["a", "b"]));
        assert!(Arc::ptr_eq(&first, &commons.of(&said(&rules, "shop", &["a", "b"]))));
        assert_eq!(first.scopes_value.as_ref().expect("two"), "a b");
        assert_eq!(first.consumer_key_value.as_ref().expect("one"), "shop");
        for other in
            [said(&rules, "shop", &["b", "a"]), said(&rules, "shop", &["a"]), said(&rules, "shop2", &["a", "b"])]
        {
            assert!(!Arc::ptr_eq(&first, &commons.of(&other)), "{other:?}");
        }
        let elsewhere = self::rules("https://other.example.com");
        assert_eq!(&*commons.of(&said(&elsewhere, "shop", &["a", "b"])).issuer, "https://other.example.com");
        let stronger = Said { acr: Some("gold"), ..said(&rules, "shop", &["a", "b"]) };
        assert_eq!(commons.of(&stronger).acr.as_deref(), Some("gold"));
        let (one, two) = (said(&rules, "shop", &["ab", "c"]), said(&rules, "shop", &["a", "bc"]));
        assert!(!Arc::ptr_eq(&commons.of(&one), &commons.of(&two)));
    }

    #[test]
    fn they_are_counted_while_they_live_and_beyond_their_room_tokens_keep_their_own() {
        let (commons, rules) = (Commons::new(20_000), rules("https://idp.example.com"));
        let held: Vec<_> = (0..1000).map(|n| commons.of(&said(&rules, &format!("client-{n}"), &["a"]))).collect();
        let counted = held.iter().filter(|common| common.weight() == 0).count();
        assert!((10..100).contains(&counted), "{counted}");
        assert!(commons.held.load(Ordering::Relaxed) <= 20_000);
        let own = held.last().expect("many");
        assert!(own.weight() > 200 && !Arc::ptr_eq(own, &commons.of(&said(&rules, "client-999", &["a"]))));
        drop(held);
        assert_eq!(commons.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn dead_rows_are_swept_out() {
        let (commons, rules) = (Commons::new(1 << 30), rules("https://idp.example.com"));
        let kept = commons.of(&said(&rules, "kept", &[]));
        for n in 0..10_000 {
            commons.of(&said(&rules, &format!("client-{n}"), &[]));
        }
        assert!(commons.table.lock().rows.len() <= FEW + 1);
        assert!(Arc::ptr_eq(&kept, &commons.of(&said(&rules, "kept", &[]))));
    }
}
