//! Statements that are refused before Postgres sees them, with an error of ours in exactly the place of Postgres' own.
//!
//! Owns the stand-in: instead of the refused message a message goes out that certainly fails in the same way (a simple
//! query, or a part of a segment), so that Postgres aborts the transaction and skips what is to be skipped. Its error
//! is replaced by ours on the way back.

use super::exchange::Exchange;
use super::expect::Expect;
use super::lexer::{self, Path, StateKind, Traces};
use super::notes::Note;
use super::reading::Read;
use super::sink::Sink;
use super::state::ClientState;
use super::upstream::{Next, Parties};
use crate::error::{ClientError, Fault, SqlState};
use crate::wire::frame::{self, Header};
use crate::wire::messages::{parse_error_fields, put_error};

/// What a client may not do, beside what Postgres refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Schemas that its search_path may name; `None`: any.
    pub schemas: Option<Box<[Box<str>]>>,
}

impl Bounds {
    /// Whether a search_path of these schemas stays inside.
    #[must_use]
    pub fn allow<'a>(&self, schemas: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(allowed) = &self.schemas else { return true };
        schemas.into_iter().all(|schema| {
            // No schema has an empty name.
            let is_everybodys =
                ["", "pg_catalog", "pg_temp", "information_schema", "$user"].contains(&schema);
            is_everybodys || allowed.iter().any(|known| **known == *schema)
        })
    }

    /// Why a text is refused, if it is.
    fn refusal(&self, text: &[u8]) -> Option<ClientError> {
        let allowed = self.schemas.as_ref()?;
        let Path::To(schemas) = lexer::path(text) else { return None };
        (!self.allow(schemas.iter().map(String::as_str))).then(|| {
            ClientError::error(
                SqlState::INSUFFICIENT_PRIVILEGE,
                Fault::Client,
                "outside_tenant",
                "search_path cannot leave the tenant's schemas",
            )
            .with_detail(format!("The schemas of this tenant: {}.", allowed.join(", ")))
            .with_hint("Name some of them, in any order.")
        })
    }
}

impl Exchange {
    /// The refusal of a text that is about to be sent as a simple query or prepared, if there is one.
    pub(super) fn text_refusal(parties: &Parties<'_>, read: &Read<'_>, text: &[u8]) -> Option<ClientError> {
        // In one that cannot be read it may still be found.
        let text = read.text().unwrap_or(text);
        if lexer::is_plain(text) { None } else { parties.client.bounds.refusal(text) }
    }

    /// The refusal of what would keep the client at its server, if that is one client too many.
    pub(super) fn pin_refusal(&self, parties: &mut Parties<'_>, traces: &Traces) -> Option<ClientError> {
        if traces.kind == StateKind::Listen {
            parties.server.can_pass = self.may_pass(parties.client);
            if parties.server.can_pass {
                return None;
            }
        }
        // One that listens on its way to the tenant's listener is not counted yet.
        let is_counted = parties.server.pinned && !parties.server.is_passing();
        let limit = self.pins_left.filter(|_| !is_counted)?;
        let what = pinning(traces.kind)?;
        (limit.left == 0).then(|| {
            ClientError::error(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                Fault::Client,
                "pin_limit",
                format!("{what} would keep this client at its server, and no more servers may be kept"),
            )
            .with_detail(limit.detail())
            .with_hint(
                "End what keeps the others. Or ask the operator for session mode (mode = \"session\" for this user), \
                 which allows it, or for a higher limit (limits.ceiling of the tenant).",
            )
        })
    }

    /// Refuses a simple query.
    pub(super) fn refuse_query(
        &mut self,
        parties: &mut Parties<'_>,
        header: Header,
        error: ClientError,
        sink: &mut Sink<'_>,
    ) -> Next {
        sink.drop_input(header.total_len());
        frame::put(sink.insert(), b'Q', |out| out.extend_from_slice(b"SELECT \"tenantry:refused\"\0"));
        self.refused = Some(error.reason);
        self.note(Note::Refused(Box::new(error)));
        self.expect_query(parties, Expect::RefusedQuery);
        Next::Done(header.total_len())
    }

    /// Refuses a message of the extended protocol; what is still to come of it is thrown away.
    pub(super) fn refuse_extended(
        &mut self,
        header: Header,
        message: &[u8],
        error: ClientError,
        sink: &mut Sink<'_>,
    ) -> Next {
        let len = header.total_len().min(message.len());
        sink.drop_input(len);
        self.client_rest = header.total_len().saturating_sub(len);
        self.drops_rest = self.client_rest > 0;
        // No statement of that name was ever prepared.
        frame::put(sink.insert(), b'B', |out| out.extend_from_slice(b"\0tenantry:refused\0\0\0\0\0\0\0"));
        self.refused = Some(error.reason);
        self.note(Note::Refused(Box::new(error)));
        self.expect_extended(Expect::Refused);
        Next::Done(len)
    }

    /// Whether this error is that of the stand-in: Postgres may have found another one first.
    pub(super) fn is_refusal(&self, body: &[u8]) -> bool {
        matches!(self.notes.front(), Some(Note::Refused(_)))
            && matches!(parse_error_fields(body).code(), Some(b"26000" | b"42703"))
    }

