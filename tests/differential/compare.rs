//! Compares two transcripts.
//!
//! Owns the whole list of what may differ between Postgres and the proxy, and nothing else may. Must not know scripts.
//!
//! | message | what is not compared | why |
//! |---|---|---|
//! | BackendKeyData | all of it | process ids and cancel keys are the proxy's own |
//! | ParameterStatus | the order of those next to each other | it is that of Postgres' table in one case, not in the other |
//! | NotificationResponse | the sender's process id | two sessions, two backends |
//! | the same | its place among ParameterStatus next to it | it comes from the tenant's listener, those from the server |
//! | RowDescription | the number of a table that was created during the test | two databases, two numbers |
//! | the answers to a request in a failed transaction | which error: 25P02 for any, 42601 for 25P02 | see below |
//! | ErrorResponse | the name in `prepared statement "name"`, if sessions give it | of two for a text it may be either |
//! | NoticeResponse 22P06 | whether it comes | a warning about a text comes where that text is prepared |
//! | ErrorResponse 57014 | the context | how far the query had come when it was cancelled |
//! | the answer behind a cancelled one | whether it is cancelled too | Postgres signals twice (`signal_child`) |
//!
//! In a failed transaction Postgres refuses most things with 25P02, and some with other errors before it comes to that: a
//! Bind with too few values, for example. Where the server lacks the client's statement the proxy puts a Parse in front,
//! and that is refused first; with 42601 if its words can be read only under the settings of then, which a server in a
//! failed transaction cannot be given.

use crate::author::NAMES;
use crate::player::Transcript;
use crate::support::Message;

/// Whether a request was cancelled.
fn is_cancelled(answer: &[Message]) -> bool {
    answer.iter().any(|message| message.tag == b'E' && message.fields().code == "57014")
}

/// The first difference of two transcripts.
#[derive(Debug)]
pub(crate) struct Difference {
    /// `None` is the greeting.
    pub(crate) step: Option<usize>,
    pub(crate) direct: Vec<Message>,
    pub(crate) proxied: Vec<Message>,
    pub(crate) why: String,
}

/// Tells two transcripts apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge {
    /// Tables with a greater number were created during the test.
    pub(crate) newest_table: u32,
}

impl Judge {
    pub(crate) fn first_difference(self, direct: &Transcript, proxied: &Transcript) -> Option<Difference> {
        if greeting(&direct.greeting) != greeting(&proxied.greeting) {
            let show = |from: &Transcript| from.greeting.clone();
            let (direct, proxied) = (show(direct), show(proxied));
            return Some(Difference { step: None, direct, proxied, why: "the greetings differ".into() });
        }
        let mut status = b'I';
        for (step, (left, right)) in direct.steps.iter().zip(&proxied.steps).enumerate() {
            if let Some(why) = self.in_step(left, right, &mut status) {
                let (direct, proxied) = (left.clone(), right.clone());
                return Some(Difference { step: Some(step), direct, proxied, why });
            }
        }
        if direct.broke_off.is_none() && proxied.broke_off.is_none() {
            return None;
        }
        // No script makes a session end early.
        let last = |from: &Transcript| from.steps.last().cloned().unwrap_or_default();
        let why = format!("direct broke off: {:?}, proxied: {:?}", direct.broke_off, proxied.broke_off);
        let step = direct.steps.len().min(proxied.steps.len()).checked_sub(1);
        Some(Difference { step, direct: last(direct), proxied: last(proxied), why })
    }

    /// What differs in the answers to one step; `status` is that of the transaction before it, and behind it.
    fn in_step(self, direct: &[Message], proxied: &[Message], status: &mut u8) -> Option<String> {
        let is_end = |message: &Message| message.tag == b'Z';
        let mut were_cancelled = false;
        let mut left = direct.split_inclusive(is_end);
        let mut right = proxied.split_inclusive(is_end);
        loop {
            let (one, other) = match (left.next(), right.next()) {
                (None, None) => return None,
                (one, other) => (one.unwrap_or_default(), other.unwrap_or_default()),
            };
            let is_failed = *status == b'E';
            *status = one.last().filter(|last| is_end(last)).map_or(*status, |last| last.body[0]);
            if is_failed && self.are_refused(one, other) {
                continue;
            }
            let cancelled = [one, other].map(is_cancelled);
            if std::mem::replace(&mut were_cancelled, cancelled == [true, true])
                && cancelled[0] != cancelled[1]
                && one.last() == other.last()
            {
                // The second signal came when the next request ran already.
                continue;
            }
            let (one, other) = (by_name(one), by_name(other));
            for at in 0..one.len().max(other.len()) {
                let (one, other) = (one.get(at).copied(), other.get(at).copied());
                if !matches!((one, other), (Some(one), Some(other)) if self.are_equal(one, other)) {
                    return Some(format!("message {at}: {one:?} and {other:?}"));
                }
            }
        }
    }

