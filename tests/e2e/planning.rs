//! Goal: what real clients did can be recorded without disturbing them, and `tenantry plan` says of it what then happens.

use std::path::PathBuf;

use tenantry::trace::{Ending, Mark, Trace, parse};

use crate::support::{PATIENCE, Plan, Stage, Wire, eventually};

const FILE: &str = "requests.trace";

fn recorded(plan: Plan) -> Plan {
    plan.set("trace", "file", &format!("\"{FILE}\""))
}

fn file(stage: &Stage) -> PathBuf {
    stage.dir.path().join(FILE)
}

fn read(stage: &Stage) -> Option<Trace> {
    parse(&std::fs::read(file(stage)).ok()?).ok()
}

/// The trace, when nobody writes it any more.
async fn finished(stage: &Stage) -> Trace {
    let whole = async || read(stage).filter(|trace| trace.ending == Ending::Complete);
    eventually("the trace has its end", PATIENCE, whole).await
}

/// What `tenantry plan` says of another plan: its exit code and text.
async fn planned(stage: &Stage, plan: &Plan) -> (Option<i32>, String) {
    let new = stage.dir.path().join("new.toml");
    let proxy = stage.proxy();
    let text = plan.toml(proxy.address, proxy.http, stage.postgres.port(), stage.dir.path());
    std::fs::write(&new, text).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenantry"))
        .arg("plan")
        .arg(new)
        .arg("--config")
        .arg(proxy.config_path())
        .arg("--trace")
        .arg(file(stage))
        // What the machine happened to take for them is another matter.
        .args(["--login", "1ms"])
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The proxy may keep a server for a moment, to ask it something of its own; what is not given back is not recorded yet.
async fn all_is_given_back(stage: &Stage) {
    eventually("no server is leased", PATIENCE, async || {
        let metrics = stage.proxy().metrics().await;
        (metrics.sum("tenantry_tenant_servers", &[("state", "active")]) == 0.0).then_some(())
    })
    .await;
}

/// Four clients in transactions at the same time, some times.
async fn work(clients: &mut [Wire]) {
    for _ in 0..10 {
        for client in &mut *clients {
            assert!(client.query("BEGIN").await.errors.is_empty());
        }
        for client in &mut *clients {
            assert!(client.query("SELECT pg_sleep(0.005)").await.errors.is_empty());
        }
        for client in &mut *clients {
            assert!(client.query("COMMIT").await.errors.is_empty());
        }
    }
}

#[tokio::test]
async fn a_lower_ceiling_is_tried_out_before_it_hurts() {
    let mut stage = Stage::start(recorded(Plan::new(&["acme", "bolt"]))).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(stage.client("acme").await);
    }
    work(&mut clients).await;
    stage.client("bolt").await.query("SELECT 1").await;
    all_is_given_back(&stage).await;
    let leases = |tenant: &'static str| {
        let proxy = stage.proxy();
        async move { proxy.metrics().await.sum("tenantry_tenant_leases_total", &[("tenant", tenant)]) }
    };
    let count = leases("acme").await + leases("bolt").await;
    let logins = stage.proxy().metrics().await.sum("tenantry_tenant_server_logins_total", &[]);
    stage.reload(|plan| plan.set("trace", "file", "\"elsewhere.trace\"")).await;
    let trace = finished(&stage).await;
    assert_eq!((trace.requests.len() as f64, trace.logins.0 as f64), (count, logins));
    let held = trace.requests.iter().filter(|request| request.hold_us >= 20_000).count();
    assert!(
        held >= 30,
        "{held} of 40 transactions were as long as those of four clients one after the other"
    );
    assert_eq!(trace.dropped, 0);

    // As it is: nobody waits for anything but a login, and nothing changes.
    let (code, said) = planned(&stage, &stage.plan.clone()).await;
    assert!(code == Some(0) && said.starts_with("nothing changes"), "{said}");
    // One server for each, and no patience.
    let narrow = stage.plan.clone().one_server_each().queue_timeout("10ms");
    let (code, said) = planned(&stage, &narrow).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("limits.ceiling  20 -> 1: acme, bolt"), "{said}");
    assert!(said.contains("limits.queue_timeout  5s -> 10ms: acme, bolt"), "{said}");
    let refused = said.lines().find_map(|line| line.strip_prefix(" refused of acme: ")).unwrap_or_default();
    assert!(refused.contains("queue_timeout 0 -> ") || refused.contains("hopeless_wait 0 -> "), "{said}");
    assert!(!said.contains("refused of bolt"), "{said}");
    // Patience alone: nobody is refused, and all wait.
    let patient = stage.plan.clone().one_server_each();
    let (_, said) = planned(&stage, &patient).await;
    assert!(!said.contains("refused of"), "{said}");
    let row = said.lines().find(|line| line.starts_with(" acme")).unwrap();
    let waits: Vec<f64> = row.split_whitespace().skip(2).filter_map(|word| word.parse().ok()).collect();
    assert!(waits[1] > waits[0] + 5.0, "{said}");

    // And so it is.
    stage.reload(|plan| plan.one_server_each().queue_timeout("10ms")).await;
    assert!(clients[0].query("BEGIN").await.errors.is_empty());
    assert_eq!(clients[1].query("BEGIN").await.code(), "53300");
}

