//! One budget for several schedulers: how capacity moves between workers that share a cluster.
//!
//! Owns how much of the total each worker may use at most, including what it may still be using of an older capacity.
//! Speaks in messages only: workers say what they have and need, and that a capacity has taken effect; the exchange
//! answers with new capacities. It shrinks before it grows: what one worker gives up is given to another only after
//! the first has said that it is really within its new capacity, so the sum never exceeds the total at any instant,
//! however long messages are under way (each worker's must stay in order). Must not know tenants.
//!
//! ```text
//!             SetCapacity(less)                Settled
//!  Steady ──────────────────────► Changing ──────────────► Steady
//!             SetCapacity(more), if the total has room for both at once
//! ```

use std::cmp::Reverse;

use super::tenants::Band;

/// What a scheduler lacks: so many tenants of its best waiting band want a server and cannot have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How much it matters.
    pub band: Band,
    /// How many servers would help, rounded up to a power of two so that it changes rarely.
    pub slots: u32,
}

/// What a worker says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Servers that are leased or logging in.
    pub committed: u32,
    /// Servers under reserves, which it is not to lose.
    pub reserved: u32,
    /// What it lacks.
    pub need: Option<Need>,
    /// It was told long ago to give something up and could not: its leases last.
    pub stuck: bool,
}

/// A message to the worker: its new capacity, to be given to its scheduler as `SetCapacity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Which worker, by number.
    pub worker: usize,
    /// What it may have.
    pub capacity: u32,
}

/// How the capacity of one cluster is divided among workers.
#[derive(Clone, Debug)]
pub struct Exchange {
    total: u32,
    seats: Vec<Seat>,
}

/// What the exchange knows of one worker.
#[derive(Clone, Copy, Debug)]
struct Seat {
    /// What the worker was told last.
    capacity: u32,
    /// What it may still be using; `capacity` once that is settled.
    bound: u32,
    settled: bool,
    standing: Standing,
}

impl Exchange {
    /// Divides the total evenly; [`Exchange::capacity`] says what each scheduler begins with.
    #[must_use]
    pub fn new(total: u32, workers: usize) -> Self {
        let mut exchange = Self { total, seats: Vec::new() };
        let count = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let (each, rest) = (total / count, total % count);
        for number in 0..count {
            let capacity = each.saturating_add(u32::from(number < rest));
            let seat = Seat { capacity, bound: capacity, settled: true, standing: Standing::default() };
            exchange.seats.push(seat);
        }
        exchange
    }

    /// What a worker was told last.
    #[must_use]
    pub fn capacity(&self, worker: usize) -> u32 {
        self.seats.get(worker).map_or(0, |seat| seat.capacity)
    }

    /// What all workers together may be using: never more than the total, unless that was lowered and is not reached.
    #[must_use]
    pub fn bound(&self) -> u32 {
        self.seats.iter().fold(0, |sum, seat| sum.saturating_add(seat.bound))
    }

    /// A worker said what it has and needs.
    pub fn handle_standing(&mut self, worker: usize, standing: Standing, out: &mut Vec<Instruction>) {
        let Some(seat) = self.seats.get_mut(worker) else { return };
        seat.standing = standing;
        self.balance(out);
    }

    /// A worker said that this capacity holds: it uses no more.
    pub fn handle_settled(&mut self, worker: usize, capacity: u32, out: &mut Vec<Instruction>) {
        let Some(seat) = self.seats.get_mut(worker) else { return };
        // One that takes something comes behind an answer only, so a matching answer is the answer to the last.
        if seat.settled || seat.capacity != capacity {
            return;
        }
        seat.settled = true;
        seat.standing.stuck = false;
        seat.bound = capacity;
        self.balance(out);
    }

    /// The cluster's total changes.
    pub fn handle_total(&mut self, total: u32, out: &mut Vec<Instruction>) {
        self.total = total;
        self.balance(out);
    }

    /// Gives what is free to those in need, and takes back from those that need it less.
    fn balance(&mut self, out: &mut Vec<Instruction>) {
        self.shrink_to_total(out);
        self.give(out);
        self.take(out);
    }

    /// Takes back what the total does not cover any more, evenly from the largest.
    fn shrink_to_total(&mut self, out: &mut Vec<Instruction>) {
        loop {
            let told = self.seats.iter().fold(0_u32, |sum, seat| sum.saturating_add(seat.capacity));
            let excess = told.saturating_sub(self.total);
            let settled = self.seats.iter().enumerate().filter(|(_, seat)| seat.settled && seat.capacity > 0);
            let largest = settled.max_by_key(|(worker, seat)| (seat.capacity, Reverse(*worker)));
            let Some((worker, seat)) = largest.filter(|_| excess > 0) else { return };
            let part = excess.div_ceil(u32::try_from(self.seats.len()).unwrap_or(u32::MAX).max(1));
            self.instruct(worker, seat.capacity.saturating_sub(part.max(1)), out);
        }
    }

