//! Goal: what is written comes back, and whatever else lies in a file ends in an error or in its beginning.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::ids::TenantId;

const STARTED: u64 = 1_770_000_000_123;

fn record(tenant: u32, end_us: u32, hold_us: u32, asked: Asked) -> Record {
    Record { tenant: TenantId(tenant), end_us, hold_us, asked }
}

fn names(count: u32) -> Vec<(TenantId, Arc<str>)> {
    (0..count).map(|number| (TenantId(number), format!("tenant_{number}").into())).collect()
}

/// A whole file of one batch.
fn file(base_us: u64, records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(STARTED, &mut out);
    encoder.names(&names(4), &mut out);
    encoder.batch(base_us, records, &mut out);
    encoder.end(&mut out);
    out
}

#[test]
fn a_record_takes_sixteen_bytes_and_seven_of_the_file() {
    assert_eq!(size_of::<Record>(), 16);
    // A thousand transactions a second on one worker, of two milliseconds, among a hundred tenants.
    let records: Vec<Record> =
        (0..4096).map(|n| record(n % 100, n * 1_000, 2_000, Asked::default())).collect();
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(STARTED, &mut out);
    encoder.names(&names(100), &mut out);
    let before = out.len();
    assert_eq!(encoder.batch(0, &records, &mut out), 4096);
    assert!((out.len() - before) <= 4096 * 7, "{}", out.len() - before);
}

#[test]
fn requests_come_in_the_order_in_which_they_were_made() {
    let long = record(1, 9_000, 8_000, Asked::waited(500).with(Mark::Pinned));
    let short = record(0, 5_000, 1_000, Asked::at_once(true));
    let early = record(2, 300, 70_000, Asked::waited(40));
    let login = record(3, 9_100, 6_000, Asked::default().with(Mark::Login));
    let refused = record(3, 9_200, 0, Asked::waited(9_000).with(Mark::Unserved));
    let trace = parse(&file(100, &[early, short, long, login, refused])).unwrap();
    assert_eq!(trace.ending, Ending::Complete);
    assert_eq!((trace.started_unix_ms, trace.logins), (STARTED, (1, 6_000)));
    let found: Vec<_> = trace.requests.iter().map(|it| (it.at_us, it.tenant, it.hold_us)).collect();
    // The second began before the recording did: what is left of it counts.
    assert_eq!(found, [(0, 2, 400), (300, 3, 0), (600, 1, 8_000), (4_100, 0, 1_000)]);
    let asked: Vec<_> = trace.requests.iter().map(|it| it.asked).collect();
    assert_eq!(asked, [early.asked, refused.asked, long.asked, short.asked]);
    assert!(short.asked.has(Mark::Exempt) && long.asked.has(Mark::Pinned) && !long.asked.has(Mark::Exempt));
}

#[test]
fn a_name_is_written_once_and_who_has_none_is_left_out() {
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(STARTED, &mut out);
    encoder.names(&[(TenantId(7), "seven".into())], &mut out);
    encoder.names(&[(TenantId(7), "seven".into())], &mut out);
    assert_eq!(encoder.batch(0, &[record(8, 1, 1, Asked::default())], &mut out), 0);
    encoder.names(&[(TenantId(8), "eight".into()), (TenantId(7), "seven".into())], &mut out);
    let both = [record(8, 1, 1, Asked::default()), record(7, 2, 1, Asked::default())];
    assert_eq!(encoder.batch(0, &both, &mut out), 2);
    encoder.dropped(12, &mut out);
    encoder.dropped(40, &mut out);
    let trace = parse(&out).unwrap();
    assert_eq!(trace.names.iter().map(|name| &**name).collect::<Vec<_>>(), ["seven", "eight"]);
    assert_eq!(trace.requests.iter().map(|it| it.tenant).collect::<Vec<_>>(), [1, 0]);
    assert_eq!((trace.dropped, trace.ending), (40, Ending::Open));
}

#[test]
fn what_is_no_trace_or_of_another_version_is_refused() {
    assert_eq!(parse(b""), Err(TraceError::NotATrace));
    assert_eq!(parse(b"PGDMP and more"), Err(TraceError::NotATrace));
    let mut newer = file(0, &[]);
    newer[7] = 2;
    assert_eq!(parse(&newer), Err(TraceError::Version(2)));
    assert_eq!(parse(&newer[..7]), Err(TraceError::NotATrace));
}

#[test]
fn a_damaged_block_ends_it_and_says_where() {
    let (mut out, first) = (Vec::new(), record(0, 10, 5, Asked::default()));
    let mut encoder = Encoder::begin(STARTED, &mut out);
    encoder.names(&names(1), &mut out);
    encoder.batch(0, &[first], &mut out);
    let at = out.len();
    encoder.batch(50, &[first, first], &mut out);
    out[at + 12] ^= 4;
    encoder.end(&mut out);
    let trace = parse(&out).unwrap();
    assert_eq!((trace.requests.len(), trace.ending), (1, Ending::Damaged { at }));
}

