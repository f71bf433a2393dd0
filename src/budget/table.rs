//! Tables of things that are named by a small number, and the maps from outside ids to those numbers.
//!
//! Owns nothing but the containers. A number that is not in its table is a broken invariant of ours, so looking it up
//! by index stops the program; numbers that come from outside are looked up with [`Table::get`] first.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::{Index, IndexMut};

use slab::Slab;

/// Entries with reused numbers; no entry moves.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    entries: Slab<T>,
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self { entries: Slab::new() }
    }

    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.entries.get(key as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().map(|(key, entry)| (narrow(key), entry))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, entry: T) -> u32 {
        let key = narrow(self.entries.insert(entry));
        assert!(key != NONE, "a table has fewer than 2^32 - 1 entries");
        key
    }

    pub(super) fn remove(&mut self, key: u32) -> Option<T> {
        self.entries.try_remove(key as usize)
    }
}

impl<T> Index<u32> for Table<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        &self.entries[key as usize]
    }
}

impl<T> IndexMut<u32> for Table<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        &mut self.entries[key as usize]
    }
}

/// A map from an id to a table's number. Never iterated: the order would depend on the hash.
pub(super) type IdMap<I> = HashMap<I, u32, BuildHasherDefault<IdHasher>>;

/// A hasher for ids that we chose ourselves: one multiplication, the same on every run and machine.
#[derive(Clone, Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0xf135_7aea_2e62_a9c5);
    }
}

/// Adds one to a counter.
pub(super) fn more(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}

/// Takes one from a counter, which must not be zero.
pub(super) fn less(counter: &mut u32) {
    assert!(*counter > 0, "what is counted down was counted up before");
    *counter = counter.saturating_sub(1);
}

fn narrow(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(NONE)
}

/// The number of nothing.
pub(super) const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TenantId;

    #[test]
    fn a_number_is_reused_only_after_its_entry_was_removed() {
        let mut table = Table::new();
        let first = table.insert('a');
        let second = table.insert('b');
        assert_ne!(first, second);
        assert_eq!(table.remove(first), Some('a'));
        assert_eq!(table.remove(first), None);
        assert_eq!(table.insert('c'), first);
        assert_eq!(table.iter().map(|(_, entry)| *entry).collect::<String>(), "cb");
    }

    #[test]
    fn dense_ids_spread_over_the_map() {
        let mut map: IdMap<TenantId> = IdMap::default();
        for number in 0..10_000 {
            map.insert(TenantId(number), number);
        }
        assert!((0..10_000).all(|number| map.get(&TenantId(number)) == Some(&number)));
    }
}
