//! Which worker a tenant is put on.

use crate::support::{PATIENCE, Plan, Stage, Wire, eventually};

/// The worker that the client's cancel key names.
pub(crate) fn worker(client: &Wire) -> u32 {
    client.key.0 >> 22 & 0xff
}

#[tokio::test]
async fn tenants_that_come_are_put_where_there_is_time() {
    let stage = Stage::start(Plan::new(&["noisy", "calm", "third"]).workers(2)).await;
    let mut noisy = stage.client("noisy").await;
    assert_eq!(worker(&noisy), 0);
    let noise = tokio::spawn(async move {
        loop {
            noisy.query("SELECT 1").await;
        }
    });
    eventually("a worker has been busy for two seconds", PATIENCE, async || {
        let metrics = stage.proxy().metrics().await;
        let busy = |worker| metrics.sum("tenantry_worker_busy_seconds_total", &[("worker", worker)]);
        let (noisy, calm) = (busy("0"), busy("1"));
        assert!(calm < noisy + 0.5, "{calm} of the idle worker, {noisy} of the busy one");
        (noisy > 2.0).then_some(())
    })
    .await;
    for tenant in ["calm", "third"] {
        assert_eq!(worker(&stage.client(tenant).await), 1, "{tenant} shares a worker with the noise");
    }
    noise.abort();
}
