//! What a client hears through its tenant's listener, and how it got there without a gap.
//!
//! Owns the client's side of the switch from its own server to the listener, and the notifications that wait until the
//! client is between two transactions. Who listens is `pool`'s.
//!
//! A server tells what it hears in the order of one queue that all servers of the cluster share. So a *marker*, a
//! notification of ours, is at the same place among the others for every server that hears it: what the client's own
//! server tells before the marker and the listener behind it is everything, once.
//!
//! ```text
//!   client's server   a1 a2 b1 | M        (from here on not heard any more)
//!   listener             dropped | M  a3 b2 a4 ...
//!   client            a1 a2 b1        a3 b2 a4 ...
//! ```
//!
//! | switch | the next step | what ends it otherwise |
//! |---|---|---|
//! | `Idle` | the client's server is asked to listen to the marker | |
//! | `Marking` | it does: the listener is asked to listen to the client's channels and to send the marker | |
//! | | or, where there is none, the server becomes the listener | |
//! | `Asked` | the marker comes from the client's server: `Through` | what that listens to has changed: `Missed` |
//! | `Through` | the client's server is asked to listen no more, unless it listens to more by now | |
//! | `Returning` | the marker comes from the client's server, and from the listener | a rollback |
//!
//! *Returning* is the other way round: a client that hears through the listener and says LISTEN once more would hear from
//! two servers until it has come over with that, and nobody could tell in which order. So its server is asked, in the
//! client's own transaction, to listen to all that it hears, and to send the marker: the listener has what is before, the
//! server what is behind. Then it comes over with everything.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::task::Waker;

use super::exchange::Exchange;
use super::lexer::{ChannelStep, MAX_CHANNEL_STEPS, StateKind, Traces, channel_steps};
use super::sink::Sink;
use super::state::{ClientState, ServerState, TxStatus};
use super::upstream::Parties;
use crate::wire::frame::{self, HEADER_BYTES};

/// The name of a channel, as Postgres has it.
pub type Channel = Rc<[u8]>;
/// Some of them.
pub type Channels = BTreeSet<Channel>;

/// What one client hears through the listener of its tenant.
#[derive(Debug)]
pub struct Hearing {
    /// Its number among those who hear.
    pub place: usize,
    /// The channels that the listener has for it.
    pub channels: Channels,
    /// It has given up some that the listener still has for it.
    pub shrunk: bool,
    /// How far it is on the way from its own server to the listener.
    pub switch: Switch,
    /// The channel of the marker.
    pub marker: Channel,
    /// Where the listener puts what is for it.
    pub mailbox: Rc<RefCell<Mailbox>>,
    /// Whole messages that are written as soon as no transaction is open.
    pub due: Vec<u8>,
    /// Its own server has told the marker behind which it has everything: what the listener has before that comes first.
    pub awaits: Option<Return>,
    /// What its own server has told since.
    own: Vec<u8>,
    /// Its newest way back, unless that has been gone.
    back: Option<Return>,
    /// The number of the newest; no other client has one of its numbers, not even one that had the place before.
    returns: u64,
    /// The listener has been asked whether it has told everything; until it has, the answer waits.
    pub sync: Option<Return>,
    /// What its unnamed statement does to its channels, and whether it notifies.
    unnamed: (Vec<ChannelStep>, bool),
}

/// Where a client is on its way from its own server to the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Nowhere.
    Idle,
    /// Its server is asked to listen to the marker.
    Marking,
    /// The listener is asked to take these channels over and to send the marker with this number.
    Asked {
        /// The number.
        number: u64,
        /// What the client's server listens to that the listener did not have for it.
        channels: Channels,
    },
    /// The marker has come: from here on the listener has the channels.
    Through,
    /// What the server listens to has changed before the marker came: once more.
    Missed,
    /// The client's server is asked, in the client's transaction, to have everything from the marker on.
    Returning,
}

/// One way back from the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// Its number.
    pub number: u64,
    /// From which listener.
    pub listener: u64,
}

