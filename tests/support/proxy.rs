//! The proxy as a process: the binary that is shipped, with a configuration file.
//!
//! Owns the process and its files. `Drop` kills it, and shows its log if the test failed. Must not know tenants.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::metrics::{self, Metrics};
use super::{PATIENCE, eventually};

/// How much of the log a failed test shows.
const LOG_TAIL: usize = 6_000;

/// A running (or ended) proxy.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    child: Child,
}

impl Proxy {
    /// Starts it in `dir`, with the configuration that `toml(listen, http)` writes, and waits until it is ready.
    pub(crate) async fn start(dir: &Path, toml: impl Fn(SocketAddr, SocketAddr) -> String) -> Self {
        for _ in 0..5 {
            let (address, http) = (free_address(), free_address());
            let mut proxy = Self::spawn(dir, address, http, &toml(address, http));
            if proxy.becomes_ready().await {
                return proxy;
            }
            let log = proxy.log();
            assert!(log.to_ascii_lowercase().contains("in use"), "the proxy ended at start:\n{log}");
        }
        panic!("no free port in five attempts");
    }

    /// Starts it without waiting for anything.
    pub(crate) fn spawn(dir: &Path, address: SocketAddr, http: SocketAddr, toml: &str) -> Self {
        let (config, log) = (dir.join("tenantry.toml"), dir.join("tenantry.log"));
        std::fs::write(&config, toml).unwrap();
        let child = Self::run(&config, &log);
        Self { address, http, config, log, child }
    }

    fn run(config: &Path, log: &Path) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        Command::new(env!("CARGO_BIN_EXE_tenantry"))
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Runs it again after it has ended, on the same ports.
    pub(crate) async fn run_again(&mut self) {
        self.child = Self::run(&self.config, &self.log);
        assert!(self.becomes_ready().await, "{}", self.log());
    }

    async fn becomes_ready(&mut self) -> bool {
        let http = self.http;
        eventually("the proxy is ready, or has ended", PATIENCE, async || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            metrics::get(http, "/readyz").await.filter(|(status, _)| *status == 200).map(|_| true)
        })
        .await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn config_path(&self) -> &Path {
        &self.config
    }

    /// All that it has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal (a name without SIG).
    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &self.pid().to_string()]).status();
        assert!(status.unwrap().success(), "SIG{name} was not sent");
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        eventually("the proxy ends", within, async || child.try_wait().unwrap()).await
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Writes another configuration and asks to apply it.
    pub(crate) fn send_config(&self, toml: &str) {
        std::fs::write(&self.config, toml).unwrap();
        self.signal("HUP");
    }

    /// Page and status.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        metrics::get(self.http, path).await.expect("HTTP does not answer")
    }

    /// Runs a command of the same program on this proxy: whether it succeeded, and what it said.
    pub(crate) async fn command(&self, arguments: &[&str]) -> (bool, String) {
        let url = format!("http://{}", self.http);
        // What the configuration of a test has written out, as an operator's environment would.
        let text = std::fs::read_to_string(&self.config).unwrap();
        let token = text.lines().find_map(|line| line.strip_prefix("token = ")).unwrap_or_default();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenantry"))
            .env("TENANTRY_API_TOKEN", token.trim_matches('"'))
            .args(arguments)
            .args(["--url", &url, "--config"])
            .arg(&self.config)
            .output()
            .await
            .unwrap();
        let said = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::scrape(self.http).await
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(LOG_TAIL);
            let start = (start..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("--- end of the proxy's log ---\n{}---", &log[start..]);
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}
