//! What a configuration amounts to, for people.
//!
//! Owns the layout. Pure: settings in, text out.

use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use crate::config::{Cluster, Host, MaxConnections, Settings, TlsMode};
use crate::tenant::{Tenant, Tier};

/// The summary.
pub(super) fn text(settings: &Settings) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "clients   {}", listening(settings));
    let http = settings.http.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let _ = writeln!(text, "http      {http}");
    let threads = settings.threads;
    let _ = writeln!(text, "threads   {} front, {} workers", threads.front, threads.workers);
    for cluster in &settings.clusters {
        let _ = writeln!(text, "\ncluster {}   {}", cluster.name, hosts(cluster));
        let _ = writeln!(text, "{}\n", budget(cluster));
        let tenants: Vec<&Tenant> = settings
            .catalog
            .iter()
            .map(|tenant| &**tenant)
            .filter(|tenant| tenant.cluster == cluster.id)
            .collect();
        let _ = writeln!(text, "{}", tiers(&tenants));
    }
    text.push('\n');
    text
}

/// Where clients connect, and how.
fn listening(settings: &Settings) -> String {
    let listen = &settings.listen;
    let mut places: Vec<String> = listen.addresses.iter().map(ToString::to_string).collect();
    places.extend(listen.unix_socket_dir.iter().map(|dir| dir.display().to_string()));
    let tls = match listen.tls.mode {
        TlsMode::Disable => "no TLS",
        TlsMode::Prefer => "TLS if wanted",
        TlsMode::Require => "TLS required",
    };
    format!("{} ({tls}), at most {}", places.join(", "), listen.max_clients)
}

/// The hosts of a cluster.
fn hosts(cluster: &Cluster) -> String {
    let host = |host: &Host| match host {
        Host::Tcp { host, port } => format!("{host}:{port}"),
        Host::Unix { dir, port } => format!("{}:{port}", dir.display()),
    };
    cluster.endpoint.hosts.iter().map(host).collect::<Vec<_>>().join(", ")
}

/// Where the budget comes from.
fn budget(cluster: &Cluster) -> String {
    match cluster.max_connections {
        MaxConnections::Fixed(budget) => format!("budget    {budget} server connections"),
        MaxConnections::Auto => format!(
            "budget    asked of the server: max_connections - superuser_reserved_connections - reserved_connections - {}",
            cluster.admin_reserve
        ),
    }
}

/// One line per tier: how many tenants, and what they may have.
fn tiers(tenants: &[&Tenant]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["tier", "tenants", "reserves", "floors", "shares", "ceilings", "users"]);
    // Those whose tier the proxy chooses begin as cold, and are a row of their own.
    let written = Tier::ALL.map(|tier| (tier.as_str(), Some(tier)));
    for (name, tier) in written.into_iter().chain([("auto", None)]) {
        let is_member = |tenant: &&&Tenant| tenant.tiers.is_none().then_some(tenant.tier) == tier;
        let members: Vec<&&Tenant> = tenants.iter().filter(is_member).collect();
        if members.is_empty() {
            continue;
        }
        let sum = |of: fn(&Tenant) -> u32| {
            members.iter().map(|tenant| u64::from(of(tenant))).sum::<u64>().to_string()
        };
        let ceilings = members.iter().map(|tenant| tenant.allowance.ceiling);
        let (least, most) = (ceilings.clone().min().unwrap_or(0), ceilings.max().unwrap_or(0));
        table.add_row([
            name.to_owned(),
            members.len().to_string(),
            sum(|tenant| tenant.allowance.reserve),
            sum(|tenant| tenant.allowance.floor),
            sum(|tenant| tenant.allowance.share),
            if least == most { most.to_string() } else { format!("{least} to {most}") },
            members.iter().map(|tenant| tenant.users.len()).sum::<usize>().to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
