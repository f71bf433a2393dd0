//! Goal: 100,000 tenants make a page of the same size as 500; the page with all of them is never whole in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use tenantry::tenant::{Tenant, Tier};
use tokio::io::AsyncReadExt as _;

use crate::fake::{Fake, report, tenant};
use crate::http::Server;
use crate::promtool;

const MANY: usize = 100_000;

fn many(number: usize) -> Vec<Tenant> {
    (0..number).map(|index| tenant(&format!("customer-{index:06}"), Tier::ALL[index % 3])).collect()
}

async fn server(tenants: usize) -> Server {
    Server::start(Arc::new(Fake::new(report(many(tenants))))).await
}

#[tokio::test]
async fn a_hundred_thousand_tenants_are_a_page_of_bounded_size() {
    let server = server(MANY).await;
    let page = server.get("/metrics").await.body;
    promtool::check(&page);
    let families = promtool::parse(&page);
    let named = families["tenantry_tenant_info"].samples.len();
    assert_eq!(named, 500);
    assert_eq!(families["tenantry_metrics_tenants_elided"].value(&[]), (MANY - named) as f64);
    // What tenants cost is 48 series each, one for each cause they have waited for (four here), two for changes of tier;
    // every tenth has two or one more for replicas, the sum of the rest included; everything else is few.
    let series: usize = families.values().map(|family| family.samples.len()).sum();
    assert!(series < 501 * (48 + 6) + 51 * 3 + 400, "{series} series");
    assert!(page.len() < 2_050_000, "{} bytes", page.len());

    // Every tenant of the fake did 1,000 transactions and its number.
    let transactions = &families["tenantry_tenant_transactions_total"];
    let all: u64 = (1..=MANY as u64).map(|n| 1_000 + n).sum();
    let printed: f64 = transactions.samples.iter().map(|(_, _, value)| value).sum();
    assert_eq!(printed, all as f64);
    let others = &families["tenantry_tenant_servers"];
    assert_eq!(others.value(&[("tenant", "_other"), ("state", "idle")]), (3 * (MANY - named)) as f64);
}

#[tokio::test]
async fn a_second_scrape_names_the_same_tenants() {
    let server = server(2_000).await;
    let mut pages = Vec::new();
    for _ in 0..2 {
        let page = promtool::parse(&server.get("/metrics").await.body);
        let info = &page["tenantry_tenant_info"];
        pages.push(
            info.samples.iter().map(|(_, labels, _)| labels["tenant"].clone()).collect::<BTreeSet<_>>(),
        );
        assert_eq!(page["tenantry_tenant_transactions_total"].samples.len(), 501);
    }
    assert_eq!(pages[0], pages[1]);
}

#[tokio::test]
async fn the_streamed_page_has_everybody_and_can_be_cut_down_to_a_tier() {
    let server = server(3_000).await;
    let all = server.get("/metrics/tenants").await;
    assert_eq!(all.header("transfer-encoding"), "chunked");
    promtool::check(&all.body);
    let families = promtool::parse(&all.body);
    assert_eq!(families["tenantry_tenant_info"].samples.len(), 3_000);
    assert_eq!(families["tenantry_tenant_servers"].samples.len(), 12_000);
    assert_eq!(families["tenantry_tenant_queries_total"].value(&[("tenant", "customer-002999")]), 5_000.0);
    assert!(
        families["tenantry_tenant_clients"].samples.iter().all(|(_, labels, _)| labels["tenant"] != "_other")
    );

    let hot = promtool::parse(&server.get("/metrics/tenants?tier=hot").await.body);
    let tiers: BTreeSet<_> =
        hot["tenantry_tenant_info"].samples.iter().map(|(_, labels, _)| &labels["tier"]).collect();
    assert_eq!(tiers.into_iter().collect::<Vec<_>>(), ["hot"]);
    assert_eq!(hot["tenantry_tenant_leases_total"].samples.len(), 1_000);
    assert_eq!(server.get("/metrics/tenants?tier=tepid").await.status, 400);
}

#[tokio::test]
async fn a_page_without_tenants_is_a_page() {
    let server = server(0).await;
    for target in ["/metrics", "/metrics/tenants", "/metrics/tenants?tier=cold"] {
        promtool::check(&server.get(target).await.body);
    }
}

#[tokio::test]
async fn only_two_streams_are_open_and_one_that_is_left_makes_room() {
    let server = server(MANY).await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        let mut stream = server.send("GET", "/metrics/tenants", "").await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        readers.push(stream);
    }
    assert_eq!(server.get("/metrics/tenants").await.status, 503);
    assert_eq!(server.get("/metrics").await.status, 200);
    readers.clear();
    // The server notices at its next write; ask until it has.
    loop {
        let response = server.send("GET", "/metrics/tenants", "").await;
        let mut status = [0; 12];
        tokio::io::BufReader::new(response).read_exact(&mut status).await.unwrap();
        if &status == b"HTTP/1.1 200" {
            break;
        }
        tokio::task::yield_now().await;
    }
}
