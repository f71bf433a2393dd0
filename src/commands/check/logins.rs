//! One login as each tenant, the way the proxy makes servers: is what the configuration says about it true?
//!
//! Owns the order (a few at a time) and the words. Nothing is asked on these sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::live::Report;
use crate::backend::{
    Connector, FailureClass, Farewell, LoginError, LoginFailure, Profile, close_with, login,
};
use crate::config::Cluster;
use crate::tenant::Tenant;

/// What one login came to.
type Attempt = (Arc<str>, Result<(), LoginError>);

/// Logs in once as each tenant of a cluster, and reports who cannot. Cancel-safe.
pub(super) async fn try_all(
    connector: &Connector,
    cluster: &Cluster,
    tenants: &[&Tenant],
    cleanup_timeout: Duration,
    report: &mut Report,
) {
    let mut tried: BTreeMap<Arc<str>, Result<(), LoginError>> = BTreeMap::new();
    let mut running: JoinSet<Attempt> = JoinSet::new();
    let mut unreachable = 0_usize;
    let mut note = |attempt: Result<Attempt, JoinError>| {
        let Ok((name, result)) = attempt else { return 0 };
        let down = result.as_ref().is_err_and(|error| error.class() == FailureClass::Unavailable);
        tried.insert(name, result);
        usize::from(down)
    };
    for tenant in tenants {
        if running.len() >= AT_A_TIME
            && let Some(attempt) = running.join_next().await
        {
            unreachable = unreachable.saturating_add(note(attempt));
        }
        // Each would wait for the connect timeout to say the same.
        if unreachable >= ENOUGH {
            break;
        }
        let (name, profile) = (tenant.name.clone(), Profile::new(connector, tenant));
        running.spawn(async move { (name, once(&profile, cleanup_timeout).await) });
    }
    while let Some(attempt) = running.join_next().await {
        note(attempt);
    }
    let good = tried.values().filter(|result| result.is_ok()).count();
    for (name, result) in &tried {
        if let Err(error) = result {
            failed(name, error, report);
        }
    }
    let untried = tenants.len().saturating_sub(tried.len());
    if untried > 0 {
        report.wrong(format_args!("cluster `{}`: {untried} more tenants were not tried", cluster.name));
    }
    report.line(format_args!("cluster `{}`: logged in as {good} of {} tenants", cluster.name, tenants.len()));
}

/// Logs in and leaves. Cancel-safe.
async fn once(profile: &Profile, cleanup_timeout: Duration) -> Result<(), LoginError> {
    let server = login(profile).await?;
    // Its slot is free before the next one is asked for.
    let _ = timeout(cleanup_timeout, close_with(server.stream, Farewell::Terminate)).await;
    Ok(())
}

/// Puts a failure into the report.
fn failed(name: &str, error: &LoginError, report: &mut Report) {
    match error.failure() {
        // Postgres counts after it has checked who comes: the password is right.
        LoginFailure::Server { code, own_limit: true, .. } if **code == *TOO_MANY => report.line(format_args!(
            "note: tenant `{name}` has all the connections that it may have, so its login was not tried to the end: \
             {error}"
        )),
        _ => report.wrong(format_args!("tenant `{name}` cannot log in: {error}")),
    }
}

/// `too_many_connections`, here of the role or the database.
const TOO_MANY: &str = "53300";

/// Logins at the same time. Few, because a proxy may be at work on the same server.
const AT_A_TIME: usize = 4;

/// After so many logins that did not reach Postgres the rest is not tried.
const ENOUGH: usize = 5;
