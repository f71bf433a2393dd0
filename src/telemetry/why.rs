//! Why a tenant's clients wait, in a sentence with the numbers, and the same for programs.
//!
//! Owns the wording. What is so, the budget says; must not ask anybody.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::budget::{Explanation, Halt, Halted, TenantView};
use crate::stats::Cause;
use crate::tenant::{Allowance, Tenant};
use crate::time::Moment;
use crate::worker::{OnReplicas, TenantExplanation};

/// A tenant, and what each of its workers says.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The tenant as configured.
    pub tenant: Arc<Tenant>,
    /// Its cluster's name.
    pub cluster: Arc<str>,
    /// One entry for each worker that has met it.
    pub workers: Vec<TenantExplanation>,
}

impl Explained {
    /// The worker on which somebody has waited longest.
    fn worst(&self) -> Option<&TenantExplanation> {
        self.workers.iter().max_by_key(|worker| waited_us(&worker.budget))
    }

    /// One or two sentences for people, and one for replicas.
    #[must_use]
    pub fn sentence(&self) -> String {
        let [busy, waiters] =
            [|on: &OnReplicas| on.busy, |on: &OnReplicas| on.waiters].map(|of| self.on_replicas(of));
        let home = self.sentence_of_home();
        match (busy, waiters) {
            (0, 0) => home,
            _ => format!("{home} On replicas: {busy} busy, {waiters} waiting."),
        }
    }

    fn on_replicas(&self, of: fn(&OnReplicas) -> u32) -> u32 {
        self.workers.iter().map(|worker| of(&worker.replicas)).fold(0, u32::saturating_add)
    }

    fn sentence_of_home(&self) -> String {
        let name = &self.tenant.name;
        let Some(worst) = self.worst() else {
            return format!("{name} does not wait: none of its clients has connected since the start.");
        };
        let budget = &worst.budget;
        let view = &budget.tenant;
        let Some((cause, _)) = view.cause else {
            let (busy, idle, ceiling) = (view.busy, view.idle, view.allowance.ceiling);
            let halted = view.halted.map(|halted| format!(" {}", self.halted(&halted, budget)));
            let halted = halted.unwrap_or_default();
            let rate = self.rate().map(|rate| format!(" It may begin {rate} transactions a second."));
            let rate = rate.unwrap_or_default();
            let refused = worst.login_error.as_deref().map(|error| {
                format!(" The database server refuses its logins ({}).", error.trim_end_matches('.'))
            });
            let refused = refused.unwrap_or_default();
            return format!(
                "{name} does not wait: {busy} of {ceiling} servers busy, {idle} idle.{refused}{rate}{halted}"
            );
        };
        let mut text = format!("{name} waits: {}.", self.because(cause, worst));
        let (waiters, first) = (view.waiters, span(waited_us(budget)));
        let clients = if waiters == 1 { "client waits" } else { "clients wait" };
        // Writing to a String cannot fail.
        let _ = write!(text, " {waiters} {clients}, the first for {first}.");
        if self.workers.len() > 1 {
            let _ = write!(text, " This is the one of its {} workers that is worst off.", self.workers.len());
        }
        text
    }

