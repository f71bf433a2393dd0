//! One case each: names and texts on their way to a server.

use crate::ids::ClientId;
use crate::track::fixture::{
    BOUND, CLOSED, DONE, EXECUTE, FAILED, PARSED, READY, SYNC, Talk, fresh_server, messages,
};
use crate::track::violation::MAX_ASSEMBLED_BYTES;
use crate::track::{Sink, TxStatus};

const PARSE_S: (u8, &[u8]) = (b'P', b"s\0SELECT 1\0\0\0");
const BIND_S: (u8, &[u8]) = (b'B', b"\0s\0\0\0\0\0\0\0");
const CLOSE_S: (u8, &[u8]) = (b'C', b"Ss\0");
const PARSE: (u8, &[u8]) = (b'P', b"\0SELECT 7\0\0\0");
const BIND: (u8, &[u8]) = (b'B', b"\0\0\0\0\0\0\0\0");

/// A client that has prepared `s` here.
fn prepared() -> Talk {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[PARSE_S, SYNC]));
    assert_eq!(talk.answer(&messages(&[PARSED, READY])), messages(&[PARSED, READY]));
    talk
}

#[test]
fn a_statement_gets_a_name_of_ours() {
    let mut talk = Talk::new(9);
    let sent = talk.say(&messages(&[PARSE_S, BIND_S, EXECUTE, SYNC]));
    let expected = [
        (b'P', b"tenantry_1\0SELECT 1\0\0\0".as_slice()),
        (b'B', b"\0tenantry_1\0\0\0\0\0\0\0"),
        EXECUTE,
        SYNC,
    ];
    assert_eq!(sent, messages(&expected));
}

#[test]
fn a_text_that_the_server_has_is_prepared_by_us() {
    let mut talk = prepared();
    assert_eq!(talk.next_client(ClientId(2)), b"");
    let sent = talk.say(&messages(&[(b'P', b"other\0SELECT 1\0\0\0"), SYNC]));
    assert_eq!(sent, messages(&[SYNC]));
    assert_eq!(talk.answer(&messages(&[READY])), messages(&[PARSED, READY]));
}

#[test]
fn a_name_that_is_taken_is_refused_by_the_server() {
    let mut talk = prepared();
    let sent = talk.say(&messages(&[(b'P', b"s\0SELECT 2\0\0\0"), SYNC]));
    let first = (b'P', b"tenantry_2\0\0\0\0".as_slice());
    let again = (b'P', b"tenantry_2\0SELECT 2\0\0\0".as_slice());
    assert_eq!(sent, messages(&[first, again, SYNC]), "it cannot fail for another reason");
    assert_eq!(talk.answer(&messages(&[PARSED, FAILED, READY])), messages(&[FAILED, READY]));
    let sent = talk.say(&messages(&[BIND_S, SYNC]));
    assert_eq!(
        sent,
        messages(&[(b'B', b"\0tenantry_1\0\0\0\0\0\0\0"), SYNC]),
        "the name means what it meant"
    );
}

#[test]
fn a_name_is_closed_and_given_again_in_one_pipeline() {
    let mut talk = prepared();
    let sent = talk.say(&messages(&[CLOSE_S, (b'P', b"s\0SELECT 2\0\0\0"), BIND_S, SYNC]));
    let expected =
        [(b'P', b"tenantry_2\0SELECT 2\0\0\0".as_slice()), (b'B', b"\0tenantry_2\0\0\0\0\0\0\0"), SYNC];
    assert_eq!(sent, messages(&expected));
    let answers = talk.answer(&messages(&[PARSED, BOUND, READY]));
    assert_eq!(answers, messages(&[CLOSED, PARSED, BOUND, READY]));
}

#[test]
fn an_error_takes_back_what_was_named_and_closed_behind_it() {
    let mut talk = prepared();
    let unknown = (b'B', b"\0nothing\0\0\0\0\0\0\0".as_slice());
    talk.say(&messages(&[unknown, CLOSE_S, (b'P', b"t\0SELECT 1\0\0\0"), SYNC]));
    assert_eq!(talk.answer(&messages(&[FAILED, READY])), messages(&[FAILED, READY]));
    assert!(talk.client.statements.find(b"s").is_some(), "its Close was skipped");
    assert!(
        talk.client.statements.find(b"t").is_none(),
        "its Parse was skipped, though we would have answered it"
    );
}

