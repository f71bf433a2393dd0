//! Since when a client has been silent, and its transaction has run, for the tenant's time limits.
//!
//! Owns the two clocks of a client and the rule which limit runs when. Reads no clock: whenever a client says something, or
//! a transaction ends, its clock is only marked ([`UNSEEN`]), which costs one store. A slow sweep starts the clocks that
//! were marked, and looks at those that run. So a client is never sent away early, and at most two sweeps late.
//!
//! | what the client does | its silence | its transaction |
//! |---|---|---|
//! | waits for us: greeting, queue | stands | stands |
//! | parked, or keeping a server between transactions | runs | stands |
//! | in a transaction, answers outstanding | stands | runs |
//! | in a transaction, nothing outstanding | runs | runs |

use std::cell::Cell;
use std::time::Duration;

use crate::tenant::{TimeLimit, TimeLimits};
use crate::time::Moment;

/// What a client does, as far as time limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It waits for us: no limit of these runs.
    Waiting,
    /// It is between two transactions.
    Between(Keeps),
    /// It holds a server in a transaction.
    Transaction {
        /// It waits for an answer.
        busy: bool,
    },
}

/// What a client keeps between two transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Nothing, or its server because its mode is `session`, or for a moment.
    Nothing,
    /// Its server, because of what it has left there in transaction mode, or for replication.
    Pin,
    /// Its server, which streams.
    Stream,
}

/// The clocks of one client: when the sweep first saw what goes on now.
#[derive(Debug)]
pub(super) struct Clocks {
    silent_since: Cell<Moment>,
    begun_at: Cell<Moment>,
}

impl Clocks {
    /// Clocks that stand.
    pub(super) const fn new() -> Self {
        Self { silent_since: Cell::new(UNSEEN), begun_at: Cell::new(UNSEEN) }
    }

    /// The client has said something.
    pub(super) fn note_words(&self) {
        self.silent_since.set(UNSEEN);
    }

    /// What runs from here on is another transaction.
    pub(super) fn note_transaction(&self) {
        self.begun_at.set(UNSEEN);
    }

    /// Starts and stops the clocks by what the client does now. Returns the limit that it is over.
    pub(super) fn look(&self, doing: Doing, limits: &TimeLimits, now: Moment) -> Option<TimeLimit> {
        let (speaks, works) = match doing {
            Doing::Waiting => (true, false),
            Doing::Between(_) => (false, false),
            Doing::Transaction { busy } => (busy, true),
        };
        let silent = if speaks { stop(&self.silent_since) } else { run(&self.silent_since, now) };
        let begun = if works { run(&self.begun_at, now) } else { stop(&self.begun_at) };
        let over = |since: Option<Duration>, limit: &TimeLimit| {
            limits.of(*limit).zip(since).is_some_and(|(limit, since)| since >= limit)
        };
        let on_silence: &[TimeLimit] = match doing {
            Doing::Waiting => &[],
            Doing::Between(Keeps::Nothing | Keeps::Stream) => &[TimeLimit::ClientIdle],
            Doing::Between(Keeps::Pin) => &[TimeLimit::PinIdle, TimeLimit::ClientIdle],
            Doing::Transaction { .. } => &[TimeLimit::IdleTransaction],
        };
        let silence = on_silence.iter().find(|limit| over(silent, limit)).copied();
        silence.or_else(|| over(begun, &TimeLimit::Transaction).then_some(TimeLimit::Transaction))
    }
}

/// How often the clients are looked at, by the shortest limit there is.
pub(super) fn pace(shortest: Duration) -> Duration {
    (shortest / SWEEPS_PER_LIMIT).clamp(FASTEST, SLOWEST)
}

fn stop(clock: &Cell<Moment>) -> Option<Duration> {
    clock.set(UNSEEN);
    None
}

/// What a clock shows; one that stood starts now.
fn run(clock: &Cell<Moment>, now: Moment) -> Option<Duration> {
    if clock.get() == UNSEEN {
        clock.set(now);
    }
    Some(now.since(clock.get()))
}

