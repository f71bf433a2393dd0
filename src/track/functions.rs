//! Functions of a tenant that leave something behind on the server that runs them, out of our sight.
//!
//! A text that calls `login(5)` does not show that it sets `app.user`. So the catalog is asked, once per tenant and now and
//! then again, which functions there are in its schemas and what their bodies do (`lexer::left_by_body`). Where some set
//! settings for longer than the transaction, or take what keeps a client, the texts that may run functions are treated as
//! if they did that themselves: the server is asked behind the answer (`settle`). Where nobody has made any, a much shorter
//! question in front tells that, and is the last.
//!
//! What else runs such functions (a view, a policy, a default, an operator) is asked next, and only where there are some.
//!
//! Owns what is known of functions. What it cannot see: functions in schemas that the role may not use, if only other
//! functions call them.

mod elsewhere;
mod makers;
mod questions;
mod says;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

pub use elsewhere::Elsewhere;
use elsewhere::Shared;
use makers::Makers;
pub(super) use makers::Making;
pub(super) use says::{Knowledge, Says};

use super::answers::{Row, bytes, text_of};
use super::exchange::Exchange;
use super::expect::Expect;
use super::hearing::has_word;
use super::lexer::{self, Left, Made, MakesTemp, Names, Reach, StateKind};
use super::params::MadeTemp;
use super::reading::{DECIDING, ENCODING, Read};
use super::state::{ClientState, ServerState};
use super::statement::Statement;
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
    /// How often they may have changed: what was asked before that is no answer.
    changes: Cell<u32>,
    /// How often that, or how often it was found out what they do.
    version: Cell<u32>,
    hidden: RefCell<Option<Arc<Hidden>>>,
    /// The numbers of the newest, when they were asked for last.
    newest: RefCell<Newest>,
    /// What is asked next, until they are known.
    due: RefCell<Due>,
    /// Servers of which it is not known yet whether they have just made some.
    makers: RefCell<Arc<Makers>>,
    /// The same as all workers of the tenant know it, if it has several.
    shared: RefCell<Option<Arc<Shared>>>,
}

/// The numbers of the newest functions, and of the newest of what runs them, as the catalog told them; `None` if it has not.
pub(super) type Newest = Option<Arc<[u8]>>;

/// Functions that leave something behind.
#[derive(Debug, Default)]
struct Hidden {
    left: Left,
    reach: Reach,
    /// By which names a text runs those that change others: what is made anew under its old number shows in no number.
    changing: Option<Reach>,
}

/// The questions, in their order.
#[derive(Debug, Default)]
enum Due {
    /// Whether there are any but Postgres' own.
    #[default]
    Newest,
    /// Which of them the tenant's texts may run. These were the newest just before that is asked.
    Functions(Newest),
    /// What else runs those that were found.
    Reach(Box<Found>),
}

/// The answer to the second question.
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
        self.change(Self::doubt);
    }

    fn doubt(&self) {
        self.is_known.set(false);
        self.changes.set(self.changes.get().wrapping_add(1));
        self.version.set(self.version.get().wrapping_add(1));
        self.due.take();
    }

    /// What a question has told that was asked behind the last change is known from here on: `told` says it. Whether it was.
    fn learn(&self, asked_behind: u32, told: impl FnOnce(&Self)) -> bool {
        self.change(|this| {
            let is_told = this.are_unknown() && this.changes.get() == asked_behind;
            if is_told {
                told(this);
            }
            is_told
        })
    }

    /// That is what they leave behind.
    fn know(&self, hidden: Option<Hidden>) {
        *self.hidden.borrow_mut() = hidden.map(Arc::new);
        self.is_known.set(true);
        self.version.set(self.version.get().wrapping_add(1));
    }

    /// In doubt every text may do anything.
    fn know_nothing(&self) {
        self.reads_sequences.set(true);
        self.know(Some(Hidden::anything()));
    }

    /// The question has failed; or they have changed since, or somebody else was faster.
    pub(super) fn are_not_told(&self, client: &ClientState, server: &mut ServerState) {
        if std::mem::take(&mut server.asked_of_itself) || self.are_unknown() {
            // The same server is not asked again, or it might be for ever: the next lease will ask.
            Hidden::anything().leave_settings(client, server);
        } else {
            server.blind = true;
        }
    }

    /// The last question was answered.
    fn have_told(&self, is_told: bool, client: &ClientState, server: &mut ServerState) {
        if !is_told {
            self.are_not_told(client, server);
        } else if let Some(hidden) = self.hidden() {
            // What it may have made was there when this was asked.
            hidden.leave_settings(client, server);
        }
    }

    fn hidden(&self) -> Option<Arc<Hidden>> {
        self.hidden.borrow().clone()
    }

    /// How often they may have changed.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.hear();
        self.changes.get()
    }

    /// The newest ones when they were asked for last.
    pub(super) fn newest(&self) -> Newest {
        self.newest.borrow().clone()
    }

    pub(super) fn knowledge(&self) -> Knowledge {
        Knowledge::of_version(self.version.get())
    }

    /// Whether servers pass from client to client.
    pub(super) const fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Whether a server runs texts of which nobody knows what the functions in them do.
    pub(super) fn are_unknown(&self) -> bool {
        self.is_watched && !self.is_known.get()
    }
}

