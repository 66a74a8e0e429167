//! The map of counters: in parts, so that only a part of it grows at a time.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use papaya::{Guard, HashMap};
use seize::Collector;

use crate::store::growing_at_once_with;

/// A map that many read and write without a lock.
///
/// A part that is full is copied at once, by those who put something in; who looks something up never waits
/// ([`growing_at_once_with`]). In one piece a map of a million would stand still for a quarter of a second.
pub(super) struct Parted<K, V> {
    parts: Box<[HashMap<K, V, Seeded>]>,
    /// Tells the part.
    seed: Seeded,
}

impl<K: Hash + Eq + Send + 'static, V: Send + 'static> Default for Parted<K, V> {
    fn default() -> Self {
        // One for all, so that one guard holds for all.
        let collector = Arc::new(Collector::new());
        Self { parts: (0..PARTS).map(|_| growing_at_once_with(&collector)).collect(), seed: Seeded::default() }
    }
}

impl<K: Hash + Eq + 'static, V: 'static> Parted<K, V> {
    /// Holds for every part.
    pub(super) fn guard(&self) -> impl Guard + '_ {
        self.parts[0].guard()
    }

    /// The part where `key` is, if it is anywhere.
    pub(super) fn of(&self, key: &K) -> &HashMap<K, V, Seeded> {
        &self.parts[self.seed.hash_one(key) as usize % PARTS]
    }

    pub(super) fn get<'g>(&self, key: &K, guard: &'g impl Guard) -> Option<&'g V> {
        self.of(key).get(key, guard)
    }

    pub(super) fn values<'g>(&'g self, guard: &'g impl Guard) -> impl Iterator<Item = &'g V> {
        self.parts.iter().flat_map(|part| part.values(guard))
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(HashMap::len).sum()
    }
}

impl<K, V> fmt::Debug for Parted<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parted").finish_non_exhaustive()
    }
}

/// Keys are digests already: all that is left to do is to keep their places from being guessed.
#[derive(Debug, Clone)]
pub(super) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(std::hash::RandomState::new().hash_one(0_u8))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// Hashes one `u128`.
pub(super) struct Folded(u64);

impl Hasher for Folded {
    fn write_u128(&mut self, key: u128) {
        let (high, low) = ((key >> 64) as u64, key as u64);
        let product = u128::from(high ^ self.0) * u128::from(low ^ self.0.rotate_left(32) | 1);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(16) {
            let mut key = [0; 16];
            key[..chunk.len()].copy_from_slice(chunk);
            self.write_u128(u128::from_le_bytes(key));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A power of two.
const PARTS: usize = 64;
