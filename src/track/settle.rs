//! What the server is asked before a lease ends: the values of settings that a client may have changed, and whether what
//! it left behind keeps it there.
//!
//! Owns those questions and what follows from the answers. The text of a statement says which settings it may change;
//! what came of it (it failed, was rolled back, was one of many) only the server knows. So it is asked, behind the client's
//! own answer: once per transaction that may have changed something, never for others.
//!
//! | question | when | what follows |
//! |---|---|---|
//! | [`Expect::AskSettings`] | settings were named | they follow the client from here on |
//! | [`Expect::AskAllSettings`] | nobody knows which, or the first question failed | the same |
//! | [`Expect::AskMade`] | texts were run that nobody has read | functions are asked for again, if there are new ones |
//! | [`Expect::AskPins`] | something that works only there may have come or gone | the client stays, or may go |

use std::collections::BTreeSet;
use std::rc::Rc;

use super::answers::{Row, bytes, hex_of, row, text_of};
use super::exchange::Exchange;
use super::expect::Expect;
use super::forbid::allows_path;
use super::functions::{take_functions, take_made, take_newest, take_reach};
use super::hearing::Channel;
use super::lexer::{Changes, Names, StateKind};
use super::params::{self, Extras, is_settable_reported};
use super::reading::{DECIDING, ENCODING};
use super::state::{ClientState, ServerState, TxStatus};
use crate::wire::frame;
use crate::wire::messages::parse_error_fields;

/// What a question that is being asked is about, and the rows that have come.
#[derive(Debug, Default)]
pub(super) struct Asked {
    names: Vec<Box<str>>,
    rows: Vec<Row>,
    /// What the rows take.
    bytes: usize,
}

impl ServerState {
    /// Takes note of what a text does to settings. Those that Postgres reports need no question.
    pub(super) fn touch(&mut self, changes: &Changes, client: &ClientState) {
        self.reads_otherwise |= changes.touched.has_any_of(&DECIDING) || changes.reset == Names::Any;
        self.reencodes |= changes.touched.has_any_of(&ENCODING) || changes.reset == Names::Any;
        match &changes.touched {
            Names::None => {}
            Names::Any => self.touch_any(),
            Names::These(names) => {
                let silent = names.iter().filter(|name| !self.reports(name)).cloned().collect();
                self.touch_these(silent);
            }
        }
        if changes.reset == Names::Any && self.asking {
            // What the client has is about to be told.
            self.touch_any();
        } else if changes.reset == Names::Any {
            let known = client.settings.extras.iter().chain(client.startup.iter()).map(|(name, _)| name);
            let known = known.chain(&self.too_long);
            let silent = known.filter(|name| !self.reports(name)).cloned().collect();
            self.touch_these(silent);
        }
    }

    /// All settings are asked for; those among them that are in no view go on being asked for by name.
    fn touch_any(&mut self) {
        if let Names::These(names) = std::mem::replace(&mut self.touched, Names::Any) {
            self.may_set(&names.into_iter().filter(|name| is_custom(name)).collect());
        }
    }

    fn touch_these(&mut self, names: BTreeSet<Box<str>>) {
        if self.touched == Names::Any {
            self.may_set(&names.into_iter().filter(|name| is_custom(name)).collect());
        } else {
            self.touched.add(names);
        }
    }

    /// What it has is not the client's, and ends with it.
    pub(super) const fn stray(&mut self) {
        self.condemned = true;
        self.strayed = true;
    }

    /// All settings go back, but custom ones that the client has had stay known.
    pub(super) fn touch_custom(&mut self, client: &ClientState) {
        let custom = client.settings.extras.iter().map(|(name, _)| name).filter(|name| is_custom(name));
        self.touch_these(custom.cloned().collect());
    }

    fn reports(&self, name: &str) -> bool {
        is_settable_reported(name) && self.settings.params.value(name).is_some()
    }

    /// Whether what it has is not known: it may differ from what its client's settings say.
    #[must_use]
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.left_behind.is_some() || self.is_asked()
    }

    /// Whether a question is outstanding or due.
    pub(super) const fn is_asked(&self) -> bool {
        self.asking || self.is_unsettled()
    }

    /// Whether it has to be asked something before its lease ends.
    #[must_use]
    pub const fn is_unsettled(&self) -> bool {
        let may_be_new = self.may_have_made.is_some() || self.others_made.is_some();
        !self.touched.is_none() || self.doubted || self.blind || may_be_new
    }
}