/// What waits for a client.
#[derive(Debug, Default)]
pub struct Mailbox {
    pub(super) ready: Vec<u8>,
    /// What is behind the marker, while the client's own server has not come to it.
    held: Vec<u8>,
    /// Which listener it is that tells; `None`: none that hears markers.
    pub listener: Option<u64>,
    /// The number of the last way back whose marker the listener has come to.
    pub returned: u64,
    /// The number of the last question whether it has told everything that it has answered.
    pub synced: u64,
    /// It was more than may wait.
    pub overflown: bool,
    /// The listener was lost before the client had come over.
    pub switch_lost: bool,
    waker: Option<Waker>,
}

impl Hearing {
    /// Of a client that hears nothing yet. `serial` is another one for each client.
    #[must_use]
    pub const fn new((place, serial): (usize, u32), marker: Channel, mailbox: Rc<RefCell<Mailbox>>) -> Self {
        Self {
            place,
            channels: Channels::new(),
            shrunk: false,
            switch: Switch::Idle,
            marker,
            mailbox,
            due: Vec::new(),
            awaits: None,
            own: Vec::new(),
            back: None,
            returns: (serial as u64) << 32,
            sync: None,
            unnamed: (Vec::new(), false),
        }
    }

    /// What of these channels the listener does not have for it.
    #[must_use]
    pub fn missing(&self, listened: &Channels) -> Channels {
        let known = |channel: &Channel| *channel == self.marker || self.channels.contains(channel);
        listened.iter().filter(|channel| !known(channel)).cloned().collect()
    }

    /// The client's server has told the marker. `settled`: it listens to what it was last said to listen to.
    fn marked(&mut self, payload: &[u8], settled: bool) {
        let is_back = |back: &Return| payload == return_payload(self.place, back.number).as_bytes();
        if let Some(back) = self.back.filter(is_back) {
            self.channels.clear();
            (self.back, self.awaits) = (None, Some(back));
            self.switch = match self.switch {
                Switch::Returning | Switch::Idle => Switch::Idle,
                _ => Switch::Missed,
            };
            return;
        }
        let Switch::Asked { number, channels } = &mut self.switch else { return };
        if payload != marker_payload(self.place, *number).as_bytes() {
            return;
        }
        if settled {
            self.channels.append(channels);
            self.switch = Switch::Through;
        } else {
            self.switch = Switch::Missed;
        }
    }

    /// The client's server has told what it listens to.
    pub(super) fn told(&mut self, listened: &Channels) {
        let Switch::Asked { channels, .. } = &self.switch else { return };
        if !listened.contains(&self.marker) || self.missing(listened) != *channels {
            self.switch = Switch::Missed;
        }
    }

    /// Moves what may be told now to where it is told from. Returns whether the listener was lost on the client's way back,
    /// and still counts it among those who hear.
    pub fn fetch(&mut self) -> bool {
        let mut mailbox = self.mailbox.borrow_mut();
        if self.due.is_empty() {
            self.due = std::mem::take(&mut mailbox.ready);
        }
        let Some(back) = self.awaits else { return false };
        let is_lost = mailbox.listener != Some(back.listener);
        if mailbox.returned == back.number || is_lost {
            self.due.append(&mut mailbox.ready);
            self.due.append(&mut self.own);
            self.awaits = None;
        }
        is_lost
    }

    /// Whether the listener has not told everything yet.
    fn must_wait(&mut self) -> bool {
        if self.channels.is_empty() {
            return false;
        }
        let mailbox = self.mailbox.borrow();
        let waits = match self.sync {
            None => mailbox.listener.is_some(),
            Some(asked) => mailbox.synced != asked.number && mailbox.listener == Some(asked.listener),
        };
        if !waits {
            self.sync = None;
        }
        waits
    }

