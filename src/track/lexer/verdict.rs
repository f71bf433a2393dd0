//! One statement after another: its first words, and the few words further on that change the answer.
//!
//! Owns which statement leaves what. A `;` always ends a statement here, also inside parentheses and inside
//! `BEGIN ATOMIC`: that finds more first words than there are, never fewer.

use super::tokens::{Token, Tokens, is};
use super::{Effect, StateKind};

/// What one statement does.
pub(super) struct Verdict {
    /// The state it may leave, if any.
    pub(super) state: Option<StateKind>,
    /// What to report instead if it is the only statement of the text.
    pub(super) if_alone: Option<Effect>,
}

/// Reads one statement and its `;`; empty statements are passed over, `None` is the end of the text.
pub(super) fn next(tokens: &mut Tokens<'_>) -> Option<Verdict> {
    let first = tokens.find(|&token| token != Token::Symbol(b';'))?;
    let state = match first {
        Token::Word(word) => match verb(word) {
            Verb::Deallocate => return Some(deallocate(tokens)),
            Verb::Discard => return Some(discard(tokens)),
            Verb::Explain => explain(tokens),
            verb => of_verb(verb, tokens),
        },
        Token::Symbol(b'(') => parenthesized(tokens),
        Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt => {
            Some(StateKind::Unknown)
        }
    };
    Some(Verdict { state, if_alone: None })
}

/// What the first word of a statement says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Leaves nothing, unless it calls a function that does.
    Plain,
    /// May be a `SELECT .. INTO TEMP`, or hold an update, else [`Verb::Plain`].
    Query,
    /// Sets for the session if it updates `pg_settings`, else [`Verb::Plain`].
    Update,
    Create,
    Deallocate,
    Declare,
    Discard,
    Explain,
    Listen,
    Prepare,
    Reset,
    Set,
    Unknown,
}

/// The verb that a first word is, in any case.
pub(super) fn verb(word: &[u8]) -> Verb {
    let mut lower = [0; LONGEST_VERB];
    let Some(lower) = lower.get_mut(..word.len()) else { return Verb::Unknown };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    match &*lower {
        // What is in the parentheses of a COPY may update.
        b"select" | b"with" | b"copy" => Verb::Query,
        b"update" => Verb::Update,
        b"insert" | b"delete" | b"merge" | b"values" | b"table" | b"begin" | b"start" | b"commit"
        | b"end" | b"rollback" | b"abort" | b"savepoint" | b"release" | b"fetch" | b"move" | b"close"
        | b"lock" | b"truncate" | b"show" | b"vacuum" | b"analyze" | b"analyse" | b"alter" | b"drop"
        | b"grant" | b"revoke" | b"comment" | b"refresh" | b"reindex" | b"cluster" | b"notify"
        | b"checkpoint" => Verb::Plain,
        // Only takes away; drivers' pools say it, with RESET ALL, whenever a connection comes back.
        b"unlisten" => Verb::Plain,
        b"create" => Verb::Create,
        b"deallocate" => Verb::Deallocate,
        b"declare" => Verb::Declare,
        b"discard" => Verb::Discard,
        b"explain" => Verb::Explain,
        b"listen" => Verb::Listen,
        b"prepare" => Verb::Prepare,
        b"reset" => Verb::Reset,
        b"set" => Verb::Set,
        // DO, CALL, EXECUTE and LOAD run code that is not in the text; of all others we know nothing.
        _ => Verb::Unknown,
    }
}

const LONGEST_VERB: usize = b"checkpoint".len();

fn of_verb(verb: Verb, tokens: &mut Tokens<'_>) -> Option<StateKind> {
    let (state, watch) = match verb {
        Verb::Plain => (None, Watch::Names),
        Verb::Query => (None, Watch::IntoTemp),
        Verb::Update => (None, Watch::Settings),
        Verb::Create => create(tokens),
        Verb::Declare => (None, Watch::WithHold),
        Verb::Listen => (Some(StateKind::Listen), Watch::Names),
        Verb::Prepare => (prepare(tokens), Watch::Names),
        Verb::Reset => (Some(StateKind::Settings), Watch::Names),
        Verb::Set => (set(tokens), Watch::Names),
        // The last three only where they cannot stand: behind EXPLAIN or a parenthesis.
        Verb::Unknown | Verb::Deallocate | Verb::Discard | Verb::Explain => return Some(StateKind::Unknown),
    };
    body(tokens, watch).max(state)
}

