//! One session's conversation with one server: what was asked, what is still to come.
//!
//! Owns the state that both directions share. `upstream` and `downstream` move it; this file creates it, asks it and
//! prepares a server for the next client.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use super::expect::{Expect, Expectations, OwnAnswer};
use super::forbid::{Bounds, PinsLeft};
use super::functions::Functions;
use super::heal::Retry;
use super::hearing::{Channels, Hearing};
use super::lexer::{ChannelStep, Names, StateKind, Traces};
use super::notes::Note;
use super::params::{Extras, Settings};
use super::prepared::ServerStatements;
use super::rows::{Bound, Learning};
use super::settle::Asked;
use super::statement::ClientStatements;
use super::unread::Unread;
use crate::ids::ClientId;
use crate::wire::frame;

/// The transaction status of a server, from its last ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction.
    InTransaction,
    /// `E`: in a failed transaction.
    Failed,
}

impl TxStatus {
    /// The status of that byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The byte of the status.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// What must be remembered of a server between its clients.
#[derive(Debug)]
pub struct ServerState {
    /// Its settings now.
    pub settings: Settings,
    /// What it has prepared.
    pub statements: ServerStatements,
    /// Its transaction status.
    pub status: TxStatus,
    /// The client whose leftovers it may hold: that client needs no reset.
    pub last_client: Option<ClientId>,
    /// Something that outlives a transaction was left behind by `last_client`.
    pub left_behind: Option<StateKind>,
    /// What was left behind works only here (LISTEN, temp tables, held cursors, session advisory locks, SQL-level
    /// PREPARE): the server stays with its client until that ends, or says DISCARD ALL.
    pub pinned: bool,
    /// Something else than LISTEN was found there that keeps the client.
    pub kept_otherwise: bool,
    /// The channels it was found to listen to.
    pub listened: Channels,
    /// Its client need not keep it to go on listening: the tenant's listener can do that.
    pub can_pass: bool,
    /// Settings whose values have to be asked for before the lease ends.
    pub touched: Names,
    /// Settings with a class that may have been set, though no text says so.
    pub(super) may_have: Vec<Box<str>>,
    /// What keeps the client here may have come or gone: that has to be asked for before the lease ends.
    pub doubted: bool,
    /// It ran texts before anything was known of the functions in them.
    pub blind: bool,
    /// A text that it ran may have made functions: what is known of them is not what will be there when it commits.
    pub makes_functions: bool,
    /// How often the tenant's functions had changed when it was asked for them.
    pub(super) asked_behind: u32,
    /// Questions that it has been asked are not answered yet.
    pub asking: bool,
    /// Its search_path was found outside the tenant's schemas.
    pub strayed: bool,
    /// Its client has drawn from a sequence since it got the server.
    pub has_drawn: bool,
    /// The client's last request may have drawn from a sequence, outside a transaction: what it was given may be asked next.
    pub may_ask: bool,
    /// Counts the requests of that kind.
    pub draws: u32,
    /// What its sequences gave last may have been given to another client than the last one.
    pub sequences_mixed: bool,
    /// Settings that decide what a text means may be others than the client's are known to be: a text that changes them is
    /// on its way, or has changed them for a transaction that goes on.
    pub(super) reads_otherwise: bool,
    /// What its client makes without saying where is temporary: its search_path begins with pg_temp.
    pub(super) makes_temp: bool,
    /// How often its last client had drawn when it drew here last.
    pub(super) drawn: u32,
    /// What a client set on it is not known, and never will be.
    pub lost_settings: bool,
    /// It has settings that cannot be carried to another server.
    pub holds_more: bool,
    /// Those of them whose values are too long, or are no text.
    pub(super) too_long: BTreeSet<Box<str>>,
    /// It may have custom settings that nobody knows the names of: they are too many.
    pub(super) holds_unknown: bool,
    /// Whose unnamed statement it holds; `None` if it is nobody's, or none.
    pub unnamed_of: Option<Unnamed>,
    /// Its reported settings changed during this lease.
    pub settings_changed: bool,
    /// It has what nobody else may get: it is closed at the end of the lease.
    pub condemned: bool,
    /// The order of answers can no longer be trusted: it is closed at the end of the lease.
    pub suspect: bool,
}

impl ServerState {
    /// The state of a server that has just logged in.
    #[must_use]
    pub fn new(settings: Settings, max_statements: usize) -> Self {
        Self {
            settings,
            statements: ServerStatements::new(max_statements),
            status: TxStatus::Idle,
            last_client: None,
            left_behind: None,
            pinned: false,
            kept_otherwise: false,
            listened: Channels::new(),
            can_pass: false,
            touched: Names::None,
            may_have: Vec::new(),
            doubted: false,
            blind: false,
            makes_functions: false,
            asked_behind: 0,
            asking: false,
            lost_settings: false,
            strayed: false,
            has_drawn: false,
            may_ask: false,
            draws: 0,
            sequences_mixed: false,
            reads_otherwise: false,
            makes_temp: false,
            drawn: 0,
            holds_more: false,
            too_long: BTreeSet::new(),
            holds_unknown: false,
            unnamed_of: None,
            settings_changed: false,
            condemned: false,
            suspect: false,
        }
    }
}

impl ServerState {
    /// The client may have drawn from a sequence.
    pub(super) const fn is_drawn_by(&mut self, client: &mut ClientState) {
        client.draws = client.draws.wrapping_add(1);
        self.drawn = client.draws;
    }