#[tokio::test]
async fn a_recording_is_switched_on_and_off_by_reloads_and_nobody_notices() {
    let mut stage = Stage::start(Plan::new(&["acme"]).workers(2)).await;
    let mut holder = stage.client("acme").await;
    let mut client = stage.client("acme").await;
    holder.query("BEGIN").await;
    client.query("SELECT 1").await;
    let shown = async |stage: &Stage, name: &str| stage.proxy().metrics().await.sum(name, &[]);
    assert_eq!(shown(&stage, "tenantry_trace_recording").await, 0.0);
    assert!(!file(&stage).exists());

    stage.reload(recorded).await;
    assert_eq!(shown(&stage, "tenantry_trace_recording").await, 1.0);
    for _ in 0..5 {
        assert_eq!(client.query("SELECT 1").await.value(), "1");
    }
    // Began before the recording did.
    assert_eq!(holder.query("COMMIT").await.status, Some('I'));
    holder.query("CREATE TEMP TABLE kept (n int)").await;
    holder.query("DISCARD ALL").await;
    eventually("what was noted is written", PATIENCE, async || {
        (shown(&stage, "tenantry_trace_records_total").await >= 7.0).then_some(())
    })
    .await;
    // A reload that changes something else does not end it.
    stage.reload(|plan| plan.queue_timeout("4s")).await;
    assert_eq!(client.query("SELECT 1").await.value(), "1");
    all_is_given_back(&stage).await;
    stage.reload(|plan| plan.set("trace", "file", "\"second.trace\"")).await;
    let trace = finished(&stage).await;
    let names: Vec<&str> = trace.names.iter().map(|name| &**name).collect();
    assert_eq!((names, trace.requests[0].at_us), (vec!["acme"], 0));
    let pinned = trace.requests.iter().filter(|request| request.asked.has(Mark::Pinned)).count();
    assert_eq!((trace.requests.len(), pinned), (8, 1), "{:?}", trace.requests);

    assert_eq!(client.query("SELECT 1").await.value(), "1");
    let toml = stage.toml().replace("file = \"second.trace\"\n", "");
    stage.reload_text(&toml, "ok").await;
    assert_eq!(shown(&stage, "tenantry_trace_recording").await, 0.0);
    let written = shown(&stage, "tenantry_trace_written_bytes_total").await;
    assert_eq!(client.query("SELECT 1").await.value(), "1");
    assert_eq!(holder.query("SELECT 1").await.value(), "1");
    assert!(written > 0.0 && shown(&stage, "tenantry_trace_dropped_records_total").await == 0.0);
}

#[tokio::test]
async fn a_stop_writes_what_was_recorded() {
    let mut stage =
        Stage::start(recorded(Plan::new(&["acme"]).one_server_each().queue_timeout("50ms"))).await;
    stage.warm_up("acme").await;
    let mut holder = stage.client("acme").await;
    let mut waiter = stage.client("acme").await;
    holder.query("BEGIN").await;
    assert_eq!(waiter.query("SELECT 1").await.code(), "53300");
    holder.query("COMMIT").await;
    stage.proxy().signal("TERM");
    assert!(stage.proxy_mut().ended(PATIENCE).await.success());
    let trace = read(&stage).unwrap();
    assert_eq!(trace.ending, Ending::Complete);
    let unserved: Vec<_> = trace.requests.iter().filter(|it| it.asked.has(Mark::Unserved)).collect();
    assert_eq!(unserved.len(), 1, "{:?}", trace.requests);
    assert!(unserved[0].asked.wait_us() >= 50_000 && trace.requests.len() >= 4);
}

#[tokio::test]
async fn a_file_that_cannot_be_made_keeps_nobody_from_working() {
    let mut stage =
        Stage::start(Plan::new(&["acme"]).set("trace", "file", "\"nowhere/requests.trace\"")).await;
    let mut client = stage.client("acme").await;
    assert_eq!(client.query("SELECT 1").await.value(), "1");
    assert!(stage.proxy().log().contains("trace_failed"), "{}", stage.proxy().log());
    // What lies there already is no trace.
    std::fs::write(file(&stage), "precious").unwrap();
    stage.reload(recorded).await;
    assert_eq!(client.query("SELECT 1").await.value(), "1");
    assert_eq!(std::fs::read_to_string(file(&stage)).unwrap(), "precious");
    assert_eq!(stage.proxy().metrics().await.sum("tenantry_trace_recording", &[]), 0.0);
    assert!(stage.proxy().log().contains("which is no trace"));
}