impl Exchange {
    /// Appends, when everything is answered and no transaction is open, what the proxy has to say to the server by itself:
    /// what a failed reset calls for, and the questions that are due.
    pub fn settle(&mut self, client: &ClientState, server: &mut ServerState, out: &mut Vec<u8>) {
        if !self.is_answered() || server.status != TxStatus::Idle {
            return;
        }
        if server.suspect {
            // It may not even hear the questions, and is closed.
            server.lost_settings |= !server.touched.is_none();
            (server.touched, server.doubted, self.repair_due) = (Names::None, false, false);
            (server.blind, server.others_made) = (false, None);
            // Nobody will ask it what it has made.
            if server.may_have_made.take().is_some() {
                server.makes_functions = true;
            }
            return;
        }
        self.put_repair(client, server, out);
        if !server.is_unsettled() {
            return;
        }
        self.settle_functions(client, server, out);
        match std::mem::take(&mut server.touched) {
            Names::None => {}
            Names::These(names) if names.len() <= MAX_NAMES => {
                let names = in_order(names);
                let sql = settings_query(&names);
                self.ask(server, (Expect::AskSettings, &sql), names, out);
            }
            Names::These(names) => {
                server.may_set(&names.into_iter().filter(|name| is_custom(name)).collect());
                self.ask_all(client, server, out);
            }
            Names::Any => self.ask_all(client, server, out),
        }
        if std::mem::take(&mut server.doubted) {
            server.can_pass = self.may_pass(client);
            self.ask(server, (Expect::AskPins, PINS_QUERY), Vec::new(), out);
        }
        // A simple query destroys the unnamed statement.
        server.unnamed_of = None;
    }

    fn ask_all(&mut self, client: &ClientState, server: &mut ServerState, out: &mut Vec<u8>) {
        // Those with a class may be in no view.
        let custom = client.settings.extras.iter().filter(|(name, _)| is_custom(name));
        let mut custom: Vec<Box<str>> = custom.map(|(name, _)| name.clone()).collect();
        custom.append(&mut server.may_have);
        custom.extend(server.too_long.iter().filter(|name| is_custom(name)).cloned());
        custom.sort();
        custom.dedup();
        let sql = all_settings_query(&custom);
        self.ask(server, (Expect::AskAllSettings, &sql), custom, out);
    }

    pub(super) fn ask(
        &mut self,
        server: &mut ServerState,
        (question, sql): (Expect, &str),
        names: Vec<Box<str>>,
        out: &mut Vec<u8>,
    ) {
        frame::put(out, b'Q', |body| {
            body.extend_from_slice(sql.as_bytes());
            body.push(0);
        });
        self.expect.push(question);
        self.asked.push_back(Asked { names, ..Asked::default() });
        server.asking = true;
    }

    /// A row of the answer to the oldest question.
    pub(super) fn take_row(&mut self, body: &[u8]) {
        if let Some(asked) = self.asked.front_mut()
            && let Some(row) = row(body)
        {
            asked.bytes = asked.bytes.saturating_add(body.len()).saturating_add(size_of::<Row>());
            if asked.bytes <= MAX_ANSWER_BYTES {
                asked.rows.push(row);
            }
        }
    }

    /// The oldest question has been answered, if not by this error.
    pub(super) fn take_answer(
        &mut self,
        question: Expect,
        error: Option<&[u8]>,
        (client, server): (&mut ClientState, &mut ServerState),
    ) {
        let asked = self.asked.pop_front().unwrap_or_default();
        server.asking = !self.asked.is_empty();
        if error.is_some_and(is_cancel) && self.asked_in_vain < MAX_ASKED_IN_VAIN {
            self.asked_in_vain = self.asked_in_vain.saturating_add(1);
            return ask_again(question, asked, server);
        }
        self.asked_in_vain = 0;
        let failed = error.is_some() || asked.bytes > MAX_ANSWER_BYTES;
        match question {
            Expect::AskSettings if failed => {
                server.touch_any();
                server.may_set(&asked.names.into_iter().filter(|name| is_custom(name)).collect());
            }
            // It may be this server's or this moment's fault. Who may not read the catalog will never know.
            Expect::AskNewest | Expect::AskFunctions | Expect::AskReach
                if error.is_some_and(|error| !is_forbidden(error)) =>
            {
                client.functions.are_not_told(client, server);
            }
            Expect::AskNewest => take_newest((!failed).then_some(asked.rows.as_slice()), client, server),
            Expect::AskFunctions => {
                take_functions((!failed).then_some(asked.rows), client, server);
            }
            Expect::AskReach => take_reach((!failed).then_some(asked.rows), client, server),
            Expect::AskMade => take_made((!failed).then_some(asked.rows.as_slice()), client, server),
            // Nobody can tell what it has: it is closed.
            _ if failed => (server.suspect, server.lost_settings) = (true, true),
            Expect::AskSettings => take_settings(&asked, client, server),
            Expect::AskAllSettings => take_all_settings(asked.rows, client, server),
            // What the client has said since is asked about anew; this answer is older.
            _ if server.doubted || self.expect.asks_for_pins() => {}
            _ => {
                take_pins(asked.rows.first(), server);
                if let Some(hearing) = &mut client.hearing {
                    hearing.told(&server.listened);
                }
            }
        }
        let is_awaited = server.is_asked() || self.unsynced || self.expect.requests() > 0;
        server.reads_otherwise &= server.status != TxStatus::Idle || is_awaited;
        server.reencodes &= server.reads_otherwise;
    }
}

