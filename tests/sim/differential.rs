//! The scheduler beside the naive reference on random traces: the same outputs in the same order, and no step in
//! between at which the reference would have done something that the scheduler did not wake up for.

use proptest::prelude::*;
use tenantry::budget::{
    BudgetConfig, Condition, Halt, Input, OpenFailure, OpenLatency, Output, Permit, RejectReason, Scheduler,
};
use tenantry::ids::{RequestId, ServerId, TenantId};
use tenantry::tenant::{Allowance, RateLimit};
use tenantry::time::Moment;

use super::reference::{Event, Reference, Say};
use super::rng::{Rng, env};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Idle,
    Busy,
    Closing,
    Gone,
}

/// Both machines, and what is known of their servers, by number.
pub(super) struct Pair {
    scheduler: Scheduler,
    reference: Reference,
    names: Vec<ServerId>,
    phases: Vec<Phase>,
    permits: Vec<Option<Permit>>,
    pub(super) waiting: Vec<RequestId>,
    pub(super) tenants: Vec<TenantId>,
    pub(super) now: u64,
    wake: u64,
    pub(super) requests: u64,
    events: Vec<String>,
}

impl Pair {
    pub(super) fn new(config: &BudgetConfig) -> Self {
        Self {
            scheduler: Scheduler::new(config.clone()),
            reference: Reference::new(config.clone()),
            names: Vec::new(),
            phases: Vec::new(),
            permits: Vec::new(),
            waiting: Vec::new(),
            tenants: Vec::new(),
            now: 0,
            wake: u64::MAX,
            requests: 0,
            events: Vec::new(),
        }
    }

    pub(super) fn in_phase(&self, phase: Phase) -> Vec<usize> {
        (0..self.phases.len()).filter(|number| self.phases[*number] == phase).collect()
    }

    /// Gives the event to both.
    pub(super) fn step(&mut self, event: Event) {
        self.events.push(format!("{} {event:?}", self.now));
        let mut expected = self.reference.step(self.now, event);
        let input = self.input(event);
        let mut out = Vec::new();
        self.scheduler.handle(Moment(self.now), input, &mut out).expect("the trace makes sense");
        if self.wake <= self.now {
            self.wake = u64::MAX;
        }
        let mut said: Vec<Say> = out.into_iter().filter_map(|output| self.read(output)).collect();
        // The order does not matter of requests that expire in the same step, nor when in a step a tenant is forgotten.
        let order = |say: &Say| match say {
            Say::Timeout(request, _) => (0, *request),
            Say::Drained(_) => (2, 0),
            _ => (1, 0),
        };
        said.sort_by_key(order);
        expected.sort_by_key(order);
        if said != expected {
            let trace = self.events.iter().rev().take(40).rev().cloned().collect::<Vec<_>>().join("\n");
            panic!(
                "\n{trace}\nscheduler: {said:?}\nreference: {expected:?}\n{:#?}\n{:#?}",
                self.reference, self.scheduler
            );
        }
        self.scheduler.audit().expect("the recount agrees");
    }

    /// Lets time pass. Between the scheduler's own wake-ups the reference must have nothing to do either.
    pub(super) fn pass(&mut self, span: u64, rng: &mut Rng) {
        let until = self.now + span;
        while self.now < until {
            let next = self.wake.min(until);
            for _ in 0..2 {
                let between = self.now + rng.below(next - self.now);
                self.expect_rest(between);
            }
            self.expect_rest(next - 1);
            self.now = next;
            if self.now == self.wake {
                self.step(Event::Tick);
            }
        }
    }

    fn expect_rest(&self, at: u64) {
        if at > self.now {
            let said = self.reference.clone().step(at, Event::Tick);
            let last = self.events.last();
            assert!(
                said.is_empty(),
                "at {at}, after {last:?}, the scheduler sleeps until {} but should {said:?}",
                self.wake
            );
        }
    }

