//! Who of a tenant's clients hears what through its listener.
//!
//! Owns the book: the clients, their channels and mailboxes, and what the listener is to be asked next. Knows no socket;
//! the server that listens is `listener`'s.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;
use tokio::sync::Notify;

use super::lease::Lease;
use crate::track::{
    Channel, Channels, Hearing, Mailbox, frames, is_return_of, marker_payload, notification, quoted,
};

/// A tenant's listener, as its clients see it.
#[derive(Debug, Default)]
pub struct Listening {
    pub(super) book: RefCell<Book>,
    pub(super) changed: Notify,
    marker: OnceCell<Channel>,
}

/// Where the server that listens is.
#[derive(Debug, Default)]
pub(super) enum Stage {
    /// There is none, and nobody looks for one.
    #[default]
    Off,
    /// It was lost. Another one is being looked for: a client's server is taken if one is offered.
    Lost,
    /// A client has offered its server.
    Offered(Lease),
    /// It is there, or about to be.
    On,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) stage: Stage,
    clients: Slab<Listed>,
    /// Who hears a channel, and whether it does already.
    by_channel: BTreeMap<Channel, BTreeMap<usize, Hears>>,
    /// What the listener listens to, or is being asked to.
    listened: Channels,
    /// Markers that it is to send.
    markers: Vec<(usize, u64)>,
    /// Clients that wait until it has told everything that was committed before they asked, and those among them that its
    /// next answer is for.
    syncs: [Vec<(usize, u64)>; 2],
    loss: Loss,
    /// There may be something that it is to be asked.
    is_stale: bool,
    switches: u64,
    serial: u32,
    /// The number of the listener, while it hears markers.
    ready: Option<u64>,
    listeners: u64,
}

/// One client.
#[derive(Debug)]
struct Listed {
    serial: u32,
    mailbox: Rc<RefCell<Mailbox>>,
    channels: Channels,
    joining: Option<Joining>,
    /// It has heard through a listener that was lost, and has not been told.
    is_behind: bool,
}

/// A client on its way from its own server to the listener.
#[derive(Debug)]
struct Joining {
    number: u64,
    channels: Channels,
    /// The listener has come to the marker.
    passed: bool,
    /// The client's server has.
    left: bool,
}

/// Whether the listener before this one was lost, and its clients have not been told.
///
/// A client's server that becomes the listener may have what they have heard already in its socket. So they hear nothing of
/// it before a marker that was sent after the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Loss {
    #[default]
    None,
    /// It has not been asked to listen to everything yet.
    Unasked,
    /// It has, and to send the marker behind that.
    Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    Now,
    BehindMarker,
}

impl Listening {
    /// Whether there is a listener that a client can go over to.
    #[must_use]
    pub fn is_on(&self) -> bool {
        matches!(self.book.borrow().stage, Stage::On | Stage::Offered(_))
    }

    /// How many clients hear through it.
    #[must_use]
    pub fn clients(&self) -> u32 {
        u32::try_from(self.book.borrow().clients.len()).unwrap_or(u32::MAX)
    }

    /// Puts a client into the book.
    #[must_use]
    pub fn enter(&self, waker: &Waker) -> Hearing {
        let mailbox: Rc<RefCell<Mailbox>> = Rc::default();
        mailbox.borrow_mut().set_waker(waker);
        mailbox.borrow_mut().listener = self.book.borrow().ready;
        let mut book = self.book.borrow_mut();
        book.serial = book.serial.wrapping_add(1);
        let (channels, joining, is_behind) = (Channels::new(), None, false);
        let serial = book.serial;
        let listed = Listed { serial, mailbox: mailbox.clone(), channels, joining, is_behind };
        Hearing::new((book.clients.insert(listed), serial), self.marker(), mailbox)
    }

    /// Takes a client out.
    pub fn leave(&self, place: usize) {
        self.book.borrow_mut().leave(place);
        self.changed();
    }

    /// The client goes over to the listener with these channels. Returns the number of the marker.
    pub fn join(&self, place: usize, channels: &Channels) -> u64 {
        let number = self.book.borrow_mut().join(place, channels);
        self.changed();
        number
    }

    /// The client's own server has come to the marker.
    pub fn complete(&self, place: usize) {
        self.book.borrow_mut().complete(place);
    }

