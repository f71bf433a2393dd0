//! Recording what is asked for: a thread that writes what workers have noted.
//!
//! Owns the file and the thread. Workers send batches and never wait; a disk that is slow costs records, which are counted.
//! What goes wrong here is said in the log and stops the recording, nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::config::settings::Trace;
use crate::pool::{Batch, Clock, Recording};
use crate::stats::TraceReport;
use crate::trace::Encoder;

/// The recordings of a process, one at a time.
#[derive(Debug, Default)]
pub struct Recorder {
    tally: Arc<Tally>,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    /// What was asked for last, and what came of it: nothing if its file could not be made.
    asked: Option<(Trace, Option<Running>)>,
    /// How many there were.
    number: u32,
}

#[derive(Debug)]
struct Running {
    recording: Recording,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Since the process started, over all recordings.
#[derive(Debug, Default)]
struct Tally {
    records: AtomicU64,
    bytes: AtomicU64,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Goes over to what is asked for now, and returns where workers are to record. A recording that goes on is not
    /// disturbed, one that has ended by itself does not begin again, one whose file could not be made is tried again.
    pub fn go_over_to(&self, trace: Option<&Trace>) -> Option<Recording> {
        let mut current = self.current.lock();
        let is_same =
            current.asked.as_ref().is_some_and(|(asked, running)| Some(asked) == trace && running.is_some());
        if !is_same {
            // The one before ends when the last worker has let it go.
            current.asked = None;
            let trace = trace?;
            current.number = current.number.saturating_add(1);
            let running = self.start(trace, current.number);
            current.asked = Some((trace.clone(), running));
        }
        let (_, running) = current.asked.as_ref()?;
        let running = running.as_ref().filter(|running| !running.is_over.load(Ordering::Acquire))?;
        Some(running.recording.clone())
    }

    /// What has been recorded.
    #[must_use]
    pub fn report(&self) -> TraceReport {
        let current = self.current.lock();
        let running = current.asked.as_ref().and_then(|(_, running)| running.as_ref());
        TraceReport {
            recording: running.is_some_and(|running| !running.is_over.load(Ordering::Acquire)),
            records: self.tally.records.load(Ordering::Relaxed),
            bytes: self.tally.bytes.load(Ordering::Relaxed),
            dropped: self.tally.dropped.load(Ordering::Relaxed),
        }
    }

    /// Ends the recording, when no worker records any more. Blocks until all is written.
    pub fn finish(&self) {
        let asked = self.current.lock().asked.take();
        if let Some((_, Some(Running { recording, thread, .. }))) = asked {
            drop(recording);
            let _ = thread.join();
        }
    }

    /// A new file and its thread; the log says why there is none.
    fn start(&self, trace: &Trace, number: u32) -> Option<Running> {
        match self.try_start(trace, number) {
            Ok(running) => {
                tracing::info!(reason = "trace", file = %trace.file.display(), "recording requests");
                Some(running)
            }
            Err(error) => {
                let file = trace.file.display();
                tracing::error!(reason = "trace_failed", %file, %error, "requests are not recorded");
                None
            }
        }
    }

    fn try_start(&self, trace: &Trace, number: u32) -> io::Result<Running> {
        let mut file = create(&trace.file)?;
        let mut head = Vec::new();
        let encoder = Encoder::begin(unix_ms(), &mut head);
        file.write_all(&head)?;
        let (batches, receiver) = sync_channel(BATCHES);
        let (dropped, is_over) = (self.tally.dropped.clone(), Arc::new(AtomicBool::new(false)));
        let writer = Writer {
            file,
            path: trace.file.clone(),
            encoder,
            written: head.len() as u64,
            max_bytes: trace.max_bytes,
            dropped_before: dropped.load(Ordering::Relaxed),
            tally: self.tally.clone(),
        };
        let over = is_over.clone();
        let thread = std::thread::Builder::new().name("trace".to_owned()).spawn(move || {
            writer.run(&receiver);
            over.store(true, Ordering::Release);
        })?;
        let recording = Recording { number, clock: Clock::start(), batches, dropped };
        Ok(Running { recording, is_over, thread })
    }
}

/// The thread's own.
struct Writer {
    file: File,
    path: PathBuf,
    encoder: Encoder,
    written: u64,
    max_bytes: u64,
    /// Those that earlier recordings lost.
    dropped_before: u64,
    tally: Arc<Tally>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Batch>) {
        let (mut out, mut dropped_said) = (Vec::new(), 0);
        let why = loop {
            let Ok(batch) = batches.recv() else { break "off" };
            out.clear();
            self.encoder.names(&batch.names, &mut out);
            let records = self.encoder.batch(batch.base_us, &batch.records, &mut out);
            let dropped = self.tally.dropped.load(Ordering::Relaxed).saturating_sub(self.dropped_before);
            if dropped != dropped_said {
                self.encoder.dropped(dropped, &mut out);
                dropped_said = dropped;
            }
            if self.written.saturating_add(out.len() as u64) > self.max_bytes {
                break "full";
            }
            if let Err(error) = self.write(&out) {
                let file = self.path.display();
                tracing::error!(reason = "trace_failed", %file, %error, "requests are not recorded any more");
                return;
            }
            self.tally.records.fetch_add(records, Ordering::Relaxed);
        };
        out.clear();
        std::mem::take(&mut self.encoder).end(&mut out);
        let error = self.write(&out).err().map(|error| error.to_string());
        let file = self.path.display();
        tracing::info!(reason = "trace", %file, why, bytes = self.written, error, "the recording has ended");
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        let length = bytes.len() as u64;
        self.written = self.written.saturating_add(length);
        self.tally.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }
}

/// A new file for a trace. One that is there is kept under another name, and what is no trace is not touched.
fn create(path: &Path) -> io::Result<File> {
    match is_trace(path) {
        Ok(true) => fs::rename(path, old_name(path))?,
        Ok(false) => {
            let text = "there is another file of that name, which is no trace";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Names of tenants are nobody else's business.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Whether a file is a trace, or empty.
fn is_trace(path: &Path) -> io::Result<bool> {
    if !fs::metadata(path)?.is_file() {
        return Ok(false);
    }
    let mut head = Vec::new();
    File::open(path)?.take(crate::trace::HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head.is_empty() || !matches!(crate::trace::parse(&head), Err(crate::trace::TraceError::NotATrace)))
}

/// `requests.trace.old`
fn old_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Batches that wait to be written: a megabyte.
const BATCHES: usize = 16;

#[cfg(test)]
mod tests;
