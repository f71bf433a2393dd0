//! `tenantry serve`: runs the proxy until a signal ends it.
//!
//! Owns signals and what systemd is told. SIGHUP reloads; SIGTERM, SIGINT and SIGQUIT stop, each with less patience.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArgs, Failure, load};
use crate::config::Loaded;
use crate::config::settings::Settings;
use crate::proxy::{DrainKind, Proxy};
use crate::telemetry::logs::{self, Logs};

/// Arguments of `tenantry serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs the proxy.
///
/// # Errors
/// If the configuration cannot be used, or the proxy cannot start or run.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    let Loaded { settings, warnings, .. } = load::with_certificates(&args.config.config, None)?;
    // What the reading took, several times what is kept of it.
    heap::give_back();
    let logs = logs::init(&settings.log).map_err(Failure::runtime)?;
    for warning in warnings {
        tracing::warn!(reason = "config", "{warning}");
    }
    raise_file_limit(&settings);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads.front.max(1))
        .thread_name("front")
        .enable_all()
        .build()?;
    runtime.block_on(serve(args, settings, &logs))
}

async fn serve(args: &ServeArgs, settings: Settings, logs: &Logs) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let proxy = Proxy::start(settings).await.map_err(Failure::runtime)?;
    let addresses: Vec<String> = proxy.addresses().iter().map(ToString::to_string).collect();
    let http = proxy.http_address().map(|address| address.to_string()).unwrap_or_default();
    let tenants = proxy.settings().catalog.len();
    tracing::info!(
        listen = addresses.join(","),
        unix = proxy.unix_path().map(|path| path.display().to_string()).unwrap_or_default(),
        http,
        tenants,
        version = env!("CARGO_PKG_VERSION"),
        "ready"
    );
    tell_systemd(&[NotifyState::Ready]);
    let kind = loop {
        match signals.next().await {
            Asked::Reload => reload(args, &proxy, logs).await,
            Asked::Stop(kind) => break kind,
        }
    };
    tell_systemd(&[NotifyState::Stopping]);
    tracing::info!(reason = "signal", kind = ?kind, "draining");
    let mut drained = std::pin::pin!(proxy.drain(kind));
    let again = async {
        // A reload asks for nothing now.
        while matches!(signals.next().await, Asked::Reload) {}
    };
    let in_time = tokio::select! {
        in_time = &mut drained => in_time,
        // A second signal means that somebody is waiting: cut off what is left.
        () = again => false,
    };
    tracing::info!(in_time, "stopped");
    Ok(())
}

async fn reload(args: &ServeArgs, proxy: &Proxy, logs: &Logs) {
    tell_systemd(&[
        NotifyState::Reloading,
        NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading),
    ]);
    let old: Arc<Settings> = proxy.settings();
    match load::with_certificates(&args.config.config, Some(&old)) {
        Ok(Loaded { settings, warnings, .. }) => {
            for warning in warnings {
                tracing::warn!(reason = "config", "{warning}");
            }
            let filter = settings.log.filter.clone();
            match proxy.reload(settings).await {
                Ok(restart) => {
                    if let Err(error) = logs.filter().set(&filter) {
                        tracing::warn!(reason = "log_filter", %error, "log filter not changed");
                    }
                    if !restart.is_empty() {
                        tracing::warn!(
                            reason = "restart_needed",
                            keys = restart.join(","),
                            "not changed by a reload"
                        );
                    }
                    tracing::info!(tenants = proxy.settings().catalog.len(), "configuration reloaded");
                }
                Err(error) => {
                    tracing::error!(reason = "reload_refused", %error, "configuration refused, the old one stays");
                }
            }
        }
        Err(error) => {
            proxy.note_failed_reload();
            tracing::error!(reason = "reload_refused", %error, "configuration refused, the old one stays");
        }
    }
    let_go(old).await;
    heap::give_back();
    tell_systemd(&[NotifyState::Ready]);
}

/// Waits until nobody else works by these settings, within limits, and frees them: with very many tenants that takes a
/// while, and whoever else was the last would serve nobody meanwhile.
async fn let_go(settings: Arc<Settings>) {
    let mut look = tokio::time::interval(LOOK);
    for _ in 0..LOOKS {
        if Arc::strong_count(&settings) == 1 {
            break;
        }
        look.tick().await;
    }
    drop(settings);
}

/// What a signal asks for.
enum Asked {
    Reload,
    Stop(DrainKind),
}

struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hup.recv() => Asked::Reload,
            _ = self.term.recv() => Asked::Stop(DrainKind::Graceful),
            _ = self.int.recv() => Asked::Stop(DrainKind::Fast),
            _ = self.quit.recv() => Asked::Stop(DrainKind::Now),
        }
    }
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// As many files as the system allows; says so when that is not enough for the clients and servers configured.
fn raise_file_limit(settings: &Settings) {
    let needed =
        u64::try_from(settings.listen.max_clients).unwrap_or(u64::MAX).saturating_add(FILES_BESIDE_CLIENTS);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => {
            tracing::warn!(
                reason = "file_limit",
                limit,
                needed,
                "fewer open files are allowed than listen.max_clients and servers need"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(reason = "file_limit", %error, "cannot raise the limit of open files"),
    }
}

/// How often is looked whether somebody still works by old settings, and how many times.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS: u32 = 200;
/// Servers, listeners, logs.
const FILES_BESIDE_CLIENTS: u64 = 1_024;