/// `EXPLAIN [ANALYZE] [VERBOSE] statement` or `EXPLAIN (options) statement`: as the statement, which ANALYZE runs.
fn explain(tokens: &mut Tokens<'_>) -> Option<StateKind> {
    while tokens.eat_word(&[b"analyze", b"analyse", b"verbose"]) {}
    if tokens.eat_symbol(b'(') {
        if tokens.peek() == Some(Token::Symbol(b'(')) || is_query(tokens.peek()) {
            return parenthesized(tokens);
        }
        while !tokens.eat_symbol(b')') {
            match tokens.next() {
                Some(Token::Word(_) | Token::Name(_) | Token::Text | Token::Number) => {}
                Some(Token::Symbol(symbol)) if symbol != b';' => {}
                Some(Token::Symbol(_) | Token::Doubt) | None => return Some(StateKind::Unknown),
            }
        }
    }
    match tokens.next() {
        Some(Token::Word(word)) => of_verb(verb(word), tokens),
        Some(Token::Symbol(b'(')) => parenthesized(tokens),
        Some(Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => {
            Some(StateKind::Unknown)
        }
    }
}

/// A query in parentheses, given what follows the first of them.
fn parenthesized(tokens: &mut Tokens<'_>) -> Option<StateKind> {
    while tokens.eat_symbol(b'(') {}
    if is_query(tokens.peek()) { body(tokens, Watch::IntoTemp) } else { Some(StateKind::Unknown) }
}

fn is_query(token: Option<Token<'_>>) -> bool {
    const QUERIES: [&[u8]; 4] = [b"select", b"with", b"values", b"table"];
    matches!(token, Some(Token::Word(word)) if QUERIES.iter().any(|query| is(word, query)))
}

/// `CREATE [OR REPLACE] [LOCAL | GLOBAL] {TEMP | TEMPORARY} ..` leaves an object behind, unless `ON COMMIT DROP`.
fn create(tokens: &mut Tokens<'_>) -> (Option<StateKind>, Watch) {
    while tokens.eat_word(&[b"or", b"replace", b"local", b"global"]) {}
    if tokens.eat_word(&[b"temp", b"temporary"]) {
        (None, Watch::OnCommitDrop)
    } else {
        (None, Watch::AsExecute)
    }
}

/// `PREPARE TRANSACTION 'id'` ends a transaction; but `PREPARE transaction AS ..` prepares a statement of that name.
fn prepare(tokens: &mut Tokens<'_>) -> Option<StateKind> {
    let is_two_phase = tokens.eat_word(&[b"transaction"]) && tokens.peek() == Some(Token::Text);
    if is_two_phase { None } else { Some(StateKind::PreparedStatement) }
}

/// `SET {LOCAL | TRANSACTION | CONSTRAINTS} something` ends with the transaction. The three are no reserved words:
/// `SET local.x = 1` sets a parameter, so what follows must be a name or keyword.
fn set(tokens: &mut Tokens<'_>) -> Option<StateKind> {
    let is_local = tokens.eat_word(&[b"local", b"transaction", b"constraints"])
        && match tokens.peek() {
            Some(Token::Word(word)) => !is(word, b"to"),
            Some(Token::Name(_)) => true,
            Some(Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => false,
        };
    if is_local { None } else { Some(StateKind::Settings) }
}

/// `DISCARD ALL`; the other `DISCARD`s only take away.
fn discard(tokens: &mut Tokens<'_>) -> Verdict {
    if tokens.eat_word(&[b"plans", b"sequences", b"temp", b"temporary"]) {
        return Verdict { state: body(tokens, Watch::Names), if_alone: None };
    }
    let is_all = tokens.eat_word(&[b"all"]) && is_end(tokens.next());
    Verdict { state: Some(StateKind::Unknown), if_alone: is_all.then_some(Effect::DiscardAll) }
}

/// `DEALLOCATE [PREPARE] {name | ALL}`; `DEALLOCATE prepare` has the name `prepare`.
pub(super) fn deallocate(tokens: &mut Tokens<'_>) -> Verdict {
    let mut ahead = tokens.clone();
    if ahead.eat_word(&[b"prepare"]) && is_end(ahead.peek()) {
        ahead = tokens.clone();
    }
    let name = ahead.next();
    let if_alone = match name {
        _ if !is_end(ahead.next()) => None,
        Some(Token::Word(word)) if is(word, b"all") => Some(Effect::DeallocateAll),
        Some(Token::Word(word)) => Some(Effect::Deallocate(identifier(word, Case::Folded))),
        Some(Token::Name(name)) if !name.is_empty() => Some(Effect::Deallocate(identifier(name, Case::Kept))),
        Some(Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) | Token::Doubt) | None => None,
    };
    Verdict { state: body(tokens, Watch::Names).max(Some(StateKind::Deallocation)), if_alone }
}

const fn is_end(token: Option<Token<'_>>) -> bool {
    matches!(token, None | Some(Token::Symbol(b';')))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Not quoted: ASCII letters become small, others stay (`downcase_identifier` in a UTF-8 database).
    Folded,
    /// Quoted: as it is, and `""` is one quote.
    Kept,
}

/// An identifier as Postgres stores it.
pub(super) fn identifier(written: &[u8], case: Case) -> Vec<u8> {
    let mut is_second_quote = false;
    let unquoted = written.iter().filter(|&&byte| {
        is_second_quote = byte == b'"' && !is_second_quote;
        !is_second_quote
    });
    let mut name: Vec<u8> = unquoted.copied().take(IDENTIFIER_BYTES_MAX.saturating_add(1)).collect();
    if name.len() > IDENTIFIER_BYTES_MAX {
        // Never half a character: bytes 10xxxxxx continue one.
        let is_start = |at: &usize| name.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80);
        let end = (1..=IDENTIFIER_BYTES_MAX).rev().find(is_start).unwrap_or(IDENTIFIER_BYTES_MAX);
        name.truncate(end);
    }
    if case == Case::Folded {
        name.make_ascii_lowercase();
    }
    name
}

