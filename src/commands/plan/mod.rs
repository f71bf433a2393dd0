//! `tenantry plan`: what another configuration changes, in words and sums, and what would have come of a recorded trace.
//!
//! Owns the arguments and the order of what is printed. Nothing is connected to, and nothing changes.

mod difference;
mod forecast;
mod listing;
mod sums;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, Failure, load, output};
use crate::config::{MaxConnections, Settings};
use crate::trace::{self, Trace};

/// Arguments of `tenantry plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The configuration that is to be reloaded.
    pub new: PathBuf,
    /// The configuration that is in force.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A trace that the proxy has recorded (`[trace]`): both configurations are tried out on it.
    #[arg(short, long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// The budget of a cluster whose `max_connections` is "auto": nothing is asked of the server here.
    #[arg(long, value_name = "CLUSTER=N", value_parser = budget)]
    pub budget: Vec<(String, u32)>,
    /// How long a server's login takes; the mean of those in the trace if left out, or else 10ms.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "trace")]
    pub login: Option<Duration>,
    /// Names and rows that are shown of each list.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub top: usize,
}

/// Budgets by the clusters' names, where they are known.
type Budgets = BTreeMap<String, u32>;

/// Shows the difference.
///
/// # Errors
/// If one of the configurations or the trace cannot be used, or a sum of the new one does not work out.
pub fn run(args: &PlanArgs) -> Result<(), Failure> {
    let old = load::configuration(&args.config.config, None)?.settings;
    // As a reload does it, so that all that it would refuse is refused here.
    let loaded = load::with_certificates(&args.new, Some(&old))?;
    for warning in &loaded.warnings {
        output::to_stderr(&format!("{warning}\n\n"));
    }
    let new = loaded.settings;
    super::check::check_filter(&new.log.filter)?;
    may_be_given(&args.budget, [&old, &new])?;
    let trace = args.trace.as_deref().map(read).transpose()?;
    output::to_stdout(&difference::text(&old, &new, args.top))?;
    let budgets = [&old, &new].map(|settings| budgets(settings, &args.budget));
    let sums = sums::compare([&old, &new], &budgets);
    output::to_stdout(&sums.text)?;
    if let Some(trace) = trace {
        let login = args.login.map(|login| u64::try_from(login.as_micros()).unwrap_or(u64::MAX));
        let forecast = forecast::Forecast { trace: &trace, login_us: login, top: args.top };
        output::to_stdout(&forecast.text([&old, &new], &budgets)?)?;
    }
    if sums.works_out {
        Ok(())
    } else {
        Err(Failure::runtime("the sums of this configuration do not work out"))
    }
}

/// `main=100`
fn budget(text: &str) -> Result<(String, u32), String> {
    let (cluster, number) = text.split_once('=').ok_or("write CLUSTER=N, such as main=100")?;
    let number = number.parse().map_err(|error| format!("`{number}`: {error}"))?;
    Ok((cluster.to_owned(), number))
}

/// The budgets that are written, or given here.
fn budgets(settings: &Settings, given: &[(String, u32)]) -> Budgets {
    let of = |name: &str| given.iter().find(|(cluster, _)| cluster == name).map(|(_, number)| *number);
    let budget = |connections| match connections {
        MaxConnections::Fixed(number) => Some(number),
        MaxConnections::Auto => None,
    };
    let clusters = settings.clusters.iter();
    clusters
        .filter_map(|cluster| {
            let number = budget(cluster.max_connections).or_else(|| of(&cluster.name))?;
            Some((cluster.name.to_string(), number))
        })
        .collect()
}

/// Budgets are given for clusters that there will be, and whose number is not written already.
fn may_be_given(given: &[(String, u32)], [old, new]: [&Settings; 2]) -> Result<(), Failure> {
    let of = |settings: &Settings, name: &str| {
        settings.clusters.iter().find(|cluster| *cluster.name == *name).map(|cluster| cluster.max_connections)
    };
    for (name, _) in given {
        match of(new, name) {
            None => return Err(Failure::usage(format_args!("--budget: there is no cluster `{name}`"))),
            Some(MaxConnections::Fixed(number)) if of(old, name) != Some(MaxConnections::Auto) => {
                return Err(Failure::usage(format_args!(
                    "--budget: cluster `{name}` has `max_connections = {number}`; try another number in the file"
                )));
            }
            Some(MaxConnections::Fixed(_) | MaxConnections::Auto) => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Trace, Failure> {
    let name = path.display();
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::runtime(format_args!("cannot read `{name}`: {error}")))?;
    trace::parse(&bytes).map_err(|error| Failure::runtime(format_args!("`{name}`: {error}")))
}

/// The names, as many as are to be shown, and how many more there are.
fn some_of<'n>(names: impl IntoIterator<Item = &'n str>, most: usize) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = names.iter().take(most).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more if most == 0 => format!("{more} tenants"),
        more => format!("{shown} and {more} more"),
    }
}
