//! What a reload can change, and what needs a restart.
//!
//! Owns the list of settings that are fixed when the process starts. Compares values only.

use super::settings::Settings;

/// The keys that differ between two configurations although a reload cannot change them. The old values stay in
/// force until a restart.
#[must_use]
pub fn restart_needed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let changed = [
        ("listen.address", old.listen.addresses != new.listen.addresses),
        ("listen.unix_socket_dir", old.listen.unix_socket_dir != new.listen.unix_socket_dir),
        ("listen.backlog", old.listen.backlog != new.listen.backlog),
        ("http.address", old.http != new.http),
        ("threads.front", old.threads.front != new.threads.front),
        ("threads.workers", old.threads.workers != new.threads.workers),
        ("log.format", old.log.format != new.log.format),
        ("log.filter", old.log.filter != new.log.filter),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}
