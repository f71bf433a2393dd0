//! A client that hears through the listener, message by message.

use std::rc::Rc;

use super::super::fixture::{DONE, READY, Talk, messages};
use super::super::forbid::PinsLeft;
use super::*;

fn channels(names: &[&str]) -> Channels {
    names.iter().map(|name| Channel::from(name.as_bytes())).collect()
}

/// A client that hears these channels through a listener.
fn hearing(names: &[&str]) -> Talk {
    let mut talk = Talk::new(9);
    let mailbox: Rc<RefCell<Mailbox>> = Rc::default();
    mailbox.borrow_mut().listener = Some(1);
    let mut hearing = Hearing::new((3, 0), Channel::from(b"marker".as_slice()), mailbox);
    hearing.channels = channels(names);
    talk.client.hearing = Some(Box::new(hearing));
    talk.exchange.pins_left = Some(PinsLeft { left: 1, of: 1, listens: true });
    talk
}

fn told(channel: &str, payload: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, b'A', |body| {
        body.extend_from_slice(&[0, 0, 0, 9]);
        body.extend_from_slice(format!("{channel}\0{payload}\0").as_bytes());
    });
    out
}

fn of(talk: &mut Talk) -> &mut Hearing {
    talk.client.hearing.as_mut().unwrap()
}

fn query(text: &str) -> Vec<u8> {
    messages(&[(b'Q', format!("{text}\0").as_bytes())])
}

fn done(tag: &str, status: &str) -> Vec<u8> {
    messages(&[(b'C', format!("{tag}\0").as_bytes()), (b'Z', status.as_bytes())])
}

