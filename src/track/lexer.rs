//! What a piece of SQL text leaves behind in the server's session, told from its words alone.
//!
//! Owns the answer to one question: may another client have this server after the transaction, or must it be reset
//! first? Knows Postgres' lexical rules (`tokens`) and the first words of its statements (`verdict`), and no
//! grammar. Must not know protocol, servers or clients.
//!
//! ```text
//!           certainly harmless (most texts; `quiet`)
//! text ---> ------------------------------------------> Transient
//!      \--> tokens --> statements --> the worst of them --> Effect
//! ```
//!
//! In doubt the answer is [`StateKind::Unknown`]: a reset too many costs a round trip, one too few hands a client
//! somebody else's settings. Doubt is: an unknown first word, an unterminated quote or comment, text that is not UTF-8
//! (it may be in another client encoding, which Postgres converts before it reads), and what depends on a setting or
//! on the server's version:
//!
//! - A backslash right before the quote of an ordinary `'..'` (an odd number of them). With
//!   `standard_conforming_strings = off` it hides the quote, with `on` it does not ([`in_one_way`]). Elsewhere in a string
//!   a backslash changes nothing that matters here.
//! - A number running into a word with `$` (`1_0$a$`): one word up to Postgres 14, a dollar quote from 16.
//! - A vertical tab outside quotes and comments: whitespace from Postgres 16, an error before.
//! - `U&"name"`, whose escapes (and `UESCAPE`) could spell any function.
//!
//! This is not a security boundary and cannot be one: a function, an operator or a view can call `set_config` out of
//! sight. The wall between tenants is that a server only ever belongs to one of them; what is found here keeps the
//! clients of one tenant out of each other's way.

mod bodies;
mod channels;
mod mentions;
mod path;
mod quiet;
mod reach;
mod read_only;
mod settings;
mod skim;
mod standard;
#[cfg(test)]
mod tests;
mod tokens;
mod verdict;

pub use bodies::{Left, Made, left_by_body, makes_functions, says_make};
pub use channels::{ChannelStep, MAX_CHANNEL_STEPS, channel_steps};
pub use mentions::{Mention, Mentioned, mentions};
pub use path::{MakesTemp, Path, is_temp_schema, makes_temp, path, split_path};
pub use reach::Reach;
pub use read_only::begins_read_only;
pub use settings::{Changes, MAX_NAME_BYTES, Names, may_change};
pub use skim::{MAX_NAMES as MAX_CUSTOM_NAMES, Skim, custom_names};
pub use standard::in_one_way;
use std::collections::BTreeSet;
use tokens::Tokens;

/// What a text does to the session that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing outlives the transaction, as far as text can show.
    Transient,
    /// Session state may outlive the transaction: the server must be reset before another client gets it.
    SessionState(StateKind),
    /// The whole text is one `DEALLOCATE [PREPARE] name`; holds the name as Postgres looks it up (unquoted; folded to
    /// lower case if it was not quoted; cut to 63 bytes).
    Deallocate(Vec<u8>),
    /// The whole text is one `DEALLOCATE ALL`.
    DeallocateAll,
    /// The whole text is one `DISCARD ALL`.
    DiscardAll,
}

/// The sort of session state a text may leave; where a text leaves several, the last in this order is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKind {
    /// Run-time settings: `SET`, `RESET`, `set_config`.
    Settings,
    /// Statements deallocated by SQL: that only takes away.
    Deallocation,
    /// `LISTEN` and `UNLISTEN`.
    Listen,
    /// Statements prepared by SQL.
    PreparedStatement,
    /// Temporary tables, views, sequences and functions.
    TempObject,
    /// A cursor `WITH HOLD`.
    Cursor,
    /// An advisory lock held by the session.
    AdvisoryLock,
    /// Anything: the text is not understood, or runs code that is not in the text.
    Unknown,
    /// What no reset takes away: that server is for nobody else.
    Indelible,
}

/// What the simple query or the `Parse` with this text does to the session that runs it.
///
/// Allocates only for [`Effect::Deallocate`]; takes time linear in the length of the text and constant stack.
#[must_use]
pub fn classify(sql: &[u8]) -> Effect {
    if std::str::from_utf8(sql).is_err() || memchr::memchr(0, sql).is_some() {
        return Effect::SessionState(StateKind::Unknown);
    }
    if quiet::is_plainly_transient(sql) { Effect::Transient } else { classify_by_tokens(sql) }
}

/// Whether a text is one of an application's usual ones: it certainly changes nothing that outlives it, no setting either.
#[must_use]
pub fn is_plain(sql: &[u8]) -> bool {
    std::str::from_utf8(sql).is_ok() && memchr::memchr(0, sql).is_none() && quiet::is_plainly_transient(sql)
}

/// What a text does with sequences by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    /// It asks what one gave this session last (`currval`, `lastval`).
    pub asks: bool,
    /// It runs code that is not in it, which may ask.
    pub may_ask: bool,
    /// It draws from one, or sets it (`nextval`, `setval`).
    pub draws: bool,
    /// What it runs may commit (CALL, DO), outside a transaction.
    pub may_commit: bool,
}

