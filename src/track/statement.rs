//! Named prepared statements in transaction mode: one text, one name of ours, prepared once per server.
//!
//! Owns the three sets: the tenant's texts ([`StatementCache`]), a client's names ([`ClientStatements`]) and what a
//! server has prepared ([`ServerStatements`]). A client finds only what it prepared itself: names lead to texts, never
//! to other clients' names.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hashbrown::HashMap;

use super::lexer::{Effect, StateKind, classify};
use crate::wire::frame;

/// A text that clients prepared under names of theirs.
#[derive(Debug)]
pub struct Statement {
    /// Number: unique within the tenant, never used twice.
    pub id: u64,
    /// The Parse message's body behind the name: query text, NUL, parameter types.
    pub body: Box<[u8]>,
    /// What running it leaves behind on the server.
    pub leaves: Option<StateKind>,
}

/// Appends the name that a statement has on a server.
pub(super) fn put_server_name(out: &mut Vec<u8>, serial: u32) {
    out.extend_from_slice(b"tenantry_");
    out.extend_from_slice(itoa::Buffer::new().format(serial).as_bytes());
}

/// Appends a Parse that prepares a statement on a server.
pub(super) fn put_parse(out: &mut Vec<u8>, serial: u32, body: &[u8]) {
    frame::put(out, b'P', |out| {
        put_server_name(out, serial);
        out.push(0);
        out.extend_from_slice(body);
    });
}

/// Appends a Parse that prepares the unnamed statement.
pub(super) fn put_parse_unnamed(out: &mut Vec<u8>, body: &[u8]) {
    frame::put(out, b'P', |out| {
        out.push(0);
        out.extend_from_slice(body);
    });
}

/// Appends a Close that makes a server forget the statement.
pub(super) fn put_close(out: &mut Vec<u8>, serial: u32) {
    frame::put(out, b'C', |out| {
        out.push(b'S');
        put_server_name(out, serial);
        out.push(0);
    });
}

#[derive(Debug)]
struct ByBody(Rc<Statement>);

impl PartialEq for ByBody {
    fn eq(&self, other: &Self) -> bool {
        self.0.body == other.0.body
    }
}

impl Eq for ByBody {}

impl PartialOrd for ByBody {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByBody {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.body.cmp(&other.0.body)
    }
}

impl Borrow<[u8]> for ByBody {
    fn borrow(&self) -> &[u8] {
        &self.0.body
    }
}

/// The texts of one tenant. Texts that no client holds any more are forgotten when the cache is full.
#[derive(Debug, Default)]
pub struct StatementCache {
    texts: BTreeSet<ByBody>,
    last_id: u64,
    sweep_at: usize,
    /// Bytes of all texts.
    bytes: usize,
    sweep_at_bytes: usize,
}

/// Texts of a tenant below this are not looked through for some that nobody holds.
const SWEEP_BYTES: usize = 4 * 1024 * 1024;

impl StatementCache {
    /// The statement for a Parse body (text, NUL, types).
    pub fn intern(&mut self, body: &[u8]) -> Rc<Statement> {
        if let Some(found) = self.texts.get(body) {
            return found.0.clone();
        }
        self.bytes = self.bytes.saturating_add(body.len());
        if self.texts.len() >= self.sweep_at || self.bytes >= self.sweep_at_bytes {
            self.texts.retain(|text| Rc::strong_count(&text.0) > 1);
            self.bytes =
                self.texts.iter().map(|text| text.0.body.len()).sum::<usize>().saturating_add(body.len());
            self.sweep_at = self.texts.len().saturating_mul(2).max(256);
            self.sweep_at_bytes = self.bytes.saturating_mul(2).max(SWEEP_BYTES);
        }
        self.last_id = self.last_id.saturating_add(1);
        let text = frame::split_cstr(body).map_or(body, |(text, _)| text);
        let statement =
            Rc::new(Statement { id: self.last_id, body: body.into(), leaves: leaves(&classify(text)) });
        self.texts.insert(ByBody(statement.clone()));
        statement
    }

