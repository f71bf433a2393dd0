//! A binary heap of numbered items, smallest key first, in which any item can be moved or removed in O(log n).
//!
//! Owns keys and places. An item is in a heap at most once. Keys must be total: put an id into them.

use super::table::NONE;

/// Items by key, smallest first.
#[derive(Clone, Debug)]
pub(super) struct Heap<K> {
    entries: Vec<(K, u32)>,
    /// Where an item is in `entries`, by item number; `NONE` if it is not.
    places: Vec<u32>,
}

impl<K: Copy + Ord> Heap<K> {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), places: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn first(&self) -> Option<(K, u32)> {
        self.entries.first().copied()
    }

    /// The first item that is not `item`: the root, or the better of its children.
    pub(super) fn first_except(&self, item: u32) -> Option<(K, u32)> {
        let root = self.first()?;
        if root.1 != item {
            return Some(root);
        }
        self.entries.get(1..)?.iter().take(2).min().copied()
    }

    pub(super) fn key(&self, item: u32) -> Option<K> {
        let place = self.place(item)?;
        self.entries.get(place).map(|entry| entry.0)
    }

    /// All entries, in no useful order (but the same order for the same history).
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u32)> + '_ {
        self.entries.iter().copied()
    }

    /// Puts an item in, or gives it another key.
    pub(super) fn set(&mut self, item: u32, key: K) {
        let place = match self.place(item) {
            Some(place) => place,
            None => {
                self.entries.push((key, item));
                self.entries.len().saturating_sub(1)
            }
        };
        self.put(place, (key, item));
        self.settle(place);
    }

    /// Takes an item out, if it is in.
    #[inline]
    pub(super) fn remove(&mut self, item: u32) {
        if let Some(place) = self.place(item) {
            self.remove_at(place, item);
        }
    }

    fn remove_at(&mut self, place: usize, item: u32) {
        self.entries.swap_remove(place);
        if let Some(slot) = self.places.get_mut(item as usize) {
            *slot = NONE;
        }
        if let Some(moved) = self.entries.get(place).copied() {
            self.put(place, moved);
            self.settle(place);
        }
    }

    fn place(&self, item: u32) -> Option<usize> {
        let place = *self.places.get(item as usize)?;
        (place != NONE).then_some(place as usize)
    }

    fn put(&mut self, place: usize, entry: (K, u32)) {
        let item = entry.1 as usize;
        if item >= self.places.len() {
            self.places.resize(item.saturating_add(1), NONE);
        }
        if let (Some(slot), Some(at)) = (self.entries.get_mut(place), self.places.get_mut(item)) {
            *slot = entry;
            *at = u32::try_from(place).unwrap_or(NONE);
        }
    }

    /// Moves the entry at `start` up or down to where it belongs.
    fn settle(&mut self, start: usize) {
        let mut place = start;
        while let Some(parent) = place.checked_sub(1).map(|below| below / 2) {
            if !self.swap_if_smaller(place, parent) {
                break;
            }
            place = parent;
        }
        loop {
            let left = place.saturating_mul(2).saturating_add(1);
            let right = left.saturating_add(1);
            let child = if self.smaller(right, left) { right } else { left };
            if !self.swap_if_smaller(child, place) {
                return;
            }
            place = child;
        }
    }

    fn smaller(&self, one: usize, other: usize) -> bool {
        matches!((self.entries.get(one), self.entries.get(other)), (Some(a), Some(b)) if a < b)
    }

    fn swap_if_smaller(&mut self, lower: usize, upper: usize) -> bool {
        let (Some(child), Some(parent)) =
            (self.entries.get(lower).copied(), self.entries.get(upper).copied())
        else {
            return false;
        };
        if child >= parent {
            return false;
        }
        self.put(lower, parent);
        self.put(upper, child);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_heap_agrees_with_a_sorted_list(steps in prop::collection::vec((0u32..20, prop::option::of(0u32..50)), 0..200)) {
            let mut heap = Heap::new();
            let mut list: Vec<(u32, u32)> = Vec::new();
            for (item, key) in steps {
                list.retain(|entry| entry.1 != item);
                match key {
                    Some(key) => {
                        heap.set(item, key);
                        list.push((key, item));
                    }
                    None => heap.remove(item),
                }
                list.sort_unstable();
                prop_assert_eq!(heap.first(), list.first().copied());
                prop_assert_eq!(heap.len(), list.len());
                for except in 0..20 {
                    prop_assert_eq!(heap.first_except(except), list.iter().find(|entry| entry.1 != except).copied());
                    prop_assert_eq!(heap.key(except), list.iter().find(|entry| entry.1 == except).map(|entry| entry.0));
                }
                prop_assert_eq!(heap.iter().count(), list.len());
            }
        }
    }
}