    /// Gives unused capacity to the neediest; without need, to the smallest, so that nothing lies about.
    fn give(&mut self, out: &mut Vec<Instruction>) {
        loop {
            let unused = self.total.saturating_sub(self.bound());
            let seats = self.seats.iter().enumerate();
            let first = seats.min_by_key(|(worker, seat)| (urgency(seat), seat.capacity, *worker));
            // Who comes first is waited for: passing it over would send capacity in circles.
            let Some((worker, seat)) = first.filter(|(_, seat)| unused > 0 && seat.settled) else { return };
            let slots = seat.standing.need.map_or(unused, |need| need.slots.min(unused));
            self.instruct(worker, seat.capacity.saturating_add(slots.max(1)), out);
        }
    }

    /// Takes capacity from the worker that needs it least, while what is under way does not cover the need.
    fn take(&mut self, out: &mut Vec<Instruction>) {
        let Some((needy, need)) = self.neediest() else { return };
        let Some(Seat { settled, capacity, .. }) = self.seats.get(needy).copied() else { return };
        if !settled {
            return self.take_nothing_from(needy, out);
        }
        // What long leases keep may come at any time, or never: nobody waits for it.
        let gives = |seat: &&Seat| seat.settled || !seat.standing.stuck;
        let mut coming =
            self.seats.iter().filter(gives).fold(self.total.saturating_sub(self.bound()), |sum, seat| {
                sum.saturating_add(seat.bound.saturating_sub(seat.capacity))
            });
        while coming < need.slots {
            let expected = capacity.saturating_add(coming);
            let Some((donor, slots)) = self.donor(needy, need.band, expected) else { return };
            let slots = slots.min(need.slots.saturating_sub(coming)).max(1);
            coming = coming.saturating_add(slots);
            self.instruct(donor, self.capacity(donor).saturating_sub(slots), out);
        }
    }

    /// A worker that was told to give something up, cannot and has come to need more than all others keeps it.
    fn take_nothing_from(&mut self, worker: usize, out: &mut Vec<Instruction>) {
        let told = self.seats.iter().fold(0_u32, |sum, seat| sum.saturating_add(seat.capacity));
        let Some(seat) = self.seats.get_mut(worker) else { return };
        let back = seat.bound.saturating_sub(seat.capacity);
        if seat.standing.stuck && back > 0 && told.saturating_add(back) <= self.total {
            // Its answer to what it was told before does not match any more.
            seat.capacity = seat.bound;
            seat.standing.stuck = false;
            out.push(Instruction { worker, capacity: seat.capacity });
        }
    }

    fn neediest(&self) -> Option<(usize, Need)> {
        let needy = self.seats.iter().enumerate().filter_map(|(worker, seat)| {
            let need = seat.standing.need?;
            Some((need.band, seat.capacity, worker, need))
        });
        let first = needy.min_by_key(|(band, capacity, worker, _)| (*band, *capacity, *worker))?;
        Some((first.2, first.3))
    }

    /// Who can give, and how much: who needs nothing, or only something less urgent, or has more for the same. At most
    /// an eighth of its capacity at a time (one, at least), never below half of an even share or what is under reserves,
    /// and for the same need no more than makes both equal: else it would go to and fro. One that has nothing, and will have
    /// nothing, takes turns with those that have one.
    fn donor(&self, needy: usize, band: Band, capacity: u32) -> Option<(usize, u32)> {
        let workers = u32::try_from(self.seats.len()).unwrap_or(u32::MAX).max(1);
        let least = |seat: &Seat| (self.total / workers / 2).max(seat.standing.reserved);
        let has_more = |seat: &Seat| seat.capacity > capacity.saturating_add(1);
        let givers = self.seats.iter().enumerate().filter(|(worker, seat)| {
            let less_urgent = match seat.standing.need {
                None => true,
                Some(need) if need.band > band => true,
                Some(need) => need.band == band && (has_more(seat) || capacity == 0),
            };
            *worker != needy && seat.settled && seat.capacity > least(seat) && less_urgent
        });
        let spare = |seat: &Seat| seat.capacity.saturating_sub(seat.standing.committed);
        let (donor, seat) = givers
            .max_by_key(|(worker, seat)| (urgency(seat), has_more(seat), spare(seat), Reverse(*worker)))?;
        let has_the_same = seat.standing.need.is_some_and(|need| need.band == band);
        let fair = if has_the_same { seat.capacity.saturating_sub(capacity) / 2 } else { seat.capacity };
        Some((donor, (seat.capacity / 8).min(fair).max(1).min(seat.capacity.saturating_sub(least(seat)))))
    }

