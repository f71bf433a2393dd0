//! One case each: what a client's message makes us expect.

use crate::ids::ClientId;
use crate::track::exchange::{MAX_NOTED_BYTES, MAX_OUTSTANDING};
use crate::track::fixture::{
    CLOSED, DONE, EXECUTE, FAILED, PARSED, READY, SYNC, Talk, fresh_server, messages,
};
use crate::track::lexer::StateKind;

const PARSE_S: (u8, &[u8]) = (b'P', b"s\0SELECT 1\0\0\0");
const BIND_S: (u8, &[u8]) = (b'B', b"\0s\0\0\0\0\0\0\0");
const DEALLOCATE: (u8, &[u8]) = (b'Q', b"DEALLOCATE s\0");
const STAND_IN: (u8, &[u8]) = (b'Q', b"PREPARE tenantry_0 AS SELECT 1; DEALLOCATE tenantry_0\0");

fn prepared() -> Talk {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[PARSE_S, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk
}

#[test]
fn deallocate_of_a_statement_that_the_server_lacks_succeeds() {
    let mut talk = prepared();
    talk.next_server(fresh_server());
    assert_eq!(talk.say(&messages(&[DEALLOCATE])), messages(&[STAND_IN]));
    let answers = talk.answer(&messages(&[(b'C', b"PREPARE\0"), (b'C', b"DEALLOCATE\0"), READY]));
    assert_eq!(answers, messages(&[(b'C', b"DEALLOCATE\0"), READY]));
    assert!(talk.client.statements.is_empty() && talk.is_over());
}

#[test]
fn deallocate_that_is_refused_leaves_the_name() {
    let mut talk = prepared();
    talk.say(&messages(&[DEALLOCATE]));
    assert_eq!(talk.answer(&messages(&[FAILED, READY])), messages(&[FAILED, READY]));
    assert!(talk.client.statements.find(b"s").is_some() && talk.is_over());
}

#[test]
fn what_is_prepared_behind_discard_all_outlives_its_answer() {
    let mut talk = prepared();
    let again = (b'P', b"t\0SELECT 1\0\0\0".as_slice());
    let set = (b'Q', b"SET statement_timeout = 1\0".as_slice());
    let (sent, fed) = talk.try_say(&messages(&[(b'Q', b"DISCARD ALL\0"), again, SYNC, set])).unwrap();
    assert_eq!(
        (sent, fed.held),
        (messages(&[(b'Q', b"DISCARD ALL\0")]), true),
        "what `t` is comes out first"
    );
    talk.answer(&messages(&[(b'C', b"DISCARD ALL\0".as_slice()), READY]));
    let parse = (b'P', b"tenantry_2\0SELECT 1\0\0\0".as_slice());
    assert_eq!(talk.say(b""), messages(&[parse, SYNC, set]));
    talk.answer(&messages(&[PARSED, READY, (b'C', b"SET\0"), READY]));
    assert!(talk.client.statements.find(b"s").is_none() && talk.client.statements.find(b"t").is_some());
    assert_eq!(talk.server.statements.len(), 1);
    assert!(!talk.server.touched.is_none());
}

#[test]
fn discard_all_that_is_refused_takes_nothing_away() {
    let mut talk = prepared();
    talk.server.left_behind = Some(StateKind::Listen);
    let other = (b'P', b"t\0SELECT 2\0\0\0".as_slice());
    talk.say(&messages(&[other, (b'Q', b"DISCARD ALL\0"), (b'P', b"s\0SELECT 3\0\0\0"), SYNC]));
    talk.answer(&messages(&[PARSED, FAILED, (b'Z', b"T")]));
    talk.say(b"");
    talk.answer(&messages(&[PARSED, (b'Z', b"T")]));
    assert!(talk.client.statements.find(b"t").is_some());
    assert_eq!(talk.server.left_behind, Some(StateKind::Listen));
    let sent = talk.say(&messages(&[(b'B', b"\0t\0\0\0\0\0\0\0")]));
    let again = [(b'C', b"Stenantry_2\0".as_slice()), (b'P', b"tenantry_4\0SELECT 2\0\0\0")];
    assert!(sent.starts_with(&messages(&again)), "its ParseComplete was not noted: {}", sent.escape_ascii());
}

#[test]
fn a_skipped_name_does_not_come_back_with_a_refused_deallocate_all() {
    let mut talk = prepared();
    let unknown = (b'E', b"nothing\0\0\0\0\0".as_slice());
    let skipped = (b'P', b"t\0SELECT 2\0\0\0".as_slice());
    talk.say(&messages(&[unknown, skipped, SYNC, (b'Q', b"DEALLOCATE ALL\0")]));
    talk.answer(&messages(&[FAILED, (b'Z', b"E"), FAILED, (b'Z', b"E")]));
    assert!(talk.client.statements.find(b"s").is_some() && talk.client.statements.find(b"t").is_none());
}

#[test]
fn a_client_that_leaves_without_sync_gets_its_answers() {
    let mut talk = prepared();
    let (sent, fed) = talk.try_say(&messages(&[BIND_S, EXECUTE, (b'X', b"")])).unwrap();
    assert!(fed.terminated && sent.ends_with(&messages(&[(b'H', b"")])), "{}", sent.escape_ascii());
    assert!(!talk.exchange.is_exhausted(&talk.server));
    talk.answer(&messages(&[(b'2', b""), DONE]));
    assert!(talk.exchange.is_exhausted(&talk.server) && !talk.is_over());
}

#[test]
fn a_client_that_leaves_in_a_copy_has_all_it_can_get() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[(b'Q', b"COPY t FROM STDIN\0"), (b'X', b"")]));
    assert!(!talk.exchange.is_exhausted(&talk.server));
    talk.answer(&messages(&[(b'G', b"\0\0\0")]));
    assert!(talk.exchange.is_exhausted(&talk.server));
}