#[test]
fn an_error_takes_back_several_changes_of_one_name() {
    let mut talk = prepared();
    let unknown = (b'B', b"\0nothing\0\0\0\0\0\0\0".as_slice());
    talk.say(&messages(&[unknown, CLOSE_S, (b'P', b"s\0SELECT 2\0\0\0"), SYNC]));
    talk.answer(&messages(&[FAILED, READY]));
    let sent = talk.say(&messages(&[BIND_S, SYNC]));
    assert_eq!(sent, messages(&[(b'B', b"\0tenantry_1\0\0\0\0\0\0\0"), SYNC]));
}

#[test]
fn a_failed_parse_leaves_no_name() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[PARSE_S, SYNC]));
    talk.answer(&messages(&[FAILED, READY]));
    assert!(talk.client.statements.find(b"s").is_none());
    assert!(talk.server.statements.is_empty());
}

#[test]
fn a_parse_of_ours_that_fails_is_the_error_of_the_bind() {
    let mut talk = prepared();
    talk.next_server(fresh_server());
    let own = (b'P', b"tenantry_1\0SELECT 1\0\0\0".as_slice());
    let sent = talk.say(&messages(&[BIND_S, EXECUTE, SYNC]));
    assert_eq!(sent, messages(&[own, (b'B', b"\0tenantry_1\0\0\0\0\0\0\0"), EXECUTE, SYNC]));
    assert_eq!(talk.answer(&messages(&[FAILED, READY])), messages(&[FAILED, READY]));
    assert!(talk.is_over());
    let sent = talk.say(&messages(&[BIND_S, EXECUTE, SYNC]));
    assert!(sent.starts_with(&messages(&[(b'P', b"tenantry_2\0SELECT 1\0\0\0")])), "it is tried again");
    let answers = talk.answer(&messages(&[PARSED, BOUND, DONE, READY]));
    assert_eq!(answers, messages(&[BOUND, DONE, READY]));
}

#[test]
fn a_full_server_closes_one_while_its_portal_is_still_in_use() {
    let mut talk = Talk::new(1);
    let sent = talk.say(&messages(&[PARSE_S, BIND_S, (b'P', b"t\0SELECT 2\0\0\0"), EXECUTE, SYNC]));
    let expected = [
        (b'P', b"tenantry_1\0SELECT 1\0\0\0".as_slice()),
        (b'B', b"\0tenantry_1\0\0\0\0\0\0\0"),
        (b'C', b"Stenantry_1\0"),
        (b'P', b"tenantry_2\0SELECT 2\0\0\0"),
        EXECUTE,
        SYNC,
    ];
    assert_eq!(sent, messages(&expected));
    let answers = talk.answer(&messages(&[PARSED, BOUND, CLOSED, PARSED, DONE, READY]));
    assert_eq!(answers, messages(&[PARSED, BOUND, PARSED, DONE, READY]));
}

