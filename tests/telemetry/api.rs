//! Goal: whoever may read may not order, and an order is what was written or nothing.

use std::sync::Arc;
use std::time::Duration;

use tenantry::budget::{Command, Halt};
use tenantry::tenant::{Secret, Tier};

use crate::fake::{Fake, report, tenant};
use crate::http::Server;

const TOKEN: &str = "0123456789abcdef0123";

fn fake(token: Option<&str>) -> Arc<Fake> {
    let fake = Fake::new(report(vec![tenant("acme", Tier::Hot)]));
    Arc::new(Fake { token: token.map(|token| Secret::new(token.to_owned())), ..fake })
}

async fn post(server: &Server, target: &str, header: &str) -> (u16, String) {
    let answer = server.request("POST", target, &format!("{header}Content-Length: 0\r\n")).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn anybody_may_ask_why_a_tenant_waits() {
    let server = Server::start(fake(None)).await;
    let answer = server.get("/api/v1/tenants/acme/why").await;
    assert_eq!(answer.status, 200);
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (&body["tenant"], &body["cluster"], &body["tier"]),
        (&"acme".into(), &"main".into(), &"hot".into())
    );
    assert!(body["sentence"].as_str().unwrap().contains("none of its clients has connected"), "{body}");
    assert_eq!(body["servers"]["ceiling"], 20);
    assert!(body["cause"].is_null());
    assert_eq!(server.get("/api/v1/tenants/nobody/why").await.status, 404);
}

#[tokio::test]
async fn without_the_token_nobody_orders_anything() {
    for (token, header, status) in [
        (None, "", 403),
        (None, "Authorization: Bearer \r\n", 403),
        (Some(TOKEN), "", 401),
        (Some(TOKEN), "Authorization: Bearer \r\n", 401),
        (Some(TOKEN), "Authorization: Bearer 0123456789abcdef012\r\n", 401),
        (Some(TOKEN), "Authorization: Bearer 0123456789abcdef01234\r\n", 401),
        (Some(TOKEN), "Authorization: Basic 0123456789abcdef0123\r\n", 401),
    ] {
        let fake = fake(token);
        let server = Server::start(fake.clone()).await;
        let (answered, body) = post(&server, "/api/v1/tenants/acme/pause", header).await;
        assert_eq!(answered, status, "{header:?}: {body}");
        assert!(body.contains("error") && !body.contains(TOKEN), "{body}");
        assert_eq!(*fake.orders.lock(), []);
    }
}

#[tokio::test]
async fn an_order_is_what_was_written_or_nothing() {
    let fake = fake(Some(TOKEN));
    let server = Server::start(fake.clone()).await;
    let header = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(post(&server, "/api/v1/tenants/acme/drain?for=2m", &header).await.0, 200);
    let two_minutes = Duration::from_secs(120);
    assert_eq!(
        fake.orders.lock().split_off(0),
        [("acme".to_owned(), Command::Halt(Halt::Drain, two_minutes))]
    );
    for (target, status, word) in [
        ("/api/v1/tenants/acme/pause?for=never", 400, "never"),
        ("/api/v1/tenants/acme/pause?untill=5s", 400, "untill"),
        ("/api/v1/tenants/acme/kill", 404, "kill"),
        ("/api/v1/tenants/nobody/pause", 404, "nobody"),
    ] {
        let (answered, body) = post(&server, target, &header).await;
        assert_eq!(answered, status, "{target}: {body}");
        assert!(body.contains(word), "{target}: {body}");
    }
    assert_eq!(*fake.orders.lock(), []);
    assert_eq!(server.get("/api/v1/tenants/acme/pause").await.status, 405, "who reads does not order");
}
