//! Functions of a tenant that leave something behind on the server that runs them, out of our sight.
//!
//! A text that calls `login(5)` does not show that it sets `app.user`. So the catalog is asked, once per tenant and now and
//! then again, which functions there are in its schemas and what their bodies do (`lexer::left_by_body`). Where some set
//! settings for longer than the transaction, or take what keeps a client, the texts that may run functions are treated as
//! if they did that themselves: the server is asked behind the answer (`settle`).
//!
//! What else runs such functions (a view, a policy, a default, an operator) is asked next, and only where there are some.
//!
//! Owns what is known of functions. What it cannot see: functions in schemas that the role may not use, if only other
//! functions call them.

mod questions;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::answers::{Row, bytes, text_of};
use super::exchange::Exchange;
use super::expect::Expect;
use super::lexer::{self, Left, Made, MakesTemp, Names, Reach, StateKind};
use super::reading::DECIDING;
use super::state::{ClientState, ServerState};
use super::upstream::Parties;

/// What is known of a tenant's functions, for all its clients.
#[derive(Debug, Default)]
pub struct Functions {
    /// Whether anybody wants to know: not where servers stay with their clients.
    is_watched: bool,
    /// Whether a client has ever asked what a sequence gave it last.
    pub reads_sequences: Cell<bool>,
    /// Whether a client has ever bound an unnamed statement that it had bound in an earlier request already.
    pub(super) binds_unnamed_again: Cell<bool>,
    /// Whether a client has ever made a parameter its search_path.
    binds_paths: Cell<bool>,
    is_known: Cell<bool>,
    /// How often they may have changed: what was asked before a change is no answer behind it.
    changes: Cell<u32>,
    hidden: RefCell<Option<Rc<Hidden>>>,
    /// The numbers of the newest, when they were asked for.
    newest: RefCell<Option<Box<[u8]>>>,
    /// Those that were found, until it is known what else runs them.
    found: RefCell<Option<Found>>,
}

/// Functions that leave something behind.
#[derive(Debug, Default)]
struct Hidden {
    left: Left,
    reach: Reach,
    /// By which names a text runs those that change others: what is made anew under its old number shows in no number.
    changing: Reach,
}

/// The answer to the first question.
#[derive(Debug)]
struct Found {
    hidden: Hidden,
    /// The numbers of all functions: those that leave nothing may call those that do.
    oids: Vec<Box<str>>,
    /// One of them asks what a sequence gave last.
    reads_sequences: bool,
}

impl Functions {
    /// Those of a tenant in transaction mode, of which nothing is known yet.
    #[must_use]
    pub fn watched(reads_sequences: bool) -> Rc<Self> {
        Rc::new(Self { is_watched: true, reads_sequences: reads_sequences.into(), ..Self::default() })
    }

    /// They may have changed.
    pub fn forget(&self) {
        self.is_known.set(false);
        self.changes.set(self.changes.get().wrapping_add(1));
        *self.found.borrow_mut() = None;
    }

    /// What is known from here on.
    fn learn(&self, hidden: Option<Hidden>, client: &ClientState, server: &mut ServerState) {
        *self.hidden.borrow_mut() = hidden.map(Rc::new);
        self.is_known.set(true);
        if let Some(hidden) = self.hidden() {
            hidden.leave_behind(client, server);
        }
    }

    fn hidden(&self) -> Option<Rc<Hidden>> {
        self.hidden.borrow().clone()
    }

    /// Whether a server runs texts of which nobody knows what the functions in them do.
    pub(super) fn are_unknown(&self) -> bool {
        self.is_watched && !self.is_known.get()
    }
}

