//! Fairness and isolation over time: proportional service, quiet tenants beside noisy ones, and metamorphic relations.

use tenantry::budget::BudgetConfig;
use tenantry::ids::TenantId;

use super::cluster::{Clients, Cluster};
use super::world::allowance;

const SECOND: u64 = 1_000_000;

/// (Σx)² / (n Σx²): 1 if all are served alike.
pub(super) fn jain(services: &[f64]) -> f64 {
    let sum: f64 = services.iter().sum();
    let squares: f64 = services.iter().map(|x| x * x).sum();
    sum * sum / (services.len() as f64 * squares)
}

fn clients(tenant: TenantId, clients: u32, hold_us: u64, think_us: u64) -> Clients {
    Clients { tenant, clients, hold_us, think_us, from_us: 0 }
}

/// Slot-time per weight of each tenant, all of them permanently backlogged.
fn service_per_weight(capacity: u32, weights: &[u32], per_tenant: u32, seconds: u64) -> Vec<f64> {
    let mut cluster = Cluster::new(BudgetConfig::new(capacity), 11);
    let mut tenants = Vec::new();
    for (number, weight) in weights.iter().enumerate() {
        let mut allowance = allowance(1, 1, capacity);
        allowance.weight = *weight;
        let tenant = cluster.tenant(number as u32, allowance);
        tenants.push((tenant, *weight));
        cluster.clients(clients(tenant, per_tenant, 4_000, 200));
    }
    cluster.run_until(2 * SECOND);
    cluster.services.clear();
    cluster.measure_from = cluster.world.now;
    cluster.run_until((2 + seconds) * SECOND);
    let held = |tenant| cluster.services.get(&tenant).map_or(0, |service| service.held_us);
    tenants.into_iter().map(|(tenant, weight)| held(tenant) as f64 / f64::from(weight)).collect()
}

#[test]
fn starving_tenants_take_turns_at_the_floor() {
    // 40 tenants, 8 servers: nobody can have its floor all the time.
    let services = service_per_weight(8, &[1; 40], 3, 60);
    assert!(services.iter().all(|held| *held > 0.0), "nobody is left out");
    let index = jain(&services);
    assert!(index >= 0.95, "Jain index {index:.3}");
}

#[test]
fn backlogged_tenants_share_what_is_above_the_floors_by_weight() {
    let services = service_per_weight(24, &[1, 1, 2, 2, 4, 4], 40, 40);
    let index = jain(&services);
    assert!(index >= 0.95, "Jain index {index:.3} of {services:?}");
}

/// The quiet tenant's p99 wait, its losses and the noisy tenants' transactions.
fn quiet_beside(noisy: u32) -> (u64, u64, usize) {
    let capacity = 20;
    let mut cluster = Cluster::new(BudgetConfig::new(capacity), 3);
    let quiet = cluster.tenant(0, allowance(1, 2, 10));
    cluster.clients(clients(quiet, 3, 3_000, 30_000));
    for number in 1..=9 {
        let tenant = cluster.tenant(number, allowance(1, 2, 10));
        cluster.clients(clients(tenant, 2, 3_000, 60_000));
    }
    for number in 0..noisy {
        let tenant = cluster.tenant(100 + number, allowance(1, 2, 20));
        cluster.clients(Clients {
            tenant,
            clients: 200,
            hold_us: 10_000,
            think_us: 200,
            from_us: 2 * SECOND,
        });
    }
    cluster.measure_from = tenantry::time::Moment(3 * SECOND);
    cluster.run_until(18 * SECOND);
    let lost = cluster.services.get(&quiet).map_or(0, |service| service.lost);
    let noise = cluster.services.iter().filter(|(tenant, _)| tenant.0 >= 100);
    (cluster.wait_us(quiet, 990), lost, noise.map(|(_, service)| service.waits_us.len()).sum())
}

#[test]
fn a_quiet_tenant_hardly_notices_a_noisy_one() {
    let (alone, _, _) = quiet_beside(0);
    let (beside, lost, transactions) = quiet_beside(1);
    assert_eq!(lost, 0, "nothing of the quiet tenant is lost");
    assert!(transactions > 5_000, "the noisy tenant uses what is free: {transactions}");
    assert!(beside <= alone + 20_000, "p99 wait {beside} us beside the noise, {alone} us alone");
}

#[test]
fn more_noise_from_one_tenant_does_not_lengthen_a_quiet_ones_wait() {
    let (little, ..) = quiet_beside(1);
    let (much, lost, _) = quiet_beside(3);
    assert_eq!(lost, 0);
    assert!(much <= little + 20_000, "p99 wait {much} us with three noisy tenants, {little} us with one");
}