    /// The client stays with its server for now.
    pub fn abort(&self, place: usize) {
        self.book.borrow_mut().abort(place);
        self.changed();
    }

    /// Asks whether the listener has told everything that has been committed. Returns the number of the question.
    pub fn sync(&self, place: usize) -> u64 {
        let number = self.book.borrow_mut().sync(place);
        self.changed();
        number
    }

    /// The client hears through its own server again.
    pub fn strike(&self, place: usize) {
        self.book.borrow_mut().strike(place);
        self.changed();
    }

    /// The client has given up all other channels.
    pub fn keep_only(&self, place: usize, channels: &Channels) {
        self.book.borrow_mut().keep_only(place, channels);
        self.changed();
    }

    /// The channel of the marker: nobody else can name it.
    #[must_use]
    pub fn marker(&self) -> Channel {
        let marker = self.marker.get_or_init(|| {
            let mut bytes = [0; 16];
            // Without random bytes somebody in the same database could confuse the tenant's listener.
            let _ = aws_lc_rs::rand::fill(&mut bytes);
            format!("tenantry_{:032x}", u128::from_ne_bytes(bytes)).into_bytes().into()
        });
        marker.clone()
    }

    /// Something has changed that the listener should look at.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }
}

impl Book {
    /// A client's own server becomes the listener: it has the client's channels already.
    pub(super) fn found(&mut self, place: usize, channels: &Channels) {
        let Some(client) = self.clients.get_mut(place) else { return };
        self.is_stale = true;
        client.channels.extend(channels.iter().cloned());
        for channel in channels {
            self.by_channel.entry(channel.clone()).or_default().insert(place, Hears::Now);
        }
    }

    fn leave(&mut self, place: usize) {
        let Some(client) = self.clients.try_remove(place) else { return };
        self.is_stale = true;
        let joining = client.joining.iter().flat_map(|joining| &joining.channels);
        for channel in client.channels.iter().chain(joining) {
            strike(&mut self.by_channel, channel, place);
        }
        self.markers.retain(|(of, _)| *of != place);
    }

    fn join(&mut self, place: usize, channels: &Channels) -> u64 {
        self.switches = self.switches.wrapping_add(1);
        let number = self.switches;
        self.is_stale = true;
        if let Some(client) = self.clients.get_mut(place) {
            client.joining = Some(Joining { number, channels: channels.clone(), passed: false, left: false });
            for channel in channels {
                self.by_channel.entry(channel.clone()).or_default().insert(place, Hears::BehindMarker);
            }
            self.markers.push((place, number));
        }
        number
    }

    fn complete(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let Some(joining) = &mut client.joining else { return };
        joining.left = true;
        if joining.passed {
            client.channels.append(&mut joining.channels);
            client.joining = None;
            client.mailbox.borrow_mut().release();
        }
    }

