//! Named prepared statements in transaction mode: one text, one name of ours, prepared once per server.
//!
//! Owns two of the three sets: the tenant's texts ([`StatementCache`]) and a client's names ([`ClientStatements`]); the
//! third, what a server has prepared, is `prepared`'s. A client finds only what it prepared itself: names lead to texts,
//! never to other clients' names.

use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::functions::Says;
use super::lexer::{Changes, Effect, Traces, sequences};
use super::params::Settings;
use super::reading::{Read, put_context};
use super::rows::RowType;
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
    /// Whether it is one of the usual texts.
    pub(super) is_plain: bool,
    /// Whether it asks what a sequence gave last.
    pub(super) asks: bool,
    /// What it may do by the functions in it, when that was looked for last.
    pub(super) says: Cell<Option<Says>>,
    /// Whether all settings were known when it was prepared: else it is the client's alone that did.
    pub(super) known: Known,
    /// Those that were known.
    pub(super) settings: Settings,
    /// What all texts of the tenant cost.
    held: Rc<Cell<usize>>,
}

/// What is known of the settings that a statement was prepared under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// All of them.
    All,
    /// How its words are read.
    Encoding,
    /// Not even that.
    Nothing,
}

impl Known {
    fn read<'t>(self, settings: &Settings, text: &'t [u8]) -> Read<'t> {
        if self == Self::Nothing { Read::in_doubt(text) } else { Read::kept(settings, text) }
    }
}

impl Statement {
    /// The text of the query.
    pub(super) fn text(&self) -> &[u8] {
        frame::split_cstr(&self.body).map_or(&self.body, |(text, _)| text)
    }

    /// The same as it was read.
    pub(super) fn read(&self) -> Read<'_> {
        if self.is_plain {
            return Read::as_written(self.text());
        }
        self.known.read(&self.settings, self.text())
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.held.set(self.held.get().saturating_sub(cost(&self.body)));
    }
}

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
    contexts: BTreeMap<Box<[u8]>, BTreeSet<ByBody>>,
    last_id: u64,
    len: usize,
    sweep_at: usize,
    sweep_at_bytes: usize,
    /// What all texts cost that anybody holds, here or beside the cache.
    held: Rc<Cell<usize>>,
}

/// Texts of a tenant below this are not looked through for some that nobody holds.
const SWEEP_BYTES: usize = 4 * 1024 * 1024;

impl StatementCache {
    /// The statement for a Parse body (text, NUL, types) that is read under these settings.
    pub(super) fn intern(&mut self, settings: &Settings, body: &[u8]) -> Rc<Statement> {
        let mut context = Vec::new();
        put_context(settings, &mut context);
        if let Some(found) = self.contexts.get(&*context).and_then(|texts| texts.get(body)) {
            return found.0.clone();
        }
        if self.len >= self.sweep_at || self.held_with(body) >= self.sweep_at_bytes {
            self.sweep();
            self.sweep_at = self.len.saturating_mul(2).max(256);
            self.sweep_at_bytes = self.held_with(body).saturating_mul(2).max(SWEEP_BYTES);
        }
        let statement = self.make(settings, Known::All, body);
        self.contexts.entry(context.into()).or_default().insert(ByBody(statement.clone()));
        self.len = self.len.saturating_add(1);
        statement
    }

    /// A statement of its own, shared with nobody, of which not all settings are known.
    pub(super) fn alone(&mut self, settings: &Settings, known: Known, body: &[u8]) -> Rc<Statement> {
        self.make(settings, known, body)
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

    fn make(&mut self, settings: &Settings, known: Known, body: &[u8]) -> Rc<Statement> {
        self.last_id = self.last_id.saturating_add(1);
        self.held.set(self.held_with(body));
        let text = frame::split_cstr(body).map_or(body, |(text, _)| text);
        let read = known.read(settings, text);
        Rc::new(Statement {
            id: self.last_id,
            body: body.into(),
            leaves: traces(&read, text),
            is_plain: read.is_plain(),
            asks: sequences(read.text().unwrap_or(text)).asks,
            says: Cell::new(None),
            known,
            settings: settings.clone(),
            held: self.held.clone(),
        })
    }

    fn held_with(&self, body: &[u8]) -> usize {
        self.held.get().saturating_add(cost(body))
    }

    fn sweep(&mut self) {
        self.contexts.retain(|_, texts| {
            texts.retain(|text| Rc::strong_count(&text.0) > 1);
            !texts.is_empty()
        });
        self.len = self.contexts.values().map(BTreeSet::len).sum();
    }
}

/// What a text costs, in bytes: itself, and what is kept around it and each name for it, near enough.
const fn cost(body: &[u8]) -> usize {
    body.len().saturating_add(256)
}

/// What the texts of a tenant may cost together, on one worker.
pub(super) const MAX_TENANT_BYTES: usize = 64 * 1024 * 1024;

/// What a text leaves on a server when it runs as a prepared statement.
pub(super) fn traces(read: &Read<'_>, text: &[u8]) -> Option<Rc<Traces>> {
    Some(Rc::new(match read.effect() {
        Effect::Transient => return None,
        Effect::SessionState(kind) => Traces::of(read.text().unwrap_or(text), kind),
        Effect::Deallocate(name) => Traces::deallocation(name),
        // As a prepared statement this runs as it is written: on whatever the server has.
        // It only takes away, so it keeps no client at its server, but what is left is not known.
        Effect::DeallocateAll => Traces::unknown(),
        Effect::DiscardAll => Traces { changes: Changes::discard_all(), ..Traces::unknown() },
    }))
}

/// What a name of a client's means.
#[derive(Debug)]
pub struct Named {
    /// What was prepared under it.
    pub statement: Rc<Statement>,
    /// Of what type the client was told its rows are.
    pub(super) told: Cell<RowType>,
    /// When it was used last: where a statement has several names, an error is most likely about this one.
    used_at: Cell<u64>,
}

impl Named {
    pub(super) fn new(statement: Rc<Statement>) -> Rc<Self> {
        Rc::new(Self { statement, told: Cell::default(), used_at: Cell::default() })
    }