    /// Asks the client's server, before the client's own LISTEN, for all that the client hears.
    fn put_return(
        &mut self,
        steps: &[ChannelStep],
        pending: impl Iterator<Item = ChannelStep>,
    ) -> Option<Vec<u8>> {
        let is_new = |step: &ChannelStep| matches!(step, ChannelStep::Listen(name) if !self.channels.contains(&**name));
        if self.switch != Switch::Idle || self.awaits.is_some() || !steps.iter().any(is_new) {
            return None;
        }
        let listener = self.mailbox.borrow().listener?;
        let channels = after(&self.channels, pending);
        if channels.is_empty() || channels.len() > MAX_RETURNING {
            return None;
        }
        self.returns = self.returns.wrapping_add(1);
        self.back = Some(Return { number: self.returns, listener });
        self.switch = Switch::Returning;
        let mut sql = Vec::new();
        for channel in channels.iter().chain([&self.marker]) {
            sql.extend([b"LISTEN ", &*quoted(channel), b";"].concat());
        }
        let payload = return_payload(self.place, self.returns);
        sql.extend([b"NOTIFY ", &*quoted(&self.marker), b",'", payload.as_bytes(), b"'"].concat());
        Some(sql)
    }

    /// What was said about channels has been committed.
    fn apply(&mut self, steps: impl Iterator<Item = ChannelStep>) {
        let left = after(&self.channels, steps);
        self.shrunk |= self.channels.len() != left.len();
        self.channels = left;
    }
}

/// What is left of these channels.
fn after(before: &Channels, steps: impl Iterator<Item = ChannelStep>) -> Channels {
    let mut channels = before.clone();
    for step in steps {
        match step {
            ChannelStep::UnlistenAll => channels.clear(),
            ChannelStep::Unlisten(name) => drop(channels.remove(&*name)),
            // It has not been given up after all: the listener goes on telling it.
            ChannelStep::Listen(name) => channels.extend(before.get(&*name).cloned()),
        }
    }
    channels
}

impl Mailbox {
    /// Who is to be woken when something comes.
    pub fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Wakes the client.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// A message for the client.
    pub fn push(&mut self, message: &[u8], is_held: bool) {
        let len = self.ready.len().saturating_add(self.held.len()).saturating_add(message.len());
        self.overflown |= len > MAX_UNREAD_BYTES;
        if !self.overflown {
            let messages = if is_held { &mut self.held } else { &mut self.ready };
            messages.extend_from_slice(message);
        }
        self.wake();
    }

    /// The client's own server has come to the marker: what is behind it may be told.
    pub fn release(&mut self) {
        self.ready.append(&mut self.held);
    }

    /// Throws away the notifications of other channels than these.
    pub fn keep_only(&mut self, channels: &Channels) {
        for messages in [&mut self.ready, &mut self.held] {
            let all = std::mem::take(messages);
            for (tag, body) in frames(&all) {
                if tag != b'A' || notification(body).is_some_and(|(channel, _)| channels.contains(channel)) {
                    frame::put(messages, tag, |out| out.extend_from_slice(body));
                }
            }
        }
    }
}

impl Exchange {
    /// Takes note of what a text that is about to be run does to channels that the listener has for the client.
    pub(super) fn note_channels(&mut self, parties: &mut Parties<'_>, text: &[u8], sink: &mut Sink<'_>) {
        if parties.client.hearing.is_some() {
            let steps = channel_steps(self.read(parties, text).text().unwrap_or_default());
            self.return_for(parties, &steps, sink);
            self.note_steps(steps);
        }
        if parties.client.hearing.is_some() && has_word(text, b"notify") {
            self.notifying.push(self.request_number());
        }
    }

    /// A client that hears through the listener is about to listen to more.
    fn return_for(&mut self, parties: &mut Parties<'_>, steps: &[ChannelStep], sink: &mut Sink<'_>) {
        let may_pass = self.may_pass(parties.client);
        // In a failed transaction, or in the middle of a segment, ours would fail, or end it.
        let may_ask = !self.unsynced && !self.ignoring && !self.copy_in && self.expect.are_own();
        if steps.is_empty() || !may_pass || !may_ask || parties.server.status == TxStatus::Failed {
            return;
        }
        let pending = self.channel_steps.iter().map(|(_, step)| step.clone());
        let sql = parties.client.hearing.as_mut().and_then(|hearing| hearing.put_return(steps, pending));
        if let Some(sql) = sql {
            self.own_query(&sql, sink.insert());
            // A simple query destroys the unnamed statement.
            parties.server.unnamed_of = None;
            // Whatever becomes of the client's own.
            parties.server.can_pass = true;
            parties.leave_behind(&Traces::listen());
        }
    }

