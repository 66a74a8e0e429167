//! Maps that every worker reads and many write.

use std::hash::{BuildHasher, Hash};

use papaya::{HashMap, ResizeMode};

/// An empty map, which grows at once when it is full: writers wait for it or help, readers never do.
///
/// papaya's usual way is to grow a little with each new entry, and entries are looked up in the old table and in the new
/// one until enough of them have come. A map whose keys stay the same would be left between the two for good
/// (`benches/throttle`, 10,000 keys: a lookup takes four times as long).
pub fn growing_at_once<K: Hash + Eq, V, S: BuildHasher + Default>() -> HashMap<K, V, S> {
    HashMap::builder().hasher(S::default()).resize_mode(ResizeMode::Blocking).build()
}
