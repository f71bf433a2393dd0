//! Which CPU runs what: the proxies on the first, everything else on the others.
//!
//! Owns calling `taskset`. Where the scheduler puts two processes that talk to each other decides what a wake-up costs, and
//! it decides anew for each run; pinned, both proxies get the same. Without `taskset`, or with one CPU, nothing is pinned.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

/// Whether processes are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinning {
    /// Proxies on the first CPU, the rest elsewhere.
    Pinned {
        /// The number of the last CPU.
        last: usize,
    },
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
        let last = cpus - 1;
        if confine(std::process::id(), 1, last) { Self::Pinned { last } } else { Self::Free }
    }

    /// Lets a process, and what it starts from now on, use the proxies' CPU too.
    pub(crate) fn share(self, pid: u32) -> Result<()> {
        self.confine(pid, 0)
    }

    /// Keeps a process, and what it starts from now on, off the proxies' CPU.
    pub(crate) fn unshare(self, pid: u32) -> Result<()> {
        self.confine(pid, 1)
    }

    fn confine(self, pid: u32, first: usize) -> Result<()> {
        let Self::Pinned { last } = self else { return Ok(()) };
        ensure!(confine(pid, first, last), "taskset cannot move process {pid}");
        Ok(())
    }

    /// A command that runs a proxy.
    pub(crate) fn proxy(self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Free => Command::new(program),
            Self::Pinned { .. } => {
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
            Self::Pinned { .. } => {
                "the proxies share CPU 0 and are never busy at the same time; Postgres and the clients have the others"
            }
            Self::Free => "nothing is pinned to a CPU",
        }
    }
}

/// Moves a process to the CPUs from `first` to `last`.
fn confine(pid: u32, first: usize, last: usize) -> bool {
    let mut command = Command::new("taskset");
    command.args(["-p", "-c", &format!("{first}-{last}"), &pid.to_string()]);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
