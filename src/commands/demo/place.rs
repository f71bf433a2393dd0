//! The demo's configuration on disk: a real file that `tenantry check` and `tenantry serve` would take.
//!
//! Owns a directory that only we may enter and that is removed at the end. Passwords are files of their own.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::plan::Member;
use super::provision::DATABASE;
use crate::throwaway::Cluster;

/// Connections left to the demo itself, which looks at Postgres while the load runs.
pub(super) const ADMIN_RESERVE: u32 = 5;

/// The directory. Dropping it removes it.
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// Makes the directory.
    pub(super) fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("tenantry-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&dir).context("making a directory for the configuration")?;
        Ok(Self { dir })
    }

    /// The configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("tenantry.toml")
    }

    /// Writes the configuration and the passwords it names.
    pub(super) fn write(&self, cluster: &Cluster, members: &[Member]) -> Result<()> {
        let secrets = self.dir.join("secrets");
        fs::DirBuilder::new().mode(0o700).create(&secrets)?;
        write_secret(&secrets.join("postgres"), cluster.admin_password())?;
        for member in members {
            write_secret(&secrets.join(&member.name), &member.password)?;
        }
        let text = config_text(cluster.port(), address_near(6432)?, address_near(9127)?, members);
        fs::write(self.config(), text).context("writing the configuration")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed stays in the temporary directory, readable only by us.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

/// The port people expect if it is free, otherwise any.
fn address_near(port: u16) -> io::Result<SocketAddr> {
    let wanted = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(wanted).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.local_addr()
}

fn config_text(pg_port: u16, listen: SocketAddr, http: SocketAddr, members: &[Member]) -> String {
    let mut text = format!(
        "# Made by `tenantry demo`. Every key: docs/configuration.md\n\n\
         [listen]\naddress = \"{listen}\"\n\n\
         [http]\naddress = \"{http}\"\n\n\
         [pool]\nmode = \"transaction\"\nqueue_timeout = \"5s\"\n\n\
         [log]\nformat = \"text\"\nfilter = \"warn\"\n\n\
         [cluster.main]\nurl = \"postgres://127.0.0.1:{pg_port}/{DATABASE}?sslmode=disable\"\n\
         max_connections = \"auto\"          # asked of the server\n\
         admin_reserve = {ADMIN_RESERVE}\n\
         admin = {{ user = \"postgres\", password = {{ file = \"secrets/postgres\" }}, database = \"postgres\" }}\n"
    );
    for member in members {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[tenant]]\nname = \"{name}\"\ntier = \"{tier}\"\nrole = \"{role}\"\nschema = \"{role}\"\n\
             client_auth = {{ scram = \"{verifier}\" }}\n\
             server_auth = {{ password = {{ file = \"secrets/{name}\" }} }}\n",
            name = member.name,
            tier = member.habit.tier().as_str(),
            role = member.role(),
            verifier = member.verifier,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::DemoArgs;
    use super::super::plan::members;
    use super::*;
    use crate::config;

    #[test]
    fn the_written_configuration_is_accepted() {
        let args = DemoArgs { seconds: None, hot: 10, warm: 30, cold: 10, pg_bin: None };
        let members = members(&args).unwrap();
        let place = Place::new().unwrap();
        let secrets = place.dir.join("secrets");
        fs::create_dir(&secrets).unwrap();
        for name in members.iter().map(|member| member.name.as_str()).chain(["postgres"]) {
            write_secret(&secrets.join(name), "x").unwrap();
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        fs::write(place.config(), config_text(1, address, address, &members)).unwrap();
        let settings = config::load(&place.config(), &|_| None, None).unwrap();
        assert_eq!(settings.catalog.len(), 50);
    }
}