impl Parties<'_> {
    /// Takes note of what a text and the functions in it may do.
    pub(super) fn look_for_functions(&mut self, (read, text): (&Read<'_>, &[u8]), is_plain: bool) -> Says {
        let hidden = self.client.functions.hidden();
        let Some(text) = read.text() else {
            let says = Says::anything().making(self.client.functions.is_watched && lexer::says_make(text));
            self.server.doubted = true;
            self.runs(says);
            return says;
        };
        let decides = !is_plain && lexer::may_change(text, &DECIDING);
        let is_loud = hidden.as_ref().is_some_and(|hidden| hidden.reach.has(text));
        let is_watched = self.client.functions.is_watched;
        // As long as nothing is known there may be some.
        let are_there = hidden.is_some() || self.client.functions.are_unknown();
        let changing = hidden.as_ref().filter(|_| is_loud).and_then(|hidden| hidden.changing.as_ref());
        let makes = is_watched && lexer::makes_functions(text, is_plain, are_there)
            || changing.is_some_and(|changing| changing.has(text));
        let says = Says::nothing(self.client.functions.knowledge())
            .and(Says::LOUD, is_loud)
            .and(Says::DECIDES, decides)
            .and(Says::REENCODES, decides && lexer::may_change(text, &ENCODING))
            .and(
                Says::CREATES,
                !is_plain || self.server.makes_temp != MadeTemp::No && has_word(text, b"into"),
            )
            .and(Says::MAKES, makes);
        match if is_plain { MakesTemp::No } else { lexer::makes_temp(text) } {
            MakesTemp::No => {}
            MakesTemp::ByParameter => self.client.functions.binds_paths.set(true),
            MakesTemp::Maybe => self.server.doubted = true,
        }
        self.runs(says);
        says
    }

    /// The same of a statement that is run again. What a plain text says is not read again before more is known.
    pub(super) fn look_for_functions_of(&mut self, statement: &Statement) {
        let functions = &self.client.functions;
        let keeps = statement.is_plain && functions.is_watched && self.server.makes_temp == MadeTemp::No;
        let kept = statement.says.get().filter(|says| keeps && says.behind() == functions.knowledge());
        if let Some(says) = kept {
            return self.runs(says);
        }
        let says = self.look_for_functions((&statement.read(), statement.text()), statement.is_plain);
        if keeps {
            statement.says.set(Some(says));
        }
    }

    /// A text of which this was said is run.
    fn runs(&mut self, says: Says) {
        let functions = self.client.functions.clone();
        self.server.read_behind.get_or_insert(says.behind());
        let is_news = says.behind() != functions.knowledge();
        if says.has(Says::MAKES) {
            functions.forget();
            self.server.makes_functions = true;
        } else if is_news {
            self.server.may_make(&functions);
        }
        // A table that is made without saying where is a temporary one.
        self.server.doubted |= match self.server.makes_temp {
            MadeTemp::No => false,
            MadeTemp::IfNothingElse => says.has(Says::CREATES),
            MadeTemp::First => true,
        };
        self.server.reads_otherwise |= says.decides();
        self.server.reencodes |= says.has(Says::REENCODES);
        // Another client may have made some since this one has its server.
        self.server.blind |= functions.are_unknown() || !self.server.knows(&functions);
        if let Some(hidden) = functions.hidden()
            && (says.has(Says::LOUD) || is_news)
        {
            hidden.leave_behind(self.client, self.server);
        }
    }

    /// Takes note of a search_path that is bound, given as much of the parameters as there is.
    pub(super) fn look_for_path(&mut self, values: &[u8], is_whole: bool) {
        if self.client.functions.binds_paths.get() {
            let temp = b"pg_temp";
            let is_there = values.windows(temp.len()).any(|part| part.eq_ignore_ascii_case(temp));
            self.server.doubted |= is_there || !is_whole;
        }
    }

    /// The unnamed statement is bound now, perhaps long behind its Parse.
    pub(super) fn runs_unnamed(&mut self) {
        self.runs(self.client.unnamed_says);
    }
}