    fn input(&mut self, event: Event) -> Input {
        match event {
            Event::Acquire { request, tenant, deadline, prefer } => {
                self.waiting.push(request);
                let prefer = prefer.map(|number| self.names[number]);
                Input::Acquire { request, tenant, deadline: Moment(deadline), prefer, exempt: false }
            }
            Event::Cancel(request) => {
                self.waiting.retain(|other| *other != request);
                Input::Cancel { request }
            }
            Event::Release(number, condition) => {
                let broken = condition == Condition::Broken;
                self.phases[number] = if broken { Phase::Closing } else { Phase::Idle };
                Input::Release { server: self.names[number], condition }
            }
            Event::Opened(number) => {
                self.phases[number] = Phase::Idle;
                Input::Opened { server: self.names[number] }
            }
            Event::OpenFailed(number, failure) => Input::OpenFailed { permit: self.take(number), failure },
            Event::Closed(number) => Input::Closed { permit: self.take(number) },
            Event::Lost(number) => {
                self.phases[number] = Phase::Closing;
                Input::Lost { server: self.names[number] }
            }
            Event::Tick => Input::Tick,
            Event::SetCapacity(limit) => Input::SetCapacity(limit),
            Event::SetTenant(tenant, allowance) => {
                self.tenants.retain(|other| *other != tenant);
                self.tenants.push(tenant);
                Input::SetTenant { tenant, allowance }
            }
            Event::SetRate(tenant, limit) => Input::SetRate { tenant, limit },
            Event::Halt(tenant, halt, until) => Input::Halt { tenant, halt, until: Moment(until) },
            Event::Resume(tenant) => Input::Resume { tenant },
            Event::RemoveTenant(tenant) => Input::RemoveTenant { tenant },
        }
    }

    fn take(&mut self, number: usize) -> Permit {
        self.phases[number] = Phase::Gone;
        self.permits[number].take().expect("a permit is given back once")
    }

    fn number(&self, server: ServerId) -> usize {
        self.names.iter().position(|name| *name == server).expect("the server was ordered")
    }

    fn read(&mut self, output: Output) -> Option<Say> {
        Some(match output {
            Output::Grant { request, server, .. } => {
                self.waiting.retain(|other| *other != request);
                let number = self.number(server);
                self.phases[number] = Phase::Busy;
                Say::Grant(request.0, number)
            }
            Output::Open { permit, server, tenant } => {
                self.names.push(server);
                self.phases.push(Phase::Opening);
                self.permits.push(Some(permit));
                Say::Open(self.names.len() - 1, tenant.0)
            }
            Output::Close { server, why } => {
                let number = self.number(server);
                self.phases[number] = Phase::Closing;
                Say::Close(number, format!("{why:?}"))
            }
            Output::Reject { request, reason } => {
                self.waiting.retain(|other| *other != request);
                match reason {
                    RejectReason::QueueTimeout { waited_us, .. } => Say::Timeout(request.0, waited_us),
                    other => Say::Reject(request.0, format!("{other:?}")),
                }
            }
            Output::WakeAt(at) => {
                self.wake = at.0;
                return None;
            }
            Output::CapacitySettled { .. } | Output::StandingChanged | Output::Needs { .. } => return None,
            Output::Drained { tenant } => {
                self.tenants.retain(|other| *other != tenant);
                Say::Drained(tenant.0)
            }
        })
    }
}

/// One step of a trace: a choice, made sensible by what is possible when it is its turn.
type Choice = (u8, u16, u32);

pub(super) fn config(capacity: u32, headroom: u32, reconnects: u32) -> BudgetConfig {
    let mut config = BudgetConfig::new(capacity);
    config.headroom = headroom;
    config.reconnects_per_second = reconnects;
    config.open_latency = OpenLatency::Fixed { us: 5_000 };
    config.releases_awaited = 2;
    config.opens_in_flight = [4, 3, 2];
    config
}

fn allowance(bits: u32) -> Allowance {
    let ceiling = 1 + bits % 5;
    Allowance {
        reserve: u32::from((bits >> 2).is_multiple_of(4)),
        floor: (bits >> 3) % 3,
        share: (bits >> 5) % 4,
        ceiling,
        weight: 1 + (bits >> 7) % 4,
        max_waiters: 1 + (bits >> 9) % 12,
    }
}

fn rate(bits: u32) -> Option<RateLimit> {
    let per_second = [3, 40, 300, 7_000][(bits >> 5) as usize % 4];
    let limit = RateLimit { per_second, burst: 1 + (bits >> 7) % 5, delay_us: (bits >> 10) % 3 * 25_000 };
    (!(bits >> 4).is_multiple_of(4)).then_some(limit)
}

fn play(config: &BudgetConfig, tenants: u32, choices: &[Choice], seed: u64) {
    let mut rng = Rng::new(seed);
    let mut pair = Pair::new(config);
    for number in 0..tenants {
        pair.step(Event::SetTenant(TenantId(number), allowance(rng.next() as u32)));
    }
    for (kind, target, amount) in choices {
        let spans = [0, 0, 40, 400, 2_500, 7_000, 30_000, 300_000];
        pair.pass(spans[usize::from(kind & 7)] * u64::from(amount % 5), &mut rng);
        if let Some(event) = event(&mut pair, tenants, kind >> 3, usize::from(*target), *amount) {
            pair.step(event);
        }
    }
}

