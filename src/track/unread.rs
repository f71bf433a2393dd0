//! Messages that are forwarded before they are whole: what they may set is looked for as they pass.
//!
//! Owns the names of custom settings in long texts and long Binds. Which other settings changed the server's own view
//! tells; custom ones can only be asked for by name.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::answers::Texts;
use super::exchange::Exchange;
use super::functions::Says;
use super::lexer::{MAX_CUSTOM_NAMES, Skim, Traces};
use super::state::ServerState;
use super::upstream::Parties;
use crate::wire::frame::HEADER_BYTES;

/// What is passing.
#[derive(Debug)]
pub(super) enum Unread {
    /// A simple query.
    Query(Skim),
    /// An unnamed Parse: what it sets is set when it is bound.
    Parse(Skim),
    /// The parameters of a Bind.
    Bind(Texts),
}

impl Exchange {
    /// A message that begins like this is not read whole.
    pub(super) fn pass_unread(&mut self, mut unread: Unread, message: &[u8]) {
        unread.feed(message.get(HEADER_BYTES..).unwrap_or_default());
        self.unread = Some(Box::new(unread));
    }

    /// A statement that sets what its parameters name is bound with these (from the formats on), or begins to be.
    pub(super) fn look_for_names(&mut self, parties: &mut Parties<'_>, parameters: &[u8], is_whole: bool) {
        let mut texts = Texts::default();
        texts.feed(parameters);
        if is_whole {
            parties.server.may_set(&texts.into_names());
        } else {
            self.unread = Some(Box::new(Unread::Bind(texts)));
        }
    }

    /// It goes on; `client_rest` bytes of it are still to come.
    pub(super) fn pass_on(&mut self, piece: &[u8], parties: &mut Parties<'_>) {
        let Some(unread) = &mut self.unread else { return };
        unread.feed(piece);
        if self.client_rest > 0 {
            return;
        }
        match self.unread.take().map(|unread| *unread) {
            Some(Unread::Query(skim)) => {
                if skim.makes() && parties.client.functions.is_watched() {
                    parties.client.functions.forget();
                    parties.server.makes_functions = true;
                }
                parties.server.may_set(&skim.into_names());
                // Nobody has read which functions it runs.
                parties.server.blind = true;
            }
            Some(Unread::Parse(skim)) => {
                let makes = skim.makes() && parties.client.functions.is_watched();
                parties.client.unnamed_says = Says::anything().making(makes);
                let traces = Traces { custom: skim.into_names(), ..Traces::unknown() };
                parties.client.unnamed_leaves = Some(Rc::new(traces));
            }
            Some(Unread::Bind(texts)) => parties.server.may_set(&texts.into_names()),
            None => {}
        }
    }
}

impl Unread {
    fn feed(&mut self, piece: &[u8]) {
        match self {
            Self::Query(skim) | Self::Parse(skim) => skim.feed(piece),
            Self::Bind(texts) => texts.feed(piece),
        }
    }
}

impl ServerState {
    /// These custom settings may be set, if they are settings at all: they are asked for with all others.
    pub(super) fn may_set(&mut self, names: &BTreeSet<Box<str>>) {
        if names.is_empty() {
            return;
        }
        self.may_have.extend(names.iter().cloned());
        self.may_have.sort();
        self.may_have.dedup();
        if self.may_have.len() > MAX_CUSTOM_NAMES {
            // One that is not asked for cannot be carried.
            self.may_have.truncate(MAX_CUSTOM_NAMES);
            self.holds_unknown = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{READY, Talk, messages};

    #[test]
    fn more_names_than_can_be_asked_for_keep_the_client() {
        for (count, keeps) in [(400, false), (600, true)] {
            let text: String = (0..count).map(|n| format!("SET my.name_{n:050} = '{n:050}';")).collect();
            let bytes = messages(&[(b'Q', format!("{text}\0").as_bytes())]);
            let mut talk = Talk::new(9);
            let sent: Vec<u8> = bytes.chunks(20_000).flat_map(|piece| talk.say(piece)).collect();
            assert_eq!(sent, bytes);
            talk.answer(&messages(&[(b'C', b"SET\0"), READY]));
            let mut out = Vec::new();
            talk.exchange.settle(&talk.client, &mut talk.server, &mut out);
            let last = format!("my.name_{:050}", 399);
            assert!(memchr::memmem::find(&out, last.as_bytes()).is_some());
            talk.answer(&messages(&[(b'T', b""), (b'C', b"SELECT 0\0"), READY]));
            assert_eq!(talk.server.holds_more, keeps, "{count}");
        }
    }

    /// A cancel that comes late may hit the question.
    #[test]
    fn names_are_asked_for_again_if_the_question_is_cancelled() {
        let text: String = (0..60).map(|n| format!("SET my.name_{n} = 'x';")).collect();
        let mut talk = Talk::new(9);
        talk.say(&messages(&[(b'Q', format!("{text}\0").as_bytes())]));
        talk.answer(&messages(&[(b'C', b"SET\0"), READY]));
        for _ in 0..3 {
            let mut out = Vec::new();
            talk.exchange.settle(&talk.client, &mut talk.server, &mut out);
            for n in 0..60 {
                let name = format!("my.name_{n}'");
                assert!(memchr::memmem::find(&out, name.as_bytes()).is_some(), "{}", out.escape_ascii());
            }
            while talk.exchange.outstanding() > 0 {
                talk.answer(&messages(&[(b'E', b"SERROR\0C57014\0\0"), READY]));
            }
        }
    }
}
