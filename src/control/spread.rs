//! A tenant on several workers.
//!
//! Owns which of its workers a client goes to, and the steps by which their number changes: first everybody is told to take
//! no more than both the old and the new portion, and when all keep to that, what is new is given away. So the tenant
//! never has more than its limits allow, however long a transaction holds its server.

use super::placement::Seats;
use crate::ids::WorkerId;
use crate::tenant::{Part, Portion};
use crate::track::Elsewhere;

/// What a worker has to be told.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Who.
    pub(super) worker: WorkerId,
    /// What it may let the tenant use from now on.
    pub(super) portion: Portion,
    /// How many of the tenant's clients may stay there; `None`: all.
    pub(super) clients: Option<u32>,
    /// How its functions are spoken of among the workers.
    pub(super) elsewhere: Elsewhere,
}

/// The workers of one tenant.
#[derive(Debug)]
pub(super) struct Spread {
    /// Those that have a part, in the order of the parts.
    seats: Vec<Seats>,
    /// Those that are to have one, as long as some still have more.
    next: Option<Vec<Seats>>,
    /// How many it is to have when that is over.
    wanted: u32,
    /// Counts changes: one that was taken back must not be mistaken for the next.
    changes: u32,
    elsewhere: Elsewhere,
}

/// A change of a tenant's workers that has begun.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) number: u32,
    /// To be taken now.
    pub(super) steps: Vec<Step>,
}

impl Spread {
    /// So far it has one.
    pub(super) fn new(only: Seats) -> Self {
        Self { seats: vec![only], next: None, wanted: 1, changes: 0, elsewhere: Elsewhere::default() }
    }

    /// How many workers it is to have.
    pub(super) const fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Where a newcomer goes: to the fewest of its own, of those workers that stay and are there.
    pub(super) fn fewest(&self, is_there: impl Fn(WorkerId) -> bool) -> Option<&Seats> {
        let staying = self.next.as_ref().map_or(self.seats.len(), Vec::len);
        let seats = self.seats.iter().take(staying).filter(|seats| is_there(seats.worker));
        seats.min_by_key(|seats| seats.taken())
    }

    /// How many clients it has. Those on workers that it is leaving are still there.
    pub(super) fn clients(&self) -> u32 {
        self.seats.iter().fold(0_u32, |sum, seats| sum.saturating_add(seats.taken()))
    }

    /// It is to have so many; `more` finds another one. Returns what has to be done now, and the workers that it leaves.
    pub(super) fn resize(
        &mut self,
        wanted: u32,
        mut more: impl FnMut(&[Seats]) -> Option<Seats>,
    ) -> Option<(Change, Vec<WorkerId>)> {
        self.wanted = wanted;
        let (count, before) = (usize::try_from(wanted).unwrap_or(usize::MAX), self.seats.len());
        if let Some(next) = self.next.take_if(|next| next.len() > before && count <= before) {
            // It has not grown yet: those who were to come have nothing, and the others have their parts back at once.
            let parts = len(&self.seats);
            let whole = |(number, seats)| self.step(seats, Portion::of_part(Part::new(number, parts)), None);
            let steps = (0_u32..).zip(&self.seats).map(whole).collect();
            let left = next.iter().skip(before).map(|seats| seats.worker).collect();
            return Some((self.change(steps), left));
        }
        if self.next.is_some() || before == count {
            return None;
        }
        let mut next: Vec<Seats> = self.seats.iter().take(count).cloned().collect();
        while next.len() < count
            && let Some(found) = more(&next)
        {
            next.push(found);
        }
        let (before, after) = (len(&self.seats), len(&next));
        if before == after {
            return None;
        }
        let steps = (0_u32..).zip(&self.seats).map(|(number, seats)| {
            let portion = Portion::between(Part::new(number, before), Part::new(number, after));
            self.step(seats, portion, (number >= after).then_some(0))
        });
        let steps = steps.collect();
        let left = self.seats.iter().skip(next.len()).map(|seats| seats.worker).collect();
        self.next = Some(next);
        Some((self.change(steps), left))
    }

    fn change(&mut self, steps: Vec<Step>) -> Change {
        self.changes = self.changes.wrapping_add(1);
        Change { number: self.changes, steps }
    }

    /// All workers keep to the steps of this change. Returns the last ones, if it was not taken back: everybody gets what is
    /// its part now. Where it has more clients than that part of them, some are asked to come again, or they would share
    /// less than before.
    pub(super) fn resized(&mut self, change: u32) -> Vec<Step> {
        if change != self.changes {
            return Vec::new();
        }
        let Some(next) = self.next.take() else { return Vec::new() };
        let has_grown = next.len() > self.seats.len();
        self.seats = next;
        let (parts, clients) = (len(&self.seats), self.clients());
        let steps = (0_u32..).zip(&self.seats).map(|(number, seats)| {
            let part = Part::new(number, parts);
            self.step(seats, Portion::of_part(part), has_grown.then(|| part.of(clients)))
        });
        steps.collect()
    }

