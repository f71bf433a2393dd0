//! Named prepared statements in transaction mode: one text, one name of ours, prepared once per server.
//!
//! Owns the three sets: the tenant's texts ([`StatementCache`]), a client's names ([`ClientStatements`]) and what a
//! server has prepared ([`ServerStatements`]). A client finds only what it prepared itself: names lead to texts, never
//! to other clients' names.

use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hashbrown::HashMap;

use super::lexer::{Changes, Effect, Traces, classify};
use super::params::Settings;
use crate::wire::frame;

/// A text that clients prepared under names of theirs.
#[derive(Debug)]
pub struct Statement {
    /// Number: unique within the tenant, never used twice.
    pub id: u64,
    /// The Parse message's body behind the name: query text, NUL, parameter types.
    pub body: Box<[u8]>,
    /// What running it leaves behind on the server.
    pub leaves: Option<Rc<Traces>>,
    /// Under which settings it was prepared, by number; 0 if only the client that did knows.
    pub(super) context: u64,
    /// What all texts of the tenant cost.
    held: Rc<Cell<usize>>,
}

impl Statement {
    /// The text of the query.
    pub(super) fn text(&self) -> &[u8] {
        frame::split_cstr(&self.body).map_or(&self.body, |(text, _)| text)
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.held.set(self.held.get().saturating_sub(cost(&self.body)));
    }
}

