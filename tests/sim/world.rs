//! The outside of a scheduler: fake servers with their permits, waiting requests, and a check of every output.
//!
//! The world knows only inputs and outputs, never the scheduler's inside. Each violated rule is a panic with its words.

use std::collections::{BTreeMap, VecDeque};

use tenantry::budget::{
    BudgetConfig, Condition, Halt, Input, OpenFailure, Output, Permit, Refusal, RejectReason, Scheduler,
};
use tenantry::ids::{RequestId, ServerId, TenantId};
use tenantry::tenant::{Allowance, RateLimit};
use tenantry::time::Moment;

/// What a fake server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Idle,
    Busy,
    Closing,
}

/// A fake server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) permit: Option<Permit>,
    pub(super) tenant: TenantId,
    pub(super) phase: Phase,
    pub(super) since: Moment,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) tenant: TenantId,
    pub(super) since: Moment,
    pub(super) deadline: Moment,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Granted(ServerId),
    Rejected(RejectReason),
}

/// Something a driver of the world may want to react to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Opening(ServerId, TenantId),
    Closing(ServerId),
    Ended { request: RequestId, tenant: TenantId, waited_us: u64, outcome: Outcome },
    Drained(TenantId),
    Settled(u32),
    StandingChanged,
}

/// The world around one scheduler.
pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) now: Moment,
    pub(super) servers: BTreeMap<ServerId, Server>,
    pub(super) waiting: BTreeMap<RequestId, Waiting>,
    pub(super) queues: BTreeMap<TenantId, VecDeque<RequestId>>,
    pub(super) allowances: BTreeMap<TenantId, Allowance>,
    pub(super) leaving: BTreeMap<TenantId, ()>,
    /// Operators' halts: how, since when, until when.
    pub(super) halts: BTreeMap<TenantId, (Halt, Moment, Moment)>,
    pub(super) rates: BTreeMap<TenantId, RateLimit>,
    pub(super) wake: Moment,
    pub(super) capacity: u32,
    /// Outputs of the last step, in words.
    pub(super) said: Vec<String>,
    pub(super) steps: u64,
    pub(super) opens: u64,
    /// Look at everything after every so many steps.
    pub(super) audit_every: u64,
    /// Keep the words of outputs.
    pub(super) keep_words: bool,
    ceiling_cut: BTreeMap<TenantId, u32>,
    next_request: u64,
    out: Vec<Output>,
}

impl World {
    pub(super) fn new(config: BudgetConfig) -> Self {
        Self {
            capacity: config.capacity,
            scheduler: Scheduler::new(config),
            now: Moment(0),
            servers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            queues: BTreeMap::new(),
            allowances: BTreeMap::new(),
            leaving: BTreeMap::new(),
            halts: BTreeMap::new(),
            rates: BTreeMap::new(),
            wake: Moment::NEVER,
            said: Vec::new(),
            steps: 0,
            opens: 0,
            audit_every: 1,
            keep_words: false,
            ceiling_cut: BTreeMap::new(),
            next_request: 0,
            out: Vec::new(),
        }
    }

    // ---- commands: one input each ----

    pub(super) fn set_tenant(&mut self, tenant: TenantId, allowance: Allowance) -> Vec<Note> {
        let before = self.allowances.insert(tenant, allowance);
        if before.is_none_or(|before| before.ceiling > allowance.ceiling) {
            self.ceiling_cut.insert(tenant, self.servers_of(tenant));
        }
        self.leaving.remove(&tenant);
        self.must(Input::SetTenant { tenant, allowance })
    }

    pub(super) fn remove_tenant(&mut self, tenant: TenantId) -> Vec<Note> {
        self.leaving.insert(tenant, ());
        self.must(Input::RemoveTenant { tenant })
    }

    pub(super) fn halt(&mut self, tenant: TenantId, halt: Halt, span_us: u64) -> Vec<Note> {
        self.end_halts();
        let since = self.halts.get(&tenant).map_or(self.now, |(_, since, _)| *since);
        let until = Moment(self.now.0 + span_us);
        self.halts.insert(tenant, (halt, since, until));
        self.must(Input::Halt { tenant, halt, until })
    }

    pub(super) fn resume(&mut self, tenant: TenantId) -> Vec<Note> {
        self.end_halt(tenant);
        self.must(Input::Resume { tenant })
    }

    pub(super) fn set_rate(&mut self, tenant: TenantId, limit: Option<RateLimit>) -> Vec<Note> {
        match limit {
            Some(limit) => drop(self.rates.insert(tenant, limit)),
            None => drop(self.rates.remove(&tenant)),
        }
        self.must(Input::SetRate { tenant, limit })
    }

