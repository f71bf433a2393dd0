//! Doubly linked lists whose links live inside the entries of a [`Table`]: no allocation, removal in O(1).
//!
//! Owns the links only. An entry may be in several lists at once, one for each marker it implements [`Linked`] for;
//! whether it *is* in a list is the owner's knowledge.

use std::marker::PhantomData;

use super::table::{NONE, Table};

/// The neighbours of an entry in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    previous: u32,
    next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { previous: NONE, next: NONE }
    }
}

/// An entry that can be in the list `M`.
pub(super) trait Linked<M> {
    fn link(&self) -> &Link;
    fn link_mut(&mut self) -> &mut Link;
}

/// A list of table entries, named by the marker `M`.
#[derive(Clone, Debug)]
pub(super) struct List<M> {
    front: u32,
    back: u32,
    len: u32,
    marker: PhantomData<M>,
}

impl<M> List<M> {
    pub(super) const fn new() -> Self {
        Self { front: NONE, back: NONE, len: 0, marker: PhantomData }
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn front(&self) -> Option<u32> {
        some(self.front)
    }

    pub(super) fn back(&self) -> Option<u32> {
        some(self.back)
    }

    /// The entry behind `key`.
    pub(super) fn after<T: Linked<M>>(&self, table: &Table<T>, key: u32) -> Option<u32> {
        some(table[key].link().next)
    }

    /// All entries from front to back.
    pub(super) fn iter<'a, T: Linked<M>>(&'a self, table: &'a Table<T>) -> impl Iterator<Item = u32> + 'a {
        std::iter::successors(self.front(), move |key| self.after(table, *key))
    }

    pub(super) fn push_front<T: Linked<M>>(&mut self, table: &mut Table<T>, key: u32) {
        *table[key].link_mut() = Link { previous: NONE, next: self.front };
        match self.front() {
            Some(front) => table[front].link_mut().previous = key,
            None => self.back = key,
        }
        self.front = key;
        self.len = self.len.saturating_add(1);
    }

    pub(super) fn push_back<T: Linked<M>>(&mut self, table: &mut Table<T>, key: u32) {
        *table[key].link_mut() = Link { previous: self.back, next: NONE };
        match self.back() {
            Some(back) => table[back].link_mut().next = key,
            None => self.front = key,
        }
        self.back = key;
        self.len = self.len.saturating_add(1);
    }

    pub(super) fn remove<T: Linked<M>>(&mut self, table: &mut Table<T>, key: u32) {
        assert!(self.len > 0, "only what is in a list is removed from it");
        let link = std::mem::take(table[key].link_mut());
        match some(link.previous) {
            Some(previous) => table[previous].link_mut().next = link.next,
            None => self.front = link.next,
        }
        match some(link.next) {
            Some(next) => table[next].link_mut().previous = link.previous,
            None => self.back = link.previous,
        }
        self.len = self.len.saturating_sub(1);
    }
}

const fn some(key: u32) -> Option<u32> {
    if key == NONE { None } else { Some(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Only;
    struct Bead(Link);

    impl Linked<Only> for Bead {
        fn link(&self) -> &Link {
            &self.0
        }
        fn link_mut(&mut self) -> &mut Link {
            &mut self.0
        }
    }

    #[test]
    fn entries_leave_from_front_middle_and_back() {
        let mut table = Table::new();
        let mut list = List::<Only>::new();
        for _ in 0..5 {
            let key = table.insert(Bead(Link::default()));
            list.push_back(&mut table, key);
        }
        let first = table.insert(Bead(Link::default()));
        list.push_front(&mut table, first);
        for key in [2, 5, 4] {
            list.remove(&mut table, key);
        }
        assert_eq!(list.iter(&table).collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!((list.front(), list.back(), list.len()), (Some(0), Some(3), 3));
        for key in [0, 1, 3] {
            list.remove(&mut table, key);
        }
        assert!(list.is_empty() && list.front().is_none() && list.back().is_none());
    }
}
