//! One case each: whose an answer is, and what it ends.

use crate::ids::ClientId;
use crate::track::ServerFault;
use crate::track::fixture::{
    BOUND, CLOSED, DONE, EXECUTE, FAILED, PARSED, READY, SYNC, Talk, fresh_server, messages,
};
use crate::track::lexer::StateKind;

const PARSE_S: (u8, &[u8]) = (b'P', b"s\0SELECT 1\0\0\0");
const CLOSE_S: (u8, &[u8]) = (b'C', b"Ss\0");
const COPY: [(u8, &[u8]); 4] =
    [(b'P', b"\0COPY t FROM STDIN\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0"), EXECUTE, SYNC];
const COPY_BEGINS: [(u8, &[u8]); 3] = [PARSED, BOUND, (b'G', b"\0\0\0")];
const COPIED: (u8, &[u8]) = (b'C', b"COPY 1\0");

fn prepared() -> Talk {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[PARSE_S, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk
}

#[test]
fn an_answer_of_ours_waits_for_the_end_of_a_message() {
    let mut talk = prepared();
    talk.say(&messages(&[(b'D', b"Pp\0"), CLOSE_S, SYNC]));
    let columns = messages(&[(b'T', &[b'c'; 40])]);
    let (head, rest) = columns.split_at(20);
    assert_eq!(talk.answer(head), head, "half of a RowDescription, and nothing behind it");
    assert_eq!(talk.answer(rest), [rest, &messages(&[CLOSED])].concat());
}

#[test]
fn a_client_that_asks_while_a_notice_is_half_forwarded_gets_its_answer_behind_it() {
    let mut talk = prepared();
    let notice = messages(&[(b'N', &[b'n'; 40])]);
    let (head, rest) = notice.split_at(20);
    assert_eq!(talk.answer(head), head);
    talk.say(&messages(&[CLOSE_S]));
    assert_eq!(talk.heard, b"");
    assert_eq!(talk.answer(rest), [rest, &messages(&[CLOSED])].concat());
}

#[test]
fn a_sync_ahead_of_copy_data_is_not_answered() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&COPY));
    talk.answer(&messages(&COPY_BEGINS));
    talk.say(&messages(&[(b'd', b"row\n"), (b'c', b"")]));
    assert_eq!(talk.answer(&messages(&[COPIED])), messages(&[COPIED]));
    assert!(!talk.is_over(), "its transaction has not ended");
    talk.say(&messages(&[SYNC]));
    assert!(!talk.is_over());
    talk.answer(&messages(&[READY]));
    assert!(talk.is_over() && !talk.server.suspect);
    talk.say(&messages(&[EXECUTE, SYNC]));
    talk.answer(&messages(&[FAILED, READY]));
    assert!(talk.is_over() && !talk.server.suspect, "an error after the COPY is not its error");
}

#[test]
fn copy_data_may_be_sent_before_the_server_asks_for_it() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[(b'Q', b"COPY t FROM STDIN\0"), (b'd', b"row\n"), (b'c', b""), SYNC]));
    talk.answer(&messages(&[(b'G', b"\0\0\0"), COPIED, READY]));
    assert!(!talk.is_over(), "the Sync behind the data is still to be answered");
    talk.answer(&messages(&[READY]));
    assert!(talk.is_over());
    let mut talk = Talk::new(9);
    talk.say(&messages(&[&COPY[..], &[(b'd', b"row\n"), (b'c', b""), SYNC]].concat()));
    talk.answer(&messages(&COPY_BEGINS));
    talk.answer(&messages(&[COPIED, READY]));
    assert!(talk.is_over());
}

#[test]
fn a_copy_that_fails_behind_an_early_sync_ends_the_server() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&COPY));
    talk.answer(&messages(&COPY_BEGINS));
    assert!(!talk.server.suspect);
    talk.answer(&messages(&[FAILED]));
    assert!(talk.server.suspect && !talk.is_over(), "the early Sync may be answered now, or a later one");
    talk.answer(&messages(&[READY]));
    assert!(talk.is_over());
}

#[test]
fn a_simple_copy_that_fails_ends_nothing() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[(b'Q', b"COPY t FROM STDIN\0")]));
    talk.answer(&messages(&[(b'G', b"\0\0\0")]));
    talk.say(&messages(&[(b'd', b"row\n"), (b'f', b"why\0")]));
    assert!(!talk.is_over());
    talk.answer(&messages(&[FAILED, READY]));
    assert!(talk.is_over() && !talk.server.suspect);
}

