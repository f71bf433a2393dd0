//! What a reload can change, and what needs a restart.
//!
//! Owns the list of settings that are fixed when the process starts. Compares values only.

use super::settings::Settings;

/// The keys that differ between two configurations although a reload cannot change them. The old values stay in
/// force until a restart.
#[must_use]
pub fn restart_needed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let changed = [
        old.listen.addresses != new.listen.addresses,
        old.listen.unix_socket_dir != new.listen.unix_socket_dir,
        old.listen.backlog != new.listen.backlog,
        old.http != new.http,
        old.threads.front != new.threads.front,
        old.threads.workers != new.threads.workers,
        old.threads.driver != new.threads.driver,
        old.log.format != new.log.format,
    ];
    RESTART_KEYS.into_iter().zip(changed).filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

/// The keys that a reload cannot change, in the order in which [`restart_needed`] compares them.
pub const RESTART_KEYS: [&str; 8] = [
    "listen.address",
    "listen.unix_socket_dir",
    "listen.backlog",
    "http.address",
    "threads.front",
    "threads.workers",
    "threads.driver",
    "log.format",
];

#[cfg(test)]
mod tests {
    use super::super::load_text;
    use super::*;
    use std::path::Path;

    fn settings(head: &str) -> Settings {
        let text = format!(
            "{head}\n[cluster.main]\nurl = \"postgres://localhost/app\"\nmax_connections = 40\n[[tenant]]\n\
             name = \"a\"\nrole = \"a\"\nschema = \"a\"\nclient_auth = {{ scram = \"{VERIFIER}\" }}\n"
        );
        load_text(&text, Path::new(""), &|_| None, None).unwrap().settings
    }

    const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\
                            AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let old = settings("");
        assert!(restart_needed(&old, &settings("pool.queue_timeout = \"2s\"")).is_empty());
        let new = settings(
            "listen.address = \"127.0.0.1:7000\"\nthreads.workers = 3\nthreads.driver = \"epoll\"\n\
             http.address = \"off\"",
        );
        let changed = ["listen.address", "http.address", "threads.workers", "threads.driver"];
        assert_eq!(restart_needed(&old, &new), changed);
    }
}