impl Parties<'_> {
    /// Takes note of what a text and the functions in it may do. Returns whether it may change settings that decide what
    /// texts mean.
    pub(super) fn look_for_functions(&mut self, text: &[u8], is_plain: bool) -> bool {
        let hidden = self.client.functions.hidden();
        if self.client.functions.is_watched && lexer::makes_functions(text, hidden.is_some()) {
            self.client.functions.forget();
            self.server.makes_functions = true;
        }
        // A table that it makes without saying where is a temporary one.
        self.server.doubted |= self.server.makes_temp;
        let decides = !is_plain && lexer::may_change(text, &DECIDING);
        self.server.reads_otherwise |= decides;
        match if is_plain { MakesTemp::No } else { lexer::makes_temp(text) } {
            MakesTemp::No => {}
            MakesTemp::ByParameter => self.client.functions.binds_paths.set(true),
            MakesTemp::Maybe => self.server.doubted = true,
        }
        // Another client may have made some since this one has its server.
        self.server.blind |= self.client.functions.are_unknown();
        if let Some(hidden) = hidden
            && hidden.reach.has(text)
        {
            hidden.leave_behind(self.client, self.server);
            if hidden.changing.has(text) {
                self.client.functions.forget();
                self.server.makes_functions = true;
            }
        }
        decides
    }

    /// Takes note of a search_path that is bound, given as much of the parameters as there is.
    pub(super) fn look_for_path(&mut self, values: &[u8], is_whole: bool) {
        if self.client.functions.binds_paths.get() {
            let temp = b"pg_temp";
            let is_there = values.windows(temp.len()).any(|part| part.eq_ignore_ascii_case(temp));
            self.server.doubted |= is_there || !is_whole;
        }
    }

    /// Takes note of what the functions of the unnamed statement may do, which is bound now.
    pub(super) fn look_for_functions_of_unnamed(&mut self) {
        self.server.doubted |= self.server.makes_temp;
        self.server.reads_otherwise |= self.client.unnamed_decides;
        if let Some(hidden) = self.client.functions.hidden()
            && self.client.unnamed_is_loud
        {
            hidden.leave_behind(self.client, self.server);
        }
    }

    /// Whether a text runs functions that leave something behind.
    pub(super) fn is_loud(&self, text: &[u8]) -> bool {
        self.client.functions.hidden().is_some_and(|hidden| hidden.reach.has(text))
    }
}

impl Hidden {
    fn leave_behind(&self, client: &ClientState, server: &mut ServerState) {
        server.touch_names(&self.left.settings, client);
        if self.left.settings == Names::Any {
            // Settings with a class are in no view: but those that are named are never known, and nobody else may get them.
            server.may_set(&self.left.custom);
            server.left_behind = Some(StateKind::Unknown);
        }
        server.doubted |= self.left.pins;
        server.may_have_made |= self.left.makes != Made::Nothing;
    }
}

impl Exchange {
    /// Asks for the functions, if that is due; or acts on what another lease has found out meanwhile.
    pub(super) fn settle_functions(
        &mut self,
        client: &ClientState,
        server: &mut ServerState,
        out: &mut Vec<u8>,
    ) {
        let may_have_made = std::mem::take(&mut server.may_have_made) && client.functions.is_watched;
        // Who asks for them now may have begun before what was made was there for all.
        let is_blind = std::mem::take(&mut server.blind) || may_have_made && client.functions.are_unknown();
        if !is_blind {
            if may_have_made {
                self.ask(server, (Expect::AskMade, &questions::made()), Vec::new(), out);
            }
            return;
        }
        if std::mem::take(&mut server.makes_functions) {
            // Somebody may have asked before they were there for others.
            client.functions.forget();
        }
        if client.functions.are_unknown() {
            let reach = client.functions.found.borrow().as_ref().map(|found| questions::reach(&found.oids));
            let (question, sql) = match reach {
                Some(sql) => (Expect::AskReach, sql),
                None => (Expect::AskFunctions, questions::functions(client.bounds.schemas.as_deref())),
            };
            self.ask(server, (question, &sql), Vec::new(), out);
            server.asked_behind = client.functions.changes.get();
        } else if let Some(hidden) = client.functions.hidden() {
            hidden.leave_behind(client, server);
        }
    }
}

/// The rows that tell which functions there are; `None` if the question has failed.
pub(super) fn take_functions(rows: Option<Vec<Row>>, client: &ClientState, server: &mut ServerState) {
    let functions = &client.functions;
    if server.asked_behind != functions.changes.get() {
        server.blind = true;
        return;
    }
    *functions.newest.borrow_mut() = rows.as_deref().and_then(newest_of);
    let found = rows.map(|rows| found_among(&rows));
    if found.as_ref().is_none_or(|found| found.reads_sequences) {
        functions.reads_sequences.set(true);
    }
    match found {
        Some(found) if found.hidden.left.is_nothing() => functions.learn(None, client, server),
        Some(found) => {
            *functions.found.borrow_mut() = Some(found);
            // There is a second question.
            server.blind = true;
        }
        // In doubt every text may do anything.
        None => {
            let changing = Reach::default();
            let hidden = Hidden { left: Left::anything(), reach: Reach::anything(), changing };
            functions.learn(Some(hidden), client, server);
        }
    }
}