    /// Whether both are refused in a failed transaction, the proxied one with 25P02 and no later than the other.
    fn are_refused(self, direct: &[Message], proxied: &[Message]) -> bool {
        let [before @ .., error, end] = proxied else { return false };
        let is_error = |message: &&Message| message.tag == b'E';
        let is_aborted = |message: &Message| message.tag == b'E' && message.fields().code == "25P02";
        let is_unread = error.tag == b'E' && error.fields().code == "42601" && direct.iter().any(is_aborted);
        (is_aborted(error) || is_unread)
            && direct.last() == Some(end)
            && direct.iter().filter(is_error).count() == 1
            && direct.len() >= proxied.len()
            && before.iter().zip(direct).all(|(one, other)| self.are_equal(one, other))
    }

    fn are_equal(self, left: &Message, right: &Message) -> bool {
        left == right || left.tag == right.tag && self.normal(left) == self.normal(right)
    }

    /// The body without what is not compared.
    fn normal(self, message: &Message) -> Vec<u8> {
        let mut body = message.body.clone();
        match message.tag {
            b'A' => body[..4].fill(0),
            b'T' => self.forget_new_tables(&mut body),
            b'E' => {
                forget_statement(&mut body);
                if message.fields().code == "57014" {
                    body = body
                        .split(|byte| *byte == 0)
                        .filter(|field| !field.starts_with(b"W"))
                        .collect::<Vec<_>>()
                        .join(&0);
                }
            }
            _ => {}
        }
        body
    }

    fn forget_new_tables(self, body: &mut [u8]) {
        let columns = u16::from_be_bytes([body[0], body[1]]);
        let mut at = 2;
        for _ in 0..columns {
            at += body[at..].iter().position(|byte| *byte == 0).unwrap() + 1;
            let table = u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
            if table > self.newest_table {
                body[at..at + 4].fill(0xff);
            }
            at += 18;
        }
    }
}

/// Takes out the name of a prepared statement, if it is one that clients give.
fn forget_statement(body: &mut Vec<u8>) {
    let before = b"prepared statement \"";
    let Some(at) = body.windows(before.len()).position(|part| part == before) else { return };
    let name = at + before.len();
    let length = body[name..].iter().position(|byte| *byte == b'"').unwrap_or(0);
    if NAMES.iter().any(|given| given.as_bytes() == &body[name..name + length]) {
        body.drain(name..name + length);
    }
}

/// The messages, with ParameterStatus that are next to each other in the order of names, behind notifications.
fn by_name(messages: &[Message]) -> Vec<&Message> {
    let is_about_text = |message: &Message| message.tag == b'N' && message.fields().code == "22P06";
    let mut sorted: Vec<&Message> = messages.iter().filter(|message| !is_about_text(message)).collect();
    let is_news = |message: &Message| matches!(message.tag, b'A' | b'S');
    for run in sorted.chunk_by_mut(|one, other| is_news(one) && is_news(other)) {
        // Notifications keep their order.
        run.sort_by_key(|message| (message.tag == b'S').then_some(&message.body));
    }
    sorted
}

/// ParameterStatus by name, then the rest but the key.
fn greeting(messages: &[Message]) -> Vec<(u8, &[u8])> {
    let mut rest: Vec<(u8, &[u8])> = messages
        .iter()
        .filter(|message| message.tag != b'K')
        .map(|message| (message.tag, &*message.body))
        .collect();
    rest.sort_unstable_by_key(|message| (message.0 != b'S', *message));
    rest
}