/// The settings that decide what a text means when Postgres reads it, so that literals in it are folded accordingly.
pub(super) fn put_context(settings: &Settings, out: &mut Vec<u8>) {
    for name in [
        "client_encoding",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "standard_conforming_strings",
        "search_path",
    ] {
        out.extend_from_slice(settings.params.value(name).unwrap_or_default().as_bytes());
        out.push(0);
    }
    for (name, value) in settings.extras.iter() {
        for text in [name, value] {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
    }
}

/// How the names that statements have on servers begin.
pub(super) const SERVER_NAME_PREFIX: &[u8] = b"tenantry_";

/// Appends a Parse that prepares the unnamed statement.
pub(super) fn put_parse_unnamed(out: &mut Vec<u8>, body: &[u8]) {
    frame::put(out, b'P', |out| {
        out.push(0);
        out.extend_from_slice(body);
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
    /// By the settings that they were prepared under.
    contexts: BTreeMap<Box<[u8]>, Context>,
    last_id: u64,
    last_context: u64,
    len: usize,
    sweep_at: usize,
    sweep_at_bytes: usize,
    /// What all texts cost that anybody holds, here or beside the cache.
    held: Rc<Cell<usize>>,
}

/// Texts that were prepared under the same settings.
#[derive(Debug)]
struct Context {
    number: u64,
    texts: BTreeSet<ByBody>,
}

/// Texts of a tenant below this are not looked through for some that nobody holds.
const SWEEP_BYTES: usize = 4 * 1024 * 1024;

impl StatementCache {
    /// The statement for a Parse body (text, NUL, types) that is read under settings of that [context](put_context).
    pub(super) fn intern(&mut self, context: &[u8], body: &[u8]) -> Rc<Statement> {
        if let Some(found) = self.contexts.get(context).and_then(|context| context.texts.get(body)) {
            return found.0.clone();
        }
        if self.len >= self.sweep_at || self.held_with(body) >= self.sweep_at_bytes {
            self.sweep();
            self.sweep_at = self.len.saturating_mul(2).max(256);
            self.sweep_at_bytes = self.held_with(body).saturating_mul(2).max(SWEEP_BYTES);
        }
        let number = match self.contexts.get(context) {
            Some(context) => context.number,
            None => {
                self.last_context = self.last_context.saturating_add(1);
                let new = Context { number: self.last_context, texts: BTreeSet::new() };
                self.contexts.insert(context.into(), new);
                self.last_context
            }
        };
        let statement = self.make(number, body);
        if let Some(context) = self.contexts.get_mut(context) {
            context.texts.insert(ByBody(statement.clone()));
            self.len = self.len.saturating_add(1);
        }
        statement
    }

    /// A statement of its own, shared with nobody.
    pub(super) fn alone(&mut self, body: &[u8]) -> Rc<Statement> {
        self.make(0, body)
    }

    /// The number of a context; 0 if no text is known that was prepared under it.
    pub(super) fn context(&self, context: &[u8]) -> u64 {
        self.contexts.get(context).map_or(0, |context| context.number)
    }

    /// Whether there is room for a Parse body, if need be after forgetting what nobody holds.
    pub(super) fn has_room_for(&mut self, body: &[u8]) -> bool {
        let fits = |cache: &Self| cache.held_with(body) <= MAX_TENANT_BYTES;
        fits(self) || {
            self.sweep();
            fits(self)
        }
    }

    /// How many texts are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no text is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn make(&mut self, context: u64, body: &[u8]) -> Rc<Statement> {
        self.last_id = self.last_id.saturating_add(1);
        self.held.set(self.held_with(body));
        let text = frame::split_cstr(body).map_or(body, |(text, _)| text);
        Rc::new(Statement {
            id: self.last_id,
            body: body.into(),
            leaves: traces(text),
            context,
            held: self.held.clone(),
        })
    }

    fn held_with(&self, body: &[u8]) -> usize {
        self.held.get().saturating_add(cost(body))
    }

    fn sweep(&mut self) {
        self.contexts.retain(|_, context| {
            context.texts.retain(|text| Rc::strong_count(&text.0) > 1);
            !context.texts.is_empty()
        });
        self.len = self.contexts.values().map(|context| context.texts.len()).sum();
    }
}

/// What a text costs, in bytes: itself, and what is kept around it and each name for it, near enough.
const fn cost(body: &[u8]) -> usize {
    body.len().saturating_add(256)
}

/// What the texts of a tenant may cost together, on one worker.
pub(super) const MAX_TENANT_BYTES: usize = 64 * 1024 * 1024;

/// What a text leaves on a server when it runs as a prepared statement.
pub(super) fn traces(text: &[u8]) -> Option<Rc<Traces>> {
    Some(Rc::new(match classify(text) {
        Effect::Transient => return None,
        Effect::SessionState(kind) => Traces::of(text, kind),
        // As a prepared statement these run as they are written: on whatever the server has.
        // They only take away, so they keep no client at its server, but what is left is not known.
        Effect::Deallocate(_) | Effect::DeallocateAll => Traces::unknown(),
        Effect::DiscardAll => Traces { changes: Changes::discard_all(), ..Traces::unknown() },
    }))
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
    /// How their names begin.
    prefix: Box<[u8]>,
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
        Self {
            prefix: SERVER_NAME_PREFIX.into(),
            here: HashMap::default(),
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

    /// The server has none of them as it should: all are closed before the next one is prepared.
    pub(super) fn distrust(&mut self) {
        self.unclosed.extend(self.here.drain().map(|(_, here)| here.serial));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_a_statement_and_unused_ones_are_forgotten() {
        let mut cache = StatementCache::default();
        let one = cache.intern(b"UTC", b"select 1\0\0\0");
        assert_eq!(cache.intern(b"UTC", b"select 1\0\0\0").id, one.id);
        assert_ne!(cache.intern(b"CET", b"select 1\0\0\0").id, one.id, "it may mean something else");
        for i in 0..2_000 {
            cache.intern(b"UTC", format!("select {i}, 0\0\0\0").as_bytes());
        }
        assert!(cache.len() <= 513, "{}", cache.len());
        assert_eq!(cache.intern(b"UTC", b"select 1\0\0\0").id, one.id);
        assert_eq!(
            (cache.context(b"UTC"), cache.context(b"CET")),
            (one.context, 0),
            "an empty one is forgotten"
        );
    }

    #[test]
    fn texts_have_room_again_when_nobody_holds_them() {
        let mut cache = StatementCache::default();
        let long = vec![b'x'; MAX_TENANT_BYTES / 4 - cost(b"")];
        let mut kept: Vec<_> = (0..3).map(|_| cache.alone(&long)).collect();
        kept.push(cache.intern(b"UTC", &long));
        assert!(!cache.has_room_for(b""), "an empty one costs something as well");
        kept.truncate(3);
        assert!(cache.has_room_for(b""), "what the cache alone holds is forgotten");
        kept.truncate(1);
        assert_eq!(cache.held.get(), cost(&long));
    }

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