    fn instruct(&mut self, worker: usize, capacity: u32, out: &mut Vec<Instruction>) {
        let before = self.bound();
        let Some(seat) = self.seats.get_mut(worker) else { return };
        assert!(seat.settled, "one instruction is under way at a time");
        seat.capacity = capacity;
        seat.bound = seat.bound.max(capacity);
        seat.settled = false;
        out.push(Instruction { worker, capacity });
        let bound = self.bound();
        assert!(bound <= self.total.max(before), "capacity is given only after it was given up");
    }
}

/// The smaller, the more urgent.
fn urgency(seat: &Seat) -> usize {
    seat.standing.need.map_or(3, |need| need.band.index())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn need(band: Band, slots: u32) -> Standing {
        Standing { need: Some(Need { band, slots }), ..Standing::default() }
    }

    #[test]
    fn the_total_is_divided_evenly_at_first() {
        let exchange = Exchange::new(10, 3);
        assert_eq!([0, 1, 2].map(|worker| exchange.capacity(worker)), [4, 3, 3]);
        assert_eq!(exchange.bound(), 10);
    }

    #[test]
    fn nothing_grows_before_something_has_shrunk() {
        let mut exchange = Exchange::new(20, 2);
        let mut out = Vec::new();
        exchange.handle_standing(0, need(Band::Floor, 1), &mut out);
        assert_eq!(out, [Instruction { worker: 1, capacity: 9 }]);
        assert_eq!(exchange.bound(), 20);
        out.clear();
        exchange.handle_settled(1, 8, &mut out);
        assert_eq!(out, [], "an answer to something else");
        exchange.handle_settled(1, 9, &mut out);
        assert_eq!(out[0], Instruction { worker: 0, capacity: 11 });
        assert_eq!(exchange.bound(), 20);
    }

    #[test]
    fn a_worker_keeps_half_of_an_even_share_whatever_others_need() {
        let mut exchange = Exchange::new(20, 2);
        let mut told = vec![Instruction { worker: 9, capacity: 0 }];
        exchange.handle_standing(0, need(Band::Floor, 64), &mut told);
        while let Some(Instruction { worker, capacity }) = told.pop() {
            exchange.handle_settled(worker, capacity, &mut told);
        }
        assert_eq!([exchange.capacity(0), exchange.capacity(1)], [15, 5]);
    }

    #[test]
    fn a_worker_keeps_what_is_under_reserves_whatever_others_need() {
        let mut exchange = Exchange::new(20, 2);
        let mut told = Vec::new();
        exchange.handle_standing(1, Standing { reserved: 8, ..Standing::default() }, &mut told);
        exchange.handle_standing(0, need(Band::Floor, 64), &mut told);
        while let Some(Instruction { worker, capacity }) = told.pop() {
            exchange.handle_settled(worker, capacity, &mut told);
        }
        assert_eq!([exchange.capacity(0), exchange.capacity(1)], [12, 8]);
    }

    #[test]
    fn with_less_capacity_than_workers_each_has_its_turn() {
        let mut exchange = Exchange::new(1, 2);
        let mut told = Vec::new();
        exchange.handle_standing(1, need(Band::Floor, 1), &mut told);
        exchange.handle_settled(0, 0, &mut told);
        assert_eq!([exchange.capacity(0), exchange.capacity(1)], [0, 1]);
        exchange.handle_settled(1, 1, &mut told);
        exchange.handle_standing(0, need(Band::Floor, 1), &mut told);
        exchange.handle_settled(1, 0, &mut told);
        assert_eq!([exchange.capacity(0), exchange.capacity(1)], [1, 0]);
        assert_eq!(exchange.bound(), 1);
    }

    #[test]
    fn equal_need_ends_in_equal_parts() {
        let mut exchange = Exchange::new(24, 3);
        let mut told = Vec::new();
        exchange.seats[0].capacity = 16;
        exchange.seats[0].bound = 16;
        for worker in 1..3 {
            exchange.seats[worker].capacity = 4;
            exchange.seats[worker].bound = 4;
        }
        for worker in 0..3 {
            exchange.handle_standing(worker, need(Band::Burst, 8), &mut told);
        }
        while let Some(Instruction { worker, capacity }) = told.pop() {
            exchange.handle_settled(worker, capacity, &mut told);
            assert!(exchange.bound() <= 24);
        }
        let parts = [0, 1, 2].map(|worker| exchange.capacity(worker));
        assert!(parts.iter().all(|part| (7..=9).contains(part)), "{parts:?}");
    }

    #[test]
    fn capacity_does_not_go_to_and_fro_between_workers_in_equal_need() {
        let (mut exchange, mut told) = (Exchange::new(80, 2), VecDeque::new());
        exchange.seats[0].capacity = 60;
        exchange.seats[0].bound = 60;
        exchange.seats[1].capacity = 20;
        exchange.seats[1].bound = 20;
        let mut out = Vec::new();
        for worker in 0..2 {
            // All servers are leased, and as soon as one is free it is leased again.
            exchange.handle_standing(worker, need(Band::Burst, 8), &mut out);
        }
        told.extend(out.drain(..));
        let mut orders = 0;
        while let Some(Instruction { worker, capacity }) = told.pop_front() {
            orders += 1;
            assert!(orders < 30, "{:?}", [0, 1].map(|worker| exchange.capacity(worker)));
            // It says that it has been told, then that it holds.
            exchange.handle_standing(worker, need(Band::Burst, 8), &mut out);
            exchange.handle_settled(worker, capacity, &mut out);
            told.extend(out.drain(..));
        }
        assert_eq!([0, 1].map(|worker| exchange.capacity(worker)), [40, 40]);
    }

    #[test]
    fn tiny_budgets_come_to_rest_where_there_is_one_for_each() {
        for (workers, total) in [(2, 2), (3, 3), (7, 7), (8, 8), (8, 9), (8, 15)] {
            for rich in 0..workers {
                let (mut exchange, mut told) = (Exchange::new(total, workers), VecDeque::new());
                for (worker, seat) in exchange.seats.iter_mut().enumerate() {
                    seat.capacity = if worker == rich { total } else { 0 };
                    seat.bound = seat.capacity;
                }
                let mut out = Vec::new();
                for worker in 0..workers {
                    exchange.handle_standing(worker, need(Band::Burst, [4, 2][worker % 2]), &mut out);
                    // Some are late.
                    told.extend(out.drain(..).rev());
                }
                let mut orders = 0;
                while let Some(Instruction { worker, capacity }) = told.pop_front() {
                    orders += 1;
                    assert!(orders < 200, "{workers} workers, {total}");
                    exchange.handle_settled(worker, capacity, &mut out);
                    told.extend(out.drain(..).rev());
                }
                assert!(
                    (0..workers).all(|worker| exchange.capacity(worker) > 0),
                    "{workers} workers, {total}"
                );
            }
        }
    }

    #[test]
    fn nobody_waits_for_what_long_leases_keep() {
        let (mut exchange, mut out) = (Exchange::new(40, 4), Vec::new());
        exchange.handle_standing(1, need(Band::Floor, 1), &mut out);
        assert_eq!(out, [Instruction { worker: 0, capacity: 9 }]);
        out.clear();
        // It says that it cannot.
        exchange.handle_standing(0, Standing { stuck: true, ..Standing::default() }, &mut out);
        assert_eq!(out, [Instruction { worker: 2, capacity: 9 }]);
        out.clear();
        exchange.handle_settled(2, 9, &mut out);
        assert_eq!(out.first(), Some(&Instruction { worker: 1, capacity: 11 }));
        // And now it needs more itself.
        exchange.handle_standing(1, Standing::default(), &mut Vec::new());
        exchange.handle_settled(1, 11, &mut Vec::new());
        out.clear();
        exchange.handle_standing(0, need(Band::Floor, 1), &mut out);
        assert_eq!(out, [], "it has just been told");
        exchange.handle_standing(0, Standing { stuck: true, ..need(Band::Floor, 1) }, &mut out);
        assert_eq!(out, [Instruction { worker: 0, capacity: 10 }], "it keeps what it has");
        out.clear();
        exchange.handle_settled(0, 9, &mut out);
        assert_eq!(out, [], "an answer to what it was told before");
        exchange.handle_settled(0, 10, &mut out);
        assert!(out.iter().all(|told| told.worker != 0 && told.capacity < 11), "{out:?}");
        assert!(!out.is_empty() && exchange.bound() <= 40);
    }

    #[test]
    fn a_lower_total_is_taken_from_the_largest() {
        let mut exchange = Exchange::new(12, 2);
        let mut told = Vec::new();
        exchange.handle_total(5, &mut told);
        while let Some(Instruction { worker, capacity }) = told.pop() {
            exchange.handle_settled(worker, capacity, &mut told);
        }
        assert_eq!(exchange.bound(), 5);
    }
}
