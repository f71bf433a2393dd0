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

/// Appends the name that a statement has on servers.
pub fn put_server_name(out: &mut Vec<u8>, id: u64) {
    out.extend_from_slice(b"tenantry_");
    out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
}

/// Appends a Parse that prepares the statement on a server.
pub(super) fn put_parse(out: &mut Vec<u8>, id: u64, body: &[u8]) {
    frame::put(out, b'P', |out| {
        if id != 0 {
            put_server_name(out, id);
        }
        out.push(0);
        out.extend_from_slice(body);
    });
}

/// Appends a Close that makes a server forget the statement.
pub(super) fn put_close(out: &mut Vec<u8>, id: u64) {
    frame::put(out, b'C', |out| {
        out.push(b'S');
        put_server_name(out, id);
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
}

impl StatementCache {
    /// The statement for a Parse body (text, NUL, types).
    pub fn intern(&mut self, body: &[u8]) -> Rc<Statement> {
        if let Some(found) = self.texts.get(body) {
            return found.0.clone();
        }
        if self.texts.len() >= self.sweep_at {
            self.texts.retain(|text| Rc::strong_count(&text.0) > 1);
            self.sweep_at = self.texts.len().saturating_mul(2).max(256);
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
        Effect::Deallocate(_) | Effect::DeallocateAll | Effect::DiscardAll => {
            Some(StateKind::PreparedStatement)
        }
    }
}

/// The names of one client.
#[derive(Debug, Default)]
pub struct ClientStatements {
    names: BTreeMap<Box<[u8]>, Rc<Statement>>,
}

impl ClientStatements {
    /// The statement of that name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.names.get(name)
    }

    /// Gives a statement a name.
    pub fn insert(&mut self, name: &[u8], statement: Rc<Statement>) {
        self.names.insert(name.into(), statement);
    }

    /// Forgets a name.
    pub fn remove(&mut self, name: &[u8]) -> Option<Rc<Statement>> {
        self.names.remove(name)
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// What one server has prepared, by statement id.
#[derive(Debug)]
pub struct ServerStatements {
    used_at: HashMap<u64, u64, foldhash::fast::FixedState>,
    clock: u64,
    max: usize,
}

impl ServerStatements {
    /// An empty set of at most `max` statements.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { used_at: HashMap::default(), clock: 0, max: max.max(1) }
    }

    /// Whether the server has the statement; notes that it is used now.
    pub fn touch(&mut self, id: u64) -> bool {
        self.clock = self.clock.saturating_add(1);
        match self.used_at.get_mut(&id) {
            Some(used_at) => {
                *used_at = self.clock;
                true
            }
            None => false,
        }
    }

    /// The server is about to prepare the statement. Returns the one it must forget for that, if it is full.
    pub fn insert(&mut self, id: u64) -> Option<u64> {
        self.clock = self.clock.saturating_add(1);
        let victim = if self.used_at.len() >= self.max && !self.used_at.contains_key(&id) {
            // A scan of a few hundred entries, only when a full server meets a text it does not have.
            self.used_at.iter().min_by_key(|(_, used_at)| **used_at).map(|(id, _)| *id)
        } else {
            None
        };
        if let Some(victim) = victim {
            self.used_at.remove(&victim);
        }
        self.used_at.insert(id, self.clock);
        victim
    }

    /// The server does not have the statement (any more).
    pub fn remove(&mut self, id: u64) {
        self.used_at.remove(&id);
    }

    /// The server has forgotten everything.
    pub fn clear(&mut self) {
        self.used_at.clear();
    }

    /// How many statements the server has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used_at.len()
    }

    /// Whether the server has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used_at.is_empty()
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

    #[test]
    fn a_full_server_forgets_the_least_recently_used() {
        let mut server = ServerStatements::new(2);
        assert_eq!(server.insert(1), None);
        assert_eq!(server.insert(2), None);
        assert!(server.touch(1));
        assert_eq!(server.insert(3), Some(2));
        assert!(server.touch(1) && server.touch(3) && !server.touch(2));
    }
}
