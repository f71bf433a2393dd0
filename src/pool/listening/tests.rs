//! The book, without a server.

use std::task::Waker;

use super::*;
use crate::wire::frame;

fn channels(names: &[&str]) -> Channels {
    names.iter().map(|name| Channel::from(name.as_bytes())).collect()
}

fn marker() -> Channel {
    Channel::from(b"m".as_slice())
}

fn tell(book: &mut Book, channel: &str, payload: &str) {
    let mut message = Vec::new();
    frame::put(&mut message, b'A', |body| {
        body.extend_from_slice(&[0, 0, 0, 9]);
        body.extend_from_slice(format!("{channel}\0{payload}\0").as_bytes());
    });
    book.dispatch(&message, &marker());
}

/// Payloads that a client would be told now.
fn heard(hearing: &mut Hearing) -> String {
    hearing.fetch();
    let due = std::mem::take(&mut hearing.due);
    let payloads: Vec<_> = frames(&due)
        .map(|(_, body)| {
            notification(body)
                .map_or("notice".to_owned(), |(_, payload)| String::from_utf8_lossy(payload).into_owned())
        })
        .collect();
    payloads.join(" ")
}

fn batch(book: &mut Book) -> String {
    book.batch(b"\"m\"").map_or_else(String::new, |sql| String::from_utf8(sql).unwrap())
}

#[test]
fn a_client_hears_from_the_marker_on_and_only_when_its_server_has_come_to_it_too() {
    let listening = Listening::default();
    let (mut first, mut second) = (listening.enter(Waker::noop()), listening.enter(Waker::noop()));
    let mut book = listening.book.borrow_mut();
    book.found(first.place, &channels(&["a"]));
    let number = book.join(second.place, &channels(&["a", "b"]));
    assert_eq!(batch(&mut book), "LISTEN \"a\";LISTEN \"b\";NOTIFY \"m\",'1 1';");
    assert_eq!(batch(&mut book), "");
    tell(&mut book, "a", "1");
    tell(&mut book, "b", "2");
    assert_eq!((heard(&mut first), heard(&mut second)), ("1".to_owned(), String::new()));
    tell(&mut book, "m", &format!("{} {number}", second.place));
    tell(&mut book, "a", "3");
    assert_eq!((heard(&mut first), heard(&mut second)), ("3".to_owned(), String::new()));
    book.complete(second.place);
    tell(&mut book, "b", "4");
    assert_eq!(heard(&mut second), "3 4");
}

#[test]
fn the_listener_may_come_to_the_marker_last() {
    let listening = Listening::default();
    let mut client = listening.enter(Waker::noop());
    let mut book = listening.book.borrow_mut();
    let number = book.join(client.place, &channels(&["a"]));
    book.complete(client.place);
    tell(&mut book, "a", "before");
    tell(&mut book, "m", &format!("{} {}", client.place, number + 1));
    tell(&mut book, "a", "before");
    tell(&mut book, "m", &format!("{} {number}", client.place));
    tell(&mut book, "a", "behind");
    assert_eq!(heard(&mut client), "behind");
}

#[test]
fn who_stays_with_its_server_hears_nothing_of_what_it_came_with() {
    let listening = Listening::default();
    let mut client = listening.enter(Waker::noop());
    let mut book = listening.book.borrow_mut();
    book.found(client.place, &channels(&["a"]));
    let number = book.join(client.place, &channels(&["b"]));
    tell(&mut book, "m", &format!("{} {number}", client.place));
    tell(&mut book, "b", "no");
    tell(&mut book, "a", "yes");
    book.abort(client.place);
    tell(&mut book, "b", "no");
    assert_eq!(heard(&mut client), "yes");
    assert_eq!(batch(&mut book), "LISTEN \"a\";");
}

#[test]
fn what_nobody_hears_is_not_listened_to() {
    let listening = Listening::default();
    let (first, second) = (listening.enter(Waker::noop()), listening.enter(Waker::noop()));
    let mut book = listening.book.borrow_mut();
    book.found(first.place, &channels(&["a", "q\"x"]));
    book.found(second.place, &channels(&["a"]));
    assert_eq!(batch(&mut book), "LISTEN \"a\";LISTEN \"q\"\"x\";");
    book.keep_only(first.place, &channels(&["a"]));
    assert_eq!(batch(&mut book), "UNLISTEN \"q\"\"x\";");
    book.leave(first.place);
    assert_eq!(batch(&mut book), "");
    assert!(book.is_wanted());
    book.strike(second.place);
    assert!(!book.is_wanted());
    assert_eq!(batch(&mut book), "UNLISTEN \"a\";");
}

#[test]
fn channels_given_up_on_the_way_are_given_up() {
    let listening = Listening::default();
    let mut client = listening.enter(Waker::noop());
    let mut book = listening.book.borrow_mut();
    let number = book.join(client.place, &channels(&["a", "b"]));
    book.complete(client.place);
    book.keep_only(client.place, &channels(&["b"]));
    tell(&mut book, "m", &format!("{} {number}", client.place));
    tell(&mut book, "a", "no");
    tell(&mut book, "b", "yes");
    assert_eq!(heard(&mut client), "yes");
}

