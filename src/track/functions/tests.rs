//! When functions are asked for, and what follows from the answers.

use super::super::answers::data_row;
use super::super::fixture::{DONE, READY, Talk, messages};
use super::*;

pub(super) fn settled(talk: &mut Talk) -> Vec<u8> {
    let mut out = Vec::new();
    talk.exchange.settle(&talk.client, &mut talk.server, &mut out);
    out
}

#[test]
fn texts_that_may_make_functions_ask_no_more_than_once() {
    let mut talk = Talk::new(9);
    talk.client.functions = Functions::watched(false);
    let newest = |number: &str| data_row(&[Some(number)]);
    let functions = data_row(&[None, Some("7"), Some("f"), Some("f"), Some("f"), None]);
    talk.say(&messages(&[(b'Q', b"CALL p()\0")]));
    talk.answer(&messages(&[DONE, READY]));
    // Everything at once: nobody knows anything yet.
    let asked = settled(&mut talk);
    let asks = |asked: &[u8], what: &[u8]| memchr::memmem::find_iter(asked, what).count();
    assert_eq!((asks(&asked, b"RECURSIVE"), asks(&asked, b"SELECT pg_catalog.concat_ws")), (1, 1));
    talk.answer(&messages(&[(b'D', &functions), DONE, READY]));
    for row in [newest("7"), Vec::new()] {
        // The last of the questions is about pins.
        talk.answer(&messages(&[(b'D', &row), DONE, READY]));
    }
    while talk.server.asking {
        talk.answer(&messages(&[DONE, READY]));
    }
    // It was not known before the text was run: once more, and no further.
    assert_eq!(asks(&settled(&mut talk), b"RECURSIVE"), 1);
    talk.answer(&messages(&[(b'D', &functions), DONE, READY]));
    assert_eq!(settled(&mut talk), b"");
    assert!(!talk.server.is_unsettled() && !talk.client.functions.are_unknown());
    for (number, is_new) in [("7", false), ("8", true)] {
        talk.say(&messages(&[(b'Q', b"CALL p()\0")]));
        talk.answer(&messages(&[DONE, READY]));
        let asked = settled(&mut talk);
        assert_eq!((asks(&asked, b"RECURSIVE"), asks(&asked, b"SELECT pg_catalog.concat_ws")), (0, 1));
        talk.answer(&messages(&[(b'D', &newest(number)), DONE, READY]));
        while talk.server.asking {
            talk.answer(&messages(&[DONE, READY]));
        }
        assert_eq!(talk.client.functions.are_unknown(), is_new);
    }
}

#[test]
fn a_statement_is_read_again_when_more_is_known() {
    let mut talk = Talk::new(9);
    talk.client.functions = Functions::watched(false);
    let run = [(b'B', b"\0s\0\0\0\0\0\0\0".as_slice()), (b'E', b"\0\0\0\0\0"), (b'S', b"")];
    let ran = [(b'2', b"".as_slice()), DONE, READY];
    talk.client.functions.know(None);
    talk.say(&messages(&[&[(b'P', b"s\0SELECT 1\0\0\0".as_slice())], run.as_slice()].concat()));
    talk.answer(&messages(&[&[(b'1', b"".as_slice())], ran.as_slice()].concat()));
    // Another lease has found some that keep a client, none of which it calls.
    let left = Left { pins: true, ..Left::default() };
    let hidden = Hidden { left, reach: Reach::default(), changing: None };
    talk.client.functions.know(Some(hidden));
    assert!(!talk.exchange.begin(&talk.client, &mut talk.server, &mut Vec::new()));
    talk.say(&messages(&run));
    talk.answer(&messages(&ran));
    assert!(!talk.server.is_unsettled(), "nothing has to be asked");
}

#[test]
fn a_question_that_fails_is_not_asked_for_ever() {
    let mut talk = Talk::new(9);
    talk.client.functions = Functions::watched(false);
    talk.say(&messages(&[(b'Q', b"SELECT 1\0")]));
    talk.answer(&messages(&[DONE, READY]));
    assert!(settled(&mut talk).starts_with(b"Q"));
    let failed = (b'E', b"SERROR\0C42501\0Mpermission denied\0\0".as_slice());
    talk.answer(&messages(&[failed, READY]));
    // Now every text may do anything: that is asked about, once.
    assert!(settled(&mut talk).starts_with(b"Q"));
    while talk.server.asking {
        talk.answer(&messages(&[DONE, READY]));
    }
    assert_eq!(settled(&mut talk), b"");
    assert!(!talk.server.is_unsettled() && !talk.client.functions.are_unknown());
}

#[test]
fn what_a_server_ran_blind_may_have_made_functions_that_are_asked_for() {
    let mut talk = Talk::new(9);
    talk.client.functions = Functions::watched(false);
    talk.say(&messages(&[(b'Q', b"SELECT make()\0")]));
    // Another lease has found out meanwhile that there is one that makes others, and nothing else.
    let left = Left { makes: Made::New, ..Left::default() };
    let hidden = Hidden { left, reach: Reach::anything(), changing: None };
    *talk.client.functions.hidden.borrow_mut() = Some(Arc::new(hidden));
    talk.client.functions.is_known.set(true);
    talk.answer(&messages(&[DONE, READY]));
    let asked = settled(&mut talk);
    assert!(memchr::memmem::find(&asked, b"concat_ws").is_some(), "{}", asked.escape_ascii());
    assert!(!talk.server.is_unsettled());
}

#[test]
fn what_was_asked_before_functions_changed_is_no_answer() {
    let mut talk = Talk::new(9);
    talk.client.functions = Functions::watched(false);
    let no_functions = data_row(&[None, Some("7"), Some("f"), Some("f"), Some("f"), None]);
    for is_changed in [true, false] {
        talk.say(&messages(&[(b'Q', b"SELECT 1\0")]));
        talk.answer(&messages(&[DONE, READY]));
        let asked = settled(&mut talk);
        assert!(memchr::memmem::find(&asked, b"RECURSIVE").is_some(), "it is asked");
        if is_changed {
            // On another server of the tenant's.
            talk.client.functions.forget();
        }
        talk.answer(&messages(&[(b'D', &no_functions), DONE, READY]));
        assert_eq!(talk.client.functions.are_unknown(), is_changed);
        // Not about functions again, which may change for ever: about all that they can have left.
        let asked = settled(&mut talk);
        assert!(memchr::memmem::find(&asked, b"RECURSIVE").is_none());
        assert_eq!(memchr::memmem::find(&asked, b"pg_settings").is_some(), is_changed);
        while talk.server.asking {
            talk.answer(&messages(&[DONE, READY]));
        }
        assert_eq!(settled(&mut talk), b"");
        assert!(!talk.server.is_unsettled());
    }
}
