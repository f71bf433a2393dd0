//! What one server has prepared of the tenant's statements, under names of ours.
//!
//! Owns the set ([`ServerStatements`]): which statement has which name there, which of them goes when the server is full,
//! and of what type their rows are.

use std::hash::BuildHasher;

use hashbrown::HashMap;

use super::rows::RowType;
use crate::wire::frame;

/// How the names that statements have on servers begin.
pub(super) const SERVER_NAME_PREFIX: &[u8] = b"tenantry_";

/// What one server has prepared.
///
/// A statement gets a new number (and so a new name) each time it is prepared. So a Parse never meets a name that is
/// taken, whatever an error has made the server skip before.
#[derive(Debug)]
pub struct ServerStatements {
    /// How their names begin.
    prefix: Box<[u8]>,
    here: HashMap<u64, Here, foldhash::fast::FixedState>,
    /// The last ones that it had: number and fingerprint. An error may come when its statement is not `here` any more.
    former: [(u32, u64); 16],
    /// Numbers that were to be closed, but the server skipped it.
    unclosed: Vec<u32>,
    last_serial: u32,
    clock: u64,
    max: usize,
}

/// A statement on a server.
#[derive(Clone, Copy, Debug)]
struct Here {
    serial: u32,
    used_at: u64,
    /// The segment of the conversation in which it was sent, 0 once the server has confirmed it.
    sent_in: u64,
    /// Of its Parse body.
    fingerprint: u64,
    /// Of what type its rows are, for as long as it is prepared.
    rows: RowType,
}

/// A statement on a server: its id and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: u64,
    pub(super) serial: u32,
}

impl ServerStatements {
    /// An empty set of at most `max` statements.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            prefix: SERVER_NAME_PREFIX.into(),
            here: HashMap::default(),
            former: [(0, 0); 16],
            unclosed: Vec::new(),
            last_serial: 0,
            clock: 0,
            max: max.max(1),
        }
    }

    /// Makes their names such that nobody who does not know `mark` can say EXECUTE or DEALLOCATE to one of them.
    #[must_use]
    pub fn marked(mut self, mark: u64) -> Self {
        self.prefix = [SERVER_NAME_PREFIX, format!("{mark:x}_").as_bytes()].concat().into();
        self
    }

    /// Appends the name of a statement.
    pub(super) fn put_name(&self, out: &mut Vec<u8>, serial: u32) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(itoa::Buffer::new().format(serial).as_bytes());
    }

    /// The number in the name of ours that a text begins with, and what comes behind the name.
    pub(super) fn number_in<'a>(&self, text: &'a [u8]) -> Option<(u32, &'a [u8])> {
        let number = text.strip_prefix(&*self.prefix)?;
        let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, after) = number.split_at_checked(digits)?;
        Some((std::str::from_utf8(number).ok()?.parse().ok()?, after))
    }

    /// Whether what has that number was prepared from this Parse body, under whatever settings.
    pub(super) fn is_of(&self, serial: u32, body: &[u8]) -> bool {
        let mut all = self.here.values().map(|here| (here.serial, here.fingerprint)).chain(self.former);
        all.any(|one| one == (serial, fingerprint(body)))
    }

    /// Appends a Parse that prepares a statement.
    pub(super) fn put_parse(&self, out: &mut Vec<u8>, serial: u32, body: &[u8]) {
        frame::put(out, b'P', |out| {
            self.put_name(out, serial);
            out.push(0);
            out.extend_from_slice(body);
        });
    }

    /// Appends a Close that makes the server forget a statement.
    pub(super) fn put_close(&self, out: &mut Vec<u8>, serial: u32) {
        frame::put(out, b'C', |out| {
            out.push(b'S');
            self.put_name(out, serial);
            out.push(0);
        });
    }

    /// How many it keeps at most.
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// A time that passes with each use of a statement.
    pub(super) const fn clock(&self) -> u64 {
        self.clock
    }

    /// The number of a statement that the server certainly has for a message sent now; notes that it is used.
    ///
    /// What was sent in this `segment` (up to the next Sync) counts: if it fails, the message is skipped as well. What
    /// was sent in another and is not confirmed does not.
    pub(super) fn touch(&mut self, id: u64, segment: u64) -> Option<u32> {
        self.clock = self.clock.saturating_add(1);
        let here = self.here.get_mut(&id).filter(|here| here.sent_in == 0 || here.sent_in == segment)?;
        here.used_at = self.clock;
        Some(here.serial)
    }

    /// The number of a statement that is to be closed before `id` is prepared, as long as there is one: a former one of
    /// the same id, or the least recently used if the server is full.
    pub(super) fn victim_for(&mut self, id: u64) -> Option<u32> {
        if let Some(serial) = self.unclosed.pop() {
            return Some(serial);
        }
        let victim = if self.here.contains_key(&id) {
            id
        } else if self.here.len() >= self.max {
            // A scan of a few hundred entries, only when a full server meets a text it does not have.
            *self.here.iter().min_by_key(|(_, here)| here.used_at)?.0
        } else {
            return None;
        };
        let gone = self.here.remove(&victim)?;
        self.remember(gone);
        Some(gone.serial)
    }

    /// The server is about to prepare the statement of that Parse body. Returns its number there.
    pub(super) fn insert(&mut self, (id, body): (u64, &[u8]), segment: u64) -> u32 {
        self.clock = self.clock.saturating_add(1);
        self.last_serial = self.last_serial.wrapping_add(1);
        let here = Here {
            serial: self.last_serial,
            used_at: self.clock,
            sent_in: segment,
            fingerprint: fingerprint(body),
            rows: RowType::default(),
        };
        self.here.insert(id, here);
        here.serial
    }

    /// The server has none of them as it should: all are closed before the next one is prepared.
    pub(super) fn distrust(&mut self) {
        for gone in std::mem::take(&mut self.here).into_values() {
            self.remember(gone);
            self.unclosed.push(gone.serial);
        }
    }

    fn remember(&mut self, gone: Here) {
        self.former.rotate_right(1);
        if let Some(newest) = self.former.first_mut() {
            *newest = (gone.serial, gone.fingerprint);
        }
    }

    /// The server has prepared it.
    pub(super) fn confirm(&mut self, id: u64, serial: u32) {
        if let Some(here) = self.here.get_mut(&id).filter(|here| here.serial == serial) {
            here.sent_in = 0;
        }
    }

    /// Of what type the rows of that statement are, as far as known.
    pub(super) fn rows(&self, place: Place) -> RowType {
        self.here
            .get(&place.id)
            .filter(|here| here.serial == place.serial)
            .map_or_else(RowType::default, |here| here.rows)
    }

    /// The server has told of what type the rows of that statement are.
    pub(super) fn learn(&mut self, place: Place, rows: RowType) {
        if let Some(here) = self.here.get_mut(&place.id).filter(|here| here.serial == place.serial) {
            here.rows = rows;
        }
    }

    /// The server has not prepared it.
    pub(super) fn failed(&mut self, id: u64, serial: u32) {
        if self.here.get(&id).is_some_and(|here| here.serial == serial)
            && let Some(gone) = self.here.remove(&id)
        {
            self.remember(gone);
        }
    }

    /// The server has not closed it.
    pub(super) fn not_closed(&mut self, serial: u32) {
        self.unclosed.push(serial);
    }

    /// The server is about to forget everything. Returns what it had.
    pub(super) fn take_all(&mut self) -> Self {
        let (prefix, last_serial, clock) = (self.prefix.clone(), self.last_serial, self.clock);
        let emptied = Self { prefix, last_serial, clock, ..Self::new(self.max) };
        std::mem::replace(self, emptied)
    }

    /// It has not forgotten that.
    fn adopt(&mut self, id: u64, former: Here) {
        match self.here.entry(id) {
            hashbrown::hash_map::Entry::Occupied(_) => self.unclosed.push(former.serial),
            hashbrown::hash_map::Entry::Vacant(free) => drop(free.insert(former)),
        }
    }

    /// The server has not forgotten what [`Self::take_all`] gave.
    pub(super) fn take_back(&mut self, all: Self) {
        self.unclosed.extend(all.unclosed);
        for (id, former) in all.here {
            self.adopt(id, former);
        }
    }

    /// The server has forgotten everything.
    pub fn clear(&mut self) {
        drop(self.take_all());
    }

    /// How many statements the server has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.here.len()
    }

    /// Whether the server has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.here.is_empty()
    }
}