    /// What a sequence gave the client now may be asked next.
    pub(super) const fn has_given(&mut self) {
        self.may_ask = true;
        self.draws = self.draws.wrapping_add(1);
    }

    /// Its client's settings may have changed.
    pub(super) fn look_at_path(&mut self, client: &ClientState) {
        self.makes_temp = client.settings.make_temp();
        // It may have made something since.
        self.doubted |= self.makes_temp;
    }

    /// What it has that could not be carried is gone.
    pub(super) fn forget_held(&mut self) {
        (self.holds_more, self.holds_unknown) = (false, false);
        self.too_long.clear();
    }

    /// The same with names of prepared statements that only who knows `mark` can name.
    #[must_use]
    pub fn marked(mut self, mark: u64) -> Self {
        self.statements = self.statements.marked(mark);
        self
    }
}

/// One of the unnamed statements of a client: each change of the unnamed statement makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unnamed {
    client: ClientId,
    version: u32,
}

/// What must be remembered of a client between its servers.
#[derive(Debug)]
pub struct ClientState {
    /// Which client.
    pub id: ClientId,
    /// The settings it believes in.
    pub settings: Settings,
    /// Those of them that it asked for at startup: RESET goes back to them.
    pub startup: Rc<Extras>,
    /// What it may not do.
    pub bounds: Rc<Bounds>,
    /// What is known of the functions of its tenant.
    pub functions: Rc<Functions>,
    /// Its named statements.
    pub statements: ClientStatements,
    /// What it hears through its tenant's listener, once it does.
    pub hearing: Option<Box<Hearing>>,
    /// The unnamed statement (a Parse body behind its name), if it was prepared but not bound at once.
    ///
    /// Boxed twice: most clients have none, and there are many clients.
    pub(super) unnamed: Option<Box<Box<[u8]>>>,
    /// Counts the changes of the unnamed statement.
    pub(super) unnamed_version: u32,
    /// What running the unnamed statement leaves behind, for as often as it is bound.
    pub(super) unnamed_leaves: Option<Rc<Traces>>,
    /// The unnamed statement may run functions that leave something behind.
    pub(super) unnamed_is_loud: bool,
    /// Whether it may change settings that decide what texts mean.
    pub(super) unnamed_decides: bool,
    /// How often it has drawn from sequences, near enough.
    pub(super) draws: u32,
    /// How many names it may have.
    pub max_statements: u32,
}

impl ClientState {
    /// A client that has prepared nothing yet.
    #[must_use]
    pub fn new(id: ClientId, settings: Settings, max_statements: usize) -> Self {
        Self {
            id,
            settings,
            startup: Rc::default(),
            bounds: Rc::default(),
            functions: Rc::default(),
            statements: ClientStatements::default(),
            hearing: None,
            unnamed: None,
            unnamed_version: 0,
            unnamed_leaves: None,
            unnamed_is_loud: false,
            unnamed_decides: false,
            draws: 0,
            max_statements: u32::try_from(max_statements).unwrap_or(u32::MAX),
        }
    }