    /// The same with all numbers.
    #[must_use]
    pub fn json(&self) -> Value {
        let sum = |number: fn(&TenantExplanation) -> u32| {
            self.workers.iter().map(number).fold(0_u32, u32::saturating_add)
        };
        // What each worker may use of it adds up; none has met it yet: what is configured.
        let limit = |of: fn(&Allowance) -> u32| match self.workers.as_slice() {
            [] => of(&self.tenant.allowance),
            all => all.iter().map(|worker| of(&worker.budget.tenant.allowance)).fold(0, u32::saturating_add),
        };
        let worst = self.worst().map(|worst| &worst.budget);
        let view = worst.map(|budget| budget.tenant);
        let cause = view.and_then(|view| view.cause);
        let halted = worst.and_then(|budget| Some((budget.tenant.halted?, budget.now)));
        json!({
            "tenant": &*self.tenant.name,
            "cluster": &*self.cluster,
            "tier": self.worst().map_or(self.tenant.tier, |worst| worst.tier).as_str(),
            "sentence": self.sentence(),
            "cause": cause.map(|(cause, _)| cause.as_str()),
            "cause_for_ms": worst.zip(cause).map(|(budget, (_, since))| budget.now.micros_since(since) / 1_000),
            "oldest_wait_ms": worst.map_or(0, waited_us) / 1_000,
            "clients": { "connected": sum(|worker| worker.clients), "waiting": sum(|worker| worker.budget.tenant.waiters) },
            "servers": {
                "login": sum(|worker| worker.budget.tenant.opening),
                "idle": sum(|worker| worker.budget.tenant.idle),
                "busy": sum(|worker| worker.budget.tenant.busy),
                "closing": sum(|worker| worker.budget.tenant.closing),
                "pinned": sum(|worker| worker.pins),
                "listener": sum(|worker| worker.listeners),
                "floor": limit(|allowance| allowance.floor),
                "share": limit(|allowance| allowance.share),
                "share_now": match self.workers.as_slice() {
                    [] => self.tenant.allowance.share,
                    _ => sum(|worker| worker.budget.tenant.share),
                },
                "ceiling": limit(|allowance| allowance.ceiling),
                "needed": sum(|worker| worker.budget.tenant.need).div_ceil(256),
            },
            "replicas": {
                "login": self.on_replicas(|on| on.opening),
                "idle": self.on_replicas(|on| on.idle),
                "busy": self.on_replicas(|on| on.busy),
                "closing": self.on_replicas(|on| on.closing),
                "waiting": self.on_replicas(|on| on.waiters),
            },
            "transaction_us": view.map(|view| view.expected_hold_us),
            "usual_transaction_us": view.and_then(|view| view.usual_hold_us),
            "halted": halted.map(|(halted, now)| json!({
                "how": halted.halt.as_str(),
                "for_ms": now.micros_since(halted.since) / 1_000,
                "ends_in_ms": halted.until.micros_since(now) / 1_000,
            })),
            "transactions_per_second": self.rate(),
            "budget": worst.map(|budget| json!({
                "capacity": budget.capacity,
                "working_capacity": budget.working_capacity,
                "used": budget.used,
                "busy": budget.busy,
                "idle": budget.idle,
                "login": budget.opening,
                "waiting_tenants": budget.waiting_tenants,
                "login_us": budget.login_us,
            })),
            "workers": self.workers.len(),
        })
    }

    /// Transactions that it may begin per second, on all its workers together.
    fn rate(&self) -> Option<u32> {
        let rates = self.workers.iter().filter_map(|worker| worker.budget.tenant.rate);
        rates.map(|rate| rate.per_second).reduce(u32::saturating_add)
    }

