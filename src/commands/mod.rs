//! The command line: arguments, and one module per command.
//!
//! Owns names and meaning of the arguments. Each command is a function from its arguments to `Result<(), Failure>`;
//! what it prints for programs goes to standard output, everything else to standard error.

pub mod check;
pub mod demo;
mod failure;
pub mod hash_password;
pub mod healthcheck;
mod http;
mod load;
mod output;
pub mod plan;
pub mod serve;
pub mod steer;
pub mod tenant_sql;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use failure::Failure;

/// Tenantry: a tenant-aware PostgreSQL proxy. One role and schema per tenant, within an exact connection budget.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy.
    Serve(serve::ServeArgs),
    /// Check a configuration, offline or against its servers.
    Check(check::CheckArgs),
    /// Show what another configuration changes, and try it out on a recorded trace.
    Plan(plan::PlanArgs),
    /// Show it: a throwaway Postgres, fifty tenants, a load, and what became of it.
    Demo(demo::DemoArgs),
    /// Make a SCRAM-SHA-256 verifier from a password.
    HashPassword(hash_password::HashPasswordArgs),
    /// Things to do with one tenant.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Say why a tenant's clients wait, with the numbers.
    Why(steer::TenantArgs),
    /// Let no transaction of a tenant begin for a while: its clients wait, and keep their places.
    Pause(steer::HaltArgs),
    /// The same, and have it give up all its servers.
    Drain(steer::HaltArgs),
    /// Refuse a tenant's requests for a while; its clients stay connected.
    Suspend(steer::HaltArgs),
    /// Let a tenant begin so many transactions only, for a while.
    Throttle(steer::ThrottleArgs),
    /// Let a tenant go on as configured.
    Resume(steer::TenantArgs),
    /// Ask a running proxy whether it is well (for containers without a shell).
    Healthcheck(healthcheck::HealthcheckArgs),
}

/// Things to do with one tenant.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Print the SQL that makes its role, schema, grants and limits.
    Sql(tenant_sql::TenantSqlArgs),
}

/// Which configuration.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file.
    #[arg(
        short,
        long,
        env = "TENANTRY_CONFIG",
        default_value = "/etc/tenantry/tenantry.toml",
        value_name = "FILE"
    )]
    pub config: PathBuf,
}

/// Runs a command and turns its failure into text and exit code.
#[must_use]
pub fn run(cli: &Cli) -> ExitCode {
    let result = match &cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Demo(args) => demo::run(args),
        Command::HashPassword(args) => hash_password::run(args),
        Command::Tenant(TenantCommand::Sql(args)) => tenant_sql::run(args),
        Command::Why(args) => steer::why(args),
        Command::Pause(args) => steer::halt("pause", args),
        Command::Drain(args) => steer::halt("drain", args),
        Command::Suspend(args) => steer::halt("suspend", args),
        Command::Throttle(args) => steer::throttle(args),
        Command::Resume(args) => steer::resume(args),
        Command::Healthcheck(args) => healthcheck::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::to_stderr(&format!("{failure}\n"));
            ExitCode::from(failure.code())
        }
    }
}

/// A variable of the process' environment, as configurations see it.
#[must_use]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_config_file_may_stand_anywhere() {
        let cli = Cli::try_parse_from(["tenantry", "tenant", "sql", "acme", "-c", "x.toml"]).unwrap();
        let Command::Tenant(TenantCommand::Sql(args)) = cli.command else { panic!("another command") };
        assert_eq!((args.name.as_str(), args.config.config), ("acme", "x.toml".into()));
    }
}
