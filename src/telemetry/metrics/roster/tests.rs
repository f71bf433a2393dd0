//! Goal: names follow activity and trouble, and the sum of the rest is a counter whatever happens to names.
//! Method: a few tenants, a limit of one or two names, transactions chosen by hand; one test at random.

use super::*;
use crate::stats::TenantReport;
use crate::telemetry::metrics::fixture::{report, settings, tenant, worker};
use crate::tenant::{Catalog, Tier};

fn catalog(names: &[&str]) -> Catalog {
    Catalog::default().next(names.iter().map(|name| tenant(name, Tier::Warm)).collect()).unwrap()
}

fn table(catalog: &Catalog, reports: Vec<TenantReport>) -> Table {
    Table::new(settings(catalog.clone()), &mut [worker(reports)])
}

fn scrape(roster: &mut Roster, table: &Table, limit: usize, now_ms: u64) -> (Vec<String>, Option<u64>) {
    let selection = roster.select(table, limit, now_ms);
    let names = selection.named.iter().map(|index| table.entries()[*index].tenant.name.to_string()).collect();
    (names, selection.other.map(|other| other.counters.transactions))
}

#[test]
fn everybody_is_named_while_there_is_room() {
    let catalog = catalog(&["b", "a"]);
    let table = table(&catalog, vec![report(0, 5)]);
    let mut roster = Roster::default();
    assert_eq!(scrape(&mut roster, &table, 2, 0), (vec!["a".into(), "b".into()], None));
}

#[test]
fn a_busier_tenant_takes_the_name_and_no_work_is_counted_twice_or_lost() {
    let catalog = catalog(&["old", "new"]);
    let mut roster = Roster::default();
    let at = |transactions: [u64; 2]| {
        table(&catalog, vec![report(0, transactions[0]), report(1, transactions[1])])
    };
    assert_eq!(scrape(&mut roster, &at([1_000, 100]), 1, 0), (vec!["old".into()], Some(100)));
    assert_eq!(scrape(&mut roster, &at([1_010, 110]), 1, 60_000), (vec!["old".into()], Some(110)));
    // `new` did 5,000 in the window. Its series begins at 5,110; what it did before stays in the sum, and `old` adds 5.
    assert_eq!(scrape(&mut roster, &at([1_015, 5_110]), 1, 121_000), (vec!["new".into()], Some(5_115)));
    assert_eq!(scrape(&mut roster, &at([1_020, 9_000]), 1, 130_000), (vec!["new".into()], Some(5_120)));
    // `new` stops, `old` comes back: 20 more of `old` were its own, 3 more of `new` go to the sum.
    assert_eq!(scrape(&mut roster, &at([1_020, 9_000]), 1, 250_000), (vec!["new".into()], Some(5_120)));
    assert_eq!(scrape(&mut roster, &at([1_020, 9_000]), 1, 310_000), (vec!["new".into()], Some(5_120)));
    assert_eq!(scrape(&mut roster, &at([1_040, 9_003]), 1, 320_000), (vec!["old".into()], Some(5_143)));
}

#[test]
fn trouble_outranks_activity() {
    let catalog = catalog(&["busy", "stuck"]);
    let mut roster = Roster::default();
    let mut stuck = report(1, 1);
    assert_eq!(scrape(&mut roster, &table(&catalog, vec![report(0, 900), stuck.clone()]), 1, 0).0, ["busy"]);
    stuck.gauges.cl_waiting = 1;
    assert_eq!(scrape(&mut roster, &table(&catalog, vec![report(0, 990), stuck]), 1, 1_000).0, ["stuck"]);
}

#[test]
fn two_tenants_of_equal_activity_do_not_take_turns() {
    let catalog = catalog(&["a", "b"]);
    let mut roster = Roster::default();
    let mut totals = [0_u64, 0];
    for round in 0..50_u64 {
        totals[0] += 100;
        totals[1] += if round % 2 == 0 { 130 } else { 70 };
        let table = table(&catalog, vec![report(0, totals[0]), report(1, totals[1])]);
        let named = scrape(&mut roster, &table, 1, round * 15_000).0;
        if round > 0 {
            assert_eq!(named, ["b"], "round {round}");
        }
    }
}

#[test]
fn a_removed_tenant_does_not_make_the_sum_fall() {
    let both = catalog(&["a", "gone"]);
    let one = both.next(vec![tenant("a", Tier::Warm)]).unwrap();
    let mut roster = Roster::default();
    assert_eq!(scrape(&mut roster, &table(&both, vec![report(0, 500), report(1, 70)]), 1, 0).1, Some(70));
    assert_eq!(scrape(&mut roster, &table(&one, vec![report(0, 510), report(1, 75)]), 1, 1_000).1, Some(75));
    assert_eq!(scrape(&mut roster, &table(&one, vec![report(0, 520)]), 1, 2_000).1, Some(75));
}

#[test]
fn a_tenant_called_like_the_sum_is_never_named() {
    let catalog = catalog(&[OTHER, "a"]);
    let mut roster = Roster::default();
    let table = table(&catalog, vec![report(0, 900), report(1, 1)]);
    assert_eq!(scrape(&mut roster, &table, 10, 0), (vec!["a".into()], Some(900)));
}

#[test]
fn states_of_the_rest_are_summed_and_the_oldest_wait_is_the_oldest() {
    let catalog = catalog(&["a", "b", "c"]);
    let mut roster = Roster::default();
    let mut waiting = [report(0, 0), report(1, 0), report(2, 0)];
    for (index, report) in (1_u32..).zip(&mut waiting) {
        report.gauges.sv_idle = index;
        report.gauges.oldest_wait_us = u64::from(10 * index);
    }
    let other = roster.select(&table(&catalog, waiting.into()), 0, 0).other.unwrap();
    assert_eq!((other.gauges.sv_idle, other.gauges.oldest_wait_us, other.ceiling), (6, 30, 12));
}

/// Every transaction done after the first scrape is printed at most once, and almost always exactly once: what a tenant
/// did between two scrapes shows in its own series or in the sum.
#[test]
fn under_random_work_the_increases_add_up() {
    let names: Vec<_> = (0..20).map(|index| format!("t{index:02}")).collect();
    let catalog = catalog(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut roster = Roster::default();
    let mut totals = [0_u64; 20];
    let mut printed: HashMap<String, u64> = HashMap::new();
    let (mut increases, mut seed) = (0_u64, 7_u64);
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..500_u64 {
        for _ in 0..10 {
            let tenant = usize::try_from(random(20)).unwrap();
            totals[tenant] += random(1_000);
        }
        let reports = (0_u32..).zip(totals).map(|(id, total)| report(id, total)).collect();
        let table = table(&catalog, reports);
        let selection = roster.select(&table, 5, round * 15_000);
        let named = selection.named.iter().map(|index| {
            let entry = &table.entries()[*index];
            (entry.tenant.name.to_string(), entry.counters().transactions)
        });
        let now: HashMap<_, _> =
            named.chain([(OTHER.to_owned(), selection.other.unwrap().counters.transactions)]).collect();
        for (name, value) in &now {
            if let Some(before) = printed.get(name) {
                assert!(value >= before, "round {round}: {name} fell from {before} to {value}");
                increases += value - before;
            }
        }
        let sum: u64 = totals.iter().sum();
        if round == 0 {
            increases = sum;
        }
        assert_eq!(increases, sum, "round {round}");
        printed = now;
    }
}