    /// The same of a text that is prepared. What has to be asked before it runs has to be asked before its segment.
    pub(super) fn prepare_channels(
        &mut self,
        parties: &mut Parties<'_>,
        (name, text): (&[u8], &[u8]),
        sink: &mut Sink<'_>,
    ) {
        if parties.client.hearing.is_none() {
            return;
        }
        let steps = channel_steps(self.read(parties, text).text().unwrap_or_default());
        self.return_for(parties, &steps, sink);
        if let Some(hearing) = parties.client.hearing.as_mut().filter(|_| name.is_empty()) {
            hearing.unnamed = (steps, has_word(text, b"notify"));
        }
    }

    /// The client's unnamed statement is about to be run.
    pub(super) fn note_unnamed_channels(&mut self, parties: &mut Parties<'_>) {
        if let Some(hearing) = &mut parties.client.hearing {
            let (steps, notifies) = hearing.unnamed.clone();
            if notifies {
                self.notifying.push(self.request_number());
            }
            self.note_steps(steps);
        }
    }

    /// The number of the request that is being sent.
    /// Whether what the client says now waits for the answers to what it has said: what it has notified itself of must not
    /// come together with what it will.
    pub(super) fn notifies_itself(&self, client: &ClientState) -> bool {
        let begins =
            client.hearing.is_some() && !self.copy_in && !self.unsynced && self.expect.requests() > 0;
        begins && self.notifying.iter().any(|request| *request < self.request_number())
    }

    fn request_number(&self) -> usize {
        self.requests_answered.saturating_add(self.expect.requests()).saturating_add(1)
    }

    fn note_steps(&mut self, steps: Vec<ChannelStep>) {
        let request = self.request_number();
        // Who says more in one transaction goes on hearing what it has unlistened to.
        let room = MAX_CHANNEL_STEPS.saturating_sub(self.channel_steps.len());
        self.channel_steps.extend(steps.into_iter().take(room).map(|step| (request, step)));
    }

    /// A command of this tag is done.
    pub(super) fn look_for_channels(&mut self, tag: &[u8], client: &ClientState) {
        if client.hearing.is_none() {
            return;
        }
        if tag == b"ROLLBACK\0" {
            let request = self.requests_answered.saturating_add(1);
            self.channel_steps.retain(|(of, _)| *of > request);
        } else if tag == b"DISCARD ALL\0" {
            self.channel_steps.push((self.requests_answered.saturating_add(1), ChannelStep::UnlistenAll));
        }
    }

