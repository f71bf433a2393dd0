//! Goal: a worker never waits for whoever writes, and nothing that could not be sent is missed in silence.

use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;

use super::*;
use crate::backend::{Connector, Profile};
use crate::config::load_text;

fn tenant() -> Rc<TenantState> {
    let text = "[cluster.main]\nurl = \"postgres://127.0.0.1/app?sslmode=disable\"\nmax_connections = 40\n\
                [listen.tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\n[[tenant]]\nname = \"acme\"\n\
                role = \"acme\"\nschema = \"acme\"\nclient_auth = { certificate = \"acme\" }\n";
    let settings = load_text(text, Path::new(""), &|_| None, None).unwrap().settings;
    let connector = Connector::new(&settings.clusters[0], &settings.servers).unwrap();
    let tenant = settings.catalog.by_name("acme").unwrap().clone();
    let profile = Profile::new(&connector, &tenant);
    TenantState::new(tenant, profile)
}

fn recording(number: u32, batches: SyncSender<Batch>) -> Recording {
    Recording { number, clock: Clock::start(), batches, dropped: Arc::default() }
}

#[test]
fn a_batch_that_nobody_takes_is_counted_and_its_names_are_told_again() {
    let (tape, tenant, (batches, taken)) = (Tape::default(), tenant(), sync_channel(1));
    let recording = recording(1, batches);
    let dropped = recording.dropped.clone();
    tape.record(Some(recording));
    // Somebody else's batch is in the way.
    let full = Batch { base_us: 0, names: Vec::new(), records: Vec::new() };
    tape.reel.borrow().as_ref().unwrap().recording.batches.try_send(full).unwrap();
    for end_us in 0..3 {
        tape.note_unserved(&tenant, Asked::default(), Moment(end_us));
    }
    tape.flush();
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
    taken.recv().unwrap();
    tape.note_login(&tenant, 70, Moment(100));
    tape.note_unserved(&tenant, Asked::waited(9), Moment(150));
    tape.record(None);
    let batch = taken.recv().unwrap();
    assert_eq!(batch.names.len(), 1, "the name went with nothing before");
    let found: Vec<_> = batch.records.iter().map(|it| (it.end_us, it.hold_us, it.asked.wait_us())).collect();
    assert_eq!(found, [(0, 70, 0), (50, 0, 9)]);
    assert!(!tape.is_on() && dropped.load(Ordering::Relaxed) == 3);
    assert!(taken.recv().is_err(), "nobody else has the sender");
}

#[test]
fn a_full_buffer_is_sent_and_the_next_one_begins_anew() {
    let (tape, tenant, (batches, taken)) = (Tape::default(), tenant(), sync_channel(4));
    tape.record(Some(recording(1, batches)));
    for now in 0..BATCH as u64 + 1 {
        tape.note_unserved(&tenant, Asked::default(), Moment(1_000 + now));
    }
    let batch = taken.try_recv().unwrap();
    assert_eq!((batch.records.len(), batch.names.len()), (BATCH, 1));
    tape.flush();
    tape.flush();
    let batch = taken.try_recv().unwrap();
    assert_eq!((batch.records.len(), batch.names.len(), batch.records[0].end_us), (1, 0, 0));
    assert!(taken.try_recv().is_err(), "nothing is sent when nothing was noted");
}

#[test]
fn who_writes_has_gone_and_nothing_is_noted_any_more() {
    let (tape, tenant, (batches, taken)) = (Tape::default(), tenant(), sync_channel(4));
    tape.record(Some(recording(1, batches)));
    tape.note_unserved(&tenant, Asked::default(), Moment(5));
    drop(taken);
    tape.flush();
    assert!(!tape.is_on() && tape.reel.borrow().is_none());
    // Another recording is told the name, too.
    let (batches, taken) = sync_channel(4);
    tape.record(Some(recording(2, batches)));
    tape.note_unserved(&tenant, Asked::default(), Moment(9));
    tape.record(None);
    assert_eq!(taken.recv().unwrap().names.len(), 1);
}
