//! What operators have ordered for tenants, for as long as it holds.
//!
//! Owns the orders in force, also for tenants that have no client here yet, and undoes those that have to be: a halt ends by
//! itself in the scheduler, a throttle ends here. Must not know how an order comes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;

use crate::budget::{Command, Halt, Halted};
use crate::ids::TenantId;
use crate::pool::{Pool, TenantState};
use crate::tenant::{Part, Portion, RateLimit};
use crate::time::Moment;

/// Orders by tenant. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Steering(Rc<RefCell<HashMap<TenantId, Orders>>>);

/// What holds for one tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    halt: Option<(Halt, Moment)>,
    throttle: Option<(RateLimit, Moment)>,
    /// How much of the tenant is here, as was said last.
    portion: Option<Portion>,
}

impl Steering {
    /// Takes an order, which holds from now on.
    pub(super) fn take(&self, pool: &Pool, tenant: TenantId, portion: Portion, command: Command) {
        let now = pool.clock().now();
        {
            let mut all = self.0.borrow_mut();
            all.retain(|_, orders| {
                orders.forget_past(now);
                orders.halt.is_some() || orders.throttle.is_some()
            });
            let orders = all.entry(tenant).or_default();
            match command {
                Command::Halt(halt, span) => orders.halt = Some((halt, now + span)),
                Command::Throttle(limit, span) => {
                    orders.throttle = Some((limit, now + span));
                }
                Command::Resume => *orders = Orders::default(),
            }
        }
        if let Command::Throttle(_, span) = command {
            self.end_throttle(pool, tenant, span);
        }
        let Some(state) = pool.tenant(tenant) else { return };
        self.apply(pool, &state, portion);
    }

    /// Has what is in force hold for a tenant that has just been met, or changed.
    pub(super) fn apply(&self, pool: &Pool, state: &Rc<TenantState>, portion: Portion) {
        let now = pool.clock().now();
        if let Some(orders) = self.0.borrow_mut().get_mut(&state.id) {
            orders.portion = Some(portion);
        }
        let mut orders = self.0.borrow().get(&state.id).copied().unwrap_or_default();
        orders.forget_past(now);
        let throttle = orders.throttle.map(|(limit, _)| portion.of_rate(limit));
        // Where it reads as where it writes.
        for (state, view) in pool.everywhere(state) {
            state.set_throttle(throttle);
            pool.set_rate(&state);
            orders.have_halted(pool, &state, view.and_then(|view| view.halted));
        }
    }

    /// The configured rate holds again when the time is over, if no other throttle does by then.
    fn end_throttle(&self, pool: &Pool, tenant: TenantId, span: Duration) {
        let (steering, pool) = (self.clone(), pool.clone());
        spawn_local(async move {
            // A millisecond more: the timer must not ring before the moment has passed.
            tokio::time::sleep(span.saturating_add(Duration::from_millis(1))).await;
            if let Some(state) = pool.tenant(tenant) {
                let orders = steering.0.borrow().get(&tenant).copied().unwrap_or_default();
                steering.apply(&pool, &state, orders.portion.unwrap_or(Portion::of_part(Part::WHOLE)));
            }
        });
    }
}

impl Orders {
    /// The halt that is in force, or none, holds for the tenant there; `halted` is what does so far.
    fn have_halted(&self, pool: &Pool, state: &Rc<TenantState>, halted: Option<Halted>) {
        match self.halt {
            Some((halt, until))
                if halted.map(|halted| (halted.halt, halted.until)) != Some((halt, until)) =>
            {
                pool.halt(state, halt, until);
            }
            Some(_) => {}
            None if halted.is_some() => pool.resume(state),
            None => {}
        }
    }

    fn forget_past(&mut self, now: Moment) {
        self.halt = self.halt.filter(|(_, until)| now < *until);
        self.throttle = self.throttle.filter(|(_, until)| now < *until);
    }
}
