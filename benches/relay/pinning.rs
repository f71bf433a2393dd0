//! Which CPU runs what: the proxies on the first, everything else on the others.
//!
//! Owns calling `taskset`. Where the scheduler puts two processes that talk to each other decides what a wake-up costs, and
//! it decides anew for each run; pinned, both proxies get the same. Without `taskset`, or with one CPU, nothing is pinned.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// Whether processes are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinning {
    /// Proxies on the first CPU, the rest elsewhere.
    Pinned,
    /// The scheduler decides.
    Free,
}

impl Pinning {
    /// Moves this process, and so its future children, away from the first CPU.
    pub(crate) fn apply() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        if cpus < 2 {
            return Self::Free;
        }
        let others = format!("1-{}", cpus - 1);
        let mut command = Command::new("taskset");
        command.args(["-p", "-c", &others, &std::process::id().to_string()]);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if status.is_ok_and(|status| status.success()) { Self::Pinned } else { Self::Free }
    }

    /// A command that runs a proxy.
    pub(crate) fn proxy(self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Free => Command::new(program),
            Self::Pinned => {
                // taskset becomes the program: the process id stays.
                let mut command = Command::new("taskset");
                command.args(["-c", "0"]).arg(program);
                command
            }
        }
    }

    /// For the report.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Pinned => {
                "the proxies share CPU 0 and are never busy at the same time; Postgres and the clients have the others"
            }
            Self::Free => "nothing is pinned to a CPU",
        }
    }
}