/// `NAMEDATALEN` - 1.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// Which words, beside the names of functions, change the answer in the rest of a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// None.
    Names,
    /// `INTO TEMP`, which creates a temporary table, and what [`Watch::Settings`] looks for behind `UPDATE`.
    IntoTemp,
    /// `pg_settings`, whose update is a `set_config`.
    Settings,
    /// `WITH HOLD`, which keeps a cursor.
    WithHold,
    /// `AS EXECUTE`, which runs a prepared statement.
    AsExecute,
    /// `ON COMMIT DROP`, without which the temporary object stays.
    OnCommitDrop,
}

/// The rest of a statement with its `;`: the state that it may leave.
fn body(tokens: &mut Tokens<'_>, watch: Watch) -> Option<StateKind> {
    let mut worst = None;
    let mut is_dropped = false;
    // The last two tokens, if they are words.
    let (mut before, mut earlier): (&[u8], &[u8]) = (b"", b"");
    let mut updates = watch == Watch::Settings;
    while let Some(token) = tokens.next() {
        let mut word: &[u8] = b"";
        match token {
            Token::Word(this) => {
                word = this;
                worst =
                    worst.max(state_of_name(this, tokens)).max(state_of_words(watch, earlier, before, this));
                if updates && is(this, b"pg_settings") {
                    return Some(StateKind::Unknown);
                }
                updates |= watch == Watch::IntoTemp && is(this, b"update");
                is_dropped |= is(this, b"drop") && is(before, b"commit") && is(earlier, b"on");
            }
            Token::Name(b"pg_settings") if updates => return Some(StateKind::Unknown),
            Token::Name(name) if !name.iter().any(u8::is_ascii_uppercase) => {
                worst = worst.max(state_of_name(name, tokens));
            }
            Token::Symbol(b';') => break,
            Token::Doubt => return Some(StateKind::Unknown),
            Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) => {}
        }
        (earlier, before) = (before, word);
    }
    if watch == Watch::OnCommitDrop && !is_dropped { worst.max(Some(StateKind::TempObject)) } else { worst }
}

fn state_of_words(watch: Watch, earlier: &[u8], before: &[u8], word: &[u8]) -> Option<StateKind> {
    match watch {
        Watch::Names | Watch::OnCommitDrop | Watch::Settings => None,
        Watch::IntoTemp => {
            let is_temp = is(word, b"temp") || is(word, b"temporary");
            let is_into = || {
                is(before, b"into")
                    || ((is(before, b"local") || is(before, b"global")) && is(earlier, b"into"))
            };
            (is_temp && is_into()).then_some(StateKind::TempObject)
        }
        Watch::WithHold => (is(word, b"hold") && is(before, b"with")).then_some(StateKind::Cursor),
        Watch::AsExecute => (is(word, b"execute") && is(before, b"as")).then_some(StateKind::Unknown),
    }
}

