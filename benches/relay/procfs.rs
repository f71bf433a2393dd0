//! What the kernel knows about a process: CPU time and memory, read from `/proc`.
//!
//! Owns the parsing. Must not know which process it looks at.

use std::fs;

use anyhow::{Context, Result};

/// CPU nanoseconds of all live threads of a process (user and system), from `schedstat`.
///
/// Threads that ended are not counted; neither proxy ends threads while it is measured.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("the measured process is gone")? {
        let path = thread?.path().join("schedstat");
        let text = fs::read_to_string(&path).context("the kernel has no schedstat")?;
        sum += field(&text, 0)?;
    }
    Ok(sum)
}

/// CPU milliseconds of a process together with the children it has waited for, from `stat`: for Postgres, the
/// postmaster and every server process that has ended.
pub(crate) fn cpu_ms_with_children(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = text.rsplit_once(')').context("unexpected stat line")?.1;
    // utime, stime, cutime and cstime are fields 14 to 17; the part after the name starts with field 3.
    let mut ticks = 0;
    for index in 11..15 {
        ticks += field(after_name, index)?;
    }
    Ok(ticks * MS_PER_TICK)
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss: u64,
    /// Resident, with shared pages divided among their users.
    pub(crate) pss: u64,
}

/// The memory of a process, from `smaps_rollup`.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("reading the proxy's memory")?;
    Ok(Memory { rss: kilobytes(&text, "Rss:")?, pss: kilobytes(&text, "Pss:")? })
}

fn kilobytes(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find(|line| line.starts_with(name)).context("a memory field is missing")?;
    Ok(field(line, 1)? * 1_024)
}

fn field(text: &str, index: usize) -> Result<u64> {
    let word = text.split_whitespace().nth(index).context("a field is missing")?;
    word.parse().context("a field is not a number")
}

/// `USER_HZ` is 100 on every Linux architecture that Rust supports.
const MS_PER_TICK: u64 = 10;