    /// How many texts are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether no text is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// What a text of that effect leaves on a server.
pub(super) const fn leaves(effect: &Effect) -> Option<StateKind> {
    match effect {
        Effect::Transient => None,
        Effect::SessionState(kind) => Some(*kind),
        // As a prepared statement these run as they are written: on whatever the server has.
        // They only take away, so they keep no client at its server, but what is left is not known.
        Effect::Deallocate(_) | Effect::DeallocateAll | Effect::DiscardAll => Some(StateKind::Unknown),
    }
}

/// Statements by the client's names for them.
type Names = BTreeMap<Box<[u8]>, Rc<Statement>>;

/// The names of one client. Takes no room as long as there are none.
#[derive(Debug, Default)]
pub struct ClientStatements {
    /// Boxed: most clients have no names, and there are many clients.
    names: Option<Box<Names>>,
}

impl ClientStatements {
    /// The statement of that name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.names.as_ref()?.get(name)
    }

    /// Gives a name a meaning, or none.
    pub(super) fn set(&mut self, name: &[u8], meaning: Option<Rc<Statement>>) {
        match (meaning, &mut self.names) {
            (Some(statement), names) => drop(names.get_or_insert_default().insert(name.into(), statement)),
            (None, Some(names)) => drop(names.remove(name)),
            (None, None) => {}
        }
    }

    /// Takes names back that are not used for something else.
    pub(super) fn take_back(&mut self, former: Self) {
        for (name, statement) in former.names.into_iter().flat_map(|names| *names) {
            self.names.get_or_insert_default().entry(name).or_insert(statement);
        }
    }

    /// What the names have together.
    pub(super) fn bytes(&self) -> usize {
        self.names.as_ref().map_or(0, |names| names.keys().map(|name| name.len()).sum())
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.as_ref().map_or(0, |names| names.len())
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What one server has prepared.
///
/// A statement gets a new number (and so a new name) each time it is prepared. So a Parse never meets a name that is
/// taken, whatever an error has made the server skip before.
#[derive(Debug)]
pub struct ServerStatements {
    here: HashMap<u64, Here, foldhash::fast::FixedState>,
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
}

impl ServerStatements {
    /// An empty set of at most `max` statements.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { here: HashMap::default(), unclosed: Vec::new(), last_serial: 0, clock: 0, max: max.max(1) }
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
        self.here.remove(&victim).map(|here| here.serial)
    }

    /// The server is about to prepare the statement. Returns its number there.
    pub(super) fn insert(&mut self, id: u64, segment: u64) -> u32 {
        self.clock = self.clock.saturating_add(1);
        self.last_serial = self.last_serial.wrapping_add(1);
        let here = Here { serial: self.last_serial, used_at: self.clock, sent_in: segment };
        self.here.insert(id, here);
        here.serial
    }

    /// The server has prepared it.
    pub(super) fn confirm(&mut self, id: u64, serial: u32) {
        if let Some(here) = self.here.get_mut(&id).filter(|here| here.serial == serial) {
            here.sent_in = 0;
        }
    }

    /// The server has not prepared it.
    pub(super) fn failed(&mut self, id: u64, serial: u32) {
        if self.here.get(&id).is_some_and(|here| here.serial == serial) {
            self.here.remove(&id);
        }
    }

    /// The server has not closed it.
    pub(super) fn not_closed(&mut self, serial: u32) {
        self.unclosed.push(serial);
    }

    /// The server is about to forget everything. Returns what it had.
    pub(super) fn take_all(&mut self) -> Self {
        let emptied = Self { last_serial: self.last_serial, clock: self.clock, ..Self::new(self.max) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_a_statement_and_unused_ones_are_forgotten() {
        let mut cache = StatementCache::default();
        let one = cache.intern(b"select 1\0\0\0");
        assert_eq!(cache.intern(b"select 1\0\0\0").id, one.id);
        for i in 0..2_000 {
            cache.intern(format!("select {i}, 0\0\0\0").as_bytes());
        }
        assert!(cache.len() <= 513, "{}", cache.len());
        assert_eq!(cache.intern(b"select 1\0\0\0").id, one.id);
    }

    /// Prepares a statement and confirms it. Returns what had to be closed.
    fn prepare(server: &mut ServerStatements, id: u64) -> Vec<u32> {
        let closed = std::iter::from_fn(|| server.victim_for(id)).collect();
        let serial = server.insert(id, 1);
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
        let serial = server.insert(10, 5);
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
        let first = server.insert(10, 1);
        let all = server.take_all();
        let second = server.insert(10, 2);
        assert_ne!(first, second);
        server.take_back(all);
        assert_eq!(server.touch(10, 2), Some(second));
        assert_eq!(server.victim_for(10), Some(first), "the older of the two is to be closed");
    }
}
