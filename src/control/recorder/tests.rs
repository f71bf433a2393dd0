//! Goal: what is sent is in the file, whatever becomes of the recording, and no other file suffers.

use super::*;
use crate::ids::TenantId;
use crate::trace::{Asked, Ending, Record, parse};

fn batch(records: u32) -> Batch {
    let record = |end_us| Record { tenant: TenantId(3), end_us, hold_us: 5, asked: Asked::default() };
    Batch {
        base_us: 1_000,
        names: vec![(TenantId(3), "acme".into())],
        records: (0..records).map(record).collect(),
    }
}

fn trace(dir: &tempfile::TempDir, max_bytes: u64) -> Trace {
    Trace { file: dir.path().join("requests.trace"), max_bytes }
}

#[test]
fn what_is_sent_is_written_and_the_end_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(&dir, 1_000_000);
    let recorder = Recorder::default();
    assert!(recorder.go_over_to(None).is_none() && !recorder.report().recording);
    let recording = recorder.go_over_to(Some(&trace)).unwrap();
    recording.batches.send(batch(10)).unwrap();
    recording.dropped.fetch_add(7, Ordering::Relaxed);
    recording.batches.send(batch(20)).unwrap();
    assert!(recorder.report().recording);
    drop(recording);
    recorder.finish();
    let file = fs::read(&trace.file).unwrap();
    let read = parse(&file).unwrap();
    assert_eq!((read.requests.len(), read.dropped, read.ending), (30, 7, Ending::Complete));
    let report = TraceReport { recording: false, records: 30, bytes: file.len() as u64, dropped: 7 };
    assert_eq!(recorder.report(), TraceReport { bytes: report.bytes - 16, ..report });
}

#[test]
fn a_file_that_is_full_ends_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(&dir, 300);
    let recorder = Recorder::default();
    let recording = recorder.go_over_to(Some(&trace)).unwrap();
    // Until nobody takes one any more.
    while recording.batches.send(batch(20)).is_ok() {}
    while recorder.report().recording {
        std::thread::yield_now();
    }
    // The same again is no reason to begin anew, another size is.
    assert!(recorder.go_over_to(Some(&trace)).is_none());
    let read = parse(&fs::read(&trace.file).unwrap()).unwrap();
    assert_eq!((read.requests.len() % 20, read.ending), (0, Ending::Complete));
    assert!(!read.requests.is_empty() && fs::metadata(&trace.file).unwrap().len() <= 320);
    assert!(recorder.go_over_to(Some(&Trace { max_bytes: 301, ..trace })).is_some());
}

#[test]
fn a_reload_that_changes_nothing_does_not_disturb_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let one = trace(&dir, 1_000);
    let other = Trace { file: dir.path().join("other.trace"), max_bytes: 1_000 };
    let recorder = Recorder::default();
    let number = |trace: &Trace| recorder.go_over_to(Some(trace)).unwrap().number;
    assert_eq!([number(&one), number(&one), number(&other), number(&one)], [1, 1, 2, 3]);
    assert!(dir.path().join("requests.trace.old").exists());
}

#[test]
fn an_earlier_trace_is_kept_and_what_is_none_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(&dir, 1_000_000);
    for records in [1, 2, 3] {
        let recorder = Recorder::default();
        let recording = recorder.go_over_to(Some(&trace)).unwrap();
        recording.batches.send(batch(records)).unwrap();
        drop(recording);
        recorder.finish();
    }
    let requests = |path: &Path| parse(&fs::read(path).unwrap()).unwrap().requests.len();
    assert_eq!((requests(&trace.file), requests(&old_name(&trace.file))), (3, 2));
    for other in ["precious", "TNT"] {
        fs::write(&trace.file, other).unwrap();
        let recorder = Recorder::default();
        assert!(recorder.go_over_to(Some(&trace)).is_none() && !recorder.report().recording);
        assert_eq!(fs::read_to_string(&trace.file).unwrap(), other);
    }
    // Out of the way, and the next reload records.
    let recorder = Recorder::default();
    assert!(recorder.go_over_to(Some(&trace)).is_none());
    fs::remove_file(&trace.file).unwrap();
    assert!(recorder.go_over_to(Some(&trace)).is_some());
}
