//! The configuration as commands read it: overrides from this process' environment, certificates loaded.
//!
//! Owns which of that a command needs. `check` and `serve` read it in the same way, so that what the one calls good
//! the other can start with.

use std::path::{Path, PathBuf};

use crate::backend::Connector;
use crate::config::{self, ConfigError, Loaded, Place, Settings, TlsMode};
use crate::net::tls::{ServerTls, TlsError};

/// Reads a configuration. A variable of the environment that is spelled like an override and overrides nothing is an
/// error.
///
/// # Errors
/// Everything that is wrong with it, in one error.
pub(super) fn configuration(path: &Path, previous: Option<&Settings>) -> Result<Loaded, ConfigError> {
    let mut names: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    names.sort();
    config::load_strictly(path, &super::environment, &names, previous)
}

/// As [`configuration`], and loads every certificate and key that it names.
///
/// # Errors
/// Everything that is wrong with it, in one error; certificates only if all else is right.
pub(super) fn with_certificates(path: &Path, previous: Option<&Settings>) -> Result<Loaded, ConfigError> {
    let loaded = configuration(path, previous)?;
    let wrong = unusable(&loaded.settings);
    if wrong.is_empty() { Ok(loaded) } else { Err(loaded.places.error(wrong)) }
}

/// Certificates and keys that cannot be loaded: the listener's and each cluster's.
fn unusable(settings: &Settings) -> Vec<(Place, String)> {
    let listen = &settings.listen.tls;
    let listener = match listen.mode {
        TlsMode::Disable => None,
        TlsMode::Prefer | TlsMode::Require => ServerTls::load(listen)
            .err()
            .map(|error| (Place::ListenTls(file_of(&error)), format!("listen.tls: {error}"))),
    };
    let clusters = settings.clusters.iter().filter_map(|cluster| {
        let error = Connector::new(cluster, &settings.servers).err()?;
        Some((Place::Cluster(cluster.name.to_string()), format!("cluster `{}`: {error}", cluster.name)))
    });
    listener.into_iter().chain(clusters).collect()
}

/// The file at fault.
fn file_of(error: &TlsError) -> Option<PathBuf> {
    match error {
        TlsError::Read { path, .. }
        | TlsError::Certificate { path }
        | TlsError::Key { path }
        | TlsError::Authority { path, .. }
        | TlsError::Identity { cert: path, .. } => Some(path.clone()),
        TlsError::NoIdentity | TlsError::NoSystemRoots | TlsError::Setup(_) => None,
    }
}