    /// Puts our error in the place of the stand-in's.
    pub(super) fn put_refusal(&self, out: &mut Vec<u8>) {
        if let Some(Note::Refused(error)) = self.notes.front() {
            put_error(out, error);
        }
    }

    /// The reason of the newest refusal, once.
    pub fn take_refused(&mut self) -> Option<&'static str> {
        self.refused.take()
    }
}

/// How many more clients may keep their servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinsLeft {
    /// How many more.
    pub left: u32,
    /// Of how many at most.
    pub of: u32,
    /// Whether a client that listens need not keep its server for long: the tenant has a listener, or can have one.
    pub listens: bool,
}

impl PinsLeft {
    /// Of `of` at most, `taken` are kept.
    #[must_use]
    pub const fn new(of: u32, taken: u32) -> Self {
        Self { left: of.saturating_sub(taken), of, listens: false }
    }

    /// What the limit is and who has reached it, for an error.
    #[must_use]
    pub fn detail(self) -> String {
        if self.of == 0 {
            let text = "A transaction that begins with READ ONLY is served by a replica, what comes behind it is not.";
            return text.to_owned();
        }
        let (servers, all) = if self.of == 1 { ("server", "it is") } else { ("servers", "all of them are") };
        format!(
            "Clients may keep {} {servers} (one less than the tenant's ceiling, for all tenants half of the cluster's \
             budget, one in any case), and {all} kept: by temporary objects, session-level advisory locks, cursors WITH \
             HOLD, PREPARE, long settings or replication. The server that listens for all clients of the tenant counts \
             as one.",
            self.of
        )
    }
}

/// What keeps a client at its server, in words; `None` if this does not.
pub const fn pinning(kind: StateKind) -> Option<&'static str> {
    match kind {
        StateKind::Listen => Some("LISTEN"),
        StateKind::TempObject => Some("a temporary object"),
        StateKind::Cursor => Some("a cursor WITH HOLD"),
        StateKind::AdvisoryLock => Some("an advisory lock of the session"),
        StateKind::PreparedStatement => Some("PREPARE"),
        StateKind::Settings | StateKind::Deallocation | StateKind::Unknown | StateKind::Indelible => None,
    }
}