fn hears(talk: &mut Talk) -> Vec<String> {
    of(talk).channels.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

#[test]
fn what_has_come_is_told_before_the_end_of_the_transaction_and_not_inside_it() {
    let mut talk = hearing(&["a"]);
    of(&mut talk).due = told("a", "1");
    talk.say(&query("BEGIN"));
    assert_eq!(talk.answer(&done("BEGIN", "T")), done("BEGIN", "T"));
    talk.say(&query("COMMIT"));
    let expected = [messages(&[(b'C', b"COMMIT\0")]), told("a", "1"), messages(&[READY])].concat();
    assert_eq!(talk.answer(&done("COMMIT", "I")), expected);
    assert!(of(&mut talk).due.is_empty());
}

#[test]
fn the_server_tells_what_the_listener_does_not() {
    let mut talk = hearing(&["a"]);
    of(&mut talk).due = told("a", "0");
    assert_eq!(talk.answer(&[told("a", "1"), told("marker", "x")].concat()), b"");
    assert_eq!(
        talk.answer(&told("b", "1")),
        [told("a", "0"), told("b", "1")].concat(),
        "in the order in which they came"
    );
}

#[test]
fn channels_are_given_up_by_what_is_committed() {
    for (requests, left) in [
        (vec![("UNLISTEN a", "UNLISTEN", "I")], "b"),
        (vec![("UNLISTEN *", "UNLISTEN", "I")], ""),
        (vec![("DISCARD ALL", "DISCARD ALL", "I")], ""),
        (vec![("BEGIN", "BEGIN", "T"), ("UNLISTEN a", "UNLISTEN", "T")], "a b"),
        (vec![("BEGIN", "BEGIN", "T"), ("UNLISTEN a", "UNLISTEN", "T"), ("COMMIT", "COMMIT", "I")], "b"),
        (vec![("BEGIN", "BEGIN", "T"), ("UNLISTEN a", "UNLISTEN", "T"), ("COMMIT", "ROLLBACK", "I")], "a b"),
        (vec![("UNLISTEN a; LISTEN a", "LISTEN", "I")], "a b"),
        (vec![("UNLISTEN *; LISTEN b", "LISTEN", "I")], "b"),
        (vec![("UNLISTEN a; LISTEN b; UNLISTEN *", "UNLISTEN", "I")], ""),
    ] {
        let mut talk = hearing(&["a", "b"]);
        for (text, tag, status) in &requests {
            talk.say(&query(text));
            talk.answer(&done(tag, status));
        }
        assert_eq!(hears(&mut talk).join(" "), left, "{requests:?}");
        assert_eq!(of(&mut talk).shrunk, left != "a b", "{requests:?}");
    }
    let mut talk = hearing(&["a"]);
    talk.say(&query("UNLISTEN a; SELECT 1/0"));
    talk.answer(&messages(&[(b'C', b"UNLISTEN\0"), (b'E', b"SERROR\0C22012\0\0"), READY]));
    assert_eq!(hears(&mut talk), ["a"], "it was rolled back");
}

#[test]
fn who_notifies_itself_says_more_behind_the_answer() {
    let mut talk = hearing(&["a"]);
    // With nobody to wait for the answers go out as they come.
    of(&mut talk).mailbox.borrow_mut().listener = None;
    let (notify, copy) = (query("NOTIFY a"), query("COPY t FROM STDIN; NOTIFY a"));
    let (sent, fed) = talk.try_say(&[notify.clone(), notify.clone(), query("BEGIN")].concat()).unwrap();
    assert_eq!((sent, fed.held), (notify.clone(), true));
    talk.answer(&done("NOTIFY", "I"));
    assert_eq!(talk.say(b""), notify);
    talk.answer(&done("NOTIFY", "I"));
    assert_eq!(talk.say(b""), query("BEGIN"));
    talk.answer(&done("BEGIN", "T"));
    assert_eq!(talk.say(&[notify.clone(), query("COMMIT")].concat()), notify);
    talk.answer(&done("NOTIFY", "T"));
    assert_eq!(talk.say(b""), query("COMMIT"), "the end of the transaction is what it waits for");
    talk.answer(&done("COMMIT", "I"));
    let data = messages(&[(b'd', b"1\n"), (b'c', b"")]);
    assert_eq!(talk.say(&[&*copy, &data, &notify].concat()), [copy, data].concat());
}

#[test]
fn discard_all_counts_also_where_settings_go_back_behind_it() {
    let mut talk = hearing(&["a"]);
    talk.client.startup = Rc::new(vec![("timezone".into(), "UTC".into())]);
    let sent = talk.say(&query("DISCARD ALL"));
    assert!(sent.len() > query("DISCARD ALL").len(), "the startup settings come back");
    talk.answer(&done("DISCARD ALL", "I"));
    talk.answer(&done("SET", "I"));
    assert_eq!(hears(&mut talk).join(" "), "");
}

#[test]
fn a_pipeline_gives_up_what_each_request_does() {
    let mut talk = hearing(&["a", "b"]);
    talk.say(&[query("UNLISTEN a"), query("UNLISTEN b"), query("SELECT 1")].concat());
    talk.answer(&done("UNLISTEN", "I"));
    assert_eq!(hears(&mut talk), ["b"]);
    talk.answer(&messages(&[(b'E', b"SERROR\0C22012\0\0"), READY]));
    assert_eq!(hears(&mut talk), ["b"]);
    talk.answer(&messages(&[DONE, READY]));
    assert_eq!(hears(&mut talk), ["b"]);
}

#[test]
fn a_prepared_unlisten_counts_when_it_is_bound() {
    let mut talk = hearing(&["a"]);
    let sync = (b'S', b"".as_slice());
    talk.say(&messages(&[(b'P', b"\0UNLISTEN a\0\0\0"), sync]));
    talk.answer(&messages(&[(b'1', b""), READY]));
    assert_eq!(hears(&mut talk), ["a"]);
    talk.say(&messages(&[(b'B', b"\0\0\0\0\0\0\0\0"), (b'E', b"\0\0\0\0\0"), sync]));
    talk.answer(&messages(&[(b'2', b""), (b'C', b"UNLISTEN\0"), READY]));
    assert!(hears(&mut talk).is_empty());
}

#[test]
fn the_marker_counts_only_while_the_server_listens_to_what_it_was_said_to() {
    for (listened, doubted, through) in [("b", false, true), ("b", true, false), ("b c", false, false)] {
        let mut talk = hearing(&["a"]);
        talk.server.pinned = true;
        talk.server.listened = channels(&listened.split(' ').collect::<Vec<_>>());
        talk.server.listened.extend(channels(&["marker"]));
        of(&mut talk).switch = Switch::Asked { number: 7, channels: channels(&["b"]) };
        let listened = talk.server.listened.clone();
        of(&mut talk).told(&listened);
        talk.server.doubted = doubted;
        assert_eq!(talk.answer(&told("b", "1")), told("b", "1"));
        assert_eq!(
            talk.answer(&[told("marker", "3 6"), told("marker", "2 7"), told("marker", "3 7")].concat()),
            b""
        );
        assert_eq!(of(&mut talk).switch, if through { Switch::Through } else { Switch::Missed });
        assert_eq!(talk.answer(&told("b", "2")).is_empty(), through);
    }
}

#[test]
fn a_listen_more_takes_everything_back_first() {
    let mut talk = hearing(&["a", "b"]);
    let sent = talk.say(&query("LISTEN c"));
    let ours = query("LISTEN \"a\";LISTEN \"b\";LISTEN \"marker\";NOTIFY \"marker\",'3 back 1'");
    assert_eq!(sent, [ours, query("LISTEN c")].concat());
    // The server comes to the marker before the listener does.
    let early =
        [told("a", "dropped"), told("marker", "3 back 1"), messages(&[(b'C', b"x\0"), READY])].concat();
    assert_eq!(talk.answer(&early), b"");
    assert!(hears(&mut talk).is_empty() && of(&mut talk).switch == Switch::Idle);
    let late =
        [messages(&[(b'C', b"LISTEN\0")]), told("c", "2"), told("a", "3"), messages(&[READY])].concat();
    assert_eq!(talk.answer(&late), done("LISTEN", "I"));
    let mailbox = of(&mut talk).mailbox.clone();
    mailbox.borrow_mut().push(&told("a", "1"), false);
    assert!(!of(&mut talk).fetch());
    assert_eq!(of(&mut talk).due, told("a", "1"));
    mailbox.borrow_mut().returned = 1;
    assert!(!of(&mut talk).fetch());
    assert_eq!(of(&mut talk).due, [told("a", "1"), told("c", "2"), told("a", "3")].concat());
    assert!(talk.server.pinned && talk.server.doubted);
}

#[test]
fn a_way_back_ends_with_a_rollback_or_with_the_listener() {
    let mut talk = hearing(&["a"]);
    talk.say(&query("BEGIN"));
    talk.answer(&done("BEGIN", "T"));
    assert!(talk.say(&query("LISTEN b")).len() > query("LISTEN b").len());
    talk.answer(&[done("x", "T"), done("LISTEN", "T")].concat());
    assert_eq!(of(&mut talk).switch, Switch::Returning);
    talk.say(&query("ROLLBACK"));
    talk.answer(&done("ROLLBACK", "I"));
    assert_eq!(of(&mut talk).switch, Switch::Idle);
    assert_eq!(hears(&mut talk), ["a"]);

    talk.say(&query("LISTEN b"));
    talk.answer(
        &[told("marker", "3 back 2"), messages(&[(b'C', b"x\0"), READY]), done("LISTEN", "I")].concat(),
    );
    assert!(of(&mut talk).awaits.is_some());
    of(&mut talk).mailbox.borrow_mut().listener = Some(2);
    assert!(of(&mut talk).fetch() && of(&mut talk).awaits.is_none());
}

#[test]
fn nothing_is_asked_where_it_would_fail_or_do_harm() {
    let plain = query("LISTEN b");
    let mut talk = hearing(&["a"]);
    talk.server.status = TxStatus::Failed;
    assert_eq!(talk.say(&plain), plain);
    let mut talk = hearing(&["a"]);
    assert_eq!(talk.say(&query("LISTEN a")), query("LISTEN a"), "it hears that already");
    let mut talk = hearing(&["a"]);
    talk.say(&query("BEGIN"));
    assert_eq!(talk.say(&plain), plain, "who knows what becomes of BEGIN");
    let mut talk = hearing(&[]);
    assert_eq!(talk.say(&plain), plain);
}

#[test]
fn more_than_may_wait_is_too_much() {
    let mut mailbox = Mailbox::default();
    let message = told("a", &"x".repeat(1000));
    let fits = MAX_UNREAD_BYTES / message.len();
    (0..fits).for_each(|_| mailbox.push(&message, false));
    assert!(!mailbox.overflown);
    mailbox.push(&message, true);
    assert!(mailbox.overflown);
}

#[test]
fn a_mailbox_forgets_channels_but_no_notices() {
    let mut mailbox = Mailbox::default();
    let notice = messages(&[(b'N', b"SWARNING\0\0")]);
    for message in [&told("a", "1"), &notice, &told("b", "2")] {
        mailbox.push(message, false);
    }
    mailbox.push(&told("b", "3"), true);
    mailbox.keep_only(&channels(&["b"]));
    mailbox.release();
    assert_eq!(mailbox.ready, [notice, told("b", "2"), told("b", "3")].concat());
}

#[test]
fn who_notifies_itself_is_answered_when_the_listener_has_told_everything() {
    let mut talk = hearing(&["a"]);
    talk.say(&query("NOTIFY a"));
    assert_eq!(talk.answer(&done("NOTIFY", "I")), messages(&[(b'C', b"NOTIFY\0")]), "the end waits");
    of(&mut talk).sync = Some(Return { number: 4, listener: 1 });
    assert_eq!(talk.answer(b""), b"");
    let mailbox = of(&mut talk).mailbox.clone();
    mailbox.borrow_mut().push(&told("a", "mine"), false);
    mailbox.borrow_mut().synced = 4;
    assert_eq!(talk.answer(b""), [told("a", "mine"), messages(&[READY])].concat());
    assert!(talk.is_over() && of(&mut talk).sync.is_none());
    // For a listener that is lost nobody waits.
    talk.say(&query("SELECT PG_Notify('a', '')"));
    mailbox.borrow_mut().listener = None;
    assert_eq!(talk.answer(&messages(&[DONE, READY])), messages(&[DONE, READY]));
    mailbox.borrow_mut().listener = Some(2);
    talk.say(&[query("SELECT 1"), query("NOTIFY a")].concat());
    assert_eq!(talk.answer(&done("SELECT 1", "I")), done("SELECT 1", "I"));
    assert_eq!(talk.answer(&done("NOTIFY", "I")), messages(&[(b'C', b"NOTIFY\0")]));
}
