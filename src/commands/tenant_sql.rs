//! `tenantry tenant sql NAME`: prints the SQL that makes a tenant.
//!
//! Owns nothing but the way from the configuration to [`provision`]. A password leaves this process only as a SCRAM
//! verifier with a fresh salt.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use clap::Args;

use super::{ConfigArgs, Failure, load, output};
use crate::auth::verifier::{DEFAULT_ITERATIONS, SALT_BYTES, Verifier};
use crate::tenant::{ServerAuth, Tenant};
use crate::tenants_ops::sql::provision;

/// Arguments of `tenantry tenant sql`.
#[derive(Debug, Args)]
pub struct TenantSqlArgs {
    /// The tenant's name in the configuration.
    pub name: String,
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Prints the SQL.
///
/// # Errors
/// If the configuration cannot be used, or has no such tenant.
pub fn run(args: &TenantSqlArgs) -> Result<(), Failure> {
    let settings = load::configuration(&args.config.config, None)?.settings;
    let tenant = settings.catalog.by_name(&args.name).ok_or_else(|| {
        Failure::usage(format_args!("there is no tenant `{}` in {}", args.name, args.config.config.display()))
    })?;
    let verifier = verifier(tenant)?;
    output::to_stdout(&provision(tenant, verifier.as_deref()))?;
    Ok(())
}

/// The verifier of the role's password, if it has one.
fn verifier(tenant: &Tenant) -> Result<Option<String>, Failure> {
    let ServerAuth::Password(password) = &tenant.server_auth else { return Ok(None) };
    Ok(Some(Verifier::from_password(password.expose(), &salt()?, DEFAULT_ITERATIONS).to_string()))
}

/// A fresh salt.
///
/// # Errors
/// If the system has no randomness.
pub(super) fn salt() -> Result<[u8; SALT_BYTES], Failure> {
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| Failure::runtime("the system gives no random numbers"))?;
    Ok(salt)
}