    /// What was waited for while an operator held the tenant up is no part of the wait.
    fn end_halt(&mut self, tenant: TenantId) {
        let Some((_, since, until)) = self.halts.remove(&tenant) else { return };
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.tenant == tenant) {
            waiting.deadline.0 += until.min(self.now).micros_since(since.max(waiting.since));
        }
    }

    fn end_halts(&mut self) {
        let over =
            |(tenant, halt): (&TenantId, &(Halt, Moment, Moment))| (halt.2 <= self.now).then_some(*tenant);
        for tenant in self.halts.iter().filter_map(over).collect::<Vec<_>>() {
            self.end_halt(tenant);
        }
    }

    fn halted(&self, tenant: TenantId) -> Option<Halt> {
        self.halts.get(&tenant).map(|(halt, ..)| *halt)
    }

    pub(super) fn set_capacity(&mut self, capacity: u32) -> Vec<Note> {
        self.capacity = capacity;
        self.must(Input::SetCapacity(capacity))
    }

    pub(super) fn acquire(
        &mut self,
        tenant: TenantId,
        patience_us: u64,
        prefer: Option<ServerId>,
    ) -> (RequestId, Vec<Note>) {
        self.ask(tenant, patience_us, prefer, false)
    }

    /// For what is no transaction: no rate holds for it.
    pub(super) fn acquire_exempt(&mut self, tenant: TenantId, patience_us: u64) -> (RequestId, Vec<Note>) {
        self.ask(tenant, patience_us, None, true)
    }

    fn ask(
        &mut self,
        tenant: TenantId,
        patience_us: u64,
        prefer: Option<ServerId>,
        exempt: bool,
    ) -> (RequestId, Vec<Note>) {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let deadline = Moment(self.now.0.saturating_add(patience_us));
        let waiting = Waiting { tenant, since: self.now, deadline };
        self.waiting.insert(request, waiting);
        self.queues.entry(tenant).or_default().push_back(request);
        (request, self.must(Input::Acquire { request, tenant, deadline, prefer, exempt }))
    }

    /// As the driver does it: what is due by now may be an answer to the request.
    pub(super) fn cancel(&mut self, request: RequestId) -> Vec<Note> {
        let mut notes = self.tick();
        if self.waiting.contains_key(&request) {
            self.forget(request);
            notes.extend(self.must(Input::Cancel { request }));
        }
        notes
    }

    pub(super) fn release(&mut self, server: ServerId, condition: Condition) -> Vec<Note> {
        let phase = match condition {
            Condition::Clean => Phase::Idle,
            Condition::Broken => Phase::Closing,
        };
        self.enter(server, Phase::Busy, phase);
        self.must(Input::Release { server, condition })
    }

    pub(super) fn opened(&mut self, server: ServerId) -> Vec<Note> {
        self.enter(server, Phase::Opening, Phase::Idle);
        self.must(Input::Opened { server })
    }

    pub(super) fn open_failed(&mut self, server: ServerId, failure: OpenFailure) -> Vec<Note> {
        let permit = self.take_permit(server);
        self.must(Input::OpenFailed { permit, failure })
    }

    pub(super) fn closed(&mut self, server: ServerId) -> Vec<Note> {
        let permit = self.take_permit(server);
        self.must(Input::Closed { permit })
    }

    /// As the driver does it: what is due by now may want the server.
    pub(super) fn lost(&mut self, server: ServerId) -> Vec<Note> {
        let mut notes = self.tick();
        if self.of_phase(server) == Phase::Idle {
            self.enter(server, Phase::Idle, Phase::Closing);
            notes.extend(self.must(Input::Lost { server }));
        }
        notes
    }

    pub(super) fn tick(&mut self) -> Vec<Note> {
        self.must(Input::Tick)
    }

    /// An input that makes no sense: it must be refused and change nothing.
    pub(super) fn nonsense(&mut self, input: Input) -> Refusal {
        self.tick();
        let before = format!("{:?}", self.scheduler);
        let words = format!("{input:?}");
        let mut out = Vec::new();
        let Err(refusal) = self.scheduler.handle(self.now, input, &mut out) else {
            panic!("{words} was accepted");
        };
        assert_eq!(out, [], "a refused input has no outputs: {words}");
        assert_eq!(before, format!("{:?}", self.scheduler), "a refused input changes nothing: {words}");
        refusal
    }

    /// Lets time pass until `then`, ticking whenever the scheduler asked for it.
    pub(super) fn pass_until(&mut self, then: Moment) -> Vec<Note> {
        let mut notes = Vec::new();
        while self.wake <= then {
            self.now = self.now.max(self.wake);
            notes.extend(self.tick());
        }
        self.now = self.now.max(then);
        notes
    }

    // ---- what the world knows ----

    pub(super) fn servers_in(&self, phase: Phase) -> Vec<ServerId> {
        self.servers.iter().filter(|(_, server)| server.phase == phase).map(|(id, _)| *id).collect()
    }

    pub(super) fn of_phase(&self, server: ServerId) -> Phase {
        self.servers.get(&server).expect("the test names servers that exist").phase
    }

    /// Servers of a tenant that are not on their way out.
    pub(super) fn servers_of(&self, tenant: TenantId) -> u32 {
        self.servers
            .values()
            .filter(|server| server.tenant == tenant && server.phase != Phase::Closing)
            .count() as u32
    }

    // ---- the step and its checks ----

    fn must(&mut self, input: Input) -> Vec<Note> {
        let words = kind(&input);
        self.end_halts();
        let used = self.servers.len();
        let mut out = std::mem::take(&mut self.out);
        if let Err(refusal) = self.scheduler.handle(self.now, input, &mut out) {
            panic!("{words} was refused: {refusal:?}");
        }
        if self.wake <= self.now {
            self.wake = Moment::NEVER;
        }
        self.said.clear();
        let mut notes = Vec::new();
        for output in out.drain(..) {
            if self.keep_words {
                self.said.push(format!("{output:?}"));
            }
            self.carry_out(output, &mut notes);
        }
        self.out = out;
        self.steps += 1;
        self.check(used, words);
        notes
    }

    fn carry_out(&mut self, output: Output, notes: &mut Vec<Note>) {
        match output {
            Output::Grant { request, server, .. } => {
                let waiting = self.forget_head(request);
                let entry = self.servers.get_mut(&server).expect("only servers that exist are granted");
                assert_eq!(entry.tenant, waiting.tenant, "a server is granted to its own tenant");
                assert_eq!(entry.phase, Phase::Idle, "a granted server is not leased, opening or closing");
                assert!(
                    !self.halts.contains_key(&waiting.tenant),
                    "nothing begins while an operator holds it up"
                );
                (entry.phase, entry.since) = (Phase::Busy, self.now);
                notes.push(self.ended(request, waiting, Outcome::Granted(server)));
            }
            Output::Open { permit, server, tenant } => {
                assert_eq!(permit.server(), server, "a permit names its server");
                let entry = Server { permit: Some(permit), tenant, phase: Phase::Opening, since: self.now };
                assert!(self.servers.insert(server, entry).is_none(), "a server's name is used once");
                assert!(self.servers.len() as u32 <= self.capacity, "used <= K when a server is ordered");
                let allowance = self.allowances.get(&tenant).expect("only known tenants get servers");
                assert!(!self.leaving.contains_key(&tenant), "a tenant that leaves gets no server");
                assert!(!self.halts.contains_key(&tenant), "a tenant that is held up gets no server");
                assert!(
                    self.servers_of(tenant) <= allowance.ceiling,
                    "n <= ceiling when a server is ordered"
                );
                self.opens += 1;
                notes.push(Note::Opening(server, tenant));
            }
            Output::Close { server, why } => {
                let entry = self.servers.get_mut(&server).expect("only servers that exist are closed");
                assert_eq!(
                    entry.phase,
                    Phase::Idle,
                    "only idle servers are closed, not leased ones ({why:?})"
                );
                let allowance = self.allowances.get(&entry.tenant).expect("a server's tenant is known");
                let (tenant, evicted) =
                    (entry.tenant, matches!(why, tenantry::budget::CloseReason::Evicted { .. }));
                entry.phase = Phase::Closing;
                let left = self.servers_of(tenant);
                assert!(!evicted || left >= allowance.reserve, "reserved servers are not evicted");
                notes.push(Note::Closing(server));
            }
            Output::Reject { request, reason } => {
                let waiting = self.forget(request);
                if let RejectReason::QueueTimeout { waited_us, .. } = reason {
                    assert!(self.now >= waiting.deadline, "nobody times out early");
                    assert_eq!(waited_us, self.now.micros_since(waiting.since), "the wait is the wait");
                }
                notes.push(self.ended(request, waiting, Outcome::Rejected(reason)));
            }
            Output::WakeAt(at) => {
                assert!(at > self.now, "a wake-up lies in the future");
                self.wake = at;
            }
            Output::CapacitySettled { capacity } => {
                assert_eq!(capacity, self.capacity, "the capacity that was set last is settled");
                notes.push(Note::Settled(capacity));
            }
            Output::StandingChanged => notes.push(Note::StandingChanged),
            Output::Needs { tenant, .. } => {
                assert!(self.allowances.contains_key(&tenant), "of a known tenant");
            }
            Output::Drained { tenant } => {
                assert!(
                    self.servers.values().all(|server| server.tenant != tenant),
                    "who is drained has no server"
                );
                assert!(self.leaving.remove(&tenant).is_some(), "only tenants that leave are drained");
                self.allowances.remove(&tenant);
                self.ceiling_cut.remove(&tenant);
                self.halts.remove(&tenant);
                self.rates.remove(&tenant);
                notes.push(Note::Drained(tenant));
            }
        }
    }

    fn check(&mut self, used_before: usize, words: &str) {
        let used = self.servers.len();
        assert_eq!(self.scheduler.used() as usize, used, "used is the number of permits out ({words})");
        assert!(
            used <= used_before.max(self.capacity as usize),
            "used <= K, and never grows above it ({words})"
        );
        assert_eq!(
            self.scheduler.waiters(),
            self.waiting.len(),
            "every request is waiting or ended ({words})"
        );
        if !self.steps.is_multiple_of(self.audit_every) {
            return;
        }
        for (request, waiting) in &self.waiting {
            let halt = self.halts.get(&waiting.tenant);
            let due = halt.map_or(waiting.deadline, |(_, _, until)| *until);
            assert!(due > self.now, "{request} waits past its deadline ({words})");
            assert!(
                halt.is_none_or(|halt| halt.0 != Halt::Suspend),
                "nobody waits while suspended ({words})"
            );
            assert!(self.wake <= due || waiting.deadline == Moment::NEVER, "deadlines have a timer");
        }
        if let Err(rule) = self.scheduler.audit() {
            panic!("after {words}: {rule}");
        }
        let mut counts: BTreeMap<TenantId, (u32, u32)> = BTreeMap::new();
        for server in self.servers.values() {
            let (staying, idle) = counts.entry(server.tenant).or_default();
            *staying += u32::from(server.phase != Phase::Closing);
            *idle += u32::from(server.phase == Phase::Idle);
        }
        for (tenant, queue) in &self.queues {
            let idle = counts.get(tenant).is_some_and(|(_, idle)| *idle > 0);
            let stopped = self.halts.contains_key(tenant) || self.rates.contains_key(tenant);
            assert!(
                !idle || queue.is_empty() || stopped,
                "no idle server of {tenant} beside its waiter ({words})"
            );
            assert!(
                !idle || self.halted(*tenant) != Some(Halt::Drain),
                "who drains keeps none idle ({words})"
            );
        }
        for (tenant, allowance) in &self.allowances {
            let servers = counts.get(tenant).map_or(0, |(staying, _)| *staying);
            let cut = self.ceiling_cut.entry(*tenant).or_insert(0);
            assert!(servers <= allowance.ceiling.max(*cut), "n <= ceiling, or falls after a cut ({words})");
            *cut = servers;
        }
    }

    fn ended(&self, request: RequestId, waiting: Waiting, outcome: Outcome) -> Note {
        let waited_us = self.now.micros_since(waiting.since);
        Note::Ended { request, tenant: waiting.tenant, waited_us, outcome }
    }

    fn forget(&mut self, request: RequestId) -> Waiting {
        let waiting = self.waiting.remove(&request).expect("a request ends once");
        let queue = self.queues.get_mut(&waiting.tenant).expect("a waiting request is in its queue");
        queue.retain(|other| *other != request);
        waiting
    }

    fn forget_head(&mut self, request: RequestId) -> Waiting {
        let waiting = self.waiting.remove(&request).expect("a request ends once");
        let queue = self.queues.get_mut(&waiting.tenant).expect("a waiting request is in its queue");
        assert_eq!(queue.pop_front(), Some(request), "waiters of one tenant are served in order");
        waiting
    }

    fn enter(&mut self, server: ServerId, from: Phase, to: Phase) {
        let entry = self.servers.get_mut(&server).expect("the test names servers that exist");
        assert_eq!(entry.phase, from, "the test gives sensible inputs");
        (entry.phase, entry.since) = (to, self.now);
    }

    fn take_permit(&mut self, server: ServerId) -> Permit {
        let entry = self.servers.remove(&server).expect("the test names servers that exist");
        entry.permit.expect("a server has its permit")
    }
}

/// An input's name.
fn kind(input: &Input) -> &'static str {
    match input {
        Input::Acquire { .. } => "Acquire",
        Input::Cancel { .. } => "Cancel",
        Input::Release { .. } => "Release",
        Input::Opened { .. } => "Opened",
        Input::OpenFailed { .. } => "OpenFailed",
        Input::Closed { .. } => "Closed",
        Input::Lost { .. } => "Lost",
        Input::Tick => "Tick",
        Input::SetCapacity(_) => "SetCapacity",
        Input::SetTenant { .. } => "SetTenant",
        Input::SetRate { .. } => "SetRate",
        Input::Halt { .. } => "Halt",
        Input::Resume { .. } => "Resume",
        Input::RemoveTenant { .. } => "RemoveTenant",
    }
}

/// An allowance without a reserve, by weight of its share.
pub(super) fn allowance(floor: u32, share: u32, ceiling: u32) -> Allowance {
    Allowance { reserve: 0, floor, share, ceiling, weight: share.max(1), max_waiters: 1_000 }
}