    fn because(&self, cause: Cause, worst: &TenantExplanation) -> String {
        let budget = &worst.budget;
        let view = &budget.tenant;
        let (busy, ceiling) = (view.busy, view.allowance.ceiling);
        let takes = takes(view);
        match cause {
            Cause::Ceiling => {
                format!("{busy} of {ceiling} servers busy, {takes}; {}", raising(budget))
            }
            Cause::Slow => format!(
                "{takes}; {busy} of {ceiling} servers busy. More servers may not help: see what they do in the database"
            ),
            Cause::OwnServers => format!(
                "one of its {busy} busy servers will be free before another one were logged in; {takes}, a login {}",
                span(budget.login_us)
            ),
            Cause::Budget => format!(
                "no server to be had on cluster {}: {} of {} busy, {} logging in, {} idle and too young to be taken or \
                 reserved; {} tenants wait, and those with fewer servers than their share come first. It has {} of {}",
                self.cluster,
                budget.busy,
                budget.working_capacity,
                budget.opening,
                budget.idle,
                budget.waiting_tenants,
                busy.saturating_add(view.idle).saturating_add(view.opening),
                its_share(view)
            ),
            Cause::LongBorrowers => format!(
                "{takes}, and tenants with such long ones hold all servers that they may hold together above their shares; \
                 it has {busy} of {}",
                its_share(view)
            ),
            Cause::Login => {
                format!(
                    "{} of its servers log in, which takes {}",
                    view.opening.saturating_add(view.promised),
                    span(budget.login_us)
                )
            }
            Cause::ReconnectBrake => format!(
                "{} servers log in at once on cluster {}, or so many were moved between tenants lately, that the next one \
                 has to wait; a login takes {}",
                budget.opening,
                self.cluster,
                span(budget.login_us)
            ),
            Cause::RateLimit => {
                let rate = self.rate().unwrap_or(0);
                format!("it may begin {rate} transactions a second, and begins more")
            }
            Cause::Paused => match &view.halted {
                Some(halted) => self.halted(halted, budget).trim_end_matches('.').to_owned(),
                None => "an operator holds it up".to_owned(),
            },
            Cause::ServerDown => format!("cluster {} cannot be reached", self.cluster),
            Cause::LoginRefused => format!(
                "the database server refuses its logins ({})",
                worst.login_error.as_deref().unwrap_or("no reason given").trim_end_matches('.')
            ),
        }
    }

    fn halted(&self, halted: &Halted, budget: &Explanation) -> String {
        let word = match halted.halt {
            Halt::Pause => "paused",
            Halt::Drain => "drained",
            Halt::Suspend => "suspended",
        };
        let (since, left) =
            (span(budget.now.micros_since(halted.since)), span(halted.until.micros_since(budget.now)));
        let view = &budget.tenant;
        let servers =
            view.busy.saturating_add(view.idle).saturating_add(view.closing).saturating_add(view.opening);
        format!(
            "An operator has {word} it {since} ago, for {left} more; {servers} servers left, {} busy.",
            view.busy
        )
    }
}

/// How long transactions take, and usually took.
fn takes(view: &TenantView) -> String {
    let now = span(view.expected_hold_us);
    match view.usual_hold_us {
        Some(usual_us) => format!("mean transaction {now} (usually {})", span(usual_us)),
        None => format!("mean transaction {now}"),
    }
}

/// What raising the ceiling would take.
fn raising(budget: &Explanation) -> String {
    let view = &budget.tenant;
    let ceiling = view.allowance.ceiling;
    let wanted =
        view.need.div_ceil(256).max(ceiling.saturating_add(1)).min(ceiling.saturating_add(view.waiters));
    let more = wanted.saturating_sub(ceiling);
    let free = budget.working_capacity.saturating_sub(budget.used);
    let idle = budget.idle.saturating_sub(view.idle);
    let servers = if more == 1 { "server" } else { "servers" };
    match (free, idle) {
        (0, 0) => format!(
            "raising the ceiling to {wanted} would not help: no server of the cluster is free or idle"
        ),
        (0, _) => {
            format!("raising the ceiling to {wanted} would need {more} {servers} from the {idle} idle ones")
        }
        (_, _) => format!(
            "raising the ceiling to {wanted} would need {more} {servers}; {free} are free and {idle} idle"
        ),
    }
}

/// Its share, and what is left of it.
fn its_share(view: &TenantView) -> String {
    let (now, written) = (view.share, view.allowance.share);
    if now == written {
        return format!("its share of {written}");
    }
    format!(
        "its share of {now} ({written}, but those of all tenants that are active are more than the servers)"
    )
}

fn waited_us(budget: &Explanation) -> u64 {
    let since: Option<Moment> = budget.tenant.head_wait_since;
    since.map_or(0, |since| budget.now.micros_since(since))
}

/// A span as people write it.
fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{} s", us / 1_000_000),
    }
}