#[test]
fn a_long_batch_comes_in_parts_with_the_markers_last() {
    let listening = Listening::default();
    let client = listening.enter(Waker::noop());
    let mut book = listening.book.borrow_mut();
    let names: Vec<_> = (0..2000).map(|n| format!("channel_{n:050}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    book.join(client.place, &channels(&names));
    let mut parts = Vec::new();
    loop {
        let part = batch(&mut book);
        if part.is_empty() {
            break;
        }
        assert!(part.len() <= 2 * MAX_BATCH_BYTES);
        parts.push(part);
    }
    assert!(parts.len() > 5);
    let all = parts.concat();
    assert_eq!(all.matches("LISTEN").count(), 2000);
    assert!(
        all.ends_with(&format!("NOTIFY \"m\",'{}';", marker_payload(client.place, 1))),
        "{}",
        &all[all.len() - 80..]
    );
}

#[test]
fn a_lost_listener_leaves_those_who_heard_behind_and_the_others_where_they_are() {
    let listening = Listening::default();
    let (mut heard_a, mut joining, mut over) =
        (listening.enter(Waker::noop()), listening.enter(Waker::noop()), listening.enter(Waker::noop()));
    let mut book = listening.book.borrow_mut();
    book.make_ready();
    book.found(heard_a.place, &channels(&["a"]));
    book.join(joining.place, &channels(&["b"]));
    book.join(over.place, &channels(&["c"]));
    book.complete(over.place);
    batch(&mut book);
    book.lose();
    assert!(joining.mailbox.borrow().switch_lost && !over.mailbox.borrow().switch_lost);
    assert_eq!(heard_a.mailbox.borrow().listener, None);
    book.make_ready();
    assert_eq!(batch(&mut book), "LISTEN \"a\";LISTEN \"c\";NOTIFY \"m\",'begin 2';");
    let mut notice = Vec::new();
    frame::put(&mut notice, b'N', |body| body.push(0));
    book.tell_behind(&notice);
    assert_eq!([heard(&mut heard_a), heard(&mut joining), heard(&mut over)], ["notice", "", "notice"]);
}

#[test]
fn the_way_back_of_one_that_had_the_place_before_is_nobodys() {
    let listening = Listening::default();
    let first = listening.enter(Waker::noop());
    listening.leave(first.place);
    let mut second = listening.enter(Waker::noop());
    assert_eq!(first.place, second.place);
    let mut book = listening.book.borrow_mut();
    book.found(second.place, &channels(&["a"]));
    tell(&mut book, "m", &format!("{} back {}", first.place, (1_u64 << 32) + 1));
    tell(&mut book, "a", "yes");
    assert_eq!(heard(&mut second), "yes");
    tell(&mut book, "m", &format!("{} back {}", second.place, (2_u64 << 32) + 1));
    tell(&mut book, "a", "no");
    assert_eq!(heard(&mut second), "");
}

/// A client's server that becomes the listener has listened for a while: what it tells first, others may have heard.
#[test]
fn who_heard_the_lost_listener_hears_nothing_twice() {
    let listening = Listening::default();
    let (mut behind, mut founder) = (listening.enter(Waker::noop()), listening.enter(Waker::noop()));
    let mut book = listening.book.borrow_mut();
    book.make_ready();
    book.found(behind.place, &channels(&["a"]));
    batch(&mut book);
    tell(&mut book, "a", "1");
    assert_eq!(heard(&mut behind), "1");
    book.lose();
    book.found(founder.place, &channels(&["a"]));
    book.make_ready();
    book.set_listened(channels(&["a"]));
    tell(&mut book, "a", "1");
    assert_eq!(batch(&mut book), "NOTIFY \"m\",'begin 2';");
    tell(&mut book, "a", "2");
    tell(&mut book, "m", "begin 1");
    assert!(!book.is_restored(), "one that was lost has sent that");
    tell(&mut book, "m", "begin 2");
    assert!(book.is_restored());
    book.tell_behind(b"N\0\0\0\x05\0");
    tell(&mut book, "a", "3");
    assert_eq!((heard(&mut behind), heard(&mut founder)), ("notice 3".to_owned(), "1 2 3".to_owned()));
}

/// What was lost is told to those who still hear something when there is another listener.
#[test]
fn who_gives_up_everything_after_a_loss_hears_the_next_listener() {
    let listening = Listening::default();
    let mut client = listening.enter(Waker::noop());
    let mut book = listening.book.borrow_mut();
    book.make_ready();
    book.found(client.place, &channels(&["a"]));
    book.lose();
    book.keep_only(client.place, &Channels::new());
    assert!(!book.is_wanted());
    book.close();
    book.found(client.place, &channels(&["b"]));
    book.make_ready();
    assert_eq!(batch(&mut book), "LISTEN \"b\";");
    tell(&mut book, "b", "1");
    assert_eq!(heard(&mut client), "1");
}