#[test]
fn a_close_of_ours_that_was_skipped_is_sent_again() {
    let mut talk = Talk::new(1);
    talk.say(&messages(&[PARSE_S, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk.say(&messages(&[(b'B', b"\0nothing\0\0\0\0\0\0\0"), (b'P', b"t\0SELECT 2\0\0\0"), SYNC]));
    talk.answer(&messages(&[FAILED, READY]));
    let sent = talk.say(&messages(&[BIND_S, SYNC]));
    let expected = [(b'C', b"Stenantry_1\0".as_slice()), (b'P', b"tenantry_3\0SELECT 1\0\0\0")];
    assert!(
        sent.starts_with(&messages(&expected)),
        "under a name that was never used: {}",
        sent.escape_ascii()
    );
}

#[test]
fn what_an_unanswered_segment_prepares_is_not_relied_on_by_the_next() {
    let mut talk = prepared();
    talk.next_server(fresh_server());
    let unknown = (b'B', b"\0nothing\0\0\0\0\0\0\0".as_slice());
    let sent = talk.say(&messages(&[unknown, BIND_S, SYNC, BIND_S, SYNC]));
    let text = sent.escape_ascii().to_string();
    assert!(text.contains("tenantry_1\\x00SELECT 1") && text.contains("tenantry_2\\x00SELECT 1"), "{text}");
    let answers = talk.answer(&messages(&[FAILED, READY, CLOSED, PARSED, BOUND, READY]));
    assert_eq!(answers, messages(&[FAILED, READY, BOUND, READY]));
}

#[test]
fn a_parse_in_a_failed_transaction_is_put_to_the_server() {
    let mut talk = prepared();
    talk.server.status = TxStatus::Failed;
    let sent = talk.say(&messages(&[(b'P', b"t\0SELECT 1\0\0\0"), SYNC]));
    let expected = [(b'C', b"Stenantry_1\0".as_slice()), (b'P', b"tenantry_2\0SELECT 1\0\0\0"), SYNC];
    assert_eq!(sent, messages(&expected));
    let answers = talk.answer(&messages(&[CLOSED, FAILED, (b'Z', b"E")]));
    assert_eq!(answers, messages(&[FAILED, (b'Z', b"E")]));
    assert!(talk.client.statements.find(b"t").is_none());
}

#[test]
fn a_name_of_another_client_is_unknown() {
    let mut talk = prepared();
    talk.next_client(ClientId(2));
    let sent = talk.say(&messages(&[BIND_S, (b'D', b"Stenantry_1\0"), SYNC]));
    let expected =
        [(b'B', b"\0tenantry:s\0\0\0\0\0\0\0".as_slice()), (b'D', b"Stenantry:tenantry_1\0"), SYNC];
    assert_eq!(sent, messages(&expected));
}

#[test]
fn names_and_texts_have_limits() {
    let mut talk = Talk::new(9);
    for name in ["a", "b", "c", "d"] {
        talk.say(&messages(&[(b'P', format!("{name}\0SELECT 1\0\0\0").as_bytes())]));
    }
    assert_eq!(refusal(&talk.say(&messages(&[PARSE_S])), &talk), Some("too_many_statements"));
    // Not kept even for a moment.
    let long = [b"P\x01\x00\x00\x05s\0".as_slice(), &[b'x'; 9]].concat();
    let mut talk = Talk::new(9);
    assert_eq!(refusal(&talk.say(&long), &talk), Some("message_too_large"));
    assert_eq!(talk.say(&[b'x'; 9]), b"");
}

/// Why what was sent is a stand-in for a refused message, if it is.
fn refusal(sent: &[u8], talk: &Talk) -> Option<&'static str> {
    sent.windows(16).any(|part| part == b"tenantry:refused").then_some(talk.exchange.refused?)
}

#[test]
fn a_bind_whose_names_arrive_in_pieces_waits_for_them() {
    let mut talk = prepared();
    let bind = messages(&[(b'B', b"portal\0s\0\0\0\0\0\0\0")]);
    for at in 0..b"B\0\0\0\0portal\0s".len() {
        assert_eq!(talk.say(&bind[at..=at]), b"", "{at}");
    }
    let rest = talk.say(&bind[b"B\0\0\0\0portal\0s".len()..]);
    assert_eq!(rest, messages(&[(b'B', b"portal\0tenantry_1\0\0\0\0\0\0\0")]));
}

#[test]
fn a_huge_bind_is_forwarded_as_it_comes() {
    let mut talk = prepared();
    let body = [b"\0s\0".as_slice(), &vec![b'x'; 100_000]].concat();
    let bind = messages(&[(b'B', &body)]);
    let mut sent = Vec::new();
    for piece in bind.chunks(30_000) {
        let here = talk.say(piece);
        assert!(!here.is_empty(), "nothing is held back");
        sent.extend(here);
    }
    let body = [b"\0tenantry_1\0".as_slice(), &vec![b'x'; 100_000]].concat();
    assert_eq!(sent, messages(&[(b'B', &body)]));
}

#[test]
fn an_unnamed_statement_follows_its_client() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[PARSE, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk.next_server(fresh_server());
    assert_eq!(talk.say(&messages(&[BIND, SYNC])), messages(&[PARSE, BIND, SYNC]));
    assert_eq!(talk.answer(&messages(&[PARSED, BOUND, READY])), messages(&[BOUND, READY]));
}

#[test]
fn an_older_unnamed_statement_of_the_same_client_is_not_taken_for_the_newest() {
    let newer = (b'P', b"\0SELECT 8\0\0\0".as_slice());
    let mut talk = Talk::new(9);
    talk.say(&messages(&[PARSE, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    let first = talk.next_server(fresh_server());
    talk.say(&messages(&[newer, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk.next_server(first);
    assert_eq!(talk.say(&messages(&[BIND, SYNC])), messages(&[newer, BIND, SYNC]));
}

#[test]
fn a_skipped_parse_does_not_leave_somebody_elses_unnamed_statement_to_be_bound() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[PARSE, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk.next_client(ClientId(2));
    let own = (b'P', b"\0SELECT 8\0\0\0".as_slice());
    let unknown = (b'B', b"\0nothing\0\0\0\0\0\0\0".as_slice());
    let (sent, fed) = talk.try_say(&messages(&[unknown, own, SYNC, BIND, SYNC])).unwrap();
    let renamed = (b'B', b"\0tenantry:nothing\0\0\0\0\0\0\0".as_slice());
    assert_eq!(sent, messages(&[renamed, own, SYNC]), "whether it is prepared is not known yet");
    assert!(fed.held);
    talk.answer(&messages(&[FAILED, READY]));
    let nobodys = (b'C', b"S\0".as_slice());
    assert_eq!(talk.say(b""), messages(&[nobodys, BIND, SYNC]), "the server says that there is none");
}

#[test]
fn a_query_takes_the_unnamed_statement_away() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[PARSE, SYNC, (b'Q', b"SELECT 1\0")]));
    talk.answer(&messages(&[PARSED, READY, (b'T', b"\0\0"), DONE, READY]));
    talk.next_server(fresh_server());
    let sent = talk.say(&messages(&[BIND, SYNC]));
    assert_eq!(sent, messages(&[(b'C', b"S\0"), BIND, SYNC]), "in the server's own words");
}

#[test]
fn an_unnamed_statement_that_is_prepared_again_leaves_behind_what_it_sets() {
    let set = (b'P', b"\0SELECT set_config('work_mem', '9MB', false)\0\0\0".as_slice());
    let mut talk = Talk::new(9);
    talk.say(&messages(&[set, SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk.next_server(fresh_server());
    assert_eq!(talk.server.left_behind, None);
    assert_eq!(talk.say(&messages(&[BIND, EXECUTE, SYNC])), messages(&[set, BIND, EXECUTE, SYNC]));
    assert!(!talk.server.touched.is_none());
    talk.answer(&messages(&[PARSED, BOUND, DONE, READY]));
    assert_eq!(talk.next_client(ClientId(2)), messages(&[(b'Q', b"DISCARD ALL\0")]));
}

#[test]
fn an_unnamed_statement_that_outlives_discard_all_leaves_behind_what_it_sets() {
    let set = (b'P', b"\0SELECT set_config('work_mem', '9MB', false)\0\0\0".as_slice());
    let mut talk = Talk::new(9);
    talk.say(&messages(&[set, BIND, EXECUTE, SYNC]));
    talk.answer(&messages(&[PARSED, BOUND, DONE, READY]));
    // Named and in the extended protocol: this leaves the unnamed statement where it is.
    let discard = [(b'P', b"d\0DISCARD ALL\0\0\0".as_slice()), (b'B', b"\0d\0\0\0\0\0\0\0"), EXECUTE, SYNC];
    talk.say(&messages(&discard));
    talk.answer(&messages(&[PARSED, BOUND, (b'C', b"DISCARD ALL\0"), READY]));
    assert_eq!(talk.server.left_behind, None);
    assert_eq!(talk.say(&messages(&[BIND, EXECUTE, SYNC])), messages(&[BIND, EXECUTE, SYNC]));
    assert!(!talk.server.touched.is_none());
    talk.answer(&messages(&[BOUND, DONE, READY]));
    assert_eq!(talk.next_client(ClientId(2)), messages(&[(b'Q', b"DISCARD ALL\0")]));
}

#[test]
fn a_name_that_would_be_kept_has_an_end() {
    let parse =
        |len: usize| messages(&[(b'P', &[&vec![b'n'; len], b"\0SELECT 1\0\0\0".as_slice()].concat()), SYNC]);
    let mut talk = Talk::new(9);
    talk.say(&parse(256));
    assert_eq!(refusal(&talk.say(&parse(257)), &talk), Some("message_too_large"));
}

#[test]
fn short_messages_that_prepare_a_long_text_again_and_again_go_on_piece_by_piece() {
    let text = [b"s\0SELECT 1 --".as_slice(), &vec![b'x'; 50_000], b"\0\0\0"].concat();
    let mut talk = Talk::new(9);
    talk.say(&messages(&[(b'P', &text), SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk.next_server(fresh_server());
    // None of these segments may rely on another one having prepared it.
    let input = messages(&[BIND_S, SYNC].repeat(3_000));
    let (mut rest, mut total) = (input.as_slice(), 0);
    while !rest.is_empty() {
        let mut out = Vec::new();
        let mut sink = Sink::new(rest, &mut out);
        let parties = (&mut talk.client, &mut talk.server, &mut talk.cache);
        let fed = talk.exchange.client_bytes(parties, rest, &mut sink, &mut talk.heard).unwrap();
        let sent = sink.finish().len();
        assert!(sent < MAX_ASSEMBLED_BYTES + 2 * text.len(), "{sent} bytes");
        assert_eq!(fed.paused, fed.consumed < rest.len());
        (rest, total) = (&rest[fed.consumed..], total + sent);
    }
    assert!(total > 3_000 * text.len(), "{total} bytes");
}

#[test]
fn what_an_unanswered_segment_may_not_have_prepared_waits_for_the_answer() {
    let failing = (b'B', b"\0nothing\0\0\0\0\0\0\0".as_slice());
    let parse = (b'P', b"s\0SELECT 7\0\0\0".as_slice());
    let run = [(b'B', b"\0s\0\0\0\0\0\0\0".as_slice()), EXECUTE, SYNC];
    for (answers, bound) in [
        (messages(&[FAILED, READY]), b"\0tenantry:s\0\0\0\0\0\0\0".as_slice()),
        (messages(&[BOUND, PARSED, READY]), b"\0tenantry_1\0\0\0\0\0\0\0".as_slice()),
    ] {
        let mut talk = Talk::new(9);
        let (_, fed) = talk.try_say(&messages(&[failing, parse, SYNC, run[0], run[1], run[2]])).unwrap();
        assert!(fed.held);
        assert!(talk.try_say(b"").unwrap().1.held, "as long as nothing has come");
        talk.answer(&answers);
        assert_eq!(talk.say(b""), messages(&[(b'B', bound), EXECUTE, SYNC]));
    }
}

#[test]
fn a_name_that_is_undecided_holds_nobody_up_while_the_server_waits_for_copy_data() {
    let mut talk = Talk::new(9);
    talk.say(&messages(&[(b'P', b"s\0SELECT 7\0\0\0"), SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    talk.say(&messages(&[(b'Q', b"COPY t FROM STDIN\0"), (b'C', b"Ss\0"), SYNC]));
    let bind = messages(&[(b'B', b"\0s\0\0\0\0\0\0\0")]);
    assert!(talk.try_say(&bind).unwrap().1.held);
    talk.answer(&messages(&[(b'G', b"\0\0\0")]));
    assert!(!talk.try_say(b"").unwrap().1.held);
}

#[test]
fn a_name_that_an_unanswered_discard_all_may_have_taken_waits_for_the_answer() {
    let discard = [(b'P', b"\0DISCARD ALL\0\0\0".as_slice()), (b'B', b"\0\0\0\0\0\0\0\0"), EXECUTE, SYNC];
    let again = (b'P', b"s\0SELECT 2\0\0\0".as_slice());
    let mut talk = prepared();
    talk.say(&messages(&discard));
    assert!(talk.try_say(&messages(&[again])).unwrap().1.held);
    talk.answer(&messages(&[PARSED, BOUND, (b'C', b"DISCARD ALL\0"), READY]));
    let sent = talk.say(&messages(&[SYNC]));
    assert!(
        sent.ends_with(&messages(&[(b'P', b"tenantry_2\0SELECT 2\0\0\0"), SYNC])),
        "{}",
        sent.escape_ascii()
    );
    let mut talk = prepared();
    talk.say(&messages(&[(b'Q', b"SELECT 1; DEALLOCATE ALL\0")]));
    assert!(talk.try_say(&messages(&[again])).unwrap().1.held);
}

#[test]
fn a_name_behind_discard_all_does_not_wait_longer_than_for_the_settings_behind_it() {
    let discard = [(b'P', b"\0DISCARD ALL\0\0\0".as_slice()), (b'B', b"\0\0\0\0\0\0\0\0"), EXECUTE, SYNC];
    let mut talk = prepared();
    talk.client.startup = std::rc::Rc::new(vec![("work_mem".into(), "5MB".into())]);
    let restore = (b'Q', b"SET \"work_mem\" TO E'5MB';\0".as_slice());
    assert!(talk.say(&messages(&discard)).ends_with(&messages(&[restore])));
    assert!(talk.try_say(&messages(&[(b'C', b"Ss\0")])).unwrap().1.held);
    talk.answer(&messages(&[PARSED, BOUND, (b'C', b"DISCARD ALL\0"), READY]));
    assert!(talk.try_say(b"").unwrap().1.held, "the settings are part of the answer");
    assert_eq!(talk.answer(&messages(&[(b'C', b"SET\0"), READY])), messages(&[READY]));
    assert!(!talk.try_say(&messages(&[SYNC])).unwrap().1.held);
}

#[test]
fn an_unnamed_statement_whose_parse_may_be_skipped_may_leave_anything() {
    let mut talk = Talk::new(9);
    let bind: (u8, &[u8]) = (b'B', b"\0\0\0\0\0\0\0\0");
    talk.say(&messages(&[(b'P', b"\0SET work_mem = 5\0\0\0"), SYNC]));
    talk.answer(&messages(&[PARSED, READY]));
    let nothing: (u8, &[u8]) = (b'E', b"nothing\0\0\0\0\0");
    talk.say(&messages(&[nothing, (b'P', b"\0SELECT 1\0\0\0"), SYNC, bind, EXECUTE, SYNC]));
    talk.answer(&messages(&[FAILED, READY, BOUND, (b'C', b"SET\0"), READY]));
    assert!(talk.server.is_unsettled(), "it was SET that ran");
}

#[test]
fn an_unnamed_statement_that_is_bound_again_later_is_kept_from_then_on() {
    let mut talk = Talk::new(9);
    let bind: (u8, &[u8]) = (b'B', b"\0\0\0\0\0\0\0\0");
    let parse: (u8, &[u8]) = (b'P', b"\0SELECT 1\0\0\0");
    talk.say(&messages(&[parse, bind, EXECUTE, SYNC]));
    talk.answer(&messages(&[PARSED, BOUND, DONE, READY]));
    assert!(talk.client.unnamed.is_none(), "most are never bound again");
    talk.say(&messages(&[bind, EXECUTE, SYNC]));
    talk.answer(&messages(&[BOUND, DONE, READY]));
    talk.say(&messages(&[parse, bind, EXECUTE, SYNC]));
    talk.answer(&messages(&[PARSED, BOUND, DONE, READY]));
    talk.next_server(fresh_server());
    let sent = talk.say(&messages(&[bind, EXECUTE, SYNC]));
    assert_eq!(sent, messages(&[parse, bind, EXECUTE, SYNC]), "prepared again on the other server");
}

#[test]
fn an_unnamed_portal_that_was_not_bound_is_closed_first() {
    let mut talk = Talk::new(9);
    let bind: (u8, &[u8]) = (b'B', b"\0\0\0\0\0\0\0\0");
    let parse: (u8, &[u8]) = (b'P', b"\0SELECT 1\0\0\0");
    let close: (u8, &[u8]) = (b'C', b"P\0");
    let sync = messages(&[SYNC]);
    assert_eq!(talk.say(&[messages(&[parse, bind, EXECUTE]), sync].concat()).len(), {
        messages(&[parse, bind, EXECUTE, SYNC]).len()
    });
    talk.answer(&messages(&[PARSED, BOUND, DONE, READY]));
    talk.say(&messages(&[(b'Q', b"BEGIN\0")]));
    talk.answer(&messages(&[DONE, (b'Z', b"T")]));
    assert_eq!(talk.say(&messages(&[EXECUTE, SYNC])), messages(&[close, EXECUTE, SYNC]));
    let missing: (u8, &[u8]) = (b'E', b"SERROR\0C34000\0\0");
    let heard = talk.answer(&messages(&[CLOSED, missing, (b'Z', b"E")]));
    assert_eq!(heard, messages(&[missing, (b'Z', b"E")]));
    let named: (u8, &[u8]) = (b'E', b"p\0\0\0\0\0");
    assert_eq!(talk.say(&messages(&[named, SYNC])), messages(&[named, SYNC]));
}
