//! Goal: `docs/metrics.md` lists exactly what the pages print: name, type and labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenantry::tenant::Tier;

use crate::fake::{Fake, report, tenant};
use crate::http::Server;
use crate::promtool;

/// Rows of the tables: `` | `name` | type | `label` `label` | meaning | ``.
fn documented() -> BTreeMap<String, (String, Vec<String>)> {
    let text = include_str!("../../docs/metrics.md");
    let rows =
        text.lines().filter(|line| line.starts_with("| `tenantry_") || line.starts_with("| `process_"));
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!meaning.is_empty(), "{row}");
        let mut labels: Vec<_> = labels.split(' ').map(|label| label.trim_matches('`').to_owned()).collect();
        labels.retain(|label| !label.is_empty());
        labels.sort();
        (name.trim_matches('`').to_owned(), (kind.to_owned(), labels))
    });
    let count = rows.clone().count();
    let rows: BTreeMap<_, _> = rows.collect();
    assert_eq!(rows.len(), count, "a metric is listed twice");
    rows
}

#[tokio::test]
async fn the_documented_metrics_are_the_exported_ones() {
    let server = Server::start(Arc::new(Fake::new(report(vec![tenant("acme", Tier::Hot)])))).await;
    // The first request is what gives the counter of requests its first series.
    server.get("/livez").await;
    let page = promtool::parse(&server.get("/metrics").await.body);
    let exported: BTreeMap<_, _> = page
        .iter()
        .map(|(name, family)| {
            let labels = family.labels().into_iter().map(str::to_owned).collect();
            (name.clone(), (family.kind.clone(), labels))
        })
        .collect();
    assert_eq!(documented(), exported);
}
