//! Goal: every page parses, says what the workers counted, and survives any tenant name.

use std::sync::Arc;

use tenantry::tenant::{Tenant, Tier};

use crate::fake::{Fake, HOSTILE, report, tenant};
use crate::http::Server;
use crate::promtool;

fn some_tenants() -> Vec<Tenant> {
    let plain = [("acme", Tier::Hot), ("globex", Tier::Warm), ("initech", Tier::Cold)];
    let hostile = HOSTILE.map(|name| tenant(name, Tier::Cold));
    plain.map(|(name, tier)| tenant(name, tier)).into_iter().chain(hostile).collect()
}

async fn server() -> Server {
    Server::start(Arc::new(Fake::new(report(some_tenants())))).await
}

#[tokio::test]
async fn promtool_has_nothing_to_say_about_either_page() {
    let server = server().await;
    for target in ["/metrics", "/metrics/tenants"] {
        for _ in 0..2 {
            let page = server.get(target).await;
            assert_eq!(page.status, 200);
            assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
            promtool::check(&page.body);
        }
    }
}

#[tokio::test]
async fn a_page_says_what_the_workers_counted() {
    let page = promtool::parse(&server().await.get("/metrics").await.body);
    // `acme` is the first tenant, so every counter of the fake is its base plus one.
    let acme = ("tenant", "acme");
    assert_eq!(page["tenantry_tenant_transactions_total"].value(&[acme]), 1_001.0);
    assert_eq!(page["tenantry_tenant_lease_seconds_total"].value(&[acme]), 7.000_001);
    assert_eq!(page["tenantry_tenant_servers"].value(&[acme, ("state", "idle")]), 3.0);
    assert_eq!(page["tenantry_tenant_servers_ceiling"].value(&[acme]), 20.0);
    assert_eq!(page["tenantry_tenant_refusals_total"].value(&[acme, ("reason", "queue_full")]), 1.0);
    let info = [acme, ("cluster", "main"), ("tier", "hot"), ("mode", "transaction")];
    assert_eq!(page["tenantry_tenant_info"].value(&info), 1.0);
    // `globex` waits.
    assert_eq!(page["tenantry_tenant_oldest_wait_seconds"].value(&[("tenant", "globex")]), 1.234_567);

    // Two workers of 20 permits each, 5 and 6 committed.
    let main = ("cluster", "main");
    assert_eq!(page["tenantry_cluster_budget_permits"].value(&[main]), 40.0);
    assert_eq!(page["tenantry_cluster_committed_permits"].value(&[main]), 11.0);
    assert_eq!(page["tenantry_cluster_saturation_ratio"].value(&[main]), 0.275);
    assert_eq!(page["tenantry_cluster_breaker_open"].value(&[main]), 0.0);
    assert_eq!(page["tenantry_cluster_breaker_open"].value(&[("cluster", "second")]), 1.0);
    let full = [main, ("reason", "server_full")];
    assert_eq!(page["tenantry_cluster_login_failures_total"].value(&full), 4.0);

    assert_eq!(page["tenantry_tenants"].value(&[("tier", "cold")]), 7.0);
    assert_eq!(page["tenantry_logins_total"].value(&[("result", "wrong_password")]), 3.0);
    assert_eq!(page["tenantry_start_time_seconds"].value(&[]), 1_770_000_000.123);
    assert_eq!(page["tenantry_certificate_not_after_timestamp_seconds"].value(&[]), 1_900_000_000.0);
    assert_eq!(page["tenantry_config_reloads_total"].value(&[("result", "failed")]), 1.0);
    assert_eq!(page["tenantry_worker_busy_seconds_total"].value(&[("worker", "1")]), 1.500_001);
}

#[tokio::test]
async fn without_tls_there_is_no_certificate_to_expire() {
    let mut report = report(some_tenants());
    report.certificate_not_after = None;
    let page = Server::start(Arc::new(Fake::new(report))).await.get("/metrics").await;
    assert!(!page.body.contains("tenantry_certificate"));
}

#[tokio::test]
async fn histograms_are_cumulative_and_agree_with_themselves() {
    let page = promtool::parse(&server().await.get("/metrics").await.body);
    let waits = &page["tenantry_wait_seconds"];
    for tier in ["hot", "warm", "cold"] {
        let of_tier = || waits.samples.iter().filter(|(_, labels, _)| labels["tier"] == tier);
        let buckets: Vec<_> = of_tier().filter(|(name, ..)| name.ends_with("_bucket")).collect();
        let counts: Vec<_> = buckets.iter().map(|(_, _, value)| *value).collect();
        let bounds: Vec<f64> = buckets.iter().map(|(_, labels, _)| labels["le"].parse().unwrap()).collect();
        assert!(counts.is_sorted() && bounds.is_sorted(), "{tier}: {counts:?} {bounds:?}");
        assert_eq!(bounds.last(), Some(&f64::INFINITY));
        let count = of_tier().find(|(name, ..)| name.ends_with("_count")).unwrap().2;
        assert_eq!((counts.last(), count), (Some(&400.0), 400.0));
        let sum = of_tier().find(|(name, ..)| name.ends_with("_sum")).unwrap().2;
        assert!(sum > 0.0);
    }
}

#[tokio::test]
async fn hostile_names_come_out_as_they_went_in() {
    let server = server().await;
    for (target, other_is_a_tenant) in [("/metrics", false), ("/metrics/tenants", true)] {
        let page = promtool::parse(&server.get(target).await.body);
        assert!(!page.contains_key("tenantry_fake"));
        let info = &page["tenantry_tenant_info"];
        let names: Vec<_> = info.samples.iter().map(|(_, labels, _)| labels["tenant"].as_str()).collect();
        for name in HOSTILE {
            assert_eq!(names.contains(&name), other_is_a_tenant || name != "_other", "{name:?} on {target}");
        }
    }
}

#[tokio::test]
async fn openmetrics_is_given_to_whom_prefers_it() {
    let accept =
        "Accept: application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5\r\n";
    let server = server().await;
    for target in ["/metrics", "/metrics/tenants"] {
        let page = server.request("GET", target, accept).await;
        assert_eq!(page.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(page.body.ends_with("\n# EOF\n"), "{target}");
        assert_eq!(page.body.matches("# EOF").count(), 1);
        for line in page.body.lines().filter(|line| line.starts_with("# TYPE ")) {
            assert!(!line.contains("_total ") && !line.contains("_info "), "{line}");
        }
        assert!(page.body.contains("# TYPE tenantry_tenant info\n"));
        assert!(
            page.body
                .contains("# TYPE tenantry_tenant_transactions counter\ntenantry_tenant_transactions_total{")
        );
    }
}