    /// A request has been answered; it is the last one of those that were sent.
    pub(super) fn settle_channels(&mut self, client: &mut ClientState, status: TxStatus, is_last: bool) {
        self.requests_answered = self.requests_answered.saturating_add(1);
        let Some(hearing) = client.hearing.as_mut().filter(|_| status == TxStatus::Idle) else { return };
        if hearing.switch == Switch::Returning {
            // The marker would have come before this: it was rolled back.
            hearing.switch = Switch::Idle;
        }
        let answered = self.requests_answered;
        let steps = std::mem::take(&mut self.channel_steps);
        let (done, open): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|(request, _)| is_last || *request <= answered);
        self.channel_steps = open;
        // What failed was rolled back.
        if !self.request_failed {
            hearing.apply(done.into_iter().map(|(_, step)| step));
        }
    }

    /// Whether a notification that the client's server tells is for the client now. What has come before it goes first.
    pub(super) fn is_for_client(
        body: &[u8],
        (client, server): (&mut ClientState, &ServerState),
        sink: &mut Sink<'_>,
    ) -> bool {
        let Some(hearing) = client.hearing.as_deref_mut() else { return true };
        let Some((channel, payload)) = notification(body) else { return true };
        if *channel == *hearing.marker {
            hearing.marked(payload, server.pinned && !server.doubted && !server.asking);
            return false;
        }
        if hearing.channels.contains(channel) {
            return false;
        }
        if hearing.awaits.is_some() {
            frame::put(&mut hearing.own, b'A', |out| out.extend_from_slice(body));
            hearing.mailbox.borrow_mut().overflown |= hearing.own.len() > MAX_UNREAD_BYTES;
            return false;
        }
        if !hearing.due.is_empty() {
            sink.insert().append(&mut hearing.due);
        }
        true
    }

    /// A transaction has ended: puts the notifications that have come before that. Returns whether the end can be told.
    pub(super) fn ends_transaction(&mut self, client: &mut ClientState, sink: &mut Sink<'_>) -> bool {
        let Some(hearing) = client.hearing.as_mut().filter(|_| !self.expect.head_is_held()) else {
            return true;
        };
        // What it has notified itself of is told before the answer, as Postgres does.
        let number = self.requests_answered.saturating_add(1);
        if self.notifying.iter().any(|request| *request <= number) {
            if hearing.must_wait() {
                return false;
            }
            self.notifying.retain(|request| *request > number);
        }
        hearing.due.append(&mut hearing.mailbox.borrow_mut().ready);
        if !hearing.due.is_empty() {
            sink.insert().append(&mut hearing.due);
        }
        true
    }

    /// Whether a client that listens need not keep its server for that.
    pub(super) fn may_pass(&self, client: &ClientState) -> bool {
        let value = |name| client.settings.params.value(name);
        // The listener tells the bytes of the database.
        self.pins_left.is_some_and(|pins| pins.listens)
            && value("client_encoding") == value("server_encoding")
    }
}

impl ServerState {
    /// Whether it is kept by LISTEN alone, which its client can do without it.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let by_listen = match self.doubted || self.asking {
            true => self.left_behind == Some(StateKind::Listen),
            false => !self.listened.is_empty(),
        };
        self.pinned && self.can_pass && by_listen && !self.kept_otherwise
    }

    /// It has been asked to listen to nothing any more.
    pub fn hears_no_more(&mut self) {
        self.listened.clear();
        if !self.kept_otherwise {
            self.pinned = false;
            self.left_behind = self.left_behind.filter(|kind| *kind >= StateKind::Unknown);
        }
    }
}

/// Channel and payload of a NotificationResponse.
#[must_use]
pub fn notification(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (channel, rest) = frame::split_cstr(body.get(4..)?)?;
    Some((channel, frame::split_cstr(rest)?.0))
}

/// Tag and body of each whole message.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let header = frame::peek(bytes).ok()??;
        let (message, rest) = bytes.split_at_checked(header.total_len())?;
        bytes = rest;
        Some((header.tag, message.get(HEADER_BYTES..)?))
    })
}

/// A channel's name as an identifier.
#[must_use]
pub fn quoted(channel: &[u8]) -> Vec<u8> {
    let mut name = vec![b'"'];
    for byte in channel {
        name.push(*byte);
        if *byte == b'"' {
            name.push(b'"');
        }
    }
    name.push(b'"');
    name
}

pub(super) fn has_word(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// Whether a way back of that number is that client's.
#[must_use]
pub const fn is_return_of(serial: u32, number: u64) -> bool {
    number >> 32 == serial as u64
}

/// What the marker of a way back says.
#[must_use]
pub fn return_payload(place: usize, number: u64) -> String {
    format!("{place} back {number}")
}

/// What the marker says.
#[must_use]
pub fn marker_payload(place: usize, number: u64) -> String {
    format!("{place} {number}")
}

/// Notifications that may wait for a client. Postgres lets 8 GB wait, on disk and for all.
pub const MAX_UNREAD_BYTES: usize = 1024 * 1024;
/// A client with more channels does not return for one more: until it has come over, the order of what comes on that one
/// and of what comes on the others is not certain.
const MAX_RETURNING: usize = 200;

#[cfg(test)]
mod tests;