    /// The listener has come to a marker: from here on the client hears it.
    fn pass(&mut self, place: usize, number: u64) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let Some(joining) = client.joining.as_mut().filter(|joining| joining.number == number) else {
            return;
        };
        joining.passed = true;
        for channel in &joining.channels {
            if let Some(hears) = self.by_channel.get_mut(channel).and_then(|all| all.get_mut(&place)) {
                *hears = Hears::Now;
            }
        }
        if joining.left {
            self.complete(place);
        }
    }

    fn sync(&mut self, place: usize) -> u64 {
        self.switches = self.switches.wrapping_add(1);
        self.is_stale = true;
        let [syncs, _] = &mut self.syncs;
        syncs.push((place, self.switches));
        self.switches
    }

    /// The listener has answered: it was idle, and has told everything.
    pub(super) fn answered(&mut self) {
        let [_, asked] = &mut self.syncs;
        for (place, number) in std::mem::take(asked) {
            if let Some(client) = self.clients.get(place) {
                let mut mailbox = client.mailbox.borrow_mut();
                mailbox.synced = number;
                mailbox.wake();
            }
        }
    }

    /// The listener has come to where the client's own server has everything from.
    fn returned(&mut self, place: usize, number: u64) {
        if !self.clients.get(place).is_some_and(|client| is_return_of(client.serial, number)) {
            // Of one that had the place before.
            return;
        }
        self.strike(place);
        if let Some(client) = self.clients.get(place) {
            let mut mailbox = client.mailbox.borrow_mut();
            mailbox.returned = number;
            mailbox.wake();
        }
    }

    fn strike(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        self.is_stale = true;
        for channel in std::mem::take(&mut client.channels) {
            strike(&mut self.by_channel, &channel, place);
        }
    }

    /// The listener hears markers.
    pub(super) fn make_ready(&mut self) {
        if self.ready.is_none() {
            self.listeners = self.listeners.wrapping_add(1);
            self.tell_ready(Some(self.listeners));
        }
    }

    fn tell_ready(&mut self, ready: Option<u64>) {
        self.ready = ready;
        for (_, client) in &self.clients {
            client.mailbox.borrow_mut().listener = ready;
        }
    }

    fn abort(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let Some(joining) = client.joining.take() else { return };
        self.is_stale = true;
        for channel in &joining.channels {
            strike(&mut self.by_channel, channel, place);
        }
        self.markers.retain(|(of, _)| *of != place);
        let mut mailbox = client.mailbox.borrow_mut();
        mailbox.keep_only(&client.channels);
        mailbox.release();
    }

    fn keep_only(&mut self, place: usize, channels: &Channels) {
        let Some(client) = self.clients.get_mut(place) else { return };
        self.is_stale = true;
        for channel in client.channels.difference(channels) {
            strike(&mut self.by_channel, channel, place);
        }
        client.channels.retain(|channel| channels.contains(channel));
        let mut kept = client.channels.clone();
        if let Some(joining) = &mut client.joining {
            if joining.left {
                for channel in joining.channels.difference(channels) {
                    strike(&mut self.by_channel, channel, place);
                }
                joining.channels.retain(|channel| channels.contains(channel));
            }
            kept.extend(joining.channels.iter().cloned());
        }
        client.mailbox.borrow_mut().keep_only(&kept);
    }

    /// Whether anybody hears anything.
    pub(super) fn is_wanted(&self) -> bool {
        !self.by_channel.is_empty()
    }

    /// What the listener is to be asked next; `None` if nothing. `marker` is quoted already.
    pub(super) fn batch(&mut self, marker: &[u8]) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.is_stale) {
            return None;
        }
        let mut sql = Vec::new();
        let has_room = |sql: &Vec<u8>| sql.len() < MAX_BATCH_BYTES;
        let more: Vec<_> =
            self.by_channel.keys().filter(|channel| !self.listened.contains(*channel)).cloned().collect();
        for channel in more {
            if !has_room(&sql) {
                self.is_stale = true;
                return Some(sql);
            }
            put(&mut sql, b"LISTEN ", &quoted(&channel), b"");
            self.listened.insert(channel);
        }
        let less: Vec<_> =
            self.listened.iter().filter(|channel| !self.by_channel.contains_key(*channel)).cloned().collect();
        for channel in less {
            if !has_room(&sql) {
                self.is_stale = true;
                break;
            }
            put(&mut sql, b"UNLISTEN ", &quoted(&channel), b"");
            self.listened.remove(&channel);
        }
        // Only now: what a marker is for is listened to by then.
        if self.loss == Loss::Unasked {
            self.loss = Loss::Asked;
            put(&mut sql, b"NOTIFY ", marker, format!(",'{BEGIN}{}'", self.listeners).as_bytes());
        }
        let room = MAX_BATCH_BYTES.saturating_sub(sql.len()) / MARKER_BYTES;
        let due = self.markers.len().min(room.max(1));
        for (place, number) in self.markers.drain(..due) {
            let payload = format!(",'{}'", marker_payload(place, number));
            put(&mut sql, b"NOTIFY ", marker, payload.as_bytes());
        }
        self.is_stale |= !self.markers.is_empty();
        let [syncs, asked] = &mut self.syncs;
        asked.append(syncs);
        (!sql.is_empty() || !asked.is_empty()).then_some(sql)
    }

    /// Nobody wants a listener any more.
    pub(super) fn close(&mut self) {
        self.stage = Stage::Off;
        self.listened.clear();
        self.tell_ready(None);
        self.loss = Loss::None;
        for (_, client) in &mut self.clients {
            client.is_behind = false;
        }
    }

    /// The listener begins to listen to these.
    pub(super) fn set_listened(&mut self, channels: Channels) {
        self.listened = channels;
        self.is_stale = true;
    }

    /// A notification. Returns how many clients got it.
    pub(super) fn dispatch(&mut self, message: &[u8], marker: &Channel) -> u64 {
        let Some((_, body)) = frames(message).next() else { return 0 };
        let Some((channel, payload)) = notification(body) else { return 0 };
        if *channel == **marker {
            match read_marker(payload) {
                Some(Mark::Back(place, number)) => self.returned(place, number),
                Some(Mark::Pass(place, number)) => self.pass(place, number),
                Some(Mark::Begin(number)) if self.ready == Some(number) => self.loss = Loss::None,
                Some(Mark::Begin(_)) | None => {}
            }
            return 0;
        }
        let Some(hearers) = self.by_channel.get(channel) else { return 0 };
        let mut count = 0_u64;
        for (place, _) in hearers.iter().filter(|(_, hears)| **hears == Hears::Now) {
            if let Some(client) = self.clients.get(*place).filter(|client| !client.is_behind) {
                let is_held = client.joining.as_ref().is_some_and(|joining| joining.passed);
                client.mailbox.borrow_mut().push(message, is_held);
                count = count.saturating_add(1);
            }
        }
        count
    }

    /// The listener is lost. Who was coming over stays where it is.
    pub(super) fn lose(&mut self) {
        self.stage = Stage::Lost;
        self.markers.clear();
        self.loss = Loss::Unasked;
        self.syncs = Default::default();
        self.listened.clear();
        self.is_stale = true;
        self.tell_ready(None);
        let places: Vec<_> = self.clients.iter().map(|(place, _)| place).collect();
        for place in places {
            let Some(client) = self.clients.get_mut(place) else { continue };
            client.is_behind |= !client.channels.is_empty();
            // One whose server has come to the marker already has given it up: all that is missing is behind the marker.
            let came_over = client.joining.as_mut().filter(|joining| joining.left).map(|joining| {
                joining.passed = true;
                client.is_behind = true;
            });
            if came_over.is_some() {
                let channels = client.joining.iter().flat_map(|joining| joining.channels.clone()).collect();
                self.complete(place);
                self.found(place, &channels);
            } else {
                client.mailbox.borrow_mut().switch_lost |= client.joining.is_some();
                self.abort(place);
            }
            if let Some(client) = self.clients.get(place) {
                client.mailbox.borrow().wake();
            }
        }
    }

    /// Whether the listener has everything that the one before it had, and tells nothing any more that that may have told.
    pub(super) fn is_restored(&self) -> bool {
        self.loss == Loss::None
    }

    /// Tells those who heard through the listener that was lost. From here on they hear this one.
    pub(super) fn tell_behind(&mut self, notice: &[u8]) {
        for (_, client) in self.clients.iter_mut().filter(|(_, client)| client.is_behind) {
            client.is_behind = false;
            client.mailbox.borrow_mut().push(notice, false);
        }
    }
}