impl Hidden {
    fn anything() -> Self {
        Self { left: Left::anything(), reach: Reach::anything(), changing: None }
    }

    fn leave_behind(&self, client: &ClientState, server: &mut ServerState) {
        self.leave_settings(client, server);
        if self.left.makes != Made::Nothing {
            server.may_make(&client.functions);
        }
    }

    fn leave_settings(&self, client: &ClientState, server: &mut ServerState) {
        server.touch_names(&self.left.settings, client);
        if self.left.settings == Names::Any {
            // Settings with a class are in no view: but those that are named are never known, and nobody else may get them.
            server.may_set(&self.left.custom);
            server.left_behind = Some(StateKind::Unknown);
        }
        server.doubted |= self.left.pins;
    }
}

impl ServerState {
    /// All that it was asked to run is answered. What was read when less was known of the functions may have run those that
    /// came since.
    pub(super) fn has_run_all(&mut self, functions: &Functions) {
        functions.hear();
        let behind = self.read_behind.take();
        self.blind |= behind.is_some_and(|behind| behind != functions.knowledge());
        if behind.is_some() && self.may_have_made.is_none() {
            self.others_made = functions.makers.borrow().first();
        }
    }

    /// It is told that its transaction has ended, and its client will be: from here on others may run what it has made.
    pub(super) fn has_committed(&mut self, functions: &Functions) {
        if let Some(before) = &self.may_have_made
            && self.making.is_none()
        {
            self.making = Some(functions.makers.borrow().enter(before.clone()));
        }
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
        let is_blind = std::mem::take(&mut server.blind);
        if is_blind && std::mem::take(&mut server.makes_functions) {
            // Somebody may have asked before they were there for others.
            client.functions.forget();
        }
        let others = server.others_made.take();
        // It may have others than are known, and what it says of them may be long past: but of itself it can tell.
        if server.is_replicas() && (others.is_some() || is_blind && !server.knows(&client.functions)) {
            server.asked_of_itself = true;
            let sql = questions::functions(client.bounds.schemas.as_deref());
            return self.ask(server, (Expect::AskFunctions, &sql), Vec::new(), out);
        }
        if is_blind && client.functions.are_unknown() {
            let (question, sql) = match &*client.functions.due.borrow() {
                Due::Newest => (Expect::AskNewest, questions::newest()),
                Due::Functions(_) => {
                    (Expect::AskFunctions, questions::functions(client.bounds.schemas.as_deref()))
                }
                Due::Reach(found) => (Expect::AskReach, questions::reach(&found.oids)),
            };
            self.ask(server, (question, &sql), Vec::new(), out);
            server.asked_behind = client.functions.changes.get();
        } else if is_blind && let Some(hidden) = client.functions.hidden() {
            hidden.leave_behind(client, server);
        }
        if let Some(before) = server.may_have_made.take().or(others) {
            self.ask(server, (Expect::AskMade, &questions::made()), Vec::new(), out);
            server.made_behind = before;
        }
    }
}

