//! Goal: small traces whose outcome can be said beforehand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::load_text;
use crate::ids::TenantId;
use crate::tenant::{Tenant, Tiering};
use crate::trace::{Asked, Ending, LATEST_US, Mark, Request, Trace};

fn tenants(lines: &[(&str, &str)]) -> BTreeMap<TenantId, Arc<Tenant>> {
    let mut text =
        "threads.workers = 1\n[cluster.main]\nurl = \"postgres://localhost/app\"\nmax_connections = 40\n\
                    [listen.tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\n"
            .to_owned();
    for (name, line) in lines {
        text += &format!(
            "[[tenant]]\nname = \"{name}\"\nrole = \"r_{name}\"\nschema = \"s_{name}\"\n{line}\n\
             client_auth = {{ certificate = \"{name}\" }}\n"
        );
    }
    let settings = load_text(&text, Path::new(""), &|_| None, None).unwrap().settings;
    settings.catalog.iter().map(|tenant| (tenant.id, tenant.clone())).collect()
}

fn stage(capacity: u32, tenants: &BTreeMap<TenantId, Arc<Tenant>>) -> Stage<'_> {
    Stage {
        capacity,
        workers: 1,
        refuses_hopeless_waits: true,
        tiering: Tiering::Demand,
        tenants,
        login_us: 10_000,
    }
}

fn visit(tenant: u32, at_ms: u64, hold_ms: u32) -> Visit {
    Visit { at_us: at_ms * 1_000, tenant: TenantId(tenant), hold_us: hold_ms * 1_000, exempt: false }
}

#[test]
fn the_first_waits_for_a_login_and_the_next_for_the_ceiling() {
    let tenants = tenants(&[("acme", "tier = \"hot\"\nlimits = { ceiling = 1, share = 1 }")]);
    let visits = [visit(0, 0, 100), visit(0, 50, 100), visit(0, 500, 100)];
    let all = replay(&stage(10, &tenants), &visits).all;
    assert_eq!((all.arrivals, all.served, all.logins, all.servers_max), (3, 3, 1, 1));
    // Logged in at 10, free at 110; the second comes at 50.
    assert_eq!((all.wait_us, all.mean_wait_us(), all.p99_wait_us()), (70_000, 23_333, 60_000));
    assert_eq!(all.refused(), 0);
}

#[test]
fn who_would_wait_too_long_is_refused_by_its_reason() {
    let limits =
        "tier = \"hot\"\nlimits = { ceiling = 1, share = 1, max_waiters = 1, queue_timeout = \"50ms\" }";
    let tenants = tenants(&[("acme", limits)]);
    let visits = [visit(0, 0, 1_000), visit(0, 100, 10), visit(0, 120, 10)];
    let outcome = replay(&stage(10, &tenants), &visits);
    assert_eq!(outcome.all.refusals, BTreeMap::from([("queue_full", 1), ("queue_timeout", 1)]));
    assert_eq!((outcome.all.served, outcome.all.refused()), (1, 2));
    assert_eq!(outcome.tenants[&TenantId(0)], outcome.all);
}

#[test]
fn two_tenants_on_one_server_take_turns_with_logins() {
    let tenants = tenants(&[("acme", "tier = \"cold\""), ("bolt", "tier = \"cold\"")]);
    let visits: Vec<Visit> = (0..20).map(|n| visit(n % 2, u64::from(n) * 1_000, 5)).collect();
    let narrow = replay(&stage(1, &tenants), &visits);
    let wide = replay(&stage(2, &tenants), &visits);
    assert_eq!((narrow.all.logins, narrow.all.servers_max), (20, 1));
    assert_eq!((wide.all.logins, wide.all.servers_max), (2, 2));
    assert_eq!(narrow.tenants[&TenantId(0)].logins, 10);
    assert!(narrow.all.wait_us > wide.all.wait_us);
}

#[test]
fn a_rate_holds_for_transactions_and_not_for_what_is_exempt() {
    let rate = "limits = { transactions_per_second = 1, transaction_burst = 1, transaction_delay = \"0s\" }";
    let tenants = tenants(&[("acme", rate)]);
    let visits = [visit(0, 0, 1), visit(0, 100, 1), Visit { exempt: true, ..visit(0, 200, 1) }];
    let all = replay(&stage(10, &tenants), &visits).all;
    assert_eq!((all.served, all.refusals), (2, BTreeMap::from([("rate_limited", 1)])));
}

