//! Signals by process id, and a guardian that cleans up when we are killed.
//!
//! Owns talking to processes through the shell's `kill`, which needs neither `unsafe` nor another dependency. Must not
//! know what the processes are for.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Sends `signal` (a name without SIG) to all `pids`; processes that are gone already are no error.
pub(super) fn signal(name: &str, pids: &[u32]) -> io::Result<()> {
    if pids.is_empty() {
        return Ok(());
    }
    Command::new("sh")
        .args(["-c", "kill -\"$0\" \"$@\"", name])
        .args(pids.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map(drop)
}

/// Process ids of the direct children of `parent`; empty where there is no `/proc`.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state ppid ...`; the name may hold anything, so look behind its last parenthesis.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A shell that waits for us to end, in whatever way, and then stops the server and removes its directory.
///
/// It reads a pipe of which we hold the other end, so it notices even a SIGKILL.
#[derive(Debug)]
pub(super) struct Guardian {
    shell: Child,
}

impl Guardian {
    /// Watches over the cluster in `dir`, whose postmaster writes its process id to `dir/data/postmaster.pid`.
    pub(super) fn watch(dir: &Path) -> io::Result<Self> {
        let script = "read -r _; \
             pid=$(head -n 1 \"$0/data/postmaster.pid\" 2>/dev/null) && kill -CONT \"$pid\" && kill -QUIT \"$pid\"; \
             n=0; while kill -0 \"$pid\" 2>/dev/null && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.1; done; \
             rm -rf \"$0\"";
        let shell = Command::new("sh")
            .args(["-c", script])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { shell })
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_reaches_a_child_that_children_lists() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        signal("KILL", &[child.id()]).unwrap();
        assert!(!child.wait().unwrap().success());
        signal("KILL", &[child.id()]).unwrap();
    }

    #[test]
    fn the_guardian_removes_the_directory_of_a_dead_cluster() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("cluster");
        std::fs::create_dir(&dir).unwrap();
        drop(Guardian::watch(&dir).unwrap());
        assert!(!dir.exists());
    }
}
