//! `tenantry check`: is this configuration sound, by itself and (`--live`) against its servers?
//!
//! Owns what is printed and when the answer is no. Without `--live` nothing is connected to.

mod live;
mod logins;
mod summary;

use clap::Args;

use super::{ConfigArgs, Failure, load, output};

/// Arguments of `tenantry check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Also log in to each cluster as its admin and as each tenant, compare limits and look for holes in the tenants'
    /// walls.
    #[arg(long)]
    pub live: bool,
    /// Print errors and warnings only.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Checks, and prints what was found.
///
/// # Errors
/// If the configuration cannot be used, a server does not answer, a tenant cannot log in, or a wall has a hole.
pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    let loaded = load::with_certificates(&args.config.config, None)?;
    for warning in &loaded.warnings {
        output::to_stderr(&format!("{warning}\n\n"));
    }
    let settings = &loaded.settings;
    check_filter(&settings.log.filter)?;
    if !args.quiet {
        output::to_stdout(&summary::text(settings))?;
    }
    if args.live {
        let report = live::inspect(settings)?;
        if !args.quiet || !report.sound {
            output::to_stdout(&report.text)?;
        }
        if !report.sound {
            return Err(Failure::runtime("the servers do not fit this configuration"));
        }
    }
    let warnings = match loaded.warnings.len() {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        count => format!(", {count} warnings"),
    };
    if !args.quiet {
        output::to_stdout(&format!("{}: ok{warnings}\n", args.config.config.display()))?;
    }
    Ok(())
}

/// The log filter has a syntax of its own, which the configuration takes as a text.
pub(super) fn check_filter(filter: &str) -> Result<(), Failure> {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter);
    parsed
        .map(drop)
        .map_err(|error| Failure::config(format_args!("error: `log.filter` \"{filter}\": {error}")))
}
