//! What the log says of a client: its lines can be put together.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::support::{PATIENCE, Plan, Stage, Wire, eventually};

/// The lines with this message.
fn lines(stage: &Stage, message: &str) -> Vec<Value> {
    let log = stage.proxy().log();
    let values = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.filter(|line| line["message"] == message).collect()
}

fn request_ids(lines: &[Value]) -> BTreeSet<u64> {
    lines.iter().map(|line| line["request_id"].as_u64().unwrap_or_else(|| panic!("{line}"))).collect()
}

#[tokio::test]
async fn the_proxy_ends_a_session_under_the_number_of_its_login() {
    let mut stage = Stage::start(Plan::new(&["acme"])).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(stage.client("acme").await);
    }
    stage.proxy().signal("TERM");
    for client in &mut clients {
        assert_eq!(client.expect(b'E').await.fields().code, "57P01");
    }
    assert!(stage.proxy_mut().ended(Duration::from_secs(10)).await.success());
    let ended = lines(&stage, "session ended by the proxy");
    assert_eq!(ended.len(), 3);
    assert_eq!(request_ids(&ended), request_ids(&lines(&stage, "client admitted")));
    for line in ended {
        assert_eq!((&line["customer_id"], &line["reason"]), (&"acme".into(), &"draining".into()));
        // The address is the login's to tell, and a number is no address.
        assert_eq!(line["client"], Value::Null, "{line}");
    }
}

#[tokio::test]
async fn a_login_to_an_unknown_database_is_logged_with_its_user() {
    let stage = Stage::start(Plan::new(&["acme"])).await;
    let mut login = stage.login("acme");
    login.database = "nope".to_owned();
    let refused = Wire::connect(stage.address()).await.log_in(&login).await;
    assert_eq!(refused.code(), "3D000");
    let line =
        eventually("the login is logged", PATIENCE, async || lines(&stage, "login failed").pop()).await;
    assert_eq!((&line["reason"], &line["user"]), (&"unknown_database".into(), &"acme".into()), "{line}");
}