#[test]
fn a_function_call_ends_what_came_before_it() {
    let mut talk = prepared();
    talk.say(&messages(&[CLOSE_P, (b'F', b"f")]));
    talk.answer(&messages(&[CLOSED, (b'V', b"f"), READY]));
    assert!(talk.is_over());
}

#[test]
fn a_function_call_may_leave_anything() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[(b'F', b"f")]));
    assert_eq!(talk.server.left_behind, Some(StateKind::Unknown));
    talk.answer(&messages(&[(b'V', b"f"), READY]));
    assert_eq!(talk.next_client(ClientId(2)), messages(&[(b'Q', b"DISCARD ALL\0")]));
}

#[test]
fn a_client_that_is_not_read_for_what_it_awaits_is_sure_to_get_it() {
    let closes = [CLOSE_P].repeat(MAX_OUTSTANDING);
    let names: Vec<u8> = (0..MAX_NOTED_BYTES.div_ceil(9_000))
        .flat_map(|_| messages(&[(b'C', &[b"S".as_slice(), &[b'x'; 9_000], b"\0"].concat())]))
        .collect();
    for many in [messages(&closes), names] {
        let mut talk = Talk::new(9);
        // Without a Flush Postgres would keep its answers for a Sync that nobody reads.
        let sent = talk.say(&[messages(&[CLOSE_P]), many].concat());
        assert!(talk.exchange.is_full() && sent.ends_with(&messages(&[(b'H', b"")])));
        talk.answer(&messages(&[CLOSED]).repeat(sent.len() / messages(&[CLOSE_P]).len()));
        assert!(!talk.exchange.is_full());
        assert_eq!(talk.say(&messages(&[SYNC])), messages(&[SYNC]));
        talk.answer(&messages(&[READY]));
        assert!(talk.is_over());
    }
}

