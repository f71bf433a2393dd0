//! Who holds the places for connections, and who leaves when somebody else comes.
//!
//! Owns the rule that a full house turns nobody away at the door: the guest who has been silent for longest goes, one who
//! waits for an answer only if there is nobody else. Must not know streams.
//!
//! | state | begins when | leaves before |
//! |---|---|---|
//! | asking | it has come; the answer went | the others, the longest silent one first |
//! | answering | the request is whole; the answer does not all go at once | only others of its kind |

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// A number of places.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    guests: Mutex<Slab<Guest>>,
    /// Somebody has left, or another one may be asked to.
    changed: Notify,
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Activity {
    /// A request is to come, or the rest of one.
    Asking,
    /// An answer is to go, or the rest of one.
    Answering,
}

#[derive(Debug)]
struct Guest {
    activity: Activity,
    /// When it last got on.
    since: Instant,
    /// When it was told to leave.
    told: Option<Instant>,
    waker: Option<Waker>,
}

/// A place that is taken, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    key: usize,
}

impl Places {
    /// As many places as that.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, guests: Mutex::default(), changed: Notify::new() })
    }

    /// Takes a place; in a full house, once somebody who was told to leave has left.
    ///
    /// Cancel-safe: whoever was told to leave leaves all the same.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Place> {
        loop {
            let pause = match self.try_take(Instant::now()) {
                Ok(place) => return place,
                Err(pause) => pause,
            };
            tokio::select! {
                () = self.changed.notified() => {}
                // Whoever was told may be slow to leave: then it is the next one's turn.
                () = sleep(pause) => {}
            }
        }
    }

    /// A place, or how long to wait for one before the next try.
    fn try_take(self: &Arc<Self>, now: Instant) -> Result<Arc<Place>, Duration> {
        let mut guests = self.guests.lock();
        if guests.len() < self.limit {
            let key =
                guests.insert(Guest { activity: Activity::Asking, since: now, told: None, waker: None });
            return Ok(Arc::new(Place { places: self.clone(), key }));
        }
        Err(make_room(&mut guests, now))
    }
}

/// Tells one to leave, unless another one has just been told. Returns how long to wait before the next try.
fn make_room(guests: &mut Slab<Guest>, now: Instant) -> Duration {
    let rest = |since: Instant| HEARING.saturating_sub(now.saturating_duration_since(since));
    let told = guests.iter().filter_map(|(_, guest)| guest.told).max();
    if let Some(told) = told.filter(|told| !rest(*told).is_zero()) {
        return rest(told);
    }
    let staying = guests.iter_mut().map(|(_, guest)| guest).filter(|guest| guest.told.is_none());
    let Some(guest) = staying.min_by_key(|guest| (guest.activity, guest.since)) else { return HEARING };
    if !rest(guest.since).is_zero() {
        return rest(guest.since);
    }
    guest.told = Some(now);
    if let Some(waker) = guest.waker.take() {
        waker.wake();
    }
    HEARING
}

impl Place {
    /// Notes that the connection has got on, and what comes now.
    pub(super) fn go_on(&self, activity: Activity) {
        if let Some(guest) = self.places.guests.lock().get_mut(self.key) {
            (guest.activity, guest.since) = (activity, Instant::now());
        }
        self.places.changed.notify_one();
    }

    /// Notes that an answer is there and cannot go. That is no progress.
    pub(super) fn wait_to_answer(&self) {
        if let Some(guest) = self.places.guests.lock().get_mut(self.key) {
            guest.activity = Activity::Answering;
        }
    }

    /// What the connection is at and since when; `None` if it has to leave. `waker` is called when it has to.
    pub(super) fn standing(&self, waker: &Waker) -> Option<(Activity, Instant)> {
        let mut guests = self.places.guests.lock();
        let guest = guests.get_mut(self.key).filter(|guest| guest.told.is_none())?;
        match &mut guest.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Some((guest.activity, guest.since))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.guests.lock().try_remove(self.key);
        self.places.changed.notify_one();
    }
}

/// What everybody gets to say a first word, however many are at the door; and the time to leave.
const HEARING: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    fn is_told(place: &Place) -> bool {
        place.standing(Waker::noop()).is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_full_house_the_longest_silent_one_is_told_to_leave() {
        let places = Places::new(3);
        let mut guests = Vec::new();
        for _ in 0..3 {
            guests.push(places.take().await);
            tokio::time::advance(HEARING).await;
        }
        guests[0].go_on(Activity::Asking);
        assert!(places.try_take(Instant::now()).is_err());
        assert_eq!(guests.iter().map(|guest| is_told(guest)).collect::<Vec<_>>(), [false, true, false]);
        guests.remove(1);
        assert!(places.try_take(Instant::now()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_leaves_last() {
        let places = Places::new(2);
        let (asked, silent) = (places.take().await, places.take().await);
        asked.go_on(Activity::Answering);
        tokio::time::advance(HEARING).await;
        silent.go_on(Activity::Asking);
        tokio::time::advance(HEARING).await;
        assert!(places.try_take(Instant::now()).is_err());
        assert_eq!((is_told(&asked), is_told(&silent)), (false, true));
        // One at a time.
        assert!(places.try_take(Instant::now()).is_err());
        assert!(!is_told(&asked));
        tokio::time::advance(HEARING).await;
        assert!(places.try_take(Instant::now()).is_err());
        assert!(is_told(&asked));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_come_is_heard() {
        let places = Places::new(1);
        let first = places.take().await;
        let now = Instant::now();
        assert_eq!(places.try_take(now).unwrap_err(), HEARING);
        assert!(!is_told(&first));
        assert_eq!(places.try_take(now + HEARING).unwrap_err(), HEARING);
        assert!(is_told(&first));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_told_is_woken_and_its_place_goes_to_who_waits() {
        let places = Places::new(1);
        let first = places.take().await;
        let told = async move {
            poll_fn(|cx| match first.standing(cx.waker()) {
                Some(_) => Poll::Pending,
                None => Poll::Ready(()),
            })
            .await;
        };
        tokio::join!(places.take(), told);
    }
}