/// Whether a value of search_path that a server tells stays inside.
pub(super) fn allows_path(client: &ClientState, value: &str) -> bool {
    match lexer::split_path(value) {
        Some(schemas) => client.bounds.allow(schemas.iter().map(String::as_str)),
        None => client.bounds.schemas.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Talk, messages};
    use super::*;
    use crate::wire::messages::parse_error_fields;

    const SYNC: (u8, &[u8]) = (b'S', b"");

    fn bounded() -> Talk {
        let mut talk = Talk::new(9);
        talk.client.bounds = Bounds { schemas: Some(["mine".into(), "shared".into()].into()) }.into();
        talk
    }

    /// The error that the client gets when its message is sent and Postgres refuses the stand-in with this code.
    fn refused(talk: &mut Talk, message: (u8, &[u8]), code: &str) -> String {
        let is_query = message.0 == b'Q';
        let sent = talk.say(&messages(&if is_query { vec![message] } else { vec![message, SYNC] }));
        assert!(sent.windows(16).any(|part| part == b"tenantry:refused"), "{}", sent.escape_ascii());
        let error = format!("SERROR\0C{code}\0Mx\0\0");
        let heard = talk.answer(&messages(&[(b'E', error.as_bytes()), (b'Z', b"I")]));
        assert!(talk.is_over());
        let body = frame::peek(&heard).unwrap().map(|header| &heard[5..header.total_len()]).unwrap();
        String::from_utf8(parse_error_fields(body).code().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_path_outside_the_tenant_is_refused_in_both_protocols() {
        for text in [
            "SET search_path = theirs",
            "BEGIN; SET LOCAL search_path TO mine, \"theirs\"",
            "SET SCHEMA 'theirs'",
        ] {
            let text = [text.as_bytes(), b"\0"].concat();
            assert_eq!(refused(&mut bounded(), (b'Q', &text), "42703"), "42501");
            let parse = [b"s\0", text.as_slice(), b"\0\0"].concat();
            assert_eq!(refused(&mut bounded(), (b'P', &parse), "26000"), "42501");
            let parse = [b"\0", text.as_slice(), b"\0\0"].concat();
            assert_eq!(refused(&mut bounded(), (b'P', &parse), "26000"), "42501");
        }
        let query = (b'Q', b"SET search_path = theirs\0".as_slice());
        assert_eq!(refused(&mut bounded(), query, "25P02"), "25P02", "what Postgres says first is said");
    }

    #[test]
    fn who_listens_for_now_may_keep_nothing_else_beyond_the_limit() {
        let prepare = (b'Q', b"PREPARE p AS SELECT 1\0".as_slice());
        for listens in [true, false] {
            let mut talk = Talk::new(9);
            talk.exchange.pins_left = Some(PinsLeft { left: 1, of: 3, listens });
            talk.say(&messages(&[(b'Q', b"LISTEN a\0")]));
            talk.answer(&messages(&[(b'C', b"LISTEN\0"), (b'Z', b"T")]));
            // Unless that is counted itself.
            talk.exchange.pins_left = Some(PinsLeft { left: 0, of: 3, listens });
            if listens {
                assert_eq!(refused(&mut talk, prepare, "42703"), "53400");
            } else {
                assert_eq!(talk.say(&messages(&[prepare])), messages(&[prepare]));
            }
        }
    }

    /// As PostgreSQL 18 does it.
    #[test]
    fn a_server_that_reports_a_path_outside_the_tenant_is_nobodys() {
        for (path, allowed) in
            [(b"search_path\0mine, shared\0".as_slice(), true), (b"search_path\0theirs\0", false)]
        {
            let mut talk = bounded();
            talk.say(&messages(&[(b'Q', b"SELECT leave()\0")]));
            talk.answer(&messages(&[(b'C', b"SELECT 1\0"), (b'S', path), (b'Z', b"I")]));
            assert_eq!(talk.server.condemned, !allowed);
            assert_eq!(talk.server.strayed, !allowed);
            assert_eq!(
                talk.client.settings.params.value("search_path").is_some(),
                allowed,
                "it follows the client"
            );
        }
    }

    #[test]
    fn a_path_inside_the_tenant_goes_through() {
        for text in [
            "SET search_path = shared, mine",
            "SET search_path = ''",
            "SET search_path TO DEFAULT",
            "SELECT set_config('search_path', 'mine', true)",
        ] {
            let query = messages(&[(b'Q', &[text.as_bytes(), b"\0"].concat())]);
            assert_eq!(bounded().say(&query), query);
        }
    }

    #[test]
    fn one_pin_too_many_is_refused_and_one_that_is_there_may_grow() {
        let none = Some(PinsLeft { left: 0, of: 3, listens: false });
        let listen = (b'Q', b"LISTEN a\0".as_slice());
        let mut talk = Talk::new(9);
        talk.exchange.pins_left = none;
        assert_eq!(refused(&mut talk, listen, "42703"), "53400");
        assert!(!talk.server.pinned && talk.server.left_behind.is_none());
        let three = PinsLeft::new(3, 3).detail();
        assert!(three.contains(" 3 servers (") && three.contains("and all of them are kept: by"), "{three}");
        let one = PinsLeft::new(1, 1).detail();
        assert!(one.contains(" 1 server (") && one.contains("and it is kept: by temporary objects"), "{one}");
        assert!(one.contains("listens for all clients of the tenant counts as one"), "{one}");
        let mut talk = Talk::new(9);
        talk.exchange.pins_left = none;
        talk.server.pinned = true;
        assert_eq!(talk.say(&messages(&[listen])), messages(&[listen]));
        let mut talk = Talk::new(9);
        talk.exchange.pins_left = none;
        talk.say(&messages(&[(b'P', b"s\0LISTEN a\0\0\0"), SYNC]));
        talk.answer(&messages(&[(b'1', b""), (b'Z', b"I")]));
        assert_eq!(refused(&mut talk, (b'B', b"\0s\0\0\0\0\0\0\0"), "26000"), "53400");
    }

    /// Of what follows a refused message nothing is thrown away: or else the server would take later words for its rest.
    #[test]
    fn what_follows_a_refused_message_in_pieces_is_whole() {
        let refused = messages(&[(b'B', b"\0s\0\0\0\0\0\0\0")]);
        let next =
            messages(&[(b'P', b"\0SELECT 1\0\0\0"), (b'B', &[b"\0\0", &[b'x'; 100][..]].concat()), SYNC]);
        for at in 0..next.len() {
            let mut talk = Talk::new(9);
            talk.exchange.pins_left = Some(PinsLeft { left: 0, of: 3, listens: false });
            talk.say(&messages(&[(b'P', b"s\0LISTEN a\0\0\0"), SYNC]));
            talk.answer(&messages(&[(b'1', b""), (b'Z', b"I")]));
            let mut sent = talk.say(&[&refused, &next[..at]].concat());
            sent.extend(talk.say(&next[at..]));
            assert!(sent.ends_with(&next), "cut at {at}: {}", sent.escape_ascii());
        }
    }

    #[test]
    fn the_rest_of_a_refused_message_is_thrown_away() {
        let mut talk = Talk::new(9);
        talk.exchange.pins_left = Some(PinsLeft { left: 0, of: 3, listens: false });
        talk.say(&messages(&[(b'P', b"s\0LISTEN a\0\0\0"), SYNC]));
        talk.answer(&messages(&[(b'1', b""), (b'Z', b"I")]));
        let bind = messages(&[(b'B', b"\0s\0\0\0\0\x01\0\0\0\x04long\0\0")]);
        let stand_in = messages(&[(b'B', b"\0tenantry:refused\0\0\0\0\0\0\0")]);
        assert_eq!(talk.say(&bind[..20]), stand_in);
        assert_eq!(talk.say(&bind[20..22]), b"");
        let rest = [&bind[22..], &messages(&[SYNC])].concat();
        assert_eq!(talk.say(&rest), messages(&[SYNC]));
    }
}
