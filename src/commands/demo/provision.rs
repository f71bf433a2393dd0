//! Roles, schemas and rows of the demo's tenants.
//!
//! Owns filling the throwaway database: the walls by the same SQL that `tenantry tenant sql` prints, and rows that say
//! whose they are. Must not know the proxy.

use anyhow::{Context, Result};

use super::plan::Member;
use crate::config::Settings;
use crate::config::names::{literal, quoted};
use crate::tenants_ops;
use crate::throwaway::Cluster;

/// The database that all tenants share, each in its own schema.
pub(super) const DATABASE: &str = "demo";
/// Rows of each tenant's table.
pub(super) const ROWS: u32 = 100;

/// Makes the database, and in it every tenant's role, schema and rows.
pub(super) async fn provision(cluster: &Cluster, settings: &Settings, members: &[Member]) -> Result<()> {
    cluster.psql(&format!("CREATE DATABASE {DATABASE}")).await.context("making the database")?;
    let admin = cluster.admin(DATABASE).await?;
    for member in members {
        let name = &member.name;
        let tenant = settings.catalog.by_name(name).context("a tenant is missing in the catalog")?;
        let walls = tenants_ops::sql::provision(tenant, Some(&member.verifier));
        admin.batch_execute(&walls).await.with_context(|| format!("making the walls of {name}"))?;
        admin.batch_execute(&rows(member)).await.with_context(|| format!("making the rows of {name}"))?;
    }
    Ok(())
}

/// The same table for every tenant; only the rows differ.
fn rows(member: &Member) -> String {
    let role = quoted(&member.role());
    let owner = literal(&member.name);
    format!(
        "CREATE TABLE {role}.notes (id integer PRIMARY KEY, owner text NOT NULL, body text NOT NULL);\n\
         ALTER TABLE {role}.notes OWNER TO {role};\n\
         INSERT INTO {role}.notes SELECT id, {owner}, 'note ' || id FROM generate_series(1, {ROWS}) AS id;"
    )
}
