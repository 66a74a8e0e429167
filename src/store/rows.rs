//! Tables whose versions share what they have in common: a copy is cheap, and a change copies the piece it touches.

use std::{hash::BuildHasher, mem, ops::Index, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Rows by number, in pieces that versions share.
#[derive(Debug, Clone)]
pub struct Rows<T> {
    pieces: Vec<Arc<[T]>>,
    length: usize,
}

/// [`Rows`] while they are built: nothing is shared yet.
#[derive(Debug)]
pub(super) struct RowsBuilder<T> {
    pieces: Vec<Arc<[T]>>,
    last: Vec<T>,
}

impl<T> RowsBuilder<T> {
    pub(super) const fn new() -> Self {
        Self { pieces: Vec::new(), last: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len() * PIECE + self.last.len()
    }

    pub(super) fn push(&mut self, row: T) {
        if self.last.capacity() == 0 {
            self.last.reserve_exact(PIECE);
        }
        self.last.push(row);
        if self.last.len() == PIECE {
            self.pieces.push(mem::take(&mut self.last).into());
        }
    }

    pub(super) fn get(&self, row: u32) -> Option<&T> {
        let (piece, place) = split(row);
        match self.pieces.get(piece) {
            Some(piece) => piece.get(place),
            None if piece == self.pieces.len() => self.last.get(place),
            None => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter()).chain(&self.last)
    }

    pub(super) fn finish(mut self) -> Rows<T> {
        let length = self.len();
        if !self.last.is_empty() {
            self.pieces.push(self.last.into());
        }
        self.pieces.shrink_to_fit();
        Rows { pieces: self.pieces, length }
    }
}

impl<T> Rows<T> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The row of this number.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&T> {
        self.pieces.get(row / PIECE)?.get(row % PIECE)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }
}

impl<T: Clone> Rows<T> {
    /// Puts a row in the place of another, or after the last.
    pub(super) fn put(&mut self, row: usize, value: T) {
        match self.pieces.get_mut(row / PIECE) {
            Some(piece) if row < self.length => Arc::make_mut(piece)[row % PIECE] = value,
            Some(piece) => {
                *piece = piece.iter().cloned().chain([value]).collect();
                self.length += 1;
            }
            None => {
                self.pieces.push(Arc::new([value]));
                self.length += 1;
            }
        }
    }

    /// Takes the last row away.
    pub(super) fn pop(&mut self) -> Option<T> {
        let piece = self.pieces.pop()?;
        self.length -= 1;
        if let [rest @ .., _] = &*piece
            && !rest.is_empty()
        {
            self.pieces.push(rest.into());
        }
        piece.last().cloned()
    }
}

impl<T> Index<usize> for Rows<T> {
    type Output = T;

    fn index(&self, row: usize) -> &T {
        &self.pieces[row / PIECE][row % PIECE]
    }
}

/// Tables are indexed with 32 bits; no machine holds four billion rows.
pub(super) fn number(row: usize) -> u32 {
    u32::try_from(row).expect("a table of fewer than 2^32 rows")
}

const fn split(row: u32) -> (usize, usize) {
    (row as usize / PIECE, row as usize % PIECE)
}

/// Finds row numbers by what the rows themselves hold, in parts that versions share.
#[derive(Debug, Clone)]
pub(super) struct Finder {
    parts: Vec<Arc<HashTable<u32>>>,
    hasher: DefaultHashBuilder,
}

impl Default for Finder {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        Self { parts: vec![empty; PARTS], hasher: DefaultHashBuilder::default() }
    }
}

impl Finder {
    /// Where something with this key is found.
    #[inline]
    pub(super) fn hash(&self, key: impl std::hash::Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The row that `is_it`, among those of this hash.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.parts[part(hash)].find(hash, |&row| is_it(row)).copied()
    }

    /// Adds a row; `hash_of` tells the hash of each.
    pub(super) fn add(&mut self, hash: u64, row: u32, hash_of: impl Fn(&DefaultHashBuilder, u32) -> u64) {
        let hasher = &self.hasher;
        Arc::make_mut(&mut self.parts[part(hash)]).insert_unique(hash, row, |&row| hash_of(hasher, row));
    }

    /// Takes a row away.
    pub(super) fn remove(&mut self, hash: u64, row: u32) {
        if let Ok(found) = Arc::make_mut(&mut self.parts[part(hash)]).find_entry(hash, |&it| it == row) {
            found.remove();
        }
    }

    /// Gives back the room for more.
    pub(super) fn shrink(&mut self, hash_of: impl Fn(&DefaultHashBuilder, u32) -> u64) {
        let hasher = &self.hasher;
        for part in &mut self.parts {
            if !part.is_empty() {
                Arc::make_mut(part).shrink_to_fit(|&row| hash_of(hasher, row));
            }
        }
    }
}

/// Not by the bits by which a part's own table goes: those at both ends.
const fn part(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}

/// Rows of a piece: so many are copied where one changes.
const PIECE: usize = 256;
const PARTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_share_all_but_the_piece_that_changes() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let mut builder = RowsBuilder::new();
            (0..length).for_each(|n| builder.push(n));
            assert_eq!((builder.len(), builder.iter().count()), (length, length));
            let first = builder.finish();
            let mut second = first.clone();
            second.put(length, usize::MAX);
            if length > 0 {
                second.put(0, 7);
            }
            assert!(first.iter().copied().eq(0..length), "the old version stays");
            assert_eq!((second.len(), second.get(length)), (length + 1, Some(&usize::MAX)));
            let shared = first.pieces.iter().zip(&second.pieces).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
            assert!(shared + 2 >= first.pieces.len());
            assert_eq!(second.pop(), Some(usize::MAX));
            assert_eq!((second.len(), second.get(length)), (length, None));
        }
    }

    #[test]
    fn rows_are_found_until_they_are_removed() {
        let mut finder = Finder::default();
        let hash_of = |hasher: &DefaultHashBuilder, row: u32| hasher.hash_one(row);
        for row in 0..2_000 {
            finder.add(finder.hash(row), row, hash_of);
        }
        let old = finder.clone();
        for row in (0..2_000).step_by(2) {
            finder.remove(finder.hash(row), row);
        }
        finder.shrink(hash_of);
        for row in 0..2_000 {
            assert_eq!(finder.find(finder.hash(row), |it| it == row), (row % 2 == 1).then_some(row));
            assert_eq!(old.find(old.hash(row), |it| it == row), Some(row));
        }
    }
}
