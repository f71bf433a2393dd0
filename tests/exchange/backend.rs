//! A model of a Postgres backend: bytes in, bytes out, by the rules of `PostgresMain` (`src/backend/tcop/postgres.c`).
//!
//! Its rows are echoes: the text that was executed, the parameter, the settings the session has. So whoever reads them
//! knows whose statement ran where.

use std::collections::{BTreeMap, BTreeSet};

use super::asked;
use super::copy::CopyIn;
use super::messages::{self, put};
use super::rng::Rng;
use super::sql::{Sql, Variables, statements, understand};

/// Whether there is a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tx {
    None,
    /// One that ends with its Sync or simple query.
    Implicit,
    Block,
    Failed,
}

/// An error as Postgres reports it.
#[derive(Debug)]
pub(super) struct PgError(pub(super) &'static str, pub(super) String);

/// Answers go out when the client asks for them or the buffer is full (`PqSendBuffer`).
const SEND_BUFFER_BYTES: usize = 8_192;

/// How a model backend differs from another.
#[derive(Clone, Debug)]
pub(super) struct Nature {
    /// Settings of its login.
    pub(super) login: BTreeMap<String, String>,
    /// Changed settings are reported at once (Postgres 13), not before ReadyForQuery.
    pub(super) reports_at_once: bool,
    /// Where notices come from, if it sends any.
    pub(super) noise: Option<Rng>,
}

#[derive(Debug)]
struct Portal {
    text: String,
    value: String,
    rows_sent: u32,
    done: bool,
}

/// One backend.
#[derive(Debug)]
pub(super) struct Backend {
    nature: Nature,
    inbox: Vec<u8>,
    /// Answers that have been sent.
    pub(super) sent: Vec<u8>,
    /// Answers that have not.
    pub(super) buffered: Vec<u8>,
    pub(super) prepared: BTreeMap<String, String>,
    prepared_by_sql: BTreeSet<String>,
    holds_cursor: bool,
    pub(super) unnamed: Option<String>,
    portals: BTreeMap<String, Portal>,
    pub(super) tx: Tx,
    pub(super) variables: Variables,
    /// The variables when the transaction began.
    before: Option<Variables>,
    reported: BTreeMap<String, String>,
    /// `ignore_till_sync`.
    pub(super) skipping: bool,
    /// `doing_extended_query_message`.
    extended: bool,
    pub(super) copy: Option<CopyIn>,
    pub(super) dead: bool,
}

impl Backend {
    pub(super) fn new(nature: Nature) -> Self {
        let variables = Variables::new(nature.login.clone());
        Self {
            nature,
            inbox: Vec::new(),
            sent: Vec::new(),
            buffered: Vec::new(),
            prepared: BTreeMap::new(),
            prepared_by_sql: BTreeSet::new(),
            holds_cursor: false,
            unnamed: None,
            portals: BTreeMap::new(),
            tx: Tx::None,
            reported: variables.reported(),
            variables,
            before: None,
            skipping: false,
            extended: false,
            copy: None,
            dead: false,
        }
    }

    /// Whether it waits for a client's next command, outside a transaction, and has said everything.
    pub(super) fn is_idle(&self) -> bool {
        let silent = self.inbox.is_empty() && self.sent.is_empty() && self.buffered.is_empty();
        silent && self.tx == Tx::None && !self.skipping && self.copy.is_none() && !self.dead
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.dead {
            return;
        }
        self.inbox.extend_from_slice(bytes);
        let (found, used) = messages::split(&self.inbox);
        self.inbox.drain(..used);
        for message in found {
            if !self.dead {
                self.message(message.tag, &message.body);
            }
        }
        if self.buffered.len() > SEND_BUFFER_BYTES {
            self.flush();
        }
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.copy.is_some() {
            return self.copy_message(tag, body);
        }
        match tag {
            b'S' | b'X' => (self.extended, self.skipping) = (false, false),
            b'Q' | b'F' => self.extended = false,
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' => self.extended = true,
            _ => {}
        }
        if self.skipping {
            return;
        }
        if b"QPBDE".contains(&tag) {
            self.noise();
        }
        let done = match tag {
            b'Q' => self.simple(text_of(body).0),
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'E' => self.execute_portal(body),
            b'C' => self.close(body),
            b'F' => self.function(body),
            b'S' => {
                self.finish();
                self.ready();
                Ok(())
            }
            b'H' => {
                self.flush();
                Ok(())
            }
            b'd' | b'c' | b'f' => Ok(()),
            b'X' => {
                self.dead = true;
                Ok(())
            }
            _ => panic!("the model does not know message type {tag}"),
        };
        if let Err(error) = done {
            self.fail(&error);
        }
    }

    /// Reports an error, aborts the transaction, and either skips to Sync or is ready again.
    pub(super) fn fail(&mut self, PgError(code, text): &PgError) {
        let parts = ["SERROR\0C".as_bytes(), code.as_bytes(), b"\0M", text.as_bytes(), b"\0\0"];
        put(&mut self.buffered, b'E', &parts);
        self.flush();
        self.copy = None;
        self.portals.clear();
        if let Some(before) = self.before.take() {
            self.variables = before;
        }
        self.tx = if matches!(self.tx, Tx::Block | Tx::Failed) { Tx::Failed } else { Tx::None };
        if self.nature.reports_at_once {
            self.report();
        }
        if self.extended {
            self.skipping = true;
        } else {
            self.ready();
        }
    }

    /// The end of the conversation.
    pub(super) fn die(&mut self, text: &str) {
        let parts = ["SFATAL\0C08P01\0M".as_bytes(), text.as_bytes(), b"\0\0"];
        put(&mut self.buffered, b'E', &parts);
        self.flush();
        self.dead = true;
    }

    pub(super) fn flush(&mut self) {
        self.sent.append(&mut self.buffered);
    }

    pub(super) fn ready(&mut self) {
        self.report();
        let status = match self.tx {
            Tx::None | Tx::Implicit => b'I',
            Tx::Block => b'T',
            Tx::Failed => b'E',
        };
        put(&mut self.buffered, b'Z', &[&[status]]);
        self.flush();
        // Not outside a transaction: there a server that speaks unasked is not handed to anybody.
        if self.tx != Tx::None {
            self.noise();
            self.flush();
        }
    }

    fn report(&mut self) {
        let now = self.variables.reported();
        for (name, value) in now.iter().filter(|(name, value)| self.reported.get(*name) != Some(value)) {
            put(&mut self.buffered, b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
        }
        self.reported = now;
    }

    /// Now and then a notice.
    fn noise(&mut self) {
        let Some(rng) = &mut self.nature.noise else { return };
        if rng.chance(10) {
            let tag = *rng.pick(b"NA");
            let text = vec![b'n'; rng.below(40)];
            put(&mut self.buffered, tag, &[b"SNOTICE\0M", &text, b"\0\0"]);
        }
    }

    fn start(&mut self) {
        if self.tx == Tx::None {
            self.tx = Tx::Implicit;
        }
        if self.before.is_none() {
            self.before = Some(self.variables.clone());
        }
    }

    /// The end of an implicit transaction.
    pub(super) fn finish(&mut self) {
        if matches!(self.tx, Tx::Implicit | Tx::None) {
            self.end_transaction();
        }
    }

    fn end_transaction(&mut self) {
        self.tx = Tx::None;
        self.before = None;
        self.portals.clear();
        self.variables.end_transaction();
    }

    fn simple(&mut self, text: &str) -> Result<(), PgError> {
        self.start();
        self.unnamed = None;
        if statements(text).iter().any(|text| understand(text) == Sql::Broken) {
            return Err(syntax_error(text));
        }
        let rest = statements(text).into_iter().map(str::to_owned).collect::<Vec<_>>();
        if rest.is_empty() {
            put(&mut self.buffered, b'I', &[]);
        }
        self.simple_rest(rest)
    }

    /// Runs the statements of a simple query that are left.
    pub(super) fn simple_rest(&mut self, rest: Vec<String>) -> Result<(), PgError> {
        let alone = rest.len() < 2;
        let mut rest = rest.into_iter();
        while let Some(text) = rest.next() {
            self.start();
            let sql = understand(&text);
            self.check_transaction(&sql)?;
            if sql.returns_rows() {
                self.describe_rows(&text);
            }
            match sql {
                Sql::CopyIn | Sql::CopyInFails => {
                    self.begin_copy_in(&sql, Some(rest.collect()))?;
                    return Ok(());
                }
                Sql::DiscardAll if !alone => return Err(in_block("DISCARD ALL")),
                _ => self.run(&text, "", &mut 0, 0)?,
            };
        }
        self.finish();
        self.ready();
        Ok(())
    }

    fn check_transaction(&self, sql: &Sql) -> Result<(), PgError> {
        if self.tx == Tx::Failed && !sql.ends_transaction() {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(PgError("25P02", text.to_owned()));
        }
        Ok(())
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), PgError> {
        let (name, rest) = text_of(body);
        let (text, _) = text_of(rest);
        self.start();
        if name.is_empty() {
            self.unnamed = None;
        }
        if statements(text).len() > 1 {
            return Err(syntax_error("cannot insert multiple commands into a prepared statement"));
        }
        if understand(text) == Sql::Broken {
            return Err(syntax_error(text));
        }
        // A statement without a text is legal in a failed transaction as well.
        if !text.is_empty() {
            self.check_transaction(&understand(text))?;
        }
        if name.is_empty() {
            self.unnamed = Some(text.to_owned());
        } else {
            self.store(name, text)?;
        }
        put(&mut self.buffered, b'1', &[]);
        Ok(())
    }

    fn store(&mut self, name: &str, text: &str) -> Result<(), PgError> {
        if self.prepared.contains_key(name) {
            return Err(PgError("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        self.prepared.insert(name.to_owned(), text.to_owned());
        Ok(())
    }

    pub(super) fn statement(&self, name: &str) -> Result<&String, PgError> {
        let found = if name.is_empty() { self.unnamed.as_ref() } else { self.prepared.get(name) };
        found.ok_or_else(|| PgError("26000", format!("prepared statement \"{name}\" does not exist")))
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), PgError> {
        let (portal, rest) = text_of(body);
        let (name, rest) = text_of(rest);
        self.start();
        let text = self.statement(name)?.clone();
        let value = rest.get(8..).and_then(|rest| rest.get(..rest.len().saturating_sub(2)));
        // The proxy's own have none.
        let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        self.check_transaction(&understand(&text))?;
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(PgError("42P03", format!("cursor \"{portal}\" already exists")));
        }
        self.portals.insert(portal.to_owned(), Portal { text, value, rows_sent: 0, done: false });
        put(&mut self.buffered, b'2', &[]);
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), PgError> {
        let (kind, name) = body.split_first().expect("a kind");
        let name = text_of(name).0;
        self.start();
        let text = match kind {
            b'S' => self.statement(name)?.clone(),
            _ => self.portals.get(name).ok_or_else(|| no_portal(name))?.text.clone(),
        };
        // Postgres lets a statement that returns no rows be described in a failed transaction; see `compare`.
        self.check_transaction(&understand(&text))?;
        if *kind == b'S' {
            put(&mut self.buffered, b't', &[b"\0\x01\0\0\0\x19"]);
        }
        if understand(&text).returns_rows() {
            self.describe_rows(&text);
        } else {
            put(&mut self.buffered, b'n', &[]);
        }
        Ok(())
    }

    /// One column that has the text's name: so each text's rows have a type of their own.
    fn describe_rows(&mut self, text: &str) {
        put(&mut self.buffered, b'T', &[b"\0\x01", text.as_bytes(), b"\0", &[0; 18]]);
    }

    fn execute_portal(&mut self, body: &[u8]) -> Result<(), PgError> {
        let (name, rest) = text_of(body);
        let rows_max = rest.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
        let (text, value, mut rows_sent, done) =
            (portal.text.clone(), portal.value.clone(), portal.rows_sent, portal.done);
        let sql = understand(&text);
        self.start();
        if sql == Sql::Empty {
            put(&mut self.buffered, b'I', &[]);
            return Ok(());
        }
        self.check_transaction(&sql)?;
        if done && !sql.returns_rows() {
            return Err(PgError("55000", format!("portal \"{name}\" cannot be run")));
        }
        if matches!(sql, Sql::CopyIn | Sql::CopyInFails) {
            if let Some(portal) = self.portals.get_mut(name) {
                portal.done = true;
            }
            return self.begin_copy_in(&sql, None);
        }
        let done = self.run(&text, &value, &mut rows_sent, rows_max)?;
        if let Some(portal) = self.portals.get_mut(name) {
            (portal.rows_sent, portal.done) = (rows_sent, done);
        }
        Ok(())
    }

    fn close(&mut self, body: &[u8]) -> Result<(), PgError> {
        let (kind, name) = body.split_first().expect("a kind");
        match (kind, text_of(name).0) {
            (b'S', "") => self.unnamed = None,
            (b'S', name) => drop(self.prepared.remove(name)),
            (_, name) => drop(self.portals.remove(name)),
        }
        put(&mut self.buffered, b'3', &[]);
        Ok(())
    }

    fn function(&mut self, body: &[u8]) -> Result<(), PgError> {
        self.start();
        self.check_transaction(&Sql::Insert)?;
        if body == b"fail" {
            return Err(PgError("22000", "a function failed".to_owned()));
        }
        put(&mut self.buffered, b'V', &[body]);
        self.finish();
        self.ready();
        Ok(())
    }

    /// Runs a statement. Returns whether it ran to its end.
    fn run(&mut self, text: &str, value: &str, sent: &mut u32, rows_max: u32) -> Result<bool, PgError> {
        let tag = match understand(text) {
            Sql::Rows(rows) => {
                let end = if rows_max == 0 { rows } else { rows.min(*sent + rows_max) };
                (*sent..end).for_each(|_| self.echo(text, value));
                let count = end - *sent;
                *sent = end;
                if rows_max != 0 && count == rows_max {
                    put(&mut self.buffered, b's', &[]);
                    return Ok(false);
                }
                format!("SELECT {count}")
            }
            Sql::Big(bytes) => {
                let value = "b".repeat(bytes);
                self.echo(text, &value);
                "SELECT 1".to_owned()
            }
            Sql::Execute(name) => {
                let text = self.statement(&name)?.clone();
                self.echo(&text, value);
                "SELECT 1".to_owned()
            }
            Sql::SetConfig(name, value) => {
                self.variables.set(&name, &value);
                self.echo(text, "");
                "SELECT 1".to_owned()
            }
            Sql::AskSettings(_) | Sql::AskAllSettings | Sql::AskPins => {
                let by_sql = self.prepared_by_sql.iter().any(|name| self.prepared.contains_key(name));
                let rows = asked::rows(&understand(text), &self.variables, self.holds_cursor || by_sql);
                rows.iter().for_each(|row| put(&mut self.buffered, b'D', &[row]));
                format!("SELECT {}", rows.len())
            }
            sql => self.command(sql, text)?,
        };
        put(&mut self.buffered, b'C', &[tag.as_bytes(), b"\0"]);
        if self.nature.reports_at_once {
            self.report();
        }
        Ok(true)
    }

    /// A statement that returns no rows. Returns its command tag.
    fn command(&mut self, sql: Sql, text: &str) -> Result<String, PgError> {
        let tag = match sql {
            Sql::Begin => {
                self.tx = Tx::Block;
                "BEGIN"
            }
            Sql::Commit if self.tx == Tx::Block => {
                self.end_transaction();
                "COMMIT"
            }
            Sql::Commit if self.tx == Tx::Implicit => "COMMIT",
            Sql::Commit | Sql::Rollback => {
                if let Some(before) = self.before.take() {
                    self.variables = before;
                }
                self.end_transaction();
                "ROLLBACK"
            }
            Sql::Set(name, value) => {
                self.variables.set(&name, &value);
                "SET"
            }
            Sql::SetLocal(name, value) => {
                self.variables.set_local(&name, &value);
                "SET"
            }
            Sql::Reset(name) => {
                self.variables.reset(&name);
                "RESET"
            }
            Sql::ResetAll => {
                self.variables.reset_all();
                "RESET"
            }
            Sql::DiscardAll if self.tx == Tx::Block => return Err(in_block("DISCARD ALL")),
            Sql::DiscardAll => {
                self.prepared.clear();
                self.prepared_by_sql.clear();
                self.holds_cursor = false;
                self.portals.clear();
                self.variables.reset_all();
                "DISCARD ALL"
            }
            Sql::DiscardSequences => "DISCARD SEQUENCES",
            Sql::DeallocateAll => {
                self.prepared.clear();
                "DEALLOCATE ALL"
            }
            Sql::Deallocate(name) => {
                self.statement(&name)?;
                self.prepared.remove(&name);
                "DEALLOCATE"
            }
            Sql::Prepare(name, text) => {
                self.store(&name, &text)?;
                self.prepared_by_sql.insert(name);
                "PREPARE"
            }
            Sql::Insert => "INSERT 0 1",
            Sql::Declare => {
                // It holds even if the transaction fails: one doubt more.
                self.holds_cursor = true;
                "DECLARE CURSOR"
            }
            Sql::CopyOut => {
                self.copy_out(text);
                "COPY 2"
            }
            Sql::Fails => return Err(PgError("22012", "division by zero".to_owned())),
            sql => panic!("the model cannot run {sql:?} here"),
        };
        Ok(tag.to_owned())
    }

    fn echo(&mut self, text: &str, value: &str) {
        let settings = self.variables.echo();
        let parts = [text.as_bytes(), b"\0", value.as_bytes(), b"\0", settings.as_bytes(), b"\0"];
        put(&mut self.buffered, b'D', &parts);
    }
}

/// The text before a NUL, and what follows it.
pub(super) fn text_of(bytes: &[u8]) -> (&str, &[u8]) {
    let (text, rest) = tenantry::wire::frame::split_cstr(bytes).expect("a text with its end");
    (std::str::from_utf8(text).expect("text"), rest)
}

fn syntax_error(text: &str) -> PgError {
    PgError("42601", format!("syntax error in {text}"))
}

fn in_block(what: &str) -> PgError {
    PgError("25001", format!("{what} cannot run inside a transaction block"))
}

fn no_portal(name: &str) -> PgError {
    PgError("34000", format!("portal \"{name}\" does not exist"))
}
