//! `tenantry check --live`: logs in to each cluster as its admin, compares limits and inspects the tenants' walls; then
//! logs in as each tenant.
//!
//! Owns the admin's sessions and the report. What a hole is, `tenants_ops::wall` decides; whether the budget fits,
//! `config::check` does.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use super::logins;
use crate::backend::Connector;
use crate::backend::admin::{AdminError, AdminSession, server_limits};
use crate::commands::Failure;
use crate::config::check::{self, ServerNumbers};
use crate::config::{AdminLogin, Cluster, Settings};
use crate::tenant::{ReplicaReads, Tenant};
use crate::tenants_ops::wall::{Finding, Inspection, Severity};

/// What was found.
pub(super) struct Report {
    /// For people.
    pub(super) text: String,
    /// Whether there was neither a hole, nor a fault, nor a sum that does not work out.
    pub(super) sound: bool,
}

impl Report {
    pub(super) fn line(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    pub(super) fn wrong(&mut self, line: impl Display) {
        self.sound = false;
        self.line(format_args!("error: {line}"));
    }
}

/// Inspects all clusters, one after the other.
pub(super) fn inspect(settings: &Settings) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report { text: String::new(), sound: true };
    runtime.block_on(async {
        for cluster in &settings.clusters {
            if let Err(error) = one_cluster(settings, cluster, &mut report).await {
                report.wrong(format_args!("cluster `{}`: {error}", cluster.name));
            }
        }
    });
    Ok(report)
}

/// Limits, sums, walls and logins of one cluster.
async fn one_cluster(settings: &Settings, cluster: &Cluster, report: &mut Report) -> Result<(), String> {
    let connector = Connector::new(cluster, &settings.servers).map_err(|error| error.to_string())?;
    let admin = cluster.admin.as_ref().ok_or("`check --live` needs `admin` in this cluster's section")?;
    let limits = server_limits(&connector, cluster).await.map_err(|error| error.to_string())?;
    let numbers = ServerNumbers {
        max_connections: limits.max_connections,
        superuser_reserved: limits.superuser_reserved,
        reserved: limits.reserved,
    };
    let tenants = tenants_of(settings, cluster);
    let tenants: Vec<&Tenant> = tenants.iter().map(|tenant| &**tenant).collect();
    sums(settings, cluster, numbers, &tenants, report);
    let replays = replays(&connector, admin).await.map_err(|error| error.to_string())?;
    let name = &cluster.name;
    if cluster.replica_of.is_some() {
        if !replays {
            report.wrong(format_args!(
                "cluster `{name}` replays nothing: it is a primary, and is not read from as a replica"
            ));
        }
        // What it holds is what its primary holds, walls and all.
        logins::try_all(&connector, cluster, &tenants, settings.servers.cleanup_timeout, report).await;
        return Ok(());
    }
    if replays {
        report.line(format_args!(
            "warning: cluster `{name}` replays another and takes no writes; `replica_of` says that it is a replica"
        ));
    }
    let mut databases: BTreeMap<&Arc<str>, Vec<&Tenant>> = BTreeMap::new();
    for tenant in &tenants {
        databases.entry(&tenant.database).or_default().push(tenant);
    }
    for (database, members) in databases {
        let login = AdminLogin { database: database.clone(), ..admin.clone() };
        match walls(&connector, &login, members, &tenants).await {
            Ok(findings) => findings.iter().for_each(|finding| found(finding, database, report)),
            Err(error) => {
                report.wrong(format_args!("cluster `{}`, database `{database}`: {error}", cluster.name));
            }
        }
    }
    logins::try_all(&connector, cluster, &tenants, settings.servers.cleanup_timeout, report).await;
    Ok(())
}

/// Whether the cluster replays another.
async fn replays(connector: &Connector, login: &AdminLogin) -> Result<bool, AdminError> {
    let mut session = AdminSession::open(connector, login).await?;
    let rows = session.rows("SELECT pg_catalog.pg_is_in_recovery()").await;
    session.close().await;
    Ok(rows?.first().and_then(|row| row.first()).and_then(Option::as_deref) == Some("t"))
}

/// The tenants that have servers there: those of the cluster, or those of its primary that may read from it.
fn tenants_of(settings: &Settings, cluster: &Cluster) -> Vec<Arc<Tenant>> {
    let Some(of) = cluster.replica_of else {
        return settings.catalog.iter().filter(|tenant| tenant.cluster == cluster.id).cloned().collect();
    };
    let may_read =
        |tenant: &&Arc<Tenant>| tenant.cluster == of.primary && tenant.replica_reads != ReplicaReads::Never;
    settings.catalog.iter().filter(may_read).map(|tenant| Arc::new(tenant.on_replica(cluster.id))).collect()
}

/// The budget with the server's own numbers.
fn sums(
    settings: &Settings,
    cluster: &Cluster,
    numbers: ServerNumbers,
    tenants: &[&Tenant],
    report: &mut Report,
) {
    let budget = match check::budget(cluster, numbers) {
        Ok(budget) => budget,
        Err(error) => return report.wrong(error),
    };
    report.line(format_args!(
        "cluster `{}`: the server takes {} connections, {} of them reserved, {} for admins: the budget is {budget}",
        cluster.name,
        numbers.max_connections,
        numbers.superuser_reserved.saturating_add(numbers.reserved),
        cluster.admin_reserve
    ));
    match check::sums(cluster, budget, settings.threads.workers, tenants.iter().copied()) {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| report.line(format_args!("warning: {}", warning.text)));
        }
        Err(error) => report.wrong(error),
    }
}

/// Asks one database about its tenants.
async fn walls(
    connector: &Connector,
    login: &AdminLogin,
    members: Vec<&Tenant>,
    cluster: &[&Tenant],
) -> Result<Vec<Finding>, AdminError> {
    let mut inspection = Inspection::new(members, cluster);
    let mut session = AdminSession::open(connector, login).await?;
    for question in inspection.questions() {
        match session.rows(&question).await {
            Ok(rows) => inspection.answer(&rows),
            Err(error) => {
                session.close().await;
                return Err(error);
            }
        }
    }
    session.close().await;
    Ok(inspection.findings())
}

/// Puts a finding into the report.
fn found(finding: &Finding, database: &str, report: &mut Report) {
    match finding.severity {
        Severity::Hole | Severity::Fault => report.wrong(format_args!("database `{database}`: {finding}")),
        Severity::Note => report.line(format_args!("database `{database}`: {finding}")),
    }
}