/// Whether the client's wish to cancel its own request came too late for that, and hit our question; or a very short
/// `statement_timeout` of the client's did.
fn is_cancel(error: &[u8]) -> bool {
    parse_error_fields(error).code() == Some(b"57014")
}

/// Whether the role lacks a privilege.
fn is_forbidden(error: &[u8]) -> bool {
    parse_error_fields(error).code() == Some(b"42501")
}

fn ask_again(question: Expect, asked: Asked, server: &mut ServerState) {
    match question {
        Expect::AskSettings => server.touch_these(asked.names.into_iter().collect()),
        Expect::AskAllSettings => {
            server.touch_any();
            server.may_set(&asked.names.into_iter().collect());
        }
        Expect::AskNewest | Expect::AskFunctions | Expect::AskReach => server.blind = true,
        Expect::AskMade => server.may_have_made = Some(server.made_behind.take()),
        _ => server.doubted = true,
    }
}

/// Role and session authorization come last: what is done under them may not be allowed.
fn in_order(names: BTreeSet<Box<str>>) -> Vec<Box<str>> {
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by_key(|name| params::rank(name));
    names
}

fn settings_query(names: &[Box<str>]) -> String {
    let mut sql = String::from("SELECT ");
    for (i, name) in names.iter().enumerate() {
        let now = current(name);
        // What it would go back to is found by doing so, until the end of this query.
        let local = format!("pg_catalog.set_config({},NULL,true)", params::literal(name));
        let comma = if i > 0 { "," } else { "" };
        sql.push_str(&format!("{comma}{},CASE WHEN {now} IS NOT NULL THEN {} END", hex(&now), hex(&local)));
    }
    sql
}

fn all_settings_query(custom: &[Box<str>]) -> String {
    let role = current("role");
    let mut sql = format!(
        "SELECT pg_catalog.lower(name),{} FROM pg_catalog.pg_settings \
         WHERE source OPERATOR(pg_catalog.=) 'session' \
         AND coalesce(setting OPERATOR(pg_catalog.<>) reset_val,setting IS NOT NULL OR reset_val IS NOT NULL) \
         UNION ALL SELECT 'role',{} WHERE {role} OPERATOR(pg_catalog.<>) '' \
         AND {role} OPERATOR(pg_catalog.<>) 'none'",
        hex("pg_catalog.current_setting(name)"),
        hex(&role)
    );
    if !custom.is_empty() {
        let names: Vec<_> = custom.iter().map(|name| format!("({})", params::literal(name))).collect();
        let now = "pg_catalog.current_setting(c,true)";
        // Those of extensions are in the view; of them only what the session has set is the client's.
        sql.push_str(&format!(
            " UNION ALL SELECT c,{} FROM (VALUES {}) v(c) WHERE {now} IS NOT NULL \
             AND NOT EXISTS(SELECT FROM pg_catalog.pg_settings WHERE pg_catalog.lower(name) OPERATOR(pg_catalog.=) c)",
            hex(now),
            names.join(",")
        ));
    }
    sql
}

/// Whether a setting has a class. One that no extension has defined comes into being, empty, when a session first names it
/// to set it, and is there until the session ends, whatever RESET or ROLLBACK do.
fn is_custom(name: &str) -> bool {
    name.contains('.')
}

fn current(name: &str) -> String {
    format!("pg_catalog.current_setting({},true)", params::literal(name))
}

/// A setting's value as [`hex_of`] gives it.
fn hex(expression: &str) -> String {
    hex_of(expression, MAX_VALUE_BYTES)
}

