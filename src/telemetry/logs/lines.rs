//! The thread that writes log lines, so that a worker never waits for a full pipe.
//!
//! Owns a bounded queue. When it is full, lines are dropped and counted, and the next line that gets through is
//! preceded by one that says how many.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tracing_subscriber::fmt::MakeWriter;

use super::event::timestamp;
use crate::config::settings::LogFormat;

/// Puts lines into the queue.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

/// Waits for the queue to be written when dropped.
#[derive(Debug)]
pub(super) struct Flush(SyncSender<Job>);

#[derive(Debug)]
enum Job {
    Line(Vec<u8>),
    /// Answered when everything before it was written.
    Flush(SyncSender<()>),
}

/// Starts the thread.
///
/// # Errors
/// If the system has no thread to give.
pub(super) fn start(format: LogFormat, out: impl Write + Send + 'static) -> io::Result<(Lines, Flush)> {
    let (queue, jobs) = sync_channel(QUEUE_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = dropped.clone();
    thread::Builder::new()
        .name("tenantry-log".into())
        .spawn(move || write_lines(&jobs, &counter, format, out))?;
    Ok((Lines { queue: queue.clone(), dropped }, Flush(queue)))
}

fn write_lines(jobs: &Receiver<Job>, dropped: &AtomicU64, format: LogFormat, mut out: impl Write) {
    for job in jobs {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = out.write_all(dropped_line(format, lost).as_bytes());
        }
        // There is nobody to tell that logs cannot be written.
        match job {
            Job::Line(line) => {
                let _ = out.write_all(&line);
            }
            Job::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

fn dropped_line(format: LogFormat, lines: u64) -> String {
    let now = timestamp(Timestamp::now());
    let (message, reason) = ("log lines were dropped", "log_queue_full");
    let target = module_path!();
    match format {
        LogFormat::Json => {
            let head =
                format!(r#""timestamp":"{now}","level":"WARN","message":"{message}","target":"{target}""#);
            format!("{{{head},\"reason\":\"{reason}\",\"lines\":{lines}}}\n")
        }
        LogFormat::Text => format!("{now}  WARN {target}: {message} reason={reason} lines={lines}\n"),
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

impl Write for &Lines {
    /// Takes a whole line. Never blocks and never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.queue.try_send(Job::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, finished) = sync_channel(1);
        let mut job = Job::Flush(done);
        for _ in 0..FLUSH_TRIES {
            match self.0.try_send(job) {
                Ok(()) => {
                    let _ = finished.recv_timeout(FLUSH_PAUSE.saturating_mul(FLUSH_TRIES));
                    return;
                }
                Err(TrySendError::Full(again)) => job = again,
                Err(TrySendError::Disconnected(_)) => return,
            }
            thread::sleep(FLUSH_PAUSE);
        }
    }
}

/// Lines that may wait: some megabytes at worst.
const QUEUE_LINES: usize = 8_192;

/// Half a second to get into a full queue, and half a second to see it written.
const FLUSH_TRIES: u32 = 50;
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that stands still until it is told to go on.
    struct Gate {
        open: Receiver<()>,
        written: mpsc::Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.open.recv();
            let _ = self.written.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_drops_lines_and_says_how_many() {
        let (open, gate) = mpsc::channel();
        let (sent, written) = mpsc::channel();
        let (lines, flush) = start(LogFormat::Json, Gate { open: gate, written: sent }).unwrap();
        // One line may be in the thread's hands, the queue takes the next ones.
        for number in 0..QUEUE_LINES + 100 {
            (&lines).write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        drop(open);
        drop(flush);
        let all: Vec<_> = written.try_iter().collect();
        let lost: u64 = all
            .iter()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["lines"].as_u64().unwrap())
            .sum();
        assert!((99..=100).contains(&lost), "{lost} lost");
        let kept = all.iter().filter(|line| !line.starts_with('{')).count();
        assert_eq!(u64::try_from(kept).unwrap() + lost, u64::try_from(QUEUE_LINES).unwrap() + 100);
    }

    #[test]
    fn everything_queued_is_written_before_the_end() {
        let (sent, written) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        drop(open);
        let (lines, flush) = start(LogFormat::Text, Gate { open: gate, written: sent }).unwrap();
        for _ in 0..1_000 {
            (&lines).write_all(b"x\n").unwrap();
        }
        drop(flush);
        assert_eq!(written.try_iter().count(), 1_000);
    }
}