#[test]
fn a_query_of_ours_that_fails_ends_the_server() {
    let mut talk = Talk::new(9);
    let mut out = Vec::new();
    talk.exchange.own_query(b"SELECT 1", &mut out);
    let fault = talk.try_answer(&messages(&[FAILED, READY])).unwrap_err();
    assert_eq!(fault, ServerFault::OwnQueryFailed(FAILED.1.into()));
}

#[test]
fn nothing_of_an_answer_to_a_query_of_ours_reaches_the_client() {
    let mut talk = Talk::new(9);
    talk.server.left_behind = Some(StateKind::Settings);
    assert_eq!(talk.next_client(ClientId(2)), messages(&[(b'Q', b"DISCARD ALL\0")]));
    talk.say(&messages(&[(b'Q', b"SELECT 1\0")]));
    let report = (b'S', b"TimeZone\0UTC\0".as_slice());
    let own = [(b'N', b"n\0".as_slice()), (b'C', b"DISCARD ALL\0"), report, READY];
    let rest = [(b'T', b"\0\0".as_slice()), DONE, READY];
    assert_eq!(talk.answer(&messages(&[&own[..], &rest].concat())), messages(&rest));
    assert_eq!(talk.client.settings.params.value("TimeZone"), Some("UTC"));
}

#[test]
fn a_server_that_answers_what_was_not_asked_is_at_fault() {
    for unasked in [b'1', b'2', b'3', b'n', b'C', b'I', b's', b'T', b'G', b'W', b'R', b'K', b'x'] {
        let fault = Talk::new(9).try_answer(&messages(&[(unasked, b"")])).unwrap_err();
        assert_eq!(fault, ServerFault::Protocol(if matches!(unasked, b'I' | b's') { b'C' } else { unasked }));
    }
}

#[test]
fn an_unnamed_statement_behind_a_query_of_ours_is_prepared_again() {
    let mut talk = Talk::new(9);
    let parse = (b'P', b"\0SELECT 7\0\0\0".as_slice());
    talk.say(&messages(&[parse, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk.exchange.clear();
    // As if somebody else had changed a setting that this client has.
    talk.server.settings.extras = vec![("a.b".into(), "1".into())].into();
    let mut out = Vec::new();
    talk.exchange.begin(&talk.client, &mut talk.server, &mut out);
    assert_eq!(out, messages(&[(b'Q', b"RESET \"a\".\"b\";\0")]));
    let bind = (b'B', b"\0\0\0\0\0\0\0\0".as_slice());
    assert_eq!(talk.say(&messages(&[bind, SYNC])), messages(&[parse, bind, SYNC]));
}

#[test]
fn deallocate_all_in_the_extended_protocol_spares_what_is_on_its_way() {
    let mut talk = prepared();
    let all = [(b'P', b"\0DEALLOCATE ALL\0\0\0".as_slice()), (b'B', b"\0\0\0\0\0\0\0\0"), EXECUTE];
    talk.say(&messages(&[&all[..], &[(b'P', b"t\0SELECT 2\0\0\0"), SYNC]].concat()));
    talk.answer(&messages(&[PARSED, BOUND, (b'C', b"DEALLOCATE ALL\0"), PARSED, READY]));
    assert!(talk.client.statements.find(b"s").is_none() && talk.client.statements.find(b"t").is_some());
    talk.next_server(fresh_server());
}

#[test]
fn what_is_sent_behind_a_discard_all_without_a_sync_is_not_forgotten_with_it() {
    let discard = (b'P', b"\0DISCARD ALL\0\0\0".as_slice());
    let bind = (b'B', b"\0\0\0\0\0\0\0\0".as_slice());
    // A function by its number: nobody knows what it leaves behind.
    let call = (b'F', b"\0\0\x08\x1e\0\0\0\0\0\0".as_slice());
    for (behind, forgotten) in [(SYNC, true), (call, false)] {
        let mut talk = Talk::new(9);
        talk.say(&messages(&[discard, bind, EXECUTE, behind]));
        talk.answer(&messages(&[PARSED, BOUND, (b'C', b"DISCARD ALL\0")]));
        assert_eq!(talk.server.left_behind.is_none(), forgotten, "{:?}", char::from(behind.0));
    }
}