#[test]
fn a_client_is_read_to_the_end_of_its_message_however_much_it_awaits() {
    let mut talk = prepared();
    talk.say(&messages(&[CLOSE_P].repeat(MAX_OUTSTANDING - 1)));
    let bind = messages(&[(b'B', &[b"\0s\0".as_slice(), &[0; 50]].concat())]);
    let (head, rest) = bind.split_at(20);
    assert!(!talk.say(head).is_empty() && !talk.exchange.is_full());
    assert!(talk.say(rest).ends_with(&messages(&[(b'H', b"")])) && talk.exchange.is_full());
}

const CLOSE_P: (u8, &[u8]) = (b'C', b"Pp\0");

#[test]
fn a_query_too_long_to_be_read_may_leave_anything() {
    let mut talk = Talk::new(9);
    let query = messages(&[(b'Q', &[&[b'x'; 20_000], b"\0".as_slice()].concat())]);
    let (head, rest) = query.split_at(18_000);
    assert_eq!(talk.say(head), head);
    assert_eq!(talk.server.left_behind, Some(StateKind::Unknown));
    assert_eq!(talk.say(rest), rest);
    talk.answer(&messages(&[FAILED, READY]));
    let begun = talk.next_client(ClientId(2));
    assert_eq!(begun, messages(&[(b'Q', b"DISCARD ALL\0")]));
}

#[test]
fn what_is_sent_while_the_server_skips_leaves_nothing() {
    let mut talk = prepared();
    talk.say(&messages(&[(b'E', b"nothing\0\0\0\0\0"), (b'H', b"")]));
    talk.answer(&messages(&[FAILED]));
    let skipped =
        messages(&[(b'P', b"t\0SET a = 1\0\0\0"), (b'B', b"\0t\0\0\0\0\0\0\0"), (b'Q', b"SET a = 1\0")]);
    assert_eq!(talk.say(&skipped), skipped);
    assert_eq!((talk.client.statements.len(), talk.server.left_behind), (1, None));
    talk.say(&messages(&[SYNC]));
    talk.answer(&messages(&[READY]));
    assert!(talk.is_over());
}

#[test]
fn what_a_client_drew_before_it_drew_elsewhere_is_forgotten() {
    let mut talk = Talk::new(9);
    talk.client.functions.reads_sequences.set(true);
    let begin = |talk: &mut Talk| {
        let mut out = Vec::new();
        talk.exchange.clear();
        talk.exchange.begin(&talk.client, &mut talk.server, &mut out);
        out
    };
    begin(&mut talk);
    talk.say(&messages(&[(b'Q', b"SELECT nextval('s')\0")]));
    talk.answer(&messages(&[DONE, READY]));
    let first = talk.next_server(fresh_server());
    talk.say(&messages(&[(b'Q', b"INSERT INTO t VALUES (1)\0")]));
    talk.answer(&messages(&[(b'C', b"INSERT 0 1\0"), READY]));
    let second = std::mem::replace(&mut talk.server, first);
    assert_eq!(begin(&mut talk), messages(&[(b'Q', b"DISCARD SEQUENCES\0")]));
    talk.server = second;
    assert_eq!(begin(&mut talk), b"", "the newest is here");
}

#[test]
fn a_text_that_names_more_statements_than_a_server_keeps_is_sent_all_the_same() {
    let mut talk = Talk::new(2);
    for name in ["a", "b", "c", "d"] {
        talk.say(&messages(&[(b'P', format!("{name}\0SELECT '{name}'\0\0\0").as_bytes()), SYNC]));
        let closed: &[(u8, &[u8])] = if name < "c" { &[] } else { &[CLOSED] };
        talk.answer(&messages(&[closed, &[PARSED, READY]].concat()));
    }
    let text = (b'Q', b"EXECUTE a; EXECUTE b; EXECUTE c; EXECUTE d\0".as_slice());
    let mut sent = talk.say(&messages(&[text]));
    for _ in 0..4 {
        if sent.contains(&b'Q') {
            return;
        }
        talk.answer(&messages(&[CLOSED, PARSED, READY]));
        sent = talk.say(b"");
    }
    panic!("it is prepared for ever");
}