/// A clock that stands.
const UNSEEN: Moment = Moment::NEVER;
/// Looking more often makes the limits more exact, and costs a cache miss per client and sweep.
const SWEEPS_PER_LIMIT: u32 = 20;
const FASTEST: Duration = Duration::from_millis(250);
const SLOWEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const PARKED: Doing = Doing::Between(Keeps::Nothing);
    const PINNED: Doing = Doing::Between(Keeps::Pin);
    const BUSY: Doing = Doing::Transaction { busy: true };
    const QUIET: Doing = Doing::Transaction { busy: false };

    fn limits() -> TimeLimits {
        let seconds = |n| Some(Duration::from_secs(n));
        TimeLimits {
            client_idle: seconds(8),
            idle_transaction: seconds(2),
            transaction: seconds(4),
            pin_idle: seconds(1),
        }
    }

    /// Sweeps once a second; a client that does this all the time is over a limit at that second.
    fn ends(doing: Doing, limits: &TimeLimits) -> Option<(u64, TimeLimit)> {
        let clocks = Clocks::new();
        (0..100).find_map(|second| {
            clocks.look(doing, limits, Moment(second * 1_000_000)).map(|limit| (second, limit))
        })
    }

    #[test]
    fn each_limit_is_for_what_it_says() {
        let all = limits();
        assert_eq!(ends(PARKED, &all), Some((8, TimeLimit::ClientIdle)));
        assert_eq!(ends(QUIET, &all), Some((2, TimeLimit::IdleTransaction)));
        assert_eq!(ends(BUSY, &all), Some((4, TimeLimit::Transaction)));
        assert_eq!(ends(PINNED, &all), Some((1, TimeLimit::PinIdle)));
        assert_eq!(ends(Doing::Waiting, &all), None);
        // A client with a pin is idle as well.
        let idle_only = TimeLimits { pin_idle: None, ..all };
        assert_eq!(ends(PINNED, &idle_only), Some((8, TimeLimit::ClientIdle)));
        let work_only = TimeLimits { idle_transaction: None, ..all };
        assert_eq!(ends(QUIET, &work_only), Some((4, TimeLimit::Transaction)));
        for doing in [PARKED, QUIET, BUSY, PINNED] {
            assert_eq!(ends(doing, &TimeLimits::default()), None, "no limit");
        }
    }

    #[test]
    fn a_client_that_speaks_is_not_silent() {
        let (clocks, limits) = (Clocks::new(), limits());
        for second in 0..100 {
            assert_eq!(clocks.look(PARKED, &limits, Moment(second * 1_000_000)), None);
            if second % 7 == 0 {
                clocks.note_words();
            }
        }
    }

    #[test]
    fn silence_begins_with_the_answer_and_not_with_the_question() {
        let (clocks, limits) = (Clocks::new(), TimeLimits { transaction: None, ..limits() });
        assert_eq!(clocks.look(QUIET, &limits, Moment(0)), None);
        assert_eq!(clocks.look(BUSY, &limits, Moment(5_000_000)), None);
        assert_eq!(clocks.look(QUIET, &limits, Moment(6_000_000)), None);
        assert_eq!(clocks.look(QUIET, &limits, Moment(7_999_999)), None);
        assert_eq!(clocks.look(QUIET, &limits, Moment(8_000_000)), Some(TimeLimit::IdleTransaction));
    }

    #[test]
    fn many_short_transactions_are_not_a_long_one() {
        let (clocks, limits) = (Clocks::new(), limits());
        for second in 0..100 {
            assert_eq!(clocks.look(BUSY, &limits, Moment(second * 1_000_000)), None);
            clocks.note_transaction();
        }
        let (clocks, mut second) = (Clocks::new(), 0);
        while second < 100 {
            for doing in [BUSY, BUSY, PARKED] {
                assert_eq!(clocks.look(doing, &limits, Moment(second * 1_000_000)), None);
                second += 1;
            }
        }
    }

    #[test]
    fn limits_that_come_later_do_not_count_what_was_not_seen() {
        let (clocks, limits) = (Clocks::new(), limits());
        // Nobody looked for an hour.
        assert_eq!(clocks.look(PARKED, &limits, Moment(3_600_000_000)), None);
        // Then nobody for another: meanwhile the client was there once.
        clocks.note_words();
        assert_eq!(clocks.look(PARKED, &limits, Moment(7_200_000_000)), None);
    }

    #[test]
    fn short_limits_are_looked_after_more_often() {
        assert_eq!(pace(Duration::from_millis(10)), Duration::from_millis(250));
        assert_eq!(pace(Duration::from_secs(20)), Duration::from_secs(1));
        assert_eq!(pace(Duration::from_secs(86_400)), Duration::from_secs(5));
    }
}