/// The rows that tell what else runs them; `None` if the question has failed.
pub(super) fn take_reach(rows: Option<Vec<Row>>, client: &ClientState, server: &mut ServerState) {
    let functions = &client.functions;
    let is_late = server.asked_behind != functions.changes.get();
    let found = if is_late { None } else { functions.found.take() };
    let Some(Found { mut hidden, .. }) = found else {
        // Meanwhile some may have been made: from the beginning.
        server.blind = true;
        return;
    };
    match rows {
        Some(rows) => rows.iter().for_each(|row| extend(&mut hidden.reach, row)),
        None => hidden.reach = Reach::anything(),
    }
    functions.learn(Some(hidden), client, server);
}

/// The row that tells whether functions were made out of sight; `None` if the question has failed.
pub(super) fn take_made(rows: Option<&[Row]>, client: &ClientState, server: &mut ServerState) {
    let newest = rows.and_then(newest_of);
    if newest.is_none() || *client.functions.newest.borrow() != newest {
        client.functions.forget();
        server.blind = true;
    }
}

/// What stands in the last row, behind the functions if there are any.
fn newest_of(rows: &[Row]) -> Option<Box<[u8]>> {
    match rows.last()?.as_slice() {
        [newest] | [None, newest, ..] => newest.clone(),
        _ => None,
    }
}

fn found_among(rows: &[Row]) -> Found {
    let mut found = Found { hidden: Hidden::default(), oids: Vec::new(), reads_sequences: false };
    for row in rows {
        let [oid @ Some(_), name, is_trigger, is_sql, is_extensions, body] = row.as_slice() else { continue };
        let is_sql = is_sql.as_deref() == Some(b"t");
        let left = match body.as_deref().map(|body| text_of(body, questions::MAX_BODY_BYTES)) {
            None => Left::default(),
            Some(Some(body)) if is_sql => {
                found.reads_sequences |= lexer::sequences(body.as_bytes()).asks;
                lexer::left_by_body(body.as_bytes())
            }
            Some(_) => Left::anything(),
        };
        // Those of an extension that leave nothing do not call the tenant's, and there may be many.
        if is_extensions.as_deref() == Some(b"t") && left.is_nothing() {
            continue;
        }
        found.hidden.left.merge(&left);
        let name = name.as_deref().and_then(bytes);
        found.hidden.reach.functions.add(name.as_deref());
        if left.makes == Made::Anew {
            found.hidden.changing.functions.add(name.as_deref());
        }
        found.hidden.reach.by_triggers |= is_trigger.as_deref() == Some(b"t");
        found.oids.extend(oid.as_deref().and_then(|oid| std::str::from_utf8(oid).ok()).map(Box::from));
    }
    found
}

fn extend(reach: &mut Reach, row: &Row) {
    let [sort, name] = row.as_slice() else { return };
    let name = || name.as_deref().and_then(bytes);
    match sort.as_deref() {
        Some(b"f") => reach.functions.add(name().as_deref()),
        Some(b"r") => reach.relations.add(name().as_deref()),
        Some(b"t") => reach.by_triggers = true,
        _ => reach.by_anything = true,
    }
}

impl ServerState {
    /// Settings of these names may have changed.
    fn touch_names(&mut self, names: &Names, client: &ClientState) {
        let changes = lexer::Changes { touched: names.clone(), reset: Names::None };
        self.touch(&changes, client);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{DONE, READY, Talk, messages};
    use super::*;

    fn settled(talk: &mut Talk) -> Vec<u8> {
        let mut out = Vec::new();
        talk.exchange.settle(&talk.client, &mut talk.server, &mut out);
        out
    }

    #[test]
    fn what_was_asked_before_functions_changed_is_no_answer() {
        let mut talk = Talk::new(9);
        talk.client.functions = Functions::watched(false);
        talk.say(&messages(&[(b'Q', b"SELECT 1\0")]));
        talk.answer(&messages(&[DONE, READY]));
        for is_changed in [true, false] {
            assert!(settled(&mut talk).starts_with(b"Q"), "it is asked");
            if is_changed {
                // On another server of the tenant's.
                talk.client.functions.forget();
            }
            talk.answer(&messages(&[DONE, READY]));
            assert_eq!(talk.client.functions.are_unknown(), is_changed);
        }
        assert_eq!(settled(&mut talk), b"");
    }
}