    /// The same name, for rows of the same type, with its text read anew.
    pub(super) fn reread(&self, statement: Rc<Statement>) -> Rc<Self> {
        Rc::new(Self { statement, told: self.told.clone(), used_at: self.used_at.clone() })
    }

    pub(super) fn use_at(&self, clock: u64) {
        self.used_at.set(clock);
    }

    pub(super) fn is_told(&self) -> bool {
        self.told.get().is_known()
    }
}

/// What the client's names mean.
type Names = BTreeMap<Box<[u8]>, Rc<Named>>;

/// The names of one client. Takes no room as long as there are none.
#[derive(Debug, Default)]
pub struct ClientStatements {
    /// Boxed: most clients have no names, and there are many clients.
    names: Option<Box<Names>>,
}

impl ClientStatements {
    /// The statement of that name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Rc<Named>> {
        self.names.as_ref()?.get(name)
    }

    /// The name of a statement; of several that which was used last.
    pub(super) fn name_of(&self, is_it: impl Fn(&Statement) -> bool) -> Option<&[u8]> {
        let its = self.names.as_ref()?.iter().filter(|(_, named)| is_it(&named.statement));
        its.max_by_key(|(_, named)| named.used_at.get()).map(|(name, _)| &**name)
    }

    /// Gives a name a meaning, or none.
    pub(super) fn set(&mut self, name: &[u8], meaning: Option<Rc<Named>>) {
        match (meaning, &mut self.names) {
            (Some(named), names) => drop(names.get_or_insert_default().insert(name.into(), named)),
            (None, Some(names)) => drop(names.remove(name)),
            (None, None) => {}
        }
    }

    /// Takes names back that are not used for something else.
    pub(super) fn take_back(&mut self, former: Self) {
        for (name, named) in former.names.into_iter().flat_map(|names| *names) {
            self.names.get_or_insert_default().entry(name).or_insert(named);
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

#[cfg(test)]
mod tests {
    use super::super::params::Params;
    use super::*;

    #[test]
    fn equal_texts_share_a_statement_and_unused_ones_are_forgotten() {
        let mut cache = StatementCache::default();
        let zone = |name: &str| Settings {
            params: Rc::new(Params::new(vec![("TimeZone".into(), name.into())])),
            ..Settings::default()
        };
        let one = cache.intern(&zone("UTC"), b"select 1\0\0\0");
        assert_eq!(cache.intern(&zone("UTC"), b"select 1\0\0\0").id, one.id);
        assert_ne!(cache.intern(&zone("CET"), b"select 1\0\0\0").id, one.id, "it may mean something else");
        for i in 0..2_000 {
            cache.intern(&zone("UTC"), format!("select {i}, 0\0\0\0").as_bytes());
        }
        assert!(cache.len() <= 513, "{}", cache.len());
        assert_eq!(cache.intern(&zone("UTC"), b"select 1\0\0\0").id, one.id);
        assert_eq!(cache.contexts.len(), 1, "an empty one is forgotten");
    }

    #[test]
    fn texts_have_room_again_when_nobody_holds_them() {
        let mut cache = StatementCache::default();
        let long = vec![b'x'; MAX_TENANT_BYTES / 4 - cost(b"")];
        let mut kept: Vec<_> =
            (0..3).map(|_| cache.alone(&Settings::default(), Known::Encoding, &long)).collect();
        kept.push(cache.intern(&Settings::default(), &long));
        assert!(!cache.has_room_for(b""), "an empty one costs something as well");
        kept.truncate(3);
        assert!(cache.has_room_for(b""), "what the cache alone holds is forgotten");
        kept.truncate(1);
        assert_eq!(cache.held.get(), cost(&long));
    }
}
