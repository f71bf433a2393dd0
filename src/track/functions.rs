//! Functions of a tenant that leave something behind on the server that runs them, out of our sight.
//!
//! A text that calls `login(5)` does not show that it sets `app.user`. So the catalog is asked, once per tenant and now and
//! then again, which functions there are in its schemas and what their bodies do (`lexer::left_by_body`). Where some set
//! settings for longer than the transaction, or take what keeps a client, the texts that may run functions are treated as
//! if they did that themselves: the server is asked behind the answer (`settle`).
//!
//! Owns what is known of functions, and the question. What it cannot see: functions in schemas outside the search_path,
//! and those that a view, an operator or a column's default calls.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use super::answers::{Row, hex_of, text_of};
use super::exchange::{ClientState, Exchange, ServerState};
use super::expect::Expect;
use super::lexer::{self, Left, Names, StateKind};
use super::params;
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
    is_known: Cell<bool>,
    hidden: RefCell<Option<Rc<Hidden>>>,
}

/// Functions that leave something behind.
#[derive(Debug)]
struct Hidden {
    left: Left,
    /// The names of all functions: those that leave nothing may call those that do. `None`: nobody knows.
    names: Option<BTreeSet<Box<[u8]>>>,
    has_triggers: bool,
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
    /// Takes note of what the functions of a text may do.
    pub(super) fn look_for_functions(&mut self, text: &[u8]) {
        if self.client.functions.is_watched && lexer::makes_functions(text) {
            self.client.functions.forget();
            self.server.blind = true;
        }
        if let Some(hidden) = self.client.functions.hidden()
            && hidden.may_run(text)
        {
            hidden.leave_behind(self.client, self.server);
        }
    }

    /// The same for the unnamed statement, which is bound now.
    pub(super) fn look_for_functions_of_unnamed(&mut self) {
        if let Some(hidden) = self.client.functions.hidden()
            && self.client.unnamed_is_loud
        {
            hidden.leave_behind(self.client, self.server);
        }
    }

    /// Whether a text runs functions that leave something behind.
    pub(super) fn is_loud(&self, text: &[u8]) -> bool {
        self.client.functions.hidden().is_some_and(|hidden| hidden.may_run(text))
    }
}

impl Hidden {
    fn may_run(&self, text: &[u8]) -> bool {
        let is_one = |name: &[u8]| self.names.as_ref().is_none_or(|names| names.contains(name));
        lexer::may_run(text, self.has_triggers, is_one)
    }

    fn leave_behind(&self, client: &ClientState, server: &mut ServerState) {
        server.touch_names(&self.left.settings, client);
        if self.left.settings == Names::Any {
            // Settings with a class are in no view: what they are is never known, and nobody else may get them.
            server.left_behind = Some(StateKind::Unknown);
        }
        server.doubted |= self.left.pins;
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
        if !std::mem::take(&mut server.blind) {
            return;
        }
        if client.functions.are_unknown() {
            let sql = question(client);
            self.ask(server, (Expect::AskFunctions, &sql), Vec::new(), out);
        } else if let Some(hidden) = client.functions.hidden() {
            hidden.leave_behind(client, server);
        }
    }
}

/// The rows of the answer: name, whether it is a trigger's, whether its language is SQL or PL/pgSQL, its body if that says
/// anything suspicious; `None` if the question has failed.
pub(super) fn take_functions(rows: Option<Vec<Row>>, client: &ClientState, server: &mut ServerState) {
    let found = match rows {
        Some(rows) => hidden_among(&rows),
        // In doubt every function may do anything.
        None => Some(Hidden { left: Left::anything(), names: None, has_triggers: true }),
    };
    let functions = &client.functions;
    *functions.hidden.borrow_mut() = found.map(Rc::new);
    functions.is_known.set(true);
    if let Some(hidden) = functions.hidden() {
        hidden.leave_behind(client, server);
    }
}

fn hidden_among(rows: &[Row]) -> Option<Hidden> {
    let (mut left, mut names, mut has_triggers) = (Left::default(), BTreeSet::new(), false);
    for row in rows {
        let [name, is_trigger, is_sql, body] = row.as_slice() else { continue };
        let is_sql = is_sql.as_deref() == Some(b"t");
        if let Some(name) = name.as_deref().and_then(|name| text_of(name, MAX_BODY_BYTES)) {
            names.insert(name.into_boxed_bytes());
        }
        has_triggers |= is_trigger.as_deref() == Some(b"t");
        match body.as_deref().map(|body| text_of(body, MAX_BODY_BYTES)) {
            None => {}
            Some(Some(body)) if is_sql => left.merge(&lexer::left_by_body(body.as_bytes())),
            Some(_) => left = Left::anything(),
        }
    }
    // What is reported needs no question, and the rest does not outlive its own.
    (!left.is_nothing()).then_some(Hidden { left, names: Some(names), has_triggers })
}

fn question(client: &ClientState) -> String {
    let schemas = match &client.bounds.schemas {
        Some(schemas) => {
            let names: Vec<String> = schemas.iter().map(|schema| params::literal(schema)).collect();
            format!("ARRAY[{}]::pg_catalog.name[]", names.join(","))
        }
        None => "pg_catalog.current_schemas(false)".to_owned(),
    };
    // By what depends on the schemas: pg_proc has no index that finds a schema's functions.
    format!(
        "SELECT DISTINCT {name},p.prorettype='pg_catalog.trigger'::pg_catalog.regtype,\
         l.lanname IN ('sql','plpgsql'),\
         CASE WHEN s.body OPERATOR(pg_catalog.~*) '{SUSPICIOUS}' THEN {body} END \
         FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_depend d \
         ON d.refclassid='pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid=n.oid \
         AND d.classid='pg_catalog.pg_proc'::pg_catalog.regclass \
         JOIN pg_catalog.pg_proc p ON p.oid=d.objid JOIN pg_catalog.pg_language l ON l.oid=p.prolang \
         CROSS JOIN LATERAL (SELECT CASE WHEN p.prosqlbody IS NULL THEN p.prosrc \
         ELSE pg_catalog.pg_get_function_sqlbody(p.oid) END AS body) s \
         WHERE n.nspname=ANY({schemas}) AND l.lanname NOT IN ('internal','c')",
        name = hex_of("p.proname::pg_catalog.text", MAX_BODY_BYTES),
        body = hex_of("s.body", MAX_BODY_BYTES),
    )
}

/// A longer body may do anything.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// What a body says that leaves something behind; less is sent then.
const SUSPICIOUS: &str = "set_config|advisory_lock|\\m(set|reset|discard|listen|temp|temporary)\\M";

impl ServerState {
    /// Settings of these names may have changed.
    fn touch_names(&mut self, names: &Names, client: &ClientState) {
        let changes = lexer::Changes { touched: names.clone(), reset: Names::None };
        self.touch(&changes, client);
    }
}