/// The row that tells whether there are functions but Postgres' own; `None` if the question has failed.
///
/// What is made between it and the next answer is newer than it says, even if that answer has it already.
pub(super) fn take_newest(rows: Option<&[Row]>, client: &ClientState, server: &mut ServerState) {
    let functions = &client.functions;
    if server.is_outdated {
        return functions.are_not_told(client, server);
    }
    let newest = rows.and_then(newest_of);
    let are_there = newest.as_deref().map(questions::are_there);
    let is_told = functions.learn(server.asked_behind, |functions| {
        let is_next = matches!(*functions.due.borrow(), Due::Newest);
        match are_there {
            Some(false) => {
                functions.newest.replace(newest);
                functions.know(None);
            }
            Some(true) if is_next => drop(functions.due.replace(Due::Functions(newest))),
            // Another lease is further, and what it finds may be older than this.
            Some(true) => {}
            None => functions.know_nothing(),
        }
    });
    if is_told && functions.are_unknown() {
        // There is a second question.
        server.blind = true;
    } else {
        functions.have_told(is_told, client, server);
    }
}

/// The rows that tell which functions there are; `None` if the question has failed.
pub(super) fn take_functions(rows: Option<Vec<Row>>, client: &ClientState, server: &mut ServerState) {
    let functions = &client.functions;
    if std::mem::take(&mut server.asked_of_itself) {
        let found = rows.map_or_else(Hidden::anything, |rows| found_among(&rows).hidden);
        // What was dropped a moment ago may have run.
        let known = functions.hidden();
        return std::iter::once(&found)
            .chain(known.as_deref())
            .for_each(|one| one.leave_settings(client, server));
    }
    if server.is_outdated || !functions.are_unknown() || server.asked_behind != functions.changes.get() {
        return functions.are_not_told(client, server);
    }
    let found = rows.map(|rows| found_among(&rows));
    let is_told = functions.learn(server.asked_behind, |functions| {
        if let Due::Functions(newest) = functions.due.take() {
            functions.newest.replace(newest);
        }
        if found.as_ref().is_some_and(|found| found.reads_sequences) {
            functions.reads_sequences.set(true);
        }
        match found {
            Some(found) if found.hidden.left.is_nothing() => functions.know(None),
            Some(found) => drop(functions.due.replace(Due::Reach(Box::new(found)))),
            None => functions.know_nothing(),
        }
    });
    if is_told && functions.are_unknown() {
        // There is a third question.
        server.blind = true;
    } else {
        functions.have_told(is_told, client, server);
    }
}

/// The rows that tell what else runs them; `None` if the question has failed.
pub(super) fn take_reach(rows: Option<Vec<Row>>, client: &ClientState, server: &mut ServerState) {
    let functions = &client.functions;
    functions.hear();
    let is_late = server.is_outdated || server.asked_behind != functions.changes.get();
    let due = if is_late { Due::Newest } else { functions.due.take() };
    let Due::Reach(found) = due else { return functions.are_not_told(client, server) };
    let mut hidden = found.hidden;
    match rows {
        Some(rows) => rows.iter().for_each(|row| extend(&mut hidden.reach, row)),
        None => hidden.reach = Reach::anything(),
    }
    let is_told = functions.learn(server.asked_behind, |functions| functions.know(Some(hidden)));
    functions.have_told(is_told, client, server);
}

/// The row that tells whether functions were made out of sight; `None` if the question has failed.
///
/// It is compared with what was known before the text was run that may have made some. What another client has found out
/// meanwhile proves nothing: of two functions the newer may be committed first.
pub(super) fn take_made(rows: Option<&[Row]>, client: &ClientState, server: &mut ServerState) {
    let before = server.made_behind.take();
    let newest = rows.and_then(newest_of);
    if newest.is_none() || before != newest {
        client.functions.forget();
        server.blind = true;
    }
    if newest.is_some() {
        client.functions.change(|functions| functions.newest.replace(newest));
    }
    // Who runs something from here on knows as much.
    server.making = None;
}

fn newest_of(rows: &[Row]) -> Newest {
    match rows {
        [row] => row.first()?.as_deref().map(Arc::from),
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
            found.hidden.changing.get_or_insert_default().functions.add(name.as_deref());
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
mod tests;