/// Blocks that are whole, and say what cannot be: nothing of them counts.
#[test]
fn a_block_that_makes_no_sense_is_left_out_as_a_whole() {
    let mut head = Vec::new();
    let mut encoder = Encoder::begin(STARTED, &mut head);
    encoder.names(&names(1), &mut head);
    let record = |number: u8| [number << 5, 7, 3];
    let requests = |records: &[[u8; 3]], count| [&[0, count], &*records.concat()].concat();
    let read = |tag, payload: &[u8]| {
        let mut out = head.clone();
        block::put(&mut out, tag, payload);
        parse(&out).unwrap()
    };
    assert_eq!(read(2, &requests(&[record(0), record(0)], 2)).requests.len(), 2);
    let login = [3 << 1 | 1 << 4, 7, 3];
    let mut late = vec![0xff; 7];
    late.extend([0x7f, 1, 0, 7, 3]);
    for (what, payload) in [
        ("a time that nobody lives to see", late),
        ("a tenant without a name", requests(&[record(0), record(1)], 2)),
        ("more than is said", requests(&[record(0), record(0)], 1)),
        ("less than is said", requests(&[record(0), login, record(0)], 4)),
    ] {
        let trace = read(2, &payload);
        assert_eq!((trace.requests, trace.logins), (vec![], (0, 0)), "{what}");
        assert_eq!(trace.ending, Ending::Damaged { at: head.len() }, "{what}");
    }
    let trace = read(1, &[1, b'a', 2, 0xff, 0xfe]);
    assert_eq!((trace.names.len(), trace.ending), (1, Ending::Damaged { at: head.len() }));
    for (tag, payload) in [(3, &[5, 5][..]), (4, &[0]), (9, &[])] {
        assert_eq!(read(tag, payload).ending, Ending::Damaged { at: head.len() });
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    (0..4_u32, any::<u32>(), any::<u32>(), 0..4_000_000_000_u64, any::<[bool; 3]>()).prop_map(
        |(tenant, end_us, hold_us, wait_us, marks)| {
            let of = [Mark::Exempt, Mark::Pinned, Mark::Unserved].into_iter().zip(marks);
            let asked = of
                .filter(|(_, is_set)| *is_set)
                .fold(Asked::waited(wait_us), |asked, (mark, _)| asked.with(mark));
            record(tenant, end_us, hold_us, asked)
        },
    )
}

/// What a record is when it has been read: nothing is earlier than the recording's first moment.
fn read(record: &Record, base_us: u64) -> Request {
    let end_us = base_us + u64::from(record.end_us);
    Request {
        at_us: end_us.saturating_sub(record.hold_us.into()).saturating_sub(record.asked.wait_us().into()),
        tenant: record.tenant.0,
        hold_us: record.hold_us.min(u32::try_from(end_us).unwrap_or(u32::MAX)),
        asked: record.asked,
    }
}

proptest! {
    #[test]
    fn what_is_written_comes_back(
        base_us in 0..u64::from(u32::MAX),
        mut records in prop::collection::vec(any_record(), 0..60),
    ) {
        records.sort_by_key(|record| record.end_us);
        let trace = parse(&file(base_us, &records)).unwrap();
        let mut wanted: Vec<Request> = records.iter().map(|record| read(record, base_us)).collect();
        wanted.sort_by_key(|request| request.at_us);
        prop_assert_eq!(trace.requests, wanted);
        prop_assert_eq!(trace.ending, Ending::Complete);
    }

    #[test]
    fn a_file_that_is_cut_off_is_read_up_to_the_cut(
        batches in prop::collection::vec(prop::collection::vec(any_record(), 1..9), 1..6),
        cut in 0..2_000_usize,
    ) {
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(STARTED, &mut out);
        encoder.names(&names(4), &mut out);
        // After how many bytes how many requests are there.
        let mut steps = vec![(out.len(), 0)];
        let mut count = 0;
        for batch in &batches {
            count += usize::try_from(encoder.batch(1_000, batch, &mut out)).unwrap();
            steps.push((out.len(), count));
        }
        encoder.end(&mut out);
        let cut = cut.min(out.len());
        match parse(&out[..cut]) {
            Err(error) => prop_assert!(error == TraceError::NotATrace && cut < 16),
            Ok(trace) => {
                let whole = steps.iter().rev().find(|(bytes, _)| *bytes <= cut);
                prop_assert_eq!(trace.requests.len(), whole.map_or(0, |(_, count)| *count));
                let is_whole = cut == out.len();
                prop_assert_eq!(trace.ending, if is_whole { Ending::Complete } else { Ending::Open });
            }
        }
    }

    #[test]
    fn damage_is_seen_or_behind_the_end(
        records in prop::collection::vec(any_record(), 1..30),
        at in 16..400_usize,
        flip in 1..=255_u8,
    ) {
        let good = file(0, &records);
        let at = at.min(good.len() - 1);
        let mut bad = good.clone();
        bad[at] ^= flip;
        let (good, bad) = (parse(&good).unwrap(), parse(&bad).unwrap());
        prop_assert!(bad.ending != Ending::Complete, "{bad:?}");
        prop_assert!(bad.requests.is_empty() || bad.requests == good.requests);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0..6_u8) {
        let _ = parse(&bytes);
        // Behind a head and in a block that is whole.
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(STARTED, &mut out);
        encoder.names(&names(4), &mut out);
        block::put(&mut out, tag, &bytes);
        let trace = parse(&out).unwrap();
        prop_assert!(trace.requests.len() <= bytes.len());
    }
}