/// What a text does with sequences by name; nothing, for [plain](is_plain) ones.
#[must_use]
pub fn sequences(sql: &[u8]) -> Sequences {
    let mut found = Sequences::default();
    if is_plain(sql) {
        return found;
    }
    found.may_ask = classify(sql) == Effect::SessionState(StateKind::Unknown);
    found.may_commit = Tokens::new(sql).eat_word(&[b"call", b"do"]);
    for token in Tokens::new(sql) {
        if let tokens::Token::Word(name) | tokens::Token::Name(name) = token {
            found.asks |= tokens::is(name, b"currval") || tokens::is(name, b"lastval");
            found.draws |= tokens::is(name, b"nextval") || tokens::is(name, b"setval");
        }
    }
    found
}

/// Whether Postgres analyses the text when it is prepared: what it leaves as it is written means what it means when it runs.
#[must_use]
pub fn is_analysed(sql: &[u8]) -> bool {
    const VERBS: [&[u8]; 10] = [
        b"select", b"with", b"insert", b"update", b"delete", b"merge", b"values", b"table", b"explain",
        b"declare",
    ];
    let mut tokens = Tokens::new(sql);
    let first = tokens.by_ref().find(|token| *token != tokens::Token::Symbol(b'('));
    let Some(tokens::Token::Word(word)) = first else { return false };
    // Of what is made from a query; a constant in a plain definition does no harm.
    let mut makes_rows = || tokens.eat_word(&[b"table", b"temp", b"temporary", b"unlogged", b"materialized"]);
    VERBS.iter().any(|verb| tokens::is(word, verb)) || tokens::is(word, b"create") && makes_rows()
}

/// Whether there may be a constant in quotes in the text, `'..'` or `$$..$$`, that has another value to other settings.
#[must_use]
pub fn may_have_constants(sql: &[u8]) -> bool {
    memchr::memchr2_iter(b'\'', b'$', sql).any(|at| {
        sql.get(at) == Some(&b'\'') || !sql.get(at.saturating_add(1)).is_some_and(u8::is_ascii_digit)
    })
}

/// What running a text leaves behind on a server, beside what ends with the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// The worst of it.
    pub kind: StateKind,
    /// Which settings.
    pub changes: Changes,
    /// The name of the statement that the text deallocates, if that is all it does.
    pub deallocates: Option<Box<[u8]>>,
    /// Custom ones that may be among them if nobody knows which: they are in no view of the server's.
    pub custom: BTreeSet<Box<str>>,
}

impl Traces {
    /// Those of a text that nobody has read, or could.
    #[must_use]
    pub const fn unknown() -> Self {
        Self::only(StateKind::Unknown, Changes::anything())
    }

    /// Those of a LISTEN.
    #[must_use]
    pub const fn listen() -> Self {
        Self::only(StateKind::Listen, Changes { touched: Names::None, reset: Names::None })
    }

    const fn only(kind: StateKind, changes: Changes) -> Self {
        Self { kind, changes, custom: BTreeSet::new(), deallocates: None }
    }

    /// Those of a text that is one DEALLOCATE of that name.
    #[must_use]
    pub fn deallocation(name: Vec<u8>) -> Self {
        Self {
            deallocates: Some(name.into_boxed_slice()),
            ..Self::only(StateKind::Deallocation, Changes { touched: Names::None, reset: Names::None })
        }
    }

    /// Whether the server may forget prepared statements: by DEALLOCATE or DISCARD ALL, or by what cannot be read.
    #[must_use]
    pub const fn may_forget(&self) -> bool {
        matches!(
            self.kind,
            StateKind::Deallocation
                | StateKind::PreparedStatement
                | StateKind::Unknown
                | StateKind::Indelible
        )
    }

    /// Those of a text that [`classify`] says leaves this.
    #[must_use]
    pub fn of(sql: &[u8], kind: StateKind) -> Self {
        match kind {
            StateKind::Unknown | StateKind::Indelible => {
                Self { kind, custom: custom_names(sql), ..Self::unknown() }
            }
            StateKind::Settings
            | StateKind::Deallocation
            | StateKind::PreparedStatement
            | StateKind::Listen
            | StateKind::TempObject
            | StateKind::Cursor
            | StateKind::AdvisoryLock => {
                let changes = settings::changes(sql);
                let is_any = changes.touched == Names::Any;
                let custom = if is_any { custom_names(sql) } else { BTreeSet::new() };
                Self { custom, ..Self::only(kind, changes) }
            }
        }
    }
}

/// The whole answer, without the shortcut; the text must be UTF-8 without zero bytes.
fn classify_by_tokens(sql: &[u8]) -> Effect {
    let mut tokens = Tokens::new(sql);
    let mut worst = None;
    let mut sole = None;
    let mut is_first = true;
    while let Some(verdict) = verdict::next(&mut tokens) {
        if verdict.state == Some(StateKind::Unknown) && verdict.if_alone.is_none() {
            return Effect::SessionState(StateKind::Unknown);
        }
        worst = worst.max(verdict.state);
        sole = if is_first { verdict.if_alone } else { None };
        is_first = false;
    }
    match (sole, worst) {
        (Some(effect), _) => effect,
        (None, Some(kind)) => Effect::SessionState(kind),
        (None, None) => Effect::Transient,
    }
}