    /// A client that says nothing: for conversations that are the proxy's own.
    #[must_use]
    pub fn nobody(id: ClientId) -> Self {
        Self::new(id, Settings::default(), 0)
    }

    /// The unnamed statement that it has now.
    pub(super) const fn unnamed_now(&self) -> Unnamed {
        Unnamed { client: self.id, version: self.unnamed_version }
    }
}

/// A conversation. Made once and used again for every lease.
#[derive(Debug, Default)]
pub struct Exchange {
    pub(super) expect: Expectations,
    /// What the expected messages changed when they were sent, in order.
    pub(super) notes: VecDeque<Note>,
    /// How many of the newest belong to the segment that is being sent.
    pub(super) notes_here: usize,
    /// What the notes keep.
    noted_bytes: usize,
    /// Bytes of a client message that have not come yet; its beginning has been forwarded.
    pub(super) client_rest: usize,
    /// They are thrown away.
    pub(super) drops_rest: bool,
    /// This segment may make the server forget any statement, in a way that cannot be foretold.
    pub(super) forgets_here: bool,
    /// An earlier one may, and is not answered.
    pub(super) forgets_earlier: bool,
    /// How many more clients of the tenant may keep their servers; `None`: any number.
    pub pins_left: Option<PinsLeft>,
    /// Why a message was refused that nobody has asked about yet.
    pub(super) refused: Option<&'static str>,
    /// Bytes of a server message that have not come yet; its beginning has been forwarded.
    pub(super) server_rest: usize,
    /// What the message is whose rest has not come, if it is looked through as it comes.
    pub(super) unread: Option<Box<Unread>>,
    /// An extended-protocol message was sent behind the last Sync.
    pub(super) unsynced: bool,
    /// A Flush of ours was sent behind the last of them.
    pub(super) flushed: bool,
    /// Number of the segment: what is sent up to the next Sync shares its fate in case of an error.
    pub(super) segment: u64,
    /// This segment prepares the unnamed statement.
    pub(super) unnamed_here: bool,
    /// An error was answered: the server ignores everything up to the next Sync.
    pub(super) ignoring: bool,
    /// The server reads COPY data.
    pub(super) copy_in: bool,
    /// A Sync was sent that the server ignores while it reads COPY data. If the COPY fails, it may not have read it yet.
    pub(super) copy_syncs: bool,
    /// The newest thing the server said was an error: if it goes now, it has said why.
    pub(super) last_was_error: bool,
    /// Settings that this segment sends back to their defaults.
    pub(super) reset_here: Names,
    /// The request that is being answered has failed.
    pub(super) request_failed: bool,
    /// A failed request was followed by a query of ours that gave the client its startup settings: those it had are due.
    pub(super) repair_due: bool,
    /// The request that may be made once more.
    pub(super) retry: Retry,
    /// What our questions are about.
    pub(super) asked: VecDeque<Asked>,
    /// How many questions in a row were cancelled.
    pub(super) asked_in_vain: u8,
    /// What the descriptions that are to be remembered are of, in order.
    pub(super) learning: VecDeque<Learning>,
    /// The unnamed portal has been bound, behind the last simple query.
    pub(super) has_portal: bool,
    /// What the newest Bind of this segment has bound, if it was a named statement.
    pub(super) bound: Option<Bound>,
    /// Requests of the client that have been answered.
    pub(super) requests_answered: usize,
    /// LISTENs and UNLISTENs that are not committed, each with the number of its request.
    pub(super) channel_steps: Vec<(usize, ChannelStep)>,
    /// The numbers of requests that may notify.
    pub(super) notifying: Vec<usize>,
    /// A query of our own failed: the error's body.
    pub(super) own_error: Option<Box<[u8]>>,
    /// Why a statement could not be prepared that the next simple query names.
    pub(super) not_prepared: Option<Box<[u8]>>,
    /// The name that the next simple query gives by PREPARE, if it came by Parse before.
    pub(super) taken: Option<Box<[u8]>>,
}

