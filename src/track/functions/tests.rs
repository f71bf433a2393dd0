//! When functions are asked for, and what follows from the answers.

use super::super::answers::data_row;
use super::super::fixture::{DONE, READY, Talk, messages};
use super::*;

pub(super) fn settled(talk: &mut Talk) -> Vec<u8> {
    let mut out = Vec::new();
    talk.exchange.settle(&talk.client, &mut talk.server, &mut out);
    out
}

/// How the question begins that is the last if there are no functions.
const FIRST: &[u8] = b"lock_timeout=0;SELECT pg_catalog.concat_ws";

fn count(asked: &[u8], what: &[u8]) -> usize {
    memchr::memmem::find_iter(asked, what).count()
}

/// Another lease of the same tenant's.
fn lease(functions: &Rc<Functions>) -> Talk {
    let mut talk = Talk::new(9);
    talk.client.functions = functions.clone();
    talk.say(&messages(&[(b'Q', b"SELECT 1\0")]));
    talk.answer(&messages(&[DONE, READY]));
    talk
}

fn told(talk: &mut Talk, row: &[Option<&str>]) {
    talk.answer(&messages(&[(b'D', &data_row(row)), DONE, READY]));
}

#[test]
fn where_nobody_has_made_any_one_short_question_is_all() {
    for (newest, are_there) in
        [("16383,7,7,7", false), ("16384", true), ("4294967295,16384", true), ("", true)]
    {
        let mut talk = lease(&Functions::watched(false));
        let asked = settled(&mut talk);
        assert_eq!((count(&asked, FIRST), count(&asked, b"RECURSIVE")), (1, 0));
        told(&mut talk, &[Some(newest)]);
        assert_eq!(talk.client.functions.are_unknown(), are_there, "{newest}");
        let asked = settled(&mut talk);
        assert_eq!((count(&asked, FIRST), count(&asked, b"RECURSIVE")), (0, usize::from(are_there)));
        if are_there {
            talk.answer(&messages(&[DONE, READY]));
            assert_eq!(settled(&mut talk), b"");
        }
        assert!(!talk.client.functions.are_unknown() && !talk.server.is_unsettled());
        assert_eq!(talk.client.functions.newest().as_deref(), Some(newest.as_bytes()));
        // Somebody makes the first one, and it begins again.
        talk.client.functions.forget();
        assert_eq!(count(&settled(&mut lease(&talk.client.functions)), FIRST), 1);
    }
}

#[test]
fn who_is_told_late_that_there_are_some_sets_nobody_back() {
    let functions = Functions::watched(false);
    let [mut here, mut there] = [(); 2].map(|()| lease(&functions));
    for talk in [&mut here, &mut there] {
        assert_eq!(count(&settled(talk), FIRST), 1);
    }
    told(&mut here, &[Some("16384")]);
    assert_eq!(count(&settled(&mut here), b"RECURSIVE"), 1);
    // The name and the body of one that sets something.
    told(
        &mut here,
        &[Some("16384"), Some("66"), Some("f"), Some("t"), Some("f"), Some("53455420612e623d31")],
    );
    assert!(functions.are_unknown());
    // What has been made since is not among those that were found.
    told(&mut there, &[Some("16385")]);
    assert_eq!(functions.newest().as_deref(), Some(b"16384".as_slice()));
    assert_eq!(count(&settled(&mut there), b"pg_catalog.unnest('{16384}'"), 1, "what runs them");
    assert_eq!(count(&settled(&mut here), b"pg_catalog.unnest('{16384}'"), 1);
    here.answer(&messages(&[DONE, READY]));
    assert!(!functions.are_unknown() && functions.hidden().is_some());
}

#[test]
fn texts_that_may_make_functions_ask_no_more_than_once() {
    let mut talk = Talk::new(9);
    talk.client.functions = Functions::watched(false);
    let newest = |number: &str| data_row(&[Some(number)]);
    talk.say(&messages(&[(b'Q', b"CALL p()\0")]));
    talk.answer(&messages(&[DONE, READY]));
    // Everything at once: nobody knows anything yet.
    let asked = settled(&mut talk);
    let asks = |asked: &[u8]| (count(asked, FIRST), count(asked, b"SELECT pg_catalog.concat_ws"));
    assert_eq!(asks(&asked), (1, 2));
    talk.answer(&messages(&[(b'D', &newest("7")), DONE, READY]));
    for row in [newest("7"), Vec::new()] {
        // The last of the questions is about pins.
        talk.answer(&messages(&[(b'D', &row), DONE, READY]));
    }
    while talk.server.asking {
        talk.answer(&messages(&[DONE, READY]));
    }
    // It was not known before the text was run: once more, and no further.
    assert_eq!(asks(&settled(&mut talk)), (1, 1));
    talk.answer(&messages(&[(b'D', &newest("7")), DONE, READY]));
    assert_eq!(settled(&mut talk), b"");
    assert!(!talk.server.is_unsettled() && !talk.client.functions.are_unknown());
    for (number, is_new) in [("7", false), ("8", true)] {
        talk.say(&messages(&[(b'Q', b"CALL p()\0")]));
        talk.answer(&messages(&[DONE, READY]));
        let asked = settled(&mut talk);
        assert_eq!(asks(&asked), (0, 1));
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
    let no_functions = data_row(&[Some("7")]);
    for is_changed in [true, false] {
        talk.say(&messages(&[(b'Q', b"SELECT 1\0")]));
        talk.answer(&messages(&[DONE, READY]));
        let asked = settled(&mut talk);
        assert_eq!(count(&asked, FIRST), 1, "it is asked");
        if is_changed {
            // On another server of the tenant's.
            talk.client.functions.forget();
        }
        talk.answer(&messages(&[(b'D', &no_functions), DONE, READY]));
        assert_eq!(talk.client.functions.are_unknown(), is_changed);
        // Not about functions again, which may change for ever: about all that they can have left.
        let asked = settled(&mut talk);
        assert_eq!(count(&asked, FIRST), 0);
        assert_eq!(memchr::memmem::find(&asked, b"pg_settings").is_some(), is_changed);
        while talk.server.asking {
            talk.answer(&messages(&[DONE, READY]));
        }
        assert_eq!(settled(&mut talk), b"");
        assert!(!talk.server.is_unsettled());
    }
}

/// What was found before a change is not what runs things now.
#[test]
fn a_change_in_between_begins_with_the_first_question_again() {
    let functions = Functions::watched(false);
    let mut talk = lease(&functions);
    settled(&mut talk);
    told(&mut talk, &[Some("16384")]);
    settled(&mut talk);
    told(
        &mut talk,
        &[Some("16384"), Some("66"), Some("f"), Some("t"), Some("f"), Some("53455420612e623d31")],
    );
    assert!(functions.are_unknown(), "it is asked next what runs them");
    functions.forget();
    let asked = settled(&mut talk);
    assert_eq!((count(&asked, FIRST), count(&asked, b"unnest")), (1, 0), "{}", asked.escape_ascii());
}