fn strike(by_channel: &mut BTreeMap<Channel, BTreeMap<usize, Hears>>, channel: &Channel, place: usize) {
    if let Some(hearers) = by_channel.get_mut(channel) {
        hearers.remove(&place);
        if hearers.is_empty() {
            by_channel.remove(channel);
        }
    }
}

fn put(sql: &mut Vec<u8>, verb: &[u8], channel: &[u8], rest: &[u8]) {
    for part in [verb, channel, rest, b";"] {
        sql.extend_from_slice(part);
    }
}

/// What a marker says.
enum Mark {
    /// From here on the client in this place hears the listener.
    Pass(usize, u64),
    /// From here on its own server.
    Back(usize, u64),
    /// From here on what the listener with this number tells is news to those who heard the one before it.
    Begin(u64),
}

fn read_marker(payload: &[u8]) -> Option<Mark> {
    let payload = std::str::from_utf8(payload).ok()?;
    if let Some(number) = payload.strip_prefix(BEGIN) {
        return Some(Mark::Begin(number.parse().ok()?));
    }
    let (place, number) = payload.split_once(' ')?;
    let (place, back) = (place.parse().ok()?, number.strip_prefix("back "));
    Some(match back {
        Some(number) => Mark::Back(place, number.parse().ok()?),
        None => Mark::Pass(place, number.parse().ok()?),
    })
}

const BEGIN: &str = "begin ";
/// What one query to the listener may have: it is written without being read by then, so it must fit into a socket.
const MAX_BATCH_BYTES: usize = 16 * 1024;
const MARKER_BYTES: usize = 100;

#[cfg(test)]
mod tests;