impl Exchange {
    /// Whether the server has answered everything, to the end of the transaction, and no message is half sent.
    #[must_use]
    pub fn is_over(&self, server: &ServerState) -> bool {
        self.is_quiet() && server.status == TxStatus::Idle
    }

    /// Whether the server owes nothing, though it may be inside a transaction.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.is_answered() && !self.repair_due
    }

    /// The same, but something of the proxy's own may be due.
    pub(super) fn is_answered(&self) -> bool {
        self.expect.is_empty()
            && !self.unsynced
            && !self.ignoring
            && !self.copy_in
            && self.client_rest == 0
            && self.server_rest == 0
            && !self.retry.is_due()
    }

    /// Whether the server owes answers to the proxy's own questions, and none to the client.
    #[must_use]
    pub fn owes_only_itself(&self) -> bool {
        let is_between = !self.unsynced && !self.ignoring && !self.copy_in && self.client_rest == 0;
        is_between && !self.expect.is_empty() && self.expect.has_only_own()
    }

    /// Answers still to come.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.expect.len()
    }

    /// Whether the client is not to be read until more answers have come. In the middle of a message it is: the server
    /// waits for the rest.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let is_long = self.expect.len() >= MAX_OUTSTANDING || self.noted_bytes >= MAX_NOTED_BYTES;
        is_long && self.client_rest == 0 || self.retry.is_due() && !self.expect.is_empty()
    }

    /// Whether a client that says nothing more has all it can get, or nobody can tell what is still to come.
    #[must_use]
    pub fn is_exhausted(&self, server: &ServerState) -> bool {
        self.expect.is_empty() || self.copy_in || server.suspect
    }

    /// Whether a server message has been forwarded in part: an error of ours cannot be put behind it.
    #[must_use]
    pub const fn server_is_mid_message(&self) -> bool {
        self.server_rest > 0
    }

    /// A lease begins: appends to `out` what makes the server this client's (nothing, for the usual case).
    /// Returns whether the server has to be reset for it.
    pub fn begin(&mut self, client: &ClientState, server: &mut ServerState, out: &mut Vec<u8>) -> bool {
        debug_assert!(self.is_quiet(), "a conversation begins with nothing outstanding");
        let same_client = server.last_client == Some(client.id);
        // What was not asked for when the last lease ended is not known.
        let reset = server.is_in_doubt() && !same_client;
        if reset {
            self.reset(server, out);
        } else if server.last_client.is_some() && (!same_client || server.drawn != client.draws) {
            // Another client's, or its own from before it drew on another server.
            server.sequences_mixed = true;
            // Functions may ask, as long as they are not known.
            if client.functions.reads_sequences.get() || client.functions.are_unknown() {
                self.discard_sequences(server, out);
            }
        }
        server.last_client = Some(client.id);
        server.drawn = client.draws;
        (server.has_drawn, server.may_ask) = (false, false);
        server.reads_otherwise = false;
        if std::mem::take(&mut server.makes_functions) {
            client.functions.forget();
        }
        server.blind = client.functions.are_unknown();
        if reset || !server.settings.serves(&client.settings) {
            // After a reset the server reports what it has gone back to; what differs is not known before. So all
            // settings of the client are written, not the difference.
            for sql in server.settings.queries(&client.settings, reset) {
                self.own_query(sql.as_bytes(), out);
                // A simple query destroys the unnamed statement.
                server.unnamed_of = None;
            }
            server.settings.extras = client.settings.extras.clone();
        }
        server.makes_temp = client.settings.make_temp();
        reset
    }

    /// Appends a reset of everything a session can leave behind (PostgreSQL manual, DISCARD ALL).
    pub fn reset(&mut self, server: &mut ServerState, out: &mut Vec<u8>) {
        self.own_query(b"DISCARD ALL", out);
        server.statements.clear();
        server.left_behind = None;
        (server.pinned, server.kept_otherwise) = (false, false);
        server.listened.clear();
        server.sequences_mixed = false;
        server.touched = Names::None;
        server.may_have = Vec::new();
        server.doubted = false;
        server.blind = false;
        server.asking = false;
        server.forget_held();
        server.unnamed_of = None;
        server.settings.extras = Rc::default();
    }

    /// Makes the server forget what its sequences gave last.
    pub(super) fn discard_sequences(&mut self, server: &mut ServerState, out: &mut Vec<u8>) {
        self.own_query(b"DISCARD SEQUENCES", out);
        server.sequences_mixed = false;
        server.unnamed_of = None;
    }

    /// Appends a simple query of the proxy's own; its answer does not reach the client.
    pub fn own_query(&mut self, sql: &[u8], out: &mut Vec<u8>) {
        frame::put(out, b'Q', |body| {
            body.extend_from_slice(sql);
            body.push(0);
        });
        self.expect.push(Expect::Own);
    }

    /// The lease is over or the server is gone: forgets the conversation, gives back what it grew to.
    pub fn clear(&mut self) {
        self.expect.clear();
        self.expect.shrink();
        self.notes = VecDeque::new();
        self.noted_bytes = 0;
        self.notes_here = 0;
        self.client_rest = 0;
        self.drops_rest = false;
        self.unread = None;
        self.refused = None;
        (self.forgets_here, self.forgets_earlier) = (false, false);
        self.pins_left = None;
        self.server_rest = 0;
        (self.unsynced, self.flushed) = (false, false);
        self.ignoring = false;
        self.copy_in = false;
        self.copy_syncs = false;
        self.unnamed_here = false;
        self.own_error = None;
        self.not_prepared = None;
        self.taken = None;
        self.last_was_error = false;
        self.reset_here = Names::None;
        self.request_failed = false;
        self.repair_due = false;
        self.asked = VecDeque::new();
        self.asked_in_vain = 0;
        self.has_portal = false;
        self.learning = VecDeque::new();
        self.bound = None;
        self.retry.clear();
        self.requests_answered = 0;
        self.channel_steps = Vec::new();
        self.notifying = Vec::new();
    }

    /// Whether the server's last words were an error.
    #[must_use]
    pub const fn ended_in_error(&self) -> bool {
        self.last_was_error
    }

    /// Appends the answers of ours that are due.
    pub(super) fn put_due_answers(&mut self, out: &mut Vec<u8>) {
        while let Some(due) = self.expect.head().and_then(Expect::own_answer) {
            match due {
                OwnAnswer::Nothing => {}
                OwnAnswer::Message(tag) => {
                    frame::put(out, tag, |_| ());
                    self.retry.heard(tag);
                }
            }
            self.pop();
        }
    }

    pub(super) fn answer_is_due(&self) -> bool {
        self.expect.head().and_then(Expect::own_answer).is_some()
    }

    /// The head has been answered: what it changed stays.
    pub(super) fn pop(&mut self) -> Option<Expect> {
        let head = self.expect.pop()?;
        if head.has_note() {
            self.take_note();
        }
        Some(head)
    }

    /// Takes note of a change that the newest expected message makes.
    pub(super) fn note(&mut self, note: Note) {
        self.noted_bytes = self.noted_bytes.saturating_add(note.bytes());
        self.notes.push_back(note);
        self.notes_here = self.notes_here.saturating_add(1);
    }

    /// Whether a change of that name was sent in an earlier segment and is not answered: it may have been refused or
    /// skipped, so nobody knows what the name means now. (In the same segment it shares the fate of what depends on it.)
    ///
    /// Never where the answer may not come before the client says more: the server reads COPY data, or is suspect.
    pub(super) fn is_undecided(&self, name: &[u8], server: &ServerState) -> bool {
        let earlier = self.notes.len().saturating_sub(self.notes_here);
        let is_changed = || self.notes.iter().take(earlier).any(|note| note.changes(name));
        !self.copy_in && !server.suspect && (self.forgets_earlier || is_changed())
    }

    /// The oldest note.
    pub(super) fn take_note(&mut self) -> Option<Note> {
        let note = self.notes.pop_front()?;
        self.notes_here = self.notes_here.min(self.notes.len());
        self.noted_bytes = self.noted_bytes.saturating_sub(note.bytes());
        Some(note)
    }
}

/// Answers a client may leave outstanding before it is not read any more.
pub(super) const MAX_OUTSTANDING: usize = 16 * 1024;
/// What may be kept of names in messages that are not answered before the client is not read any more.
pub(super) const MAX_NOTED_BYTES: usize = 1024 * 1024;