    fn step(&self, seats: &Seats, portion: Portion, clients: Option<u32>) -> Step {
        Step { worker: seats.worker, portion, clients, elsewhere: self.elsewhere.clone() }
    }
}

/// How many there are.
fn len(seats: &[Seats]) -> u32 {
    u32::try_from(seats.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::super::placement::{Placements, Seat};
    use super::*;
    use crate::ids::TenantId;

    const TENANT: TenantId = TenantId(7);

    fn place(placements: &mut Placements, wanted: u32) -> (u16, Seat, Vec<Step>) {
        let place = placements.place(TENANT, wanted).unwrap();
        (place.worker.0, place.seat, place.steps)
    }

    #[test]
    fn clients_go_where_the_fewest_of_their_tenant_are() {
        let mut placements = Placements::new(4);
        let (first, a, steps) = place(&mut placements, 3);
        assert_eq!((first, steps.len()), (0, 3));
        assert!(place(&mut placements, 3).2.is_empty(), "the steps are taken once");
        let mut seats = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..5 {
            let (worker, seat, _) = place(&mut placements, 3);
            workers.push(worker);
            seats.push(seat);
        }
        assert_eq!(workers, [1, 2, 0, 1, 2]);
        drop((a, seats.remove(2)));
        let place = placements.place(TENANT, 3).unwrap();
        assert_eq!((place.worker.0, place.elsewhere), (0, 4), "two have left it");
    }

    #[test]
    fn there_are_no_more_than_there_are_workers_and_one_that_has_ended_gets_nobody() {
        let mut placements = Placements::new(2);
        assert_eq!(place(&mut placements, 9).2.len(), 2);
        let second = Duration::from_secs(1);
        placements.observe(second, [None, Some(second)]);
        let seats: Vec<_> = (0..3).map(|_| place(&mut placements, 9)).collect();
        assert!(seats.iter().all(|(worker, ..)| *worker == 1), "{seats:?}");
        let mut one = Placements::new(1);
        assert!(place(&mut one, 2).2.is_empty() && one.resize(TENANT, 2).is_none());
    }

    #[test]
    fn a_tenant_that_grows_is_shared_when_its_first_worker_has_given_up_its_part() {
        let mut placements = Placements::new(3);
        let seats: Vec<_> = (0..5).map(|_| place(&mut placements, 1)).collect();
        let Change { number, steps } = placements.resize(TENANT, 2).unwrap();
        let told: Vec<_> =
            steps.iter().map(|step| (step.worker.0, step.portion.of(9), step.clients)).collect();
        assert_eq!(told, [(0, 5, None)]);
        assert_eq!(place(&mut placements, 2).0, 0, "nobody else has anything for it yet");
        assert!(placements.resize(TENANT, 3).is_none(), "one change at a time");
        let (last, next) = placements.resized(TENANT, number);
        let told: Vec<_> =
            last.iter().map(|step| (step.worker.0, step.portion.of(9), step.clients)).collect();
        assert_eq!(told, [(0, 5, Some(3)), (1, 4, Some(2))]);
        let told: Vec<_> = next
            .unwrap()
            .steps
            .iter()
            .map(|step| (step.worker.0, step.portion.of(9), step.clients))
            .collect();
        assert_eq!(told, [(0, 3, None), (1, 3, None)], "what was wanted meanwhile");
        assert_eq!(place(&mut placements, 3).0, 1);
        assert_eq!(seats.len(), 5);
    }

    #[test]
    fn growing_is_taken_back_at_once_if_it_takes_too_long() {
        let mut placements = Placements::new(2);
        let _seat = place(&mut placements, 1);
        let slow = placements.resize(TENANT, 2).unwrap().number;
        let back = placements.resize(TENANT, 1).unwrap();
        assert!(back.steps.len() == 1 && back.steps[0].portion.is_whole());
        assert_eq!(placements.place(TenantId(8), 1).unwrap().worker, WorkerId(1), "it has left that again");
        assert!(placements.resized(TENANT, back.number).1.is_none());
        let again = placements.resize(TENANT, 2).unwrap().number;
        assert!(placements.resized(TENANT, slow).0.is_empty(), "that was another change");
        assert_eq!(placements.resized(TENANT, again).0.len(), 2);
    }

    #[test]
    fn a_tenant_that_shrinks_leaves_the_worker_it_came_to_last() {
        let mut placements = Placements::new(2);
        let seats: Vec<_> = (0..4).map(|_| place(&mut placements, 2)).collect();
        let Change { number, steps } = placements.resize(TENANT, 1).unwrap();
        let told: Vec<_> =
            steps.iter().map(|step| (step.worker.0, step.portion.of(9), step.clients)).collect();
        assert_eq!(told, [(0, 5, None), (1, 0, Some(0))]);
        assert_eq!(place(&mut placements, 1).0, 0);
        let (last, next) = placements.resized(TENANT, number);
        assert_eq!((last.len(), last[0].portion.is_whole(), next.is_none()), (1, true, true));
        drop(seats);
        // What it has left is as free as a worker that it never came to.
        assert_eq!(placements.place(TenantId(8), 1).unwrap().worker, WorkerId(1));
    }

    /// A worker: it hears of its portions late, and its servers leave later.
    #[derive(Default)]
    struct Late {
        /// What it has not heard yet, and of which change that is the first step.
        told: VecDeque<(Portion, Option<u32>)>,
        portion: Option<Portion>,
        /// Servers; those above the ceiling leave by and by.
        servers: u32,
    }

    /// Numbers that look like chance (xorshift).
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % end
        }
    }

    /// Whatever is wanted when, and however late workers hear of it and give servers up, there are never more than the
    /// ceiling; and when it is quiet, all of it may be used, by as many workers as were wanted last.
    #[test]
    fn the_ceiling_holds_at_every_moment_of_every_change() {
        for seed in 1..200 {
            let mut chance = Chance(seed);
            let ceiling = 1 + u32::try_from(chance.below(20)).unwrap();
            let mut placements = Placements::new(4);
            let mut workers: Vec<Late> = (0..4).map(|_| Late::default()).collect();
            let mut wanted = 1;
            let (first, seat, _) = place(&mut placements, wanted);
            workers[usize::from(first)].portion = Some(Portion::of_part(Part::WHOLE));
            // Changes under way: their number, and who has to keep to them.
            let mut under_way: Vec<(u32, Vec<usize>)> = Vec::new();
            for turn in 0.. {
                let ends = turn > 600;
                if !ends && chance.below(10) == 0 {
                    wanted = 1 + u32::try_from(chance.below(4)).unwrap();
                    begin(&mut workers, placements.resize(TENANT, wanted), &mut under_way);
                }
                let worker = usize::try_from(chance.below(4)).unwrap();
                let late = &mut workers[worker];
                let may = late.portion.map_or(0, |portion| portion.of(ceiling));
                match chance.below(3) {
                    0 if late.servers < may => late.servers += 1,
                    1 if late.servers > 0 => late.servers -= 1,
                    _ => {
                        late.portion =
                            late.told.pop_front().map_or(late.portion, |(portion, _)| Some(portion));
                    }
                }
                let servers: u32 = workers.iter().map(|late| late.servers).sum();
                assert!(servers <= ceiling, "seed {seed}, turn {turn}: {servers} of {ceiling}");
                let keeps = |number: u32, worker: usize| {
                    let late = &workers[worker];
                    let may = late.portion.map_or(0, |portion| portion.of(ceiling));
                    late.told.iter().all(|(_, of)| *of != Some(number)) && late.servers <= may
                };
                let kept_to =
                    |(number, those): &(u32, Vec<usize>)| those.iter().all(|worker| keeps(*number, *worker));
                if let Some(at) = under_way.iter().position(kept_to) {
                    let (number, _) = under_way.remove(at);
                    let (last, next) = placements.resized(TENANT, number);
                    tell(&mut workers, last, None);
                    begin(&mut workers, next, &mut under_way);
                }
                if ends && under_way.is_empty() && workers.iter().all(|late| late.told.is_empty()) {
                    break;
                }
                assert!(turn < 10_000, "seed {seed}: it does not end");
            }
            let portions: Vec<u32> =
                workers.iter().map(|late| late.portion.map_or(0, |portion| portion.of(1_000))).collect();
            assert_eq!(portions.iter().sum::<u32>(), 1_000, "seed {seed}: {portions:?}");
            let serving = portions.iter().filter(|portion| **portion > 0).count();
            assert_eq!(serving, usize::try_from(wanted).unwrap(), "seed {seed}: {portions:?}");
            drop(seat);
        }
    }

    fn begin(workers: &mut [Late], change: Option<Change>, under_way: &mut Vec<(u32, Vec<usize>)>) {
        let Some(Change { number, steps }) = change else { return };
        under_way.push((number, steps.iter().map(|step| usize::from(step.worker.0)).collect()));
        tell(workers, steps, Some(number));
    }

    fn tell(workers: &mut [Late], steps: Vec<Step>, change: Option<u32>) {
        for step in steps {
            workers[usize::from(step.worker.0)].told.push_back((step.portion, change));
        }
    }
}