/// The state that is left by whoever mentions this name; `after` is what follows it.
fn state_of_name(name: &[u8], after: &Tokens<'_>) -> Option<StateKind> {
    if !matches!(name.first().map(u8::to_ascii_lowercase), Some(b'd' | b'i' | b'p' | b'q' | b's' | b't')) {
        return None;
    }
    if is(name, b"set_config") {
        let kind = if names_its_setting(after.clone()) { StateKind::Settings } else { StateKind::Unknown };
        return (!is_local_call(after.clone())).then_some(kind);
    }
    if runs_texts(name) || is(name, b"set_limit") {
        return Some(StateKind::Unknown);
    }
    if INDELIBLE.iter().any(|function| is(name, function)) {
        return Some(StateKind::Indelible);
    }
    let (prefix, rest) = name.split_at_checked(3)?;
    if !is(prefix, b"pg_") {
        return None;
    }
    if LOCKING.iter().any(|lock| is(rest, lock)) {
        return Some(StateKind::AdvisoryLock);
    }
    let (temp, number) = rest.split_at_checked(4)?;
    let is_schema = is(temp, b"temp") && matches!(number, [] | [b'_', b'0'..=b'9', ..]);
    is_schema.then_some(StateKind::TempObject)
}

/// Whether a call of `set_config` says in so many words what it sets.
fn names_its_setting(mut after: Tokens<'_>) -> bool {
    after.eat_symbol(b'(') && constant_argument(&mut after).is_some()
}

/// An argument that is a constant, `'x'` or `'x'::text`, and the comma behind it.
pub(super) fn constant_argument<'a>(tokens: &mut Tokens<'a>) -> Option<&'a [u8]> {
    let text = tokens.text()?;
    if tokens.eat_symbol(b':') && !(tokens.eat_symbol(b':') && tokens.eat_word(&[b"text"])) {
        return None;
    }
    tokens.eat_symbol(b',').then_some(text)
}

/// Functions of Postgres' own extensions after which no reset makes a server as new: named connections to other servers
/// (dblink), a mode of checking (isn).
const INDELIBLE: [&[u8]; 3] = [b"dblink_connect", b"dblink_connect_u", b"isn_weak"];

/// Whether that function of Postgres' runs a text which it is given.
pub(super) fn runs_texts(name: &[u8]) -> bool {
    RUNNING_TEXTS.iter().any(|function| is(name, function))
}

/// Functions of Postgres' that run a text which they are given, or read a view whose name may be in one.
const RUNNING_TEXTS: [&[u8]; 11] = [
    b"query_to_xml",
    b"query_to_xmlschema",
    b"query_to_xml_and_xmlschema",
    b"table_to_xml",
    b"table_to_xml_and_xmlschema",
    b"schema_to_xml",
    b"schema_to_xml_and_xmlschema",
    b"database_to_xml",
    b"database_to_xml_and_xmlschema",
    b"ts_stat",
    b"ts_rewrite",
];

/// Functions, without `pg_`, whose locks stay when the transaction ends; those with `_xact_` do not.
const LOCKING: [&[u8]; 4] =
    [b"advisory_lock", b"advisory_lock_shared", b"try_advisory_lock", b"try_advisory_lock_shared"];

/// Whether a call of `set_config` says that it ends with the transaction: its last argument is the word `true`.
///
/// Applications with row level security send this with every transaction. Looks only so far ahead, or many nested calls
/// would take quadratic time.
pub(super) fn is_local_call(after: Tokens<'_>) -> bool {
    let mut open = 0_usize;
    let mut last_two = (None, None);
    for token in after.take(CALL_TOKENS_MAX) {
        match token {
            Token::Symbol(b'(') => open = open.saturating_add(1),
            Token::Symbol(b')') if open > 1 => open = open.saturating_sub(1),
            Token::Symbol(b')') => {
                return matches!(last_two, (Some(Token::Symbol(b',')), Some(Token::Word(word))) if is(word, b"true"));
            }
            Token::Symbol(b';') | Token::Doubt => return false,
            Token::Word(_) | Token::Name(_) | Token::Text | Token::Number | Token::Symbol(_) => {}
        }
        if open == 0 {
            return false;
        }
        last_two = (last_two.1, Some(token));
    }
    false
}

const CALL_TOKENS_MAX: usize = 48;
