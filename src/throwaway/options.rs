//! What a throwaway cluster is to be like, and the two files that say so to Postgres.
//!
//! Owns the text of `postgresql.conf` and `pg_hba.conf`. Must not start anything.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What a throwaway cluster is to be like.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Postgres' `max_connections`.
    pub max_connections: u32,
    /// Further lines of `postgresql.conf`, last one wins.
    pub settings: Vec<(String, String)>,
    /// Switches `ssl` on.
    pub tls: Option<ServerCertificate>,
    /// How logins over TCP are authenticated.
    pub hba: Hba,
    /// Where a fresh cluster is kept to be copied from; made at first use. `initdb` takes a second, a copy a tenth.
    pub template: Option<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { max_connections: 60, settings: Vec::new(), tls: None, hba: Hba::Scram, template: None }
    }
}

/// How logins are authenticated. The superuser is always trusted on the Unix socket, whose directory only we may enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hba {
    /// SCRAM for everybody.
    Scram,
    /// Everybody is trusted.
    Trust,
    /// These lines of `pg_hba.conf`.
    Lines(Vec<String>),
}

/// PEM texts for a server with TLS.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// Certificate chain, leaf first.
    pub cert_pem: String,
    /// Private key.
    pub key_pem: String,
    /// CA of client certificates.
    pub client_ca_pem: Option<String>,
}

impl ClusterOptions {
    /// `postgresql.conf` for a server on `port` with its sockets in `dir`.
    pub(super) fn postgresql_conf(&self, port: u16, dir: &Path) -> String {
        let mut text = String::new();
        let mut put = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} = '{}'", value.replace('\\', "\\\\").replace('\'', "''"));
        };
        put("listen_addresses", "127.0.0.1");
        put("port", &port.to_string());
        put("unix_socket_directories", &dir.to_string_lossy());
        put("max_connections", &self.max_connections.to_string());
        put("password_encryption", "scram-sha-256");
        put("shared_buffers", "32MB");
        for name in ["fsync", "full_page_writes"] {
            put(name, "off");
        }
        put("wal_level", "minimal");
        put("max_wal_senders", "0");
        put("log_line_prefix", "%m [%p] %q%u@%d ");
        put("timezone", "UTC");
        put("log_timezone", "UTC");
        if let Some(tls) = &self.tls {
            put("ssl", "on");
            put("ssl_cert_file", &dir.join("server.crt").to_string_lossy());
            put("ssl_key_file", &dir.join("server.key").to_string_lossy());
            if tls.client_ca_pem.is_some() {
                put("ssl_ca_file", &dir.join("client_ca.crt").to_string_lossy());
            }
        }
        for (name, value) in &self.settings {
            put(name, value);
        }
        text
    }

    /// `pg_hba.conf`.
    pub(super) fn pg_hba_conf(&self) -> String {
        let rest: Vec<&str> = match &self.hba {
            Hba::Scram => vec!["local all all scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"],
            Hba::Trust => vec!["local all all trust", "host all all 127.0.0.1/32 trust"],
            Hba::Lines(lines) => lines.iter().map(String::as_str).collect(),
        };
        format!("local all postgres trust\n{}\n", rest.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_values_are_escaped() {
        let options = ClusterOptions {
            settings: vec![("cluster_name".into(), "it's \\ so".into())],
            ..Default::default()
        };
        let text = options.postgresql_conf(5, Path::new("/d"));
        assert!(text.ends_with("cluster_name = 'it''s \\\\ so'\n"));
    }

    #[test]
    fn the_superuser_is_trusted_before_any_other_rule() {
        let options =
            ClusterOptions { hba: Hba::Lines(vec!["local all all reject".into()]), ..Default::default() };
        assert_eq!(options.pg_hba_conf(), "local all postgres trust\nlocal all all reject\n");
    }
}
