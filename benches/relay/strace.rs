//! System calls of a process, counted by strace.
//!
//! Owns attaching, detaching and reading the summary. Needs the program and the right to trace.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Calls by kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    /// Reads and writes, in all their spellings, that moved bytes or could have. One that submits many sends is one.
    pub(crate) data: u64,
    /// Those among them that failed: nearly always EAGAIN.
    pub(crate) data_failed: u64,
    /// epoll and poll.
    pub(crate) polling: u64,
    /// Anything else.
    pub(crate) other: u64,
}

/// A running strace.
pub(crate) struct Trace {
    child: Child,
    dir: tempfile::TempDir,
}

impl Trace {
    /// Attaches to all threads of a process and returns when they are being traced.
    pub(crate) fn attach(pid: u32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let log = fs::File::create(dir.path().join("log"))?;
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-o"]).arg(dir.path().join("summary")).arg("-p").arg(pid.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut trace = Self { child: command.spawn().context("strace is not installed")?, dir };
        for _ in 0..ATTACH_POLLS {
            if all_traced(pid)? {
                return Ok(trace);
            }
            if trace.child.try_wait()?.is_some() {
                break;
            }
            sleep(ATTACH_POLL);
        }
        let log = fs::read_to_string(trace.dir.path().join("log")).unwrap_or_default();
        bail!("strace could not attach: {}", log.trim())
    }

    /// Detaches and returns what was counted.
    pub(crate) fn detach(mut self) -> Result<Calls> {
        let status = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status()?;
        if !status.success() {
            bail!("strace had ended early");
        }
        self.child.wait()?;
        let path: PathBuf = self.dir.path().join("summary");
        Ok(count(&fs::read_to_string(path).context("strace wrote no summary")?))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Already ended after `detach`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all_traced(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        if status.lines().any(|line| line.starts_with("TracerPid:") && line.ends_with("\t0")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads lines of `% time, seconds, usecs/call, calls, [errors], syscall`.
fn count(summary: &str) -> Calls {
    let mut calls = Calls::default();
    for line in summary.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (number, errors, name) = match words.as_slice() {
            [_, _, _, number, name] => (number, &"0", name),
            [_, _, _, number, errors, name] => (number, errors, name),
            _ => continue,
        };
        let (Ok(number), Ok(errors)) = (number.parse::<u64>(), errors.parse::<u64>()) else { continue };
        if DATA.contains(name) {
            calls.data += number;
            calls.data_failed += errors;
        } else if POLLING.contains(name) {
            calls.polling += number;
        } else if *name != "total" {
            calls.other += number;
        }
    }
    calls
}

const DATA: [&str; 11] = [
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
    "write",
    "writev",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "io_uring_enter",
];
const POLLING: [&str; 6] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "poll", "ppoll"];
const ATTACH_POLL: Duration = Duration::from_millis(10);
const ATTACH_POLLS: usize = 300;