fn fingerprint(body: &[u8]) -> u64 {
    foldhash::fast::FixedState::default().hash_one(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_distrusted_is_closed_and_prepared_anew() {
        let mut server = ServerStatements::new(9);
        assert!(prepare(&mut server, 10).is_empty());
        server.distrust();
        assert_eq!(server.touch(10, 9), None);
        assert_eq!(prepare(&mut server, 10), [1]);
        assert_eq!(server.touch(10, 9), Some(2));
    }

    /// Prepares a statement and confirms it. Returns what had to be closed.
    fn prepare(server: &mut ServerStatements, id: u64) -> Vec<u32> {
        let closed = std::iter::from_fn(|| server.victim_for(id)).collect();
        let serial = server.insert((id, b""), 1);
        server.confirm(id, serial);
        closed
    }

    #[test]
    fn a_full_server_forgets_the_least_recently_used() {
        let mut server = ServerStatements::new(2);
        assert!(prepare(&mut server, 10).is_empty());
        assert!(prepare(&mut server, 20).is_empty());
        assert_eq!(server.touch(10, 9), Some(1));
        assert_eq!(prepare(&mut server, 30), [2]);
        assert_eq!((server.touch(10, 9), server.touch(20, 9), server.touch(30, 9)), (Some(1), None, Some(3)));
    }

    #[test]
    fn a_statement_on_its_way_counts_in_its_own_segment_only() {
        let mut server = ServerStatements::new(2);
        let serial = server.insert((10, b""), 5);
        assert_eq!((server.touch(10, 5), server.touch(10, 6)), (Some(serial), None));
        server.confirm(10, serial);
        assert_eq!(server.touch(10, 6), Some(serial));
    }

    #[test]
    fn what_was_not_closed_is_closed_the_next_time() {
        let mut server = ServerStatements::new(1);
        assert!(prepare(&mut server, 10).is_empty());
        assert_eq!(prepare(&mut server, 20), [1]);
        server.not_closed(1);
        assert_eq!(prepare(&mut server, 30), [1, 2]);
    }

    #[test]
    fn a_number_is_never_used_twice() {
        let mut server = ServerStatements::new(9);
        let first = server.insert((10, b""), 1);
        let all = server.take_all();
        let second = server.insert((10, b""), 2);
        assert_ne!(first, second);
        server.take_back(all);
        assert_eq!(server.touch(10, 2), Some(second));
        assert_eq!(server.victim_for(10), Some(first), "the older of the two is to be closed");
    }
}