#[test]
fn moving_a_slot_is_rare_enough_for_the_reconnect_budget() {
    let mut cluster = Cluster::new(BudgetConfig::new(20), 9);
    for number in 0..30 {
        let tenant = cluster.tenant(number, allowance(0, 0, 20));
        cluster.clients(clients(tenant, 10, 4_000, 200));
    }
    cluster.run_until(5 * SECOND);
    let before = cluster.world.opens;
    cluster.run_until(25 * SECOND);
    // 50 a second, or 2 % of about 5 000 transactions a second.
    let rate = (cluster.world.opens - before) / 20;
    assert!(rate <= 110, "{rate} logins a second among tenants that only borrow");
}

#[test]
fn nobody_waits_for_ever_among_newcomers() {
    // A stream of tenants that were never seen before, and one that waits among them.
    let mut cluster = Cluster::new(BudgetConfig::new(2), 5);
    let patient = cluster.tenant(10_000, allowance(1, 1, 1));
    cluster.clients(clients(patient, 1, 20_000, 1_000));
    for number in 0..400 {
        let tenant = cluster.tenant(number, allowance(1, 1, 1));
        let from_us = u64::from(number) * 50_000;
        cluster.clients(Clients { tenant, clients: 1, hold_us: 60_000, think_us: 60 * SECOND, from_us });
    }
    cluster.run_until(20 * SECOND);
    let service = cluster.services.get(&patient).cloned().unwrap_or_default();
    assert_eq!(service.lost, 0, "of {} requests", service.waits_us.len());
    assert!(service.waits_us.len() > 50, "{} requests served", service.waits_us.len());
}

#[test]
fn other_names_get_the_same_service() {
    let run = |offset: u32| {
        let mut cluster = Cluster::new(BudgetConfig::new(6), 21);
        let tenants: Vec<_> =
            (0..12).map(|number| cluster.tenant(number + offset, allowance(1, 1, 4))).collect();
        for tenant in &tenants {
            cluster.clients(clients(*tenant, 4, 4_000, 3_000));
        }
        cluster.run_until(20 * SECOND);
        tenants.iter().map(|tenant| cluster.services[tenant].held_us).collect::<Vec<_>>()
    };
    assert_eq!(run(0), run(1_000), "the order of ids is all that matters of them");
}

#[test]
fn half_the_weight_twice_is_the_whole_weight_once_for_the_others() {
    let run = |split: bool| {
        let mut cluster = Cluster::new(BudgetConfig::new(16), 8);
        let mut others = Vec::new();
        for number in 0..4 {
            let mut allowance = allowance(0, 0, 16);
            allowance.weight = 2;
            let tenant = cluster.tenant(number, allowance);
            cluster.clients(clients(tenant, 30, 4_000, 200));
            others.push(tenant);
        }
        for number in 0..(if split { 2 } else { 1 }) {
            let mut allowance = allowance(0, 0, 16);
            allowance.weight = if split { 1 } else { 2 };
            let tenant = cluster.tenant(100 + number, allowance);
            cluster.clients(clients(tenant, if split { 15 } else { 30 }, 4_000, 200));
        }
        cluster.run_until(2 * SECOND);
        cluster.services.clear();
        cluster.measure_from = cluster.world.now;
        cluster.run_until(32 * SECOND);
        others.iter().map(|tenant| cluster.services[tenant].held_us).sum::<u64>() as f64
    };
    let (whole, halves) = (run(false), run(true));
    assert!((whole / halves - 1.0).abs() < 0.1, "the others got {whole} and {halves} slot-microseconds");
}

/// Twenty quiet tenants, each with a query every twenty milliseconds, and one noisy one on twenty servers: one too few.
#[test]
fn with_one_server_too_few_the_quiet_ones_keep_nearly_all_of_theirs() {
    let mut cluster = Cluster::new(BudgetConfig::new(20), 13);
    let mut quiet = Vec::new();
    for number in 0..20 {
        let tenant = cluster.tenant(number, allowance(1, 1, 10));
        cluster.clients(clients(tenant, 1, 300, 20_000));
        quiet.push(tenant);
    }
    let noisy = cluster.tenant(100, allowance(1, 5, 10));
    cluster.clients(Clients { tenant: noisy, clients: 200, hold_us: 5_000, think_us: 300, from_us: SECOND });
    cluster.measure_from = tenantry::time::Moment(3 * SECOND);
    cluster.run_until(3 * SECOND);
    let before = cluster.world.opens;
    cluster.run_until(13 * SECOND);
    let logins = (cluster.world.opens - before) / 10;
    let waits: Vec<u64> = quiet.iter().flat_map(|tenant| cluster.services[tenant].waits_us.clone()).collect();
    let missed = waits.iter().filter(|wait| **wait > 0).count();
    let p99 = quiet.iter().map(|tenant| cluster.wait_us(*tenant, 990)).max().unwrap_or(0);
    let done = waits.len();
    eprintln!(
        "logins {logins} missed {missed} of {done} p99 {p99} noisy {}",
        cluster.services[&noisy].waits_us.len() / 10
    );
    assert!(
        missed * 6 < done && p99 < 25_000,
        "{missed} of {done} waited, {logins} logins a second, p99 {p99} us"
    );
}