fn event(pair: &mut Pair, tenants: u32, kind: u8, target: usize, amount: u32) -> Option<Event> {
    let pick = |numbers: Vec<usize>| (!numbers.is_empty()).then(|| numbers[target % numbers.len()]);
    let tenant = TenantId(target as u32 % tenants);
    Some(match kind {
        0..11 => {
            pair.requests += 1;
            let patience = [3_000, 40_000, 600_000, 5_000_000][amount as usize % 4];
            let prefer = pick(pair.in_phase(Phase::Idle)).filter(|_| amount.is_multiple_of(7));
            Event::Acquire {
                request: RequestId(pair.requests),
                tenant,
                deadline: pair.now + patience,
                prefer,
            }
        }
        11..18 => {
            let condition = if amount.is_multiple_of(16) { Condition::Broken } else { Condition::Clean };
            Event::Release(pick(pair.in_phase(Phase::Busy))?, condition)
        }
        18..23 => {
            let number = pick(pair.in_phase(Phase::Opening))?;
            match amount % 12 {
                0 => Event::OpenFailed(number, OpenFailure::ServerFull),
                1 => Event::OpenFailed(number, OpenFailure::Unavailable),
                2 => Event::OpenFailed(number, OpenFailure::Rejected),
                _ => Event::Opened(number),
            }
        }
        23..27 => Event::Closed(pick(pair.in_phase(Phase::Closing))?),
        27 => Event::Lost(pick(pair.in_phase(Phase::Idle))?),
        28 => Event::Cancel(*pair.waiting.get(target % pair.waiting.len().max(1))?),
        29..31 => match amount % 16 {
            0 => Event::SetCapacity(amount % 11 % 7),
            1 | 2 => Event::SetTenant(tenant, allowance(amount)),
            3 if pair.tenants.contains(&tenant) => Event::RemoveTenant(tenant),
            4 => Event::Closed(pick(
                (0..pair.phases.len()).filter(|n| pair.phases[*n] != Phase::Gone).collect(),
            )?),
            5..9 if pair.tenants.contains(&tenant) => {
                let halt = [Halt::Pause, Halt::Drain, Halt::Pause, Halt::Suspend][(amount >> 4) as usize % 4];
                let span = [1, 2_000, 60_000, 900_000][(amount >> 6) as usize % 4];
                Event::Halt(tenant, halt, pair.now + span)
            }
            9 | 10 if pair.tenants.contains(&tenant) => Event::Resume(tenant),
            11..14 if pair.tenants.contains(&tenant) => Event::SetRate(tenant, rate(amount)),
            _ => Event::Tick,
        },
        _ => Event::Tick,
    })
}

fn random_choices(rng: &mut Rng, length: u64) -> Vec<Choice> {
    (0..length).map(|_| (rng.next() as u8, rng.next() as u16, rng.next() as u32)).collect()
}

#[test]
fn the_scheduler_does_what_the_naive_reference_does() {
    let first = env("TENANTRY_SIM_SEED").unwrap_or(1) * 100_000;
    let traces = env("TENANTRY_SIM_EVENTS").unwrap_or(60_000) / 300;
    for seed in first..first + traces {
        let mut rng = Rng::new(seed);
        let reconnects = if rng.chance(50) { 1 } else { 1 + rng.below(100) as u32 };
        let mut config = config(1 + rng.below(6) as u32, rng.below(5) as u32 / 4, reconnects);
        if rng.chance(50) {
            // Hardly ever slack: the brakes hold.
            config.stale_us = 30_000_000;
        }
        let (tenants, choices) = (1 + rng.below(7) as u32, random_choices(&mut rng, 300));
        let played = std::panic::catch_unwind(|| play(&config, tenants, &choices, seed));
        assert!(played.is_ok(), "the machines disagree with seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same with traces that proptest can shorten.
    #[test]
    fn the_shortest_disagreement_is_none(
        capacity in 1u32..6,
        tenants in 1u32..6,
        seed in 0u64..1_000,
        choices in prop::collection::vec(any::<Choice>(), 0..160),
    ) {
        play(&config(capacity, 0, 20), tenants, &choices, seed);
    }
}
