//! What is known of a server and of a client while they talk, and what stays known of either when they part.
//!
//! Owns that memory. The conversation itself, with what it still owes, is `exchange`'s.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::forbid::Bounds;
use super::functions::{Functions, Knowledge, Making, Newest, Says};
use super::hearing::{Channels, Hearing};
use super::lexer::{Names, StateKind, Traces};
use super::params::{Extras, MadeTemp, Settings};
use super::prepared::ServerStatements;
use super::statement::ClientStatements;
use crate::ids::ClientId;

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
    /// What it ran may have made functions, or what runs them, though no text says so. Which were the newest before that.
    pub(super) may_have_made: Option<Newest>,
    /// Others may have made some when it ran something: which were the newest before that.
    pub(super) others_made: Option<Newest>,
    /// That has committed, and it is not known yet whether it made some.
    pub(super) making: Option<Making>,
    /// What the answer is compared with to the question whether it made some.
    pub(super) made_behind: Newest,
    /// What was known of the functions when the oldest text was read that is not answered, or whose transaction goes on.
    pub(super) read_behind: Option<Knowledge>,
    /// Up to which change of the tenant's functions it has replayed them, if it is a replica's.
    replayed: Option<Rc<Cell<Option<u32>>>>,
    /// It is being asked for its functions only because of what it ran itself.
    pub(super) asked_of_itself: bool,
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
    /// The client has asked since it drew last.
    pub has_asked: bool,
    /// Counts its questions.
    pub asks: u32,
    /// Counts the requests of that kind.
    pub draws: u32,
    /// What its sequences gave last may have been given to another client than the last one.
    pub sequences_mixed: bool,
    /// Settings that decide what a text means may be others than the client's are known to be: a text that changes them is
    /// on its way, or has changed them for a transaction that goes on.
    pub(super) reads_otherwise: bool,
    /// The same of those that decide where its words begin and end.
    pub(super) reencodes: bool,
    /// Whether what its client makes without saying where is temporary.
    pub(super) makes_temp: MadeTemp,
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
    /// It is logged in as the tenant was before a change: what it tells of functions is not what is there now.
    pub is_outdated: bool,
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
            may_have_made: None,
            others_made: None,
            making: None,
            made_behind: None,
            read_behind: None,
            replayed: None,
            asked_of_itself: false,
            asked_behind: 0,
            asking: false,
            lost_settings: false,
            strayed: false,
            has_drawn: false,
            may_ask: false,
            has_asked: false,
            asks: 0,
            draws: 0,
            sequences_mixed: false,
            reads_otherwise: false,
            reencodes: false,
            makes_temp: MadeTemp::No,
            drawn: 0,
            holds_more: false,
            too_long: BTreeSet::new(),
            holds_unknown: false,
            unnamed_of: None,
            settings_changed: false,
            condemned: false,
            is_outdated: false,
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

    /// The client asks what a sequence gave it.
    pub(super) const fn is_asked_for_numbers(&mut self) {
        self.has_asked = true;
        self.asks = self.asks.wrapping_add(1);
    }

    /// What a sequence gave the client now may be asked next.
    pub(super) const fn has_given(&mut self) {
        (self.may_ask, self.has_asked) = (true, false);
        self.draws = self.draws.wrapping_add(1);
    }

    /// Its client's settings may have changed.
    pub(super) fn look_at_path(&mut self, client: &ClientState) {
        self.makes_temp = client.settings.make_temp();
        // It may have made something since.
        self.doubted |= self.makes_temp != MadeTemp::No;
    }

    /// Whether a limit that its client has set may hit somebody else: the server ends when it has been idle for so long, or
    /// what makes it another client's fails because that takes longer.
    #[must_use]
    pub fn limits_others(&self) -> bool {
        self.settings.extras.iter().any(|(name, limit)| match &**name {
            IDLE_LIMIT => &**limit != "0",
            "statement_timeout" | "transaction_timeout" => is_short(limit),
            _ => false,
        })
    }

    /// What it ran may make functions out of sight.
    pub(super) fn may_make(&mut self, functions: &Functions) {
        // A replica makes none.
        if functions.is_watched() && self.replayed.is_none() {
            self.may_have_made.get_or_insert_with(|| functions.newest());
        }
    }

    /// Whether it ran something that may have made functions of which nobody has asked. To be acted upon when that has
    /// committed, at the latest when the server is gone.
    pub fn takes_new_functions(&mut self) -> bool {
        std::mem::take(&mut self.makes_functions)
            | self.may_have_made.take().is_some()
            | self.making.is_some()
    }

    /// What it has that could not be carried is gone.
    pub(super) fn forget_held(&mut self) {
        (self.holds_more, self.holds_unknown) = (false, false);
        self.too_long.clear();
    }

    /// The same of a replica that has replayed the tenant's functions up to this change; `None` for a primary.
    #[must_use]
    pub fn on_replica(self, replayed: Option<Rc<Cell<Option<u32>>>>) -> Self {
        Self { replayed, ..self }
    }

    /// Whether it is a replica.
    pub(super) const fn is_replicas(&self) -> bool {
        self.replayed.is_some()
    }

    /// Whether what is known of the functions is what is there: on a replica only when it has replayed the last change.
    pub(super) fn knows(&self, functions: &Functions) -> bool {
        self.replayed.as_ref().is_none_or(|upto| upto.get() == Some(functions.changes()))
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
    /// What else it may do.
    pub(super) unnamed_says: Says,
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
            unnamed_says: Says::default(),
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

/// The setting by which Postgres ends a session that is idle.
const IDLE_LIMIT: &str = "idle_session_timeout";
/// In this time a server certainly does what makes it another client's.
const SHORT_MS: u32 = 100;

/// Whether a time limit, as Postgres writes it, is shorter than that; 0 is none.
fn is_short(limit: &str) -> bool {
    let ms = limit.strip_suffix("ms").unwrap_or(limit).trim();
    ms.parse().is_ok_and(|ms: u32| (1..SHORT_MS).contains(&ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_takes_for_its_client_alone_is_not_handed_on() {
        for (name, limit, hits) in [
            ("statement_timeout", "2ms", true),
            ("statement_timeout", "99", true),
            ("transaction_timeout", "50ms", true),
            ("statement_timeout", "100ms", false),
            ("statement_timeout", "1s", false),
            ("statement_timeout", "0", false),
            ("idle_session_timeout", "1min", true),
            ("idle_session_timeout", "0", false),
            ("work_mem", "1", false),
        ] {
            let extras = Rc::new(vec![(name.into(), limit.into())]);
            let server = ServerState::new(Settings { extras, ..Settings::default() }, 9);
            assert_eq!(server.limits_others(), hits, "{name} = {limit}");
        }
    }
}
