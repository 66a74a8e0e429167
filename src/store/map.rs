//! Maps that every worker reads and many write.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use papaya::{HashMap, ResizeMode};
use seize::Collector;

/// An empty map, which grows at once when it is full: writers wait for it or help, readers never do.
///
/// papaya's usual way is to grow a little with each new entry, and entries are looked up in the old table and in the new
/// one until enough of them have come. A map whose keys stay the same would be left between the two for good
/// (`benches/throttle`, 10,000 keys: a lookup takes four times as long).
pub fn growing_at_once<K, V, S>() -> HashMap<K, V, S>
where
    K: Hash + Eq + Send + 'static,
    V: Send + 'static,
    S: BuildHasher + Default,
{
    growing_at_once_with(&Arc::new(Collector::new()))
}

/// [`growing_at_once`], and a guard of one map holds for all that share the collector.
pub fn growing_at_once_with<K, V, S>(collector: &Arc<Collector>) -> HashMap<K, V, S>
where
    K: Hash + Eq + Send + 'static,
    V: Send + 'static,
    S: BuildHasher + Default,
{
    let map = HashMap::builder().hasher(S::default()).resize_mode(ResizeMode::Blocking);
    map.shared_collector(Arc::clone(collector)).build()
}
