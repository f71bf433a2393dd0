//! Postgres' slots: a full server, a role's own limit, and that a login or a close that has returned holds none.

use tenantry::backend::{FailureClass, Profile, close, login};
use tenantry::tenant::{Secret, ServerAuth, Tenant};
use tenantry::throwaway::{Cluster, ClusterOptions};

use crate::fixtures::*;

/// A cluster with exactly one slot for ordinary roles.
async fn one_slot() -> Cluster {
    let cluster =
        Cluster::start(ClusterOptions { max_connections: 4, ..ClusterOptions::default() }).await.unwrap();
    let limited = "CONNECTION LIMIT 0";
    for (role, more) in [("acme", ""), ("limited", limited)] {
        let sql = format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' {more}");
        cluster.psql(&sql).await.unwrap();
    }
    cluster
}

#[tokio::test]
async fn slots_are_counted_exactly() {
    let cluster = one_slot().await;
    let connector = connector(endpoint(vec![tcp("127.0.0.1", cluster.port())]));
    let acme = Profile::new(&connector, &tenant("acme"));
    let wrong = Tenant { server_auth: ServerAuth::Password(Secret::new("wrong".into())), ..tenant("acme") };
    let wrong = Profile::new(&connector, &wrong);

    // The superuser's session that made the roles is still on its way out.
    let holder = loop {
        match login(&acme).await {
            Ok(holder) => break holder,
            Err(error) => assert_eq!(error.class(), FailureClass::ServerFull, "{error}"),
        }
    };
    let error = login(&acme).await.unwrap_err();
    assert_eq!((error.class(), error.reason()), (FailureClass::ServerFull, "server_full"), "{error}");
    close(holder.stream).await;

    for round in 0..30 {
        // Neither a closed server nor a failed login still has the one slot.
        let server = login(&acme).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        close(server.stream).await;
        let error = login(&wrong).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("28P01"), "round {round}: {error}");
    }

    let error = login(&Profile::new(&connector, &tenant("limited"))).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("53300"));
    assert_eq!((error.class(), error.reason()), (FailureClass::Rejected, "server_role_limit"), "{error}");
}