/// Operators are named with their schema here and above: a client's search_path may begin with one of its own, with others
/// of the same names in it.
///
/// Whether there is something beside LISTEN that works on this server only (statements prepared by SQL, held cursors,
/// advisory locks, temporary objects), and what it listens to. Outside a transaction none of them ends with one.
const PINS_QUERY: &str = "SELECT EXISTS(SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
     OR EXISTS(SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
     OR EXISTS(SELECT FROM pg_catalog.pg_depend \
     WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid \
     AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
     OR EXISTS(SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
     AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), \
     (SELECT pg_catalog.string_agg(pg_catalog.encode(pg_catalog.convert_to(c,pg_catalog.getdatabaseencoding()),'hex'),',') \
     FROM pg_catalog.pg_listening_channels() c)";

fn take_settings(asked: &Asked, client: &mut ClientState, server: &mut ServerState) {
    let values = asked.rows.first().map(Vec::as_slice).unwrap_or_default();
    let mut extras = Extras::clone(&client.settings.extras);
    for (name, pair) in asked.names.iter().zip(values.chunks_exact(2)) {
        extras.retain(|(known, _)| known != name);
        server.too_long.remove(name);
        let [now, default] = pair else { continue };
        if now.as_deref().is_some_and(|now| has_strayed(name, now, client)) {
            server.stray();
            continue;
        }
        let is_there = is_custom(name) && now.as_deref() == Some(b"");
        if (now != default || is_there)
            && let Some(now) = now
        {
            match carried(name, now) {
                Some(value) => extras.push((name.clone(), value)),
                None => drop(server.too_long.insert(name.clone())),
            }
        }
    }
    adopt(extras, client, server);
}

fn take_all_settings(rows: Vec<Row>, client: &mut ClientState, server: &mut ServerState) {
    let mut extras = Extras::new();
    server.too_long.clear();
    for row in rows {
        let [Some(name), Some(now)] = row.as_slice() else { continue };
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if server.reports(name) {
            continue;
        }
        if has_strayed(name, now, client) {
            server.stray();
            continue;
        }
        match carried(name, now) {
            Some(value) => extras.push((name.into(), value)),
            None => drop(server.too_long.insert(name.into())),
        }
    }
    adopt(extras, client, server);
}

/// Whether a search_path was set, out of our sight, to one that leaves the tenant's schemas.
fn has_strayed(name: &str, hex: &[u8], client: &ClientState) -> bool {
    name == "search_path" && !value(hex).is_some_and(|path| allows_path(client, &path))
}

/// From here on these are the client's settings, and the server has them.
fn adopt(mut extras: Extras, client: &mut ClientState, server: &mut ServerState) {
    extras.sort();
    let bytes: usize = extras.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
    // What is too much to be carried stays where it is, and its client with it.
    let holds_more = bytes > MAX_EXTRAS_BYTES || server.holds_unknown || !server.too_long.is_empty();
    // It may go when nothing else keeps it.
    server.doubted |= std::mem::replace(&mut server.holds_more, holds_more) && !holds_more;
    if *client.settings.extras != extras {
        client.settings.extras = Rc::new(extras);
    }
    server.settings.extras = client.settings.extras.clone();
    server.look_at_path(client);
    if server.holds_more {
        // A value that cannot be carried keeps its client.
        server.pinned = true;
        server.left_behind = server.left_behind.max(Some(StateKind::Settings));
    }
}

fn take_pins(row: Option<&Row>, server: &mut ServerState) {
    let column = |n: usize| row.and_then(|row| row.get(n)).and_then(Option::as_deref);
    let channels = column(1).unwrap_or_default().split(|byte| *byte == b',');
    server.listened = channels.filter_map(bytes).filter(|name| !name.is_empty()).map(Channel::from).collect();
    server.kept_otherwise = column(0) == Some(b"t") || server.holds_more;
    server.pinned = server.kept_otherwise || !server.listened.is_empty();
    if !server.pinned && server.left_behind < Some(StateKind::Unknown) {
        server.left_behind = None;
    }
}

/// The value of a setting that can be given to other servers. One that has had temporary tables does not take
/// `temp_buffers` any more.
fn carried(name: &str, hex: &[u8]) -> Option<Box<str>> {
    value(hex).filter(|_| name != "temp_buffers")
}

/// A setting's value from its hexadecimal digits.
fn value(hex: &[u8]) -> Option<Box<str>> {
    text_of(hex, MAX_VALUE_BYTES)
}

/// Settings asked for by name in one query.
const MAX_NAMES: usize = 50;
/// How often in a row.
const MAX_ASKED_IN_VAIN: u8 = 20;
/// A longer answer counts as a failure.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Settings of one client that are carried, names and values together.
const MAX_EXTRAS_BYTES: usize = 128 * 1024;
/// A longer value is not carried: its client stays where it is.
const MAX_VALUE_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::super::answers::data_row;
    use super::super::fixture::{Talk, messages};
    use super::*;

    #[test]
    fn a_reset_that_overtakes_the_answer_about_a_setting_is_asked_about_as_well() {
        let mut talk = Talk::new(9);
        let set = (b'Q', b"SET work_mem = '8MB'\0".as_slice());
        let reset = (b'Q', b"RESET ALL\0".as_slice());
        let ready = (b'Z', b"I".as_slice());
        talk.say(&messages(&[set]));
        talk.answer(&messages(&[(b'C', b"SET\0"), ready]));
        let ask = |talk: &mut Talk| {
            let mut out = Vec::new();
            talk.exchange.settle(&talk.client, &mut talk.server, &mut out);
            out
        };
        assert!(ask(&mut talk).starts_with(b"Q"));
        talk.say(&messages(&[reset]));
        let row = data_row(&[Some("384d42"), Some("344d42")]);
        talk.answer(&messages(&[(b'T', b""), (b'D', &row), (b'C', b"SELECT 1\0"), ready]));
        assert_eq!(&*talk.client.settings.extras[0].1, "8MB");
        talk.answer(&messages(&[(b'C', b"RESET\0"), ready]));
        assert!(talk.server.is_unsettled());
        assert!(ask(&mut talk).starts_with(b"Q"));
        talk.answer(&messages(&[(b'T', b""), (b'C', b"SELECT 0\0"), ready]));
        assert!(talk.client.settings.extras.is_empty() && !talk.server.is_unsettled());
    }

    #[test]
    fn a_question_that_a_late_cancel_hits_is_asked_again() {
        let mut talk = Talk::new(9);
        let ready = (b'Z', b"I".as_slice());
        talk.say(&messages(&[(b'Q', b"SET work_mem = '8MB'; LISTEN a\0")]));
        talk.answer(&messages(&[(b'C', b"SET\0"), (b'C', b"LISTEN\0"), ready]));
        let cancelled = (b'E', b"SERROR\0C57014\0\0".as_slice());
        for _ in 0..2 {
            let mut out = Vec::new();
            talk.exchange.settle(&talk.client, &mut talk.server, &mut out);
            let asks = |what: &[u8]| memchr::memmem::find(&out, what).is_some();
            assert!(asks(b"work_mem") && asks(b"pg_listening_channels"));
            talk.answer(&messages(&[cancelled, ready, cancelled, ready]));
            assert!(talk.server.is_unsettled() && !talk.server.suspect);
        }
    }

    #[test]
    fn parameters_that_look_like_settings_are_asked_for() {
        let mut talk = Talk::new(9);
        talk.say(&messages(&[(b'P', b"s\0SELECT set_config($1, $2, false)\0\0\0"), (b'S', b"")]));
        talk.answer(&messages(&[(b'1', b""), (b'Z', b"I")]));
        let parameters = b"\0s\0\0\x01\0\0\0\x02\0\0\0\x08My.owner\0\0\0\x03a b\0\0";
        talk.say(&messages(&[(b'B', parameters), (b'E', b"\0\0\0\0\0"), (b'S', b"")]));
        talk.answer(&messages(&[(b'2', b""), (b'C', b"SELECT 1\0"), (b'Z', b"I")]));
        let mut out = Vec::new();
        talk.exchange.settle(&talk.client, &mut talk.server, &mut out);
        let asks = |what: &[u8]| memchr::memmem::find(&out, what).is_some();
        assert!(asks(b"pg_settings") && asks(b"my.owner") && !asks(b"a b"), "{}", out.escape_ascii());
        assert_eq!(talk.server.left_behind, Some(StateKind::Unknown), "another client gets it reset");
    }

    #[test]
    fn a_value_that_cannot_be_carried_is_none() {
        assert_eq!(value(b"354d42").as_deref(), Some("5MB"));
        assert_eq!(value(b"e9"), None, "LATIN1");
        assert_eq!(value("61".repeat(MAX_VALUE_BYTES + 1).as_bytes()), None);
        assert!(value("61".repeat(MAX_VALUE_BYTES).as_bytes()).is_some());
    }
}