#[test]
fn a_tenant_whose_tier_is_chosen_goes_up_when_it_needs_more() {
    let limits = "tier = \"auto\"";
    let busy = |tenants: &BTreeMap<_, _>, tiering| {
        // Six servers' worth for a minute, in a budget of eight that a hot neighbour fills.
        let mut visits: Vec<Visit> = (0..6_000).map(|n| visit(0, n * 10, 60)).collect();
        visits.extend((0..6_000).map(|n| visit(1, n * 10, 75)));
        visits.sort_by_key(|visit| visit.at_us);
        let outcome = replay(&Stage { tiering, ..stage(8, tenants) }, &visits);
        outcome.tenants[&TenantId(0)].served
    };
    let tenants = tenants(&[("acme", limits), ("bolt", "tier = \"hot\"")]);
    let (chosen, cold) = (busy(&tenants, Tiering::Demand), busy(&tenants, Tiering::Static));
    assert!(chosen > cold * 11 / 10, "{chosen} served, and {cold} without a tier of its own");
    assert!(busy(&tenants, Tiering::Rank) >= cold);
}

#[test]
fn the_same_trace_has_the_same_outcome() {
    let tenants = tenants(&[("acme", ""), ("bolt", ""), ("cobalt", "tier = \"warm\"")]);
    let visits: Vec<Visit> = (0..5_000_u32)
        .map(|n| visit(n.wrapping_mul(2_654_435_761) >> 30, u64::from(n / 7), n % 13 + 1))
        .filter(|visit| visit.tenant.0 < 3)
        .collect();
    let outcome = replay(&stage(5, &tenants), &visits);
    assert!(outcome.all.wait_us > 0 && outcome.all.logins > 5);
    assert_eq!(replay(&stage(5, &tenants), &visits), outcome);
    let sum: u64 = outcome.tenants.values().map(|tally| tally.served + tally.refused()).sum();
    assert_eq!((sum, outcome.all.arrivals), (outcome.all.arrivals, visits.len() as u64));
}

#[test]
fn who_got_no_server_would_have_held_it_as_others_of_its_tenant_do() {
    let request = |tenant, hold_us, asked| Request { at_us: 7, tenant, hold_us, asked };
    let (plain, unserved) = (Asked::default(), Asked::default().with(Mark::Unserved));
    let trace = Trace {
        started_unix_ms: 0,
        names: ["acme", "gone", "bolt"].map(Into::into).to_vec(),
        requests: vec![
            request(0, 3_000, plain),
            request(0, 5_000, plain.with(Mark::Exempt)),
            request(0, 9_000_000, plain.with(Mark::Pinned)),
            request(0, 0, unserved),
            request(1, 1_000, plain),
            request(2, 0, unserved),
        ],
        logins: (0, 0),
        dropped: 0,
        ending: Ending::Complete,
    };
    let number = |name: &str| ["acme", "bolt"].iter().position(|known| *known == name);
    let (found, others) =
        visits(&trace, |name| number(name).map(|number| TenantId(u32::try_from(number).unwrap())));
    let holds: Vec<_> = found.iter().map(|visit| (visit.tenant.0, visit.hold_us, visit.exempt)).collect();
    assert_eq!(
        holds,
        [(0, 3_000, false), (0, 5_000, true), (0, 9_000_000, false), (0, 4_000, false), (1, 3_000, false)]
    );
    assert_eq!(others, 1);
}

/// Times as a trace may have them, from nothing to centuries.
fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![0..200_000_u64, 0..100_000_000_u64, 0..LATEST_US]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_trace_says_each_request_ends_once(
        capacity in 1..6_u32,
        mut times in prop::collection::vec((any_time(), 0..3_u32, any_time(), any::<bool>()), 0..60),
    ) {
        times.sort_unstable();
        let visits: Vec<Visit> = times
            .into_iter()
            .map(|(at_us, tenant, hold_us, exempt)| {
                let hold_us = u32::try_from(hold_us).unwrap_or(u32::MAX);
                Visit { at_us, tenant: TenantId(tenant), hold_us, exempt }
            })
            .collect();
        let rate = "limits = { transactions_per_second = 5 }";
        let tenants = tenants(&[("acme", ""), ("bolt", "tier = \"hot\""), ("cobalt", rate)]);
        for tiering in [Tiering::Demand, Tiering::Rank] {
            let all = replay(&Stage { tiering, ..stage(capacity, &tenants) }, &visits).all;
            prop_assert_eq!(all.arrivals, visits.len() as u64);
            prop_assert_eq!(all.served + all.refused(), all.arrivals);
            prop_assert!(!all.refusals.contains_key("left_waiting") && all.servers_max <= capacity);
        }
    }
}
